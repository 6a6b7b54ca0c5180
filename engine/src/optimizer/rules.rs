//! Which of DataFusion's rules run, and with which options.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;

use super::aggregate_rule::DirectAggregate;
use super::cooperative_rule::CooperativeJoins;
use super::decimal_rule::NarrowDecimals;
use super::early_rule::EarlyAggregate;
use super::join_rule::JoinOrder;
use super::key_rule::ShareJoinKeys;
use super::offset_rule::PlainOffsets;
use super::once_rule::GroupOnce;
use super::plain_rows_rule::PlainRows;

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
/// wrong column, and rows are lost (`it::join_order` finds such queries). So a plan with a name twice in one schema goes without.
#[derive(Debug)]
struct DynamicFilters(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for DynamicFilters {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if is_ambiguous(&plan)? { Ok(plan) } else { self.0.optimize(plan, options) }
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
/// r.v` became `l.v IS DISTINCT FROM l.v`. So it is applied below the operators with a name twice; what lies above them
/// was handed down before, on the logical plan, where columns have their table's name.
#[derive(Debug)]
struct Filters(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

/// Whether an operator of the plan has a name twice.
fn is_ambiguous(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    plan.exists(|operator| {
        let schema = operator.schema();
        let mut names = HashSet::new();
        Ok(!schema.fields().iter().all(|field| names.insert(field.name())))
    })
}

impl PhysicalOptimizerRule for Filters {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !is_ambiguous(&plan)? {
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
                    joins as _,
                    Arc::new(DynamicFilters(rule)) as _,
                    Arc::new(ShareJoinKeys) as _,
                ])
            }
            _ => rules.push(rule),
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
    use super::*;

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
