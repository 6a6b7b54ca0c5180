//! Statements being executed, so that another call can stop them.
//!
//! Invariant: [`RunningQuery::cancel`] stops the work before it returns. It does not wait for the network to ask for
//! the next batch, which a client that stopped reading would never do: the result stream is taken away from under the
//! connection and dropped, and dropping it is what cancels a query in the engine.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::task::AtomicWaker;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

use crate::auth::Principal;
use crate::handles::Handle;
use crate::status::refuse;

/// The batches of a result, before they are encoded.
pub(crate) type Batches = BoxStream<'static, Result<RecordBatch, Status>>;

/// Every statement that is being executed for a ticket.
#[derive(Default)]
pub(crate) struct RunningQueries {
    by_ticket: Arc<Mutex<HashMap<Handle, Arc<RunningQuery>>>>,
}

impl RunningQueries {
    /// Notes that the statement of `ticket` runs from now until the guard is dropped; `None` if it runs already.
    pub(crate) fn register(&self, principal: &Principal, ticket: Handle) -> Option<RunningGuard> {
        let mut by_ticket = self.by_ticket.lock();
        if by_ticket.contains_key(&ticket) {
            return None;
        }
        let query = Arc::new(RunningQuery {
            principal: principal.clone(),
            stopped: watch::Sender::new(None),
            batches: Mutex::new(None),
            reader: AtomicWaker::new(),
        });
        by_ticket.insert(ticket, Arc::clone(&query));
        Some(RunningGuard { query, ticket, by_ticket: Arc::clone(&self.by_ticket) })
    }

    /// Stops everything, because the server ends: streams end with 57P01, which a client can tell from a lost connection.
    pub(crate) fn shut_down(&self) {
        let running: Vec<_> = self.by_ticket.lock().values().cloned().collect();
        for query in running {
            query.stop(Stop::Shutdown);
        }
    }

    /// Stops the statement of `ticket`, if it runs and belongs to `principal`.
    pub(crate) fn cancel(&self, principal: &Principal, ticket: Handle) -> bool {
        let query = self.by_ticket.lock().get(&ticket).filter(|query| query.principal == *principal).cloned();
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
}

impl From<Stop> for Status {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled => refuse("57014", "the statement was cancelled").into(),
            Stop::Shutdown => shutting_down(),
        }
    }
}

struct RunningQuery {
    principal: Principal,
    stopped: watch::Sender<Option<Stop>>,
    /// `None` before execution gave a stream, and after cancellation took it away.
    batches: Mutex<Option<Batches>>,
    reader: AtomicWaker,
}

impl RunningQuery {
    fn stop(&self, why: Stop) {
        self.stopped.send_replace(Some(why));
        // Dropped outside the lock's guard expression on purpose: the engine may take its time.
        let batches = self.batches.lock().take();
        drop(batches);
        self.reader.wake();
    }

    fn why_stopped(&self) -> Option<Stop> {
        *self.stopped.borrow()
    }
}

/// A statement's entry among the running ones; dropping it removes the entry.
pub(crate) struct RunningGuard {
    query: Arc<RunningQuery>,
    ticket: Handle,
    by_ticket: Arc<Mutex<HashMap<Handle, Arc<RunningQuery>>>>,
}

impl RunningGuard {
    /// Does `work` unless the statement is cancelled first.
    pub(crate) async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let mut stopped = self.query.stopped.subscribe();
        tokio::select! {
            biased;
            // The sender lives in `self.query`, so waiting ends only when it is stopped.
            _ = stopped.wait_for(|stopped| stopped.is_some()) => {
                Err(self.query.why_stopped().unwrap_or(Stop::Cancelled).into())
            }
            outcome = work => outcome,
        }
    }

    /// Sends `batches` as long as the statement is not cancelled.
    pub(crate) fn stream(self, batches: Batches) -> CancellableBatches {
        *self.query.batches.lock() = Some(batches);
        if let Some(why) = self.query.why_stopped() {
            // Stopped between execution and here: who did it found nothing to take.
            self.query.stop(why);
        }
        CancellableBatches { guard: Some(self) }
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.by_ticket.lock().remove(&self.ticket);
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
        guard.query.reader.register(context.waker());
        let next = match guard.query.batches.lock().as_mut() {
            Some(batches) => batches.poll_next_unpin(context),
            None => Poll::Ready(Some(Err(guard.query.why_stopped().unwrap_or(Stop::Cancelled).into()))),
        };
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            guard.query.batches.lock().take();
            self.guard = None;
        }
        next
    }
}

impl Drop for CancellableBatches {
    fn drop(&mut self) {
        // The client went away: the entry still holds the stream through its Arc, and must let go of it now.
        if let Some(guard) = &self.guard {
            let batches = guard.query.batches.lock().take();
            drop(batches);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert!(running.by_ticket.lock().is_empty());
    }
}
