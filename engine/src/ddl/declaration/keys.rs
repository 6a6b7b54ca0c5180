//! Keys of a declaration: PRIMARY KEY, UNIQUE and FOREIGN KEY, of a column or of the table.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast::{
    ConstraintCharacteristics, ConstraintReferenceMatchKind, DeferrableInitial, Expr, ForeignKeyConstraint, Ident,
    IndexColumn, NullsDistinctOption, OrderByExpr, OrderByOptions, PrimaryKeyConstraint, ReferentialAction, Spanned,
    UniqueConstraint,
};
use rustydb_storage::{Deferral, ForeignKey, IndexDef, NewIndex, ReferenceAction, TableId};

use super::{Declaration, PrimaryKey, duplicate_column};
use crate::constraints::is_hidden;
use crate::error::{nearest, sqlstate};
use crate::sql::check::refuse;
use crate::sql::context::StatementContext;
use crate::sql::text::parse::{fold, place, table_name};
use crate::sql::types::name_of;
use crate::{Error, Result};

impl Declaration {
    pub(super) fn read_unique(&mut self, unique: UniqueConstraint) -> Result<()> {
        let UniqueConstraint {
            name,
            index_name,
            index_type_display: _,
            index_type,
            columns,
            index_options,
            characteristics,
            nulls_distinct,
        } = unique;
        refuse_index_clause(index_name.is_some() || index_type.is_some() || !index_options.is_empty())?;
        let columns = self.key_columns(columns, "UNIQUE")?;
        let nulls_distinct = !matches!(nulls_distinct, NullsDistinctOption::NotDistinct);
        self.add_unique(name, columns, nulls_distinct, deferral(characteristics)?)
    }

    pub(super) fn add_unique(
        &mut self,
        name: Option<Ident>,
        columns: Vec<usize>,
        nulls_distinct: bool,
        deferral: Deferral,
    ) -> Result<()> {
        let name = match name {
            Some(name) => {
                let name = fold(&name);
                self.require_new_name(&name)?;
                name
            }
            None => {
                let names: Vec<&str> = columns.iter().map(|column| self.fields[*column].name().as_str()).collect();
                self.free_name(format!("{}_{}_key", self.name, names.join("_")))
            }
        };
        self.indexes.push(NewIndex { nulls_distinct, deferral, ..NewIndex::new(name, columns, true) });
        Ok(())
    }

    pub(super) fn read_primary_key(&mut self, key: PrimaryKeyConstraint) -> Result<()> {
        let PrimaryKeyConstraint { name, index_name, index_type, columns, index_options, characteristics } = key;
        refuse_index_clause(index_name.is_some() || index_type.is_some() || !index_options.is_empty())?;
        let key_columns = self.key_columns(columns, "PRIMARY KEY")?;
        self.set_primary_key(name, key_columns, deferral(characteristics)?)
    }

    /// The columns a key lists, each once.
    pub(super) fn key_columns(&self, columns: Vec<IndexColumn>, what: &str) -> Result<Vec<usize>> {
        let mut key_columns = Vec::with_capacity(columns.len());
        for IndexColumn { column, operator_class } in columns {
            refuse(operator_class.is_some(), &format!("an operator class in {what}"))?;
            let OrderByExpr { expr, options: OrderByOptions { asc, nulls_first }, with_fill: _ } = column;
            refuse(asc == Some(false) || nulls_first.is_some(), &format!("an order in {what}"))?;
            let Expr::Identifier(ident) = expr else {
                return Err(Error::unsupported(format!("an expression in {what}")).at(place(expr.span())));
            };
            let column = self.column(&ident)?;
            if key_columns.contains(&column) {
                return Err(duplicate_column(&fold(&ident)).at(place(ident.span)));
            }
            key_columns.push(column);
        }
        Ok(key_columns)
    }

    pub(super) fn set_primary_key(
        &mut self,
        name: Option<Ident>,
        columns: Vec<usize>,
        deferral: Deferral,
    ) -> Result<()> {
        let name = name.map(|name| fold(&name));
        let another = self.indexes.iter().any(|index| index.primary);
        let before = match deferral {
            Deferral::Never => self.primary_key.replace(PrimaryKey { name, columns }).is_some(),
            // The rows of a table that is keyed by its primary key cannot share one, not even for a moment.
            Deferral::InitiallyImmediate | Deferral::InitiallyDeferred => {
                let name = name.unwrap_or_else(|| self.free_name(format!("{}_pkey", self.name)));
                self.require_new_name(&name)?;
                for column in &columns {
                    self.fields[*column] = self.fields[*column].clone().with_nullable(false);
                }
                self.indexes.push(NewIndex { deferral, primary: true, ..NewIndex::new(name, columns, true) });
                self.primary_key.is_some()
            }
        };
        match before || another {
            false => Ok(()),
            true => Err(second_primary_key()),
        }
    }

    pub(super) fn require_no_primary_key(&self) -> Result<()> {
        match self.primary_key.is_some() || self.indexes.iter().any(|index| index.primary) {
            false => Ok(()),
            true => Err(second_primary_key()),
        }
    }

    pub(super) fn read_foreign_key(&self, context: &StatementContext, key: ForeignKeyConstraint) -> Result<ForeignKey> {
        let ForeignKeyConstraint {
            name,
            index_name,
            columns,
            foreign_table,
            referred_columns,
            on_delete,
            on_update,
            match_kind,
            characteristics,
        } = key;
        refuse(index_name.is_some(), "an index clause in a key")?;
        let deferral = deferral(characteristics)?;
        let match_full = match match_kind {
            None | Some(ConstraintReferenceMatchKind::Simple) => false,
            Some(ConstraintReferenceMatchKind::Full) => true,
            Some(ConstraintReferenceMatchKind::Partial) => return Err(Error::unsupported("MATCH PARTIAL")),
        };
        let at = place(foreign_table.span());
        let (parent_schema, parent_name) = table_name(&foreign_table)?;
        let columns = columns.iter().map(|ident| self.column(ident)).collect::<Result<Vec<_>>>()?;
        let itself =
            parent_name == self.name && parent_schema.as_ref().is_none_or(|schema| *schema == self.schema_name);
        let (parent, parent_columns) = if itself {
            let deferrable = self.indexes.iter().find(|index| index.primary).map(|index| index.columns.clone());
            let key = self.primary_key.as_ref().map(|key| key.columns.clone()).or(deferrable).unwrap_or_default();
            let plain = |index: &&NewIndex| !index.columns.iter().any(|column| is_hidden(&self.fields[*column]));
            let unique = self.indexes.iter().filter(|index| index.unique).filter(plain);
            let unique = unique.map(|index| (index.columns.as_slice(), index.deferral)).collect();
            let (fields, is_keyed) = (self.fields.iter().collect(), self.primary_key.is_some());
            let parent = Referred { name: &self.name, fields, key: &key, is_keyed, unique };
            (TableId::SELF, self.match_parent(&columns, &parent, &referred_columns).map_err(|error| error.at(at))?)
        } else {
            let parent = context.table(parent_schema.as_deref(), &parent_name).map_err(|error| error.at(at))?;
            let fields = parent.schema.fields().iter().map(Arc::as_ref).collect();
            let own = crate::ddl::temporary::is_temporary(&self.schema_name);
            if own != crate::ddl::temporary::is_temporary(&parent.schema_name) {
                let what = if own { "temporary" } else { "permanent" };
                let message = format!("constraints on {what} tables may reference only {what} tables");
                return Err(Error::new(sqlstate::INVALID_TABLE_DEFINITION, message).at(at));
            }
            let plain = |index: &&IndexDef| !index.columns.iter().any(|column| is_hidden(parent.schema.field(*column)));
            let unique = parent.indexes.iter().filter(|index| index.unique).filter(plain);
            let unique = unique.map(|index| (index.columns.as_slice(), index.deferral)).collect();
            let key = parent.primary_key_constraint().map_or(&[][..], |(_, columns)| columns);
            let is_keyed = !parent.primary_key.is_empty();
            let referred = Referred { name: &parent.name, fields, key, is_keyed, unique };
            (parent.id, self.match_parent(&columns, &referred, &referred_columns).map_err(|error| error.at(at))?)
        };
        let name = match name {
            Some(name) => {
                let name = fold(&name);
                self.require_new_name(&name)?;
                name
            }
            None => {
                let names: Vec<&str> = columns.iter().map(|column| self.fields[*column].name().as_str()).collect();
                self.free_name(format!("{}_{}_fkey", self.name, names.join("_")))
            }
        };
        Ok(ForeignKey {
            name,
            columns,
            parent,
            parent_columns,
            match_full,
            on_delete: action_of(on_delete),
            on_update: action_of(on_update),
            deferrable: deferral.is_deferrable(),
            initially_deferred: deferral == Deferral::InitiallyDeferred,
            not_validated: false,
        })
    }

    /// The parent's columns for each referring column; they must be its primary key or those of a unique index.
    fn match_parent(&self, columns: &[usize], parent: &Referred<'_>, referred: &[Ident]) -> Result<Vec<usize>> {
        let invalid = |message: String| Error::new(sqlstate::INVALID_FOREIGN_KEY, message);
        let parent_columns = match referred {
            [] => parent.key.to_vec(),
            names => names.iter().map(|name| parent.column(&fold(name))).collect::<Result<Vec<_>>>()?,
        };
        let sorted = |columns: &[usize]| {
            let mut sorted = columns.to_vec();
            sorted.sort_unstable();
            sorted
        };
        let (given, key) = (sorted(&parent_columns), sorted(parent.key));
        let mut unique = parent.unique.iter().filter(|(columns, _)| sorted(columns) == given).peekable();
        let keyed = parent.is_keyed && given == key;
        if !keyed && unique.peek().is_some() && unique.all(|(_, deferral)| deferral.is_deferrable()) {
            let what = if given == key { "primary key" } else { "unique constraint" };
            let message = format!("cannot use a deferrable {what} for referenced table \"{}\"", parent.name);
            return Err(Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message));
        }
        let unique = parent.unique.iter().any(|(columns, _)| sorted(columns) == given);
        if given.is_empty() || (given != key && !unique) {
            if referred.is_empty() {
                let message = format!("there is no primary key for referenced table \"{}\"", parent.name);
                return Err(Error::new(sqlstate::UNDEFINED_OBJECT, message));
            }
            return Err(invalid(format!(
                "there is no unique constraint matching given keys for referenced table \"{}\"",
                parent.name
            )));
        }
        if columns.len() != parent_columns.len() {
            return Err(invalid("the numbers of referring and referred columns differ".to_owned()));
        }
        for (column, parent_column) in columns.iter().zip(&parent_columns) {
            check_comparable(&self.fields[*column], parent.fields[*parent_column])?;
        }
        Ok(parent_columns)
    }

    pub(super) fn column(&self, ident: &Ident) -> Result<usize> {
        let name = fold(ident);
        self.fields.iter().position(|field| *field.name() == name).ok_or_else(|| {
            let error =
                Error::new(sqlstate::UNDEFINED_COLUMN, format!("column \"{name}\" named in a key does not exist"))
                    .at(place(ident.span));
            match nearest(&name, self.fields.iter().map(|field| field.name().as_str())) {
                Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
                None => error,
            }
        })
    }
}

/// Whether values of a foreign key's column can be looked for among those it refers to. Each is looked for as a value of the
/// other type, which must not round it.
pub(in crate::ddl) fn check_comparable(child: &Field, parent: &Field) -> Result<()> {
    let same = match (child.data_type(), parent.data_type()) {
        (DataType::Decimal128(_, child_scale), DataType::Decimal128(_, parent_scale)) => child_scale == parent_scale,
        (left, right) => left == right || (left.is_integer() && right.is_integer()),
    };
    if same {
        return Ok(());
    }
    let message = format!(
        "column \"{}\" of type {} cannot refer to column \"{}\" of type {}",
        child.name(),
        name_of(child.data_type()),
        parent.name(),
        name_of(parent.data_type())
    );
    Err(Error::new(sqlstate::TYPE_MISMATCH, message))
}

fn second_primary_key() -> Error {
    Error::new(sqlstate::INVALID_TABLE_DEFINITION, "a table can have only one PRIMARY KEY")
}

fn action_of(action: Option<ReferentialAction>) -> ReferenceAction {
    match action {
        None | Some(ReferentialAction::NoAction) => ReferenceAction::NoAction,
        Some(ReferentialAction::Restrict) => ReferenceAction::Restrict,
        Some(ReferentialAction::Cascade) => ReferenceAction::Cascade,
        Some(ReferentialAction::SetNull) => ReferenceAction::SetNull,
        Some(ReferentialAction::SetDefault) => ReferenceAction::SetDefault,
    }
}

/// Whether a key is DEFERRABLE, and INITIALLY DEFERRED.
pub(super) fn deferral(characteristics: Option<ConstraintCharacteristics>) -> Result<Deferral> {
    let Some(ConstraintCharacteristics { deferrable, initially, enforced }) = characteristics else {
        return Ok(Deferral::Never);
    };
    refuse(enforced == Some(false), "NOT ENFORCED")?;
    let deferred = matches!(initially, Some(DeferrableInitial::Deferred));
    if deferred && deferrable == Some(false) {
        return Err(Error::syntax("constraint declared INITIALLY DEFERRED must be DEFERRABLE"));
    }
    Ok(match (deferred, deferrable) {
        (true, _) => Deferral::InitiallyDeferred,
        (false, Some(true)) => Deferral::InitiallyImmediate,
        (false, _) => Deferral::Never,
    })
}

/// The table a foreign key refers to, which may not exist yet.
struct Referred<'a> {
    name: &'a str,
    fields: Vec<&'a Field>,
    /// The primary key, and whether it is one whose check cannot wait.
    key: &'a [usize],
    is_keyed: bool,
    unique: Vec<(&'a [usize], Deferral)>,
}

impl Referred<'_> {
    fn column(&self, name: &str) -> Result<usize> {
        self.fields.iter().position(|field| field.name() == name).ok_or_else(|| {
            let message = format!("column \"{name}\" referenced in foreign key constraint does not exist");
            Error::new(sqlstate::UNDEFINED_COLUMN, message)
        })
    }
}

/// A key's index is always of the same kind.
pub(super) fn refuse_index_clause(has_index_clause: bool) -> Result<()> {
    refuse(has_index_clause, "an index clause in a key")
}
