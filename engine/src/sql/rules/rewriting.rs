//! What analyser rules have in common, and others that go over plans.
//!
//! Nearly all of our rules do the same: they look whether a plan has anything that is their business, and if so rewrite the
//! expressions of its nodes, those of subqueries first and then from the leaves up. Four things are easily forgotten:
//!
//! - An expression's name is a column's name to what is above. A rewritten expression is called otherwise, so it gets the
//!   old name as an alias, but in nodes that show no expressions, as filters and joins ([`map_exprs`]).
//! - Types are asked for by the schema of a node's inputs, not by its own ([`merge_schema`]).
//! - Where a type has changed, or whether a column may be NULL, all nodes above must look again ([`recomputed`]). A rule
//!   that changes neither need not.
//! - Most plans have nothing for a rule to do, and there are many rules. To look at a plan is cheap, to take it apart and
//!   put it together is not ([`any_node`], [`any_part`]).
//!
//! What has names of its own (VALUES, whose expressions have none) or changes what kind of node it is, is written out where it
//! is done.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Union};

/// The node with its expressions changed, each called as before.
pub(crate) fn map_exprs(
    node: LogicalPlan,
    mut change: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    node.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(change(expr)?.update_data(|expr| name.restore(expr)))
    })
}

/// The same for all that is in the expressions, the innermost first.
pub(crate) fn map_parts(
    node: LogicalPlan,
    mut change: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    map_exprs(node, |expr| expr.transform_up(&mut change))
}

/// The node with the schema that follows, if its expressions have changed or, as `changed` tells, those of one before.
pub(in crate::sql) fn recomputed(
    node: Transformed<LogicalPlan>,
    changed: &mut bool,
) -> Result<Transformed<LogicalPlan>> {
    *changed |= node.transformed;
    match *changed {
        true => Ok(Transformed::yes(from_inputs(node.data)?)),
        false => Ok(node),
    }
}

/// The node with the schema that follows from its inputs and expressions. Of a union DataFusion keeps what it knew when it
/// planned it.
pub(crate) fn from_inputs(node: LogicalPlan) -> Result<LogicalPlan> {
    match node {
        LogicalPlan::Union(Union { inputs, schema }) => {
            let schema = loosened(&schema, &inputs)?;
            Ok(LogicalPlan::Union(Union { inputs, schema }))
        }
        node => node.recompute_schema(),
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

/// The plan with its window functions changed, which is told the schema of their arguments.
pub(in crate::sql) fn map_windows(
    plan: LogicalPlan,
    change: impl Fn(&mut WindowFunctionParams, &DFSchema) -> Result<()>,
) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        if !matches!(node, LogicalPlan::Window(_)) {
            return Ok(Transformed::no(node));
        }
        let schema = merge_schema(&node.inputs());
        let node = map_parts(node, |part| match part {
            Expr::WindowFunction(mut function) => {
                change(&mut function.params, &schema)?;
                Ok(Transformed::yes(Expr::WindowFunction(function)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        node.map_data(LogicalPlan::recompute_schema)
    });
    rewritten.map(|plan| plan.data)
}

/// Whether it is so of a node of the plan, or of a subquery in it.
pub(crate) fn any_node(plan: &LogicalPlan, mut is_so: impl FnMut(&LogicalPlan) -> Result<bool>) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found = is_so(node)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether it is so of an expression of the node, or of one inside of that.
pub(crate) fn any_part(node: &LogicalPlan, mut is_so: impl FnMut(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        found = expr.exists(|part| Ok(is_so(part)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{LogicalPlanBuilder, exists, lit};

    use super::*;

    fn is_one(part: &Expr) -> bool {
        *part == lit(1_i64)
    }

    #[test]
    fn expressions_keep_their_names_and_conditions_have_none() {
        let two = |part: Expr| match is_one(&part) {
            true => Ok(Transformed::yes(lit(2_i64))),
            false => Ok(Transformed::no(part)),
        };
        let values = LogicalPlanBuilder::values(vec![vec![lit(0_i64)]]).unwrap();
        let shown = values.clone().project(vec![lit(1_i64) + lit(3_i64)]).unwrap().build().unwrap();
        let mapped = map_parts(shown, two).unwrap();
        assert!(mapped.transformed);
        assert_eq!(mapped.data.expressions(), [(lit(2_i64) + lit(3_i64)).alias("Int64(1) + Int64(3)")]);
        let filtered = values.filter(lit(1_i64).eq(lit(3_i64))).unwrap().build().unwrap();
        assert_eq!(map_parts(filtered, two).unwrap().data.expressions(), [lit(2_i64).eq(lit(3_i64))]);
    }

    #[test]
    fn subqueries_are_looked_at_too() {
        let values = LogicalPlanBuilder::values(vec![vec![lit(0_i64)]]).unwrap();
        let inner = values.clone().filter(lit(1_i64).eq(lit(3_i64))).unwrap().build().unwrap();
        let outer = values.filter(exists(inner.into())).unwrap().build().unwrap();
        assert!(!any_part(&outer, is_one).unwrap());
        assert!(any_node(&outer, |node| any_part(node, is_one)).unwrap());
    }
}
