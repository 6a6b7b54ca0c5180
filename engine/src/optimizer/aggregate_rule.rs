//! The rule that chooses [`DirectAggregateExec`] where the groups can be numbered.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};

use super::estimate::{Estimate, Estimator};
use crate::operators::direct_aggregate::{ColumnDomain, DirectAggregateExec, KeyDomain};

/// The longest range of integers that is numbered: its slots take half a gigabyte at most.
const SPAN_MAX: f64 = (1u64 << 27) as f64;
/// Below this range slots fit the cache, however few of them are used.
const SPAN_SMALL: f64 = (1u64 << 16) as f64;
/// Beyond it a group must be expected for at least so many slots.
const SLOTS_PER_GROUP_MAX: f64 = 32.0;
/// The most combinations of a small key.
const COMBINATIONS_MAX: u64 = 1 << 16;
/// Codes beyond the expected ones, as many as there is room for.
const SPARE_CODES: [u32; 3] = [64, 24, 4];
/// The most distinct values of one of its columns.
const DISTINCT_MAX: f64 = 2_000.0;

/// Replaces two-stage aggregations by direct ones.
#[derive(Debug, Default)]
pub(super) struct DirectAggregate;

impl PhysicalOptimizerRule for DirectAggregate {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let mut estimator = Estimator::default();
        plan.transform_up(|plan| {
            Ok(match replacement(&plan, &mut estimator)? {
                Some(direct) => Transformed::yes(direct),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "direct_aggregate"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn replacement(plan: &Arc<dyn ExecutionPlan>, estimator: &mut Estimator) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(last) = plan.downcast_ref::<AggregateExec>() else { return Ok(None) };
    if !matches!(last.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned) || last.limit_options().is_some()
    {
        return Ok(None);
    }
    let Some(first) = last.input().downcast_ref::<AggregateExec>() else { return Ok(None) };
    if *first.mode() != AggregateMode::Partial
        || first.group_expr().has_grouping_set()
        || first.limit_options().is_some()
    {
        return Ok(None);
    }
    let numbered = first.aggr_expr().iter().all(|aggregate| {
        aggregate.groups_accumulator_supported() && aggregate.order_bys().is_empty() && !aggregate.is_distinct()
    });
    if !numbered {
        return Ok(None);
    }
    let input = estimator.estimate(first.input());
    let groups = estimator.estimate(plan).rows;
    let Some(domain) = domain(first, &input, groups) else { return Ok(None) };
    let direct = DirectAggregateExec::try_new(first, Arc::clone(first.input()), domain)?;
    // Metadata of columns may differ between the stages; then DataFusion's stay.
    if direct.schema() != plan.schema() {
        return Ok(None);
    }
    Ok(Some(Arc::new(direct)))
}

/// What is known of the group columns, if they can be numbered.
fn domain(aggregate: &AggregateExec, input: &Estimate, groups: f64) -> Option<KeyDomain> {
    let schema = aggregate.input().schema();
    let column = |expr: &Arc<dyn datafusion::physical_expr::PhysicalExpr>| Some(expr.downcast_ref::<Column>()?.index());
    let columns: Vec<usize> =
        aggregate.group_expr().expr().iter().map(|(expr, _)| column(expr)).collect::<Option<_>>()?;
    let types: Vec<&DataType> = columns.iter().map(|column| schema.field(*column).data_type()).collect();
    if let ([column], [data_type]) = (columns.as_slice(), types.as_slice())
        && KeyDomain::numbers(data_type)
        && let Some((low, high)) = input.column(*column).range
    {
        let span = high - low + 1.0;
        if span <= SPAN_SMALL || (span <= SPAN_MAX && span <= groups * SLOTS_PER_GROUP_MAX) {
            return Some(KeyDomain::Integers { low: low as i64, span: span as u64, groups: groups as u64 });
        }
    }
    if columns.is_empty() || !types.iter().all(|data_type| KeyDomain::codes(data_type)) {
        return None;
    }
    let distinct: Vec<f64> = columns.iter().map(|column| input.column(*column).distinct).collect();
    if distinct.iter().any(|distinct| *distinct > DISTINCT_MAX) {
        return None;
    }
    SPARE_CODES.iter().find_map(|spare| {
        let domains: Vec<ColumnDomain> =
            distinct.iter().map(|distinct| ColumnDomain::of_distinct(*distinct, *spare)).collect();
        let combinations = domains.iter().try_fold(1u64, |all, domain| all.checked_mul(u64::from(domain.codes)))?;
        (combinations <= COMBINATIONS_MAX).then_some(KeyDomain::Small(domains))
    })
}
