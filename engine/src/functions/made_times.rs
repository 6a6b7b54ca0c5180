//! Dates and times made of numbers.
//!
//! | function | what it gives |
//! |---|---|
//! | `make_date(year, month, day)` | a date; the year -44 is 44 BC |
//! | `make_time(hour, min, sec)` | a time, the seconds with a fraction |
//! | `make_timestamp(year, month, day, hour, min, sec)` | both; 24:00 is the beginning of the next day |
//! | `isfinite(t)` | true: dates, timestamps and intervals without an end are not there |

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use chrono::NaiveDate;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::{ByRows, float_of, integer_of};
use crate::error::sqlstate;
use crate::{Error, Result};

const MICROSECONDS_PER_SECOND: f64 = 1e6;
const MICROSECONDS_PER_MINUTE: i64 = 60_000_000;
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

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
    [
        strict("make_date", |types| numbers(types, 3, None), |_| DataType::Date32, make_date),
        strict("make_time", |types| numbers(types, 3, Some(2)), |_| DataType::Time64(TimeUnit::Microsecond), make_time),
        strict(
            "make_timestamp",
            |types| numbers(types, 6, Some(5)),
            |_| DataType::Timestamp(TimeUnit::Microsecond, None),
            make_timestamp,
        ),
        strict("isfinite", one_time, |_| DataType::Boolean, |_| Ok(ScalarValue::Boolean(Some(true)))),
    ]
    .into_iter()
    .map(ByRows::function)
    .collect()
}

/// So many whole numbers, and seconds with a fraction at one place.
fn numbers(types: &[DataType], count: usize, seconds: Option<usize>) -> Option<Vec<DataType>> {
    let is_number = |data_type: &DataType| data_type.is_numeric() || data_type.is_null();
    let taken = |place| if Some(place) == seconds { DataType::Float64 } else { DataType::Int64 };
    (types.len() == count && types.iter().all(is_number)).then(|| (0..count).map(taken).collect())
}

fn one_time(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [time @ (DataType::Date32 | DataType::Timestamp(..))] => Some(vec![time.clone()]),
        [DataType::Interval(_) | DataType::Duration(_)] => Some(vec![DataType::Interval(IntervalUnit::MonthDayNano)]),
        _ => None,
    }
}

fn make_date(values: &[ScalarValue]) -> Result<ScalarValue> {
    let date = date_of(integer_of(&values[0])?, integer_of(&values[1])?, integer_of(&values[2])?)?;
    let days = date.signed_duration_since(NaiveDate::default()).num_days();
    let days = i32::try_from(days).map_err(|_| Error::new(sqlstate::DATETIME_OVERFLOW, "date out of range"))?;
    Ok(ScalarValue::Date32(Some(days)))
}

/// There is no year 0: 1 BC, which is the year -1, is before 1.
fn date_of(year: i64, month: i64, day: i64) -> Result<NaiveDate> {
    let small = |number: i64| u32::try_from(number).ok();
    let counted = if year < 0 { year + 1 } else { year };
    let date = i32::try_from(counted)
        .ok()
        .filter(|_| year != 0)
        .and_then(|counted| NaiveDate::from_ymd_opt(counted, small(month)?, small(day)?));
    date.ok_or_else(|| {
        let message = format!("date field value out of range: {year}-{month:02}-{day:02}");
        Error::new(sqlstate::DATETIME_OVERFLOW, message)
    })
}

/// Microseconds since midnight, at most a whole day.
fn time_of(hour: i64, minute: i64, second: f64) -> Result<i64> {
    let microseconds = (second * MICROSECONDS_PER_SECOND).round();
    let fits = (0..=24).contains(&hour) && (0..=59).contains(&minute) && (0.0..=6e7).contains(&microseconds);
    let time = fits.then(|| (hour * 60 + minute) * MICROSECONDS_PER_MINUTE + microseconds as i64);
    time.filter(|time| *time <= MICROSECONDS_PER_DAY).ok_or_else(|| {
        let message = format!("time field value out of range: {hour}:{minute:02}:{second:02}");
        Error::new(sqlstate::DATETIME_OVERFLOW, message)
    })
}

fn make_time(values: &[ScalarValue]) -> Result<ScalarValue> {
    let time = time_of(integer_of(&values[0])?, integer_of(&values[1])?, float_of(&values[2])?)?;
    match time < MICROSECONDS_PER_DAY {
        true => Ok(ScalarValue::Time64Microsecond(Some(time))),
        false => Err(Error::unsupported("the time 24:00:00")),
    }
}

fn make_timestamp(values: &[ScalarValue]) -> Result<ScalarValue> {
    let date = date_of(integer_of(&values[0])?, integer_of(&values[1])?, integer_of(&values[2])?)?;
    let time = time_of(integer_of(&values[3])?, integer_of(&values[4])?, float_of(&values[5])?)?;
    let midnight = date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();
    Ok(ScalarValue::TimestampMicrosecond(Some(midnight + time), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_before_christ_have_no_year_0() {
        assert_eq!(date_of(2013, 7, 15).unwrap().to_string(), "2013-07-15");
        assert_eq!(date_of(-44, 3, 15).unwrap().to_string(), "-0043-03-15");
        for (year, month, day) in [(0, 3, 15), (2013, 2, 30), (2013, 13, 1), (2013, -1, 1), (i64::MAX, 1, 1)] {
            assert_eq!(date_of(year, month, day).unwrap_err().sqlstate(), "22008", "{year}-{month}-{day}");
        }
    }

    #[test]
    fn a_day_ends_at_24_hours() {
        assert_eq!(time_of(8, 15, 23.5).unwrap(), 29_723_500_000);
        assert_eq!(time_of(24, 0, 0.0).unwrap(), MICROSECONDS_PER_DAY);
        assert_eq!(time_of(8, 15, 60.0).unwrap(), time_of(8, 16, 0.0).unwrap());
        for (hour, minute, second) in [(24, 0, 1.0), (8, 60, 0.0), (8, 15, 60.5), (-1, 0, 0.0), (1, 1, f64::NAN)] {
            assert_eq!(time_of(hour, minute, second).unwrap_err().sqlstate(), "22008", "{hour}:{minute}:{second}");
        }
    }
}
