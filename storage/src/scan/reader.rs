//! One unit of a scan at work: visible rows, through the filters, into batches.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;

use super::filter::RowPredicate;
use super::plan::{Counted, ScanPlan};
use super::test::{Test, Verdict};
use super::{ScanUnit, Source};
use crate::BLOCK_ROWS;
use crate::block::{Column, Selection};
use crate::error::{Error, Result};
use crate::kernel::Mask;
use crate::memtable::{Page, Piece};
use crate::segment::Segment;

/// Rows left of several blocks are put together until there are this many.
const BATCH_ROWS_MIN: usize = BLOCK_ROWS / 2;

/// Rows of a memtable that are converted together. With those that change before the page is made anew, they are no more
/// than a block's.
const PAGE_ROWS: usize = BLOCK_ROWS / 4 * 3;

/// With less than one row in this many left out of a block, predicates are computed for all of them.
const DENSE_SHARE: usize = 8;

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

        let block = at / BLOCK_ROWS;
        let mut mask = match &deleted {
            Some(deleted) => deleted.live(block, end - at),
            None => Mask::all(end - at),
        };
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
        let loaded = match segment.column_unless_loading(column).await? {
            Some(loaded) => loaded,
            None => {
                self.load_ahead(segment).await?;
                segment.column(column).await?
            }
        };
        self.columns.insert(column, Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Somebody is loading the column that this unit needs: instead of waiting, loads another one that the scan has
    /// asked for, tests first.
    async fn load_ahead(&self, segment: &Segment) -> Result<()> {
        let plan = &self.unit.plan;
        let tests = plan.tests();
        let wanted = tests.iter().flat_map(|counted| counted.test.columns()).chain(plan.projection.iter().copied());
        for column in wanted {
            if !segment.has_column(column) && segment.column_unless_loading(column).await?.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// The wanted rows of the memtable's next page.
    fn next_of_memtable(&mut self) -> Result<RecordBatch> {
        let Source::Memtable { part, timestamp, writes } = &self.unit.source else {
            return Err(Error::Internal("rows of something that is no memtable".into()));
        };
        let after = match std::mem::replace(&mut self.position, Position::End) {
            Position::Key(key) => Some(key),
            _ => None,
        };
        let plan = &self.unit.plan;
        // Asked once: what a dynamic filter reads may be another column in a moment.
        let tests: Vec<Arc<Counted>> = plan.tests().into_iter().chain(plan.dynamic_tests()?).collect();
        let mut columns: Vec<usize> = tests.iter().flat_map(|counted| counted.test.columns()).collect();
        columns.extend(&plan.projection);
        let Piece { page, rows, next } = part.piece(&plan.table, after.as_deref(), *timestamp, &columns, PAGE_ROWS)?;
        let overwritten = |key: &[u8]| writes.as_ref().is_some_and(|writes| writes.rows.contains_key(key));
        let rows: Vec<&[u8]> = rows.iter().filter(|(key, _)| !overwritten(key)).map(|(_, row)| row.as_ref()).collect();
        let mut pieces = Vec::new();
        if let Some((page, mut mask)) = page {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let end = next.clone().map_or(Bound::Unbounded, Bound::Included);
            let own = writes.as_ref().map(|writes| {
                writes.rows.range::<[u8], _>((start.as_ref().map(|key| &**key), end.as_ref().map(|key| &**key)))
            });
            own.into_iter().flatten().filter_map(|(key, _)| page.find(key)).for_each(|row| mask.remove(row));
            pieces.push(filter_page(plan, &tests, &page, mask)?);
        }
        if !rows.is_empty() {
            pieces.push(filter_rows(plan, &rows)?);
        }
        if let Some(next) = next {
            self.position = Position::Key(next);
        }
        match pieces.len() {
            0 => Ok(RecordBatch::new_empty(Arc::clone(&plan.schema))),
            1 => Ok(pieces.remove(0)),
            _ => Ok(concat_batches(&plan.schema, &pieces)?),
        }
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
        let after = after.as_ref().map(|key| &**key);
        for (key, pending) in writes.rows.range::<[u8], _>((after, Bound::Unbounded)) {
            rows.extend(pending.row.as_deref());
            if rows.len() == BLOCK_ROWS {
                self.position = Position::Key((**key).into());
                break;
            }
        }
        filter_rows(&self.unit.plan, &rows)
    }
}

/// Takes out of `mask` the rows of a block that fail a predicate.
fn evaluate_rows(predicate: &dyn RowPredicate, columns: &[Arc<Column>], block: usize, mask: &mut Mask) -> Result<()> {
    let evaluate = |wanted: Mask| -> Result<BooleanArray> {
        let selection = Selection::new(wanted);
        let arrays: Vec<ArrayRef> =
            columns.iter().map(|column| column.select(block, &selection)).collect::<Result<_>>()?;
        Ok(predicate.evaluate(&arrays, selection.count())?)
    };
    let (count, rows) = (mask.count(), mask.rows());
    // Leaving out a few rows costs more than computing them, too. But one that is not wanted may be the one that fails.
    if count < rows
        && (rows - count) * DENSE_SHARE < rows
        && let Ok(passed) = evaluate(Mask::all(rows))
    {
        mask.and(&Mask::from_boolean(&passed));
        return Ok(());
    }
    mask.restrict(&Mask::from_boolean(&evaluate(mask.clone())?));
    Ok(())
}

/// Encoded rows that pass all tests, decoded. Only columns that tests read are decoded for rows that fail.
fn filter_rows(plan: &ScanPlan, rows: &[&[u8]]) -> Result<RecordBatch> {
    let codec = &plan.table.codec()?.rows;
    let mut mask = Mask::all(rows.len());
    let mut decoded: HashMap<usize, ArrayRef> = HashMap::new();
    let tests: Vec<Arc<Counted>> = plan.tests().into_iter().chain(plan.dynamic_tests()?).collect();
    apply_tests(&tests, &mut mask, |column| match decoded.get(&column) {
        Some(array) => Ok(Arc::clone(array)),
        None => {
            let array = Arc::clone(codec.decode(rows, &[column])?.column(0));
            decoded.insert(column, Arc::clone(&array));
            Ok(array)
        }
    })?;
    if mask.is_full() {
        return codec.decode(rows, &plan.projection);
    }
    let left: Vec<&[u8]> = mask.indices().into_iter().map(|row| rows[row as usize]).collect();
    codec.decode(&left, &plan.projection)
}

/// The rows of a page in the mask that pass all tests.
fn filter_page(plan: &ScanPlan, tests: &[Arc<Counted>], page: &Page, mut mask: Mask) -> Result<RecordBatch> {
    let column = |column| {
        let array = page.column(column).cloned();
        array.ok_or_else(|| Error::Internal(format!("column {column} of a page was not asked for")))
    };
    apply_tests(tests, &mut mask, column)?;
    let selection = Selection::new(mask);
    let arrays = plan.projection.iter().map(|wanted| selection.of_array(&column(*wanted)?));
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(selection.count()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(&plan.schema), arrays, &options)?)
}

/// Takes out of `mask` the rows that fail a test; `array` has the values of all rows.
fn apply_tests(
    tests: &[Arc<Counted>],
    mask: &mut Mask,
    mut array: impl FnMut(usize) -> Result<ArrayRef>,
) -> Result<()> {
    for counted in tests {
        if mask.is_empty() {
            break;
        }
        match &counted.test {
            Test::Never => mask.clear(),
            Test::Rows(predicate) => {
                let selection = Selection::new(mask.clone());
                let arrays = predicate.columns().iter().map(|column| selection.of_array(&array(*column)?));
                let arrays: Vec<ArrayRef> = arrays.collect::<Result<_>>()?;
                mask.restrict(&Mask::from_boolean(&predicate.evaluate(&arrays, selection.count())?));
            }
            test => {
                if let Some(column) = test.column() {
                    mask.and(&test.matches(&array(column)?)?);
                }
            }
        }
    }
    Ok(())
}
