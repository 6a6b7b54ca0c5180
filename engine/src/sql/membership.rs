//! `x IN (SELECT …)` where its third value, unknown, matters.
//!
//! DataFusion turns the predicate into a semi, anti or mark join. A mark is true or false, never unknown; and an anti join
//! minds NULLs only where its one key is a column and the subquery knows nothing of the outer row. This analyser rule,
//! which runs after type coercion, writes the other cases with EXISTS, of which DataFusion makes the right joins:
//!
//! | `x NOT IN (S)` … | becomes |
//! |---|---|
//! | as a condition, `x` a constant or `S` correlated | `NOT EXISTS (S WHERE s = x OR s IS NULL OR x IS NULL)` |
//! | as a value: under IS NULL, NOT, COALESCE, = … | `CASE WHEN EXISTS (S WHERE s = x) THEN false WHEN EXISTS (S WHERE s IS NULL OR x IS NULL) THEN NULL ELSE true END` |
//!
//! Without NULLs on either side, and for `IN` as a condition, where unknown is as good as false, DataFusion's own joins
//! are right and stay.
//!
//! A window function in a subquery that depends on the outer row is refused: DataFusion would compute it over the rows of
//! all outer rows together.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{BinaryExpr, Exists, InSubquery};
use datafusion::logical_expr::{
    Case, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit,
};
use datafusion::optimizer::AnalyzerRule;

use crate::Error;

/// The subquery's column, while it is compared.
const MEMBER: &str = "__rustydb_member";

/// The rule.
#[derive(Debug)]
pub(crate) struct Membership;

impl AnalyzerRule for Membership {
    fn name(&self) -> &str {
        "membership"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            refuse_windows(&node)?;
            match node {
                LogicalPlan::Filter(filter) if has_membership(&filter.predicate)? => {
                    let Filter { predicate, input, .. } = filter;
                    let predicate = rewrite(predicate, Place::Conjunct, input.schema())?;
                    Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
                }
                node => Ok(Transformed::no(node)),
            }
        });
        rewritten.map(|plan| plan.data)
    }
}

fn has_membership(expr: &Expr) -> DataFusionResult<bool> {
    expr.exists(|expr| Ok(matches!(expr, Expr::InSubquery(_))))
}

/// What becomes of a predicate that is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It must hold by itself: unknown is false.
    Conjunct,
    /// It is part of a condition: unknown is false.
    Condition,
    /// Its value is used.
    Value,
}

fn rewrite(expr: Expr, place: Place, schema: &DFSchema) -> DataFusionResult<Expr> {
    match expr {
        Expr::InSubquery(membership) => rewrite_membership(membership, place, schema),
        Expr::Not(inner) if matches!(*inner, Expr::InSubquery(_)) => match *inner {
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                rewrite_membership(InSubquery { expr, subquery, negated: !negated }, place, schema)
            }
            inner => Ok(Expr::Not(Box::new(inner))),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let place = if op == Operator::Or && place == Place::Conjunct { Place::Condition } else { place };
            let (left, right) = (rewrite(*left, place, schema)?, rewrite(*right, place, schema)?);
            Ok(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
        }
        Expr::IsTrue(inner) => Ok(Expr::IsTrue(Box::new(rewrite(*inner, Place::Condition, schema)?))),
        other => {
            let rewritten = other.map_children(|child| Ok(Transformed::yes(rewrite(child, Place::Value, schema)?)))?;
            Ok(rewritten.data)
        }
    }
}

fn rewrite_membership(membership: InSubquery, place: Place, schema: &DFSchema) -> DataFusionResult<Expr> {
    let InSubquery { expr, subquery, negated } = &membership;
    let field = subquery.subquery.schema().field(0);
    let nullable = field.is_nullable() || expr.nullable(schema).unwrap_or(true);
    let correlated = !subquery.outer_ref_columns.is_empty();
    let is_constant = expr.column_refs().is_empty();
    let stays = !nullable
        // A reference to a query further out: DataFusion does not decorrelate that.
        || expr.contains_outer()
        || match place {
            Place::Conjunct => !negated || !(correlated || is_constant),
            Place::Condition => !negated,
            Place::Value => false,
        };
    if stays {
        return Ok(Expr::InSubquery(membership));
    }
    let member = || Expr::Column(Column::new_unqualified(MEMBER));
    let left = outer(expr.as_ref().clone(), schema)?;
    let equal = member().eq(left.clone());
    let unknown = member().is_null().or(left.is_null());
    if place != Place::Value {
        return exists(subquery, expr, equal.or(unknown), schema, true);
    }
    let when_then = vec![
        (Box::new(exists(subquery, expr, equal, schema, false)?), Box::new(lit(!negated))),
        (
            Box::new(exists(subquery, expr, unknown, schema, false)?),
            Box::new(Expr::Literal(ScalarValue::Boolean(None), None)),
        ),
    ];
    Ok(Expr::Case(Case { expr: None, when_then_expr: when_then, else_expr: Some(Box::new(lit(*negated))) }))
}

/// `[NOT] EXISTS (subquery WHERE condition)`; the condition calls the subquery's column [`MEMBER`].
fn exists(
    subquery: &Subquery,
    left: &Expr,
    condition: Expr,
    schema: &DFSchema,
    negated: bool,
) -> DataFusionResult<Expr> {
    let Subquery { subquery, outer_ref_columns, spans } = subquery;
    let (relation, field) = subquery.schema().qualified_field(0);
    let column = Expr::Column(Column::new(relation.cloned(), field.name())).alias(MEMBER);
    let plan = LogicalPlanBuilder::from(subquery.as_ref().clone()).project([column])?.filter(condition)?.build()?;
    let mut outer_ref_columns = outer_ref_columns.clone();
    for column in left.column_refs() {
        let reference = outer(Expr::Column(column.clone()), schema)?;
        if !outer_ref_columns.contains(&reference) {
            outer_ref_columns.push(reference);
        }
    }
    let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: spans.clone() };
    Ok(Expr::Exists(Exists { subquery, negated }))
}

/// The expression as a subquery says it.
fn outer(expr: Expr, schema: &DFSchema) -> DataFusionResult<Expr> {
    let outer = expr.transform_up(|expr| match expr {
        Expr::Column(column) => {
            let field = Arc::clone(schema.field_from_column(&column)?);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(outer.data)
}

fn refuse_windows(node: &LogicalPlan) -> DataFusionResult<()> {
    node.apply_expressions(|expr| {
        expr.apply(|expr| {
            let subquery = match expr {
                Expr::ScalarSubquery(subquery) | Expr::InSubquery(InSubquery { subquery, .. }) => subquery,
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            let refused = !subquery.outer_ref_columns.is_empty()
                && subquery.subquery.exists(|inner| {
                    Ok(matches!(inner, LogicalPlan::Window(_)) && !inner.all_out_ref_exprs().is_empty())
                })?;
            match refused {
                true => Err(Error::unsupported("a window function in a subquery that depends on the outer query")
                    .with_hint("Compute it in FROM, and join.")
                    .into()),
                false => Ok(TreeNodeRecursion::Continue),
            }
        })
    })?;
    Ok(())
}
