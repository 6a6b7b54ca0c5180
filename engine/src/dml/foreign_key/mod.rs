//! Foreign keys, checked against the state after a change, and the actions that follow one.
//!
//! | change | what follows | where |
//! |---|---|---|
//! | few new rows in the child | look their keys up in the parent | [`child`] |
//! | a bulk load into the child | one anti join of the child with the parent | [`child`] |
//! | rows or keys gone from the parent | join of the child with the keys that are gone: an error, or its rows change, too | [`parent`] |
//!
//! Actions are followed with a list of work, not by recursion: a chain of rows that refer to each other may be as long as
//! the table. Checks (NO ACTION, RESTRICT) come after all actions of the statement. A deferred check is noted by its
//! constraint only and made before the transaction commits ([`check_deferred`]), for the rows that it has written by then,
//! or for the whole table if some of them came in bulk.
//!
//! Against races: whoever refers to a parent locks it KEY SHARE, and whoever removes a parent, or changes what others
//! refer to, has it locked UPDATE and then looks at the newest committed children, whatever its snapshot is; a child that it
//! finds is locked KEY SHARE, so that whoever is taking it away is waited for. A bulk load locks the parents' table instead
//! of each parent. MATCH SIMPLE: a key with a NULL in it refers to nothing and is always right.

mod child;
mod deferred;
mod lookup;
mod parent;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use rustydb_storage::{ForeignKey, ReadView, TableDef, TableId, Transaction};

pub(crate) use child::{Unchanged, check_new_rows, check_rows_of, check_whole_table};
pub(crate) use deferred::{DeferredChecks, check_deferred, set_constraints};
pub(crate) use parent::{Before, Removal, follow};

use crate::catalog::provider::ColumnTable;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::plan::make_ready;
use crate::{Error, Result};

/// The foreign keys that refer to a table, its own included.
fn referring(view: &ReadView, parent: TableId) -> Vec<(Arc<TableDef>, ForeignKey)> {
    let keys_of = |child: &Arc<TableDef>| {
        let child = Arc::clone(child);
        let refers = child.foreign_keys.clone().into_iter().filter(move |foreign_key| foreign_key.parent == parent);
        refers.map(move |foreign_key| (Arc::clone(&child), foreign_key))
    };
    view.catalog().tables().flat_map(keys_of).collect()
}

/// The foreign keys, and their tables, that refer to a table by these columns, in whatever order.
pub(crate) fn references_to(
    transaction: &Transaction,
    table: &TableDef,
    columns: &[usize],
) -> Vec<(Arc<TableDef>, ForeignKey)> {
    let wanted: BTreeSet<usize> = columns.iter().copied().collect();
    let same = |key: &ForeignKey| key.parent_columns.iter().copied().collect::<BTreeSet<usize>>() == wanted;
    { referring(&transaction.view(), table.id) }.into_iter().filter(|(_, foreign_key)| same(foreign_key)).collect()
}

/// The foreign keys, and their tables, that refer to a table by one of these columns, perhaps beside others.
pub(crate) fn references_with(
    transaction: &Transaction,
    table: &TableDef,
    concerned: impl Fn(usize) -> bool,
) -> Vec<(Arc<TableDef>, ForeignKey)> {
    let concerns = |key: &ForeignKey| key.parent_columns.iter().any(|column| concerned(*column));
    { referring(&transaction.view(), table.id) }.into_iter().filter(|(_, foreign_key)| concerns(foreign_key)).collect()
}

/// The columns of its parent that a foreign key refers to: the primary key in key order, or in the order of the foreign
/// key those of a unique index.
fn referred_columns(parent: &TableDef, foreign_key: &ForeignKey) -> Vec<usize> {
    let sorted = |columns: &[usize]| columns.iter().copied().collect::<BTreeSet<usize>>();
    match sorted(&foreign_key.parent_columns) == sorted(&parent.primary_key) {
        true => parent.primary_key.clone(),
        false => foreign_key.parent_columns.clone(),
    }
}

fn scan(
    context: &StatementContext,
    alias: &str,
    table: &Arc<TableDef>,
    columns: &[usize],
) -> Result<LogicalPlanBuilder> {
    let source = provider_as_source(Arc::new(ColumnTable::new(table, context.view())?));
    Ok(LogicalPlanBuilder::scan(alias, source, Some(columns.to_vec()))?)
}

/// A column's name in a plan, quoted so that any name will do.
fn qualified(alias: &str, table: &TableDef, column: usize) -> String {
    format!("{alias}.\"{}\"", table.schema.field(column).name().replace('"', "\"\""))
}

async fn first_row(
    statement: &Statement<'_>,
    context: &StatementContext,
    plan: LogicalPlan,
) -> Result<Option<RecordBatch>> {
    let ready = make_ready(context, plan).await?;
    let batches = statement.start(ready).collect().await?;
    Ok(batches.into_iter().find(|batch| batch.num_rows() > 0))
}

fn parent_of(view: &ReadView, foreign_key: &ForeignKey) -> Result<Arc<TableDef>> {
    let parent = view.catalog().table(foreign_key.parent);
    parent
        .cloned()
        .ok_or_else(|| Error::internal(format!("the parent of foreign key \"{}\" is gone", foreign_key.name)))
}

/// The values of a row, for people: `1, abc`.
fn key_text(keys: &RecordBatch, row: usize) -> Result<String> {
    let options = FormatOptions::default().with_null("null");
    let value = |column: &ArrayRef| Ok(ArrayFormatter::try_new(column, &options)?.value(row).to_string());
    Ok(keys.columns().iter().map(value).collect::<Result<Vec<_>>>()?.join(", "))
}

fn column_names(table: &TableDef, columns: &[usize]) -> String {
    columns.iter().map(|column| table.schema.field(*column).name().as_str()).collect::<Vec<_>>().join(", ")
}
