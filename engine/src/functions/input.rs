//! Text to values of types whose written form Arrow's casts do not read as PostgreSQL does.
//!
//! | type | Arrow's cast | here |
//! |---|---|---|
//! | interval | words with units | also `1 day 02:03:04.5`, `1-2`, `P1Y2M`, `3 4:05`, `1 day ago` |
//! | bytea | the text's own bytes | `\xdeadbeef`, and `\\` and `\000` of the escape format |
//! | so many bytes | none | the same; 16 bytes are a UUID |
//! | arrays | an array of the whole text | `{a,"b c",NULL}` |
//! | real, double precision | `1e400` is an infinity, `1e-400` is 0 | they are out of range |
//! | date, time, timestamp | ISO 8601, by UTC | [more forms](super::time_texts), by the clock that is meant |

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, FixedSizeBinaryBuilder, IntervalMonthDayNanoArray, ListArray,
    StringViewArray, StringViewBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, IntervalMonthDayNano, IntervalUnit};
use datafusion::common::{ScalarValue, exec_err, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::time_texts::readable;
use crate::error::sqlstate;
use crate::{Error, Result};

static READ: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(ReadText::new())));

/// Whether casts of text to this type are made here.
pub(crate) fn reads(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(IntervalUnit::MonthDayNano)
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => true,
        data_type if is_time(data_type) => true,
        DataType::Float32 | DataType::Float64 => true,
        DataType::List(element) => !element.data_type().is_nested(),
        _ => false,
    }
}

/// Whether it is one of the types whose constants stay casts, as scans look them up: see [`readable`].
pub(crate) fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(..))
}

/// The cast of a text to a type that [`reads`] knows.
pub(crate) fn cast_of_text(text: Expr, data_type: &DataType) -> DataFusionResult<Expr> {
    Ok(READ.call(vec![text, lit(ScalarValue::try_from(data_type)?)]))
}

/// Casts a column of texts.
pub(crate) fn read_texts(texts: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    if !reads(data_type) {
        return Ok(cast_with_options(texts, data_type, &exact)?);
    }
    let views = cast(texts, &DataType::Utf8View)?;
    let views = views.as_string_view();
    Ok(match data_type {
        data_type if is_time(data_type) => read_times(views, data_type)?,
        DataType::Float32 | DataType::Float64 => read_floats(views, data_type)?,
        DataType::Interval(_) => {
            let intervals: Vec<Option<IntervalMonthDayNano>> =
                views.iter().map(|text| text.map(interval_of).transpose()).collect::<Result<_>>()?;
            Arc::new(IntervalMonthDayNanoArray::from(intervals))
        }
        DataType::List(element) => {
            let (values, offsets) = elements_of(views)?;
            let values: ArrayRef = Arc::new(values);
            let values = read_texts(&values, element.data_type())?;
            let nulls = views.nulls().cloned();
            Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, nulls)?)
        }
        DataType::FixedSizeBinary(length) => {
            let mut bytes = FixedSizeBinaryBuilder::with_capacity(views.len(), *length);
            for text in views.iter() {
                match text {
                    Some(text) => bytes.append_value(fixed_bytes_of(text, *length)?)?,
                    None => bytes.append_null(),
                }
            }
            Arc::new(bytes.finish())
        }
        _ => {
            let mut bytes = BinaryBuilder::with_capacity(views.len(), 0);
            for text in views.iter() {
                bytes.append_option(text.map(bytes_of).transpose()?);
            }
            cast_with_options(&bytes.finish(), data_type, &exact)?
        }
    })
}

/// The same by the clock of a time zone: that of timestamps with time zone whose text names no other.
pub(crate) fn read_texts_by_clock(texts: &ArrayRef, data_type: &DataType, zone: &str) -> Result<ArrayRef> {
    let read_as = match data_type {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some(zone.into())),
        other => other.clone(),
    };
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(&read_texts(texts, &read_as)?, data_type, &exact)?)
}

/// Casts texts to times of any kind.
fn read_times(texts: &StringViewArray, data_type: &DataType) -> Result<ArrayRef> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    // Most files have one form only, which Arrow reads as it stands.
    if texts.iter().flatten().all(|text| readable(text, data_type).is_none()) {
        return Ok(cast_with_options(texts, data_type, &exact)?);
    }
    let mut written = StringViewBuilder::with_capacity(texts.len());
    for text in texts.iter() {
        match text.map(|text| (text, readable(text, data_type))) {
            None => written.append_null(),
            Some((_, Some(changed))) => written.append_value(changed),
            Some((text, None)) => written.append_value(text),
        }
    }
    Ok(cast_with_options(&written.finish(), data_type, &exact)?)
}

/// Casts texts to floats.
fn read_floats(texts: &StringViewArray, data_type: &DataType) -> Result<ArrayRef> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let floats = cast_with_options(texts, data_type, &exact)?;
    let doubles = cast(&floats, &DataType::Float64)?;
    for (text, double) in texts.iter().zip(doubles.as_primitive::<Float64Type>()) {
        if let (Some(text), Some(double)) = (text, double)
            && is_lost(text, double)
        {
            return Err(float_out_of_range(text, data_type));
        }
    }
    Ok(floats)
}

/// Fails if a text is a number that is too large or too small for a float. What is no number at all may pass.
pub(crate) fn check_float(text: &str, data_type: &DataType) -> Result<()> {
    let float = match data_type {
        DataType::Float32 => text.trim().parse::<f32>().map(f64::from),
        _ => text.trim().parse::<f64>(),
    };
    match float {
        Ok(float) if is_lost(text, float) => Err(float_out_of_range(text, data_type)),
        _ => Ok(()),
    }
}

/// Whether digits became an infinity, or other digits than 0 became 0.
fn is_lost(text: &str, float: f64) -> bool {
    if float.is_finite() && float != 0.0 {
        return false;
    }
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    (float.is_infinite() && mantissa.bytes().any(|byte| byte.is_ascii_digit()))
        || (float == 0.0 && mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9')))
}

fn float_out_of_range(text: &str, data_type: &DataType) -> Error {
    let type_name = if *data_type == DataType::Float32 { "real" } else { "double precision" };
    let message = format!("\"{}\" is out of range for type {type_name}", text.trim());
    Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, message)
}

/// `read_text(text, a NULL of the type that is wanted)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct ReadText {
    signature: Signature,
}

impl ReadText {
    fn new() -> Self {
        ReadText { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ReadText {
    fn name(&self) -> &str {
        "read_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            [_, wanted] => Ok(wanted.clone()),
            _ => exec_err!("read_text takes 2 arguments"),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        // The cast in whose place it stands was known to have no NULLs.
        let nullable = arguments.arg_fields.first().is_none_or(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [text, wanted] = take_function_args(self.name(), arguments.args)?;
        Ok(match text {
            ColumnarValue::Scalar(text) => {
                let values = read_texts(&text.to_array()?, &wanted.data_type())?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?)
            }
            text => ColumnarValue::Array(read_texts(&text.to_array(rows)?, &wanted.data_type())?),
        })
    }
}

fn invalid(type_name: &str, text: &str) -> Error {
    Error::new(sqlstate::INVALID_TEXT, format!("invalid input syntax for type {type_name}: \"{text}\""))
}

/// The bytes of a UUID.
pub(super) const UUID_BYTES: i32 = 16;

/// So many bytes: 16 are those of a UUID, in the forms that PostgreSQL reads; any may be hexadecimal digits as of `bytea`, and others
/// than 16 have its escapes as well.
pub(crate) fn fixed_bytes_of(text: &str, length: i32) -> Result<Vec<u8>> {
    let (bytes, type_name) = match length {
        UUID_BYTES if text.starts_with("\\x") => (bytes_of(text).ok(), "uuid".to_owned()),
        UUID_BYTES => (uuid_of(text), "uuid".to_owned()),
        _ => (bytes_of(text).ok(), format!("bytea({length})")),
    };
    let fits = |bytes: &Vec<u8>| i32::try_from(bytes.len()).is_ok_and(|found| found == length);
    bytes.filter(fits).ok_or_else(|| invalid(&type_name, text))
}

/// 32 hexadecimal digits, in braces or not, with or without a dash after any four of them.
fn uuid_of(text: &str) -> Option<Vec<u8>> {
    let mut rest = match text.strip_prefix('{') {
        Some(inside) => inside.strip_suffix('}')?,
        None => text,
    }
    .as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(16);
    while let [high, low, after @ ..] = rest {
        bytes.push(digit(*high)? << 4 | digit(*low)?);
        rest = match after {
            [b'-', more @ ..] if bytes.len() % 2 == 0 && !more.is_empty() => more,
            _ => after,
        };
    }
    rest.is_empty().then_some(bytes)
}

/// `bytea`, in hexadecimal digits or with escapes.
pub(crate) fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    if let Some(digits) = text.strip_prefix("\\x") {
        let mut digits = digits.chars().filter(|letter| !letter.is_ascii_whitespace());
        while let Some(high) = digits.next() {
            let value = |digit: char| {
                digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or_else(|| {
                    Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("invalid hexadecimal digit: \"{digit}\""))
                })
            };
            let odd =
                || Error::new(sqlstate::INVALID_PARAMETER_VALUE, "invalid hexadecimal data: odd number of digits");
            let low = digits.next().ok_or_else(odd)?;
            bytes.push(value(high)? << 4 | value(low)?);
        }
        return Ok(bytes);
    }
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (value, after) = match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            (b'\\', _) => return Err(invalid("bytea", text)),
            (byte, after) => (byte, after),
        };
        bytes.push(value);
        rest = after;
    }
    Ok(bytes)
}

/// The elements of array literals, and where each array begins.
fn elements_of(texts: &StringViewArray) -> Result<(StringViewArray, OffsetBuffer<i32>)> {
    let mut values = StringViewBuilder::new();
    let mut lengths = Vec::with_capacity(texts.len());
    for text in texts.iter() {
        let elements = text.map(elements).transpose()?.unwrap_or_default();
        lengths.push(elements.len());
        for element in elements {
            values.append_option(element);
        }
    }
    Ok((values.finish(), OffsetBuffer::from_lengths(lengths)))
}

/// The elements of one array literal of one dimension.
pub(crate) fn elements(text: &str) -> Result<Vec<Option<String>>> {
    let malformed = |detail: &str| {
        Error::new(sqlstate::INVALID_TEXT, format!("malformed array literal: \"{text}\"")).with_detail(detail)
    };
    let inner = text.trim().strip_prefix('{').ok_or_else(|| malformed("An array literal begins with \"{\"."))?;
    let inner = inner.strip_suffix('}').ok_or_else(|| malformed("An array literal ends with \"}\"."))?;
    let mut elements = Vec::new();
    if inner.trim().is_empty() {
        return Ok(elements);
    }
    let mut letters = inner.chars().peekable();
    loop {
        let (mut element, mut quoted, mut kept) = (String::new(), false, 0);
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        loop {
            match letters.next_if(|letter| *letter != ',') {
                None => break,
                Some('{') => return Err(Error::unsupported("an array literal of several dimensions")),
                Some('}') => return Err(malformed("Unexpected \"}\".")),
                Some('"') => {
                    quoted = true;
                    loop {
                        match letters.next() {
                            Some('"') => break,
                            Some('\\') => element.extend(letters.next()),
                            Some(letter) => element.push(letter),
                            None => return Err(malformed("A quote is not closed.")),
                        }
                    }
                    kept = element.len();
                }
                Some('\\') => {
                    element.extend(letters.next());
                    kept = element.len();
                }
                Some(letter) => element.push(letter),
            }
        }
        let ends = element.trim_end().len().max(kept);
        element.truncate(ends);
        match (quoted, element.as_str()) {
            (false, "") => return Err(malformed("An element is missing.")),
            (false, word) if word.eq_ignore_ascii_case("null") => elements.push(None),
            _ => elements.push(Some(element)),
        }
        match letters.next() {
            Some(',') => {}
            _ => return Ok(elements),
        }
    }
}

/// An interval in any of PostgreSQL's written forms.
pub(crate) fn interval_of(text: &str) -> Result<IntervalMonthDayNano> {
    parse_interval(text).ok_or_else(|| {
        Error::new(sqlstate::INVALID_DATETIME, format!("invalid input syntax for type interval: \"{text}\""))
    })
}

const SECOND: f64 = 1e6;
const DAY: f64 = 86_400.0 * SECOND;

/// Months, days and microseconds, added up.
#[derive(Debug, Default)]
struct Sum {
    months: f64,
    days: f64,
    microseconds: f64,
}

impl Sum {
    /// Adds so many of a unit; what is no whole month becomes days, what is no whole day becomes time.
    fn add(&mut self, number: f64, unit: &str) -> Option<()> {
        let months = match unit {
            "y" | "yr" | "yrs" | "year" | "years" => 12.0,
            "mon" | "mons" | "month" | "months" => 1.0,
            "dec" | "decs" | "decade" | "decades" => 120.0,
            "c" | "cent" | "century" | "centuries" => 1_200.0,
            "mil" | "mils" | "millennium" | "millennia" => 12_000.0,
            _ => 0.0,
        };
        if months > 0.0 {
            let whole = (number * months).trunc();
            self.months += whole;
            // Of years and longer, PostgreSQL rounds to months.
            match months > 1.0 {
                true => self.months += (number * months - whole).round(),
                false => self.add_days((number - whole) * 30.0),
            }
            return Some(());
        }
        let days = match unit {
            "w" | "week" | "weeks" => 7.0,
            "d" | "day" | "days" => 1.0,
            _ => 0.0,
        };
        if days > 0.0 {
            self.add_days(number * days);
            return Some(());
        }
        let microseconds = match unit {
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0 * SECOND,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0 * SECOND,
            "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 1e3,
            "us" | "usec" | "usecs" | "microsecond" | "microseconds" => 1.0,
            _ => return None,
        };
        self.microseconds += (number * microseconds).round();
        Some(())
    }

    fn add_days(&mut self, days: f64) {
        self.days += days.trunc();
        self.microseconds += (days.fract() * DAY).round();
    }

    fn finish(self, sign: f64) -> Option<IntervalMonthDayNano> {
        let whole = |number: f64, limit: f64| (number.abs() <= limit).then_some(number * sign);
        let months = whole(self.months, f64::from(i32::MAX))? as i32;
        let days = whole(self.days, f64::from(i32::MAX))? as i32;
        let microseconds = whole(self.microseconds, (i64::MAX / 1_000) as f64)? as i64;
        Some(IntervalMonthDayNano::new(months, days, microseconds.checked_mul(1_000)?))
    }
}

fn parse_interval(text: &str) -> Option<IntervalMonthDayNano> {
    let text = text.trim().to_ascii_lowercase();
    if let Some(iso) = text.strip_prefix('p') {
        return parse_iso(iso);
    }
    let mut words: Vec<&str> = text.trim_start_matches('@').split_whitespace().collect();
    let ago = words.last() == Some(&"ago");
    if ago {
        words.pop();
    }
    let mut sum = Sum::default();
    let mut words = words.into_iter().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        let digits = word.trim_start_matches(['-', '+']);
        if word.contains(':') {
            add_time(&mut sum, word)?;
        } else if let Some((years, months)) = digits.split_once('-') {
            let sign = if word.starts_with('-') { -1.0 } else { 1.0 };
            sum.months += sign
                * (12.0 * years.parse::<u32>().ok().map(f64::from)? + months.parse::<u32>().ok().map(f64::from)?);
        } else {
            let end = digits.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(digits.len());
            let (number, unit) = word.split_at(word.len() - digits.len() + end);
            let number = number.parse::<f64>().ok()?;
            let unit = match (unit, words.peek()) {
                ("", Some(time)) if time.contains(':') => "days",
                ("", Some(_)) => words.next()?.trim_end_matches(','),
                ("", None) => "seconds",
                (unit, _) => unit,
            };
            sum.add(number, unit)?;
        }
    }
    sum.finish(if ago { -1.0 } else { 1.0 })
}

/// `[-]H:M[:S]`; with a point in the second part, `M:S`.
fn add_time(sum: &mut Sum, word: &str) -> Option<()> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    let sign = if word.starts_with('-') { -1.0 } else { 1.0 };
    let parts: Vec<&str> = digits.split(':').collect();
    let units: &[f64] = match parts.as_slice() {
        [_, seconds] if seconds.contains('.') => &[60.0, 1.0],
        [_, _] => &[3_600.0, 60.0],
        [_, _, _] => &[3_600.0, 60.0, 1.0],
        _ => return None,
    };
    for (place, (part, unit)) in parts.iter().zip(units).enumerate() {
        let plain = part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number = part.parse::<f64>().ok().filter(|number| plain && (place == 0 || *number < 61.0))?;
        sum.microseconds += sign * (number * unit * SECOND).round();
    }
    Some(())
}

/// `1Y2M3DT4H5M6S`, what follows the P.
fn parse_iso(text: &str) -> Option<IntervalMonthDayNano> {
    let mut sum = Sum::default();
    let (mut rest, mut in_time, mut found) = (text, false, false);
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('t').filter(|_| !in_time) {
            (rest, in_time) = (time, true);
            continue;
        }
        let end = rest.find(|letter: char| letter.is_ascii_alphabetic())?;
        let number = rest[..end].parse::<f64>().ok()?;
        let unit = match (&rest[end..=end], in_time) {
            ("y", false) => "years",
            ("m", false) => "months",
            ("w", false) => "weeks",
            ("d", false) => "days",
            ("h", true) => "hours",
            ("m", true) => "minutes",
            ("s", true) => "seconds",
            _ => return None,
        };
        sum.add(number, unit)?;
        (rest, found) = (&rest[end + 1..], true);
    }
    if found { sum.finish(1.0) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_floats_are_out_of_range() {
        for (text, double, real) in [
            ("1e400", false, false),
            ("-1e400", false, false),
            ("1e-400", false, false),
            ("1e40", true, false),
            ("1e-60", true, false),
            ("0e-400", true, true),
            ("Infinity", true, true),
            (" 1.5 ", true, true),
        ] {
            for (data_type, fits) in [(DataType::Float64, double), (DataType::Float32, real)] {
                let texts: ArrayRef = Arc::new(StringViewArray::from(vec![Some(text), None]));
                let read = read_texts(&texts, &data_type).map_err(|error| error.sqlstate().to_owned());
                assert_eq!(read.as_ref().err().map(String::as_str), (!fits).then_some("22003"), "{text} {data_type}");
                assert_eq!(check_float(text, &data_type).is_ok(), fits, "{text} {data_type}");
            }
        }
    }

    #[test]
    fn intervals_are_read_in_all_forms() {
        let second = 1_000_000_000;
        for (text, expected) in [
            ("1 day 02:03:04.5", (0, 1, 7_384 * second + second / 2)),
            ("-01:30", (0, 0, -5_400 * second)),
            ("1-2", (14, 0, 0)),
            ("P1Y2M3DT4H", (14, 3, 14_400 * second)),
            ("3 4:05", (0, 3, 14_700 * second)),
            ("1 day ago", (0, -1, 0)),
            ("1.5 months", (1, 15, 0)),
            ("1 year 2 mons -3 days", (14, -3, 0)),
            ("2h", (0, 0, 7_200 * second)),
            ("10", (0, 0, 10 * second)),
        ] {
            let read = interval_of(text).unwrap();
            assert_eq!((read.months, read.days, read.nanoseconds), expected, "{text}");
        }
        for text in ["", "day", "1 foo", "1:2:3:4", "p", "1--2"] {
            assert_eq!(interval_of(text).unwrap_err().sqlstate(), "22007", "{text}");
        }
    }

    #[test]
    fn bytes_are_read_from_both_formats() {
        assert_eq!(bytes_of("\\xDEad be").unwrap(), [0xde, 0xad, 0xbe]);
        assert_eq!(bytes_of("a\\\\b\\001").unwrap(), b"a\\b\x01");
        for text in ["\\xf", "\\xzz", "\\9"] {
            assert!(bytes_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uuids_are_read_as_in_postgresql() {
        let uuid: Vec<u8> = (0..16).map(|byte| byte << 4 | byte).collect();
        for text in [
            "00112233-4455-6677-8899-aabbccddeeff",
            "00112233445566778899AABBCCDDEEFF",
            "{00112233-44556677-8899aabb-ccddeeff}",
            "0011-2233-4455-6677-8899-aabb-ccdd-eeff",
            "\\x00112233445566778899aabbccddeeff",
        ] {
            assert_eq!(fixed_bytes_of(text, 16).unwrap(), uuid, "{text}");
        }
        for text in [
            "",
            "abc",
            "0123456789abcdef",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeff0",
            "00112233-4455-6677-8899-aabbccddeeff-",
            "{00112233-4455-6677-8899-aabbccddeeff",
            "00-112233-4455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeegg",
            "\\x0011",
        ] {
            assert_eq!(fixed_bytes_of(text, 16).unwrap_err().sqlstate(), "22P02", "{text}");
        }
        assert_eq!(fixed_bytes_of("abcd", 4).unwrap(), b"abcd");
        assert_eq!(fixed_bytes_of("abc", 4).unwrap_err().sqlstate(), "22P02");
    }

    #[test]
    fn array_literals_are_taken_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert!(elements("{}").unwrap().is_empty());
        assert_eq!(elements("{a, b}").unwrap(), [some("a"), some("b")]);
        assert_eq!(elements(r#"{"a,b",NULL,"null","x\"y"}"#).unwrap(), [some("a,b"), None, some("null"), some("x\"y")]);
        for text in ["a", "{a", "{a,}", "{,a}", "{\"a}"] {
            assert_eq!(elements(text).unwrap_err().sqlstate(), "22P02", "{text}");
        }
        assert_eq!(elements("{{1},{2}}").unwrap_err().sqlstate(), "0A000");
    }
}
