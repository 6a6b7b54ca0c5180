//! One unit of a scan at work: visible rows, through the filters, into batches.

use std::collections::HashMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use bytes::Bytes;
use roaring::RoaringBitmap;

use super::filter::RowPredicate;
use super::plan::{Counted, ScanPlan};
use super::test::{Test, Verdict};
use super::{ScanUnit, Source};
use crate::BLOCK_ROWS;
use crate::block::{Column, Selection};
use crate::error::{Error, Result};
use crate::kernel::Mask;
use crate::segment::Segment;

/// Rows left of several blocks are put together until there are this many.
const BATCH_ROWS_MIN: usize = BLOCK_ROWS / 2;

/// Where a reader is.
#[derive(Debug)]
enum Position {
    Start,
    /// The next row of a segment.
    Row(usize),
    /// The last key read.
    Key(Box<[u8]>),
    End,
}

/// Reads a unit, batch by batch.
#[derive(Debug)]
pub struct UnitReader {
    unit: ScanUnit,
    position: Position,
    /// Columns of a segment that were needed so far, by their index in the storage schema.
    columns: HashMap<usize, Arc<Column>>,
    /// Filtered rows not returned yet, together fewer than [`BATCH_ROWS_MIN`].
    pieces: Vec<RecordBatch>,
}

impl UnitReader {
    pub(super) fn new(unit: ScanUnit) -> UnitReader {
        UnitReader { unit, position: Position::Start, columns: HashMap::new(), pieces: Vec::new() }
    }

    /// The next rows, at most [`crate::BLOCK_ROWS`], never empty; `None` at the end. Filtering and decoding are CPU
    /// work on the calling thread.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if matches!(self.position, Position::End) {
                return self.take_pieces();
            }
            let batch = match &self.unit.source {
                Source::Segment { .. } => self.next_block().await?,
                Source::Memtable { .. } => Some(self.next_of_memtable()?),
                Source::Pending { .. } => Some(self.next_pending()?),
            };
            let Some(batch) = batch.filter(|batch| batch.num_rows() > 0) else { continue };
            let waiting: usize = self.pieces.iter().map(RecordBatch::num_rows).sum();
            if waiting + batch.num_rows() > BLOCK_ROWS {
                let full = self.take_pieces()?;
                self.pieces.push(batch);
                return Ok(full);
            }
            self.pieces.push(batch);
            if waiting + self.pieces.last().map_or(0, RecordBatch::num_rows) >= BATCH_ROWS_MIN {
                return self.take_pieces();
            }
        }
    }

    fn take_pieces(&mut self) -> Result<Option<RecordBatch>> {
        let mut pieces = std::mem::take(&mut self.pieces);
        match pieces.len() {
            0 | 1 => Ok(pieces.pop()),
            _ => Ok(Some(concat_batches(&self.unit.plan.schema, &pieces)?)),
        }
    }

    /// The wanted rows of the segment's next block, if there are any.
    async fn next_block(&mut self) -> Result<Option<RecordBatch>> {
        let plan = Arc::clone(&self.unit.plan);
        let Source::Segment { segment, rows, deleted } = &self.unit.source else {
            return Err(Error::Internal("a block of something that is no segment".into()));
        };
        let (segment, deleted) = (Arc::clone(segment), deleted.clone());
        let at = match self.position {
            Position::Row(at) => at,
            _ => rows.start,
        };
        let end = (at + BLOCK_ROWS).min(rows.end);
        self.position = if end < rows.end { Position::Row(end) } else { Position::End };

        let mut mask = visible_rows(at..end, deleted.as_deref());
        let block = at / BLOCK_ROWS;
        let (tests, dynamic) = (plan.tests(), plan.dynamic_tests()?);
        // What the zones of columns at hand rule out costs nothing to know.
        let excluded = |counted: &Arc<Counted>| {
            let column = counted.test.column().and_then(|column| self.columns.get(&column));
            column.is_some_and(|column| counted.test.verdict(column.zone(block)) == Verdict::None)
        };
        if tests.iter().chain(&dynamic).any(excluded) {
            return Ok(None);
        }
        for (index, counted) in tests.iter().chain(&dynamic).enumerate() {
            if mask.is_empty() {
                return Ok(None);
            }
            if index >= tests.len() && !counted.is_worthwhile() {
                continue;
            }
            self.apply(counted, &segment, block, &mut mask).await?;
        }
        if mask.is_empty() {
            return Ok(None);
        }
        let selection = Selection::new(mask);
        let mut arrays = Vec::with_capacity(plan.projection.len());
        for column in &plan.projection {
            arrays.push(self.column(&segment, *column).await?);
        }
        let arrays = arrays.into_iter().map(|column| column.select(block, &selection)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(selection.count()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&plan.schema), arrays, &options)?))
    }

    /// Takes out of `mask` the rows of a block that fail a test.
    async fn apply(&mut self, counted: &Counted, segment: &Segment, block: usize, mask: &mut Mask) -> Result<()> {
        let before = mask.count();
        if let Some(column) = counted.test.column() {
            let column = self.column(segment, column).await?;
            match counted.test.verdict(column.zone(block)) {
                Verdict::None => mask.clear(),
                Verdict::All => {}
                Verdict::Some => {
                    let on_dictionary = counted.on_dictionary(segment.meta.id, &column, before)?;
                    match &counted.test {
                        Test::Rows(predicate) if on_dictionary.is_none() => {
                            evaluate_rows(predicate.as_ref(), &[column], block, mask)?;
                        }
                        test => column.filter(block, test, on_dictionary.as_deref(), mask)?,
                    }
                }
            }
        } else if let Test::Rows(predicate) = &counted.test {
            let mut columns = Vec::with_capacity(predicate.columns().len());
            for column in predicate.columns() {
                columns.push(self.column(segment, *column).await?);
            }
            evaluate_rows(predicate.as_ref(), &columns, block, mask)?;
        } else {
            mask.clear();
        }
        counted.record(before, mask.count());
        Ok(())
    }

    async fn column(&mut self, segment: &Segment, column: usize) -> Result<Arc<Column>> {
        if let Some(loaded) = self.columns.get(&column) {
            return Ok(Arc::clone(loaded));
        }
        let loaded = segment.column(column).await?;
        self.columns.insert(column, Arc::clone(&loaded));
        Ok(loaded)
    }

    fn next_of_memtable(&mut self) -> Result<RecordBatch> {
        let Source::Memtable { part, timestamp, writes } = &self.unit.source else {
            return Err(Error::Internal("rows of something that is no memtable".into()));
        };
        let after = match std::mem::replace(&mut self.position, Position::End) {
            Position::Key(key) => Some(key),
            _ => None,
        };
        let overwritten = |key: &[u8]| writes.as_ref().is_some_and(|writes| writes.rows.contains_key(key));
        let mut rows: Vec<Bytes> = Vec::new();
        let collect = |_: &[u8], row, _| rows.push(row);
        if let Some(key) = part.collect_visible(after.as_deref(), *timestamp, BLOCK_ROWS, overwritten, collect) {
            self.position = Position::Key(key);
        }
        filter_rows(&self.unit.plan, &rows.iter().map(Bytes::as_ref).collect::<Vec<_>>())
    }

    fn next_pending(&mut self) -> Result<RecordBatch> {
        let Source::Pending { writes } = &self.unit.source else {
            return Err(Error::Internal("rows of something that is no transaction".into()));
        };
        let after = match std::mem::replace(&mut self.position, Position::End) {
            Position::Key(key) => Bound::Excluded(key),
            _ => Bound::Unbounded,
        };
        let mut rows: Vec<&[u8]> = Vec::new();
        for (key, pending) in writes.rows.range::<Box<[u8]>, _>((after, Bound::Unbounded)) {
            rows.extend(pending.row.as_deref());
            if rows.len() == BLOCK_ROWS {
                self.position = Position::Key(key.clone());
                break;
            }
        }
        filter_rows(&self.unit.plan, &rows)
    }
}

/// Takes out of `mask` the rows of a block that fail a predicate; it gets the values of the rows in `mask` only.
fn evaluate_rows(predicate: &dyn RowPredicate, columns: &[Arc<Column>], block: usize, mask: &mut Mask) -> Result<()> {
    let selection = Selection::new(mask.clone());
    let arrays: Vec<ArrayRef> = columns.iter().map(|column| column.select(block, &selection)).collect::<Result<_>>()?;
    mask.restrict(&Mask::from_boolean(&predicate.evaluate(&arrays, selection.count())?));
    Ok(())
}

/// The rows of a block that are not deleted.
fn visible_rows(rows: Range<usize>, deleted: Option<&RoaringBitmap>) -> Mask {
    let mut mask = Mask::all(rows.len());
    if let Some(deleted) = deleted {
        for row in deleted.range(rows.start as u32..rows.end as u32) {
            mask.remove(row as usize - rows.start);
        }
    }
    mask
}

/// Encoded rows that pass all tests, decoded. Only columns that tests read are decoded for rows that fail.
fn filter_rows(plan: &ScanPlan, rows: &[&[u8]]) -> Result<RecordBatch> {
    let codec = &plan.table.codec()?.rows;
    let mut mask = Mask::all(rows.len());
    let mut decoded: HashMap<usize, ArrayRef> = HashMap::new();
    for counted in plan.tests().iter().chain(&plan.dynamic_tests()?) {
        if mask.is_empty() {
            break;
        }
        let single = counted.test.column();
        let columns = match &counted.test {
            Test::Rows(predicate) => predicate.columns(),
            _ => single.as_slice(),
        };
        let missing: Vec<usize> = columns.iter().copied().filter(|column| !decoded.contains_key(column)).collect();
        let batch = codec.decode(rows, &missing)?;
        decoded.extend(missing.into_iter().zip(batch.columns().iter().cloned()));
        match &counted.test {
            Test::Never => mask.clear(),
            Test::Rows(predicate) => {
                let selection = Selection::new(mask.clone());
                let arrays: Vec<ArrayRef> =
                    columns.iter().map(|column| selection.of_array(&decoded[column])).collect::<Result<_>>()?;
                mask.restrict(&Mask::from_boolean(&predicate.evaluate(&arrays, selection.count())?));
            }
            test => {
                for column in columns {
                    mask.and(&test.matches(&decoded[column])?);
                }
            }
        }
    }
    if mask.is_full() {
        return codec.decode(rows, &plan.projection);
    }
    let left: Vec<&[u8]> = mask.indices().into_iter().map(|row| rows[row as usize]).collect();
    codec.decode(&left, &plan.projection)
}
