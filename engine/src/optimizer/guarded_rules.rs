//! Physical rules of DataFusion's that are passed over in plans for which they count wrong, or do less in them.
//!
//! # `LimitAggregation`
//!
//! It lets an aggregation keep the groups that a sort above it asks for:
//!
//! ```sql
//! SELECT k, count(*) OVER () FROM t GROUP BY k ORDER BY k LIMIT 2
//! ```
//!
//! It takes a window for an operator that knows of no other rows than its own; and it follows the column that is sorted by
//! from operator to operator by its name, which another column may have further down: `SELECT -k AS k … GROUP BY t.k ORDER
//! BY 1`. Of groups of groups it asks the inner ones for no more, several of which may be one group.
//!
//! # `LimitPushPastWindows`
//!
//! It lets a sort below a window keep the rows that a LIMIT asks for and those that the window looks ahead:
//!
//! ```sql
//! SELECT lag(id, -2) OVER (ORDER BY id) FROM t ORDER BY id LIMIT 2
//! ```
//!
//! `lag` is to it what looks back, whichever way its offset goes, or its order, which may have been turned around to be that
//! of the rows; and of several windows, each of which looks ahead in what the one below has found, it takes the largest
//! number and not the sum. And where such a sort has several partitions, what one of them has found tells the others which rows
//! come too late: of a group that is not to be shown at all, one that has been read may be shown without those before it.
//!
//! # `TopKRepartition`
//!
//! It sorts, and leaves out, before rows are redistributed as well as behind that. What is left are the first of all rows. But a
//! sort that keeps some because of a window has to have the first of each partition: of a group of the window the first
//! rows may be missing otherwise.
//!
//! # `aggregate_statistics`
//!
//! It takes totals from statistics. A column that is a constant, or compared with one, has one different value to it, also where
//! there are no rows, and where the constant is NULL.
//!
//! # `FilterPushdown(Post)`
//!
//! Among the filters that become known while a query runs is one of a total: of `SELECT min(a), max(b)` the scan may leave out
//! rows with neither `a < 3` nor `b > 7`, once 3 and 7 have been seen. But it does so with `a < 3` alone as long as all `b`
//! were NULL, or if it is `max(b + 1)` that is asked for. Then totals have no such filter.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::JoinType;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::WindowFrameBound;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::window::{StandardWindowExpr, WindowExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec, WindowUDFExpr};

/// Whether a plan is one for which a rule counts wrong.
type Condition = fn(&Arc<dyn ExecutionPlan>) -> Result<bool>;

/// The condition under which the rule of this name is passed over.
fn condition_of(rule: &str) -> Option<Condition> {
    Some(match rule {
        "LimitAggregation" => misjudges_groups,
        "LimitPushPastWindows" => misses_rows,
        "TopKRepartition" => has_windows,
        "aggregate_statistics" => counts_different_values,
        _ => return None,
    })
}

/// The rule, passed over where it would count wrong.
pub(super) fn guarded(
    rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
) -> Arc<dyn PhysicalOptimizerRule + Send + Sync> {
    match condition_of(rule.name()) {
        Some(counts_wrong) => Arc::new(Guarded { rule, counts_wrong }),
        None => rule,
    }
}

#[derive(Debug)]
struct Guarded {
    rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
    counts_wrong: Condition,
}

impl PhysicalOptimizerRule for Guarded {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if (self.counts_wrong)(&plan)? { Ok(plan) } else { self.rule.optimize(plan, options) }
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

/// The rule that hands down what becomes known while a query runs, without what totals do not know well enough.
pub(super) fn with_certain_bounds(
    rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
) -> Arc<dyn PhysicalOptimizerRule + Send + Sync> {
    Arc::new(CertainBounds(rule))
}

#[derive(Debug)]
struct CertainBounds(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for CertainBounds {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let is_loose = |operator: &Arc<dyn ExecutionPlan>| {
            Ok(operator.downcast_ref::<AggregateExec>().is_some_and(has_loose_bounds))
        };
        if !plan.exists(is_loose)? {
            return self.0.optimize(plan, options);
        }
        let mut without = options.clone();
        without.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        self.0.optimize(plan, &without)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether the bound of one minimum or maximum may be known before there is one of another, which it says nothing about.
fn has_loose_bounds(aggregate: &AggregateExec) -> bool {
    let functions = aggregate.aggr_expr();
    let has_bounds = aggregate.group_expr().is_empty()
        && functions.len() > 1
        && functions.iter().all(|function| matches!(function.fun().name(), "min" | "max"));
    if !has_bounds {
        return false;
    }
    let columns: Option<Vec<usize>> = functions.iter().map(|function| only_column(function)).collect();
    let Some(columns) = columns else { return true };
    let schema = aggregate.input().schema();
    let differ = columns.windows(2).any(|pair| pair[0] != pair[1]);
    aggregate.filter_expr().iter().any(Option::is_some)
        || (differ && columns.iter().any(|column| schema.field(*column).is_nullable()))
}

/// Whether DataFusion would take another column for the partner of a semi join's key. A filter on the key is one on its partner
/// as well, and is handed down to it, too; but what is looked for is a column with the key's name: of `EXISTS (SELECT 1 FROM u
/// WHERE u.b = t.a AND u.a > t.c)`, `u.a`.
pub(super) fn misnames_partner(operator: &Arc<dyn ExecutionPlan>) -> bool {
    let Some(join) = operator.downcast_ref::<HashJoinExec>() else { return false };
    let (shows_left, hidden) = match join.join_type() {
        JoinType::LeftSemi => (true, join.right()),
        JoinType::RightSemi => (false, join.left()),
        _ => return false,
    };
    let schema = hidden.schema();
    join.on().iter().any(|(left, right)| {
        let (key, partner) = if shows_left { (left, right) } else { (right, left) };
        let Some(key) = key.downcast_ref::<Column>() else { return false };
        let Ok(taken) = schema.index_of(key.name()) else { return false };
        partner.downcast_ref::<Column>().is_none_or(|partner| partner.index() != taken)
    })
}

/// The column that an aggregate is of, if it is one.
fn only_column(function: &AggregateFunctionExpr) -> Option<usize> {
    match function.expressions().as_slice() {
        [argument] => argument.downcast_ref::<Column>().map(Column::index),
        _ => None,
    }
}

/// Whether one of the plan's sorts has groups below it that its LIMIT must not reach, although the rule would hand it there.
fn misjudges_groups(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    plan.exists(|operator| match operator.downcast_ref::<SortExec>() {
        Some(sort) if sort.fetch().is_some() => hides_groups(sort.input()),
        _ => Ok(false),
    })
}

/// Goes down as the rule does, through the operators that drop no rows.
fn hides_groups(below: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut plan = below;
    // Whether all stages of an aggregation have been passed.
    let mut has_groups = false;
    loop {
        if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
            if has_groups || aggregate.group_expr().has_grouping_set() {
                return Ok(true);
            }
            has_groups = !matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned);
        } else if misleads(plan) {
            return plan.exists(|operator| Ok(operator.downcast_ref::<AggregateExec>().is_some()));
        } else if matches!(plan.cardinality_effect(), CardinalityEffect::Unknown | CardinalityEffect::LowerEqual) {
            return Ok(false);
        }
        let [input] = plan.children()[..] else { return Ok(false) };
        plan = input;
    }
}

/// Whether an operator sees other rows than its own, or gives a column a name that another one has below it.
fn misleads(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let input = projection.input().schema();
        return projection.expr().iter().any(|column| takes_a_name(column, &input));
    }
    is_window(plan) || plan.downcast_ref::<UnionExec>().is_some() || plan.downcast_ref::<InterleaveExec>().is_some()
}

/// Whether a column has the name of another one of the input.
fn takes_a_name(column: &ProjectionExpr, input: &Schema) -> bool {
    let is_itself = column.expr.downcast_ref::<Column>().is_some_and(|source| source.name() == column.alias);
    !is_itself && input.index_of(&column.alias).is_ok()
}

fn is_window(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<WindowAggExec>().is_some() || plan.downcast_ref::<BoundedWindowAggExec>().is_some()
}

fn has_windows(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    plan.exists(|operator| Ok(is_window(operator)))
}

/// Whether windows of the plan look further ahead than the rule knows, or see groups from which rows may be missing.
fn misses_rows(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut ahead = 0;
    plan.exists(|operator| {
        let Some(window) = operator.downcast_ref::<BoundedWindowAggExec>() else { return Ok(false) };
        let functions = window.window_expr();
        ahead += usize::from(functions.iter().any(looks_ahead));
        let is_spread = window.properties().output_partitioning().partition_count() > 1;
        Ok(is_spread || ahead > 1 || functions.iter().any(|function| name_of(function) == Some("lag")))
    })
}

fn looks_ahead(function: &Arc<dyn WindowExpr>) -> bool {
    matches!(function.get_window_frame().end_bound, WindowFrameBound::Following(_)) || name_of(function) == Some("lead")
}

/// The name of a window function that is no aggregate.
fn name_of(function: &Arc<dyn WindowExpr>) -> Option<&str> {
    let standard = function.as_any().downcast_ref::<StandardWindowExpr>()?;
    let function = standard.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>()?;
    Some(function.fun().name())
}

/// Whether the plan has an aggregate with DISTINCT. Nobody knows the number of a stored column's different values exactly, so
/// the rule has nothing for it but what is wrong.
fn counts_different_values(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    plan.exists(|operator| {
        let aggregate = operator.downcast_ref::<AggregateExec>();
        Ok(aggregate.is_some_and(|aggregate| aggregate.aggr_expr().iter().any(|function| function.is_distinct())))
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use datafusion::physical_expr::expressions::{NegativeExpr, col};
    use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

    use super::*;

    #[test]
    fn each_guarded_rule_is_one_that_there_is() {
        let guarded = PhysicalOptimizer::new().rules.iter().filter(|rule| condition_of(rule.name()).is_some()).count();
        assert_eq!(guarded, 4);
    }

    #[test]
    fn a_column_with_the_name_of_another_one_is_noticed() {
        let fields: Vec<Field> = ["a", "b"].map(|name| Field::new(name, DataType::Int32, true)).into();
        let schema = Schema::new(fields);
        let a = || col("a", &schema).unwrap();
        let named = |expr, alias: &str| takes_a_name(&ProjectionExpr { expr, alias: alias.to_owned() }, &schema);
        assert!(!named(a(), "a") && !named(a(), "c") && !named(Arc::new(NegativeExpr::new(a())), "c"));
        assert!(named(a(), "b") && named(Arc::new(NegativeExpr::new(a())), "a"));
    }
}
