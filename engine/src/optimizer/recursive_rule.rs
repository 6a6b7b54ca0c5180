//! Which columns of a recursive query may be NULL, found again.
//!
//! DataFusion notes it when it plans the query. The rules make operators of the subqueries in the recursive term, whose
//! columns may be NULL where the subquery's could not, as of `(SELECT count(*) …)`; the note stays as it was, and the
//! operators do not fit it. So this is the last rule.

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::sql::rules::rewriting::{any_node, from_inputs};

/// The rule.
#[derive(Debug)]
pub(super) struct RecursiveColumns;

impl OptimizerRule for RecursiveColumns {
    fn name(&self) -> &str {
        "recursive_columns"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !any_node(&plan, |node| Ok(matches!(node, LogicalPlan::RecursiveQuery(_))))? {
            return Ok(Transformed::no(plan));
        }
        plan.transform_up_with_subqueries(|node| from_inputs(node).map(Transformed::yes))
    }
}
