//! Columns of segments in memory, encoded, while the budget allows.
//!
//! The unit is one column of one segment. Two readers that miss at once load once. A reader that holds a column keeps it
//! alive until it is done, evicted or not. A column larger than the whole budget is served and not kept.
//!
//! ```text
//!              first time                   used again meanwhile
//!   load ──▶ [ small: a tenth of the bytes ] ─────────▶ [ main ] ──▶ not used since it came by last: out
//!     │              │ not used again                      ▲  └── used since: goes round again
//!     │              ▼                                     │
//!     └─ known ◀── [ ghost: keys only ]  ──────────────────┘ loaded again soon: straight to main
//! ```
//! This is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023), by bytes. One pass over
//! much data, a table scanned once, goes through the small queue and leaves the main one alone.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectStore;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedSender;

use crate::block::Column;
use crate::error::Result;

/// Segment and column.
pub(crate) type ColumnKey = (u64, usize);

/// The small queue's share of the budget.
const SMALL_SHARE: usize = 10;

/// Uses beyond this many count no more: a column that was hot once must not stay for ever.
const USES_MAX: u8 = 3;

/// Keys remembered of columns that were let go unused.
const GHOSTS_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// Not loaded yet.
    None,
    Small,
    Main,
}

#[derive(Debug)]
struct Entry {
    column: Arc<OnceCell<Arc<Column>>>,
    memory_bytes: usize,
    /// Since it came into its queue, or came by its end last.
    uses: u8,
    queue: Queue,
}

#[derive(Debug, Default)]
struct Entries {
    columns: HashMap<ColumnKey, Entry>,
    small: VecDeque<ColumnKey>,
    main: VecDeque<ColumnKey>,
    ghosts: VecDeque<ColumnKey>,
    small_bytes: usize,
    memory_bytes: usize,
    evictions: u64,
}

/// The cache of one store.
#[derive(Debug)]
pub(crate) struct ColumnCache {
    budget_bytes: usize,
    entries: Mutex<Entries>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl ColumnCache {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        ColumnCache { budget_bytes, entries: Mutex::default(), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The column, loading it if need be; concurrent calls for one column share the loading.
    pub(crate) async fn get_or_load(
        &self,
        key: ColumnKey,
        load: impl Future<Output = Result<Column>>,
    ) -> Result<Arc<Column>> {
        let slot = {
            let mut entries = self.entries.lock();
            let entry = entries.columns.entry(key).or_insert_with(Entry::new);
            if entry.queue != Queue::None {
                entry.uses = (entry.uses + 1).min(USES_MAX);
            }
            Arc::clone(&entry.column)
        };
        if let Some(column) = slot.get() {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(column));
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let column = slot.get_or_try_init(|| async { Ok::<_, crate::Error>(Arc::new(load.await?)) }).await?;
        self.account(key, &slot, column.memory_bytes());
        Ok(Arc::clone(column))
    }

    /// Counts a loaded column and evicts down to the budget.
    fn account(&self, key: ColumnKey, slot: &Arc<OnceCell<Arc<Column>>>, memory_bytes: usize) {
        let mut entries = self.entries.lock();
        match entries.columns.get(&key) {
            Some(entry) if Arc::ptr_eq(&entry.column, slot) && entry.queue == Queue::None => {}
            _ => return,
        }
        if memory_bytes > self.budget_bytes {
            entries.columns.remove(&key);
            return;
        }
        entries.admit(key, memory_bytes);
        while entries.memory_bytes > self.budget_bytes && entries.evict_one(self.budget_bytes / SMALL_SHARE) {}
    }

    /// Forgets the columns of a segment.
    pub(crate) fn remove_segment(&self, segment: u64) {
        let mut entries = self.entries.lock();
        let columns: Vec<ColumnKey> = entries.columns.keys().filter(|(id, _)| *id == segment).copied().collect();
        columns.iter().for_each(|key| entries.forget(*key));
        let entries = &mut *entries;
        for queue in [&mut entries.small, &mut entries.main, &mut entries.ghosts] {
            queue.retain(|(id, _)| *id != segment);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.lock().memory_bytes
    }

    /// Columns let go to keep the budget, since the store was opened.
    pub(crate) fn evictions(&self) -> u64 {
        self.entries.lock().evictions
    }

    /// Calls served from memory and calls that had to load, since the store was opened.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}

impl Entry {
    fn new() -> Entry {
        Entry { column: Arc::default(), memory_bytes: 0, uses: 0, queue: Queue::None }
    }
}

impl Entries {
    /// Puts a loaded column into the queue it belongs to.
    fn admit(&mut self, key: ColumnKey, memory_bytes: usize) {
        let ghost = self.ghosts.iter().position(|ghost| *ghost == key);
        let queue = if ghost.is_some() { Queue::Main } else { Queue::Small };
        if let Some(ghost) = ghost {
            self.ghosts.remove(ghost);
        }
        let Some(entry) = self.columns.get_mut(&key) else { return };
        (entry.memory_bytes, entry.queue, entry.uses) = (memory_bytes, queue, 0);
        self.memory_bytes += memory_bytes;
        match queue {
            Queue::Main => self.main.push_back(key),
            _ => {
                self.small.push_back(key);
                self.small_bytes += memory_bytes;
            }
        }
    }

    /// Moves one column on: out, to the other queue, or round again. Whether there was any.
    fn evict_one(&mut self, small_bytes_max: usize) -> bool {
        let from_small = self.small_bytes > small_bytes_max || self.main.is_empty();
        let key = if from_small { self.small.pop_front() } else { self.main.pop_front() };
        let Some(key) = key.or_else(|| self.main.pop_front()) else { return false };
        let Some(entry) = self.columns.get_mut(&key) else { return true };
        if entry.uses > 0 {
            if entry.queue == Queue::Small {
                self.small_bytes -= entry.memory_bytes;
                (entry.queue, entry.uses) = (Queue::Main, 0);
            } else {
                entry.uses -= 1;
            }
            self.main.push_back(key);
            return true;
        }
        if entry.queue == Queue::Small {
            self.ghosts.push_back(key);
            if self.ghosts.len() > GHOSTS_MAX {
                self.ghosts.pop_front();
            }
        }
        self.evictions += 1;
        self.forget(key);
        true
    }

    fn forget(&mut self, key: ColumnKey) {
        if let Some(entry) = self.columns.remove(&key) {
            self.memory_bytes -= entry.memory_bytes;
            if entry.queue == Queue::Small {
                self.small_bytes -= entry.memory_bytes;
            }
        }
    }
}

/// Where segments find their columns.
#[derive(Debug)]
pub(crate) struct ColumnSource {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) cache: ColumnCache,
    /// Paths of files nobody needs any more, for the background thread to remove.
    discarded: UnboundedSender<String>,
}

impl ColumnSource {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, cache: ColumnCache, discarded: UnboundedSender<String>) -> Self {
        ColumnSource { objects, cache, discarded }
    }

    /// Has a file removed in the background. If the store is closing, the next opening removes it instead.
    pub(crate) fn discard(&self, path: String) {
        let _ = self.discarded.send(path);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::DataType;

    use super::*;

    fn block() -> Column {
        Column::new(&DataType::Int64, vec![Arc::new(Int64Array::from(vec![7; 1000]))]).unwrap()
    }

    #[tokio::test]
    async fn the_budget_holds_and_the_longest_unused_column_goes() {
        let one = block().memory_bytes();
        let cache = ColumnCache::new(2 * one);
        let load = |key| cache.get_or_load(key, async { Ok(block()) });
        load((1, 0)).await.unwrap();
        load((1, 1)).await.unwrap();
        load((1, 0)).await.unwrap();
        load((1, 2)).await.unwrap();
        assert_eq!((cache.memory_bytes(), cache.evictions()), (2 * one, 1));
        assert_eq!(cache.hits_and_misses(), (1, 3));
        load((1, 0)).await.unwrap();
        assert_eq!(cache.hits_and_misses(), (2, 3), "the column used in between was kept");
        load((1, 1)).await.unwrap();
        assert_eq!(cache.hits_and_misses(), (2, 4), "the other was not");
        cache.remove_segment(1);
        assert_eq!(cache.memory_bytes(), 0);
    }

    #[tokio::test]
    async fn one_pass_over_much_does_not_drive_out_what_is_used_again() {
        let one = block().memory_bytes();
        let cache = ColumnCache::new(20 * one);
        let load = |key| cache.get_or_load(key, async { Ok(block()) });
        for _ in 0..3 {
            for column in 0..15 {
                load((1, column)).await.unwrap();
            }
        }
        for column in 0..1000 {
            load((2, column)).await.unwrap();
            assert!(cache.memory_bytes() <= 20 * one);
        }
        let (_, misses) = cache.hits_and_misses();
        for column in 0..15 {
            load((1, column)).await.unwrap();
        }
        assert_eq!(cache.hits_and_misses().1, misses, "all of them were still there");
    }

    #[tokio::test]
    async fn what_comes_back_soon_is_kept_longer() {
        let one = block().memory_bytes();
        let cache = ColumnCache::new(4 * one);
        let load = |key| cache.get_or_load(key, async { Ok(block()) });
        for column in 0..5 {
            load((1, column)).await.unwrap();
        }
        load((1, 0)).await.unwrap();
        for column in 10..30 {
            load((1, column)).await.unwrap();
        }
        let (hits, _) = cache.hits_and_misses();
        load((1, 0)).await.unwrap();
        assert_eq!(cache.hits_and_misses().0, hits + 1, "its second load made it a resident");
    }

    #[tokio::test]
    async fn a_column_larger_than_the_budget_is_served_and_drives_nothing_out() {
        let one = block().memory_bytes();
        let cache = ColumnCache::new(one);
        cache.get_or_load((1, 0), async { Ok(block()) }).await.unwrap();
        let values = Int64Array::from_iter_values((0..8192).map(|value: i64| value.wrapping_mul(i64::MAX / 7)));
        let large = Column::new(&DataType::Int64, vec![Arc::new(values)]).unwrap();
        assert_eq!(cache.get_or_load((1, 1), async { Ok(large) }).await.unwrap().null_count(), 0);
        assert_eq!((cache.memory_bytes(), cache.evictions()), (one, 0));
    }

    #[tokio::test]
    async fn readers_that_miss_together_load_once() {
        let cache = ColumnCache::new(usize::MAX);
        let loads = AtomicU64::new(0);
        let load = || {
            cache.get_or_load((1, 0), async {
                loads.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(block())
            })
        };
        let (left, right) = tokio::join!(load(), load());
        assert!(Arc::ptr_eq(&left.unwrap(), &right.unwrap()));
        assert_eq!(loads.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_failed_load_is_tried_again() {
        let cache = ColumnCache::new(usize::MAX);
        let failed = cache.get_or_load((1, 0), async { Err(crate::Error::Closed) }).await;
        assert!(failed.is_err());
        assert!(cache.get_or_load((1, 0), async { Ok(block()) }).await.is_ok());
        assert!(cache.memory_bytes() > 0);
    }
}
