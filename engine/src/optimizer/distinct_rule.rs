//! DataFusion's rule that makes groups of groups of `count(DISTINCT x) … GROUP BY a`, except where its names are taken.
//!
//! It calls the values `alias1`, other aggregates `alias2` and so on, and the keys that are no columns `group_alias_0`. A column
//! of such a name that is grouped by is then there twice, and a query that has nothing wrong with it fails with 42702. Without
//! the rule each group keeps its values, which is slower, and right.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// The rule, by DataFusion's name of it.
const RULE: &str = "single_distinct_aggregation_to_group_by";

/// What its names begin with, before a number.
const PREFIXES: [&str; 2] = ["alias", "group_alias_"];

/// DataFusion's rule, with exceptions.
#[derive(Debug)]
struct GroupsOfGroups(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for GroupsOfGroups {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Aggregate(aggregate) if takes_its_names(aggregate) => Ok(Transformed::no(plan)),
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// Whether a column is grouped by that the rule may give its name to another.
fn takes_its_names(aggregate: &Aggregate) -> bool {
    let is_taken = |key: &Expr| match key {
        Expr::Column(column) => PREFIXES.iter().any(|prefix| {
            let number = column.name.strip_prefix(prefix);
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
        }),
        _ => false,
    };
    aggregate.group_expr.iter().any(is_taken)
}

/// Puts this rule in the place of DataFusion's.
pub(super) fn keep_names_apart(rules: &mut [Arc<dyn OptimizerRule + Send + Sync>]) {
    for rule in rules {
        if rule.name() == RULE {
            *rule = Arc::new(GroupsOfGroups(Arc::clone(rule)));
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::functions_aggregate::expr_fn::count_distinct;
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
    use datafusion::optimizer::{Optimizer, OptimizerContext};

    use super::*;

    /// Whether the rule makes groups of groups of it.
    fn is_rewritten(key: &str) -> bool {
        let mut rules = Optimizer::new().rules;
        keep_names_apart(&mut rules);
        let rule = rules.iter().find(|rule| rule.name() == RULE).unwrap();
        let values = LogicalPlanBuilder::values(vec![vec![lit(1), lit(2)]]).unwrap();
        let rows = values.project(vec![col("column1").alias(key), col("column2").alias("x")]).unwrap();
        let plan = rows.aggregate(vec![col(key)], vec![count_distinct(col("x"))]).unwrap().build().unwrap();
        rule.rewrite(plan, &OptimizerContext::new()).unwrap().transformed
    }

    #[test]
    fn a_key_keeps_its_name_to_itself() {
        for (key, expected) in
            [("a", true), ("alias", true), ("alias1b", true), ("alias1", false), ("group_alias_0", false)]
        {
            assert_eq!(is_rewritten(key), expected, "{key}");
        }
    }
}
