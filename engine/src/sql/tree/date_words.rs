//! Constants of dates and timestamps as people write them: `'today'`, `'January 8, 1999'`, `'1/8/1999'`. Arrow reads ISO
//! 8601 only.
//!
//! Words for a time that moves become calls; all else is written in ISO's order. As in PostgreSQL with `DateStyle` ISO, MDY,
//! the month comes first where three numbers have slashes or hyphens between them and no year comes first.

use datafusion::sql::sqlparser::ast::{BinaryOperator, CastKind, DataType, Expr, TypedString, Value, ValueWithSpan};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::dml::syntax::{call, number};

/// Rewrites a constant of a date or timestamp.
pub(in crate::sql) fn rewrite(expr: &mut Expr) {
    let (data_type, text) = match expr {
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, data_type, .. } => match inner.as_ref()
        {
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => {
                (data_type.clone(), text.clone())
            }
            _ => return,
        },
        Expr::TypedString(TypedString { data_type, value, .. }) => match &value.value {
            Value::SingleQuotedString(text) => (data_type.clone(), text.clone()),
            _ => return,
        },
        _ => return,
    };
    let is_date = matches!(data_type, DataType::Date);
    if !is_date && !matches!(data_type, DataType::Timestamp(..) | DataType::Datetime(_)) {
        return;
    }
    let cast = |expr: Expr| Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type: data_type.clone(),
        array: false,
        format: None,
    };
    let today = || call("current_date", Span::empty());
    let shifted = |op| {
        let (left, right) = (Box::new(today()), Box::new(number(1)));
        Expr::Nested(Box::new(Expr::BinaryOp { left, op, right }))
    };
    let constant =
        |text: String| Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), span: Span::empty() });
    let moment = match text.trim().to_ascii_lowercase().as_str() {
        "today" => today(),
        "tomorrow" => shifted(BinaryOperator::Plus),
        "yesterday" => shifted(BinaryOperator::Minus),
        "now" => call("now", Span::empty()),
        "epoch" => constant("1970-01-01 00:00:00".to_owned()),
        _ => match in_iso_order(&text) {
            Some(text) => constant(text),
            None => return,
        },
    };
    // A date of a constant with a time, as of one without.
    let moment = match (is_date, &moment) {
        (true, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. })) => {
            constant(text.split(' ').next().unwrap_or(text).to_owned())
        }
        _ => moment,
    };
    *expr = cast(moment);
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The text with its date as `YYYY-MM-DD`; `None` if it is that already, or nothing known.
pub(crate) fn in_iso_order(text: &str) -> Option<String> {
    let text = text.trim();
    let (date, time) = split_time(text);
    let parts: Vec<&str> = date.split([' ', ',', '-', '/', '.']).filter(|part| !part.is_empty()).collect();
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let year_of = |part: &str| -> Option<u32> {
        let year: u32 = part.parse().ok().filter(|_| is_number(part))?;
        match part.len() {
            1 | 2 => Some(if year < 70 { year + 2000 } else { year + 1900 }),
            3 | 4 => Some(year),
            _ => None,
        }
    };
    let (year, month, day) = match parts.as_slice() {
        [digits] if digits.len() == 8 && is_number(digits) => {
            (year_of(&digits[..4])?, digits[4..6].parse().ok()?, digits[6..].parse().ok()?)
        }
        [first, second, third] => match (month_named(first), month_named(second)) {
            // January 8, 1999
            (Some(month), None) => (year_of(third)?, month, small(second)?),
            // 8 January 1999, 1999-Jan-08
            (None, Some(month)) if first.len() > 2 => (year_of(first)?, month, small(third)?),
            (None, Some(month)) => (year_of(third)?, month, small(first)?),
            // 1/8/1999
            (None, None) if first.len() <= 2 && date.contains(['/', '-']) && !date.contains([' ', ',', '.']) => {
                (year_of(third)?, small(first)?, small(second)?)
            }
            // 1999/1/8
            (None, None) if first.len() == 4 && date.contains('/') => (year_of(first)?, small(second)?, small(third)?),
            _ => return None,
        },
        _ => return None,
    };
    let date = format!("{year:04}-{month:02}-{day:02}");
    Some(if time.is_empty() { date } else { format!("{date} {time}") })
}

/// The date in front, and the time, which has a colon.
fn split_time(text: &str) -> (&str, &str) {
    let Some(colon) = text.find(':') else { return (text, "") };
    match text[..colon].rfind([' ', 'T']) {
        Some(at) => (text[..at].trim_end(), &text[at + 1..]),
        None => (text, ""),
    }
}

fn small(part: &str) -> Option<u32> {
    part.parse().ok().filter(|_| part.len() <= 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The number of a month, by its name or its beginning.
pub(crate) fn month_named(part: &str) -> Option<u32> {
    let lower = part.to_ascii_lowercase();
    let full = [
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
    let place = MONTHS.iter().zip(full).position(|(short, full)| lower == *short || lower == full);
    let place = place.or_else(|| (lower == "sept").then_some(8))?;
    u32::try_from(place + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::in_iso_order;

    #[test]
    fn dates_are_put_into_the_order_of_iso() {
        for (text, expected) in [
            ("January 8, 1999", Some("1999-01-08")),
            ("8 Jan 1999", Some("1999-01-08")),
            ("1999-Jan-08", Some("1999-01-08")),
            ("Jan-08-1999", Some("1999-01-08")),
            ("08-Jan-99", Some("1999-01-08")),
            ("1/8/1999", Some("1999-01-08")),
            ("1/8/99 10:00", Some("1999-01-08 10:00")),
            ("19990108", Some("1999-01-08")),
            ("January 8, 1999 04:05:06", Some("1999-01-08 04:05:06")),
            ("1999-01-08", None),
            ("1999-01-08 04:05:06.789-08:00", None),
            ("10:00", None),
            ("nonsense", None),
        ] {
            assert_eq!(in_iso_order(text).as_deref(), expected, "{text}");
        }
    }
}
