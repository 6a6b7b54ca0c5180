//! How a transaction is kept apart from others: its level and its locks ([`super::refresh`]: the moves of its snapshot).
//!
//! Writers lock what they write, and then look whether it is still what their snapshot shows:
//!
//! ```text
//!   UPDATE: find the rows on the snapshot ─▶ lock them, waiting ─▶ changed since? ─▶ Conflict
//!                                                                  └─ no ─▶ nobody can change them before we end
//! ```
//! At READ COMMITTED a `Conflict` makes the engine run the statement again on a new snapshot ([`Transaction::refresh`]),
//! keeping the locks; at the higher levels the transaction fails.
//!
//! Locks are held until the commit is in place, not until it is durable. Whoever gets a lock next moves its snapshot to
//! what is in place, and so sees what was committed under it; its own commit is published after that one, and if it has
//! nothing to commit, its end waits for that one. So no end of a transaction is reported that rests on something a power cut can still take
//! back.
//!
//! Locks make transactions wait instead of fail; that no change is lost does not rest on them: every commit still
//! compares each key with its snapshot (`store/commit.rs`).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use rustydb_txn::{Expectation, Isolation, LockMode, Resource, Timestamp, Verdict, VersionState, judge_write};

use super::{Transaction, unique_values};
use crate::catalog::{TableDef, TableId};
use crate::encoding::Keys;
use crate::error::{Error, Result};
use crate::locks::{LockWait, TransactionLocks};
use crate::obstacle::{Attempt, Blocked, Obstacle, insist};
use crate::segment::Pins;
use crate::serial::SerialTransaction;
use crate::store::{Version, footprint, hash};
use crate::view::Snapshot;

/// Tells the numbers of indexes from those of tables.
pub(super) const INDEX_SPACE: u64 = 1 << 63;

/// What a transaction is promised and how it behaves.
#[derive(Debug, Clone, Copy)]
pub struct TransactionOptions {
    /// How far it is kept apart from others.
    pub isolation: Isolation,
    /// It promises to change nothing: at SERIALIZABLE that makes it cheaper. Nobody checks it here.
    pub read_only: bool,
    /// With SERIALIZABLE and `read_only`: begins with waiting for a snapshot that can never cause a conflict.
    pub deferrable: bool,
    /// How long it waits for locks.
    pub lock_wait: LockWait,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        let (read_only, deferrable) = (false, false);
        TransactionOptions { isolation: Isolation::default(), read_only, deferrable, lock_wait: LockWait::Wait(None) }
    }
}

/// The part of a transaction that is about others.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    isolation: Isolation,
    /// `None`: takes no locks, so that conflicts are only found at commit.
    lock_wait: Option<LockWait>,
    /// Whether the caller will run a statement again that met a concurrent change.
    reruns: bool,
    /// From the first lock on, even if they are all given back.
    pub(super) locks: Option<Arc<TransactionLocks>>,
    /// At SERIALIZABLE, unless the snapshot is safe.
    pub(super) serial: Option<Arc<SerialTransaction>>,
}

impl Control {
    /// Nothing is locked; the first to commit wins.
    pub(crate) fn optimistic() -> Self {
        Control { isolation: Isolation::Snapshot, lock_wait: None, reruns: false, locks: None, serial: None }
    }

    pub(crate) fn new(options: &TransactionOptions, serial: Option<Arc<SerialTransaction>>) -> Self {
        let (isolation, lock_wait) = (options.isolation, Some(options.lock_wait));
        Control { isolation, lock_wait, reruns: isolation.moves_with_statements(), locks: None, serial }
    }

    /// How many locks are held.
    pub(super) fn lock_count(&self) -> usize {
        self.locks.as_ref().map_or(0, |locks| locks.count())
    }

    /// The locks that are held, if any.
    pub(super) fn held(&self) -> Option<Arc<TransactionLocks>> {
        self.locks.clone()
    }

    pub(super) fn release_to(&self, count: usize) {
        if let Some(locks) = &self.locks {
            locks.release_to(count);
        }
    }
}

/// How strongly rows are locked by a statement that does not change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowLock {
    /// FOR KEY SHARE
    KeyShare,
    /// The same lock for foreign keys and others that do not read the row: it only has to be there.
    Referenced,
    /// Less than that: the row is there and nobody is removing it or changing its key, whoever may have locked it.
    Present,
    /// FOR SHARE
    Share,
    /// FOR NO KEY UPDATE
    NoKeyUpdate,
    /// FOR UPDATE
    Update,
}

impl RowLock {
    pub(super) fn mode(self) -> LockMode {
        match self {
            RowLock::Present => LockMode::RowPresence,
            RowLock::KeyShare | RowLock::Referenced => LockMode::RowKeyShare,
            RowLock::Share => LockMode::RowShared,
            RowLock::NoKeyUpdate => LockMode::RowNoKeyUpdate,
            RowLock::Update => LockMode::RowUpdate,
        }
    }
}

impl Transaction {
    /// Its level.
    pub fn isolation(&self) -> Isolation {
        self.control.isolation
    }

    /// Changes how long it waits for locks.
    pub fn set_lock_wait(&mut self, wait: LockWait) {
        if self.control.lock_wait.is_some() {
            self.control.lock_wait = Some(wait);
        }
    }

    /// Tells that the caller will run the statement again if it fails with `Conflict`. At READ COMMITTED that is so from
    /// the beginning.
    pub fn expect_reruns(&mut self, reruns: bool) {
        self.control.reruns = reruns;
    }

    /// Locks a table until the end of the transaction.
    ///
    /// # Errors
    /// `Deadlock`, `LockTimeout`, and `LockNotAvailable` if it would have to wait and `wait` forbids that.
    pub async fn lock_table(&mut self, table: TableId, mode: LockMode, wait: Option<LockWait>) -> Result<()> {
        let Some(usual) = self.control.lock_wait else { return Ok(()) };
        let Some(definition) = self.view.snapshot.version.catalog.table(table).cloned() else { return Ok(()) };
        let resource = Resource::Table(table.0);
        self.locks().acquire(resource, mode, wait.unwrap_or(usual), &definition.name).await
    }

    /// Locks the visible rows with these keys (the key columns, in key order), waiting for those who have them.
    ///
    /// # Errors
    /// `Conflict` if a row was changed since the snapshot; for `Referenced` and `Present`, and for `KeyShare` where the statement
    /// is not run again, only if it was removed. The locks stay.
    pub async fn lock_rows(
        &mut self,
        table: TableId,
        keys: &RecordBatch,
        lock: RowLock,
        wait: Option<LockWait>,
    ) -> Result<()> {
        let definition = Arc::clone(self.view.catalog.require(table)?);
        let keys = self.view().encode_keys(table, keys)?;
        let wanted = self.row_locks(table, (0..keys.len()).map(|row| (keys.get(row), lock.mode())));
        self.acquire_waiting(&definition, LockMode::RowShare, wanted, wait).await?;
        let rows: Vec<usize> = (0..keys.len()).collect();
        insist(|| self.require_same(&definition, &keys, &rows, lock)).await
    }

    /// Locks one row if nobody else has it; tells whether.
    ///
    /// # Errors
    /// `Conflict` if it is free but was changed since the snapshot. It is not locked then.
    pub async fn try_lock_row(&mut self, table: TableId, key: &RecordBatch, lock: RowLock) -> Result<bool> {
        let held = self.control.lock_count();
        match self.lock_rows(table, key, lock, Some(LockWait::NoWait)).await {
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

    /// How many locks it has; a place for [`release_locks_to`](Self::release_locks_to).
    pub fn lock_count(&self) -> usize {
        self.control.lock_count()
    }

    /// Gives back the locks that were taken since there were `count`.
    pub fn release_locks_to(&self, count: usize) {
        self.control.release_to(count);
    }

    /// The locks that stand for rows.
    pub(super) fn row_locks<'a>(
        &self,
        table: TableId,
        rows: impl Iterator<Item = (&'a [u8], LockMode)>,
    ) -> Vec<(Resource, LockMode)> {
        if self.control.lock_wait.is_none() {
            return Vec::new();
        }
        let locks = self.view.snapshot.store.locks();
        rows.map(|(key, mode)| (locks.row(table, key), mode)).collect()
    }

    /// The locks that stand for values in unique indexes: two rows that want the same value wait for each other, too.
    pub(super) fn value_locks(&self, table: &TableDef, rows: &RecordBatch) -> Result<Vec<(Resource, LockMode)>> {
        let mut wanted = Vec::new();
        if self.control.lock_wait.is_none() {
            return Ok(wanted);
        }
        for (position, index) in table.indexes.iter().enumerate().filter(|(_, index)| index.unique) {
            let (_, values) = unique_values(table, position, rows)?;
            let space = TableId(index.id.0 | INDEX_SPACE);
            let locks = self.view.snapshot.store.locks();
            wanted.extend(values.iter().map(|value| (locks.row(space, value), LockMode::RowUpdate)));
        }
        Ok(wanted)
    }

    fn locks(&mut self) -> &Arc<TransactionLocks> {
        let store = &self.view.snapshot.store;
        self.control.locks.get_or_insert_with(|| Arc::new(TransactionLocks::new(Arc::clone(store.locks()))))
    }

    /// Locks a table and then rows of it, all in one order for all transactions. If somebody is in the way, the obstacle is
    /// the rest of them: who has overcome it has them all.
    ///
    /// `wait` is about the rows alone, as NOWAIT and SKIP LOCKED are in PostgreSQL: the table is waited for as usual, and the
    /// rows are then asked for in the next attempt.
    pub(super) fn acquire(
        &mut self,
        table: &TableDef,
        table_mode: LockMode,
        mut rows: Vec<(Resource, LockMode)>,
        wait: Option<LockWait>,
    ) -> Attempt<()> {
        let Some(usual) = self.control.lock_wait else { return Ok(()) };
        if self.view.snapshot.version.catalog.table(table.id).is_none() {
            // Nobody else knows the table.
            return Ok(());
        }
        let limit_bytes = self.view.snapshot.store.transaction_bytes();
        let locks = self.locks();
        // Some may be held already: by an attempt before this one, for example.
        if !locks.have_room_for(&rows, limit_bytes) {
            return Err(Error::TransactionTooLarge { limit_bytes }.into());
        }
        rows.sort_unstable();
        let blocked = |wait, wanted| match wait {
            LockWait::NoWait => Blocked::Failed(Error::LockNotAvailable { table: table.name.clone() }),
            LockWait::Wait(limit) => Blocked::Waits(Obstacle::of_locks(locks, wanted, limit, &table.name)),
        };
        let table_lock = Resource::Table(table.id.0);
        if !locks.try_acquire(table_lock, table_mode) {
            if wait.is_some() {
                rows.clear();
            }
            rows.insert(0, (table_lock, table_mode));
            return Err(blocked(usual, rows));
        }
        if let Some(first) = rows.iter().position(|(resource, mode)| !locks.try_acquire(*resource, *mode)) {
            return Err(blocked(wait.unwrap_or(usual), rows.split_off(first)));
        }
        Ok(self.require_same_table(table, table_mode)?)
    }

    /// Fails with `Conflict` if others have changed the table that was locked to be written to since the snapshot: they may have
    /// had the lock before. So it does if there is a new foreign key that refers to the table, by which nobody has looked for rows
    /// yet. Where the statement is not run again, the commit sees the difference if that makes one.
    pub fn require_same_table(&self, table: &TableDef, mode: LockMode) -> Result<()> {
        let is_written = matches!(mode, LockMode::RowExclusive | LockMode::Load);
        let Snapshot { store, version, .. } = &*self.view.snapshot;
        if !is_written || !self.control.reruns || store.has_shape_of(version) {
            return Ok(());
        }
        self.require_same_definition(table)?;
        if mode == LockMode::Load {
            return Ok(());
        }
        let (before, current) = (&version.catalog, store.current());
        let after = &current.catalog;
        let is_referred_to = !Arc::ptr_eq(before, after) && after.new_references(before, table.id).next().is_some();
        // If nothing newer can be shown to the statement, running it again is of no use, and it may not take any rows away.
        match is_referred_to && self.may_refresh() {
            false => Ok(()),
            true => Err(Error::Conflict { table: table.name.clone() }),
        }
    }

    /// Fails with `Conflict` if others have changed a table since the snapshot so that rows that were made for it do not fit. Who has
    /// it locked to load rows into it is sure that it stays as it is.
    pub fn require_same_definition(&self, table: &TableDef) -> Result<()> {
        let Snapshot { store, version, .. } = &*self.view.snapshot;
        if store.has_shape_of(version) {
            return Ok(());
        }
        let current = store.current();
        let same = match (version.catalog.table(table.id), current.catalog.table(table.id)) {
            // It is its own.
            (None, _) => true,
            (Some(then), Some(now)) => Arc::ptr_eq(then, now) || then.accepts_the_same_rows(now),
            (Some(_), None) => false,
        };
        match same {
            true => Ok(()),
            false => Err(Error::Conflict { table: table.name.clone() }),
        }
    }

    /// The same, waiting.
    pub(super) async fn acquire_waiting(
        &mut self,
        table: &TableDef,
        table_mode: LockMode,
        rows: Vec<(Resource, LockMode)>,
        wait: Option<LockWait>,
    ) -> Result<()> {
        if wait.is_some() {
            self.lock_table(table.id, table_mode, None).await?;
        }
        match self.acquire(table, table_mode, rows, wait) {
            Ok(()) => Ok(()),
            Err(Blocked::Failed(error)) => Err(error),
            Err(Blocked::Waits(obstacle)) => {
                obstacle.overcome().await.map(drop)?;
                self.require_same_table(table, table_mode)
            }
        }
    }

    /// Remembers that the end of this transaction must wait for every commit made so far.
    fn note_seen(&self) {
        if let Some(locks) = &self.control.locks {
            locks.note_seen(self.view.snapshot.store.newest());
        }
    }

    /// What the newest committed state has for those of some keys for which it may have something else than the snapshot.
    /// Nothing is looked for, nor has to be in memory, of the others.
    fn newest_states(&self, table: &TableDef, keys: &Keys, rows: &[usize]) -> Attempt<Vec<(usize, VersionState)>> {
        let store = &self.view.snapshot.store;
        if self.control.lock_wait.is_none() || store.is_newest(self.view.snapshot.timestamp) {
            return Ok(Vec::new());
        }
        let hash = |row: usize| hash(table.id.0, keys.get(row));
        let written = store.written_since(&self.view.snapshot, &footprint(rows.iter().map(|row| hash(*row))));
        if written.as_ref().is_some_and(|written| written.is_empty()) {
            return Ok(Vec::new());
        }
        let may_differ = |row: usize| written.as_ref().is_none_or(|written| written.binary_search(&hash(row)).is_ok());
        let version = store.current();
        let (mut states, mut missing) = (Vec::new(), Vec::new());
        for row in rows.iter().copied().filter(|row| may_differ(*row)) {
            match version.locate_in_memory(table.id, keys.get(row), Timestamp::MAX)? {
                Some(Some(located)) => states.push((row, VersionState::Live(located.written))),
                Some(None) => states.push((row, VersionState::Absent)),
                None => missing.push(row),
            }
        }
        if !missing.is_empty() {
            return Err(version.missing_keys(table.id, missing.iter().map(|row| keys.get(*row))).into());
        }
        self.note_seen();
        Ok(states)
    }

    /// Fails with `Conflict` if a locked row that the snapshot shows has changed since.
    pub(super) fn require_same(&self, table: &TableDef, keys: &Keys, rows: &[usize], lock: RowLock) -> Attempt<()> {
        let others;
        let rows = match self.view.writes.table(table.id) {
            Some(own) => {
                let is_own = |row: &usize| own.rows.contains_key(keys.get(*row));
                others = rows.iter().copied().filter(|row| !is_own(row)).collect::<Vec<_>>();
                &others
            }
            None => rows,
        };
        for (row, state) in self.newest_states(table, keys, rows)? {
            let same = match lock {
                RowLock::Referenced | RowLock::Present => state != VersionState::Absent,
                RowLock::KeyShare if !self.control.reruns => state != VersionState::Absent,
                _ => judge_write(Expectation::Present, state, self.view.snapshot.timestamp) == Verdict::Proceed,
            };
            if !same && self.is_committed(table, keys.get(row))? {
                return Err(Error::Conflict { table: table.name.clone() }.into());
            }
        }
        Ok(())
    }

    /// Whether the row that the view shows with this key is one that was committed.
    fn is_others(&self, table: &TableDef, key: &[u8]) -> Attempt<bool> {
        let own = self.view.writes.table(table.id).is_some_and(|own| own.rows.contains_key(key));
        Ok(!own && self.is_committed(table, key)?)
    }

    /// Whether the snapshot shows a committed row with this key: one in a staged segment is nobody else's.
    fn is_committed(&self, table: &TableDef, key: &[u8]) -> Attempt<bool> {
        let Snapshot { version, timestamp, .. } = &*self.view.snapshot;
        match version.locate_in_memory(table.id, key, *timestamp)? {
            Some(located) => Ok(located.is_some()),
            None => Err(version.missing_keys(table.id, std::iter::once(key)).into()),
        }
    }

    /// Looks whether others have committed rows with new keys since the snapshot. Returns the first such row; fails with
    /// `Conflict` instead if the caller will run the statement again and see for itself, and with `Unserializable` if this
    /// transaction has seen that there was no such row.
    pub(super) fn find_newer(&self, table: &TableDef, keys: &Keys, rows: &[usize]) -> Attempt<Option<usize>> {
        let is_newer = |state| matches!(state, VersionState::Live(written) if written > self.view.snapshot.timestamp);
        let mut newer = self.newest_states(table, keys, rows)?.into_iter().filter(|(_, state)| is_newer(*state));
        let Some((row, _)) = newer.next() else { return Ok(None) };
        self.require_duplicate(table, keys.get(row))?;
        Ok(Some(row))
    }

    /// Fails unless a row that the snapshot does not show is a duplicate for this transaction. It is none if the statement is run
    /// again and sees it, nor if the transaction has looked for it before it was there: no serial order has both.
    fn require_duplicate(&self, table: &TableDef, key: &[u8]) -> Result<()> {
        match &self.control.serial {
            _ if self.control.reruns => Err(Error::Conflict { table: table.name.clone() }),
            Some(serial) if serial.has_read(table.id, key) => Err(Error::Unserializable),
            _ => Ok(()),
        }
    }

    /// The newest committed state, if another than the snapshot's may hold values in a unique index there; with everything
    /// that [`newest_holder`](Self::newest_holder) needs for these values.
    fn newest_index(
        &self,
        table: &TableDef,
        position: usize,
        values: &[Vec<u8>],
    ) -> Attempt<Option<(Arc<Version>, Pins)>> {
        let store = &self.view.snapshot.store;
        if self.control.lock_wait.is_none() || store.is_newest(self.view.snapshot.timestamp) {
            return Ok(None);
        }
        let version = store.current();
        match version.pin_postings(table, position, values)? {
            Some(pins) => Ok(Some((version, pins))),
            None => Err(version.missing_postings(table, position, values)?.into()),
        }
    }

    /// The newest holder of a value in a unique index, beside the rows that this transaction replaces.
    fn newest_holder(
        &self,
        version: &Version,
        table: &TableDef,
        position: usize,
        value: &[u8],
        replaced: &HashSet<&[u8]>,
    ) -> Result<Option<Box<[u8]>>> {
        let own = self.view.writes.table(table.id);
        let gone = |key: &[u8]| replaced.contains(key) || own.is_some_and(|own| own.replaces(key));
        let holder = version.holder(table, position, value, Timestamp::MAX, gone)?;
        self.note_seen();
        Ok(holder)
    }

    /// As [`find_newer`](Self::find_newer), for values in a unique index that the snapshot shows as free.
    pub(super) fn find_newer_value(
        &self,
        table: &TableDef,
        position: usize,
        values: &[Vec<u8>],
        replaced: &HashSet<&[u8]>,
    ) -> Attempt<Option<usize>> {
        let Some((version, _pins)) = self.newest_index(table, position, values)? else { return Ok(None) };
        for (at, value) in values.iter().enumerate() {
            if let Some(holder) = self.newest_holder(&version, table, position, value, replaced)? {
                self.require_duplicate(table, &holder)?;
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// For a value in a unique index that the view shows as another row's: waits for whoever removes that row, or gives it
    /// another value, and looks again. Fails with `Conflict` if the value is free then. Neither the row stays locked nor what was
    /// locked after the first `before` locks: the statement ends.
    pub(super) async fn settle_value(
        &mut self,
        table: &TableDef,
        position: usize,
        value: &Vec<u8>,
        holder: &[u8],
        replaced: &HashSet<&[u8]>,
        before: usize,
    ) -> Result<()> {
        // Nothing is changed under the locks of this change, whatever comes of it; and who is waited for may want the value.
        self.control.release_to(before);
        let wanted = self.row_locks(table.id, std::iter::once((holder, LockMode::RowPresence)));
        self.acquire_waiting(table, LockMode::RowShare, wanted, None).await?;
        let settled = insist(|| self.require_value_still_taken(table, position, value, holder, replaced)).await;
        self.control.release_to(before);
        settled
    }

    /// As [`require_still_taken`](Self::require_still_taken), for a value in a unique index that this row has.
    pub(super) fn require_value_still_taken(
        &self,
        table: &TableDef,
        position: usize,
        value: &Vec<u8>,
        holder: &[u8],
        replaced: &HashSet<&[u8]>,
    ) -> Attempt<()> {
        let newest = self.newest_index(table, position, std::slice::from_ref(value))?;
        let Some((version, _pins)) = newest else { return Ok(()) };
        match self.newest_holder(&version, table, position, value, replaced)? {
            None if self.is_others(table, holder)? => Err(Error::Conflict { table: table.name.clone() }.into()),
            _ => Ok(()),
        }
    }

    /// For a key that the view shows as taken: fails with `Conflict` if it is free by now. Where the statement is not run again
    /// the transaction is worth another try.
    pub(super) fn require_still_taken(&self, table: &TableDef, keys: &Keys, row: usize) -> Attempt<()> {
        let mut states = self.newest_states(table, keys, &[row])?.into_iter();
        match states.any(|(_, state)| state == VersionState::Absent) && self.is_others(table, keys.get(row))? {
            true => Err(Error::Conflict { table: table.name.clone() }.into()),
            false => Ok(()),
        }
    }

    /// Whether the view shows one of these keys as taken and nobody removes its row: then new rows with these keys are refused
    /// whatever becomes of those who have locks in their way. No lock stays.
    pub(super) fn is_surely_taken(&mut self, table: &TableDef, keys: &Keys) -> Attempt<bool> {
        for row in 0..keys.len() {
            let key = keys.get(row);
            if self.view.look_up(table.id, key)?.is_none() {
                continue;
            }
            let held = self.control.lock_count();
            let locked = self.lock_stored(table, &[key], RowLock::Present, Some(LockWait::NoWait));
            self.control.release_to(held);
            match locked {
                Ok(()) => return Ok(true),
                // Somebody removes it, or has done so.
                Err(Blocked::Failed(Error::LockNotAvailable { .. } | Error::Conflict { .. })) => {}
                Err(blocked) => return Err(blocked),
            }
        }
        Ok(false)
    }
}
