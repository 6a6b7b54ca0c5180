//! Functions of bytea that DataFusion lacks, or has for texts only.
//!
//! | function | what it gives |
//! |---|---|
//! | `get_byte(b, n)`, `get_bit(b, n)` | one of them, counted from 0 |
//! | `set_byte(b, n, value)`, `set_bit(b, n, value)` | the bytes with another in its place |
//! | `bit_count(b)` | how many bits are set |
//! | `encode(b, format)`, `decode(text, format)` | `hex`, `base64` and `escape`, as [`super::encodings`] has them |
//! | `convert_from(b, encoding)`, `convert_to(text, encoding)` | of UTF8 and LATIN1 |
//!
//! What is called as functions of texts are ([`super::widened`]) becomes one of [`of_bytes`]: `substr`, `strpos`, and those
//! that trim.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::{ByRows, integer_of, is_text, text, text_of};
use super::encodings::{Charset, decoded, encoded};
use super::widened::is_bytea;
use crate::error::sqlstate;
use crate::{Error, Result};

/// The functions that calls with bytes become, by the names of those of texts.
static OF_BYTES: LazyLock<Vec<(&'static str, Arc<ScalarUDF>)>> = LazyLock::new(|| {
    let two_or_three: Takes = |types| match types {
        [bytes, rest @ ..] if is_bytes(bytes) && (1..=2).contains(&rest.len()) && rest.iter().all(is_integer) => {
            Some(std::iter::once(BYTES).chain(rest.iter().map(|_| DataType::Int64)).collect())
        }
        _ => None,
    };
    let both: Takes = |types| (types.len() == 2 && types.iter().all(is_bytes)).then(|| vec![BYTES; 2]);
    let functions = [
        ("substr", own("byte_substr", two_or_three, BYTES_RESULT, substr)),
        ("strpos", own("byte_strpos", both, INTEGER_RESULT, strpos)),
        ("btrim", own("byte_btrim", both, BYTES_RESULT, |values| trim(values, true, true))),
        ("ltrim", own("byte_ltrim", both, BYTES_RESULT, |values| trim(values, true, false))),
        ("rtrim", own("byte_rtrim", both, BYTES_RESULT, |values| trim(values, false, true))),
    ];
    functions.into_iter().map(|(name, function)| (name, function.function())).collect()
});

/// The function of bytes that is called as one of texts.
pub(crate) fn of_bytes(function: &str) -> Option<&'static Arc<ScalarUDF>> {
    OF_BYTES.iter().find(|(name, _)| *name == function).map(|(_, own)| own)
}

type Takes = fn(&[DataType]) -> Option<Vec<DataType>>;

const BYTES: DataType = DataType::BinaryView;
const BYTES_RESULT: fn(&[DataType]) -> DataType = |_| BYTES;
const INTEGER_RESULT: fn(&[DataType]) -> DataType = |_| DataType::Int32;
const TEXT_RESULT: fn(&[DataType]) -> DataType = |_| DataType::Utf8View;

fn own(
    name: &'static str,
    takes: Takes,
    gives: fn(&[DataType]) -> DataType,
    compute: fn(&[ScalarValue]) -> Result<ScalarValue>,
) -> ByRows {
    ByRows { name, volatility: Volatility::Immutable, strict: true, takes, gives, compute }
}

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let with_place: Takes = |types| match types {
        [bytes, place] if is_bytes(bytes) && is_integer(place) => Some(vec![BYTES, DataType::Int64]),
        _ => None,
    };
    let with_value: Takes = |types| match types {
        [bytes, place, value] if is_bytes(bytes) && is_integer(place) && is_integer(value) => {
            Some(vec![BYTES, DataType::Int64, DataType::Int64])
        }
        _ => None,
    };
    let alone: Takes = |types| (types.len() == 1 && types.iter().all(is_bytes)).then(|| vec![BYTES]);
    let bytes_and_name: Takes = |types| match types {
        [bytes, name] if is_bytes(bytes) && is_text(name) => Some(vec![BYTES, DataType::Utf8View]),
        _ => None,
    };
    let two_texts: Takes = |types| (types.len() == 2 && types.iter().all(is_text)).then(|| vec![DataType::Utf8View; 2]);
    [
        own("get_byte", with_place, INTEGER_RESULT, get_byte),
        own("set_byte", with_value, BYTES_RESULT, set_byte),
        own("get_bit", with_place, INTEGER_RESULT, get_bit),
        own("set_bit", with_value, BYTES_RESULT, set_bit),
        own("bit_count", alone, |_| DataType::Int64, bit_count),
        own("encode", bytes_and_name, TEXT_RESULT, |values| {
            Ok(text(encoded(bytes_in(&values[0])?, text_of(&values[1])?)?))
        }),
        own("decode", two_texts, BYTES_RESULT, |values| {
            Ok(bytes(decoded(text_of(&values[0])?, text_of(&values[1])?)?))
        }),
        own("convert_from", bytes_and_name, TEXT_RESULT, |values| {
            let charset = Charset::named(text_of(&values[1])?, "source")?;
            Ok(text(charset.text_of(bytes_in(&values[0])?)?))
        }),
        own("convert_to", two_texts, BYTES_RESULT, |values| {
            let charset = Charset::named(text_of(&values[1])?, "destination")?;
            Ok(bytes(charset.bytes_of(text_of(&values[0])?)?))
        }),
    ]
    .into_iter()
    .map(ByRows::function)
    .collect()
}

/// Whether an argument is bytes, or can be read as such: the cast of a text to bytea reads it.
fn is_bytes(data_type: &DataType) -> bool {
    is_bytea(data_type) || is_text(data_type)
}

fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_null()
}

fn bytes(bytes: Vec<u8>) -> ScalarValue {
    ScalarValue::BinaryView(Some(bytes))
}

fn bytes_in(value: &ScalarValue) -> Result<&[u8]> {
    match value {
        ScalarValue::BinaryView(Some(bytes)) => Ok(bytes),
        _ => Err(Error::internal("bytes were expected")),
    }
}

/// The place of a byte or bit, which must be one of so many.
fn place_of(value: &ScalarValue, count: usize) -> Result<usize> {
    let place = integer_of(value)?;
    usize::try_from(place).ok().filter(|place| *place < count).ok_or_else(|| {
        let last = i64::try_from(count).unwrap_or(i64::MAX) - 1;
        Error::new(sqlstate::ARRAY_SUBSCRIPT, format!("index {place} out of valid range, 0..{last}"))
    })
}

fn get_byte(values: &[ScalarValue]) -> Result<ScalarValue> {
    let bytes = bytes_in(&values[0])?;
    let place = place_of(&values[1], bytes.len())?;
    Ok(ScalarValue::Int32(Some(bytes[place].into())))
}

fn set_byte(values: &[ScalarValue]) -> Result<ScalarValue> {
    let mut changed = bytes_in(&values[0])?.to_vec();
    let place = place_of(&values[1], changed.len())?;
    // Of a larger number its lowest byte.
    changed[place] = integer_of(&values[2])?.to_le_bytes()[0];
    Ok(bytes(changed))
}

fn get_bit(values: &[ScalarValue]) -> Result<ScalarValue> {
    let bytes = bytes_in(&values[0])?;
    let place = place_of(&values[1], bytes.len().saturating_mul(8))?;
    Ok(ScalarValue::Int32(Some((bytes[place / 8] >> (place % 8) & 1).into())))
}

fn set_bit(values: &[ScalarValue]) -> Result<ScalarValue> {
    let mut changed = bytes_in(&values[0])?.to_vec();
    let place = place_of(&values[1], changed.len().saturating_mul(8))?;
    let mask = 1_u8 << (place % 8);
    match integer_of(&values[2])? {
        0 => changed[place / 8] &= !mask,
        1 => changed[place / 8] |= mask,
        _ => return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "new bit must be 0 or 1")),
    }
    Ok(bytes(changed))
}

fn bit_count(values: &[ScalarValue]) -> Result<ScalarValue> {
    let set: i64 = bytes_in(&values[0])?.iter().map(|byte| i64::from(byte.count_ones())).sum();
    Ok(ScalarValue::Int64(Some(set)))
}

/// Places are counted from 1; what is asked for before the first counts as well.
fn substr(values: &[ScalarValue]) -> Result<ScalarValue> {
    let whole = bytes_in(&values[0])?;
    let start = integer_of(&values[1])?;
    let end = match values.get(2).map(integer_of).transpose()? {
        Some(length) if length < 0 => {
            return Err(Error::new(sqlstate::INVALID_SUBSTRING, "negative substring length not allowed"));
        }
        Some(length) => start.saturating_add(length),
        None => i64::MAX,
    };
    let within = |place: i64| usize::try_from(place.max(1) - 1).unwrap_or(usize::MAX).min(whole.len());
    let (start, end) = (within(start), within(end));
    Ok(bytes(whole[start..end.max(start)].to_vec()))
}

fn strpos(values: &[ScalarValue]) -> Result<ScalarValue> {
    let (whole, part) = (bytes_in(&values[0])?, bytes_in(&values[1])?);
    let found = match part.is_empty() {
        true => Some(0),
        false => whole.windows(part.len()).position(|window| window == part),
    };
    let place = found.map_or(0, |before| i32::try_from(before + 1).unwrap_or(i32::MAX));
    Ok(ScalarValue::Int32(Some(place)))
}

fn trim(values: &[ScalarValue], at_start: bool, at_end: bool) -> Result<ScalarValue> {
    let (mut rest, unwanted) = (bytes_in(&values[0])?, bytes_in(&values[1])?);
    while let Some((_, after)) = rest.split_first().filter(|(first, _)| at_start && unwanted.contains(first)) {
        rest = after;
    }
    while let Some((_, before)) = rest.split_last().filter(|(last, _)| at_end && unwanted.contains(last)) {
        rest = before;
    }
    Ok(bytes(rest.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &[u8]) -> ScalarValue {
        bytes(value.to_vec())
    }

    fn number(value: i64) -> ScalarValue {
        ScalarValue::Int64(Some(value))
    }

    #[test]
    fn parts_are_counted_from_one() {
        let cases: [(Vec<ScalarValue>, &[u8]); 6] = [
            (vec![number(2)], b"bc"),
            (vec![number(2), number(1)], b"b"),
            (vec![number(-1), number(3)], b"a"),
            (vec![number(0), number(1)], b""),
            (vec![number(9)], b""),
            (vec![number(1), number(i64::MAX)], b"abc"),
        ];
        for (arguments, expected) in cases {
            let values = [vec![of(b"abc")], arguments].concat();
            assert_eq!(substr(&values).unwrap(), of(expected), "{values:?}");
        }
        assert_eq!(substr(&[of(b"abc"), number(1), number(-1)]).unwrap_err().sqlstate(), "22011");
        assert_eq!(strpos(&[of(b"abc"), of(b"c")]).unwrap(), ScalarValue::Int32(Some(3)));
        assert_eq!(strpos(&[of(b"abc"), of(b"")]).unwrap(), ScalarValue::Int32(Some(1)));
        assert_eq!(strpos(&[of(b"abc"), of(b"abcd")]).unwrap(), ScalarValue::Int32(Some(0)));
    }

    #[test]
    fn bits_are_counted_from_the_lowest_of_a_byte() {
        assert_eq!(get_bit(&[of(b"\x00\x01"), number(8)]).unwrap(), ScalarValue::Int32(Some(1)));
        assert_eq!(set_bit(&[of(b"\x00"), number(3), number(1)]).unwrap(), of(b"\x08"));
        assert_eq!(set_byte(&[of(b"ab"), number(1), number(255)]).unwrap(), of(b"a\xff"));
        assert_eq!(get_byte(&[of(b"a"), number(1)]).unwrap_err().sqlstate(), "2202E");
        assert_eq!(get_byte(&[of(b""), number(0)]).unwrap_err().message(), "index 0 out of valid range, 0..-1");
    }

    #[test]
    fn unwanted_bytes_are_taken_from_the_ends() {
        assert_eq!(trim(&[of(b"xayx"), of(b"xy")], true, true).unwrap(), of(b"a"));
        assert_eq!(trim(&[of(b"xayx"), of(b"xy")], true, false).unwrap(), of(b"ayx"));
        assert_eq!(trim(&[of(b"xx"), of(b"x")], false, true).unwrap(), of(b""));
    }
}
