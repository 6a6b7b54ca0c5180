//! The types of VALUES with a CASE in them: an analyser rule that runs before DataFusion's type coercion.
//!
//! Until types are coerced, a CASE says that it is of the type of its first result, whatever the others are. Other nodes
//! look again when that is known; VALUES do not. What types their columns have was decided when they were planned, and their
//! rows were read as if they had them: `CASE WHEN p THEN 1.00 ELSE 1.5555 END` as hundredths, 155.55. So the types of such
//! items are coerced here, before those of the plan, and the columns made of what they really are.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::type_coercion::binary::type_union_resolution;
use datafusion::logical_expr::{
    EmptyRelation, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, Values,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

use super::rewriting::{any_node, recomputed};

/// The rule.
#[derive(Debug)]
pub(crate) struct ValuesTypes;

impl AnalyzerRule for ValuesTypes {
    fn name(&self) -> &str {
        "values_types"
    }

    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let concerned = |node: &LogicalPlan| match node {
            LogicalPlan::Values(values) => have_cases(values),
            _ => Ok(false),
        };
        if !any_node(&plan, concerned)? {
            return Ok(plan);
        }
        // Once a type has changed, all that is above must look again.
        let mut changed = false;
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let node = match node {
                LogicalPlan::Values(values) if have_cases(&values)? => retyped(values, options)?,
                other => Transformed::no(other),
            };
            recomputed(node, &mut changed)
        });
        rewritten.map(|plan| plan.data)
    }
}

fn have_cases(values: &Values) -> DataFusionResult<bool> {
    for value in values.values.iter().flatten() {
        if has_case(value)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_case(value: &Expr) -> DataFusionResult<bool> {
    value.exists(|part| Ok(matches!(part, Expr::Case(_))))
}

/// The values with columns of the types that their items have when their types are coerced.
fn retyped(values: Values, options: &ConfigOptions) -> DataFusionResult<Transformed<LogicalPlan>> {
    let Values { schema, values: mut rows } = values;
    let nothing = DFSchema::empty();
    let mut types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    let mut differs = false;
    for (column, data_type) in types.iter_mut().enumerate() {
        let mut found: Vec<DataType> = Vec::new();
        for value in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            if has_case(value)? {
                *value = coerced(std::mem::take(value), options)?;
            }
            let own = value.get_type(&nothing)?;
            if own != DataType::Null && !found.contains(&own) {
                found.push(own);
            }
        }
        if found.iter().all(|own| *own == *data_type) {
            continue;
        }
        // Types that have nothing in common are left to whoever puts the rows together, who says so.
        let Some(common) = type_union_resolution(&found) else { continue };
        for value in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            *value = std::mem::take(value).cast_to(&common, &nothing)?;
        }
        *data_type = common;
        differs = true;
    }
    if !differs {
        return Ok(Transformed::no(LogicalPlan::Values(Values { schema, values: rows })));
    }
    let fields = schema.iter().zip(types).map(|((relation, field), data_type)| {
        (relation.cloned(), Arc::new(field.as_ref().clone().with_data_type(data_type)))
    });
    let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?);
    Ok(Transformed::yes(LogicalPlan::Values(Values { schema, values: rows })))
}

/// An item with its types coerced.
fn coerced(value: Expr, options: &ConfigOptions) -> DataFusionResult<Expr> {
    let input =
        LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema: Arc::new(DFSchema::empty()) });
    let alone = LogicalPlanBuilder::from(input).project(vec![value.alias("value")])?.build()?;
    let item = match TypeCoercion::new().analyze(alone, options)? {
        LogicalPlan::Projection(Projection { mut expr, .. }) => expr.pop(),
        _ => None,
    };
    match item {
        Some(item) => Ok(item.unalias()),
        None => Err(DataFusionError::Internal("an item of VALUES was coerced to something else".to_owned())),
    }
}
