//! What a running plan reads from: carried in the task's context, not in the plan, so that a plan may be run again later
//! against newer data.
//!
//! All partitions of one scan take units of about 64k rows from one shared queue, so that cores stay evenly loaded
//! however the rows are spread over segments.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::execution::TaskContext;
use parking_lot::Mutex;
use rustydb_storage::{ReadView, ScanRequest, ScanUnit, Store};

use crate::sql::plan_cache::Lease;
use crate::{Error, Result};

/// The view of the data a statement runs against, and the queues of its scans.
pub(crate) struct ExecutionView {
    view: ReadView,
    store: Store,
    scans: Mutex<HashMap<u64, Vec<Run>>>,
    /// Of the plan that runs, if it needs one. Whatever writes a subquery's value has the task's context, and so this.
    lease: Mutex<Option<Lease>>,
}

/// One pass over a table: each partition takes part once. An operator that runs its input again (a recursive query)
/// starts the next pass.
struct Run {
    queue: Arc<ScanQueue>,
    joined: Vec<bool>,
}

impl ExecutionView {
    pub(crate) fn new(view: ReadView, store: Store) -> Self {
        ExecutionView { view, store, scans: Mutex::default(), lease: Mutex::default() }
    }

    pub(crate) fn of(context: &TaskContext) -> Result<Arc<ExecutionView>> {
        context
            .session_config()
            .get_extension::<ExecutionView>()
            .ok_or_else(|| Error::internal("a table was read outside a statement"))
    }

    /// Keeps `lease` as long as this view.
    pub(crate) fn hold(&self, lease: Lease) {
        *self.lease.lock() = Some(lease);
    }

    pub(crate) fn view(&self) -> &ReadView {
        &self.view
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The queue that partition `partition` of scan number `scan` draws from.
    pub(crate) fn join_scan(
        &self,
        scan: u64,
        partition: usize,
        partitions: usize,
        request: impl FnOnce() -> Result<ScanRequest>,
    ) -> Result<Arc<ScanQueue>> {
        let mut scans = self.scans.lock();
        let runs = scans.entry(scan).or_default();
        if let Some(run) = runs.iter_mut().find(|run| !run.joined[partition]) {
            run.joined[partition] = true;
            return Ok(Arc::clone(&run.queue));
        }
        let queue = Arc::new(ScanQueue { view: self.view.clone(), state: Mutex::new(State::Waiting(request()?)) });
        let mut joined = vec![false; partitions];
        joined[partition] = true;
        runs.push(Run { queue: Arc::clone(&queue), joined });
        Ok(queue)
    }
}

/// The units of one pass over a table, found when the first of them is asked for.
pub(crate) struct ScanQueue {
    view: ReadView,
    state: Mutex<State>,
}

enum State {
    Waiting(ScanRequest),
    Running(std::vec::IntoIter<ScanUnit>),
}

impl ScanQueue {
    /// The next unit, or `None` when all are handed out.
    pub(crate) fn next(&self) -> Result<Option<ScanUnit>> {
        let mut state = self.state.lock();
        if let State::Waiting(request) = &*state {
            *state = State::Running(self.view.scan(request.clone())?.into_iter());
        }
        match &mut *state {
            State::Running(units) => Ok(units.next()),
            State::Waiting(_) => Ok(None),
        }
    }
}
