//! The rule that lets scans ask a join's keys by their bits ([`crate::operators::join_keys`]).
//!
//! It runs behind the rule that hands dynamic filters down: a join that made one has it reach the scan, with its columns
//! found, under the filter's own number. The keys of the same join take the filter's way by that number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::common::NullEquality;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;

use crate::operators::join_keys::{JoinKeys, JoinKeysExec, KeyColumns};
use crate::scan::ColumnScanExec;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct ShareJoinKeys;

impl PhysicalOptimizerRule for ShareJoinKeys {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        // Filters that have reached a scan of ours.
        let mut asked = HashSet::new();
        plan.apply(|plan| {
            asked.extend(plan.downcast_ref::<ColumnScanExec>().into_iter().flat_map(ColumnScanExec::dynamic_filters));
            Ok(TreeNodeRecursion::Continue)
        })?;
        if asked.is_empty() {
            return Ok(plan);
        }
        let mut shared = HashMap::new();
        let plan = plan.transform_up(|plan| {
            Ok(match shares(&plan, &asked, &mut shared)? {
                Some(join) => Transformed::yes(join),
                None => Transformed::no(plan),
            })
        });
        let plan = plan.data()?;
        if shared.is_empty() {
            return Ok(plan);
        }
        plan.transform_up(|plan| {
            let asking = plan.downcast_ref::<ColumnScanExec>().and_then(|scan| scan.with_join_keys(&shared));
            Ok(match asking {
                Some(scan) => Transformed::yes(Arc::new(scan) as _),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "share_join_keys"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The join with its keys noted under the number of its dynamic filter, if it has one that a scan asks and some are plain
/// integers.
fn shares(
    plan: &Arc<dyn ExecutionPlan>,
    asked: &HashSet<u64>,
    shared: &mut HashMap<u64, KeyColumns>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return Ok(None) };
    // With NULLs that matter, a set of what is not NULL would be wrong.
    let plain = *join.partition_mode() == PartitionMode::CollectLeft
        && join.null_equality() == NullEquality::NullEqualsNothing
        && !join.null_aware;
    let filter = join.dynamic_expressions_produced().into_iter().find_map(|filter| filter.expression_id());
    let filter = filter.filter(|filter| asked.contains(filter));
    let (build, probe) = (join.left(), join.right());
    let (true, Some(filter), false) = (plain, filter, has_all_rows(build)) else { return Ok(None) };
    let mut columns = KeyColumns::new();
    let mut noted = Vec::new();
    for (key, _) in join.on() {
        let keys = JoinKeys::supports(&key.data_type(&build.schema())?).then(Arc::<JoinKeys>::default);
        noted.extend(keys.clone().map(|keys| (Arc::clone(key), keys)));
        columns.push(keys);
    }
    if noted.is_empty() {
        return Ok(None);
    }
    shared.insert(filter, columns);
    let noting = |rows: &Arc<dyn ExecutionPlan>| -> Arc<dyn ExecutionPlan> {
        Arc::new(JoinKeysExec::new(Arc::clone(rows), noted.clone()))
    };
    // Before partitions come together, each can note its own.
    let build = match build.downcast_ref::<CoalescePartitionsExec>() {
        Some(all) if all.fetch().is_none() => {
            replace_children_if_necessary(Arc::clone(build), vec![noting(all.input())])?
        }
        _ => noting(build),
    };
    replace_children_if_necessary(Arc::clone(plan), vec![build, Arc::clone(probe)]).map(Some)
}

/// Whether these are all rows of a table: what refers to it finds a partner among them, and nothing would be left out.
fn has_all_rows(plan: &Arc<dyn ExecutionPlan>) -> bool {
    match plan.downcast_ref::<ColumnScanExec>() {
        Some(scan) => scan.has_no_conditions(),
        None => match plan.children()[..] {
            [input] if is_plain(plan) => has_all_rows(input),
            _ => false,
        },
    }
}

/// Whether the operator passes on all rows of its input.
fn is_plain(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<ProjectionExec>().is_some()
        || plan.downcast_ref::<CooperativeExec>().is_some()
        || plan.downcast_ref::<CoalescePartitionsExec>().is_some_and(|all| all.fetch().is_none())
}
