//! [`Files`] in a directory of the local file system.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use super::{AppendFile, DirectoryLock, FileInfo, Files, LOCK_FILE};

/// Files below one directory.
#[derive(Debug)]
pub(crate) struct LocalFiles {
    root: PathBuf,
    /// Folders whose existence is known to be durable.
    durable_folders: Mutex<HashSet<PathBuf>>,
}

/// Zeros written at once.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl LocalFiles {
    /// Uses `root`, which is created (with its parents) when it is missing and first written to.
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        LocalFiles { root: root.into(), durable_folders: Mutex::default() }
    }

    fn full(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Creates missing folders and makes sure that they survive a power cut. That a folder is there does not say so: the
    /// process that created it may have been killed before it could sync the one above.
    fn create_directories(&self, directory: &Path) -> io::Result<()> {
        if self.durable_folders.lock().contains(directory) {
            return Ok(());
        }
        let existing = directory.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(directory)?;
        for child in directory.ancestors() {
            let Some(folder) = child.parent() else { break };
            let name = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let synced = File::open(name).and_then(|folder| folder.sync_all());
            if !folder.starts_with(&self.root) && existing.starts_with(child) {
                // Outside of the database and not new: it may be nobody's to open.
                break;
            }
            synced?;
            if self.durable_folders.lock().contains(folder) {
                break;
            }
        }
        let own = directory.ancestors().take_while(|folder| folder.starts_with(&self.root));
        self.durable_folders.lock().extend(own.map(Path::to_path_buf));
        Ok(())
    }

    fn collect(&self, directory: &Path, found: &mut Vec<FileInfo>) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.collect(&entry.path(), found)?;
            } else if kind.is_file() {
                let path = entry.path();
                let relative = path.strip_prefix(&self.root).map_err(io::Error::other)?;
                found.push(FileInfo { path: relative.to_string_lossy().into_owned(), bytes: entry.metadata()?.len() });
            }
        }
        Ok(())
    }
}

struct LocalAppend {
    file: File,
    /// Where the next append goes.
    length: u64,
    /// Bytes of the file, those behind `length` zeros.
    reserved: u64,
}

impl AppendFile for LocalAppend {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.length)?;
        self.length += data.len() as u64;
        self.reserved = self.reserved.max(self.length);
        Ok(())
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        // Zeros and not `fallocate`: turning allocated blocks into written ones is metadata again.
        let mut end = self.reserved;
        while end < bytes {
            let count = (bytes - end).min(ZEROS.len() as u64);
            if let Err(error) = self.file.write_all_at(&ZEROS[..count as usize], end) {
                // Best effort: what is left of it is zeros all the same, of which nobody counts on any.
                let _ = self.file.set_len(self.reserved);
                return Err(error);
            }
            end += count;
        }
        self.reserved = self.reserved.max(bytes);
        Ok(())
    }

    fn trim(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.reserved = self.length;
        self.file.sync_all()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The open file carries the lock; the kernel drops it with the process, however that ends.
struct LocalLock {
    path: PathBuf,
    /// Device and inode, which no other file has while this one is open.
    identity: (u64, u64),
    _file: File,
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl DirectoryLock for LocalLock {
    fn is_held(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok(identity(&metadata) == self.identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Files for LocalFiles {
    fn create(&self, path: &str) -> io::Result<Box<dyn AppendFile>> {
        let full = self.full(path);
        if let Some(directory) = full.parent() {
            self.create_directories(directory)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).open(full)?;
        Ok(Box::new(LocalAppend { file, length: 0, reserved: 0 }))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.full(path))
    }

    fn read_range(&self, path: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        let file = File::open(self.full(path))?;
        let length = range.end.saturating_sub(range.start);
        if range.end > file.metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut data = Vec::with_capacity(length);
        // Into memory as it is: zeros would only be written over, and a recovery reads all of its log this way.
        while data.len() < length {
            let offset = range.start + data.len() as u64;
            match rustix::io::pread(&file, rustix::buffer::spare_capacity(&mut data), offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may have given more room than was asked for.
        data.truncate(length);
        Ok(data)
    }

    fn size(&self, path: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.full(path))?.len())
    }

    fn secure(&self, path: &str, from: u64, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(self.full(path))?;
        let mut end = vec![0; usize::try_from(bytes.saturating_sub(from)).map_err(io::Error::other)?];
        file.read_exact_at(&mut end, from)?;
        file.write_all_at(&end, from)?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn rename_exclusive(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.full(from), self.full(to));
        match renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            // Some file systems lack the flag; a hard link is as exclusive.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::hard_link(&from, &to)?;
                fs::remove_file(&from)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match fs::remove_file(self.full(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn list(&self, directory: &str) -> io::Result<Vec<FileInfo>> {
        let mut found = Vec::new();
        self.collect(&self.full(directory), &mut found)?;
        found.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(found)
    }

    fn top_level(&self) -> io::Result<Vec<String>> {
        match fs::read_dir(&self.root) {
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        File::open(self.full(directory))?.sync_all()
    }

    fn lock(&self) -> io::Result<Box<dyn DirectoryLock>> {
        self.create_directories(&self.root)?;
        let path = self.full(LOCK_FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let lock = LocalLock { path, identity: identity(&file.metadata()?), _file: file };
        match lock.is_held()? {
            true => Ok(Box::new(lock)),
            // Removed between opening and locking it: whoever makes the next one would not be kept out.
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn lock_to_read(&self) -> io::Result<Option<Box<dyn DirectoryLock>>> {
        let path = self.full(LOCK_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        let identity = identity(&file.metadata()?);
        Ok(Some(Box::new(LocalLock { path, identity, _file: file })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::publish_file;

    #[test]
    fn a_published_file_is_whole_and_its_name_is_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(directory.path().join("deep/er"));
        publish_file(&files, "a/b.bin", &[b"one", b"two"]).unwrap();
        assert_eq!(files.read("a/b.bin").unwrap(), b"onetwo");
        let again = publish_file(&files, "a/b.bin", &[b"other"]).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(files.list("").unwrap(), vec![FileInfo { path: "a/b.bin".into(), bytes: 6 }]);
        assert_eq!(files.read_range("a/b.bin", 2..4).unwrap(), b"et");
        assert_eq!(files.read_range("a/b.bin", 2..9).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn appends_write_over_what_was_reserved_and_the_rest_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(directory.path());
        let mut file = files.create("log").unwrap();
        file.append(b"one").unwrap();
        file.reserve(8).unwrap();
        file.append(b"two").unwrap();
        file.sync().unwrap();
        assert_eq!(files.read("log").unwrap(), b"onetwo\0\0");
        file.append(b"three").unwrap();
        assert_eq!(files.read("log").unwrap(), b"onetwothree");
        file.reserve(200_000).unwrap();
        assert_eq!(files.size("log").unwrap(), 200_000);
        file.trim().unwrap();
        assert_eq!(files.read("log").unwrap(), b"onetwothree");
        files.secure("log", 3, 6).unwrap();
        assert_eq!(files.read("log").unwrap(), b"onetwo");
        assert_eq!(files.read_range("log", 3..6).unwrap(), b"two");
        assert_eq!(files.read_range("log", 4..4).unwrap(), b"");
        assert_eq!(files.read_range("log", 4..7).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_lock_is_exclusive_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(directory.path());
        let held = files.lock().unwrap();
        let second = LocalFiles::new(directory.path()).lock().err().map(|error| error.kind());
        assert_eq!(second, Some(io::ErrorKind::WouldBlock));
        drop(held);
        assert!(files.lock().is_ok());
    }

    #[test]
    fn readers_exclude_a_writer_and_make_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(directory.path());
        assert!(files.lock_to_read().unwrap().is_none(), "nobody has ever opened it");
        assert_eq!(files.top_level().unwrap(), Vec::<String>::new());
        let held = files.lock().unwrap();
        let read = files.lock_to_read().err().map(|error| error.kind());
        assert_eq!(read, Some(io::ErrorKind::WouldBlock));
        drop(held);
        let readers = (files.lock_to_read().unwrap(), files.lock_to_read().unwrap());
        assert!(readers.0.is_some() && readers.1.is_some(), "several may read");
        let write = files.lock().err().map(|error| error.kind());
        assert_eq!(write, Some(io::ErrorKind::WouldBlock));
        drop(readers);
        assert!(files.lock().is_ok());
    }

    #[test]
    fn a_lock_whose_file_is_removed_or_replaced_is_not_held() {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(directory.path());
        let held = files.lock().unwrap();
        assert!(held.is_held().unwrap());
        files.remove(LOCK_FILE).unwrap();
        assert!(!held.is_held().unwrap());
        let other = files.lock().unwrap();
        assert!(other.is_held().unwrap() && !held.is_held().unwrap());
    }
}
