//! Literals of times as people write them: without seconds, and intervals with a time in them. Arrow's parsers want more.

use arrow::datatypes::TimeUnit;
use chrono::{NaiveDateTime, SubsecRound};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Interval, UnaryOperator, Value,
    ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::dml::syntax::call;
use crate::functions::input::interval_of;
use crate::functions::text::SIMILAR_TO_ESCAPE;
use crate::functions::zones::TIMEZONE;

/// A literal of a timestamp as Arrow reads it; `None` if that is as it stands. Of a timestamp without time zone the zone is
/// dropped, and digits beyond those it keeps are rounded.
pub(super) fn timestamp_text(text: &str, zoned: bool, unit: TimeUnit) -> Option<String> {
    let full = with_seconds(text);
    let whole = full.as_deref().unwrap_or(text.trim());
    let local = match zoned {
        false => without_zone(whole),
        true => None,
    };
    let rounded = match (unit, zoned) {
        (TimeUnit::Microsecond, false) => rounded_to_microseconds(local.unwrap_or(whole)),
        _ => None,
    };
    rounded.or_else(|| local.map(str::to_owned)).or(full)
}

/// `2024-01-01 10:00:00+02` without its zone; `None` if there is none.
fn without_zone(text: &str) -> Option<&str> {
    let (date, time) = text.split_at_checked(text.find([' ', 'T'])? + 1)?;
    let end = time.find(|letter: char| !letter.is_ascii_digit() && letter != ':' && letter != '.')?;
    let (time, zone) = time.split_at_checked(end)?;
    let zone = zone.trim();
    let offset = zone
        .strip_prefix(['+', '-'])
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b':'));
    let named = zone.eq_ignore_ascii_case("z") || zone.eq_ignore_ascii_case("utc");
    (offset || named).then(|| &text[..date.len() + time.len()])
}

/// A time of more than six digits after the point, rounded to six.
fn rounded_to_microseconds(text: &str) -> Option<String> {
    let (_, fraction) = text.rsplit_once('.')?;
    if fraction.len() <= 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let time = NaiveDateTime::parse_from_str(&text.replace('T', " "), "%Y-%m-%d %H:%M:%S%.f").ok()?;
    Some(time.round_subsecs(6).format("%Y-%m-%d %H:%M:%S%.6f").to_string())
}

/// `040506` as `04:05:06`, and `0405` as `04:05:00`; `None` for times that are written otherwise.
pub(super) fn time_text(text: &str) -> Option<String> {
    let text = text.trim();
    let (digits, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match digits.len() {
        6 => Some(format!("{}:{}:{}{fraction}", &digits[..2], &digits[2..4], &digits[4..])),
        4 if fraction.is_empty() => Some(format!("{}:{}:00", &digits[..2], &digits[2..])),
        _ => None,
    }
}

/// `2024-01-01 10:00` with its seconds; `None` if nothing is missing. A time zone may follow.
pub(super) fn with_seconds(text: &str) -> Option<String> {
    let text = text.trim();
    let (date, rest) = text.split_once([' ', 'T'])?;
    let is_date = date.len() >= 8 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != ':').unwrap_or(rest.len());
    let (time, zone) = rest.split_at(end);
    let (hours, minutes) = time.split_once(':')?;
    let two = |digits: &str| (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_date && two(hours) && two(minutes)).then(|| format!("{date} {hours:0>2}:{minutes:0>2}:00{zone}"))
}

/// Puts the interval of `-interval '1 day 2 hours'` into parentheses: the planner writes the minus before the text, where
/// it is that of the days alone.
pub(super) fn negate_as_a_whole(expr: &mut Expr) {
    if let Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } = expr
        && matches!(inner.as_ref(), Expr::Interval(_))
    {
        let interval = taken(inner);
        **inner = Expr::Nested(Box::new(interval));
    }
}

/// Rewrites `x SIMILAR TO p ESCAPE e` to `x ~ similar_to_escape(p, e)`: the planner takes p for a POSIX expression.
pub(super) fn similar_to(expr: &mut Expr) {
    let Expr::SimilarTo { negated, expr: value, pattern, escape_char } = expr else { return };
    let arguments = std::iter::once(taken(pattern)).chain(escape_char.take().map(Expr::Value));
    let pattern = call_on(SIMILAR_TO_ESCAPE, arguments);
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    *expr = Expr::BinaryOp { left: Box::new(taken(value)), op, right: Box::new(pattern) };
}

/// Rewrites `time AT TIME ZONE zone` to `timezone(zone, time)`.
pub(super) fn at_time_zone(expr: &mut Expr) {
    if let Expr::AtTimeZone { timestamp, time_zone } = expr {
        *expr = call_on(TIMEZONE, [taken(time_zone), taken(timestamp)]);
    }
}

/// An expression that is put elsewhere: chains of them may be long, so that they are not copied.
fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::value(Value::Null))
}

fn call_on(name: &str, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    let mut function = call(name, Span::empty());
    if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut function {
        let unnamed = |argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument));
        list.args = arguments.into_iter().map(unnamed).collect();
    }
    function
}

/// Gives the signs of `-2 ^ 2` and `- - 2 ^ 2` to the 2, as PostgreSQL does; the parser lets `^` bind closer.
pub(super) fn negate_before_powers(expr: &mut Expr) {
    let mut signs = Vec::new();
    let mut signed = &mut *expr;
    while let Expr::UnaryOp { op: op @ (UnaryOperator::Minus | UnaryOperator::Plus), expr: inner } = signed {
        signs.push(*op);
        signed = inner.as_mut();
    }
    if signs.is_empty() || !is_power(signed) {
        return;
    }
    let mut whole = taken(signed);
    let mut first = &mut whole;
    while is_power(first) {
        let Expr::BinaryOp { left, .. } = first else { return };
        first = left.as_mut();
    }
    let mut operand = taken(first);
    for op in signs.into_iter().rev() {
        operand = Expr::UnaryOp { op, expr: Box::new(operand) };
    }
    *first = operand;
    *expr = whole;
}

fn is_power(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::PGExp | BinaryOperator::BitwiseXor, .. })
}

/// Writes the time in an interval's text in words: `3 days 04:05:06` as `3 days 4 hours 5 minutes 6 seconds`.
pub(super) fn spell_out(expr: &mut Expr) {
    let Expr::Interval(Interval { value, leading_field: None, last_field: None, .. }) = expr else { return };
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = value.as_mut() else { return };
    if let Some(spelled) = spelled(text).or_else(|| in_words(text)) {
        *text = spelled;
    }
}

/// Forms that have no words at all, or more than words: `1-2`, `P1Y2M`, `3 4:05`, `1 day ago`.
fn in_words(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let digits = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let years_months =
        |word: &&str| word.split_once('-').is_some_and(|(years, months)| digits(years) && digits(months));
    let is_iso = text.trim_start().starts_with(['P', 'p']);
    let ago = words.last().is_some_and(|word| word.eq_ignore_ascii_case("ago"));
    if !is_iso && !ago && !words.iter().any(years_months) {
        return None;
    }
    let interval = interval_of(text).ok()?;
    Some(format!("{} months {} days {} nanoseconds", interval.months, interval.days, interval.nanoseconds))
}

fn spelled(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (time, before) = words.split_last()?;
    let (sign, digits) = match time.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", time.strip_prefix('+').unwrap_or(time)),
    };
    let parts: Vec<&str> = digits.split(':').collect();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !(2..=3).contains(&parts.len()) || !parts.iter().all(|part| number(part)) {
        return None;
    }
    let mut spelled = before.join(" ");
    // `3 4:05`: a number without a unit in front of the time is one of days.
    if before.last().is_some_and(|word| word.trim_start_matches(['-', '+']).bytes().all(|byte| byte.is_ascii_digit())) {
        spelled.push_str(" days");
    }
    for (part, unit) in parts.iter().zip(["hours", "minutes", "seconds"]) {
        spelled.push_str(&format!(" {sign}{part} {unit}"));
    }
    Some(spelled.trim_start().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_added_where_they_are_missing() {
        for (text, expected) in [
            ("2024-01-01 10:00", Some("2024-01-01 10:00:00")),
            ("2024-01-01T9:05+02", Some("2024-01-01 09:05:00+02")),
            ("2024-01-01 10:00:01", None),
            ("2024-01-01", None),
            ("10:00", None),
            ("a b:c", None),
        ] {
            assert_eq!(with_seconds(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn timestamps_without_zone_forget_it() {
        for (text, expected) in [
            ("2024-01-01 10:00:00+02", Some("2024-01-01 10:00:00")),
            ("2024-01-01T10:00Z", Some("2024-01-01 10:00:00")),
            ("2024-01-01 10:00:00.5 -05:30", Some("2024-01-01 10:00:00.5")),
            ("2024-01-01 23:59:59.9999999", Some("2024-01-02 00:00:00.000000")),
            ("2024-01-01 10:00:00", None),
            ("2024-01-01", None),
        ] {
            assert_eq!(timestamp_text(text, false, TimeUnit::Microsecond).as_deref(), expected, "{text}");
        }
        assert_eq!(timestamp_text("2024-01-01 10:00:00+02", true, TimeUnit::Microsecond), None);
        assert_eq!(time_text("040506.5").as_deref(), Some("04:05:06.5"));
        assert_eq!(time_text("04:05"), None);
    }

    #[test]
    fn times_in_intervals_are_spelled_out() {
        for (text, expected) in [
            ("1 year 3 days 04:05:06.5", Some("1 year 3 days 04 hours 05 minutes 06.5 seconds")),
            ("-01:30", Some("-01 hours -30 minutes")),
            ("1 day", None),
            ("1:2:3:4", None),
        ] {
            assert_eq!(spelled(text).as_deref(), expected, "{text}");
        }
    }
}
