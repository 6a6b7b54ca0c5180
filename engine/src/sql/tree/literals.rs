//! Operators on times, and literals of intervals as people write them. Their texts are read in
//! [`interval_texts`](crate::functions::interval_texts), those of times in [`time_texts`](crate::functions::time_texts).

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Interval,
    UnaryOperator, Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::Result;
use crate::dml::syntax::{call, cast};
use crate::functions::interval_parts::{Field, Fields};
use crate::functions::interval_texts::interval_with;
use crate::functions::text::SIMILAR_TO_ESCAPE;
use crate::functions::zones::TIMEZONE;
use crate::sql::text::parse::place;

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

/// Rewrites `time AT TIME ZONE zone` to `timezone(zone, time)`. A constant without a type is an instant, by the session's clock.
pub(in crate::sql) fn at_time_zone(expr: &mut Expr) -> Result<()> {
    let Expr::AtTimeZone { timestamp, time_zone } = expr else { return Ok(()) };
    let time = match taken(timestamp) {
        text @ Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. }) => cast(text, "timestamptz")?,
        time => time,
    };
    *expr = call_on(TIMEZONE, [taken(time_zone), time]);
    Ok(())
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

/// Writes an interval's text as the planner reads it, in months, days and nanoseconds, read by PostgreSQL's rules and by the
/// fields that are declared behind it: `'1-2' YEAR TO MONTH`, `'1.234' SECOND(2)`.
pub(in crate::sql) fn spell_out(expr: &mut Expr) -> Result<()> {
    let Expr::Interval(interval) = expr else { return Ok(()) };
    let Some(fields) = declared_fields(interval) else { return Ok(()) };
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span }) = interval.value.as_mut() else {
        return Ok(());
    };
    let read = interval_with(text, fields).map_err(|error| error.at(place(*span)))?;
    *text = format!("{} months {} days {} nanoseconds", read.months, read.days, read.nanoseconds);
    interval.leading_field = None;
    interval.leading_precision = None;
    interval.last_field = None;
    interval.fractional_seconds_precision = None;
    Ok(())
}

/// The fields that are declared; `None`: PostgreSQL has no such declaration, and the planner may refuse it.
fn declared_fields(interval: &Interval) -> Option<Fields> {
    let Interval { value: _, leading_field, leading_precision, last_field, fractional_seconds_precision } = interval;
    let known = |name: &Option<DateTimeField>| match name {
        Some(name) => field(name).map(Some),
        None => Some(None),
    };
    let (first, last) = (known(leading_field)?, known(last_field)?);
    let digits = match (first, leading_precision, last, fractional_seconds_precision) {
        (_, None, None, None) => None,
        // The parser takes the digits of seconds alone for those before the point.
        (Some(Field::Second), Some(digits), None, None) => Some(*digits),
        (Some(Field::Year), None, Some(Field::Month), None) => None,
        (Some(first), None, Some(last), digits) if first >= Field::Day && first < last => *digits,
        _ => return None,
    };
    let digits = digits.map(u32::try_from).transpose().ok()?;
    Some(Fields { first, last: last.or(first), digits })
}

fn field(field: &DateTimeField) -> Option<Field> {
    Some(match field {
        DateTimeField::Year => Field::Year,
        DateTimeField::Month => Field::Month,
        DateTimeField::Day => Field::Day,
        DateTimeField::Hour => Field::Hour,
        DateTimeField::Minute => Field::Minute,
        DateTimeField::Second => Field::Second,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    #[test]
    fn intervals_are_spelled_out() {
        for (sql, expected) in [
            ("interval '1 year 3 days 04:05:06.5'", Some("INTERVAL '12 months 3 days 14706500000000 nanoseconds'")),
            ("interval '-01:30'", Some("INTERVAL '0 months 0 days -5400000000000 nanoseconds'")),
            ("interval '1-2' year to month", Some("INTERVAL '14 months 0 days 0 nanoseconds'")),
            ("interval '1 2' day to hour", Some("INTERVAL '0 months 1 days 7200000000000 nanoseconds'")),
            ("interval '1.234' second(2)", Some("INTERVAL '0 months 0 days 1230000000 nanoseconds'")),
            ("interval '2:03.4567' minute to second(2)", Some("INTERVAL '0 months 0 days 123460000000 nanoseconds'")),
            ("interval '1' week", Some("INTERVAL '1' WEEK")),
            ("interval '1' month to day", Some("INTERVAL '1' MONTH TO DAY")),
            ("interval '1 day 1 day'", None),
        ] {
            let mut expr = parse_expression(sql).unwrap();
            let spelled = spell_out(&mut expr).map(|()| expr.to_string());
            assert_eq!(spelled.ok().as_deref(), expected, "{sql}");
        }
    }
}
