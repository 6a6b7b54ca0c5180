//! Times of fewer digits than their unit holds, in casts: `timestamp(2)`, `time(3)`.
//!
//! Arrow's units are three digits apart. What has another number of them is held in the next finer unit, and its values are
//! rounded: here where they are cast, and by [`crate::dml::rows`] where they are assigned to a column.
//!
//! | expression | becomes |
//! |---|---|
//! | `CAST(x AS timestamp(2))`, `TIMESTAMP(2) 'x'` | `CAST(round_to_digits(CAST(x AS timestamp), 2) AS timestamp(3))` |
//! | `CAST(x AS timestamp(5))` | `round_to_digits(CAST(x AS timestamp), 5)` |
//! | `CAST(x AS timestamp(8))` | `round_to_digits(CAST(x AS timestamp(9)), 8)` |
//! | `CAST(x AS time(3))` | `round_to_digits(CAST(x AS time), 3)` |
//! | `TIMESTAMP '… 10:00:00.123456789'` for a column of nanoseconds | `TIMESTAMP(9) '…'` |
//!
//! It is rounded once, from microseconds: milliseconds on the way would make 0.0496 a tenth. What comes to the planner
//! without having been here is refused ([`crate::sql::types`]), for nothing there rounds it.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, TypedString, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::dml::syntax::{call_with, null, number};
use crate::functions::time_digits::ROUND_TO_DIGITS;
use crate::sql::types::column_type;

/// The digits of a timestamp without a number of them.
const DEFAULT_DIGITS: usize = 6;

/// Rewrites all casts in a piece of syntax that is not checked as a query is.
pub(crate) fn round_casts<N: VisitMut>(node: &mut N) {
    struct Casts;
    impl VisitorMut for Casts {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            round_cast(expr);
            ControlFlow::Continue(())
        }
    }
    let _ = node.visit(&mut Casts);
}

/// Rewrites the expression itself, not those inside of it.
pub(in crate::sql) fn round_cast(expr: &mut Expr) {
    let (data_type, kind) = match expr {
        Expr::Cast { kind, data_type, array: false, format: None, expr: _ } => (&*data_type, kind.clone()),
        Expr::TypedString(typed) => (&typed.data_type, CastKind::Cast),
        _ => return,
    };
    let Some(Steps { wide, digits, narrow }) = steps(data_type) else { return };
    let value = match std::mem::replace(expr, null()) {
        Expr::Cast { expr: value, .. } => value,
        Expr::TypedString(typed) => Box::new(Expr::Value(typed.value)),
        other => Box::new(other),
    };
    let cast = |expr: Box<Expr>, data_type: SqlType, kind: CastKind| Expr::Cast {
        kind,
        expr,
        data_type,
        array: false,
        format: None,
    };
    let value = cast(value, wide, kind);
    let rounded = call_with(ROUND_TO_DIGITS, vec![value, number(usize::from(digits))], Span::empty());
    *expr = match narrow {
        Some(narrow) => cast(Box::new(rounded), narrow, CastKind::Cast),
        None => rounded,
    };
}

/// The way to a type whose values are rounded.
struct Steps {
    /// What is rounded.
    wide: SqlType,
    digits: u8,
    /// The type that holds it, if it is another one.
    narrow: Option<SqlType>,
}

fn steps(data_type: &SqlType) -> Option<Steps> {
    let is_counted =
        matches!(data_type, SqlType::Timestamp(Some(_), _) | SqlType::Datetime(Some(_)) | SqlType::Time(Some(_), _));
    let digits = is_counted.then(|| column_type(data_type).ok()?.digits)??;
    let wide = (usize::from(digits) > DEFAULT_DIGITS).then_some(9);
    let narrow = (digits < 3).then_some(3);
    Some(match data_type {
        SqlType::Timestamp(_, zone) => Steps {
            wide: SqlType::Timestamp(wide, *zone),
            digits,
            narrow: narrow.map(|narrow| SqlType::Timestamp(Some(narrow), *zone)),
        },
        SqlType::Datetime(_) => Steps {
            wide: SqlType::Datetime(wide),
            digits,
            narrow: narrow.map(|narrow| SqlType::Datetime(Some(narrow))),
        },
        SqlType::Time(_, zone) => Steps { wide: SqlType::Time(wide, *zone), digits, narrow: None },
        _ => return None,
    })
}

/// Reads a constant `TIMESTAMP '…'` that is assigned to a column of nanoseconds with all the digits it has.
pub(crate) fn read_nanoseconds(value: &mut Expr, column: &DataType) {
    if !matches!(column, DataType::Timestamp(TimeUnit::Nanosecond, _)) {
        return;
    }
    match value {
        Expr::Nested(inner) => read_nanoseconds(inner, column),
        Expr::TypedString(TypedString {
            data_type: SqlType::Timestamp(precision @ None, _) | SqlType::Datetime(precision @ None),
            value: ValueWithSpan { value: Value::SingleQuotedString(text), span: _ },
            uses_odbc_syntax: _,
        }) if digits_in(text.as_str()) > DEFAULT_DIGITS => *precision = Some(9),
        _ => {}
    }
}

/// How many digits of a second a text has.
fn digits_in(text: &str) -> usize {
    text.rsplit_once('.').map_or(0, |(_, fraction)| fraction.bytes().take_while(u8::is_ascii_digit).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    #[test]
    fn casts_are_rounded_once() {
        for (written, expected) in [
            ("CAST(x AS timestamp(1))", "CAST(round_to_digits(CAST(x AS TIMESTAMP), 1) AS TIMESTAMP(3))"),
            ("CAST(x AS timestamp(5))", "round_to_digits(CAST(x AS TIMESTAMP), 5)"),
            ("CAST(x AS timestamp(7))", "round_to_digits(CAST(x AS TIMESTAMP(9)), 7)"),
            ("CAST(x AS time(0))", "round_to_digits(CAST(x AS TIME), 0)"),
            ("CAST(x AS timestamp(3))", "CAST(x AS TIMESTAMP(3))"),
            ("CAST(x AS timestamp(10))", "CAST(x AS TIMESTAMP(10))"),
            ("f(CAST(x AS time(6)))", "f(CAST(x AS TIME(6)))"),
            ("1 + CAST(x AS time(2))", "1 + round_to_digits(CAST(x AS TIME), 2)"),
        ] {
            let mut expr = parse_expression(written).unwrap();
            round_casts(&mut expr);
            assert_eq!(expr.to_string(), expected);
            round_casts(&mut expr);
            assert_eq!(expr.to_string(), expected, "twice");
        }
    }

    #[test]
    fn constants_of_nanoseconds_keep_their_digits() {
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        for (written, expected) in [
            ("TIMESTAMP '2020-01-01 10:00:00.123456789'", "TIMESTAMP(9) '2020-01-01 10:00:00.123456789'"),
            ("(TIMESTAMP '2020-01-01 10:00:00.1234567')", "(TIMESTAMP(9) '2020-01-01 10:00:00.1234567')"),
            ("TIMESTAMP '2020-01-01 10:00:00.123456'", "TIMESTAMP '2020-01-01 10:00:00.123456'"),
            ("TIMESTAMP '2020-01-01'", "TIMESTAMP '2020-01-01'"),
            ("TIME '10:00:00.1234567'", "TIME '10:00:00.1234567'"),
        ] {
            let mut expr = parse_expression(written).unwrap();
            read_nanoseconds(&mut expr, &nanoseconds);
            assert_eq!(expr.to_string(), expected);
        }
        let mut expr = parse_expression("TIMESTAMP '2020-01-01 10:00:00.1234567'").unwrap();
        read_nanoseconds(&mut expr, &DataType::Timestamp(TimeUnit::Microsecond, None));
        assert_eq!(expr.to_string(), "TIMESTAMP '2020-01-01 10:00:00.1234567'");
    }
}
