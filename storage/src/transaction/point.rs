//! Changes of rows as bytes: the writes of the engine's row path.
//!
//! The rules are those of the changes by batches in the parent module: the same locks in the same order, the same
//! comparisons with the newest committed state, the same conflicts. What differs is that rows and keys come encoded, that
//! a row to be changed brings its place ([`FoundRow`]), and that a value of a unique key that is taken is no error here:
//! nothing is changed then, and the caller is told.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_txn::{Expectation, LockMode, Resource};

use super::isolation::INDEX_SPACE;
use super::{RowLock, Transaction};
use crate::catalog::{TableDef, TableId};
use crate::encoding::Keys;
use crate::error::{Error, Result};
use crate::index::unique_value;
use crate::locks::LockWait;
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
struct NewRow {
    key: Vec<u8>,
    bytes: Bytes,
}

impl Transaction {
    /// A new value for the hidden key of a table without a primary key.
    pub fn new_row_id(&self) -> u64 {
        self.snapshot.store.new_row_id()
    }

    /// Inserts compact rows of the storage schema.
    pub async fn insert_stored(&mut self, table: &TableDef, rows: Vec<Bytes>) -> Result<Change> {
        let new = rows.into_iter().map(|bytes| Ok(NewRow { key: table.stored_key(&bytes)?, bytes }));
        let new = new.collect::<Result<Vec<_>>>()?;
        let mut wanted = Vec::new();
        if !table.has_hidden_key() {
            wanted = self.row_locks(table.id, new.iter().map(|row| (row.key.as_slice(), LockMode::RowUpdate)));
        }
        self.add_value_locks(table, &new, &mut wanted)?;
        self.acquire(table, LockMode::RowExclusive, wanted, None).await?;
        if !self.are_free(table, &new, &HashSet::new()).await? {
            return Ok(Change::Taken);
        }
        self.require_room(&new)?;
        let writes = Arc::make_mut(&mut self.writes);
        for NewRow { key, bytes } in new {
            writes.set(table, &key, Expectation::Absent, Some(bytes), &mut self.undo)?;
        }
        Ok(Change::Made)
    }

    /// Replaces rows, which were found in this transaction's present view, each once, by others.
    pub async fn update_stored(&mut self, table: &TableDef, changes: Vec<(FoundRow, Bytes)>) -> Result<Change> {
        let mut old = Vec::with_capacity(changes.len());
        let mut new = Vec::with_capacity(changes.len());
        for (row, bytes) in changes {
            let key = table.stored_key(&bytes)?;
            new.push(NewRow { key, bytes });
            old.push(row);
        }
        let wanted = old.iter().zip(&new).flat_map(|(old, new)| {
            let (old, new) = (old.key(), new.key.as_slice());
            let mode = if old == new { LockMode::RowNoKeyUpdate } else { LockMode::RowUpdate };
            [(old, mode)].into_iter().chain((old != new).then_some((new, mode)))
        });
        let mut wanted = self.row_locks(table.id, wanted);
        self.add_value_locks(table, &new, &mut wanted)?;
        self.acquire(table, LockMode::RowExclusive, wanted, None).await?;
        self.require_same_rows(table, &old, RowLock::Update).await?;
        let moved = old.iter().zip(&new).any(|(old, new)| old.key() != new.key);
        if moved || table.indexes.iter().any(|index| index.unique) {
            let replaced: HashSet<&[u8]> = old.iter().map(FoundRow::key).collect();
            if !self.are_free(table, &new, &replaced).await? {
                return Ok(Change::Taken);
            }
        }
        self.require_room(&new)?;
        if moved {
            // A row may take the key of another that is changed, too: first all go, then all come.
            old.iter().try_for_each(|row| self.remove(table, row))?;
            let writes = Arc::make_mut(&mut self.writes);
            for NewRow { key, bytes } in new {
                writes.set(table, &key, Expectation::Absent, Some(bytes), &mut self.undo)?;
            }
            return Ok(Change::Made);
        }
        let writes = Arc::make_mut(&mut self.writes);
        for (old, NewRow { key, bytes }) in old.into_iter().zip(new) {
            let expectation = match &old.origin {
                Origin::Pending | Origin::Staged(..) => Expectation::Absent,
                Origin::Memory | Origin::Segment(..) => Expectation::Present,
            };
            writes.set(table, &key, expectation, Some(bytes), &mut self.undo)?;
            if let Origin::Segment(segment, row) | Origin::Staged(segment, row) = &old.origin {
                writes.hide(table.id, segment.meta.id, *row, &mut self.undo);
            }
        }
        Ok(Change::Made)
    }

    /// Deletes rows, which were found in this transaction's present view, each once.
    pub async fn delete_stored(&mut self, table: &TableDef, rows: &[FoundRow]) -> Result<()> {
        let wanted = self.row_locks(table.id, rows.iter().map(|row| (row.key(), LockMode::RowUpdate)));
        self.acquire(table, LockMode::RowExclusive, wanted, None).await?;
        self.require_same_rows(table, rows, RowLock::Update).await?;
        rows.iter().try_for_each(|row| self.remove(table, row))?;
        let limit_bytes = self.snapshot.store.transaction_bytes();
        match self.writes.bytes() > limit_bytes {
            true => Err(Error::TransactionTooLarge { limit_bytes }),
            false => Ok(()),
        }
    }

    /// Locks visible rows by their keys, waiting for those who have them; see [`lock_rows`](Self::lock_rows).
    pub async fn lock_stored(
        &mut self,
        table: &TableDef,
        keys: &[&[u8]],
        lock: RowLock,
        wait: Option<LockWait>,
    ) -> Result<()> {
        let wanted = self.row_locks(table.id, keys.iter().map(|key| (*key, lock.mode())));
        self.acquire(table, LockMode::RowShare, wanted, wait).await?;
        if self.is_current() {
            return Ok(());
        }
        let keys = Keys::of(keys.iter().copied())?;
        self.require_same(table, &keys, (0..keys.len()).collect(), lock).await
    }

    /// Locks one row if nobody else has it; tells whether. See [`try_lock_row`](Self::try_lock_row).
    pub async fn try_lock_stored(&mut self, table: &TableDef, key: &[u8], lock: RowLock) -> Result<bool> {
        let held = self.control.lock_count();
        match self.lock_stored(table, &[key], lock, Some(LockWait::NoWait)).await {
            Ok(()) => Ok(true),
            Err(error) => {
                self.control.release_to(held);
                match error {
                    Error::LockNotAvailable { .. } => Ok(false),
                    error => Err(error),
                }
            }
        }
    }

    /// Whether nothing was committed since the snapshot.
    fn is_current(&self) -> bool {
        self.snapshot.store.is_newest(self.snapshot.timestamp)
    }

    async fn require_same_rows(&self, table: &TableDef, rows: &[FoundRow], lock: RowLock) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        let committed = rows.iter().filter(|row| matches!(row.origin, Origin::Memory | Origin::Segment(..)));
        let keys = Keys::of(committed.map(FoundRow::key))?;
        self.require_same(table, &keys, (0..keys.len()).collect(), lock).await
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
    async fn are_free(&self, table: &TableDef, new: &[NewRow], replaced: &HashSet<&[u8]>) -> Result<bool> {
        let view = self.view();
        if !table.has_hidden_key() {
            let keys = Keys::of(new.iter().map(|row| row.key.as_slice()))?;
            for (row, NewRow { key, .. }) in new.iter().enumerate() {
                if !replaced.contains(key.as_slice()) && view.find_or_load(table.id, key).await?.is_some() {
                    self.require_still_taken(table, &keys, row).await?;
                    return Ok(false);
                }
            }
            if has_double(new.iter().map(|row| row.key.as_slice())) {
                return Ok(false);
            }
            let fresh = (0..keys.len()).filter(|row| !replaced.contains(keys.get(*row))).collect();
            if self.find_newer(table, &keys, fresh).await?.is_some() {
                return Ok(false);
            }
        }
        for (position, _) in table.indexes.iter().enumerate().filter(|(_, index)| index.unique) {
            let values = values_of(table, position, new)?;
            let _pins = view.load_postings(table, position, &values).await?;
            for value in &values {
                if view.holder(table, position, value, |key| replaced.contains(key))?.is_some() {
                    self.require_value_still_taken(table, position, value, replaced).await?;
                    return Ok(false);
                }
            }
            if has_double(values.iter().map(Vec::as_slice))
                || self.find_newer_value(table, position, &values, replaced).await?.is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn require_room(&self, new: &[NewRow]) -> Result<()> {
        let limit_bytes = self.snapshot.store.transaction_bytes();
        let added: usize = new.iter().map(|row| row.bytes.len()).sum();
        match self.writes.bytes() + added > limit_bytes {
            true => Err(Error::TransactionTooLarge { limit_bytes }),
            false => Ok(()),
        }
    }

    /// Marks a visible row as deleted by this transaction.
    fn remove(&mut self, table: &TableDef, row: &FoundRow) -> Result<()> {
        let (writes, undo) = (Arc::make_mut(&mut self.writes), &mut self.undo);
        match &row.origin {
            Origin::Pending => writes.set(table, &row.key, Expectation::Absent, None, undo)?,
            Origin::Memory => writes.set(table, &row.key, Expectation::Present, None, undo)?,
            Origin::Segment(segment, number) => {
                writes.set(table, &row.key, Expectation::Present, None, undo)?;
                writes.hide(table.id, segment.meta.id, *number, undo);
            }
            Origin::Staged(segment, number) => writes.hide(table.id, segment.meta.id, *number, undo),
        }
        Ok(())
    }
}

/// The values that new rows have in a unique index, where those must differ.
fn values_of(table: &TableDef, position: usize, rows: &[NewRow]) -> Result<Vec<Vec<u8>>> {
    let codec = table.codec()?;
    let value = |row: &NewRow| {
        unique_value(&table.indexes[position], &codec.indexes[position], &codec.rows, &row.bytes).transpose()
    };
    rows.iter().filter_map(value).collect()
}

fn has_double<'a>(mut values: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
    let mut seen = HashSet::new();
    values.len() > 1 && !values.all(|value| seen.insert(value))
}
