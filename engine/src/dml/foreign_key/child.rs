//! New rows of a table that refers to another: is what they refer to there, and does it stay?

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, not, take_record_batch};
use arrow::datatypes::{Field, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, col};
use rustydb_storage::{ForeignKey, LockMode, ReadView, RowLock, TableDef, Transaction};

use super::lookup::{Holders, find_holders};
use super::parent::old_values;
use super::{column_names, first_row, key_text, parent_of, qualified, referred_columns, scan};
use crate::dml::apply::first_of_each;
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::{Error, Result};

/// Which rows of an UPDATE refer to what they referred to before, by the name of the foreign key.
///
/// Nothing is checked of those, as in PostgreSQL. That is looked at where it decides: if a table refers to itself, the same
/// UPDATE may take away what a row refers to, and it is the action of the foreign key that the row follows then; and rows that a
/// `NOT VALID` foreign key has never looked at may refer to nothing that is there.
#[derive(Debug, Default)]
pub(crate) struct Unchanged(HashMap<String, BooleanArray>);

impl Unchanged {
    /// Compares the rows with these keys with those that shall be in their places. `assigns` tells which columns may differ.
    pub(crate) async fn look(
        transaction: &Transaction,
        table: &TableDef,
        keys: &RecordBatch,
        rows: &RecordBatch,
        assigns: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let mut by_name = HashMap::new();
        for foreign_key in &table.foreign_keys {
            let assigned = |columns: &[usize]| columns.iter().any(|column| assigns(*column));
            let takes_away = foreign_key.parent == table.id && assigned(&foreign_key.parent_columns);
            if !assigned(&foreign_key.columns) || !(takes_away || foreign_key.not_validated) {
                continue;
            }
            let view = transaction.view();
            let before = old_values(&view, table, keys, foreign_key.columns.clone()).await?;
            drop(view);
            let now = rows.project(&foreign_key.columns)?;
            let sort_fields = now.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
            let converter = RowConverter::new(sort_fields)?;
            let (old, new) =
                (converter.convert_columns(before.old.columns())?, converter.convert_columns(now.columns())?);
            let mut unchanged = vec![false; rows.num_rows()];
            for (old, place) in old.iter().zip(before.rows.iter().flat_map(|places| places.values())) {
                let place = *place as usize;
                unchanged[place] = old == new.row(place);
            }
            by_name.insert(foreign_key.name.clone(), BooleanArray::from(unchanged));
        }
        Ok(Unchanged(by_name))
    }

    /// The rows' referring columns without those that are as they were.
    fn without(&self, foreign_key: &ForeignKey, own: RecordBatch) -> Result<RecordBatch> {
        match self.0.get(&foreign_key.name) {
            None => Ok(own),
            Some(unchanged) => Ok(filter_record_batch(&own, &not(unchanged)?)?),
        }
    }
}

/// Checks the foreign keys of rows just put into `table`: those that `concerned` picks.
pub(crate) async fn check_new_rows(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &TableDef,
    rows: &RecordBatch,
    concerned: impl Fn(&ForeignKey) -> bool,
    unchanged: &Unchanged,
) -> Result<()> {
    for foreign_key in table.foreign_keys.iter().filter(|foreign_key| concerned(foreign_key)) {
        if statement.deferred.lock().put_off(table, foreign_key) {
            continue;
        }
        let view = transaction.view();
        let own = unchanged.without(foreign_key, rows.project(&foreign_key.columns)?)?;
        let Some(references) = References::of(&view, table, foreign_key, &own)? else { continue };
        let timestamp = view.timestamp();
        let holders = references.holders(statement, view).await?;
        let References { parent, referred, keys, .. } = references;
        transaction.lock_rows(parent.id, &holders, RowLock::Referenced, None).await?;
        if referred == parent.primary_key {
            continue;
        }
        // The lock is on the row, and not on the value that is referred to: somebody may have changed it until then.
        let newest = transaction.newest_view().await?;
        if newest.timestamp() != timestamp {
            let Holders { found, .. } = find_holders(statement, newest, &parent, &referred, &keys).await?;
            if found.contains(&false) {
                return Err(rustydb_storage::Error::Conflict { table: parent.name.clone() }.into());
            }
        }
    }
    Ok(())
}

/// What new rows refer to by one foreign key: at least one row of the parent.
pub(super) struct References<'a> {
    table: &'a TableDef,
    foreign_key: &'a ForeignKey,
    parent: Arc<TableDef>,
    /// The parent's columns that are referred to, ...
    referred: Vec<usize>,
    /// ... and the different values that rows must have there.
    keys: RecordBatch,
}

impl<'a> References<'a> {
    /// `own` are the referring columns of the rows, in the order of the foreign key. `None`: they refer to nothing.
    pub(super) fn of(
        view: &ReadView,
        table: &'a TableDef,
        foreign_key: &'a ForeignKey,
        own: &RecordBatch,
    ) -> Result<Option<Self>> {
        let parent = parent_of(view, foreign_key)?;
        let referred = referred_columns(&parent, foreign_key);
        if foreign_key.match_full
            && let Some(row) = (0..own.num_rows()).find(|row| mixes(own, *row))
        {
            return Err(mixed(table, foreign_key, own, row));
        }
        let keys = referring_keys(foreign_key, &parent, &referred, own)?;
        if keys.num_rows() == 0 {
            return Ok(None);
        }
        let references = References { table, foreign_key, parent, referred, keys };
        // A value that the parent's column cannot hold has no row there either; it was cast to NULL.
        let keys = &references.keys;
        match (0..keys.num_rows()).find(|row| keys.columns().iter().any(|column| column.is_null(*row))) {
            Some(row) => Err(references.missing(row)?),
            None => Ok(Some(references)),
        }
    }

    /// How many rows of the parent it is about.
    pub(super) fn count(&self) -> usize {
        self.keys.num_rows()
    }

    /// The keys of the rows that are referred to, all of which must be there.
    async fn holders(&self, statement: &Statement<'_>, view: ReadView) -> Result<RecordBatch> {
        let Holders { found, keys } = find_holders(statement, view, &self.parent, &self.referred, &self.keys).await?;
        match found.iter().position(|found| !found) {
            Some(row) => Err(self.missing(row)?),
            None => Ok(keys),
        }
    }

    /// Looks for the rows that are referred to in the newest committed state, whatever the transaction's snapshot is, and
    /// locks them. No statement runs again for what has changed meanwhile: it is looked at here.
    pub(super) async fn lock_newest(&self, statement: &Statement<'_>, transaction: &mut Transaction) -> Result<()> {
        loop {
            let view = transaction.newest_view().await?;
            let holders = self.holders(statement, view).await?;
            let held = transaction.lock_count();
            match transaction.lock_rows(self.parent.id, &holders, RowLock::Referenced, None).await {
                // One that was waited for has gone, which the next look shows.
                Err(rustydb_storage::Error::Conflict { .. }) if transaction.isolation().moves_with_statements() => {}
                locked => locked?,
            }
            // Those that were locked before they were looked for are still there.
            if transaction.lock_count() == held {
                return Ok(());
            }
        }
    }

    /// The error for the values in a row of `keys` that no row has.
    fn missing(&self, row: usize) -> Result<Error> {
        let columns: Vec<usize> =
            self.referred.iter().map(|column| child_column(self.foreign_key, *column)).collect::<Result<_>>()?;
        Ok(no_parent(self.table, self.foreign_key, &columns, &self.parent, &key_text(&self.keys, row)?))
    }
}

/// Whether a row has NULL in some of the referring columns and not in others.
fn mixes(own: &RecordBatch, row: usize) -> bool {
    let mut nulls = own.columns().iter().map(|column| column.is_null(row));
    let first = nulls.next();
    nulls.any(|is_null| Some(is_null) != first)
}

/// The error of a row that does.
fn mixed(table: &TableDef, foreign_key: &ForeignKey, own: &RecordBatch, row: usize) -> Error {
    let text = key_text(own, row).unwrap_or_default();
    violation(table, foreign_key)
        .with_detail("MATCH FULL does not allow mixing of null and nonnull key values.")
        .with_key(named(table, &foreign_key.columns), text)
}

/// The different keys that rows refer to, as the columns of the parent that are referred to. `own` are the referring
/// columns.
fn referring_keys(
    foreign_key: &ForeignKey,
    parent: &TableDef,
    referred: &[usize],
    own: &RecordBatch,
) -> Result<RecordBatch> {
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    let mut refers = vec![true; own.num_rows()];
    for parent_column in referred {
        let column = own.column(place_of(foreign_key, *parent_column)?);
        let field = parent.schema.field(*parent_column);
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

/// The child's column that refers to a column of the parent.
pub(super) fn child_column(foreign_key: &ForeignKey, parent_column: usize) -> Result<usize> {
    let place = place_of(foreign_key, parent_column)?;
    foreign_key.columns.get(place).copied().ok_or_else(|| not_covered(foreign_key))
}

/// The place of a column of the parent among those that a foreign key refers to.
fn place_of(foreign_key: &ForeignKey, parent_column: usize) -> Result<usize> {
    let place = foreign_key.parent_columns.iter().position(|column| *column == parent_column);
    place.ok_or_else(|| not_covered(foreign_key))
}

fn not_covered(foreign_key: &ForeignKey) -> Error {
    Error::internal(format!("foreign key \"{}\" does not cover its parent's key", foreign_key.name))
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
    transaction.lock_table(foreign_key.parent, LockMode::Referenced, None).await?;
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
            let context = context.clone().with_options(|options| options.optimizer.prefer_hash_join = false);
            first_row(statement, &context, plan(&context)?).await?
        }
        result => result?,
    };
    if let Some(orphan) = orphan {
        return Err(no_parent(table, foreign_key, &foreign_key.columns, &parent, &key_text(&orphan, 0)?));
    }
    if foreign_key.match_full && foreign_key.columns.len() > 1 {
        let columns = || foreign_key.columns.iter().map(|column| col(qualified("child", table, *column)));
        let some_null = columns().map(Expr::is_null).reduce(Expr::or);
        let some_not = columns().map(Expr::is_not_null).reduce(Expr::or);
        if let (Some(some_null), Some(some_not)) = (some_null, some_not) {
            let child = scan(&context, "child", table, &foreign_key.columns)?;
            let plan = child.filter(some_null.and(some_not))?.limit(0, Some(1))?.build()?;
            if first_row(statement, &context, plan).await?.is_some() {
                return Err(violation(table, foreign_key)
                    .with_detail("MATCH FULL does not allow mixing of null and nonnull key values."));
            }
        }
    }
    Ok(())
}

/// `columns` are the referring columns in the order of the values in `key`.
fn no_parent(table: &TableDef, foreign_key: &ForeignKey, columns: &[usize], parent: &TableDef, key: &str) -> Error {
    violation(table, foreign_key)
        .with_detail(format!(
            "Key ({})=({key}) is not present in table \"{}\".",
            column_names(table, columns),
            parent.name
        ))
        .with_key(named(table, columns), key.to_owned())
}

fn violation(table: &TableDef, foreign_key: &ForeignKey) -> Error {
    let message = format!(
        "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
        table.name, foreign_key.name
    );
    Error::new(sqlstate::FOREIGN_KEY_VIOLATION, message)
}

fn named(table: &TableDef, columns: &[usize]) -> Vec<String> {
    columns.iter().map(|column| table.schema.field(*column).name().clone()).collect()
}
