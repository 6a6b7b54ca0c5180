//! Distinct strings of a column, found while its blocks are encoded.
//!
//! A dictionary belongs to a whole column of a segment, so a predicate is evaluated once per distinct value and segment
//! and then looked up by code. Its values are sorted: codes compare like the strings they stand for.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, UInt32Array};
use arrow::buffer::NullBuffer;
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

/// Codes of a block; NULL rows repeat the code of another row.
type Coded = (Vec<u32>, Option<NullBuffer>);

/// A column as codes.
pub(crate) struct DictionaryColumn {
    /// Sorted, each once, no NULL.
    pub(crate) values: ArrayRef,
    pub(crate) blocks: Vec<Coded>,
}

/// Gives strings or binaries codes in the order in which they come.
pub(crate) struct DictionaryEncoder {
    data_type: DataType,
    rows: usize,
    known: HashMap<Box<[u8]>, u32>,
    blocks: Vec<Coded>,
}

impl DictionaryEncoder {
    /// For a column of so many rows, if its type is one of strings or binaries.
    pub(crate) fn new(data_type: &DataType, rows: usize) -> Option<DictionaryEncoder> {
        let (known, blocks) = (HashMap::new(), Vec::new());
        matches!(data_type, DataType::Utf8View | DataType::BinaryView).then(|| DictionaryEncoder {
            data_type: data_type.clone(),
            rows,
            known,
            blocks,
        })
    }

    /// Takes the next block, unless the column has too many distinct values with it.
    pub(crate) fn push(&mut self, block: &ArrayRef) -> bool {
        let views = match block.data_type() {
            DataType::Utf8View => block.as_string_view().views(),
            DataType::BinaryView => block.as_binary_view().views(),
            _ => return false,
        };
        let values_max = VALUES_MAX.min(self.rows / REPEATS_MIN).max(1);
        let values_max = match self.blocks.is_empty() && self.rows > BLOCK_ROWS {
            true => values_max.min(BLOCK_ROWS / 2),
            false => values_max,
        };
        // Within a block, equal views are equal values, and Parquet's dictionaries make most equal values equal views.
        let mut recent = vec![(0_u128, u32::MAX); RECENT_SLOTS];
        let mut codes = Vec::with_capacity(block.len());
        let nulls = block.nulls().filter(|nulls| nulls.null_count() > 0);
        let mut code = None;
        for (row, view) in views.iter().enumerate() {
            if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                let hash = (*view as u64 ^ (view >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let slot = &mut recent[(hash >> 54) as usize % RECENT_SLOTS];
                if slot.1 == u32::MAX || slot.0 != *view {
                    let bytes = bytes_at(block, row);
                    let next = self.known.len() as u32;
                    let found = self.known.get(bytes).copied();
                    let known = found.unwrap_or_else(|| *self.known.entry(bytes.into()).or_insert(next));
                    *slot = (*view, known);
                    if self.known.len() > values_max {
                        return false;
                    }
                }
                // Rows before the first value repeat that.
                if code.replace(slot.1).is_none() {
                    codes.resize(row, slot.1);
                }
            }
            codes.extend(code);
        }
        codes.resize(block.len(), 0);
        self.blocks.push((codes, block.nulls().cloned()));
        true
    }

    /// The blocks taken so far, as they came.
    pub(crate) fn to_plain(&self) -> Result<Vec<ArrayRef>> {
        let mut values: Vec<(&[u8], u32)> = self.known.iter().map(|(value, code)| (value.as_ref(), *code)).collect();
        values.sort_unstable_by_key(|(_, code)| *code);
        let values = self.array_of(values.into_iter().map(|(value, _)| value))?;
        self.blocks
            .iter()
            .map(|(codes, nulls)| decode(&values, UInt32Array::new(codes.clone().into(), nulls.clone())))
            .collect()
    }

    /// The column of the blocks taken.
    pub(crate) fn finish(mut self) -> Result<DictionaryColumn> {
        let mut values: Vec<(&[u8], u32)> = self.known.iter().map(|(value, code)| (value.as_ref(), *code)).collect();
        values.sort_unstable();
        // Blocks of NULLs have the code 0, which must exist.
        let mut sorted = vec![0; values.len().max(1)];
        values.iter().enumerate().for_each(|(rank, (_, code))| sorted[*code as usize] = rank as u32);
        let values = self.array_of(values.into_iter().map(|(value, _)| value))?;
        self.blocks.iter_mut().flat_map(|(codes, _)| codes).for_each(|code| *code = sorted[*code as usize]);
        Ok(DictionaryColumn { values, blocks: self.blocks })
    }

    fn array_of<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> Result<ArrayRef> {
        let binary = BinaryViewArray::from_iter_values(values);
        Ok(match self.data_type {
            DataType::Utf8View => Arc::new(binary.to_string_view()?),
            _ => Arc::new(binary),
        })
    }
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
