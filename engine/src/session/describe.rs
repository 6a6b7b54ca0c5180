//! DESCRIBE: the columns of a table or of a query's result, as rows of text.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::ObjectName;

use crate::Result;
use crate::constraints::shown_columns;
use crate::sql::context::StatementContext;
use crate::sql::text::parse::table_name;
use crate::sql::types::{DEFAULT_KEY, declared_name};

pub(super) fn describe_table(context: &StatementContext, name: &ObjectName) -> Result<RecordBatch> {
    let (schema, name) = table_name(name)?;
    let table = context.table(schema.as_deref(), &name)?;
    let shown: Vec<usize> = (0..shown_columns(table)).collect();
    let key = table.primary_key_constraint();
    let in_key = |column: usize| key.as_ref().is_some_and(|(_, columns)| columns.contains(&column));
    describe_columns_with(&Arc::new(table.schema.project(&shown)?), in_key)
}

pub(super) fn describe_columns(schema: &SchemaRef) -> Result<RecordBatch> {
    describe_columns_with(schema, |_| false)
}

/// The schema of what DESCRIBE returns, for prepared statements.
pub(crate) fn describe_schema() -> Result<SchemaRef> {
    let empty = describe_columns(&Arc::new(arrow::datatypes::Schema::empty()))?;
    Ok(empty.schema())
}

fn describe_columns_with(schema: &SchemaRef, in_key: impl Fn(usize) -> bool) -> Result<RecordBatch> {
    let fields = schema.fields();
    let yes_no = |yes: bool| if yes { "YES" } else { "NO" }.to_owned();
    text_table(&[
        ("column_name", fields.iter().map(|field| field.name().clone()).collect()),
        ("data_type", fields.iter().map(|field| declared_name(field)).collect()),
        ("is_nullable", fields.iter().map(|field| yes_no(field.is_nullable())).collect()),
        ("primary_key", (0..fields.len()).map(|index| yes_no(in_key(index))).collect()),
        (
            "column_default",
            fields.iter().map(|field| field.metadata().get(DEFAULT_KEY).cloned().unwrap_or_default()).collect(),
        ),
    ])
}

/// A result made on the spot: named columns of text.
pub(crate) fn text_table(columns: &[(&str, Vec<String>)]) -> Result<RecordBatch> {
    let columns = columns.iter().map(|(name, values)| {
        let array: ArrayRef = Arc::new(StringArray::from_iter_values(values));
        (*name, array, false)
    });
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}
