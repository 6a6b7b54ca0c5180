//! Who gets the processors when they do not suffice: transactions first, but queries always something.
//!
//! Statements of the row path run for microseconds on their callers' threads; queries run for seconds on threads of their own, by
//! default one for each core. If both want all of the machine, the operating system shares it out among the threads, and a
//! transaction, which sleeps for the log after each commit, finds a query in the midst of its turn whenever it wakes: one analyst
//! cost two thirds of the throughput. A lower priority does not help, since a turn that has begun is not cut short; and the
//! class of threads that are interrupted at once (`SCHED_IDLE`) gets next to nothing beside others that are always busy.
//!
//! ```text
//!   callers' threads   ▒▒ ▒▒▒ ▒ ▒▒▒ ▒▒ ▒▒▒▒ ▒ ▒▒▒      how much they work is measured: 0.6 of the machine
//!   query threads      ████          ████          █    work, and rest so long that they keep to what is left
//! ```
//! So queries make room themselves. Between batches, after a millisecond or more, a query's thread looks at how much of the machine
//! transactions have used since the last look ([`Governor`]), and sleeps for as long as it takes to keep to what is left
//! ([`Governor::share`]). Without transactions, that is a look at the clock. If they want everything, queries still go on, with
//! [`SHARE_MIN`] of the time on the clock for each thread. Sleeping blocks the thread on purpose: another query that took it
//! meanwhile would work instead. After a rest the task gives its thread up, so that what else there is to do comes next.
//!
//! What it does not do: work without batches in between (sorting what was collected, say) is not held up; and a
//! transaction that asks long questions after it has locked rows is held up like any other query.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The part of each query thread's time that is its own, whatever transactions want.
const SHARE_MIN: f64 = 0.2;

/// What transactions use, of what is measured on their callers' threads: a third more for the log, flushes and compactions.
const OVERHEAD: f64 = 4.0 / 3.0;

/// A thread that has worked for less goes on without a look.
const TURN: Duration = Duration::from_millis(1);

/// The longest rest. What else is to be done on the thread, planning a statement say, waits no longer.
const REST_MAX: Duration = Duration::from_millis(20);

/// How much transactions work is measured over this time at least.
const WINDOW: Duration = Duration::from_millis(10);

/// Knows how much of the machine transactions use, and how many threads of queries work.
#[derive(Debug)]
pub(crate) struct Governor {
    cores: usize,
    /// How long statements of the row path have run on their callers' threads, all together, in nanoseconds.
    busy_ns: AtomicU64,
    /// Threads of queries that have something to do.
    awake: AtomicUsize,
    measured: Mutex<Measured>,
}

/// What was found at the last look.
#[derive(Debug)]
struct Measured {
    at: Instant,
    busy_ns: u64,
    /// The part of the machine that was used between the last two looks.
    used: f64,
}

impl Governor {
    pub(crate) fn new(cores: usize) -> Governor {
        let measured = Measured { at: Instant::now(), busy_ns: 0, used: 0.0 };
        let (busy_ns, awake) = (AtomicU64::new(0), AtomicUsize::new(0));
        Governor { cores: cores.max(1), busy_ns, awake, measured: Mutex::new(measured) }
    }

    /// Runs a piece of a statement of the row path, and counts how long that takes.
    pub(crate) fn count<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.note(begun.elapsed());
        result
    }

    fn note(&self, busy: Duration) {
        self.busy_ns.fetch_add(nanoseconds(busy), Ordering::Relaxed);
    }

    /// The part of the machine that transactions have used of late.
    fn used(&self, now: Instant) -> f64 {
        let mut measured = self.measured.lock();
        let since = now.saturating_duration_since(measured.at);
        if since >= WINDOW {
            let busy_ns = self.busy_ns.load(Ordering::Relaxed);
            let possible = nanoseconds(since) as f64 * self.cores as f64;
            measured.used = busy_ns.saturating_sub(measured.busy_ns) as f64 / possible;
            (measured.at, measured.busy_ns) = (now, busy_ns);
        }
        measured.used
    }

    /// The part of its time that each thread of queries may work: what transactions leave, among those that have something to
    /// do.
    fn share(&self, now: Instant) -> f64 {
        let left = self.cores as f64 * (1.0 - OVERHEAD * self.used(now));
        (left / self.awake.load(Ordering::Relaxed).max(1) as f64).clamp(SHARE_MIN, 1.0)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A query's thread.
struct QueryThread {
    governor: Arc<Governor>,
    /// What it has worked and not rested for, without what it is at now.
    worked: Duration,
    /// Since when it works; `None`: it has nothing to do.
    works_since: Option<Instant>,
    waits_since: Instant,
    /// What it might work when that was asked last.
    share: f64,
}

impl QueryThread {
    fn new(governor: Arc<Governor>, now: Instant) -> QueryThread {
        QueryThread { governor, worked: Duration::ZERO, works_since: None, waits_since: now, share: 1.0 }
    }

    /// It has something to do. The time without was a rest, too.
    fn wake(&mut self, now: Instant) {
        if self.works_since.is_none() {
            self.governor.awake.fetch_add(1, Ordering::Relaxed);
            self.works_since = Some(now);
            let waited = now.saturating_duration_since(self.waits_since);
            let paid = if self.share < 1.0 { waited.mul_f64(self.share / (1.0 - self.share)) } else { Duration::MAX };
            self.worked = self.worked.saturating_sub(paid);
        }
    }

    /// It has nothing to do.
    fn wait(&mut self, now: Instant) {
        if let Some(since) = self.works_since.take() {
            self.governor.awake.fetch_sub(1, Ordering::Relaxed);
            self.worked = self.worked.saturating_add(now.saturating_duration_since(since));
            self.waits_since = now;
        }
    }

    /// How long it has to rest now. After that the next turn begins.
    fn rest_due(&mut self, now: Instant) -> Duration {
        self.wake(now);
        let since = self.works_since.unwrap_or(now);
        let worked = self.worked.saturating_add(now.saturating_duration_since(since));
        if worked < TURN {
            return Duration::ZERO;
        }
        (self.worked, self.works_since) = (Duration::ZERO, Some(now));
        self.share = self.governor.share(now);
        worked.mul_f64((1.0 - self.share) / self.share).min(REST_MAX)
    }
}

impl Drop for QueryThread {
    fn drop(&mut self) {
        self.wait(Instant::now());
    }
}

thread_local! {
    /// This thread, if it is one of queries.
    static THREAD: RefCell<Option<QueryThread>> = const { RefCell::new(None) };
}

/// Changes what is known of this thread, if it is one of queries.
fn with_thread<T>(change: impl FnOnce(&mut QueryThread) -> T) -> Option<T> {
    THREAD.with(|this| this.borrow_mut().as_mut().map(change))
}

/// Makes the calling thread one that rests while transactions want the machine.
pub(crate) fn govern_thread(governor: &Arc<Governor>) {
    let thread = QueryThread::new(Arc::clone(governor), Instant::now());
    THREAD.with(|this| *this.borrow_mut() = Some(thread));
}

/// The calling thread has waited for work and has some now.
pub(crate) fn begin_turn() {
    with_thread(|thread| thread.wake(Instant::now()));
}

/// The calling thread has no work.
pub(crate) fn end_turn() {
    with_thread(|thread| thread.wait(Instant::now()));
}

/// To be called between batches: rests as long as it is due, if this is a thread of queries.
pub(crate) async fn make_room() {
    let due = with_thread(|thread| thread.rest_due(Instant::now()));
    if let Some(rest) = due.filter(|rest| !rest.is_zero()) {
        std::thread::sleep(rest);
        with_thread(|thread| thread.works_since = Some(Instant::now()));
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Database, DatabaseOptions, Error, StatementResult, Value};

    /// A governor of so many cores, and when it began.
    fn governor(cores: usize) -> (Arc<Governor>, Instant) {
        let governor = Arc::new(Governor::new(cores));
        let begun = governor.measured.lock().at;
        (governor, begun)
    }

    #[test]
    fn use_is_measured_over_a_window_and_forgotten_after_it() {
        let (governor, begun) = governor(2);
        assert_eq!(governor.used(begun + WINDOW), 0.0);
        governor.note(WINDOW);
        assert_eq!(governor.used(begun + WINDOW + WINDOW / 2), 0.0, "the window is not over");
        assert_eq!(governor.used(begun + 2 * WINDOW), 0.5, "one of two cores");
        assert_eq!(governor.used(begun + 3 * WINDOW), 0.0);
        assert_eq!(governor.count(|| 7), 7);
        assert!(governor.busy_ns.load(Ordering::Relaxed) > nanoseconds(WINDOW));
    }

    #[test]
    fn threads_of_queries_share_what_transactions_leave_and_have_a_fifth_at_least() {
        let (governor, mut now) = governor(8);
        let mut share_beside = |cores: u32, awake: usize| {
            governor.awake.store(awake, Ordering::Relaxed);
            governor.note(cores * WINDOW);
            now += WINDOW;
            governor.share(now)
        };
        assert_eq!(share_beside(0, 8), 1.0);
        assert_eq!(share_beside(3, 8), 0.5, "three cores, and one for the log and flushes");
        assert_eq!(share_beside(3, 4), 1.0);
        assert_eq!(share_beside(3, 0), 1.0);
        assert_eq!(share_beside(8, 1), SHARE_MIN);
        assert_eq!(share_beside(80, 8), SHARE_MIN);
    }

    #[test]
    fn a_thread_rests_after_a_turn_beside_transactions() {
        let (governor, begun) = governor(1);
        let mut thread = QueryThread::new(Arc::clone(&governor), begun);
        thread.wake(begun);
        assert_eq!(thread.rest_due(begun + WINDOW), Duration::ZERO, "nobody else wants anything");
        governor.note(WINDOW);
        let now = begun + 2 * WINDOW;
        assert_eq!(thread.rest_due(now), REST_MAX, "forty milliseconds for ten of work, but that is too long");
        assert_eq!(thread.rest_due(now + TURN / 2), Duration::ZERO, "the turn is not over");
        assert_eq!(thread.rest_due(now + TURN), 4 * TURN);
        assert_eq!(thread.rest_due(now + 2 * WINDOW), Duration::ZERO, "the transactions have ended");
    }

    #[test]
    fn waiting_for_work_is_a_rest_and_short_turns_add_up() {
        let (governor, begun) = governor(1);
        let mut thread = QueryThread::new(Arc::clone(&governor), begun);
        governor.note(WINDOW);
        let mut now = begun + WINDOW;
        thread.wake(now);
        now += TURN;
        assert_eq!(thread.rest_due(now), 4 * TURN);
        // Waits that pay for nothing: half a turn of work, then no time at all.
        for _ in 0..2 {
            now += TURN / 2;
            thread.wait(now);
            assert_eq!(governor.awake.load(Ordering::Relaxed), 0);
            thread.wake(now);
            assert_eq!(governor.awake.load(Ordering::Relaxed), 1);
        }
        assert_eq!(thread.rest_due(now), 4 * TURN);
        // A wait that pays for half of it.
        now += TURN;
        thread.wait(now);
        now += 2 * TURN;
        thread.wake(now);
        assert_eq!(thread.rest_due(now), Duration::ZERO);
        assert_eq!(thread.rest_due(now + TURN / 2), 4 * TURN);
        drop(thread);
        assert_eq!(governor.awake.load(Ordering::Relaxed), 0);
    }

    /// How long transactions have worked on a database, in nanoseconds.
    fn busy_ns(database: &Database) -> u64 {
        database.runtimes().governor().busy_ns.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn statements_of_the_row_path_are_counted_and_query_threads_are_governed() {
        let options = DatabaseOptions { query_threads: Some(1), ..DatabaseOptions::memory() };
        let database = Database::open(options).await.unwrap();
        let session = database.connect();
        session.execute_script("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
        let read = session.prepare("SELECT id FROM t WHERE id = $1").await.unwrap();
        let mut before = busy_ns(&database);
        for _ in 0..2 {
            let result = session.execute_prepared(&read, &[Value::Int32(Some(1))]).await.unwrap();
            assert!(matches!(result, StatementResult::Rows(_)));
            assert!(
                std::mem::replace(&mut before, busy_ns(&database)) < before,
                "each is tried on its caller's thread"
            );
        }
        let turn = database.runtimes().run(async {
            // As if the thread had worked for long: asking what is due begins a new turn.
            let long_ago = Instant::now() - Duration::from_secs(1);
            with_thread(|thread| thread.works_since = Some(long_ago)).ok_or_else(|| Error::internal("not governed"))?;
            make_room().await;
            Ok(with_thread(|thread| thread.works_since.is_some_and(|since| since > long_ago)))
        });
        assert_eq!(turn.await.unwrap(), Some(true));
    }

    #[tokio::test]
    async fn threads_of_others_never_rest() {
        begin_turn();
        make_room().await;
        end_turn();
        assert_eq!(with_thread(|_| ()), None);
    }
}
