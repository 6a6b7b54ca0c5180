//! Constants in the first term of WITH RECURSIVE: `SELECT 1.5 AS n UNION ALL SELECT n * 2 FROM r`.
//!
//! The first term decides the types of the columns. `1.5` is a numeric of any number of digits to PostgreSQL, and one of two
//! digits to DataFusion: 12.0 would be out of range. So such constants are cast to the widest numeric, with as many digits
//! behind the point as the constants of the other term have; where that divides, or multiplies by more than whole numbers,
//! with those of a `numeric` without parameters.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, SelectItem, SetExpr, SetOperator, UnaryOperator, Value, ValueWithSpan, Visit, Visitor, With,
};

use crate::Result;
use crate::dml::syntax::cast;

/// The digits of the widest numeric.
pub(super) const DIGITS: usize = 38;

/// The digits behind the point of a `numeric` without parameters.
const FRACTION: usize = 10;

/// Widens the constants of all first terms.
pub(in crate::sql) fn widen_first_terms(with: &mut With) -> Result<()> {
    if !with.recursive {
        return Ok(());
    }
    for cte in &mut with.cte_tables {
        let has_names = !cte.alias.columns.is_empty();
        if let SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } = cte.query.body.as_mut() {
            let fraction = fraction_in(right);
            widen(left, fraction, has_names)?;
        }
    }
    Ok(())
}

fn widen(term: &mut SetExpr, fraction: usize, has_names: bool) -> Result<()> {
    match term {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                match item {
                    SelectItem::ExprWithAlias { expr, .. } => widen_constant(expr, fraction)?,
                    // A cast would give the column another name.
                    SelectItem::UnnamedExpr(expr) if has_names => widen_constant(expr, fraction)?,
                    _ => {}
                }
            }
            Ok(())
        }
        SetExpr::Values(values) => {
            for row in &mut values.rows {
                for value in &mut row.content {
                    widen_constant(value, fraction)?;
                }
            }
            Ok(())
        }
        SetExpr::Query(query) => widen(&mut query.body, fraction, has_names),
        SetExpr::SetOperation { left, right, .. } => {
            widen(left, fraction, has_names)?;
            widen(right, fraction, has_names)
        }
        _ => Ok(()),
    }
}

fn widen_constant(expr: &mut Expr, fraction: usize) -> Result<()> {
    let Some(own) = fraction_of(expr) else { return Ok(()) };
    let fraction = fraction.max(own);
    if fraction < DIGITS {
        let constant = std::mem::replace(expr, Expr::value(Value::Null));
        *expr = cast(constant, &format!("numeric({DIGITS}, {fraction})"))?;
    }
    Ok(())
}

/// How many digits a constant has behind the point, if it has one.
fn fraction_of(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Nested(inner) => fraction_of(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr: inner } => fraction_of(inner),
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            digits.split_once('.').map(|(_, fraction)| fraction.len())
        }
        _ => None,
    }
}

fn is_whole_number(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => is_whole_number(inner),
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => !digits.contains('.'),
        _ => false,
    }
}

/// How many digits behind the point the values of a term need.
pub(super) fn fraction_in(term: &SetExpr) -> usize {
    struct Widest(usize);
    impl Visitor for Widest {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let needed = match expr {
                Expr::BinaryOp { op: BinaryOperator::Divide, .. } => FRACTION,
                Expr::BinaryOp { left, op: BinaryOperator::Multiply, right }
                    if !is_whole_number(left) && !is_whole_number(right) =>
                {
                    FRACTION
                }
                constant => fraction_of(constant).unwrap_or(0),
            };
            self.0 = self.0.max(needed);
            ControlFlow::Continue(())
        }
    }
    let mut widest = Widest(0);
    let _ = term.visit(&mut widest);
    widest.0
}
