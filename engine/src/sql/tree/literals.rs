//! Operators on times, and literals of intervals as people write them, with a time in them. The texts of times are read in
//! [`time_texts`](crate::functions::time_texts).

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Interval, UnaryOperator, Value,
    ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::dml::syntax::call;
use crate::functions::input::interval_of;
use crate::functions::text::SIMILAR_TO_ESCAPE;
use crate::functions::zones::TIMEZONE;

/// Puts the interval of `-interval '1 day 2 hours'` into parentheses: the planner writes the minus before the text, where
/// it is that of the days alone.
pub(in crate::sql) fn negate_as_a_whole(expr: &mut Expr) {
    if let Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } = expr
        && matches!(inner.as_ref(), Expr::Interval(_))
    {
        let interval = taken(inner);
        **inner = Expr::Nested(Box::new(interval));
    }
}

/// Rewrites `x SIMILAR TO p ESCAPE e` to `x ~ similar_to_escape(p, e)`: the planner takes p for a POSIX expression.
pub(in crate::sql) fn similar_to(expr: &mut Expr) {
    let Expr::SimilarTo { negated, expr: value, pattern, escape_char } = expr else { return };
    let arguments = std::iter::once(taken(pattern)).chain(escape_char.take().map(Expr::Value));
    let pattern = call_on(SIMILAR_TO_ESCAPE, arguments);
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    *expr = Expr::BinaryOp { left: Box::new(taken(value)), op, right: Box::new(pattern) };
}

/// Rewrites `time AT TIME ZONE zone` to `timezone(zone, time)`.
pub(in crate::sql) fn at_time_zone(expr: &mut Expr) {
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
pub(in crate::sql) fn negate_before_powers(expr: &mut Expr) {
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
pub(in crate::sql) fn spell_out(expr: &mut Expr) {
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
