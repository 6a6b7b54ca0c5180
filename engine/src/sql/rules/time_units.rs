//! `time` and `time(9)` compared with each other: an analyser rule that runs before type coercion, which knows no common
//! type of microseconds and nanoseconds of a day. The coarser side is cast to the finer unit, which has all its values.
//!
//! Of what stands in a SELECT list the type is asked for when it is planned, before any rule: there the planner of operators
//! calls [`in_one_unit`].

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList};
use datafusion::logical_expr::planner::RawBinaryExpr;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::rewriting::{any_node, any_part, map_parts};

const FINE: DataType = DataType::Time64(TimeUnit::Nanosecond);

/// The rule.
#[derive(Debug)]
pub(crate) struct TimeUnits;

impl AnalyzerRule for TimeUnits {
    fn name(&self) -> &str {
        "time_units"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        if !mentions_fine_times(&plan)? {
            return Ok(plan);
        }
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            map_parts(node, |part| unify(part, &schema))
        });
        rewritten.map(|plan| plan.data)
    }
}

/// The time that different times are; `None` if they are all of one unit, or not all of them times.
pub(super) fn finest<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    let (mut has_coarse, mut has_fine) = (false, false);
    for data_type in types {
        match data_type {
            DataType::Null => {}
            time if *time == FINE => has_fine = true,
            time if is_time(time) => has_coarse = true,
            _ => return None,
        }
    }
    (has_coarse && has_fine).then_some(FINE)
}

/// A comparison of times as it is planned, with its sides in one unit.
pub(super) fn in_one_unit(expr: RawBinaryExpr, schema: &DFSchema) -> DataFusionResult<RawBinaryExpr> {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    let RawBinaryExpr { op, left, right } = expr;
    // A side without a type yet is a parameter, which takes the other's.
    if matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
        && let (Ok(left_type), Ok(right_type)) = (left.get_type(schema), right.get_type(schema))
        && finest([&left_type, &right_type]).is_some()
    {
        return Ok(RawBinaryExpr { op, left: fine(left, schema)?, right: fine(right, schema)? });
    }
    Ok(RawBinaryExpr { op, left, right })
}

/// Most plans have none.
fn mentions_fine_times(plan: &LogicalPlan) -> DataFusionResult<bool> {
    any_node(plan, |node| {
        let shows_some = node.schema().fields().iter().any(|field| *field.data_type() == FINE);
        let makes_some = |part: &Expr| matches!(part, Expr::Cast(cast) if *cast.field.data_type() == FINE);
        Ok(shows_some || any_part(node, makes_some)?)
    })
}

fn unify(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let is_mixed = |parts: &[&Expr]| -> DataFusionResult<bool> {
        let types = parts.iter().map(|part| part.get_type(schema)).collect::<DataFusionResult<Vec<_>>>()?;
        Ok(types.contains(&FINE) && types.iter().all(is_time) && types.iter().any(|kind| *kind != FINE))
    };
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if is_comparison(op) && is_mixed(&[left.as_ref(), right.as_ref()])? =>
        {
            let (left, right) = (Box::new(fine(*left, schema)?), Box::new(fine(*right, schema)?));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high })
            if is_mixed(&[expr.as_ref(), low.as_ref(), high.as_ref()])? =>
        {
            let (low, high) = (Box::new(fine(*low, schema)?), Box::new(fine(*high, schema)?));
            Transformed::yes(Expr::Between(Between { expr: Box::new(fine(*expr, schema)?), negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated })
            if is_mixed(&std::iter::once(expr.as_ref()).chain(&list).collect::<Vec<_>>())? =>
        {
            let list = list.into_iter().map(|item| fine(item, schema)).collect::<DataFusionResult<_>>()?;
            Transformed::yes(Expr::InList(InList { expr: Box::new(fine(*expr, schema)?), list, negated }))
        }
        other => Transformed::no(other),
    })
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Time64(_) | DataType::Time32(_))
}

fn fine(expr: Expr, schema: &DFSchema) -> DataFusionResult<Expr> {
    Ok(match expr.get_type(schema)? == FINE {
        true => expr,
        false => Expr::Cast(Cast::new(Box::new(expr), FINE)),
    })
}
