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
//! | so many bytes | none | the same; 16 bytes are a UUID |
//! | arrays | `[1, ]` | [`{1,NULL}`](super::array_text) |
//! | rows | none | [`(1,)`](super::row_text) |
//!
//! A timestamp with time zone is shown by the clock of a zone, which is the second argument. Years are counted here: PostgreSQL
//! has more of them than chrono, and Arrow's casts make NULL of what they have no text for.

use std::fmt::Write;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Float32Type, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::array_text::print_arrays;
use super::input::UUID_BYTES;
use super::row_text::{has_text, print_rows};
use crate::error::sqlstate;
use crate::{Error, Result};

/// The last years that PostgreSQL has.
const DATE_YEAR_MAX: i64 = 5_874_897;
const TIMESTAMP_YEAR_MAX: i64 = 294_276;

/// The days of 400 years.
const CYCLE_DAYS: i64 = 146_097;
/// From the first of March of the year 0.
const DAYS_BEFORE_1970: i64 = 719_468;
const DAY_SECONDS: i64 = 86_400;
/// Those of a second.
const NANOSECONDS: i64 = 1_000_000_000;

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
            | DataType::FixedSizeBinary(_)
            | DataType::List(_)
    ) || (matches!(data_type, DataType::Struct(_)) && has_text(data_type))
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
        DataType::Struct(_) => return Ok(Arc::new(print_rows(values.as_struct(), zone)?)),
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
            let per_second = match unit {
                TimeUnit::Second => 1,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond => 1_000_000,
                TimeUnit::Nanosecond => NANOSECONDS,
            };
            let write = |text: &mut String, time: i64| {
                let nanoseconds = time.rem_euclid(per_second) * (NANOSECONDS / per_second);
                write_timestamp(text, time.div_euclid(per_second), nanoseconds, clock)
            };
            match unit {
                TimeUnit::Second => each!(values.as_primitive::<TimestampSecondType>(), write),
                TimeUnit::Millisecond => each!(values.as_primitive::<TimestampMillisecondType>(), write),
                TimeUnit::Microsecond => each!(values.as_primitive::<TimestampMicrosecondType>(), write),
                TimeUnit::Nanosecond => each!(values.as_primitive::<TimestampNanosecondType>(), write),
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
        DataType::FixedSizeBinary(UUID_BYTES) => each!(values.as_fixed_size_binary(), write_uuid),
        DataType::FixedSizeBinary(_) => each!(values.as_fixed_size_binary(), write_bytes),
        _ => {
            let bytes = cast(values, &DataType::BinaryView)?;
            each!(bytes.as_binary_view(), write_bytes);
        }
    }
    Ok(Arc::new(texts.finish()))
}

fn out_of_range(what: &str) -> Error {
    Error::new(sqlstate::DATETIME_OVERFLOW, format!("{what} out of range"))
}

fn write_bytes(text: &mut String, bytes: &[u8]) -> Result<()> {
    text.push_str("\\x");
    bytes.iter().for_each(|byte| _ = write!(text, "{byte:02x}"));
    Ok(())
}

/// Hexadecimal digits in groups of eight, four, four, four and twelve.
fn write_uuid(text: &mut String, bytes: &[u8]) -> Result<()> {
    for (place, byte) in bytes.iter().enumerate() {
        let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
        _ = write!(text, "{dash}{byte:02x}");
    }
    Ok(())
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

/// A day of the Gregorian calendar, also of the years before it.
struct Day {
    /// 0 is the year 1 BC.
    year: i64,
    month: i64,
    day: i64,
}

impl Day {
    /// From the days since the first of 1970. In years that begin in March the day that some of them have more is their last
    /// (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    fn new(days: i64) -> Self {
        let days = days + DAYS_BEFORE_1970;
        let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let (is_next, day) = (month >= 10, day - (153 * month + 2) / 5 + 1);
        let month = if is_next { month - 9 } else { month + 3 };
        Day { year: 400 * cycle + year + i64::from(is_next), month, day }
    }

    /// Writes it without its era, if its year is not beyond that one. Of years before those that chrono has PostgreSQL has none.
    fn write(&self, text: &mut String, year_max: i64) -> Option<()> {
        if !(i64::from(NaiveDate::MIN.year())..=year_max).contains(&self.year) {
            return None;
        }
        let shown = if self.year > 0 { self.year } else { 1 - self.year };
        _ = write!(text, "{shown:04}-{:02}-{:02}", self.month, self.day);
        Some(())
    }

    fn write_era(&self, text: &mut String) {
        if self.year <= 0 {
            text.push_str(" BC");
        }
    }
}

fn write_date(text: &mut String, days: i32) -> Result<()> {
    let day = Day::new(i64::from(days));
    day.write(text, DATE_YEAR_MAX).ok_or_else(|| out_of_range("date"))?;
    day.write_era(text);
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

/// `seconds`: since the beginning of 1970, by UTC.
fn write_timestamp(text: &mut String, seconds: i64, nanoseconds: i64, clock: Option<Tz>) -> Result<()> {
    let offset = clock.map(|clock| offset_at(clock, seconds));
    let local = seconds.saturating_add(i64::from(offset.unwrap_or(0)));
    let day = Day::new(local.div_euclid(DAY_SECONDS));
    day.write(text, TIMESTAMP_YEAR_MAX).ok_or_else(|| out_of_range("timestamp"))?;
    text.push(' ');
    write_time(text, (local.rem_euclid(DAY_SECONDS) * NANOSECONDS + nanoseconds).unsigned_abs());
    if let Some(seconds) = offset {
        let sign = if seconds < 0 { '-' } else { '+' };
        let minutes = seconds.abs() / 60;
        _ = write!(text, "{sign}{:02}", minutes / 60);
        if minutes % 60 > 0 {
            _ = write!(text, ":{:02}", minutes % 60);
        }
    }
    day.write_era(text);
    Ok(())
}

/// How many seconds a clock is ahead of UTC. In years that chrono has not it is as in one of those that it has: the calendar
/// repeats itself.
fn offset_at(clock: Tz, seconds: i64) -> i32 {
    const CYCLE_SECONDS: i64 = CYCLE_DAYS * DAY_SECONDS;
    let in_cycle = || DateTime::from_timestamp(CYCLE_SECONDS + seconds.rem_euclid(CYCLE_SECONDS), 0);
    let moment = DateTime::from_timestamp(seconds, 0).or_else(in_cycle).unwrap_or_default();
    clock.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc()
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
    use chrono::NaiveDateTime;

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
        let time = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").unwrap().and_utc();
        let zone = |name| Some(Tz::from_str(name).unwrap());
        for (from, clock, expected) in [
            ("2024-01-01 00:00:00.5", None, "2024-01-01 00:00:00.5"),
            ("2024-07-01 00:00:00", zone("UTC"), "2024-07-01 00:00:00+00"),
            ("2024-07-01 00:00:00", zone("America/New_York"), "2024-06-30 20:00:00-04"),
            ("2024-07-01 00:00:00", zone("Asia/Kolkata"), "2024-07-01 05:30:00+05:30"),
            ("-0043-03-15 00:00:00", None, "0044-03-15 00:00:00 BC"),
        ] {
            let (mut text, time) = (String::new(), time(from));
            write_timestamp(&mut text, time.timestamp(), i64::from(time.timestamp_subsec_nanos()), clock).unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        // All of a cycle around 1970, and some of each century that chrono has.
        let some = (-95_000_000..95_000_000).step_by(36_000);
        for days in (-80_000..80_000).chain(some) {
            let expected = Date32Type::to_naive_date_opt(days).unwrap();
            let day = Day::new(i64::from(days));
            let expected = (i64::from(expected.year()), i64::from(expected.month()), i64::from(expected.day()));
            assert_eq!((day.year, day.month, day.day), expected, "{days}");
        }
    }

    #[test]
    fn years_that_chrono_has_not_are_shown_as_far_as_postgresql_has_them() {
        let date = |days: i32| {
            let mut text = String::new();
            write_date(&mut text, days).map(|()| text)
        };
        assert_eq!(date(95_026_236).unwrap(), "262142-12-31");
        assert_eq!(date(95_026_237).unwrap(), "262143-01-01");
        assert_eq!(date(2_145_042_905).unwrap(), "5874897-12-31");
        for days in [2_145_042_906, i32::MAX, i32::MIN] {
            assert_eq!(date(days).unwrap_err().sqlstate(), "22008", "{days}");
        }
        let timestamp = |seconds: i64, zone: Option<&str>| {
            let mut text = String::new();
            let clock = zone.map(|zone| Tz::from_str(zone).unwrap());
            write_timestamp(&mut text, seconds, 0, clock).map(|()| text)
        };
        for (zone, expected) in [
            (None, "294247-01-10 04:00:54"),
            (Some("UTC"), "294247-01-10 04:00:54+00"),
            (Some("Asia/Tokyo"), "294247-01-10 13:00:54+09"),
        ] {
            assert_eq!(timestamp(i64::MAX / 1_000_000, zone).unwrap(), expected);
        }
        for seconds in [i64::MAX, i64::MIN, i64::MIN / 1_000_000] {
            assert_eq!(timestamp(seconds, Some("Asia/Tokyo")).unwrap_err().sqlstate(), "22008", "{seconds}");
        }
    }
}
