//! Memory of queries, lent to the store while no query needs it.
//!
//! Queries may have less than half of the memory, and most of the time use little of it, while look-ups of rows need columns
//! and indexes in memory: one that is not there costs a read and a decoding. So the pool that queries reserve their memory
//! from lends the store what nobody has reserved, and asks it back before it is used:
//!
//! ```text
//!   queries' share  ┌─ reserved ─┬─ lent to the column cache ───────┬──── a half ────┐
//!                   └────────────┴─ moves in steps, with each query ┴────────────────┘
//! ```
//! A half is never lent: the batches on their way between operators take memory that nobody reserves, and a cache whose
//! values come and go takes more of the machine than they have together. What is asked back is free at once, but for columns
//! that a reader holds at that moment.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::Result;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;
use rustydb_storage::SpareMemory;

/// A query's reservations change often and the loan seldom: it moves by this part of what queries may have.
const STEPS: usize = 64;

/// No loan is so large.
const UNSETTLED: usize = usize::MAX;

/// A pool of which the unreserved part is lent to a store.
#[derive(Debug)]
pub(crate) struct LendingPool {
    inner: FairSpillPool,
    lendable_bytes: usize,
    step_bytes: usize,
    /// What is lent. Written under the lock of `store`.
    lent_bytes: AtomicUsize,
    store: Mutex<SpareMemory>,
}

impl LendingPool {
    /// A pool of so many bytes, half of which are lent until somebody reserves some.
    pub(crate) fn new(pool_bytes: usize, store: SpareMemory) -> LendingPool {
        let pool = LendingPool {
            inner: FairSpillPool::new(pool_bytes),
            lendable_bytes: pool_bytes / 2,
            step_bytes: (pool_bytes / STEPS).max(1),
            lent_bytes: AtomicUsize::new(0),
            store: Mutex::new(store),
        };
        pool.settle();
        pool
    }

    /// What is to be lent, in whole steps.
    fn spare_bytes(&self) -> usize {
        let spare = self.lendable_bytes.saturating_sub(self.inner.reserved());
        spare / self.step_bytes * self.step_bytes
    }

    /// Brings the loan in line with what is reserved.
    fn settle(&self) {
        if self.spare_bytes() == self.lent_bytes.load(Ordering::SeqCst) {
            return;
        }
        let store = self.store.lock();
        // Whoever changes the reservations from now on finds nothing that fits and waits for the lock; what was changed before
        // is seen below.
        self.lent_bytes.store(UNSETTLED, Ordering::SeqCst);
        let spare = self.spare_bytes();
        store.lend(spare);
        self.lent_bytes.store(spare, Ordering::SeqCst);
    }
}

impl Drop for LendingPool {
    fn drop(&mut self) {
        self.store.lock().lend(0);
    }
}

impl MemoryPool for LendingPool {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
        self.settle();
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
        self.settle();
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.inner.try_grow(reservation, additional)?;
        self.settle();
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}

impl fmt::Display for LendingPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustydb_storage::{Store, StoreOptions};

    use super::*;

    const MIB: usize = 1 << 20;

    async fn store() -> Store {
        Store::open(StoreOptions { column_cache_bytes: 10 * MIB, ..StoreOptions::in_memory() }).await.unwrap()
    }

    #[tokio::test]
    async fn what_queries_do_not_reserve_is_the_stores() {
        let store = store().await;
        let limit = || store.memory().cache_limit_bytes / MIB;
        let pool: Arc<dyn MemoryPool> = Arc::new(LendingPool::new(64 * MIB, store.spare_memory()));
        assert_eq!(limit(), 10 + 32);
        let query = MemoryConsumer::new("sort").register(&pool);
        query.try_grow(20 * MIB + 1).unwrap();
        assert_eq!(limit(), 10 + 32 - 21, "a step that is needed in part is asked back");
        query.shrink(1);
        assert_eq!(limit(), 10 + 32 - 20);
        query.grow(43 * MIB);
        assert_eq!(limit(), 10);
        assert!(query.try_grow(2 * MIB).is_err(), "lending gives nobody more than there is");
        drop(query);
        assert_eq!(limit(), 10 + 32);
        drop(pool);
        assert_eq!(limit(), 10, "the loan ends with the pool");
    }

    #[tokio::test]
    async fn the_loan_fits_the_reservations_when_many_have_changed_them_at_once() {
        let store = store().await;
        let pool: Arc<dyn MemoryPool> = Arc::new(LendingPool::new(64 * MIB, store.spare_memory()));
        for _ in 0..20 {
            let kept: Vec<MemoryReservation> = std::thread::scope(|scope| {
                let query = |_| {
                    scope.spawn(|| {
                        let query = MemoryConsumer::new("hash join").register(&pool);
                        for _ in 0..200 {
                            query.grow(3 * MIB);
                            query.shrink(2 * MIB);
                            query.shrink(MIB);
                        }
                        query.grow(5 * MIB);
                        query
                    })
                };
                let threads: Vec<_> = (0..4).map(query).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(store.memory().cache_limit_bytes, (10 + 32 - 20) * MIB);
            drop(kept);
            assert_eq!(store.memory().cache_limit_bytes, (10 + 32) * MIB);
        }
    }
}
