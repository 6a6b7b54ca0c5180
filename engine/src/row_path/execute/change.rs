//! INSERT, UPDATE and DELETE: everything is computed, looked up and locked first, and changed then, in one call of the
//! store's. A program that fails has changed nothing.
//!
//! Locks are taken in the order of the ordinary path: the table and its rows, then the parents. With another order, those
//! who take both ways could wait for each other, and whoever waits for a row would have parents meanwhile.

use bytes::Bytes;
use rustydb_storage::{Change, FoundRow, Hindrance, KeyRange, ReadView, RowLock, TableDef, Transaction, WantedColumns};

use super::{Call, Outcome, Run, Stop, fulfils};
use crate::row_path::datum::{Datum, Stored};
use crate::row_path::expression::{Decided, Inputs, Node, StoredRow, Undecided};
use crate::row_path::program::{Conflict, Delete, Insert, NewValue, Parent, Returning, Rules, Update};

/// The values of RETURNING for rows as stored.
fn returned(
    returning: &Option<Returning>,
    table: &TableDef,
    stored: &[Stored],
    rows: &[Bytes],
    call: Call<'_>,
) -> Run<Option<Vec<Vec<Datum>>>> {
    let Some(Returning { output, schema: _ }) = returning else { return Ok(None) };
    let row = |bytes: &Bytes| {
        let row = [StoredRow { table, columns: stored, bytes }];
        output.iter().map(|node| node.evaluate(&call.inputs(&row, &[]))).collect::<Decided<Vec<_>>>()
    };
    Ok(Some(rows.iter().map(row).collect::<Decided<_>>()?))
}

/// Fails undecided if a CHECK does not hold for a new row.
fn check(rules: &Rules, table: &TableDef, stored: &[Stored], bytes: &[u8], call: Call<'_>) -> Run<()> {
    let row = [StoredRow { table, columns: stored, bytes }];
    for rule in &rules.checks {
        if rule.truth(&call.inputs(&row, &[]))? == Some(false) {
            return Err(Stop::Undecided);
        }
    }
    Ok(())
}

/// The keys of the parents that new rows refer to, all of which are there.
fn parents_of(parents: &[Parent], table: &TableDef, rows: &[Bytes], view: &ReadView) -> Run<Vec<Vec<Vec<u8>>>> {
    let mut all = Vec::with_capacity(parents.len());
    let mut hindrance = Hindrance::default();
    for parent in parents {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for row in rows {
            let mut key = KeyRange::new(&parent.table, None)?;
            let mut refers = true;
            for column in &parent.columns {
                let Some(value) = table.stored_value(row, *column) else {
                    refers = false;
                    break;
                };
                key.push(Some(value))?;
            }
            if refers && !keys.iter().any(|known| known == key.key()) {
                if hindrance.pass(view.has_stored(&parent.table, key.key()))? == Some(false) {
                    return Err(Stop::Undecided);
                }
                keys.push(key.key().to_vec());
            }
        }
        all.push(keys);
    }
    hindrance.end()?;
    Ok(all)
}

fn lock_parents(parents: &[Parent], keys: Vec<Vec<Vec<u8>>>, transaction: &mut Transaction) -> Run<()> {
    for (parent, keys) in parents.iter().zip(keys) {
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        if !keys.is_empty() {
            transaction.lock_stored(&parent.table, &keys, RowLock::Referenced, None)?;
        }
    }
    Ok(())
}

impl Insert {
    pub(super) fn run(&self, transaction: &mut Transaction, call: Call<'_>) -> Run<Outcome> {
        let mut rows = Vec::with_capacity(self.rows.len());
        for values in &self.rows {
            rows.push(self.row(values, transaction, call)?);
        }
        if let (Some(conflict), [proposed]) = (&self.conflict, rows.as_slice()) {
            let all = WantedColumns::new(&self.table, 0..self.stored.len());
            let key = self.table.stored_key(proposed)?;
            if let Some(found) = transaction.as_view().stored_row(&self.table, &key, &all)? {
                return self.conflicting(conflict, found, proposed, transaction, call);
            }
        }
        let returned = returned(&self.returning, &self.table, &self.stored, &rows, call)?;
        let parents = parents_of(&self.parents, &self.table, &rows, transaction.as_view())?;
        let count = rows.len() as u64;
        let new = transaction.lock_to_insert(&self.table, rows)?;
        lock_parents(&self.parents, parents, transaction)?;
        if transaction.insert_locked(&self.table, new)? == Change::Taken {
            return Err(Stop::Undecided);
        }
        Ok(Outcome { count, rows: returned, looks: self.rows.len() })
    }

    fn row(&self, values: &[Node], transaction: &Transaction, call: Call<'_>) -> Run<Bytes> {
        let mut writer = self.table.row_writer()?;
        let inputs = call.inputs(&[], &[]);
        for ((value, stored), rule) in values.iter().zip(&self.stored).zip(&self.rules.columns) {
            let value = value.evaluate(&inputs)?;
            if !rule.accepts(&value) {
                return Err(Stop::Undecided);
            }
            stored.write(&value, |raw| writer.push(raw))??;
        }
        if self.table.primary_key.is_empty() {
            writer.push(Some(&transaction.new_row_id().to_le_bytes()))?;
        }
        let bytes = writer.finish()?;
        check(&self.rules, &self.table, &self.stored, &bytes, call)?;
        Ok(bytes)
    }

    /// The proposed row's key is taken.
    fn conflicting(
        &self,
        conflict: &Conflict,
        found: FoundRow,
        proposed: &Bytes,
        transaction: &mut Transaction,
        call: Call<'_>,
    ) -> Run<Outcome> {
        let nothing = || -> Run<Outcome> {
            let rows = returned(&self.returning, &self.table, &self.stored, &[], call)?;
            Ok(Outcome { count: 0, rows, looks: 1 })
        };
        let Some(update) = &conflict.update else {
            // Somebody may be about to remove the row, which leaves something to do. If so, that is waited for on the ordinary
            // path, which gives the lock back afterwards.
            let held = transaction.lock_count();
            let keys = std::iter::once(found.key());
            let locked = transaction.lock_free_stored(&self.table, keys, 1, RowLock::Present)?;
            transaction.release_locks_to(held);
            return if locked.is_empty() { Err(Stop::Undecided) } else { nothing() };
        };
        // What is decided and computed is about the row as it is until this transaction ends.
        transaction.lock_to_update(&self.table, std::slice::from_ref(&found), std::slice::from_ref(&found.bytes))?;
        let (table, columns) = (self.table.as_ref(), self.stored.as_slice());
        let both =
            [StoredRow { table, columns, bytes: &found.bytes }, StoredRow { table, columns, bytes: proposed.as_ref() }];
        let inputs = call.inputs(&both, &[]);
        if !fulfils(&update.conditions, &inputs)? {
            return nothing();
        }
        let new = new_row(table, columns, &update.values, &self.rules, &found.bytes, &inputs)?;
        check(&self.rules, table, columns, &new, call)?;
        let rows = [new];
        let returned = returned(&self.returning, table, columns, &rows, call)?;
        let parents = parents_of(&update.parents, table, &rows, transaction.as_view())?;
        if !update.parents.is_empty() {
            transaction.lock_to_update(table, std::slice::from_ref(&found), &rows)?;
            lock_parents(&update.parents, parents, transaction)?;
        }
        let [new] = rows;
        if transaction.update_stored(table, vec![(found, new)])? == Change::Taken {
            return Err(Stop::Undecided);
        }
        Ok(Outcome { count: 1, rows: returned, looks: 1 })
    }
}

/// A changed row: a copy of the old one with what is computed.
fn new_row(
    table: &TableDef,
    stored: &[Stored],
    values: &[NewValue],
    rules: &Rules,
    old: &[u8],
    inputs: &Inputs<'_>,
) -> Run<Bytes> {
    let mut editor = table.row_editor(old)?;
    for (column, value) in values.iter().enumerate() {
        let NewValue::Computed(node) = value else { continue };
        let value = node.evaluate(inputs)?;
        if !rules.columns.get(column).is_some_and(|rule| rule.accepts(&value)) {
            return Err(Stop::Undecided);
        }
        let stored = stored.get(column).ok_or(Undecided)?;
        stored.write(&value, |raw| editor.set(column, raw))??;
    }
    Ok(editor.finish())
}

impl Update {
    pub(super) fn run(&self, transaction: &mut Transaction, call: Call<'_>) -> Run<Outcome> {
        let (table, stored) = (self.target.table.as_ref(), self.target.stored.as_slice());
        let (found, looks) = self.target.targets(transaction.as_view(), call)?;
        let mut new = Vec::with_capacity(found.len());
        for row in &found {
            let old = [self.target.stored_row(&row.bytes)];
            let bytes = new_row(table, stored, &self.values, &self.rules, &row.bytes, &call.inputs(&old, &[]))?;
            check(&self.rules, table, stored, &bytes, call)?;
            new.push(bytes);
        }
        let rows = returned(&self.returning, table, stored, &new, call)?;
        let parents = parents_of(&self.parents, table, &new, transaction.as_view())?;
        let count = found.len() as u64;
        if count > 0 {
            if !self.parents.is_empty() {
                transaction.lock_to_update(table, &found, &new)?;
                lock_parents(&self.parents, parents, transaction)?;
            }
            let changes = found.into_iter().zip(new).collect();
            if transaction.update_stored(table, changes)? == Change::Taken {
                return Err(Stop::Undecided);
            }
        }
        Ok(Outcome { count, rows, looks })
    }
}

impl Delete {
    pub(super) fn run(&self, transaction: &mut Transaction, call: Call<'_>) -> Run<Outcome> {
        let (table, stored) = (self.target.table.as_ref(), self.target.stored.as_slice());
        let (found, looks) = self.target.targets(transaction.as_view(), call)?;
        let rows: Vec<Bytes> = match &self.returning {
            Some(_) => found.iter().map(|row| row.bytes.clone()).collect(),
            None => Vec::new(),
        };
        let rows = returned(&self.returning, table, stored, &rows, call)?;
        if !found.is_empty() {
            transaction.delete_stored(table, &found)?;
        }
        Ok(Outcome { count: found.len() as u64, rows, looks })
    }
}
