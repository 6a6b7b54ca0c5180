//! Foreign keys, checked against the state after a change, and the actions that follow one.
//!
//! | change | what follows |
//! |---|---|
//! | few new rows in the child | look their keys up in the parent |
//! | a bulk load into the child | one anti join of the child with the parent |
//! | rows or keys gone from the parent | join of the child with the keys that are gone: an error, or its rows change, too |
//!
//! Actions are followed with a list of work, not by recursion: a chain of rows that refer to each other may be as long as
//! the table. Checks (NO ACTION, RESTRICT) come after all actions of the statement. A deferred check is noted by its
//! constraint only and made for the whole table before the transaction commits ([`check_deferred`]).
//!
//! Against races: whoever refers to a parent locks it KEY SHARE, and whoever removes a parent has it locked UPDATE and
//! then looks at the newest committed children, whatever its snapshot is. A bulk load and a deferred check lock the
//! parents' table instead of each parent. MATCH SIMPLE: a key with a NULL in it refers to nothing and is always right.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, take_record_batch};
use arrow::datatypes::{Field, Schema};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::MemTable;
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, col};
use rustydb_storage::{ForeignKey, LockMode, ReadView, ReferenceAction, RowLock, TableDef, TableId, Transaction};

use super::apply::{first_of_each, key_batch};
use super::defaults::source_of;
use super::rows::{Arrangement, ColumnSource, RowCheck};
use crate::catalog::provider::ColumnTable;
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::plan::make_ready;
use crate::{Error, Result};

/// What a transaction has put off to its end.
#[derive(Debug, Default)]
pub(crate) struct DeferredChecks {
    /// Constraints that something was done about since they were last checked.
    pending: BTreeSet<(TableId, String)>,
    /// What SET CONSTRAINTS said of single ones, by name, ...
    modes: BTreeMap<String, bool>,
    /// ... and of all.
    all: Option<bool>,
}

impl DeferredChecks {
    /// At the end of a transaction.
    pub(crate) fn clear(&mut self) {
        *self = DeferredChecks::default();
    }

    /// Notes a check if it is to be put off.
    fn put_off(&mut self, table: &TableDef, foreign_key: &ForeignKey) -> bool {
        let said = self.modes.get(&foreign_key.name).copied().or(self.all);
        let deferred = foreign_key.deferrable && said.unwrap_or(foreign_key.initially_deferred);
        if deferred {
            self.pending.insert((table.id, foreign_key.name.clone()));
        }
        deferred
    }
}

/// SET CONSTRAINTS: which checks wait. Those that no longer do are made now.
pub(crate) async fn set_constraints(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    names: &[String],
    deferred: bool,
) -> Result<()> {
    let view = transaction.view();
    for name in names {
        let mut known = view.catalog().tables().flat_map(|table| &table.foreign_keys).filter(|key| key.name == *name);
        match known.next() {
            None => {
                let message = format!("constraint \"{name}\" does not exist");
                return Err(Error::new(sqlstate::UNDEFINED_OBJECT, message));
            }
            Some(key) if !key.deferrable => {
                let message = format!("constraint \"{name}\" is not deferrable");
                return Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, message));
            }
            Some(_) => {}
        }
    }
    drop(view);
    {
        let mut checks = statement.deferred.lock();
        if names.is_empty() {
            checks.modes.clear();
            checks.all = Some(deferred);
        }
        checks.modes.extend(names.iter().map(|name| (name.clone(), deferred)));
    }
    if deferred {
        return Ok(());
    }
    let due: Vec<(TableId, String)> = {
        let mut checks = statement.deferred.lock();
        let (due, kept): (BTreeSet<_>, BTreeSet<_>) = std::mem::take(&mut checks.pending)
            .into_iter()
            .partition(|(_, name)| names.is_empty() || names.contains(name));
        checks.pending = kept;
        due.into_iter().collect()
    };
    check_all(statement, transaction, due).await
}

/// Makes the checks that were put off.
pub(crate) async fn check_deferred(statement: &Statement<'_>, transaction: &mut Transaction) -> Result<()> {
    let due: Vec<_> = std::mem::take(&mut statement.deferred.lock().pending).into_iter().collect();
    check_all(statement, transaction, due).await
}

async fn check_all(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    due: Vec<(TableId, String)>,
) -> Result<()> {
    for (table, name) in due {
        let table = transaction.view().catalog().table(table).cloned();
        if let Some(table) = table
            && let Some(foreign_key) = table.foreign_keys.iter().find(|foreign_key| foreign_key.name == name)
        {
            check_rows_of(statement, transaction, &table, foreign_key).await?;
        }
    }
    Ok(())
}

/// Checks the foreign keys of rows just put into `table`: those that `concerned` picks.
pub(crate) async fn check_new_rows(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &TableDef,
    rows: &RecordBatch,
    concerned: impl Fn(&ForeignKey) -> bool,
) -> Result<()> {
    for foreign_key in table.foreign_keys.iter().filter(|foreign_key| concerned(foreign_key)) {
        if statement.deferred.lock().put_off(table, foreign_key) {
            continue;
        }
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

/// Checks all rows of a child after a bulk load.
pub(crate) async fn check_whole_table(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
) -> Result<()> {
    for foreign_key in &table.foreign_keys {
        if !statement.deferred.lock().put_off(table, foreign_key) {
            check_rows_of(statement, transaction, table, foreign_key).await?;
        }
    }
    Ok(())
}

/// Checks one foreign key of all rows: one pass over its referring columns.
pub(crate) async fn check_rows_of(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    foreign_key: &ForeignKey,
) -> Result<()> {
    transaction.lock_table(foreign_key.parent, LockMode::Share, None).await?;
    let view = transaction.newest_view().await?;
    let parent = parent_of(&view, foreign_key)?;
    let context = statement.context(view);
    let plan = |context: &StatementContext| -> Result<LogicalPlan> {
        let names: Vec<String> = foreign_key.columns.iter().map(|column| qualified("child", table, *column)).collect();
        let parent_names: Vec<String> =
            foreign_key.parent_columns.iter().map(|column| qualified("parent", &parent, *column)).collect();
        let refers = names.iter().map(|name| col(name.as_str()).is_not_null()).reduce(Expr::and);
        let parent = scan(context, "parent", &parent, &foreign_key.parent_columns)?.build()?;
        let mut child = scan(context, "child", table, &foreign_key.columns)?;
        if let Some(refers) = refers {
            child = child.filter(refers)?;
        }
        let columns =
            (names.iter().map(String::as_str).collect::<Vec<_>>(), parent_names.iter().map(String::as_str).collect());
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
    Ok(())
}

/// Keys that are gone from a table, or have become others.
pub(crate) struct Removal {
    pub(crate) table: Arc<TableDef>,
    /// The primary keys there were, in key order.
    pub(crate) keys: RecordBatch,
    /// For an UPDATE, the primary keys of the same rows now.
    pub(crate) new_keys: Option<RecordBatch>,
}

/// Does what the foreign keys that refer to a table want done, and checks what must not be.
pub(crate) async fn follow(statement: &Statement<'_>, transaction: &mut Transaction, removal: Removal) -> Result<()> {
    let mut work = VecDeque::from([removal]);
    let mut checks = Vec::new();
    while let Some(removal) = work.pop_front() {
        let Some(removal) = really_changed(removal)? else { continue };
        for (child, foreign_key) in referring(&transaction.view(), removal.table.id) {
            let action = match removal.new_keys {
                Some(_) => foreign_key.on_update,
                None => foreign_key.on_delete,
            };
            if transaction.newest_view().await?.statistics(child.id)?.rows == 0 {
                continue;
            }
            match action {
                ReferenceAction::NoAction | ReferenceAction::Restrict => {
                    if action == ReferenceAction::Restrict || !statement.deferred.lock().put_off(&child, &foreign_key) {
                        checks.push((Arc::clone(&removal.table), removal.keys.clone(), child, foreign_key, false));
                    }
                }
                ReferenceAction::Cascade | ReferenceAction::SetNull | ReferenceAction::SetDefault => {
                    let next = act(statement, transaction, &removal, &child, &foreign_key, action).await?;
                    work.extend(next);
                    checks.push((Arc::clone(&removal.table), removal.keys.clone(), child, foreign_key, true));
                }
            }
        }
    }
    for (parent, keys, child, foreign_key, acted) in checks {
        match check_gone(statement, transaction, &parent, &keys, &child, &foreign_key).await {
            // Rows that are too new for this snapshot to see: on a new one they would have been changed with the others.
            Err(error) if acted && error.sqlstate() == sqlstate::FOREIGN_KEY_VIOLATION => {
                return Err(rustydb_storage::Error::Conflict { table: child.name.clone() }.into());
            }
            result => result?,
        }
    }
    Ok(())
}

/// The removal without the keys that an UPDATE left as they were.
fn really_changed(removal: Removal) -> Result<Option<Removal>> {
    let Removal { table, keys, new_keys } = removal;
    let Some(new_keys) = new_keys else {
        return Ok((keys.num_rows() > 0).then_some(Removal { table, keys, new_keys: None }));
    };
    let sort_fields = keys.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(sort_fields)?;
    let (old, new) = (converter.convert_columns(keys.columns())?, converter.convert_columns(new_keys.columns())?);
    let differs = BooleanArray::from_iter(old.iter().zip(new.iter()).map(|(old, new)| Some(old != new)));
    let (keys, new_keys) = (filter_record_batch(&keys, &differs)?, filter_record_batch(&new_keys, &differs)?);
    Ok((keys.num_rows() > 0).then_some(Removal { table, keys, new_keys: Some(new_keys) }))
}

/// The foreign keys that refer to a table, its own included.
fn referring(view: &ReadView, parent: TableId) -> Vec<(Arc<TableDef>, ForeignKey)> {
    let keys_of = |child: &Arc<TableDef>| {
        let child = Arc::clone(child);
        let refers = child.foreign_keys.clone().into_iter().filter(move |foreign_key| foreign_key.parent == parent);
        refers.map(move |foreign_key| (Arc::clone(&child), foreign_key))
    };
    view.catalog().tables().flat_map(keys_of).collect()
}

/// Whether anything refers to a table.
pub(crate) fn is_referred_to(transaction: &Transaction, table: &TableDef) -> bool {
    !referring(&transaction.view(), table.id).is_empty()
}

/// Deletes or changes the child's rows, and returns what that means for the tables that refer to it.
async fn act(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    removal: &Removal,
    child: &Arc<TableDef>,
    foreign_key: &ForeignKey,
    action: ReferenceAction,
) -> Result<Option<Removal>> {
    let context = statement.context(transaction.view());
    let plan = referring_rows_to_change(&context, child, foreign_key, removal)?;
    let found = super::modify::run(statement, context, plan).await?;
    if found.num_rows() == 0 {
        return Ok(None);
    }
    let stored = child.storage_schema().fields().len();
    let key_columns: Vec<ArrayRef> =
        child.key_columns().iter().map(|column| Arc::clone(found.column(*column))).collect();
    let keys = key_batch(child, &key_columns)?;
    if action == ReferenceAction::Cascade && removal.new_keys.is_none() {
        transaction.delete(child.id, &keys).await?;
        return Ok(Some(Removal { table: Arc::clone(child), keys, new_keys: None }));
    }
    let rows = found.num_rows();
    let mut columns = found.columns()[..child.schema.fields().len()].to_vec();
    let context = statement.context(transaction.view());
    for (place, column) in foreign_key.columns.iter().enumerate() {
        let data_type = child.schema.field(*column).data_type();
        columns[*column] = match action {
            ReferenceAction::SetNull => new_null_array(data_type, rows),
            ReferenceAction::SetDefault => {
                let source: ColumnSource = source_of(&context, child, *column)?;
                let value = Arrangement::new(vec![source]).arrange(&found)?.swap_remove(0);
                cast_with_options(&value, data_type, &CastOptions { safe: false, ..CastOptions::default() })?
            }
            _ => {
                let parent_column = foreign_key.parent_columns[place];
                let key = removal.table.primary_key.iter().position(|key| *key == parent_column);
                let key = key.ok_or_else(|| Error::internal("a foreign key refers to no key column"))?;
                Arc::clone(found.column(stored + removal.keys.num_columns() + key))
            }
        };
    }
    let new_rows = RowCheck::new(&context, child)?.conform(&columns, rows)?;
    drop(context);
    transaction.update(child.id, &keys, &new_rows).await?;
    let touches = |other: &ForeignKey| {
        let shares = other.columns.iter().any(|column| foreign_key.columns.contains(column));
        shares && (action == ReferenceAction::SetDefault || other.name != foreign_key.name)
    };
    check_new_rows(statement, transaction, child, &new_rows, touches).await?;
    if child.primary_key.is_empty() || !foreign_key.columns.iter().any(|column| child.primary_key.contains(column)) {
        return Ok(None);
    }
    let new_columns: Vec<ArrayRef> =
        child.key_columns().iter().map(|column| Arc::clone(new_rows.column(*column))).collect();
    Ok(Some(Removal { table: Arc::clone(child), keys, new_keys: Some(key_batch(child, &new_columns)?) }))
}

/// Checks that nothing refers to keys that are gone.
async fn check_gone(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &TableDef,
    keys: &RecordBatch,
    child: &Arc<TableDef>,
    foreign_key: &ForeignKey,
) -> Result<()> {
    let view = transaction.view();
    // An UPDATE may have given another row the key.
    let remains = view.lookup(table.id, keys).await?;
    let gone = BooleanArray::from_iter(remains.into_iter().map(|remains| Some(!remains)));
    let gone = filter_record_batch(keys, &gone)?;
    if gone.num_rows() > 0 {
        drop(view);
        let context = statement.context(transaction.newest_view().await?);
        let plan = referring_rows(&context, child, foreign_key, table, &gone)?;
        if let Some(referring) = first_row(statement, &context, plan).await? {
            return Err(still_referred_to(table, child, foreign_key, &key_text(&referring, 0)?));
        }
    }
    Ok(())
}

/// The child's rows that refer to the keys of a removal: its stored columns, then the old and the new key.
fn referring_rows_to_change(
    context: &StatementContext,
    child: &Arc<TableDef>,
    foreign_key: &ForeignKey,
    removal: &Removal,
) -> Result<LogicalPlan> {
    let mut columns = removal.keys.columns().to_vec();
    columns.extend(removal.new_keys.iter().flat_map(|keys| keys.columns().iter().cloned()));
    let field = |(index, column): (usize, &ArrayRef)| Field::new(index.to_string(), column.data_type().clone(), true);
    let schema = Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    let gone = provider_as_source(Arc::new(MemTable::try_new(schema, vec![vec![batch]])?));
    let gone = LogicalPlanBuilder::scan("gone", gone, None)?.build()?;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (place, key) in removal.table.primary_key.iter().enumerate() {
        let own = child.schema.field(child_column(foreign_key, *key)?).name();
        left.push(Column::new(Some("child"), own));
        right.push(Column::new(Some("gone"), place.to_string()));
    }
    let source = provider_as_source(Arc::new(ColumnTable::with_hidden_columns(child, context.view())?));
    let child = LogicalPlanBuilder::scan("child", source, None)?;
    Ok(child.join(gone, JoinType::Inner, (left, right), None)?.build()?)
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
