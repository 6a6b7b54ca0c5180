//! Subqueries in the condition of an outer join.
//!
//! ```text
//!   a LEFT JOIN b ON a.x = b.x AND a.y IN (SELECT …)
//!     ⇒  (Apply a, IN … as "tested") LEFT JOIN b ON a.x = b.x AND "tested"      without the column "tested"
//! ```
//! DataFusion makes joins of subqueries in WHERE only, and the condition of an outer join is none: its rows stay where it is
//! false. But what such a subquery gives depends on one side in most cases, and is then a column of that side. One that
//! depends on both stays, and is refused later.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder};

use super::rule::apply;
use super::scope::{Outside, subquery_of};

/// The join with the subqueries of its condition computed below its sides; the join itself if there are none.
pub(super) fn apply_below(join: Join) -> Result<Transformed<LogicalPlan>> {
    let (JoinType::Left | JoinType::Right | JoinType::Full, Some(filter)) = (join.join_type, &join.filter) else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    let (mut left, mut right) = (join.left.as_ref().clone(), join.right.as_ref().clone());
    let mut applied: Vec<(Expr, Column)> = Vec::new();
    filter.apply(|expr| {
        let Some(needed) = needed_columns(expr)? else { return Ok(TreeNodeRecursion::Continue) };
        if applied.iter().any(|(known, _)| known == expr) {
            return Ok(TreeNodeRecursion::Jump);
        }
        let is_of = |side: &LogicalPlan| needed.iter().all(|column| side.schema().has_column(column));
        let side = if is_of(&join.left) {
            &mut left
        } else if is_of(&join.right) {
            &mut right
        } else {
            return Ok(TreeNodeRecursion::Jump);
        };
        if let Some((plan, column)) = apply(expr, side.clone())? {
            *side = plan;
            applied.push((expr.clone(), column));
        }
        Ok(TreeNodeRecursion::Jump)
    })?;
    if applied.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let columns: Vec<Expr> = join.schema.columns().into_iter().map(Expr::Column).collect();
    let filter = filter.clone().transform_down(|expr| match applied.iter().find(|(known, _)| *known == expr) {
        Some((_, column)) => Ok(Transformed::new(Expr::Column(column.clone()), true, TreeNodeRecursion::Jump)),
        None => Ok(Transformed::no(expr)),
    })?;
    let Join { left: _, right: _, on, filter: _, join_type, join_constraint, schema: _, null_equality, null_aware } =
        join;
    let (left, right) = (Arc::new(left), Arc::new(right));
    let joined =
        Join::try_new(left, right, on, Some(filter.data), join_type, join_constraint, null_equality, null_aware)?;
    let plan = LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()?;
    Ok(Transformed::yes(plan))
}

/// The columns that an expression with a subquery depends on; `None` if it is none, or one that DataFusion computes once.
fn needed_columns(expr: &Expr) -> Result<Option<Vec<Column>>> {
    let Some(subquery) = subquery_of(expr) else { return Ok(None) };
    // What is looked for comes from a query further out.
    if expr.contains_outer() {
        return Ok(None);
    }
    let outside = Outside::of(&subquery.subquery)?;
    if outside.columns.is_empty() && matches!(expr, Expr::ScalarSubquery(_)) {
        return Ok(None);
    }
    let mut needed: Vec<Column> = outside.columns.into_iter().map(|(column, _)| column).collect();
    needed.extend(expr.column_refs().into_iter().cloned());
    Ok(Some(needed))
}
