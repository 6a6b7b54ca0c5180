//! The rules by which no operator is left out for a dependency that does not hold ([`super::dependencies`]).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Sort, SortExpr};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{AnalyzerRule, OptimizerConfig, OptimizerRule};

use super::dependencies::{may_be_wrong, with_certain_dependencies};

/// DataFusion's rules that ask for dependencies.
const ASKING: [&str; 4] =
    ["replace_distinct_aggregate", "eliminate_join", "eliminate_duplicated_expr", "optimize_projections"];

/// Finds the dependencies of all operators again.
#[derive(Debug)]
pub(crate) struct CertainDependencies;

impl AnalyzerRule for CertainDependencies {
    fn name(&self) -> &str {
        "certain_dependencies"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> Result<LogicalPlan> {
        with_certain_dependencies(plan).map(|plan| plan.data)
    }
}

impl OptimizerRule for CertainDependencies {
    fn name(&self) -> &str {
        "certain_dependencies"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match may_be_wrong(&plan)? {
            true => with_certain_dependencies(plan),
            false => Ok(Transformed::no(plan)),
        }
    }
}

/// Leaves out keys of ORDER BY and GROUP BY that say nothing new, also of the ORDER BY in aggregates, in the place of
/// DataFusion's rule of this name. That one goes by names, in which casts are not seen: of `ORDER BY t::int, v` with the key
/// `t`, `v` was left out.
#[derive(Debug)]
struct DuplicatedKeys;

impl OptimizerRule for DuplicatedKeys {
    fn name(&self) -> &str {
        "eliminate_duplicated_expr"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Sort(sort) => Ok(without_decided_keys(sort)),
            LogicalPlan::Aggregate(aggregate) => without_repeated_keys(aggregate),
            plan => Ok(Transformed::no(plan)),
        }
    }
}

fn without_decided_keys(Sort { expr, input, fetch }: Sort) -> Transformed<LogicalPlan> {
    let schema = input.schema();
    let known = schema.functional_dependencies();
    let before = expr.len();
    let mut kept: Vec<SortExpr> = Vec::with_capacity(before);
    let mut columns: Vec<usize> = Vec::with_capacity(before);
    for key in expr {
        if kept.iter().any(|earlier| earlier.expr == key.expr) {
            continue;
        }
        if let Some(column) = key.expr.try_as_col().and_then(|column| schema.maybe_index_of_column(column)) {
            let is_decided = known.iter().any(|known| {
                !known.source_indices.is_empty()
                    && known.source_indices.iter().all(|source| columns.contains(source))
                    && known.target_indices.contains(&column)
            });
            if is_decided {
                continue;
            }
            columns.push(column);
        }
        kept.push(key);
    }
    let changed = kept.len() < before;
    let plan = LogicalPlan::Sort(Sort { expr: kept, input, fetch });
    if changed { Transformed::yes(plan) } else { Transformed::no(plan) }
}

fn without_repeated_keys(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let mut kept: Vec<Expr> = Vec::with_capacity(aggregate.group_expr.len());
    for key in &aggregate.group_expr {
        if !kept.contains(key) {
            kept.push(key.clone());
        }
    }
    let repeats = kept.len() < aggregate.group_expr.len();
    let mut aggregates = Vec::with_capacity(aggregate.aggr_expr.len());
    let mut repeats_order = false;
    for expr in &aggregate.aggr_expr {
        let is_ordered = expr.exists(|part| {
            Ok(matches!(part, Expr::AggregateFunction(function) if function.params.order_by.len() > 1))
        })?;
        if is_ordered {
            let ordered = without_repeated_order(expr.clone())?;
            repeats_order |= ordered.transformed;
            aggregates.push(ordered.data);
        } else {
            aggregates.push(expr.clone());
        }
    }
    if !repeats && !repeats_order {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let aggregate = Aggregate::try_new(aggregate.input, kept, aggregates)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// Leaves out keys of the order that an aggregate takes its rows in, called as before. DataFusion does so when it makes the
/// aggregate's state of them, and not when it counts them: that of `array_agg(x ORDER BY y, y DESC)` is not what is announced.
fn without_repeated_order(expr: Expr) -> Result<Transformed<Expr>> {
    let name = NamePreserver::new_for_projection().save(&expr);
    let ordered = expr.transform_up(|part| match part {
        Expr::AggregateFunction(mut function) => {
            let order = &mut function.params.order_by;
            let before = order.len();
            let mut kept: Vec<SortExpr> = Vec::with_capacity(before);
            for key in order.drain(..) {
                if !kept.iter().any(|earlier| earlier.expr == key.expr) {
                    kept.push(key);
                }
            }
            let changed = kept.len() < before;
            *order = kept;
            Ok(Transformed::new_transformed(Expr::AggregateFunction(function), changed))
        }
        part => Ok(Transformed::no(part)),
    })?;
    Ok(match ordered.transformed {
        true => ordered.update_data(|expr| name.restore(expr)),
        false => ordered,
    })
}

/// Puts these rules among DataFusion's.
pub(super) fn ask_for_what_holds(rules: &mut Vec<Arc<dyn OptimizerRule + Send + Sync>>) {
    for rule in std::mem::take(rules) {
        if ASKING.contains(&rule.name()) {
            rules.push(Arc::new(CertainDependencies));
        }
        rules.push(if rule.name() == DuplicatedKeys.name() { Arc::new(DuplicatedKeys) } else { rule });
    }
}

#[cfg(test)]
mod tests {
    use datafusion::optimizer::Optimizer;

    use super::*;

    #[test]
    fn whoever_asks_is_told_before() {
        let mut rules = Optimizer::new().rules;
        ask_for_what_holds(&mut rules);
        for name in ASKING {
            let place = rules.iter().position(|rule| rule.name() == name).expect(name);
            assert_eq!(rules[place - 1].name(), OptimizerRule::name(&CertainDependencies), "{name}");
        }
    }
}
