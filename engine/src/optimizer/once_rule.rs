//! Spares aggregations that would group the same rows again.
//!
//! DataFusion aggregates in two stages: each partition groups what it reads, the groups are redistributed by a hash of their
//! columns, and grouped once more. Two cases are better off with less:
//!
//! ```text
//!  count(DISTINCT x) … GROUP BY a          the same, rows nearly all different
//!
//!  Final      a                            Aggregate a             (whole groups: one stage)
//!   └ Hash(a)                               └ Aggregate a, x       (likewise)
//!      └ Partial a                             └ Hash(a)
//!         └ Final      a, x
//!            └ Hash(a, x)
//!               └ Partial a, x
//! ```
//!
//! * **Groups within groups**: rows that agree in (a, x) agree in a, so a redistribution by a alone serves both, if there
//!   are enough different a to keep all partitions busy.
//! * **Groups of about one row**: grouping before the redistribution leaves as many rows as there were, and costs as much as
//!   grouping after it. DataFusion finds out after 100,000 rows of each partition; here the statistics say so before.
//!
//! Rows are redistributed by one integer of the groups' columns where it has values enough: hashing names and addresses beside the
//! key they belong to tells no more rows apart.
//!
//! A wrong estimate makes the plan slower, never wrong: both shapes compute the same.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::InterleaveExec;
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode, Partitioning};

use super::estimate::Estimator;
use crate::operators::direct_aggregate::DirectAggregateExec;

/// Groups that each partition should have at least, so that chance spreads them evenly.
const GROUPS_PER_PARTITION_MIN: f64 = 1_024.0;
/// A column whose values have more rows than this, on average, may have values with very many.
const ROWS_PER_VALUE_MAX: f64 = 16.0;
/// The share of NULLs up to which they do not weigh.
const NULLS_MAX: f64 = 0.1;
/// From this number of groups per row on, the first stage is not worth its while.
const GROUPS_PER_ROW: f64 = 0.5;
/// Fewer rows take no time either way.
const ROWS_MIN: f64 = 8_192.0;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct GroupOnce;

impl PhysicalOptimizerRule for GroupOnce {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let mut estimator = Estimator::default();
        // Outer aggregations first: they look for the two stages of the inner one.
        let changed = Arc::clone(&plan).transform_down(|plan| {
            // It puts partitions together that are alike on all sides.
            if plan.downcast_ref::<InterleaveExec>().is_some() {
                return Ok(Transformed::new(plan, false, TreeNodeRecursion::Jump));
            }
            let plan = match groups_within_groups(&plan, &mut estimator)? {
                Some(nested) => Transformed::yes(nested),
                None => Transformed::no(plan),
            };
            Ok(match groups_of_one_row(&plan.data, &mut estimator)? {
                Some(single) => Transformed::yes(single),
                None => plan,
            })
        });
        // Whoever above counts on the old distribution, a join of two partitioned inputs say, gets it.
        Ok(match changed {
            Ok(changed) if changed.transformed => {
                SanityCheckPlan::new().optimize(changed.data, options).unwrap_or(plan)
            }
            _ => plan,
        })
    }

    fn name(&self) -> &str {
        "group_once"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// An aggregation in two stages with a redistribution between them.
struct TwoStages<'a> {
    last: &'a AggregateExec,
    redistribution: &'a RepartitionExec,
    first: &'a AggregateExec,
    partitions: usize,
}

impl<'a> TwoStages<'a> {
    fn of(plan: &'a Arc<dyn ExecutionPlan>) -> Option<Self> {
        let last = plan.downcast_ref::<AggregateExec>()?;
        let redistribution = last.input().downcast_ref::<RepartitionExec>()?;
        let first = redistribution.input().downcast_ref::<AggregateExec>()?;
        let Partitioning::Hash(_, partitions) = redistribution.partitioning() else { return None };
        let plain = |stage: &AggregateExec| {
            stage.limit_options().is_none()
                && !stage.group_expr().has_grouping_set()
                && *stage.input_order_mode() == InputOrderMode::Linear
                // An earlier rule may have found their rows to come in order, which they do not once they are redistributed.
                && stage.aggr_expr().iter().all(|aggregate| aggregate.order_bys().is_empty())
        };
        let matches = *last.mode() == AggregateMode::FinalPartitioned
            && *first.mode() == AggregateMode::Partial
            && plain(last)
            && plain(first);
        matches.then_some(TwoStages { last, redistribution, first, partitions: *partitions })
    }

    /// The same in one stage over `input`, which holds whole groups. None if that would look different from above.
    fn in_one(&self, input: Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let first = self.first;
        let whole = AggregateExec::try_new(
            AggregateMode::SinglePartitioned,
            first.group_expr().clone(),
            first.aggr_expr().to_vec(),
            first.filter_expr().to_vec(),
            input,
            first.input_schema(),
        )?;
        Ok((whole.schema() == self.last.schema()).then(|| Arc::new(whole) as _))
    }
}

/// Whether the column is what an aggregation below has computed, a count say, whose values nobody can foretell.
fn is_computed(plan: &Arc<dyn ExecutionPlan>, column: usize) -> bool {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return column >= aggregate.group_expr().expr().len();
    }
    if let Some(aggregate) = plan.downcast_ref::<DirectAggregateExec>() {
        return column >= aggregate.definition().group_expr().expr().len();
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let source = projection.expr().get(column).and_then(|column| column.expr.downcast_ref::<Column>());
        return source.is_none_or(|source| is_computed(projection.input(), source.index()));
    }
    match plan.children()[..] {
        [input] if input.schema() == plan.schema() => is_computed(input, column),
        _ => false,
    }
}

/// Redistributes once for two aggregations, where one groups the groups of the other.
fn groups_within_groups(
    plan: &Arc<dyn ExecutionPlan>,
    estimator: &mut Estimator,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(outer) = TwoStages::of(plan) else { return Ok(None) };
    let below = outer.first.input();
    let projection = below.downcast_ref::<ProjectionExec>();
    let inner_plan = projection.map_or(below, |projection| projection.input());
    let Some(inner) = TwoStages::of(inner_plan) else { return Ok(None) };
    if inner.partitions != outer.partitions {
        return Ok(None);
    }
    // The outer groups' columns, as columns of the inner groups.
    let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
    let inner_groups = inner.first.group_expr().expr().len();
    let of_inner = |expr: &Arc<dyn PhysicalExpr>| {
        let index = column(expr)?;
        let index = match projection {
            Some(projection) => column(&projection.expr().get(index)?.expr)?,
            None => index,
        };
        (index < inner_groups).then_some(index)
    };
    let indexes: Option<Vec<usize>> = outer.first.group_expr().expr().iter().map(|(expr, _)| of_inner(expr)).collect();
    let Some(indexes) = indexes.filter(|indexes| !indexes.is_empty()) else { return Ok(None) };
    let known = estimator.estimate(inner.first.input());
    let nulls = |index: &usize| match inner.first.group_expr().expr()[*index].0.downcast_ref::<Column>() {
        Some(column) => known.column(column.index()).nulls,
        None => 0.0,
    };
    if estimator.estimate(plan).rows < GROUPS_PER_PARTITION_MIN * outer.partitions as f64
        || indexes.iter().any(|index| nulls(index) > NULLS_MAX)
    {
        return Ok(None);
    }
    let schema = inner.redistribution.schema();
    let keys = indexes.iter().map(|index| Arc::new(Column::new(schema.field(*index).name(), *index)) as _).collect();
    let rows = Arc::clone(inner.redistribution.input());
    let spread = RepartitionExec::try_new(rows, Partitioning::Hash(keys, inner.partitions))?;
    let mut input = replace_children_if_necessary(Arc::clone(inner_plan), vec![Arc::new(spread)])?;
    if projection.is_some() {
        input = replace_children_if_necessary(Arc::clone(below), vec![input])?;
    }
    outer.in_one(input)
}

/// Leaves the first stage out where it would leave nearly all rows.
fn groups_of_one_row(
    plan: &Arc<dyn ExecutionPlan>,
    estimator: &mut Estimator,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(stages) = TwoStages::of(plan) else { return Ok(None) };
    let rows = estimator.estimate(stages.first.input()).rows;
    if rows < ROWS_MIN || estimator.estimate(plan).rows < rows * GROUPS_PER_ROW {
        return Ok(None);
    }
    // The redistribution names the groups' columns of the first stage; before it they are its group expressions.
    let Partitioning::Hash(keys, partitions) = stages.redistribution.partitioning() else { return Ok(None) };
    let groups = stages.first.group_expr().expr();
    let before = |key: &Arc<dyn PhysicalExpr>| {
        let (expr, _) = groups.get(key.downcast_ref::<Column>()?.index())?;
        Some(Arc::clone(expr))
    };
    let Some(keys) = keys.iter().map(before).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let input = Arc::clone(stages.first.input());
    let column = |key: &Arc<dyn PhysicalExpr>| key.downcast_ref::<Column>().map(Column::index);
    if keys.iter().filter_map(column).any(|column| is_computed(&input, column)) {
        return Ok(None);
    }
    let known = estimator.estimate(&input);
    let schema = input.schema();
    // Its NULLs, and values with many rows, would all be one partition's.
    let tells_apart = |key: &Arc<dyn PhysicalExpr>| {
        let index = column(key)?;
        let of_column = known.column(index);
        let enough = of_column.distinct >= known.rows / ROWS_PER_VALUE_MAX && of_column.nulls <= NULLS_MAX;
        (schema.field(index).data_type().is_integer() && enough).then_some(of_column.distinct)
    };
    let best = keys.iter().filter_map(|key| Some((key, tells_apart(key)?))).max_by(|one, two| one.1.total_cmp(&two.1));
    let keys = best.map_or_else(|| keys.clone(), |(key, _)| vec![Arc::clone(key)]);
    let spread = RepartitionExec::try_new(input, Partitioning::Hash(keys, *partitions))?;
    stages.in_one(Arc::new(spread))
}
