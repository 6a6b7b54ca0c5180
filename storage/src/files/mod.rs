//! The seam between the store and the disk.
//!
//! Every byte the store keeps goes through [`Files`]: a few primitive calls whose durability is spelled out, so that
//! the in-memory twin ([`MemoryFiles`]) can drop what was not synced, as a power cut would, and tests can fail any
//! call. Paths are relative to the data directory, with `/` between parts.
//!
//! What is durable when:
//! * file contents: after [`AppendFile::sync`];
//! * a file's existence under its name (created, renamed, removed): after [`Files::sync_directory`] of its folder.
//!
//! [`publish_file`] combines them into the one way a whole file comes into being: it is either there completely, under
//! its final name, durably, or it is not there.

mod local;
mod memory;
mod objects;

use std::fmt::Debug;
use std::io;
use std::ops::Range;

pub(crate) use local::LocalFiles;
pub use memory::{HeldSyncs, MemoryFiles};
pub(crate) use objects::FileObjects;

/// A name and a size in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileInfo {
    /// The path relative to the data directory.
    pub(crate) path: String,
    pub(crate) bytes: u64,
}

/// A file open for appending.
pub(crate) trait AppendFile: Send + Sync {
    /// Writes all of `data` at the end; nothing is durable yet.
    fn append(&mut self, data: &[u8]) -> io::Result<()>;
    /// Puts zeros behind the end until the file has `bytes`. Appends write over them, and a sync of such appends has no
    /// new size to record, which on most file systems halves what it waits for; nor do they need room on the disk, where
    /// files are written in place. If there is too little for all of them, none are put there.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;
    /// Gives back, durably, what was reserved and not written over.
    fn trim(&mut self) -> io::Result<()>;
    /// Returns once everything appended so far survives a power cut.
    fn sync(&mut self) -> io::Result<()>;
}

/// Held while the database is open; dropping it lets another process in.
pub(crate) trait DirectoryLock: Send + Sync {
    /// Whether it still keeps others out: whoever removes or replaces the lock file lets them in.
    fn is_held(&self) -> io::Result<bool>;
}

/// The primitive file operations of a store.
pub(crate) trait Files: Debug + Send + Sync {
    /// Creates a new, empty file; `AlreadyExists` if there is one. Makes missing folders, durably.
    fn create(&self, path: &str) -> io::Result<Box<dyn AppendFile>>;
    /// Reads a whole file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;
    /// Reads a byte range that must lie inside the file (`UnexpectedEof` otherwise).
    fn read_range(&self, path: &str, range: Range<u64>) -> io::Result<Vec<u8>>;
    /// Size in bytes; `NotFound` if there is no such file.
    fn size(&self, path: &str) -> io::Result<u64>;
    /// Cuts a file to `bytes` and makes them durable, of which a killed process may have left those from `from` on unsynced,
    /// or failed to sync them: they are written anew, since a second sync alone would not try again.
    fn secure(&self, path: &str, from: u64, bytes: u64) -> io::Result<()>;
    /// Gives a file its name unless that name is taken (`AlreadyExists`), atomically.
    fn rename_exclusive(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; a missing one is no error.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// The files below a folder, recursively, sorted by path; none if there is no such folder.
    fn list(&self, directory: &str) -> io::Result<Vec<FileInfo>>;
    /// The names directly in the data directory; none if it is missing.
    fn top_level(&self) -> io::Result<Vec<String>>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;
    /// Takes the database's lock; `WouldBlock` if another process holds it.
    fn lock(&self) -> io::Result<Box<dyn DirectoryLock>>;
    /// Keeps others from opening the database, changing nothing: also where nothing can be written. `None`: there is no file to
    /// lock, so nobody has it open; `WouldBlock` if another process does.
    fn lock_to_read(&self) -> io::Result<Option<Box<dyn DirectoryLock>>>;
}

/// Name of the lock file.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// The folder part of a path; empty for the data directory itself.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Suffix of files that are being written; a crash leaves them behind, opening the store removes them.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Writes a whole new file durably and atomically; `AlreadyExists` if the name is taken.
pub(crate) fn publish_file(files: &dyn Files, path: &str, chunks: &[&[u8]]) -> io::Result<()> {
    let temporary = format!("{path}{TEMPORARY_SUFFIX}");
    files.remove(&temporary)?;
    let written = (|| {
        let mut file = files.create(&temporary)?;
        for chunk in chunks {
            file.append(chunk)?;
        }
        file.sync()?;
        files.rename_exclusive(&temporary, path)
    })();
    if let Err(error) = written {
        // Best effort: what is left carries the temporary suffix and is removed when the store is next opened.
        let _ = files.remove(&temporary);
        return Err(error);
    }
    files.sync_directory(parent(path))
}
