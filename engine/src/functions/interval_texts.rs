//! Texts of intervals, in all forms that PostgreSQL reads: `1 day 02:03:04.5`, `1-2`, `3 4:05`, `@ 1 day ago`, and those of ISO
//! 8601, `P1Y2M`, `P0001-02-03T04:05`.
//!
//! As there, the words are read from the last one on, as the unit of a number stands behind it. A number without a unit has that of
//! the one behind it, which is days before a time or hours; the last one is of seconds, or of the last of the [`Fields`] that a
//! declaration names. No unit may come twice. Beside PostgreSQL's there are nanoseconds.

use arrow::datatypes::IntervalMonthDayNano;

use super::interval_parts::{
    Field, Fields, HOUR, MICROSECOND, MINUTE, MONTHS_PER_YEAR, Parts, Refusal, SECOND, Unit, bits_of_split_second,
    bits_of_time,
};
use crate::error::sqlstate;
use crate::{Error, Result};

/// The largest number of ISO's forms, as in PostgreSQL.
const ISO_MAX: f64 = 1e15;

/// The interval of a text.
pub(crate) fn interval_of(text: &str) -> Result<IntervalMonthDayNano> {
    interval_with(text, Fields::default())
}

/// The same where fields are declared.
pub(crate) fn interval_with(text: &str, fields: Fields) -> Result<IntervalMonthDayNano> {
    read(text, fields).map_err(|refusal| match refusal {
        Refusal::Syntax => {
            Error::new(sqlstate::INVALID_DATETIME, format!("invalid input syntax for type interval: \"{text}\""))
        }
        Refusal::Number => {
            Error::new(sqlstate::INTERVAL_OVERFLOW, format!("interval field value out of range: \"{text}\""))
        }
        Refusal::Sum => Error::new(sqlstate::DATETIME_OVERFLOW, "interval out of range"),
    })
}

fn read(text: &str, fields: Fields) -> std::result::Result<IntervalMonthDayNano, Refusal> {
    let text = text.trim().to_ascii_lowercase();
    let parts = match text.strip_prefix('p') {
        Some(iso) => iso_parts(iso)?,
        None => parts_of_words(&text, fields)?,
    };
    parts.finish(fields)
}

/// A word of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'a> {
    /// A number, years and months or a time, without its sign.
    Number {
        sign: Option<char>,
        digits: &'a str,
    },
    Name(&'a str),
}

fn parts_of_words(text: &str, fields: Fields) -> std::result::Result<Parts, Refusal> {
    let mut parts = Parts::default();
    let mut unit = Some(match fields.last {
        Some(Field::Year) => Unit::Year,
        Some(Field::Month) => Unit::Month,
        Some(Field::Day) => Unit::Day,
        Some(Field::Hour) => Unit::Hour,
        Some(Field::Minute) => Unit::Minute,
        Some(Field::Second) | None => Unit::Second,
    });
    let by_minutes = (fields.first, fields.last) == (Some(Field::Minute), Some(Field::Second));
    let (mut seen, mut is_ago) = (0, false);
    for word in words(text).ok_or(Refusal::Syntax)?.into_iter().rev() {
        let says = match word {
            Word::Name("ago") => {
                (unit, is_ago) = (None, true);
                0
            }
            Word::Name(name) => {
                unit = Some(Unit::named(name).ok_or(Refusal::Syntax)?);
                0
            }
            Word::Number { sign, digits } if digits.contains(':') => {
                let time = time_of(digits, by_minutes)?;
                parts.nanoseconds += if sign == Some('-') { -time } else { time };
                unit = Some(Unit::Day);
                bits_of_time()
            }
            Word::Number { sign, digits } => {
                let (whole, fraction, is_of_months) = number_of(digits, sign == Some('-'))?;
                let own = if is_of_months { Unit::Month } else { unit.ok_or(Refusal::Syntax)? };
                parts.add(whole, fraction, own).ok_or(Refusal::Number)?;
                unit = Some(if own == Unit::Hour { Unit::Day } else { own });
                if own == Unit::Second && fraction != 0.0 { bits_of_split_second() } else { own.bit() }
            }
        };
        if seen & says != 0 {
            return Err(Refusal::Syntax);
        }
        seen |= says;
    }
    if seen == 0 {
        return Err(Refusal::Syntax);
    }
    if is_ago { parts.negated().ok_or(Refusal::Number) } else { Ok(parts) }
}

/// The words of a text; punctuation only keeps them apart. `None`: it has something else.
fn words(text: &str) -> Option<Vec<Word<'_>>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let sign = Some(first).filter(|first| matches!(first, '+' | '-'));
        if sign.is_some() {
            rest = rest[1..].trim_start();
        }
        let length = match (sign, *rest.as_bytes().first()?) {
            (Some(_), b'0'..=b'9') => span(rest, |byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'-')),
            (None, b'0'..=b'9' | b'.') => number_length(rest),
            (None, b'a'..=b'z') => span(rest, |byte| byte.is_ascii_lowercase()),
            (None, other) if other.is_ascii_punctuation() => {
                rest = rest[1..].trim_start();
                continue;
            }
            _ => return None,
        };
        let (word, after) = rest.split_at(length);
        words.push(match word.starts_with(|letter: char| letter.is_ascii_lowercase()) {
            true => Word::Name(word),
            false => Word::Number { sign, digits: word },
        });
        rest = after.trim_start();
    }
    Some(words)
}

/// How many bytes at the beginning are such.
fn span(text: &str, is_such: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|byte| is_such(*byte)).count()
}

/// The length of a number without a sign, of a time, or of years and months.
fn number_length(text: &str) -> usize {
    let digits = span(text, |byte| byte.is_ascii_digit());
    match text.as_bytes().get(digits) {
        Some(b':') => span(text, |byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.')),
        Some(b'-') => span(text, |byte| byte.is_ascii_digit() || byte == b'-'),
        Some(b'.') => digits + 1 + span(&text[digits + 1..], |byte| byte.is_ascii_digit()),
        _ => digits,
    }
}

/// The whole part of a number, its fraction, and whether it is years and months, `1-2`, which are months then.
fn number_of(digits: &str, is_negative: bool) -> std::result::Result<(i64, f64, bool), Refusal> {
    let sign = if is_negative { -1 } else { 1 };
    let (whole, rest) = digits.split_at(span(digits, |byte| byte.is_ascii_digit()));
    // Only digits, so that it can be too large, but nothing else.
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().map_err(|_| Refusal::Number)? };
    let whole = i64::try_from(whole * sign).map_err(|_| Refusal::Number)?;
    if let Some(months) = rest.strip_prefix('-') {
        let months: i64 = months.parse().map_err(|_| Refusal::Syntax)?;
        let fits = (0..i64::from(MONTHS_PER_YEAR)).contains(&months);
        let years = whole.checked_mul(i64::from(MONTHS_PER_YEAR)).filter(|_| fits);
        let months = years.and_then(|years| years.checked_add(if is_negative { -months } else { months }));
        return Ok((months.ok_or(Refusal::Number)?, 0.0, true));
    }
    let fraction = fraction_of(rest).ok_or(Refusal::Syntax)?;
    Ok((whole, if is_negative { -fraction } else { fraction }, false))
}

/// A point and digits, or nothing.
fn fraction_of(text: &str) -> Option<f64> {
    match text.strip_prefix('.') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => format!("0.{digits}0").parse().ok(),
        Some(_) => None,
        None => text.is_empty().then_some(0.0),
    }
}

/// `H:M`, `H:M:S`, or `M:S`, which it is with a point in the second part, or `by_minutes`; in nanoseconds.
fn time_of(digits: &str, by_minutes: bool) -> std::result::Result<i128, Refusal> {
    let (clock, point) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let fraction = fraction_of(point).ok_or(Refusal::Syntax)?;
    let parts: Vec<&str> = clock.split(':').collect();
    let number = |part: &str| match part.is_empty() || part.bytes().any(|byte| !byte.is_ascii_digit()) {
        true => Err(Refusal::Syntax),
        false => part.parse::<i64>().map_err(|_| Refusal::Number),
    };
    let (hours, minutes, seconds) = match parts.as_slice() {
        [minutes, seconds] if by_minutes || !point.is_empty() => (0, number(minutes)?, number(seconds)?),
        [hours, minutes] => (number(hours)?, number(minutes)?, 0),
        [hours, minutes, seconds] => (number(hours)?, number(minutes)?, number(seconds)?),
        _ => return Err(Refusal::Syntax),
    };
    if minutes > 59 || seconds > 60 {
        return Err(Refusal::Number);
    }
    let microseconds = (fraction * 1e6).round() as i128;
    Ok(i128::from(hours) * HOUR
        + i128::from(minutes) * MINUTE
        + i128::from(seconds) * SECOND
        + microseconds * MICROSECOND)
}

/// What follows the P of ISO's forms, of which there are three: `1Y2M3DT4H5M6S`, `0001-02-03T04:05:06` and `00010203T040506`.
fn iso_parts(text: &str) -> std::result::Result<Parts, Refusal> {
    if text.is_empty() {
        return Err(Refusal::Syntax);
    }
    let (date, time) = text.split_once('t').unwrap_or((text, ""));
    let mut parts = Parts::default();
    let dates = [('y', Unit::Year), ('m', Unit::Month), ('w', Unit::Week), ('d', Unit::Day)];
    let times = [('h', Unit::Hour), ('m', Unit::Minute), ('s', Unit::Second)];
    match date.contains(|letter: char| dates.iter().any(|(known, _)| *known == letter)) {
        true => add_lettered(&mut parts, date, &dates)?,
        false => add_plain(&mut parts, date, '-', 8, [Unit::Year, Unit::Month, Unit::Day])?,
    }
    match time.contains(|letter: char| times.iter().any(|(known, _)| *known == letter)) {
        true => add_lettered(&mut parts, time, &times)?,
        false => add_plain(&mut parts, time, ':', 6, [Unit::Hour, Unit::Minute, Unit::Second])?,
    }
    Ok(parts)
}

/// Adds numbers that each have the letter of their unit behind them.
fn add_lettered(parts: &mut Parts, text: &str, units: &[(char, Unit)]) -> std::result::Result<(), Refusal> {
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(iso_length(rest));
        let unit = units.iter().find(|(letter, _)| after.starts_with(*letter));
        let (_, unit) = unit.ok_or(Refusal::Syntax)?;
        let (whole, fraction) = iso_number(number)?;
        parts.add(whole, fraction, *unit).ok_or(Refusal::Number)?;
        rest = &after[1..];
    }
    Ok(())
}

/// Adds up to three numbers of these units with a sign between them, or one of so many digits for all of them.
fn add_plain(
    parts: &mut Parts,
    text: &str,
    apart: char,
    width: usize,
    units: [Unit; 3],
) -> std::result::Result<(), Refusal> {
    let mut add = |whole, fraction, unit| parts.add(whole, fraction, unit).ok_or(Refusal::Number);
    let mut rest = text;
    for (place, unit) in units.into_iter().enumerate() {
        if rest.is_empty() {
            break;
        }
        let (number, after) = rest.split_at(iso_length(rest));
        let (whole, fraction) = iso_number(number)?;
        let digits = span(number.trim_start_matches('-'), |byte| byte.is_ascii_digit());
        if place == 0 && after.is_empty() && digits == width {
            add(whole / 10_000, 0.0, units[0])?;
            add(whole / 100 % 100, 0.0, units[1])?;
            return add(whole % 100, fraction, units[2]);
        }
        add(whole, fraction, unit)?;
        rest = match after.strip_prefix(apart) {
            Some(next) if !next.is_empty() => next,
            None if after.is_empty() => after,
            _ => return Err(Refusal::Syntax),
        };
    }
    if rest.is_empty() { Ok(()) } else { Err(Refusal::Syntax) }
}

/// The length of a number with a sign and an exponent.
fn iso_length(text: &str) -> usize {
    let mut length = usize::from(text.starts_with('-'));
    length += span(&text[length..], |byte| byte.is_ascii_digit() || byte == b'.');
    if let Some(exponent) = text[length..].strip_prefix('e') {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let digits = span(&exponent[sign..], |byte| byte.is_ascii_digit());
        length += if digits > 0 { 1 + sign + digits } else { 0 };
    }
    length
}

/// The whole part and the fraction.
fn iso_number(text: &str) -> std::result::Result<(i64, f64), Refusal> {
    let number: f64 = text.parse().map_err(|_| Refusal::Syntax)?;
    match number.abs() <= ISO_MAX {
        true => Ok((number.trunc() as i64, number.fract())),
        false => Err(Refusal::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const DAY: i64 = 86_400 * SECOND;

    fn parts(interval: IntervalMonthDayNano) -> (i32, i32, i64) {
        (interval.months, interval.days, interval.nanoseconds)
    }

    #[test]
    fn intervals_are_read_in_all_forms() {
        for (text, expected) in [
            ("1 day 02:03:04.5", (0, 1, 7_384 * SECOND + SECOND / 2)),
            ("-01:30", (0, 0, -5_400 * SECOND)),
            ("1-2", (14, 0, 0)),
            ("+1-2 -3 +4:05:06.789", (14, -3, 14_706_789_000_000)),
            ("+1 -1:00:00", (0, 1, -3_600 * SECOND)),
            ("-1 days +1 hours", (0, -1, 3_600 * SECOND)),
            ("1 month - 1 second", (1, 0, -SECOND)),
            ("2 days - 12:34:56", (0, 2, -45_296 * SECOND)),
            ("3 4:05", (0, 3, 14_700 * SECOND)),
            ("1 2 hours", (0, 1, 7_200 * SECOND)),
            ("@ 1 minute", (0, 0, 60 * SECOND)),
            ("1 day ago", (0, -1, 0)),
            ("@ 1 year 2 mons -3 days ago", (-14, 3, 0)),
            ("1.5 months", (1, 15, 0)),
            ("1.5 weeks", (0, 10, DAY / 2)),
            ("0.5 years, 1.5 days", (6, 1, DAY / 2)),
            ("4 millenniums 5 centuries 4 decades 1 year", (54_492, 0, 0)),
            ("1 year 2 mons -3 days", (14, -3, 0)),
            ("1d2h3.5s", (0, 1, 7_203 * SECOND + SECOND / 2)),
            ("12:34.5", (0, 0, 754 * SECOND + SECOND / 2)),
            ("0.0000014 s", (0, 0, 1_000)),
            ("0.0000016 s", (0, 0, 2_000)),
            ("3 nanoseconds", (0, 0, 3)),
            ("-2147483648 days 2147483647 months", (i32::MAX, i32::MIN, 0)),
            ("10", (0, 0, 10 * SECOND)),
            ("P1Y2M3DT4H", (14, 3, 14_400 * SECOND)),
            ("P10.5e4Y", (1_260_000, 0, 0)),
            ("P-1Y2W", (-12, 14, 0)),
            ("P0002-10-15T10:30:20", (34, 15, 37_820 * SECOND)),
            ("P00021015T103020", (34, 15, 37_820 * SECOND)),
            ("P0002T1S", (24, 0, SECOND)),
            ("PT10:30", (0, 0, 37_800 * SECOND)),
            ("PT10", (0, 0, 36_000 * SECOND)),
        ] {
            assert_eq!(interval_of(text).map(parts).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for (text, expected) in [
            ("", "22007"),
            ("day", "22007"),
            ("1 foo", "22007"),
            ("1:2:3:4", "22007"),
            ("1-2-3", "22007"),
            ("p", "22007"),
            ("p1x", "22007"),
            ("p1-2-3-4", "22007"),
            ("p1y2", "22007"),
            ("1 day 1 day", "22007"),
            ("1:20:05 5 microseconds", "22007"),
            ("5.5 seconds 3 milliseconds", "22007"),
            ("1 ago", "22007"),
            ("1 ä", "22007"),
            ("1--2", "22015"),
            ("1-12", "22015"),
            ("1:60", "22015"),
            ("2147483648 days", "22015"),
            ("1 week 2147483647 days", "22015"),
            ("99999999999999999999999999999999999999999 s", "22015"),
            ("P1e16Y", "22015"),
            ("2147483647 years", "22008"),
            ("-2147483648 days ago", "22015"),
            ("2562048 hours", "22008"),
        ] {
            assert_eq!(
                interval_of(text).map_err(|error| error.sqlstate().to_owned()),
                Err(expected.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn declared_fields_decide_what_is_read_and_kept() {
        use Field::{Day, Hour, Minute, Month, Second as Seconds, Year};
        for (text, first, last, digits, expected) in [
            ("1", Year, Month, None, Some((1, 0, 0))),
            ("1-2", Year, Year, None, Some((12, 0, 0))),
            ("1 2", Day, Hour, None, Some((0, 1, 7_200 * SECOND))),
            ("1 2:03:04", Day, Hour, None, Some((0, 1, 7_200 * SECOND))),
            ("1 2:03", Day, Minute, None, Some((0, 1, 7_380 * SECOND))),
            ("1 2:03", Minute, Seconds, None, Some((0, 1, 123 * SECOND))),
            ("1 -2:03:04", Minute, Seconds, None, Some((0, 1, -7_384 * SECOND))),
            ("1 2", Day, Minute, None, None),
            ("1.234", Seconds, Seconds, Some(2), Some((0, 0, 1_230_000_000))),
            ("-1.235", Seconds, Seconds, Some(2), Some((0, 0, -1_240_000_000))),
            ("1 day 01:23:45.6789", Seconds, Seconds, Some(0), Some((0, 1, 5_026 * SECOND))),
        ] {
            let fields = Fields { first: Some(first), last: Some(last), digits };
            assert_eq!(interval_with(text, fields).map(parts).ok(), expected, "{text} {first:?} {last:?}");
        }
    }
}
