//! Rows that are compared: `(a, b) = (1, 2)`, `(a, b) < ROW(1, 2)`, `(a, b) IN (SELECT …)`.
//!
//! A row is equal, unequal or unknown by its parts, in three-valued logic; ordered by the first part in which it differs.
//! DataFusion compares structs instead, to which NULL is a value like any other. So a comparison is taken apart before it
//! is planned, which also shows an index or a join what is compared:
//!
//! | written | planned |
//! |---|---|
//! | `(a, b) = (c, d)` | `a = c AND b = d` |
//! | `(a, b) <> (c, d)` | `a <> c OR b <> d` |
//! | `(a, b) < (c, d)` | `a < c OR (a = c AND b < d)` |
//! | `(a, b) IN ((c, d), (e, f))` | `(a = c AND b = d) OR (a = e AND b = f)` |
//! | `(a, b) IN (SELECT …)` as a condition | `EXISTS (SELECT 1 FROM (SELECT …) AS s (x, y) WHERE a = x AND b = y)` |
//! | `(a, b) NOT IN (SELECT …)` as a condition | `NOT EXISTS (… WHERE (a = x AND b = y) IS NOT FALSE)` |
//! | `(a, b) IN (SELECT …)` elsewhere | a CASE that tells whether it is true, unknown or false |

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectNamePart, Query,
    SelectItem, Spanned, TableAliasColumnDef, TableFactor, UnaryOperator,
};

use super::copies::Copies;
use crate::dml::modify::nth_column;
use crate::dml::syntax::{alone, boolean, cases, column, derived, null, number, quoted, select};
use crate::sql::text::parse::{fold, place};
use crate::{Error, Result};

/// What the rows of a subquery are called while a row is looked for among them.
const ROWS: &str = "rows compared with";

/// Takes a comparison of rows apart, if `expr` is one.
pub(in crate::sql) fn compare_parts(expr: &mut Expr, copies: &mut Copies) -> Result<()> {
    if let Some(compared) = compared(expr, copies)? {
        *expr = Expr::Nested(Box::new(compared));
    }
    Ok(())
}

/// The same for the parts of a condition that must be true: where a row is looked for among those of a subquery, false and
/// unknown need not be told apart.
pub(in crate::sql) fn compare_conditions(condition: &mut Expr) -> Result<()> {
    match condition {
        Expr::Nested(inner) => compare_conditions(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            compare_conditions(left)?;
            compare_conditions(right)
        }
        Expr::InSubquery { expr, subquery, negated } => {
            let Some(row) = parts(expr) else { return Ok(()) };
            let found = match negated {
                false => exists(subquery, &row, |equal| equal, false)?,
                true => exists(subquery, &row, |equal| Expr::IsNotFalse(nested(equal)), true)?,
            };
            *condition = found;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn compared(expr: &Expr, copies: &mut Copies) -> Result<Option<Expr>> {
    Ok(match expr {
        Expr::BinaryOp { left, op, right } if is_comparison(op) => match (parts(left), parts(right)) {
            (Some(left), Some(right)) => Some(compare(left, op, right, copies)?),
            (Some(left), None) => match subquery_parts(right, left.len(), copies)? {
                Some(right) => Some(compare(left, op, right, copies)?),
                None => None,
            },
            (None, Some(right)) => match subquery_parts(left, right.len(), copies)? {
                Some(left) => Some(compare(left, op, right, copies)?),
                None => None,
            },
            (None, None) => None,
        },
        Expr::IsDistinctFrom(left, right) => match (parts(left), parts(right)) {
            (Some(left), Some(right)) => Some(distinct(left, right, true)?),
            _ => None,
        },
        Expr::IsNotDistinctFrom(left, right) => match (parts(left), parts(right)) {
            (Some(left), Some(right)) => Some(distinct(left, right, false)?),
            _ => None,
        },
        Expr::IsNull(row) => parts(row).map(|row| all(row.into_iter().map(|part| Expr::IsNull(nested(part))))),
        Expr::IsNotNull(row) => parts(row).map(|row| all(row.into_iter().map(|part| Expr::IsNotNull(nested(part))))),
        Expr::Between { expr, negated, low, high } => match (parts(expr), parts(low), parts(high)) {
            (Some(row), Some(low), Some(high)) => {
                copies.take_as_postgresql_does(&row, 1)?;
                let above = compare(row.clone(), &BinaryOperator::GtEq, low, copies)?;
                let below = compare(row, &BinaryOperator::LtEq, high, copies)?;
                Some(negated_if(*negated, and(above, below)))
            }
            _ => None,
        },
        Expr::InList { expr, list, negated } => match parts(expr) {
            Some(row) => {
                for part in &row {
                    copies.take_as_postgresql_does(part, list.len().saturating_sub(1))?;
                }
                let equal = |other: &Expr| match parts(other) {
                    Some(other) => compare(row.clone(), &BinaryOperator::Eq, other, copies),
                    None => Err(unequal(other)),
                };
                let choices = list.iter().map(equal).collect::<Result<Vec<_>>>()?;
                Some(negated_if(*negated, any(choices.into_iter())))
            }
            None => None,
        },
        Expr::InSubquery { expr, subquery, negated } => match parts(expr) {
            Some(row) => {
                copies.take(expr, 1)?;
                copies.take(subquery, 1)?;
                let is_there = exists(subquery, &row, |equal| equal, false)?;
                let may_be_there = exists(subquery, &row, |equal| Expr::IsNull(nested(equal)), false)?;
                let found = cases(vec![(is_there, boolean(true)), (may_be_there, null())], boolean(false));
                Some(negated_if(*negated, found))
            }
            None => None,
        },
        _ => None,
    })
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// The parts of a row, if the expression is written as one.
fn parts(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(parts) => Some(parts.clone()),
        Expr::Nested(inner) => parts(inner),
        Expr::Function(function) => row_arguments(function),
        _ => None,
    }
}

/// The arguments of `ROW(…)`.
fn row_arguments(function: &Function) -> Option<Vec<Expr>> {
    let ([ObjectNamePart::Identifier(name)], FunctionArguments::List(list)) =
        (function.name.0.as_slice(), &function.args)
    else {
        return None;
    };
    if name.quote_style.is_some() || fold(name) != "row" {
        return None;
    }
    let value = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    };
    list.args.iter().map(value).collect()
}

/// The columns of a subquery that stands for a row.
fn subquery_parts(expr: &Expr, columns: usize, copies: &mut Copies) -> Result<Option<Vec<Expr>>> {
    match expr {
        Expr::Nested(inner) => subquery_parts(inner, columns, copies),
        Expr::Subquery(query) => {
            copies.take(query, columns.saturating_sub(1))?;
            let columns = (0..columns).map(|index| nth_column(query, index, columns)).collect::<Result<_>>();
            columns.map(Some).map_err(|error| error.at(place(expr.span())))
        }
        _ => Ok(None),
    }
}

fn unequal(at: &Expr) -> Error {
    Error::syntax("unequal number of entries in row expressions").at(place(at.span()))
}

fn pairs(left: Vec<Expr>, right: Vec<Expr>) -> Result<Vec<(Expr, Expr)>> {
    if left.len() != right.len() || left.is_empty() {
        return Err(match left.first().or(right.first()) {
            Some(part) => unequal(part),
            None => Error::unsupported("comparing rows of zero length"),
        });
    }
    Ok(left.into_iter().zip(right).collect())
}

fn compare(left: Vec<Expr>, op: &BinaryOperator, right: Vec<Expr>, copies: &mut Copies) -> Result<Expr> {
    let pairs = pairs(left, right)?;
    let each = |op: BinaryOperator| pairs.iter().map(move |(left, right)| binary(left, &op, right));
    Ok(match op {
        BinaryOperator::Eq => all(each(BinaryOperator::Eq)),
        BinaryOperator::NotEq => any(each(BinaryOperator::NotEq)),
        order => ordered(&pairs, order, copies)?,
    })
}

/// The first pair that differs decides, and the last one if none does. Halved, so that long rows do not get deep.
fn ordered(pairs: &[(Expr, Expr)], op: &BinaryOperator, copies: &mut Copies) -> Result<Expr> {
    if let [(left, right)] = pairs {
        return Ok(binary(left, op, right));
    }
    let strict = match op {
        BinaryOperator::LtEq => &BinaryOperator::Lt,
        BinaryOperator::GtEq => &BinaryOperator::Gt,
        strict => strict,
    };
    let (first, rest) = pairs.split_at(pairs.len() / 2);
    for (left, right) in first {
        copies.take(left, 1)?;
        copies.take(right, 1)?;
    }
    let equal = all(first.iter().map(|(left, right)| binary(left, &BinaryOperator::Eq, right)));
    Ok(or(ordered(first, strict, copies)?, and(equal, ordered(rest, op, copies)?)))
}

fn distinct(left: Vec<Expr>, right: Vec<Expr>, is_distinct: bool) -> Result<Expr> {
    let pairs = pairs(left, right)?.into_iter();
    Ok(match is_distinct {
        true => any(pairs.map(|(left, right)| Expr::IsDistinctFrom(nested(left), nested(right)))),
        false => all(pairs.map(|(left, right)| Expr::IsNotDistinctFrom(nested(left), nested(right)))),
    })
}

/// Whether a subquery has a row whose equality with `row`, seen through `condition`, is true.
fn exists(subquery: &Query, row: &[Expr], condition: impl Fn(Expr) -> Expr, negated: bool) -> Result<Expr> {
    let alias = quoted(ROWS);
    let names: Vec<Ident> = (0..row.len()).map(|place| quoted(&format!("part {place}"))).collect();
    let mut relation = derived(subquery.clone(), alias.clone());
    if let TableFactor::Derived { alias: Some(alias), .. } = &mut relation {
        alias.columns = names.iter().map(|name| TableAliasColumnDef { name: name.clone(), data_type: None }).collect();
    }
    let theirs = names.iter().map(|name| column(&alias, &name.value)).collect();
    let pairs = pairs(row.to_vec(), theirs)?;
    let condition = condition(all(pairs.iter().map(|(left, right)| binary(left, &BinaryOperator::Eq, right))));
    let query = select(None, vec![SelectItem::UnnamedExpr(number(1))], vec![alone(relation)], Some(condition));
    Ok(Expr::Exists { subquery: Box::new(query), negated })
}

fn negated_if(negated: bool, expr: Expr) -> Expr {
    match negated {
        true => Expr::UnaryOp { op: UnaryOperator::Not, expr: nested(expr) },
        false => expr,
    }
}

fn nested(expr: Expr) -> Box<Expr> {
    Box::new(Expr::Nested(Box::new(expr)))
}

fn binary(left: &Expr, op: &BinaryOperator, right: &Expr) -> Expr {
    Expr::BinaryOp { left: nested(left.clone()), op: op.clone(), right: nested(right.clone()) }
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: nested(left), op: BinaryOperator::And, right: nested(right) }
}

fn or(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: nested(left), op: BinaryOperator::Or, right: nested(right) }
}

/// All of at least one, as a balanced tree: a chain of thousands would be as deep.
fn all(conditions: impl Iterator<Item = Expr>) -> Expr {
    balanced(conditions.collect(), and, true)
}

/// Any of at least one.
fn any(conditions: impl Iterator<Item = Expr>) -> Expr {
    balanced(conditions.collect(), or, false)
}

fn balanced(mut conditions: Vec<Expr>, join: fn(Expr, Expr) -> Expr, of_none: bool) -> Expr {
    match conditions.len() {
        0 => boolean(of_none),
        1 => conditions.swap_remove(0),
        length => {
            let rest = conditions.split_off(length / 2);
            join(balanced(conditions, join, of_none), balanced(rest, join, of_none))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    fn rewritten(text: &str) -> String {
        let mut expr = parse_expression(text).unwrap();
        compare_parts(&mut expr, &mut Copies::default()).unwrap();
        expr.to_string().replace(['(', ')'], "")
    }

    #[test]
    fn comparisons_are_taken_apart() {
        for (written, planned) in [
            ("(a, b) = (1, 2)", "a = 1 AND b = 2"),
            ("ROW(a, b) <> (1, 2)", "a <> 1 OR b <> 2"),
            ("(a, b) <= (1, 2)", "a < 1 OR a = 1 AND b <= 2"),
            ("(a, b) IN ((1, 2), (3, 4))", "a = 1 AND b = 2 OR a = 3 AND b = 4"),
            ("(a, b) IS NULL", "a IS NULL AND b IS NULL"),
            ("(a, b) IS DISTINCT FROM (1, 2)", "a IS DISTINCT FROM 1 OR b IS DISTINCT FROM 2"),
            ("a = (1)", "a = 1"),
        ] {
            assert_eq!(rewritten(written), planned, "{written}");
        }
    }

    #[test]
    fn what_is_compared_twice_is_the_same_both_times() {
        let compared = |text: &str| compare_parts(&mut parse_expression(text).unwrap(), &mut Copies::default());
        for twice in ["(random(), a) < (1, 2)", "(a, b) >= (SELECT 1, random())"] {
            assert_eq!(compared(twice).unwrap_err().sqlstate(), "54001", "{twice}");
        }
        // PostgreSQL computes the last one twice as well.
        for allowed in ["(a, random()) < (1, 2)", "(random(), a) = (1, 2)", "(random(), a) IN ((1, 2), (3, 4))"] {
            assert!(compared(allowed).is_ok(), "{allowed}");
        }
    }

    #[test]
    fn rows_of_different_lengths_are_refused_where_they_are() {
        for text in ["(a, b) = (1, 2, 3)", "(a, b) IN ((1, 2), (3, 4, 5))", "(a, b) IN (1)"] {
            let mut expr = parse_expression(text).unwrap();
            let error = compare_parts(&mut expr, &mut Copies::default()).unwrap_err();
            assert_eq!(error.sqlstate(), "42601", "{text}");
            assert!(error.position().is_some(), "{text}");
        }
    }
}
