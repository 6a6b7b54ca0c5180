//! The types a table can hold and how wide their values are in a row.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

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

    /// The representation of a canonical type; `None` for a type tables do not hold.
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

/// The type a table column gets for a requested one: strings and binaries become views, small decimals
/// `Decimal128`, and so on. `None` if tables cannot hold such values.
pub fn canonical_type(data_type: &DataType) -> Option<DataType> {
    let canonical = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::BinaryView,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, value) => return canonical_type(value),
        DataType::RunEndEncoded(_, value) => return canonical_type(value.data_type()),
        other => other.clone(),
    };
    Physical::of(&canonical).map(|_| canonical)
}
