//! The operator that reads a table.
//!
//! ```text
//!   ReadView::scan(projection, predicates) ──► units of ~64k rows ──► one queue
//!                                                                   ╱    │    ╲
//!                                                        partition 0     1     2   …   each: take a unit, emit its batches
//! ```
//!
//! The plan knows the table's definition and statistics; the rows are found through the [`ExecutionView`] of the task at
//! execution. Partitions are work-sharing, so the operator never claims a hash partitioning or an order.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, stream};
use rustydb_storage::{ColumnPredicate, ReadView, ScanRequest, TableDef, TableStatistics, UnitReader};

use super::predicate::describe;
use super::{ExecutionView, ScanQueue};
use crate::Error;

/// Rows worth a partition of their own: the size of a scan unit. A smaller table is read by one task.
const ROWS_PER_PARTITION: usize = 65_536;

/// Tells the scans of one statement apart; see [`ExecutionView::join_scan`].
static NEXT_SCAN: AtomicU64 = AtomicU64::new(0);

/// Reads the rows of one table that are visible to the statement.
#[derive(Debug)]
pub(crate) struct ColumnScanExec {
    scan: u64,
    table: Arc<TableDef>,
    /// Indexes into the table's storage schema.
    projection: Vec<usize>,
    predicates: Vec<ColumnPredicate>,
    statistics: Arc<TableStatistics>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ColumnScanExec {
    /// `schema` is the projected schema, as the provider shows it.
    pub(crate) fn new(
        table: Arc<TableDef>,
        schema: SchemaRef,
        projection: Vec<usize>,
        predicates: Vec<ColumnPredicate>,
        statistics: Arc<TableStatistics>,
        target_partitions: usize,
    ) -> Self {
        let partitions = statistics.rows.div_ceil(ROWS_PER_PARTITION).clamp(1, target_partitions.max(1));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        ColumnScanExec {
            scan: NEXT_SCAN.fetch_add(1, Ordering::Relaxed),
            table,
            projection,
            predicates,
            statistics,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Tells the view what is going to be read.
    pub(crate) fn note_reads(&self, view: &ReadView) -> crate::Result<()> {
        Ok(view.note_scan(&self.table, &self.predicates)?)
    }

    fn partitions(&self) -> usize {
        self.properties.output_partitioning().partition_count()
    }

    /// What is known of the whole output. The row count is exact only if nothing is pruned; it is that of the view the
    /// statement was planned with, which is also the one it runs with.
    fn whole_statistics(&self) -> Statistics {
        let known = &self.statistics;
        let rows = match known.exact && self.predicates.is_empty() {
            true => Precision::Exact(known.rows),
            false => Precision::Inexact(known.rows),
        };
        let columns = self
            .projection
            .iter()
            .map(|index| known.columns.get(*index).map_or_else(ColumnStatistics::new_unknown, column_statistics));
        let share = self.projection.len().max(1) as f64 / self.table.storage_schema().fields().len().max(1) as f64;
        Statistics {
            num_rows: rows,
            total_byte_size: Precision::Inexact((known.bytes as f64 * share) as usize),
            column_statistics: columns.collect(),
        }
    }
}

/// Bounds may be wider than the visible rows once some were deleted: inexact.
fn column_statistics(known: &rustydb_storage::ColumnStatistics) -> ColumnStatistics {
    let scalar = |value: &Option<arrow::array::ArrayRef>| {
        value
            .as_ref()
            .and_then(|array| ScalarValue::try_from_array(array, 0).ok())
            .map_or(Precision::Absent, Precision::Inexact)
    };
    ColumnStatistics {
        null_count: known.null_count.map_or(Precision::Absent, Precision::Inexact),
        min_value: scalar(&known.min),
        max_value: scalar(&known.max),
        distinct_count: known.distinct.map_or(Precision::Absent, Precision::Inexact),
        ..ColumnStatistics::new_unknown()
    }
}

impl DisplayAs for ColumnScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let columns = columns.join(", ");
        let stored = self.table.storage_schema();
        let predicates: Vec<String> = self.predicates.iter().map(|predicate| describe(predicate, stored)).collect();
        let table = format!("{}.{}", self.table.schema_name, self.table.name);
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "ColumnScanExec: table={table}, projection=[{columns}]")?;
                if !predicates.is_empty() {
                    write!(f, ", pruning=[{}]", predicates.join(" AND "))?;
                }
                Ok(())
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "table={table}")?;
                writeln!(f, "rows={}", self.statistics.rows)?;
                if !predicates.is_empty() {
                    writeln!(f, "pruning={}", predicates.join(" AND "))?;
                }
                Ok(())
            }
        }
    }
}

impl ExecutionPlan for ColumnScanExec {
    fn name(&self) -> &str {
        "ColumnScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let view = ExecutionView::of(&context)?;
        let queue = view.join_scan(self.scan, partition, self.partitions(), || ScanRequest {
            table: self.table.id,
            projection: self.projection.clone(),
            predicates: self.predicates.clone(),
        });
        let state = PartitionScan {
            queue,
            reader: None,
            schema: Arc::clone(&self.schema),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        let batches =
            stream::try_unfold(
                state,
                |mut state| async move { Ok(state.next_batch().await?.map(|batch| (batch, state))) },
            )
            .boxed();
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _inputs: &[Arc<Statistics>],
        arguments: &StatisticsArgs,
    ) -> DataFusionResult<Arc<Statistics>> {
        let whole = self.whole_statistics();
        Ok(Arc::new(match arguments.partition() {
            None => whole,
            // The queue decides at run time who reads what; an even share is the best guess.
            Some(_) => {
                let share = |precision: &Precision<usize>| match precision.get_value() {
                    Some(value) => Precision::Inexact(value / self.partitions()),
                    None => Precision::Absent,
                };
                Statistics {
                    num_rows: share(&whole.num_rows),
                    total_byte_size: share(&whole.total_byte_size),
                    column_statistics: Statistics::unknown_column(&self.schema),
                }
            }
        }))
    }
}

/// One partition at work: units from the queue, batches from the unit.
struct PartitionScan {
    queue: Arc<ScanQueue>,
    reader: Option<UnitReader>,
    schema: SchemaRef,
    metrics: BaselineMetrics,
}

impl PartitionScan {
    async fn next_batch(&mut self) -> crate::Result<Option<RecordBatch>> {
        loop {
            let started = std::time::Instant::now();
            let Some(reader) = &mut self.reader else {
                match self.queue.next()? {
                    Some(unit) => self.reader = Some(unit.open()),
                    None => {
                        self.metrics.done();
                        return Ok(None);
                    }
                }
                continue;
            };
            let batch = reader.next_batch().await?;
            self.metrics.elapsed_compute().add_elapsed(started);
            match batch {
                Some(batch) => {
                    self.metrics.record_output(batch.num_rows());
                    return self.with_plan_schema(batch).map(Some);
                }
                None => self.reader = None,
            }
        }
    }

    /// The store's batches carry the columns' metadata; the plan's schema does not.
    fn with_plan_schema(&self, batch: RecordBatch) -> crate::Result<RecordBatch> {
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let (_, columns, _) = batch.into_parts();
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows).map_err(Error::from)
    }
}
