//! Conditions on outer columns that cannot leave a subquery in FROM.
//!
//! ```text
//!   EXISTS (SELECT 1 FROM (SELECT b.x AS y FROM b WHERE b.x > a.x) AS s WHERE y = 3)
//! ```
//! To make a join of it DataFusion pulls `b.x > a.x` up beside `y = 3`, where `b.x` would have to be a column of `s`. It is
//! one only if the subquery in FROM shows it as it is.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::utils::split_conjunction;

/// Whether a condition on outer columns is about columns that a subquery in FROM does not show.
pub(super) fn hides_columns(plan: &LogicalPlan) -> Result<bool> {
    let mut hides = false;
    plan.apply(|node| {
        let LogicalPlan::SubqueryAlias(alias) = node else { return Ok(TreeNodeRecursion::Continue) };
        let shown = alias.input.schema();
        alias.input.apply(|below| {
            if let LogicalPlan::Filter(filter) = below {
                let outer = split_conjunction(&filter.predicate).into_iter().filter(|part| part.contains_outer());
                hides |= outer.flat_map(|part| part.column_refs()).any(|column| !shown.has_column(column));
            }
            Ok(if hides { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(if hides { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(hides)
}
