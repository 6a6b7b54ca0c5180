//! The file that COPY … TO writes.
//!
//! | the path names | rows go to | a failed COPY leaves |
//! |---|---|---|
//! | nothing, or a plain file | a file beside it, which takes its place when it is complete and on disk | what was there |
//! | a symbolic link | the same, where the link leads; the link stays | what was there |
//! | a device or a pipe | the thing itself, as it stands | what has been written |
//!
//! Invariant: no file of the database's own directory is ever written, whatever name leads there.

use std::fs::{File, FileType, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::sqlstate;
use crate::{Error, Result};

/// As many symbolic links in a row as Linux follows.
const MAX_LINKS: usize = 40;

/// A file on its way. What replaces another is removed unless it is finished.
pub(super) struct Target {
    file: File,
    /// As the statement has it, for messages.
    named: PathBuf,
    replacement: Option<Replacement>,
}

struct Replacement {
    temporary: PathBuf,
    path: PathBuf,
}

impl Target {
    /// Opens what `named` leads to. `data` is the database's own directory.
    ///
    /// # Errors
    /// 42501 for a file of the database itself, 58030 if the path leads nowhere or may not be written.
    pub(super) fn open(named: &Path, data: Option<&Path>) -> Result<Self> {
        let failed = |error: &io::Error| Error::io(format!("cannot write {}", named.display()), error);
        let path = resolve(named).map_err(|error| failed(&error))?;
        if data.is_some_and(|data| path.starts_with(data)) {
            let message = format!("{} is inside the database's own directory", named.display());
            return Err(
                Error::new(sqlstate::INSUFFICIENT_PRIVILEGE, message).with_hint("Write to a file outside of it.")
            );
        }
        let permissions = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&error)),
            Ok(found) => {
                // A directory and a read-only file say so themselves. A pipe waits here for its reader.
                let existing = OpenOptions::new().write(true).open(&path).map_err(|error| failed(&error))?;
                if is_written_in_place(found.file_type()) {
                    return Ok(Target { file: existing, named: named.to_owned(), replacement: None });
                }
                Some(found.permissions())
            }
        };
        Self::replace(path, named.to_owned(), permissions).map_err(|error| failed(&error))
    }

    fn replace(path: PathBuf, named: PathBuf, permissions: Option<Permissions>) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("copy");
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", uuid::Uuid::new_v4().simple()));
        let file = File::create_new(&temporary)?;
        let target = Target { file, named, replacement: Some(Replacement { temporary, path }) };
        if let Some(permissions) = permissions {
            target.file.set_permissions(permissions)?;
        }
        Ok(target)
    }

    /// The file to write to.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The path as the statement has it.
    pub(super) fn named(&self) -> &Path {
        &self.named
    }

    /// Gives the file its name, after its content is on disk.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Some(Replacement { temporary, path }) = &self.replacement {
            self.file.sync_all()?;
            std::fs::rename(temporary, path)?;
            self.replacement = None;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(Replacement { temporary, .. }) = &self.replacement {
            // Nothing more can be done about a file that cannot be removed.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn is_written_in_place(kind: FileType) -> bool {
    kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket()
}

/// The path with all symbolic links followed, including a last one that leads to nothing yet.
fn resolve(named: &Path) -> io::Result<PathBuf> {
    let mut path = named.to_owned();
    for _ in 0..MAX_LINKS {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.canonicalize()?,
            _ => Path::new(".").canonicalize()?,
        };
        let full = directory.join(name);
        match std::fs::read_link(&full) {
            // A relative link starts where it stands.
            Ok(next) => path = directory.join(next),
            Err(_) => return Ok(full),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn write(named: &Path, data: Option<&Path>) -> Result<()> {
        let target = Target::open(named, data)?;
        target.file().unwrap().write_all(b"new").unwrap();
        target.finish().unwrap();
        Ok(())
    }

    #[test]
    fn a_link_stays_and_the_file_behind_it_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link, dangling) =
            (directory.path().join("file"), directory.path().join("link"), directory.path().join("dangling"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        symlink(directory.path().join("born"), &dangling).unwrap();
        drop(Target::open(&link, None).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old", "unfinished");
        write(&link, None).unwrap();
        write(&dangling, None).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_to_string(directory.path().join("born")).unwrap(), "new");
        assert!(link.is_symlink() && dangling.is_symlink());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 4, "no temporary file is left");
        symlink("loop", directory.path().join("loop")).unwrap();
        assert_eq!(write(&directory.path().join("loop"), None).unwrap_err().sqlstate(), "58030");
    }

    #[test]
    fn the_databases_own_files_are_out_of_reach() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let data = root.join("data");
        std::fs::create_dir_all(data.join("deep")).unwrap();
        std::fs::create_dir(root.join("other")).unwrap();
        std::fs::write(data.join("FORMAT"), "1").unwrap();
        symlink(&data, root.join("alias")).unwrap();
        symlink(data.join("FORMAT"), root.join("innocent.csv")).unwrap();
        for named in
            ["data/FORMAT", "data/new.csv", "data/deep/new", "alias/new", "innocent.csv", "other/../data/FORMAT"]
        {
            let error = write(&root.join(named), Some(&data)).unwrap_err();
            assert_eq!(error.sqlstate(), "42501", "{named}: {error:?}");
        }
        assert_eq!(std::fs::read_to_string(data.join("FORMAT")).unwrap(), "1");
        write(&root.join("database.csv"), Some(&data)).unwrap();
        for directory in ["other", "other/..", "other/"] {
            assert_eq!(write(&root.join(directory), Some(&data)).unwrap_err().sqlstate(), "58030", "{directory}");
        }
    }

    #[test]
    fn devices_and_pipes_are_written_and_not_replaced() {
        write(Path::new("/dev/null"), None).unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut text = String::new();
                File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        write(&pipe, None).unwrap();
        assert_eq!(reader.join().unwrap(), "new");
        assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    }
}
