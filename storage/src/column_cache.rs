//! Decoded columns, kept while memory allows.
//!
//! The unit is one column of one segment, in blocks of [`crate::BLOCK_ROWS`] rows. Two readers that miss at once
//! decode once. When the budget is exceeded, the columns that were used longest ago go first; a reader that holds one
//! keeps it alive until it is done. A column larger than the whole budget is served and not kept.

use std::collections::HashMap;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use object_store::ObjectStore;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedSender;

use crate::error::Result;

/// Segment and column.
pub(crate) type ColumnKey = (u64, usize);

/// A column in memory.
#[derive(Debug)]
pub(crate) struct CachedColumn {
    /// All but the last have [`crate::BLOCK_ROWS`] rows.
    pub(crate) blocks: Vec<ArrayRef>,
    memory_bytes: usize,
}

#[derive(Debug, Default)]
struct Entry {
    column: Arc<OnceCell<Arc<CachedColumn>>>,
    memory_bytes: usize,
    last_used: u64,
}

#[derive(Debug, Default)]
struct Entries {
    columns: HashMap<ColumnKey, Entry>,
    memory_bytes: usize,
    clock: u64,
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
        load: impl Future<Output = Result<Vec<ArrayRef>>>,
    ) -> Result<Arc<CachedColumn>> {
        let slot = {
            let mut entries = self.entries.lock();
            entries.clock += 1;
            let now = entries.clock;
            let entry = entries.columns.entry(key).or_default();
            entry.last_used = now;
            Arc::clone(&entry.column)
        };
        if let Some(column) = slot.get() {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(column));
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let column = slot
            .get_or_try_init(|| async {
                let blocks = load.await?;
                let memory_bytes = memory_of(&blocks);
                Ok::<_, crate::Error>(Arc::new(CachedColumn { blocks, memory_bytes }))
            })
            .await?;
        self.account(key, &slot, column.memory_bytes);
        Ok(Arc::clone(column))
    }

    /// Counts a loaded column and evicts down to the budget.
    fn account(&self, key: ColumnKey, slot: &Arc<OnceCell<Arc<CachedColumn>>>, memory_bytes: usize) {
        let mut entries = self.entries.lock();
        match entries.columns.get_mut(&key) {
            Some(entry) if Arc::ptr_eq(&entry.column, slot) && entry.memory_bytes == 0 => {
                entry.memory_bytes = memory_bytes;
                entries.memory_bytes += memory_bytes;
            }
            _ => return,
        }
        while entries.memory_bytes > self.budget_bytes {
            let loaded = entries.columns.iter().filter(|(_, entry)| entry.memory_bytes > 0);
            let Some(oldest) = loaded.min_by_key(|(_, entry)| entry.last_used).map(|(key, _)| *key) else {
                break;
            };
            entries.forget(oldest);
        }
    }

    /// Forgets the columns of a segment.
    pub(crate) fn remove_segment(&self, segment: u64) {
        let mut entries = self.entries.lock();
        let columns: Vec<ColumnKey> = entries.columns.keys().filter(|(id, _)| *id == segment).copied().collect();
        columns.into_iter().for_each(|key| entries.forget(key));
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.lock().memory_bytes
    }

    /// Calls served from memory and calls that had to load, since the store was opened.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}

impl Entries {
    fn forget(&mut self, key: ColumnKey) {
        if let Some(entry) = self.columns.remove(&key) {
            self.memory_bytes -= entry.memory_bytes;
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

/// Memory of a column's blocks. String views of neighbouring blocks share buffers, which count once.
fn memory_of(blocks: &[ArrayRef]) -> usize {
    let mut shared = HashSet::new();
    let mut total = 0;
    for block in blocks {
        let buffers = match block.data_type() {
            DataType::Utf8View => block.as_string_view().data_buffers(),
            DataType::BinaryView => block.as_binary_view().data_buffers(),
            _ => {
                total += block.get_array_memory_size();
                continue;
            }
        };
        total += block.len() * size_of::<u128>();
        for buffer in buffers {
            if shared.insert(buffer.data_ptr()) {
                total += buffer.capacity();
            }
        }
    }
    total.max(1)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn block() -> Vec<ArrayRef> {
        vec![Arc::new(Int64Array::from(vec![7; 1000]))]
    }

    #[tokio::test]
    async fn the_budget_holds_and_the_longest_unused_column_goes() {
        let one = memory_of(&block());
        let cache = ColumnCache::new(2 * one);
        let load = |key| cache.get_or_load(key, async { Ok(block()) });
        load((1, 0)).await.unwrap();
        load((1, 1)).await.unwrap();
        load((1, 0)).await.unwrap();
        load((1, 2)).await.unwrap();
        assert_eq!(cache.memory_bytes(), 2 * one);
        assert_eq!(cache.hits_and_misses(), (1, 3));
        load((1, 0)).await.unwrap();
        assert_eq!(cache.hits_and_misses(), (2, 3), "the column used in between was kept");
        load((1, 1)).await.unwrap();
        assert_eq!(cache.hits_and_misses(), (2, 4), "the other was not");
        cache.remove_segment(1);
        assert_eq!(cache.memory_bytes(), 0);
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
