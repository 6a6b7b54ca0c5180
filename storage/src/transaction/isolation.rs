//! How a transaction is kept apart from others: its level, its locks, and the moves of its snapshot.
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
use roaring::RoaringBitmap;
use rustydb_txn::{Expectation, Isolation, LockMode, Resource, Timestamp, Verdict, VersionState, judge_write};

use super::{Transaction, Writes, unique_values};
use crate::catalog::{TableDef, TableId};
use crate::encoding::Keys;
use crate::error::{Error, Result};
use crate::id_map::IdMap;
use crate::locks::{LOCK_BYTES, LockWait, TransactionLocks};
use crate::serial::SerialTransaction;
use crate::store::{Place, footprint, hash};
use crate::view::{ReadView, Snapshot};

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
    locks: Option<Arc<TransactionLocks>>,
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
            RowLock::KeyShare => LockMode::RowKeyShare,
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

    /// Moves the snapshot to the newest committed state; own changes stay. Does nothing where that would mix tables as
    /// they are now with tables this transaction has changed. A transaction that has locked something sees commits that
    /// are not durable yet.
    pub async fn refresh(&mut self) -> Result<()> {
        let newest = Arc::new(self.open_newest());
        if newest.timestamp == self.view.snapshot.timestamp && Arc::ptr_eq(&newest.version, &self.view.snapshot.version)
        {
            return Ok(());
        }
        if self.has_writes() {
            self.began.get_or_insert(self.view.snapshot.timestamp);
        }
        if self.structure.is_empty() {
            self.rebase(&newest).await?;
            self.view.catalog = Arc::clone(&newest.version.catalog);
            self.view.snapshot = newest;
        } else if self.same_catalog(&newest) {
            self.rebase(&newest).await?;
            self.view.snapshot = newest;
        }
        Ok(())
    }

    async fn rebase(&mut self, newest: &Snapshot) -> Result<()> {
        let rebased = self.rebased(newest).await?;
        if !Arc::ptr_eq(&rebased, &self.view.writes) {
            self.undo.note_all(&self.view.writes);
            self.view.writes = rebased;
        }
        Ok(())
    }

    /// The newest committed state with this transaction's changes, whatever its snapshot is: for checks that must know
    /// of everything, such as foreign keys.
    ///
    /// # Errors
    /// `Conflict` if others have changed tables meanwhile and this transaction, too.
    pub async fn newest_view(&self) -> Result<ReadView> {
        let newest = Arc::new(self.view.snapshot.store.open_applied_snapshot());
        if let Some(locks) = &self.control.locks {
            locks.note_seen(newest.timestamp);
        }
        let catalog = match self.structure.is_empty() {
            true => Arc::clone(&newest.version.catalog),
            false if self.same_catalog(&newest) => Arc::clone(&self.view.catalog),
            false => return Err(Error::Conflict { table: "(the catalog)".to_owned() }),
        };
        let writes = self.rebased(&newest).await?;
        Ok(ReadView { snapshot: newest, catalog, writes, serial: None, tables: None })
    }

    fn open_newest(&self) -> Snapshot {
        let store = &self.view.snapshot.store;
        match self.control.locks {
            Some(_) => store.open_applied_snapshot(),
            None => store.open_snapshot(),
        }
    }

    fn same_catalog(&self, newest: &Snapshot) -> bool {
        Arc::ptr_eq(&newest.version.catalog, &self.view.snapshot.version.catalog)
    }

    /// The pending changes on top of another snapshot: a flush or a compaction may have moved the rows they hide.
    async fn rebased(&self, newest: &Snapshot) -> Result<Arc<Writes>> {
        let mut writes = Arc::clone(&self.view.writes);
        if Arc::ptr_eq(&newest.version, &self.view.snapshot.version) {
            // The keys are locked, so the rows under them have not moved either.
            return Ok(writes);
        }
        for (table, own) in self.view.writes.tables() {
            let replaced = own.rows.iter().filter(|(_, pending)| pending.replaced.is_some());
            let keys: Vec<&[u8]> = replaced.map(|(key, _)| &**key).collect();
            let _pins = newest.version.load_keys(table, keys.iter().copied()).await?;
            let is_staged = |id: &u64| own.staged.iter().any(|segment| segment.meta.id == *id);
            let staged = own.removed.iter().filter(|(id, _)| is_staged(id));
            let mut removed: IdMap<u64, RoaringBitmap> = staged.map(|(id, rows)| (*id, rows.clone())).collect();
            let mut places = Vec::with_capacity(keys.len());
            for key in keys {
                let place = newest.version.locate(table, key, newest.timestamp)?.map(|located| located.place);
                if let Some(Place::Segment(segment, row)) = &place {
                    removed.entry(segment.meta.id).or_default().insert(*row);
                }
                places.push(place);
            }
            let moved = Arc::make_mut(&mut writes).table_mut(table);
            moved.removed = removed;
            let replaced = moved.rows.values_mut().filter_map(|pending| pending.replaced.as_mut());
            for (replaced, place) in replaced.zip(places) {
                // A row that is gone is told by the commit.
                *replaced = place.unwrap_or_else(|| replaced.clone());
            }
        }
        Ok(writes)
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
    /// `Conflict` if a row was changed since the snapshot (for `KeyShare`: removed). The locks stay.
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
        self.acquire(&definition, LockMode::RowShare, wanted, wait).await?;
        self.require_same(&definition, &keys, (0..keys.len()).collect(), lock).await
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

    /// Locks a table and then rows of it, all in one order for all transactions.
    pub(super) async fn acquire(
        &mut self,
        table: &TableDef,
        table_mode: LockMode,
        mut rows: Vec<(Resource, LockMode)>,
        wait: Option<LockWait>,
    ) -> Result<()> {
        let Some(usual) = self.control.lock_wait else { return Ok(()) };
        if self.view.snapshot.version.catalog.table(table.id).is_none() {
            // Nobody else knows the table.
            return Ok(());
        }
        let wait = wait.unwrap_or(usual);
        let limit_bytes = self.view.snapshot.store.transaction_bytes();
        let locks = Arc::clone(self.locks());
        let table_lock = Resource::Table(table.id.0);
        if !locks.try_acquire(table_lock, table_mode) {
            Box::pin(locks.wait_for(table_lock, table_mode, wait, &table.name)).await?;
        }
        if (locks.count() + rows.len()).saturating_mul(LOCK_BYTES) > limit_bytes {
            return Err(Error::TransactionTooLarge { limit_bytes });
        }
        rows.sort_unstable();
        for (resource, mode) in rows {
            if !locks.try_acquire(resource, mode) {
                Box::pin(locks.wait_for(resource, mode, wait, &table.name)).await?;
            }
        }
        Ok(())
    }

    /// Remembers that the end of this transaction must wait for every commit made so far.
    fn note_seen(&self) {
        if let Some(locks) = &self.control.locks {
            locks.note_seen(self.view.snapshot.store.newest());
        }
    }

    /// What the newest committed state has for some keys, or `None` if it is what the snapshot has.
    async fn newest_states(
        &self,
        table: &TableDef,
        keys: &Keys,
        rows: &[usize],
    ) -> Result<Option<Vec<(usize, VersionState)>>> {
        let store = &self.view.snapshot.store;
        if self.control.lock_wait.is_none() || store.is_newest(self.view.snapshot.timestamp) {
            return Ok(None);
        }
        let written = rows.iter().map(|row| hash(table.id.0, keys.get(*row)));
        if store.are_untouched(&self.view.snapshot, footprint(written)) {
            return Ok(None);
        }
        let version = store.current();
        let mut states = Vec::with_capacity(rows.len());
        for row in rows {
            let located = Box::pin(version.find(table.id, keys.get(*row), Timestamp::MAX)).await?;
            states.push((*row, located.map_or(VersionState::Absent, |located| VersionState::Live(located.written))));
        }
        self.note_seen();
        Ok(Some(states))
    }

    /// Fails with `Conflict` if a locked row that the snapshot shows has changed since.
    pub(super) async fn require_same(
        &self,
        table: &TableDef,
        keys: &Keys,
        mut rows: Vec<usize>,
        lock: RowLock,
    ) -> Result<()> {
        if let Some(own) = self.view.writes.table(table.id) {
            rows.retain(|row| !own.rows.contains_key(keys.get(*row)));
        }
        for (row, state) in self.newest_states(table, keys, &rows).await?.into_iter().flatten() {
            let same = match lock {
                RowLock::KeyShare => {
                    state != VersionState::Absent || !Box::pin(self.is_committed(table, keys.get(row))).await?
                }
                _ => match judge_write(Expectation::Present, state, self.view.snapshot.timestamp) {
                    Verdict::Proceed => true,
                    _ => !Box::pin(self.is_committed(table, keys.get(row))).await?,
                },
            };
            if !same {
                return Err(Error::Conflict { table: table.name.clone() });
            }
        }
        Ok(())
    }

    /// Whether the snapshot shows a committed row with this key: one in a staged segment is nobody else's.
    async fn is_committed(&self, table: &TableDef, key: &[u8]) -> Result<bool> {
        Ok(self.view.snapshot.version.find(table.id, key, self.view.snapshot.timestamp).await?.is_some())
    }

    /// Looks whether others have committed rows with new keys since the snapshot. Returns the first such row; fails with
    /// `Conflict` instead if the caller will run the statement again and see for itself.
    pub(super) async fn find_newer(&self, table: &TableDef, keys: &Keys, rows: Vec<usize>) -> Result<Option<usize>> {
        let states = self.newest_states(table, keys, &rows).await?.into_iter().flatten();
        let mut newer = states.filter(
            |(_, state)| matches!(state, VersionState::Live(written) if *written > self.view.snapshot.timestamp),
        );
        match newer.next() {
            Some(_) if self.control.reruns => Err(Error::Conflict { table: table.name.clone() }),
            newer => Ok(newer.map(|(row, _)| row)),
        }
    }

    /// The newest holder of a value in a unique index, if that may be another than the snapshot's. `None`: it cannot.
    async fn newest_holder(
        &self,
        table: &TableDef,
        position: usize,
        value: &Vec<u8>,
        replaced: &HashSet<&[u8]>,
    ) -> Result<Option<Option<Box<[u8]>>>> {
        let store = &self.view.snapshot.store;
        if self.control.lock_wait.is_none() || store.is_newest(self.view.snapshot.timestamp) {
            return Ok(None);
        }
        let version = store.current();
        let _pins = version.load_postings(table, position, std::slice::from_ref(value)).await?;
        let own = self.view.writes.table(table.id);
        let gone = |key: &[u8]| replaced.contains(key) || own.is_some_and(|own| own.replaces(key));
        let holder = version.holder(table, position, value, Timestamp::MAX, gone)?;
        self.note_seen();
        Ok(Some(holder))
    }

    /// As [`find_newer`](Self::find_newer), for values in a unique index that the snapshot shows as free.
    pub(super) async fn find_newer_value(
        &self,
        table: &TableDef,
        position: usize,
        values: &[Vec<u8>],
        replaced: &HashSet<&[u8]>,
    ) -> Result<Option<usize>> {
        for (at, value) in values.iter().enumerate() {
            match self.newest_holder(table, position, value, replaced).await? {
                Some(Some(_)) if self.control.reruns => return Err(Error::Conflict { table: table.name.clone() }),
                Some(Some(_)) => return Ok(Some(at)),
                Some(None) => {}
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// As [`require_still_taken`](Self::require_still_taken), for a value in a unique index.
    pub(super) async fn require_value_still_taken(
        &self,
        table: &TableDef,
        position: usize,
        value: &Vec<u8>,
        replaced: &HashSet<&[u8]>,
    ) -> Result<()> {
        match self.control.reruns && self.newest_holder(table, position, value, replaced).await? == Some(None) {
            true => Err(Error::Conflict { table: table.name.clone() }),
            false => Ok(()),
        }
    }

    /// For a key that the snapshot shows as taken: fails with `Conflict` if it is free by now and the caller will run the
    /// statement again.
    pub(super) async fn require_still_taken(&self, table: &TableDef, keys: &Keys, row: usize) -> Result<()> {
        if !self.control.reruns {
            return Ok(());
        }
        let mut states = self.newest_states(table, keys, &[row]).await?.into_iter().flatten();
        match states.any(|(_, state)| state == VersionState::Absent) {
            true => Err(Error::Conflict { table: table.name.clone() }),
            false => Ok(()),
        }
    }
}
