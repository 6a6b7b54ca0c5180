//! `(a, b) OVERLAPS (c, d)`, rewritten to `overlaps(a, b, c, d)`: whether two periods have a moment in common.
//!
//! A period is given by its ends, in either order, or by one end and an interval. It has its first moment and not its last,
//! unless it is a single one.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use chrono::{DateTime, Months, NaiveDateTime, TimeDelta};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::ByRows;
use crate::error::sqlstate;
use crate::{Error, Result};

/// What OVERLAPS is rewritten to.
pub(crate) const OVERLAPS: &str = "overlaps";

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let overlaps = ByRows {
        name: OVERLAPS,
        volatility: Volatility::Immutable,
        strict: false,
        takes: two_periods,
        gives: |_| DataType::Boolean,
        compute: overlap,
    };
    vec![overlaps.function()]
}

fn two_periods(types: &[DataType]) -> Option<Vec<DataType>> {
    if types.len() != 4 {
        return None;
    }
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_) | DataType::Duration(_));
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Time32(_) | DataType::Time64(_));
    let is_timestamp = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..) | DataType::Date32);
    let ends = |is_end: &dyn Fn(&DataType) -> bool| {
        types.iter().enumerate().all(|(place, data_type)| {
            is_end(data_type)
                || data_type.is_string()
                || data_type.is_null()
                || (place % 2 == 1 && is_interval(data_type))
        })
    };
    let end = match (types.iter().any(is_time), types.iter().any(is_timestamp)) {
        (true, false) if ends(&is_time) => TIME,
        (false, true) if ends(&is_timestamp) => TIMESTAMP,
        _ => return None,
    };
    let taken = |data_type: &DataType| if is_interval(data_type) { INTERVAL } else { end.clone() };
    Some(types.iter().map(taken).collect())
}

fn overlap(values: &[ScalarValue]) -> Result<ScalarValue> {
    let [first, second, third, fourth] = values else {
        return Err(Error::internal("four times were expected"));
    };
    let (Some((begin, end)), Some((other_begin, other_end))) = (period(first, second)?, period(third, fourth)?) else {
        return Ok(ScalarValue::Boolean(None));
    };
    // What the end that is missing would decide is unknown.
    let (earlier_end, later_begin, later_end) = match begin.cmp(&other_begin) {
        std::cmp::Ordering::Equal => {
            let known = end.is_some() && other_end.is_some();
            return Ok(ScalarValue::Boolean(known.then_some(true)));
        }
        std::cmp::Ordering::Greater => (other_end, begin, end),
        std::cmp::Ordering::Less => (end, other_begin, other_end),
    };
    Ok(ScalarValue::Boolean(match (earlier_end, later_end) {
        (None, _) => None,
        (Some(end), _) if later_begin < end => Some(true),
        (Some(_), None) => None,
        (Some(_), Some(_)) => Some(false),
    }))
}

/// The earlier end of a period and the later one, which may be unknown; `None`: both are.
fn period(end: &ScalarValue, other: &ScalarValue) -> Result<Option<(i64, Option<i64>)>> {
    let first = microseconds_of(end)?;
    let second = match other {
        ScalarValue::IntervalMonthDayNano(length) => match (first, length) {
            (Some(first), Some(length)) => {
                Some(later(first, *length, matches!(end, ScalarValue::Time64Microsecond(_)))?)
            }
            _ => None,
        },
        other => microseconds_of(other)?,
    };
    Ok(match (first, second) {
        (Some(first), Some(second)) => Some((first.min(second), Some(first.max(second)))),
        (Some(known), None) | (None, Some(known)) => Some((known, None)),
        (None, None) => None,
    })
}

fn microseconds_of(value: &ScalarValue) -> Result<Option<i64>> {
    match value {
        ScalarValue::TimestampMicrosecond(time, _) | ScalarValue::Time64Microsecond(time) => Ok(*time),
        _ => Err(Error::internal("a time was expected")),
    }
}

/// A time and an interval; of the times of a day, those of the next follow.
fn later(time: i64, length: IntervalMonthDayNano, is_time_of_day: bool) -> Result<i64> {
    let microseconds = length.nanoseconds / 1_000;
    if is_time_of_day {
        return Ok((time + microseconds % MICROSECONDS_PER_DAY).rem_euclid(MICROSECONDS_PER_DAY));
    }
    let out_of_range = || Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range");
    let start: NaiveDateTime = DateTime::from_timestamp_micros(time).ok_or_else(out_of_range)?.naive_utc();
    let months = Months::new(length.months.unsigned_abs());
    let moved = if length.months < 0 { start.checked_sub_months(months) } else { start.checked_add_months(months) };
    moved
        .and_then(|moved| moved.checked_add_signed(TimeDelta::days(length.days.into())))
        .and_then(|moved| moved.checked_add_signed(TimeDelta::microseconds(microseconds)))
        .map(|moved| moved.and_utc().timestamp_micros())
        .ok_or_else(out_of_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_those_of_postgresql() {
        let time = |time: Option<i64>| ScalarValue::TimestampMicrosecond(time, None);
        let (one, two, three, four) = (Some(1), Some(2), Some(3), Some(4));
        for (ends, expected) in [
            ([one, three, two, four], Some(true)),
            ([three, one, two, four], Some(true)),
            ([one, two, two, three], Some(false)),
            ([two, two, two, three], Some(true)),
            ([one, three, two, None], Some(true)),
            ([one, two, two, None], None),
            ([one, None, two, three], None),
            ([None, None, two, three], None),
            ([one, one, one, one], Some(true)),
            ([one, two, one, None], None),
        ] {
            let found = overlap(&ends.map(time)).unwrap();
            assert_eq!(found, ScalarValue::Boolean(expected), "{ends:?}");
        }
    }

    #[test]
    fn an_interval_is_added_to_the_first_end() {
        let month = IntervalMonthDayNano::new(1, 1, 1_000);
        assert_eq!(later(0, month, false).unwrap(), 32 * MICROSECONDS_PER_DAY + 1);
        let hours = IntervalMonthDayNano::new(0, 1, 90_000_000_000_000);
        assert_eq!(later(0, hours, true).unwrap(), 3_600_000_000);
        assert_eq!(two_periods(&[TIME, INTERVAL, TIME, DataType::Null]), Some(vec![TIME, INTERVAL, TIME, TIME]));
        assert_eq!(two_periods(&[TIME, TIME, DataType::Date32, TIME]), None);
    }
}
