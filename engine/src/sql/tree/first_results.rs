//! `sum(CASE WHEN … THEN '2' ELSE n END)`: the type of a CASE whose first result is a constant of an open type.
//!
//! [`super::unknown_literals`] gives such constants the type of the other results, but only when a query has been planned;
//! until then DataFusion takes the type of the first result for that of the CASE, and finds no sum of texts. As an argument
//! of functions that no text is good for, such a CASE gets another first result, which is never chosen:
//!
//! ```sql
//! sum(CASE WHEN false THEN n WHEN … THEN '2' ELSE n END)
//! ```

use datafusion::sql::sqlparser::ast::{
    CaseWhen, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, UnaryOperator, Value,
    ValueWithSpan,
};

use crate::dml::syntax::{boolean, null};
use crate::sql::text::parse::fold;

/// Functions of numbers, or of booleans.
const NOT_OF_TEXTS: [&str; 24] = [
    "abs",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "ceil",
    "ceiling",
    "every",
    "floor",
    "mod",
    "power",
    "round",
    "sign",
    "sqrt",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "trunc",
    "var_pop",
    "var_samp",
    "variance",
];

/// Rewrites the arguments of the expression, if it is a call of such a function.
pub(in crate::sql) fn tell_types(expr: &mut Expr) {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => tell_type(expr),
        Expr::Function(function) => {
            let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return };
            if !NOT_OF_TEXTS.contains(&fold(name).as_str()) {
                return;
            }
            let FunctionArguments::List(list) = &mut function.args else { return };
            for argument in &mut list.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument {
                    tell_type(argument);
                }
            }
        }
        _ => {}
    }
}

fn tell_type(expr: &mut Expr) {
    let (operand, conditions, otherwise) = match expr {
        Expr::Nested(inner) => return tell_type(inner),
        Expr::Case { operand, conditions, else_result, .. } => (operand, conditions, else_result),
        _ => return,
    };
    for result in conditions.iter_mut().map(|case| &mut case.result).chain(otherwise.as_deref_mut()) {
        tell_type(result);
    }
    let mut results =
        conditions.iter().map(|case| &case.result).chain(otherwise.as_deref()).filter(|result| !is_null(result));
    if !results.next().is_some_and(is_text) {
        return;
    }
    let Some(known) = results.find(|result| !is_text(result) && !is_query(result)).cloned() else { return };
    // Nothing is equal to NULL.
    let never = if operand.is_some() { null() } else { boolean(false) };
    conditions.insert(0, CaseWhen { condition: never, result: known });
}

fn is_text(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_text(inner),
        other => matches!(other, Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. })),
    }
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_null(inner),
        other => matches!(other, Expr::Value(ValueWithSpan { value: Value::Null, .. })),
    }
}

/// A query would be run once more.
fn is_query(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_query(inner),
        other => matches!(other, Expr::Subquery(_)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    #[test]
    fn the_first_result_has_the_type_of_the_others() {
        for (sql, expected) in [
            ("sum(CASE WHEN a THEN '2' ELSE n END)", "sum(CASE WHEN false THEN n WHEN a THEN '2' ELSE n END)"),
            (
                "avg((CASE a WHEN 1 THEN NULL WHEN 2 THEN '2' ELSE n END))",
                "avg((CASE a WHEN NULL THEN n WHEN 1 THEN NULL WHEN 2 THEN '2' ELSE n END))",
            ),
            ("sum(CASE WHEN a THEN n ELSE '2' END)", "sum(CASE WHEN a THEN n ELSE '2' END)"),
            ("sum(CASE WHEN a THEN NULL ELSE n END)", "sum(CASE WHEN a THEN NULL ELSE n END)"),
            ("sum(CASE WHEN a THEN '2' END)", "sum(CASE WHEN a THEN '2' END)"),
            ("count(CASE WHEN a THEN '2' ELSE n END)", "count(CASE WHEN a THEN '2' ELSE n END)"),
            ("sum(CASE WHEN a THEN '2' ELSE (SELECT 1) END)", "sum(CASE WHEN a THEN '2' ELSE (SELECT 1) END)"),
        ] {
            let mut expr = parse_expression(sql).unwrap();
            tell_types(&mut expr);
            assert_eq!(expr.to_string(), expected);
        }
    }
}
