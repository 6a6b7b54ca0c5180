//! The operator: reads all inputs at once, puts together what they found, and hands out shares.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, evaluate_many};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::claims::Claims;
use super::group_index::{ColumnDomain, GroupIndex, IntegerIndex, SmallIndex};
use crate::runtime::give_way;

/// What is known of the group columns' values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyDomain {
    /// One integer column: values from `low`, `span` of them possible, `groups` expected.
    Integers { low: i64, span: u64, groups: u64 },
    /// Columns of few values.
    Small(Vec<ColumnDomain>),
}

impl KeyDomain {
    /// Whether one column of this type can be a key of its own.
    pub(crate) fn numbers(data_type: &DataType) -> bool {
        IntegerIndex::supports(data_type)
    }

    /// Whether a column of this type can be part of a small key.
    pub(crate) fn codes(data_type: &DataType) -> bool {
        SmallIndex::supports(data_type)
    }

    /// An index for the groups of one partition.
    fn index(&self, schema: &SchemaRef, group_columns: usize) -> Box<dyn GroupIndex> {
        let types = || schema.fields()[..group_columns].iter().map(|field| field.data_type().clone());
        match self {
            KeyDomain::Integers { low, span, .. } => {
                let data_type = types().next().unwrap_or(DataType::Int64);
                Box::new(IntegerIndex::new(data_type, *low, *span))
            }
            KeyDomain::Small(domains) => Box::new(SmallIndex::new(types().collect(), domains)),
        }
    }

    /// Memory that all partitions together will need at most, if the statistics are right.
    fn expected_bytes(&self, accumulators: usize) -> usize {
        // An accumulator holds a 16-byte value, a count and a flag or two per group.
        let group = 16 + 32 * accumulators;
        match self {
            KeyDomain::Integers { span, groups, .. } => *span as usize * 4 + *groups as usize * group * 2,
            KeyDomain::Small(domains) => {
                let slots: usize = domains.iter().map(|domain| domain.codes as usize).product();
                slots * (4 + group)
            }
        }
    }
}

/// See the [module](super).
#[derive(Debug)]
pub(crate) struct DirectAggregateExec {
    /// DataFusion's operator for the same aggregation over a single input partition: it says what is to be computed, and
    /// computes it where memory is too short for slots.
    definition: Arc<AggregateExec>,
    domain: KeyDomain,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    outcome: Arc<OnceCell<Outcome>>,
}

/// What the first partition to be polled finds out for all.
enum Outcome {
    /// All groups, cut to the size of batches, and the memory they take for as long as they are held.
    Groups { batches: Vec<RecordBatch>, _memory: Vec<MemoryReservation> },
    /// There was not enough memory: partition 0 passes on DataFusion's result.
    Fallback,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Groups { batches, .. } => write!(f, "{} batches of groups", batches.len()),
            Outcome::Fallback => write!(f, "fallback"),
        }
    }
}

impl DirectAggregateExec {
    /// Aggregates `input` as `partial` and its final stage do. Group columns are plain columns.
    pub(crate) fn try_new(partial: &AggregateExec, input: Arc<dyn ExecutionPlan>, domain: KeyDomain) -> Result<Self> {
        let single: Arc<dyn ExecutionPlan> = match input.output_partitioning().partition_count() {
            1 => Arc::clone(&input),
            _ => Arc::new(CoalescePartitionsExec::new(Arc::clone(&input))),
        };
        let definition = AggregateExec::try_new(
            AggregateMode::Single,
            partial.group_expr().clone(),
            partial.aggr_expr().to_vec(),
            partial.filter_expr().to_vec(),
            single,
            input.schema(),
        )?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(definition.schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(DirectAggregateExec {
            definition: Arc::new(definition),
            domain,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            outcome: Arc::default(),
        })
    }

    /// The same with other expressions of the same functions.
    pub(crate) fn with_aggregates(&self, aggregates: Vec<Arc<AggregateFunctionExpr>>) -> Self {
        DirectAggregateExec {
            definition: Arc::new(self.definition.with_new_aggr_exprs(aggregates)),
            domain: self.domain.clone(),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
            outcome: Arc::default(),
        }
    }

    /// What is computed, in DataFusion's terms.
    pub(crate) fn definition(&self) -> &AggregateExec {
        &self.definition
    }

    fn input(&self) -> &Arc<dyn ExecutionPlan> {
        let single = self.definition.input();
        match single.downcast_ref::<CoalescePartitionsExec>() {
            Some(coalesce) if self.is_spread() => coalesce.input(),
            _ => single,
        }
    }

    /// Whether its input has several partitions, which the definition finds put together.
    fn is_spread(&self) -> bool {
        self.properties.output_partitioning().partition_count() > 1
    }
}

impl DisplayAs for DirectAggregateExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let definition = &self.definition;
        let groups: Vec<&str> = definition.group_expr().expr().iter().map(|(_, name)| name.as_str()).collect();
        let aggregates: Vec<&str> = definition.aggr_expr().iter().map(|aggregate| aggregate.name()).collect();
        let slots: u64 = match &self.domain {
            KeyDomain::Integers { span, .. } => *span,
            KeyDomain::Small(domains) => domains.iter().map(|domain| u64::from(domain.codes)).product(),
        };
        let (groups, aggregates) = (groups.join(", "), aggregates.join(", "));
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "DirectAggregateExec: gby=[{groups}], aggr=[{aggregates}], slots={slots}")
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "group_by={groups}")?;
                writeln!(f, "aggr={aggregates}")?;
                writeln!(f, "slots={slots}")
            }
        }
    }
}

impl ExecutionPlan for DirectAggregateExec {
    fn name(&self) -> &str {
        "DirectAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.input()]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.definition.apply_expressions(visit)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next();
        let input = input.ok_or_else(|| DataFusionError::Internal("an aggregation has an input".into()))?;
        if options.children_properties == ChildrenPropertiesMode::Recompute {
            return Ok(Arc::new(Self::try_new(&self.definition, input, self.domain.clone())?));
        }
        let single = match self.is_spread() {
            true => Arc::clone(self.definition.input()).replace_children(vec![input], options)?,
            false => input,
        };
        let definition: Arc<dyn ExecutionPlan> = Arc::clone(&self.definition) as _;
        let definition = definition.replace_children(vec![single], options)?;
        let definition = definition.downcast_ref::<AggregateExec>().cloned();
        let definition = definition.ok_or_else(|| DataFusionError::Internal("an aggregation became another".into()))?;
        Ok(Arc::new(DirectAggregateExec {
            definition: Arc::new(definition),
            domain: self.domain.clone(),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
            outcome: Arc::default(),
        }))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| DataFusionError::Internal("an aggregation has an input".into()))?;
        Ok(Arc::new(Self::try_new(&self.definition, input, self.domain.clone())?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let run = Run {
            definition: Arc::clone(&self.definition),
            input: Arc::clone(self.input()),
            domain: self.domain.clone(),
            partitions: self.properties.output_partitioning().partition_count(),
            context,
        };
        let (outcome, schema) = (Arc::clone(&self.outcome), self.schema());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = stream::once(async move {
            let outcome = outcome.get_or_try_init(|| run.aggregate()).await?;
            give_way().await;
            match outcome {
                Outcome::Groups { batches, .. } => {
                    let share = run.share(batches, partition).to_vec();
                    let share = share.into_iter().map(move |batch| {
                        metrics.record_output(batch.num_rows());
                        Ok(batch)
                    });
                    Ok::<_, DataFusionError>(stream::iter(share).boxed())
                }
                Outcome::Fallback if partition == 0 => Ok(run.definition.execute(0, Arc::clone(&run.context))?.boxed()),
                Outcome::Fallback => Ok(stream::empty().boxed()),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.try_flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    /// Conditions on group columns choose groups; they may as well choose rows. DataFusion matches columns by name, so
    /// only those that keep theirs are offered.
    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let keeps_name = |(_, (expr, name)): &(usize, &(Arc<dyn PhysicalExpr>, String))| {
            expr.downcast_ref::<Column>().is_some_and(|column| column.name() == name)
        };
        let kept = self.definition.group_expr().expr().iter().enumerate().filter(keeps_name).map(|(index, _)| index);
        let child =
            ChildFilterDescription::from_child_with_allowed_indices(&parent_filters, kept.collect(), self.input())?;
        Ok(FilterDescription::new().with_child(child))
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_any(child_pushdown_result))
    }
}

/// One execution.
struct Run {
    definition: Arc<AggregateExec>,
    input: Arc<dyn ExecutionPlan>,
    domain: KeyDomain,
    partitions: usize,
    context: Arc<TaskContext>,
}

impl Run {
    /// Reads all input partitions, each in a task of its own, and puts together what they found. Dropping the future ends
    /// the tasks.
    async fn aggregate(&self) -> Result<Outcome> {
        let pool = self.context.memory_pool();
        let expected = self.domain.expected_bytes(self.definition.aggr_expr().len());
        let upfront = MemoryConsumer::new("DirectAggregateExec").register(pool);
        if upfront.try_grow(expected).is_err() {
            return Ok(Outcome::Fallback);
        }
        drop(upfront);
        let claims = match &self.domain {
            KeyDomain::Integers { low, span, .. } if self.partitions > 1 => Claims::new(*low, *span).map(Arc::new),
            _ => None,
        };
        let mut reading = JoinSet::new();
        for partition in 0..self.partitions {
            let rows = self.input.execute(partition, Arc::clone(&self.context))?;
            let own = match &claims {
                Some(claims) => Some((Arc::clone(claims), self.no_groups(partition)?)),
                None => None,
            };
            let part = Part { partition, own, apart: self.no_groups(partition)? };
            reading.spawn(part.read(Arc::clone(&self.definition), rows));
        }
        let mut own: Vec<Option<Groups>> = (0..self.partitions).map(|_| None).collect();
        let mut apart = Vec::with_capacity(self.partitions);
        while let Some(finished) = reading.join_next().await {
            let part = finished.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??;
            apart.push(part.apart);
            own[part.partition] = part.own.map(|(_, groups)| groups).filter(|groups| groups.index.len() > 0);
        }
        apart.sort_by_key(|groups| groups.index.len());
        let Some(mut merged) = apart.pop() else { return Err(DataFusionError::Internal("no input partition".into())) };
        for groups in apart {
            merged.merge(groups)?;
        }
        let claimed: usize = own.iter().flatten().map(|groups| groups.index.len()).sum();
        match claims {
            Some(claims) if claimed > merged.index.len() => merged = self.hand_over(merged, &claims, &mut own)?,
            _ => own.drain(..).flatten().try_for_each(|groups| merged.merge(groups))?,
        }
        self.evaluate(own.into_iter().flatten().chain([merged]).collect()).await
    }

    fn no_groups(&self, partition: usize) -> Result<Groups> {
        let definition = &self.definition;
        let consumer = MemoryConsumer::new(format!("DirectAggregateExec[{partition}]"));
        Ok(Groups {
            index: self.domain.index(&definition.schema(), definition.group_expr().expr().len()),
            accumulators: definition
                .aggr_expr()
                .iter()
                .map(|aggregate| aggregate.create_groups_accumulator())
                .collect::<Result<_>>()?,
            reservation: consumer.register(self.context.memory_pool()),
        })
    }

    /// Merges groups that were kept apart with those of their pages' owners. Returns those of nobody's pages.
    fn hand_over(&self, mut apart: Groups, claims: &Claims, own: &mut [Option<Groups>]) -> Result<Groups> {
        let keys = apart.index.keys()?;
        let owners: Vec<Option<usize>> = {
            let keys = cast(&keys[0], &DataType::Int64)?;
            let keys = keys.as_primitive::<Int64Type>();
            keys.iter().map(|key| claims.owner(key?).filter(|owner| own[*owner].is_some())).collect()
        };
        let states: Vec<Vec<ArrayRef>> =
            apart.accumulators.iter_mut().map(|accumulator| accumulator.state(EmitTo::All)).collect::<Result<_>>()?;
        let mut rest = self.no_groups(self.partitions)?;
        let takers = own.iter_mut().enumerate().map(|(owner, groups)| (Some(owner), groups.as_mut()));
        for (owner, groups) in takers.chain([(None, Some(&mut rest))]) {
            let Some(groups) = groups else { continue };
            let chosen: BooleanArray = owners.iter().map(|of| Some(*of == owner)).collect();
            let choose = |columns: &[ArrayRef]| -> Result<Vec<ArrayRef>> {
                columns.iter().map(|column| Ok(filter(column, &chosen)?)).collect()
            };
            let states = states.iter().map(|state| choose(state)).collect::<Result<_>>()?;
            groups.merge_states(&choose(&keys)?, states)?;
        }
        Ok(rest)
    }

    /// Groups as batches, each set of them in a task of its own.
    async fn evaluate(&self, mut parts: Vec<Groups>) -> Result<Outcome> {
        let (batch_size, schema) = (self.context.session_config().batch_size(), self.definition.schema());
        let here = parts.pop();
        let mut evaluating = JoinSet::new();
        for groups in parts {
            let schema = Arc::clone(&schema);
            evaluating.spawn(async move { groups.evaluate(schema) });
        }
        let mut found: Vec<_> =
            here.map(|groups| groups.evaluate(Arc::clone(&schema))).into_iter().collect::<Result<_>>()?;
        while let Some(finished) = evaluating.join_next().await {
            found.push(finished.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))??);
        }
        let mut batches = Vec::new();
        let mut memory = Vec::new();
        for (groups, reservation) in found {
            let starts = (0..groups.num_rows()).step_by(batch_size.max(1));
            batches.extend(starts.map(|start| groups.slice(start, batch_size.min(groups.num_rows() - start))));
            memory.push(reservation);
        }
        Ok(Outcome::Groups { batches, _memory: memory })
    }

    /// The output partition's share of all batches.
    fn share<'a>(&self, batches: &'a [RecordBatch], partition: usize) -> &'a [RecordBatch] {
        let share = batches.len().div_ceil(self.partitions);
        let end = batches.len().min((partition + 1) * share);
        &batches[(partition * share).min(end)..end]
    }
}

/// What one input partition finds.
struct Part {
    partition: usize,
    /// The groups of pages that are its own.
    own: Option<(Arc<Claims>, Groups)>,
    /// Groups that others may have, too.
    apart: Groups,
}

impl Part {
    async fn read(mut self, definition: Arc<AggregateExec>, mut rows: SendableRecordBatchStream) -> Result<Self> {
        let group_columns: Vec<Arc<dyn PhysicalExpr>> =
            definition.group_expr().expr().iter().map(|(expr, _)| Arc::clone(expr)).collect();
        let arguments: Vec<Vec<Arc<dyn PhysicalExpr>>> =
            definition.aggr_expr().iter().map(|aggregate| aggregate.expressions()).collect();
        let mut numbers = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let columns = evaluate_many(std::slice::from_ref(&group_columns), &batch)?.swap_remove(0);
            let groups = match &mut self.own {
                Some((claims, own)) if claims.claim(self.partition, &columns[0])? => own,
                _ => &mut self.apart,
            };
            groups.index.assign(&columns, &mut numbers)?;
            let total = groups.index.len();
            for ((accumulator, arguments), filter) in
                groups.accumulators.iter_mut().zip(&arguments).zip(definition.filter_expr())
            {
                let values: Vec<ArrayRef> = arguments
                    .iter()
                    .map(|argument| argument.evaluate(&batch)?.into_array(batch.num_rows()))
                    .collect::<Result<_>>()?;
                let filter =
                    filter.as_ref().map(|filter| filter.evaluate(&batch)?.into_array(batch.num_rows())).transpose()?;
                accumulator.update_batch(
                    &values,
                    &numbers,
                    filter.as_ref().map(|filter| filter.as_boolean()),
                    total,
                )?;
            }
            groups.account()?;
        }
        Ok(self)
    }
}

/// Groups, and what has been added up for them.
struct Groups {
    index: Box<dyn GroupIndex>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    reservation: MemoryReservation,
}

impl Groups {
    fn account(&self) -> Result<()> {
        let accumulators: usize = self.accumulators.iter().map(|accumulator| accumulator.size()).sum();
        self.reservation.try_resize(self.index.bytes() + accumulators)
    }

    /// Adds the groups of another partition.
    fn merge(&mut self, mut other: Groups) -> Result<()> {
        let states: Vec<Vec<ArrayRef>> =
            other.accumulators.iter_mut().map(|accumulator| accumulator.state(EmitTo::All)).collect::<Result<_>>()?;
        self.merge_states(&other.index.keys()?, states)
    }

    /// Adds groups with these keys, which accumulators of the same functions have these states of.
    fn merge_states(&mut self, keys: &[ArrayRef], states: Vec<Vec<ArrayRef>>) -> Result<()> {
        let mut numbers = Vec::new();
        self.index.assign(keys, &mut numbers)?;
        let total = self.index.len();
        for (accumulator, state) in self.accumulators.iter_mut().zip(states) {
            accumulator.merge_batch(&state, &numbers, total)?;
        }
        self.account()
    }

    /// The groups with their aggregates, and the memory they take.
    fn evaluate(mut self, schema: SchemaRef) -> Result<(RecordBatch, MemoryReservation)> {
        let mut columns = self.index.keys()?;
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        let groups = RecordBatch::try_new(schema, columns)?;
        self.reservation.try_resize(groups.get_array_memory_size())?;
        Ok((groups, self.reservation))
    }
}
