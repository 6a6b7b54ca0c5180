//! Correlated scalar subqueries that aggregate, where the outer row has no partner.
//!
//! `(SELECT count(v) IS NULL FROM b WHERE b.a = a.id)` has one row whatever `b` holds. DataFusion makes a join with `b`
//! grouped by `a`, in which such an outer row finds nothing; it mends that for a `count` by itself and simple expressions
//! over one, but not where the list has no aggregate left, and not where HAVING decides. This analyser rule, which runs
//! after type coercion, takes those apart:
//!
//! ```text
//! (SELECT f(count(v)) FROM b WHERE … HAVING h(max(v)))
//! CASE WHEN h((SELECT max(v) FROM b WHERE …)) THEN f((SELECT count(v) FROM b WHERE …)) END
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, expr::BinaryExpr, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::copies::check_copied_plan;
use super::rewriting::{map_parts, recomputed};

/// The rule.
#[derive(Debug)]
pub(crate) struct EmptyGroups;

impl AnalyzerRule for EmptyGroups {
    fn name(&self) -> &str {
        "empty_groups"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        // Once a column may be NULL, all that is above must know.
        let mut changed = false;
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let node = map_parts(node, |part| match part {
                Expr::ScalarSubquery(subquery) => take_apart(subquery),
                part => Ok(Transformed::no(part)),
            })?;
            recomputed(node, &mut changed)
        });
        rewritten.map(|plan| plan.data)
    }
}

fn take_apart(subquery: Subquery) -> DataFusionResult<Transformed<Expr>> {
    let kept = |subquery| Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
    if subquery.outer_ref_columns.is_empty() {
        return kept(subquery);
    }
    let mut plan = subquery.subquery.as_ref();
    let LogicalPlan::Projection(projection) = plan else { return kept(subquery) };
    let [value] = projection.expr.as_slice() else { return kept(subquery) };
    plan = projection.input.as_ref();
    let mut condition = None;
    if let LogicalPlan::Filter(filter) = plan {
        condition = Some(filter.predicate.clone());
        plan = filter.input.as_ref();
    }
    let LogicalPlan::Aggregate(aggregate) = plan else { return kept(subquery) };
    if !aggregate.group_expr.is_empty() || (condition.is_none() && !asks_for_null(value)?) {
        return kept(subquery);
    }
    let value = value.clone().unalias();
    if columns_in(&value)? + condition.as_ref().map_or(Ok(0), columns_in)? > 1 {
        check_copied_plan(&aggregate.input, true)?;
    }
    let value = outside(value, aggregate, &subquery)?;
    let whole = match condition {
        None => value,
        Some(condition) => when(outside(condition, aggregate, &subquery)?, value).end()?,
    };
    Ok(Transformed::yes(whole))
}

/// Whether a NULL in it makes something else, which the optimiser may know beforehand.
fn asks_for_null(value: &Expr) -> DataFusionResult<bool> {
    value.exists(|part| {
        Ok(matches!(
            part,
            Expr::IsNull(_)
                | Expr::IsNotNull(_)
                | Expr::BinaryExpr(BinaryExpr { op: Operator::IsDistinctFrom | Operator::IsNotDistinctFrom, .. })
        ))
    })
}

/// In how many places an expression over aggregates names one.
fn columns_in(expr: &Expr) -> DataFusionResult<usize> {
    let mut columns = 0;
    expr.apply(|part| {
        columns += usize::from(matches!(part, Expr::Column(_)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(columns)
}

/// An expression over aggregates as the outer query says it: each of them is a subquery of its own.
fn outside(expr: Expr, aggregate: &Aggregate, subquery: &Subquery) -> DataFusionResult<Expr> {
    let moved = expr.transform_down(|part| match part {
        Expr::Column(column) => {
            let Some(place) = aggregate.schema.maybe_index_of_column(&column) else {
                return internal_err!("{column} is no aggregate");
            };
            let Some(computed) = aggregate.aggr_expr.get(place) else {
                return internal_err!("{column} is no aggregate");
            };
            let plan = LogicalPlanBuilder::from(Arc::clone(&aggregate.input))
                .aggregate(Vec::<Expr>::new(), vec![computed.clone()])?
                .project([Expr::Column(Column::from(aggregate.schema.qualified_field(place)))])?
                .build()?;
            let whole = Subquery {
                subquery: Arc::new(plan),
                outer_ref_columns: aggregate.input.all_out_ref_exprs(),
                spans: subquery.spans.clone(),
            };
            Ok(Transformed::new(Expr::ScalarSubquery(whole), true, TreeNodeRecursion::Jump))
        }
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        part => Ok(Transformed::no(part)),
    })?;
    Ok(moved.data)
}
