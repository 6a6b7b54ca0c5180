//! Puts [`order_of_array`] where arrays are compared otherwise than DataFusion does it: an analyser rule that runs after type
//! coercion.
//!
//! | where | becomes |
//! |---|---|
//! | `a < b`, `<=`, `>`, `>=`, `BETWEEN` | the same of `order(a)`, `order(b)` |
//! | `ORDER BY a` | by `order(a)` |
//! | `greatest`, `least` | [functions of arrays](crate::functions::extremes) |
//!
//! Equality is the same. In the usual orders of ORDER BY, DataFusion's sorts have NULLs among the elements where PostgreSQL has
//! them; but not so the filter by which a sort with a LIMIT leaves out what comes too late.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Between, BinaryExpr, ScalarFunction, Sort};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::{any_node, any_part, map_parts};
use crate::functions::array_order::{is_ordered_array, order_of_array};
use crate::functions::extremes::of_arrays;

/// The rule.
#[derive(Debug)]
pub(crate) struct ArrayOrder;

impl AnalyzerRule for ArrayOrder {
    fn name(&self) -> &str {
        "array_order"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        if !compares_arrays(&plan)? {
            return Ok(plan);
        }
        // Once an expression has changed, so may have what is said of its column above.
        let mut changed = false;
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let node = match node {
                LogicalPlan::Sort(mut sort) => {
                    sort.expr = sort.expr.into_iter().map(|by| sorted(by, &schema)).collect();
                    LogicalPlan::Sort(sort)
                }
                other => other,
            };
            let node = map_parts(node, |part| rewrite(part, &schema))?;
            changed |= node.transformed;
            Ok(Transformed::yes(if changed { node.data.recompute_schema()? } else { node.data }))
        });
        rewritten.map(|plan| plan.data)
    }
}

/// Whether there is anything to do, so that all other plans are only looked at.
fn compares_arrays(plan: &LogicalPlan) -> DataFusionResult<bool> {
    any_node(plan, |node| {
        if let LogicalPlan::Sort(sort) = node {
            let schema = sort.input.schema();
            if sort.expr.iter().any(|by| is_array(&by.expr, schema)) {
                return Ok(true);
            }
        }
        let mut inputs: Option<DFSchema> = None;
        any_part(node, |part| {
            let compared = match part {
                Expr::BinaryExpr(BinaryExpr { left, op, .. }) if orders(*op) => left.as_ref(),
                Expr::Between(Between { expr, .. }) => expr.as_ref(),
                Expr::ScalarFunction(ScalarFunction { func, args }) if matches!(func.name(), "greatest" | "least") => {
                    let Some(first) = args.first() else { return false };
                    first
                }
                _ => return false,
            };
            is_array(compared, inputs.get_or_insert_with(|| merge_schema(&node.inputs())))
        })
    })
}

fn orders(op: Operator) -> bool {
    matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
}

fn is_array(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| is_ordered_array(&data_type))
}

fn sorted(by: Sort, schema: &DFSchema) -> Sort {
    match is_array(&by.expr, schema) {
        true => Sort { expr: order_of_array(by.expr), ..by },
        false => by,
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if orders(op) && is_array(&left, schema) => {
            let (left, right) = (Box::new(order_of_array(*left)), Box::new(order_of_array(*right)));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_array(&expr, schema) => {
            let [expr, low, high] = [*expr, *low, *high].map(|part| Box::new(order_of_array(part)));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if matches!(func.name(), "greatest" | "least")
                && args.first().is_some_and(|first| is_array(first, schema)) =>
        {
            Transformed::yes(of_arrays(func.name() == "greatest", args))
        }
        other => Transformed::no(other),
    })
}
