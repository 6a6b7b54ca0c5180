//! What the [text of an interval](super::interval_texts) adds up to, by units, and what a declaration keeps of it.
//!
//! What is no whole month becomes days, what is no whole day becomes time, and of years and longer units it becomes months.

use arrow::datatypes::IntervalMonthDayNano;

pub(super) const MICROSECOND: i128 = 1_000;
pub(super) const SECOND: i128 = 1_000_000 * MICROSECOND;
pub(super) const MINUTE: i128 = 60 * SECOND;
pub(super) const HOUR: i128 = 60 * MINUTE;
const MICROSECONDS_PER_DAY: f64 = 86_400e6;
const DAYS_PER_MONTH: f64 = 30.0;
pub(super) const MONTHS_PER_YEAR: i32 = 12;

/// One of the fields that a declaration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

/// `MINUTE TO SECOND(2)`: how a text is to be read, and what is kept of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fields {
    pub(crate) first: Option<Field>,
    pub(crate) last: Option<Field>,
    /// Of a second, behind the point.
    pub(crate) digits: Option<u32>,
}

/// Why a text is no interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Syntax,
    /// One of its numbers is too large.
    Number,
    /// They are together.
    Sum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Nanosecond,
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Decade,
    Century,
    Millennium,
}

impl Unit {
    pub(super) fn named(name: &str) -> Option<Unit> {
        Some(match name {
            "ns" | "nanosecond" | "nanoseconds" => Unit::Nanosecond,
            "us" | "usec" | "usecs" | "microsecond" | "microseconds" => Unit::Microsecond,
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => Unit::Millisecond,
            "s" | "sec" | "secs" | "second" | "seconds" => Unit::Second,
            "m" | "min" | "mins" | "minute" | "minutes" => Unit::Minute,
            "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Hour,
            "d" | "day" | "days" => Unit::Day,
            "w" | "week" | "weeks" => Unit::Week,
            "mon" | "mons" | "month" | "months" => Unit::Month,
            "y" | "yr" | "yrs" | "year" | "years" => Unit::Year,
            "dec" | "decs" | "decade" | "decades" => Unit::Decade,
            "c" | "cent" | "century" | "centuries" => Unit::Century,
            "mil" | "mils" | "millennium" | "millenniums" | "millennia" => Unit::Millennium,
            _ => return None,
        })
    }

    /// Its place among those that a text has already.
    pub(super) fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// What a time says of units.
pub(super) fn bits_of_time() -> u16 {
    [Unit::Hour, Unit::Minute].iter().fold(bits_of_split_second(), |bits, unit| bits | unit.bit())
}

/// What a second with a fraction says of units.
pub(super) fn bits_of_split_second() -> u16 {
    [Unit::Second, Unit::Millisecond, Unit::Microsecond].iter().fold(0, |bits, unit| bits | unit.bit())
}

/// What has been added up.
#[derive(Debug, Default)]
pub(super) struct Parts {
    years: i32,
    months: i32,
    days: i32,
    pub(super) nanoseconds: i128,
}

impl Parts {
    /// Adds so many of a unit; `None` if they are too many.
    pub(super) fn add(&mut self, whole: i64, fraction: f64, unit: Unit) -> Option<()> {
        match unit {
            Unit::Nanosecond => self.add_time(whole, fraction, 1),
            Unit::Microsecond => self.add_time(whole, fraction, MICROSECOND),
            Unit::Millisecond => self.add_time(whole, fraction, 1_000 * MICROSECOND),
            Unit::Second => self.add_time(whole, fraction, SECOND),
            Unit::Minute => self.add_time(whole, fraction, MINUTE),
            Unit::Hour => self.add_time(whole, fraction, HOUR),
            Unit::Day => self.add_days(whole, fraction, 1),
            Unit::Week => self.add_days(whole, fraction, 7),
            Unit::Month => {
                self.months = self.months.checked_add(i32::try_from(whole).ok()?)?;
                self.add_split_days(fraction * DAYS_PER_MONTH)
            }
            Unit::Year => self.add_years(whole, fraction, 1),
            Unit::Decade => self.add_years(whole, fraction, 10),
            Unit::Century => self.add_years(whole, fraction, 100),
            Unit::Millennium => self.add_years(whole, fraction, 1_000),
        }
    }

    fn add_time(&mut self, whole: i64, fraction: f64, nanoseconds: i128) -> Option<()> {
        self.nanoseconds += i128::from(whole) * nanoseconds;
        self.add_microseconds(fraction * (nanoseconds / MICROSECOND) as f64);
        Some(())
    }

    fn add_days(&mut self, whole: i64, fraction: f64, days: i32) -> Option<()> {
        let whole = i32::try_from(whole).ok()?.checked_mul(days)?;
        self.days = self.days.checked_add(whole)?;
        self.add_split_days(fraction * f64::from(days))
    }

    fn add_split_days(&mut self, days: f64) -> Option<()> {
        self.days = self.days.checked_add(days.trunc() as i32)?;
        self.add_microseconds(days.fract() * MICROSECONDS_PER_DAY);
        Some(())
    }

    fn add_years(&mut self, whole: i64, fraction: f64, years: i32) -> Option<()> {
        let whole = i32::try_from(whole).ok()?.checked_mul(years)?;
        self.years = self.years.checked_add(whole)?;
        let months = (fraction * f64::from(years) * f64::from(MONTHS_PER_YEAR)).round_ties_even();
        self.months = self.months.checked_add(months as i32)?;
        Some(())
    }

    /// Whole ones; as in PostgreSQL, a half is none.
    fn add_microseconds(&mut self, microseconds: f64) {
        let rest = microseconds.fract();
        let whole = microseconds.trunc() as i128 + i128::from(rest > 0.5) - i128::from(rest < -0.5);
        self.nanoseconds += whole * MICROSECOND;
    }

    pub(super) fn negated(&self) -> Option<Parts> {
        Some(Parts {
            years: self.years.checked_neg()?,
            months: self.months.checked_neg()?,
            days: self.days.checked_neg()?,
            nanoseconds: -self.nanoseconds,
        })
    }

    /// The interval, as far as its fields are declared.
    pub(super) fn finish(self, fields: Fields) -> std::result::Result<IntervalMonthDayNano, Refusal> {
        let months = i64::from(self.years) * i64::from(MONTHS_PER_YEAR) + i64::from(self.months);
        let (mut months, mut days) = (i32::try_from(months).map_err(|_| Refusal::Sum)?, self.days);
        let mut nanoseconds = self.nanoseconds;
        if i64::try_from(nanoseconds / MICROSECOND).is_err() {
            return Err(Refusal::Number);
        }
        match fields.last {
            Some(Field::Year) => (months, days, nanoseconds) = (months - months % MONTHS_PER_YEAR, 0, 0),
            Some(Field::Month) => (days, nanoseconds) = (0, 0),
            Some(Field::Day) => nanoseconds = 0,
            Some(Field::Hour) => nanoseconds -= nanoseconds % HOUR,
            Some(Field::Minute) => nanoseconds -= nanoseconds % MINUTE,
            Some(Field::Second) | None => {}
        }
        if let Some(digits) = fields.digits {
            let step = SECOND / 10i128.pow(digits.min(6));
            // Halves go away from 0.
            nanoseconds = (nanoseconds + nanoseconds.signum() * step / 2) / step * step;
        }
        let nanoseconds = i64::try_from(nanoseconds).map_err(|_| Refusal::Sum)?;
        Ok(IntervalMonthDayNano::new(months, days, nanoseconds))
    }
}
