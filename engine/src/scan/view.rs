//! What a running plan reads from: carried in the task's context, not in the plan, so that a plan may be run again later
//! against newer data.
//!
//! All partitions of one scan take units of about 64k rows from one shared queue, so that cores stay evenly loaded
//! however the rows are spread over segments:
//!
//! ```text
//!   segments   A A A A A A   B B B B B B   C C C C C C   D D
//!   partition 0 ─▶ A A A A A A   C C C C C C ◀─┐    each begins with segments of its own, so that two that are not in
//!   partition 1 ─▶ B B B B B B   D D ──────────┘    memory are loaded side by side; who has none left helps from the end
//! ```
//!
//! Towards the end units get smaller (guided self-scheduling; Polychronopoulos and Kuck, 1987), so that nobody waits long for
//! the one who took the last.
//!
//! # What a running plan keeps
//!
//! While there is a view of the store, nothing goes that can be read with it. Somebody may fetch a query's rows slowly, and what
//! flushes and compactions replace meanwhile in tables that the query has nothing to do with is not to be kept for that. So a
//! plan runs with a view of the tables that it names and no others ([`ExecutionView::only`]). Which functions in it read more
//! need not be known: whatever reads on its own account brings a view of its own.
//!
//! | what reads | with which view |
//! |---|---|
//! | a scan | the plan's, which keeps its table |
//! | a subquery that is planned for each row ([`crate::apply`]) | the plan's, which keeps the subquery's tables |
//! | a table that describes the database | the plan's: every view has the whole catalog |
//! | a function of users, for each row or in FROM | that of the context in which it was planned: all tables |
//!
//! As the plan owns its functions, one with a function of users keeps all tables as long as it runs, and one without keeps its
//! own. A table that was forgotten here would be an error, not an empty table ([`ReadView::only`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use datafusion::execution::TaskContext;
use parking_lot::Mutex;
use rustydb_storage::{ReadView, ScanRequest, ScanUnit, Store, TableId};

use crate::sql::plan_cache::Lease;
use crate::{Error, Result};

/// The view of the data a statement runs against, and the queues of its scans.
pub(crate) struct ExecutionView {
    view: ReadView,
    store: Store,
    scans: Mutex<HashMap<u64, Vec<Run>>>,
    /// Of the plan that runs, if it needs one. Whatever writes a subquery's value has the task's context, and so this.
    lease: Mutex<Option<Arc<Lease>>>,
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

    /// The same with these tables and no others, for a plan that reads only them.
    pub(crate) fn only(&self, tables: &[TableId]) -> Self {
        let lease = Mutex::new(self.lease.lock().clone());
        ExecutionView { lease, ..Self::new(self.view.only(tables), self.store.clone()) }
    }

    /// Keeps `lease` as long as this view, and those made of it.
    pub(crate) fn hold(&self, lease: Lease) {
        *self.lease.lock() = Some(Arc::new(lease));
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
        let state = Mutex::new(State::Waiting(request()?));
        let queue = Arc::new(ScanQueue { view: self.view.clone(), partitions, state });
        let mut joined = vec![false; partitions];
        joined[partition] = true;
        runs.push(Run { queue: Arc::clone(&queue), joined });
        Ok(queue)
    }
}

/// The units of one pass over a table, found when the first of them is asked for.
pub(crate) struct ScanQueue {
    view: ReadView,
    partitions: usize,
    state: Mutex<State>,
}

enum State {
    Waiting(ScanRequest),
    Running(Units),
}

/// What is to be read.
struct Units {
    /// A list for each partition to begin with.
    lists: Vec<VecDeque<ScanUnit>>,
    /// In all of them together, at most.
    rows: usize,
}

impl Units {
    /// Gives the units of each segment to the partition that has the fewest rows so far.
    fn deal(units: Vec<ScanUnit>, partitions: usize) -> Self {
        let mut lists: Vec<(usize, VecDeque<ScanUnit>)> = (0..partitions).map(|_| Default::default()).collect();
        for segment in units.chunk_by(|one, other| one.is_of_same_segment(other)) {
            if let Some((rows, list)) = lists.iter_mut().min_by_key(|(rows, _)| *rows) {
                *rows += segment.iter().map(ScanUnit::rows_max).sum::<usize>();
                list.extend(segment.iter().cloned());
            }
        }
        let rows = lists.iter().map(|(rows, _)| rows).sum();
        Units { lists: lists.into_iter().map(|(_, list)| list).collect(), rows }
    }

    /// The next unit of a partition: of its own list from the front, of the longest from the end.
    fn next(&mut self, partition: usize) -> Option<ScanUnit> {
        let shares = 2 * self.lists.len();
        let length = |list: usize| self.lists.get(list).map_or(0, VecDeque::len);
        let unit = if length(partition) > 0 {
            let list = &mut self.lists[partition];
            let mut unit = list.pop_front()?;
            unit.cut_after(self.rows / shares).into_iter().for_each(|rest| list.push_front(rest));
            unit
        } else {
            let list = self.lists.iter_mut().max_by_key(|list| list.len())?;
            let mut unit = list.pop_back()?;
            unit.cut_after(self.rows / shares).into_iter().for_each(|rest| list.push_back(rest));
            unit
        };
        self.rows = self.rows.saturating_sub(unit.rows_max());
        Some(unit)
    }
}

impl ScanQueue {
    /// The next unit for a partition, or `None` when all are handed out.
    pub(crate) fn next(&self, partition: usize) -> Result<Option<ScanUnit>> {
        let mut state = self.state.lock();
        if let State::Waiting(request) = &*state {
            *state = State::Running(Units::deal(self.view.scan(request.clone())?, self.partitions));
        }
        let State::Running(units) = &mut *state else { return Ok(None) };
        Ok(units.next(partition))
    }
}
