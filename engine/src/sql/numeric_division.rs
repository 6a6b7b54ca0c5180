//! Division of numerics, to as many digits as PostgreSQL gives.
//!
//! Arrow's quotient has four more digits after the point than the dividend, cut off: `2/3.0 = 0.6666`. PostgreSQL rounds,
//! after at least 16 significant digits, and works out how many for every single quotient. A column here has one scale
//! for all its rows: 20 digits after the point, 16 where numbers may be large; for two constants it is PostgreSQL's.

use std::sync::{Arc, LazyLock};

use arrow::array::types::{Decimal128Type, DecimalType};
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, i256};
use datafusion::common::{ScalarValue, exec_err, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use crate::Error;
use crate::error::sqlstate;

/// The digits of any numeric.
const DIGITS: i16 = 38;

/// Digits after the point, where there is room for them.
const SCALE: i16 = 20;

/// Digits after the point where the quotient may have more than `DIGITS - SCALE` before it.
const SCALE_OF_LARGE: i16 = 16;

static DIVIDE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Divide::new())));

/// `left / right`; `None` if they are not numerics or integers.
pub(super) fn divide(left: &Expr, left_type: &DataType, right: &Expr, right_type: &DataType) -> Option<Expr> {
    let (left, (left_precision, left_scale)) = as_decimal(left, left_type)?;
    let (right, (_, right_scale)) = as_decimal(right, right_type)?;
    let before_point = i16::from(left_precision) - i16::from(left_scale) + i16::from(right_scale);
    let at_least = i16::from(left_scale).max(i16::from(right_scale));
    let scale = match (constant(&left), constant(&right)) {
        (Some(left), Some(right)) if left.0 != 0 && right.0 != 0 => scale_of_constants(left, right),
        _ if before_point <= DIGITS - SCALE => SCALE,
        _ => SCALE_OF_LARGE,
    };
    let scale = scale.max(at_least).min(DIGITS);
    let precision = (before_point.max(1) + scale).min(DIGITS);
    let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    let wanted = ScalarValue::Decimal128(None, precision, scale);
    Some(DIVIDE.call(vec![left, right, lit(wanted)]))
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

/// `numeric_divide(left, right, a NULL of the type that is wanted)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct Divide {
    signature: Signature,
}

impl Divide {
    fn new() -> Self {
        Divide { signature: Signature::any(3, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Divide {
    fn name(&self) -> &str {
        "numeric_divide"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            [_, _, wanted] => Ok(wanted.clone()),
            _ => exec_err!("numeric_divide takes 3 arguments"),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let [left, right, wanted] = take_function_args(self.name(), arguments.args)?;
        let DataType::Decimal128(precision, scale) = wanted.data_type() else {
            return exec_err!("numeric_divide makes numerics");
        };
        let (left, right) = (numbers(&left, rows)?, numbers(&right, rows)?);
        let (left_values, right_values) =
            (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
        // The quotient of the unscaled numbers has the scale left - right.
        let shift = u32::try_from(i16::from(scale) - i16::from(left_values.scale()) + i16::from(right_values.scale()));
        let shift = shift.map_err(|_| out_of_range())?;
        let mut quotients = Vec::with_capacity(rows);
        for row in 0..rows {
            quotients.push(match left.is_valid(row) && right.is_valid(row) {
                true => Some(quotient(left_values.value(row), right_values.value(row), shift, precision)?),
                false => None,
            });
        }
        let quotients = Decimal128Array::from(quotients).with_precision_and_scale(precision, scale)?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&quotients, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(quotients))),
        }
    }
}

fn numbers(value: &ColumnarValue, rows: usize) -> DataFusionResult<ArrayRef> {
    let array = value.to_array(rows)?;
    match array.data_type() {
        DataType::Decimal128(..) => Ok(array),
        _ => Ok(cast(&array, &DataType::Decimal128(38, 0))?),
    }
}

fn out_of_range() -> Error {
    Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "value out of range for type numeric")
        .with_detail("The quotient has more than 38 digits.")
}

/// `left * 10^shift / right`, rounded half away from zero.
fn quotient(left: i128, right: i128, shift: u32, precision: u8) -> crate::Result<i128> {
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
        None => {
            let factor = i256::from_i128(10).checked_pow(shift).ok_or_else(out_of_range)?;
            let dividend = i256::from_i128(left).checked_mul(factor).ok_or_else(out_of_range)?;
            let divisor = i256::from_i128(right);
            let (quotient, rest) = (dividend / divisor, dividend % divisor);
            let size = |number: i256| if number < i256::ZERO { i256::ZERO - number } else { number };
            let up = size(rest) >= size(divisor) - size(rest);
            let sign = i256::from_i128(left.signum() * right.signum());
            let quotient = if up { quotient + sign } else { quotient };
            quotient.to_i128().ok_or_else(out_of_range)?
        }
    };
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
}
