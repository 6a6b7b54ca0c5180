//! The thread that writes the log.
//!
//! ```text
//!  batches ──▶ write ──▶ room for what comes next ──▶ sync ──▶ is the lock still held? ──▶ durable
//! ```
//! It also makes the room for what is appended ([`Pending`](super::Pending)): zeros behind the end of the file being written.
//! There are more of them before they run out, and as many as somebody waits for. A disk that is full fails those who wait
//! for more, and nothing else: what there is of zeros stays, for records that are small enough, or that make room.
//!
//! A file of [`FILE_BYTES_MAX`] bytes is followed by another, which is made before anything is directed to it. If it cannot
//! be made, the old one goes on.

use std::io;
use std::mem;
use std::sync::Arc;

use super::file::{Current, PreparedFile, RESERVE_BYTES_MAX, RESERVE_BYTES_MIN};
use super::frame::MARK_BYTES;
use super::{Batch, Lsn, ROOM_KEPT_BYTES, Shared};
use crate::files::{DirectoryLock, Files, LOCK_FILE};

/// A file is not continued beyond this if there can be another: the unit in which the log is replayed, copied and removed.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The log's thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    files: Arc<dyn Files>,
    lock: Arc<dyn DirectoryLock>,
    current: Current,
    buffer: Vec<u8>,
    /// Bytes of the last batches: about as many come in the time of a sync. What was more fades, so that one small batch, as a new
    /// file begins with, does not make it forgotten.
    batch_bytes: u64,
    /// When the current file has so many bytes, another is to follow it.
    next_file_at: u64,
}

/// What there is to do.
enum Work {
    /// Batches, and the position after them. If there is none, somebody waits for room.
    Batches(Vec<Batch>, Lsn),
    /// Nothing any more; the file is to be ended.
    End,
    /// Nothing any more; what is in the file is not known.
    Failed,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        files: Arc<dyn Files>,
        lock: Arc<dyn DirectoryLock>,
        current: Current,
    ) -> Self {
        Writer { shared, files, lock, current, buffer: Vec::new(), batch_bytes: 0, next_file_at: FILE_BYTES_MAX }
    }

    /// Writes until the log is stopped or has failed.
    pub(super) fn run(mut self) {
        if let Err(error) = self.write_all() {
            self.shared.poison(&format!("writing the log: {error}"));
        }
        self.shared.observer.stopped();
        self.shared.progress.send_modify(|state| state.stopped = true);
    }

    fn write_all(&mut self) -> io::Result<()> {
        loop {
            let (batches, lsn) = match self.next_work() {
                Work::Batches(batches, lsn) => (batches, lsn),
                Work::End => return self.current.finish(),
                Work::Failed => return Ok(()),
            };
            batches.into_iter().try_for_each(|batch| self.write(batch))?;
            self.shared.progress.send_modify(|state| state.lsn = lsn);
            self.begin_next_file();
            self.provide(u64::MAX);
        }
    }

    /// Waits for something to do.
    fn next_work(&self) -> Work {
        let mut pending = self.shared.pending.lock();
        while pending.batches.is_empty() && pending.wanted == 0 && !pending.stop && pending.failure.is_none() {
            self.shared.arrived.wait(&mut pending);
        }
        if pending.failure.is_some() {
            Work::Failed
        } else if pending.stop && pending.batches.is_empty() {
            Work::End
        } else {
            Work::Batches(mem::take(&mut pending.batches), pending.next)
        }
    }

    fn write(&mut self, batch: Batch) -> io::Result<()> {
        if let Some(prepared) = batch.new_file {
            self.current.finish()?;
            self.current = prepared.publish()?;
            self.next_file_at = FILE_BYTES_MAX;
        }
        let written = self.current.write(&batch.frames, &mut self.buffer)?;
        self.batch_bytes = written.max(self.batch_bytes / 2);
        if self.current.bytes < self.next_file_at {
            // Before the sync, so that whoever waits for room can be in the next batch. For a record so large that this one would
            // wait for its zeros it is made afterwards, and by then they may be written over before they reach the disk.
            self.provide(RESERVE_BYTES_MAX);
        }
        self.current.sync()?;
        require_held(self.lock.as_ref())?;
        self.shared.observer.durable(batch.newest);
        Ok(())
    }

    /// Has another file follow the current one when that is long enough.
    fn begin_next_file(&mut self) {
        if self.current.bytes < self.next_file_at || self.shared.pending.lock().file != self.current.number {
            return;
        }
        match PreparedFile::create(&self.files, self.current.number + 1) {
            Ok(prepared) => {
                let mut pending = self.shared.pending.lock();
                // Unless a flush has begun one meanwhile.
                if pending.file == self.current.number {
                    pending.begin_file(prepared);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the next file of the log could not be made; the last one goes on");
                self.next_file_at = self.current.bytes + RESERVE_BYTES_MAX;
            }
        }
    }

    /// Sees to it that there is room for what is appended in the next time, and for what somebody waits for, unless that is
    /// more than `wanted_max`.
    fn provide(&mut self, wanted_max: u64) {
        let (wanted, room, was_full) = {
            let mut pending = self.shared.pending.lock();
            // If what is appended goes to another file by now, that is current next, and gets the room.
            if pending.file != self.current.number || pending.wanted > wanted_max {
                return;
            }
            let wanted = mem::take(&mut pending.wanted);
            if wanted > 0 {
                pending.attempts += 1;
            }
            (wanted, pending.room, pending.full.is_some())
        };
        let unit = self.current.bytes.max(4 * self.batch_bytes).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
        let low = ROOM_KEPT_BYTES + (2 * self.batch_bytes).clamp(unit / 4, unit / 2);
        if room < low + wanted && (wanted > 0 || !was_full) {
            let (more, full) = self.extend(unit, wanted, room);
            if let Some(reason) = &full
                && !was_full
            {
                tracing::warn!(%reason, "what the log has no room for is refused until there is some");
            }
            let mut pending = self.shared.pending.lock();
            // Unless what is appended goes to another file by now, which has room of its own.
            if pending.file == self.current.number {
                pending.room += more;
                pending.full = full;
            }
        }
        if wanted > 0 {
            let attempts = self.shared.pending.lock().attempts;
            self.shared.progress.send_modify(|state| state.attempts = attempts);
        }
    }

    /// Makes more room: plenty, or for what is wanted, or what is usual. Returns how much, and why it is not plenty.
    fn extend(&mut self, unit: u64, wanted: u64, room: u64) -> (u64, Option<Arc<str>>) {
        let plenty = (ROOM_KEPT_BYTES + unit + wanted).saturating_sub(room);
        let Err(error) = self.current.extend(plenty) else { return (plenty, None) };
        let reason = format!("the log cannot grow: {error}").into();
        // Others than the one who wants too much may be among those who wait: they get what is usual of a large file, if they can.
        let less = [MARK_BYTES + wanted, RESERVE_BYTES_MAX, unit];
        let mut less = less.map(|enough| (ROOM_KEPT_BYTES + enough).saturating_sub(room)).into_iter();
        let made = less.find(|more| (1..plenty).contains(more) && self.current.extend(*more).is_ok());
        (made.unwrap_or(0), Some(reason))
    }
}

/// Fails if another process may have been let in.
fn require_held(lock: &dyn DirectoryLock) -> io::Result<()> {
    match lock.is_held()? {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "the file {LOCK_FILE} was removed or replaced, and another process may have opened the database"
        ))),
    }
}
