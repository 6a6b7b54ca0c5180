//! ORDER BY with subqueries: an analyser rule that computes them as columns first, below the sort, where DataFusion knows how.
//!
//! ```text
//! Projection: a                             Projection: a
//!   Sort: a IN (subquery)            ──►      Sort: key
//!     Projection: a                             Projection: a, a IN (subquery) AS key
//!       TableScan: t                              TableScan: t
//! ```
//!
//! A subquery may depend on columns that the query does not show. So the keys are computed beside what it shows, out of the
//! rows below.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::Sort as SortExpr;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, Sort, Subquery};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::{any_node, any_part};

/// What the column of a key is called, before its number.
const KEY: &str = "__rustydb_sort_";

/// The rule.
#[derive(Debug)]
pub(crate) struct SortedSubqueries;

impl AnalyzerRule for SortedSubqueries {
    fn name(&self) -> &str {
        "sorted_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> Result<LogicalPlan> {
        if !any_node(&plan, sorts_by_subquery)? {
            return Ok(plan);
        }
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let is_meant = sorts_by_subquery(&node)?;
            match node {
                LogicalPlan::Sort(sort) if is_meant => Ok(Transformed::yes(sort_by_columns(sort)?)),
                node => Ok(Transformed::no(node)),
            }
        });
        rewritten.map(|plan| plan.data)
    }
}

fn sorts_by_subquery(node: &LogicalPlan) -> Result<bool> {
    match node {
        LogicalPlan::Sort(_) => any_part(node, |part| subquery_in(part).is_some()),
        _ => Ok(false),
    }
}

fn subquery_in(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(within) => Some(&within.subquery),
        Expr::ScalarSubquery(subquery) => Some(subquery),
        Expr::SetComparison(comparison) => Some(&comparison.subquery),
        _ => None,
    }
}

fn sort_by_columns(sort: Sort) -> Result<LogicalPlan> {
    let Sort { expr, input, fetch } = sort;
    let shown: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let (mut computed, mut keys) = (Vec::new(), Vec::with_capacity(expr.len()));
    for key in expr {
        if !key.expr.exists(|part| Ok(subquery_in(part).is_some()))? {
            keys.push(key);
            continue;
        }
        let name = format!("{KEY}{}", computed.len());
        keys.push(SortExpr { expr: Expr::Column(Column::from_name(name.clone())), ..key });
        computed.push(key.expr.alias(name));
    }
    let below = match input.as_ref() {
        LogicalPlan::Projection(projection) => below_projection(projection, &computed)?,
        _ => None,
    };
    let with_keys = match below {
        Some((columns, input)) => LogicalPlanBuilder::from(input).project(columns)?,
        None => LogicalPlanBuilder::from(Arc::unwrap_or_clone(input)).project(shown.iter().cloned().chain(computed))?,
    };
    // All that the rows are sorted by is there under the name it had: not to be looked for once more.
    let sorted = LogicalPlan::Sort(Sort { expr: keys, input: Arc::new(with_keys.build()?), fetch });
    LogicalPlanBuilder::from(sorted).project(shown)?.build()
}

/// The columns of a projection with those of the keys, and what they are computed from; `None` if the keys are about nothing
/// but what the projection shows, or there is something else that they need.
fn below_projection(projection: &Projection, computed: &[Expr]) -> Result<Option<(Vec<Expr>, LogicalPlan)>> {
    let (above, below) = (&projection.schema, projection.input.schema());
    let mut columns = projection.expr.clone();
    let mut needed = Vec::new();
    for key in computed {
        collect_columns(key, &mut needed)?;
    }
    if has_all(above, &needed) {
        return Ok(None);
    }
    let mut needed = Vec::new();
    for key in computed {
        let key = key.clone().transform_up(|part| match part {
            Expr::Column(column) if !below.has_column(&column) => {
                let place = above.maybe_index_of_column(&column);
                Ok(match place.and_then(|place| projection.expr.get(place)) {
                    Some(shown) => Transformed::yes(shown.clone().unalias()),
                    None => Transformed::no(Expr::Column(column)),
                })
            }
            part => Ok(Transformed::no(part)),
        })?;
        collect_columns(&key.data, &mut needed)?;
        columns.push(key.data);
    }
    Ok(has_all(below, &needed).then(|| (columns, projection.input.as_ref().clone())))
}

fn has_all(schema: &DFSchema, columns: &[Column]) -> bool {
    columns.iter().all(|column| schema.has_column(column))
}

/// The columns that an expression and the subqueries in it need.
fn collect_columns(expr: &Expr, columns: &mut Vec<Column>) -> Result<()> {
    expr.apply(|part| {
        if let Expr::Column(column) = part {
            columns.push(column.clone());
        }
        let outer = subquery_in(part).into_iter().flat_map(|subquery| &subquery.outer_ref_columns);
        columns.extend(outer.filter_map(|outer| match outer {
            Expr::OuterReferenceColumn(_, column) => Some(column.clone()),
            _ => None,
        }));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}
