//! Times of fewer digits than their unit holds, `timestamp(2)` or `time(3)`: the rounding of their values.
//!
//! As PostgreSQL does it, halves go away from the first moment of 2000, which is where its timestamps are counted from.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::{ScalarValue, exec_err, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use crate::error::sqlstate;
use crate::{Error, Result};

/// The name of the function that casts call ([`crate::sql::tree::time_digits`]): `round_to_digits(time, digits)`.
pub(crate) const ROUND_TO_DIGITS: &str = "round_to_digits";

/// From the first moment of 1970 to that of 2000.
const SECONDS_TO_2000: i64 = 946_684_800;
const SECONDS_PER_DAY: i64 = 86_400;

static ROUND: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(RoundToDigits { signature: Signature::any(2, Volatility::Immutable) })));

/// The function of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::clone(&ROUND)]
}

/// A time with so many digits of a second.
pub(crate) fn to_digits(time: Expr, digits: u8) -> Expr {
    ROUND.call(vec![time, lit(i64::from(digits))])
}

/// A column of times, or of timestamps, with so many digits of a second.
pub(crate) fn round_to_digits(times: &ArrayRef, digits: u8) -> Result<ArrayRef> {
    let (unit, is_time) = match times.data_type() {
        DataType::Timestamp(unit, _) => (*unit, false),
        DataType::Time64(unit) => (*unit, true),
        other => return Err(Error::internal(format!("a value of type {other} has no digits of a second"))),
    };
    let second = per_second(unit);
    let held = digits_of_unit(unit);
    if digits >= held {
        return Ok(Arc::clone(times));
    }
    let step = 10i64.pow(u32::from(held - digits));
    let (origin, limit) = if is_time { (0, SECONDS_PER_DAY * second) } else { (origin(unit), i64::MAX) };
    let round = |number: i64| -> Result<i64> {
        let rounded = i64::try_from(nearest(number, step, origin)).ok().filter(|rounded| *rounded < limit);
        // PostgreSQL has 24:00:00 for what is nearer to the next day than to the last moment of a time's.
        let what = if is_time { "time out of range: it is rounded to 24:00:00" } else { "timestamp out of range" };
        rounded.ok_or_else(|| Error::new(sqlstate::DATETIME_OVERFLOW, what))
    };
    let numbers = cast(times, &DataType::Int64)?;
    let rounded = numbers.as_primitive::<Int64Type>().try_unary::<_, Int64Type, Error>(round)?;
    let rounded: ArrayRef = Arc::new(rounded);
    Ok(cast(&rounded, times.data_type())?)
}

/// The multiple of `step`, counted from `origin`, that is nearest to a number; of two the one away from the origin.
pub(super) fn nearest(number: i64, step: i64, origin: i64) -> i128 {
    let (step, origin) = (i128::from(step), i128::from(origin));
    let since = i128::from(number) - origin;
    let distance = (since.abs() + step / 2) / step * step;
    origin + distance * since.signum()
}

/// The first moment of 2000 in a timestamp's unit.
pub(super) fn origin(unit: TimeUnit) -> i64 {
    SECONDS_TO_2000 * per_second(unit)
}

pub(super) fn per_second(unit: TimeUnit) -> i64 {
    10i64.pow(u32::from(digits_of_unit(unit)))
}

/// How many digits of a second a unit holds.
pub(crate) fn digits_of_unit(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundToDigits {
    signature: Signature,
}

impl ScalarUDFImpl for RoundToDigits {
    fn name(&self) -> &str {
        ROUND_TO_DIGITS
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(argument_types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = arguments.arg_fields.first().is_none_or(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [time, digits] = take_function_args(self.name(), arguments.args)?;
        let digits = match digits {
            ColumnarValue::Scalar(ScalarValue::Int64(Some(digits))) => u8::try_from(digits).ok(),
            _ => None,
        };
        let Some(digits) = digits else {
            return exec_err!("{ROUND_TO_DIGITS} takes a time and a number of digits");
        };
        let constant = matches!(time, ColumnarValue::Scalar(_));
        let rounded = round_to_digits(&time.to_array(if constant { 1 } else { rows })?, digits)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&rounded, 0)?),
            false => ColumnarValue::Array(rounded),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Time64MicrosecondArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Time64MicrosecondType, TimestampMicrosecondType};

    use super::*;

    const YEAR_2000: i64 = SECONDS_TO_2000 * 1_000_000;

    #[test]
    fn halves_go_away_from_2000() {
        for (microseconds, digits, expected) in [
            (YEAR_2000 + 150_000, 1, YEAR_2000 + 200_000),
            (YEAR_2000 + 149_999, 1, YEAR_2000 + 100_000),
            (YEAR_2000 - 150_000, 1, YEAR_2000 - 200_000),
            (YEAR_2000 - 149_999, 1, YEAR_2000 - 100_000),
            (-1_500_000, 0, -2_000_000),
            (1_500_000, 0, 1_000_000),
            (123_456, 6, 123_456),
            (123_456, 9, 123_456),
        ] {
            let times = TimestampMicrosecondArray::from(vec![Some(microseconds), None]).with_timezone("UTC");
            let times: ArrayRef = Arc::new(times);
            let rounded = round_to_digits(&times, digits).unwrap();
            assert_eq!(rounded.data_type(), times.data_type());
            assert_eq!(rounded.as_primitive::<TimestampMicrosecondType>().value(0), expected, "{microseconds}");
            assert!(rounded.is_null(1));
        }
        let last: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]));
        assert_eq!(round_to_digits(&last, 0).unwrap_err().sqlstate(), "22008");
    }

    #[test]
    fn times_stay_within_their_day() {
        let rounded = |microseconds: i64, digits| {
            let times: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![microseconds]));
            round_to_digits(&times, digits).map(|times| times.as_primitive::<Time64MicrosecondType>().value(0))
        };
        assert_eq!(rounded(1_234_500, 3).unwrap(), 1_235_000);
        assert_eq!(rounded(86_399_499_999, 0).unwrap(), 86_399_000_000);
        assert_eq!(rounded(86_399_500_000, 0).unwrap_err().sqlstate(), "22008");
    }
}
