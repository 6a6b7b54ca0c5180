//! CREATE TABLE and CREATE TABLE AS; what CREATE TABLE (LIKE …) copies is in [`super::like`].

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Schema};
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Spanned};
use futures::StreamExt;
use rustydb_storage::{NewTable, ObjectKind, Transaction, canonical_type};

use super::declaration::{Declaration, duplicate_column};
use super::like::Copies;
use super::sequence::create_column_sequence;
use super::temporary::ON_COMMIT_KEY;
use crate::dml::{insert::load, rows::RowCheck};
use crate::error::sqlstate;
use crate::functions::zones::zone_of;
use crate::session::{Completion, Statement};
use crate::sql::check::refuse;
use crate::sql::context::StatementContext;
use crate::sql::declared::{declared_columns, stored_columns};
use crate::sql::names::shown;
use crate::sql::plan::{bind, make_ready, plan_query};
use crate::sql::route::CreateTableStatement;
use crate::sql::rules::session_zone::is_utc;
use crate::sql::text::parse::{fold, place, table_name};
use crate::sql::types::{extension_type, name_of};
use crate::sql::widths::check_table_width;
use crate::{Error, Result};

/// The schema and name a new relation gets, or `None` if there is one already and that is fine.
pub(super) fn new_name(
    context: &StatementContext,
    name: &ObjectName,
    if_not_exists: bool,
    temporary: bool,
) -> Result<Option<(String, String)>> {
    let at = place(name.span());
    let (schema, plain_name) = table_name(name)?;
    let schema = context.schema_for_new(schema, temporary).map_err(|error| error.at(at))?;
    let catalog = context.view().catalog();
    let object = |kind| catalog.find_object(kind, &schema, &plain_name).is_some();
    if catalog.find(&schema, &plain_name).is_some() || object(ObjectKind::View) || object(ObjectKind::Sequence) {
        if if_not_exists {
            return Ok(None);
        }
        let what = if catalog.find(&schema, &plain_name).is_some() { "table" } else { "relation" };
        return Err(Error::new(sqlstate::DUPLICATE_TABLE, format!("{what} \"{plain_name}\" already exists"))
            .with_hint("IF NOT EXISTS leaves what exists as it is.")
            .at(at));
    }
    Ok(Some((schema, plain_name)))
}

pub(crate) async fn create_table(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    create: CreateTableStatement,
) -> Result<Completion> {
    let CreateTableStatement {
        name,
        if_not_exists,
        temporary,
        on_commit,
        columns,
        constraints,
        query,
        names,
        without_rows,
        likes,
    } = create;
    let context = statement.context(transaction.view());
    let Some((schema_name, table_name)) = new_name(&context, &name, if_not_exists, temporary)? else {
        return Ok(Completion::new("CREATE TABLE"));
    };
    match query {
        None => {
            let mut copies = Copies::default();
            let names = (schema_name.as_str(), table_name.as_str());
            let mut declaration =
                Declaration::read(&context, names.0, names.1, columns, constraints, |declaration, place| {
                    let mut here = likes.iter().filter(|like| like.place == place);
                    here.try_for_each(|like| copies.copy(&context, declaration, names, like))
                })?;
            drop(context);
            let sequences = std::mem::take(&mut declaration.sequences);
            let mut new_table = declaration.into_table()?;
            set_on_commit(&mut new_table, on_commit);
            let table = transaction.create_table(new_table)?;
            for sequence in sequences {
                create_column_sequence(transaction, &table, sequence)?;
            }
            Declaration::check_expressions(&statement.context(transaction.view()), &table)?;
            copies.complete(statement, transaction, table).await?;
            Ok(Completion::new("CREATE TABLE"))
        }
        Some(query) => {
            refuse(!constraints.is_empty() || !columns.is_empty(), "a column or constraint in CREATE TABLE … AS")
                .map_err(|error| error.with_hint("Name the columns in the query, with AS."))?;
            let plan = plan_query(&context, *query)?;
            let declarations = declared_columns(&plan);
            let ready = make_ready(&context, bind(plan, statement.parameters)?).await?;
            drop(context);
            let schema = schema_of_rows(&renamed(&shown(&ready.schema()), &names)?)?;
            let schema = stored_columns(&schema, &declarations);
            let mut new_table = plain_table(schema_name, table_name, Arc::new(schema));
            set_on_commit(&mut new_table, on_commit);
            let table = transaction.create_table(new_table)?;
            if without_rows {
                return Ok(Completion::new("CREATE TABLE"));
            }
            let check = RowCheck::new(&statement.context(transaction.view()), &table)?;
            let rows = statement
                .start(ready)
                .map(move |batch| batch.and_then(|batch| check.conform(batch.columns(), batch.num_rows())));
            let rows = load(statement, transaction, &table, rows).await?;
            Ok(Completion::of_rows("CREATE TABLE", rows))
        }
    }
}

/// Notes what a commit does to a temporary table.
pub(super) fn set_on_commit(table: &mut NewTable, on_commit: Option<&'static str>) {
    if let Some(what) = on_commit {
        let mut schema = table.schema.as_ref().clone();
        schema.metadata.insert(ON_COMMIT_KEY.to_owned(), what.to_owned());
        table.schema = Arc::new(schema);
    }
}

/// The columns of a query under the names that CREATE TABLE … AS gives the first of them.
fn renamed(schema: &Schema, names: &[Ident]) -> Result<Schema> {
    if names.len() > schema.fields().len() {
        let at = names.get(schema.fields().len()).and_then(|name| place(name.span));
        return Err(Error::syntax("too many column names were specified").at(at));
    }
    let fields = schema.fields().iter().enumerate().map(|(index, field)| match names.get(index) {
        Some(name) => Arc::new(field.as_ref().clone().with_name(fold(name))),
        None => Arc::clone(field),
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// A table of columns and nothing else.
pub(crate) fn plain_table(schema_name: String, name: String, schema: Arc<Schema>) -> NewTable {
    NewTable { schema_name, name, schema, primary_key: Vec::new(), foreign_keys: Vec::new(), indexes: Vec::new() }
}

/// The columns of a table made of rows, from a query or a client: those of the rows, all nullable.
pub(crate) fn schema_of_rows(schema: &Schema) -> Result<Schema> {
    check_table_width(schema.fields().len())?;
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
            canonical_type(&DataType::Decimal128(*precision, *scale))
        }
        other => canonical_type(other),
    };
    let stored = match stored {
        // As some clients spell it, who mean nothing else.
        Some(DataType::Timestamp(unit, Some(zone))) if zone_of(&zone).is_err() && is_utc(&zone) => {
            Some(DataType::Timestamp(unit, Some("UTC".into())))
        }
        stored => stored,
    };
    if let Some(DataType::Timestamp(_, Some(zone))) = &stored {
        // Nobody could read the values: clients show them by this zone's clock.
        zone_of(zone).map_err(|error| error.map_message(|text| format!("column \"{name}\": {text}")))?;
    }
    match stored {
        Some(stored) => Ok(Field::new(name, stored, true)),
        None => Err(Error::unsupported(format!("a column of type {} (\"{name}\")", name_of(data_type)))
            .with_hint("Cast it to a type a column can have.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_more_columns_than_a_table_may_have_make_none() {
        let rows = |columns: usize| {
            let fields = (0..columns).map(|place| Field::new(format!("c{place}"), DataType::Boolean, true));
            schema_of_rows(&Schema::new(fields.collect::<Vec<_>>()))
        };
        assert_eq!(rows(2).unwrap().fields().len(), 2);
        assert_eq!(rows(1_601).unwrap_err().sqlstate(), "54011");
    }
}
