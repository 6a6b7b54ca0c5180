//! Products of numerics that are quotients or means, with room for digits before the point.
//!
//! Arrow's product has as many digits after the point as both factors together: of two means of 16 digits each that leaves
//! 6 before it, and of two quotients of 20 digits none at all. Where both factors have that many, the product is rounded
//! to those that leave room for the digits before the point.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, i256};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, ScalarUDF, lit};

use super::numeric_division::{DIGITS, SCALE_OF_LARGE, fitting, out_of_range, wide_quotient};
use super::numeric_pairs::{Operation, function};

static MULTIPLY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(Multiply));

/// `left * right`; `None` if DataFusion's product has room.
pub(in crate::sql) fn multiply(left: &Expr, left_type: &DataType, right: &Expr, right_type: &DataType) -> Option<Expr> {
    let scale = scale_of_product(left_type, right_type)?;
    let wanted = ScalarValue::Decimal128(None, u8::try_from(DIGITS).ok()?, scale);
    Some(MULTIPLY.call(vec![left.clone(), right.clone(), lit(wanted)]))
}

fn scale_of_product(left: &DataType, right: &DataType) -> Option<i8> {
    let (DataType::Decimal128(left_precision, left_scale), DataType::Decimal128(right_precision, right_scale)) =
        (left, right)
    else {
        return None;
    };
    let (left_scale, right_scale) = (i16::from(*left_scale), i16::from(*right_scale));
    if left_scale.min(right_scale) < SCALE_OF_LARGE {
        return None;
    }
    let before_point = i16::from(*left_precision) - left_scale + i16::from(*right_precision) - right_scale;
    let scale = (DIGITS - before_point).max(left_scale).max(right_scale);
    (scale < left_scale + right_scale).then(|| i8::try_from(scale).ok())?
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Multiply;

impl Operation for Multiply {
    const NAME: &'static str = "numeric_multiply";

    /// Factors may turn out to have fewer digits than they were planned with.
    fn shift(left: i16, right: i16, wanted: i16) -> crate::Result<i16> {
        Ok(left + right - wanted)
    }

    fn compute(left: i128, right: i128, shift: i16, precision: u8) -> crate::Result<i128> {
        product(left, right, shift, precision)
    }
}

/// `left * right / 10^dropped`, rounded half away from zero.
fn product(left: i128, right: i128, dropped: i16, precision: u8) -> crate::Result<i128> {
    let product = i256::from_i128(left).checked_mul(i256::from_i128(right)).ok_or_else(out_of_range)?;
    let (divided, shift) = if dropped > 0 { (dropped.unsigned_abs(), 0) } else { (0, dropped.unsigned_abs()) };
    let divisor = i256::from_i128(10).checked_pow(divided.into()).ok_or_else(out_of_range)?;
    fitting(wide_quotient(product, divisor, shift.into())?, precision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_products_without_room_before_the_point_are_these() {
        let decimal = DataType::Decimal128;
        assert_eq!(scale_of_product(&decimal(24, 16), &decimal(24, 16)), Some(22));
        assert_eq!(scale_of_product(&decimal(28, 20), &decimal(28, 20)), Some(22));
        assert_eq!(scale_of_product(&decimal(38, 16), &decimal(38, 16)), Some(16));
        assert_eq!(scale_of_product(&decimal(24, 16), &decimal(10, 2)), None);
        assert_eq!(scale_of_product(&decimal(17, 16), &decimal(17, 16)), None);
    }

    #[test]
    fn products_are_rounded_half_away_from_zero() {
        assert_eq!(product(15, 3, 1, 38).unwrap(), 5);
        assert_eq!(product(-15, 3, 1, 38).unwrap(), -5);
        assert_eq!(product(-14, 1, 1, 38).unwrap(), -1);
        assert_eq!(product(-14, 1, -2, 38).unwrap(), -1400);
        let large = 10i128.pow(37);
        assert_eq!(product(large, large, 37, 38).unwrap(), large);
        assert_eq!(product(large, large, 20, 38).unwrap_err().sqlstate(), "22003");
    }
}
