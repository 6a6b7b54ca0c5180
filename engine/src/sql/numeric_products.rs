//! Products of numerics that are quotients or means, with room for digits before the point.
//!
//! Arrow's product has as many digits after the point as both factors together: of two means of 16 digits each that leaves
//! 6 before it, and of two quotients of 20 digits none at all. Where both factors have that many, the product is rounded
//! to those that leave room for the digits before the point.

use std::sync::{Arc, LazyLock};

use arrow::array::types::Decimal128Type;
use arrow::array::{Array, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Field, FieldRef, i256};
use datafusion::common::{ScalarValue, exec_err, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::numeric_division::{DIGITS, SCALE_OF_LARGE, fitting, numbers, out_of_range, wide_quotient};

static MULTIPLY: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Multiply { signature: Signature::any(3, Volatility::Immutable) })));

/// `left * right`; `None` if DataFusion's product has room.
pub(super) fn multiply(left: &Expr, left_type: &DataType, right: &Expr, right_type: &DataType) -> Option<Expr> {
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

/// `numeric_multiply(left, right, a NULL of the type that is wanted)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct Multiply {
    signature: Signature,
}

impl ScalarUDFImpl for Multiply {
    fn name(&self) -> &str {
        "numeric_multiply"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            [_, _, wanted] => Ok(wanted.clone()),
            _ => exec_err!("numeric_multiply takes 3 arguments"),
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
            return exec_err!("numeric_multiply makes numerics");
        };
        let (left, right) = (numbers(&left, rows)?, numbers(&right, rows)?);
        let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
        // Factors may turn out to have fewer digits than they were planned with.
        let dropped = i16::from(left.scale()) + i16::from(right.scale()) - i16::from(scale);
        let mut products = Vec::with_capacity(rows);
        for row in 0..rows {
            products.push(match left.is_valid(row) && right.is_valid(row) {
                true => Some(product(left.value(row), right.value(row), dropped, precision)?),
                false => None,
            });
        }
        let products = Decimal128Array::from(products).with_precision_and_scale(precision, scale)?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&products, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(products))),
        }
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
