//! Changes of rows as bytes: the writes of the engine's row path.
//!
//! The rules are those of the changes by batches in the parent module: the same locks in the same order, the same
//! comparisons with the newest committed state, the same conflicts. What differs is that rows and keys come encoded, that
//! a row to be changed brings its place ([`FoundRow`]), that a value of a unique key that is taken is no error here:
//! nothing is changed then, and the caller is told (whether somebody is giving the value up, the changes by batches find
//! out); and that nothing waits. What has to be waited for comes before the
//! first change ([`Attempt`]).

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_txn::{LockMode, Resource};

use super::isolation::INDEX_SPACE;
use super::writes::{key_bytes, require_indexable};
use super::{RowLock, Transaction, have_one_value, unique_columns};
use crate::catalog::{TableDef, TableId};
use crate::encoding::{Key, Keys};
use crate::error::{Error, Result};
use crate::index::unique_value;
use crate::locks::LockWait;
use crate::obstacle::{Attempt, Blocked, Hindrance};
use crate::point::{FoundRow, Origin};

/// Whether a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Change {
    /// It was.
    Made,
    /// A new row's key, or its value in a unique index, is taken. Nothing was changed.
    Taken,
}

/// A new row with its key.
#[derive(Debug)]
struct NewRow {
    key: Key,
    bytes: Bytes,
}

/// New rows whose locks are taken.
#[derive(Debug)]
pub struct NewRows(Vec<NewRow>);

impl Transaction {
    /// A new value for the hidden key of a table without a primary key.
    pub fn new_row_id(&self) -> u64 {
        self.view.snapshot.store.new_row_id()
    }

    /// Inserts compact rows of the storage schema.
    pub fn insert_stored(&mut self, table: &TableDef, rows: Vec<Bytes>) -> Attempt<Change> {
        let new = self.lock_to_insert(table, rows)?;
        self.insert_locked(table, new)
    }

    /// The second half of [`insert_stored`](Self::insert_stored).
    pub fn insert_locked(&mut self, table: &TableDef, NewRows(new): NewRows) -> Attempt<Change> {
        if !self.are_free(table, &new, &HashSet::new())? {
            return Ok(Change::Taken);
        }
        self.require_fit(table, new.iter().map(|row| &row.bytes))?;
        let writes = Arc::make_mut(&mut self.view.writes);
        for NewRow { key, bytes } in new {
            writes.set(table, key, None, Some(bytes), &mut self.undo)?;
        }
        Ok(Change::Made)
    }

    /// The first half of [`insert_stored`](Self::insert_stored), for a caller who needs other locks after these.
    pub fn lock_to_insert(&mut self, table: &TableDef, rows: Vec<Bytes>) -> Attempt<NewRows> {
        let new = new_rows(table, rows)?;
        self.lock_new_rows(table, &new)?;
        Ok(NewRows(new))
    }

    fn lock_new_rows(&mut self, table: &TableDef, new: &[NewRow]) -> Attempt<()> {
        let mut wanted = Vec::new();
        if !table.has_hidden_key() {
            wanted = self.row_locks(table.id, new.iter().map(|row| (&*row.key, LockMode::RowUpdate)));
        }
        self.add_value_locks(table, new, &mut wanted)?;
        let locked = self.acquire(table, LockMode::RowExclusive, wanted, None);
        let waits = matches!(locked, Err(Blocked::Waits(_)));
        if waits && self.acquire(table, LockMode::RowExclusive, Vec::new(), None).is_ok() {
            // The table is not what it waits for. Rows that are refused whoever has the locks need none.
            let keys = Keys::of(new.iter().map(|row| &*row.key))?;
            if self.is_surely_taken(table, &keys)? {
                return Ok(());
            }
        }
        locked
    }

    /// Replaces rows, which were found in this transaction's present view, each once, by others.
    pub fn update_stored(&mut self, table: &TableDef, changes: Vec<(FoundRow, Bytes)>) -> Attempt<Change> {
        if table.indexes.iter().any(|index| index.unique)
            || changes.iter().any(|(old, new)| !table.have_one_key(&old.bytes, new))
        {
            return self.update_keys(table, changes);
        }
        let wanted = self.row_locks(table.id, changes.iter().map(|(old, _)| (old.key(), LockMode::RowNoKeyUpdate)));
        self.acquire(table, LockMode::RowExclusive, wanted, None)?;
        self.require_same_rows(table, changes.iter().map(|(old, _)| old), RowLock::Update)?;
        self.require_fit(table, changes.iter().map(|(_, new)| new))?;
        changes.into_iter().try_for_each(|(old, new)| self.replace(table, old, new))?;
        Ok(Change::Made)
    }

    /// Takes the locks of [`update_stored`](Self::update_stored) beforehand, for a caller who needs others after them, and
    /// fails as that does if a row has changed. `new` are the rows that are to be in the places of `old`.
    pub fn lock_to_update(&mut self, table: &TableDef, old: &[FoundRow], new: &[Bytes]) -> Attempt<()> {
        let wanted = self.update_locks(table, old, &new_rows(table, new.iter().cloned())?)?;
        self.acquire(table, LockMode::RowExclusive, wanted, None)?;
        self.require_same_rows(table, old.iter(), RowLock::Update)
    }

    /// The locks of rows that others are put in the places of, of their new keys and of their new values in unique indexes.
    fn update_locks(&self, table: &TableDef, old: &[FoundRow], new: &[NewRow]) -> Result<Vec<(Resource, LockMode)>> {
        let unique = unique_columns(table);
        let (mut rows, mut wanted) = (Vec::with_capacity(new.len()), Vec::new());
        for (old, new) in old.iter().zip(new) {
            let same_values = have_one_value(table, &unique, &old.bytes, &new.bytes);
            let (old_key, new_key) = (old.key(), &*new.key);
            let same_key = old_key == new_key;
            let mode = if same_key && same_values { LockMode::RowNoKeyUpdate } else { LockMode::RowRemoval };
            rows.push((old_key, mode));
            if !same_key {
                rows.push((new_key, LockMode::RowUpdate));
            }
            if !same_values {
                // Else, who wants the value of this row finds it, and it is locked.
                self.add_value_locks(table, std::slice::from_ref(new), &mut wanted)?;
            }
        }
        wanted.extend(self.row_locks(table.id, rows.into_iter()));
        Ok(wanted)
    }

    /// The same for rows that may have another key afterwards, or another value in a unique index.
    fn update_keys(&mut self, table: &TableDef, changes: Vec<(FoundRow, Bytes)>) -> Attempt<Change> {
        let mut old = Vec::with_capacity(changes.len());
        let mut new = Vec::with_capacity(changes.len());
        for (row, bytes) in changes {
            new.push(NewRow { key: table.stored_key(&bytes)?.as_slice().into(), bytes });
            old.push(row);
        }
        let wanted = self.update_locks(table, &old, &new)?;
        self.acquire(table, LockMode::RowExclusive, wanted, None)?;
        self.require_same_rows(table, old.iter(), RowLock::Update)?;
        let replaced: HashSet<&[u8]> = old.iter().map(FoundRow::key).collect();
        if !self.are_free(table, &new, &replaced)? {
            return Ok(Change::Taken);
        }
        self.require_fit(table, new.iter().map(|row| &row.bytes))?;
        if old.iter().zip(&new).all(|(old, new)| old.key() == &*new.key) {
            old.into_iter().zip(new).try_for_each(|(old, new)| self.replace(table, old, new.bytes))?;
            return Ok(Change::Made);
        }
        // A row may take the key of another that is changed, too: first all go, then all come.
        old.iter().try_for_each(|row| self.remove(table, row))?;
        let writes = Arc::make_mut(&mut self.view.writes);
        for NewRow { key, bytes } in new {
            writes.set(table, key, None, Some(bytes), &mut self.undo)?;
        }
        Ok(Change::Made)
    }

    /// Deletes rows, which were found in this transaction's present view, each once.
    pub fn delete_stored(&mut self, table: &TableDef, rows: &[FoundRow]) -> Attempt<()> {
        let wanted = self.row_locks(table.id, rows.iter().map(|row| (row.key(), LockMode::RowRemoval)));
        self.acquire(table, LockMode::RowExclusive, wanted, None)?;
        self.require_same_rows(table, rows.iter(), RowLock::Update)?;
        let committed = rows.iter().filter(|row| matches!(row.origin, Origin::Committed(_)));
        self.require_room(committed.map(|row| key_bytes(table, row.key())).sum())?;
        rows.iter().try_for_each(|row| self.remove(table, row))?;
        Ok(())
    }

    /// Locks visible rows by their keys, waiting for those who have them; see [`lock_rows`](Self::lock_rows).
    pub fn lock_stored(
        &mut self,
        table: &TableDef,
        keys: &[&[u8]],
        lock: RowLock,
        wait: Option<LockWait>,
    ) -> Attempt<()> {
        let wanted = self.row_locks(table.id, keys.iter().map(|key| (*key, lock.mode())));
        self.acquire(table, LockMode::RowShare, wanted, wait)?;
        if self.is_current() {
            return Ok(());
        }
        let keys = Keys::of(keys.iter().copied())?;
        self.require_same(table, &keys, &every(&keys), lock)
    }

    /// Locks the first `wanted` of these visible rows that nobody else has; tells which. See
    /// [`try_lock_row`](Self::try_lock_row). If something else has to be waited for, or it fails, none of them is locked:
    /// meanwhile others may be free, and it is others that a new snapshot may show.
    pub fn lock_free_stored<'k>(
        &mut self,
        table: &TableDef,
        keys: impl Iterator<Item = &'k [u8]>,
        wanted: usize,
        lock: RowLock,
    ) -> Attempt<Vec<usize>> {
        let before = self.control.lock_count();
        let mut locked = Vec::new();
        for (at, key) in keys.enumerate() {
            if locked.len() >= wanted {
                break;
            }
            let held = self.control.lock_count();
            match self.lock_stored(table, &[key], lock, Some(LockWait::NoWait)) {
                Ok(()) => locked.push(at),
                Err(Blocked::Failed(Error::LockNotAvailable { .. })) => self.control.release_to(held),
                Err(blocked) => {
                    self.control.release_to(before);
                    return Err(blocked);
                }
            }
        }
        Ok(locked)
    }

    /// Whether nothing was committed since the snapshot.
    fn is_current(&self) -> bool {
        self.view.snapshot.store.is_newest(self.view.snapshot.timestamp)
    }

    fn require_same_rows<'r>(
        &self,
        table: &TableDef,
        rows: impl Iterator<Item = &'r FoundRow>,
        lock: RowLock,
    ) -> Attempt<()> {
        if self.is_current() {
            return Ok(());
        }
        let committed = rows.filter(|row| matches!(row.origin, Origin::Committed(_)));
        let keys = Keys::of(committed.map(FoundRow::key))?;
        self.require_same(table, &keys, &every(&keys), lock)
    }

    /// The locks of values in unique indexes.
    fn add_value_locks(&self, table: &TableDef, rows: &[NewRow], wanted: &mut Vec<(Resource, LockMode)>) -> Result<()> {
        for (position, index) in table.indexes.iter().enumerate().filter(|(_, index)| index.unique) {
            let space = TableId(index.id.0 | INDEX_SPACE);
            let values = values_of(table, position, rows)?;
            wanted.extend(self.row_locks(space, values.iter().map(|value| (value.as_slice(), LockMode::RowUpdate))));
        }
        Ok(())
    }

    /// Whether no new row's key or value in a unique index belongs to another new row or to a visible one that is not
    /// `replaced`, nor to one that was committed meanwhile.
    fn are_free(&self, table: &TableDef, new: &[NewRow], replaced: &HashSet<&[u8]>) -> Attempt<bool> {
        let view = &self.view;
        if !table.has_hidden_key() {
            let keys = Keys::of(new.iter().map(|row| &*row.key))?;
            let mut hindrance = Hindrance::default();
            for (row, NewRow { key, .. }) in new.iter().enumerate() {
                if replaced.contains(&**key) {
                    continue;
                }
                if hindrance.pass(view.look_up(table.id, key))?.flatten().is_some() {
                    self.require_still_taken(table, &keys, row)?;
                    return Ok(false);
                }
            }
            hindrance.end()?;
            if has_double(new.iter().map(|row| &*row.key)) {
                return Ok(false);
            }
            let fresh: Vec<usize> = (0..keys.len()).filter(|row| !replaced.contains(keys.get(*row))).collect();
            if self.find_newer(table, &keys, &fresh)?.is_some() {
                return Ok(false);
            }
        }
        for (position, _) in table.indexes.iter().enumerate().filter(|(_, index)| index.unique) {
            let values = values_of(table, position, new)?;
            let _pins = view.pin_postings(table, position, &values)?;
            for value in &values {
                if let Some(holder) = view.holder(table, position, value, |key| replaced.contains(key))? {
                    self.require_value_still_taken(table, position, value, &holder, replaced)?;
                    return Ok(false);
                }
            }
            if has_double(values.iter().map(Vec::as_slice))
                || self.find_newer_value(table, position, &values, replaced)?.is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fails if new rows are too many bytes, or cannot be in the table's indexes.
    fn require_fit<'r>(&self, table: &TableDef, rows: impl Iterator<Item = &'r Bytes> + Clone) -> Result<()> {
        self.require_room(rows.clone().map(Bytes::len).sum())?;
        require_indexable(table, rows)
    }

    /// Fails if so many bytes more are too many.
    fn require_room(&self, added: usize) -> Result<()> {
        let limit_bytes = self.view.snapshot.store.transaction_bytes();
        match self.view.writes.bytes() + added > limit_bytes {
            true => Err(Error::TransactionTooLarge { limit_bytes }),
            false => Ok(()),
        }
    }

    /// Puts another row into the place of a visible one with the same key.
    fn replace(&mut self, table: &TableDef, old: FoundRow, new: Bytes) -> Result<()> {
        let (writes, undo) = (Arc::make_mut(&mut self.view.writes), &mut self.undo);
        let hidden = old.origin.in_segment().map(|(segment, row)| (segment.meta.id, row));
        writes.set(table, old.key, old.origin.into_place(), Some(new), undo)?;
        if let Some((segment, row)) = hidden {
            writes.hide(table.id, segment, row, undo);
        }
        Ok(())
    }

    /// Marks a visible row as deleted by this transaction.
    fn remove(&mut self, table: &TableDef, row: &FoundRow) -> Result<()> {
        let (writes, undo) = (Arc::make_mut(&mut self.view.writes), &mut self.undo);
        if !matches!(row.origin, Origin::Staged(..)) {
            writes.set(table, row.key.clone(), row.origin.clone().into_place(), None, undo)?;
        }
        if let Some((segment, row)) = row.origin.in_segment() {
            writes.hide(table.id, segment.meta.id, row, undo);
        }
        Ok(())
    }
}

fn new_rows(table: &TableDef, rows: impl IntoIterator<Item = Bytes>) -> Result<Vec<NewRow>> {
    let new =
        |bytes: Bytes| -> Result<NewRow> { Ok(NewRow { key: table.stored_key(&bytes)?.as_slice().into(), bytes }) };
    rows.into_iter().map(new).collect()
}

/// The values that new rows have in a unique index, where those must differ.
fn values_of(table: &TableDef, position: usize, rows: &[NewRow]) -> Result<Vec<Vec<u8>>> {
    let codec = table.codec()?;
    let value = |row: &NewRow| {
        unique_value(&table.indexes[position], &codec.indexes[position], &codec.rows, &row.bytes).transpose()
    };
    rows.iter().filter_map(value).collect()
}

/// The numbers of all keys.
fn every(keys: &Keys) -> Vec<usize> {
    (0..keys.len()).collect()
}

fn has_double<'a>(mut values: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
    let mut seen = HashSet::new();
    values.len() > 1 && !values.all(|value| seen.insert(value))
}
