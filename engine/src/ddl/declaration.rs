//! A table's declaration: columns and constraints, read and checked.
//!
//! All of it is checked before the storage transaction hears of it. What Arrow cannot hold (the n of `varchar(n)`,
//! defaults, generated columns, CHECK) goes into field and schema metadata, which the store keeps.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::sqlparser::ast::{
    CheckConstraint, ColumnDef, ColumnOption, ColumnOptionDef, ConstraintCharacteristics, ConstraintReferenceMatchKind,
    DataType as SqlType, DeferrableInitial, Expr, ForeignKeyConstraint, GeneratedAs, GeneratedExpressionMode, Ident,
    IndexColumn, NullsDistinctOption, OrderByExpr, OrderByOptions, PrimaryKeyConstraint, ReferentialAction,
    SequenceOptions, Spanned, TableConstraint, UniqueConstraint, Visit, Visitor,
};
use rustydb_storage::{ForeignKey, NewIndex, NewTable, PRIMARY_KEY_NAME, ReferenceAction, TableDef, TableId};

use crate::constraints::{CHECKS_KEY, Check, GENERATED_KEY, IDENTITY_KEY, checks_of, checks_text};
use crate::dml::defaults::{self, compile_over};
use crate::error::{nearest, sqlstate};
use crate::sql::check::refuse;
use crate::sql::context::StatementContext;
use crate::sql::parse::{fold, place, table_name};
use crate::sql::types::{DEFAULT_KEY, column_type, name_of};
use crate::{Error, Result};

pub(crate) fn duplicate_column(name: &str) -> Error {
    Error::new(sqlstate::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
}

/// A table's declaration, read and checked.
#[derive(Default)]
pub(crate) struct Declaration {
    schema_name: String,
    name: String,
    pub(crate) fields: Vec<Field>,
    primary_key: Option<PrimaryKey>,
    foreign_keys: Vec<ForeignKey>,
    /// The unique indexes of UNIQUE constraints.
    indexes: Vec<NewIndex>,
    checks: Vec<Check>,
    /// Checks without a name yet, with the column they were written at.
    unnamed_checks: Vec<(Option<String>, Expr)>,
    /// The sequences of serial and identity columns.
    pub(crate) sequences: Vec<ColumnSequence>,
}

/// A sequence that comes with a column.
pub(crate) struct ColumnSequence {
    pub(crate) column: String,
    /// Its name: `<table>_<column>_seq`.
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    pub(crate) options: Vec<SequenceOptions>,
    pub(crate) identity: bool,
}

struct PrimaryKey {
    name: Option<String>,
    columns: Vec<usize>,
}

impl Declaration {
    pub(crate) fn read(
        context: &StatementContext,
        schema_name: &str,
        table: &str,
        columns: Vec<ColumnDef>,
        constraints: Vec<TableConstraint>,
    ) -> Result<Self> {
        refuse(columns.is_empty(), "a table without columns")?;
        let mut declaration =
            Declaration { schema_name: schema_name.to_owned(), name: table.to_owned(), ..Declaration::default() };
        let mut references = Vec::new();
        for column in columns {
            declaration.read_column(context, column, &mut references)?;
        }
        for constraint in constraints {
            declaration.read_constraint(constraint, &mut references)?;
        }
        declaration.finish(context, references)?;
        Ok(declaration)
    }

    /// The declaration that an existing table amounts to, to add to.
    pub(super) fn of(table: &TableDef) -> Result<Self> {
        let NewTable { schema_name, name, schema, primary_key, mut foreign_keys, indexes } = table.to_new();
        for foreign_key in foreign_keys.iter_mut().filter(|foreign_key| foreign_key.parent == table.id) {
            foreign_key.parent = TableId::SELF;
        }
        let declared = schema.metadata().get(PRIMARY_KEY_NAME).cloned();
        Ok(Declaration {
            schema_name,
            name,
            fields: schema.fields().iter().map(|field| field.as_ref().clone()).collect(),
            primary_key: (!primary_key.is_empty()).then_some(PrimaryKey { name: declared, columns: primary_key }),
            foreign_keys,
            indexes,
            checks: checks_of(table)?,
            ..Declaration::default()
        })
    }

    pub(super) fn index_count(&self) -> usize {
        self.indexes.len()
    }

    /// ADD COLUMN.
    pub(super) fn add_column(&mut self, context: &StatementContext, column: ColumnDef) -> Result<()> {
        let mut references = Vec::new();
        self.read_column(context, column, &mut references)?;
        self.finish(context, references)
    }

    /// ADD CONSTRAINT.
    pub(super) fn add_constraint(&mut self, context: &StatementContext, constraint: TableConstraint) -> Result<()> {
        let mut references = Vec::new();
        self.read_constraint(constraint, &mut references)?;
        self.finish(context, references)
    }

    fn finish(&mut self, context: &StatementContext, references: Vec<ForeignKeyConstraint>) -> Result<()> {
        for reference in references {
            let foreign_key = self.read_foreign_key(context, reference)?;
            self.foreign_keys.push(foreign_key);
        }
        self.name_checks();
        Ok(())
    }

    fn read_constraint(
        &mut self,
        constraint: TableConstraint,
        references: &mut Vec<ForeignKeyConstraint>,
    ) -> Result<()> {
        match constraint {
            TableConstraint::PrimaryKey(key) => self.read_primary_key(key),
            TableConstraint::ForeignKey(key) => {
                references.push(key);
                Ok(())
            }
            TableConstraint::Unique(unique) => self.read_unique(unique),
            TableConstraint::UniqueUsingIndex(_) => Err(Error::unsupported("UNIQUE USING INDEX")),
            TableConstraint::Check(check) => self.read_check(check, None),
            TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_) => {
                Err(Error::unsupported("an index in CREATE TABLE").with_hint("Use CREATE INDEX."))
            }
            TableConstraint::PrimaryKeyUsingIndex(_) => Err(Error::unsupported("PRIMARY KEY USING INDEX")),
        }
    }

    /// The table to be created. A reference to itself has the parent [`TableId::SELF`].
    pub(crate) fn into_table(self) -> Result<NewTable> {
        let Declaration { schema_name, name, mut fields, primary_key, foreign_keys, checks, indexes, .. } = self;
        let mut schema = Schema::empty();
        let columns = match primary_key {
            None => Vec::new(),
            Some(PrimaryKey { name, columns }) => {
                for column in &columns {
                    fields[*column] = fields[*column].clone().with_nullable(false);
                }
                schema.metadata.extend(name.map(|name| (PRIMARY_KEY_NAME.to_owned(), name)));
                columns
            }
        };
        schema.metadata.extend(checks_text(&checks)?.map(|text| (CHECKS_KEY.to_owned(), text)));
        schema.fields = fields.into();
        Ok(NewTable { schema_name, name, schema: Arc::new(schema), primary_key: columns, foreign_keys, indexes })
    }

    /// Tries out the expressions of CHECK constraints and generated columns on the finished table.
    pub(crate) fn check_expressions(context: &StatementContext, table: &TableDef) -> Result<()> {
        for check in checks_of(table)? {
            compile_over(context, table, check.syntax()?, None)?;
        }
        for field in table.schema.fields() {
            let Some(syntax) = crate::constraints::generated_of(field)? else { continue };
            for used in columns_in(&syntax) {
                let other = table.schema.field_with_name(&used).ok();
                if other.is_some_and(crate::constraints::is_generated) {
                    let message = format!("cannot use generated column \"{used}\" in column generation expression");
                    return Err(Error::new(sqlstate::INVALID_OBJECT_DEFINITION, message));
                }
            }
            if defaults::is_volatile(context, table, syntax.clone())? {
                let message = "generation expression is not immutable";
                return Err(Error::new(sqlstate::INVALID_OBJECT_DEFINITION, message));
            }
            compile_over(context, table, syntax, Some(field.data_type()))?;
        }
        Ok(())
    }

    fn read_unique(&mut self, unique: UniqueConstraint) -> Result<()> {
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
        check_plain_key(index_name.is_some() || index_type.is_some() || !index_options.is_empty(), characteristics)?;
        let columns = self.key_columns(columns, "UNIQUE")?;
        self.add_unique(name, columns, !matches!(nulls_distinct, NullsDistinctOption::NotDistinct))
    }

    fn add_unique(&mut self, name: Option<Ident>, columns: Vec<usize>, nulls_distinct: bool) -> Result<()> {
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
        self.indexes.push(NewIndex { name, columns, unique: true, nulls_distinct });
        Ok(())
    }

    /// `base`, or `base` with the first number that makes it new.
    fn free_name(&self, base: String) -> String {
        (0..)
            .map(|number| if number == 0 { base.clone() } else { format!("{base}{number}") })
            .find(|name| self.require_new_name(name).is_ok())
            .unwrap_or(base)
    }

    fn read_check(&mut self, check: CheckConstraint, column: Option<&str>) -> Result<()> {
        let CheckConstraint { name, expr, enforced } = check;
        refuse(enforced == Some(false), "NOT ENFORCED")?;
        match name {
            Some(name) => {
                let name = fold(&name);
                self.require_new_name(&name)?;
                self.checks.push(Check { name, expression: expr.to_string(), not_validated: false });
            }
            None => self.unnamed_checks.push((column.map(str::to_owned), *expr)),
        }
        Ok(())
    }

    /// Names the checks that were not given a name, as PostgreSQL does.
    fn name_checks(&mut self) {
        for (column, expr) in std::mem::take(&mut self.unnamed_checks) {
            let used: BTreeSet<String> = columns_in(&expr);
            let column = column.or_else(|| (used.len() == 1).then(|| used.into_iter().next()).flatten());
            let base = match column {
                Some(column) => format!("{}_{column}_check", self.name),
                None => format!("{}_check", self.name),
            };
            let name = self.free_name(base);
            self.checks.push(Check { name, expression: expr.to_string(), not_validated: false });
        }
    }

    fn require_new_name(&self, name: &str) -> Result<()> {
        let taken = self.foreign_keys.iter().any(|known| known.name == name)
            || self.indexes.iter().any(|known| known.name == name)
            || self.checks.iter().any(|known| known.name == name);
        match taken {
            false => Ok(()),
            true => {
                Err(Error::new(sqlstate::DUPLICATE_OBJECT, format!("constraint \"{name}\" specified more than once"))
                    .with_hint("Name one of them with CONSTRAINT."))
            }
        }
    }

    fn read_column(
        &mut self,
        context: &StatementContext,
        column: ColumnDef,
        references: &mut Vec<ForeignKeyConstraint>,
    ) -> Result<()> {
        let ColumnDef { name: ident, data_type, options } = column;
        let (name, at) = (fold(&ident), place(ident.span));
        if self.fields.iter().any(|field| *field.name() == name) {
            return Err(duplicate_column(&name).at(at));
        }
        let serial = serial_type(&data_type);
        let mut field = match &serial {
            Some(integer) => Field::new(&name, integer.clone(), true),
            None => column_type(&data_type).map_err(|error| error.at(at))?.field(&name, true),
        };
        let mut sources = usize::from(serial.is_some());
        let mut nullable = None;
        let index = self.fields.len();
        let (mut in_primary_key, mut in_unique) = (None, None);
        for ColumnOptionDef { name: constraint_name, option } in options {
            match option {
                ColumnOption::Null if nullable == Some(false) => return Err(conflicting_null(&name).at(at)),
                ColumnOption::NotNull if nullable == Some(true) => return Err(conflicting_null(&name).at(at)),
                ColumnOption::Null => nullable = Some(true),
                ColumnOption::NotNull => nullable = Some(false),
                ColumnOption::Default(expr) => {
                    sources += 1;
                    let shown = expr.to_string();
                    check_default(context, expr, &field).map_err(|error| error.at(at))?;
                    field = with_metadata(field, DEFAULT_KEY, shown);
                }
                ColumnOption::Generated {
                    generated_as: GeneratedAs::ExpStored | GeneratedAs::Always,
                    generation_expr: Some(expr),
                    generation_expr_mode,
                    sequence_options: _,
                    generated_keyword: _,
                } => {
                    refuse(generation_expr_mode != Some(GeneratedExpressionMode::Stored), "a VIRTUAL column")?;
                    sources += 1;
                    field = with_metadata(field, GENERATED_KEY, expr.to_string());
                }
                ColumnOption::Generated { generated_as, sequence_options, generation_expr: None, .. } => {
                    sources += 1;
                    let integer = matches!(field.data_type(), DataType::Int16 | DataType::Int32 | DataType::Int64);
                    if !integer {
                        let message = "identity column type must be smallint, integer, or bigint";
                        return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message).at(at));
                    }
                    let kind = match generated_as {
                        GeneratedAs::Always => "always",
                        _ => "by default",
                    };
                    nullable = Some(false);
                    field = with_metadata(field, IDENTITY_KEY, kind.to_owned());
                    field = self.add_sequence(context, field, sequence_options.unwrap_or_default(), true);
                }
                ColumnOption::Unique(mut unique) => {
                    unique.name = unique.name.or(constraint_name);
                    in_unique = Some(unique);
                }
                ColumnOption::Check(mut check) => {
                    check.name = check.name.or(constraint_name);
                    self.read_check(check, Some(&name))?;
                }
                ColumnOption::PrimaryKey(mut key) => {
                    key.name = key.name.or(constraint_name);
                    in_primary_key = Some(key);
                }
                ColumnOption::ForeignKey(mut key) => {
                    key.name = key.name.or(constraint_name);
                    key.columns = vec![ident.clone()];
                    references.push(key);
                }
                other => return Err(unsupported_option(&other).at(at)),
            }
        }
        if sources > 1 {
            let message = format!("multiple default values specified for column \"{name}\" of table \"{}\"", self.name);
            return Err(Error::syntax(message).at(at));
        }
        if serial.is_some() {
            nullable = Some(false);
            field = self.add_sequence(context, field, Vec::new(), false);
        }
        if in_primary_key.is_some() && nullable == Some(true) {
            return Err(conflicting_null(&name).at(at));
        }
        self.fields.push(field.with_nullable(nullable.unwrap_or(true)));
        if let Some(mut unique) = in_unique {
            let distinct = !matches!(unique.nulls_distinct, NullsDistinctOption::NotDistinct);
            let name = unique.name.take();
            check_plain_key(
                unique.index_name.is_some() || unique.index_type.is_some() || !unique.index_options.is_empty(),
                unique.characteristics.take(),
            )?;
            self.add_unique(name, vec![index], distinct)?;
        }
        match in_primary_key {
            Some(PrimaryKeyConstraint { name, index_name, index_type, columns: _, index_options, characteristics }) => {
                check_plain_key(
                    index_name.is_some() || index_type.is_some() || !index_options.is_empty(),
                    characteristics,
                )?;
                self.set_primary_key(name, vec![index])
            }
            None => Ok(()),
        }
    }

    /// Notes the sequence that numbers a column, and makes its next value the column's default.
    fn add_sequence(
        &mut self,
        context: &StatementContext,
        field: Field,
        options: Vec<SequenceOptions>,
        identity: bool,
    ) -> Field {
        let base = format!("{}_{}_seq", self.name, field.name());
        let catalog = context.view().catalog();
        let taken = |name: &str| {
            use rustydb_storage::ObjectKind::{Sequence, View};
            catalog.find(&self.schema_name, name).is_some()
                || [View, Sequence].iter().any(|kind| catalog.find_object(*kind, &self.schema_name, name).is_some())
                || self.sequences.iter().any(|known| known.name == name)
        };
        let names = (0..).map(|number| if number == 0 { base.clone() } else { format!("{base}{number}") });
        let name = names.into_iter().find(|name| !taken(name)).unwrap_or(base.clone());
        let default = super::sequence::nextval_text(&self.schema_name, &name);
        let data_type = field.data_type().clone();
        self.sequences.push(ColumnSequence { column: field.name().clone(), name, data_type, options, identity });
        with_metadata(field, DEFAULT_KEY, default)
    }

    fn read_primary_key(&mut self, key: PrimaryKeyConstraint) -> Result<()> {
        let PrimaryKeyConstraint { name, index_name, index_type, columns, index_options, characteristics } = key;
        check_plain_key(index_name.is_some() || index_type.is_some() || !index_options.is_empty(), characteristics)?;
        let key_columns = self.key_columns(columns, "PRIMARY KEY")?;
        self.set_primary_key(name, key_columns)
    }

    /// The columns a key lists, each once.
    fn key_columns(&self, columns: Vec<IndexColumn>, what: &str) -> Result<Vec<usize>> {
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

    fn set_primary_key(&mut self, name: Option<Ident>, columns: Vec<usize>) -> Result<()> {
        let key = PrimaryKey { name: name.map(|name| fold(&name)), columns };
        match self.primary_key.replace(key) {
            None => Ok(()),
            Some(_) => Err(Error::new(sqlstate::INVALID_TABLE_DEFINITION, "a table can have only one PRIMARY KEY")),
        }
    }

    fn read_foreign_key(&self, context: &StatementContext, key: ForeignKeyConstraint) -> Result<ForeignKey> {
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
        let (deferrable, initially_deferred) = deferral(characteristics)?;
        match match_kind {
            None | Some(ConstraintReferenceMatchKind::Simple) => {}
            Some(ConstraintReferenceMatchKind::Full) => return Err(Error::unsupported("MATCH FULL")),
            Some(ConstraintReferenceMatchKind::Partial) => return Err(Error::unsupported("MATCH PARTIAL")),
        }
        let at = place(foreign_table.span());
        let (parent_schema, parent_name) = table_name(&foreign_table)?;
        let columns = columns.iter().map(|ident| self.column(ident)).collect::<Result<Vec<_>>>()?;
        let itself =
            parent_name == self.name && parent_schema.as_ref().is_none_or(|schema| *schema == self.schema_name);
        let (parent, parent_columns) = if itself {
            let key = self.primary_key.as_ref().map(|key| key.columns.clone()).unwrap_or_default();
            let unique = self.indexes.iter().map(|index| index.columns.as_slice()).collect();
            let parent = Referred { name: &self.name, fields: self.fields.iter().collect(), key: &key, unique };
            (TableId::SELF, self.match_parent(&columns, &parent, &referred_columns).map_err(|error| error.at(at))?)
        } else {
            let parent = context.table(parent_schema.as_deref(), &parent_name).map_err(|error| error.at(at))?;
            let fields = parent.schema.fields().iter().map(Arc::as_ref).collect();
            let unique = parent.indexes.iter().filter(|index| index.unique).map(|index| index.columns.as_slice());
            let unique = unique.collect();
            let referred = Referred { name: &parent.name, fields, key: &parent.primary_key, unique };
            (parent.id, self.match_parent(&columns, &referred, &referred_columns).map_err(|error| error.at(at))?)
        };
        let name = match name {
            Some(name) => fold(&name),
            None => {
                let names: Vec<&str> = columns.iter().map(|column| self.fields[*column].name().as_str()).collect();
                format!("{}_{}_fkey", self.name, names.join("_"))
            }
        };
        self.require_new_name(&name)?;
        Ok(ForeignKey {
            name,
            columns,
            parent,
            parent_columns,
            on_delete: action_of(on_delete),
            on_update: action_of(on_update),
            deferrable,
            initially_deferred,
            not_validated: false,
        })
    }

    /// The parent's columns for each referring column; they must be its primary key.
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
        if key.is_empty() || given != key {
            let unique = parent.unique.iter().any(|columns| sorted(columns) == given);
            if unique && !given.is_empty() {
                return Err(Error::unsupported("a foreign key that refers to a UNIQUE constraint")
                    .with_hint("Refer to the PRIMARY KEY."));
            }
            let message = match referred.is_empty() {
                true => format!("there is no primary key for referenced table \"{}\"", parent.name),
                false => {
                    format!(
                        "there is no unique constraint matching given keys for referenced table \"{}\"",
                        parent.name
                    )
                }
            };
            return Err(invalid(message));
        }
        if columns.len() != parent_columns.len() {
            return Err(invalid("the numbers of referring and referred columns differ".to_owned()));
        }
        for (column, parent_column) in columns.iter().zip(&parent_columns) {
            let (child, parent_field) = (&self.fields[*column], parent.fields[*parent_column]);
            let (left, right) = (child.data_type(), parent_field.data_type());
            if left != right && !(left.is_integer() && right.is_integer()) {
                let message = format!(
                    "column \"{}\" of type {} cannot refer to column \"{}\" of type {}",
                    child.name(),
                    name_of(left),
                    parent_field.name(),
                    name_of(right)
                );
                return Err(Error::new(sqlstate::TYPE_MISMATCH, message));
            }
        }
        Ok(parent_columns)
    }

    fn column(&self, ident: &Ident) -> Result<usize> {
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

fn conflicting_null(column: &str) -> Error {
    Error::syntax(format!("conflicting NULL and NOT NULL declarations for column \"{column}\""))
}

/// Works a default out once, so that one that can never fit is refused now and not with the first INSERT.
pub(super) fn check_default(context: &StatementContext, expr: Expr, field: &Field) -> Result<()> {
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
    let volatile = defaults::plan_default(context, expr.clone())?.is_volatile();
    let compiled = defaults::compile(context, expr, field.data_type())?;
    if !volatile {
        compiled.evaluate(&nothing)?;
    }
    Ok(())
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

/// Whether a foreign key is DEFERRABLE, and INITIALLY DEFERRED.
fn deferral(characteristics: Option<ConstraintCharacteristics>) -> Result<(bool, bool)> {
    let Some(ConstraintCharacteristics { deferrable, initially, enforced }) = characteristics else {
        return Ok((false, false));
    };
    refuse(enforced == Some(false), "NOT ENFORCED")?;
    let deferred = matches!(initially, Some(DeferrableInitial::Deferred));
    if deferred && deferrable == Some(false) {
        return Err(Error::syntax("constraint declared INITIALLY DEFERRED must be DEFERRABLE"));
    }
    Ok((deferred || deferrable == Some(true), deferred))
}

/// The table a foreign key refers to, which may not exist yet.
struct Referred<'a> {
    name: &'a str,
    fields: Vec<&'a Field>,
    key: &'a [usize],
    unique: Vec<&'a [usize]>,
}

impl Referred<'_> {
    fn column(&self, name: &str) -> Result<usize> {
        self.fields.iter().position(|field| field.name() == name).ok_or_else(|| {
            let message = format!("column \"{name}\" referenced in foreign key constraint does not exist");
            Error::new(sqlstate::UNDEFINED_COLUMN, message)
        })
    }
}

/// The integer type behind `serial` and its like.
fn serial_type(data_type: &SqlType) -> Option<DataType> {
    let SqlType::Custom(name, modifiers) = data_type else { return None };
    if !modifiers.is_empty() {
        return None;
    }
    match name.to_string().to_ascii_lowercase().as_str() {
        "smallserial" | "serial2" => Some(DataType::Int16),
        "serial" | "serial4" => Some(DataType::Int32),
        "bigserial" | "serial8" => Some(DataType::Int64),
        _ => None,
    }
}

fn with_metadata(field: Field, key: &str, value: String) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(key.to_owned(), value);
    field.with_metadata(metadata)
}

/// The columns an expression names.
pub(crate) fn columns_in(expr: &Expr) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(ident) => self.0.extend([fold(ident)]),
                Expr::CompoundIdentifier(parts) => self.0.extend(parts.last().map(fold)),
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(BTreeSet::new());
    let _ = expr.visit(&mut names);
    names.0
}

/// Keys are checked at the end of each statement; anything else is refused.
fn check_plain_key(has_index_clause: bool, characteristics: Option<ConstraintCharacteristics>) -> Result<()> {
    refuse(has_index_clause, "an index clause in a key")?;
    let Some(ConstraintCharacteristics { deferrable, initially, enforced }) = characteristics else { return Ok(()) };
    refuse(deferrable == Some(true), "DEFERRABLE")?;
    refuse(matches!(initially, Some(DeferrableInitial::Deferred)), "INITIALLY DEFERRED")?;
    refuse(enforced == Some(false), "NOT ENFORCED")
}

fn unsupported_option(option: &ColumnOption) -> Error {
    let what = match option {
        ColumnOption::Generated { .. } => "this kind of generated column",
        ColumnOption::Identity(_) => "IDENTITY or AUTOINCREMENT",
        ColumnOption::DialectSpecific(_) => "this column option",
        ColumnOption::CharacterSet(_) => "CHARACTER SET",
        ColumnOption::Collation(_) => "COLLATE",
        ColumnOption::Comment(_) => "COMMENT in CREATE TABLE",
        ColumnOption::OnUpdate(_) => "ON UPDATE of a column",
        ColumnOption::Materialized(_) | ColumnOption::Ephemeral(_) | ColumnOption::Alias(_) => {
            "a MATERIALIZED, EPHEMERAL or ALIAS column"
        }
        ColumnOption::Options(_) => "OPTIONS of a column",
        ColumnOption::OnConflict(_) => "ON CONFLICT of a column",
        ColumnOption::Policy(_) | ColumnOption::Tags(_) => "a policy or tag of a column",
        ColumnOption::Srid(_) | ColumnOption::Invisible => "this column option",
        ColumnOption::Null
        | ColumnOption::NotNull
        | ColumnOption::Default(_)
        | ColumnOption::PrimaryKey(_)
        | ColumnOption::Unique(_)
        | ColumnOption::Check(_)
        | ColumnOption::ForeignKey(_) => "this combination of column options",
    };
    Error::unsupported(what)
}
