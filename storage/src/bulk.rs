//! Bulk loads: rows straight to segment files.
//!
//! ```text
//!  write(batch) ─▶ a million rows ─▶ [sort by key] ─▶ Parquet ─▶ put      (on blocking threads, two at a time)
//!  finish ─▶ the segments join the transaction ─▶ commit logs only references to them
//! ```
//! Memory is bounded by the segments in flight, which are smaller where memory is scarce: a load takes at most half of the
//! column cache's budget for itself. Each segment is sorted; segments of one load may overlap if the input
//! was not sorted. Keys are checked within a segment, against the earlier segments of the load and against everything
//! the transaction sees; commit checks them against what others committed meanwhile. Rows that already come in key
//! order are neither sorted nor compared across segments: their key ranges cannot meet.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use tokio::task::JoinSet;

use crate::catalog::{IndexDef, TableDef};
use crate::column_cache::Reservation;
use crate::deletes::DeleteSet;
use crate::encoding::{Keys, Physical};
use crate::error::{Error, Result};
use crate::segment::{EncodedSegment, SEGMENT_ROWS_MAX, STAGED, Segment, encode_segment};
use crate::store::{Inner, Writing};
use crate::transaction::{DeferredKeys, Transaction, duplicate_key, key_columns, storage_rows};
use crate::view::ReadView;

/// Segments that may be sorted and encoded at once.
const PARALLEL_SEGMENTS_MAX: usize = 4;

/// Memory that encoding a segment takes, as a multiple of its rows: the rows, the same sorted, and the file.
const ENCODING_FACTOR: usize = 3;

/// With less than this for the rows of a segment, one is encoded at a time.
const PARALLEL_SEGMENT_BYTES_MIN: usize = 64 * 1024 * 1024;

/// However little memory there is, a segment has so many bytes of rows.
const SEGMENT_BYTES_MIN: usize = 4 * 1024 * 1024;

/// An unfinished bulk load. Dropping it removes what it has written.
#[derive(Debug)]
pub struct BulkWriter {
    view: ReadView,
    table: Arc<TableDef>,
    /// Unique indexes whose check waits.
    deferred: DeferredKeys,
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    segment_bytes_max: usize,
    memory: Reservation,
    encoding: JoinSet<Result<(Arc<Segment>, Keys)>>,
    parallel: usize,
    staged: Vec<Arc<Segment>>,
    rows: u64,
}

impl BulkWriter {
    pub(crate) fn new(view: ReadView, table: Arc<TableDef>, deferred: DeferredKeys) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(PARALLEL_SEGMENTS_MAX);
        let cache = &view.snapshot.store.columns().cache;
        let memory = cache.reservable_bytes();
        let share = |parallel: usize| memory / (1 + parallel * ENCODING_FACTOR);
        let parallel = if share(cores) < PARALLEL_SEGMENT_BYTES_MIN { 1 } else { cores };
        let segment_bytes_max = share(parallel).max(SEGMENT_BYTES_MIN);
        let memory = cache.reserve(0);
        Ok(BulkWriter {
            pending_bytes: 0,
            segment_bytes_max,
            memory,
            view,
            table,
            deferred,
            pending: Vec::new(),
            pending_rows: 0,
            encoding: JoinSet::new(),
            parallel,
            staged: Vec::new(),
            rows: 0,
        })
    }

    /// Adds rows with the table's columns, in any key order. Waits while enough segments are being written.
    pub async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        let store = &self.view.snapshot.store;
        let mut rows = storage_rows(&self.table, &rows, || store.new_row_ids(rows.num_rows()))?;
        self.rows += rows.num_rows() as u64;
        while self.pending_rows + rows.num_rows() >= SEGMENT_ROWS_MAX {
            let fitting = SEGMENT_ROWS_MAX - self.pending_rows;
            let last = rows.slice(0, fitting);
            self.pending_bytes += bytes_of(&last);
            self.pending.push(last);
            rows = rows.slice(fitting, rows.num_rows() - fitting);
            self.cut().await?;
        }
        if rows.num_rows() > 0 {
            self.pending_rows += rows.num_rows();
            self.pending_bytes += bytes_of(&rows);
            self.pending.push(rows);
        }
        if self.pending_bytes >= self.segment_bytes_max {
            self.cut().await?;
        }
        Ok(())
    }

    /// Writes what is left and makes the rows part of the transaction. Returns how many were loaded.
    pub async fn finish(mut self, transaction: &mut Transaction) -> Result<u64> {
        if self.pending_rows > 0 {
            self.cut().await?;
        }
        while !self.encoding.is_empty() {
            self.collect_one().await?;
        }
        transaction.attach(&self.view, self.table.id, std::mem::take(&mut self.staged))?;
        Ok(self.rows)
    }

    /// Starts encoding the pending rows as a segment.
    async fn cut(&mut self) -> Result<()> {
        while self.encoding.len() >= self.parallel {
            self.collect_one().await?;
        }
        let (table, store) = (Arc::clone(&self.table), Arc::clone(&self.view.snapshot.store));
        // These rows and what encoding them takes, beside as many others as are being encoded, and the next.
        self.memory.grow_to(self.pending_bytes * (1 + ENCODING_FACTOR * (1 + self.encoding.len())));
        let rows = std::mem::take(&mut self.pending);
        (self.pending_rows, self.pending_bytes) = (0, 0);
        let id = store.new_segment_id();
        self.encoding.spawn(async move {
            let encoder = Arc::clone(&table);
            let encoded = tokio::task::spawn_blocking(move || encode(&encoder, id, rows)).await;
            let (encoded, keys) =
                encoded.map_err(|error| Error::Internal(format!("encoding a segment: {error}")))??;
            Ok((put_segment(&store, table, encoded).await?, keys))
        });
        Ok(())
    }

    /// Waits for one segment and checks its keys against everything that is there already.
    async fn collect_one(&mut self) -> Result<()> {
        let Some(finished) = self.encoding.join_next().await else { return Ok(()) };
        let (segment, keys) = finished.map_err(|error| Error::Internal(format!("encoding a segment: {error}")))??;
        if !self.table.has_hidden_key() {
            let mut common = self.view.first_common_key(self.table.id, &keys).await?;
            let (first, last) = (&segment.meta.first_key.0, &segment.meta.last_key.0);
            for other in self.staged.iter().filter(|other| other.meta.overlaps(first, last)) {
                common = common.or(keys.first_match(other.keys().await?.as_ref(), |_, _| true));
            }
            if let Some(row) = common {
                return Err(segment_duplicate(&segment, None, row).await?);
            }
        }
        self.check_unique(&segment).await?;
        self.staged.push(segment);
        Ok(())
    }

    /// The same for the values of unique indexes. Building the others' postings, too, shows that they can be built.
    async fn check_unique(&self, segment: &Segment) -> Result<()> {
        for (position, index) in self.table.indexes.iter().enumerate() {
            let encoder = &self.table.codec()?.indexes[position];
            let postings = segment.load_postings(index.id, encoder).await?;
            if !index.unique || self.deferred.defers(index) {
                continue;
            }
            let mut common = postings.first_double(index, |_| true);
            for other in &self.staged {
                let others = other.load_postings(index.id, encoder).await?;
                common = common.or_else(|| postings.first_common(index, &others, |_| true, |_| true));
            }
            if common.is_none() {
                common = self.view.first_common_value(&self.table, position, &postings).await?;
            }
            if let Some(row) = common {
                return Err(segment_duplicate(segment, Some(index), row as usize).await?);
            }
        }
        Ok(())
    }
}

/// Memory of some rows, which may be a slice of more.
fn bytes_of(rows: &RecordBatch) -> usize {
    let column = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View => column.as_string_view().total_buffer_bytes_used() + column.len() * size_of::<u128>(),
        DataType::BinaryView => column.as_binary_view().total_buffer_bytes_used() + column.len() * size_of::<u128>(),
        other => column.len() * Physical::of(other).map_or(size_of::<u128>(), Physical::width),
    };
    rows.columns().iter().map(column).sum()
}

/// Sorts rows by key if need be and encodes them.
fn encode(table: &TableDef, id: u64, rows: Vec<RecordBatch>) -> Result<(EncodedSegment, Keys)> {
    let encoder = &table.codec()?.keys;
    let chunks = rows.iter().map(|batch| encoder.encode(&key_columns(table, batch))).collect::<Result<Vec<_>>>()?;
    let keys = Keys::concat(&chunks)?;
    drop(chunks);
    if keys.first_disorder().is_none() {
        return Ok((encode_segment(table, id, &rows, &keys)?, keys));
    }
    let all = concat_batches(table.storage_schema(), &rows)?;
    drop(rows);
    let order = keys.sort_order();
    let keys = keys.take(&order);
    let sorted = take_record_batch(&all, &UInt32Array::from(order))?;
    if let Some(row) = keys.first_disorder() {
        return Err(duplicate_key(table, None, &sorted, row));
    }
    Ok((encode_segment(table, id, &[sorted], &keys)?, keys))
}

/// A file, with what keeps the directory's lock while it is being written. The thread that writes it goes on when nobody waits for
/// that any more, not even the task that has begun it, which ends with its runtime; it holds these bytes until it is done.
struct BeingWritten {
    file: Bytes,
    _writing: Arc<Writing>,
}

impl AsRef<[u8]> for BeingWritten {
    fn as_ref(&self) -> &[u8] {
        &self.file
    }
}

/// Writes an encoded segment. The result is staged: if it is dropped uncommitted, the file goes, too. It also does when nobody
/// waits for this any more: a file that is being written can only be removed when it is there.
pub(crate) async fn put_segment(store: &Inner, table: Arc<TableDef>, encoded: EncodedSegment) -> Result<Arc<Segment>> {
    let (columns, writing) = (Arc::clone(store.columns()), Arc::new(store.begin_writing().await?));
    let put = tokio::spawn(async move {
        let EncodedSegment { meta, file } = encoded;
        let file = Bytes::from_owner(BeingWritten { file, _writing: Arc::clone(&writing) });
        let segment = Segment::new(Arc::clone(&columns), table, meta, DeleteSet::default(), STAGED);
        let path = segment.meta.path();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = columns.objects.put_opts(&Path::from(path.as_str()), PutPayload::from(file), options).await;
        // If the name is taken, the file is that of another process that was let in; it is not ours to remove.
        if !matches!(put, Err(object_store::Error::AlreadyExists { .. })) {
            segment.mark_obsolete();
        }
        let failed = |error| Error::io(format!("writing {path}"), std::io::Error::other(error));
        let put = put.map(|_| Arc::new(segment)).map_err(failed);
        // Not before it is known here that the file is there or is to be removed.
        drop(writing);
        put
    });
    put.await.map_err(|error| Error::Internal(format!("writing a segment: {error}")))?
}

/// The error for a row of a segment whose key, or whose value in a unique index, is taken.
pub(crate) async fn segment_duplicate(segment: &Segment, index: Option<&IndexDef>, row: usize) -> Result<Error> {
    let all: Vec<usize> = (0..segment.table.storage_schema().fields().len()).collect();
    let row = segment.row(row as u32, &all).await?;
    let row = segment.table.codec()?.rows.decode(&[&row], &all)?;
    Ok(duplicate_key(&segment.table, index, &row, 0))
}
