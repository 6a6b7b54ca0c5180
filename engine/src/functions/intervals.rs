//! Functions that make intervals, and take them apart.
//!
//! | function | what it gives |
//! |---|---|
//! | `age(a, b)` | from b to a in years, months, days and time |
//! | `justify_hours(i)`, `justify_days(i)`, `justify_interval(i)` | 24 hours as a day, 30 days as a month, both |
//! | `make_interval(years, months, weeks, days, hours, mins, secs)` | their sum |
//! | `clock_timestamp()` | the time now, not that of the statement |

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use chrono::{Datelike, Months, NaiveDate, NaiveDateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::{ByRows, float_of, integer_of};
use crate::error::sqlstate;
use crate::{Error, Result};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const DAY: i64 = 86_400_000_000_000;
const DAYS_PER_MONTH: i32 = 30;
const MICROSECOND: i64 = 1_000;

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let strict = |name, takes, gives, compute| ByRows {
        name,
        volatility: Volatility::Immutable,
        strict: true,
        takes,
        gives,
        compute,
    };
    let interval: fn(&[DataType]) -> DataType = |_| INTERVAL;
    let of_interval: fn(&[DataType]) -> Option<Vec<DataType>> = |types| match types {
        [DataType::Interval(_) | DataType::Duration(_) | DataType::Null] => Some(vec![INTERVAL]),
        _ => None,
    };
    let clock = ByRows {
        name: "clock_timestamp",
        volatility: Volatility::Volatile,
        strict: false,
        takes: |types| types.is_empty().then(Vec::new),
        gives: |_| DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        compute: |_| Ok(ScalarValue::TimestampMicrosecond(Some(Utc::now().timestamp_micros()), Some("UTC".into()))),
    };
    [
        strict("age", two_times, interval, age),
        strict("justify_hours", of_interval, interval, |values| justified(&values[0], true, false)),
        strict("justify_days", of_interval, interval, |values| justified(&values[0], false, true)),
        strict("justify_interval", of_interval, interval, |values| justified(&values[0], true, true)),
        strict("make_interval", interval_parts, interval, make_interval),
        clock,
    ]
    .into_iter()
    .map(ByRows::function)
    .collect()
}

fn two_times(types: &[DataType]) -> Option<Vec<DataType>> {
    let is_time = |data_type: &DataType| {
        data_type.is_null()
            || data_type.is_string()
            || matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
    };
    (types.len() == 2 && types.iter().all(is_time)).then(|| vec![TIMESTAMP; 2])
}

fn interval_parts(types: &[DataType]) -> Option<Vec<DataType>> {
    let is_number = |data_type: &DataType| data_type.is_numeric() || data_type.is_null();
    let taken = |index| if index == 6 { DataType::Float64 } else { DataType::Int64 };
    (types.len() == 7 && types.iter().all(is_number)).then(|| (0..7).map(taken).collect())
}

fn out_of_range(what: &str) -> Error {
    Error::new(sqlstate::DATETIME_OVERFLOW, format!("{what} out of range"))
}

fn interval(months: i32, days: i32, nanoseconds: i64) -> ScalarValue {
    ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanoseconds)))
}

fn time_of(value: &ScalarValue) -> Result<NaiveDateTime> {
    match value {
        ScalarValue::TimestampMicrosecond(Some(microseconds), _) => {
            let time = chrono::DateTime::from_timestamp_micros(*microseconds);
            time.map(|time| time.naive_utc()).ok_or_else(|| out_of_range("timestamp"))
        }
        _ => Err(Error::internal("a timestamp was expected")),
    }
}

fn age(values: &[ScalarValue]) -> Result<ScalarValue> {
    let (to, from) = (time_of(&values[0])?, time_of(&values[1])?);
    let (later, earlier, sign) = if to >= from { (to, from, 1) } else { (from, to, -1) };
    let mut months = (later.year() - earlier.year()) * 12 + later.month() as i32 - earlier.month() as i32;
    let mut days = later.day() as i32 - earlier.day() as i32;
    let time_of_day = |time: NaiveDateTime| time.time().signed_duration_since(chrono::NaiveTime::MIN);
    let time = time_of_day(later) - time_of_day(earlier);
    let mut nanoseconds = time.num_nanoseconds().ok_or_else(|| out_of_range("interval"))?;
    if nanoseconds < 0 {
        nanoseconds += DAY;
        days -= 1;
    }
    while days < 0 {
        // As long as the month of the earlier time.
        days += days_in_month(earlier);
        months -= 1;
    }
    Ok(interval(sign * months, sign * days, i64::from(sign) * nanoseconds))
}

fn days_in_month(time: NaiveDateTime) -> i32 {
    let first = NaiveDate::from_ymd_opt(time.year(), time.month(), 1);
    let next = first.and_then(|first| first.checked_add_months(Months::new(1)));
    match (first, next) {
        (Some(first), Some(next)) => next.signed_duration_since(first).num_days() as i32,
        _ => DAYS_PER_MONTH,
    }
}

fn justified(value: &ScalarValue, hours: bool, whole_months: bool) -> Result<ScalarValue> {
    let ScalarValue::IntervalMonthDayNano(Some(value)) = value else {
        return Err(Error::internal("an interval was expected"));
    };
    let (mut months, mut days, mut time) = (value.months, value.days, value.nanoseconds);
    let overflow = || out_of_range("interval");
    if hours {
        days = i32::try_from(time / DAY).ok().and_then(|more| days.checked_add(more)).ok_or_else(overflow)?;
        time %= DAY;
    }
    if whole_months {
        months = months.checked_add(days / DAYS_PER_MONTH).ok_or_else(overflow)?;
        days %= DAYS_PER_MONTH;
        if months > 0 && (days < 0 || (hours && days == 0 && time < 0)) {
            days += DAYS_PER_MONTH;
            months -= 1;
        } else if months < 0 && (days > 0 || (hours && days == 0 && time > 0)) {
            days -= DAYS_PER_MONTH;
            months += 1;
        }
    }
    if hours {
        if days > 0 && time < 0 {
            time += DAY;
            days -= 1;
        } else if days < 0 && time > 0 {
            time -= DAY;
            days += 1;
        }
    }
    Ok(interval(months, days, time))
}

fn make_interval(values: &[ScalarValue]) -> Result<ScalarValue> {
    let number = |index: usize| integer_of(&values[index]);
    let overflow = || out_of_range("interval");
    let (years, months, weeks, days) = (number(0)?, number(1)?, number(2)?, number(3)?);
    let months = years.checked_mul(12).and_then(|of_years| of_years.checked_add(months)).ok_or_else(overflow)?;
    let days = weeks.checked_mul(7).and_then(|of_weeks| of_weeks.checked_add(days)).ok_or_else(overflow)?;
    let minutes = number(4)?.checked_mul(60).and_then(|minutes| minutes.checked_add(number(5).ok()?));
    let seconds = float_of(&values[6])? * 1e6;
    if !seconds.is_finite() || seconds.abs() >= 9e18 {
        return Err(overflow());
    }
    let nanoseconds = minutes
        .and_then(|minutes| minutes.checked_mul(60_000_000))
        .and_then(|microseconds| microseconds.checked_add(seconds.round() as i64))
        .and_then(|microseconds| microseconds.checked_mul(MICROSECOND))
        .ok_or_else(overflow)?;
    let small = |number: i64| i32::try_from(number).map_err(|_| overflow());
    Ok(interval(small(months)?, small(days)?, nanoseconds))
}
