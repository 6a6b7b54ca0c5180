//! The operator on a join's build side: passes rows on, and makes a set of their keys.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, stream};

use super::{JoinKeys, Keys};

/// See the [module](super).
#[derive(Debug)]
pub(crate) struct JoinKeysExec {
    input: Arc<dyn ExecutionPlan>,
    /// The join's keys that bits can tell, on rows of `input`, and where they are told.
    keys: Vec<(Arc<dyn PhysicalExpr>, Arc<JoinKeys>)>,
}

impl JoinKeysExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, keys: Vec<(Arc<dyn PhysicalExpr>, Arc<JoinKeys>)>) -> Self {
        JoinKeysExec { input, keys }
    }
}

impl DisplayAs for JoinKeysExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(|(key, _)| key.to_string()).collect();
        write!(f, "JoinKeysExec: {}", keys.join(", "))
    }
}

impl ExecutionPlan for JoinKeysExec {
    fn name(&self) -> &str {
        "JoinKeysExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for (key, _) in &self.keys {
            if visit(key)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(JoinKeysExec::new(input, self.keys.clone()))),
            _ => Err(DataFusionError::Internal("JoinKeysExec has one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let memory = || MemoryConsumer::new("JoinKeysExec").register(context.memory_pool());
        let partitions = self.input.properties().output_partitioning().partition_count();
        self.keys.iter().for_each(|(_, keys)| keys.expect(partitions, memory));
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let schema = input.schema();
        let seen: Vec<Keys> = self.keys.iter().map(|_| Keys::default()).collect();
        let state = (input, self.keys.clone(), seen);
        let rows = stream::try_unfold(state, |(mut input, keys, mut seen)| async move {
            let Some(batch) = input.next().await.transpose()? else {
                keys.iter().zip(&seen).for_each(|((_, keys), seen)| keys.add(seen));
                return Ok::<_, DataFusionError>(None);
            };
            for ((key, _), seen) in keys.iter().zip(&mut seen) {
                seen.note(key.evaluate(&batch)?.into_array(batch.num_rows())?);
            }
            Ok(Some((batch, (input, keys, seen))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}
