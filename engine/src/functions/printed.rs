//! Values as text, in PostgreSQL's words: what a cast to text gives, and what `||` and `concat` put together.
//!
//! | type | Arrow's cast | here |
//! |---|---|---|
//! | timestamp | `2024-01-01T00:00:00.500` | `2024-01-01 00:00:00.5` |
//! | timestamp with time zone | `2024-01-01T00:00:00Z` | `2024-01-01 00:00:00+00` |
//! | time | `10:00:00.100` | `10:00:00.1` |
//! | interval | `12 mons 1 days 1.000000000 secs` | `1 year 1 day 00:00:01` |
//! | double precision, real | `1.0`, `1e20` | `1`, `1e+20` |
//! | bytea | its bytes | `\xff` |
//! | arrays | `[1, ]` | [`{1,NULL}`](super::array_text) |
//!
//! A timestamp with time zone is shown by the clock of a zone, which is the second argument.

use std::fmt::Write;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Float32Type, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Offset, TimeZone, Timelike};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::array_text::print_arrays;
use crate::error::sqlstate;
use crate::{Error, Result};

static PRINT: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Print { signature: Signature::any(2, Volatility::Immutable) })));

/// Whether a type has a text of its own here.
pub(crate) fn prints(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(..)
            | DataType::Time64(_)
            | DataType::Time32(_)
            | DataType::Interval(IntervalUnit::MonthDayNano)
            | DataType::Float32
            | DataType::Float64
            | DataType::Date32
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::List(_)
    )
}

/// The text of a value whose type [`prints`].
pub(crate) fn text_of(value: Expr, zone: &str) -> Expr {
    PRINT.call(vec![value, lit(zone)])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Print {
    signature: Signature,
}

impl ScalarUDFImpl for Print {
    fn name(&self) -> &str {
        "text_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        // The cast in whose place it stands was known to have no NULLs.
        let nullable = arguments.arg_fields.first().is_none_or(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8View, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [value, ColumnarValue::Scalar(zone)] = arguments.args.as_slice() else {
            return exec_err!("{} takes a value and the name of a time zone", self.name());
        };
        let zone = zone.try_as_str().flatten().unwrap_or("UTC");
        let constant = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(if constant { 1 } else { arguments.number_rows })?;
        let texts = print(&values, zone)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&texts, 0)?),
            false => ColumnarValue::Array(texts),
        })
    }
}

/// The texts of a column whose type [`prints`].
pub(crate) fn print(values: &ArrayRef, zone: &str) -> Result<ArrayRef> {
    let mut texts = StringViewBuilder::with_capacity(values.len());
    let mut text = String::new();
    macro_rules! each {
        ($array:expr, $write:expr) => {{
            for value in $array.iter() {
                match value {
                    Some(value) => {
                        text.clear();
                        $write(&mut text, value)?;
                        texts.append_value(&text);
                    }
                    None => texts.append_null(),
                }
            }
        }};
    }
    match values.data_type() {
        DataType::Float64 => each!(values.as_primitive::<Float64Type>(), write_double),
        DataType::List(_) => return Ok(Arc::new(print_arrays(values.as_list::<i32>(), zone)?)),
        DataType::Float32 => each!(values.as_primitive::<Float32Type>(), write_single),
        DataType::Date32 => each!(values.as_primitive::<Date32Type>(), write_date),
        DataType::Time32(_) | DataType::Time64(_) => {
            let times = cast(values, &DataType::Time64(TimeUnit::Nanosecond))?;
            each!(times.as_primitive::<Time64NanosecondType>(), |text: &mut String, time: i64| -> Result<()> {
                write_time(text, u64::try_from(time).unwrap_or(0));
                Ok(())
            });
        }
        DataType::Timestamp(unit, zoned) => {
            let clock = match zoned {
                Some(_) => Some(Tz::from_str(zone).map_err(|_| {
                    Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("time zone \"{zone}\" not recognized"))
                })?),
                None => None,
            };
            match unit {
                TimeUnit::Nanosecond => {
                    each!(values.as_primitive::<TimestampNanosecondType>(), |text: &mut String, time: i64| {
                        write_timestamp(text, DateTime::from_timestamp_nanos(time).naive_utc(), clock)
                    });
                }
                _ => {
                    let times = cast(values, &DataType::Timestamp(TimeUnit::Microsecond, zoned.clone()))?;
                    each!(times.as_primitive::<TimestampMicrosecondType>(), |text: &mut String, time: i64| {
                        let time = DateTime::from_timestamp_micros(time).ok_or_else(out_of_range)?;
                        write_timestamp(text, time.naive_utc(), clock)
                    });
                }
            }
        }
        DataType::Interval(_) => {
            each!(values.as_primitive::<IntervalMonthDayNanoType>(), |text: &mut String,
                                                                      interval: IntervalMonthDayNano|
             -> Result<()> {
                write_interval(text, interval);
                Ok(())
            })
        }
        _ => {
            let bytes = cast(values, &DataType::BinaryView)?;
            each!(bytes.as_binary_view(), |text: &mut String, bytes: &[u8]| -> Result<()> {
                text.push_str("\\x");
                bytes.iter().for_each(|byte| _ = write!(text, "{byte:02x}"));
                Ok(())
            });
        }
    }
    Ok(Arc::new(texts.finish()))
}

fn out_of_range() -> Error {
    Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range")
}

fn write_double(text: &mut String, value: f64) -> Result<()> {
    write_float(text, value, format!("{value:e}"), 15);
    Ok(())
}

fn write_single(text: &mut String, value: f32) -> Result<()> {
    write_float(text, f64::from(value), format!("{value:e}"), 6);
    Ok(())
}

/// Writes the shortest digits that are this number, with an exponent where it is below -4 or not below `digits`.
fn write_float(text: &mut String, value: f64, shortest: String, digits: i32) {
    if value.is_nan() {
        return text.push_str("NaN");
    }
    if value.is_infinite() {
        return text.push_str(if value < 0.0 { "-Infinity" } else { "Infinity" });
    }
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..digits).contains(&exponent) {
        let significant = mantissa.bytes().filter(u8::is_ascii_digit).count();
        let after_point = usize::try_from(i64::try_from(significant).unwrap_or(0) - 1 - i64::from(exponent));
        _ = write!(text, "{}", Fixed(mantissa, exponent, after_point.unwrap_or(0)));
        return;
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    _ = write!(text, "{mantissa}e{sign}{:02}", exponent.abs());
}

/// A number from the digits of its mantissa, its exponent, and how many digits are after the point.
struct Fixed<'a>(&'a str, i32, usize);

impl std::fmt::Display for Fixed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Fixed(mantissa, exponent, after_point) = self;
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        if mantissa.starts_with('-') {
            f.write_char('-')?;
        }
        let whole = usize::try_from(exponent + 1).unwrap_or(0);
        match (whole, *after_point) {
            (0, places) => write!(f, "0.{digits:0>places$}"),
            (whole, 0) => write!(f, "{digits:0<whole$}"),
            (whole, _) => write!(f, "{}.{}", &digits[..whole], &digits[whole..]),
        }
    }
}

fn write_year_month_day(text: &mut String, date: NaiveDate) {
    let year = date.year();
    let shown = if year > 0 { year } else { 1 - year };
    _ = write!(text, "{shown:04}-{:02}-{:02}", date.month(), date.day());
}

fn write_date(text: &mut String, days: i32) -> Result<()> {
    let date = Date32Type::to_naive_date_opt(days).ok_or_else(out_of_range)?;
    write_year_month_day(text, date);
    if date.year() <= 0 {
        text.push_str(" BC");
    }
    Ok(())
}

/// Hours, minutes, seconds, and what there is of a fraction.
fn write_time(text: &mut String, nanoseconds: u64) {
    let seconds = nanoseconds / 1_000_000_000;
    _ = write!(text, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = nanoseconds % 1_000_000_000;
    if fraction > 0 {
        let digits = format!("{fraction:09}");
        _ = write!(text, ".{}", digits.trim_end_matches('0'));
    }
}

fn write_timestamp(text: &mut String, time: NaiveDateTime, clock: Option<Tz>) -> Result<()> {
    let offset = clock.map(|clock| clock.offset_from_utc_datetime(&time).fix());
    let local = match offset {
        Some(offset) => time.checked_add_offset(offset).ok_or_else(out_of_range)?,
        None => time,
    };
    write_year_month_day(text, local.date());
    text.push(' ');
    let second = u64::from(local.time().num_seconds_from_midnight());
    write_time(text, second * 1_000_000_000 + u64::from(local.nanosecond() % 1_000_000_000));
    if let Some(offset) = offset {
        let seconds = offset.local_minus_utc();
        let sign = if seconds < 0 { '-' } else { '+' };
        let minutes = seconds.abs() / 60;
        _ = write!(text, "{sign}{:02}", minutes / 60);
        if minutes % 60 > 0 {
            _ = write!(text, ":{:02}", minutes % 60);
        }
    }
    if local.year() <= 0 {
        text.push_str(" BC");
    }
    Ok(())
}

/// As `intervalstyle = postgres` has it.
fn write_interval(text: &mut String, interval: IntervalMonthDayNano) {
    let mut after_negative = false;
    let start = text.len();
    let parts = [(interval.months / 12, "year"), (interval.months % 12, "mon"), (interval.days, "day")];
    for (number, unit) in parts {
        if number == 0 {
            continue;
        }
        let space = if text.len() > start { " " } else { "" };
        let plus = if after_negative && number > 0 { "+" } else { "" };
        let plural = if number == 1 { "" } else { "s" };
        _ = write!(text, "{space}{plus}{number} {unit}{plural}");
        after_negative = number < 0;
    }
    if text.len() > start && interval.nanoseconds == 0 {
        return;
    }
    if text.len() > start {
        text.push(' ');
    }
    match interval.nanoseconds {
        ..0 => text.push('-'),
        _ if after_negative => text.push('+'),
        _ => {}
    }
    write_time(text, interval.nanoseconds.unsigned_abs());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_read_as_in_postgresql() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (0.0001, "0.0001"),
            (0.000_012_3, "1.23e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1.5e300, "1.5e+300"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            let mut text = String::new();
            write_double(&mut text, value).unwrap();
            assert_eq!(text, expected);
        }
        let mut text = String::new();
        write_single(&mut text, 1e6).unwrap();
        assert_eq!(text, "1e+06");
    }

    #[test]
    fn intervals_read_as_in_postgresql() {
        let second = 1_000_000_000;
        for (months, days, nanoseconds, expected) in [
            (12, 1, second, "1 year 1 day 00:00:01"),
            (0, 0, 0, "00:00:00"),
            (-14, 3, 0, "-1 years -2 mons +3 days"),
            (0, -1, 2 * 3600 * second, "-1 days +02:00:00"),
            (0, 2, -second / 2, "2 days -00:00:00.5"),
            (0, 0, 100 * 3600 * second, "100:00:00"),
        ] {
            let mut text = String::new();
            write_interval(&mut text, IntervalMonthDayNano::new(months, days, nanoseconds));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn times_read_as_in_postgresql() {
        let time = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").unwrap();
        let zone = |name| Some(Tz::from_str(name).unwrap());
        for (from, clock, expected) in [
            ("2024-01-01 00:00:00.5", None, "2024-01-01 00:00:00.5"),
            ("2024-07-01 00:00:00", zone("UTC"), "2024-07-01 00:00:00+00"),
            ("2024-07-01 00:00:00", zone("America/New_York"), "2024-06-30 20:00:00-04"),
            ("2024-07-01 00:00:00", zone("Asia/Kolkata"), "2024-07-01 05:30:00+05:30"),
            ("-0043-03-15 00:00:00", None, "0044-03-15 00:00:00 BC"),
        ] {
            let mut text = String::new();
            write_timestamp(&mut text, time(from), clock).unwrap();
            assert_eq!(text, expected);
        }
    }
}
