//! The commit log: what makes a commit durable.
//!
//! ```text
//!  commit A ─┐ append            one thread                      waiters
//!  commit B ─┼────────▶ pending ──────────▶ write + sync ──────▶ A, B, C: durable
//!  commit C ─┘  buffer           │ meanwhile D, E arrive │
//! ```
//! Group commit without a timer: the thread writes whatever arrived while it was syncing the previous batch, so a lone
//! commit waits for one sync and a crowd shares one. Positions (`Lsn`) are given in the order of appending, which the
//! store makes the order of commit timestamps. Whoever appends has encoded its record before and hands over the buffer;
//! the thread computes the checksums, copies the records of a batch together, and tells the [`Observer`] how far commits
//! are durable.
//!
//! A failed write or sync *poisons* the log: how much of the file reached the disk is unknown from then on, so nothing
//! more is accepted until the store is opened again ("fsyncgate": a second fsync would lie).
//!
//! The log is a sequence of files `log/<number>.log`; a flush starts a new one and, when its manifest is durable,
//! removes the older ones. File format: see [`frame`]; records: see [`record`].

mod frame;
mod record;

use std::mem;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustydb_txn::Timestamp;
use tokio::sync::watch;

pub(crate) use frame::{Frame, LOG_DIRECTORY, log_number, log_path, read_log};
pub(crate) use record::{AddedSegment, Operation, Record, RecordWriter};

use crate::error::{Error, Result};
use crate::files::{AppendFile, Files};

/// Position after a record (or the beginning of a file) in the sequence of all since the log was opened.
pub(crate) type Lsn = u64;

/// Pending bytes at which appends are refused until the disk catches up; far above what a healthy disk lets pile up,
/// since every synchronous committer waits for its own record.
const PENDING_BYTES_MAX: usize = 1 << 30;

/// Memory that the thread keeps for putting batches together; a larger one gets more and gives it back.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Durable {
    lsn: Lsn,
    failure: Option<Arc<str>>,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Pending {
    /// Frames to write to the current file, then a new file with this number and its frames, and so on.
    batches: Vec<Batch>,
    bytes: usize,
    next: Lsn,
    stop: bool,
    failure: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Batch {
    new_file: Option<u64>,
    frames: Vec<Frame>,
    /// The youngest commit among them.
    newest: Timestamp,
}

/// Who is told what has become of commits, from the log's thread.
pub(crate) trait Observer: Send + Sync {
    /// Every commit up to this one survives a power cut.
    fn durable(&self, newest: Timestamp);
    /// No further one will, for this reason.
    fn poisoned(&self, reason: &Arc<str>);
    /// No further one will: the log was closed.
    fn stopped(&self);
}

struct Shared {
    pending: Mutex<Pending>,
    arrived: Condvar,
    durable: watch::Sender<Durable>,
    observer: Arc<dyn Observer>,
}

/// The open log.
pub(crate) struct Log {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").field("durable", &*self.shared.durable.borrow()).finish_non_exhaustive()
    }
}

impl Log {
    /// Starts writing to a new file with this number.
    pub(crate) fn start(files: Arc<dyn Files>, number: u64, observer: Arc<dyn Observer>) -> Result<Log> {
        let current =
            Current::create(files.as_ref(), number).map_err(|error| Error::io("creating a log file", error))?;
        let (durable, _) = watch::channel(Durable { lsn: 0, failure: None, stopped: false });
        let shared = Arc::new(Shared { pending: Mutex::default(), arrived: Condvar::new(), durable, observer });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("rustydb-log".into())
            .spawn(move || write_loop(&worker, files.as_ref(), current))
            .map_err(|error| Error::io("starting the log thread", error))?;
        Ok(Log { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Fails if the log accepts nothing, or so much is waiting for the disk that it should not.
    pub(crate) fn check_room(&self) -> Result<()> {
        let pending = self.shared.pending.lock();
        pending.check()?;
        if pending.bytes > PENDING_BYTES_MAX {
            return Err(Error::io("writing the log", std::io::Error::other("the disk does not keep up")));
        }
        Ok(())
    }

    /// Hands a record to the log and returns its position. It is not durable yet.
    pub(crate) fn append(&self, record: &Record<'_>) -> Result<Lsn> {
        self.check_room()?;
        self.append_frame(Frame::new(|payload| record.encode(payload))?, record.timestamp)
    }

    /// The same for an encoded record that was waiting for its timestamp. Timestamps of commits ascend. Only a log that
    /// has ended refuses it.
    pub(crate) fn append_frame(&self, mut frame: Frame, timestamp: Timestamp) -> Result<Lsn> {
        frame.set_timestamp(timestamp);
        let mut pending = self.shared.pending.lock();
        pending.check()?;
        if pending.batches.is_empty() {
            pending.batches.push(Batch::default());
        }
        let batch = pending.batches.last_mut().ok_or(Error::Closed)?;
        let added = frame.len();
        batch.newest = batch.newest.max(timestamp);
        batch.frames.push(frame);
        pending.bytes += added;
        pending.next += 1;
        let lsn = pending.next;
        drop(pending);
        self.shared.arrived.notify_one();
        Ok(lsn)
    }

    /// Directs everything appended from now on to a new file. Returns the position at which the file exists durably:
    /// a manifest that says the log begins there must wait for it.
    pub(crate) fn rotate(&self, number: u64) -> Result<Lsn> {
        let mut pending = self.shared.pending.lock();
        pending.check()?;
        pending.batches.push(Batch { new_file: Some(number), ..Batch::default() });
        pending.next += 1;
        self.shared.arrived.notify_one();
        Ok(pending.next)
    }

    /// The position of the newest record.
    pub(crate) fn position(&self) -> Lsn {
        self.shared.pending.lock().next
    }

    /// Returns when everything before `lsn` survives a power cut.
    pub(crate) async fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        let mut durable = self.shared.durable.subscribe();
        let state = durable
            .wait_for(|state| state.lsn >= lsn || state.failure.is_some() || state.stopped)
            .await
            .map_err(|_| Error::Closed)?;
        match &state.failure {
            _ if state.lsn >= lsn => Ok(()),
            Some(reason) => Err(Error::Poisoned { reason: reason.to_string() }),
            None => Err(Error::Closed),
        }
    }

    /// Refuses everything from now on, for a reason found elsewhere (a failed flush).
    pub(crate) fn poison(&self, reason: &str) {
        self.shared.poison(reason);
    }

    /// Why the log accepts nothing, if so.
    pub(crate) fn check(&self) -> Result<()> {
        self.shared.pending.lock().check()
    }

    /// Writes what is pending and ends the thread.
    pub(crate) fn stop(&self) {
        self.shared.pending.lock().stop = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            self.shared.poison("the log thread panicked");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Pending {
    fn check(&self) -> Result<()> {
        match &self.failure {
            Some(reason) => Err(Error::Poisoned { reason: reason.to_string() }),
            None if self.stop => Err(Error::Closed),
            None => Ok(()),
        }
    }
}

impl Shared {
    fn poison(&self, reason: &str) {
        tracing::error!(reason, "the log is poisoned: no more writes until the database is restarted");
        let reason: Arc<str> = reason.into();
        let reason = Arc::clone(self.pending.lock().failure.get_or_insert(reason));
        self.observer.poisoned(&reason);
        self.durable.send_modify(|state| {
            state.failure.get_or_insert(reason);
        });
        self.arrived.notify_one();
    }
}

/// The file being written.
struct Current {
    file: Box<dyn AppendFile>,
    bytes: u64,
}

impl Current {
    fn create(files: &dyn Files, number: u64) -> std::io::Result<Self> {
        let mut file = files.create(&log_path(number))?;
        let header = frame::header(number);
        file.append(&header)?;
        file.sync()?;
        files.sync_directory(LOG_DIRECTORY)?;
        Ok(Current { file, bytes: header.len() as u64 })
    }

    /// Writes a batch behind what is all synced.
    fn write(&mut self, frames: &[Frame], buffer: &mut Vec<u8>) -> std::io::Result<()> {
        buffer.clear();
        frame::write_mark(buffer, self.bytes);
        frames.iter().for_each(|frame| frame.write(buffer));
        self.file.append(buffer)?;
        self.bytes += buffer.len() as u64;
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.file.sync()
    }
}

fn write_loop(shared: &Shared, files: &dyn Files, mut current: Current) {
    let mut buffer = Vec::new();
    loop {
        let (batches, lsn) = {
            let mut pending = shared.pending.lock();
            while pending.batches.is_empty() && !pending.stop && pending.failure.is_none() {
                shared.arrived.wait(&mut pending);
            }
            if pending.failure.is_some() || (pending.stop && pending.batches.is_empty()) {
                break;
            }
            pending.bytes = 0;
            (mem::take(&mut pending.batches), pending.next)
        };
        let written = batches.iter().try_for_each(|batch| {
            if let Some(number) = batch.new_file {
                current = Current::create(files, number)?;
            }
            current.write(&batch.frames, &mut buffer)?;
            shared.observer.durable(batch.newest);
            Ok(())
        });
        match written {
            Ok(()) => shared.durable.send_modify(|state| state.lsn = lsn),
            Err(error) => {
                let error: std::io::Error = error;
                shared.poison(&format!("writing the log: {error}"));
                break;
            }
        }
    }
    shared.observer.stopped();
    shared.durable.send_modify(|state| state.stopped = true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::MemoryFiles;
    use crate::store::Publication;

    #[tokio::test]
    async fn a_new_file_exists_when_its_position_is_durable() {
        for _ in 0..50 {
            let files = MemoryFiles::new();
            let log = Log::start(Arc::new(files.clone()), 1, Arc::new(Publication::default())).unwrap();
            let position = log.rotate(2).unwrap();
            log.wait_durable(position).await.unwrap();
            let left = files.after_power_cut();
            assert!(left.paths().iter().any(|(path, _)| *path == log_path(2)), "{:?}", left.paths());
        }
    }
}
