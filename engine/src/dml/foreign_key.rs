//! Foreign keys, checked against the state after a change.
//!
//! | change | check |
//! |---|---|
//! | few new rows in the child | look their keys up in the parent |
//! | a bulk load into the child | one anti join of the child with the parent |
//! | rows or keys gone from the parent | semi join of the child with the keys that are gone |
//!
//! Against races: whoever refers to a parent locks it KEY SHARE, and whoever removes a parent has it locked UPDATE and
//! then looks at the newest committed children, whatever its snapshot is. A bulk load locks the parents' table instead of
//! each parent. MATCH SIMPLE: a key
//! with a NULL in it refers to nothing and is always right. Parents are referred to by their primary key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, take_record_batch};
use arrow::datatypes::{Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::MemTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, col};
use rustydb_storage::{ForeignKey, LockMode, ReadView, RowLock, TableDef, Transaction};

use super::apply::first_of_each;
use crate::catalog::provider::ColumnTable;
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::plan::make_ready;
use crate::{Error, Result};

/// Checks the foreign keys of rows just put into `table`: those that `concerned` picks.
pub(crate) async fn check_new_rows(
    transaction: &mut Transaction,
    table: &TableDef,
    rows: &RecordBatch,
    concerned: impl Fn(&ForeignKey) -> bool,
) -> Result<()> {
    for foreign_key in table.foreign_keys.iter().filter(|foreign_key| concerned(foreign_key)) {
        let view = transaction.view();
        let parent = parent_of(&view, foreign_key)?;
        let keys = referring_keys(foreign_key, &parent, rows)?;
        if keys.num_rows() == 0 {
            continue;
        }
        // A value that the parent's column cannot hold has no row there either; it was cast to NULL.
        let impossible = (0..keys.num_rows()).find(|row| keys.columns().iter().any(|column| column.is_null(*row)));
        let missing = match impossible {
            Some(row) => Some(row),
            None => view.lookup(parent.id, &keys).await?.iter().position(|found| !found),
        };
        if let Some(missing) = missing {
            let columns: Vec<usize> =
                parent.primary_key.iter().map(|key| child_column(foreign_key, *key)).collect::<Result<_>>()?;
            return Err(no_parent(table, foreign_key, &columns, &parent, &key_text(&keys, missing)?));
        }
        drop(view);
        transaction.lock_rows(parent.id, &keys, RowLock::KeyShare, None).await?;
    }
    Ok(())
}

/// The different keys in `rows` that refer to something, as the parent's primary key.
fn referring_keys(foreign_key: &ForeignKey, parent: &TableDef, rows: &RecordBatch) -> Result<RecordBatch> {
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    let mut refers = vec![true; rows.num_rows()];
    for key in &parent.primary_key {
        let column = rows.column(child_column(foreign_key, *key)?);
        let field = parent.schema.field(*key);
        for (row, refers) in refers.iter_mut().enumerate() {
            *refers &= column.is_valid(row);
        }
        columns.push(cast_with_options(column, field.data_type(), &lenient)?);
        fields.push(field.clone().with_nullable(true));
    }
    let keys = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let keys = filter_record_batch(&keys, &BooleanArray::from(refers))?;
    Ok(take_record_batch(&keys, &first_of_each(keys.columns())?)?)
}

/// The child's column that refers to a key column of the parent.
fn child_column(foreign_key: &ForeignKey, parent_column: usize) -> Result<usize> {
    let place = foreign_key.parent_columns.iter().position(|column| *column == parent_column);
    place
        .and_then(|place| foreign_key.columns.get(place).copied())
        .ok_or_else(|| Error::internal(format!("foreign key \"{}\" does not cover its parent's key", foreign_key.name)))
}

/// Checks all rows of a child after a bulk load: one pass over its referring columns for each foreign key.
pub(crate) async fn check_whole_table(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
) -> Result<()> {
    for foreign_key in &table.foreign_keys {
        transaction.lock_table(foreign_key.parent, LockMode::Share, None).await?;
        let view = transaction.newest_view().await?;
        let parent = parent_of(&view, foreign_key)?;
        let context = statement.context(view);
        let plan = |context: &StatementContext| -> Result<LogicalPlan> {
            let names: Vec<String> =
                foreign_key.columns.iter().map(|column| qualified("child", table, *column)).collect();
            let parent_names: Vec<String> =
                foreign_key.parent_columns.iter().map(|column| qualified("parent", &parent, *column)).collect();
            let refers = names.iter().map(|name| col(name.as_str()).is_not_null()).reduce(Expr::and);
            let parent = scan(context, "parent", &parent, &foreign_key.parent_columns)?.build()?;
            let mut child = scan(context, "child", table, &foreign_key.columns)?;
            if let Some(refers) = refers {
                child = child.filter(refers)?;
            }
            let columns = (
                names.iter().map(String::as_str).collect::<Vec<_>>(),
                parent_names.iter().map(String::as_str).collect(),
            );
            Ok(child.join(parent, JoinType::LeftAnti, columns, None)?.limit(0, Some(1))?.build()?)
        };
        let orphan = match first_row(statement, &context, plan(&context)?).await {
            // A hash table of the keys does not fit: sort both sides instead, which spills.
            Err(error) if error.sqlstate() == sqlstate::OUT_OF_MEMORY => {
                let context = context.with_options(|options| options.optimizer.prefer_hash_join = false);
                first_row(statement, &context, plan(&context)?).await?
            }
            result => result?,
        };
        if let Some(orphan) = orphan {
            return Err(no_parent(table, foreign_key, &foreign_key.columns, &parent, &key_text(&orphan, 0)?));
        }
    }
    Ok(())
}

/// Checks that nothing refers to keys of `table` that a statement deleted or changed. `keys` are the keys it found.
pub(crate) async fn check_removed_keys(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &TableDef,
    keys: &RecordBatch,
) -> Result<()> {
    if table.primary_key.is_empty() {
        return Ok(());
    }
    let view = transaction.view();
    let children: Vec<(Arc<TableDef>, ForeignKey)> = view
        .catalog()
        .tables()
        .flat_map(|child| {
            let refers = child.foreign_keys.iter().filter(|foreign_key| foreign_key.parent == table.id);
            refers.map(|foreign_key| (Arc::clone(child), foreign_key.clone()))
        })
        .collect();
    if children.is_empty() {
        return Ok(());
    }
    // An UPDATE may have given another row the key.
    let remains = view.lookup(table.id, keys).await?;
    let gone = BooleanArray::from_iter(remains.into_iter().map(|remains| Some(!remains)));
    let gone = filter_record_batch(keys, &gone)?;
    drop(view);
    for (child, foreign_key) in children {
        let view = transaction.newest_view().await?;
        if gone.num_rows() > 0 && view.statistics(child.id)?.rows > 0 {
            let context = statement.context(view);
            let plan = referring_rows(&context, &child, &foreign_key, table, &gone)?;
            if let Some(referring) = first_row(statement, &context, plan).await? {
                return Err(still_referred_to(table, &child, &foreign_key, &key_text(&referring, 0)?));
            }
        }
    }
    Ok(())
}

/// The child's rows that refer to one of `gone`.
fn referring_rows(
    context: &StatementContext,
    child: &Arc<TableDef>,
    foreign_key: &ForeignKey,
    parent: &TableDef,
    gone: &RecordBatch,
) -> Result<LogicalPlan> {
    let gone_table = MemTable::try_new(gone.schema(), vec![vec![gone.clone()]])?;
    let gone_plan = LogicalPlanBuilder::scan("gone", provider_as_source(Arc::new(gone_table)), None)?.build()?;
    let (mut names, mut gone_names) = (Vec::new(), Vec::new());
    for key in &parent.primary_key {
        names.push(qualified("child", child, child_column(foreign_key, *key)?));
        gone_names.push(qualified("gone", parent, *key));
    }
    let columns =
        (names.iter().map(String::as_str).collect::<Vec<_>>(), gone_names.iter().map(String::as_str).collect());
    let child = scan(context, "child", child, &foreign_key.columns)?;
    Ok(child.join(gone_plan, JoinType::LeftSemi, columns, None)?.limit(0, Some(1))?.build()?)
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

/// `columns` are the referring columns in the order of the values in `key`.
fn no_parent(table: &TableDef, foreign_key: &ForeignKey, columns: &[usize], parent: &TableDef, key: &str) -> Error {
    let message = format!(
        "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
        table.name, foreign_key.name
    );
    let columns = column_names(table, columns);
    Error::new(sqlstate::FOREIGN_KEY_VIOLATION, message)
        .with_detail(format!("Key ({columns})=({key}) is not present in table \"{}\".", parent.name))
}

fn still_referred_to(table: &TableDef, child: &TableDef, foreign_key: &ForeignKey, key: &str) -> Error {
    let message = format!(
        "update or delete on table \"{}\" violates foreign key constraint \"{}\" on table \"{}\"",
        table.name, foreign_key.name, child.name
    );
    let columns = column_names(table, &foreign_key.parent_columns);
    Error::new(sqlstate::FOREIGN_KEY_VIOLATION, message)
        .with_detail(format!("Key ({columns})=({key}) is still referred to from table \"{}\".", child.name))
}
