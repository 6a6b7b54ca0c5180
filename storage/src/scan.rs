//! Reading many rows: a union of morsels.
//!
//! A scan is cut into units of about [`UNIT_ROWS`] rows that any thread may take: ranges of segments, memtables, and a
//! transaction's own pending rows. Nothing is merged or ordered; each unit knows by itself which of its rows the reader
//! may see. A segment without deletes costs nothing beyond its columns.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use roaring::RoaringBitmap;
use rustydb_txn::Timestamp;

use crate::BLOCK_ROWS;
use crate::catalog::{TableDef, TableId};
use crate::column_cache::CachedColumn;
use crate::error::Result;
use crate::memtable::TableMemtable;
use crate::segment::Segment;
use crate::transaction::TableWrites;

/// Rows of a unit: enough to amortise handing it out, few enough to spread a small table over the cores.
pub(crate) const UNIT_ROWS: usize = 8 * BLOCK_ROWS;

/// What to read.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// The table.
    pub table: TableId,
    /// Columns of the table's storage schema, in the order they are wanted.
    pub projection: Vec<usize>,
    /// Conditions all wanted rows meet. They only prune: the scan may return other rows, too.
    pub predicates: Vec<ColumnPredicate>,
}

/// A condition on one column.
#[derive(Debug, Clone)]
pub struct ColumnPredicate {
    /// A column of the storage schema.
    pub column: usize,
    /// How it compares.
    pub op: CompareOp,
    /// The value it compares with: length 1, of the column's type, not NULL.
    pub value: ArrayRef,
}

/// Comparisons that bounds can decide. NULLs meet none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// `=`
    Eq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
}

impl ColumnPredicate {
    /// Whether a column with these bounds (minimum and maximum, length 1 each) may hold a matching value.
    fn may_match(&self, bounds: &RecordBatch) -> Result<bool> {
        let column = bounds.column(self.column);
        if column.data_type() != self.value.data_type() || self.value.is_null(0) {
            return Ok(true);
        }
        let (minimum, maximum) = (column.slice(0, 1), column.slice(1, 1));
        if minimum.is_null(0) || maximum.is_null(0) {
            return Ok(true);
        }
        let value = &self.value;
        let answer = |result: BooleanArray| result.value(0);
        Ok(match self.op {
            CompareOp::Eq => answer(cmp::lt_eq(&minimum, value)?) && answer(cmp::gt_eq(&maximum, value)?),
            CompareOp::Lt => answer(cmp::lt(&minimum, value)?),
            CompareOp::LtEq => answer(cmp::lt_eq(&minimum, value)?),
            CompareOp::Gt => answer(cmp::gt(&maximum, value)?),
            CompareOp::GtEq => answer(cmp::gt_eq(&maximum, value)?),
        })
    }
}

/// Whether a segment may hold rows that meet all predicates.
pub(crate) fn may_match(segment: &Segment, predicates: &[ColumnPredicate]) -> Result<bool> {
    if predicates.is_empty() {
        return Ok(true);
    }
    let bounds = segment.bounds()?;
    for predicate in predicates {
        if !predicate.may_match(&bounds)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Debug)]
enum Source {
    Segment { segment: Arc<Segment>, rows: Range<usize>, deleted: Option<Arc<RoaringBitmap>> },
    Memtable { part: Arc<TableMemtable>, timestamp: Timestamp, writes: Option<Arc<TableWrites>> },
    Pending { writes: Arc<TableWrites> },
}

/// A part of a scan, to be read by one thread.
#[derive(Debug)]
pub struct ScanUnit {
    table: Arc<TableDef>,
    projection: Arc<[usize]>,
    schema: SchemaRef,
    source: Source,
}

/// Makes the units of one scan.
pub(crate) struct UnitBuilder {
    pub(crate) table: Arc<TableDef>,
    pub(crate) projection: Arc<[usize]>,
    pub(crate) schema: SchemaRef,
}

impl UnitBuilder {
    pub(crate) fn segment(
        &self,
        segment: &Arc<Segment>,
        rows: Range<usize>,
        deleted: Option<Arc<RoaringBitmap>>,
    ) -> ScanUnit {
        self.unit(Source::Segment { segment: Arc::clone(segment), rows, deleted })
    }

    pub(crate) fn memtable(
        &self,
        part: Arc<TableMemtable>,
        timestamp: Timestamp,
        writes: Option<Arc<TableWrites>>,
    ) -> ScanUnit {
        self.unit(Source::Memtable { part, timestamp, writes })
    }

    pub(crate) fn pending(&self, writes: Arc<TableWrites>) -> ScanUnit {
        self.unit(Source::Pending { writes })
    }

    fn unit(&self, source: Source) -> ScanUnit {
        ScanUnit {
            table: Arc::clone(&self.table),
            projection: Arc::clone(&self.projection),
            schema: Arc::clone(&self.schema),
            source,
        }
    }
}

impl ScanUnit {
    /// At most this many rows come out.
    pub fn rows_max(&self) -> usize {
        match &self.source {
            Source::Segment { rows, .. } => rows.len(),
            Source::Memtable { part, .. } => part.versions(),
            Source::Pending { writes } => writes.rows.len(),
        }
    }

    /// Starts reading.
    pub fn open(self) -> UnitReader {
        UnitReader { unit: self, position: Position::Start }
    }
}

#[derive(Debug)]
enum Position {
    Start,
    /// The segment's columns, and the next row.
    Segment(Vec<Arc<CachedColumn>>, usize),
    /// The last key read.
    Key(Box<[u8]>),
    End,
}

/// Reads a unit, batch by batch.
#[derive(Debug)]
pub struct UnitReader {
    unit: ScanUnit,
    position: Position,
}

impl UnitReader {
    /// The next rows, at most [`crate::BLOCK_ROWS`], never empty; `None` at the end. Decoding is CPU work on the
    /// calling thread.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let batch = match &self.unit.source {
                Source::Segment { segment, rows, deleted } => {
                    let (columns, at) = match std::mem::replace(&mut self.position, Position::End) {
                        Position::Start => {
                            let mut columns = Vec::with_capacity(self.unit.projection.len());
                            for column in self.unit.projection.iter() {
                                columns.push(segment.column(*column).await?);
                            }
                            (columns, rows.start)
                        }
                        Position::Segment(columns, at) => (columns, at),
                        Position::Key(_) | Position::End => return Ok(None),
                    };
                    let end = (at + BLOCK_ROWS).min(rows.end);
                    let batch = segment_batch(&self.unit.schema, &columns, at..end, deleted.as_deref())?;
                    if end < rows.end {
                        self.position = Position::Segment(columns, end);
                    }
                    batch
                }
                Source::Memtable { part, timestamp, writes } => {
                    let after = match std::mem::replace(&mut self.position, Position::End) {
                        Position::Start => None,
                        Position::Key(key) => Some(key),
                        Position::Segment(..) | Position::End => return Ok(None),
                    };
                    let overwritten = |key: &[u8]| writes.as_ref().is_some_and(|writes| writes.rows.contains_key(key));
                    let mut rows: Vec<Bytes> = Vec::new();
                    let collect = |_: &[u8], row, _| rows.push(row);
                    let last = part.collect_visible(after.as_deref(), *timestamp, BLOCK_ROWS, overwritten, collect);
                    if let Some(key) = last {
                        self.position = Position::Key(key);
                    }
                    self.decode(rows.iter().map(Bytes::as_ref).collect())?
                }
                Source::Pending { writes } => {
                    let after = match std::mem::replace(&mut self.position, Position::End) {
                        Position::Start => std::ops::Bound::Unbounded,
                        Position::Key(key) => std::ops::Bound::Excluded(key),
                        Position::Segment(..) | Position::End => return Ok(None),
                    };
                    let rest = writes.rows.range::<Box<[u8]>, _>((after, std::ops::Bound::Unbounded));
                    let mut rows: Vec<&[u8]> = Vec::new();
                    for (key, pending) in rest {
                        rows.extend(pending.row.as_deref());
                        if rows.len() == BLOCK_ROWS {
                            self.position = Position::Key(key.clone());
                            break;
                        }
                    }
                    self.decode(rows)?
                }
            };
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
            if matches!(self.position, Position::End) {
                return Ok(None);
            }
        }
    }

    fn decode(&self, rows: Vec<&[u8]>) -> Result<RecordBatch> {
        self.unit.table.codec()?.rows.decode(&rows, &self.unit.projection)
    }
}

/// Rows of a segment that lie in one block, without the deleted ones.
fn segment_batch(
    schema: &SchemaRef,
    columns: &[Arc<CachedColumn>],
    rows: Range<usize>,
    deleted: Option<&RoaringBitmap>,
) -> Result<RecordBatch> {
    let (block, start) = (rows.start / BLOCK_ROWS, rows.start % BLOCK_ROWS);
    let arrays = columns.iter().map(|column| column.blocks[block].slice(start, rows.len())).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?;
    let Some(deleted) = deleted else { return Ok(batch) };
    let (first, end) = (rows.start as u32, rows.end as u32);
    if deleted.range_cardinality(first..end) == 0 {
        return Ok(batch);
    }
    let visible = BooleanBuffer::collect_bool(rows.len(), |row| !deleted.contains(first + row as u32));
    Ok(filter_record_batch(&batch, &BooleanArray::new(visible, None))?)
}
