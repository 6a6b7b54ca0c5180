//! The files of the log while they are written.
//!
//! ```text
//!  header │ batch │ batch │ batch │ 0 0 0 0 0 0 0 0 0 │
//!                                 └ bytes             └ reserved
//! ```
//! Behind the end of the file being written stand zeros, which batches write over: a sync of them waits for data alone, and
//! not for a new size of the file, too. And they are room that nobody can take away: a batch that fits into them does not meet
//! a full disk, on file systems that write in place. On those that write everything elsewhere (copy on write) zeros promise
//! nothing, and a full disk may still fail a batch or its sync, and poison the log.
//!
//! A file is made under another name, with its first zeros, and gets its own when the one before it is finished
//! ([`PreparedFile`]): recovery takes a file for whole once there is a later one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::frame::{self, Frame, LOG_DIRECTORY, MARK_BYTES, log_path};
use crate::files::{AppendFile, Files, TEMPORARY_SUFFIX};

/// Bytes reserved in a new file. A file grows by its own size at a time, but not by less than this and not by more than
/// [`RESERVE_BYTES_MAX`]: little is written twice, and a store that does little stays small.
pub(super) const RESERVE_BYTES_MIN: u64 = 64 << 10;

pub(super) const RESERVE_BYTES_MAX: u64 = 4 << 20;

/// Memory that is kept for putting batches together; a larger one gets more and gives it back.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Tells the files apart that are made and not named yet.
static PREPARED: AtomicU64 = AtomicU64::new(0);

/// A log file that is not one yet.
pub(crate) struct PreparedFile {
    files: Arc<dyn Files>,
    pub(super) number: u64,
    path: String,
    current: Option<Current>,
}

impl std::fmt::Debug for PreparedFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PreparedFile").field("number", &self.number).finish_non_exhaustive()
    }
}

impl PreparedFile {
    pub(super) fn create(files: &Arc<dyn Files>, number: u64) -> io::Result<Self> {
        // Nobody else's, should there be two processes, and not that of another who prepares the same.
        let (process, other) = (std::process::id(), PREPARED.fetch_add(1, Ordering::Relaxed));
        let path = format!("{}.{process}.{other}{TEMPORARY_SUFFIX}", log_path(number));
        let mut prepared = PreparedFile { files: Arc::clone(files), number, path, current: None };
        files.remove(&prepared.path)?;
        prepared.current = Some(Current::write_head(files.as_ref(), &prepared.path, number)?);
        Ok(prepared)
    }

    /// Bytes of batches that it has room for.
    pub(super) fn room(&self) -> u64 {
        self.current.as_ref().map_or(0, Current::room)
    }

    /// Gives the file its name.
    pub(super) fn publish(mut self) -> io::Result<Current> {
        self.files.rename_exclusive(&self.path, &log_path(self.number))?;
        self.files.sync_directory(LOG_DIRECTORY)?;
        self.current.take().ok_or_else(|| io::Error::other("the file is not ready"))
    }
}

impl Drop for PreparedFile {
    fn drop(&mut self) {
        // Not published, or under that name no more. Best effort: the next start removes what has this name.
        if let Err(error) = self.files.remove(&self.path) {
            tracing::debug!(%error, "removing a log file that was not needed");
        }
    }
}

/// The file being written.
pub(super) struct Current {
    pub(super) number: u64,
    file: Box<dyn AppendFile>,
    /// Where the last batch ends.
    pub(super) bytes: u64,
    /// Where the zeros behind it end.
    reserved: u64,
}

impl Current {
    /// A new file under its name, durably.
    pub(super) fn create(files: &dyn Files, number: u64) -> io::Result<Self> {
        let current = Self::write_head(files, &log_path(number), number)?;
        files.sync_directory(LOG_DIRECTORY)?;
        Ok(current)
    }

    /// A new file at `path` with what stands before the first batch, synced, but for its name.
    fn write_head(files: &dyn Files, path: &str, number: u64) -> io::Result<Self> {
        let mut file = files.create(path)?;
        let header = frame::header(number);
        file.append(&header)?;
        file.reserve(RESERVE_BYTES_MIN)?;
        file.sync()?;
        Ok(Current { number, file, bytes: header.len() as u64, reserved: RESERVE_BYTES_MIN })
    }

    /// Bytes of batches that it has room for.
    pub(super) fn room(&self) -> u64 {
        self.reserved.saturating_sub(self.bytes)
    }

    /// Puts `more` zeros behind those that there are. A failure leaves the file as it is.
    pub(super) fn extend(&mut self, more: u64) -> io::Result<()> {
        self.file.reserve(self.reserved + more)?;
        self.reserved += more;
        Ok(())
    }

    /// Writes a batch behind what is all synced. Returns its bytes.
    pub(super) fn write(&mut self, frames: &[Frame], buffer: &mut Vec<u8>) -> io::Result<u64> {
        buffer.clear();
        frame::write_mark(buffer, self.bytes);
        frames.iter().for_each(|frame| frame.write(buffer));
        self.file.append(buffer)?;
        let written = buffer.len() as u64;
        debug_assert_eq!(written, MARK_BYTES + frames.iter().map(|frame| frame.len() as u64).sum::<u64>());
        self.bytes += written;
        self.reserved = self.reserved.max(self.bytes);
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(written)
    }

    /// Returns once everything written so far survives a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Ends the file where its last batch ends.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.file.trim()
    }
}
