//! The rule that orders joins and chooses their build sides.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode};

use super::estimate::Estimator;
use super::join_build::build;
use super::join_cost::CostModel;
use super::join_graph::JoinGraph;
use super::join_order::best_order;

/// Build sides with more rows than this are partitioned, so that all threads build. Below, one thread builds faster than
/// both sides could be redistributed.
const COLLECTED_ROWS_MAX: f64 = 8_000_000.0;

/// Reorders each region of inner, semi and anti joins by cost, and gives every other join its smaller side to build.
/// Replaces DataFusion's `JoinSelection`, which only swaps sides.
#[derive(Debug, Default)]
pub(crate) struct JoinOrder;

impl PhysicalOptimizerRule for JoinOrder {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let mut rewriter = Rewriter { estimator: Estimator::default(), reorder: options.optimizer.join_reordering };
        rewriter.rewrite(&plan)
    }

    fn name(&self) -> &str {
        "join_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

struct Rewriter {
    estimator: Estimator,
    reorder: bool,
}

impl Rewriter {
    fn rewrite(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if self.reorder
            && let Some(graph) = JoinGraph::connected(plan, &mut |relation| self.rewrite(relation))?
        {
            let estimates: Vec<_> = graph
                .relations
                .iter()
                .map(|relation| self.estimator.estimate(&relation.plan).as_ref().clone())
                .collect();
            if let Some(tree) = best_order(&graph, &CostModel::new(&graph, estimates)) {
                let ordered = build(&graph, &tree, &plan.schema())?;
                return self.partition_large_builds(&ordered);
            }
        }
        let mut children = Vec::new();
        for child in plan.children() {
            children.push(self.rewrite(child)?);
        }
        self.choose_sides(replace_children_if_necessary(Arc::clone(plan), children)?)
    }

    /// The sides of a join that is in no region: outer joins, null-aware joins, joins that treat NULLs as equal.
    fn choose_sides(&mut self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            let (left, right) = (self.estimator.estimate(join.left()).rows, self.estimator.estimate(join.right()).rows);
            if self.reorder && right < left && join.join_type().supports_swap() && !join.null_aware {
                return join.swap_inputs(mode(right));
            }
            let mode = if join.null_aware { PartitionMode::CollectLeft } else { mode(left) };
            return join.builder().with_partition_mode(mode).build_exec();
        }
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let (left, right) = (self.estimator.estimate(join.left()).rows, self.estimator.estimate(join.right()).rows);
            if self.reorder && right < left && join.join_type().supports_swap() && *join.join_type() != JoinType::Full {
                return join.swap_inputs();
            }
        }
        Ok(plan)
    }

    /// Partitions the joins of a new region whose build side is large. Its relations have their modes already.
    fn partition_large_builds(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return Ok(Arc::clone(plan)) };
        let left = self.partition_large_builds(join.left())?;
        let right = self.partition_large_builds(join.right())?;
        let rows = self.estimator.estimate(&left).rows;
        let partitioned = mode(rows) == PartitionMode::Partitioned;
        if !partitioned && Arc::ptr_eq(&left, join.left()) && Arc::ptr_eq(&right, join.right()) {
            return Ok(Arc::clone(plan));
        }
        join.builder().with_new_children(vec![left, right])?.with_partition_mode(mode(rows)).build_exec()
    }
}

fn mode(build_rows: f64) -> PartitionMode {
    if build_rows > COLLECTED_ROWS_MAX { PartitionMode::Partitioned } else { PartitionMode::CollectLeft }
}
