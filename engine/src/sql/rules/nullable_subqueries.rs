//! Values that are NULL because a subquery has no row: an analyser rule.
//!
//! To DataFusion `(SELECT k FROM t WHERE …)` may be NULL if the column `k` may; and so it computes with what is NULL only
//! where nothing is found: `… IS NULL` is false, `coalesce(…, 0)` is its first argument, `NOT IN` an anti join that minds no
//! NULLs. So a subquery that may have no row gets a column that may be NULL:
//!
//! | the subquery | becomes |
//! |---|---|
//! | knows nothing of the outer row | `(SELECT maybe_none(k) FROM t WHERE …)` |
//! | depends on it | `maybe_none((SELECT k FROM t WHERE …))`; inside, DataFusion pulls conditions up through operators as they are |
//!
//! The rule stands behind those that write other subqueries, and sees to it that what is above them knows: the queries
//! around, unions (which decide it once and for all when they are planned), and references from further in. Of these
//! DataFusion also takes a LATERAL item's to a column of an outer join's side for what the column is in its table.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, Subquery, Volatility};
use datafusion::optimizer::AnalyzerRule;

use super::opaque_values::maybe_none;
use super::rewriting::{any_node, any_part, from_inputs, map_parts};

/// The rule.
#[derive(Debug)]
pub(crate) struct NullableSubqueries {
    /// Inside of a subquery, where a constant must not be found out to be one.
    inside: Arc<ScalarUDF>,
    around: Arc<ScalarUDF>,
}

impl Default for NullableSubqueries {
    fn default() -> Self {
        let (inside, around) = (maybe_none(Volatility::Volatile), maybe_none(Volatility::Immutable));
        NullableSubqueries { inside: Arc::new(inside), around: Arc::new(around) }
    }
}

impl AnalyzerRule for NullableSubqueries {
    fn name(&self) -> &str {
        "nullable_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let is_meant = any_node(&plan, |node| match node {
            LogicalPlan::Join(join) if is_lateral(&join.right) => Ok(true),
            node => any_part(node, |part| matches!(part, Expr::ScalarSubquery(_))),
        })?;
        match is_meant {
            true => self.look_again(plan, &mut false),
            false => Ok(plan),
        }
    }
}

impl NullableSubqueries {
    /// The plan with its subqueries rewritten, and the schemas that follow. Once one has `changed`, all that is above must know.
    fn look_again(&self, plan: LogicalPlan, changed: &mut bool) -> DataFusionResult<LogicalPlan> {
        let rewritten = plan.transform_up(|node| {
            let node = self.lateral(node, changed)?;
            let schema = merge_schema(&node.inputs());
            let node = map_parts(node, |part| self.rewrite(part, &schema, changed))?;
            if !node.transformed && !*changed {
                return Ok(node);
            }
            let before = Arc::clone(node.data.schema());
            let node = from_inputs(node.data)?;
            *changed |= *node.schema() != before;
            Ok(Transformed::yes(node))
        });
        rewritten.map(|plan| plan.data)
    }

    /// A join whose right side refers to the left one, with what the left side knows of its columns.
    fn lateral(&self, node: LogicalPlan, changed: &mut bool) -> DataFusionResult<LogicalPlan> {
        match node {
            LogicalPlan::Join(mut join) if is_lateral(&join.right) => {
                let right = loosened(join.right.as_ref().clone(), join.left.schema())?;
                if right.transformed {
                    *changed = true;
                    join.right = Arc::new(self.look_again(right.data, changed)?);
                }
                Ok(LogicalPlan::Join(join))
            }
            node => Ok(node),
        }
    }

    fn rewrite(&self, part: Expr, schema: &DFSchema, changed: &mut bool) -> DataFusionResult<Transformed<Expr>> {
        match part {
            Expr::ScalarSubquery(subquery) => {
                let subquery = self.known_outside(subquery, schema, changed)?;
                self.maybe_none(subquery).map(Transformed::yes)
            }
            Expr::Exists(Exists { subquery, negated }) => {
                let subquery = self.known_outside(subquery, schema, changed)?;
                Ok(Transformed::yes(Expr::Exists(Exists { subquery, negated })))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let subquery = self.known_outside(subquery, schema, changed)?;
                Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated })))
            }
            Expr::SetComparison(comparison) => {
                let subquery = self.known_outside(comparison.subquery, schema, changed)?;
                Ok(Transformed::yes(Expr::SetComparison(SetComparison { subquery, ..comparison })))
            }
            Expr::ScalarFunction(call) => {
                // A plan may be analysed again, as part of a larger one.
                let once = match call.args.as_slice() {
                    [Expr::ScalarFunction(within)] if call.func == self.around && within.func == self.around => {
                        Some(within.clone())
                    }
                    _ => None,
                };
                Ok(match once {
                    Some(once) => Transformed::yes(Expr::ScalarFunction(once)),
                    None => Transformed::no(Expr::ScalarFunction(call)),
                })
            }
            part => Ok(Transformed::no(part)),
        }
    }

    /// A subquery that knows of the columns of `schema`, its outer query's, whether they may be NULL.
    fn known_outside(&self, subquery: Subquery, schema: &DFSchema, changed: &mut bool) -> DataFusionResult<Subquery> {
        let subquery = loosened(LogicalPlan::Subquery(subquery), schema)?;
        *changed |= subquery.transformed;
        let LogicalPlan::Subquery(Subquery { subquery, outer_ref_columns, spans }) = subquery.data else {
            return internal_err!("a subquery is one whatever it refers to");
        };
        let plan = self.look_again(Arc::unwrap_or_clone(subquery), changed)?;
        Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans })
    }

    /// The value of a subquery that may have no row.
    fn maybe_none(&self, subquery: Subquery) -> DataFusionResult<Expr> {
        let plan = &subquery.subquery;
        let (relation, field) = plan.schema().qualified_field(0);
        if field.is_nullable() || gives_one_row(plan) {
            return Ok(Expr::ScalarSubquery(subquery));
        }
        if !subquery.outer_ref_columns.is_empty() {
            return Ok(self.around.call(vec![Expr::ScalarSubquery(subquery)]));
        }
        let column = Expr::Column(Column::new(relation.cloned(), field.name()));
        let value = self.inside.call(vec![column]).alias_qualified(relation.cloned(), field.name());
        let plan = LogicalPlanBuilder::from(plan.as_ref().clone()).project([value])?.build()?;
        Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), ..subquery }))
    }
}

/// Whether it is an aggregate of all rows, and nothing that drops its row.
fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(node) => gives_one_row(&node.input),
        LogicalPlan::SubqueryAlias(node) => gives_one_row(&node.input),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

fn is_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Subquery(_) => true,
        LogicalPlan::SubqueryAlias(alias) => is_lateral(&alias.input),
        _ => false,
    }
}

/// The plan whose references to columns outside say that these may be NULL where the outer query's schema does.
fn loosened(plan: LogicalPlan, outside: &DFSchema) -> DataFusionResult<Transformed<LogicalPlan>> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Subquery(Subquery { subquery, outer_ref_columns, spans }) => {
            let mut changed = false;
            let mut columns = Vec::with_capacity(outer_ref_columns.len());
            for column in outer_ref_columns {
                let column = column.transform_up(|part| Ok(loosened_reference(part, outside)))?;
                changed |= column.transformed;
                columns.push(column.data);
            }
            let subquery = Subquery { subquery, outer_ref_columns: columns, spans };
            Ok(Transformed::new_transformed(LogicalPlan::Subquery(subquery), changed))
        }
        node => map_parts(node, |part| Ok(loosened_reference(part, outside))),
    })
}

fn loosened_reference(part: Expr, outside: &DFSchema) -> Transformed<Expr> {
    let is_nullable =
        |column: &Column| outside.maybe_index_of_column(column).is_some_and(|place| outside.field(place).is_nullable());
    match part {
        Expr::OuterReferenceColumn(field, column) if !field.is_nullable() && is_nullable(&column) => {
            let field = Arc::new(field.as_ref().clone().with_nullable(true));
            Transformed::yes(Expr::OuterReferenceColumn(field, column))
        }
        part => Transformed::no(part),
    }
}
