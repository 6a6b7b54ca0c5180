//! The last step of every change: rows that are ready go into the storage transaction, and what depends on them is
//! checked.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use rustydb_storage::{Error as StorageError, ForeignKey, TableDef, Transaction};

use super::foreign_key::{self, Before};
use crate::Result;
use crate::constraints::is_generated;
use crate::session::Statement;

/// Puts new rows of the table's exact shape into it.
pub(crate) async fn insert_rows(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &TableDef,
    rows: &RecordBatch,
) -> Result<u64> {
    insert_free_rows(statement, transaction, table, rows, &[]).await
}

/// The same for rows whose values the snapshot shows as free in these constraints: if one is taken all the same, somebody
/// was first whom the snapshot does not show.
pub(crate) async fn insert_free_rows(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &TableDef,
    rows: &RecordBatch,
    free_in: &[String],
) -> Result<u64> {
    if rows.num_rows() == 0 {
        return Ok(0);
    }
    let inserted = transaction.insert(table.id, rows).await.map_err(|error| match error {
        StorageError::DuplicateKey { constraint, .. } if free_in.contains(&constraint) => {
            StorageError::Conflict { table: table.name.clone() }
        }
        error => error,
    })?;
    foreign_key::check_new_rows(statement, transaction, table, rows, |_| true).await?;
    Ok(inserted)
}

/// Replaces the rows with these keys. `assigned` are the columns that may differ.
pub(crate) async fn update_rows(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    keys: &RecordBatch,
    rows: &RecordBatch,
    assigned: &[usize],
) -> Result<u64> {
    if rows.num_rows() == 0 {
        return Ok(0);
    }
    let assigns = |column: usize| assigned.contains(&column) || is_generated(table.schema.field(column));
    let before = Before::look(transaction, table, keys, assigns).await?;
    let changed = transaction.update_assigned(table.id, keys, rows, assigns).await?;
    let concerned = |foreign_key: &ForeignKey| foreign_key.columns.iter().any(|column| assigns(*column));
    foreign_key::check_new_rows(statement, transaction, table, rows, concerned).await?;
    foreign_key::follow(statement, transaction, before.updated(rows)?).await?;
    Ok(changed)
}

/// Deletes the rows with these keys.
pub(crate) async fn delete_rows(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    keys: &RecordBatch,
) -> Result<u64> {
    if keys.num_rows() == 0 {
        return Ok(0);
    }
    let before = Before::look(transaction, table, keys, |_| true).await?;
    let deleted = transaction.delete(table.id, keys).await?;
    foreign_key::follow(statement, transaction, before.deleted()).await?;
    Ok(deleted)
}

/// The leading columns of a result as the table's key.
pub(crate) fn key_batch(table: &TableDef, columns: &[ArrayRef]) -> Result<RecordBatch> {
    let fields = table.key_columns().iter().map(|column| table.storage_schema().field(*column).clone());
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = columns[..schema.fields().len()].to_vec();
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The first row of each group of equal rows, in order. NULLs are equal here.
pub(crate) fn first_of_each(columns: &[ArrayRef]) -> Result<UInt32Array> {
    let sort_fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let encoded = RowConverter::new(sort_fields)?.convert_columns(columns)?;
    let mut seen = HashSet::with_capacity(encoded.num_rows());
    let first = |(index, row)| if seen.insert(row) { u32::try_from(index).ok() } else { None };
    Ok(UInt32Array::from_iter_values(encoded.iter().enumerate().filter_map(first)))
}
