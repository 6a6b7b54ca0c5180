//! The operator: for each row of its input it looks up, or computes, what the subquery gives for the row's values.
//!
//! The values are put into the subquery's plan as constants, which is then optimised and planned like any query: a
//! condition `b.id = 7` finds its rows by key, `b.id <= 7` skips segments. That takes a millisecond or so per different row.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatchOptions;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, ScalarValue, internal_datafusion_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, Operator, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::{binary, col as physical_column, lit as physical_literal};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, apply_expression_roots};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions,
    execute_stream,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt, stream};
use rustydb_storage::{ReadView, TableDef, TableId};

use super::node::{Apply, Gives};
use super::rule::BeforeJoins;
use super::scope::substitute;
use crate::Error;
use crate::common_rows::CommonRowsPlanner;
use crate::error::sqlstate;
use crate::scan::ExecutionView;
use crate::sql::context::StatementContext;

/// Results that are kept for rows with the same values.
const KEPT_MAX: usize = 16 * 1024;
/// A result of more rows is not kept.
const KEPT_ROWS_MAX: usize = 64;

/// DataFusion's planner, which also knows our own nodes.
#[derive(Debug)]
pub(crate) struct ApplyPlanner;

#[async_trait]
impl QueryPlanner for ApplyPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner =
            DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(ApplyPlanner), Arc::new(CommonRowsPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}

#[async_trait]
impl ExtensionPlanner for ApplyPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let (Some(node), [input]) = (node.as_any().downcast_ref::<Apply>(), physical_inputs) else { return Ok(None) };
        let statement = session.as_any().downcast_ref::<StatementContext>();
        let statement = statement.ok_or_else(|| internal_datafusion_err!("a subquery outside of a statement"))?;
        let schema = node.input.schema();
        let arguments = node.arguments.iter().map(|argument| {
            // A reference further out has no value here.
            match argument.contains_outer() {
                true => Err(Error::unsupported("a subquery that depends on a query around the outer query").into()),
                false => planner.create_physical_expr(argument, schema, session, context),
            }
        });
        let tables = node.tables()?;
        let ids: Vec<TableId> = tables.iter().map(|table| table.id).collect();
        let subquery = Subquery {
            plan: Arc::clone(&node.subquery),
            tables,
            columns: node.columns.clone(),
            gives: node.gives.clone(),
            statement: statement.clone().within_a_plan().reading_only(&ids)?,
        };
        let schema = Arc::new(node.schema().as_arrow().clone());
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        Ok(Some(Arc::new(ApplyExec::over(Arc::clone(input), Arc::new(subquery), arguments, schema))))
    }
}

struct Subquery {
    plan: Arc<LogicalPlan>,
    tables: Vec<Arc<TableDef>>,
    columns: Vec<Column>,
    gives: Gives,
    statement: StatementContext,
}

/// See the [module](self).
pub(crate) struct ApplyExec {
    input: Arc<dyn ExecutionPlan>,
    subquery: Arc<Subquery>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ApplyExec {
    fn over(
        input: Arc<dyn ExecutionPlan>,
        subquery: Arc<Subquery>,
        arguments: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            input.output_partitioning().clone(),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let properties = Arc::new(properties);
        ApplyExec { input, subquery, arguments, schema, properties, metrics: ExecutionPlanMetricsSet::new() }
    }

    fn over_first_of(&self, mut inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = inputs.pop().ok_or_else(|| internal_datafusion_err!("a subquery is applied to an input"))?;
        let (subquery, schema) = (Arc::clone(&self.subquery), Arc::clone(&self.schema));
        Ok(Arc::new(Self::over(input, subquery, self.arguments.clone(), schema)))
    }

    /// The tables that the subquery reads.
    pub(crate) fn tables(&self) -> &[Arc<TableDef>] {
        &self.subquery.tables
    }

    /// Remembers that the tables of the subquery are read, all of their rows: which ones is only known later.
    pub(crate) fn note_reads(&self, view: &ReadView) -> crate::Result<()> {
        self.tables().iter().try_for_each(|table| Ok(view.note_scan(table, &[])?))
    }
}

impl fmt::Debug for ApplyExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyExec").field("gives", &self.subquery.gives).field("input", &self.input).finish()
    }
}

impl DisplayAs for ApplyExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: Vec<String> = self.arguments.iter().map(ToString::to_string).collect();
        let arguments = arguments.join(", ");
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "ApplyExec: {} for each [{arguments}]", self.subquery.gives)
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "{}", self.subquery.gives)?;
                writeln!(f, "for_each={arguments}")
            }
        }
    }
}

impl ExecutionPlan for ApplyExec {
    fn name(&self) -> &str {
        "ApplyExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.arguments.iter(), visit)
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
        let run = Run {
            subquery: Arc::clone(&self.subquery),
            arguments: self.arguments.clone(),
            schema: Arc::clone(&self.schema),
            batch_size: context.session_config().batch_size(),
            kept: HashMap::new(),
            context: Arc::clone(&context),
        };
        let input = self.input.execute(partition, context)?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = stream::try_unfold((run, input), |(mut run, mut input)| async move {
            let Some(batch) = input.next().await else { return Ok::<_, DataFusionError>(None) };
            let batches = run.apply_to(&batch?).await?;
            Ok(Some((stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>)), (run, input))))
        });
        let batches = batches.try_flatten().inspect_ok(move |batch| metrics.record_output(batch.num_rows()));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// What a subquery gave for a row.
#[derive(Debug, Clone)]
enum Given {
    Value(ScalarValue),
    Rows(Vec<RecordBatch>),
}

/// One partition at work.
struct Run {
    subquery: Arc<Subquery>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    batch_size: usize,
    kept: HashMap<Vec<ScalarValue>, Given>,
    context: Arc<TaskContext>,
}

impl Run {
    async fn apply_to(&mut self, batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let rows = batch.num_rows();
        let arguments = self.arguments.iter().map(|argument| argument.evaluate(batch)?.into_array(rows));
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        match self.subquery.gives {
            Gives::Rows { keeps } => self.add_rows(batch, &arguments, keeps).await,
            _ => Ok(vec![self.add_values(batch, &arguments).await?]),
        }
    }

    /// The batch with a column more.
    async fn add_values(&mut self, batch: &RecordBatch, arguments: &[ArrayRef]) -> Result<RecordBatch> {
        let mut values = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            match self.given(arguments, row).await? {
                Given::Value(value) => values.push(value),
                Given::Rows(_) => return Err(internal_datafusion_err!("a subquery gave rows, not a value")),
            }
        }
        let field = self.schema.field(self.schema.fields().len() - 1);
        let column = match values.is_empty() {
            true => new_null_array(field.data_type(), 0),
            false => cast(&ScalarValue::iter_to_array(values)?, field.data_type())?,
        };
        let columns = batch.columns().iter().cloned().chain([column]).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The batch's rows, each with the rows the subquery has for it.
    async fn add_rows(&mut self, batch: &RecordBatch, arguments: &[ArrayRef], keeps: bool) -> Result<Vec<RecordBatch>> {
        let fields = self.schema.fields().iter().skip(batch.num_columns()).cloned().collect::<Vec<_>>();
        let right_schema = Arc::new(Schema::new(fields));
        let (mut left, mut right, mut made) = (Vec::<u64>::new(), Vec::<RecordBatch>::new(), Vec::new());
        for row in 0..batch.num_rows() {
            let Given::Rows(rows) = self.given(arguments, row).await? else {
                return Err(internal_datafusion_err!("a subquery gave a value, not rows"));
            };
            let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
            if count == 0 && keeps {
                left.push(row as u64);
                let nulls = right_schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(1));
                right.push(RecordBatch::try_new_with_options(Arc::clone(&right_schema), nulls, &options)?);
            }
            left.extend(std::iter::repeat_n(row as u64, count));
            for rows in rows {
                let columns = rows.columns().iter().zip(right_schema.fields());
                let columns =
                    columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
                let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                right.push(RecordBatch::try_new_with_options(Arc::clone(&right_schema), columns, &options)?);
            }
            if left.len() >= self.batch_size {
                made.push(self.joined(batch, &mut left, &mut right, &right_schema)?);
            }
        }
        if !left.is_empty() {
            made.push(self.joined(batch, &mut left, &mut right, &right_schema)?);
        }
        Ok(made)
    }

    fn joined(
        &self,
        batch: &RecordBatch,
        left: &mut Vec<u64>,
        right: &mut Vec<RecordBatch>,
        right_schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let left = take_record_batch(batch, &UInt64Array::from(std::mem::take(left)))?;
        let right = concat_batches(right_schema, &std::mem::take(right))?;
        let columns = left.columns().iter().chain(right.columns()).cloned().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(left.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// What the subquery gives for a row.
    async fn given(&mut self, arguments: &[ArrayRef], row: usize) -> Result<Given> {
        let values = arguments.iter().map(|argument| ScalarValue::try_from_array(argument, row));
        let values = values.collect::<Result<Vec<_>>>()?;
        if let Some(given) = self.kept.get(&values) {
            return Ok(given.clone());
        }
        let given = self.compute(&values).await?;
        let keep = match &given {
            Given::Value(_) => true,
            Given::Rows(rows) => rows.iter().map(RecordBatch::num_rows).sum::<usize>() <= KEPT_ROWS_MAX,
        };
        if keep {
            if self.kept.len() >= KEPT_MAX {
                self.kept.clear();
            }
            self.kept.insert(values, given.clone());
        }
        Ok(given)
    }

    async fn compute(&self, values: &[ScalarValue]) -> Result<Given> {
        let Subquery { plan, tables: _, columns, gives, statement } = self.subquery.as_ref();
        let bound = columns.iter().cloned().zip(values.iter().cloned()).collect();
        let plan = substitute(plan.as_ref().clone(), &bound)?;
        let limit = match gives {
            Gives::Value(_) => Some(2),
            Gives::Exists(_) => Some(1),
            Gives::Member(_) | Gives::Rows { .. } => None,
        };
        let plan = match limit {
            Some(rows) => LogicalPlanBuilder::from(plan).limit(0, Some(rows))?.build()?,
            None => plan,
        };
        let plan = statement.plan_analyzed(BeforeJoins::rewrite(plan)?).await?;
        let mut batches = execute_stream(plan, self.context_of_its_own()?)?;
        match gives {
            Gives::Value(_) => {
                let mut value = None;
                while let Some(batch) = batches.try_next().await? {
                    if batch.num_rows() > 1 || (batch.num_rows() == 1 && value.is_some()) {
                        let message = "more than one row returned by a subquery used as an expression";
                        return Err(Error::new(sqlstate::CARDINALITY_VIOLATION, message).into());
                    }
                    if batch.num_rows() == 1 {
                        value = Some(ScalarValue::try_from_array(batch.column(0), 0)?);
                    }
                }
                let field = self.schema.field(self.schema.fields().len() - 1);
                Ok(Given::Value(match value {
                    Some(value) => value.cast_to(field.data_type())?,
                    None => ScalarValue::try_from(field.data_type())?,
                }))
            }
            Gives::Exists(_) => {
                while let Some(batch) = batches.try_next().await? {
                    if batch.num_rows() > 0 {
                        return Ok(Given::Value(ScalarValue::Boolean(Some(true))));
                    }
                }
                Ok(Given::Value(ScalarValue::Boolean(Some(false))))
            }
            Gives::Member(_) => {
                let wanted = values.last().ok_or_else(|| internal_datafusion_err!("IN has a left side"))?;
                let mut answer = Some(false);
                while let Some(batch) = batches.try_next().await? {
                    let equal = equal_rows(&batch, wanted)?;
                    if equal.true_count() > 0 {
                        return Ok(Given::Value(ScalarValue::Boolean(Some(true))));
                    }
                    if equal.null_count() > 0 {
                        answer = None;
                    }
                }
                Ok(Given::Value(ScalarValue::Boolean(answer)))
            }
            Gives::Rows { .. } => {
                let batches: Vec<RecordBatch> = batches.try_collect().await?;
                Ok(Given::Rows(batches.into_iter().filter(|batch| batch.num_rows() > 0).collect()))
            }
        }
    }

    /// The context, for a plan whose scans are no others' passes over their tables.
    fn context_of_its_own(&self) -> Result<Arc<TaskContext>> {
        let view = ExecutionView::of(&self.context)?;
        let view = Arc::new(ExecutionView::new(view.view().clone(), view.store().clone()));
        let config = self.context.session_config().clone().with_extension(view);
        Ok(Arc::new(TaskContext::new(
            None,
            self.context.session_id(),
            config,
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            self.context.runtime_env(),
        )))
    }
}

/// Which rows of the first column equal `wanted`, as SQL compares them.
fn equal_rows(batch: &RecordBatch, wanted: &ScalarValue) -> Result<BooleanArray> {
    let schema = batch.schema();
    let column = physical_column(schema.field(0).name(), &schema)?;
    let wanted = physical_literal(wanted.clone());
    let equal = binary(column, Operator::Eq, wanted, &schema)?.evaluate(batch)?.into_array(batch.num_rows())?;
    Ok(equal.as_boolean().clone())
}
