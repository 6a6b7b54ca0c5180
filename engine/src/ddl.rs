//! CREATE TABLE, CREATE TABLE AS and DROP TABLE.
//!
//! A declaration is checked completely before the storage transaction hears of it. What Arrow cannot hold of it (the n of
//! `varchar(n)`, defaults) goes into field metadata, which the store keeps.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Schema};
use datafusion::sql::sqlparser::ast::{
    ColumnDef, ColumnOption, ColumnOptionDef, ConstraintCharacteristics, ConstraintReferenceMatchKind,
    DeferrableInitial, Expr, ForeignKeyConstraint, Ident, IndexColumn, ObjectName, OrderByExpr, OrderByOptions,
    PrimaryKeyConstraint, ReferentialAction, Spanned, TableConstraint,
};
use futures::StreamExt;
use rustydb_storage::{
    Catalog, ForeignKey, NewTable, PRIMARY_KEY_NAME, ReferenceAction, TableDef, Transaction, canonical_type,
};

use crate::dml::{defaults, insert::load, rows::RowCheck};
use crate::error::{nearest, sqlstate};
use crate::session::{Completion, Statement};
use crate::sql::check::refuse;
use crate::sql::context::StatementContext;
use crate::sql::parse::{fold, place, table_name};
use crate::sql::plan::{bind, make_ready, plan_query};
use crate::sql::route::CreateTableStatement;
use crate::sql::types::{DEFAULT_KEY, column_type, extension_type, name_of};
use crate::{DEFAULT_SCHEMA, Error, Result};

pub(crate) async fn create_table(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    create: CreateTableStatement,
) -> Result<Completion> {
    let CreateTableStatement { name, if_not_exists, columns, constraints, query } = create;
    let at = place(name.span());
    let (schema_name, table_name) = table_name(&name)?;
    let schema_name = schema_name.unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
    let context = statement.context(transaction.view());
    let catalog = Arc::clone(context.view().catalog());
    check_schema(&catalog, &schema_name).map_err(|error| error.at(at))?;
    if catalog.find(&schema_name, &table_name).is_some() {
        if if_not_exists {
            return Ok(Completion::new("CREATE TABLE"));
        }
        return Err(Error::new(sqlstate::DUPLICATE_TABLE, format!("table \"{table_name}\" already exists"))
            .with_hint("CREATE TABLE IF NOT EXISTS leaves an existing table as it is.")
            .at(at));
    }
    match query {
        None => {
            let declaration = Declaration::read(&context, &catalog, &table_name, columns, constraints)?;
            drop(context);
            transaction.create_table(declaration.into_table(schema_name, table_name))?;
            Ok(Completion::new("CREATE TABLE"))
        }
        Some(query) => {
            refuse(!constraints.is_empty() || !columns.is_empty(), "a column or constraint in CREATE TABLE … AS")
                .map_err(|error| error.with_hint("Name the columns in the query, with AS."))?;
            let ready = make_ready(&context, bind(plan_query(&context, *query)?, statement.parameters)?).await?;
            drop(context);
            let schema = Arc::new(schema_of_rows(&ready.schema())?);
            let (primary_key, foreign_keys) = (Vec::new(), Vec::new());
            let new_table =
                NewTable { schema_name, name: table_name, schema, primary_key, foreign_keys, indexes: Vec::new() };
            let table = transaction.create_table(new_table)?;
            let check = RowCheck::new(&table);
            let rows = statement
                .start(ready)
                .map(move |batch| batch.and_then(|batch| check.conform(batch.columns(), batch.num_rows())));
            let rows = load(statement, transaction, &table, rows).await?;
            Ok(Completion::of_rows("CREATE TABLE", rows))
        }
    }
}

pub(crate) fn drop_tables(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    names: &[ObjectName],
    if_exists: bool,
) -> Result<Completion> {
    let context = statement.context(transaction.view());
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let (schema, plain_name) = table_name(name)?;
        match context.table(schema.as_deref(), &plain_name) {
            Ok(table) => tables.push(table.id),
            Err(_) if if_exists => {}
            Err(error) => return Err(error.at(place(name.span()))),
        }
    }
    drop(context);
    // A table is created after those it refers to: the newest first, and both ends of a foreign key may go together.
    tables.sort_unstable();
    tables.dedup();
    for table in tables.into_iter().rev() {
        transaction.drop_table(table)?;
    }
    Ok(Completion::new("DROP TABLE"))
}

fn check_schema(catalog: &Catalog, schema: &str) -> Result<()> {
    if schema == DEFAULT_SCHEMA || catalog.tables().any(|table| table.schema_name == schema) {
        return Ok(());
    }
    Err(Error::new(sqlstate::INVALID_SCHEMA_NAME, format!("schema \"{schema}\" does not exist"))
        .with_hint("Tables are created in the schema \"public\"."))
}

/// The columns of a table made of rows, from a query or a client: those of the rows, all nullable.
pub(crate) fn schema_of_rows(schema: &Schema) -> Result<Schema> {
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = field.name();
        if fields.iter().any(|known| known.name() == name) {
            return Err(duplicate_column(name).with_hint("Give the columns different names with AS."));
        }
        fields.push(table_field(name, field.data_type())?.with_metadata(extension_type(field)));
    }
    if fields.is_empty() {
        return Err(Error::unsupported("a table without columns"));
    }
    Ok(Schema::new(fields))
}

/// A nullable column for values of any type a query can have.
fn table_field(name: &str, data_type: &DataType) -> Result<Field> {
    let stored = match data_type {
        // SELECT NULL has no type; text can hold whatever comes.
        DataType::Null => Some(DataType::Utf8View),
        // Digits are what counts, not the width they travel in.
        DataType::Decimal256(precision, scale) if *precision <= DECIMAL128_MAX_PRECISION => {
            Some(DataType::Decimal128(*precision, *scale))
        }
        other => canonical_type(other),
    };
    match stored {
        Some(stored) => Ok(Field::new(name, stored, true)),
        None => Err(Error::unsupported(format!("a column of type {} (\"{name}\")", name_of(data_type)))
            .with_hint("Cast it to a type a column can have.")),
    }
}

fn duplicate_column(name: &str) -> Error {
    Error::new(sqlstate::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
}

/// A table's declaration, read and checked.
#[derive(Default)]
struct Declaration {
    fields: Vec<Field>,
    primary_key: Option<PrimaryKey>,
    foreign_keys: Vec<ForeignKey>,
}

struct PrimaryKey {
    name: Option<String>,
    columns: Vec<usize>,
}

impl Declaration {
    fn read(
        context: &StatementContext,
        catalog: &Catalog,
        table: &str,
        columns: Vec<ColumnDef>,
        constraints: Vec<TableConstraint>,
    ) -> Result<Self> {
        refuse(columns.is_empty(), "a table without columns")?;
        let mut declaration = Declaration::default();
        let mut references = Vec::new();
        for column in columns {
            declaration.read_column(context, column, &mut references)?;
        }
        for constraint in constraints {
            match constraint {
                TableConstraint::PrimaryKey(key) => declaration.read_primary_key(key)?,
                TableConstraint::ForeignKey(key) => references.push(key),
                TableConstraint::Unique(_) | TableConstraint::UniqueUsingIndex(_) => {
                    return Err(Error::unsupported("UNIQUE").with_hint("A table can have a PRIMARY KEY."));
                }
                TableConstraint::Check(_) => return Err(Error::unsupported("CHECK")),
                TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_) => {
                    return Err(Error::unsupported("an index in CREATE TABLE"));
                }
                TableConstraint::PrimaryKeyUsingIndex(_) => return Err(Error::unsupported("PRIMARY KEY USING INDEX")),
            }
        }
        for reference in references {
            let foreign_key = declaration.read_foreign_key(catalog, table, reference)?;
            declaration.foreign_keys.push(foreign_key);
        }
        Ok(declaration)
    }

    fn into_table(self, schema_name: String, name: String) -> NewTable {
        let Declaration { mut fields, primary_key, foreign_keys } = self;
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
        schema.fields = fields.into();
        NewTable {
            schema_name,
            name,
            schema: Arc::new(schema),
            primary_key: columns,
            foreign_keys,
            indexes: Vec::new(),
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
        let column_type = column_type(&data_type).map_err(|error| error.at(at))?;
        let mut field = column_type.field(&name, true);
        let mut nullable = None;
        let index = self.fields.len();
        let mut in_primary_key = None;
        for ColumnOptionDef { name: constraint_name, option } in options {
            match option {
                ColumnOption::Null if nullable == Some(false) => return Err(conflicting_null(&name).at(at)),
                ColumnOption::NotNull if nullable == Some(true) => return Err(conflicting_null(&name).at(at)),
                ColumnOption::Null => nullable = Some(true),
                ColumnOption::NotNull => nullable = Some(false),
                ColumnOption::Default(expr) => {
                    let shown = expr.to_string();
                    check_default(context, expr, &field).map_err(|error| error.at(at))?;
                    let mut metadata = field.metadata().clone();
                    metadata.insert(DEFAULT_KEY.to_owned(), shown);
                    field = field.with_metadata(metadata);
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
        if in_primary_key.is_some() && nullable == Some(true) {
            return Err(conflicting_null(&name).at(at));
        }
        self.fields.push(field.with_nullable(nullable.unwrap_or(true)));
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

    fn read_primary_key(&mut self, key: PrimaryKeyConstraint) -> Result<()> {
        let PrimaryKeyConstraint { name, index_name, index_type, columns, index_options, characteristics } = key;
        check_plain_key(index_name.is_some() || index_type.is_some() || !index_options.is_empty(), characteristics)?;
        let mut key_columns = Vec::with_capacity(columns.len());
        for IndexColumn { column, operator_class } in columns {
            refuse(operator_class.is_some(), "an operator class in PRIMARY KEY")?;
            let OrderByExpr { expr, options: OrderByOptions { asc, nulls_first }, with_fill: _ } = column;
            refuse(asc == Some(false) || nulls_first.is_some(), "an order in PRIMARY KEY")?;
            let Expr::Identifier(ident) = expr else {
                return Err(Error::unsupported("an expression in PRIMARY KEY").at(place(expr.span())));
            };
            let column = self.column(&ident)?;
            if key_columns.contains(&column) {
                return Err(duplicate_column(&fold(&ident)).at(place(ident.span)));
            }
            key_columns.push(column);
        }
        self.set_primary_key(name, key_columns)
    }

    fn set_primary_key(&mut self, name: Option<Ident>, columns: Vec<usize>) -> Result<()> {
        let key = PrimaryKey { name: name.map(|name| fold(&name)), columns };
        match self.primary_key.replace(key) {
            None => Ok(()),
            Some(_) => Err(Error::new(sqlstate::INVALID_TABLE_DEFINITION, "a table can have only one PRIMARY KEY")),
        }
    }

    fn read_foreign_key(&self, catalog: &Catalog, table: &str, key: ForeignKeyConstraint) -> Result<ForeignKey> {
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
        check_plain_key(index_name.is_some(), characteristics)?;
        check_action("ON DELETE", on_delete)?;
        check_action("ON UPDATE", on_update)?;
        match match_kind {
            None | Some(ConstraintReferenceMatchKind::Simple) => {}
            Some(ConstraintReferenceMatchKind::Full) => return Err(Error::unsupported("MATCH FULL")),
            Some(ConstraintReferenceMatchKind::Partial) => return Err(Error::unsupported("MATCH PARTIAL")),
        }
        let at = place(foreign_table.span());
        let (parent_schema, parent_name) = table_name(&foreign_table)?;
        let parent_schema = parent_schema.unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
        let Some(parent) = catalog.find(&parent_schema, &parent_name) else {
            if parent_name == table {
                return Err(Error::unsupported("a foreign key from a table to itself").at(at));
            }
            let error = Error::new(sqlstate::UNDEFINED_TABLE, format!("table \"{parent_name}\" does not exist")).at(at);
            return Err(match nearest(&parent_name, catalog.tables().map(|table| table.name.as_str())) {
                Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
                None => error,
            });
        };
        let columns = columns.iter().map(|ident| self.column(ident)).collect::<Result<Vec<_>>>()?;
        let parent_columns = self.match_parent(&columns, parent, &referred_columns).map_err(|error| error.at(at))?;
        let name = match name {
            Some(name) => fold(&name),
            None => {
                let names: Vec<&str> = columns.iter().map(|column| self.fields[*column].name().as_str()).collect();
                format!("{table}_{}_fkey", names.join("_"))
            }
        };
        if self.foreign_keys.iter().any(|known| known.name == name) {
            return Err(Error::new(
                sqlstate::DUPLICATE_OBJECT,
                format!("constraint \"{name}\" specified more than once"),
            )
            .with_hint("Name one of them with CONSTRAINT."));
        }
        Ok(ForeignKey {
            name,
            columns,
            parent: parent.id,
            parent_columns,
            on_delete: ReferenceAction::NoAction,
            on_update: ReferenceAction::NoAction,
            deferrable: false,
            initially_deferred: false,
            not_validated: false,
        })
    }

    /// The parent's columns for each referring column; they must be its primary key.
    fn match_parent(&self, columns: &[usize], parent: &TableDef, referred: &[Ident]) -> Result<Vec<usize>> {
        let invalid = |message: String| Error::new(sqlstate::INVALID_FOREIGN_KEY, message);
        let parent_columns = match referred {
            [] => parent.primary_key.clone(),
            names => {
                names.iter().map(|name| defaults::column_index(parent, &fold(name))).collect::<Result<Vec<_>>>()?
            }
        };
        let (mut given, mut key) = (parent_columns.clone(), parent.primary_key.clone());
        given.sort_unstable();
        key.sort_unstable();
        if key.is_empty() || given != key {
            let message = format!("the columns referred to are not the primary key of table \"{}\"", parent.name);
            return Err(invalid(message).with_hint("A foreign key refers to a PRIMARY KEY."));
        }
        if columns.len() != parent_columns.len() {
            return Err(invalid("the numbers of referring and referred columns differ".to_owned()));
        }
        for (column, parent_column) in columns.iter().zip(&parent_columns) {
            let (child, parent_field) = (&self.fields[*column], parent.schema.field(*parent_column));
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
fn check_default(context: &StatementContext, expr: Expr, field: &Field) -> Result<()> {
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
    defaults::compile(context, expr, field.data_type())?.evaluate(&nothing)?;
    Ok(())
}

fn check_action(clause: &str, action: Option<ReferentialAction>) -> Result<()> {
    match action {
        None | Some(ReferentialAction::NoAction | ReferentialAction::Restrict) => Ok(()),
        Some(action @ (ReferentialAction::Cascade | ReferentialAction::SetNull | ReferentialAction::SetDefault)) => {
            Err(Error::unsupported(format!("{clause} {action}")).with_hint("NO ACTION and RESTRICT are."))
        }
    }
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
        ColumnOption::Unique(_) => return Error::unsupported("UNIQUE").with_hint("A table can have a PRIMARY KEY."),
        ColumnOption::Check(_) => "CHECK",
        ColumnOption::Generated { .. } => "GENERATED",
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
        | ColumnOption::ForeignKey(_) => "this combination of column options",
    };
    Error::unsupported(what)
}
