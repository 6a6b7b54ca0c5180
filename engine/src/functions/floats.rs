//! Functions of floats that fail where PostgreSQL's do, instead of giving an infinity or a NaN, and that round as IEEE 754.
//!
//! | function | DataFusion | here |
//! |---|---|---|
//! | `round(double precision)` | half away from zero | half to even |
//! | `ln`, `log`, `log2`, `log10` of 0 or less | `-inf`, NaN | 2201E |
//! | `log(1, n)` | `inf`, NaN | 22012 |
//! | `power` of a negative number to a fraction, of 0 to a negative one | NaN, `inf` | 2201F |
//! | `exp`, `power`, `degrees` beyond the range | `inf` | 22003 |
//! | `asin(2)`, `acosh(0)`, `sin('inf')` … | NaN | 22003 |
//! | `round(double precision, digits)` of digits beyond the range | NaN | the number, or 0 |
//! | `to_timestamp`, `from_unixtime` of numbers beyond the range | the last moment, or one that nobody can read | 22008 |

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{ScalarValue, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::changed::Change;
use crate::error::sqlstate;
use crate::{Error, Result};

/// The name of the function that casts of floats to integers round with.
pub(crate) const ROUND_HALF_EVEN: &str = "round_half_even";

static ROUND: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(RoundHalfEven::new())));

static REAL: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Real { signature: Signature::any(1, Volatility::Immutable) })));

/// A float rounded to the nearest whole number, and to the even one if two are equally near.
pub(crate) fn round_half_even(float: Expr) -> Expr {
    ROUND.call(vec![float])
}

/// Not to -0.0, which is another value to Arrow.
fn whole_double(value: f64) -> f64 {
    value.round_ties_even() + 0.0
}

fn whole_single(value: f32) -> f32 {
    value.round_ties_even() + 0.0
}

fn rounded(value: ColumnarValue) -> ColumnarValue {
    match value {
        ColumnarValue::Scalar(ScalarValue::Float64(value)) => {
            ColumnarValue::Scalar(ScalarValue::Float64(value.map(whole_double)))
        }
        ColumnarValue::Scalar(ScalarValue::Float32(value)) => {
            ColumnarValue::Scalar(ScalarValue::Float32(value.map(whole_single)))
        }
        ColumnarValue::Array(array) => ColumnarValue::Array(match array.data_type() {
            DataType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(whole_double)),
            DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(whole_single)),
            _ => array,
        }),
        other => other,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundHalfEven {
    signature: Signature,
}

impl RoundHalfEven {
    fn new() -> Self {
        RoundHalfEven { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for RoundHalfEven {
    fn name(&self) -> &str {
        ROUND_HALF_EVEN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        let [argument] = take_function_args(self.name(), argument_types)?;
        Ok(argument.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [value] = take_function_args(self.name(), arguments.args)?;
        Ok(rounded(value))
    }
}

/// A double precision as a real; one that is too large or too small fails, where Arrow's cast gives an infinity or 0.
pub(crate) fn as_real(double: Expr) -> Expr {
    REAL.call(vec![double])
}

/// The same of one number.
pub(crate) fn real(double: f64) -> Result<f32> {
    let real = double as f32;
    match (real.is_infinite() && double.is_finite()) || (real == 0.0 && double != 0.0) {
        true => {
            Err(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, format!("value {double:e} is out of range for type real")))
        }
        false => Ok(real),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Real {
    signature: Signature,
}

impl ScalarUDFImpl for Real {
    fn name(&self) -> &str {
        "as_real"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Float32)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [double] = take_function_args(self.name(), arguments.args)?;
        let constant = matches!(double, ColumnarValue::Scalar(_));
        let doubles = double.to_array(if constant { 1 } else { arguments.number_rows })?;
        let doubles = doubles.as_primitive::<Float64Type>();
        let reals = doubles.try_unary::<_, Float32Type, Error>(real)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&reals, 0)?),
            false => ColumnarValue::Array(Arc::new(reals)),
        })
    }
}

/// Where a function of DataFusion's is not PostgreSQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Domain {
    Round,
    Logarithm,
    Exponential,
    Power,
    /// Those that are not defined everywhere.
    Trigonometric,
    Moment(Unit),
}

/// What a moment is counted in, from 1970 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    /// From here on numbers are no moments.
    fn limit(self) -> f64 {
        // The end of PostgreSQL's time, in the year 294276.
        const SECONDS: f64 = 9_224_318_016_000.0;
        match self {
            Unit::Seconds => SECONDS,
            Unit::Milliseconds => SECONDS * 1e3,
        }
    }
}

impl Domain {
    pub(super) fn of(function: &str) -> Option<Domain> {
        Some(match function {
            "round" => Domain::Round,
            "ln" | "log" | "log2" | "log10" => Domain::Logarithm,
            "exp" | "degrees" => Domain::Exponential,
            "asin" | "acos" | "acosh" | "atanh" | "sin" | "cos" | "tan" | "cot" => Domain::Trigonometric,
            "power" => Domain::Power,
            "to_timestamp" | "to_timestamp_seconds" | "from_unixtime" => Domain::Moment(Unit::Seconds),
            "to_timestamp_millis" => Domain::Moment(Unit::Milliseconds),
            _ => return None,
        })
    }

    fn check(self, arguments: &[f64], result: f64) -> Result<()> {
        let finite = || arguments.iter().all(|argument| argument.is_finite());
        match (self, arguments) {
            (Domain::Logarithm, _) => match arguments.iter().find(|argument| **argument <= 0.0) {
                Some(0.0) => Err(Error::new(sqlstate::INVALID_LOGARITHM, "cannot take logarithm of zero")),
                Some(_) => Err(Error::new(sqlstate::INVALID_LOGARITHM, "cannot take logarithm of a negative number")),
                None if matches!(arguments, [1.0, _]) => {
                    Err(Error::new(sqlstate::DIVISION_BY_ZERO, "division by zero"))
                }
                None => Ok(()),
            },
            (Domain::Power, [base, exponent]) if *base == 0.0 && *exponent < 0.0 => {
                Err(Error::new(sqlstate::INVALID_POWER, "zero raised to a negative power is undefined"))
            }
            (Domain::Power, [base, exponent]) if *base < 0.0 && exponent.floor() < *exponent => Err(Error::new(
                sqlstate::INVALID_POWER,
                "a negative number raised to a non-integer power yields a complex result",
            )),
            (Domain::Power | Domain::Exponential, _) if result.is_infinite() && finite() => {
                Err(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "value out of range: overflow"))
            }
            (Domain::Trigonometric, _) if result.is_nan() && !arguments.iter().any(|argument| argument.is_nan()) => {
                Err(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "input is out of range"))
            }
            _ => Ok(()),
        }
    }
}

/// Fails if one of the numbers is no moment.
fn check_moments(numbers: &ColumnarValue, rows: usize, unit: Unit) -> DataFusionResult<()> {
    let rows = if matches!(numbers, ColumnarValue::Scalar(_)) { 1 } else { rows };
    let numbers = cast(&numbers.to_array(rows)?, &DataType::Float64)?;
    // Not for NaN, either.
    let is_moment = |number: f64| number.abs() < unit.limit();
    match numbers.as_primitive::<Float64Type>().iter().flatten().all(is_moment) {
        true => Ok(()),
        false => Err(Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range").into()),
    }
}

/// `round(number, digits)` of a float. Where ten to the power of digits is no double, the number has no such digits, or no
/// others.
fn round_to_digits(round: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
    let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { arguments.number_rows };
    let doubles =
        |value: &ColumnarValue| -> DataFusionResult<ArrayRef> { Ok(cast(&value.to_array(rows)?, &DataType::Float64)?) };
    let operands = arguments.args.iter().map(doubles).collect::<DataFusionResult<Vec<_>>>()?;
    let result = round.invoke_with_args(arguments)?;
    let [numbers, digits] = operands.as_slice() else { return Ok(result) };
    let (numbers, digits) = (numbers.as_primitive::<Float64Type>(), digits.as_primitive::<Float64Type>());
    let results = doubles(&result)?;
    let results = results.as_primitive::<Float64Type>();
    let is_lost =
        |row: usize| results.is_valid(row) && !results.value(row).is_finite() && numbers.value(row).is_finite();
    if !(0..results.len()).any(is_lost) {
        return Ok(result);
    }
    let mended: Float64Array = (0..results.len())
        .map(|row| match is_lost(row) {
            true if digits.value(row) > 0.0 => Some(numbers.value(row)),
            true => Some(0.0),
            false => results.is_valid(row).then(|| results.value(row)),
        })
        .collect();
    let mended = cast(&mended, &result.data_type())?;
    match constant {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&mended, 0)?)),
        false => Ok(ColumnarValue::Array(mended)),
    }
}

impl Change for Domain {
    fn invoke(&self, inner: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let single = arguments.args.len() == 1;
        let float = arguments.args.first().is_some_and(|argument| argument.data_type().is_floating());
        if *self == Domain::Round {
            return match (single && float, arguments) {
                (true, mut arguments) if arguments.args.len() == 1 => Ok(rounded(arguments.args.remove(0))),
                (_, arguments) if float => round_to_digits(inner, arguments),
                (_, arguments) => inner.invoke_with_args(arguments),
            };
        }
        if let Domain::Moment(unit) = *self {
            if let Some(number) = arguments.args.first().filter(|argument| argument.data_type().is_numeric()) {
                check_moments(number, arguments.number_rows, unit)?;
            }
            return inner.invoke_with_args(arguments);
        }
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let doubles = |value: &ColumnarValue| -> DataFusionResult<ArrayRef> {
            Ok(cast(&value.to_array(rows)?, &DataType::Float64)?)
        };
        let operands = arguments.args.iter().map(doubles).collect::<DataFusionResult<Vec<_>>>()?;
        let result = inner.invoke_with_args(arguments)?;
        let results = doubles(&result)?;
        let floats = results.as_primitive::<Float64Type>();
        if *self == Domain::Trigonometric && !floats.values().iter().any(|result| result.is_nan()) {
            return Ok(result);
        }
        let mut values = Vec::with_capacity(operands.len());
        for (row, result) in floats.iter().enumerate() {
            let Some(result) = result else { continue };
            values.clear();
            values.extend(operands.iter().map(|operand| operand.as_primitive::<Float64Type>().value(row)));
            self.check(&values, result)?;
        }
        Ok(result)
    }
}
