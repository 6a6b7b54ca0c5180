//! Floats as numerics: by the digits that a float is good for, as PostgreSQL takes them.
//!
//! Arrow's cast scales the binary number, whose digits go on: `0.1::real` is 0.1000000015. PostgreSQL prints 15 digits of a
//! double precision, 6 of a real, and reads them as a numeric.

use std::sync::{Arc, LazyLock};

use arrow::array::types::{Decimal128Type, DecimalType};
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use datafusion::common::{ScalarValue, exec_err, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use crate::error::sqlstate;
use crate::{Error, Result};

/// The digits of a double precision.
const DOUBLE_DIGITS: u32 = 15;

/// The digits of a real.
const REAL_DIGITS: u32 = 6;

static AS_NUMERIC: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(AsNumeric { signature: Signature::any(2, Volatility::Immutable) })));

/// The cast of a float to a numeric.
pub(crate) fn as_numeric(float: Expr, precision: u8, scale: i8) -> Expr {
    AS_NUMERIC.call(vec![float, lit(ScalarValue::Decimal128(None, precision, scale))])
}

/// A column of floats as numerics.
pub(crate) fn numerics_of(floats: &ArrayRef, precision: u8, scale: i8) -> Result<ArrayRef> {
    let numerics: Decimal128Array = match floats.data_type() {
        DataType::Float64 => {
            let doubles = floats.as_primitive::<Float64Type>();
            doubles.try_unary::<_, Decimal128Type, Error>(|double| numeric(double, DOUBLE_DIGITS, precision, scale))?
        }
        DataType::Float32 => {
            let reals = floats.as_primitive::<Float32Type>();
            reals.try_unary::<_, Decimal128Type, Error>(|real| numeric(real.into(), REAL_DIGITS, precision, scale))?
        }
        other => return Err(Error::internal(format!("{other} is no float"))),
    };
    Ok(Arc::new(numerics.with_precision_and_scale(precision, scale)?))
}

/// The unscaled numeric that the first digits of a float are, rounded half away from zero.
fn numeric(float: f64, digits: u32, precision: u8, scale: i8) -> Result<i128> {
    let out_of_range = || {
        let message = format!("value {float:e} is out of range for type numeric with {precision} digits");
        Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, message)
    };
    // Most floats that become numerics are whole and short.
    let (value, exponent) = match float.trunc() == float && float.abs() < 10_f64.powi(digits as i32) {
        true => (float as i128, 0),
        false => significant(float, digits as usize).ok_or_else(out_of_range)?,
    };
    let shift = exponent + i32::from(scale);
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    let unscaled = match (power, shift >= 0) {
        (Some(factor), true) => value.checked_mul(factor).ok_or_else(out_of_range)?,
        (None, true) => return Err(out_of_range()),
        (Some(divisor), false) => (value + value.signum() * (divisor / 2)) / divisor,
        (None, false) => 0,
    };
    match Decimal128Type::is_valid_decimal_precision(unscaled, precision) {
        true => Ok(unscaled),
        false => Err(out_of_range()),
    }
}

/// So many digits of a float as a whole number, and the power of ten that it is to be multiplied by; of finite ones.
fn significant(float: f64, digits: usize) -> Option<(i128, i32)> {
    let after_point = digits - 1;
    let text = format!("{float:.after_point$e}");
    let (mantissa, exponent) = text.split_once('e')?;
    let value: i128 = mantissa.replace('.', "").parse().ok()?;
    let exponent: i32 = exponent.parse().ok()?;
    Some((value, exponent - i32::try_from(after_point).ok()?))
}

/// `as_numeric(float, a NULL of the type that is wanted)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct AsNumeric {
    signature: Signature,
}

impl ScalarUDFImpl for AsNumeric {
    fn name(&self) -> &str {
        "as_numeric"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            [_, wanted] => Ok(wanted.clone()),
            _ => exec_err!("as_numeric takes 2 arguments"),
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
        let [float, wanted] = take_function_args(self.name(), arguments.args)?;
        let DataType::Decimal128(precision, scale) = wanted.data_type() else {
            return exec_err!("as_numeric makes numerics");
        };
        let constant = matches!(float, ColumnarValue::Scalar(_));
        let numerics = numerics_of(&float.to_array(if constant { 1 } else { rows })?, precision, scale)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&numerics, 0)?),
            false => ColumnarValue::Array(numerics),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_the_numerics_of_their_first_digits() {
        for (float, digits, scale, expected) in [
            (123_456_789.123, DOUBLE_DIGITS, 10, 1_234_567_891_230_000_000),
            (1.005, DOUBLE_DIGITS, 2, 101),
            (-1.005, DOUBLE_DIGITS, 2, -101),
            (f64::from(0.1_f32), REAL_DIGITS, 10, 1_000_000_000),
            (16_777_217.0, REAL_DIGITS, 0, 16_777_200),
            (1e-60, DOUBLE_DIGITS, 10, 0),
            (1e30, DOUBLE_DIGITS, 0, 10_i128.pow(30)),
            (-7.0, REAL_DIGITS, 2, -700),
            (0.5, DOUBLE_DIGITS, 0, 1),
            (0.49, DOUBLE_DIGITS, 0, 0),
        ] {
            assert_eq!(numeric(float, digits, 38, scale).unwrap(), expected, "{float}");
        }
        for float in [f64::NAN, f64::INFINITY, 1e300, 1e6] {
            assert_eq!(numeric(float, DOUBLE_DIGITS, 5, 0).unwrap_err().sqlstate(), "22003", "{float}");
        }
    }
}
