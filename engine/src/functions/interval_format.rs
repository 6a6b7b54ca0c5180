//! `to_char(interval, template)` and `to_char(time, template)`, a time being taken for the interval since midnight.
//!
//! An interval has hours beyond 24 and no place in a calendar: patterns of names, of weeks' days, of eras and of time zones
//! are refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringViewBuilder};
use arrow::datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType};

use super::number_format::ordinal;
use super::to_char::{Case, Field, Piece, parse};
use crate::error::sqlstate;
use crate::{Error, Result};

/// Intervals, or times in microseconds, each by its template. An empty template gives NULL, as in PostgreSQL.
pub(super) fn print_intervals(values: &ArrayRef, templates: &StringArray) -> Result<ArrayRef> {
    let intervals = values.as_primitive_opt::<IntervalMonthDayNanoType>();
    let times = values.as_primitive_opt::<Time64MicrosecondType>();
    let mut texts = StringViewBuilder::with_capacity(values.len());
    let mut read: Option<(String, Vec<Piece>)> = None;
    for row in 0..values.len() {
        if values.is_null(row) || templates.is_null(row) || templates.value(row).is_empty() {
            texts.append_null();
            continue;
        }
        let interval = match (intervals, times) {
            (Some(intervals), _) => intervals.value(row),
            (None, Some(times)) => IntervalMonthDayNano::new(0, 0, times.value(row) * 1_000),
            (None, None) => return Err(Error::internal("an interval or a time was expected")),
        };
        let template = templates.value(row);
        if read.as_ref().is_none_or(|(known, _)| known != template) {
            read = Some((template.to_owned(), parse(template)));
        }
        let pieces = read.as_ref().map_or(&[][..], |(_, pieces)| pieces);
        texts.append_value(print(pieces, &Parts::of(interval))?);
    }
    Ok(Arc::new(texts.finish()))
}

/// An interval taken apart; all parts have its sign.
struct Parts {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    seconds: i64,
    microseconds: i64,
}

impl Parts {
    fn of(interval: IntervalMonthDayNano) -> Self {
        let (months, microseconds) = (i64::from(interval.months), interval.nanoseconds / 1_000);
        Parts {
            years: months / 12,
            months: months % 12,
            days: i64::from(interval.days),
            hours: microseconds / 3_600_000_000,
            minutes: microseconds / 60_000_000 % 60,
            seconds: microseconds / 1_000_000 % 60,
            microseconds: microseconds % 1_000_000,
        }
    }
}

fn print(pieces: &[Piece], parts: &Parts) -> Result<String> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Field { field, padded, case, ordinal: suffix } => {
                let shown = print_field(*field, *padded, *case, parts)?;
                text.push_str(&shown);
                if let Some(upper) = suffix.filter(|_| shown.ends_with(|letter: char| letter.is_ascii_digit())) {
                    let suffix = ordinal(&shown);
                    text.push_str(&if upper { suffix.to_ascii_uppercase() } else { suffix.to_owned() });
                }
            }
        }
    }
    Ok(text)
}

fn print_field(field: Field, padded: bool, case: Case, parts: &Parts) -> Result<String> {
    // The sign has a place of its own.
    let number = |value: i64, width: usize| match padded {
        true => format!("{value:0width$}", width = width + usize::from(value < 0)),
        false => value.to_string(),
    };
    let digits = |value: i64, width: usize| format!("{value:0width$}");
    // Of days it has not.
    let days = |value: i64, width: usize| if padded { digits(value, width) } else { value.to_string() };
    let span_in_days = (parts.years * 12 + parts.months) * 30 + parts.days;
    Ok(match field {
        Field::Year(4) => number(parts.years, 4),
        Field::Year(places) => number(parts.years % 10_i64.pow(places), places as usize),
        Field::YearWithComma => format!("{},{:03}", parts.years / 1_000, parts.years % 1_000),
        Field::Century => number(parts.years / 100, 2),
        Field::Month => number(parts.months, 2),
        Field::Quarter if parts.months == 0 => String::new(),
        Field::Quarter => ((parts.months - 1) / 3 + 1).to_string(),
        Field::Day => days(parts.days, 2),
        Field::DayOfYear => days(span_in_days, 3),
        Field::WeekOfYear => days((span_in_days - 1) / 7 + 1, 2),
        Field::WeekOfMonth => ((parts.days - 1) / 7 + 1).to_string(),
        Field::Hour24 => number(parts.hours, 2),
        Field::Hour12 => match parts.hours % 12 {
            0 => number(12, 2),
            hour => number(hour, 2),
        },
        Field::Minute => number(parts.minutes, 2),
        Field::Second => number(parts.seconds, 2),
        Field::Millisecond => digits(parts.microseconds / 1_000, 3),
        Field::Microsecond => digits(parts.microseconds, 6),
        Field::Fraction(places) => {
            digits(parts.microseconds / 10_i64.pow(6_u32.saturating_sub(places)), places as usize)
        }
        Field::SecondOfDay => (parts.hours * 3_600 + parts.minutes * 60 + parts.seconds).to_string(),
        Field::HalfOfDay { dotted } => {
            let letter = if parts.hours % 24 >= 12 { "P" } else { "A" };
            let half = if dotted { format!("{letter}.M.") } else { format!("{letter}M") };
            if case == Case::Lower { half.to_lowercase() } else { half }
        }
        _ => {
            let message = "invalid format specification for an interval value";
            return Err(Error::new(sqlstate::INVALID_DATETIME, message)
                .with_hint("Intervals are not tied to specific calendar dates."));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(template: &str, months: i32, days: i32, microseconds: i64) -> Result<String> {
        print(&parse(template), &Parts::of(IntervalMonthDayNano::new(months, days, microseconds * 1_000)))
    }

    #[test]
    fn templates_give_what_postgresql_gives() {
        let hour = 3_600_000_000;
        for (template, interval, shown) in [
            ("HH24:MI:SS", (0, 0, 15 * hour + 132_000_000), "15:02:12"),
            ("YYYY-MM-DD", (14, 3, 0), "0001-02-03"),
            ("HH24 HH12 AM", (0, 0, 100 * hour), "100 04 AM"),
            ("HH24:MI", (0, 0, -90 * 60_000_000), "-01:-30"),
            ("DDD FF3 MS US", (1, 2, 123_456), "032 123 123 123456"),
            ("FMDD FMHH24th", (0, 5, 3 * hour), "5 3rd"),
            ("HH12", (0, 0, 0), "12"),
            ("YYYY MM DD DDD WW", (-14, -3, 0), "-0001 -02 -3 -423 -59"),
            ("DD FMDDD", (0, -5, 0), "-5 -5"),
        ] {
            assert_eq!(show(template, interval.0, interval.1, interval.2).unwrap(), shown, "{template}");
        }
        assert_eq!(show("Month", 1, 0, 0).unwrap_err().sqlstate(), "22007");
    }
}
