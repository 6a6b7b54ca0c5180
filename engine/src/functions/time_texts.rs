//! Texts of dates, times and timestamps as people write them, in the form that Arrow's casts read as PostgreSQL would.
//!
//! | text | as | Arrow's cast | here |
//! |---|---|---|---|
//! | `2024-01-01 10:00:00+02` | timestamp | 08:00 | 10:00, as the zone means nothing |
//! | `2024-01-01 23:00:00-05` | date | 2024-01-02 | 2024-01-01 |
//! | `10:00:00.1234567` | any | its first six digits | rounded |
//! | `040506` | time | 00:00:00.040506 | 04:05:06 |
//! | `2024-01-01 10:00`, `20240101 10:00:00`, `2024-1-5 1:02:03` | any | refused | read |
//! | `10:00:00+02`, `2024-01-01 10:00:00` | time | refused | 10:00:00 |
//! | `23:59:60`, `23:59:59.9999999` | time | the beginning of a day, or a time after all | refused |
//! | `8 January 1999`, `1/8/1999` | any but time | refused | read |
//! | `Mon Feb 10 17:32:01 1997 PST` | any but time | refused | [read word by word](super::time_words) |
//! | what the clock of a zone shows twice or never | timestamptz | refused | [an instant](super::zones) |

use std::str::FromStr;

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{
    DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, SubsecRound, TimeDelta, TimeZone, Timelike,
};

use super::time_digits::digits_of_unit;
use super::time_words::by_words;
use super::zone_abbreviations::zone_of_abbreviation;
use super::zones::{capitalized, posix_offset, shift};
use crate::sql::rules::session_zone::is_utc;
use crate::sql::tree::date_words::in_iso_order;

/// Digits stand for digits, and all else for itself.
const DATE: &[u8] = b"9999-99-99";
const TIME: &[u8] = b"99:99:99";

/// The text as Arrow reads it; `None` if that is as it stands, or if nobody can read it.
pub(crate) fn readable(text: &str, data_type: &DataType) -> Option<String> {
    let written = match data_type {
        DataType::Date32 => date_text(text),
        DataType::Time64(unit) => time_text(text, *unit),
        DataType::Timestamp(unit, zone) => timestamp_text(text, *unit, zone.as_deref()),
        _ => return None,
    };
    let written = written.or_else(|| (text.trim() != text).then(|| text.trim().to_owned()));
    written.filter(|written| written != text)
}

fn date_text(text: &str) -> Option<String> {
    if has_form(text.as_bytes(), DATE) {
        return None;
    }
    let (moment, _) = taken_apart(text)?;
    Some(moment.date().format("%Y-%m-%d").to_string())
}

fn time_text(text: &str, unit: TimeUnit) -> Option<String> {
    if is_plain_time(text.as_bytes(), digits_of_unit(unit)) {
        return None;
    }
    let text = text.trim();
    let alone = time_of(text).filter(|(.., zone)| zone_text(zone).is_some());
    let (time, days) = match alone {
        Some((time, days, _)) => (time, days),
        // The time of a timestamp.
        None if text.contains(':') => (taken_apart(text)?.0.time(), 0),
        None => return None,
    };
    let rounded = time.round_subsecs(u16::from(digits_of_unit(unit)));
    // The end of a day, which is no time here: Arrow says so.
    if days > 0 || (rounded < time && rounded == NaiveTime::MIN) {
        return Some("24:00:00".to_owned());
    }
    Some(rounded.format("%H:%M:%S%.f").to_string())
}

/// `zone` is that of a timestamp with time zone: what a text is read by that names no other.
fn timestamp_text(text: &str, unit: TimeUnit, zone: Option<&str>) -> Option<String> {
    let clock = zone.filter(|zone| !is_utc(zone)).and_then(|zone| Tz::from_str(zone).ok());
    let local = if zone.is_some() { without_offset(text.as_bytes()) } else { text.as_bytes() };
    if clock.is_none() && is_plain_timestamp(local, digits_of_unit(unit)) {
        return None;
    }
    let (moment, own) = taken_apart(text)?;
    let moment = rounded(moment, digits_of_unit(unit));
    let shown = moment.format("%Y-%m-%d %H:%M:%S%.f");
    let clock = match own.strip_prefix(' ') {
        Some(name) => Tz::from_str(name).ok(),
        None => clock.filter(|_| own.is_empty()),
    };
    match (zone, clock) {
        (None, _) => Some(shown.to_string()),
        (Some(_), Some(clock)) if clock.offset_from_local_datetime(&moment).single().is_none() => {
            let instant = shift(clock, moment.and_utc().timestamp_micros(), false).ok()?;
            let instant = DateTime::from_timestamp_micros(instant)?.naive_utc();
            Some(format!("{}+00:00", instant.format("%Y-%m-%d %H:%M:%S%.f")))
        }
        (Some(_), _) => Some(format!("{shown}{own}")),
    }
}

/// The moment with so many digits of a second, as PostgreSQL rounds it: to microseconds first, which is what it has, and
/// then with halves going away from the first moment of 2000.
pub(super) fn rounded(moment: NaiveDateTime, digits: u8) -> NaiveDateTime {
    let moment = moment.round_subsecs(u16::from(digits.max(6)));
    let step = 10u32.pow(u32::from(9 - digits.min(9)));
    let is_half = moment.nanosecond() % step * 2 == step;
    match is_half && moment.year() < 2000 {
        true => moment.trunc_subsecs(u16::from(digits)),
        false => moment.round_subsecs(u16::from(digits)),
    }
}

fn has_form(text: &[u8], form: &[u8]) -> bool {
    let fits = |(byte, form): (&u8, &u8)| if *form == b'9' { byte.is_ascii_digit() } else { byte == form };
    text.len() == form.len() && text.iter().zip(form).all(fits)
}

/// Whether Arrow reads the time as PostgreSQL does.
fn is_plain_time(text: &[u8], digits: u8) -> bool {
    let Some((time, rest)) = text.split_at_checked(TIME.len()) else { return false };
    let plain = match rest.split_first() {
        None => true,
        Some((b'.', fraction)) => {
            (1..=usize::from(digits)).contains(&fraction.len()) && fraction.iter().all(u8::is_ascii_digit)
        }
        Some(_) => false,
    };
    plain && has_form(time, TIME) && !time.starts_with(b"24") && !time.ends_with(b"60")
}

fn is_plain_timestamp(text: &[u8], digits: u8) -> bool {
    let Some((date, rest)) = text.split_at_checked(DATE.len()) else { return false };
    let plain = match rest.split_first() {
        None => true,
        Some((b' ' | b'T', time)) => is_plain_time(time, digits),
        Some(_) => false,
    };
    plain && has_form(date, DATE)
}

/// A timestamp without the offset of a time zone, if it is written as Arrow reads it.
fn without_offset(text: &[u8]) -> &[u8] {
    let sign = text.iter().rposition(|byte| matches!(byte, b'+' | b'-')).filter(|sign| *sign > DATE.len());
    match sign.map(|sign| text.split_at(sign)) {
        Some((local, offset)) if has_form(&offset[1..], b"99") || has_form(&offset[1..], b"99:99") => local,
        _ => text.strip_suffix(b"Z").unwrap_or(text),
    }
}

/// The date and the time of a text, or midnight, and the time zone behind it as Arrow reads it.
fn taken_apart(text: &str) -> Option<(NaiveDateTime, String)> {
    in_order(text).or_else(|| by_words(text))
}

/// The same of a text that has them in this order.
fn in_order(text: &str) -> Option<(NaiveDateTime, String)> {
    let ordered = in_iso_order(text);
    let text = ordered.as_deref().unwrap_or(text.trim());
    let (date, rest) = text.split_at(text.find([' ', 'T', 't']).unwrap_or(text.len()));
    let date = date_of(date)?;
    let rest = rest.strip_prefix(['T', 't']).unwrap_or(rest).trim_start();
    if rest.is_empty() {
        return Some((date.and_time(NaiveTime::MIN), String::new()));
    }
    let (time, days, zone) = time_of(rest)?;
    Some((date.checked_add_days(Days::new(days))?.and_time(time), zone_text(zone)?))
}

/// A number of one or two digits.
fn small(text: &str) -> Option<u32> {
    let fits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// `2024-1-5`.
pub(super) fn date_of(text: &str) -> Option<NaiveDate> {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return None };
    if !has_form(year.as_bytes(), b"9999") {
        return None;
    }
    NaiveDate::from_ymd_opt(year.parse().ok()?, small(month)?, small(day)?)
}

/// `10:00`, `10:00:00.5`, `100000`, how many days later that is, and what follows: `24:00:00` is the beginning of the day after,
/// and so is `23:59:60`.
pub(super) fn time_of(text: &str) -> Option<(NaiveTime, u64, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != ':' && letter != '.');
    let (time, zone) = text.split_at(end.unwrap_or(text.len()));
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let parts: Vec<&str> = match clock.len() {
        6 if has_form(clock.as_bytes(), b"999999") => vec![&clock[..2], &clock[2..4], &clock[4..]],
        4 if has_form(clock.as_bytes(), b"9999") => vec![&clock[..2], &clock[2..]],
        _ => clock.split(':').collect(),
    };
    let (hour, minute, second) = match parts.as_slice() {
        [hour, minute] if fraction.is_empty() => (small(hour)?, small(minute)?, 0),
        [hour, minute, second] => (small(hour)?, small(minute)?, small(second)?),
        _ => return None,
    };
    let nine: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds = if nine.bytes().all(|byte| byte.is_ascii_digit()) { nine.parse().ok()? } else { return None };
    if (hour, minute, second, nanoseconds) == (24, 0, 0, 0) {
        return Some((NaiveTime::MIN, 1, zone.trim()));
    }
    let more = second.saturating_sub(59).min(1);
    let time = NaiveTime::from_hms_nano_opt(hour, minute, second - more, nanoseconds)?;
    let (time, wrapped) = time.overflowing_add_signed(TimeDelta::seconds(i64::from(more)));
    Some((time, u64::from(wrapped > 0), zone.trim()))
}

/// A time zone behind a time as Arrow reads it: with hours and minutes of two digits each, or by the name of a place.
pub(super) fn zone_text(zone: &str) -> Option<String> {
    if zone.is_empty() {
        return Some(String::new());
    }
    if zone.eq_ignore_ascii_case("z") || is_utc(zone) {
        return Some("+00:00".to_owned());
    }
    let Some(digits) = zone.strip_prefix(['+', '-']) else {
        // `GMT+8` is to the west, as in PostgreSQL.
        if let Some(offset) = posix_offset(zone) {
            return Some(offset);
        }
        return match zone_of_abbreviation(zone) {
            Some(offset) if offset.starts_with(['+', '-']) => Some(offset),
            Some(place) => Some(format!(" {place}")),
            None if Tz::from_str(zone).is_ok() => Some(format!(" {zone}")),
            None => Some(capitalized(zone)).filter(|name| Tz::from_str(name).is_ok()).map(|name| format!(" {name}")),
        };
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if digits.len() > 2 => digits.split_at_checked(digits.len() - 2)?,
        None => (digits, "0"),
    };
    Some(format!("{}{:02}:{:02}", &zone[..1], small(hours)?, small(minutes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    fn instants(zone: &str) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()))
    }

    #[test]
    fn timestamps_without_zone_forget_it() {
        for (text, expected) in [
            ("2024-01-01 10:00:00+02", Some("2024-01-01 10:00:00")),
            ("2024-01-01T10:00Z", Some("2024-01-01 10:00:00")),
            ("2024-01-01 10:00:00.5 -05:30", Some("2024-01-01 10:00:00.500")),
            ("2024-01-01 23:59:59.9999999", Some("2024-01-02 00:00:00")),
            ("20240101 10:00:00", Some("2024-01-01 10:00:00")),
            ("2024-1-5 1:02:03", Some("2024-01-05 01:02:03")),
            ("2024-12-31 24:00", Some("2025-01-01 00:00:00")),
            (" 2024-01-01 10:00:00 ", Some("2024-01-01 10:00:00")),
            ("2024-12-31 23:59:60", Some("2025-01-01 00:00:00")),
            ("Mon Feb 10 17:32:01 1997 PST", Some("1997-02-10 17:32:01")),
            ("2024-01-01 10:00:00", None),
            ("2024-01-01T10:00:00.123456", None),
            ("2024-01-01", None),
            ("nonsense", None),
            ("2024-01-01 10:00:00 Nowhere/At all", None),
        ] {
            assert_eq!(readable(text, &LOCAL).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn halves_go_away_from_2000() {
        let (seconds, milliseconds) = (TimeUnit::Second, TimeUnit::Millisecond);
        for (text, unit, expected) in [
            ("2024-01-01 10:00:00.5", seconds, "2024-01-01 10:00:01"),
            ("1985-01-01 10:00:00.5", seconds, "1985-01-01 10:00:00"),
            ("1985-01-01 10:00:00.500001", seconds, "1985-01-01 10:00:01"),
            ("2024-01-01 10:00:00.4999996", seconds, "2024-01-01 10:00:01"),
            ("1985-01-01 10:00:00.0015", milliseconds, "1985-01-01 10:00:00.001"),
            ("2024-01-01 10:00:00.0015", milliseconds, "2024-01-01 10:00:00.002"),
        ] {
            assert_eq!(readable(text, &DataType::Timestamp(unit, None)).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn timestamps_with_zone_keep_it() {
        for (text, zone, expected) in [
            ("2024-01-01T9:05+02", "UTC", Some("2024-01-01 09:05:00+02:00")),
            ("2024-01-01 10:00:00-0530", "UTC", Some("2024-01-01 10:00:00-05:30")),
            ("2024-01-01 10:00:00", "UTC", None),
            ("2024-01-01 10:00:00.5+02", "UTC", None),
            ("2024-01-01T10:00:00Z", "UTC", None),
            ("2024-01-01", "UTC", None),
            ("2024-01-01 10:00:00", "America/New_York", None),
            ("2024-01-01 10:00 Asia/Tokyo", "UTC", Some("2024-01-01 10:00:00 Asia/Tokyo")),
            ("2024-01-01 10:00:00 asia/tokyo", "UTC", Some("2024-01-01 10:00:00 Asia/Tokyo")),
            ("2024-01-01 10:00:00 PST", "UTC", Some("2024-01-01 10:00:00-08:00")),
            ("2024-01-01 10:00:00 GMT+8", "UTC", Some("2024-01-01 10:00:00-08:00")),
            ("2011-03-27 02:00:00 Europe/Moscow", "UTC", Some("2011-03-26 23:00:00+00:00")),
            // Never shown, and shown twice.
            ("2024-03-10 02:30:00", "America/New_York", Some("2024-03-10 07:30:00+00:00")),
            ("2024-11-03 01:30:00", "America/New_York", Some("2024-11-03 06:30:00+00:00")),
        ] {
            assert_eq!(readable(text, &instants(zone)).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn dates_and_times_are_taken_out_of_timestamps() {
        for (text, expected) in [
            ("2024-01-01 23:00:00-05", Some("2024-01-01")),
            ("20240101", Some("2024-01-01")),
            ("8 January 1999", Some("1999-01-08")),
            ("2024-01-01", None),
            ("2024-13-01", None),
        ] {
            assert_eq!(readable(text, &DataType::Date32).as_deref(), expected, "{text}");
        }
        let time = DataType::Time64(TimeUnit::Microsecond);
        for (text, expected) in [
            ("040506.5", Some("04:05:06.500")),
            ("0405", Some("04:05:00")),
            (" 10:00:00 ", Some("10:00:00")),
            ("10:00:00+02", Some("10:00:00")),
            ("10:00:00.1234567", Some("10:00:00.123457")),
            ("2024-01-01 10:00", Some("10:00:00")),
            ("04:05:06", None),
            ("4:05 PM", None),
            ("24:00:00", None),
            ("23:59:60", Some("24:00:00")),
            ("23:59:60.01", Some("24:00:00")),
            ("23:59:59.9999999", Some("24:00:00")),
            ("10:59:60", Some("11:00:00")),
        ] {
            assert_eq!(readable(text, &time).as_deref(), expected, "{text}");
        }
    }
}
