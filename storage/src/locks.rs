//! Waiting for locks: the rules are `rustydb_txn`'s, the shards, the wake-up calls and the time limits are here.
//!
//! ```text
//!   TransactionLocks ── request ──▶ shard (one of 64 mutexes, by hash)   nobody in the way: done
//!          │ in the way
//!          └─▶ waits (one mutex): queue in the shard, look for a circle, sleep ◀── wake ── whoever releases
//! ```
//! A lock that nobody contends for costs one short mutex. Only waiters meet at the common mutex, and there each new one
//! looks whether it has closed a circle; since a circle's last edge is always a new waiter, none is missed, and it is
//! found at once. Mutexes are taken in the order waits, shard.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustydb_txn::{Answer, LockMode, LockTable, Owner, Patience, Resource, Timestamp, find_cycle};
use tokio::sync::oneshot;

use crate::catalog::TableId;
use crate::error::{Error, Result};
use crate::id_map::IdMap;
use crate::segment::KeyHash;

/// Parts of the lock table that can be used at the same time.
const SHARDS: usize = 64;

/// Memory of one held lock: its entry in the lock table and in its transaction's list.
const LOCK_BYTES: usize = 160;

/// Memory of another mode of what is held already (a row that was locked before it is deleted): an entry in the list. The weaker
/// mode is not forgotten, for it is what is left when the transaction goes back to a mark between the two.
const MODE_BYTES: usize = size_of::<Taken>();

/// What to do when somebody else has the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockWait {
    /// Wait, for at most this long if a time is given.
    Wait(Option<Duration>),
    /// Fail at once.
    NoWait,
}

/// All locks of a store.
#[derive(Debug)]
pub(crate) struct Locks {
    shards: Box<[Mutex<LockTable>]>,
    waits: Mutex<HashMap<Owner, Wait>>,
    next_owner: AtomicU64,
}

/// A transaction asleep.
#[derive(Debug)]
struct Wait {
    resource: Resource,
    mode: LockMode,
    table: Arc<str>,
    wake: oneshot::Sender<()>,
}

impl Locks {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Locks { shards, waits: Mutex::default(), next_owner: AtomicU64::new(1) }
    }

    fn shard(&self, resource: Resource) -> MutexGuard<'_, LockTable> {
        // The low bits choose the place within the shard's map.
        self.shards[(resource.spread() >> 48) as usize % SHARDS].lock()
    }

    /// The resource that stands for a row.
    pub(crate) fn row(&self, table: TableId, key: &[u8]) -> Resource {
        Resource::Row { table: table.0, key: KeyHash::of(key).number() }
    }

    /// How many transactions are asleep.
    pub(crate) fn waiting(&self) -> usize {
        self.waits.lock().len()
    }

    fn wake(&self, granted: &[Owner]) {
        if granted.is_empty() {
            return;
        }
        let mut waits = self.waits.lock();
        for wait in granted.iter().filter_map(|owner| waits.remove(owner)) {
            // The sleeper looks for itself what it was granted; one that is gone gives it back.
            let _ = wait.wake.send(());
        }
    }

    fn release(&self, owner: Owner, resource: Resource, mode: LockMode) {
        let granted = self.shard(resource).release(owner, resource, mode);
        self.wake(&granted);
    }

    /// The circle that `owner` has closed by waiting, for people.
    fn deadlock(&self, owner: Owner, waits: &HashMap<Owner, Wait>) -> Option<String> {
        let waits_for = |owner: Owner| match waits.get(&owner) {
            Some(wait) => self.shard(wait.resource).blockers(owner, wait.resource),
            None => Vec::new(),
        };
        let cycle = find_cycle(owner, waits_for)?;
        let next = cycle.iter().cycle().skip(1);
        let lines = cycle.iter().zip(next).filter_map(|(owner, blocker)| {
            let Wait { resource, mode, table, .. } = waits.get(owner)?;
            let what = match resource {
                Resource::Table(_) => "table",
                Resource::Row { .. } => "a row of table",
            };
            Some(format!(
                "transaction {} waits for {mode} on {what} \"{table}\", held by transaction {}",
                owner.0, blocker.0
            ))
        });
        Some(lines.collect::<Vec<_>>().join("; "))
    }
}

/// A mode of something that a transaction has locked.
#[derive(Debug, Clone, Copy)]
struct Taken {
    resource: Resource,
    mode: LockMode,
    /// Whether the transaction had it already, in another mode.
    is_more: bool,
}

impl Taken {
    fn bytes(self) -> usize {
        if self.is_more { MODE_BYTES } else { LOCK_BYTES }
    }
}

/// The locks that a transaction has.
#[derive(Debug, Default)]
struct Held {
    /// In the order in which they were taken.
    taken: Vec<Taken>,
    /// The memory of all of them.
    bytes: usize,
    /// The modes of tables among them, as bits.
    tables: IdMap<u64, u16>,
}

impl Held {
    /// Whether this very mode of a table is among them.
    fn has_table(&self, table: u64, mode: LockMode) -> bool {
        self.tables.get(&table).is_some_and(|modes| modes & bit(mode) != 0)
    }

    fn push(&mut self, taken: Taken) {
        self.taken.push(taken);
        self.bytes += taken.bytes();
        if let Resource::Table(table) = taken.resource {
            *self.tables.entry(table).or_default() |= bit(taken.mode);
        }
    }

    fn pop(&mut self) -> Option<Taken> {
        let taken = self.taken.pop()?;
        self.bytes -= taken.bytes();
        if let Resource::Table(table) = taken.resource
            && let Some(modes) = self.tables.get_mut(&table)
        {
            *modes &= !bit(taken.mode);
        }
        Some(taken)
    }
}

fn bit(mode: LockMode) -> u16 {
    1 << mode as u16
}

/// The locks of one transaction. They are released in the reverse order of their being taken, or all when this is dropped.
#[derive(Debug)]
pub(crate) struct TransactionLocks {
    locks: Arc<Locks>,
    owner: Owner,
    held: Mutex<Held>,
    /// The newest commit that the transaction may have looked at under its locks, whatever its snapshot is.
    seen: AtomicU64,
}

impl TransactionLocks {
    pub(crate) fn new(locks: Arc<Locks>) -> Self {
        let owner = Owner(locks.next_owner.fetch_add(1, Ordering::Relaxed));
        TransactionLocks { locks, owner, held: Mutex::default(), seen: AtomicU64::new(0) }
    }

    /// Remembers that the transaction has looked at commits up to this one.
    pub(crate) fn note_seen(&self, newest: Timestamp) {
        self.seen.fetch_max(newest, Ordering::Relaxed);
    }

    /// What it must not end before.
    pub(crate) fn seen(&self) -> Timestamp {
        self.seen.load(Ordering::Relaxed)
    }

    /// Takes a lock if nobody is in the way.
    pub(crate) fn try_acquire(&self, resource: Resource, mode: LockMode) -> bool {
        // Nearly every statement locks a table that one before it has locked.
        if let Resource::Table(table) = resource
            && self.held.lock().has_table(table, mode)
        {
            return true;
        }
        let answer = self.locks.shard(resource).request(self.owner, resource, mode, Patience::Give);
        match answer {
            Answer::Busy => return false,
            Answer::Held => {}
            Answer::Granted => self.held.lock().push(Taken { resource, mode, is_more: false }),
            Answer::Raised => self.held.lock().push(Taken { resource, mode, is_more: true }),
        }
        true
    }

    /// Takes a lock, waiting for it if need be. If the future is dropped, the place in the queue is given up.
    pub(crate) async fn acquire(&self, resource: Resource, mode: LockMode, wait: LockWait, table: &str) -> Result<()> {
        match wait {
            _ if self.try_acquire(resource, mode) => Ok(()),
            LockWait::NoWait => Err(Error::LockNotAvailable { table: table.to_owned() }),
            LockWait::Wait(limit) => self.sleep(resource, mode, limit, table.into()).await,
        }
    }

    async fn sleep(&self, resource: Resource, mode: LockMode, limit: Option<Duration>, table: Arc<str>) -> Result<()> {
        // A limit too long for the clock is none.
        let until = limit.and_then(|limit| tokio::time::Instant::now().checked_add(limit));
        let asleep = Asleep { locks: self, resource, mode };
        let is_more = self.locks.shard(resource).is_held_by(self.owner, resource);
        let mut queued = false;
        loop {
            let (wake, woken) = oneshot::channel();
            {
                let mut waits = self.locks.waits.lock();
                let goes_on = match queued {
                    // Woken, which may have been meant for an earlier wait.
                    true => !self.locks.shard(resource).is_waiting(self.owner, resource),
                    false => {
                        let answer = self.locks.shard(resource).request(self.owner, resource, mode, Patience::Wait);
                        answer != Answer::Busy
                    }
                };
                if goes_on {
                    waits.remove(&self.owner);
                    drop(waits);
                    std::mem::forget(asleep);
                    self.held.lock().push(Taken { resource, mode, is_more });
                    return Ok(());
                }
                waits.insert(self.owner, Wait { resource, mode, table: Arc::clone(&table), wake });
                if !queued && let Some(cycle) = self.locks.deadlock(self.owner, &waits) {
                    return Err(Error::Deadlock { cycle });
                }
                queued = true;
            }
            let woken = async {
                // The sender is only dropped after a call or by ourselves.
                let _ = woken.await;
            };
            match until {
                None => woken.await,
                Some(until) if tokio::time::timeout_at(until, woken).await.is_ok() => {}
                Some(_) => return Err(Error::LockTimeout { table: table.to_string() }),
            }
        }
    }

    /// How many locks are held now; a place for [`release_to`](Self::release_to).
    pub(crate) fn count(&self) -> usize {
        self.held.lock().taken.len()
    }

    /// Whether there is so much memory that these can be held, too: those that a stronger one covers are not taken.
    pub(crate) fn have_room_for(&self, wanted: &[(Resource, LockMode)], limit_bytes: usize) -> bool {
        let held = self.held.lock().bytes;
        let at_most = wanted.len().saturating_mul(LOCK_BYTES);
        if held.saturating_add(at_most) <= limit_bytes {
            return true;
        }
        let added = |(resource, mode): &(Resource, LockMode)| {
            let shard = self.locks.shard(*resource);
            match shard.covers(self.owner, *resource, *mode) {
                true => 0,
                false if shard.is_held_by(self.owner, *resource) => MODE_BYTES,
                false => LOCK_BYTES,
            }
        };
        held + wanted.iter().map(added).sum::<usize>() <= limit_bytes
    }

    /// Gives back what was taken after there were `count`.
    pub(crate) fn release_to(&self, count: usize) {
        let mut held = self.held.lock();
        while held.taken.len() > count
            && let Some(Taken { resource, mode, is_more: _ }) = held.pop()
        {
            self.locks.release(self.owner, resource, mode);
        }
    }
}

impl Drop for TransactionLocks {
    fn drop(&mut self) {
        self.release_to(0);
    }
}

/// Gives all locks of a transaction back when it is dropped, whoever else still refers to them.
#[derive(Debug)]
pub(crate) struct ReleasedLocks(pub(crate) Arc<TransactionLocks>);

impl Drop for ReleasedLocks {
    fn drop(&mut self) {
        self.0.release_to(0);
    }
}

/// A place in a queue, given up when it is dropped; also if the lock was granted a moment ago.
struct Asleep<'a> {
    locks: &'a TransactionLocks,
    resource: Resource,
    mode: LockMode,
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        let TransactionLocks { locks, owner, .. } = self.locks;
        locks.waits.lock().remove(owner);
        let mut granted = Vec::new();
        {
            let mut shard = locks.shard(self.resource);
            granted.extend(shard.cancel(*owner, self.resource));
            granted.extend(shard.release(*owner, self.resource, self.mode));
        }
        locks.wake(&granted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Resource = Resource::Row { table: 1, key: 1 };
    const OTHER: Resource = Resource::Row { table: 1, key: 2 };
    const FOREVER: LockWait = LockWait::Wait(None);

    fn two() -> (Arc<Locks>, Arc<TransactionLocks>, Arc<TransactionLocks>) {
        let locks = Arc::new(Locks::new());
        let new = || Arc::new(TransactionLocks::new(Arc::clone(&locks)));
        (Arc::clone(&locks), new(), new())
    }

    /// Waits until a transaction sleeps.
    async fn until_waiting(locks: &Locks, count: usize) {
        while locks.waits.lock().len() != count {
            tokio::task::yield_now().await;
        }
    }

    fn is_free(locks: &Locks) -> bool {
        locks.waits.lock().is_empty() && locks.shards.iter().all(|shard| shard.lock().is_empty())
    }

    #[tokio::test]
    async fn a_waiter_goes_on_when_the_holder_is_gone() {
        let (locks, first, second) = two();
        first.acquire(ROW, LockMode::RowUpdate, FOREVER, "t").await.unwrap();
        assert!(!second.try_acquire(ROW, LockMode::RowKeyShare));
        let waiter = Arc::clone(&second);
        let waiting = tokio::spawn(async move { waiter.acquire(ROW, LockMode::RowUpdate, FOREVER, "t").await });
        until_waiting(&locks, 1).await;
        drop(first);
        waiting.await.unwrap().unwrap();
        assert_eq!(second.count(), 1);
        drop(second);
        assert!(is_free(&locks));
    }

    #[tokio::test]
    async fn the_one_who_closes_a_circle_fails_and_the_circle_is_named() {
        let (locks, first, second) = two();
        first.acquire(ROW, LockMode::RowUpdate, FOREVER, "accounts").await.unwrap();
        second.acquire(OTHER, LockMode::RowShared, FOREVER, "orders").await.unwrap();
        let waiter = Arc::clone(&first);
        let waiting = tokio::spawn(async move { waiter.acquire(OTHER, LockMode::RowUpdate, FOREVER, "orders").await });
        until_waiting(&locks, 1).await;
        let error = second.acquire(ROW, LockMode::RowKeyShare, FOREVER, "accounts").await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("KEY SHARE on a row of table \"accounts\", held by transaction 1"), "{text}");
        assert!(text.contains("transaction 1 waits for UPDATE on a row of table \"orders\""), "{text}");
        drop(second);
        waiting.await.unwrap().unwrap();
        drop(first);
        assert!(is_free(&locks));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_time_limit_and_leaves_no_trace() {
        let (locks, first, second) = two();
        first.acquire(ROW, LockMode::RowUpdate, FOREVER, "t").await.unwrap();
        let limit = LockWait::Wait(Some(Duration::from_millis(5)));
        let error = second.acquire(ROW, LockMode::RowUpdate, limit, "t").await.unwrap_err();
        assert!(matches!(error, Error::LockTimeout { .. }), "{error}");
        let error = second.acquire(ROW, LockMode::RowUpdate, LockWait::NoWait, "t").await.unwrap_err();
        assert!(matches!(error, Error::LockNotAvailable { .. }), "{error}");
        drop(first);
        assert!(is_free(&locks));
    }

    #[tokio::test]
    async fn a_dropped_waiter_lets_the_next_through() {
        let (locks, first, second) = two();
        let third = Arc::new(TransactionLocks::new(Arc::clone(&locks)));
        first.acquire(ROW, LockMode::RowShared, FOREVER, "t").await.unwrap();
        let waiter = Arc::clone(&second);
        let waiting = tokio::spawn(async move { waiter.acquire(ROW, LockMode::RowUpdate, FOREVER, "t").await });
        until_waiting(&locks, 1).await;
        let waiter = Arc::clone(&third);
        let last = tokio::spawn(async move { waiter.acquire(ROW, LockMode::RowShared, FOREVER, "t").await });
        until_waiting(&locks, 2).await;
        waiting.abort();
        last.await.unwrap().unwrap();
        drop((first, second, third));
        assert!(is_free(&locks));
    }

    #[tokio::test]
    async fn locks_taken_after_a_mark_can_be_given_back() {
        let (locks, first, second) = two();
        assert!(first.try_acquire(ROW, LockMode::RowKeyShare));
        let mark = first.count();
        assert!(first.try_acquire(ROW, LockMode::RowUpdate) && first.try_acquire(OTHER, LockMode::RowUpdate));
        first.release_to(mark);
        assert!(second.try_acquire(OTHER, LockMode::RowUpdate));
        assert!(second.try_acquire(ROW, LockMode::RowNoKeyUpdate), "only KEY SHARE is left");
        assert!(!second.try_acquire(ROW, LockMode::RowUpdate));
        drop((first, second));
        assert!(is_free(&locks));
    }

    #[tokio::test]
    async fn another_mode_of_a_row_takes_little_more_memory_and_gives_it_back() {
        let (locks, first, second) = two();
        assert!(first.try_acquire(ROW, LockMode::RowUpdate));
        let mark = first.count();
        let removal = [(ROW, LockMode::RowRemoval)];
        assert!(first.have_room_for(&removal, LOCK_BYTES + MODE_BYTES));
        assert!(!first.have_room_for(&removal, LOCK_BYTES + MODE_BYTES - 1));
        assert!(first.have_room_for(&[(ROW, LockMode::RowShared)], LOCK_BYTES), "it is covered");
        assert!(!first.have_room_for(&[(OTHER, LockMode::RowShared)], 2 * LOCK_BYTES - 1));
        assert!(first.try_acquire(ROW, LockMode::RowRemoval));
        assert_eq!(first.held.lock().bytes, LOCK_BYTES + MODE_BYTES);
        assert!(!second.try_acquire(ROW, LockMode::RowPresence));
        first.release_to(mark);
        assert_eq!(first.held.lock().bytes, LOCK_BYTES);
        assert!(second.try_acquire(ROW, LockMode::RowPresence), "the weaker one is left");
        let waiter = Arc::clone(&first);
        let waiting = tokio::spawn(async move { waiter.acquire(ROW, LockMode::RowRemoval, FOREVER, "t").await });
        until_waiting(&locks, 1).await;
        drop(second);
        waiting.await.unwrap().unwrap();
        assert_eq!(first.held.lock().bytes, LOCK_BYTES + MODE_BYTES);
        drop(first);
        assert!(is_free(&locks));
    }

    #[tokio::test]
    async fn a_table_lock_that_was_given_back_is_asked_for_again() {
        let (locks, first, second) = two();
        let table = Resource::Table(7);
        assert!(first.try_acquire(table, LockMode::RowShare));
        let mark = first.count();
        assert!(first.try_acquire(ROW, LockMode::RowUpdate) && first.try_acquire(table, LockMode::RowExclusive));
        // The very same again, and what the stronger one covers, is nothing new.
        let count = first.count();
        assert!(first.try_acquire(table, LockMode::RowExclusive) && first.try_acquire(table, LockMode::RowShare));
        assert_eq!(first.count(), count);
        first.release_to(mark);
        assert!(second.try_acquire(table, LockMode::Share));
        assert!(first.try_acquire(table, LockMode::RowShare), "it was not given back");
        assert!(!first.try_acquire(table, LockMode::RowExclusive), "another keeps it out now");
        drop((first, second));
        assert!(is_free(&locks));
    }

    #[tokio::test]
    async fn many_tasks_never_hold_the_same_lock_at_once() {
        let locks = Arc::new(Locks::new());
        let inside = Arc::new(AtomicU64::new(0));
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let (locks, inside) = (Arc::clone(&locks), Arc::clone(&inside));
                tokio::spawn(async move {
                    for _ in 0..200 {
                        let own = TransactionLocks::new(Arc::clone(&locks));
                        own.acquire(ROW, LockMode::RowUpdate, FOREVER, "t").await.unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(is_free(&locks));
    }
}
