//! Rows that go from a table others refer to, and values referred to that change: what the foreign keys want done then.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, take_record_batch};
use arrow::datatypes::{Field, Schema};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::catalog::MemTable;
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder};
use rustydb_storage::{ForeignKey, ReadView, ReferenceAction, RowLock, TableDef, Transaction};

use super::child::{Unchanged, check_new_rows, child_column};
use super::lookup::find_holders;
use super::{column_names, first_row, key_text, referred_columns, referring};
use crate::catalog::provider::ColumnTable;
use crate::constraints::is_generated;
use crate::dml::apply::key_batch;
use crate::dml::defaults::source_of;
use crate::dml::rows::{Arrangement, ColumnSource, RowCheck};
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::types::arriving_type;
use crate::{Error, Result};

/// What others refer to in rows that are about to change or go.
pub(crate) struct Before {
    table: Arc<TableDef>,
    referred: Vec<Referred>,
}

/// The values that rows had in some columns.
pub(super) struct Referred {
    columns: Vec<usize>,
    pub(super) old: RecordBatch,
    /// Which of the rows they are of; `None` for all of them, in order.
    pub(super) rows: Option<UInt32Array>,
}

impl Before {
    /// Looks at the rows with these keys. `assigns` tells which columns may change; all do where rows go.
    ///
    /// Nothing is locked here: the change itself locks a row that goes, or that gets another value under a unique index, so
    /// that nobody comes to refer to it, and fails if the row is not what it was.
    pub(crate) async fn look(
        transaction: &Transaction,
        table: &Arc<TableDef>,
        keys: &RecordBatch,
        assigns: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let view = transaction.view();
        let mut referred: Vec<Referred> = Vec::new();
        for columns in referred_sets(&view, table) {
            if !columns.iter().any(|column| assigns(*column)) {
                continue;
            }
            referred.push(match columns == table.primary_key {
                true => Referred { columns, old: keys.clone(), rows: None },
                false => old_values(&view, table, keys, columns).await?,
            });
        }
        Ok(Before { table: Arc::clone(table), referred })
    }

    /// What has gone, if the rows were deleted.
    pub(crate) fn deleted(self) -> Vec<Removal> {
        let Before { table, referred } = self;
        let removal =
            |Referred { columns, old, rows: _ }| Removal { table: Arc::clone(&table), columns, old, new: None };
        referred.into_iter().map(removal).collect()
    }

    /// What has changed, if these rows are in their places now.
    pub(crate) fn updated(self, rows: &RecordBatch) -> Result<Vec<Removal>> {
        let Before { table, referred } = self;
        let mut removals = Vec::with_capacity(referred.len());
        for Referred { columns, old, rows: places } in referred {
            let new = rows.project(&columns)?;
            let new = match places {
                None => new,
                Some(places) => take_record_batch(&new, &places)?,
            };
            removals.push(Removal { table: Arc::clone(&table), columns, old, new: Some(new) });
        }
        Ok(removals)
    }
}

/// The sets of columns by which foreign keys refer to a table.
fn referred_sets(view: &ReadView, table: &TableDef) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for (_, foreign_key) in referring(view, table.id) {
        let columns = referred_columns(table, &foreign_key);
        if sets.iter().all(|known| !same_columns(known, &columns)) {
            sets.push(columns);
        }
    }
    sets
}

fn same_columns(left: &[usize], right: &[usize]) -> bool {
    left.iter().collect::<BTreeSet<_>>() == right.iter().collect::<BTreeSet<_>>()
}

/// Reads the values that the rows with these keys have in some columns.
pub(super) async fn old_values(
    view: &ReadView,
    table: &TableDef,
    keys: &RecordBatch,
    columns: Vec<usize>,
) -> Result<Referred> {
    let wanted: Vec<usize> = table.key_columns().iter().chain(&columns).copied().collect();
    let found = view.get(table.id, keys, &wanted).await?;
    let width = table.key_columns().len();
    let sort_fields = keys.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(sort_fields)?;
    let places: std::collections::HashMap<OwnedRow, u32> =
        converter.convert_columns(keys.columns())?.iter().map(|row| row.owned()).zip(0u32..).collect();
    let found_keys = converter.convert_columns(&found.columns()[..width])?;
    let place = |row: arrow::row::Row<'_>| {
        places.get(&row.owned()).copied().ok_or_else(|| Error::internal("a row was found that nobody looked for"))
    };
    let rows = found_keys.iter().map(place).collect::<Result<Vec<u32>>>()?;
    let old = found.project(&(width..width + columns.len()).collect::<Vec<_>>())?;
    Ok(Referred { columns, old, rows: Some(UInt32Array::from(rows)) })
}

/// Values referred to that are gone from a table, or have become others.
pub(crate) struct Removal {
    table: Arc<TableDef>,
    columns: Vec<usize>,
    /// The values there were.
    old: RecordBatch,
    /// For an UPDATE, those of the same rows now.
    new: Option<RecordBatch>,
}

/// Does what the foreign keys that refer to a table want done, and checks what must not be.
pub(crate) async fn follow(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    removals: Vec<Removal>,
) -> Result<()> {
    let mut work = VecDeque::from(removals);
    let mut checks = Vec::new();
    while let Some(removal) = work.pop_front() {
        let Some(removal) = really_changed(removal)? else { continue };
        for (child, foreign_key) in referring(&transaction.view(), removal.table.id) {
            if !same_columns(&foreign_key.parent_columns, &removal.columns) {
                continue;
            }
            let action = match removal.new {
                Some(_) => foreign_key.on_update,
                None => foreign_key.on_delete,
            };
            if transaction.newest_view().await?.statistics(child.id)?.rows == 0 {
                continue;
            }
            let gone = || (Arc::clone(&removal.table), removal.columns.clone(), removal.old.clone());
            match action {
                ReferenceAction::NoAction | ReferenceAction::Restrict => {
                    if action == ReferenceAction::Restrict || !statement.deferred.lock().put_off(&child, &foreign_key) {
                        checks.push((gone(), child, foreign_key, false));
                    }
                }
                ReferenceAction::Cascade | ReferenceAction::SetNull | ReferenceAction::SetDefault => {
                    work.extend(act(statement, transaction, &removal, &child, &foreign_key, action).await?);
                    checks.push((gone(), child, foreign_key, true));
                }
            }
        }
    }
    for ((table, columns, old), child, foreign_key, acted) in checks {
        match check_gone(statement, transaction, (&table, &columns, &old), &child, &foreign_key).await {
            // Rows that are too new for this snapshot to see: on a new one they would have been changed with the others.
            Err(error) if acted && error.sqlstate() == sqlstate::FOREIGN_KEY_VIOLATION => {
                return Err(rustydb_storage::Error::Conflict { table: child.name.clone() }.into());
            }
            result => result?,
        }
    }
    Ok(())
}

/// The removal without the values that an UPDATE left as they were, and without those that nothing can refer to.
fn really_changed(removal: Removal) -> Result<Option<Removal>> {
    let Removal { table, columns, old, new } = removal;
    let mut gone: Vec<bool> =
        (0..old.num_rows()).map(|row| old.columns().iter().all(|column| column.is_valid(row))).collect();
    if let Some(new) = &new {
        let sort_fields = old.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let converter = RowConverter::new(sort_fields)?;
        let (before, after) = (converter.convert_columns(old.columns())?, converter.convert_columns(new.columns())?);
        gone.iter_mut().zip(before.iter().zip(after.iter())).for_each(|(gone, (old, new))| *gone &= old != new);
    }
    if !gone.contains(&true) {
        return Ok(None);
    }
    let gone = BooleanArray::from(gone);
    let new = new.map(|new| filter_record_batch(&new, &gone)).transpose()?;
    Ok(Some(Removal { table, columns, old: filter_record_batch(&old, &gone)?, new }))
}

/// Deletes or changes the child's rows, and returns what that means for the tables that refer to it.
async fn act(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    removal: &Removal,
    child: &Arc<TableDef>,
    foreign_key: &ForeignKey,
    action: ReferenceAction,
) -> Result<Vec<Removal>> {
    let context = statement.context(transaction.view());
    let plan = referring_rows_to_change(&context, child, foreign_key, removal)?;
    let found = crate::dml::modify::run(statement, context, plan).await?;
    if found.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let stored = child.storage_schema().fields().len();
    let key_columns: Vec<ArrayRef> =
        child.key_columns().iter().map(|column| Arc::clone(found.column(*column))).collect();
    let keys = key_batch(child, &key_columns)?;
    let deletes = action == ReferenceAction::Cascade && removal.new.is_none();
    // Others may refer to what is computed from the referring columns, and so may those themselves to something.
    let is_new = |column: usize| foreign_key.columns.contains(&column) || is_generated(child.schema.field(column));
    let changes = |column: usize| deletes || is_new(column);
    let before = Before::look(transaction, child, &keys, changes).await?;
    if deletes {
        transaction.delete(child.id, &keys).await?;
        return Ok(before.deleted());
    }
    let rows = found.num_rows();
    let mut columns = found.columns()[..child.schema.fields().len()].to_vec();
    let context = statement.context(transaction.view());
    for (place, column) in foreign_key.columns.iter().enumerate() {
        let data_type = &arriving_type(child.schema.field(*column));
        columns[*column] = match action {
            ReferenceAction::SetNull => new_null_array(data_type, rows),
            ReferenceAction::SetDefault => {
                let source: ColumnSource = source_of(&context, child, *column)?;
                let value = Arrangement::new(vec![source]).arrange(&found)?.swap_remove(0);
                cast_with_options(&value, data_type, &CastOptions { safe: false, ..CastOptions::default() })?
            }
            _ => {
                let parent_column = foreign_key.parent_columns[place];
                let value = removal.columns.iter().position(|column| *column == parent_column);
                let value = value.ok_or_else(|| Error::internal("a foreign key refers to no key column"))?;
                Arc::clone(found.column(stored + removal.old.num_columns() + value))
            }
        };
    }
    let new_rows = RowCheck::new(&context, child)?.conform(&columns, rows)?;
    drop(context);
    transaction.update(child.id, &keys, &new_rows).await?;
    let touches = |other: &ForeignKey| {
        let shares = other.columns.iter().any(|column| is_new(*column));
        shares && (action == ReferenceAction::SetDefault || other.name != foreign_key.name)
    };
    check_new_rows(statement, transaction, child, &new_rows, touches, &Unchanged::default()).await?;
    before.updated(&new_rows)
}

/// Checks that nothing refers to values that are gone.
///
/// A row that does may be on its way out in another transaction, which is waited for: the row is locked, and looked for
/// again.
pub(super) async fn check_gone(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    (table, columns, values): (&Arc<TableDef>, &[usize], &RecordBatch),
    child: &Arc<TableDef>,
    foreign_key: &ForeignKey,
) -> Result<()> {
    // An UPDATE may have given another row the value.
    let remains = find_holders(statement, transaction.view(), table, columns, values).await?.found;
    let gone = BooleanArray::from_iter(remains.into_iter().map(|remains| Some(!remains)));
    let gone = filter_record_batch(values, &gone)?;
    if gone.num_rows() == 0 {
        return Ok(());
    }
    let before = transaction.lock_count();
    loop {
        let context = statement.context(transaction.newest_view().await?);
        let plan = referring_row(&context, child, foreign_key, (table, columns), &gone)?;
        let found = first_row(statement, &context, plan).await?;
        drop(context);
        let Some(referring) = found else {
            // What was waited for has gone, and others may take its key.
            transaction.release_locks_to(before);
            return Ok(());
        };
        let held = transaction.lock_count();
        let keys = key_batch(child, referring.columns())?;
        match transaction.lock_rows(child.id, &keys, RowLock::Referenced, None).await {
            // It has gone, which the next look shows.
            Err(rustydb_storage::Error::Conflict { .. }) if transaction.isolation().moves_with_statements() => {}
            locked => locked?,
        }
        // One that was locked before it was looked for stays.
        if transaction.lock_count() == held {
            let values = referring.project(&(keys.num_columns()..referring.num_columns()).collect::<Vec<_>>())?;
            return Err(still_referred_to(table, child, foreign_key, &key_text(&values, 0)?));
        }
    }
}

/// The child's rows that refer to the values of a removal: its stored columns, then the old and the new values.
fn referring_rows_to_change(
    context: &StatementContext,
    child: &Arc<TableDef>,
    foreign_key: &ForeignKey,
    removal: &Removal,
) -> Result<LogicalPlan> {
    let mut columns = removal.old.columns().to_vec();
    columns.extend(removal.new.iter().flat_map(|values| values.columns().iter().cloned()));
    let field = |(index, column): (usize, &ArrayRef)| Field::new(index.to_string(), column.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    let gone = provider_as_source(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?));
    let gone = LogicalPlanBuilder::scan("gone", gone, None)?.build()?;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (place, column) in removal.columns.iter().enumerate() {
        let own = child.schema.field(child_column(foreign_key, *column)?).name();
        left.push(Column::new(Some("child"), own));
        right.push(Column::new(Some("gone"), place.to_string()));
    }
    let source = provider_as_source(Arc::new(ColumnTable::with_hidden_columns(child, context.view())?));
    let child = LogicalPlanBuilder::scan("child", source, None)?;
    Ok(child.join(gone, JoinType::Inner, (left, right), None)?.build()?)
}

/// One of the child's rows that refer to one of `gone`, which are values of the parent's columns: its key, then the columns
/// of the foreign key.
fn referring_row(
    context: &StatementContext,
    child: &Arc<TableDef>,
    foreign_key: &ForeignKey,
    (parent, columns): (&TableDef, &[usize]),
    gone: &RecordBatch,
) -> Result<LogicalPlan> {
    let gone_table = MemTable::try_new(gone.schema(), vec![vec![gone.clone()]])?;
    let gone_plan = LogicalPlanBuilder::scan("gone", provider_as_source(Arc::new(gone_table)), None)?.build()?;
    let own = |column: usize| Column::new(Some("child"), child.storage_schema().field(column).name());
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for column in columns {
        left.push(own(child_column(foreign_key, *column)?));
        right.push(Column::new(Some("gone"), parent.schema.field(*column).name()));
    }
    // A column may be both of the key and of the foreign key.
    let list = child.key_columns().iter().chain(&foreign_key.columns).enumerate();
    let list: Vec<Expr> = list.map(|(place, column)| Expr::Column(own(*column)).alias(place.to_string())).collect();
    let source = provider_as_source(Arc::new(ColumnTable::with_hidden_columns(child, context.view())?));
    let rows = LogicalPlanBuilder::scan("child", source, None)?;
    let rows = rows.join(gone_plan, JoinType::LeftSemi, (left, right), None)?;
    Ok(rows.project(list)?.limit(0, Some(1))?.build()?)
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
