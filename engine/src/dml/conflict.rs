//! INSERT … ON CONFLICT: rows whose key is taken are left out, or change the row that has it.
//!
//! ```text
//!  rows ─► look the keys up ─┬─ free  ─► insert
//!                            └─ taken ─► lock the old row ─► DO NOTHING, and unlock it, or
//!                                                            (old row AS t, new row AS excluded) ─► WHERE, SET ─► update
//! ```
//!
//! The rows of one command are a set: a second row for a key is dropped by DO NOTHING and an error of DO UPDATE (21000).
//! What is decided about an old row is decided under its lock. If it was changed (for DO NOTHING: removed) by then, or
//! somebody has taken a key that seemed free, the command ends with a `Conflict`, and is run again where that is allowed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};
use arrow::row::{OwnedRow, Row, RowConverter, SortField};
use datafusion::catalog::MemTable;
use datafusion::common::{Column, NullEquality};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{self, ConflictTarget, DoUpdate, Ident, Spanned};
use rustydb_storage::{Error as StorageError, LockMode, RowLock, TableDef, Transaction};

use super::apply::{Effects, first_of_each, insert_free_rows, insert_rows, key_batch, put_changed, put_new};
use super::defaults::column_index;
use super::modify::{assigned_values, run};
use super::rows::RowCheck;
use super::scope::RowScope;
use super::syntax::{cast, column, quoted};
use crate::catalog::provider::ColumnTable;
use crate::constraints::index_texts;
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::grammar::insert::{Inference, inference};
use crate::sql::route::{ConflictClause, ViewCheck};
use crate::sql::text::parse::{fold, parse_expression, place, table_name};
use crate::sql::tree::own_expressions::look_at_own;
use crate::sql::types::{arriving_type, name_of};
use crate::{Error, Result};

/// The relation by which DO UPDATE refers to the row that was to be inserted.
const EXCLUDED: &str = "excluded";
/// The column that tells which of the new rows a changed row comes from.
const ORIGIN: &str = "row to insert";
/// So many rows in the way are locked at a time if their locks are given back at once: however many there are, there is
/// memory for their locks.
const LOCKED_AT_ONCE: usize = 8192;

/// What to do with rows whose key is taken.
pub(crate) struct OnConflict {
    /// What decides whether there is a conflict; of DO UPDATE, one.
    arbiters: Vec<Arbiter>,
    update: Option<ConflictUpdate>,
}

/// DO UPDATE, with its expressions over `target.*, excluded.*, origin`.
struct ConflictUpdate {
    scope: RowScope,
    selection: Option<Expr>,
    /// A value for each column of the table.
    values: Vec<Expr>,
    assigned: Vec<usize>,
}

/// What the rows go into.
pub(crate) struct Subject<'a, 'b> {
    pub(crate) statement: &'a Statement<'b>,
    pub(crate) transaction: &'a mut Transaction,
    pub(crate) context: StatementContext,
    pub(crate) table: &'a Arc<TableDef>,
    pub(crate) view_checks: Vec<ViewCheck>,
}

impl OnConflict {
    pub(crate) fn new(
        context: &StatementContext,
        table: &Arc<TableDef>,
        alias: Option<&Ident>,
        clause: ConflictClause,
    ) -> Result<Self> {
        let ConflictClause { target, update } = clause;
        let arbiters = match target {
            Some(target) => vec![arbiter_of(table, target)?],
            None => arbiters_of(table),
        };
        if arbiters.iter().any(|arbiter| arbiter.deferrable) {
            let message =
                "ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters";
            return Err(Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message));
        }
        let update = update.map(|update| ConflictUpdate::new(context, table, alias, update)).transpose()?;
        Ok(OnConflict { arbiters, update })
    }

    /// The plan of DO UPDATE over no rows, which tells the types of its parameters.
    pub(crate) fn plan(&self, table: &TableDef) -> Result<Option<LogicalPlan>> {
        self.update.as_ref().map(|update| update.plan(table, Vec::new())).transpose()
    }

    /// Whether the primary key alone decides.
    pub(crate) fn is_by_primary_key(&self, table: &TableDef) -> bool {
        match self.arbiters.as_slice() {
            [arbiter] => !table.primary_key.is_empty() && arbiter.columns == table.primary_key,
            _ => false,
        }
    }

    /// The columns that DO UPDATE assigns.
    pub(crate) fn assigned(&self) -> &[usize] {
        self.update.as_ref().map_or(&[], |update| &update.assigned)
    }

    /// Inserts what has no conflict and does the clause's bidding with the rest. Returns how many rows were inserted or
    /// changed, and what they are now, in the order of `rows`.
    pub(crate) async fn insert(self, subject: Subject<'_, '_>, rows: RecordBatch) -> Result<(u64, RecordBatch)> {
        let Subject { statement, transaction, context, table, view_checks } = subject;
        if self.arbiters.is_empty() || rows.num_rows() == 0 {
            drop(context);
            return Ok((insert_rows(statement, transaction, table, &rows).await?, rows));
        }
        // Of each arbiter, the proposed rows whose value is taken, and what has it: origin, then the stored columns.
        let mut holders = Vec::with_capacity(self.arbiters.len());
        for arbiter in &self.arbiters {
            holders.push(arbiter.holders(statement, transaction, table, &rows).await?);
        }
        let mut taken = vec![false; rows.num_rows()];
        for found in &holders {
            for origin in found.column(0).as_primitive::<UInt32Type>().values() {
                taken[*origin as usize] = true;
            }
        }
        let free = self.free_rows(&rows, &taken)?;
        let free_in: Vec<String> = self.arbiters.iter().map(|arbiter| arbiter.constraint(table)).collect();
        let new_rows = take_record_batch(&rows, &free)?;
        let Some(update) = self.update else {
            drop(context);
            require_in_the_way(&self.arbiters, transaction, table, &holders).await?;
            let inserted = insert_free_rows(statement, transaction, table, &new_rows, &free_in).await?;
            return Ok((inserted, new_rows));
        };
        if free.len() + taken.iter().filter(|taken| **taken).count() < rows.num_rows() {
            return Err(second_time());
        }
        let found = holders.swap_remove(0);
        let mut effects = Effects::default();
        let (changed, changed_origins, mut touched) = if found.num_rows() == 0 {
            drop(context);
            (RecordBatch::new_empty(Arc::clone(&table.schema)), UInt32Array::from(Vec::<u32>::new()), 0)
        } else {
            // Nobody changes the rows from here on, so WHERE, SET and CHECK see what they are until this transaction ends. The
            // locks stay where WHERE is false, too. An update that changes a key makes them stronger.
            transaction.lock_table(table.id, LockMode::RowExclusive, None).await?;
            let met_keys = keys_of(table, &found)?;
            transaction.lock_rows(table.id, &met_keys, RowLock::NoKeyUpdate, None).await?;
            let met_by = found.column(0).as_primitive::<UInt32Type>().clone();
            let proposed = take_record_batch(&rows, &met_by)?;
            let old = &found.columns()[1..];
            let mut columns = old.to_vec();
            columns.extend(proposed.columns().iter().cloned());
            columns.push(Arc::clone(found.column(0)));
            let check = RowCheck::new(&context, table)?.with_view_checks(&context, &view_checks)?;
            let found = run(statement, context, update.plan(table, vec![columns])?).await?;
            let keys = key_batch(table, found.columns())?;
            let width = keys.num_columns();
            let end = width + table.schema.fields().len();
            let origins = found.column(end).as_primitive::<UInt32Type>().clone();
            if are_met_again((&met_keys, &met_by), (&keys, &origins))? {
                return Err(second_time());
            }
            let changed = check.conform(&found.columns()[width..end], found.num_rows())?;
            let touched = put_changed(transaction, table, &keys, &changed, &update.assigned, &mut effects).await?;
            (changed, origins, touched)
        };
        let free_in = match self.arbiters[0].first_shared(&changed, &new_rows)? {
            None => free_in,
            // In the order of the proposed rows: the row in the way is one that this command has changed, ...
            Some((changed, new)) if changed_origins.value(changed) < free.value(new) => return Err(second_time()),
            // ... or the changed row takes what a new one has, which no clause is about.
            Some(_) => Vec::new(),
        };
        touched += put_new(transaction, table, &new_rows, &free_in, &mut effects).await?;
        effects.settle(statement, transaction, table).await?;
        // In the order of the rows that came.
        let origins = free.values().iter().chain(changed_origins.values()).copied();
        let mut order: Vec<(u32, u32)> = origins.zip(0u32..).collect();
        order.sort_unstable();
        let order = UInt32Array::from_iter_values(order.into_iter().map(|(_, place)| place));
        let all = concat_batches(&table.schema, [&new_rows, &changed])?;
        Ok((touched, take_record_batch(&all, &order)?))
    }

    /// The rows that conflict neither with what is there nor with an earlier one of them.
    fn free_rows(&self, rows: &RecordBatch, taken: &[bool]) -> Result<UInt32Array> {
        let mut keys = Vec::with_capacity(self.arbiters.len());
        for Arbiter { columns, nulls_distinct, deferrable: _, index: _ } in &self.arbiters {
            let columns: Vec<ArrayRef> = columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
            let sort_fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
            let encoded = RowConverter::new(sort_fields)?.convert_columns(&columns)?;
            let unlike_all = |row: usize| *nulls_distinct && columns.iter().any(|column| column.is_null(row));
            let own: Vec<Option<OwnedRow>> =
                (0..rows.num_rows()).map(|row| (!unlike_all(row)).then(|| encoded.row(row).owned())).collect();
            keys.push((own, HashSet::new()));
        }
        let mut free = Vec::new();
        for row in (0..rows.num_rows()).filter(|row| !taken[*row]) {
            let repeated = keys.iter().any(|(own, seen)| own[row].as_ref().is_some_and(|key| seen.contains(key)));
            if !repeated {
                keys.iter_mut().for_each(|(own, seen)| seen.extend(own[row].take()));
                free.push(u32::try_from(row).map_err(|_| Error::internal("too many rows in one batch"))?);
            }
        }
        Ok(UInt32Array::from(free))
    }
}

/// The columns of a table that a row is unique by.
struct Arbiter {
    columns: Vec<usize>,
    nulls_distinct: bool,
    /// Whether rows may share a value for a while, so that none of them is the one in the way.
    deferrable: bool,
    /// The unique index; `None` for the primary key.
    index: Option<String>,
}

fn arbiters_of(table: &TableDef) -> Vec<Arbiter> {
    let key = (!table.primary_key.is_empty()).then(|| Arbiter {
        columns: table.primary_key.clone(),
        nulls_distinct: false,
        deferrable: false,
        index: None,
    });
    let unique = table.indexes.iter().filter(|index| index.unique);
    let unique = unique.map(|index| Arbiter {
        columns: index.columns.clone(),
        nulls_distinct: index.nulls_distinct,
        deferrable: index.deferral.is_deferrable(),
        index: Some(index.name.clone()),
    });
    key.into_iter().chain(unique).collect()
}

impl Arbiter {
    /// The name of the constraint or index.
    fn constraint(&self, table: &TableDef) -> String {
        self.index.clone().unwrap_or_else(|| table.primary_key_name())
    }

    /// A value that both a changed row and a new one have: their places.
    fn first_shared(&self, changed: &RecordBatch, new: &RecordBatch) -> Result<Option<(usize, usize)>> {
        if changed.num_rows() == 0 || new.num_rows() == 0 {
            return Ok(None);
        }
        let columns = |rows: &RecordBatch| -> Vec<ArrayRef> {
            self.columns.iter().map(|column| Arc::clone(rows.column(*column))).collect()
        };
        let (changed, new) = (columns(changed), columns(new));
        let converter =
            RowConverter::new(changed.iter().map(|column| SortField::new(column.data_type().clone())).collect())?;
        let (changed_values, new_values) = (converter.convert_columns(&changed)?, converter.convert_columns(&new)?);
        let unlike_all = |row: usize| self.nulls_distinct && changed.iter().any(|column| column.is_null(row));
        let known: HashMap<Row<'_>, usize> =
            changed_values.iter().zip(0..).filter(|(_, row)| !unlike_all(*row)).collect();
        Ok(new_values.iter().zip(0..).find_map(|(value, row)| Some((*known.get(&value)?, row))))
    }

    /// Which proposed rows have their value taken, and by what: the row's number, then the stored row's columns.
    async fn holders(
        &self,
        statement: &Statement<'_>,
        transaction: &Transaction,
        table: &Arc<TableDef>,
        rows: &RecordBatch,
    ) -> Result<RecordBatch> {
        let origins: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..u32::try_from(rows.num_rows()).unwrap_or(0)));
        if self.columns == table.primary_key {
            let key_columns = table.key_columns().iter().map(|column| Arc::clone(rows.column(*column)));
            let keys = key_batch(table, &key_columns.collect::<Vec<_>>())?;
            let taken = BooleanArray::from(transaction.view().lookup(table.id, &keys).await?);
            let old = existing_rows(transaction, table, &filter_record_batch(&keys, &taken)?).await?;
            let origins = filter(&origins, &taken)?;
            let columns = [("row", origins)].into_iter();
            let named = old.columns().iter().map(|column| ("old", Arc::clone(column)));
            let (names, columns): (Vec<&str>, Vec<ArrayRef>) = columns.chain(named).unzip();
            return batch_of(&names, columns);
        }
        let mut columns: Vec<ArrayRef> = self.columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
        columns.push(origins);
        let names: Vec<String> = (0..columns.len()).map(|place| place.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let proposed = batch_of(&names, columns)?;
        let context = statement.context(transaction.view());
        let source = provider_as_source(Arc::new(MemTable::try_new(proposed.schema(), vec![vec![proposed]])?));
        let proposed = LogicalPlanBuilder::scan("proposed", source, None)?.build()?;
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (place, column) in self.columns.iter().enumerate() {
            left.push(Column::new(Some("old"), table.schema.field(*column).name()));
            right.push(Column::new(Some("proposed"), place.to_string()));
        }
        let nulls = match self.nulls_distinct {
            true => NullEquality::NullEqualsNothing,
            false => NullEquality::NullEqualsNull,
        };
        let source = provider_as_source(Arc::new(ColumnTable::with_hidden_columns(table, context.view())?));
        let old = LogicalPlanBuilder::scan("old", source, None)?;
        let joined = old.join_detailed(proposed, JoinType::Inner, (left, right), None, nulls)?;
        let origin = Expr::Column(Column::new(Some("proposed"), self.columns.len().to_string()));
        let mut list = vec![origin];
        let stored = table.storage_schema().fields().iter();
        list.extend(stored.map(|field| Expr::Column(Column::new(Some("old"), field.name()))));
        run(statement, context, joined.project(list)?.build()?).await
    }

    /// Waits until nobody is removing the rows in the way or giving their values up, and fails with `Conflict` if one is gone, or
    /// has given the value up. Who has only locked one is not waited for.
    async fn require_in_the_way(
        &self,
        transaction: &mut Transaction,
        table: &TableDef,
        found: &RecordBatch,
    ) -> Result<()> {
        let keys = keys_of(table, found)?;
        transaction.lock_rows(table.id, &keys, RowLock::Present, None).await?;
        if self.columns == table.primary_key {
            return Ok(());
        }
        // The lock is on the row, and not on its value in the index: somebody may have changed it before.
        let newest = match transaction.newest_view().await {
            Ok(newest) => newest,
            // This transaction has changed tables, and others have, too: it cannot see what is newer than its snapshot.
            Err(StorageError::Conflict { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if newest.timestamp() == transaction.as_view().timestamp() {
            return Ok(());
        }
        let before = transaction.as_view().get(table.id, &keys, &self.columns).await?;
        let now = newest.get(table.id, &keys, &self.columns).await?;
        match before.columns() == now.columns() {
            true => Ok(()),
            false => Err(StorageError::Conflict { table: table.name.clone() }.into()),
        }
    }
}

/// Waits for those who are about to remove the rows in the way, or to change what makes them stand there, and fails with
/// `Conflict` if somebody has. No lock stays, not even if the command is run again: it is going to insert the row then,
/// and so may another one that has waited like this.
async fn require_in_the_way(
    arbiters: &[Arbiter],
    transaction: &mut Transaction,
    table: &TableDef,
    holders: &[RecordBatch],
) -> Result<()> {
    for (arbiter, found) in arbiters.iter().zip(holders) {
        for start in (0..found.num_rows()).step_by(LOCKED_AT_ONCE) {
            let some = found.slice(start, LOCKED_AT_ONCE.min(found.num_rows() - start));
            let held = transaction.lock_count();
            let still = arbiter.require_in_the_way(transaction, table, &some).await;
            transaction.release_locks_to(held);
            still?;
        }
    }
    Ok(())
}

/// Whether a later one of the proposed rows meets a row that this command changes. What WHERE says of that one does not matter
/// any more. Both are the keys of rows, and the numbers of the proposed rows that have met them.
fn are_met_again(met: (&RecordBatch, &UInt32Array), changed: (&RecordBatch, &UInt32Array)) -> Result<bool> {
    let ((met_keys, met_by), (changed_keys, changed_by)) = (met, changed);
    let sort_fields = met_keys.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(sort_fields)?;
    let met_keys = converter.convert_columns(met_keys.columns())?;
    let changed_keys = converter.convert_columns(changed_keys.columns())?;
    let mut last: HashMap<Row<'_>, u32> = HashMap::with_capacity(met_keys.num_rows());
    for (key, number) in met_keys.iter().zip(met_by.values()) {
        let known = last.entry(key).or_insert(*number);
        *known = (*known).max(*number);
    }
    let mut changed = changed_keys.iter().zip(changed_by.values());
    Ok(changed.any(|(key, number)| last.get(&key).is_some_and(|last| last > number)))
}

/// The keys of rows in the way: their columns as stored come behind the proposed rows' numbers.
fn keys_of(table: &TableDef, found: &RecordBatch) -> Result<RecordBatch> {
    let columns = table.key_columns().iter().map(|column| Arc::clone(found.column(column + 1)));
    key_batch(table, &columns.collect::<Vec<_>>())
}

fn batch_of(names: &[&str], columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let fields = names.iter().zip(&columns).map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?)
}

/// The visible rows with these keys, one for each, in the same order.
async fn existing_rows(transaction: &Transaction, table: &TableDef, keys: &RecordBatch) -> Result<RecordBatch> {
    let sort_fields = keys.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(sort_fields)?;
    let distinct = take_record_batch(keys, &first_of_each(keys.columns())?)?;
    let all: Vec<usize> = (0..table.schema.fields().len()).collect();
    let found = transaction.view().get(table.id, &distinct, &all).await?;
    let found_keys: Vec<ArrayRef> =
        table.key_columns().iter().map(|column| Arc::clone(found.column(*column))).collect();
    let places: HashMap<OwnedRow, u32> =
        converter.convert_columns(&found_keys)?.iter().map(|row| row.owned()).zip(0u32..).collect();
    let wanted = converter.convert_columns(keys.columns())?;
    let places = wanted.iter().map(|row| {
        let place = places.get(&row.owned()).copied();
        place.ok_or_else(|| Error::internal("a row that was there for ON CONFLICT is gone"))
    });
    let places = UInt32Array::from(places.collect::<Result<Vec<u32>>>()?);
    Ok(take_record_batch(&found, &places)?)
}

impl ConflictUpdate {
    fn new(context: &StatementContext, table: &Arc<TableDef>, alias: Option<&Ident>, update: DoUpdate) -> Result<Self> {
        let DoUpdate { assignments, selection } = update;
        let alias = alias.cloned().unwrap_or_else(|| quoted(&table.name));
        let mut scope = RowScope::default()
            .with(&fold(&alias), table.storage_schema().fields())
            .with(EXCLUDED, table.schema.fields());
        scope.push_hidden(ORIGIN, &DataType::UInt32);
        let target = |expr: ast::Expr| {
            check_qualified(&expr, table)?;
            scope.resolve(context, expr)
        };
        let assigned_exprs = assigned_values(table, assignments)?;
        let assigned = (0..assigned_exprs.len()).filter(|column| assigned_exprs[*column].is_some()).collect();
        let mut values = Vec::with_capacity(assigned_exprs.len());
        for (value, field) in assigned_exprs.into_iter().zip(table.schema.fields()) {
            values.push(match value {
                None => scope.resolve(context, column(&alias, field.name()))?,
                Some(value) => target(cast(value, &name_of(&arriving_type(field)))?)?,
            });
        }
        let selection = selection.map(target).transpose()?;
        Ok(ConflictUpdate { scope, selection, values, assigned })
    }

    fn plan(&self, table: &TableDef, rows: Vec<Vec<ArrayRef>>) -> Result<LogicalPlan> {
        let mut plan = self.scope.rows(rows)?;
        if let Some(selection) = &self.selection {
            plan = plan.filter(selection.clone())?;
        }
        let mut list = Vec::new();
        for (place, key) in table.key_columns().iter().enumerate() {
            list.push(self.scope.column(*key)?.alias(format!("key {place}")));
        }
        let values = self.values.iter().enumerate();
        list.extend(values.map(|(column, value)| value.clone().alias(format!("new {column}"))));
        list.push(self.scope.column(table.storage_schema().fields().len() + table.schema.fields().len())?);
        Ok(plan.project(list)?.build()?)
    }
}

/// Refuses bare names of the target's columns, which `excluded` has too.
fn check_qualified(expr: &ast::Expr, table: &TableDef) -> Result<()> {
    let found = look_at_own(expr, |part| match part {
        ast::Expr::Identifier(ident) if table.schema.field_with_name(&fold(ident)).is_ok() => {
            ControlFlow::Break(ident.clone())
        }
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(ident) => {
            let message = format!("column reference \"{}\" is ambiguous", fold(&ident));
            let hint = format!("Write \"{}.{ident}\" for the row that is there, or \"excluded.{ident}\".", table.name);
            Err(Error::new(sqlstate::AMBIGUOUS_COLUMN, message).with_hint(hint).at(place(ident.span)))
        }
    }
}

/// The constraint or index that a conflict target names.
fn arbiter_of(table: &TableDef, target: ConflictTarget) -> Result<Arbiter> {
    match target {
        ConflictTarget::Columns(names) => {
            let mut columns = Vec::with_capacity(names.len());
            for name in &names {
                columns.push(column_index(table, &fold(name)).map_err(|error| error.at(place(name.span)))?);
            }
            let sorted = |columns: &[usize]| {
                let mut sorted = columns.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                sorted
            };
            let wanted = sorted(&columns);
            arbiters_of(table).into_iter().find(|arbiter| sorted(&arbiter.columns) == wanted).ok_or_else(no_arbiter)
        }
        ConflictTarget::OnConstraint(name) => {
            if let Some(inference) = inference(&name)? {
                return inferred(table, &inference);
            }
            let (_, constraint) = table_name(&name)?;
            let is_key = !table.primary_key.is_empty() && constraint == table.primary_key_name();
            let named = |arbiter: &Arbiter| match &arbiter.index {
                None => is_key,
                Some(index) => *index == constraint,
            };
            match arbiters_of(table).into_iter().find(named) {
                Some(arbiter) => Ok(arbiter),
                None => {
                    let message = format!("constraint \"{constraint}\" for table \"{}\" does not exist", table.name);
                    Err(Error::new(sqlstate::UNDEFINED_OBJECT, message).at(place(name.span())))
                }
            }
        }
    }
}

fn no_arbiter() -> Error {
    Error::new(
        sqlstate::INVALID_COLUMN_REFERENCE,
        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
    )
}

/// The unique index that a list of expressions, and perhaps a condition, describe. A condition that says more than the
/// index's own is fine, and so is any for an index over all rows.
fn inferred(table: &TableDef, inference: &Inference) -> Result<Arbiter> {
    let normal = |exprs: &[ast::Expr]| exprs.iter().map(normalized).collect::<BTreeSet<String>>();
    let wanted = normal(&inference.keys);
    for arbiter in arbiters_of(table) {
        let text = index_texts(table)?.into_iter().find(|text| Some(&text.name) == arbiter.index.as_ref());
        let Some(text) = text else {
            let column = |column: &usize| ast::Expr::Identifier(quoted(table.schema.field(*column).name()));
            if normal(&arbiter.columns.iter().map(column).collect::<Vec<_>>()) == wanted {
                return Ok(arbiter);
            }
            continue;
        };
        let keys = text.keys.iter().map(|key| parse_expression(key)).collect::<Result<Vec<_>>>()?;
        let implied = match (&text.predicate, &inference.predicate) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(given)) => {
                let given: BTreeSet<String> = conjuncts(given).into_iter().map(normalized).collect();
                let own = parse_expression(own)?;
                conjuncts(&own).into_iter().all(|part| given.contains(&normalized(part)))
            }
        };
        if normal(&keys) == wanted && implied {
            return Ok(arbiter);
        }
    }
    Err(no_arbiter())
}

/// The parts of a condition that all must hold.
fn conjuncts(expr: &ast::Expr) -> Vec<&ast::Expr> {
    match expr {
        ast::Expr::Nested(inner) => conjuncts(inner),
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
            let mut parts = conjuncts(left);
            parts.extend(conjuncts(right));
            parts
        }
        other => vec![other],
    }
}

/// The text of an expression without what makes no difference: parentheses, the table's name, and case.
fn normalized(expr: &ast::Expr) -> String {
    struct Normalize;
    impl ast::VisitorMut for Normalize {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
            match expr {
                ast::Expr::Nested(inner) => *expr = inner.as_ref().clone(),
                ast::Expr::Identifier(ident) => *ident = quoted(&fold(ident)),
                ast::Expr::CompoundIdentifier(parts) => {
                    if let Some(column) = parts.last() {
                        *expr = ast::Expr::Identifier(quoted(&fold(column)));
                    }
                }
                ast::Expr::Function(function) => {
                    for part in &mut function.name.0 {
                        if let ast::ObjectNamePart::Identifier(ident) = part {
                            *ident = quoted(&fold(ident));
                        }
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut expr = expr.clone();
    let _ = ast::VisitMut::visit(&mut expr, &mut Normalize);
    expr.to_string()
}

fn second_time() -> Error {
    Error::new(sqlstate::CARDINALITY_VIOLATION, "ON CONFLICT DO UPDATE command cannot affect row a second time")
        .with_hint(
            "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
        )
}
