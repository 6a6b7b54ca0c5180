//! `to_char(date or timestamp, template)` with PostgreSQL's templates; those of numbers are in [`number_format`].
//!
//! | pattern | gives | | pattern | gives |
//! |---|---|---|---|---|
//! | `YYYY` `YY` `Y,YYY` | year | | `HH24`, `HH12` or `HH` | hour |
//! | `IYYY` `IW` `ID` `IDDD` | ISO year, week, day of it, of the year | | `MI` `SS` `MS` `US` | minute, second, milli-, microseconds |
//! | `MM` `Month` `Mon` | month: number, name, short | | `AM` `PM` `A.M.` `P.M.` | half of the day |
//! | `DD` `DDD` `D` | day of month, year, week (Sunday is 1) | | `SSSS` | seconds since midnight |
//! | `Day` `Dy` | day's name, short | | `Q` `WW` `W` `CC` `J` | quarter, week of year, of month, century, Julian day |
//! | `FM` in front | without padding | | `TZ` `OF` `TZH` `TZM` | time zone, offset, its hours, minutes |
//! | `TH` `th` behind | `1ST`, `2nd`, … | | `FF1` … `FF6` | digits of a second's fraction |
//! | `RM` | month in Roman digits | | `AD` `BC` `A.D.` `B.C.` | era |
//!
//! Names come in the case of the pattern (`MONTH`, `Month`, `month`) and padded to nine letters, as in PostgreSQL; `"text"`
//! stands for itself, and so does every other character. A template with `%` is one of chrono's, as DataFusion's own
//! function takes them. [Intervals and times](super::interval_format) have the patterns that mean something for them.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use arrow::temporal_conversions::timestamp_us_to_datetime;
use chrono::{Datelike, NaiveDateTime, Offset, TimeZone, Timelike};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::changed::Change;
use super::interval_format::print_intervals;
use super::number_format::{self, ordinal};
use crate::{Error, Result, error::sqlstate};

/// PostgreSQL pads names to that of September and Wednesday.
const NAME_WIDTH: usize = 9;

/// The Julian day of the day before 0001-01-01, from which chrono counts.
pub(super) const JULIAN_DAY_BEFORE_COMMON_ERA: i64 = 1_721_425;

/// Prints by PostgreSQL's templates; those with `%` are left to the function inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ToChar {
    signature: Signature,
}

impl ToChar {
    pub(super) fn new() -> Self {
        ToChar { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Change for ToChar {
    fn signature(&self) -> Option<&Signature> {
        Some(&self.signature)
    }

    fn return_type(&self, _types: &[DataType]) -> Option<DataType> {
        Some(DataType::Utf8View)
    }

    fn coerce_types(&self, _inner: &dyn ScalarUDFImpl, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let [value, template] = types else {
            return Err(Error::new(sqlstate::UNDEFINED_FUNCTION, "to_char takes a value and a template").into());
        };
        let value = match value {
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            DataType::Date32 | DataType::Date64 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
            // By its decimal digits, which are those of its text: one of a kind that no other text here is of.
            number if number.is_numeric() || *number == DataType::LargeUtf8 => DataType::LargeUtf8,
            other => {
                let name = crate::sql::types::name_of(other);
                return Err(Error::unsupported(format!("to_char of type {name}"))
                    .with_hint("It takes dates, times, timestamps, intervals and numbers.")
                    .into());
            }
        };
        match template.is_string() || template.is_null() {
            true => Ok(vec![value, DataType::Utf8]),
            false => Err(Error::new(sqlstate::TYPE_MISMATCH, "the template of to_char must be text").into()),
        }
    }

    fn invoke(&self, inner: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [value, template] = arguments.args.as_slice() else {
            return Err(Error::internal("to_char was planned with two arguments").into());
        };
        let (values, templates) = (value.to_array(rows)?, template.to_array(rows)?);
        let templates = templates.as_string::<i32>();
        if values.data_type() == &DataType::LargeUtf8 {
            return print_numbers(&values, templates);
        }
        if matches!(values.data_type(), DataType::Interval(_) | DataType::Time64(_)) {
            return Ok(ColumnarValue::Array(print_intervals(&values, templates)?));
        }
        if templates.iter().flatten().any(|template| template.contains('%')) {
            let text = inner.invoke_with_args(arguments)?;
            return Ok(ColumnarValue::Array(cast(&text.to_array(rows)?, &DataType::Utf8View)?));
        }
        let zone = match values.data_type() {
            DataType::Timestamp(_, Some(zone)) => Some(zone.parse::<Tz>()?),
            _ => None,
        };
        let times = values.as_primitive::<TimestampMicrosecondType>();
        let mut builder = StringViewBuilder::with_capacity(rows);
        // A template is a constant nearly always.
        let mut read: Option<(String, Vec<Piece>)> = None;
        for row in 0..rows {
            if times.is_null(row) || templates.is_null(row) {
                builder.append_null();
                continue;
            }
            let template = templates.value(row);
            if read.as_ref().is_none_or(|(known, _)| known != template) {
                read = Some((template.to_owned(), parse(template)));
            }
            let pieces = read.as_ref().map_or(&[][..], |(_, pieces)| pieces);
            builder.append_value(print(pieces, &Moment::new(times.value(row), zone)?));
        }
        let text: ArrayRef = Arc::new(builder.finish());
        Ok(ColumnarValue::Array(text))
    }
}

/// Numbers, each by its format.
fn print_numbers(numbers: &ArrayRef, formats: &StringArray) -> DataFusionResult<ColumnarValue> {
    let numbers = numbers.as_string::<i64>();
    let mut builder = StringViewBuilder::with_capacity(numbers.len());
    for row in 0..numbers.len() {
        match numbers.is_null(row) || formats.is_null(row) {
            true => builder.append_null(),
            false => builder.append_value(number_format::print(&plain_digits(numbers.value(row)), formats.value(row))?),
        }
    }
    Ok(ColumnarValue::Array(Arc::new(builder.finish())))
}

/// A number's text without an exponent.
fn plain_digits(text: &str) -> Cow<'_, str> {
    match text.contains(['e', 'E']) {
        true => text.parse::<f64>().map_or(Cow::Borrowed(text), |number| Cow::Owned(format!("{number}"))),
        false => Cow::Borrowed(text),
    }
}

/// A time as people see it.
struct Moment {
    local: NaiveDateTime,
    /// Name and seconds east of UTC, of a time with a zone.
    zone: Option<(String, i32)>,
}

impl Moment {
    fn new(microseconds: i64, zone: Option<Tz>) -> Result<Self> {
        let utc = timestamp_us_to_datetime(microseconds)
            .ok_or_else(|| Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range"))?;
        Ok(match zone {
            None => Moment { local: utc, zone: None },
            Some(zone) => {
                let local = zone.from_utc_datetime(&utc);
                let offset = local.offset();
                let name = match offset.to_string() {
                    offset if offset == "+00:00" => "UTC".to_owned(),
                    name => name,
                };
                Moment { local: local.naive_local(), zone: Some((name, offset.fix().local_minus_utc())) }
            }
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// With so many digits.
    Year(u32),
    IsoYear,
    IsoWeek,
    IsoDay,
    Month,
    MonthName,
    MonthShort,
    Day,
    DayOfYear,
    DayOfWeek,
    DayName,
    DayShort,
    Quarter,
    WeekOfYear,
    WeekOfMonth,
    Century,
    Julian,
    Hour24,
    Hour12,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    SecondOfDay,
    HalfOfDay {
        dotted: bool,
    },
    Zone,
    Offset,
    OffsetHour,
    OffsetMinute,
    /// All digits, with a comma for the thousands.
    YearWithComma,
    /// The last digits of the ISO year.
    ShortIsoYear(u32),
    DayOfIsoYear,
    Era {
        dotted: bool,
    },
    RomanMonth,
    /// So many digits of the second's fraction.
    Fraction(u32),
}

/// Longer patterns before those they begin with.
const PATTERNS: [(&str, Field); 53] = [
    ("A.M.", Field::HalfOfDay { dotted: true }),
    ("P.M.", Field::HalfOfDay { dotted: true }),
    ("AM", Field::HalfOfDay { dotted: false }),
    ("PM", Field::HalfOfDay { dotted: false }),
    ("HH24", Field::Hour24),
    ("HH12", Field::Hour12),
    ("HH", Field::Hour12),
    ("MI", Field::Minute),
    ("SSSSS", Field::SecondOfDay),
    ("SSSS", Field::SecondOfDay),
    ("SS", Field::Second),
    ("MS", Field::Millisecond),
    ("US", Field::Microsecond),
    ("FF1", Field::Fraction(1)),
    ("FF2", Field::Fraction(2)),
    ("FF3", Field::Fraction(3)),
    ("FF4", Field::Fraction(4)),
    ("FF5", Field::Fraction(5)),
    ("FF6", Field::Fraction(6)),
    ("A.D.", Field::Era { dotted: true }),
    ("B.C.", Field::Era { dotted: true }),
    ("AD", Field::Era { dotted: false }),
    ("BC", Field::Era { dotted: false }),
    ("RM", Field::RomanMonth),
    ("IYYY", Field::IsoYear),
    ("IYY", Field::ShortIsoYear(3)),
    ("IY", Field::ShortIsoYear(2)),
    ("IW", Field::IsoWeek),
    ("IDDD", Field::DayOfIsoYear),
    ("ID", Field::IsoDay),
    ("I", Field::ShortIsoYear(1)),
    ("Y,YYY", Field::YearWithComma),
    ("YYYY", Field::Year(4)),
    ("YYY", Field::Year(3)),
    ("YY", Field::Year(2)),
    ("Y", Field::Year(1)),
    ("MONTH", Field::MonthName),
    ("MON", Field::MonthShort),
    ("MM", Field::Month),
    ("DAY", Field::DayName),
    ("DY", Field::DayShort),
    ("DDD", Field::DayOfYear),
    ("DD", Field::Day),
    ("D", Field::DayOfWeek),
    ("Q", Field::Quarter),
    ("WW", Field::WeekOfYear),
    ("W", Field::WeekOfMonth),
    ("CC", Field::Century),
    ("J", Field::Julian),
    ("TZH", Field::OffsetHour),
    ("TZM", Field::OffsetMinute),
    ("TZ", Field::Zone),
    ("OF", Field::Offset),
];

const ROMAN_MONTHS: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// How a name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Capital,
    Lower,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Field {
        field: Field,
        padded: bool,
        case: Case,
        /// Whether `st`, `nd`, … come behind a number, and in upper case.
        ordinal: Option<bool>,
    },
}

pub(super) fn parse(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let (mut rest, mut padded) = (template, true);
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted_text(quoted, &mut text);
            continue;
        }
        if let Some(after) = rest.strip_prefix("\\\"") {
            text.push('"');
            rest = after;
            continue;
        }
        // Names are English, so that TM, which asks for those of a language, leaves out the padding and no more.
        if starts_with(rest, "FM") || starts_with(rest, "TM") {
            padded = false;
            rest = &rest[2..];
            continue;
        }
        // That blanks count is not said of what is written.
        if starts_with(rest, "FX") {
            rest = &rest[2..];
            continue;
        }
        let known = PATTERNS.iter().find(|(pattern, _)| starts_with(rest, pattern));
        let Some((pattern, field)) = known else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        let mut letters = rest.chars();
        let case =
            match (letters.next().is_some_and(char::is_uppercase), letters.next().is_some_and(char::is_uppercase)) {
                (true, true) => Case::Upper,
                (true, false) => Case::Capital,
                _ => Case::Lower,
            };
        rest = &rest[pattern.len()..];
        let mut ordinal = None;
        if starts_with(rest, "TH") {
            ordinal = Some(rest.starts_with('T'));
            rest = &rest[2..];
        } else if rest.starts_with("SP") {
            // Numbers spelled out are not there in PostgreSQL either.
            rest = &rest[2..];
        }
        pieces.push(Piece::Field { field: *field, padded, case, ordinal });
        padded = true;
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

fn starts_with(template: &str, pattern: &str) -> bool {
    template.get(..pattern.len()).is_some_and(|start| start.eq_ignore_ascii_case(pattern))
}

/// Takes a text up to its closing quote, and returns what follows. After a backslash, any letter stands for itself.
fn quoted_text<'a>(quoted: &'a str, text: &mut String) -> &'a str {
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => text.push(letters.next().unwrap_or(letter)),
            letter => text.push(letter),
        }
    }
    letters.as_str()
}

fn print(pieces: &[Piece], moment: &Moment) -> String {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Field { field, padded, case, ordinal: suffix } => {
                let shown = print_field(*field, *padded, *case, moment);
                text.push_str(&shown);
                if let Some(upper) = suffix.filter(|_| shown.ends_with(|letter: char| letter.is_ascii_digit())) {
                    let suffix = ordinal(&shown);
                    text.push_str(&if upper { suffix.to_ascii_uppercase() } else { suffix.to_owned() });
                }
            }
        }
    }
    text
}

fn print_field(field: Field, padded: bool, case: Case, moment: &Moment) -> String {
    let local = &moment.local;
    let number = |value: i64, width: usize| match padded {
        true => format!("{value:0width$}"),
        false => value.to_string(),
    };
    let name = |format: &str, width: usize| {
        let name = local.format(format).to_string();
        let name = match case {
            Case::Upper => name.to_uppercase(),
            Case::Capital => name,
            Case::Lower => name.to_lowercase(),
        };
        match padded {
            true => format!("{name:<width$}"),
            false => name,
        }
    };
    // There is no year 0: it is 1 BC.
    let before_christ = local.year() <= 0;
    let year = if before_christ { 1 - i64::from(local.year()) } else { i64::from(local.year()) };
    let small = |value: u32| i64::from(value);
    match field {
        Field::Year(4) => number(year, 4),
        Field::Year(digits) => number(year.rem_euclid(10_i64.pow(digits)), digits as usize),
        Field::YearWithComma => format!("{},{:03}", year / 1_000, year % 1_000),
        Field::IsoYear => number(i64::from(local.iso_week().year()), 4),
        Field::ShortIsoYear(digits) => {
            number(i64::from(local.iso_week().year()).rem_euclid(10_i64.pow(digits)), digits as usize)
        }
        Field::DayOfIsoYear => number(small(local.iso_week().week0() * 7 + local.weekday().number_from_monday()), 3),
        Field::IsoWeek => number(small(local.iso_week().week()), 2),
        Field::IsoDay => number(small(local.weekday().number_from_monday()), 1),
        Field::Month => number(small(local.month()), 2),
        Field::MonthName => name("%B", NAME_WIDTH),
        Field::MonthShort => name("%b", 3),
        Field::Day => number(small(local.day()), 2),
        Field::DayOfYear => number(small(local.ordinal()), 3),
        Field::DayOfWeek => number(small(local.weekday().number_from_sunday()), 1),
        Field::DayName => name("%A", NAME_WIDTH),
        Field::DayShort => name("%a", 3),
        Field::Quarter => number(small(local.month0() / 3 + 1), 1),
        Field::WeekOfYear => number(small(local.ordinal0() / 7 + 1), 2),
        Field::WeekOfMonth => number(small(local.day0() / 7 + 1), 1),
        Field::Century => {
            let sign = if before_christ { "-" } else { "" };
            format!("{sign}{}", number((year - 1) / 100 + 1, 2))
        }
        Field::Julian => number(i64::from(local.num_days_from_ce()) + JULIAN_DAY_BEFORE_COMMON_ERA, 1),
        Field::Hour24 => number(small(local.hour()), 2),
        Field::Hour12 => number(small(local.hour12().1), 2),
        Field::Minute => number(small(local.minute()), 2),
        Field::Second => number(small(local.second()), 2),
        Field::Millisecond => number(small(local.nanosecond() / 1_000_000), 3),
        Field::Microsecond => number(small(local.nanosecond() / 1_000), 6),
        Field::Fraction(digits) => {
            let fraction = local.nanosecond() % 1_000_000_000 / 10_u32.pow(9 - digits);
            format!("{fraction:0width$}", width = digits as usize)
        }
        Field::Era { dotted } => {
            let letters = if before_christ { "B" } else { "A" };
            let second = if before_christ { "C" } else { "D" };
            let era = if dotted { format!("{letters}.{second}.") } else { format!("{letters}{second}") };
            if case == Case::Lower { era.to_lowercase() } else { era }
        }
        Field::RomanMonth => {
            let month = ROMAN_MONTHS.get(local.month0() as usize).copied().unwrap_or_default();
            let month = if case == Case::Lower { month.to_lowercase() } else { month.to_owned() };
            if padded { format!("{month:<4}") } else { month }
        }
        Field::OffsetHour => {
            let seconds = moment.zone.as_ref().map_or(0, |(_, seconds)| *seconds);
            format!("{}{:02}", if seconds < 0 { '-' } else { '+' }, seconds.abs() / 3600)
        }
        Field::OffsetMinute => {
            let seconds = moment.zone.as_ref().map_or(0, |(_, seconds)| *seconds);
            format!("{:02}", seconds.abs() / 60 % 60)
        }
        Field::SecondOfDay => number(small(local.num_seconds_from_midnight()), 1),
        Field::HalfOfDay { dotted } => {
            let letters = if local.hour12().0 { "P" } else { "A" };
            let half = if dotted { format!("{letters}.M.") } else { format!("{letters}M") };
            if case == Case::Lower { half.to_lowercase() } else { half }
        }
        Field::Zone => match (&moment.zone, case) {
            (None, _) => String::new(),
            (Some((zone, _)), Case::Lower) => zone.to_lowercase(),
            (Some((zone, _)), _) => zone.clone(),
        },
        Field::Offset => {
            let seconds = moment.zone.as_ref().map_or(0, |(_, seconds)| *seconds);
            let mut offset = format!("{}{:02}", if seconds < 0 { '-' } else { '+' }, seconds.abs() / 3600);
            if seconds % 3600 != 0 {
                // Writing to a String cannot fail.
                let _ = write!(offset, ":{:02}", seconds.abs() / 60 % 60);
            }
            offset
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(template: &str, microseconds: i64, zone: Option<&str>) -> String {
        let zone = zone.map(|zone| zone.parse().unwrap());
        print(&parse(template), &Moment::new(microseconds, zone).unwrap())
    }

    /// 2024-03-05 14:07:09.012345, a Tuesday.
    const TIME: i64 = 1_709_647_629_012_345;

    #[test]
    fn templates_give_what_postgres_gives() {
        for (template, shown) in [
            ("YYYY-MM-DD", "2024-03-05"),
            ("yyyy-mm-dd hh24:mi:ss", "2024-03-05 14:07:09"),
            ("HH12:MI AM", "02:07 PM"),
            ("HH:MI p.m.", "02:07 p.m."),
            ("DD.MM.YY", "05.03.24"),
            ("FMDD.FMMM.YYYY", "5.3.2024"),
            ("Month|Mon|MONTH|mon", "March    |Mar|MARCH    |mar"),
            ("FMDay, FMDD FMMonth YYYY", "Tuesday, 5 March 2024"),
            ("Dy DAY dy", "Tue TUESDAY   tue"),
            ("MS US SSSS", "012 012345 50829"),
            ("DDD D ID Q", "065 3 2 1"),
            ("IYYY-\"W\"IW WW W CC J", "2024-W10 10 1 21 2460375"),
            ("\"YYYY is\" YYYY", "YYYY is 2024"),
            ("YYY Y", "024 4"),
            ("DDth Y,YYY AD RM", "05th 2,024 AD III "),
            ("FMDDTH a.d. FMrm|IDDD IYY IY I", "5TH a.d. iii|065 024 24 4"),
            ("FF1 FF3 FF6 TZH:TZM", "0 012 012345 +00:00"),
            ("TMMonth FXDD Monthth", "March 05 March    "),
            (r#""say \"hi\"" \"DD"#, r#"say "hi" "05"#),
            ("", ""),
            ("é YYYY", "é 2024"),
        ] {
            assert_eq!(show(template, TIME, None), shown, "{template}");
        }
        for (day, shown) in [("01", "1st"), ("02", "2nd"), ("03", "3rd"), ("11", "11th"), ("22", "22nd")] {
            let time = NaiveDateTime::parse_from_str(&format!("2024-01-{day} 00:00"), "%Y-%m-%d %H:%M").unwrap();
            assert_eq!(show("FMDDth", time.and_utc().timestamp_micros(), None), shown);
        }
        let ides = NaiveDateTime::parse_from_str("-0043-03-15 00:00", "%Y-%m-%d %H:%M").unwrap();
        assert_eq!(show("YYYY-MM-DD BC CC", ides.and_utc().timestamp_micros(), None), "0044-03-15 BC -01");
        assert_eq!(show("HH12 HH24 AM", 0, None), "12 00 AM");
        assert_eq!(show("YYYY-MM-DD", -1, None), "1969-12-31");
    }

    #[test]
    fn a_time_with_a_zone_is_shown_in_it() {
        assert_eq!(show("HH24:MI OF", TIME, Some("+02:30")), "16:37 +02:30");
        assert_eq!(show("HH24:MI OF", TIME, Some("UTC")), "14:07 +00");
    }
}
