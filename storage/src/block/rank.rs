//! One order for values of all types: ranks and zones.
//!
//! The *rank* of a value is an integer that never contradicts the order of the values: `a <= b` implies
//! `rank(a) <= rank(b)`. For numbers, dates and times it is *exact* (equal ranks mean equal values), so a comparison may
//! be made on ranks alone. For strings it is their first 15 bytes, which is enough to rule blocks out.
//!
//! Floats rank in the order queries use: negative NaN, -∞ … -0.0 = 0.0 … ∞, NaN.
//!
//! A *zone* is what is known of a run of values without looking at them: the lowest and the highest rank and the number
//! of NULLs (a zone map, or small materialised aggregate: Moerkotte, VLDB 1998).

use arrow::array::{Array, AsArray, GenericByteViewArray};
use arrow::datatypes::{
    ArrowPrimitiveType, ByteViewType, DataType, Date32Type, Decimal64Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};

/// Calls `$visit!(ArrowType)` with the primitive type of an integer-like data type, or gives `$otherwise`.
macro_rules! match_integers {
    ($data_type:expr, $visit:ident, $otherwise:expr) => {
        match $data_type {
            DataType::Int8 => $visit!(Int8Type),
            DataType::Int16 => $visit!(Int16Type),
            DataType::Int32 => $visit!(Int32Type),
            DataType::Int64 => $visit!(Int64Type),
            DataType::UInt8 => $visit!(UInt8Type),
            DataType::UInt16 => $visit!(UInt16Type),
            DataType::UInt32 => $visit!(UInt32Type),
            DataType::UInt64 => $visit!(UInt64Type),
            DataType::Date32 => $visit!(Date32Type),
            DataType::Time64(TimeUnit::Microsecond) => $visit!(Time64MicrosecondType),
            DataType::Time64(TimeUnit::Nanosecond) => $visit!(Time64NanosecondType),
            DataType::Duration(TimeUnit::Second) => $visit!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => $visit!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => $visit!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => $visit!(DurationNanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => $visit!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => $visit!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => $visit!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => $visit!(TimestampNanosecondType),
            DataType::Decimal128(_, _) => $visit!(Decimal128Type),
            _ => $otherwise,
        }
    };
}
pub(crate) use match_integers;

/// Bytes of a string that make its rank.
const PREFIX_BYTES: usize = 15;

/// Whether comparing ranks of this type is as good as comparing values.
pub(crate) fn has_exact_ranks(data_type: &DataType) -> bool {
    macro_rules! yes {
        ($type:ty) => {
            true
        };
    }
    match_integers!(data_type, yes, matches!(data_type, DataType::Float32 | DataType::Float64))
}

/// The rank of a float: the order of IEEE 754's totalOrder, but with one zero.
pub(crate) fn float_rank(value: f64) -> i64 {
    let bits = if value == 0.0 { 0 } else { value.to_bits() as i64 };
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

pub(crate) fn bytes_rank(value: &[u8]) -> i128 {
    let mut prefix = [0; 16];
    let length = value.len().min(PREFIX_BYTES);
    prefix[1..=length].copy_from_slice(&value[..length]);
    i128::from_be_bytes(prefix)
}

/// The rank of one value; `None` for NULL and for types that have none.
pub(crate) fn rank(array: &dyn Array, row: usize) -> Option<i128> {
    macro_rules! integer {
        ($type:ty) => {
            Some(i128::from(array.as_primitive::<$type>().value(row)))
        };
    }
    if array.is_null(row) {
        return None;
    }
    let data_type = array.data_type();
    match_integers!(
        data_type,
        integer,
        match data_type {
            DataType::Float32 => Some(float_rank(f64::from(array.as_primitive::<Float32Type>().value(row))).into()),
            DataType::Float64 => Some(float_rank(array.as_primitive::<Float64Type>().value(row)).into()),
            DataType::Boolean => Some(array.as_boolean().value(row).into()),
            DataType::Utf8View => Some(bytes_rank(array.as_string_view().value(row).as_bytes())),
            DataType::BinaryView => Some(bytes_rank(array.as_binary_view().value(row))),
            _ => None,
        }
    )
}

/// What is known of a run of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Zone {
    /// The lowest rank; higher than `maximum` if there are only NULLs.
    pub(crate) minimum: i128,
    /// The highest rank.
    pub(crate) maximum: i128,
    pub(crate) nulls: usize,
    pub(crate) rows: usize,
}

impl Zone {
    /// A zone whose values may be anything.
    pub(crate) fn unbounded(nulls: usize, rows: usize) -> Zone {
        Zone { minimum: i128::MIN, maximum: i128::MAX, nulls, rows }
    }

    /// The zone of an array.
    pub(crate) fn of(array: &dyn Array) -> Zone {
        let (rows, nulls) = (array.len(), array.null_count());
        let bounds = match nulls == rows {
            true => Some((i128::MAX, i128::MIN)),
            false => bounds_of(array),
        };
        match bounds {
            Some((minimum, maximum)) => Zone { minimum, maximum, nulls, rows },
            None => Zone::unbounded(nulls, rows),
        }
    }
}

/// The lowest and highest rank of an array that has a value.
fn bounds_of(array: &dyn Array) -> Option<(i128, i128)> {
    macro_rules! integers {
        ($type:ty) => {
            native_bounds::<$type>(array)
        };
    }
    let ranks = |rank: &dyn Fn(usize) -> i128| {
        let valid = (0..array.len()).filter(|row| array.is_valid(*row));
        valid.map(rank).fold((i128::MAX, i128::MIN), |(low, high), rank| (low.min(rank), high.max(rank)))
    };
    let data_type = array.data_type();
    match_integers!(
        data_type,
        integers,
        match data_type {
            DataType::Float32 => {
                let floats = array.as_primitive::<Float32Type>();
                Some(ranks(&|row| float_rank(floats.value(row).into()).into()))
            }
            DataType::Float64 => {
                let floats = array.as_primitive::<Float64Type>();
                Some(ranks(&|row| float_rank(floats.value(row)).into()))
            }
            DataType::Boolean => Some(ranks(&|row| array.as_boolean().value(row).into())),
            DataType::Utf8View => Some(view_bounds(array.as_string_view())),
            DataType::BinaryView => Some(view_bounds(array.as_binary_view())),
            DataType::Decimal64(..) => native_bounds::<Decimal64Type>(array),
            _ => None,
        }
    )
}

/// The bounds of strings. A view holds the first four bytes of its string: where they lie between those of the bounds so
/// far, the rest is not looked at.
fn view_bounds<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>) -> (i128, i128) {
    let (mut low, mut high) = (i128::MAX, i128::MIN);
    let (mut low_prefix, mut high_prefix) = (u32::MAX, 0);
    for (row, view) in array.views().iter().enumerate() {
        let prefix = ((view >> 32) as u32).swap_bytes();
        if low_prefix < prefix && prefix < high_prefix || array.is_null(row) {
            continue;
        }
        let rank = bytes_rank(array.value(row).as_ref());
        (low, high) = (low.min(rank), high.max(rank));
        (low_prefix, high_prefix) = (low_prefix.min(prefix), high_prefix.max(prefix));
    }
    (low, high)
}

fn native_bounds<T: ArrowPrimitiveType>(array: &dyn Array) -> Option<(i128, i128)>
where
    T::Native: Into<i128> + Ord,
{
    let values = array.as_primitive::<T>();
    let (low, high) = match values.null_count() {
        0 => (values.values().iter().min().copied(), values.values().iter().max().copied()),
        _ => (values.iter().flatten().min(), values.iter().flatten().max()),
    };
    Some((low?.into(), high?.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryViewArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringViewArray,
        UInt64Array,
    };

    use super::*;

    #[test]
    fn floats_rank_as_queries_order_them() {
        let ascending =
            [-f64::NAN, f64::NEG_INFINITY, -1.5, -f64::MIN_POSITIVE, 0.0, 5e-324, 2.0, f64::INFINITY, f64::NAN];
        assert!(ascending.map(float_rank).is_sorted_by(|a, b| a < b));
        assert_eq!(float_rank(-0.0), float_rank(0.0));
    }

    #[test]
    fn ranks_never_contradict_the_order_of_strings() {
        let mut texts = vec!["", "\0", "a", "a\0", "ab", "abcdefghijklmno", "abcdefghijklmnop", "é", "\u{10ffff}"];
        texts.sort_unstable();
        assert!(texts.iter().map(|text| bytes_rank(text.as_bytes())).is_sorted());
        assert!(bytes_rank(b"a") < bytes_rank(b"b"));
    }

    #[test]
    fn zones_cover_their_values() {
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX), Some(3)])),
            Arc::new(UInt64Array::from(vec![u64::MAX, 0])),
            Arc::new(Decimal128Array::from(vec![Some(i128::MAX), None, Some(-5)])),
            Arc::new(Float64Array::from(vec![f64::NAN, -0.0, -f64::NAN])),
            Arc::new(StringViewArray::from(vec![Some("b"), None, Some("a")])),
            Arc::new(BinaryViewArray::from_iter_values([b"\xff".as_slice(), b""])),
            Arc::new(BooleanArray::from(vec![Some(true), None])),
        ];
        for array in arrays {
            let zone = Zone::of(&array);
            let ranks: Vec<i128> = (0..array.len()).filter_map(|row| rank(&array, row)).collect();
            assert_eq!(Some(zone.minimum), ranks.iter().copied().min(), "{array:?}");
            assert_eq!(Some(zone.maximum), ranks.iter().copied().max(), "{array:?}");
            assert_eq!((zone.nulls, zone.rows), (array.null_count(), array.len()));
        }
        let nothing = Zone::of(&Int64Array::from(vec![None, None]));
        assert!(nothing.minimum > nothing.maximum);
    }
}
