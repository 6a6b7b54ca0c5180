//! Merges the live rows of segments into new segment files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use roaring::RoaringBitmap;
use rustydb_txn::Timestamp;

use crate::BLOCK_ROWS;
use crate::block::Column;
use crate::catalog::TableDef;
use crate::encoding::Keys;
use crate::error::{Error, Result};
use crate::segment::{EncodedSegment, SEGMENT_ROWS_MAX, Segment, SegmentEncoder};

/// Where a row goes that is in no output.
const DEAD: u32 = u32::MAX;

/// What a merge has made, beside the files.
#[derive(Debug)]
pub(crate) struct Merged {
    /// For each input, each old row's number among all outputs' rows; [`DEAD`] if it has none.
    new_rows: Vec<Vec<u32>>,
    /// The first row of each output, and the end of the last.
    starts: Vec<u32>,
}

impl Merged {
    /// Where a row of an input is now: output and row. `None` for a row that was dead.
    pub(crate) fn new_place(&self, input: usize, row: u32) -> Option<(usize, u32)> {
        let new = self.new_rows[input][row as usize];
        if new == DEAD {
            return None;
        }
        let output = self.starts.partition_point(|start| *start <= new) - 1;
        Some((output, new - self.starts[output]))
    }
}

/// A live row: input and row.
type Source = (u32, u32);

/// One output: the file, when each of its rows was committed, and what readers would load of it at once.
pub(crate) struct Output {
    pub(crate) encoded: EncodedSegment,
    pub(crate) written: Box<[Timestamp]>,
    pub(crate) keys: Keys,
    /// The columns that were in memory of the inputs, encoded, as far as there was room.
    pub(crate) columns: Vec<Option<Column>>,
}

/// Merges the rows of `inputs` that are not in `dead` (one bitmap for each input). `id` gives each output its id;
/// `keep` tells whether a column may take so many bytes of memory for the next output: the first number is what is counted for it
/// already, the second what it shall be instead, and it is nothing if it may not; `pause` is called with the bytes just encoded
/// and may wait, or end the merge with an error; `store` takes each output as soon as it is made.
pub(crate) async fn merge(
    table: &TableDef,
    inputs: &[Arc<Segment>],
    dead: &[RoaringBitmap],
    mut id: impl FnMut() -> u64,
    mut keep: impl FnMut(usize, usize) -> bool,
    mut pause: impl AsyncFnMut(u64) -> Result<()>,
    mut store: impl AsyncFnMut(Output) -> Result<()>,
) -> Result<Merged> {
    let mut keys = Vec::with_capacity(inputs.len());
    for input in inputs {
        keys.push(input.keys().await?);
    }
    let order = merge_order(&keys, dead);
    let outputs = order.len().div_ceil(SEGMENT_ROWS_MAX).max(1);
    let rows_per_output = order.len().div_ceil(outputs).max(1);

    let mut new_rows: Vec<Vec<u32>> = inputs.iter().map(|input| vec![DEAD; input.meta.rows as usize]).collect();
    for (new, (input, row)) in order.iter().enumerate() {
        new_rows[*input as usize][*row as usize] = new as u32;
    }
    let starts = (0..=order.len().div_ceil(rows_per_output)).map(|output| (output * rows_per_output) as u32);
    let merged = Merged { new_rows, starts: starts.collect() };

    for sources in order.chunks(rows_per_output) {
        let mut encoder = SegmentEncoder::new(table)?;
        let mut encoded_bytes = 0;
        let mut columns = Vec::with_capacity(table.storage_schema().fields().len());
        for column in 0..table.storage_schema().fields().len() {
            let pieces = gather(inputs, sources, column).await?;
            encoder.add_column(&pieces)?;
            columns.push(match bytes_in_memory(inputs, column) {
                Some(bytes) if keep(0, bytes) => {
                    let encoded = Column::new(table.storage_schema().field(column).data_type(), pieces)?;
                    // What was a dictionary in each input may be too much for one, and longer.
                    keep(bytes, encoded.memory_bytes()).then_some(encoded)
                }
                _ => None,
            });
            pause(encoder.bytes() - encoded_bytes).await?;
            encoded_bytes = encoder.bytes();
        }
        let keys = take_keys(&keys, sources)?;
        let written = sources.iter().map(|(input, row)| inputs[*input as usize].written(*row)).collect();
        let encoded = encoder.finish(id(), &keys)?;
        store(Output { encoded, written, keys, columns }).await?;
    }
    Ok(merged)
}

/// What the column takes in memory of all inputs together, if it is there of most of their rows: then somebody reads it.
fn bytes_in_memory(inputs: &[Arc<Segment>], column: usize) -> Option<usize> {
    let (mut rows, mut rows_kept, mut bytes) = (0, 0, 0);
    for input in inputs {
        rows += input.meta.rows as usize;
        if let Some(kept) = input.kept_column(column) {
            rows_kept += input.meta.rows as usize;
            bytes += kept.memory_bytes();
        }
    }
    (2 * rows_kept > rows).then_some(bytes)
}

/// The live rows in key order. Live keys are different, so the order is, too.
fn merge_order(keys: &[Arc<Keys>], dead: &[RoaringBitmap]) -> Vec<Source> {
    let total: usize = keys.iter().zip(dead).map(|(keys, dead)| keys.len() - dead.len() as usize).sum();
    let mut order = Vec::with_capacity(total);
    let next_live = |input: usize, mut row: usize| {
        while row < keys[input].len() && dead[input].contains(row as u32) {
            row += 1;
        }
        (row < keys[input].len()).then_some(row)
    };
    let first = (0..keys.len()).filter_map(|input| Some((input, next_live(input, 0)?)));
    let mut heads: BinaryHeap<Reverse<(&[u8], usize, usize)>> =
        first.map(|(input, row)| Reverse((keys[input].get(row), input, row))).collect();
    while let Some(Reverse((_, input, row))) = heads.pop() {
        // Everything below the next head comes from this input: one search instead of a heap operation for each row.
        let end = match heads.peek() {
            Some(Reverse((other, _, _))) => keys[input].lower_bound(other, row + 1..keys[input].len()),
            None => keys[input].len(),
        };
        let live = (row..end).filter(|row| !dead[input].contains(*row as u32));
        order.extend(live.map(|row| (input as u32, row as u32)));
        if let Some(next) = next_live(input, end) {
            heads.push(Reverse((keys[input].get(next), input, next)));
        }
    }
    order
}

/// One column of the rows at `sources`, in blocks. What is in memory is not read again.
async fn gather(inputs: &[Arc<Segment>], sources: &[Source], column: usize) -> Result<Vec<ArrayRef>> {
    let mut blocks: Vec<ArrayRef> = Vec::new();
    // For each input: the first row that is there and the index of its block.
    let mut read = vec![(0, 0); inputs.len()];
    for (index, range) in ranges(inputs.len(), sources).into_iter().enumerate().filter(|(_, range)| !range.is_empty()) {
        read[index] = (range.start, blocks.len());
        match inputs[index].kept_column(column) {
            Some(kept) => {
                let first = range.start / BLOCK_ROWS;
                read[index].0 = first * BLOCK_ROWS;
                for block in first..range.end.div_ceil(BLOCK_ROWS) {
                    blocks.push(kept.block(block)?);
                }
            }
            None => blocks.extend(inputs[index].read_rows(column, range).await?),
        }
    }
    let arrays: Vec<&dyn Array> = blocks.iter().map(|block| block.as_ref()).collect();
    let place = |(input, row): &Source| {
        let (start, first_block) = read[*input as usize];
        let offset = *row as usize - start;
        (first_block + offset / BLOCK_ROWS, offset % BLOCK_ROWS)
    };
    let chunk = |sources: &[Source]| -> Result<ArrayRef> {
        Ok(interleave(&arrays, &sources.iter().map(place).collect::<Vec<_>>())?)
    };
    sources.chunks(BLOCK_ROWS).map(chunk).collect()
}

/// The rows of each input that lie between the first and the last one wanted.
fn ranges(inputs: usize, sources: &[Source]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Option<Range<usize>>> = vec![None; inputs];
    for (input, row) in sources {
        let row = *row as usize;
        let range = ranges[*input as usize].get_or_insert(row..row);
        *range = range.start.min(row)..range.end.max(row + 1);
    }
    ranges.into_iter().map(Option::unwrap_or_default).collect()
}

fn take_keys(keys: &[Arc<Keys>], sources: &[Source]) -> Result<Keys> {
    let first = keys.first().ok_or_else(|| Error::Internal("a merge of nothing".into()))?;
    first.gather(sources.iter().map(|(input, row)| keys[*input as usize].get(*row as usize)))
}

#[cfg(test)]
mod tests;
