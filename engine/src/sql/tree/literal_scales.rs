//! The digits behind the point of numbers as they are written, which the functions that tell of them see no more: a constant in
//! quotes is no number to them, and a numeric's type, which says how many there are, is the same for all rows.
//!
//! | written | becomes |
//! |---|---|
//! | `scale('1.50')`, `min_scale('1.50')` | `scale(1.50)`, `min_scale(1.50)` |
//! | `trim_scale(1.50)`, `trim_scale('1.50')` | `1.5` |
//! | `trim_scale(100.00)` | `CAST(100 AS numeric(3,0))` |

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, UnaryOperator, Value,
    ValueWithSpan,
};

use crate::Result;
use crate::dml::syntax::cast;
use crate::sql::text::parse::fold;

/// Rewrites the expression itself, not those inside of it.
pub(in crate::sql) fn rewrite(expr: &mut Expr) -> Result<()> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), over: None, .. }) = expr else {
        return Ok(());
    };
    let ([ObjectNamePart::Identifier(name)], [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))]) =
        (name.0.as_slice(), list.args.as_mut_slice())
    else {
        return Ok(());
    };
    let name = fold(name);
    if !matches!(name.as_str(), "scale" | "min_scale" | "trim_scale") {
        return Ok(());
    }
    if let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = argument {
        *argument = match unsigned(text.trim()) {
            Some((sign, digits)) => signed(sign, Expr::value(Value::Number(digits.to_owned(), false))),
            None => cast(argument.clone(), "numeric")?,
        };
    }
    if name == "trim_scale"
        && let Some((sign, digits)) = number_in(argument)
    {
        *expr = signed(sign, trimmed(&digits)?);
    }
    Ok(())
}

/// A number without its sign, if it is one without an exponent.
fn unsigned(text: &str) -> Option<(Option<UnaryOperator>, &str)> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (Some(UnaryOperator::Minus), digits),
        None => (None, text.strip_prefix('+').unwrap_or(text)),
    };
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (plain && digits.parse::<f64>().is_ok()).then_some((sign, digits))
}

fn signed(sign: Option<UnaryOperator>, number: Expr) -> Expr {
    match sign {
        Some(op) => Expr::Nested(Box::new(Expr::UnaryOp { op, expr: Box::new(number) })),
        None => number,
    }
}

/// The sign and digits of a number as it is written.
fn number_in(expr: &Expr) -> Option<(Option<UnaryOperator>, String)> {
    match expr {
        Expr::Nested(inner) => number_in(inner),
        Expr::UnaryOp { op: op @ UnaryOperator::Minus, expr } => match number_in(expr)? {
            (None, digits) => Some((Some(*op), digits)),
            _ => None,
        },
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            unsigned(digits).map(|(sign, digits)| (sign, digits.to_owned()))
        }
        _ => None,
    }
}

fn trimmed(digits: &str) -> Result<Expr> {
    let plain = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    };
    let plain = if plain.is_empty() { "0" } else { plain };
    let number = Expr::value(Value::Number(plain.to_owned(), false));
    match plain.contains('.') {
        true => Ok(number),
        false => cast(number, &format!("numeric({},0)", plain.len().min(38))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    #[test]
    fn constants_are_written_with_the_digits_that_count() {
        for (sql, expected) in [
            ("trim_scale(8.4100)", "8.41"),
            ("trim_scale(-8.4100)", "(-8.41)"),
            ("trim_scale('1.50')", "1.5"),
            ("trim_scale(100.00)", "CAST(100 AS NUMERIC(3,0))"),
            ("trim_scale(.00)", "CAST(0 AS NUMERIC(1,0))"),
            ("trim_scale(a)", "trim_scale(a)"),
            ("scale('-1.50')", "scale((-1.50))"),
            ("min_scale('x')", "min_scale(CAST('x' AS NUMERIC))"),
            ("scale(1.50)", "scale(1.50)"),
        ] {
            let mut expr = parse_expression(sql).unwrap();
            rewrite(&mut expr).unwrap();
            assert_eq!(expr.to_string(), expected, "{sql}");
        }
    }
}
