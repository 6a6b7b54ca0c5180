//! From filters to the predicates the store prunes by.
//!
//! The store uses a [`ColumnPredicate`] only to skip what cannot match; the filter itself stays in the plan. So a filter
//! may be translated in part or not at all, but never to something narrower than itself.

use arrow::datatypes::Schema;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{BinaryExpr, InList};
use datafusion::logical_expr::{Between, Expr, Operator};
use rustydb_storage::{ColumnPredicate, CompareOp};

/// The predicates that every row passing `filter` satisfies.
pub(crate) fn prunable(filter: &Expr, schema: &Schema) -> Vec<ColumnPredicate> {
    let mut predicates = Vec::new();
    collect(filter, schema, &mut predicates);
    predicates
}

fn collect(filter: &Expr, schema: &Schema, predicates: &mut Vec<ColumnPredicate>) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            collect(left, schema, predicates);
            collect(right, schema, predicates);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(value, _)) => {
                predicates.extend(compare_op(*op).and_then(|op| predicate(column, op, value, schema)));
            }
            (Expr::Literal(value, _), Expr::Column(column)) => {
                predicates.extend(compare_op(*op).and_then(|op| predicate(column, mirrored(op), value, schema)));
            }
            _ => {}
        },
        Expr::Between(Between { expr, negated: false, low, high }) => {
            if let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                (expr.as_ref(), low.as_ref(), high.as_ref())
            {
                predicates.extend(predicate(column, CompareOp::GtEq, low, schema));
                predicates.extend(predicate(column, CompareOp::LtEq, high, schema));
            }
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            if let Expr::Column(column) = expr.as_ref() {
                collect_range_of_list(column, list, schema, predicates);
            }
        }
        _ => {}
    }
}

/// `c IN (3, 9, 5)` lies within `c >= 3 AND c <= 9`.
fn collect_range_of_list(column: &Column, list: &[Expr], schema: &Schema, predicates: &mut Vec<ColumnPredicate>) {
    let mut range: Option<(&ScalarValue, &ScalarValue)> = None;
    for item in list {
        let Expr::Literal(value, _) = item else { return };
        if value.is_null() {
            continue;
        }
        let Some((low, high)) = range else {
            range = Some((value, value));
            continue;
        };
        let (Some(below), Some(above)) = (value.partial_cmp(low), value.partial_cmp(high)) else { return };
        range = Some((if below.is_lt() { value } else { low }, if above.is_gt() { value } else { high }));
    }
    if let Some((low, high)) = range {
        predicates.extend(predicate(column, CompareOp::GtEq, low, schema));
        predicates.extend(predicate(column, CompareOp::LtEq, high, schema));
    }
}

fn predicate(column: &Column, op: CompareOp, value: &ScalarValue, schema: &Schema) -> Option<ColumnPredicate> {
    let (index, field) = schema.column_with_name(&column.name)?;
    if value.is_null() || value.data_type() != *field.data_type() {
        return None;
    }
    Some(ColumnPredicate { column: index, op, value: value.to_array().ok()? })
}

fn compare_op(op: Operator) -> Option<CompareOp> {
    match op {
        Operator::Eq => Some(CompareOp::Eq),
        Operator::Lt => Some(CompareOp::Lt),
        Operator::LtEq => Some(CompareOp::LtEq),
        Operator::Gt => Some(CompareOp::Gt),
        Operator::GtEq => Some(CompareOp::GtEq),
        _ => None,
    }
}

/// `3 < c` is `c > 3`.
fn mirrored(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Eq => CompareOp::Eq,
        CompareOp::Lt => CompareOp::Gt,
        CompareOp::LtEq => CompareOp::GtEq,
        CompareOp::Gt => CompareOp::Lt,
        CompareOp::GtEq => CompareOp::LtEq,
    }
}

/// How a predicate reads in EXPLAIN.
pub(crate) fn describe(predicate: &ColumnPredicate, schema: &Schema) -> String {
    let op = match predicate.op {
        CompareOp::Eq => "=",
        CompareOp::Lt => "<",
        CompareOp::LtEq => "<=",
        CompareOp::Gt => ">",
        CompareOp::GtEq => ">=",
    };
    let value = match ScalarValue::try_from_array(&predicate.value, 0) {
        Ok(value) => value.to_string(),
        Err(_) => "?".to_owned(),
    };
    format!("{} {op} {value}", schema.field(predicate.column).name())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn pruned(filter: &Expr) -> Vec<String> {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int32, true)]);
        prunable(filter, &schema).iter().map(|predicate| describe(predicate, &schema)).collect()
    }

    #[test]
    fn conjunctions_are_taken_apart_and_literals_may_stand_left() {
        let filter = col("a").gt(lit(5i64)).and(lit(7i32).gt_eq(col("b"))).and(col("a").not_eq(lit(6i64)));
        assert_eq!(pruned(&filter), ["a > 5", "b <= 7"]);
    }

    #[test]
    fn lists_prune_by_their_range() {
        assert_eq!(pruned(&col("a").in_list(vec![lit(3i64), lit(9i64), lit(5i64)], false)), ["a >= 3", "a <= 9"]);
        assert!(pruned(&col("a").in_list(vec![lit(3i64)], true)).is_empty());
    }

    #[test]
    fn what_could_be_narrower_than_the_filter_is_left_out() {
        assert!(pruned(&col("a").eq(lit(1i64)).or(col("b").eq(lit(1i32)))).is_empty());
        assert!(pruned(&col("a").eq(lit(1i32))).is_empty(), "another type than the column's");
        assert!(pruned(&col("a").eq(lit(ScalarValue::Int64(None)))).is_empty());
    }
}
