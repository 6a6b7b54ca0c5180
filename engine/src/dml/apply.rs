//! The last step of every change: rows that are ready go into the storage transaction, and what depends on them is
//! checked.
//!
//! A command that changes rows in several ways (MERGE, ON CONFLICT DO UPDATE) makes all its changes before any foreign key
//! is looked at ([`Effects`]): a changed row may refer to one that the same command inserts, and a row that referred to one
//! that goes may refer to another by then.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use rustydb_storage::{Error as StorageError, ForeignKey, TableDef, Transaction};

use super::foreign_key::{self, Before, Removal, Unchanged};
use crate::Result;
use crate::constraints::is_generated;
use crate::session::Statement;

/// What the changes of one command to one table mean for foreign keys.
#[derive(Default)]
pub(crate) struct Effects {
    new: Vec<NewRows>,
    removals: Vec<Removal>,
}

/// Rows put into the table.
struct NewRows {
    rows: RecordBatch,
    /// Of an UPDATE, the columns that may differ from what they were; `None` for new rows.
    assigned: Option<HashSet<usize>>,
    /// Which of them refer to what they referred to before.
    unchanged: Unchanged,
}

impl Effects {
    /// Checks what the new rows refer to, and does what the foreign keys want done for what is gone.
    pub(crate) async fn settle(
        self,
        statement: &Statement<'_>,
        transaction: &mut Transaction,
        table: &TableDef,
    ) -> Result<()> {
        for NewRows { rows, assigned, unchanged } in &self.new {
            let concerned = |foreign_key: &ForeignKey| match assigned {
                None => true,
                Some(assigned) => foreign_key.columns.iter().any(|column| assigned.contains(column)),
            };
            foreign_key::check_new_rows(statement, transaction, table, rows, concerned, unchanged).await?;
        }
        foreign_key::follow(statement, transaction, self.removals).await
    }
}

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
    let mut effects = Effects::default();
    let inserted = put_new(transaction, table, rows, free_in, &mut effects).await?;
    effects.settle(statement, transaction, table).await?;
    Ok(inserted)
}

/// The same without a look at foreign keys.
pub(crate) async fn put_new(
    transaction: &mut Transaction,
    table: &TableDef,
    rows: &RecordBatch,
    free_in: &[String],
    effects: &mut Effects,
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
    effects.new.push(NewRows { rows: rows.clone(), assigned: None, unchanged: Unchanged::default() });
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
    let mut effects = Effects::default();
    let changed = put_changed(transaction, table, keys, rows, assigned, &mut effects).await?;
    effects.settle(statement, transaction, table).await?;
    Ok(changed)
}

/// The same without a look at foreign keys.
pub(crate) async fn put_changed(
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    keys: &RecordBatch,
    rows: &RecordBatch,
    assigned: &[usize],
    effects: &mut Effects,
) -> Result<u64> {
    if rows.num_rows() == 0 {
        return Ok(0);
    }
    let columns = 0..table.schema.fields().len();
    let assigned: HashSet<usize> =
        columns.filter(|column| assigned.contains(column) || is_generated(table.schema.field(*column))).collect();
    let assigns = |column: usize| assigned.contains(&column);
    let before = Before::look(transaction, table, keys, assigns).await?;
    let unchanged = Unchanged::look(transaction, table, keys, rows, assigns).await?;
    let changed = transaction.update_assigned(table.id, keys, rows, assigns).await?;
    effects.new.push(NewRows { rows: rows.clone(), assigned: Some(assigned), unchanged });
    effects.removals.extend(before.updated(rows)?);
    Ok(changed)
}

/// Deletes the rows with these keys.
pub(crate) async fn delete_rows(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    keys: &RecordBatch,
) -> Result<u64> {
    let mut effects = Effects::default();
    let deleted = take_away(transaction, table, keys, &mut effects).await?;
    effects.settle(statement, transaction, table).await?;
    Ok(deleted)
}

/// The same without a look at foreign keys.
pub(crate) async fn take_away(
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    keys: &RecordBatch,
    effects: &mut Effects,
) -> Result<u64> {
    if keys.num_rows() == 0 {
        return Ok(0);
    }
    let before = Before::look(transaction, table, keys, |_| true).await?;
    let deleted = transaction.delete(table.id, keys).await?;
    effects.removals.extend(before.deleted());
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
