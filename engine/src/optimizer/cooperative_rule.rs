//! Lets every join be interrupted.
//!
//! A task that polls an operator gets control back only when the operator says that it has to wait. Scans say so now and
//! then, so that a timeout, a cancellation or another query gets its turn. But a join may make billions of rows out of a
//! few batches of its inputs, each handed over at once, and never ask a scan again: `SELECT sum(a.x) FROM many a CROSS
//! JOIN many b CROSS JOIN many c` ran on for hours after its client had gone. So joins take part in the runtime's
//! budget of uninterrupted steps themselves. A nested loop join, which may compare billions of pairs and make nothing of
//! them, is also given its probe side in pieces ([`PacedExec`]).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};

use crate::operators::paced::PacedExec;

/// Puts [`CooperativeExec`] on top of each join, and [`PacedExec`] under nested loop joins.
#[derive(Debug)]
pub(super) struct CooperativeJoins;

impl PhysicalOptimizerRule for CooperativeJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
                let (build, probe) = (Arc::clone(join.left()), Arc::clone(join.right()));
                let paced = replace_children_if_necessary(plan, vec![build, Arc::new(PacedExec::new(probe))])?;
                return Ok(Transformed::yes(Arc::new(CooperativeExec::new(paced)) as _));
            }
            let is_join = plan.downcast_ref::<HashJoinExec>().is_some()
                || plan.downcast_ref::<CrossJoinExec>().is_some()
                || plan.downcast_ref::<SortMergeJoinExec>().is_some();
            Ok(if is_join {
                Transformed::yes(Arc::new(CooperativeExec::new(plan)) as _)
            } else {
                Transformed::no(plan)
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "cooperative_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
