//! Encodes a column block by block.
//!
//! What comes in is the decoded data of one block at a time, and only its encoded form stays: a column of a million decimals
//! never lies in memory decoded, and the memory that one block was decoded into serves for the next.
//!
//! ```text
//!   block ──▶ strings that repeat so far? ── yes ─▶ codes in the order of first sight ── finish ─▶ sorted dictionary, its codes
//!                 │ no, or no longer                     │ too many: all blocks so far become plain
//!                 ▼                                      ▼
//!             integers: reference and codes, wide; strings; plain
//! ```

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowNativeType, DataType, Date32Type, Decimal64Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::dictionary::DictionaryEncoder;
use super::rank::{Zone, match_integers, rank};
use super::strings::Strings;
use super::value::integer_width;
use super::{Block, Codes, Column};
use crate::BLOCK_ROWS;
use crate::encoding::DECIMAL64_PRECISION;
use crate::error::{Error, Result};

/// A column that is being put together.
pub(crate) struct ColumnEncoder {
    data_type: DataType,
    blocks: Vec<Block>,
    zones: Vec<Zone>,
    /// Holds the blocks of strings so far, as long as these repeat.
    dictionary: Option<DictionaryEncoder>,
}

impl ColumnEncoder {
    /// For a column of so many rows. Its blocks all have [`BLOCK_ROWS`] rows, but for the last.
    pub(crate) fn new(data_type: &DataType, rows: usize) -> ColumnEncoder {
        ColumnEncoder {
            data_type: data_type.clone(),
            blocks: Vec::with_capacity(rows.div_ceil(BLOCK_ROWS)),
            zones: Vec::with_capacity(rows.div_ceil(BLOCK_ROWS)),
            dictionary: DictionaryEncoder::new(data_type, rows),
        }
    }

    /// Adds the next block: values of the column's type, or `Decimal64` for decimals that fit it.
    pub(crate) fn push(&mut self, array: ArrayRef) -> Result<()> {
        if let Some(dictionary) = &mut self.dictionary {
            if dictionary.push(&array) {
                return Ok(());
            }
            let earlier = dictionary.to_plain()?;
            self.dictionary = None;
            earlier.into_iter().try_for_each(|block| self.push_block(block))?;
        }
        self.push_block(array)
    }

    fn push_block(&mut self, array: ArrayRef) -> Result<()> {
        let zone = Zone::of(array.as_ref());
        let block = match Strings::new(&array)? {
            Some(strings) => Block::Strings(strings),
            None => encode_integers(array, &zone)?,
        };
        self.blocks.push(block);
        self.zones.push(zone);
        Ok(())
    }

    /// The column of all blocks.
    pub(crate) fn finish(mut self) -> Result<Column> {
        let mut dictionary = None;
        if let Some(encoder) = self.dictionary {
            let encoded = encoder.finish()?;
            for (codes, nulls) in encoded.blocks {
                let (rows, null_count) = (codes.len(), nulls.as_ref().map_or(0, NullBuffer::null_count));
                self.zones.push(dictionary_zone(&encoded.values, &codes, null_count, rows));
                self.blocks.push(Block::Dictionary { codes: Codes::new(&codes), nulls });
            }
            dictionary = Some(encoded.values);
        }
        let memory_bytes =
            memory_of(&self.blocks, dictionary.as_ref()) + self.blocks.len() * size_of::<(Block, Zone)>();
        let width = integer_width(&self.data_type);
        Ok(Column {
            data_type: self.data_type,
            width,
            blocks: self.blocks,
            zones: self.zones,
            dictionary,
            memory_bytes,
        })
    }
}

/// The zone of a block of codes, from the lowest and the highest: NULL rows have the code of another row.
fn dictionary_zone(values: &ArrayRef, codes: &[u32], nulls: usize, rows: usize) -> Zone {
    // A column of NULLs has no values, and its codes mean nothing.
    let bound = |code: Option<&u32>| code.filter(|_| nulls < rows).and_then(|code| rank(values, *code as usize));
    match (bound(codes.iter().min()), bound(codes.iter().max())) {
        (Some(minimum), Some(maximum)) => Zone { minimum, maximum, nulls, rows },
        _ => Zone { minimum: i128::MAX, maximum: i128::MIN, nulls, rows },
    }
}

/// Encodes a block of integers if that saves memory.
fn encode_integers(array: ArrayRef, zone: &Zone) -> Result<Block> {
    macro_rules! integers {
        ($type:ty) => {
            encode_primitive::<$type>(&array, zone)
        };
    }
    if matches!(array.data_type(), DataType::Decimal64(..)) {
        let block = encode_primitive::<Decimal64Type>(&array, zone);
        return block.ok_or_else(|| Error::Internal("a block of small decimals that takes more memory".into()));
    }
    let encoded = match_integers!(array.data_type(), integers, None);
    Ok(encoded.unwrap_or(Block::Plain(array)))
}

fn encode_primitive<T: ArrowPrimitiveType>(array: &ArrayRef, zone: &Zone) -> Option<Block>
where
    T::Native: Into<i128>,
{
    let (values, nulls) = (array.as_primitive::<T>(), array.nulls().cloned());
    if zone.minimum > zone.maximum {
        return Some(Block::Integers { reference: 0, codes: Codes::new(&vec![0; array.len()]), nulls });
    }
    let small_decimals = match array.data_type() {
        DataType::Decimal128(precision, _) => *precision <= DECIMAL64_PRECISION,
        other => matches!(other, DataType::Decimal64(..)),
    };
    let reference = zone.minimum;
    if zone.maximum.checked_sub(reference).is_some_and(|span| u32::try_from(span).is_ok()) {
        let codes = Codes::new(&offsets(values.values(), reference, nulls.as_ref()));
        // What saves less than a quarter is not worth decoding.
        let plain_bytes = if small_decimals { size_of::<i128>() } else { size_of::<T::Native>() } * array.len();
        return (small_decimals || codes.memory_bytes() <= plain_bytes / 4 * 3).then_some(Block::Integers {
            reference,
            codes,
            nulls,
        });
    }
    if small_decimals {
        let values: Option<Box<[i64]>> =
            values.values().iter().map(|value| i64::try_from((*value).into()).ok()).collect();
        return values.map(|values| Block::Wide { values, nulls });
    }
    None
}

/// How far values lie above `reference`, which is less than 2³², so that the low bits say it all.
fn offsets<N: ArrowNativeType>(values: &[N], reference: i128, nulls: Option<&NullBuffer>) -> Vec<u32> {
    let offset = |value: &N| (value.as_usize() as u32).wrapping_sub(reference as u32);
    let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else { return values.iter().map(offset).collect() };
    // NULL rows repeat the number before them, so that they neither widen the numbers nor end a run.
    let mut last = 0;
    let numbers = values.iter().enumerate().map(|(row, value)| {
        if nulls.is_valid(row) {
            last = offset(value);
        }
        last
    });
    numbers.collect()
}

fn memory_of(blocks: &[Block], dictionary: Option<&ArrayRef>) -> usize {
    let nulls_bytes = |nulls: &Option<NullBuffer>| nulls.as_ref().map_or(0, |nulls| nulls.len() / 8);
    let of_block = |block: &Block| match block {
        Block::Plain(array) => array.get_array_memory_size(),
        Block::Strings(strings) => strings.memory_bytes(),
        Block::Integers { codes, nulls, .. } | Block::Dictionary { codes, nulls } => {
            codes.memory_bytes() + nulls_bytes(nulls)
        }
        Block::Wide { values, nulls } => size_of_val(&**values) + nulls_bytes(nulls),
    };
    dictionary.map_or(0, |values| values.get_array_memory_size()) + blocks.iter().map(of_block).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, BinaryViewArray, Decimal64Array, Decimal128Array, StringViewArray};

    use super::*;

    /// Strings of several blocks; `value` makes the one of a row.
    fn strings(rows: usize, value: impl Fn(usize) -> Option<String>) -> Vec<ArrayRef> {
        let block = |start: usize| -> ArrayRef {
            let values: StringViewArray = (start..(start + BLOCK_ROWS).min(rows)).map(&value).collect();
            Arc::new(values)
        };
        (0..rows).step_by(BLOCK_ROWS).map(block).collect()
    }

    fn check(blocks: &[ArrayRef]) -> Column {
        let column = Column::new(blocks[0].data_type(), blocks.to_vec()).unwrap();
        let arrays: Vec<&dyn Array> = blocks.iter().map(|block| block.as_ref()).collect();
        assert_eq!(&column.to_array().unwrap(), &arrow::compute::concat(&arrays).unwrap());
        for (index, block) in blocks.iter().enumerate() {
            let (zone, exact) = (column.zone(index), Zone::of(block.as_ref()));
            assert_eq!(zone, &exact, "zone of block {index}");
        }
        column
    }

    #[test]
    #[cfg_attr(miri, ignore = "several full blocks take Miri minutes")]
    fn strings_that_repeat_become_a_sorted_dictionary_whatever_is_null() {
        let word = |row: usize| format!("a word of more than twelve bytes {}", row * 7 % 50);
        for null in
            [(|_| false) as fn(usize) -> bool, |row| row % 3 == 0, |row| row < 9_000, |row| row != 20_000, |_| true]
        {
            let column = check(&strings(20_001, |row| (!null(row)).then(|| word(row))));
            let values = column.dictionary().unwrap();
            let sorted: Vec<&str> = values.as_string_view().iter().flatten().collect();
            assert!(sorted.is_sorted_by(|one, other| one < other));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "several full blocks take Miri minutes")]
    fn strings_that_stop_repeating_are_plain_from_the_first_block_on() {
        // The first block has few values, the last ones have more than a quarter of the rows.
        let value =
            |row: usize| (row % 5 != 2).then(|| format!("value {:07}", if row < 8_192 { row % 10 } else { row }));
        assert!(check(&strings(30_000, value)).dictionary().is_none());
        let all_different = |row| Some(format!("{row}"));
        assert!(check(&strings(20_000, all_different)).dictionary().is_none());
    }

    #[test]
    fn binaries_that_are_no_text_come_back() {
        let values =
            BinaryViewArray::from_iter((0..1000_u32).map(|row| (row % 9 > 0).then(|| vec![0xff; row as usize % 20])));
        assert!(check(&[Arc::new(values) as ArrayRef]).dictionary().is_some());
    }

    #[test]
    fn narrow_decimals_are_encoded_as_wide_ones_are() {
        let edge = 999_999_999_999_999_999_i64;
        let spans: [fn(i64) -> i64; 3] = [|row| row % 100 - 50, |row| row * 1_000_000_000_000 - 5, |row| 7 - row / 50];
        for span in spans {
            let numbers = (0..500).map(|row| (row % 11 != 0).then(|| span(row))).chain([Some(edge), Some(-edge), None]);
            for numbers in [numbers.clone().take(500).collect::<Vec<_>>(), numbers.collect(), vec![Some(3)], vec![None]]
            {
                let wide = Decimal128Array::from_iter(numbers.iter().map(|number| number.map(i128::from)));
                let wide: ArrayRef = Arc::new(wide.with_precision_and_scale(18, 2).unwrap());
                let narrow = Decimal64Array::from_iter(numbers).with_precision_and_scale(18, 2).unwrap();
                let mut encoder = ColumnEncoder::new(wide.data_type(), narrow.len());
                encoder.push(Arc::new(narrow)).unwrap();
                let (column, same) = (encoder.finish().unwrap(), check(&[Arc::clone(&wide)]));
                assert_eq!(&column.to_array().unwrap(), &wide);
                assert_eq!(column.zone(0), same.zone(0));
                assert_eq!(column.memory_bytes(), same.memory_bytes());
            }
        }
    }
}
