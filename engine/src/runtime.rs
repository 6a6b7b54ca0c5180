//! The threads a database works on: one runtime for statements, one for the store's background work. Neither is the
//! caller's, so that a long query never keeps a server from answering its other clients.
//!
//! Work handed over is cancelled when the caller stops waiting for it, and a panic in it is an error of that statement
//! only.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle};

use crate::governor::{self, Governor};
use crate::interrupt::Interrupt;
use crate::{Error, Result, error::sqlstate};

/// Stack of a statement's threads. Planning walks expressions recursively, and a long chain of ANDs is a deep tree; the
/// memory is only reserved, not used, until a statement needs it.
const STATEMENT_STACK_BYTES: usize = 32 * 1024 * 1024;

/// Flushes and compactions mostly wait for disks; two can overlap.
const BACKGROUND_THREADS: usize = 2;

/// The runtimes of a database. Dropping them stops what runs on them without waiting.
#[derive(Debug)]
pub(crate) struct Runtimes {
    statements: Option<Runtime>,
    background: Option<Runtime>,
    governor: Arc<Governor>,
}

impl Runtimes {
    pub(crate) fn start(query_threads: usize) -> Result<Self> {
        let builder = |name: &str, threads: usize, stack: usize| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name(name).thread_stack_size(stack).enable_all();
            builder
        };
        let start = |mut builder: Builder| builder.build().map_err(|error| Error::io("cannot start threads", &error));
        let cores = std::thread::available_parallelism().map_or(query_threads, usize::from);
        // If the second cannot be had, the first is dropped as a part of this.
        let mut runtimes = Runtimes { statements: None, background: None, governor: Arc::new(Governor::new(cores)) };
        let governor = Arc::clone(&runtimes.governor);
        let mut statements = builder("rustydb-query", query_threads, STATEMENT_STACK_BYTES);
        statements.on_thread_start(move || governor::govern_thread(&governor));
        statements.on_thread_unpark(governor::begin_turn).on_thread_park(governor::end_turn);
        runtimes.statements = Some(start(statements)?);
        runtimes.background = Some(start(builder("rustydb-store", BACKGROUND_THREADS, 4 * 1024 * 1024))?);
        Ok(runtimes)
    }

    /// Says who gets the processors.
    pub(crate) fn governor(&self) -> &Governor {
        &self.governor
    }

    /// Makes clocks and files of the statements' runtime work on the calling thread, until the guard is dropped.
    pub(crate) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.statements.as_ref().expect("runtimes are taken only in drop").enter()
    }

    /// Starts work on the statements' threads.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Task<T> {
        spawn_on(&self.statements, work)
    }

    // The three below answer with a type that does not name the work: the compiler then proves once, here, that a
    // statement may move between threads, and not again for every caller, which took the flight crate minutes.

    /// Runs a statement's work; dropping the future cancels it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Outcome<Task<Result<T>>> {
        Outcome(self.spawn(work))
    }

    /// Runs the store's own work, so that what it starts for later lives on the background threads.
    pub(crate) fn run_in_background<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Outcome<Task<Result<T>>> {
        Outcome(spawn_on(&self.background, work))
    }

    /// Runs work that must not stop half way: it goes on if the caller stops waiting.
    pub(crate) fn run_to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Outcome<JoinHandle<Result<T>>> {
        let runtime = self.background.as_ref().expect("runtimes are taken only in drop");
        Outcome(runtime.spawn(work))
    }
}

/// Waits for work that can fail by itself and by not running to its end; either is its error.
#[derive(Debug)]
pub(crate) struct Outcome<H>(H);

impl<H, T, E> Future for Outcome<H>
where
    H: Future<Output = Result<Result<T>, E>> + Unpin,
    Error: From<E>,
{
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|ended| ended?)
    }
}

fn spawn_on<T: Send + 'static>(runtime: &Option<Runtime>, work: impl Future<Output = T> + Send + 'static) -> Task<T> {
    let runtime = runtime.as_ref().expect("runtimes are taken only in drop");
    let interrupt = Arc::new(Interrupt::default());
    let work = runtime.spawn(Arc::clone(&interrupt).scope(work));
    Task { work, interrupt }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        // A plain drop would block, which tokio forbids inside a runtime: and the last handle may be dropped anywhere.
        for runtime in [self.statements.take(), self.background.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

/// Lets the thread begin what this task has woken, and goes on, perhaps on another thread.
///
/// A task that is woken by another is kept for the thread of the one that woke it, where no idle thread can take it. So
/// whoever is done with something that others wait for, a hash table say, and then works on for long without waiting, keeps
/// them from working beside it: queries of two threads ran on one for a third of their time.
pub(crate) async fn give_way() {
    let mut gave = false;
    std::future::poll_fn(|context| match std::mem::replace(&mut gave, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Running work. Dropping it cancels the work.
#[derive(Debug)]
pub(crate) struct Task<T> {
    work: JoinHandle<T>,
    interrupt: Arc<Interrupt>,
}

impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.work).poll(context).map_err(Error::from)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        // The one ends work that waits, the other work that plans.
        self.work.abort();
        self.interrupt.cancel();
    }
}

impl From<JoinError> for Error {
    fn from(error: JoinError) -> Self {
        if error.is_cancelled() {
            return Error::new(sqlstate::QUERY_CANCELED, "the statement was cancelled");
        }
        let reason = panic_message(error.into_panic().as_ref());
        tracing::error!(reason, "a statement panicked");
        Error::internal("the statement failed on an internal error; other statements are not affected")
            .with_detail(reason)
    }
}

pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_internal_error() {
        let runtimes = Runtimes::start(1).unwrap();
        let error = runtimes.run::<()>(async { panic!("broken invariant") }).await.unwrap_err();
        assert_eq!((error.sqlstate(), error.detail()), ("XX000", Some("broken invariant")));
        assert_eq!(runtimes.run(async { Ok(7) }).await.unwrap(), 7, "the runtime lives on");
    }

    #[tokio::test]
    async fn whoever_was_waited_for_and_gives_way_does_not_keep_others_from_beginning() {
        let runtimes = Runtimes::start(2).unwrap();
        let (ready, wait) = tokio::sync::oneshot::channel::<()>();
        let (begun, begins) = std::sync::mpsc::channel();
        let waiting = runtimes.run(async move {
            wait.await.map_err(|_| Error::internal("nothing came"))?;
            begun.send(()).map_err(|_| Error::internal("nobody listens"))
        });
        let working = runtimes.run(async move {
            ready.send(()).map_err(|()| Error::internal("nobody waits"))?;
            give_way().await;
            // Stands for long work: the thread is not given back before the other has begun.
            begins.recv_timeout(std::time::Duration::from_secs(60)).map_err(|_| Error::internal("it never began"))
        });
        working.await.unwrap();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn dropping_a_task_cancels_its_work() {
        let runtimes = Runtimes::start(1).unwrap();
        let (alive, ended) = tokio::sync::oneshot::channel::<()>();
        drop(runtimes.spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        }));
        assert!(ended.await.is_err(), "the sender was dropped with its task");
    }
}
