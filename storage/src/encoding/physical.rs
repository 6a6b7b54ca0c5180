//! The types a table can hold and how wide their values are in a row.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, IntervalUnit, TimeUnit};

/// Decimals of up to this many digits fit an `i64`.
pub(crate) const DECIMAL64_PRECISION: u8 = 18;

/// How the values of a column lie in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Physical {
    Boolean,
    /// Little-endian two's complement integer of 1, 2, 4 or 8 bytes (also dates, times, timestamps).
    Signed(usize),
    /// Little-endian unsigned integer.
    Unsigned(usize),
    Float32,
    Float64,
    /// A decimal kept as `i64`.
    Decimal64,
    /// A decimal kept as `i128`.
    Decimal128,
    /// Months, days, nanoseconds.
    Interval,
    /// Raw bytes of constant length.
    Fixed(usize),
    /// Bytes in the row's variable section.
    Variable,
}

impl Physical {
    /// Bytes in the row's fixed section.
    pub(crate) fn width(self) -> usize {
        match self {
            Physical::Boolean => 1,
            Physical::Signed(width) | Physical::Unsigned(width) | Physical::Fixed(width) => width,
            Physical::Float32 | Physical::Variable => 4,
            Physical::Float64 | Physical::Decimal64 => 8,
            Physical::Decimal128 | Physical::Interval => 16,
        }
    }

    /// The representation of a canonical type, or of one that tables of earlier releases have; `None` for a type tables do not
    /// hold.
    pub(crate) fn of(data_type: &DataType) -> Option<Physical> {
        Some(match data_type {
            DataType::Boolean => Physical::Boolean,
            DataType::Int8 => Physical::Signed(1),
            DataType::Int16 => Physical::Signed(2),
            DataType::Int32 | DataType::Date32 => Physical::Signed(4),
            DataType::Int64 | DataType::Timestamp(_, _) | DataType::Duration(_) => Physical::Signed(8),
            DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond) => Physical::Signed(8),
            DataType::UInt8 => Physical::Unsigned(1),
            DataType::UInt16 => Physical::Unsigned(2),
            DataType::UInt32 => Physical::Unsigned(4),
            DataType::UInt64 => Physical::Unsigned(8),
            DataType::Float32 => Physical::Float32,
            DataType::Float64 => Physical::Float64,
            DataType::Decimal128(precision, _) if *precision <= DECIMAL64_PRECISION => Physical::Decimal64,
            DataType::Decimal128(_, _) => Physical::Decimal128,
            DataType::Interval(IntervalUnit::MonthDayNano) => Physical::Interval,
            DataType::FixedSizeBinary(width) => Physical::Fixed(usize::try_from(*width).ok()?),
            DataType::Utf8View | DataType::BinaryView => Physical::Variable,
            _ => return None,
        })
    }
}

/// The type a table column gets for a requested one: strings and binaries become views, decimals `Decimal128`, and so on.
/// `None` if tables cannot hold such values. What is requested may come from a client, and Arrow has types that no file can have:
/// decimals whose last digit stands before the point, bytes of which there are none.
pub fn canonical_type(data_type: &DataType) -> Option<DataType> {
    let canonical = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(0) => {
            DataType::BinaryView
        }
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => return decimal(*precision, *scale),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(unit, Some(zone)) if zone.is_empty() => DataType::Timestamp(*unit, None),
        DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, value) => return canonical_type(value),
        DataType::RunEndEncoded(_, value) => return canonical_type(value.data_type()),
        other => other.clone(),
    };
    Physical::of(&canonical).map(|_| canonical)
}

/// The narrowest decimal of ours that has all values of one with so many digits, of which `scale` are behind the point: none of ours
/// has fewer than no digits there, or more than it has at all.
fn decimal(precision: u8, scale: i8) -> Option<DataType> {
    let (precision, scale) = match u8::try_from(scale) {
        Ok(behind) => (precision.max(behind), scale),
        Err(_) => (precision.checked_add(scale.unsigned_abs())?, 0),
    };
    (1..=DECIMAL128_MAX_PRECISION).contains(&precision).then_some(DataType::Decimal128(precision, scale))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn a_decimal_gets_digits_for_all_its_values() {
        let decimal = |precision, scale| Some(DataType::Decimal128(precision, scale));
        for (requested, expected) in [
            (DataType::Decimal128(5, 2), decimal(5, 2)),
            (DataType::Decimal128(5, -2), decimal(7, 0)),
            (DataType::Decimal128(38, 0), decimal(38, 0)),
            (DataType::Decimal128(36, -2), decimal(38, 0)),
            (DataType::Decimal128(37, -2), None),
            (DataType::Decimal128(1, i8::MIN), None),
            (DataType::Decimal128(2, 5), decimal(5, 5)),
            (DataType::Decimal128(2, 38), decimal(38, 38)),
            (DataType::Decimal128(2, 39), None),
            (DataType::Decimal128(39, 0), None),
            (DataType::Decimal128(0, 0), None),
            (DataType::Decimal32(9, -1), decimal(10, 0)),
            (DataType::Decimal64(18, 2), decimal(18, 2)),
        ] {
            assert_eq!(canonical_type(&requested), expected, "{requested}");
            let in_dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(requested.clone()));
            assert_eq!(canonical_type(&in_dictionary), expected, "{in_dictionary}");
            let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
            let in_runs = DataType::RunEndEncoded(ends, Arc::new(Field::new("values", requested, true)));
            assert_eq!(canonical_type(&in_runs), expected, "{in_runs}");
        }
    }

    #[test]
    fn what_no_file_can_have_becomes_what_has_its_values() {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            assert_eq!(canonical_type(&DataType::Duration(unit)), Some(interval.clone()));
            assert_eq!(
                canonical_type(&DataType::Timestamp(unit, Some("".into()))),
                Some(DataType::Timestamp(unit, None))
            );
        }
        assert_eq!(canonical_type(&DataType::FixedSizeBinary(0)), Some(DataType::BinaryView));
        assert_eq!(canonical_type(&DataType::FixedSizeBinary(1)), Some(DataType::FixedSizeBinary(1)));
        assert_eq!(canonical_type(&DataType::FixedSizeBinary(-1)), None);
    }
}
