//! One value of a column, read alone: what a look-up by key needs.
//!
//! The bytes are those that a row has for the value (`encoding/row.rs`), so they can be put into a row or into a key
//! as they are. Nothing is decoded but the one value, and nothing is allocated.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::rank::match_integers;
use super::{Block, Column};
use crate::BLOCK_ROWS;
use crate::encoding::{Physical, RawValue};
use crate::error::{Error, Result};

/// One value, as rows have it. What is kept in another form lies in it; what is kept as it is, is borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Raw<'a> {
    Null,
    /// So many of these bytes.
    Short([u8; 16], u8),
    Bytes(&'a [u8]),
}

impl Raw<'_> {
    #[inline]
    pub(crate) fn bytes(&self) -> RawValue<'_> {
        match self {
            Raw::Null => None,
            Raw::Short(bytes, length) => bytes.get(..usize::from(*length)),
            Raw::Bytes(bytes) => Some(bytes),
        }
    }

    /// The low bytes of an integer.
    #[inline]
    fn integer(value: i128, width: u8) -> Raw<'static> {
        Raw::Short(value.to_le_bytes(), width)
    }

    fn short<const N: usize>(value: [u8; N]) -> Raw<'static> {
        let mut bytes = [0; 16];
        bytes[..N].copy_from_slice(&value);
        Raw::Short(bytes, N as u8)
    }
}

impl Column {
    /// A row's value.
    #[inline]
    pub(crate) fn raw(&self, row: usize) -> Result<Raw<'_>> {
        let (block, row) = (&self.blocks[row / BLOCK_ROWS], row % BLOCK_ROWS);
        let is_null = |nulls: &Option<NullBuffer>| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        Ok(match block {
            Block::Plain(array) => return raw_of(array, row),
            Block::Strings(strings) => strings.get(row).map_or(Raw::Null, Raw::Bytes),
            Block::Integers { nulls, .. } | Block::Wide { nulls, .. } | Block::Dictionary { nulls, .. }
                if is_null(nulls) =>
            {
                Raw::Null
            }
            Block::Integers { reference, codes, .. } => {
                Raw::integer(*reference + i128::from(codes.get(row)), self.width)
            }
            Block::Wide { values, .. } => Raw::integer(values[row].into(), self.width),
            Block::Dictionary { codes, .. } => {
                let values = self.dictionary.as_ref().ok_or_else(|| Error::Internal("no dictionary".into()))?;
                return raw_of(values, codes.get(row) as usize);
            }
        })
    }

    /// Calls `take` with the bytes of a row's value; `None` for NULL.
    #[inline]
    pub(crate) fn with_raw<R>(&self, row: usize, take: impl FnOnce(RawValue<'_>) -> R) -> Result<R> {
        Ok(take(self.raw(row)?.bytes()))
    }
}

/// Bytes that an integer of this type takes in a row; of other types none.
pub(super) fn integer_width(data_type: &DataType) -> u8 {
    match Physical::of(data_type) {
        Some(integer @ (Physical::Signed(_) | Physical::Unsigned(_) | Physical::Decimal64 | Physical::Decimal128)) => {
            integer.width() as u8
        }
        _ => 0,
    }
}

fn raw_of(array: &ArrayRef, row: usize) -> Result<Raw<'_>> {
    if array.is_null(row) {
        return Ok(Raw::Null);
    }
    fn integer<T: ArrowPrimitiveType>(array: &ArrayRef, row: usize) -> i128
    where
        T::Native: Into<i128>,
    {
        array.as_primitive::<T>().value(row).into()
    }
    macro_rules! integers {
        ($type:ty) => {
            Some(integer::<$type>(array, row))
        };
    }
    let data_type = array.data_type();
    // Texts first: dictionaries have them.
    match data_type {
        DataType::Utf8View => return Ok(Raw::Bytes(array.as_string_view().value(row).as_bytes())),
        DataType::BinaryView => return Ok(Raw::Bytes(array.as_binary_view().value(row))),
        _ => {}
    }
    if let Some(value) = match_integers!(data_type, integers, None) {
        return Ok(Raw::integer(value, integer_width(data_type)));
    }
    Ok(match data_type {
        DataType::Boolean => Raw::short([u8::from(array.as_boolean().value(row))]),
        DataType::Float32 => Raw::short(array.as_primitive::<Float32Type>().value(row).to_le_bytes()),
        DataType::Float64 => Raw::short(array.as_primitive::<Float64Type>().value(row).to_le_bytes()),
        DataType::FixedSizeBinary(_) => Raw::Bytes(array.as_fixed_size_binary().value(row)),
        DataType::Interval(_) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&value.months.to_le_bytes());
            bytes[4..8].copy_from_slice(&value.days.to_le_bytes());
            bytes[8..].copy_from_slice(&value.nanoseconds.to_le_bytes());
            Raw::short(bytes)
        }
        other => return Err(Error::Internal(format!("no row layout for {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array,
        Int8Array, Int64Array, IntervalMonthDayNanoArray, RecordBatch, StringViewArray, TimestampMicrosecondArray,
        UInt8Array, UInt64Array,
    };
    use arrow::datatypes::{Field, IntervalMonthDayNano, Schema};

    use super::*;
    use crate::encoding::RowLayout;

    /// Values of every type, in every encoding, with NULLs and the ends of each type's range.
    fn columns() -> Vec<ArrayRef> {
        let rows = if cfg!(miri) { 40 } else { 3000_i64 };
        let null_every = |every: i64| move |row: i64| if row % every == 3 { None } else { Some(row) };
        let decimal = |precision: u8, factor: i128| -> ArrayRef {
            let values: Decimal128Array =
                (0..rows).map(null_every(11)).map(|row| row.map(|row| i128::from(row - 1500) * factor)).collect();
            Arc::new(values.with_precision_and_scale(precision, 2).unwrap())
        };
        let edges = |row: i64| [i64::MIN, i64::MAX, 0, -1][row as usize % 4];
        vec![
            Arc::new(Int64Array::from_iter((0..rows).map(null_every(7)))),
            Arc::new(Int64Array::from_iter_values((0..rows).map(edges))),
            Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row / 500))),
            Arc::new(Int64Array::from_value(-9, rows as usize)),
            Arc::new(Int8Array::from_iter_values((0..rows).map(|row| row as i8))),
            Arc::new(UInt8Array::from_iter_values((0..rows).map(|row| row as u8))),
            Arc::new(UInt64Array::from_iter_values((0..rows).map(|row| u64::MAX - row as u64))),
            Arc::new(UInt64Array::from_iter_values((0..rows).map(|row| edges(row) as u64))),
            Arc::new(Date32Array::from_iter((0..rows).map(|row| Some(row as i32 - 1000)))),
            Arc::new(TimestampMicrosecondArray::from_iter_values((0..rows).map(|row| row * 1_000_000_007))),
            decimal(18, 1),
            decimal(18, 10_i128.pow(14)),
            decimal(38, 10_i128.pow(30)),
            Arc::new(Float32Array::from_iter_values((0..rows).map(|row| row as f32 / 3.0))),
            Arc::new(Float64Array::from_iter((0..rows).map(|row| (row % 5 != 0).then_some(-(row as f64))))),
            Arc::new((0..rows).map(|row| (row % 3 != 0).then_some(row % 2 == 0)).collect::<BooleanArray>()),
            Arc::new(StringViewArray::from_iter((0..rows).map(|row| (row % 6 != 0).then(|| format!("{}", row % 9))))),
            Arc::new(StringViewArray::from_iter_values((0..rows).map(|row| format!("a text that is unique: {row}")))),
            Arc::new(BinaryViewArray::from_iter_values((0..rows).map(|row| [0, row as u8, 255]))),
            Arc::new(FixedSizeBinaryArray::try_from_iter((0..rows).map(|row| [row as u8; 5])).unwrap()),
            Arc::new(IntervalMonthDayNanoArray::from_iter_values(
                (0..rows).map(|row| IntervalMonthDayNano::new(row as i32, -1, row * row)),
            )),
        ]
    }

    #[test]
    fn a_value_read_alone_is_the_one_that_its_encoded_row_has() {
        let arrays = columns();
        let fields: Vec<Field> = arrays
            .iter()
            .enumerate()
            .map(|(index, array)| Field::new(format!("c{index}"), array.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let layout = RowLayout::new(&schema).unwrap();
        let rows = layout.encode(&RecordBatch::try_new(schema, arrays.clone()).unwrap()).unwrap();
        let encoded: Vec<Arc<Column>> =
            arrays.iter().map(|array| Arc::new(Column::new(array.data_type(), vec![array.clone()]).unwrap())).collect();
        for (at, row) in rows.iter().enumerate() {
            for (index, column) in encoded.iter().enumerate() {
                let expected = layout.value(row, index).map(<[u8]>::to_vec);
                let found = column.with_raw(at, |value| value.map(<[u8]>::to_vec)).unwrap();
                assert_eq!(found, expected, "row {at} of {}", arrays[index].data_type());
            }
            let whole = layout.build(|column, take| encoded[column].with_raw(at, take)?).unwrap();
            assert_eq!(&whole, row, "row {at}");
        }
    }
}
