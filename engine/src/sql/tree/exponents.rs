//! `'1e3'::numeric` and `numeric '1e3'`: written out as `'1000'`, which DataFusion reads.

use datafusion::sql::sqlparser::ast::{DataType, Expr, Value};

/// No numeric has more digits, before or behind the point.
const DIGITS: u32 = 76;

/// Rewrites the text of a constant of this type.
pub(in crate::sql) fn write_out(expr: &mut Expr) {
    let text = match expr {
        Expr::Cast { expr: inner, data_type, .. } if is_numeric(data_type) => match inner.as_mut() {
            Expr::Value(constant) => &mut constant.value,
            _ => return,
        },
        Expr::TypedString(typed) if is_numeric(&typed.data_type) => &mut typed.value.value,
        _ => return,
    };
    if let Value::SingleQuotedString(text) = text
        && let Some(plain) = without_exponent(text)
    {
        *text = plain;
    }
}

fn is_numeric(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_))
}

/// The number without its exponent; `None` if it has none, or is no number.
fn without_exponent(text: &str) -> Option<String> {
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
