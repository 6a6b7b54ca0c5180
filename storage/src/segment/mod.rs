//! Immutable columnar runs of rows.
//!
//! ```text
//!  segments/<table>/<id>.parquet            in memory
//!  ┌──────────────────────────┐   ┌─────────────────────────────┐
//!  │ rows in key order,       │   │ SegmentMeta  (from manifest)│  statistics, checksums, key range
//!  │ one row group,           │   │ DeleteSet    (versioned)    │  which rows are gone since when
//!  │ pages of 8192 rows       │   │ Keys         (on demand)    │  key → row, by binary search
//!  └──────────────────────────┘   │ Postings     (on demand)    │  value → row, for each secondary index
//!                                 │ columns      (column cache) │  encoded blocks
//!                                 └─────────────────────────────┘
//! ```
//! Rows never move and are never rewritten; a change marks the old row in the delete set. The commit timestamps of the
//! rows are kept only in memory: after a restart nobody can hold a snapshot that is older than the segment.

mod meta;
mod reader;
mod writer;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use arrow::array::{ArrayRef, RecordBatch};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use rustydb_txn::Timestamp;
use tokio::sync::OnceCell;

pub(crate) use meta::{Base64, SEGMENT_DIRECTORY, SegmentMeta};
pub(crate) use writer::{EncodedSegment, SEGMENT_ROWS_MAX, SegmentEncoder, encode_segment};

use crate::block::Column;
use crate::catalog::{IndexId, TableDef};
use crate::column_cache::ColumnSource;
use crate::deletes::DeleteSet;
use crate::encoding::{KeyEncoder, Keys};
use crate::error::{Error, Result};
use crate::index::{Interval, Postings};

/// [`Segment::created`] of a segment that only its own transaction sees.
pub(crate) const STAGED: Timestamp = Timestamp::MAX;

/// A segment that readers may use.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) meta: SegmentMeta,
    pub(crate) table: Arc<TableDef>,
    pub(crate) deletes: DeleteSet,
    /// The commit that brought the segment; snapshots before it do not see it. [`STAGED`] until it commits.
    created: AtomicU64,
    /// When each row was committed, as long as somebody may have a snapshot older than `created`.
    row_timestamps: ArcSwapOption<Box<[Timestamp]>>,
    source: Arc<ColumnSource>,
    footer: OnceCell<ArrowReaderMetadata>,
    keys: OnceCell<Arc<Keys>>,
    postings: Mutex<HashMap<IndexId, Arc<OnceCell<Arc<Postings>>>>>,
    /// Set when nothing durable refers to the file any more; the last reader's drop removes it.
    obsolete: AtomicBool,
}

impl Segment {
    pub(crate) fn new(
        source: Arc<ColumnSource>,
        table: Arc<TableDef>,
        meta: SegmentMeta,
        deletes: DeleteSet,
        created: Timestamp,
    ) -> Self {
        Segment {
            meta,
            table,
            deletes,
            created: AtomicU64::new(created),
            row_timestamps: ArcSwapOption::empty(),
            source,
            footer: OnceCell::new(),
            keys: OnceCell::new(),
            postings: Mutex::default(),
            obsolete: AtomicBool::new(false),
        }
    }

    /// Adds what a flush knows and a recovery would have to find out: the keys and when each row was committed.
    pub(crate) fn complete(&self, keys: Keys, written: Box<[Timestamp]>) {
        assert_eq!(written.len(), self.meta.rows as usize, "one timestamp for each row");
        self.row_timestamps.store(Some(Arc::new(written)));
        assert!(self.keys.set(Arc::new(keys)).is_ok(), "a segment is completed once, before anybody reads it");
    }

    /// Forgets when each row was committed, once no snapshot is old enough to care.
    pub(crate) fn settle(&self, watermark: Timestamp) {
        if self.created() <= watermark {
            self.row_timestamps.store(None);
        }
    }

    /// The commit that brought the segment.
    pub(crate) fn created(&self) -> Timestamp {
        self.created.load(Ordering::Acquire)
    }

    /// Keeps the file of a staged segment from now on: a manifest or log record that names it is about to be written, and
    /// if that fails, it may be on the disk nevertheless. A file that nothing names is removed by the next start.
    pub(crate) fn keep(&self) {
        self.obsolete.store(false, Ordering::Release);
    }

    /// Turns a staged segment into a committed one.
    pub(crate) fn commit(&self, timestamp: Timestamp) {
        self.obsolete.store(false, Ordering::Release);
        self.created.store(timestamp, Ordering::Release);
    }

    /// When a row was committed.
    pub(crate) fn written(&self, row: u32) -> Timestamp {
        self.row_timestamps.load().as_ref().map_or_else(|| self.created(), |timestamps| timestamps[row as usize])
    }

    /// One column, from the cache or the file.
    pub(crate) async fn column(&self, column: usize) -> Result<Arc<Column>> {
        self.source
            .cache
            .get_or_load((self.meta.id, column), async {
                let blocks = self.read_rows(column, 0..self.meta.rows as usize).await?;
                Column::new(self.table.storage_schema().field(column).data_type(), blocks)
            })
            .await
    }

    /// A range of rows of one column, from the file, leaving the cache alone.
    pub(crate) async fn read_rows(&self, column: usize, rows: Range<usize>) -> Result<Vec<ArrayRef>> {
        let footer = self.footer().await?;
        reader::read_column(self.source.objects.as_ref(), &self.table, &self.meta, footer, column, rows).await
    }

    async fn footer(&self) -> Result<&ArrowReaderMetadata> {
        self.footer.get_or_try_init(|| reader::read_footer(self.source.objects.as_ref(), &self.meta)).await
    }

    /// The keys of all rows, made from the key columns at first use.
    pub(crate) async fn load_keys(&self) -> Result<&Arc<Keys>> {
        self.keys
            .get_or_try_init(|| async {
                let mut columns: Vec<ArrayRef> = Vec::new();
                for column in self.table.key_columns() {
                    columns.push(self.column(*column).await?.to_array()?);
                }
                let keys = self.table.codec()?.keys.encode(&columns)?;
                if let Some(row) = keys.first_disorder() {
                    return Err(Error::corruption(self.meta.path(), format!("row {row} is out of key order")));
                }
                Ok(Arc::new(keys))
            })
            .await
    }

    /// The keys, if they are in memory already.
    pub(crate) fn loaded_keys(&self) -> Option<&Arc<Keys>> {
        self.keys.get()
    }

    /// The rows in the order of an index, sorted at first use.
    pub(crate) async fn load_postings(&self, index: IndexId, encoder: &KeyEncoder) -> Result<Arc<Postings>> {
        let slot = Arc::clone(self.postings.lock().entry(index).or_default());
        let postings = slot.get_or_try_init(|| async { Postings::build(self, encoder).await.map(Arc::new) });
        postings.await.cloned()
    }

    /// The rows in the order of an index, if that is in memory already.
    pub(crate) fn loaded_postings(&self, index: IndexId) -> Option<Arc<Postings>> {
        self.postings.lock().get(&index).and_then(|slot| slot.get().cloned())
    }

    /// Whether an index (made by `encoder`) may have a value in an interval here, going by the bounds of its first
    /// column.
    pub(crate) fn may_have_value(&self, encoder: &KeyEncoder, interval: &Interval) -> Result<bool> {
        let column = encoder.columns()[0];
        let data_type = self.table.storage_schema().field(column).data_type();
        if self.meta.columns[column].null_count > 0 || data_type.is_floating() {
            // NULLs and NaNs lie outside the bounds.
            return Ok(true);
        }
        let bounds = self.bounds()?;
        let bounds = bounds.column(column);
        if bounds.null_count() > 0 {
            return Ok(true);
        }
        let keys = encoder.prefix(1).encode(std::slice::from_ref(bounds))?;
        let beyond = crate::index::successor(keys.get(1));
        let starts_before_end = beyond.as_ref().is_none_or(|beyond| &interval.low < beyond);
        Ok(starts_before_end && interval.high.as_deref().is_none_or(|high| keys.get(0) < high))
    }

    /// Bounds of every column as a batch of two rows, minimum and maximum; NULL where unknown.
    pub(crate) fn bounds(&self) -> Result<RecordBatch> {
        let layout = writer::bounds_layout(self.table.storage_schema())?;
        let rows = [self.meta.minimums.0.as_slice(), self.meta.maximums.0.as_slice()];
        for row in rows {
            layout.validate(row).map_err(|error| Error::corruption(self.meta.path(), format!("bounds: {error}")))?;
        }
        let all: Vec<usize> = (0..self.meta.columns.len()).collect();
        layout.decode(&rows, &all)
    }

    /// Memory held for the keys and the secondary indexes.
    pub(crate) fn index_bytes(&self) -> usize {
        let postings = self.postings.lock();
        let postings: usize = postings.values().filter_map(|slot| slot.get()).map(|made| made.memory_bytes()).sum();
        self.keys.get().map_or(0, |keys| keys.memory_bytes()) + postings
    }

    /// Lets the file go when the last reader does. Call it only when no manifest or log that a recovery would start
    /// from needs the file.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.source.cache.remove_segment(self.meta.id);
        if self.obsolete.load(Ordering::Acquire) {
            self.source.discard(self.meta.path());
        }
    }
}
