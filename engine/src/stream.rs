//! The rows of a query on their way to the caller.
//!
//! A query runs on the database's own threads and its batches pass through a short channel, so that a slow reader slows
//! the query instead of filling memory. Dropping the stream stops the query at once.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::governor;
use crate::interrupt;
use crate::opaque::Opaque;
use crate::routine::function::RunningPlan;
use crate::row_path::DataRows;
use crate::runtime::{Runtimes, Task};
use crate::sql::names::shown;
use crate::sql::plan::ReadyPlan;
use crate::{Error, Result, error::sqlstate};

/// Batches made ahead of the reader. Two keep both sides busy; more would only hold memory.
const BATCHES_AHEAD: usize = 2;

/// The result of a query: record batches, as they are made.
pub struct RecordStream {
    schema: SchemaRef,
    planning_time: Duration,
    progress: Progress,
    source: Source,
    /// What happens beside when the reader meets an error.
    on_failure: OnFailure,
}

/// Called once at most.
type OnFailure = Option<Box<dyn FnOnce() + Send + Sync>>;

/// How far a query is, as far as its operators tell. Cloning is cheap, and it can be asked while the rows are read.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// `None`: there is nothing to wait for.
    plan: Option<Arc<dyn ExecutionPlan>>,
}

impl Progress {
    /// The share of the rows that has been read from where they lie, from 0 to 1; `None` if nobody knows how many there
    /// are. An estimate: the rows that a filter keeps from being read at all are counted as still to come.
    pub fn fraction(&self) -> Option<f64> {
        let mut rows = Rows::default();
        rows.count(self.plan.as_ref()?);
        (rows.expected > 0).then(|| (rows.read as f64 / rows.expected as f64).min(1.0))
    }
}

/// Rows at the leaves of a plan.
#[derive(Default)]
struct Rows {
    read: usize,
    expected: usize,
}

impl Rows {
    fn count(&mut self, plan: &Arc<dyn ExecutionPlan>) {
        let inputs = plan.children();
        if !inputs.is_empty() {
            inputs.into_iter().for_each(|input| self.count(input));
            return;
        }
        let known = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()).ok();
        let expected = known.and_then(|known| known.num_rows.get_value().copied());
        if let Some(expected) = expected {
            self.expected += expected;
            self.read += plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0).min(expected);
        }
    }
}

enum Source {
    /// Rows made already, as for SHOW.
    Ready(VecDeque<RecordBatch>),
    /// Rows made already by the row path; a batch only when somebody asks for one.
    Data(Option<DataRows>),
    Running {
        batches: mpsc::Receiver<Result<RecordBatch>>,
        task: Option<Task<()>>,
        _runtimes: Opaque<Runtimes>,
    },
}

impl RecordStream {
    pub(crate) fn ready(batch: RecordBatch) -> Self {
        RecordStream {
            schema: batch.schema(),
            planning_time: Duration::ZERO,
            progress: Progress::default(),
            source: Source::Ready(VecDeque::from([batch])),
            on_failure: None,
        }
    }

    pub(crate) fn of_data(rows: DataRows) -> Self {
        RecordStream {
            schema: Arc::clone(&rows.schema),
            planning_time: Duration::ZERO,
            progress: Progress::default(),
            source: Source::Data(Some(rows)),
            on_failure: None,
        }
    }

    /// The rows as single values, if they are at hand like that: those of statements on the row path. Otherwise the stream
    /// comes back.
    pub fn into_data(self) -> Result<DataRows, RecordStream> {
        match self.source {
            Source::Data(Some(rows)) => Ok(rows),
            source => Err(RecordStream { source, ..self }),
        }
    }

    /// Rows made already, in as many batches as there are.
    pub(crate) fn made(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        let schema = shown(schema);
        let batches = batches.into_iter().map(|batch| renamed(batch, &schema)).collect::<Result<_>>()?;
        let progress = Progress::default();
        let source = Source::Ready(batches);
        Ok(RecordStream { schema, planning_time: Duration::ZERO, progress, source, on_failure: None })
    }

    /// Starts a plan. `deadline` is when the statement's time is up.
    pub(crate) fn start(runtimes: &Arc<Runtimes>, plan: ReadyPlan, deadline: Deadline) -> Self {
        let schema = plan.schema();
        let progress = Progress { plan: Some(Arc::clone(&plan.plan)) };
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let task = runtimes.spawn(async move {
            let run = run(plan, sender.clone());
            if let Err(error) = deadline.limit(run).await {
                // Nobody listening means the reader is gone: fine.
                let _ = sender.send(Err(error)).await;
            }
        });
        let source = Source::Running { batches, task: Some(task), _runtimes: Arc::clone(runtimes).into() };
        RecordStream { schema, planning_time: Duration::ZERO, progress, source, on_failure: None }
    }

    /// Calls `act` before the reader is given an error.
    pub(crate) fn on_failure(&mut self, act: impl FnOnce() + Send + Sync + 'static) {
        self.on_failure = Some(Box::new(act));
    }

    pub(crate) fn with_planning_time(mut self, planning_time: Duration) -> Self {
        self.planning_time = planning_time;
        self
    }

    /// The columns of every batch.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The time from the statement's arrival until it began to run.
    pub fn planning_time(&self) -> Duration {
        self.planning_time
    }

    /// How far the query is.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// All batches at once.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

/// The same rows under the columns' names as clients see them.
fn renamed(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

async fn run(plan: ReadyPlan, sender: mpsc::Sender<Result<RecordBatch>>) -> Result<()> {
    let schema = plan.schema();
    if let Some(running) = plan.context.session_config().get_extension::<RunningPlan>() {
        running.set(interrupt::current());
    }
    let renames = !Arc::ptr_eq(&schema, &plan.plan.schema());
    // The context is kept to the end: it may hold the right to run this plan.
    let mut rows = execute_stream(plan.plan, Arc::clone(&plan.context))?;
    while let Some(batch) = rows.next().await {
        let batch = if renames { renamed(batch?, &schema)? } else { batch? };
        if sender.send(Ok(batch)).await.is_err() {
            break;
        }
        governor::make_room().await;
    }
    Ok(())
}

impl Stream for RecordStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = self.source.poll_next(context);
        if matches!(item, Poll::Ready(Some(Err(_))))
            && let Some(act) = self.on_failure.take()
        {
            act();
        }
        item
    }
}

impl Source {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        match self {
            Source::Ready(batches) => Poll::Ready(batches.pop_front().map(Ok)),
            Source::Data(rows) => Poll::Ready(rows.take().map(|rows| rows.to_batch())),
            Source::Running { batches, task, .. } => match batches.poll_recv(context) {
                Poll::Ready(Some(batch)) => Poll::Ready(Some(batch)),
                Poll::Pending => Poll::Pending,
                // The channel closes at the end of the rows, and when the task panicked.
                Poll::Ready(None) => match task.as_mut().map(|task| Pin::new(task).poll(context)) {
                    None => Poll::Ready(None),
                    Some(Poll::Pending) => Poll::Pending,
                    Some(Poll::Ready(ended)) => {
                        *task = None;
                        Poll::Ready(ended.err().map(Err))
                    }
                },
            },
        }
    }
}

impl std::fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordStream").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// When a statement's time is up, if ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Option<Instant>,
}

impl Deadline {
    pub(crate) fn after(timeout: Option<Duration>) -> Self {
        // A timeout too long for the clock is none.
        Deadline { at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)) }
    }

    pub(crate) fn is_set(self) -> bool {
        self.at.is_some()
    }

    /// Waits for `work` until the deadline, then fails with 57014. What does not wait has to ask [`interrupt::check`].
    pub(crate) async fn limit<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        interrupt::stop_at(self.at);
        match self.at {
            None => work.await,
            Some(at) => tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| Err(Self::exceeded())),
        }
    }

    /// What a statement whose time is up fails with.
    pub(crate) fn exceeded() -> Error {
        Error::new(sqlstate::QUERY_CANCELED, "the statement was cancelled: it took longer than statement_timeout")
            .with_hint("SET statement_timeout = 0 turns the limit off.")
    }
}
