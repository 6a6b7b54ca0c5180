//! References of a subquery to rows outside of it.
//!
//! A plan names the column it refers to, not how many queries further out that is; the planner looked for it in the
//! nearest query first. So whoever follows references through subqueries inside subqueries asks at each node whose
//! subquery it is whether the node's own input has that column.

use std::collections::HashMap;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

use crate::sql::rules::rewriting::map_parts;

/// What a subquery takes from outside.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pub(super) columns: Vec<(Column, FieldRef)>,
    /// Whether a subquery inside of it takes some of that.
    pub(super) skips_a_level: bool,
}

impl Outside {
    pub(super) fn of(plan: &LogicalPlan) -> Result<Outside> {
        let mut outside = Outside::default();
        outside.collect(plan)?;
        Ok(outside)
    }

    fn add(&mut self, column: &Column, field: &FieldRef) {
        if !self.columns.iter().any(|(known, _)| known == column) {
            self.columns.push((column.clone(), field.clone()));
        }
    }

    fn add_inner(&mut self, inner: Outside, schema: &DFSchema) {
        for (column, field) in inner.columns {
            if !schema.has_column(&column) {
                self.add(&column, &field);
                self.skips_a_level = true;
            }
        }
    }

    fn collect(&mut self, plan: &LogicalPlan) -> Result<()> {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::OuterReferenceColumn(field, column) = expr {
                    self.add(column, field);
                } else if let Some(subquery) = subquery_of(expr) {
                    self.add_inner(Outside::of(&subquery.subquery)?, &merge_schema(&plan.inputs()));
                    // What is looked for in a subquery would be pulled up with it.
                    self.skips_a_level |= expr.contains_outer();
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        match plan {
            LogicalPlan::Join(join) => {
                self.collect(&join.left)?;
                match lateral(&join.right) {
                    Some(subquery) => self.add_inner(Outside::of(&subquery.subquery)?, join.left.schema()),
                    None => self.collect(&join.right)?,
                }
            }
            plan => {
                for input in plan.inputs() {
                    self.collect(input)?;
                }
            }
        }
        Ok(())
    }
}

/// The subquery of an expression that has one.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

/// The subquery in the right side of a join that refers to the left side.
pub(super) fn lateral(plan: &LogicalPlan) -> Option<&Subquery> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery),
        LogicalPlan::SubqueryAlias(alias) => lateral(&alias.input),
        _ => None,
    }
}

/// The plan with `values` in the places of references to the columns outside.
pub(super) fn substitute(plan: LogicalPlan, values: &HashMap<Column, ScalarValue>) -> Result<LogicalPlan> {
    if values.is_empty() {
        return Ok(plan);
    }
    let schema = merge_schema(&plan.inputs());
    let own = map_parts(plan, |part| match part {
        Expr::OuterReferenceColumn(field, column) => Ok(match values.get(&column) {
            Some(value) => Transformed::yes(Expr::Literal(value.clone(), None)),
            None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
        }),
        Expr::ScalarSubquery(subquery) => {
            Ok(Transformed::yes(Expr::ScalarSubquery(substitute_in(subquery, values, &schema)?)))
        }
        Expr::Exists(Exists { subquery, negated }) => {
            let subquery = substitute_in(subquery, values, &schema)?;
            Ok(Transformed::yes(Expr::Exists(Exists { subquery, negated })))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let subquery = substitute_in(subquery, values, &schema)?;
            Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated })))
        }
        Expr::SetComparison(comparison) => {
            let subquery = substitute_in(comparison.subquery, values, &schema)?;
            Ok(Transformed::yes(Expr::SetComparison(SetComparison { subquery, ..comparison })))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let plan = own.data;
    let inputs = match &plan {
        LogicalPlan::Join(join) if lateral(&join.right).is_some() => {
            let inner = values.iter().filter(|(column, _)| !join.left.schema().has_column(column));
            let inner = inner.map(|(column, value)| (column.clone(), value.clone())).collect();
            let left = substitute(join.left.as_ref().clone(), values)?;
            vec![left, substitute(join.right.as_ref().clone(), &inner)?]
        }
        plan => {
            let inputs = plan.inputs().into_iter().cloned();
            inputs.map(|input| substitute(input, values)).collect::<Result<Vec<_>>>()?
        }
    };
    if let LogicalPlan::Subquery(Subquery { spans, .. }) = plan {
        let [subquery] = <[LogicalPlan; 1]>::try_from(inputs)
            .map_err(|_| datafusion::error::DataFusionError::Internal("a subquery is one plan".to_owned()))?;
        let outer_ref_columns = subquery.all_out_ref_exprs();
        return Ok(match outer_ref_columns.is_empty() {
            true => subquery,
            false => LogicalPlan::Subquery(Subquery { subquery: subquery.into(), outer_ref_columns, spans }),
        });
    }
    if inputs.is_empty() {
        return Ok(plan);
    }
    let mut inputs = inputs.into_iter();
    let plan = plan.map_children(|child| Ok(Transformed::yes(inputs.next().unwrap_or(child))))?.data;
    plan.recompute_schema()
}

fn substitute_in(subquery: Subquery, values: &HashMap<Column, ScalarValue>, schema: &DFSchema) -> Result<Subquery> {
    let inner = values.iter().filter(|(column, _)| !schema.has_column(column));
    let inner: HashMap<_, _> = inner.map(|(column, value)| (column.clone(), value.clone())).collect();
    let Subquery { subquery, spans, .. } = subquery;
    let plan = substitute(subquery.as_ref().clone(), &inner)?;
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Subquery { subquery: plan.into(), outer_ref_columns, spans })
}
