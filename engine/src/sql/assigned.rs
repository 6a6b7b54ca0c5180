//! Conversions by assignment: what a value becomes that a variable of a routine, or a column without a cast in the plan, gets
//! from another type. The casts of SQL are rewritten in plans ([`crate::sql::rules::arithmetic`], [`crate::sql::rules::session_zone`]); where there is
//! no plan, the same is done here to arrays.
//!
//! | from | to | Arrow's cast | here |
//! |---|---|---|---|
//! | timestamp, interval, float … | text | `2024-01-01T00:00:00` | [PostgreSQL's text](crate::functions::printed) |
//! | text | timestamp | of the time that is named in UTC | without the zone that the text names |
//! | text | timestamp with time zone | read by UTC | read by the session's clock if the text names no other |
//! | timestamp, date | timestamp with time zone | of UTC | of the session's clock |
//! | timestamp with time zone | timestamp, date, time | of UTC | of the session's clock |
//! | timestamp | one of fewer digits | cut off | rounded |
//! | duration | interval | as many hours | days and the rest |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, TimestampMicrosecondType};

use crate::Result;
use crate::functions::input::{is_time, read_texts_by_clock};
use crate::functions::printed::{print, prints};
use crate::functions::rounded_times::{loses_digits, round_times};
use crate::functions::zones::{shift, zone_of};
use crate::sql::rules::interval::intervals_of;
use crate::sql::rules::session_zone::is_utc;

/// A column as values of another type, where Arrow's cast would give something else; `None`: it would not.
pub(crate) fn assigned(column: &ArrayRef, target: &DataType, zone: &str) -> Option<Result<ArrayRef>> {
    match (column.data_type(), target) {
        (from, target) if target.is_string() && prints(from) && !holds_rows(from) => {
            Some(print(column, zone).and_then(|texts| finish(&texts, target)))
        }
        (from, target) if from.is_string() && is_time(target) => Some(read_texts_by_clock(column, target, zone)),
        (DataType::Timestamp(_, Some(_)), DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(_, None))
            if !is_utc(zone) =>
        {
            Some(by_clock(column, target, zone, true))
        }
        (DataType::Date32 | DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) if !is_utc(zone) => {
            Some(by_clock(column, target, zone, false))
        }
        (from, target) if loses_digits(from, target) => Some(round_times(column, target)),
        (DataType::Duration(_), DataType::Interval(IntervalUnit::MonthDayNano)) => Some(intervals_of(column)),
        _ => None,
    }
}

/// Whether there are rows in an array, which have no text here.
fn holds_rows(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => holds_rows(element.data_type()),
        other => other.is_nested(),
    }
}

fn exactly(column: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(column, target, &CastOptions { safe: false, ..CastOptions::default() })?)
}

/// The last step, from what is nearly the type.
fn finish(column: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    match loses_digits(column.data_type(), target) {
        true => round_times(column, target),
        false => exactly(column, target),
    }
}

/// Instants as local times of a zone, or the other way round.
fn by_clock(column: &ArrayRef, target: &DataType, zone: &str, to_local: bool) -> Result<ArrayRef> {
    let clock = zone_of(zone)?;
    let times = exactly(column, &DataType::Timestamp(TimeUnit::Microsecond, to_local.then(|| "UTC".into())))?;
    let times = times.as_primitive::<TimestampMicrosecondType>().iter();
    let shifted = times.map(|time| time.map(|time| shift(clock, time, to_local)).transpose());
    let shifted = TimestampMicrosecondArray::from(shifted.collect::<Result<Vec<Option<i64>>>>()?);
    let shifted: ArrayRef = Arc::new(if to_local { shifted } else { shifted.with_timezone("UTC") });
    finish(&shifted, target)
}

#[cfg(test)]
mod tests {
    use arrow::array::{DurationSecondArray, StringArray};

    use super::*;

    const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    fn instants() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }

    fn texts(text: &str) -> ArrayRef {
        Arc::new(StringArray::from(vec![Some(text), None]))
    }

    fn shown(column: &ArrayRef, zone: &str) -> String {
        let texts = assigned(column, &DataType::Utf8View, zone).unwrap().unwrap();
        assert!(texts.is_null(1));
        texts.as_string_view().value(0).to_owned()
    }

    #[test]
    fn texts_are_read_by_the_clock_of_the_session() {
        for (text, target, expected) in [
            ("2020-01-01 10:00:00+02", LOCAL, "2020-01-01 10:00:00"),
            (" 2020-01-01 10:00 ", LOCAL, "2020-01-01 10:00:00"),
            ("2020-01-01 10:00:00.1234567", LOCAL, "2020-01-01 10:00:00.123457"),
            ("2020-01-01 10:00", instants(), "2020-01-01 10:00:00+09"),
            ("2020-01-01 10:00:00+00", instants(), "2020-01-01 19:00:00+09"),
            ("2020-01-01 23:00:00-05", DataType::Date32, "2020-01-01"),
            ("2020-01-01", DataType::Date32, "2020-01-01"),
            ("040506", DataType::Time64(TimeUnit::Microsecond), "04:05:06"),
            (" 10:00:00.5+02", DataType::Time64(TimeUnit::Microsecond), "10:00:00.5"),
        ] {
            let read = assigned(&texts(text), &target, "Asia/Tokyo").unwrap().unwrap();
            assert_eq!(shown(&read, "Asia/Tokyo"), expected, "{text}");
        }
        assert!(assigned(&texts("x"), &LOCAL, "UTC").unwrap().is_err());
        // The clock skips this hour, and shows the next one twice.
        for (text, expected) in
            [("2024-03-10 02:30", "2024-03-10 03:30:00-04"), ("2024-11-03 01:30", "2024-11-03 01:30:00-05")]
        {
            let read = assigned(&texts(text), &instants(), "America/New_York").unwrap().unwrap();
            assert_eq!(shown(&read, "America/New_York"), expected, "{text}");
        }
    }

    #[test]
    fn durations_become_days_and_the_rest() {
        let hours = DurationSecondArray::from(vec![Some(25 * 60 * 60), None]);
        let hours: ArrayRef = Arc::new(hours);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let read = assigned(&hours, &interval, "UTC").unwrap().unwrap();
        assert_eq!(read.data_type(), &interval);
        assert_eq!(shown(&read, "UTC"), "1 day 01:00:00");
        let endless: ArrayRef = Arc::new(DurationSecondArray::from(vec![i64::MAX]));
        assert_eq!(assigned(&endless, &interval, "UTC").unwrap().unwrap_err().sqlstate(), "22008");
    }

    #[test]
    fn times_with_a_zone_and_without_become_each_other_by_the_clock() {
        let local = assigned(&texts("2020-01-01 10:00"), &LOCAL, "UTC").unwrap().unwrap();
        let instant = assigned(&local, &instants(), "Asia/Tokyo").unwrap().unwrap();
        assert_eq!(shown(&instant, "UTC"), "2020-01-01 01:00:00+00");
        let back = assigned(&instant, &LOCAL, "Asia/Tokyo").unwrap().unwrap();
        assert_eq!(&back, &local);
        assert!(assigned(&local, &instants(), "UTC").is_none(), "Arrow does the same");
    }
}
