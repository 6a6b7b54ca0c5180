//! Casts of what is computed from other casts, told once what they may give.
//!
//! `((a IN (1, 2))::int IN (1, 2))::int …`: whether a cast may be NULL, DataFusion 55 asks what is cast twice, itself and its
//! field, and that asks what is cast in it. Each level doubles the time, while the query is planned and for each batch that it
//! computes: 22 of them took half a minute. The call of a function notes the answer when it is made. So what is cast, if there are
//! [many](CASTS_MAX) casts in it, becomes the argument of a function that gives back what it is given, at which those around it
//! begin to count anew.
//!
//! Invariant: of the casts in a plan, from one function to the next, there are at most [`CASTS_MAX`] in each other. This
//! comes behind all rules that write casts, or one expression in the place of another's column.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, ScalarUDF};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::sql::rules::opaque_values::noted;
use crate::sql::rules::rewriting::{any_node, any_part, map_parts};

/// The casts that may be in each other. The innermost of them is asked some 2⁶ times, which takes less than a millisecond.
const CASTS_MAX: usize = 6;

/// The rule.
#[derive(Debug)]
pub(super) struct ShallowCasts {
    noted: Arc<ScalarUDF>,
}

impl Default for ShallowCasts {
    fn default() -> Self {
        ShallowCasts { noted: Arc::new(noted()) }
    }
}

impl OptimizerRule for ShallowCasts {
    fn name(&self) -> &str {
        "shallow_casts"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !any_node(&plan, |node| any_part(node, is_deep))? {
            return Ok(Transformed::no(plan));
        }
        plan.transform_up_with_subqueries(|node| {
            let node = map_parts(node, |part| {
                Ok(match part {
                    Expr::Cast(mut cast) if is_deep_in(&cast) => {
                        let argument = std::mem::take(cast.expr.as_mut());
                        *cast.expr = self.noted.call(vec![argument]);
                        Transformed::yes(Expr::Cast(cast))
                    }
                    other => Transformed::no(other),
                })
            })?;
            match node.transformed {
                true => node.map_data(LogicalPlan::recompute_schema),
                false => Ok(node),
            }
        })
    }
}

/// Whether it is a cast with many in it.
fn is_deep(expr: &Expr) -> bool {
    matches!(expr, Expr::Cast(cast) if is_deep_in(cast))
}

fn is_deep_in(cast: &Cast) -> bool {
    casts_in(&cast.expr).is_ok_and(|casts| casts >= CASTS_MAX)
}

/// How many casts are in each other, down to functions. It may be as deep as it likes.
fn casts_in(expr: &Expr) -> Result<usize> {
    let (mut open, mut most) = (vec![(expr, 0_usize)], 0);
    while let Some((expr, around)) = open.pop() {
        let casts = match expr {
            Expr::ScalarFunction(_) => continue,
            Expr::Cast(_) => around + 1,
            _ => around,
        };
        most = most.max(casts);
        expr.apply_children(|child| {
            open.push((child, casts));
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use datafusion::logical_expr::{LogicalPlanBuilder, cast, col, lit};
    use datafusion::optimizer::OptimizerContext;

    use super::*;

    fn nested(depth: usize) -> LogicalPlan {
        let around = |inner: Expr| cast(inner.in_list(vec![lit(1), lit(2)], false), DataType::Int32);
        let column = (0..depth).fold(col("column1"), |inner, _| around(inner));
        let values = LogicalPlanBuilder::values(vec![vec![lit(1)]]).unwrap();
        values.project(vec![column]).unwrap().build().unwrap()
    }

    #[test]
    fn many_casts_in_each_other_are_parted_by_functions() {
        let (plan, rule) = (nested(40), ShallowCasts::default());
        let parted = rule.rewrite(plan.clone(), &OptimizerContext::new()).unwrap();
        assert!(parted.transformed);
        assert!(!any_node(&parted.data, |node| any_part(node, is_deep)).unwrap());
        assert_eq!(parted.data.schema().as_arrow(), plan.schema().as_arrow());
        assert!(!rule.rewrite(parted.data, &OptimizerContext::new()).unwrap().transformed);
    }

    #[test]
    fn a_few_casts_stay_what_they_are() {
        let kept = ShallowCasts::default().rewrite(nested(CASTS_MAX), &OptimizerContext::new()).unwrap();
        assert!(!kept.transformed);
    }
}
