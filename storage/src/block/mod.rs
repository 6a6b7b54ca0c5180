//! Columns in memory, block by block, encoded.
//!
//! ```text
//!  Column ─┬─ Block 0: 8192 values   Zone 0: lowest and highest rank, NULLs
//!          ├─ Block 1: 8192 values   Zone 1
//!          ├─ Block 2: the rest      Zone 2
//!          └─ dictionary (strings)
//! ```
//! A scan first asks the zones which blocks can hold what it looks for, then evaluates filters on the blocks as they are
//! encoded, and only then decodes the values of the rows that are left ([`Selection`]).
//!
//! | encoding | for | in memory | filter | decode |
//! |---|---|---|---|---|
//! | integers | integers, dates, times, decimals whose block spans < 2³² | a reference, and [`Codes`] added to it | on the codes | add, widen |
//! | wide | other decimals of up to 18 digits | `i64` | on the `i64` | widen |
//! | dictionary | strings that repeat | codes of a sorted dictionary of the segment | once per distinct value, then on the codes | take |
//! | strings | other strings and binaries | their bytes, one behind the other ([`strings`]) | Arrow's kernels, on views | views of the bytes |
//! | plain | all others, and where nothing is saved | the Arrow array | Arrow's kernels | nothing: shared |
//!
//! [`Codes`] are one number, runs of numbers, or bit-packed numbers, whichever is smallest. There is no delta encoding:
//! against frame of reference it would save a byte or so per value of a sorted column, and cost the access to single
//! values and the comparison on codes.

mod codes;
mod dictionary;
mod encode;
pub(crate) mod rank;
mod strings;
mod value;

use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{FilterBuilder, FilterPredicate, concat};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::error::{Error, Result};
use crate::kernel::compare::{Ranged, select};
use crate::kernel::{Mask, compact};
use crate::scan::{DictionaryTest, Test};
pub(crate) use codes::Codes;
pub(crate) use encode::ColumnEncoder;
use rank::{Zone, match_integers};
use strings::Strings;
pub(crate) use value::Raw;

/// With less than a block's rows divided by this left, taking them out first is cheaper than testing all.
const SPARSE_SHARE: usize = 8;

/// The rows of a block that are wanted, in the forms that taking them out needs.
pub(crate) struct Selection {
    mask: Mask,
    count: usize,
    predicate: OnceCell<FilterPredicate>,
}

impl Selection {
    pub(crate) fn new(mask: Mask) -> Selection {
        Selection { count: mask.count(), mask, predicate: OnceCell::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count == self.mask.rows()
    }

    /// For taking rows out of several arrays, what is known of the mask is worked out once.
    fn predicate(&self) -> &FilterPredicate {
        self.predicate.get_or_init(|| FilterBuilder::new(&self.mask.to_boolean()).optimize().build())
    }

    /// The selected values of an array.
    pub(crate) fn of_array(&self, array: &ArrayRef) -> Result<ArrayRef> {
        match self.is_full() {
            true => Ok(array.clone()),
            false => self.take_of(array),
        }
    }

    fn take_of(&self, array: &ArrayRef) -> Result<ArrayRef> {
        macro_rules! primitive {
            ($type:ty) => {
                Some(self.of_primitive::<$type>(array.as_primitive())?)
            };
        }
        let data_type = array.data_type();
        let taken = match_integers!(
            data_type,
            primitive,
            match data_type {
                DataType::Float32 => primitive!(Float32Type),
                DataType::Float64 => primitive!(Float64Type),
                _ => None,
            }
        );
        match taken {
            Some(taken) => Ok(taken),
            None => Ok(self.predicate().filter(array)?),
        }
    }

    fn of_primitive<T: ArrowPrimitiveType>(&self, array: &PrimitiveArray<T>) -> Result<ArrayRef> {
        let mut values = Vec::with_capacity(self.count);
        compact(array.values(), self.mask.words(), &mut values, |value| value);
        let taken = PrimitiveArray::<T>::new(values.into(), self.of_nulls(array.nulls())?);
        Ok(Arc::new(taken.with_data_type(array.data_type().clone())))
    }

    /// The selected values that codes stand for.
    fn of_codes<T: Clone>(&self, codes: &Codes, convert: impl Fn(u32) -> T) -> Vec<T> {
        codes.decode(&self.mask, self.count, convert)
    }

    fn of_nulls(&self, nulls: Option<&NullBuffer>) -> Result<Option<NullBuffer>> {
        let (Some(nulls), false) = (nulls, self.is_full()) else { return Ok(nulls.cloned()) };
        let valid = self.predicate().filter(&BooleanArray::new(nulls.inner().clone(), None))?;
        Ok(Some(NullBuffer::new(valid.as_boolean().values().clone())))
    }
}

/// A block's values. `nulls` says which rows have none; their codes mean nothing.
#[derive(Debug)]
enum Block {
    Plain(ArrayRef),
    Strings(Strings),
    /// The value of a row is `reference` plus its code.
    Integers {
        reference: i128,
        codes: Codes,
        nulls: Option<NullBuffer>,
    },
    /// Decimals of at most 18 digits.
    Wide {
        values: Box<[i64]>,
        nulls: Option<NullBuffer>,
    },
    /// Codes of the column's dictionary.
    Dictionary {
        codes: Codes,
        nulls: Option<NullBuffer>,
    },
}

/// A column of a segment, in memory.
#[derive(Debug)]
pub(crate) struct Column {
    data_type: DataType,
    /// Bytes of its integers in a row, if it has any.
    width: u8,
    /// All but the last have [`BLOCK_ROWS`] rows.
    blocks: Vec<Block>,
    zones: Vec<Zone>,
    /// Distinct values, sorted, if any block refers to them.
    dictionary: Option<ArrayRef>,
    memory_bytes: usize,
}

impl Column {
    /// Encodes decoded blocks; all but the last have [`BLOCK_ROWS`] rows.
    pub(crate) fn new(data_type: &DataType, arrays: Vec<ArrayRef>) -> Result<Column> {
        let mut encoder = ColumnEncoder::new(data_type, arrays.iter().map(|array| array.len()).sum());
        arrays.into_iter().try_for_each(|array| encoder.push(array))?;
        encoder.finish()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub(crate) fn null_count(&self) -> usize {
        self.zones.iter().map(|zone| zone.nulls).sum()
    }

    pub(crate) fn zone(&self, block: usize) -> &Zone {
        &self.zones[block]
    }

    /// The distinct values, if the column is encoded as a dictionary.
    pub(crate) fn dictionary(&self) -> Option<&ArrayRef> {
        self.dictionary.as_ref()
    }

    /// The selected values of a block.
    pub(crate) fn select(&self, block: usize, selection: &Selection) -> Result<ArrayRef> {
        match &self.blocks[block] {
            Block::Plain(array) => selection.of_array(array),
            Block::Strings(strings) => strings.select(selection),
            Block::Integers { reference, codes, nulls } => {
                self.integers(*reference, codes, selection, selection.of_nulls(nulls.as_ref())?)
            }
            Block::Wide { values, nulls } => {
                let nulls = selection.of_nulls(nulls.as_ref())?;
                let mut wide = Vec::with_capacity(selection.count);
                compact(values, selection.mask.words(), &mut wide, i128::from);
                let decimals = PrimitiveArray::<Decimal128Type>::new(wide.into(), nulls);
                Ok(Arc::new(decimals.with_data_type(self.data_type.clone())))
            }
            Block::Dictionary { codes, nulls } => {
                let values = self.dictionary.as_ref().ok_or_else(|| Error::Internal("no dictionary".into()))?;
                let nulls = selection.of_nulls(nulls.as_ref())?;
                if values.is_empty() {
                    return Ok(arrow::array::new_null_array(&self.data_type, selection.count));
                }
                dictionary::decode(values, UInt32Array::new(selection.of_codes(codes, |code| code).into(), nulls))
            }
        }
    }

    /// Decodes integers of the column's type.
    fn integers(
        &self,
        reference: i128,
        codes: &Codes,
        selection: &Selection,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        macro_rules! integers {
            ($type:ty) => {{
                type Native = <$type as ArrowPrimitiveType>::Native;
                // Modulo the type's width, as every value fits it.
                let reference = reference as Native;
                let values: Vec<Native> = selection.of_codes(codes, |code| reference.wrapping_add(code as Native));
                let array = PrimitiveArray::<$type>::new(values.into(), nulls);
                Ok(Arc::new(array.with_data_type(self.data_type.clone())))
            }};
        }
        match_integers!(
            &self.data_type,
            integers,
            Err(Error::Internal(format!("{} encoded as integers", self.data_type)))
        )
    }

    /// Takes out of `mask` the rows of a block that fail a test of this column's values. For a dictionary,
    /// `on_dictionary` is the outcome of the test for each of its values.
    pub(crate) fn filter(
        &self,
        block: usize,
        test: &Test,
        on_dictionary: Option<&DictionaryTest>,
        mask: &mut Mask,
    ) -> Result<()> {
        let nulls = match &self.blocks[block] {
            Block::Plain(array) => {
                if mask.count() < array.len() / SPARSE_SHARE {
                    let selection = Selection::new(mask.clone());
                    mask.restrict(&test.matches(&selection.of_array(array)?)?);
                } else {
                    mask.and(&test.matches(array)?);
                }
                return Ok(());
            }
            Block::Strings(strings) => {
                if mask.count() < mask.rows() / SPARSE_SHARE {
                    mask.restrict(&test.matches(&strings.select(&Selection::new(mask.clone()))?)?);
                } else {
                    mask.and(&test.matches(&strings.select(&Selection::new(Mask::all(mask.rows())))?)?);
                }
                return Ok(());
            }
            Block::Integers { nulls, .. } | Block::Wide { nulls, .. } | Block::Dictionary { nulls, .. } => {
                nulls.as_ref()
            }
        };
        if let Test::Null { negated, .. } = test {
            let mut valid = Mask::all(mask.rows());
            valid.and_valid(nulls);
            mask.and(&if *negated { valid } else { valid.inverted() });
            return Ok(());
        }
        match &self.blocks[block] {
            Block::Integers { reference, codes, .. } => filter_integers(*reference, codes, test, mask)?,
            Block::Wide { values, .. } => match test {
                Test::Range { low, high, .. } => mask.and(&i64::select_range(values, *low, *high)),
                Test::NotEqual { value, .. } => mask.and(&i64::select_range(values, *value, *value).inverted()),
                Test::InRanks { set, negated, .. } => {
                    mask.and(&select(values, |value| set.contains(value.into()) != *negated));
                }
                other => return Err(Error::Internal(format!("{other:?} on integers"))),
            },
            Block::Dictionary { codes, .. } => {
                let test = on_dictionary.ok_or_else(|| Error::Internal(format!("{test:?} on a dictionary")))?;
                test.filter(codes, nulls, mask);
                return Ok(());
            }
            Block::Plain(_) | Block::Strings(_) => {}
        }
        mask.and_valid(nulls);
        Ok(())
    }

    /// All values of a block.
    pub(crate) fn block(&self, block: usize) -> Result<ArrayRef> {
        self.select(block, &Selection::new(Mask::all(self.zones[block].rows)))
    }

    /// All values in one array.
    pub(crate) fn to_array(&self) -> Result<ArrayRef> {
        let blocks = (0..self.blocks.len()).map(|block| self.block(block)).collect::<Result<Vec<_>>>()?;
        let blocks: Vec<&dyn Array> = blocks.iter().map(|block| block.as_ref()).collect();
        Ok(concat(&blocks)?)
    }
}

/// Takes out of `mask` the rows whose value, `reference` plus the code, fails the test.
fn filter_integers(reference: i128, codes: &Codes, test: &Test, mask: &mut Mask) -> Result<()> {
    let code_of = |value: i128| value.checked_sub(reference).and_then(|code| u32::try_from(code).ok());
    match test {
        Test::Range { low, high, .. } => {
            // Codes are offsets from the lowest value: bounds beyond what a code can be do not bind.
            let last = high.saturating_sub(reference).min(u32::MAX.into());
            let first = low.saturating_sub(reference).max(0);
            match (u32::try_from(first), u32::try_from(last)) {
                (Ok(first), Ok(last)) if first <= last => {
                    let span = last - first;
                    codes.filter(|code| code.wrapping_sub(first) <= span, mask);
                }
                _ => mask.clear(),
            }
        }
        Test::NotEqual { value, .. } => {
            if let Some(value) = code_of(*value) {
                codes.filter(|code| code != value, mask);
            }
        }
        Test::InRanks { set, negated, .. } => {
            codes.filter(|code| set.contains(reference + i128::from(code)) != *negated, mask);
        }
        other => return Err(Error::Internal(format!("{other:?} on integers"))),
    }
    Ok(())
}
