//! Calls and operators that say in short what others say, rewritten to these on the syntax tree.
//!
//! | expression | becomes |
//! |---|---|
//! | `date_trunc(unit, t, zone)` | [`date_trunc_at_zone(unit, t::timestamptz, zone)`](TRUNCATE_AT) |
//! | `make_timestamptz(y, m, d, h, m, s)` | `make_timestamp(y, m, d, h, m, s)::timestamptz` |
//! | the same with a zone | [`instant_at_zone(zone, make_timestamp(y, m, d, h, m, s))`](INSTANT_AT) |
//! | `date(x)`, `int4(x)`, `text(x)` … | `x::date`, … |
//! | `current_timestamp(0)`, `localtimestamp(0)`, `localtime(0)` | `now()::timestamptz(0)`, … |
//! | `array_cat(NULL, x)` | `x` |
//! | `convert(x, 'LATIN1', 'UTF8')` | `convert_to(convert_from(x, 'LATIN1'), 'UTF8')` |
//! | `array_fill(x, ARRAY[2, 3])` | [`array_filled(x, 2, 3)`](ARRAY_FILLED) |
//! | `s ^@ t` | `starts_with(s, t)` |
//! | `(a, b) OVERLAPS (c, d)` | `overlaps(a, b, c, d)` |
//! | `\|/ x`, `\|\|/ x`, `@ x` | `sqrt(x)`, `cbrt(x)`, `abs(x)` |
//! | `pg_client_encoding()`, `pg_is_in_recovery()` | `'UTF8'`, `false` |

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value, ValueWithSpan};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::time_digits::round_cast;
use crate::dml::syntax::{boolean, call, call_with, cast, number};
use crate::error::sqlstate;
use crate::functions::array_fill::ARRAY_FILLED;
use crate::functions::overlaps::OVERLAPS;
use crate::functions::zone_truncate::TRUNCATE_AT;
use crate::functions::zones::INSTANT_AT;
use crate::{Error, Result};

/// The digits that a timestamp has behind the point at most.
const SECOND_DIGITS_MAX: u8 = 6;

/// Whether calls of a function may be written for something else.
pub(in crate::sql) fn knows(function: &str) -> bool {
    const KNOWN: &[&str] = &[
        "array_cat",
        "array_concat",
        "array_fill",
        "bool",
        "convert",
        "current_time",
        "current_timestamp",
        "date",
        "date_trunc",
        "float4",
        "float8",
        "int2",
        "int4",
        "int8",
        "localtime",
        "localtimestamp",
        "make_timestamptz",
        "pg_client_encoding",
        "pg_is_in_recovery",
        "text",
        "timestamptz",
    ];
    KNOWN.contains(&function)
}

/// What a call of a function is written for; `None`: it is one like others.
pub(in crate::sql) fn of_call(name: &str, arguments: &[Expr], span: Span) -> Result<Option<Expr>> {
    Ok(Some(match (name, arguments) {
        ("date_trunc", [unit, time, zone]) => {
            let instant = cast(time.clone(), "timestamptz")?;
            call_with(TRUNCATE_AT, vec![unit.clone(), instant, zone.clone()], span)
        }
        ("make_timestamptz", [parts @ .., zone]) if parts.len() == 6 => {
            let local = call_with("make_timestamp", parts.to_vec(), span);
            call_with(INSTANT_AT, vec![zone.clone(), local], span)
        }
        ("make_timestamptz", parts) if parts.len() == 6 => {
            cast(call_with("make_timestamp", parts.to_vec(), span), "timestamptz")?
        }
        ("date" | "text" | "bool" | "int2" | "int4" | "int8" | "float4" | "float8" | "timestamptz", [value]) => {
            cast(value.clone(), name)?
        }
        ("current_timestamp" | "localtimestamp" | "current_time" | "localtime", [digits]) => {
            let Some(digits) = digits_in(digits) else { return Ok(None) };
            let data_type = match name {
                "current_timestamp" => "timestamptz",
                "localtimestamp" => "timestamp",
                _ => "time",
            };
            let mut rounded = cast(call("now", span), &format!("{data_type}({digits})"))?;
            round_cast(&mut rounded);
            rounded
        }
        ("array_cat" | "array_concat", [null, array] | [array, null]) if is_null(null) => array.clone(),
        ("convert", [bytes, from, to]) => {
            let text = call_with("convert_from", vec![bytes.clone(), from.clone()], span);
            call_with("convert_to", vec![text, to.clone()], span)
        }
        ("pg_client_encoding", []) => Expr::value(Value::SingleQuotedString("UTF8".to_owned())),
        ("pg_is_in_recovery", []) => boolean(false),
        ("array_fill", [value, lengths]) => filled(value, lengths, span)?,
        ("array_fill", [value, lengths, first]) => {
            let first = elements(first)?;
            if first.len() != elements(lengths)?.len() {
                return Err(Error::new(sqlstate::ARRAY_SUBSCRIPT, "wrong number of array subscripts")
                    .with_detail("Low bound array has different size than dimensions array."));
            }
            match first.iter().all(|place| number_in(place) == Some("1")) {
                true => filled(value, lengths, span)?,
                false => return Err(Error::unsupported("an array whose first place is not 1")),
            }
        }
        _ => return Ok(None),
    }))
}

/// What two operands are written for with an operator between them.
pub(in crate::sql) fn of_operator(left: &Expr, operator: &BinaryOperator, right: &Expr) -> Option<Expr> {
    match (left, operator, right) {
        (Expr::Tuple(first), BinaryOperator::Overlaps, Expr::Tuple(second)) => {
            let ends = first.iter().chain(second).cloned().collect();
            Some(call_with(OVERLAPS, ends, Span::empty()))
        }
        (text, BinaryOperator::PGStartsWith, start) => {
            Some(call_with("starts_with", vec![text.clone(), start.clone()], Span::empty()))
        }
        _ => None,
    }
}

/// What an operand is written for with an operator before it.
pub(in crate::sql) fn of_prefix(operator: UnaryOperator, operand: &Expr) -> Option<Expr> {
    let function = match operator {
        UnaryOperator::PGSquareRoot => "sqrt",
        UnaryOperator::PGCubeRoot => "cbrt",
        UnaryOperator::PGAbs => "abs",
        _ => return None,
    };
    Some(call_with(function, vec![operand.clone()], Span::empty()))
}

/// The call with the lengths for arguments.
fn filled(value: &Expr, lengths: &Expr, span: Span) -> Result<Expr> {
    let mut arguments = vec![value.clone()];
    arguments.extend_from_slice(elements(lengths)?);
    if arguments.len() == 1 {
        arguments.push(number(0));
    }
    Ok(call_with(ARRAY_FILLED, arguments, span))
}

/// The elements of an array that is written out.
fn elements(array: &Expr) -> Result<&[Expr]> {
    match array {
        Expr::Nested(array) | Expr::Cast { expr: array, .. } => elements(array),
        Expr::Array(array) => Ok(&array.elem),
        null if is_null(null) => {
            let message = "dimension array or low bound array cannot be null";
            Err(Error::new(sqlstate::NULL_NOT_ALLOWED, message))
        }
        _ => Err(Error::unsupported("array_fill with lengths that are not written out")
            .with_hint("Write ARRAY[…] with the lengths.")),
    }
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(ValueWithSpan { value: Value::Null, .. }))
}

fn number_in(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => Some(digits),
        _ => None,
    }
}

/// A number of digits behind the point.
fn digits_in(expr: &Expr) -> Option<u8> {
    let digits: u8 = number_in(expr)?.parse().ok()?;
    Some(digits.min(SECOND_DIGITS_MAX))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::{FunctionArg, FunctionArgExpr, FunctionArguments};

    use super::*;
    use crate::sql::text::parse::parse_expression;

    fn rewritten(sql: &str) -> String {
        let expr = parse_expression(sql).unwrap();
        let found = match &expr {
            Expr::Function(function) => {
                let FunctionArguments::List(list) = &function.args else { panic!("{sql} has no arguments") };
                let plain = |argument: &FunctionArg| match argument {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                    _ => None,
                };
                let arguments: Vec<Expr> = list.args.iter().filter_map(plain).collect();
                of_call(&function.name.to_string(), &arguments, Span::empty()).unwrap()
            }
            Expr::BinaryOp { left, op, right } => of_operator(left, op, right),
            Expr::UnaryOp { op, expr } => of_prefix(*op, expr),
            _ => None,
        };
        found.unwrap_or(expr).to_string()
    }

    #[test]
    fn short_forms_are_written_out() {
        for (sql, expected) in [
            ("date_trunc('day', t)", "date_trunc('day', t)"),
            ("date_trunc('day', t, 'UTC')", "date_trunc_at_zone('day', CAST(t AS TIMESTAMPTZ), 'UTC')"),
            ("make_timestamptz(1, 2, 3, 4, 5, 6, 'UTC')", "instant_at_zone('UTC', make_timestamp(1, 2, 3, 4, 5, 6))"),
            ("date(t)", "CAST(t AS DATE)"),
            ("array_fill(x, ARRAY[2, 3])", "array_filled(x, 2, 3)"),
            ("array_fill(x, ARRAY[2, y], ARRAY[1, 1])", "array_filled(x, 2, y)"),
            ("array_cat(NULL, x)", "x"),
            ("|/ x", "sqrt(x)"),
            ("a ^@ b", "starts_with(a, b)"),
            ("(a, b) OVERLAPS (c, d)", "overlaps(a, b, c, d)"),
        ] {
            assert_eq!(rewritten(sql), expected, "{sql}");
        }
    }
}
