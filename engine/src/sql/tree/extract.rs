//! `extract(field FROM x)`: a numeric, as in PostgreSQL. DataFusion plans it as `date_part(field, x)`, which is an integer, so
//! that `extract(month FROM d) / 2` would divide integers, or for `epoch` a float.
//!
//! | field | digits behind the point |
//! |---|---|
//! | `second`, `epoch` | 6, none for the epoch of a date |
//! | `milliseconds` | 3 |
//! | `julian` of a timestamp | 20 |
//! | all others | none |
//!
//! Centuries and the like are [functions of their own](crate::functions::calendar_parts). A call of `date_part` is double
//! precision: see [`crate::functions::date_parts`].

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion::common::{ScalarValue, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::datetime::date_part;
use datafusion::logical_expr::planner::PlannerResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast as cast_expr, lit,
};

use crate::Error;
use crate::error::sqlstate;
use crate::functions::calendar_parts::calendar_part;
use crate::sql::types::name_of;

/// Of fields that are integers of 32 bits to DataFusion.
const WHOLE: DataType = DataType::Decimal128(10, 0);

/// The epoch of a date: 2^31 days have 15 digits of seconds.
const EPOCH_OF_DATE: DataType = DataType::Decimal128(15, 0);

/// The epoch of anything else: 2^31 months have 16 digits of seconds.
const EPOCH_OF_TIME: DataType = DataType::Decimal128(22, 6);

const SECONDS_PER_DAY: i128 = 86_400;
const MICROSECONDS_PER_SECOND: i128 = 1_000_000;

static EPOCH: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Epoch { signature: Signature::any(1, Volatility::Immutable) })));

/// Plans `extract`. The types of the arguments are not known yet.
pub(in crate::sql) fn plan(arguments: Vec<Expr>) -> PlannerResult<Vec<Expr>> {
    let [part, time] = arguments.as_slice() else { return PlannerResult::Original(arguments) };
    // DataFusion's alone, and longer than 32 bits.
    if names(part, &["nanosecond", "nanoseconds"]) {
        return PlannerResult::Original(arguments);
    }
    if let Some(part) = calendar_part(part, time.clone()) {
        return PlannerResult::Planned(part);
    }
    if names(part, &["epoch"]) {
        return PlannerResult::Planned(EPOCH.call(vec![time.clone()]));
    }
    let scale: i8 = match (names_seconds(part), names_milliseconds(part)) {
        (true, _) => 6,
        (_, true) => 3,
        _ => {
            let whole = date_part().call(vec![part.clone(), time.clone()]);
            return PlannerResult::Planned(cast_expr(whole, WHOLE));
        }
    };
    // Of an interval, whose type is not known here, they become `microseconds_in` later.
    let microseconds = date_part().call(vec![lit("microsecond"), time.clone()]);
    let microseconds = cast_expr(microseconds, WHOLE);
    PlannerResult::Planned(microseconds * lit(ScalarValue::Decimal128(Some(1), scale.unsigned_abs(), scale)))
}

/// Whether the first argument of `date_part` asks for seconds.
pub(in crate::sql) fn names_seconds(part: &Expr) -> bool {
    names(part, &["second", "seconds", "sec", "secs", "s"])
}

/// The same for milliseconds.
pub(in crate::sql) fn names_milliseconds(part: &Expr) -> bool {
    names(part, &["millisecond", "milliseconds", "msec", "msecs", "ms"])
}

/// The same for microseconds.
pub(in crate::sql) fn names_microseconds(part: &Expr) -> bool {
    names(part, &["microsecond", "microseconds", "usec", "usecs", "us"])
}

fn names(part: &Expr, known: &[&str]) -> bool {
    let Expr::Literal(part, _) = part else { return false };
    part.try_as_str().flatten().is_some_and(|part| known.iter().any(|name| part.eq_ignore_ascii_case(name)))
}

/// `extract(epoch FROM x)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct Epoch {
    signature: Signature,
}

impl ScalarUDFImpl for Epoch {
    fn name(&self) -> &str {
        "extract_epoch"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        use DataType::{Date32, Duration, Interval, Null, Time32, Time64, Timestamp};
        match argument_types {
            [Date32] => Ok(EPOCH_OF_DATE),
            [Null | Timestamp(..) | Time32(_) | Time64(_) | Interval(_) | Duration(_)] => Ok(EPOCH_OF_TIME),
            // As DataFusion has it: a timestamp.
            [text] if text.is_string() => Ok(EPOCH_OF_TIME),
            types => {
                let types: Vec<String> = types.iter().map(name_of).collect();
                let message = format!("function extract(unknown, {}) does not exist", types.join(", "));
                Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message).into())
            }
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [time] = take_function_args(self.name(), arguments.args)?;
        let constant = matches!(time, ColumnarValue::Scalar(_));
        let epochs: ArrayRef = Arc::new(epochs_of(&time.to_array(if constant { 1 } else { rows })?)?);
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&epochs, 0)?),
            false => ColumnarValue::Array(epochs),
        })
    }
}

fn epochs_of(times: &ArrayRef) -> DataFusionResult<Decimal128Array> {
    let microseconds = |as_type: DataType| -> DataFusionResult<Decimal128Array> {
        let numbers = cast(&cast(times, &as_type)?, &DataType::Int64)?;
        Ok(numbers.as_primitive::<Int64Type>().unary(i128::from))
    };
    let epochs: Decimal128Array = match times.data_type() {
        DataType::Date32 => {
            let days = times.as_primitive::<Date32Type>();
            let seconds: Decimal128Array = days.unary(|days| i128::from(days) * SECONDS_PER_DAY);
            return Ok(seconds.with_precision_and_scale(15, 0)?);
        }
        DataType::Null => Decimal128Array::new_null(times.len()),
        DataType::Timestamp(_, zone) => microseconds(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?,
        DataType::Time32(_) | DataType::Time64(_) => microseconds(DataType::Time64(TimeUnit::Microsecond))?,
        DataType::Duration(_) => microseconds(DataType::Duration(TimeUnit::Microsecond))?,
        DataType::Interval(_) => {
            let intervals = cast(times, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            intervals.as_primitive::<IntervalMonthDayNanoType>().unary(microseconds_in)
        }
        _ => microseconds(DataType::Timestamp(TimeUnit::Microsecond, None))?,
    };
    Ok(epochs.with_precision_and_scale(22, 6)?)
}

/// A year of 365.25 days, a month beyond whole years of 30.
fn microseconds_in(interval: IntervalMonthDayNano) -> i128 {
    const SECONDS_PER_YEAR: i128 = 31_557_600;
    const SECONDS_PER_MONTH: i128 = 30 * SECONDS_PER_DAY;
    let (years, months) = (i128::from(interval.months / 12), i128::from(interval.months % 12));
    let seconds = years * SECONDS_PER_YEAR + months * SECONDS_PER_MONTH + i128::from(interval.days) * SECONDS_PER_DAY;
    seconds * MICROSECONDS_PER_SECOND + i128::from(interval.nanoseconds / 1_000)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, IntervalMonthDayNanoArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn epochs_are_exact() {
        let of = |times: ArrayRef| epochs_of(&times).unwrap().value(0);
        assert_eq!(of(Arc::new(Date32Array::from(vec![-1]))), -86_400);
        assert_eq!(of(Arc::new(TimestampMillisecondArray::from(vec![1_500]))), 1_500_000);
        let interval = IntervalMonthDayNano::new(13, 1, 1_500_000_000);
        assert_eq!(of(Arc::new(IntervalMonthDayNanoArray::from(vec![interval]))), 34_236_001_500_000);
    }
}
