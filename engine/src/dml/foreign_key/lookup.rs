//! Finding rows by the columns that a foreign key refers to: a primary key, or those of a unique index.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use datafusion::catalog::MemTable;
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlanBuilder};
use rustydb_storage::{ReadView, TableDef};

use crate::Result;
use crate::catalog::provider::ColumnTable;
use crate::dml::apply::key_batch;
use crate::dml::modify::run;
use crate::session::Statement;

/// The rows that have some values.
pub(super) struct Holders {
    /// For each value looked for, whether a row has it.
    pub(super) found: Vec<bool>,
    /// The keys of these rows.
    pub(super) keys: RecordBatch,
}

/// Finds the visible rows whose `columns` have the values in `wanted`, none of which is NULL.
pub(super) async fn find_holders(
    statement: &Statement<'_>,
    view: ReadView,
    table: &Arc<TableDef>,
    columns: &[usize],
    wanted: &RecordBatch,
) -> Result<Holders> {
    if columns == table.primary_key {
        let found = view.lookup(table.id, wanted).await?;
        let keys = filter_record_batch(wanted, &BooleanArray::from(found.clone()))?;
        return Ok(Holders { keys: key_batch(table, keys.columns())?, found });
    }
    let numbers: ArrayRef =
        Arc::new(UInt32Array::from_iter_values(0..u32::try_from(wanted.num_rows()).unwrap_or(u32::MAX)));
    let mut fields: Vec<Field> = wanted
        .columns()
        .iter()
        .enumerate()
        .map(|(place, column)| Field::new(place.to_string(), column.data_type().clone(), true))
        .collect();
    fields.push(Field::new("number", DataType::UInt32, false));
    let schema = Arc::new(Schema::new(fields));
    let mut values = wanted.columns().to_vec();
    values.push(numbers);
    let values = RecordBatch::try_new(Arc::clone(&schema), values)?;
    let source = provider_as_source(Arc::new(MemTable::try_new(schema, vec![vec![values]])?));
    let wanted_plan = LogicalPlanBuilder::scan("wanted", source, None)?.build()?;
    let context = statement.context(view);
    let source = provider_as_source(Arc::new(ColumnTable::with_hidden_columns(table, context.view())?));
    let name = |column: &usize| Column::new(Some("holder"), table.storage_schema().field(*column).name());
    let left: Vec<Column> = columns.iter().map(name).collect();
    let right: Vec<Column> = (0..columns.len()).map(|place| Column::new(Some("wanted"), place.to_string())).collect();
    let mut list: Vec<Expr> = table.key_columns().iter().map(|column| Expr::Column(name(column))).collect();
    list.push(Expr::Column(Column::new(Some("wanted"), "number")));
    let plan = LogicalPlanBuilder::scan("holder", source, None)?
        .join(wanted_plan, JoinType::Inner, (left, right), None)?
        .project(list)?
        .build()?;
    let rows = run(statement, context, plan).await?;
    let mut found = vec![false; wanted.num_rows()];
    for number in rows.column(table.key_columns().len()).as_primitive::<UInt32Type>().values() {
        found[*number as usize] = true;
    }
    Ok(Holders { found, keys: key_batch(table, rows.columns())? })
}
