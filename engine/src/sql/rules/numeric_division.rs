//! Division of numerics, to as many digits as PostgreSQL gives.
//!
//! Arrow's quotient has four more digits after the point than the dividend, cut off: `2/3.0 = 0.6666`. PostgreSQL rounds,
//! after at least 16 significant digits, and works out how many for every single quotient. A column here has one scale
//! for all its rows: 20 digits after the point, 16 where numbers may be large; for two constants it is PostgreSQL's.

use std::sync::{Arc, LazyLock};

use arrow::array::types::{Decimal128Type, DecimalType};
use arrow::datatypes::{DataType, i256};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, ScalarUDF, lit};

use super::numeric_pairs::{Operation, function};
use crate::Error;
use crate::error::sqlstate;

/// The digits of any numeric.
pub(in crate::sql) const DIGITS: i16 = 38;

/// Digits after the point, where there is room for them.
const SCALE: i16 = 20;

/// Digits after the point where the quotient may have more than `DIGITS - SCALE` before it.
pub(in crate::sql) const SCALE_OF_LARGE: i16 = 16;

static DIVIDE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Divide));

/// `left / right`; `None` if they are not numerics or integers.
pub(in crate::sql) fn divide(left: &Expr, left_type: &DataType, right: &Expr, right_type: &DataType) -> Option<Expr> {
    let (left, (left_precision, left_scale)) = as_decimal(left, left_type)?;
    let (right, (_, right_scale)) = as_decimal(right, right_type)?;
    let before_point = i16::from(left_precision) - i16::from(left_scale) + i16::from(right_scale);
    let at_least = i16::from(left_scale).max(i16::from(right_scale));
    let (precision, scale) = match (constant(&left), constant(&right)) {
        (Some(left), Some(right)) if left.0 != 0 && right.0 != 0 => {
            fitted(before_point, scale_of_constants(left, right).max(at_least))?
        }
        _ if before_point <= DIGITS - SCALE => fitted(before_point, SCALE.max(at_least))?,
        _ => fitted(before_point, SCALE_OF_LARGE.max(at_least))?,
    };
    let wanted = ScalarValue::Decimal128(None, precision, scale);
    Some(DIVIDE.call(vec![left, right, lit(wanted)]))
}

/// The precision and the scale of numbers with so many digits before the point and, if there is room, so many after it.
pub(in crate::sql) fn fitted(before_point: i16, scale: i16) -> Option<(u8, i8)> {
    let scale = scale.min(DIGITS);
    let precision = (before_point.max(1) + scale).min(DIGITS);
    Some((u8::try_from(precision).ok()?, i8::try_from(scale).ok()?))
}

/// A number as a numeric of scale 0 or more, with its precision and scale.
fn as_decimal(expr: &Expr, data_type: &DataType) -> Option<(Expr, (u8, i8))> {
    let precision = match data_type {
        DataType::Decimal128(precision, scale @ 0..) => return Some((expr.clone(), (*precision, *scale))),
        DataType::Int8 => 3,
        DataType::Int16 | DataType::UInt8 => 5,
        DataType::Int32 | DataType::UInt16 => 10,
        DataType::UInt32 => 10,
        DataType::Int64 => 19,
        DataType::UInt64 => 20,
        _ => return None,
    };
    if let Expr::Literal(ScalarValue::Int64(Some(value)), _) = expr {
        let digits = u8::try_from(value.unsigned_abs().checked_ilog10().unwrap_or(0) + 1).ok()?;
        return Some((lit(ScalarValue::Decimal128(Some(i128::from(*value)), digits, 0)), (digits, 0)));
    }
    let cast = datafusion::logical_expr::cast(expr.clone(), DataType::Decimal128(precision, 0));
    Some((cast, (precision, 0)))
}

fn constant(expr: &Expr) -> Option<(i128, i16)> {
    match expr {
        Expr::Literal(ScalarValue::Decimal128(Some(value), _, scale), _) => Some((*value, i16::from(*scale))),
        _ => None,
    }
}

/// PostgreSQL's `select_div_scale`: numbers in base 10,000, at least 16 digits from the first that is not 0.
fn scale_of_constants(left: (i128, i16), right: (i128, i16)) -> i16 {
    let (left_weight, left_first) = leading(left);
    let (right_weight, right_first) = leading(right);
    let weight = left_weight - right_weight - i16::from(left_first <= right_first);
    SCALE_OF_LARGE - weight * 4
}

/// The place of the first digit of a number in base 10,000, and the digit.
fn leading((value, scale): (i128, i16)) -> (i16, i128) {
    let padding = (4 - scale.rem_euclid(4)) % 4;
    let mut rest = value.unsigned_abs() as i128;
    let mut weight = -((scale + padding) / 4);
    // The lowest digit holds the padding.
    let low = 10i128.pow((4 - padding) as u32);
    if rest < low {
        return (weight, rest * 10i128.pow(padding as u32));
    }
    rest /= low;
    weight += 1;
    while rest >= 10_000 {
        rest /= 10_000;
        weight += 1;
    }
    (weight, rest)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Divide;

impl Operation for Divide {
    const NAME: &'static str = "numeric_divide";

    /// The quotient of the numbers without their points has the scale left - right.
    fn shift(left: i16, right: i16, wanted: i16) -> crate::Result<i16> {
        let shift = wanted - left + right;
        if shift >= 0 { Ok(shift) } else { Err(out_of_range()) }
    }

    fn compute(left: i128, right: i128, shift: i16, precision: u8) -> crate::Result<i128> {
        quotient(left, right, shift.unsigned_abs().into(), precision)
    }
}

pub(in crate::sql) fn out_of_range() -> Error {
    Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "value out of range for type numeric")
        .with_detail("The result has more than 38 digits.")
}

/// `left * 10^shift / right`, rounded half away from zero.
pub(crate) fn quotient(left: i128, right: i128, shift: u32, precision: u8) -> crate::Result<i128> {
    if right == 0 {
        return Err(Error::new(sqlstate::DIVISION_BY_ZERO, "division by zero"));
    }
    let short = 10i128.checked_pow(shift).and_then(|factor| left.checked_mul(factor));
    let quotient = match short {
        Some(dividend) => {
            let (quotient, rest) = (dividend / right, dividend % right);
            let up = rest.unsigned_abs() >= right.unsigned_abs() - rest.unsigned_abs();
            quotient + i128::from(up) * dividend.signum() * right.signum()
        }
        None => wide_quotient(i256::from_i128(left), i256::from_i128(right), shift)?,
    };
    fitting(quotient, precision)
}

/// The same where there are more than 38 digits in between.
pub(in crate::sql) fn wide_quotient(left: i256, right: i256, shift: u32) -> crate::Result<i128> {
    let factor = i256::from_i128(10).checked_pow(shift).ok_or_else(out_of_range)?;
    let dividend = left.checked_mul(factor).ok_or_else(out_of_range)?;
    let (quotient, rest) = (dividend / right, dividend % right);
    let size = |number: i256| if number < i256::ZERO { i256::ZERO - number } else { number };
    let up = size(rest) >= size(right) - size(rest);
    let sign = if (left < i256::ZERO) == (right < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
    let quotient = if up { quotient + sign } else { quotient };
    quotient.to_i128().ok_or_else(out_of_range)
}

/// `sum * 10^shift / count`, rounded in the same way.
pub(in crate::sql) fn mean(sum: i256, count: u64, shift: u32, precision: u8) -> crate::Result<i128> {
    match sum.to_i128() {
        Some(sum) => quotient(sum, count.into(), shift, precision),
        None => fitting(wide_quotient(sum, i256::from_i128(count.into()), shift)?, precision),
    }
}

/// The number, if it has no more digits than that.
pub(in crate::sql) fn fitting(quotient: i128, precision: u8) -> crate::Result<i128> {
    match Decimal128Type::is_valid_decimal_precision(quotient, precision) {
        true => Ok(quotient),
        false => Err(out_of_range()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_have_the_scale_they_have_in_postgresql() {
        for (left, right, expected) in [
            ((1, 0), (30, 1), 20),
            ((100, 1), (3, 0), 16),
            ((22, 0), (70, 1), 16),
            ((1, 4), (30, 1), 24),
            ((20_000, 0), (3, 0), 16),
            ((40_000, 0), (3, 0), 12),
        ] {
            assert_eq!(scale_of_constants(left, right), expected, "{left:?} / {right:?}");
        }
    }

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        assert_eq!(quotient(2, 3, 1, 38).unwrap(), 7);
        assert_eq!(quotient(-1, 2, 0, 38).unwrap(), -1);
        assert_eq!(quotient(1, 3, 0, 38).unwrap(), 0);
        assert_eq!(quotient(10i128.pow(37), 10i128.pow(37), 20, 38).unwrap(), 10i128.pow(20));
        assert_eq!(quotient(1, 0, 0, 38).unwrap_err().sqlstate(), "22012");
        assert_eq!(quotient(10i128.pow(37), 1, 5, 38).unwrap_err().sqlstate(), "22003");
    }

    #[test]
    fn means_of_sums_with_more_digits_than_a_numeric_are_rounded_alike() {
        let sum = |value: i128| i256::from_i128(value).wrapping_mul(i256::from_i128(100));
        let large = 10i128.pow(37);
        assert_eq!(mean(sum(large), 300, 0, 38).unwrap(), large / 3);
        assert_eq!(mean(sum(2 * large), 300, 0, 38).unwrap(), 2 * large / 3 + 1);
        assert_eq!(mean(sum(-2 * large), 300, 0, 38).unwrap(), -2 * large / 3 - 1);
        assert_eq!(mean(i256::from_i128(5), 3, 4, 38).unwrap(), 16_667);
        assert_eq!(mean(sum(large), 1, 0, 38).unwrap_err().sqlstate(), "22003");
    }
}
