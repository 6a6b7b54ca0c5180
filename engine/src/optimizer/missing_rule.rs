//! Keeps what is constant below an outer join from being taken for constant above it ([`MaybeMissingExec`]).
//!
//! This stands right before the rule that adds the orders and distributions operators ask for, as the first that leaves
//! out a sort by a constant; those before it move joins about, which they know, and would not know what is put among
//! them.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec, SymmetricHashJoinExec};

use crate::operators::maybe_missing::MaybeMissingExec;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct MissingRows;

impl PhysicalOptimizerRule for MissingRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let (left, right) = match join_type(&plan) {
                Some(JoinType::Left) => (false, true),
                Some(JoinType::Right) => (true, false),
                Some(JoinType::Full) => (true, true),
                _ => return Ok(Transformed::no(plan)),
            };
            let mut inputs: Vec<Arc<dyn ExecutionPlan>> = plan.children().into_iter().cloned().collect();
            let mut changed = false;
            for (input, may_be_missing) in inputs.iter_mut().zip([left, right]) {
                if may_be_missing && MaybeMissingExec::is_needed(input) {
                    *input = Arc::new(MaybeMissingExec::try_new(Arc::clone(input))?);
                    changed = true;
                }
            }
            match changed {
                true => Ok(Transformed::yes(replace_children_if_necessary(plan, inputs)?)),
                false => Ok(Transformed::no(plan)),
            }
        })
        .data()
    }

    fn name(&self) -> &str {
        "missing_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn join_type(plan: &Arc<dyn ExecutionPlan>) -> Option<JoinType> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return Some(*join.join_type());
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        return Some(*join.join_type());
    }
    if let Some(join) = plan.downcast_ref::<SymmetricHashJoinExec>() {
        return Some(*join.join_type());
    }
    plan.downcast_ref::<SortMergeJoinExec>().map(SortMergeJoinExec::join_type)
}
