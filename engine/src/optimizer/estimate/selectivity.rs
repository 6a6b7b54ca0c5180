//! The share of rows a predicate lets through.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::utils::split_conjunction;

use super::operators::number;
use super::{ColumnEstimate, Estimate};

/// `a < b` about which nothing is known.
const UNKNOWN_RANGE: f64 = 1.0 / 3.0;
/// `a = b` about which nothing is known.
const UNKNOWN_EQUALITY: f64 = 0.1;
/// A comparison of two columns: dates of one row usually stand in some order.
const COLUMN_COMPARISON: f64 = 0.5;
/// `LIKE 'prefix%'`.
const PREFIX_MATCH: f64 = 0.05;
/// `LIKE '%word%'`.
const SUBSTRING_MATCH: f64 = 0.1;
/// Anything else.
const UNKNOWN: f64 = 0.25;
/// No predicate is taken to reject everything: the estimate may be wrong, and zero rows would hide all other costs.
const LEAST: f64 = 1e-7;

/// The share of `input`'s rows for which `predicate` is true, between 0 and 1.
pub(crate) fn selectivity(predicate: &Arc<dyn PhysicalExpr>, input: &Estimate) -> f64 {
    let mut ranges: HashMap<usize, Interval> = HashMap::new();
    let mut share = 1.0;
    for conjunct in split_conjunction(predicate) {
        match range_of(conjunct, input) {
            Some((column, range)) => {
                ranges.entry(column).and_modify(|known| *known = known.intersected(range)).or_insert(range);
            }
            None => share *= of_conjunct(conjunct, input),
        }
    }
    for (column, range) in ranges {
        share *= range.share(input.column(column));
    }
    share.clamp(LEAST, 1.0)
}

/// A range of a column's values.
#[derive(Debug, Clone, Copy)]
struct Interval {
    low: f64,
    high: f64,
}

impl Interval {
    fn intersected(self, other: Interval) -> Interval {
        Interval { low: self.low.max(other.low), high: self.high.min(other.high) }
    }

    fn share(self, column: ColumnEstimate) -> f64 {
        let Some((least, most)) = column.range else { return UNKNOWN_RANGE };
        let (low, high) = (self.low.max(least), self.high.min(most));
        if low > high {
            return LEAST;
        }
        let width = most - least;
        if width <= 0.0 {
            return 1.0 - column.nulls;
        }
        // A range holds at least one value's worth of rows.
        ((high - low) / width).max(1.0 / column.distinct).min(1.0) * (1.0 - column.nulls)
    }
}

/// `column < 5` and its like, on columns whose bounds are known.
fn range_of(expr: &Arc<dyn PhysicalExpr>, input: &Estimate) -> Option<(usize, Interval)> {
    let comparison = expr.downcast_ref::<BinaryExpr>()?;
    let (column, op, value) = match (column_of(comparison.left()), literal_of(comparison.right())) {
        (Some(column), Some(value)) => (column, *comparison.op(), value),
        _ => (column_of(comparison.right())?, comparison.op().swap()?, literal_of(comparison.left())?),
    };
    input.column(column).range?;
    let value = number(value)?;
    let range = match op {
        Operator::Lt | Operator::LtEq => Interval { low: f64::NEG_INFINITY, high: value },
        Operator::Gt | Operator::GtEq => Interval { low: value, high: f64::INFINITY },
        _ => return None,
    };
    Some((column, range))
}

fn of_conjunct(expr: &Arc<dyn PhysicalExpr>, input: &Estimate) -> f64 {
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return if matches!(literal.value(), ScalarValue::Boolean(Some(true))) { 1.0 } else { LEAST };
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return 1.0 - selectivity(not.arg(), input);
    }
    if let Some(is_null) = expr.downcast_ref::<IsNullExpr>() {
        return column_of(is_null.arg()).map_or(UNKNOWN_EQUALITY, |column| input.column(column).nulls);
    }
    if let Some(is_not_null) = expr.downcast_ref::<IsNotNullExpr>() {
        return 1.0 - column_of(is_not_null.arg()).map_or(UNKNOWN_EQUALITY, |column| input.column(column).nulls);
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        let one = column_of(list.expr()).map_or(UNKNOWN_EQUALITY, |column| 1.0 / input.column(column).distinct);
        let any = (one * list.len() as f64).min(1.0);
        return if list.negated() { 1.0 - any } else { any };
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let matching = of_pattern(like, input);
        return if like.negated() { 1.0 - matching } else { matching };
    }
    match expr.downcast_ref::<BinaryExpr>() {
        Some(binary) => of_binary(binary, input),
        None => UNKNOWN,
    }
}

fn of_binary(binary: &BinaryExpr, input: &Estimate) -> f64 {
    let (left, right) = (binary.left(), binary.right());
    match binary.op() {
        Operator::And => selectivity(left, input) * selectivity(right, input),
        Operator::Or => {
            let (left, right) = (selectivity(left, input), selectivity(right, input));
            left + right - left * right
        }
        Operator::Eq | Operator::IsNotDistinctFrom => equality(left, right, input),
        Operator::NotEq | Operator::IsDistinctFrom => 1.0 - equality(left, right, input),
        Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => match (column_of(left), column_of(right)) {
            (Some(_), Some(_)) => COLUMN_COMPARISON,
            _ => UNKNOWN_RANGE,
        },
        _ => UNKNOWN,
    }
}

fn equality(left: &Arc<dyn PhysicalExpr>, right: &Arc<dyn PhysicalExpr>, input: &Estimate) -> f64 {
    let distinct = |expr| column_of(expr).map(|column| input.column(column).distinct);
    match (distinct(left), distinct(right)) {
        (Some(left), Some(right)) => 1.0 / left.max(right),
        (Some(one), None) | (None, Some(one)) => 1.0 / one,
        (None, None) => UNKNOWN_EQUALITY,
    }
}

fn of_pattern(like: &LikeExpr, input: &Estimate) -> f64 {
    let Some(ScalarValue::Utf8(Some(pattern)) | ScalarValue::Utf8View(Some(pattern))) = literal_of(like.pattern())
    else {
        return SUBSTRING_MATCH;
    };
    match pattern.find(['%', '_']) {
        None => column_of(like.expr()).map_or(UNKNOWN_EQUALITY, |column| 1.0 / input.column(column).distinct),
        Some(0) => SUBSTRING_MATCH,
        Some(_) => PREFIX_MATCH,
    }
}

/// The column an expression is, seen through casts.
fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    match expr.downcast_ref::<CastExpr>() {
        Some(cast) => column_of(cast.expr()),
        None => expr.downcast_ref::<Column>().map(Column::index),
    }
}

fn literal_of(expr: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value)
}
