//! Hands a nested loop join its probe rows a few at a time, and lets other work in between.
//!
//! DataFusion's nested loop join compares a batch of its probe side with every row of its build side before it asks for the
//! next one, and where the condition lets little through, it says nothing meanwhile: 8,192 rows beside 6 million are 49
//! billion pairs, minutes on a thread that nobody can stop and that serves no other query. So its probe side comes in
//! slices that take [`SHORT`] to [`LONG`] each, found by measuring, and after one that took a while this operator
//! has the runtime come back later: a cancelled query ends there, and others get their turn.
//!
//! Invariant: the same rows in the same order.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt, ready};

/// After less time than this the next slice is larger.
const SHORT: Duration = Duration::from_millis(2);
/// After more time than this it is smaller.
const LONG: Duration = Duration::from_millis(15);
/// By how much.
const FACTOR: usize = 4;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct PacedExec {
    input: Arc<dyn ExecutionPlan>,
}

impl PacedExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        Self { input }
    }
}

impl DisplayAs for PacedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacedExec")
    }
}

impl ExecutionPlan for PacedExec {
    fn name(&self) -> &str {
        "PacedExec"
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
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input))),
            _ => Err(DataFusionError::Internal("PacedExec has one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        Ok(Box::pin(Paced { schema: input.schema(), input, held: None, pace: Pace::default(), clock: Instant::now }))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(filters, &self.children())
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(result))
    }
}

/// How many rows are handed over at once.
#[derive(Debug)]
struct Pace {
    rows: usize,
    /// When the slice was handed over that is being worked on.
    since: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        // Nobody knows yet how many rows each of them meets.
        Self { rows: 1, since: None }
    }
}

impl Pace {
    /// The last slice has been worked on until `now`. Whether others are to get their turn first.
    fn has_worked(&mut self, now: Instant) -> bool {
        let Some(since) = self.since.take() else { return false };
        let taken = now.saturating_duration_since(since);
        if taken < SHORT {
            self.rows = self.rows.saturating_mul(FACTOR);
        } else if taken > LONG {
            self.rows = (self.rows / FACTOR).max(1);
        }
        taken >= SHORT
    }
}

/// The rows of `input` in slices.
struct Paced<C> {
    schema: SchemaRef,
    input: SendableRecordBatchStream,
    /// What is left of a batch.
    held: Option<RecordBatch>,
    pace: Pace,
    clock: C,
}

impl<C: Fn() -> Instant + Unpin> Stream for Paced<C> {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let now = (self.clock)();
        if self.pace.has_worked(now) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let batch = match self.held.take() {
            Some(batch) => batch,
            None => match ready!(self.input.poll_next_unpin(context)) {
                Some(Ok(batch)) => batch,
                end => return Poll::Ready(end),
            },
        };
        let rows = self.pace.rows.min(batch.num_rows());
        if rows < batch.num_rows() {
            self.held = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        // Of what has no rows nothing is learnt.
        self.pace.since = (rows > 0).then(|| (self.clock)());
        Poll::Ready(Some(Ok(batch.slice(0, rows))))
    }
}

impl<C: Fn() -> Instant + Unpin> RecordBatchStream for Paced<C> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use arrow::array::{AsArray as _, Int32Array, RecordBatchOptions};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::task::noop_waker;

    use super::*;

    fn numbers(range: std::ops::Range<i32>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int32Array::from_iter_values(range))]).unwrap()
    }

    /// All rows, the sizes of the slices, and how often the runtime got its turn, if a row takes the join this long.
    fn read(batches: Vec<RecordBatch>, per_row: Duration) -> (Vec<i32>, Vec<usize>, usize) {
        let now = Cell::new(Instant::now());
        let schema = batches[0].schema();
        let input = futures::stream::iter(batches.into_iter().map(Ok));
        let input = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), input));
        let mut paced = Paced { schema, input, held: None, pace: Pace::default(), clock: || now.get() };
        let (mut rows, mut sizes, mut turns) = (Vec::new(), Vec::new(), 0);
        let waker = noop_waker();
        loop {
            match Pin::new(&mut paced).poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(slice)) => {
                    let slice = slice.unwrap();
                    rows.extend_from_slice(slice.column(0).as_primitive::<Int32Type>().values());
                    sizes.push(slice.num_rows());
                    now.set(now.get() + per_row * u32::try_from(slice.num_rows()).unwrap());
                }
                Poll::Pending => turns += 1,
                Poll::Ready(None) => return (rows, sizes, turns),
            }
        }
    }

    #[test]
    fn slices_take_neither_long_nor_a_moment() {
        let batches = || vec![numbers(0..5_000), numbers(5_000..5_000), numbers(5_000..10_000)];
        let all: Vec<i32> = (0..10_000).collect();
        let (rows, sizes, turns) = read(batches(), Duration::from_millis(50));
        assert!(rows == all);
        assert_eq!((sizes.iter().max(), turns), (Some(&1), 10_000), "a build side of millions");
        let (rows, sizes, turns) = read(batches(), Duration::from_micros(100));
        assert!(rows == all);
        assert!(sizes.iter().all(|size| *size <= 64) && turns > 100, "{sizes:?}, {turns}");
        let (rows, sizes, turns) = read(batches(), Duration::ZERO);
        assert!(rows == all && turns == 0, "nothing to do: nothing lost");
        assert!(sizes.len() < 12, "{sizes:?}");
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        assert_eq!(batch.slice(2, 5).num_rows(), 5, "what slicing them relies on");
    }
}
