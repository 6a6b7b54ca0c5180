//! DataFusion's rules about the keys of joins, kept from those to which NULL equals NULL.
//!
//! Of `a.x IS NOT DISTINCT FROM b.x` DataFusion makes a key of a join that takes NULL for equal to NULL. That is a setting of
//! the join, for all of its keys, and two rules forget it:
//!
//! ```sql
//! SELECT * FROM a JOIN b ON a.x IS NOT DISTINCT FROM b.x WHERE a.y = b.y
//! ```
//!
//! A condition that comes down to such a join is made one more key of it, so that NULLs in `y` are equal, too. It stays a
//! condition.
//!
//! ```sql
//! SELECT * FROM a JOIN b ON a.y = b.y JOIN c ON a.x IS NOT DISTINCT FROM c.x
//! ```
//!
//! Inner joins that touch each other are taken apart and put together again, all with the setting of the topmost. A plan
//! with such a join goes without that: conditions find their joins also when they are handed down, and the order of joins is
//! found later ([`super::join_rule`]).

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::{Join, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::sql::rules::rewriting::any_node;

/// DataFusion's rule that makes keys of conditions, where no key takes NULLs for equal yet.
#[derive(Debug)]
struct PlainKeys(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for PlainKeys {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Join(join) if equals_nulls(join) => Ok(Transformed::no(plan)),
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// DataFusion's rule that takes inner joins apart, for plans in which all of them have one setting.
#[derive(Debug)]
struct PlainJoins(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for PlainJoins {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let is_so = |node: &LogicalPlan| {
            Ok(matches!(node, LogicalPlan::Join(join) if join.join_type == JoinType::Inner && equals_nulls(join)))
        };
        match any_node(&plan, is_so)? {
            true => Ok(Transformed::no(plan)),
            false => self.0.rewrite(plan, config),
        }
    }
}

fn equals_nulls(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

/// Puts these rules in the places of DataFusion's.
pub(super) fn keep_nulls_apart(rules: &mut [Arc<dyn OptimizerRule + Send + Sync>]) {
    for rule in rules {
        match rule.name() {
            "extract_equijoin_predicate" => *rule = Arc::new(PlainKeys(Arc::clone(rule))),
            "eliminate_cross_join" => *rule = Arc::new(PlainJoins(Arc::clone(rule))),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::optimizer::Optimizer;

    #[test]
    fn the_rules_are_where_they_are_looked_for() {
        let rules = Optimizer::new().rules;
        for name in ["extract_equijoin_predicate", "eliminate_cross_join"] {
            assert!(rules.iter().any(|rule| rule.name() == name), "{name}");
        }
    }
}
