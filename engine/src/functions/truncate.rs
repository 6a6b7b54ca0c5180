//! `date_trunc` to weeks and longer, over all years. DataFusion's goes through nanoseconds, which reach from 1677 to 2262,
//! and knows nothing longer than a year.
//!
//! Fields shorter than a week, times and nanoseconds are DataFusion's business.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl};

use super::changed::Change;
use super::zones::shift;
use crate::error::sqlstate;
use crate::{Error, Result};

/// What a time is cut to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
}

impl Field {
    pub(super) fn named(name: &str) -> Option<Field> {
        Some(match name.to_ascii_lowercase().as_str() {
            "week" | "weeks" => Field::Week,
            "month" | "months" | "mon" | "mons" => Field::Month,
            "quarter" | "quarters" | "qtr" => Field::Quarter,
            "year" | "years" | "yr" | "yrs" | "y" => Field::Year,
            "decade" | "decades" => Field::Decade,
            "century" | "centuries" => Field::Century,
            "millennium" | "millennia" => Field::Millennium,
            _ => return None,
        })
    }

    /// The first day of the field that `date` is in.
    pub(super) fn first_day(self, date: NaiveDate) -> Option<NaiveDate> {
        let year = |year| NaiveDate::from_ymd_opt(year, 1, 1);
        // Centuries end with the year 100, and there is no year 0: 1 BC comes before 1.
        let span = |years: i32| (date.year() - 1).div_euclid(years) * years + 1;
        match self {
            Field::Week => date.checked_sub_days(Days::new(date.weekday().num_days_from_monday().into())),
            Field::Month => date.with_day(1),
            Field::Quarter => NaiveDate::from_ymd_opt(date.year(), date.month0() / 3 * 3 + 1, 1),
            Field::Year => year(date.year()),
            Field::Decade => year(date.year().div_euclid(10) * 10),
            Field::Century => year(span(100)),
            Field::Millennium => year(span(1000)),
        }
    }
}

/// Cuts to what DataFusion's function cannot cut to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Truncate;

impl Change for Truncate {
    fn invoke(&self, inner: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let field = match arguments.args.first() {
            Some(ColumnarValue::Scalar(name)) => name.try_as_str().flatten().and_then(Field::named),
            _ => None,
        };
        let (Some(field), [_, time]) = (field, arguments.args.as_slice()) else {
            return inner.invoke_with_args(arguments);
        };
        let DataType::Timestamp(unit, zone) = time.data_type() else {
            return inner.invoke_with_args(arguments);
        };
        if unit == TimeUnit::Nanosecond {
            return inner.invoke_with_args(arguments);
        }
        let constant = matches!(time, ColumnarValue::Scalar(_));
        let times = time.to_array(if constant { 1 } else { arguments.number_rows })?;
        let truncated = cast(&truncate(field, &times, zone)?, arguments.return_type())?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&truncated, 0)?),
            false => ColumnarValue::Array(truncated),
        })
    }
}

fn truncate(field: Field, times: &ArrayRef, zone: Option<Arc<str>>) -> Result<ArrayRef> {
    let unknown =
        |name: &Arc<str>| Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"));
    let clock = match &zone {
        Some(name) if name.as_ref() != "UTC" => Some(Tz::from_str(name).map_err(|_| unknown(name))?),
        _ => None,
    };
    let times = cast(times, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let out_of_range = || Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range");
    // Rows that follow each other are often of one field.
    let mut last: Option<(NaiveDate, i64)> = None;
    let mut first_of = |microseconds: i64| -> Result<i64> {
        let local = match clock {
            Some(clock) => shift(clock, microseconds, true)?,
            None => microseconds,
        };
        let time: NaiveDateTime = DateTime::from_timestamp_micros(local).ok_or_else(out_of_range)?.naive_utc();
        let date = time.date();
        if let Some((known, first)) = last
            && known == date
        {
            return Ok(first);
        }
        let first = field.first_day(date).ok_or_else(out_of_range)?.and_time(NaiveTime::MIN);
        let first = first.and_utc().timestamp_micros();
        let first = match clock {
            Some(clock) => shift(clock, first, false)?,
            None => first,
        };
        last = Some((date, first));
        Ok(first)
    };
    let truncated: Vec<Option<i64>> =
        times.iter().map(|time| time.map(&mut first_of).transpose()).collect::<Result<_>>()?;
    Ok(Arc::new(TimestampMicrosecondArray::from(truncated).with_timezone_opt(zone)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_begin_as_in_postgresql() {
        let date = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).unwrap();
        for (field, from, expected) in [
            (Field::Week, date(2024, 3, 3), date(2024, 2, 26)),
            (Field::Quarter, date(1, 5, 6), date(1, 4, 1)),
            (Field::Year, date(9999, 12, 31), date(9999, 1, 1)),
            (Field::Decade, date(1999, 5, 6), date(1990, 1, 1)),
            (Field::Century, date(2000, 5, 6), date(1901, 1, 1)),
            (Field::Millennium, date(2001, 5, 6), date(2001, 1, 1)),
        ] {
            assert_eq!(field.first_day(from), Some(expected), "{field:?} {from}");
        }
    }
}
