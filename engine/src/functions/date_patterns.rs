//! `to_date(text, template)` and `to_timestamp(text, template)` with PostgreSQL's templates, those of
//! [`to_char`](super::to_char). A template with `%` is one of chrono's, as DataFusion's own functions take them.
//!
//! `to_timestamp(seconds)` has microseconds, as `timestamptz` does, and not nanoseconds as in DataFusion.
//!
//! Blanks in front of a field are skipped; a separator in the template stands for any in the text, or none; a number ends
//! with its digits, and where another field follows directly, after as many as its pattern has letters. `FF3` rounds to three digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use chrono::{Datelike, Duration, NaiveDate, NaiveDateTime, NaiveTime, Weekday};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::changed::Change;
use super::time_texts::rounded;
use super::to_char::{Field, Piece, parse};
use crate::{Error, Result, error::sqlstate};

/// From 1970 to 2000, from where PostgreSQL counts.
const SECONDS_TO_2000: f64 = 946_684_800.0;
const MICROSECONDS_PER_SECOND: f64 = 1e6;

/// Reads by PostgreSQL's templates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ByTemplate {
    is_date: bool,
    signature: Signature,
}

impl ByTemplate {
    pub(super) fn new(is_date: bool) -> Self {
        ByTemplate { is_date, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn takes_template(types: &[DataType]) -> bool {
        types.len() == 2 && types.iter().all(|data_type| data_type.is_string() || data_type.is_null())
    }

    fn takes_seconds(&self, types: &[DataType]) -> bool {
        !self.is_date && matches!(types, [seconds] if seconds.is_numeric())
    }

    fn result(&self) -> DataType {
        match self.is_date {
            true => DataType::Date32,
            false => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    fn read(&self, texts: &ArrayRef, templates: &ArrayRef) -> Result<ArrayRef> {
        let (texts, templates) = (texts.as_string::<i32>(), templates.as_string::<i32>());
        let mut times = Vec::with_capacity(texts.len());
        for row in 0..texts.len() {
            times.push(match texts.is_null(row) || templates.is_null(row) {
                true => None,
                false => Some(read(texts.value(row), &parse(templates.value(row)))?),
            });
        }
        Ok(match self.is_date {
            true => {
                let days = |time: NaiveDateTime| time.date().signed_duration_since(NaiveDate::default()).num_days();
                Arc::new(times.iter().map(|time| time.map(|time| days(time) as i32)).collect::<Date32Array>())
            }
            false => {
                let times = times.iter().map(|time| time.map(|time| time.and_utc().timestamp_micros()));
                Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
        })
    }
}

impl Change for ByTemplate {
    fn signature(&self) -> Option<&Signature> {
        Some(&self.signature)
    }

    fn coerce_types(&self, inner: &dyn ScalarUDFImpl, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        if Self::takes_template(types) {
            return Ok(vec![DataType::Utf8; 2]);
        }
        if self.takes_seconds(types) {
            return Ok(vec![DataType::Float64]);
        }
        match inner.signature().type_signature {
            TypeSignature::UserDefined => inner.coerce_types(types),
            _ => Ok(types.to_vec()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Option<DataType> {
        (Self::takes_template(types) || self.takes_seconds(types)).then(|| self.result())
    }

    fn invoke(&self, inner: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let types: Vec<DataType> = arguments.args.iter().map(ColumnarValue::data_type).collect();
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        if self.takes_seconds(&types) {
            return in_form(moments(&arguments.args[0].to_array(rows)?)?, constant);
        }
        if !Self::takes_template(&types) {
            // What it reads of a text does not have the zone that it promises.
            let promised = arguments.return_field.data_type().clone();
            let times = inner.invoke_with_args(arguments)?;
            return if times.data_type() == promised { Ok(times) } else { times.cast_to(&promised, None) };
        }
        let (texts, templates) = (arguments.args[0].to_array(rows)?, arguments.args[1].to_array(rows)?);
        let is_chrono = templates.as_string::<i32>().iter().flatten().any(|template| template.contains('%'));
        let times = match is_chrono {
            true => cast(&inner.invoke_with_args(arguments)?.to_array(rows)?, &self.result())?,
            false => self.read(&texts, &templates)?,
        };
        in_form(times, constant)
    }
}

/// The times as constants have them, or columns.
fn in_form(times: ArrayRef, constant: bool) -> DataFusionResult<ColumnarValue> {
    match constant {
        true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&times, 0)?)),
        false => Ok(ColumnarValue::Array(times)),
    }
}

/// The moments that are so many seconds after 1970.
fn moments(seconds: &ArrayRef) -> Result<ArrayRef> {
    let seconds = cast(seconds, &DataType::Float64)?;
    let moments = seconds.as_primitive::<Float64Type>().iter().map(|seconds| seconds.map(moment).transpose());
    let moments = TimestampMicrosecondArray::from(moments.collect::<Result<Vec<Option<i64>>>>()?);
    Ok(Arc::new(moments.with_timezone("UTC")))
}

fn moment(seconds: f64) -> Result<i64> {
    let since_2000 = ((seconds - SECONDS_TO_2000) * MICROSECONDS_PER_SECOND).round_ties_even() as i64;
    let since_1970 = since_2000.checked_add((SECONDS_TO_2000 * MICROSECONDS_PER_SECOND) as i64);
    since_1970.ok_or_else(|| Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range"))
}

/// What has been read.
#[derive(Debug, Default)]
struct Parts {
    year: Option<i64>,
    before_christ: bool,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    week_of_year: Option<i64>,
    julian: Option<i64>,
    iso_year: Option<i64>,
    iso_week: Option<i64>,
    iso_day: Option<i64>,
    hour: i64,
    is_12_hours: bool,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    second_of_day: Option<i64>,
    microsecond: i64,
    /// To how many digits of a second the template rounds.
    digits: Option<u8>,
}

fn read(text: &str, pieces: &[Piece]) -> Result<NaiveDateTime> {
    let mut parts = Parts::default();
    let mut rest = text;
    for (index, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Text(separators) => {
                for separator in separators.chars() {
                    let next = rest.chars().next();
                    let skipped = match separator.is_alphanumeric() {
                        true => next,
                        false => next.filter(|letter| !letter.is_alphanumeric()),
                    };
                    rest = &rest[skipped.map_or(0, char::len_utf8)..];
                }
            }
            Piece::Field { field, ordinal, .. } => {
                rest = rest.trim_start();
                if rest.is_empty() {
                    break;
                }
                let followed = matches!(pieces.get(index + 1), Some(Piece::Field { .. }));
                rest = parts.read(*field, followed, rest)?;
                if ordinal.is_some() {
                    // The `st` of 1st.
                    rest = rest.get(2..).unwrap_or("");
                }
            }
        }
    }
    parts.time(text)
}

impl Parts {
    fn read<'a>(&mut self, field: Field, followed: bool, text: &'a str) -> Result<&'a str> {
        let number = |width: usize| number(text, if followed { width } else { usize::MAX }, field);
        let rest = match field {
            Field::Year(digits) => {
                let (year, rest) = number(digits as usize)?;
                let short = digits < 4 && text.len() - rest.len() < 4;
                self.year = Some(if short { full_year(year) } else { year });
                rest
            }
            Field::Month => assign(&mut self.month, number(2)?),
            Field::Day => assign(&mut self.day, number(2)?),
            Field::DayOfYear => assign(&mut self.day_of_year, number(3)?),
            Field::WeekOfYear => assign(&mut self.week_of_year, number(2)?),
            Field::Julian => assign(&mut self.julian, number(usize::MAX)?),
            Field::IsoYear => assign(&mut self.iso_year, number(4)?),
            Field::IsoWeek => assign(&mut self.iso_week, number(2)?),
            Field::IsoDay => assign(&mut self.iso_day, number(1)?),
            Field::SecondOfDay => assign(&mut self.second_of_day, number(5)?),
            Field::Hour24 | Field::Hour12 => {
                let (hour, rest) = number(2)?;
                self.is_12_hours = field == Field::Hour12;
                self.hour = hour;
                rest
            }
            Field::Minute => {
                let (minute, rest) = number(2)?;
                self.minute = minute;
                rest
            }
            Field::Second => {
                let (second, rest) = number(2)?;
                self.second = second;
                rest
            }
            Field::Millisecond | Field::Microsecond | Field::Fraction(_) => {
                // Digits behind the point: 5 is 500 milliseconds.
                let (value, rest) = number(match field {
                    Field::Millisecond => 3,
                    Field::Fraction(digits) => digits as usize,
                    _ => 6,
                })?;
                let digits = text.len() - rest.len();
                let scale = 6_u32.saturating_sub(u32::try_from(digits).unwrap_or(6));
                self.microsecond = value.saturating_mul(10_i64.pow(scale));
                if let Field::Fraction(digits) = field {
                    self.digits = u8::try_from(digits).ok();
                }
                rest
            }
            Field::HalfOfDay { dotted } => {
                let width = if dotted { 4 } else { 2 };
                let half = text.get(..width).unwrap_or(text).to_ascii_uppercase().replace('.', "");
                self.afternoon = Some(match half.as_str() {
                    "AM" => false,
                    "PM" => true,
                    _ => return Err(invalid(text, "AM")),
                });
                text.get(width..).unwrap_or("")
            }
            Field::Era { dotted } => {
                let width = if dotted { 4 } else { 2 };
                let era = text.get(..width).unwrap_or(text).to_ascii_uppercase().replace('.', "");
                self.before_christ = match era.as_str() {
                    "AD" => false,
                    "BC" => true,
                    _ => return Err(invalid(text, "AD")),
                };
                text.get(width..).unwrap_or("")
            }
            Field::MonthName | Field::MonthShort => {
                let (month, rest) = name(text, &MONTHS, field == Field::MonthShort)?;
                self.month = Some(month as i64 + 1);
                rest
            }
            Field::DayName | Field::DayShort => name(text, &DAYS, field == Field::DayShort)?.1,
            Field::DayOfWeek | Field::Quarter | Field::WeekOfMonth => number(1)?.1,
            Field::Century
            | Field::Zone
            | Field::Offset
            | Field::OffsetHour
            | Field::OffsetMinute
            | Field::YearWithComma
            | Field::ShortIsoYear(_)
            | Field::DayOfIsoYear
            | Field::RomanMonth => {
                let what = "CC, TZ, OF, TZH, TZM, Y,YYY, IYY, IY, I, IDDD or RM in a template for reading";
                return Err(Error::unsupported(what));
            }
        };
        Ok(rest)
    }

    fn time(&self, text: &str) -> Result<NaiveDateTime> {
        let wrong = || {
            let message = format!("date/time field value out of range: \"{text}\"");
            Error::new(sqlstate::DATETIME_OVERFLOW, message)
        };
        let mut hour = self.hour;
        if self.is_12_hours {
            if !(1..=12).contains(&hour) && self.hour != 0 {
                let message = format!("hour \"{hour}\" is invalid for the 12-hour clock");
                return Err(Error::new(sqlstate::INVALID_DATETIME, message)
                    .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            hour %= 12;
        }
        if self.afternoon == Some(true) && hour < 12 {
            hour += 12;
        }
        let of_day = match self.second_of_day {
            Some(seconds) if (0..86_400).contains(&seconds) => seconds,
            Some(_) => return Err(wrong()),
            None if (0..24).contains(&hour) && (0..60).contains(&self.minute) && (0..60).contains(&self.second) => {
                hour * 3_600 + self.minute * 60 + self.second
            }
            None => return Err(wrong()),
        };
        let time = self.date().ok_or_else(wrong)?.and_time(NaiveTime::MIN);
        let time = time
            .checked_add_signed(Duration::seconds(of_day))
            .and_then(|time| time.checked_add_signed(Duration::microseconds(self.microsecond)))
            .ok_or_else(wrong)?;
        Ok(self.digits.map_or(time, |digits| rounded(time, digits)))
    }

    fn date(&self) -> Option<NaiveDate> {
        let small = |number: i64| u32::try_from(number).ok();
        if let Some(julian) = self.julian {
            let days = i32::try_from(julian - super::to_char::JULIAN_DAY_BEFORE_COMMON_ERA).ok()?;
            return NaiveDate::from_num_days_from_ce_opt(days);
        }
        if let (Some(year), Some(week)) = (self.iso_year, self.iso_week) {
            let weekday = u8::try_from(self.iso_day.unwrap_or(1) - 1).ok()?;
            return NaiveDate::from_isoywd_opt(
                i32::try_from(year).ok()?,
                small(week)?,
                Weekday::try_from(weekday).ok()?,
            );
        }
        let year = self.year.or(self.iso_year).unwrap_or(0);
        // There is no year 0: 1 BC is before 1.
        let year = i32::try_from(if self.before_christ { 1 - year } else { year }).ok()?;
        let day_of_year = self.day_of_year.or(self.week_of_year.map(|week| (week - 1) * 7 + 1));
        if let (Some(day), None) = (day_of_year, self.month) {
            return NaiveDate::from_yo_opt(year, small(day)?).filter(|date| date.year() == year);
        }
        NaiveDate::from_ymd_opt(year, small(self.month.unwrap_or(1))?, small(self.day.unwrap_or(1))?)
    }
}

fn assign<'a>(place: &mut Option<i64>, (value, rest): (i64, &'a str)) -> &'a str {
    *place = Some(value);
    rest
}

/// The number a text begins with.
fn number(text: &str, width: usize, field: Field) -> Result<(i64, &str)> {
    let digits = text.bytes().take(width.min(18)).take_while(u8::is_ascii_digit).count();
    let value = text[..digits].parse().map_err(|_| invalid(text, &format!("{field:?}")))?;
    Ok((value, &text[digits..]))
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

/// The name a text begins with.
fn name<'a>(text: &'a str, names: &[&str], short: bool) -> Result<(usize, &'a str)> {
    for (index, name) in names.iter().enumerate() {
        let name = if short { &name[..3] } else { name };
        if text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
            return Ok((index, &text[name.len()..]));
        }
    }
    Err(invalid(text, if names.len() == 12 { "Month" } else { "Day" }))
}

/// Years of fewer than four digits are those nearest to 2020.
fn full_year(year: i64) -> i64 {
    match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        year => year,
    }
}

fn invalid(text: &str, field: &str) -> Error {
    let shown: String = text.chars().take(20).collect();
    Error::new(sqlstate::INVALID_DATETIME, format!("invalid value \"{shown}\" for \"{field}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_by_their_templates() {
        for (text, template, expected) in [
            ("20240229", "YYYYMMDD", "2024-02-29 00:00:00"),
            ("29.2.2024", "DD.MM.YYYY", "2024-02-29 00:00:00"),
            ("05 Dec 2000", "DD Mon YYYY", "2000-12-05 00:00:00"),
            ("5 march 99", "DD Month YY", "1999-03-05 00:00:00"),
            ("2024-03-05 02:07:09 pm", "YYYY-MM-DD HH12:MI:SS AM", "2024-03-05 14:07:09"),
            ("2024-065", "YYYY-DDD", "2024-03-05 00:00:00"),
            ("2024-W10-2", "IYYY-\"W\"IW-ID", "2024-03-05 00:00:00"),
            ("12:30:05.25", "HH24:MI:SS.MS", "0000-01-01 12:30:05.250"),
            ("  2024   3", "YYYY MM", "2024-03-01 00:00:00"),
            ("1st March 2024", "DDth FMMonth YYYY", "2024-03-01 00:00:00"),
            ("44-03-15 BC", "YYYY-MM-DD AD", "-0043-03-15 00:00:00"),
            ("12:00:00.5 AM", "HH12:MI:SS.FF1 A.M.", "0000-01-01 00:00:00.500"),
            ("2018-11-02 12:34:56.12345", "YYYY-MM-DD HH24:MI:SS.FF4", "2018-11-02 12:34:56.123500"),
            ("20181102123456123456", "YYYYMMDDHH24MISSFF3", "2018-11-02 12:34:56.123"),
        ] {
            assert_eq!(read(text, &parse(template)).unwrap().to_string(), expected, "{text} by {template}");
        }
        for (text, template, state) in
            [("2024-13-01", "YYYY-MM-DD", "22008"), ("x", "YYYY", "22007"), ("13", "HH12", "22007")]
        {
            assert_eq!(read(text, &parse(template)).unwrap_err().sqlstate(), state, "{text} by {template}");
        }
    }
}
