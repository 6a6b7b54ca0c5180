//! Fields of rows as they are written: `(ROW(1, 'x')).f2` is `'x'`, which takes no row to be made.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Value,
};

use crate::sql::text::parse::fold;

/// Rewrites the expression itself, not those inside of it.
pub(in crate::sql) fn rewrite(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return };
    let Some(AccessExpr::Dot(Expr::Identifier(field))) = access_chain.first() else { return };
    let Some(place) = fold(field).strip_prefix('f').and_then(|number| number.parse::<usize>().ok()) else { return };
    let Some(value) = place.checked_sub(1).and_then(|place| value_of(root, place)) else { return };
    let value = Box::new(Expr::Nested(Box::new(std::mem::replace(value, Expr::value(Value::Null)))));
    access_chain.remove(0);
    *expr = match access_chain.is_empty() {
        true => *value,
        false => Expr::CompoundFieldAccess { root: value, access_chain: std::mem::take(access_chain) },
    };
    // The value may be a row, too.
    rewrite(expr);
}

/// A value of a row, by its place.
fn value_of(row: &mut Expr, place: usize) -> Option<&mut Expr> {
    match row {
        Expr::Nested(inner) => value_of(inner, place),
        Expr::Tuple(values) => values.get_mut(place),
        Expr::Function(function) => {
            let is_row = match function.name.0.as_slice() {
                [ObjectNamePart::Identifier(name)] => fold(name) == "row",
                _ => false,
            };
            match &mut function.args {
                FunctionArguments::List(list) if is_row => match list.args.get_mut(place)? {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value),
                    _ => None,
                },
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    #[test]
    fn fields_of_rows_are_their_values() {
        for (sql, expected) in [
            ("(ROW(1, a + 2)).f2", "(a + 2)"),
            ("((1, 2)).f1", "(1)"),
            ("(ROW(1, ROW(2, 3))).f2.f1", "(2)"),
            ("(ROW(1, 2)).f3", "(ROW(1, 2)).f3"),
            ("(ROW(1, 2)).g", "(ROW(1, 2)).g"),
        ] {
            let mut expr = parse_expression(sql).unwrap();
            rewrite(&mut expr);
            assert_eq!(expr.to_string(), expected, "{sql}");
        }
    }
}
