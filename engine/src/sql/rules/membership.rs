//! `x IN (SELECT …)` where its third value, unknown, matters.
//!
//! DataFusion turns the predicate into a semi, anti or mark join. A mark is true or false, never unknown; and an anti join
//! minds NULLs only where its one key is a column and the subquery knows nothing of the outer row. This analyser rule,
//! which runs after type coercion, writes the other cases with EXISTS, of which DataFusion makes the right joins:
//!
//! | `x NOT IN (S)` … | becomes |
//! |---|---|
//! | as a condition, `x` a constant or `S` correlated | `NOT EXISTS (S WHERE s = x OR s IS NULL OR x IS NULL)` |
//! | as a condition, `x` computed | `NOT EXISTS (S WHERE s = x) AND NOT EXISTS (S WHERE s IS NULL) AND (x IS NOT NULL OR NOT EXISTS (S))` |
//! | as a value: in a select list, under IS NULL, NOT, COALESCE, = … | `CASE WHEN EXISTS (S WHERE s = x) THEN false WHEN EXISTS (S WHERE s IS NULL) OR x IS NULL AND EXISTS (S) THEN NULL ELSE true END` |
//!
//! Without NULLs on either side, and for `IN` as a condition, where unknown is as good as false, DataFusion's own joins
//! are right and stay. What only asks for NULLs of a side that has none is left out.
//!
//! Each EXISTS is a copy of the subquery, and in a subquery within another of its copies. So the size of what is copied is
//! [bounded](super::copies).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, Exists, InSubquery};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Case, Expr, ExprSchemable, Filter, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::copies::{check_copied_plan, check_copy};
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
    let member_nullable = subquery.subquery.schema().field(0).is_nullable();
    let left_nullable = expr.nullable(schema).unwrap_or(true);
    let nullable = member_nullable || left_nullable;
    let correlated = !subquery.outer_ref_columns.is_empty();
    let is_constant = expr.column_refs().is_empty();
    let stays = !nullable
        || match place {
            Place::Conjunct => !negated || !(correlated || is_computed(expr)),
            Place::Condition => !negated,
            Place::Value => false,
        };
    if stays {
        return Ok(Expr::InSubquery(membership));
    }
    let member = || Expr::Column(Column::new_unqualified(MEMBER));
    if left_nullable {
        check_copy(expr, true)?;
    }
    let left = outer(expr.as_ref().clone(), schema)?;
    let equal = member().eq(left.clone());
    let nothing = lit(true);
    if place == Place::Conjunct && !correlated && !is_constant {
        check_copied_plan(&subquery.subquery, member_nullable)?;
        let mut whole = exists(subquery, expr, Some(equal), schema, true)?;
        if member_nullable {
            whole = whole.and(exists(subquery, &nothing, Some(member().is_null()), schema, true)?);
        }
        if left_nullable {
            let none = exists(subquery, &nothing, None, schema, true)?;
            whole = whole.and(expr.as_ref().clone().is_not_null().or(none));
        }
        return Ok(whole);
    }
    if place != Place::Value {
        let matches = if member_nullable { equal.or(member().is_null()) } else { equal };
        let matches = if left_nullable { matches.or(left.is_null()) } else { matches };
        return exists(subquery, expr, Some(matches), schema, true);
    }
    // Where the left side is NULL no row is equal, so that it matters only there whether there is a row at all.
    check_copied_plan(&subquery.subquery, member_nullable)?;
    // Each of these depends on the outer row by equality at most, so that its join can hash.
    let some_null = match member_nullable {
        true => Some(exists(subquery, &nothing, Some(member().is_null()), schema, false)?),
        false => None,
    };
    let compared_null = match left_nullable {
        true => Some(expr.as_ref().clone().is_null().and(exists(subquery, &nothing, None, schema, false)?)),
        false => None,
    };
    let mut when_then = vec![(Box::new(exists(subquery, expr, Some(equal), schema, false)?), Box::new(lit(!negated)))];
    if let Some(unknown) = some_null.into_iter().chain(compared_null).reduce(Expr::or) {
        when_then.push((Box::new(unknown), Box::new(Expr::Literal(ScalarValue::Boolean(None), None))));
    }
    Ok(Expr::Case(Case { expr: None, when_then_expr: when_then, else_expr: Some(Box::new(lit(*negated))) }))
}

/// Whether it is more than a column. Of that DataFusion asks whether the columns in it may be NULL, not whether it may be so
/// itself, as `nullif(id, 1)`; and it may turn out to be a constant.
fn is_computed(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => false,
        Expr::Cast(Cast { expr, .. }) => is_computed(expr),
        _ => true,
    }
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
