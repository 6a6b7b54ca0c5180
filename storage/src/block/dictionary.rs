//! Distinct strings of a column, found while its blocks are encoded.
//!
//! A dictionary belongs to a whole column of a segment, so a predicate is evaluated once per distinct value and segment
//! and then looked up by code. Its values are sorted: codes compare like the strings they stand for.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;

use crate::BLOCK_ROWS;
use crate::error::Result;

/// More distinct values are no dictionary: it would not stay in the processor's cache.
const VALUES_MAX: usize = 1 << 16;

/// A dictionary pays if a value comes this often on average; less often, it saves little and scatters reads.
const REPEATS_MIN: usize = 4;

/// Slots of the table that remembers the codes of recent views.
const RECENT_SLOTS: usize = 1024;

/// A column as codes.
pub(crate) struct DictionaryColumn {
    /// Sorted, each once, no NULL.
    pub(crate) values: ArrayRef,
    /// For each block the code of every row; NULL rows repeat the code before them.
    pub(crate) codes: Vec<Vec<u32>>,
}

/// Encodes a column of strings or binaries, unless it has too many distinct values.
pub(crate) fn encode(blocks: &[ArrayRef]) -> Result<Option<DictionaryColumn>> {
    let rows: usize = blocks.iter().map(|block| block.len()).sum();
    let values_max = VALUES_MAX.min(rows / REPEATS_MIN).max(1);
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    // Where each value was found first: block and row.
    let mut places: Vec<(usize, u32)> = Vec::new();
    let mut codes: Vec<Vec<u32>> = Vec::with_capacity(blocks.len());
    for (index, block) in blocks.iter().enumerate() {
        let views = match block.data_type() {
            DataType::Utf8View => block.as_string_view().views(),
            DataType::BinaryView => block.as_binary_view().views(),
            _ => return Ok(None),
        };
        // Within a block, equal views are equal values, and Parquet's dictionaries make most equal values equal views.
        let mut recent = vec![(0_u128, u32::MAX); RECENT_SLOTS];
        let mut of_block = Vec::with_capacity(block.len());
        let mut code = 0;
        for (row, view) in views.iter().enumerate() {
            if block.is_valid(row) {
                let hash = (*view as u64 ^ (view >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let slot = &mut recent[(hash >> 54) as usize % RECENT_SLOTS];
                if slot.1 != u32::MAX && slot.0 == *view {
                    code = slot.1;
                } else {
                    let bytes = bytes_at(block, row);
                    code = *known.entry(bytes).or_insert_with(|| {
                        places.push((index, row as u32));
                        places.len() as u32 - 1
                    });
                    *slot = (*view, code);
                    if places.len() > values_max || index == 0 && rows > BLOCK_ROWS && places.len() > BLOCK_ROWS / 2 {
                        return Ok(None);
                    }
                }
            }
            of_block.push(code);
        }
        codes.push(of_block);
    }
    // Rows before the first value have code 0, which must exist.
    let mut order: Vec<u32> = (0..places.len() as u32).collect();
    let bytes = |code: &u32| {
        let (block, row) = places[*code as usize];
        bytes_at(&blocks[block], row as usize)
    };
    order.sort_unstable_by_key(bytes);
    let values = match order.is_empty() {
        true => blocks.first().map(|block| block.slice(0, 0)),
        false => Some(gather(blocks, order.iter().map(|code| places[*code as usize]))?),
    };
    let Some(values) = values else { return Ok(None) };
    let mut sorted = vec![0; order.len().max(1)];
    order.iter().enumerate().for_each(|(rank, code)| sorted[*code as usize] = rank as u32);
    codes.iter_mut().flatten().for_each(|code| *code = sorted[*code as usize]);
    Ok(Some(DictionaryColumn { values, codes }))
}

/// Values from their places, in buffers of their own.
fn gather(blocks: &[ArrayRef], places: impl Iterator<Item = (usize, u32)>) -> Result<ArrayRef> {
    let places: Vec<(usize, usize)> = places.map(|(block, row)| (block, row as usize)).collect();
    let arrays: Vec<&dyn Array> = blocks.iter().map(|block| block.as_ref()).collect();
    let values = arrow::compute::interleave(&arrays, &places)?;
    Ok(match values.data_type() {
        DataType::Utf8View => std::sync::Arc::new(values.as_string_view().gc()),
        _ => std::sync::Arc::new(values.as_binary_view().gc()),
    })
}

/// The values that codes stand for; NULL for NULL.
pub(crate) fn decode(values: &ArrayRef, codes: UInt32Array) -> Result<ArrayRef> {
    Ok(take(values.as_ref(), &codes, None)?)
}

fn bytes_at(block: &ArrayRef, row: usize) -> &[u8] {
    match block.data_type() {
        DataType::Utf8View => block.as_string_view().value(row).as_bytes(),
        _ => block.as_binary_view().value(row),
    }
}
