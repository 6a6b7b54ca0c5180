//! The operator that reads a table.
//!
//! ```text
//!   ReadView::scan(projection, filters) ──► units of ~64k rows ──► one queue
//!                                                                ╱    │    ╲
//!                                                     partition 0     1     2   …   each: take a unit, emit its batches
//! ```
//!
//! All filters of a table are applied by the scan, exactly; none is left in the plan above. Operators above may hand
//! down *dynamic* filters, which become known while the query runs (the keys of a join's build side, the bound of a
//! top-k): the scan uses them to skip blocks and, where that pays, rows, but promises nothing about them.
//!
//! The plan knows the table's definition and statistics; the rows are found through the [`ExecutionView`] of the task at
//! execution. Partitions are work-sharing, so the operator never claims a hash partitioning or an order.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{DynamicFilterTracking, EquivalenceProperties, PhysicalExpr, conjunction};
use datafusion::physical_expr_common::physical_expr::fmt_sql;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType, apply_expression_roots};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, stream};
use rustydb_storage::{DynamicFilter, ReadView, ScanRequest, TableDef, TableStatistics, UnitReader};

use super::filter::{DynamicExpression, move_columns, to_filters};
use super::{ExecutionView, ScanQueue};
use crate::Error;
use crate::governor;
use crate::operators::join_keys::KeyColumns;
use crate::runtime::give_way;

/// Rows worth a partition of their own: the size of a scan unit. A smaller table is read by one task.
const ROWS_PER_PARTITION: usize = 65_536;

/// Tells the scans of one statement apart; see [`ExecutionView::join_scan`].
static NEXT_SCAN: AtomicU64 = AtomicU64::new(0);

/// Reads the rows of one table that are visible to the statement.
#[derive(Debug, Clone)]
pub(crate) struct ColumnScanExec {
    scan: u64,
    table: Arc<TableDef>,
    /// Indexes into the table's storage schema.
    projection: Vec<usize>,
    /// Conjuncts that the returned rows meet; they name columns by their index in the storage schema.
    filters: Vec<Arc<dyn PhysicalExpr>>,
    /// Conditions that become known while the query runs; columns as in `filters`.
    dynamic: Vec<Arc<dyn PhysicalExpr>>,
    /// The keys of the joins that some of `dynamic` come from, by the expression's number.
    join_keys: HashMap<u64, KeyColumns>,
    statistics: Arc<TableStatistics>,
    /// What the planner makes of `filters`, worked out when it first asks.
    estimate: OnceLock<Statistics>,
    /// The table's columns, as the provider shows them: a prefix of the storage schema.
    table_schema: SchemaRef,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ColumnScanExec {
    /// `table_schema` is what the provider shows of the table; `filters` name its columns by their index.
    pub(crate) fn try_new(
        table: Arc<TableDef>,
        table_schema: SchemaRef,
        projection: Vec<usize>,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        statistics: Arc<TableStatistics>,
        target_partitions: usize,
    ) -> DataFusionResult<Self> {
        let schema = Arc::new(table_schema.project(&projection)?);
        let partitions = statistics.rows.div_ceil(ROWS_PER_PARTITION).clamp(1, target_partitions.max(1));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(ColumnScanExec {
            scan: NEXT_SCAN.fetch_add(1, Ordering::Relaxed),
            table,
            projection,
            filters,
            dynamic: Vec::new(),
            join_keys: HashMap::new(),
            statistics,
            estimate: OnceLock::new(),
            table_schema,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// Tells the view what is going to be read.
    pub(crate) fn note_reads(&self, view: &ReadView) -> crate::Result<()> {
        Ok(view.note_scan(&self.table, &to_filters(&self.filters, self.table.storage_schema())?)?)
    }

    /// The table it reads.
    pub(crate) fn table(&self) -> &Arc<TableDef> {
        &self.table
    }

    /// The columns it reads, as indexes into the table's storage schema.
    pub(crate) fn projection(&self) -> &[usize] {
        &self.projection
    }

    /// The same, asking the keys of joins whose dynamic filters it has: by the filters' numbers. None if there are none.
    pub(crate) fn with_join_keys(&self, shared: &HashMap<u64, KeyColumns>) -> Option<Self> {
        let join_keys: HashMap<_, _> =
            self.dynamic_filters().filter_map(|number| Some((number, shared.get(&number)?.clone()))).collect();
        (!join_keys.is_empty()).then(|| ColumnScanExec { join_keys, ..self.clone() })
    }

    /// The numbers of the dynamic filters it asks.
    pub(crate) fn dynamic_filters(&self) -> impl Iterator<Item = u64> + '_ {
        self.dynamic.iter().filter_map(|expression| expression.expression_id())
    }

    /// Whether it returns all rows of its table.
    pub(crate) fn has_no_conditions(&self) -> bool {
        self.filters.is_empty() && self.dynamic.is_empty()
    }

    /// The conditions that all returned rows meet, on columns of the table's storage schema: the cost model weighs them
    /// ([`crate::optimizer`]).
    pub(crate) fn applied_filters(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.filters
    }

    /// What the table's writers know of it.
    pub(crate) fn stored_statistics(&self) -> &TableStatistics {
        &self.statistics
    }

    fn partitions(&self) -> usize {
        self.properties.output_partitioning().partition_count()
    }

    /// What is known of the whole output: with filters, an estimate.
    fn whole_statistics(&self) -> &Statistics {
        self.estimate.get_or_init(|| {
            let all = self.table_statistics();
            let filtered = match self.filters.is_empty() {
                true => all,
                false => self.filtered(&all).unwrap_or_else(|error| {
                    tracing::debug!(%error, "the planner could not estimate a filter");
                    all.to_inexact()
                }),
            };
            filtered.project(Some(&self.projection))
        })
    }

    /// The table without its filters. The row count is that of the view the statement was planned with, which is also
    /// the one it runs with.
    fn table_statistics(&self) -> Statistics {
        let known = &self.statistics;
        let columns = (0..self.table_schema.fields().len())
            .map(|index| known.columns.get(index).map_or_else(ColumnStatistics::new_unknown, column_statistics));
        Statistics {
            num_rows: if known.exact { Precision::Exact(known.rows) } else { Precision::Inexact(known.rows) },
            total_byte_size: Precision::Inexact(known.bytes),
            column_statistics: columns.collect(),
        }
    }

    /// What the planner's own filter operator would make of the table's statistics.
    fn filtered(&self, all: &Statistics) -> DataFusionResult<Statistics> {
        let table: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::clone(&self.table_schema)));
        let filter = FilterExec::try_new(conjunction(self.filters.iter().cloned()), table)?;
        let filtered = filter.statistics_from_inputs(&[Arc::new(all.clone())], &StatisticsArgs::new())?;
        Ok(Arc::unwrap_or_clone(filtered))
    }

    fn request(&self) -> crate::Result<ScanRequest> {
        let stored = self.table.storage_schema();
        let dynamic = |expression: &Arc<dyn PhysicalExpr>| -> Arc<dyn DynamicFilter> {
            let keys = expression.expression_id().and_then(|id| self.join_keys.get(&id)).cloned().unwrap_or_default();
            Arc::new(DynamicExpression::new(Arc::clone(expression), Arc::clone(stored), keys))
        };
        Ok(ScanRequest::new(self.table.id, self.projection.clone())
            .with_filters(to_filters(&self.filters, stored)?)
            .with_dynamic(self.dynamic.iter().map(dynamic).collect()))
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
        let list = |expressions: &[Arc<dyn PhysicalExpr>], separator: &str| {
            let parts: Vec<String> = expressions.iter().map(|part| fmt_sql(part.as_ref()).to_string()).collect();
            parts.join(separator)
        };
        let table = format!("{}.{}", self.table.schema_name, self.table.name);
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "ColumnScanExec: table={table}, projection=[{columns}]")?;
                if !self.filters.is_empty() {
                    write!(f, ", filters=[{}]", list(&self.filters, " AND "))?;
                }
                if !self.dynamic.is_empty() {
                    write!(f, ", dynamic=[{}]", list(&self.dynamic, ", "))?;
                }
                Ok(())
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "table={table}")?;
                writeln!(f, "rows={}", self.statistics.rows)?;
                if !self.filters.is_empty() {
                    writeln!(f, "filters={}", list(&self.filters, " AND "))?;
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
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        apply_expression_roots(self.filters.iter().chain(&self.dynamic), visit)
    }

    /// Takes filters over from operators above: any condition on its columns exactly, and dynamic ones as advice.
    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> DataFusionResult<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let mut taken = self.clone();
        let mut answers = Vec::with_capacity(child_pushdown_result.parent_filters.len());
        for parent in child_pushdown_result.parent_filters {
            let filter = move_columns(&parent.filter, |index| self.projection.get(index).copied())?;
            if DynamicFilterTracking::classify(&filter).contains_dynamic_filter() {
                taken.dynamic.push(filter);
                answers.push(PushedDown::No);
            } else {
                taken.filters.push(filter);
                answers.push(PushedDown::Yes);
            }
        }
        if answers.is_empty() {
            return Ok(FilterPushdownPropagation::with_parent_pushdown_result(answers));
        }
        taken.estimate = OnceLock::new();
        Ok(FilterPushdownPropagation::with_parent_pushdown_result(answers).with_updated_node(Arc::new(taken)))
    }

    /// For another run of the plan: what the operators above found out in the last one does not hold in the next.
    fn reset_state(self: Arc<Self>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let mut fresh = Arc::unwrap_or_clone(self);
        fresh.dynamic.clear();
        fresh.join_keys.clear();
        fresh.metrics = ExecutionPlanMetricsSet::new();
        Ok(Arc::new(fresh))
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let view = ExecutionView::of(&context)?;
        let queue = view.join_scan(self.scan, partition, self.partitions(), || self.request())?;
        let state = PartitionScan {
            queue,
            partition,
            shared: self.partitions() > 1,
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
            None => whole.clone(),
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
    partition: usize,
    /// Whether there are other partitions, which one that works for long could keep from beginning.
    shared: bool,
    reader: Option<UnitReader>,
    schema: SchemaRef,
    metrics: BaselineMetrics,
}

impl PartitionScan {
    async fn next_batch(&mut self) -> crate::Result<Option<RecordBatch>> {
        loop {
            let Some(reader) = &mut self.reader else {
                if self.shared {
                    give_way().await;
                }
                match self.queue.next(self.partition)? {
                    Some(unit) => self.reader = Some(unit.open()),
                    None => {
                        self.metrics.done();
                        return Ok(None);
                    }
                }
                continue;
            };
            governor::make_room().await;
            let started = std::time::Instant::now();
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
