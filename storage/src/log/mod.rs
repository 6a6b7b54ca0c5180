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
//! more is accepted until the store is opened again ("fsyncgate": a second fsync would lie). So does a lock that is lost:
//! after each sync, before anybody is told, the thread looks whether the store's lock still keeps others out. If it does,
//! nobody has begun to read the log, and whoever opens the store later will find the batch.
//!
//! The log is a sequence of files `log/<number>.log`. A new one begins when the last has [`FILE_BYTES_MAX`] bytes, and with
//! every flush, which removes the older ones when its manifest is durable. The file for a flush is made before anything is
//! directed to it ([`Log::prepare_file`]), so that a full disk fails the flush and not the log. The file being written has
//! zeros reserved behind
//! its end, so that a sync has only data to wait for and no new size; they are cut off before the next file begins and when
//! the log is closed. File format: see [`frame`]; records: see [`record`]; what a crash leaves: see [`read`].

mod frame;
mod read;
mod record;

use std::mem;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustydb_txn::Timestamp;
use tokio::sync::watch;

pub(crate) use frame::{Frame, LOG_DIRECTORY, log_number, log_path};
pub(crate) use read::read_log;
pub(crate) use record::{AddedSegment, Operation, Operations, Record, RecordWriter};

use crate::error::{Error, Result};
use crate::files::{AppendFile, DirectoryLock, Files, LOCK_FILE, TEMPORARY_SUFFIX};

/// Position after a record (or the beginning of a file) in the sequence of all since the log was opened.
pub(crate) type Lsn = u64;

/// Pending bytes at which appends are refused until the disk catches up; far above what a healthy disk lets pile up,
/// since every synchronous committer waits for its own record.
const PENDING_BYTES_MAX: usize = 1 << 30;

/// A file is not continued beyond this: the unit in which the log is replayed, copied and removed.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Bytes reserved in a new file. A file grows by its own size at a time, but not less than this and not more than
/// [`RESERVE_BYTES_MAX`]: little is written twice, and a store that does little stays small.
const RESERVE_BYTES_MIN: u64 = 64 << 10;

const RESERVE_BYTES_MAX: u64 = 4 << 20;

/// Memory that the thread keeps for putting batches together; a larger one gets more and gives it back.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Durable {
    lsn: Lsn,
    failure: Option<Arc<str>>,
    stopped: bool,
}

#[derive(Debug)]
struct Pending {
    /// Frames to write to the current file, then a new file with this number and its frames, and so on.
    batches: Vec<Batch>,
    bytes: usize,
    /// The file that what is appended next goes to, and how much of that went there before.
    file: u64,
    file_bytes: u64,
    next: Lsn,
    stop: bool,
    failure: Option<Arc<str>>,
}

/// A file to go on in.
#[derive(Debug)]
struct NewFile {
    number: u64,
    prepared: Option<PreparedFile>,
}

#[derive(Debug, Default)]
struct Batch {
    new_file: Option<NewFile>,
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
    files: Arc<dyn Files>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").field("durable", &*self.shared.durable.borrow()).finish_non_exhaustive()
    }
}

impl Log {
    /// Starts writing to a new file with this number, for as long as the lock is held.
    pub(crate) fn start(
        files: Arc<dyn Files>,
        number: u64,
        observer: Arc<dyn Observer>,
        lock: Arc<dyn DirectoryLock>,
    ) -> Result<Log> {
        let current =
            Current::create(files.as_ref(), number).map_err(|error| Error::io("creating a log file", error))?;
        let (durable, _) = watch::channel(Durable { lsn: 0, failure: None, stopped: false });
        let (batches, bytes, file, file_bytes) = (Vec::new(), 0, number, 0);
        let pending = Pending { batches, bytes, file, file_bytes, next: 0, stop: false, failure: None };
        let shared = Arc::new(Shared { pending: Mutex::new(pending), arrived: Condvar::new(), durable, observer });
        let (worker, own_files) = (Arc::clone(&shared), Arc::clone(&files));
        let thread = std::thread::Builder::new()
            .name("rustydb-log".into())
            .spawn(move || write_loop(&worker, own_files.as_ref(), lock.as_ref(), current))
            .map_err(|error| Error::io("starting the log thread", error))?;
        Ok(Log { shared, thread: Mutex::new(Some(thread)), files })
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
        if pending.file_bytes >= FILE_BYTES_MAX {
            pending.begin_file(None);
        } else if pending.batches.is_empty() {
            pending.batches.push(Batch::default());
        }
        let batch = pending.batches.last_mut().ok_or(Error::Closed)?;
        let added = frame.len();
        batch.newest = batch.newest.max(timestamp);
        batch.frames.push(frame);
        pending.bytes += added;
        pending.file_bytes += added as u64;
        pending.next += 1;
        let lsn = pending.next;
        drop(pending);
        self.shared.arrived.notify_one();
        Ok(lsn)
    }

    /// Makes a file for [`Log::rotate`]. A failure leaves the log as it is.
    pub(crate) fn prepare_file(&self) -> Result<PreparedFile> {
        let number = {
            let pending = self.shared.pending.lock();
            pending.check()?;
            pending.file + 1
        };
        let prepared = PreparedFile::create(&self.files, number);
        prepared.map_err(|error| Error::io(format!("creating {}", log_path(number)), error))
    }

    /// Directs everything appended from now on to a new file: the one that was prepared, unless the log has gone on to
    /// that number meanwhile. Returns its number and the position at which it exists
    /// durably: a manifest that says the log begins there must wait for it.
    pub(crate) fn rotate(&self, prepared: PreparedFile) -> Result<(u64, Lsn)> {
        let mut pending = self.shared.pending.lock();
        pending.check()?;
        let number = pending.file + 1;
        pending.begin_file(Some(prepared).filter(|prepared| prepared.number == number));
        pending.next += 1;
        self.shared.arrived.notify_one();
        Ok((pending.file, pending.next))
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
    fn begin_file(&mut self, prepared: Option<PreparedFile>) {
        self.file += 1;
        self.file_bytes = 0;
        let new_file = Some(NewFile { number: self.file, prepared });
        self.batches.push(Batch { new_file, ..Batch::default() });
    }

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

/// A log file that is not one yet: recovery takes a file of the log for whole once there is a later one, and the file being
/// written is not while it has zeros behind its end.
pub(crate) struct PreparedFile {
    files: Arc<dyn Files>,
    number: u64,
    current: Option<Current>,
}

impl std::fmt::Debug for PreparedFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PreparedFile").field("number", &self.number).finish_non_exhaustive()
    }
}

impl PreparedFile {
    fn create(files: &Arc<dyn Files>, number: u64) -> std::io::Result<Self> {
        let mut prepared = PreparedFile { files: Arc::clone(files), number, current: None };
        files.remove(&prepared.path())?;
        prepared.current = Some(Current::write_head(files.as_ref(), &prepared.path(), number)?);
        Ok(prepared)
    }

    fn path(&self) -> String {
        // Nobody else's, should there be two processes.
        format!("{}.{}{TEMPORARY_SUFFIX}", log_path(self.number), std::process::id())
    }

    /// Gives the file its name.
    fn publish(mut self) -> std::io::Result<Current> {
        self.files.rename_exclusive(&self.path(), &log_path(self.number))?;
        self.files.sync_directory(LOG_DIRECTORY)?;
        self.current.take().ok_or_else(|| std::io::Error::other("the file is not ready"))
    }
}

impl Drop for PreparedFile {
    fn drop(&mut self) {
        // Not published. Best effort: the next start removes what has this name.
        if let Err(error) = self.files.remove(&self.path()) {
            tracing::debug!(%error, "removing a log file that was not needed");
        }
    }
}

/// The file being written.
struct Current {
    file: Box<dyn AppendFile>,
    bytes: u64,
    reserved: u64,
}

impl Current {
    fn create(files: &dyn Files, number: u64) -> std::io::Result<Self> {
        let current = Self::write_head(files, &log_path(number), number)?;
        files.sync_directory(LOG_DIRECTORY)?;
        Ok(current)
    }

    /// A new file at `path` with what stands before the first batch, synced, but for its name.
    fn write_head(files: &dyn Files, path: &str, number: u64) -> std::io::Result<Self> {
        let mut file = files.create(path)?;
        let header = frame::header(number);
        file.append(&header)?;
        file.reserve(RESERVE_BYTES_MIN)?;
        file.sync()?;
        Ok(Current { file, bytes: header.len() as u64, reserved: RESERVE_BYTES_MIN })
    }

    /// Writes a batch behind what is all synced.
    fn write(&mut self, frames: &[Frame], buffer: &mut Vec<u8>) -> std::io::Result<()> {
        buffer.clear();
        frame::write_mark(buffer, self.bytes);
        frames.iter().for_each(|frame| frame.write(buffer));
        self.file.append(buffer)?;
        self.bytes += buffer.len() as u64;
        if self.bytes > self.reserved {
            // The size changes now anyway; the next batches shall have room again.
            self.reserved = self.bytes + self.bytes.clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
            self.file.reserve(self.reserved)?;
        }
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        self.file.sync()
    }

    /// Ends the file where its last batch ends.
    fn finish(&mut self) -> std::io::Result<()> {
        if self.bytes < self.reserved { self.file.trim() } else { Ok(()) }
    }
}

/// Fails if another process may have been let in.
fn require_held(lock: &dyn DirectoryLock) -> std::io::Result<()> {
    match lock.is_held()? {
        true => Ok(()),
        false => Err(std::io::Error::other(format!(
            "the file {LOCK_FILE} was removed or replaced, and another process may have opened the database"
        ))),
    }
}

fn write_loop(shared: &Shared, files: &dyn Files, lock: &dyn DirectoryLock, mut current: Current) {
    let mut buffer = Vec::new();
    let ended = loop {
        let (batches, lsn) = {
            let mut pending = shared.pending.lock();
            while pending.batches.is_empty() && !pending.stop && pending.failure.is_none() {
                shared.arrived.wait(&mut pending);
            }
            if pending.failure.is_some() {
                break Ok(());
            }
            if pending.stop && pending.batches.is_empty() {
                break current.finish();
            }
            pending.bytes = 0;
            (mem::take(&mut pending.batches), pending.next)
        };
        let written = batches.into_iter().try_for_each(|batch| {
            if let Some(NewFile { number, prepared }) = batch.new_file {
                current.finish()?;
                current = match prepared {
                    Some(prepared) => prepared.publish()?,
                    None => Current::create(files, number)?,
                };
            }
            current.write(&batch.frames, &mut buffer)?;
            require_held(lock)?;
            shared.observer.durable(batch.newest);
            Ok(())
        });
        match written {
            Ok(()) => shared.durable.send_modify(|state| state.lsn = lsn),
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = ended {
        let error: std::io::Error = error;
        shared.poison(&format!("writing the log: {error}"));
    }
    shared.observer.stopped();
    shared.durable.send_modify(|state| state.stopped = true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::MemoryFiles;
    use crate::store::Publication;

    fn start(files: &MemoryFiles) -> Log {
        let lock = Arc::from(files.lock().unwrap());
        Log::start(Arc::new(files.clone()), 1, Arc::new(Publication::default()), lock).unwrap()
    }

    #[tokio::test]
    async fn a_new_file_exists_when_its_position_is_durable() {
        for _ in 0..50 {
            let files = MemoryFiles::new();
            let log = start(&files);
            let (number, position) = log.rotate(log.prepare_file().unwrap()).unwrap();
            assert_eq!(number, 2);
            log.wait_durable(position).await.unwrap();
            let left = files.after_power_cut();
            assert!(left.paths().iter().any(|(path, _)| *path == log_path(2)), "{:?}", left.paths());
        }
    }

    fn records(files: &MemoryFiles, number: u64, newest: bool) -> (Vec<Timestamp>, read::ReadLog) {
        let mut timestamps = Vec::new();
        let log = read_log(files, number, newest, None, |window, range| {
            timestamps.push(Operations::of(&window[range]).unwrap().0);
            Ok(())
        });
        (timestamps, log.unwrap())
    }

    #[tokio::test]
    async fn a_file_has_room_while_it_is_written_and_ends_with_its_last_record_when_it_is_done() {
        let files = MemoryFiles::new();
        let log = start(&files);
        let append = async |timestamp| {
            let lsn =
                log.append(&Record { timestamp: 0, operations: vec![Operation::DropTable(crate::TableId(timestamp))] });
            log.wait_durable(lsn.unwrap()).await.unwrap();
        };
        append(1).await;
        append(2).await;
        let size = |number| files.size(&log_path(number)).unwrap();
        assert_eq!(size(1), RESERVE_BYTES_MIN);
        let (_, position) = log.rotate(log.prepare_file().unwrap()).unwrap();
        log.wait_durable(position).await.unwrap();
        let (found, read) = records(&files, 1, false);
        assert_eq!((found.len(), read.valid_bytes), (2, size(1)));
        append(3).await;
        let (found, read) = records(&files.after_power_cut(), 2, true);
        assert_eq!((found.len(), read.torn), (1, false));
        assert!(read.valid_bytes < size(2));
        log.stop();
        assert_eq!(records(&files, 2, false), (found, read));
    }

    #[tokio::test]
    async fn a_long_file_is_followed_by_another() {
        let files = MemoryFiles::new();
        let log = start(&files);
        let row = vec![0; 40 << 20];
        for _ in 0..5 {
            let operations = vec![Operation::Put { table: crate::TableId(1), row: &row }];
            let lsn = log.append(&Record { timestamp: 0, operations }).unwrap();
            log.wait_durable(lsn).await.unwrap();
        }
        log.stop();
        let counts: Vec<usize> = (1..=3).map(|number| records(&files, number, number == 3).0.len()).collect();
        assert_eq!(counts, [2, 2, 1]);
    }
}
