//! The rule by which AND and OR spare what they need not compute, where computing it may fail: in projections, in arguments of
//! aggregates and in filters ([`crate::operators::lazy_logic`]).
//!
//! The conditions of a filter are in effect an AND, of which DataFusion knows what holds above the filter. They stay what they
//! are, but those from one that may fail on get a filter of their own, above that with the conditions before them:
//!
//! ```text
//! Filter: b <> 0 AND a / b > 1     ──►     Filter: a / b > 1
//!                                            Filter: b <> 0
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};

use super::decimal_rule::with_changed;
use crate::operators::lazy_logic::{lazily, may_fail};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct SpareRows;

impl PhysicalOptimizerRule for SpareRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            Ok(match rewritten(&plan)? {
                Some(rewritten) => Transformed::yes(rewritten),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "spare_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn rewritten(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    match plan.downcast_ref::<FilterExec>() {
        Some(filter) => in_steps(filter),
        None => with_changed(plan, lazily),
    }
}

/// A filter as several; `None` if one will do.
fn in_steps(filter: &FilterExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let schema = filter.input().schema();
    let (mut steps, mut step, mut changed) = (Vec::new(), Vec::<Arc<dyn PhysicalExpr>>::new(), false);
    for condition in split_conjunction(filter.predicate()) {
        let lazy = lazily(Arc::clone(condition), &schema)?;
        changed |= !Arc::ptr_eq(&lazy, condition);
        if !step.is_empty() && may_fail(&lazy, &schema)? {
            steps.push(std::mem::take(&mut step));
        }
        step.push(lazy);
    }
    if steps.is_empty() && !changed {
        return Ok(None);
    }
    let mut input = Arc::clone(filter.input());
    for conditions in steps {
        input = Arc::new(FilterExec::try_new(conjunction(conditions), input)?);
    }
    let last = FilterExecBuilder::from(filter).with_input(input).with_predicate(conjunction(step)).build()?;
    Ok(Some(Arc::new(last)))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col, lit};
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;

    #[test]
    fn conditions_that_may_fail_are_asked_after_those_before_them() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
        let a = || col("a", &schema).unwrap();
        let compare = |left, op, right: i32| binary(left, op, lit(right), &schema).unwrap();
        let quotient = binary(lit(8_i32), Operator::Divide, a(), &schema).unwrap();
        let conditions =
            [compare(a(), Operator::NotEq, 0), compare(quotient, Operator::Gt, 2), compare(a(), Operator::Lt, 9)];
        let rows: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::clone(&schema)));
        let plan: Arc<dyn ExecutionPlan> =
            Arc::new(FilterExec::try_new(conjunction(conditions.clone()), Arc::clone(&rows)).unwrap());
        let stepwise = rewritten(&plan).unwrap().unwrap();
        let upper = stepwise.downcast_ref::<FilterExec>().unwrap();
        assert_eq!(split_conjunction(upper.predicate()), [&conditions[1], &conditions[2]]);
        let lower = upper.input().downcast_ref::<FilterExec>().unwrap();
        assert_eq!(lower.predicate(), &conditions[0]);
        assert!(rewritten(&stepwise).unwrap().is_none());
        let plain: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(Arc::clone(&conditions[2]), rows).unwrap());
        assert!(rewritten(&plain).unwrap().is_none());
    }
}
