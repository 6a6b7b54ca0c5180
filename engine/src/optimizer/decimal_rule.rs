//! The rule that puts [`crate::operators::decimal`] where decimals are computed: in projections and in the arguments of
//! aggregates.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::operators::decimal::with_narrow_decimals;
use crate::operators::direct_aggregate::DirectAggregateExec;

/// Replaces decimal arithmetic by one that is quick on narrow values.
#[derive(Debug, Default)]
pub(super) struct NarrowDecimals;

impl PhysicalOptimizerRule for NarrowDecimals {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            Ok(match with_changed(&plan, with_narrow_decimals)? {
                Some(rewritten) => Transformed::yes(rewritten),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "narrow_decimals"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What becomes of an expression over columns of a schema: the same pointer, if it stays what it is.
type Change = fn(Arc<dyn PhysicalExpr>, &Schema) -> Result<Arc<dyn PhysicalExpr>>;

/// The operator with its expressions changed by `change`, which is told their input: those of a projection, and the arguments
/// of aggregates. `None` if none changes.
pub(super) fn with_changed(plan: &Arc<dyn ExecutionPlan>, change: Change) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let schema = projection.input().schema();
        let changed = |column: &ProjectionExpr| {
            let expr = change(Arc::clone(&column.expr), &schema)?;
            Ok(ProjectionExpr { expr, alias: column.alias.clone() })
        };
        let columns = projection.expr().iter().map(changed).collect::<Result<Vec<_>>>()?;
        if columns.iter().zip(projection.expr()).all(|(new, old)| Arc::ptr_eq(&new.expr, &old.expr)) {
            return Ok(None);
        }
        return Ok(Some(Arc::new(ProjectionExec::try_new(columns, Arc::clone(projection.input()))?)));
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        if aggregate.mode().input_mode() != AggregateInputMode::Raw {
            return Ok(None);
        }
        let functions = arguments(aggregate, change)?;
        return Ok(
            functions.map(|functions| Arc::new(aggregate.with_new_aggr_exprs(functions)) as Arc<dyn ExecutionPlan>)
        );
    }
    if let Some(direct) = plan.downcast_ref::<DirectAggregateExec>() {
        let functions = arguments(direct.definition(), change)?;
        return Ok(functions.map(|functions| Arc::new(direct.with_aggregates(functions)) as Arc<dyn ExecutionPlan>));
    }
    Ok(None)
}

/// An aggregation's functions with changed arguments.
fn arguments(aggregate: &AggregateExec, change: Change) -> Result<Option<Vec<Arc<AggregateFunctionExpr>>>> {
    let schema = aggregate.input().schema();
    let changed = |function: &Arc<AggregateFunctionExpr>| {
        let all = function.all_expressions();
        let old = all.args.clone();
        let arguments = all.args.into_iter().map(|argument| change(argument, &schema)).collect::<Result<Vec<_>>>()?;
        if arguments.iter().zip(&old).all(|(new, old)| Arc::ptr_eq(new, old)) {
            return Ok(Arc::clone(function));
        }
        Ok(match function.with_new_expressions(arguments, all.order_by_exprs) {
            Some(function) => Arc::new(function),
            None => Arc::clone(function),
        })
    };
    let functions = aggregate.aggr_expr().iter().map(changed).collect::<Result<Vec<_>>>()?;
    let same = functions.iter().zip(aggregate.aggr_expr()).all(|(new, old)| Arc::ptr_eq(new, old));
    Ok((!same).then_some(functions))
}
