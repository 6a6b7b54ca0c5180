//! The operator: reads what the first one of its number has computed, or computes it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatchOptions;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, EvaluationType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions, execute_stream,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::node::CommonRows;

/// Rows, and what they take of the memory of queries.
type Rows = (Vec<RecordBatch>, MemoryReservation);

/// The common rows that a running query has computed, by their number. It is an extension of the query's context.
#[derive(Debug, Default)]
pub(crate) struct ComputedRows(Mutex<HashMap<u64, Arc<OnceCell<Rows>>>>);

impl ComputedRows {
    fn of(context: &TaskContext, number: u64) -> Result<Arc<OnceCell<Rows>>> {
        let computed = context.session_config().get_extension::<ComputedRows>();
        let computed = computed.ok_or_else(|| internal_datafusion_err!("a query has no place for common rows"))?;
        let mut rows = computed.0.lock();
        Ok(Arc::clone(rows.entry(number).or_default()))
    }
}

/// Plans [`CommonRows`].
#[derive(Debug)]
pub(crate) struct CommonRowsPlanner;

#[async_trait]
impl ExtensionPlanner for CommonRowsPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        Ok(match (node.as_any().downcast_ref::<CommonRows>(), physical_inputs) {
            (Some(node), [input]) => Some(Arc::new(CommonRowsExec::over(Arc::clone(input), node.number))),
            _ => None,
        })
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct CommonRowsExec {
    input: Arc<dyn ExecutionPlan>,
    number: u64,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl CommonRowsExec {
    fn over(input: Arc<dyn ExecutionPlan>, number: u64) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        )
        // Nobody above takes part in the runtime's budget while the input runs to its end.
        .with_evaluation_type(EvaluationType::Eager);
        CommonRowsExec { input, number, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    fn over_first_of(&self, mut inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = inputs.pop().ok_or_else(|| internal_datafusion_err!("common rows come from an input"))?;
        Ok(Arc::new(Self::over(input, self.number)))
    }
}

impl DisplayAs for CommonRowsExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "CommonRowsExec: {}", self.number),
            DisplayFormatType::TreeRender => writeln!(f, "number={}", self.number),
        }
    }
}

impl ExecutionPlan for CommonRowsExec {
    fn name(&self) -> &str {
        "CommonRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.over_first_of(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.over_first_of(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let computed = ComputedRows::of(&context, self.number)?;
        let (input, schema) = (Arc::clone(&self.input), self.input.schema());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let own = Arc::clone(&schema);
        let batches = async move {
            let (batches, _) = computed.get_or_try_init(|| compute(input, context)).await?;
            let batches = batches.iter().map(|batch| with_schema(batch, &own)).collect::<Vec<_>>();
            Ok::<_, DataFusionError>(stream::iter(batches))
        };
        let batches = stream::once(batches).try_flatten();
        let batches = batches.inspect_ok(move |batch| metrics.record_output(batch.num_rows())).boxed();
        // They are at hand, each as soon as it is asked for: what reads them could not be interrupted.
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(schema, batches))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Runs the input to its end.
async fn compute(input: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<Rows> {
    let reservation = MemoryConsumer::new("rows of a common table expression").register(context.memory_pool());
    let mut rows = execute_stream(input, context)?;
    // Batches may be parts of a large one, of a sort's or an aggregation's result, which counts once.
    let mut memory = RecordBatchMemoryCounter::new();
    let mut batches = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        reservation.try_grow(memory.count_batch(&batch))?;
        batches.push(batch);
    }
    Ok((batches, reservation))
}

/// The rows with the columns as another operator of the same number knows them: one may know that they have no NULLs.
fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}
