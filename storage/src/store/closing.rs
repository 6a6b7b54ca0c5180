//! How a store ends in order, however many ask for it.
//!
//! The first call of [`Store::close`] says what is to be done, and whoever has called it, then or later, waits for the end of that and
//! learns the same. They do it together: when one gives up half-way, the next goes on from there. What is kept of it
//! belongs to the handles of the store and not to the store itself, which it keeps alive: with the last handle it goes, too.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use super::{Inner, Job, Store};
use crate::error::{Error, Result};
use crate::log::{Claim, Operation, Record};

/// At closing, this much in the memtable is worth a segment; less is replayed faster than it is written.
const CLOSE_FLUSH_BYTES: usize = 16 * 1024 * 1024;

type Outcome = std::result::Result<(), Arc<Error>>;

/// The end of a store, once somebody has asked for it.
#[derive(Debug, Default)]
pub(super) struct Closing(OnceLock<Shared<BoxFuture<'static, Outcome>>>);

impl Store {
    /// Ends the store in order. What was committed is durable already; later calls fail with `Closed`, but for this one: it
    /// waits until the store is closed, whoever was the first to want it, and tells how that went.
    pub async fn close(&self) -> Result<()> {
        let closing = self.closing.0.get_or_init(|| {
            let (inner, threads) = (Arc::clone(&self.inner), self.background.take_threads());
            async move { inner.close(threads).await.map_err(Arc::new) }.boxed().shared()
        });
        closing.clone().await.map_err(|error| error.for_another())
    }
}

impl Inner {
    /// Ends the store, and with it these threads.
    async fn close(&self, threads: Vec<JoinHandle<()>>) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        if self.current.load().active.memory_bytes() > CLOSE_FLUSH_BYTES
            && self.log.check().is_ok()
            && let Err(error) = self.wait_for_flush().await
        {
            // The log has it all.
            tracing::warn!(%error, "rows in memory could not be written out");
        }
        // The background thread may be waiting for a reply or holding the last reference but one: let it end first.
        let _ = self.jobs.send(Job::Stop);
        self.compaction_wanted.notify_one();
        self.compaction_requests.lock().clear();
        let ended = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a background thread panicked");
                }
            }
        });
        ended.await.map_err(|error| Error::Internal(error.to_string()))?;
        let sealed = {
            let _committer = self.committer.write().await;
            let timestamp = self.publication.allocated();
            let mut operations: Vec<_> = self.sequences.unused().into_iter().map(Operation::Sequence).collect();
            operations.push(Operation::Seal);
            let lsn = self.log.append(&Record { timestamp, operations }, Claim::Last).await;
            match lsn {
                Ok(lsn) => self.log.wait_durable(lsn).await,
                Err(error) => Err(error),
            }
        };
        self.log.stop();
        let _none_is_writing = self.writing.write().await;
        self.lock.0.lock().take();
        sealed
    }
}
