//! Text to values of types whose written form Arrow's casts do not read as PostgreSQL does.
//!
//! | type | Arrow's cast | here |
//! |---|---|---|
//! | interval | words with units | [more forms](super::interval_texts) |
//! | bytea | the text's own bytes | `\xdeadbeef`, and `\\` and `\000` of the escape format |
//! | so many bytes | none | the same; 16 bytes are a UUID |
//! | arrays | an array of the whole text | `{a,"b c",NULL}` |
//! | numeric | no exponents | [also `1.5e-3`](super::numeric_texts) |
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

use super::interval_texts::interval_of;
use super::numeric_texts::written_out;
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
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => true,
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
    if matches!(data_type, DataType::Decimal128(..)) {
        return Ok(cast_with_options(&written_out(texts)?, data_type, &exact)?);
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
