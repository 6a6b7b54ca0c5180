//! Which columns of a recursive query may be NULL, found again.
//!
//! DataFusion notes it when it plans the query. The rules make operators of the subqueries in the recursive term, whose
//! columns may be NULL where the subquery's could not, as of `(SELECT count(*) …)`; the note stays as it was, and the
//! operators do not fit it. So this is the last rule.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::{LogicalPlan, Union};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::sql::rules::rewriting::any_node;

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
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Union(Union { inputs, schema }) => {
                let schema = loosened(&schema, &inputs)?;
                Ok(Transformed::yes(LogicalPlan::Union(Union { inputs, schema })))
            }
            node => node.recompute_schema().map(Transformed::yes),
        })
    }
}

/// The columns of a union, which may be NULL where one of its inputs' may.
fn loosened(schema: &DFSchemaRef, inputs: &[Arc<LogicalPlan>]) -> Result<DFSchemaRef> {
    let fields = schema.iter().enumerate().map(|(place, (relation, field))| {
        let is_nullable = |input: &Arc<LogicalPlan>| {
            let fields = input.schema().fields();
            fields.get(place).is_some_and(|field| field.is_nullable())
        };
        let nullable = field.is_nullable() || inputs.iter().any(is_nullable);
        (relation.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
    });
    let metadata = schema.metadata().clone();
    Ok(Arc::new(DFSchema::new_with_metadata(fields.collect(), metadata)?))
}
