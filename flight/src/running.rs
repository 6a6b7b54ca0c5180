//! Statements being executed, so that another call can stop them.
//!
//! Invariant: [`RunningQuery::cancel`] stops the work before it returns. It does not wait for the network to ask for
//! the next batch, which a client that stopped reading would never do: the result stream is taken away from under the
//! connection and dropped, and dropping it is what cancels a query in the engine. In the same way goes what nobody has read
//! from for too long.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::task::AtomicWaker;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tonic::Status;

use crate::auth::Principal;
use crate::handles::Handle;
use crate::status::{internal, refuse};

/// The batches of a result, before they are encoded.
pub(crate) type Batches = BoxStream<'static, Result<RecordBatch, Status>>;

/// Every statement that is being executed for a client to fetch.
#[derive(Default)]
pub(crate) struct RunningQueries {
    running: Arc<Mutex<HashMap<Key, Arc<RunningQuery>>>>,
    unlisted: AtomicU64,
}

/// What a running statement is found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Ticket(Handle),
    /// No ticket stands for it: nobody but its own client, by leaving, and the server's end can stop it.
    Unlisted(u64),
}

impl RunningQueries {
    /// Notes that the statement of `ticket` runs from now until the guard is dropped; `None` if it runs already.
    pub(crate) fn register(&self, principal: &Principal, ticket: Handle) -> Option<RunningGuard> {
        self.register_as(principal, Key::Ticket(ticket))
    }

    /// The same of a statement that nobody is to blame for not reading: one that runs ahead, until its rows are fetched, or one
    /// endpoint among several, which stands while others are read (what they share is a statement of its own).
    pub(crate) fn register_standing(&self, principal: &Principal, ticket: Handle) -> Option<RunningGuard> {
        let guard = self.register(principal, ticket)?;
        guard.query.state.lock().may_stand = true;
        Some(guard)
    }

    /// The rows of a statement that ran ahead are fetched from now on.
    pub(crate) fn fetched(&self, ticket: Handle) {
        let query = self.running.lock().get(&Key::Ticket(ticket)).cloned();
        if let Some(query) = query {
            let mut state = query.state.lock();
            state.may_stand = false;
            state.unread_since = state.unread_since.map(|_| Instant::now());
            let mut told = query.told.since.lock();
            *told = told.map(|_| Instant::now());
        }
    }

    /// The same of a statement that no ticket stands for.
    pub(crate) fn register_unlisted(&self, principal: &Principal) -> Result<RunningGuard, Status> {
        let number = self.unlisted.fetch_add(1, Ordering::Relaxed);
        self.register_as(principal, Key::Unlisted(number)).ok_or_else(|| internal("two statements have one number"))
    }

    fn register_as(&self, principal: &Principal, key: Key) -> Option<RunningGuard> {
        match self.running.lock().entry(key) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => {
                let query = Arc::new(RunningQuery {
                    principal: principal.clone(),
                    state: Mutex::default(),
                    waiting: AtomicWaker::new(),
                    told: Arc::default(),
                });
                vacant.insert(Arc::clone(&query));
                Some(RunningGuard { query, key, running: Arc::clone(&self.running) })
            }
        }
    }

    /// Stops everything, because the server ends: streams end with 57P01, which a client can tell from a lost connection.
    pub(crate) fn shut_down(&self) {
        let running: Vec<_> = self.running.lock().values().cloned().collect();
        for query in running {
            query.stop(Stop::Shutdown);
        }
    }

    /// Stops every statement whose rows nobody has asked for in so long a time.
    pub(crate) fn sweep(&self, unread_max: Duration) {
        self.sweep_at(Instant::now(), unread_max);
    }

    fn sweep_at(&self, now: Instant, unread_max: Duration) {
        let running: Vec<_> = self.running.lock().values().cloned().collect();
        for query in running {
            // One that is locked is being read.
            let unread_since = query.state.try_lock().filter(|state| !state.may_stand);
            let unread_since = unread_since.and_then(|state| state.unread_since.or_else(|| *query.told.since.lock()));
            if unread_since.is_some_and(|since| now.saturating_duration_since(since) > unread_max) {
                query.stop(Stop::Unread);
            }
        }
    }

    /// Stops the statement of `ticket`, if it runs and belongs to `principal`.
    pub(crate) fn cancel(&self, principal: &Principal, ticket: Handle) -> bool {
        let query = self.running.lock().get(&Key::Ticket(ticket)).cloned();
        let query = query.filter(|query| query.principal == *principal);
        query.map(|query| query.stop(Stop::Cancelled)).is_some()
    }
}

/// What a client is told whose server ends.
pub(crate) fn shutting_down() -> Status {
    refuse("57P01", "the server is shutting down").hint("connect again later").into()
}

/// Why a statement was stopped.
#[derive(Clone, Copy)]
enum Stop {
    Cancelled,
    Shutdown,
    Unread,
}

impl From<Stop> for Status {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled => refuse("57014", "the statement was cancelled").into(),
            Stop::Shutdown => shutting_down(),
            Stop::Unread => {
                let message = "the statement was cancelled by a timeout: its rows were not read for longer than \
                               flight.transfer_idle";
                refuse("57014", message).hint("execute it again, and read its rows without pauses").into()
            }
        }
    }
}

struct RunningQuery {
    principal: Principal,
    state: Mutex<State>,
    /// Who waits for it: for its first rows, and then for each batch.
    waiting: AtomicWaker,
    told: Arc<Told>,
}

/// Passes on that there is a batch, and notes since when. A reader that is told need not look: the body of a response is
/// polled when its client takes what is sent, and what it has sent while it waited may have been too much.
#[derive(Default)]
struct Told {
    since: Mutex<Option<Instant>>,
    reader: AtomicWaker,
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.since.lock().get_or_insert_with(Instant::now);
        self.reader.wake();
    }
}

#[derive(Default)]
struct State {
    stopped: Option<Stop>,
    /// `None` before execution gave a stream, and after cancellation took it away.
    batches: Option<Batches>,
    /// Whether it may go unread for as long as it likes.
    may_stand: bool,
    /// Since when it has been its reader's turn to ask for more; `None`: it is the engine's, unless the reader was told.
    unread_since: Option<Instant>,
}

impl RunningQuery {
    fn stop(&self, why: Stop) {
        let batches = {
            let mut state = self.state.lock();
            state.stopped = Some(why);
            state.batches.take()
        };
        // After the lock: the engine may take its time.
        drop(batches);
        self.waiting.wake();
    }

    fn why_stopped(&self) -> Option<Stop> {
        self.state.lock().stopped
    }
}

/// A statement's entry among the running ones; dropping it removes the entry.
pub(crate) struct RunningGuard {
    query: Arc<RunningQuery>,
    key: Key,
    running: Arc<Mutex<HashMap<Key, Arc<RunningQuery>>>>,
}

impl RunningGuard {
    /// Does `work` unless the statement is cancelled first.
    pub(crate) async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Registered before looking, so that a cancellation in between wakes us.
            self.query.waiting.register(context.waker());
            match self.query.why_stopped() {
                Some(why) => Poll::Ready(Err(why.into())),
                None => work.as_mut().poll(context),
            }
        })
        .await
    }

    /// Sends `batches` as long as the statement is not cancelled.
    pub(crate) fn stream(self, batches: Batches) -> CancellableBatches {
        let mut state = self.query.state.lock();
        // Stopped between execution and here: who did it found nothing to take.
        match state.stopped {
            None => {
                state.batches = Some(batches);
                state.unread_since = Some(Instant::now());
            }
            Some(_) => drop(batches),
        }
        drop(state);
        CancellableBatches { guard: Some(self) }
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        let removed = self.running.lock().remove(&self.key);
        drop(removed);
    }
}

/// The batches of a running statement.
pub(crate) struct CancellableBatches {
    /// `None` once the stream has ended.
    guard: Option<RunningGuard>,
}

impl Stream for CancellableBatches {
    type Item = Result<RecordBatch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(guard) = &self.guard else { return Poll::Ready(None) };
        // Registered before looking, so that a cancellation in between wakes us.
        guard.query.waiting.register(context.waker());
        let mut state = guard.query.state.lock();
        let told = &guard.query.told;
        told.reader.register(context.waker());
        *told.since.lock() = None;
        let next = match &mut state.batches {
            Some(batches) => batches.poll_next_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(told)))),
            None => Poll::Ready(Some(Err(state.stopped.unwrap_or(Stop::Cancelled).into()))),
        };
        state.unread_since = next.is_ready().then(Instant::now);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            let batches = state.batches.take();
            drop(state);
            drop(batches);
            self.guard = None;
        }
        next
    }
}

impl Drop for CancellableBatches {
    fn drop(&mut self) {
        // The client went away: the entry still holds the stream through its Arc, and must let go of it now.
        if let Some(guard) = &self.guard {
            let batches = guard.query.state.lock().batches.take();
            drop(batches);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tonic::Code;

    struct SetOnDrop(Arc<AtomicBool>);

    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn endless(dropped: &Arc<AtomicBool>) -> Batches {
        let guard = SetOnDrop(Arc::clone(dropped));
        futures::stream::pending()
            .map(move |batch| {
                let _held = &guard;
                batch
            })
            .boxed()
    }

    #[tokio::test]
    async fn cancelling_drops_the_work_of_a_client_that_does_not_read() {
        let running = RunningQueries::default();
        let ticket = Handle::random();
        let dropped = Arc::new(AtomicBool::new(false));
        let mut batches = running.register(&Principal::Anyone, ticket).expect("new").stream(endless(&dropped));
        assert!(batches.next().now_or_never().is_none(), "nothing to read yet");
        assert!(running.cancel(&Principal::Anyone, ticket));
        assert!(dropped.load(Ordering::SeqCst));
        let status = batches.next().await.expect("an error").expect_err("cancelled");
        assert_eq!(status.code(), Code::Cancelled);
        assert!(batches.next().await.is_none());
        assert!(!running.cancel(&Principal::Anyone, ticket), "it no longer runs");
    }

    #[tokio::test]
    async fn a_shutdown_ends_streams_with_its_own_code() {
        let running = RunningQueries::default();
        let dropped = Arc::new(AtomicBool::new(false));
        let reading = running.register(&Principal::Anyone, Handle::random()).expect("new");
        let mut batches = reading.stream(endless(&dropped));
        let executing = running.register(&Principal::Token(1), Handle::random()).expect("new");
        running.shut_down();
        assert!(dropped.load(Ordering::SeqCst));
        let status = batches.next().await.expect("an error").expect_err("stopped");
        assert!(status.message().starts_with("[57P01]"), "{status:?}");
        let outcome = executing.unless_cancelled(std::future::pending::<Result<(), Status>>()).await;
        assert!(outcome.expect_err("stopped").message().starts_with("[57P01]"));
    }

    #[tokio::test]
    async fn cancelling_before_the_first_batch_stops_the_execution() {
        let running = RunningQueries::default();
        let ticket = Handle::random();
        let guard = running.register(&Principal::Anyone, ticket).expect("new");
        assert!(running.register(&Principal::Anyone, ticket).is_none(), "it runs already");
        assert!(!running.cancel(&Principal::Token(3), ticket), "somebody else's");
        assert!(running.cancel(&Principal::Anyone, ticket));
        let outcome = guard.unless_cancelled(std::future::pending::<Result<(), Status>>()).await;
        assert_eq!(outcome.expect_err("cancelled").code(), Code::Cancelled);
        let dropped = Arc::new(AtomicBool::new(false));
        let mut batches = guard.stream(endless(&dropped));
        assert!(dropped.load(Ordering::SeqCst));
        assert!(batches.next().await.expect("an error").is_err());
    }

    #[tokio::test]
    async fn a_client_that_leaves_drops_the_work() {
        let running = RunningQueries::default();
        let dropped = Arc::new(AtomicBool::new(false));
        let guard = running.register(&Principal::Anyone, Handle::random()).expect("new");
        drop(guard.stream(endless(&dropped)));
        assert!(dropped.load(Ordering::SeqCst));
        assert!(running.running.lock().is_empty());
    }

    fn rows(dropped: &Arc<AtomicBool>) -> Batches {
        let empty = || Ok(RecordBatch::new_empty(Arc::new(Schema::empty())));
        futures::stream::repeat_with(empty).take(2).chain(endless(dropped)).boxed()
    }

    #[tokio::test]
    async fn what_is_not_read_for_too_long_is_stopped() {
        const LONG: Duration = Duration::from_secs(60);
        let (running, now) = (RunningQueries::default(), Instant::now());
        let dropped = Arc::new(AtomicBool::new(false));
        let guard = running.register(&Principal::Anyone, Handle::random()).expect("new");
        let mut batches = guard.stream(rows(&dropped));
        assert!(batches.next().await.expect("a batch").is_ok());
        running.sweep_at(now + LONG / 2, LONG);
        assert!(batches.next().await.expect("another").is_ok(), "it is not too long");
        assert!(batches.next().now_or_never().is_none());
        running.sweep_at(now + LONG * 3, LONG);
        assert!(batches.next().now_or_never().is_none(), "the client waits, not the statement");

        let guard = running.register(&Principal::Anyone, Handle::random()).expect("new");
        let gone = Arc::new(AtomicBool::new(false));
        let mut batches = guard.stream(rows(&gone));
        running.sweep_at(now + LONG * 3, LONG);
        assert!(gone.load(Ordering::SeqCst), "nobody has begun to read");
        let status = batches.next().await.expect("an error").expect_err("stopped");
        assert_eq!((status.code(), &status.message()[..7]), (Code::DeadlineExceeded, "[57014]"));
        assert!(!dropped.load(Ordering::SeqCst), "the other goes on");
    }

    #[tokio::test]
    async fn who_was_told_of_a_batch_and_does_not_take_it_is_not_waiting() {
        const LONG: Duration = Duration::from_secs(60);
        let (running, now) = (RunningQueries::default(), Instant::now());
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        let guard = running.register(&Principal::Anyone, Handle::random()).expect("new");
        let mut batches = guard.stream(receiver.boxed());
        let send = || sender.unbounded_send(Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))));
        assert!(batches.next().now_or_never().is_none());
        running.sweep_at(now + LONG * 3, LONG);
        send().expect("it is the statement that takes its time");
        assert!(batches.next().await.expect("a batch").is_ok());
        assert!(batches.next().now_or_never().is_none());
        send().expect("still there");
        running.sweep_at(now + LONG * 3, LONG);
        assert!(send().is_err(), "it was stopped");
        assert!(batches.next().await.expect("an error").is_err());
    }

    #[tokio::test]
    async fn what_runs_ahead_waits_to_be_fetched() {
        const LONG: Duration = Duration::from_secs(60);
        let (running, now, ticket) = (RunningQueries::default(), Instant::now(), Handle::random());
        let dropped = Arc::new(AtomicBool::new(false));
        let guard = running.register_standing(&Principal::Anyone, ticket).expect("new");
        let mut batches = guard.stream(rows(&dropped));
        assert!(batches.next().await.expect("a batch").is_ok());
        running.sweep_at(now + LONG * 3, LONG);
        assert!(!dropped.load(Ordering::SeqCst));
        running.fetched(ticket);
        running.sweep_at(now + LONG * 3, LONG);
        assert!(dropped.load(Ordering::SeqCst));
        assert!(batches.next().await.expect("an error").is_err());

        // Fetched before there is a row: it is the engine that takes its time.
        let ticket = Handle::random();
        let guard = running.register_standing(&Principal::Anyone, ticket).expect("new");
        let gone = Arc::new(AtomicBool::new(false));
        let mut batches = guard.stream(endless(&gone));
        assert!(batches.next().now_or_never().is_none());
        running.fetched(ticket);
        running.sweep_at(now + LONG * 3, LONG);
        assert!(!gone.load(Ordering::SeqCst));
    }
}
