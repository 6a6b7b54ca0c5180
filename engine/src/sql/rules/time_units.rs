//! `time` and `time(9)` compared with each other: an analyser rule that runs before type coercion, which knows no common
//! type of microseconds and nanoseconds of a day. The coarser side is cast to the finer unit, which has all its values.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

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
