//! Statements that go on although nobody asks how far they are.
//!
//! The body of a response is polled while its client takes what is sent: one whose window is full, or who was stopped, leaves
//! whatever its body waits for as it stands. A statement that waits has the turn of its session, and may have locks of rows that
//! others want. So it waits in a task of its own, which its body asks for the outcome.
//!
//! Invariant: work that is no longer wanted is stopped where it next waits.

use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::{JoinError, JoinHandle};

/// Does `work`: at once if it need not wait, which costs no task, else in a task of its own. It panics if `work` does.
pub(crate) async fn onward<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let mut work = Box::pin(work);
    if let Poll::Ready(outcome) = futures::poll!(work.as_mut()) {
        return outcome;
    }
    match Wanted(tokio::spawn(work)).await {
        Ok(outcome) => outcome,
        // Nobody but us can abort it, so it panicked, or the runtime ends, which drops us as well.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// A task that ends with who waits for it.
struct Wanted<T>(JoinHandle<T>);

impl<T> Future for Wanted<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Wanted<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[tokio::test]
    async fn work_goes_on_while_nobody_asks() {
        let (go, may_go) = oneshot::channel::<()>();
        let done = Arc::new(Notify::new());
        let tell = Arc::clone(&done);
        let mut work = Box::pin(onward(async move {
            may_go.await.expect("somebody lets it");
            tell.notify_one();
            42
        }));
        assert!(work.as_mut().now_or_never().is_none());
        go.send(()).expect("it waits");
        done.notified().await;
        assert_eq!(work.await, 42);
    }

    #[tokio::test]
    async fn work_that_need_not_wait_is_done_at_once() {
        assert_eq!(onward(async { 42 }).now_or_never(), Some(42));
    }

    #[tokio::test]
    async fn unwanted_work_is_stopped() {
        let (held, dropped) = oneshot::channel::<()>();
        let mut work = Box::pin(onward(async move {
            std::future::pending::<()>().await;
            drop(held);
        }));
        assert!(work.as_mut().now_or_never().is_none());
        drop(work);
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn a_panic_is_its_callers() {
        let work = onward(async {
            tokio::task::yield_now().await;
            panic!("broken operator");
        });
        let panic = std::panic::AssertUnwindSafe(work).catch_unwind().await.expect_err("a panic");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"broken operator"));
    }
}
