//! Keeps what holds of rows below an operator from being taken for what holds above it ([`PlainRowsExec`]): of the side of an
//! outer join that may be missing, of what goes into grouping sets, and, below what asks for an order, of the right side of a
//! join and of the parts of UNION ALL.
//!
//! This stands right before the rule that adds the orders and distributions operators ask for, as the first that leaves
//! out a sort by a constant; those before it move joins about, which they know, and would not know what is put among
//! them.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec, SymmetricHashJoinExec,
};
use datafusion::physical_plan::union::UnionExec;

use super::offset_rule::asks_for_order;
use crate::operators::plain_rows::{PlainRowsExec, Unsaid};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct PlainRows;

impl PhysicalOptimizerRule for PlainRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        rewrite(plan, false)
    }

    fn name(&self) -> &str {
        "plain_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn rewrite(plan: Arc<dyn ExecutionPlan>, below_order: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let inputs: Vec<Arc<dyn ExecutionPlan>> = plan.children().into_iter().cloned().collect();
    if inputs.is_empty() {
        return Ok(plan);
    }
    let below_order = below_order || asks_for_order(&plan);
    let mut plain: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(inputs.len());
    for (place, input) in inputs.into_iter().enumerate() {
        let input = rewrite(input, below_order)?;
        plain.push(match unsaid(&plan, place, below_order) {
            Some(unsaid) if PlainRowsExec::is_needed(&input, unsaid) => {
                Arc::new(PlainRowsExec::try_new(input, unsaid)?)
            }
            _ => input,
        });
    }
    let plan = replace_children_if_necessary(plan, plain)?;
    match groups_by_sets(&plan) {
        true => Ok(Arc::new(PlainRowsExec::try_new(plan, Unsaid::Everything)?)),
        false => Ok(plan),
    }
}

/// Whether an operator takes rows apart by grouping sets. The second stage of such an aggregation has one set, of all columns
/// and the set's number.
fn groups_by_sets(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let groups = |aggregate: &AggregateExec| aggregate.group_expr().has_grouping_set();
    plan.downcast_ref::<AggregateExec>().is_some_and(groups)
}

/// What does not hold above an operator although it holds of an input.
fn unsaid(plan: &Arc<dyn ExecutionPlan>, input: usize, below_order: bool) -> Option<Unsaid> {
    if plan.downcast_ref::<UnionExec>().is_some() {
        return below_order.then_some(Unsaid::Equalities);
    }
    let may_be_missing = match join_type(plan)? {
        JoinType::Left => input == 1,
        JoinType::Right => input == 0,
        JoinType::Full => true,
        JoinType::Inner => false,
        _ => return None,
    };
    (may_be_missing || (below_order && input == 1)).then_some(Unsaid::Constants)
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
    if plan.downcast_ref::<CrossJoinExec>().is_some() {
        return Some(JoinType::Inner);
    }
    plan.downcast_ref::<SortMergeJoinExec>().map(SortMergeJoinExec::join_type)
}
