//! A table's declaration: columns and constraints, read and checked.
//!
//! All of it is checked before the storage transaction hears of it. What Arrow cannot hold (the n of `varchar(n)`,
//! defaults, generated columns, CHECK) goes into field and schema metadata, which the store keeps. Columns are read in
//! [`column`], keys in [`keys`].

mod column;
mod keys;

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::sqlparser::ast::{
    CheckConstraint, ColumnDef, Expr, ForeignKeyConstraint, SequenceOptions, TableConstraint, Visit, Visitor,
};
use rustydb_storage::{ForeignKey, NewIndex, NewTable, PRIMARY_KEY_NAME, TableDef, TableId};

use crate::constraints::{CHECKS_KEY, Check, checks_of, checks_text};
use crate::dml::defaults::{self, compile_over};
use crate::error::sqlstate;
use crate::sql::check::refuse;
use crate::sql::context::StatementContext;
use crate::sql::text::parse::fold;
use crate::sql::widths::check_table_width;
use crate::{Error, Result};

pub(super) use keys::check_comparable;

pub(crate) fn duplicate_column(name: &str) -> Error {
    Error::new(sqlstate::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
}

/// A table's declaration, read and checked.
#[derive(Default)]
pub(crate) struct Declaration {
    schema_name: String,
    name: String,
    pub(crate) fields: Vec<Field>,
    /// What else the schema's metadata says.
    metadata: HashMap<String, String>,
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

/// What a table takes over of another one. Keys and indexes name columns by their places in `fields`.
pub(super) struct TakenOver {
    pub(super) fields: Vec<Field>,
    pub(super) checks: Vec<Check>,
    pub(super) primary_key: Vec<usize>,
    pub(super) indexes: Vec<NewIndex>,
}

impl Declaration {
    /// Reads columns and constraints. `take_over` is asked before each column, and after the last, for what comes from
    /// elsewhere there.
    pub(super) fn read(
        context: &StatementContext,
        schema_name: &str,
        table: &str,
        columns: Vec<ColumnDef>,
        constraints: Vec<TableConstraint>,
        mut take_over: impl FnMut(&mut Declaration, usize) -> Result<()>,
    ) -> Result<Self> {
        let mut declaration =
            Declaration { schema_name: schema_name.to_owned(), name: table.to_owned(), ..Declaration::default() };
        let mut references = Vec::new();
        let count = columns.len();
        check_table_width(count)?;
        for (place, column) in columns.into_iter().enumerate() {
            take_over(&mut declaration, place)?;
            declaration.read_column(context, column, &mut references)?;
        }
        take_over(&mut declaration, count)?;
        check_table_width(declaration.fields.len())?;
        refuse(declaration.fields.is_empty(), "a table without columns")?;
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
            metadata: schema.metadata().clone(),
            primary_key: (!primary_key.is_empty()).then_some(PrimaryKey { name: declared, columns: primary_key }),
            foreign_keys,
            indexes,
            checks: checks_of(table)?,
            ..Declaration::default()
        })
    }

    /// Adds what comes from another table.
    pub(super) fn take_over(&mut self, other: TakenOver) -> Result<()> {
        let TakenOver { fields, checks, primary_key, indexes } = other;
        let first = self.fields.len();
        check_table_width(first.saturating_add(fields.len()))?;
        for field in fields {
            if self.fields.iter().any(|known| known.name() == field.name()) {
                return Err(duplicate_column(field.name()));
            }
            self.fields.push(field);
        }
        let moved = |columns: Vec<usize>| columns.into_iter().map(|column| first + column).collect();
        if !primary_key.is_empty() {
            self.require_no_primary_key()?;
            self.primary_key = Some(PrimaryKey { name: None, columns: moved(primary_key) });
        }
        for index in indexes {
            if index.primary {
                self.require_no_primary_key()?;
            }
            self.indexes.push(NewIndex { columns: moved(index.columns), ..index });
        }
        for check in checks {
            if !self.checks.contains(&check) {
                self.require_new_name(&check.name)?;
                self.checks.push(check);
            }
        }
        Ok(())
    }

    /// Whether nothing of the table is called so yet.
    pub(super) fn is_new_name(&self, name: &str) -> bool {
        self.require_new_name(name).is_ok()
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
        let Declaration { schema_name, name, mut fields, metadata, primary_key, foreign_keys, checks, indexes, .. } =
            self;
        let mut schema = Schema::new_with_metadata(Vec::<Field>::new(), metadata);
        schema.metadata.remove(PRIMARY_KEY_NAME);
        schema.metadata.remove(CHECKS_KEY);
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
