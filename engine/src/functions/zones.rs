//! `timezone(zone, timestamp)`, which is what `timestamp AT TIME ZONE zone` means.
//!
//! DataFusion makes a cast of it: a timestamp with time zone stays one, shown by other clocks, and the name of a zone that
//! does not exist reaches the client. Here, as in PostgreSQL, a timestamp with time zone becomes the local time of the
//! zone, without one; a timestamp without is taken for the zone's local time.
//!
//! An offset that is written as a zone counts as POSIX has it, to the west: `'+03'` is what ISO writes as `-03`. The offset
//! of a session, `SET timezone = '+03:00'`, counts to the east, and so does the one that `make_timestamptz` is given: both are
//! functions of their own. A zone may also be an [abbreviation](super::zone_abbreviations), or an interval to the east of UTC.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use datafusion::common::{ScalarValue, exec_err, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::input::read_texts;
use super::time_texts::zone_text;
use super::zone_abbreviations::zone_of_abbreviation;
use crate::error::sqlstate;
use crate::{Error, Result};

/// What AT TIME ZONE is rewritten to.
pub(crate) const TIMEZONE: &str = "timezone";

/// The instant of a local time, which is what `make_timestamptz` with a zone is rewritten to.
pub(crate) const INSTANT_AT: &str = "instant_at_zone";

/// Whose name of a zone it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Naming {
    /// That of AT TIME ZONE, where offsets are those of POSIX.
    Written,
    /// That of `make_timestamptz`, where they are those of ISO.
    Made,
    /// That of the session, as the setting keeps it.
    OfSession,
}

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![at_time_zone(Naming::Written), at_time_zone(Naming::Made)]
}

/// `session_clock(zone, timestamp)`: the same for the zone of a session.
pub(crate) fn session_clock() -> Arc<ScalarUDF> {
    at_time_zone(Naming::OfSession)
}

fn at_time_zone(naming: Naming) -> Arc<ScalarUDF> {
    Arc::new(AtTimeZone { signature: Signature::any(2, Volatility::Immutable), naming }.into())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    signature: Signature,
    naming: Naming,
}

/// The type of instants.
pub(super) fn instants() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        match self.naming {
            Naming::Written => TIMEZONE,
            Naming::Made => INSTANT_AT,
            Naming::OfSession => "session_clock",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            // A text is read as a timestamp with time zone.
            [_, DataType::Timestamp(_, Some(_)) | DataType::Date32] => Ok(LOCAL),
            [_, text] if text.is_string() => Ok(LOCAL),
            [_, DataType::Timestamp(_, None) | DataType::Null] => Ok(instants()),
            [_, other] => {
                let message = format!("AT TIME ZONE does not take a {}", crate::sql::types::name_of(other));
                Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message).into())
            }
            _ => exec_err!("timezone takes 2 arguments"),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let [zone, time] = take_function_args(self.name(), arguments.args)?;
        let of_instants = !matches!(time.data_type(), DataType::Timestamp(_, None) | DataType::Null);
        let wanted = if of_instants { instants() } else { LOCAL };
        let times = time.to_array(rows)?;
        // Arrow's cast makes NULL of what is no time.
        let times = if times.data_type().is_string() { read_texts(&times, &wanted)? } else { cast(&times, &wanted)? };
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let zones = zone.to_array(rows)?;
        let converted = match zones.data_type() {
            DataType::Interval(_) => by_intervals(&zones, times, of_instants)?,
            _ => self.by_names(&zones, times, of_instants)?,
        };
        let converted = if of_instants { converted } else { converted.with_timezone("UTC") };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&converted, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(converted))),
        }
    }
}

impl AtTimeZone {
    fn by_names(
        &self,
        zones: &ArrayRef,
        times: &TimestampMicrosecondArray,
        to_local: bool,
    ) -> Result<TimestampMicrosecondArray> {
        let zones = cast(zones, &DataType::Utf8View)?;
        let zones = zones.as_string_view();
        let mut known: Option<(String, Tz)> = None;
        let mut converted = Vec::with_capacity(times.len());
        for row in 0..times.len() {
            if zones.is_null(row) || times.is_null(row) {
                converted.push(None);
                continue;
            }
            let name = zones.value(row);
            let zone = match &known {
                Some((last, zone)) if last == name => *zone,
                _ => {
                    let zone = match self.naming {
                        Naming::Written => written_zone(name)?,
                        Naming::Made => made_zone(name)?,
                        Naming::OfSession => zone_of(name)?,
                    };
                    known = Some((name.to_owned(), zone));
                    zone
                }
            };
            converted.push(Some(shift(zone, times.value(row), to_local)?));
        }
        Ok(TimestampMicrosecondArray::from(converted))
    }
}

/// The same with intervals for zones: so much is added to UTC.
fn by_intervals(
    zones: &ArrayRef,
    times: &TimestampMicrosecondArray,
    to_local: bool,
) -> Result<TimestampMicrosecondArray> {
    let zones = cast(zones, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let zones = zones.as_primitive::<IntervalMonthDayNanoType>();
    let mut converted = Vec::with_capacity(times.len());
    for row in 0..times.len() {
        converted.push(match zones.is_null(row) || times.is_null(row) {
            true => None,
            false => {
                let offset = offset_of(zones.value(row))?;
                let time = times.value(row).checked_add(if to_local { offset } else { -offset });
                Some(time.ok_or_else(|| Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range"))?)
            }
        });
    }
    Ok(TimestampMicrosecondArray::from(converted))
}

/// The microseconds of an interval that is a zone.
fn offset_of(interval: IntervalMonthDayNano) -> Result<i64> {
    match (interval.months, interval.days) {
        (0, 0) => Ok(interval.nanoseconds / 1_000),
        _ => {
            let message = "an interval that is a time zone must not include months or days";
            Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message))
        }
    }
}

/// The zone of this name.
pub(crate) fn zone_of(name: &str) -> Result<Tz> {
    Tz::from_str(name).map_err(|_| unknown_zone(name))
}

fn unknown_zone(name: &str) -> Error {
    Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
}

/// The zone that AT TIME ZONE names: `+03`, `UTC+3` and `EST5` are to the west of Greenwich, `-05:30` is to the east.
pub(super) fn written_zone(name: &str) -> Result<Tz> {
    match posix_offset(name) {
        Some(offset) => zone_of(&offset).map_err(|_| unknown_zone(name)),
        None if name.starts_with(['+', '-']) => Err(unknown_zone(name)),
        None => named_zone(name),
    }
}

/// The zone that `make_timestamptz` names: `+2` and `+05:30` are to the east.
fn made_zone(name: &str) -> Result<Tz> {
    if name.starts_with(|letter: char| letter.is_ascii_digit()) {
        let message = format!("invalid input syntax for type numeric time zone: \"{name}\"");
        return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message)
            .with_hint("Numeric time zones must have \"-\" or \"+\" as first character."));
    }
    match name.starts_with(['+', '-']) {
        true => zone_text(name).and_then(|offset| Tz::from_str(&offset).ok()).ok_or_else(|| unknown_zone(name)),
        false => named_zone(name),
    }
}

/// The zone of an abbreviation or of a name in any case.
fn named_zone(name: &str) -> Result<Tz> {
    match zone_of_abbreviation(name) {
        Some(zone) => zone_of(&zone).map_err(|_| unknown_zone(name)),
        None => zone_of(name).or_else(|error| zone_of(&capitalized(name)).map_err(|_| error)),
    }
}

/// The name of a zone as it is spelled, whatever its case: `America/New_York`.
pub(super) fn capitalized(name: &str) -> String {
    let mut begins = true;
    let spelled = name.chars().map(|letter| {
        let letter = if begins { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
        begins = !letter.is_ascii_alphabetic();
        letter
    });
    spelled.collect()
}

/// What ISO writes for an offset in the way of POSIX; `None` if it is none, or the name of a zone that is known by it.
pub(super) fn posix_offset(name: &str) -> Option<String> {
    let digits = name.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
    let is_named = digits.len() < name.len();
    if digits.is_empty() || (is_named && Tz::from_str(name).is_ok()) {
        return None;
    }
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ('+', digits),
        None => ('-', digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (hours, minutes) = digits.split_once(':').unwrap_or((digits, "0"));
    let number = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => part.parse::<u8>().ok(),
        false => None,
    };
    Some(format!("{sign}{:02}:{:02}", number(hours)?, number(minutes)?))
}

/// From an instant to local time, or back. What a clock skips is as it would be without the change.
pub(crate) fn shift(zone: Tz, microseconds: i64, to_local: bool) -> Result<i64> {
    let out_of_range = || Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range");
    let time: NaiveDateTime = DateTime::from_timestamp_micros(microseconds).ok_or_else(out_of_range)?.naive_utc();
    let seconds = match to_local {
        true => i64::from(zone.offset_from_utc_datetime(&time).fix().local_minus_utc()),
        false => {
            let offset = match zone.offset_from_local_datetime(&time) {
                chrono::LocalResult::Single(offset) => offset,
                // The later instant, at the zone's standard time.
                chrono::LocalResult::Ambiguous(_, later) => later,
                // No clock skips more than a day.
                chrono::LocalResult::None => {
                    let before = time.checked_sub_signed(TimeDelta::days(1)).ok_or_else(out_of_range)?;
                    zone.offset_from_local_datetime(&before).latest().ok_or_else(out_of_range)?
                }
            };
            -i64::from(offset.fix().local_minus_utc())
        }
    };
    microseconds.checked_add(seconds * 1_000_000).ok_or_else(out_of_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_follow_the_zone() {
        let zone = zone_of("America/New_York").unwrap();
        let hour = 3_600_000_000i64;
        let noon = DateTime::parse_from_rfc3339("2024-07-01T12:00:00Z").unwrap().timestamp_micros();
        assert_eq!(shift(zone, noon, true).unwrap(), noon - 4 * hour);
        assert_eq!(shift(zone, noon, false).unwrap(), noon + 4 * hour);
        assert_eq!(zone_of("Nope/Nope").unwrap_err().sqlstate(), "22023");
    }

    #[test]
    fn skipped_times_are_as_before_the_change() {
        for (zone, local, expected) in [
            ("Europe/Moscow", "2011-03-27T02:00:00Z", "2011-03-26T23:00:00Z"),
            ("Europe/Moscow", "2011-03-27T02:59:59Z", "2011-03-26T23:59:59Z"),
            ("America/New_York", "2024-03-10T02:30:00Z", "2024-03-10T07:30:00Z"),
            ("Pacific/Apia", "2011-12-30T12:00:00Z", "2011-12-30T22:00:00Z"),
        ] {
            let micros = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
            assert_eq!(
                shift(zone_of(zone).unwrap(), micros(local), false).unwrap(),
                micros(expected),
                "{zone} {local}"
            );
        }
    }

    #[test]
    fn made_offsets_count_to_the_east() {
        let noon = DateTime::parse_from_rfc3339("2024-07-01T12:00:00Z").unwrap().timestamp_micros();
        let minutes = |name: &str| (shift(made_zone(name).unwrap(), noon, true).unwrap() - noon) / 60_000_000;
        for (name, expected) in
            [("+2", 120), ("-08", -480), ("+05:30", 330), ("-0330", -210), ("PST", -480), ("utc", 0)]
        {
            assert_eq!(minutes(name), expected, "{name}");
        }
        for unknown in ["2", "+", "+x", "Nope/Nope"] {
            assert_eq!(made_zone(unknown).unwrap_err().sqlstate(), "22023", "{unknown}");
        }
    }

    #[test]
    fn written_offsets_count_to_the_west() {
        for (name, expected) in [
            ("+03", Some("-03:00")),
            ("-5", Some("+05:00")),
            ("-05:30", Some("+05:30")),
            ("+0530", None),
            ("UTC+3", Some("-03:00")),
            ("UTC", None),
            ("Etc/GMT+3", None),
            ("America/New_York", None),
            ("+x", None),
            ("", None),
        ] {
            assert_eq!(posix_offset(name).as_deref(), expected, "{name}");
        }
        for unknown in ["+99:99", "+0530", "+", "Nope/Nope"] {
            assert_eq!(written_zone(unknown).unwrap_err().sqlstate(), "22023", "{unknown}");
        }
        assert!(written_zone("UTC").is_ok());
    }

    #[test]
    fn zones_have_abbreviations_and_any_case() {
        let noon = DateTime::parse_from_rfc3339("2024-07-01T12:00:00Z").unwrap().timestamp_micros();
        let hours = |name: &str| (shift(written_zone(name).unwrap(), noon, true).unwrap() - noon) / 3_600_000_000;
        for (name, expected) in [("PST", -8), ("pdt", -7), ("CET", 1), ("america/new_york", -4), ("MSK", 3), ("utc", 0)]
        {
            assert_eq!(hours(name), expected, "{name}");
        }
        let day = IntervalMonthDayNano::new(0, 1, 0);
        assert_eq!(offset_of(day).unwrap_err().sqlstate(), "22023");
        assert_eq!(offset_of(IntervalMonthDayNano::new(0, 0, -3_600_000_000_000)).unwrap(), -3_600_000_000);
    }
}
