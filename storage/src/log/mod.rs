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
//! A *full disk* does not poison it, because no record is accepted that there is no room for. What a record is written over
//! is there before it gets its place ([`Log::place`]): a commit that has a timestamp, and that later ones may build on, can no
//! longer be undone alone. Who finds no room has it made ([`Log::make_room`]), in the order of nobody, and fails with `NoRoom`
//! if the disk has none: nothing has happened then, and the next one may be luckier. The last of the room is for those who
//! make some ([`Claim`]).
//!
//! The log is a sequence of files `log/<number>.log`. A new one begins when the last is long enough, and with
//! every flush, which removes the older ones when its manifest is durable. It is made before anything is
//! directed to it ([`Log::prepare_file`]), so that a full disk fails the flush and not the log. The file being written has
//! zeros behind its end, which are cut off before the next file begins and when
//! the log is closed. How files are written: see [`file`] and [`writer`]; their format: see [`frame`]; records: see [`record`];
//! what a crash leaves: see [`read`].

mod file;
mod frame;
mod read;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustydb_txn::Timestamp;
use tokio::sync::watch;

pub(crate) use file::PreparedFile;
pub(crate) use frame::{Frame, LOG_DIRECTORY, log_number, log_path};
pub(crate) use read::read_log;
pub(crate) use record::{AddedSegment, Operation, Operations, Record, RecordWriter};

use crate::error::{Error, Result};
use crate::files::{DirectoryLock, Files};
use file::Current;
use frame::MARK_BYTES;
use writer::Writer;

/// Position after a record (or the beginning of a file) in the sequence of all since the log was opened.
pub(crate) type Lsn = u64;

/// Room that only those get who make some: thousands of dropped tables, or hundreds of removed rows. A quarter of what a
/// new file has.
const ROOM_KEPT_BYTES: u64 = 16 << 10;

/// Who wants room in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Leaves [`ROOM_KEPT_BYTES`] for the others.
    Ordinary,
    /// What makes room, and what ends the store in order, may have all of it.
    Last,
}

impl Claim {
    /// Whether so many bytes may be had of that much room.
    fn fits(self, bytes: u64, room: u64) -> bool {
        let kept = match self {
            Claim::Ordinary => ROOM_KEPT_BYTES,
            Claim::Last => 0,
        };
        bytes + kept <= room
    }
}

/// How far the log's thread has come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    /// Everything before this is durable.
    lsn: Lsn,
    /// How often it has tried to make room for those who wait for it.
    attempts: u64,
    failure: Option<Arc<str>>,
    stopped: bool,
}

#[derive(Debug)]
struct Pending {
    /// Frames to write to the current file, then a new file and its frames, and so on.
    batches: Vec<Batch>,
    /// The file that what is appended next goes to.
    file: u64,
    /// Zeros in that file, behind all that was appended, to write over. What is appended never exceeds it.
    room: u64,
    /// Room that somebody waits for, all together.
    wanted: u64,
    /// How often the thread has begun to make room for them.
    attempts: u64,
    /// Why there was too little room the last time, if so.
    full: Option<Arc<str>>,
    next: Lsn,
    stop: bool,
    failure: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Batch {
    /// Where it goes, if that is another file than what was before it.
    new_file: Option<PreparedFile>,
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
    progress: watch::Sender<Progress>,
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
        formatter.debug_struct("Log").field("progress", &*self.shared.progress.borrow()).finish_non_exhaustive()
    }
}

/// A place at the end of the log with room for a record. While it is held nobody else gets one, and the log does not fail: what
/// is decided meanwhile holds.
pub(crate) struct Place<'a> {
    shared: &'a Shared,
    pending: MutexGuard<'a, Pending>,
    frame: Frame,
}

impl Place<'_> {
    /// Bytes of the record.
    pub(crate) fn len(&self) -> usize {
        self.frame.len()
    }

    /// Puts the record there and returns its position. It is not durable yet. Timestamps of commits ascend.
    pub(crate) fn append(mut self, timestamp: Timestamp) -> Lsn {
        self.frame.set_timestamp(timestamp);
        let lsn = self.pending.push(self.frame, timestamp);
        drop(self.pending);
        self.shared.arrived.notify_one();
        lsn
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
        let (progress, _) = watch::channel(Progress { lsn: 0, attempts: 0, failure: None, stopped: false });
        let pending = Pending {
            batches: Vec::new(),
            file: number,
            room: current.room(),
            wanted: 0,
            attempts: 0,
            full: None,
            next: 0,
            stop: false,
            failure: None,
        };
        let shared = Arc::new(Shared { pending: Mutex::new(pending), arrived: Condvar::new(), progress, observer });
        let writer = Writer::new(Arc::clone(&shared), Arc::clone(&files), lock, current);
        let thread = std::thread::Builder::new()
            .name("rustydb-log".into())
            .spawn(move || writer.run())
            .map_err(|error| Error::io("starting the log thread", error))?;
        Ok(Log { shared, thread: Mutex::new(Some(thread)), files })
    }

    /// A place for an encoded record that only lacks its timestamp; the record itself if there is no room for it, which
    /// [`make_room`](Self::make_room) changes.
    pub(crate) fn place(&self, frame: Frame, claim: Claim) -> Result<std::result::Result<Place<'_>, Frame>> {
        let pending = self.shared.pending.lock();
        pending.check()?;
        match pending.has_room(frame.len(), claim) {
            true => Ok(Ok(Place { shared: &self.shared, pending, frame })),
            false => Ok(Err(frame)),
        }
    }

    /// Waits until there is, or was, room for a record of so many bytes. Somebody else may have taken it by then.
    ///
    /// # Errors
    /// `NoRoom` if the disk has none.
    pub(crate) async fn make_room(&self, bytes: usize, claim: Claim) -> Result<()> {
        let attempt = {
            let mut pending = self.shared.pending.lock();
            pending.check()?;
            if pending.has_room(bytes, claim) {
                return Ok(());
            }
            pending.wanted += bytes as u64;
            pending.attempts + 1
        };
        self.shared.arrived.notify_one();
        self.wait(|progress| progress.attempts >= attempt).await?;
        let pending = self.shared.pending.lock();
        match &pending.full {
            Some(reason) if !pending.has_room(bytes, claim) => Err(Error::NoRoom { reason: reason.to_string() }),
            _ => Ok(()),
        }
    }

    /// Hands a record to the log, when there is room for it, and returns its position. It is not durable yet.
    ///
    /// # Errors
    /// `NoRoom` if the disk has none.
    pub(crate) async fn append(&self, record: &Record<'_>, claim: Claim) -> Result<Lsn> {
        let mut frame = Frame::new(|payload| record.encode(payload))?;
        loop {
            match self.try_append(frame, record.timestamp, claim)? {
                Ok(lsn) => return Ok(lsn),
                Err(refused) => frame = refused,
            }
            self.make_room(frame.len(), claim).await?;
        }
    }

    fn try_append(&self, frame: Frame, timestamp: Timestamp, claim: Claim) -> Result<std::result::Result<Lsn, Frame>> {
        Ok(self.place(frame, claim)?.map(|place| place.append(timestamp)))
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

    /// Directs everything appended from now on to a new file, the one that was prepared. Returns its number and the position at
    /// which it exists durably: a manifest that says the log begins there must wait for it. `None` if the log has gone on to
    /// a file of that number by itself: another one must be prepared.
    pub(crate) fn rotate(&self, prepared: PreparedFile) -> Result<Option<(u64, Lsn)>> {
        let mut pending = self.shared.pending.lock();
        pending.check()?;
        if prepared.number != pending.file + 1 {
            return Ok(None);
        }
        pending.begin_file(prepared);
        pending.next += 1;
        self.shared.arrived.notify_one();
        Ok(Some((pending.file, pending.next)))
    }

    /// The position of the newest record.
    pub(crate) fn position(&self) -> Lsn {
        self.shared.pending.lock().next
    }

    /// Returns when everything before `lsn` survives a power cut.
    pub(crate) async fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.wait(|progress| progress.lsn >= lsn).await
    }

    async fn wait(&self, is_reached: impl Fn(&Progress) -> bool) -> Result<()> {
        let mut progress = self.shared.progress.subscribe();
        let state = progress
            .wait_for(|state| is_reached(state) || state.failure.is_some() || state.stopped)
            .await
            .map_err(|_| Error::Closed)?;
        match &state.failure {
            _ if is_reached(&state) => Ok(()),
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
    /// Directs what comes next to another file. Each batch begins with a mark, also one of nothing else.
    fn begin_file(&mut self, prepared: PreparedFile) {
        self.file = prepared.number;
        self.room = prepared.room().saturating_sub(MARK_BYTES);
        self.full = None;
        self.batches.push(Batch { new_file: Some(prepared), ..Batch::default() });
    }

    fn has_room(&self, bytes: usize, claim: Claim) -> bool {
        let mark = if self.batches.is_empty() { MARK_BYTES } else { 0 };
        claim.fits(bytes as u64 + mark, self.room)
    }

    /// Adds a record that there is room for.
    fn push(&mut self, frame: Frame, timestamp: Timestamp) -> Lsn {
        let added = frame.len() as u64;
        match self.batches.last_mut() {
            Some(batch) => {
                self.room = self.room.saturating_sub(added);
                batch.newest = batch.newest.max(timestamp);
                batch.frames.push(frame);
            }
            None => {
                self.room = self.room.saturating_sub(MARK_BYTES + added);
                self.batches.push(Batch { new_file: None, frames: vec![frame], newest: timestamp });
            }
        }
        self.next += 1;
        self.next
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
        self.progress.send_modify(|state| {
            state.failure.get_or_insert(reason);
        });
        self.arrived.notify_one();
    }
}
