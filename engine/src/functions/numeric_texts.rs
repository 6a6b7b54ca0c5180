//! `1.5e-3` as a numeric: numbers with an exponent, as programs write very large and very small ones, written out with all
//! their digits. Arrow's casts read only those.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::Result;

/// No numeric has more digits, before or behind the point.
const DIGITS: u32 = 76;

/// The number without its exponent; `None` if it has none, or is no number.
pub(crate) fn without_exponent(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.trim().split_once(['e', 'E'])?;
    let exponent = exponent.parse::<i32>().ok().filter(|exponent| exponent.unsigned_abs() <= DIGITS)?;
    let (sign, number) = match mantissa.strip_prefix('-') {
        Some(number) => ("-", number),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent);
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    let length = i64::try_from(digits.len()).ok()?;
    Some(match usize::try_from(point) {
        Ok(place) if place > 0 && point < length => format!("{sign}{}.{}", &digits[..place], &digits[place..]),
        Ok(place) if place > 0 => format!("{sign}{digits}{}", zeros(point - length)),
        _ => format!("{sign}0.{}{digits}", zeros(-point)),
    })
}

/// A column of texts in which no number has an exponent; mostly the same.
pub(super) fn written_out(texts: &ArrayRef) -> Result<ArrayRef> {
    let views = cast(texts, &DataType::Utf8View)?;
    let views = views.as_string_view();
    if views.iter().flatten().all(|text| without_exponent(text).is_none()) {
        return Ok(Arc::clone(texts));
    }
    let plain = |text| without_exponent(text).map_or(Cow::Borrowed(text), Cow::Owned);
    Ok(Arc::new(views.iter().map(|text| text.map(plain)).collect::<StringViewArray>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_point_moves_by_the_exponent() {
        for (text, expected) in [
            ("1e3", Some("1000")),
            (" -1.25E+1 ", Some("-12.5")),
            ("1.5e1", Some("15")),
            ("12e-2", Some("0.12")),
            ("+.5e-1", Some("0.05")),
            ("1000", None),
            ("1e", None),
            ("e5", None),
            ("1e1000", None),
            ("x1e5", None),
        ] {
            assert_eq!(without_exponent(text).as_deref(), expected, "{text}");
        }
    }
}
