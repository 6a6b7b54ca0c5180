//! Which of DataFusion's rules run, and with which options.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;

use super::aggregate_rule::DirectAggregate;
use super::cooperative_rule::CooperativeJoins;
use super::decimal_rule::NarrowDecimals;
use super::early_rule::EarlyAggregate;
use super::guarded_rules::{guarded, misnames_partner, with_certain_bounds};
use super::join_rule::JoinOrder;
use super::key_rule::ShareJoinKeys;
use super::lazy_rule::SpareRows;
use super::offset_rule::PlainOffsets;
use super::once_rule::GroupOnce;
use super::plain_rows_rule::PlainRows;
use super::single_rows_rule::SingleRows;

/// A build side becomes an array indexed by key if it fills at least this share of the range of its keys. Rows come in key
/// order from most tables, so that even a thinly filled array is walked, not jumped around in; but it has to be cleared
/// first, by one thread, and scans have dropped most rows without a partner before they look into it
/// ([`crate::operators::join_keys`]).
const ARRAY_JOIN_DENSITY: f64 = 0.05;

/// Sets the options our plans rely on.
pub(crate) fn configure(options: &mut ConfigOptions) {
    options.execution.perfect_hash_join_min_key_density = ARRAY_JOIN_DENSITY;
    // Scans spread over the threads by themselves; redistributing what is too small for that costs more than it gains.
    options.optimizer.enable_round_robin_repartition = false;
}

/// DataFusion's rule that hands dynamic filters down to the scans, for plans in which it is safe. DataFusion 55 finds a
/// filter's column in an operator's input by name; a join of a table with itself has names twice, the filter reaches the
/// wrong column, and rows are lost (`it::join_order` finds such queries). So a plan with a name twice in one schema goes without,
/// and so does one in which a filter would [get large](is_multiplied) on its way.
#[derive(Debug)]
struct DynamicFilters(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for DynamicFilters {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if is_ambiguous(&plan)? || is_multiplied(&plan)? { Ok(plan) } else { self.0.optimize(plan, options) }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// DataFusion's rule that hands filters down through operators, on the parts of a plan in which it is safe. It finds a
/// filter's columns in an operator's input by name, too: over a join whose sides both have a `v`, `l.v IS DISTINCT FROM
/// r.v` became `l.v IS DISTINCT FROM l.v`. So it is applied below the operators with a name twice, or with a column that is
/// [multiplied](is_multiplied); what lies above them was handed down before, on the logical plan, where columns have their
/// table's name.
#[derive(Debug)]
struct Filters(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

/// Whether an operator of the plan has a name twice, or takes a column for [another one](misnames_partner) by its name.
fn is_ambiguous(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    plan.exists(|operator| {
        let schema = operator.schema();
        let mut names = HashSet::new();
        Ok(misnames_partner(operator) || !schema.fields().iter().all(|field| names.insert(field.name())))
    })
}

/// The expressions that a column or a condition may be where it is written out down to the leaves of the plan. Handing down
/// some thousands takes seconds.
const WRITTEN_OUT_MAX: usize = 1_000;

/// Whether a column or a condition would be a very large expression where what its columns are computed from stands in their
/// place, and so on: each projection of `SELECT a + a AS a FROM (SELECT a + a AS a FROM (…))` doubles it. That is what becomes
/// of a filter that is handed down through projections.
fn is_multiplied(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut written_out = WrittenOut { sizes: Vec::new(), written: 0, is_large: false };
    plan.visit(&mut written_out)?;
    Ok(written_out.is_large)
}

/// How large expressions get.
struct WrittenOut {
    /// The columns of operators that have been visited and are not yet the input of one.
    sizes: Vec<Vec<usize>>,
    /// All expressions that have been seen, as they stand in the plan. What is larger is there several times.
    written: usize,
    is_large: bool,
}

impl WrittenOut {
    /// The size of an expression over columns of these sizes.
    fn size(&mut self, expr: &Arc<dyn PhysicalExpr>, columns: &[usize]) -> Result<usize> {
        self.written = self.written.saturating_add(size_over(expr, &[])?);
        let size = size_over(expr, columns)?;
        self.is_large |= size > WRITTEN_OUT_MAX.max(self.written);
        Ok(size)
    }
}

impl<'n> TreeNodeVisitor<'n> for WrittenOut {
    type Node = Arc<dyn ExecutionPlan>;

    fn f_up(&mut self, plan: &'n Self::Node) -> Result<TreeNodeRecursion> {
        let inputs = self.sizes.split_off(self.sizes.len().saturating_sub(plan.children().len()));
        if let (Some(filter), [input]) = (plan.downcast_ref::<FilterExec>(), inputs.as_slice()) {
            self.size(filter.predicate(), input)?;
        }
        let sizes = match (plan.downcast_ref::<ProjectionExec>(), inputs.as_slice()) {
            (Some(projection), [input]) => {
                let sizes = projection.expr().iter().map(|column| self.size(&column.expr, input));
                sizes.collect::<Result<Vec<_>>>()?
            }
            // A filter, say, whose columns are those of its input.
            (None, [input]) if plan.children().first().is_some_and(|child| child.schema() == plan.schema()) => {
                input.clone()
            }
            _ => {
                let largest = inputs.iter().flatten().copied().max().unwrap_or(1);
                vec![largest; plan.schema().fields().len()]
            }
        };
        self.sizes.push(sizes);
        Ok(if self.is_large { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    }
}

/// The expressions in one whose columns are of these sizes, or of one each.
fn size_over(expr: &Arc<dyn PhysicalExpr>, columns: &[usize]) -> Result<usize> {
    let mut size = 0_usize;
    expr.apply(|part| {
        let own = part.downcast_ref::<Column>().and_then(|column| columns.get(column.index()).copied());
        size = size.saturating_add(own.unwrap_or(1));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(size)
}

impl PhysicalOptimizerRule for Filters {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !is_ambiguous(&plan)? && !is_multiplied(&plan)? {
            return self.0.optimize(plan, options);
        }
        let inputs: Vec<_> = plan.children().into_iter().cloned().collect();
        let inputs = inputs.into_iter().map(|input| self.optimize(input, options)).collect::<Result<Vec<_>>>()?;
        replace_children_if_necessary(plan, inputs)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// The physical rules, in order.
pub(crate) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = Vec::new();
    for rule in PhysicalOptimizer::new().rules {
        match rule.name() {
            "join_selection" => rules.push(Arc::new(JoinOrder)),
            // Before this rule aggregations still stand as they were planned: two stages, nothing in between.
            "EnsureRequirements" => rules.extend([
                Arc::new(EarlyAggregate) as _,
                Arc::new(DirectAggregate) as _,
                Arc::new(PlainRows) as _,
                Arc::new(SingleRows) as _,
                Arc::new(PlainOffsets) as _,
                rule,
            ]),
            "FilterPushdown" => rules.push(Arc::new(Filters(rule))),
            // After all rules that compare or move expressions.
            "FilterPushdown(Post)" => {
                let joins = Arc::new(CooperativeJoins);
                rules.extend([
                    Arc::new(GroupOnce) as _,
                    Arc::new(NarrowDecimals) as _,
                    Arc::new(SpareRows) as _,
                    joins as _,
                    Arc::new(DynamicFilters(with_certain_bounds(rule))) as _,
                    Arc::new(ShareJoinKeys) as _,
                ])
            }
            _ => rules.push(guarded(rule)),
        }
    }
    rules
}

/// The first of the rules that tie operators of one execution together: those from here on connect dynamic filters with
/// the scans that will apply them, and check the result. A plan that is kept for later stops before them.
pub(crate) fn first_late_rule(rules: &[Arc<dyn PhysicalOptimizerRule + Send + Sync>]) -> usize {
    rules.iter().rposition(|rule| rule.name().starts_with("FilterPushdown")).unwrap_or(rules.len())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col};
    use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;

    use super::*;

    #[test]
    fn a_column_that_each_projection_doubles_is_found() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
        let mut plan: Arc<dyn ExecutionPlan> = Arc::new(PlaceholderRowExec::new(schema));
        let mut found = Vec::new();
        for _ in 0..20 {
            let schema = plan.schema();
            let a = || col("a", &schema).unwrap();
            let sum = binary(a(), Operator::Plus, a(), &schema).unwrap();
            plan = Arc::new(ProjectionExec::try_new(vec![(sum, "a".to_owned())], plan).unwrap());
            found.push(is_multiplied(&plan).unwrap());
        }
        assert_eq!(found.iter().position(|is_large| *is_large), Some(8));
        assert!(found[8..].iter().all(|is_large| *is_large));
    }

    #[test]
    fn our_rules_stand_where_they_belong() {
        let rules = physical_rules();
        let place = |name: &str| rules.iter().position(|rule| rule.name() == name).expect(name);
        assert!(place("join_order") < place("early_aggregate"));
        assert!(place("early_aggregate") < place("direct_aggregate"));
        assert!(place("direct_aggregate") < place("plain_rows"));
        assert!(place("plain_rows") < place("EnsureRequirements"));
        assert_eq!(place("plain_offsets") + 1, place("EnsureRequirements"));
        let late: Vec<&str> = rules[first_late_rule(&rules)..].iter().map(|rule| rule.name()).collect();
        assert_eq!(
            late,
            ["FilterPushdown(Post)", "share_join_keys", "SanityCheckPlan"],
            "the plan cache counts on these and no others"
        );
    }
}
