//! Lets a projection that takes several numbers of one sequence, or looks at those it has taken, do so row by row
//! ([`SingleRowsExec`]).
//!
//! This stands before the rule that adds what operators ask for: rows are still handed on as they were planned.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::operators::single_rows::SingleRowsExec;
use crate::sequences;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct SingleRows;

impl PhysicalOptimizerRule for SingleRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let rewritten = plan.transform_up(|plan| {
            let input = match plan.downcast_ref::<ProjectionExec>() {
                Some(projection) if needs_single_rows(projection)? => Arc::clone(projection.input()),
                _ => return Ok(Transformed::no(plan)),
            };
            if input.downcast_ref::<SingleRowsExec>().is_some() {
                return Ok(Transformed::no(plan));
            }
            replace_children_if_necessary(plan, vec![Arc::new(SingleRowsExec::new(input))]).map(Transformed::yes)
        });
        rewritten.map(|plan| plan.data)
    }

    fn name(&self) -> &str {
        "single_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether what one call in a projection gives depends on how often another one has been made before.
fn needs_single_rows(projection: &ProjectionExec) -> Result<bool> {
    // The sequences of which numbers are taken: `None` if only the rows tell.
    let (mut taken, mut looks_at_them) = (Vec::<Option<String>>::new(), false);
    for column in projection.expr() {
        column.expr.apply(|part| {
            if let Some(call) =
                part.downcast_ref::<ScalarFunctionExpr>().filter(|call| sequences::is_function(call.name()))
            {
                match call.name() {
                    "nextval" => taken.push(call.args().first().and_then(name_in)),
                    _ => looks_at_them = true,
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let repeats = |(place, name): (usize, &Option<String>)| name.is_none() || taken[..place].contains(name);
    Ok(match taken.len() {
        0 => false,
        1 => looks_at_them,
        _ => looks_at_them || taken[0].is_none() || taken.iter().enumerate().any(repeats),
    })
}

/// The name of a sequence, without its schema: which one that is without one is not known here.
fn name_in(argument: &Arc<dyn PhysicalExpr>) -> Option<String> {
    let name = argument.downcast_ref::<Literal>()?.value().try_as_str().flatten()?;
    Some(name.rsplit('.').next()?.trim_matches('"').to_lowercase())
}
