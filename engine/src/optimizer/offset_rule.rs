//! OFFSET, kept from what DataFusion 55 does to the sorts around it. Its rule that orders rows where they must be in order
//! comes right after this one, and goes wrong in three ways:
//!
//! ```sql
//! SELECT a FROM (SELECT a FROM t ORDER BY a LIMIT 2 OFFSET 1) AS q ORDER BY a
//! ```
//!
//! The topmost sort is left out, for the rows come in its order. Then the LIMIT is taken for the number of rows that are asked
//! for, and its OFFSET is passed over: two rows are sorted, and the first of them is skipped. The same with an order by more
//! columns, as of a window.
//!
//! ```sql
//! SELECT a FROM (SELECT a, b FROM t ORDER BY a OFFSET 1) AS q ORDER BY b
//! ```
//!
//! Rows are sorted by `b` before the first is skipped. So, below what asks for an order, OFFSET is put under an operator that
//! asks for an order by a constant. All rows are in that, but no other order may be asked for below it.
//!
//! ```sql
//! SELECT max(a) FROM (SELECT a FROM t ORDER BY b OFFSET 1) AS q
//! ```
//!
//! Nobody asks for an order, and `b` is gone above the sort: it is left out. A sort that has a LIMIT is kept; one below an
//! OFFSET without it is put under an operator that says that its order is wanted. DataFusion itself takes these operators out
//! again.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::output_requirements::OutputRequirementExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{Distribution, ExecutionPlan};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct PlainOffsets;

impl PhysicalOptimizerRule for PlainOffsets {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        match plan.exists(|operator| Ok(offset(operator).is_some()))? {
            true => rewrite(plan, false),
            false => Ok(plan),
        }
    }

    fn name(&self) -> &str {
        "plain_offsets"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The limit that an operator is, if it skips rows.
fn offset(operator: &Arc<dyn ExecutionPlan>) -> Option<&GlobalLimitExec> {
    operator.downcast_ref::<GlobalLimitExec>().filter(|limit| limit.skip() > 0)
}

/// Whether an operator sorts its rows, or wants them sorted.
pub(super) fn asks_for_order(operator: &Arc<dyn ExecutionPlan>) -> bool {
    operator.downcast_ref::<SortExec>().is_some() || operator.required_input_ordering().iter().any(Option::is_some)
}

fn rewrite(plan: Arc<dyn ExecutionPlan>, below_order: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let inputs: Vec<Arc<dyn ExecutionPlan>> = plan.children().into_iter().cloned().collect();
    if inputs.is_empty() {
        return Ok(plan);
    }
    let is_ordered = below_order || asks_for_order(&plan);
    let inputs = inputs.into_iter().map(|input| rewrite(input, is_ordered)).collect::<Result<Vec<_>>>()?;
    let plan = replace_children_if_necessary(plan, inputs)?;
    let Some(limit) = offset(&plan) else { return Ok(plan) };
    let kept = match limit.fetch() {
        Some(_) => None,
        None => with_kept_sort(limit.input())?,
    };
    let plan = match kept {
        Some(input) => replace_children_if_necessary(plan, vec![input])?,
        None => plan,
    };
    Ok(match below_order {
        true => in_any_order(plan),
        false => plan,
    })
}

/// The plan under an operator that no order can be asked for below of.
fn in_any_order(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let constant = PhysicalSortExpr::new_default(Arc::new(Literal::new(ScalarValue::Int64(Some(0)))));
    let order = LexOrdering::new([constant]).map(OrderingRequirements::from);
    Arc::new(OutputRequirementExec::new(plan, order, Distribution::SinglePartition, None))
}

/// The plan with the order of its rows asked for right above the sort that they have it from; `None` if there is no such sort,
/// or it is kept already.
fn with_kept_sort(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        if sort.fetch().is_some() {
            return Ok(None);
        }
        let order = OrderingRequirements::from(sort.expr().clone());
        let wanted = OutputRequirementExec::new(Arc::clone(plan), Some(order), Distribution::SinglePartition, None);
        return Ok(Some(Arc::new(wanted)));
    }
    if plan.downcast_ref::<OutputRequirementExec>().is_some() || plan.maintains_input_order() != [true] {
        return Ok(None);
    }
    let Some(input) = plan.children().into_iter().next().cloned() else { return Ok(None) };
    match with_kept_sort(&input)? {
        Some(input) => Ok(Some(replace_children_if_necessary(Arc::clone(plan), vec![input])?)),
        None => Ok(None),
    }
}
