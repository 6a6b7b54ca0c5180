//! Immutable columnar runs of rows.
//!
//! ```text
//!  segments/<table>/<id>.parquet            in memory
//!  ┌──────────────────────────┐   ┌─────────────────────────────┐
//!  │ rows in key order,       │   │ SegmentMeta  (from manifest)│  statistics, checksums, key range
//!  │ one row group,           │   │ DeleteSet    (versioned)    │  which rows are gone since when
//!  │ pages of 2048 rows       │   │ KeyIndex     (on demand)    │  key → row, by hash
//!  └──────────────────────────┘   │ Postings     (on demand)    │  value → row, for each secondary index
//!                                 │ Columns      (on demand)    │  encoded blocks
//!                                 └─────────────────────────────┘
//! ```
//! What is made on demand lies in slots of the column cache ([`crate::column_cache`]), which lets it go when memory is
//! short. Who needs it to stay for a while holds [`Pins`].
//!
//! Rows never move and are never rewritten; a change marks the old row in the delete set. The commit timestamps of the
//! rows are kept only in memory: after a restart nobody can hold a snapshot that is older than the segment.

mod file_type;
mod from_rows;
mod key_index;
mod key_table;
mod meta;
mod pages;
mod reader;
mod rows;
mod verify;
mod writer;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use rustydb_txn::Timestamp;
use tokio::sync::OnceCell;

use file_type::widen;
pub(crate) use from_rows::encode_rows;
pub(crate) use key_index::{KeyColumns, KeyIndex};
pub(crate) use key_table::KeyHash;
pub(crate) use meta::{Base64, SEGMENT_DIRECTORY, SegmentMeta};
use pages::{Pages, RowColumn};
pub(crate) use writer::{EncodedSegment, SEGMENT_ROWS_MAX, SegmentEncoder, encode_segment};

use crate::block::{Column, ColumnEncoder};
use crate::catalog::{IndexId, TableDef};
use crate::column_cache::{ColumnSource, Held, Part, Slot};
use crate::deletes::DeleteSet;
use crate::encoding::{KeyEncoder, Keys};
use crate::error::{Error, Result};
use crate::index::{Interval, Postings};
use crate::point::WantedColumns;
use rows::RowColumns;

/// [`Segment::created`] of a segment that only its own transaction sees.
pub(crate) const STAGED: Timestamp = Timestamp::MAX;

/// Keeps key indexes and postings in memory while it lives: what was loaded and pinned can be used without waiting.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Pins(Vec<Arc<dyn Any + Send + Sync>>);

impl Pins {
    pub(crate) fn add(&mut self, pinned: Arc<dyn Any + Send + Sync>) {
        self.0.push(pinned);
    }

    pub(crate) fn hold(&mut self, held: Vec<Held>) {
        self.add(Arc::new(held));
    }

    pub(crate) fn extend(&mut self, others: Pins) {
        self.0.extend(others.0);
    }
}

/// The lowest and highest value of a column, encoded as the first part of a key; `None` if they are not known.
type KeyBounds = Option<Keys>;

/// A segment that readers may use.
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
    /// See [`bounds`](Self::bounds).
    bounds: OnceLock<RecordBatch>,
    /// The bounds of each column as index entries begin with them: of a column that may not be NULL, and of one that may.
    key_bounds: Box<[[OnceLock<KeyBounds>; 2]]>,
    columns: Box<[Slot<Column>]>,
    row_columns: RowColumns,
    pages: Pages,
    keys: Slot<Keys>,
    key_index: Slot<KeyIndex>,
    postings: Mutex<HashMap<IndexId, Arc<Slot<Postings>>>>,
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
        let slot = |part| (meta.id, part);
        let columns: Box<[Slot<Column>]> =
            (0..meta.columns.len()).map(|column| Slot::new(slot(Part::Column(column)))).collect();
        Segment {
            row_columns: RowColumns::of(&columns),
            columns,
            pages: Pages::new(meta.id),
            keys: Slot::new(slot(Part::Keys)),
            key_index: Slot::new(slot(Part::KeyIndex)),
            bounds: OnceLock::new(),
            key_bounds: meta.columns.iter().map(|_| Default::default()).collect(),
            meta,
            table,
            deletes,
            created: AtomicU64::new(created),
            row_timestamps: ArcSwapOption::empty(),
            source,
            footer: OnceCell::new(),
            postings: Mutex::default(),
            obsolete: AtomicBool::new(false),
        }
    }

    /// Adds what a flush or a compaction knows and nobody finds out later: when each row was committed.
    pub(crate) fn complete(&self, written: Box<[Timestamp]>) {
        assert_eq!(written.len(), self.meta.rows as usize, "one timestamp for each row");
        self.row_timestamps.store(Some(Arc::new(written)));
    }

    /// Puts columns and key index into the cache that are at hand, as far as there is room: who has just written the rows
    /// will be asked for them.
    pub(crate) fn warm(&self, columns: Vec<Option<Column>>, keys: &Keys) {
        for (index, column) in columns.into_iter().enumerate() {
            if let Some(column) = column {
                self.warm_column(index, column);
            }
        }
        self.warm_keys(keys);
    }

    fn warm_column(&self, index: usize, column: Column) {
        let bytes = column.memory_bytes();
        self.source.cache.offer(&self.columns[index], &Arc::new(column), bytes);
    }

    /// Puts the key index into the cache, if the key columns are there and there is room.
    fn warm_keys(&self, keys: &Keys) {
        let key_columns = self.table.key_columns().iter().map(|column| self.columns[*column].get());
        if let Some(columns) = key_columns.collect::<Option<Vec<_>>>() {
            let index = KeyIndex::new(KeyColumns::new(Arc::clone(&self.table), columns, keys.len()), keys);
            let bytes = index.memory_bytes();
            if self.source.cache.has_room(bytes) {
                self.source.cache.offer(&self.key_index, &Arc::new(index), bytes);
            }
        }
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
        let (cache, slot) = (&self.source.cache, &self.columns[column]);
        match cache.get(slot) {
            Some(column) => Ok(column),
            None => cache.get_or_load(slot, Column::memory_bytes, self.load_column(column)).await,
        }
    }

    /// The same; nothing if somebody is just loading it.
    pub(crate) async fn column_unless_loading(&self, column: usize) -> Result<Option<Arc<Column>>> {
        let (cache, slot) = (&self.source.cache, &self.columns[column]);
        match cache.get(slot) {
            Some(column) => Ok(Some(column)),
            None => cache.get_or_load_alone(slot, Column::memory_bytes, self.load_column(column)).await,
        }
    }

    /// A column, if the cache keeps it, which counts as no use.
    pub(crate) fn kept_column(&self, column: usize) -> Option<Arc<Column>> {
        self.columns[column].kept()
    }

    /// Whether a column is in memory as a whole, without counting as a use.
    pub(crate) fn has_column(&self, column: usize) -> bool {
        self.columns[column].is_present()
    }

    /// Boxed: who waits for it is often deep in a row program, and needs it rarely.
    fn load_column(&self, column: usize) -> BoxFuture<'_, Result<Column>> {
        Box::pin(async move {
            let rows = self.meta.rows as usize;
            let mut encoder = ColumnEncoder::new(self.table.storage_schema().field(column).data_type(), rows);
            self.read_blocks(column, 0..rows, |block| encoder.push(block)).await?;
            encoder.finish()
        })
    }

    /// A row as the memtable would have it, of which only some columns are known and the others NULL. Reads nothing but
    /// single values out of the encoded columns, or of pages of them.
    pub(crate) async fn row(&self, row: u32, columns: &[usize]) -> Result<Bytes> {
        let mut held = Vec::new();
        loop {
            if let Some(row) = self.row_at_hand(row, columns)? {
                return Ok(row);
            }
            // What is held is at hand; another column may have been let go of meanwhile.
            held.extend(Box::pin(self.load_rows(&[row], columns)).await?);
        }
    }

    /// The same at once, if the values of all of these columns are in memory.
    pub(crate) fn row_at_hand(&self, row: u32, columns: &[usize]) -> Result<Option<Bytes>> {
        let found: Option<Vec<RowColumn>> = columns.iter().map(|column| self.row_column(*column, row)).collect();
        if found.is_some() {
            self.source.cache.count_hits(columns.len() as u64);
        }
        found.map(|found| self.row_of(columns, found)).transpose()
    }

    /// A row with the values that are in `found` of these columns.
    fn row_of(&self, columns: &[usize], found: Vec<RowColumn>) -> Result<Bytes> {
        let mut known: Vec<Option<RowColumn>> = vec![None; self.columns.len()];
        for (column, found) in columns.iter().zip(found) {
            known[*column] = Some(found);
        }
        self.table.codec()?.rows.build(|column, take| match &known[column] {
            Some(RowColumn { values, row }) => values.with_raw(*row, take)?,
            None => take(None),
        })
    }

    /// The same at its fastest, if the cache keeps all of these columns.
    pub(crate) fn row_in_memory(&self, row: u32, columns: &WantedColumns) -> Result<Option<Bytes>> {
        let layout = &self.table.codec()?.rows;
        let bytes = self.row_columns.with(&self.columns, columns, |known| rows::build(layout, row, columns, known));
        if bytes.is_some() {
            self.source.cache.count_hits(columns.list().len() as u64);
        }
        bytes.transpose()
    }

    /// A range of rows of one column, from the file, leaving the cache alone.
    pub(crate) async fn read_rows(&self, column: usize, rows: Range<usize>) -> Result<Vec<ArrayRef>> {
        let data_type = self.table.storage_schema().field(column).data_type();
        let mut blocks = Vec::with_capacity(rows.len().div_ceil(crate::BLOCK_ROWS));
        let take = |block| {
            blocks.push(widen(block, data_type));
            Ok(())
        };
        self.read_blocks(column, rows, take).await?;
        Ok(blocks)
    }

    async fn read_blocks(
        &self,
        column: usize,
        rows: Range<usize>,
        take: impl FnMut(ArrayRef) -> Result<()>,
    ) -> Result<()> {
        let footer = self.footer().await?;
        reader::read_column(self.source.objects.as_ref(), &self.table, &self.meta, footer, column, rows, take).await
    }

    async fn footer(&self) -> Result<&ArrowReaderMetadata> {
        self.footer.get_or_try_init(|| reader::read_footer(self.source.objects.as_ref(), &self.meta)).await
    }

    /// The key columns.
    pub(crate) async fn key_columns(&self) -> Result<KeyColumns> {
        let mut columns = Vec::with_capacity(self.table.key_columns().len());
        for column in self.table.key_columns() {
            columns.push(self.column(*column).await?);
        }
        Ok(KeyColumns::new(Arc::clone(&self.table), columns, self.meta.rows as usize))
    }

    /// The keys of all rows, ascending: for comparing many with many.
    pub(crate) async fn keys(&self) -> Result<Arc<Keys>> {
        let load = async { self.checked_keys(&self.key_columns().await?) };
        self.source.cache.get_or_load(&self.keys, Keys::memory_bytes, load).await
    }

    fn checked_keys(&self, columns: &KeyColumns) -> Result<Keys> {
        let keys = columns.all()?;
        match keys.first_disorder() {
            Some(row) => Err(Error::corruption(self.meta.path(), format!("row {row} is out of key order"))),
            None => Ok(keys),
        }
    }

    /// The primary-key index, made at first use.
    pub(crate) async fn load_key_index(&self) -> Result<Arc<KeyIndex>> {
        let load = async {
            let columns = self.key_columns().await?;
            let keys = self.checked_keys(&columns)?;
            Ok(KeyIndex::new(columns, &keys))
        };
        self.source.cache.get_or_load(&self.key_index, KeyIndex::memory_bytes, load).await
    }

    /// The primary-key index, if it is in memory already.
    pub(crate) fn key_index(&self) -> Option<Arc<KeyIndex>> {
        self.key_index.get()
    }

    /// The slot of the primary-key index.
    pub(crate) fn key_slot(&self) -> &Slot<KeyIndex> {
        &self.key_index
    }

    /// Loads the primary-key index, and holds it.
    pub(crate) async fn hold_key_index(&self) -> Result<Held> {
        let keys = self.load_key_index().await?;
        let bytes = keys.memory_bytes();
        Ok(self.key_index.hold(keys, bytes))
    }

    /// Loads a column, and holds it.
    pub(crate) async fn hold_column(&self, column: usize) -> Result<Held> {
        let values = self.column(column).await?;
        let bytes = values.memory_bytes();
        Ok(self.columns[column].hold(values, bytes))
    }

    /// Loads the rows in the order of an index, and holds them.
    pub(crate) async fn hold_postings(&self, index: IndexId, encoder: &KeyEncoder) -> Result<Held> {
        let postings = self.load_postings(index, encoder).await?;
        let bytes = postings.memory_bytes();
        Ok(self.postings_slot(index).hold(postings, bytes))
    }

    fn postings_slot(&self, index: IndexId) -> Arc<Slot<Postings>> {
        let new = || Arc::new(Slot::new((self.meta.id, Part::Postings(index))));
        Arc::clone(self.postings.lock().entry(index).or_insert_with(new))
    }

    /// What `read` makes of the primary-key index, if that is in memory.
    pub(crate) fn with_key_index<R>(&self, read: impl Fn(&KeyIndex) -> R) -> Option<R> {
        // Somebody may have pinned it, though the cache has let it go.
        self.key_index.with(&read).or_else(|| self.key_index.get().map(|keys| read(&keys)))
    }

    /// The rows in the order of an index, sorted at first use.
    pub(crate) async fn load_postings(&self, index: IndexId, encoder: &KeyEncoder) -> Result<Arc<Postings>> {
        let slot = self.postings_slot(index);
        let load = Postings::build(self, encoder);
        self.source.cache.get_or_load(&slot, Postings::memory_bytes, load).await
    }

    /// The rows in the order of an index, if that is in memory already.
    pub(crate) fn postings(&self, index: IndexId) -> Option<Arc<Postings>> {
        self.postings.lock().get(&index).and_then(|slot| slot.get())
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
        let Some(bounds) = self.key_bounds(column, encoder)? else { return Ok(true) };
        let high = bounds.get(1);
        // Entries of the highest value begin with it.
        let starts_before_end = interval.low.as_slice() <= high || interval.low.starts_with(high);
        Ok(starts_before_end && interval.high.as_deref().is_none_or(|beyond| bounds.get(0) < beyond))
    }

    fn key_bounds(&self, column: usize, encoder: &KeyEncoder) -> Result<Option<&Keys>> {
        let slot = &self.key_bounds[column][usize::from(encoder.is_nullable(0))];
        if slot.get().is_none() {
            let bounds = self.bounds()?.column(column);
            let encoded = match bounds.null_count() {
                0 => Some(encoder.prefix(1).encode(std::slice::from_ref(bounds))?),
                _ => None,
            };
            // If somebody else was faster, it is the same.
            let _ = slot.set(encoded);
        }
        Ok(slot.get().and_then(Option::as_ref))
    }

    /// Bounds of every column as a batch of two rows, minimum and maximum; NULL where unknown.
    pub(crate) fn bounds(&self) -> Result<&RecordBatch> {
        if self.bounds.get().is_none() {
            let layout = writer::bounds_layout(self.table.storage_schema())?;
            let rows = [self.meta.minimums.0.as_slice(), self.meta.maximums.0.as_slice()];
            for row in rows {
                layout
                    .validate(row)
                    .map_err(|error| Error::corruption(self.meta.path(), format!("bounds: {error}")))?;
            }
            let all: Vec<usize> = (0..self.meta.columns.len()).collect();
            // If somebody else was faster, it is the same.
            let _ = self.bounds.set(layout.decode(&rows, &all)?);
        }
        self.bounds.get().ok_or_else(|| Error::Internal("bounds that were set are not there".into()))
    }

    /// Lets the file go when the last reader does. Call it only when no manifest or log that a recovery would start
    /// from needs the file.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

/// Which one, and nothing of what is in it.
impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} of table {} ({} rows)", self.meta.id, self.table.name, self.meta.rows)
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
