//! Single values, without Arrow.
//!
//! A [`Datum`] is a value and not its type: an `integer`, a `date` and a `timestamp` are all [`Datum::Int`], and the
//! column, parameter or expression the value belongs to says which. Types are Arrow's, the same that tables use
//! ([`Type`]). What is rare (intervals, lists, 256-bit decimals) keeps DataFusion's own scalar inside.
//!
//! ```text
//!   Value (DataFusion's scalar) ◀──▶ Datum ◀──▶ bytes in a compact row ──▶ bytes in a key
//!                                      └──▶ Arrow arrays, for results ([`array_of`])
//! ```

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewBuilder, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, StringBuilder, StringViewBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};

use crate::functions::floats::real;
use crate::{Error, Result, Value};

/// The type of a value: Arrow's.
pub type Type = DataType;

/// A value of a type that is known elsewhere.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Datum {
    /// NULL of any type.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of at most 64 bits (unsigned ones of at most 32), days of a date, units of a time or timestamp.
    Int(i64),
    /// A float; those of 32 bits are exact in 64.
    Float(f64),
    /// The digits of a decimal of up to 128 bits; its type has the scale.
    Decimal(i128),
    /// Text.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// Everything else.
    Other(Arc<Value>),
}

impl Datum {
    /// Text.
    pub fn text(text: &str) -> Datum {
        Datum::Text(Arc::from(text))
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }

    /// The number in an integer, date or timestamp.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Datum::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The text in it.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Datum::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same value without its type.
    pub fn of(value: &Value) -> Datum {
        let int = |value: &Option<i64>| value.map_or(Datum::Null, Datum::Int);
        let text = |value: &Option<String>| value.as_deref().map_or(Datum::Null, Datum::text);
        let bytes = |value: &Option<Vec<u8>>| value.as_deref().map_or(Datum::Null, |value| Datum::Bytes(value.into()));
        match value {
            Value::Null => Datum::Null,
            Value::Boolean(value) => value.map_or(Datum::Null, Datum::Bool),
            Value::Int8(value) => int(&value.map(i64::from)),
            Value::Int16(value) => int(&value.map(i64::from)),
            Value::Int32(value) | Value::Date32(value) => int(&value.map(i64::from)),
            Value::UInt8(value) => int(&value.map(i64::from)),
            Value::UInt16(value) => int(&value.map(i64::from)),
            Value::UInt32(value) => int(&value.map(i64::from)),
            Value::Int64(value)
            | Value::Time64Microsecond(value)
            | Value::TimestampSecond(value, _)
            | Value::TimestampMillisecond(value, _)
            | Value::TimestampMicrosecond(value, _)
            | Value::TimestampNanosecond(value, _) => int(value),
            Value::Float32(value) => value.map_or(Datum::Null, |value| Datum::Float(f64::from(value))),
            Value::Float64(value) => value.map_or(Datum::Null, Datum::Float),
            Value::Decimal128(value, _, _) => value.map_or(Datum::Null, Datum::Decimal),
            Value::Utf8(value) | Value::LargeUtf8(value) | Value::Utf8View(value) => text(value),
            Value::Binary(value)
            | Value::LargeBinary(value)
            | Value::BinaryView(value)
            | Value::FixedSizeBinary(_, value) => bytes(value),
            other if other.is_null() => Datum::Null,
            other => Datum::Other(Arc::new(other.clone())),
        }
    }

    /// The value with its type.
    ///
    /// # Errors
    /// If it is none of that type, which is a mistake of the caller's.
    pub fn to_value(&self, data_type: &Type) -> Result<Value> {
        let mistaken = || Error::internal(format!("{self:?} is no {data_type}"));
        Ok(match (self, data_type) {
            (Datum::Null, _) => Value::try_from(data_type)?,
            (Datum::Other(value), _) => value.as_ref().clone(),
            (Datum::Bool(value), DataType::Boolean) => Value::Boolean(Some(*value)),
            (Datum::Int(value), _) => int_value(*value, data_type).ok_or_else(mistaken)?,
            (Datum::Float(value), DataType::Float32) => Value::Float32(Some(*value as f32)),
            (Datum::Float(value), DataType::Float64) => Value::Float64(Some(*value)),
            (Datum::Decimal(value), DataType::Decimal128(precision, scale)) => {
                Value::Decimal128(Some(*value), *precision, *scale)
            }
            (Datum::Text(text), DataType::Utf8) => Value::Utf8(Some(text.as_ref().to_owned())),
            (Datum::Text(text), DataType::LargeUtf8) => Value::LargeUtf8(Some(text.as_ref().to_owned())),
            (Datum::Text(text), DataType::Utf8View) => Value::Utf8View(Some(text.as_ref().to_owned())),
            (Datum::Bytes(bytes), DataType::Binary) => Value::Binary(Some(bytes.to_vec())),
            (Datum::Bytes(bytes), DataType::LargeBinary) => Value::LargeBinary(Some(bytes.to_vec())),
            (Datum::Bytes(bytes), DataType::BinaryView) => Value::BinaryView(Some(bytes.to_vec())),
            (Datum::Bytes(bytes), DataType::FixedSizeBinary(width)) => {
                Value::FixedSizeBinary(*width, Some(bytes.to_vec()))
            }
            _ => return Err(mistaken()),
        })
    }
}

fn int_value(value: i64, data_type: &Type) -> Option<Value> {
    Some(match data_type {
        DataType::Int8 => Value::Int8(Some(value.try_into().ok()?)),
        DataType::Int16 => Value::Int16(Some(value.try_into().ok()?)),
        DataType::Int32 => Value::Int32(Some(value.try_into().ok()?)),
        DataType::Int64 => Value::Int64(Some(value)),
        DataType::UInt8 => Value::UInt8(Some(value.try_into().ok()?)),
        DataType::UInt16 => Value::UInt16(Some(value.try_into().ok()?)),
        DataType::UInt32 => Value::UInt32(Some(value.try_into().ok()?)),
        DataType::Date32 => Value::Date32(Some(value.try_into().ok()?)),
        DataType::Time64(TimeUnit::Microsecond) => Value::Time64Microsecond(Some(value)),
        DataType::Timestamp(TimeUnit::Second, zone) => Value::TimestampSecond(Some(value), zone.clone()),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => Value::TimestampMillisecond(Some(value), zone.clone()),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => Value::TimestampMicrosecond(Some(value), zone.clone()),
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => Value::TimestampNanosecond(Some(value), zone.clone()),
        _ => return None,
    })
}

/// How values of a type lie in a compact row, and what [`Datum`] they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Bool,
    /// Little-endian two's complement of this many bytes.
    Signed(usize),
    /// Little-endian unsigned, of at most four bytes.
    Unsigned(usize),
    Float32,
    Float64,
    Decimal64,
    Decimal128,
    Interval,
    Text,
    Bytes,
    /// Unsigned integers of 64 bits.
    Wide,
}

/// Decimals of up to this many digits take eight bytes in a row.
const DECIMAL64_PRECISION: u8 = 18;

impl Stored {
    /// `None` for a type that tables do not hold.
    pub(crate) fn of(data_type: &Type) -> Option<Stored> {
        Some(match data_type {
            DataType::Boolean => Stored::Bool,
            DataType::Int8 => Stored::Signed(1),
            DataType::Int16 => Stored::Signed(2),
            DataType::Int32 | DataType::Date32 => Stored::Signed(4),
            DataType::Int64 | DataType::Time64(TimeUnit::Microsecond) | DataType::Timestamp(..) => Stored::Signed(8),
            DataType::UInt8 => Stored::Unsigned(1),
            DataType::UInt16 => Stored::Unsigned(2),
            DataType::UInt32 => Stored::Unsigned(4),
            DataType::UInt64 => Stored::Wide,
            DataType::Float32 => Stored::Float32,
            DataType::Float64 => Stored::Float64,
            DataType::Decimal128(precision, _) if *precision <= DECIMAL64_PRECISION => Stored::Decimal64,
            DataType::Decimal128(..) => Stored::Decimal128,
            DataType::Interval(_) => Stored::Interval,
            DataType::Utf8View => Stored::Text,
            DataType::BinaryView | DataType::FixedSizeBinary(_) => Stored::Bytes,
            _ => return None,
        })
    }

    /// Reads a value; `None` is NULL. The bytes have the width of the type, which rows guarantee.
    pub(crate) fn read(self, raw: Option<&[u8]>) -> Datum {
        let Some(raw) = raw else { return Datum::Null };
        match self {
            Stored::Bool => Datum::Bool(raw.first().is_some_and(|byte| *byte != 0)),
            Stored::Signed(4) => Datum::Int(i64::from(i32::from_le_bytes(fixed(raw)))),
            Stored::Signed(8) => Datum::Int(i64::from_le_bytes(fixed(raw))),
            Stored::Signed(2) => Datum::Int(i64::from(i16::from_le_bytes(fixed(raw)))),
            Stored::Signed(_) => Datum::Int(i64::from(i8::from_le_bytes(fixed(raw)))),
            Stored::Unsigned(width) => {
                let mut bytes = [0; 8];
                bytes[..width].copy_from_slice(&raw[..width]);
                Datum::Int(i64::from_le_bytes(bytes))
            }
            Stored::Wide => Datum::Other(Arc::new(Value::UInt64(Some(u64::from_le_bytes(fixed(raw)))))),
            Stored::Float32 => Datum::Float(f64::from(f32::from_le_bytes(fixed(raw)))),
            Stored::Float64 => Datum::Float(f64::from_le_bytes(fixed(raw))),
            Stored::Decimal64 => Datum::Decimal(i128::from(i64::from_le_bytes(fixed(raw)))),
            Stored::Decimal128 => Datum::Decimal(i128::from_le_bytes(fixed(raw))),
            Stored::Interval => {
                let (months, days) = (i32::from_le_bytes(fixed(raw)), i32::from_le_bytes(fixed(&raw[4..])));
                let nanoseconds = i64::from_le_bytes(fixed(&raw[8..]));
                let value = IntervalMonthDayNano::new(months, days, nanoseconds);
                Datum::Other(Arc::new(Value::IntervalMonthDayNano(Some(value))))
            }
            // Rows hold text that was checked when it came.
            Stored::Text => std::str::from_utf8(raw).map_or(Datum::Null, Datum::text),
            Stored::Bytes => Datum::Bytes(raw.into()),
        }
    }

    /// Passes the bytes of a value as a row has them to `write`, and `None` for NULL.
    ///
    /// # Errors
    /// If the value is none that the type can hold.
    pub(crate) fn write<R>(self, datum: &Datum, write: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        let mistaken = || Error::internal(format!("a column kept as {self:?} cannot hold {datum:?}"));
        Ok(match (self, datum) {
            (_, Datum::Null) => write(None),
            (Stored::Bool, Datum::Bool(value)) => write(Some(&[u8::from(*value)])),
            (Stored::Signed(width), Datum::Int(value)) if is_signed_in(*value, width) => {
                write(Some(&value.to_le_bytes()[..width]))
            }
            (Stored::Unsigned(width), Datum::Int(value)) if (*value as u64) >> (8 * width) == 0 => {
                write(Some(&value.to_le_bytes()[..width]))
            }
            (Stored::Float32, Datum::Float(value)) => write(Some(&real(*value)?.to_le_bytes())),
            (Stored::Float64, Datum::Float(value)) => write(Some(&value.to_le_bytes())),
            (Stored::Decimal64, Datum::Decimal(value)) => {
                let value = i64::try_from(*value).map_err(|_| mistaken())?;
                write(Some(&value.to_le_bytes()))
            }
            (Stored::Decimal128, Datum::Decimal(value)) => write(Some(&value.to_le_bytes())),
            (Stored::Text, Datum::Text(text)) => write(Some(text.as_bytes())),
            (Stored::Bytes, Datum::Bytes(bytes)) => write(Some(bytes)),
            (Stored::Wide, Datum::Other(value)) => match value.as_ref() {
                Value::UInt64(Some(value)) => write(Some(&value.to_le_bytes())),
                _ => return Err(mistaken()),
            },
            (Stored::Interval, Datum::Other(value)) => match value.as_ref() {
                Value::IntervalMonthDayNano(Some(value)) => {
                    let mut bytes = [0; 16];
                    bytes[..4].copy_from_slice(&value.months.to_le_bytes());
                    bytes[4..8].copy_from_slice(&value.days.to_le_bytes());
                    bytes[8..].copy_from_slice(&value.nanoseconds.to_le_bytes());
                    write(Some(&bytes))
                }
                _ => return Err(mistaken()),
            },
            _ => return Err(mistaken()),
        })
    }
}

/// Whether a number of so many bytes has the value.
fn is_signed_in(value: i64, bytes: usize) -> bool {
    let beyond = 64 - 8 * bytes.min(8);
    (value << beyond) >> beyond == value
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

/// Values of one type as an array.
///
/// # Errors
/// If a value is none of that type.
pub(crate) fn array_of<'a>(
    data_type: &Type,
    values: impl ExactSizeIterator<Item = &'a Datum> + Clone,
) -> Result<ArrayRef> {
    let mistaken = |datum: &Datum| Error::internal(format!("{datum:?} is no {data_type}"));
    macro_rules! collect {
        ($array:ty, $pattern:pat => $value:expr) => {{
            let mut collected = Vec::with_capacity(values.len());
            for datum in values {
                collected.push(match datum {
                    Datum::Null => None,
                    $pattern => Some($value.ok_or_else(|| mistaken(datum))?),
                    _ => return Err(mistaken(datum)),
                });
            }
            Arc::new(<$array>::from(collected))
        }};
    }
    Ok(match data_type {
        DataType::Boolean => collect!(BooleanArray, Datum::Bool(value) => Some(*value)),
        DataType::Int8 => collect!(Int8Array, Datum::Int(value) => i8::try_from(*value).ok()),
        DataType::Int16 => collect!(Int16Array, Datum::Int(value) => i16::try_from(*value).ok()),
        DataType::Int32 => collect!(Int32Array, Datum::Int(value) => i32::try_from(*value).ok()),
        DataType::Date32 => collect!(Date32Array, Datum::Int(value) => i32::try_from(*value).ok()),
        DataType::Int64 => collect!(Int64Array, Datum::Int(value) => Some(*value)),
        DataType::Float32 => collect!(Float32Array, Datum::Float(value) => Some(*value as f32)),
        DataType::Float64 => collect!(Float64Array, Datum::Float(value) => Some(*value)),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            collect!(TimestampMicrosecondArray, Datum::Int(value) => Some(*value))
        }
        DataType::Decimal128(precision, scale) => {
            let mut collected = Vec::with_capacity(values.len());
            for datum in values {
                collected.push(match datum {
                    Datum::Null => None,
                    Datum::Decimal(value) => Some(*value),
                    _ => return Err(mistaken(datum)),
                });
            }
            Arc::new(Decimal128Array::from(collected).with_precision_and_scale(*precision, *scale)?)
        }
        DataType::Utf8View => {
            let mut builder = StringViewBuilder::with_capacity(values.len());
            for datum in values {
                match datum {
                    Datum::Null => builder.append_null(),
                    Datum::Text(text) => builder.append_value(text),
                    _ => return Err(mistaken(datum)),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::Utf8 => {
            let mut builder = StringBuilder::new();
            for datum in values {
                match datum {
                    Datum::Null => builder.append_null(),
                    Datum::Text(text) => builder.append_value(text),
                    _ => return Err(mistaken(datum)),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::BinaryView => {
            let mut builder = BinaryViewBuilder::with_capacity(values.len());
            for datum in values {
                match datum {
                    Datum::Null => builder.append_null(),
                    Datum::Bytes(bytes) => builder.append_value(bytes),
                    _ => return Err(mistaken(datum)),
                }
            }
            Arc::new(builder.finish())
        }
        _ if values.len() == 0 => arrow::array::new_empty_array(data_type),
        _ => {
            let values = values.map(|datum| datum.to_value(data_type)).collect::<Result<Vec<_>>>()?;
            Value::iter_to_array(values)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Value> {
        vec![
            Value::Boolean(Some(true)),
            Value::Int8(Some(-5)),
            Value::Int16(Some(i16::MIN)),
            Value::Int32(Some(i32::MAX)),
            Value::Int64(Some(i64::MIN)),
            Value::UInt8(Some(255)),
            Value::UInt32(Some(u32::MAX)),
            Value::UInt64(Some(u64::MAX)),
            Value::Float32(Some(1.5)),
            Value::Float64(Some(-0.0)),
            Value::Decimal128(Some(-12_345), 12, 2),
            Value::Decimal128(Some(i128::from(i64::MAX) * 1000), 38, 2),
            Value::Date32(Some(-1)),
            Value::Time64Microsecond(Some(1)),
            Value::TimestampMicrosecond(Some(7), None),
            Value::TimestampNanosecond(Some(-7), Some("UTC".into())),
            Value::Utf8View(Some("süß".to_owned())),
            Value::BinaryView(Some(vec![0, 255])),
            Value::FixedSizeBinary(3, Some(vec![1, 2, 3])),
            Value::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(1, -2, 3))),
        ]
    }

    #[test]
    fn numbers_that_a_column_has_no_room_for_are_not_written() {
        let is_written = |stored: Stored, value| stored.write(&Datum::Int(value), |_| ()).is_ok();
        assert!(is_written(Stored::Signed(8), i64::MIN));
        assert!(is_written(Stored::Signed(4), i64::from(i32::MIN)));
        assert!(!is_written(Stored::Signed(4), 3_000_000_000));
        assert!(!is_written(Stored::Signed(1), 128));
        assert!(is_written(Stored::Unsigned(2), 65_535));
        assert!(!is_written(Stored::Unsigned(2), 65_536));
        assert!(!is_written(Stored::Unsigned(2), -1));
    }

    #[test]
    fn values_come_back_from_data_and_from_rows() {
        for value in samples() {
            let data_type = value.data_type();
            let datum = Datum::of(&value);
            assert_eq!(datum.to_value(&data_type).unwrap(), value);
            let stored = Stored::of(&data_type).unwrap();
            let mut bytes = Vec::new();
            stored.write(&datum, |raw| bytes.extend_from_slice(raw.unwrap())).unwrap();
            assert_eq!(stored.read(Some(&bytes)), datum, "{data_type}");
            let null = Value::try_from(&data_type).unwrap();
            assert_eq!(Datum::of(&null), Datum::Null);
            assert_eq!(Datum::Null.to_value(&data_type).unwrap(), null);
            assert_eq!(stored.read(None), Datum::Null);
        }
    }

    #[test]
    fn arrays_hold_the_values_and_nulls() {
        for value in samples() {
            let data_type = value.data_type();
            let data = [Datum::of(&value), Datum::Null];
            let array = array_of(&data_type, data.iter()).unwrap();
            assert_eq!(array.data_type(), &data_type);
            assert_eq!(Value::try_from_array(&array, 0).unwrap(), value);
            assert!(array.is_null(1), "{data_type}");
            assert_eq!(array_of(&data_type, [].iter()).unwrap().data_type(), &data_type);
        }
    }

    #[test]
    fn values_of_another_type_are_refused() {
        assert!(Datum::Int(300).to_value(&DataType::Int8).is_err());
        assert!(Datum::Bool(true).to_value(&DataType::Int64).is_err());
        assert!(array_of(&DataType::Int32, [Datum::Int(1 << 40)].iter()).is_err());
        assert!(Stored::Decimal64.write(&Datum::Decimal(i128::MAX), |_| ()).is_err());
    }
}
