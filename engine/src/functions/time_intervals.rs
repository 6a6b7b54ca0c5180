//! Casts between the times of a day and intervals, which Arrow does not have.
//!
//! | cast | what it gives |
//! |---|---|
//! | `CAST(interval AS time)` | its hours, minutes and seconds, whole days being left out: `23:00` of minus one hour |
//! | `CAST(time AS interval)` | the time since midnight |
//!
//! What is summed, or has a mean, are intervals; times become such for it.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, ScalarUDF, Volatility, cast, lit};

use super::by_rows::ByRows;
use crate::{Error, Result};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

static TIME_OF_INTERVAL: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| function("time_of_interval", of_interval, |_| TIME, time_of));

static INTERVAL_OF_TIME: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| function("interval_of_time", of_time, |_| INTERVAL, interval_of));

fn function(
    name: &'static str,
    takes: fn(&[DataType]) -> Option<Vec<DataType>>,
    gives: fn(&[DataType]) -> DataType,
    compute: fn(&[ScalarValue]) -> Result<ScalarValue>,
) -> Arc<ScalarUDF> {
    ByRows { name, volatility: Volatility::Immutable, strict: true, takes, gives, compute }.function()
}

/// Whether it is a cast between a time and an interval.
pub(crate) fn converts(from: &DataType, to: &DataType) -> bool {
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Time32(_) | DataType::Time64(_));
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    (is_time(from) && is_interval(to)) || (is_interval(from) && is_time(to))
}

/// The value, which is of one of these types, as one of the other.
pub(crate) fn converted(value: Expr, to: &DataType) -> Expr {
    let (function, gives) = match to {
        DataType::Interval(_) => (&INTERVAL_OF_TIME, INTERVAL),
        _ => (&TIME_OF_INTERVAL, TIME),
    };
    let found = function.call(vec![value]);
    if *to == gives { found } else { cast(found, to.clone()) }
}

/// Makes an interval of the time that `sum` or `avg` has as its argument. Whether it is that.
pub(crate) fn sum_as_interval(aggregate: &str, arguments: &mut [Expr], type_of: impl Fn(&Expr) -> DataType) -> bool {
    let [value] = arguments else { return false };
    if !matches!(aggregate, "sum" | "avg") || !matches!(type_of(value), DataType::Time32(_) | DataType::Time64(_)) {
        return false;
    }
    let time = std::mem::replace(value, lit(ScalarValue::Null));
    *value = converted(time, &INTERVAL);
    true
}

fn of_interval(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::Interval(_)] => Some(vec![INTERVAL]),
        _ => None,
    }
}

fn of_time(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::Time32(_) | DataType::Time64(_)] => Some(vec![TIME]),
        _ => None,
    }
}

fn time_of(values: &[ScalarValue]) -> Result<ScalarValue> {
    match values {
        [ScalarValue::IntervalMonthDayNano(Some(interval))] => {
            let time = (interval.nanoseconds / 1_000).rem_euclid(MICROSECONDS_PER_DAY);
            Ok(ScalarValue::Time64Microsecond(Some(time)))
        }
        _ => Err(Error::internal("an interval was expected")),
    }
}

fn interval_of(values: &[ScalarValue]) -> Result<ScalarValue> {
    match values {
        [ScalarValue::Time64Microsecond(Some(time))] => {
            let interval = IntervalMonthDayNano::new(0, 0, time * 1_000);
            Ok(ScalarValue::IntervalMonthDayNano(Some(interval)))
        }
        _ => Err(Error::internal("a time was expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_left_out() {
        let hour = 3_600_000_000_i64;
        for (days, hours, expected) in [(0, 26, 2), (0, -1, 23), (1, 2, 2), (0, 24, 0)] {
            let interval = IntervalMonthDayNano::new(0, days, hours * hour * 1_000);
            let time = time_of(&[ScalarValue::IntervalMonthDayNano(Some(interval))]).unwrap();
            assert_eq!(time, ScalarValue::Time64Microsecond(Some(expected * hour)), "{days} {hours}");
        }
        let interval = interval_of(&[ScalarValue::Time64Microsecond(Some(hour))]).unwrap();
        let expected = IntervalMonthDayNano::new(0, 0, hour * 1_000);
        assert_eq!(interval, ScalarValue::IntervalMonthDayNano(Some(expected)));
        assert!(converts(&TIME, &INTERVAL) && converts(&INTERVAL, &TIME) && !converts(&TIME, &TIME));
    }
}
