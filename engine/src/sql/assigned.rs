//! Conversions by assignment: what a value becomes that a variable of a routine, or a column without a cast in the plan, gets
//! from another type. The casts of SQL are rewritten in plans ([`crate::sql::rules::arithmetic`], [`crate::sql::rules::session_zone`]); where there is
//! no plan, the same is done here to arrays.
//!
//! | from | to | Arrow's cast | here |
//! |---|---|---|---|
//! | timestamp, interval, float, row … | text | `2024-01-01T00:00:00` | [PostgreSQL's text](crate::functions::printed) |
//! | date in milliseconds, duration | text | `2024-01-01T00:00:00`, `PT90061S` | that of the date, of the interval |
//! | text | timestamp | of the time that is named in UTC | without the zone that the text names |
//! | text | timestamp with time zone | read by UTC | read by the session's clock if the text names no other |
//! | timestamp, date | timestamp with time zone | of UTC | of the session's clock |
//! | timestamp with time zone | timestamp, date, time | of UTC, or of the zone in its type | of the session's clock |
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
use crate::functions::row_text::has_text;
use crate::functions::zones::{shift, zone_of};
use crate::sql::rules::interval::intervals_of;
use crate::sql::rules::session_zone::is_utc;

/// A column as values of another type, where Arrow's cast would give something else; `None`: it would not.
pub(crate) fn assigned(column: &ArrayRef, target: &DataType, zone: &str) -> Option<Result<ArrayRef>> {
    match (column.data_type(), target) {
        (from, target) if target.is_string() && prints(from) && has_text(from) => {
            Some(print(column, zone).and_then(|texts| finish(&texts, target)))
        }
        (DataType::Date64, target) if target.is_string() => {
            let days = exactly(column, &DataType::Date32);
            Some(days.and_then(|days| print(&days, zone)).and_then(|texts| finish(&texts, target)))
        }
        (DataType::Duration(_), target) if target.is_string() => {
            let spans = intervals_of(column);
            Some(spans.and_then(|spans| print(&spans, zone)).and_then(|texts| finish(&texts, target)))
        }
        (from, target) if from.is_string() && is_time(target) => Some(read_texts_by_clock(column, target, zone)),
        (DataType::Timestamp(_, Some(_)), DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(_, None))
            if !is_utc(zone) =>
        {
            Some(by_clock(column, target, zone, true))
        }
        // Arrow goes by the clock of the zone that the type names.
        (DataType::Timestamp(unit, Some(named)), DataType::Date32 | DataType::Time64(_)) if !is_utc(named) => {
            let instants = exactly(column, &DataType::Timestamp(*unit, Some("UTC".into())));
            Some(instants.and_then(|instants| finish(&instants, target)))
        }
        (DataType::Date32 | DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) if !is_utc(zone) => {
            Some(by_clock(column, target, zone, false))
        }
        (from, target) if loses_digits(from, target) => Some(round_times(column, target)),
        (DataType::Duration(_), DataType::Interval(IntervalUnit::MonthDayNano)) => Some(intervals_of(column)),
        _ => None,
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
    use arrow::array::{Date64Array, DurationSecondArray, StringArray};

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
    fn dates_have_no_time_however_they_are_counted() {
        let day: ArrayRef = Arc::new(Date64Array::from(vec![Some(86_400_000), None]));
        assert_eq!(shown(&day, "UTC"), "1970-01-02");
    }

    #[test]
    fn instants_go_by_the_clock_of_the_session_and_not_of_their_type() {
        let instant = TimestampMicrosecondArray::from(vec![Some(20 * 60 * 60 * 1_000_000), None]);
        let instant: ArrayRef = Arc::new(instant.with_timezone("Asia/Tokyo"));
        for (zone, target, expected) in [
            ("UTC", DataType::Date32, "1970-01-01"),
            ("UTC", DataType::Time64(TimeUnit::Microsecond), "20:00:00"),
            ("Asia/Tokyo", DataType::Date32, "1970-01-02"),
            ("Asia/Tokyo", DataType::Time64(TimeUnit::Microsecond), "05:00:00"),
        ] {
            let read = assigned(&instant, &target, zone).unwrap().unwrap();
            assert_eq!(shown(&read, zone), expected, "{zone} {target}");
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
        assert_eq!(shown(&hours, "UTC"), "1 day 01:00:00");
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
