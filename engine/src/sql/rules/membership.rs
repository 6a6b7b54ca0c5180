//! `x IN (SELECT …)` where its third value, unknown, matters.
//!
//! DataFusion turns the predicate into a semi, anti or mark join. A mark is true or false, never unknown; and an anti join
//! minds NULLs only where its one key is a column and the subquery knows nothing of the outer row. This analyser rule,
//! which runs after type coercion, writes the other cases with EXISTS, of which DataFusion makes the right joins:
//!
//! | `x NOT IN (S)` … | becomes |
//! |---|---|
//! | as a condition, `x` a constant or `S` correlated | `NOT EXISTS (S WHERE s = x OR s IS NULL OR x IS NULL)` |
//! | as a value: in a select list, under IS NULL, NOT, COALESCE, = … | `CASE WHEN EXISTS (S WHERE s = x) THEN false WHEN EXISTS (S WHERE s IS NULL) OR x IS NULL AND EXISTS (S) THEN NULL ELSE true END` |
//!
//! Without NULLs on either side, and for `IN` as a condition, where unknown is as good as false, DataFusion's own joins
//! are right and stay.
//!
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{BinaryExpr, Exists, InSubquery};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Case, Expr, ExprSchemable, Filter, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::{any_part, map_exprs};

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
            if !any_part(&node, is_membership)? {
                return Ok(Transformed::no(node));
            }
            match node {
                LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                    let predicate = rewrite(predicate, Place::Conjunct, input.schema())?;
                    Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
                }
                node => {
                    let schema = merge_schema(&node.inputs());
                    let is_condition = matches!(&node, LogicalPlan::Join(join) if join.join_type == JoinType::Inner);
                    let place = if is_condition { Place::Conjunct } else { Place::Value };
                    let node = map_exprs(node, |expr| match has_membership(&expr)? {
                        true => Ok(Transformed::yes(rewrite(expr, place, &schema)?)),
                        false => Ok(Transformed::no(expr)),
                    })?;
                    node.map_data(LogicalPlan::recompute_schema)
                }
            }
        });
        rewritten.map(|plan| plan.data)
    }
}

fn has_membership(expr: &Expr) -> DataFusionResult<bool> {
    expr.exists(|part| Ok(is_membership(part)))
}

fn is_membership(part: &Expr) -> bool {
    matches!(part, Expr::InSubquery(_))
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
    if place != Place::Value {
        let unknown = member().is_null().or(left.is_null());
        return exists(subquery, expr, Some(equal.or(unknown)), schema, true);
    }
    // Each of these depends on the outer row by equality at most, so that its join can hash.
    let nothing = lit(true);
    let some_null = exists(subquery, &nothing, Some(member().is_null()), schema, false)?;
    let compared_null = expr.as_ref().clone().is_null().and(exists(subquery, &nothing, None, schema, false)?);
    let when_then = vec![
        (Box::new(exists(subquery, expr, Some(equal), schema, false)?), Box::new(lit(!negated))),
        (Box::new(some_null.or(compared_null)), Box::new(Expr::Literal(ScalarValue::Boolean(None), None))),
    ];
    Ok(Expr::Case(Case { expr: None, when_then_expr: when_then, else_expr: Some(Box::new(lit(*negated))) }))
}

/// `[NOT] EXISTS (subquery WHERE condition)`; the condition calls the subquery's column [`MEMBER`].
fn exists(
    subquery: &Subquery,
    left: &Expr,
    condition: Option<Expr>,
    schema: &DFSchema,
    negated: bool,
) -> DataFusionResult<Expr> {
    let Subquery { subquery, outer_ref_columns, spans } = subquery;
    let (relation, field) = subquery.schema().qualified_field(0);
    let column = Expr::Column(Column::new(relation.cloned(), field.name())).alias(MEMBER);
    let plan = LogicalPlanBuilder::from(subquery.as_ref().clone()).project([column])?;
    let plan = match condition {
        Some(condition) => plan.filter(condition)?.build()?,
        None => plan.build()?,
    };
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
