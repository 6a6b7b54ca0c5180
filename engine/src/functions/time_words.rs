//! Texts of dates and times that are read word by word, as PostgreSQL does where they are not in the order of ISO 8601:
//! `Mon Feb 10 17:32:01 1997 PST`, `10 Feb 1997 5:32 PM`, `19970210 173201`, `J2451187`.
//!
//! A word is a time, a date or a part of one, the day of a week, which says nothing, or a time zone.

use chrono::{Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

use super::time_texts::{date_of, time_of, zone_text};
use crate::sql::tree::date_words::{in_iso_order, month_named};

/// The Julian day before the first day of the year 1.
const JULIAN_BEFORE_CHRIST: i32 = 1_721_425;

const HALF_DAY: i64 = 12;

/// What has been found in a text.
#[derive(Debug, Default)]
struct Found<'a> {
    date: Option<NaiveDate>,
    /// The month's name and numbers, as far as the date is several words.
    date_words: Vec<&'a str>,
    /// A time, and how many days later that is.
    time: Option<(NaiveTime, u64)>,
    is_afternoon: Option<bool>,
    /// As Arrow reads it.
    zone: Option<String>,
}

/// The moment of a text, and the time zone in it as Arrow reads it; `None` if it is none.
pub(super) fn by_words(text: &str) -> Option<(NaiveDateTime, String)> {
    let mut found = Found::default();
    for word in text.split(|letter: char| letter.is_whitespace() || letter == ',').filter(|word| !word.is_empty()) {
        match word.split_once(['T', 't']) {
            Some((date, time)) if time.starts_with(|letter: char| letter.is_ascii_digit()) && has_digits(date) => {
                found.add(date)?;
                found.add(time)?;
            }
            _ => found.add(word)?,
        }
    }
    found.finish()
}

fn has_digits(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit())
}

impl<'a> Found<'a> {
    /// `None`: the word means nothing, or something that is there already.
    fn add(&mut self, word: &'a str) -> Option<()> {
        let begins_with_digit = word.starts_with(|letter: char| letter.is_ascii_digit());
        // Behind a whole date, digits are a time, too.
        if begins_with_digit && (word.contains(':') || (self.date.is_some() && self.time.is_none())) {
            let (time, days, rest) = time_of(word)?;
            return match self.time.replace((time, days)) {
                None => self.add_behind_time(rest),
                Some(_) => None,
            };
        }
        if self.time.is_some() && word.starts_with(['+', '-']) {
            return self.add_zone(word);
        }
        if self.date.is_none()
            && self.date_words.is_empty()
            && let Some(date) = whole_date(word)
        {
            self.date = Some(date);
            return Some(());
        }
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        if self.date.is_none() && (is_number || month_named(word).is_some()) {
            self.date_words.push(word);
            return Some(());
        }
        if is_idle(word) {
            return Some(());
        }
        self.add_behind_time(word)
    }

    /// AM, PM, or a time zone.
    fn add_behind_time(&mut self, word: &str) -> Option<()> {
        match word.to_ascii_lowercase().as_str() {
            "" => Some(()),
            "am" | "pm" if self.is_afternoon.is_some() => None,
            half @ ("am" | "pm") => {
                self.is_afternoon = Some(half == "pm");
                Some(())
            }
            _ => self.add_zone(word),
        }
    }

    fn add_zone(&mut self, word: &str) -> Option<()> {
        match self.zone.replace(zone_text(word)?) {
            None => Some(()),
            Some(_) => None,
        }
    }

    fn finish(self) -> Option<(NaiveDateTime, String)> {
        let date = match (self.date, self.date_words.is_empty()) {
            (Some(date), true) => date,
            (None, false) => date_of(&in_iso_order(&self.date_words.join(" "))?)?,
            _ => return None,
        };
        let (time, days) = match (self.time, self.is_afternoon) {
            (None, None) => (NaiveTime::MIN, 0),
            (Some((time, days)), None) => (time, days),
            (Some((time, 0)), Some(is_afternoon)) => (by_half(time, is_afternoon)?, 0),
            _ => return None,
        };
        let date = date.checked_add_days(Days::new(days))?;
        Some((date.and_time(time), self.zone.unwrap_or_default()))
    }
}

/// A time of which the half of the day is told: 12 AM is midnight.
fn by_half(time: NaiveTime, is_afternoon: bool) -> Option<NaiveTime> {
    let since_noon = time.signed_duration_since(NaiveTime::from_hms_opt(12, 0, 0)?);
    let is_twelve = since_noon >= TimeDelta::zero();
    if since_noon >= TimeDelta::hours(1) {
        return None;
    }
    Some(match (is_twelve, is_afternoon) {
        (true, false) => time - TimeDelta::hours(HALF_DAY),
        (false, true) => time + TimeDelta::hours(HALF_DAY),
        _ => time,
    })
}

/// A date in one word: `1997-02-10`, `Feb-10-1997`, `19970210`, `970210`, `1997.041`, `J2450490`.
fn whole_date(word: &str) -> Option<NaiveDate> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(julian) = word.strip_prefix(['J', 'j']).filter(|julian| is_number(julian)) {
        return NaiveDate::from_num_days_from_ce_opt(julian.parse::<i32>().ok()?.checked_sub(JULIAN_BEFORE_CHRIST)?);
    }
    if word.len() == 6 && is_number(word) {
        return date_of(&in_iso_order(&format!("{}/{}/{}", &word[2..4], &word[4..], &word[..2]))?);
    }
    if let Some((year, day)) = word.split_once(['.', '-'])
        && (year.len(), day.len()) == (4, 3)
        && is_number(year)
        && is_number(day)
    {
        return NaiveDate::from_yo_opt(year.parse().ok()?, day.parse().ok()?);
    }
    date_of(word).or_else(|| date_of(&in_iso_order(word)?))
}

/// The day of a week, which is what it is, and words that say nothing.
fn is_idle(word: &str) -> bool {
    const IDLE: &[&str] = &[
        "ad",
        "at",
        "on",
        "sun",
        "sunday",
        "mon",
        "monday",
        "tue",
        "tues",
        "tuesday",
        "wed",
        "weds",
        "wednesday",
        "thu",
        "thur",
        "thurs",
        "thursday",
        "fri",
        "friday",
        "sat",
        "saturday",
    ];
    let word = word.trim_end_matches('.');
    IDLE.iter().any(|idle| word.eq_ignore_ascii_case(idle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_order() {
        for (text, expected) in [
            ("Mon Feb 10 17:32:01 1997 PST", Some("1997-02-10 17:32:01-08:00")),
            ("Mon, 10 Feb 1997 17:32:01 +0000", Some("1997-02-10 17:32:01+00:00")),
            ("Feb 10 5:32PM 1997", Some("1997-02-10 17:32:00")),
            ("10 Feb 1997 12:00:01 AM", Some("1997-02-10 00:00:01")),
            ("1997-02-10 12:30 pm", Some("1997-02-10 12:30:00")),
            ("17:32:01 1997-02-10", Some("1997-02-10 17:32:01")),
            ("19970210 173201.5 -0800", Some("1997-02-10 17:32:01.500-08:00")),
            ("20011227T040506.789-08", Some("2001-12-27 04:05:06.789-08:00")),
            ("Wed Jul 11 10:51:14 America/New_York 2001", Some("2001-07-11 10:51:14 America/New_York")),
            ("Sat Feb 10 1997 24:00", Some("1997-02-11 00:00:00")),
            ("J2451187", Some("1999-01-08 00:00:00")),
            ("990108", Some("1999-01-08 00:00:00")),
            ("1999.008", Some("1999-01-08 00:00:00")),
            ("1997.041 17:32:01 UTC", Some("1997-02-10 17:32:01+00:00")),
            ("0001-01-01 AD", Some("0001-01-01 00:00:00")),
            ("1997-02-10 13:00 PM", None),
            ("1997-02-10 1:00 PM PM", None),
            ("1997-02-10 10:00 11:00", None),
            ("1997-02-10 1998-02-10", None),
            ("1997-02-10 10:00 Nowhere", None),
            ("10:00 PM", None),
            ("Feb 1997", None),
            ("nonsense", None),
            ("", None),
        ] {
            let read = by_words(text).map(|(moment, zone)| format!("{}{zone}", moment.format("%Y-%m-%d %H:%M:%S%.f")));
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
