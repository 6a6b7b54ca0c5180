//! The threads that work for a store unasked, and how they end with it.
//!
//! ```text
//!   rustydb-flush     writes memtables out, and removes files that nobody reads any more (flush.rs)
//!   rustydb-compact   merges segments, with low priority (compact.rs)
//! ```
//! Both know the store by a weak reference, so that they do not keep it alive; while there is something to do they hold it
//! ([`Work`]). A store that is dropped without having been closed may so be held by nobody but its own threads, together with the
//! directory's lock. Whoever drops it waits for them to let go of it: afterwards the directory can be opened again.
//!
//! A panic in one piece of their work is an error of that piece ([`caught`]): whoever waits for it is told, and the thread is there
//! for the next one.

use std::any::Any;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use futures::FutureExt;
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::UnboundedReceiver;

use super::flush::FLUSH_RETRY;
use super::{Inner, Job, compact};
use crate::error::{Error, Result};

/// How many threads hold the store at the moment.
#[derive(Debug, Default)]
struct Holders {
    count: Mutex<usize>,
    fewer: Condvar,
}

/// The store, as its threads know it.
#[derive(Debug, Clone)]
pub(super) struct Employer {
    store: Weak<Inner>,
    holders: Arc<Holders>,
}

/// The store, held by one of its threads.
pub(super) struct Work {
    /// Let go of first.
    inner: Arc<Inner>,
    _held: Held,
}

/// Counted among those who hold the store.
struct Held(Arc<Holders>);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.count.lock() -= 1;
        self.0.fewer.notify_all();
    }
}

impl Deref for Work {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Employer {
    /// Holds the store, if it is still there.
    pub(super) fn work(&self) -> Option<Work> {
        // Counted before it is held: whoever counts nobody can be sure that nobody holds it.
        *self.holders.count.lock() += 1;
        let held = Held(Arc::clone(&self.holders));
        self.store.upgrade().map(|inner| Work { inner, _held: held })
    }

    /// Waits until none of its threads hold the store, as long as nobody else does.
    fn wait_for_the_last(&self) {
        if let Some(inner) = self.store.upgrade()
            && Arc::strong_count(&inner) - 1 <= *self.holders.count.lock()
        {
            // Nobody is left to whom it would matter: what they are at need not be brought to its end.
            inner.closed.store(true, Ordering::Release);
            inner.compaction_wanted.notify_one();
        }
        let mut count = self.holders.count.lock();
        while *count > 0 && self.store.strong_count() <= *count {
            self.holders.fewer.wait(&mut count);
        }
    }
}

/// A store's threads. When the last handle of the store goes, they let go of it.
#[derive(Debug)]
pub(super) struct Background {
    employer: Employer,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Background {
    /// Starts the threads: one does the jobs of a queue and removes the files that are discarded.
    pub(super) fn start(
        store: &Arc<Inner>,
        mut jobs: UnboundedReceiver<Job>,
        mut discards: UnboundedReceiver<String>,
    ) -> Result<Background> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::io("starting the background runtime", error))?;
        let employer = Employer { store: Arc::downgrade(store), holders: Arc::default() };
        let own = employer.clone();
        let flushing = async move {
            loop {
                let is_failing = own.work().is_some_and(|store| store.flush_failure.lock().is_some());
                tokio::select! {
                    () = tokio::time::sleep(FLUSH_RETRY), if is_failing => match own.work() {
                        Some(store) => store.flush_and_report(None).await,
                        None => break,
                    },
                    job = jobs.recv() => match (job, own.work()) {
                        (Some(Job::Flush(reply)), Some(store)) => store.flush_and_report(reply).await,
                        _ => break,
                    },
                    Some(path) = discards.recv() => match own.work() {
                        Some(store) => store.remove_file(&path).await,
                        None => break,
                    },
                }
            }
        };
        let flushing = start_thread("rustydb-flush", move || runtime.block_on(flushing))?;
        let (own, wanted) = (employer.clone(), Arc::clone(&store.compaction_wanted));
        let compacting = start_thread("rustydb-compact", move || compact::run(&own, &wanted))?;
        Ok(Background { employer, threads: Mutex::new(vec![flushing, compacting]) })
    }

    /// The threads, for somebody who waits for their end.
    pub(super) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.threads.lock())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.employer.wait_for_the_last();
    }
}

/// What the work comes to; an error if it panics.
pub(super) async fn caught<T>(what: &str, work: impl Future<Output = T>) -> Result<T> {
    // What the work has left half done is not looked at again: its caller poisons the store, or what it was at was its own.
    let result = AssertUnwindSafe(work).catch_unwind().await;
    result.map_err(|panic| Error::Internal(format!("{what} panicked: {}", text_of(&*panic))))
}

/// The message of a panic.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| Error::io("starting a background thread", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_work() {
        assert_eq!(caught("the work", async { 1 }).await.unwrap(), 1);
        let number = 2;
        let panicking = async { assert_eq!(number, 3, "it is another number") };
        let error = caught("the work", panicking).await.unwrap_err();
        assert!(matches!(error, Error::Internal(_)));
        let text = error.to_string();
        assert!(text.contains("the work panicked") && text.contains("it is another number"), "{text}");
        let short = caught::<()>("the work", async { panic!("no") }).await.unwrap_err();
        assert!(short.to_string().ends_with("the work panicked: no"), "{short}");
    }
}
