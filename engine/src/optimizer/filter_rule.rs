//! DataFusion's rule that hands filters down on the logical plan, except below an aggregation that has a row for no rows.
//!
//! It hands a condition below an aggregation if all of its columns are grouped by, and so does it with one that has no
//! columns: `HAVING (SELECT max(y) FROM b) > 5`. Below, that leaves no rows to count, and a count of 0 instead of no row.

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Expr, Filter, LogicalPlan};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::dependency_rule::ask_for_what_holds;
use super::equal_nulls_rule::keep_nulls_apart;
use super::recursive_rule::RecursiveColumns;

/// DataFusion's rule, with an exception.
#[derive(Debug, Default)]
struct FiltersAboveTotals(PushDownFilter);

impl OptimizerRule for FiltersAboveTotals {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Filter(filter) if decides_a_total(filter) => Ok(Transformed::no(plan)),
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// Whether a condition without columns stands above a total. Conditions in between, as of HAVING, it would join on its way.
fn decides_a_total(filter: &Filter) -> bool {
    let mut has_no_columns = false;
    let mut filter = filter;
    loop {
        has_no_columns |= split_conjunction(&filter.predicate).iter().any(|part| part.column_refs().is_empty());
        match filter.input.as_ref() {
            LogicalPlan::Filter(below) => filter = below,
            LogicalPlan::Aggregate(aggregate) => return has_no_columns && has_total(aggregate),
            _ => return false,
        }
    }
}

/// Whether there is a row for no rows.
fn has_total(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.is_empty() || matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)])
}

/// The logical rules, in order.
pub(crate) fn logical_rules(optimizer: &mut Optimizer) {
    for rule in &mut optimizer.rules {
        if rule.name() == "push_down_filter" {
            *rule = std::sync::Arc::new(FiltersAboveTotals::default());
        }
    }
    keep_nulls_apart(&mut optimizer.rules);
    ask_for_what_holds(&mut optimizer.rules);
    optimizer.rules.push(std::sync::Arc::new(RecursiveColumns));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_where_it_is_looked_for() {
        assert!(Optimizer::new().rules.iter().any(|rule| rule.name() == "push_down_filter"));
    }
}
