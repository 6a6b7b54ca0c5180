//! The file of users: `users` in the data directory.
//!
//! ```text
//! rustydb-users 1
//! user ann administrator $argon2id$v=19$m=19456,t=2,p=1$…
//! user bob - -
//! crc32c 1a2b3c4d
//! ```
//!
//! Invariants: the file is replaced as a whole (written beside, synced, renamed, the directory synced), so a crash leaves
//! the old one or the new one. Only its owner may read it. A file that is not what was written is an error that names
//! it; nobody gets in by damaging it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::User;
use crate::error::sqlstate;
use crate::{Error, Result};

/// The name in the data directory.
pub(crate) const FILE_NAME: &str = "users";
const TEMPORARY_NAME: &str = "users.tmp";
const HEADER: &str = "rustydb-users 1";
/// Owner only.
const MODE: u32 = 0o600;

/// Reads the users of a data directory; there are none if there is no file.
pub(crate) fn read(directory: &Path) -> Result<BTreeMap<String, User>> {
    let path = directory.join(FILE_NAME);
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text).ok_or_else(|| damaged(&path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged(&path)),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), &error)),
    }
}

/// Replaces the users of a data directory.
pub(crate) fn write(directory: &Path, users: &BTreeMap<String, User>) -> Result<()> {
    let (path, temporary) = (directory.join(FILE_NAME), directory.join(TEMPORARY_NAME));
    replace(directory, &path, &temporary, &format(users))
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), &error))
}

fn replace(directory: &Path, path: &PathBuf, temporary: &PathBuf, text: &str) -> io::Result<()> {
    // What a crash left behind may have other permissions.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(directory)?.sync_all()
}

fn format(users: &BTreeMap<String, User>) -> String {
    let mut text = format!("{HEADER}\n");
    for (name, user) in users {
        let right = if user.is_administrator { "administrator" } else { "-" };
        let hash = user.password.as_deref().unwrap_or("-");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "user {} {right} {hash}", escape(name));
    }
    let checksum = crc32c::crc32c(text.as_bytes());
    let _ = writeln!(text, "crc32c {checksum:08x}");
    text
}

fn parse(text: &str) -> Option<BTreeMap<String, User>> {
    let (body, last) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body = format!("{body}\n");
    let checksum = u32::from_str_radix(last.strip_prefix("crc32c ")?, 16).ok()?;
    if crc32c::crc32c(body.as_bytes()) != checksum {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != HEADER {
        return None;
    }
    let mut users = BTreeMap::new();
    for line in lines {
        let [kind, name, right, hash] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let is_administrator = match (kind, right) {
            ("user", "administrator") => true,
            ("user", "-") => false,
            _ => return None,
        };
        let password = (hash != "-").then(|| hash.to_owned());
        users.insert(unescape(name)?, User { password, is_administrator, generation: 0 });
    }
    Some(users)
}

/// A name without blanks: everything but letters, digits and `_` as the percent-coded bytes of its UTF-8.
fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn damaged(path: &Path) -> Error {
    Error::new(sqlstate::DATA_CORRUPTED, format!("{} is damaged", path.display()))
        .with_hint("Restore it from a backup. Without it the database has no users, and asks nobody who they are.")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sample() -> BTreeMap<String, User> {
        let user = |password: Option<&str>, is_administrator| User {
            password: password.map(str::to_owned),
            is_administrator,
            generation: 0,
        };
        [("ann", user(Some("$argon2id$x"), true)), ("Zoë B", user(None, false)), ("100%", user(None, false))]
            .map(|(name, user)| (name.to_owned(), user))
            .into()
    }

    #[test]
    fn what_is_written_is_read_back_and_only_the_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path()).unwrap().is_empty());
        std::fs::write(directory.path().join(TEMPORARY_NAME), "half of one").unwrap();
        write(directory.path(), &sample()).unwrap();
        assert_eq!(read(directory.path()).unwrap(), sample());
        let mode = fs::metadata(directory.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert!(!directory.path().join(TEMPORARY_NAME).exists());
    }

    #[test]
    fn every_damage_is_noticed() {
        let text = format(&sample());
        assert_eq!(parse(&text).unwrap(), sample());
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            // What is no UTF-8 any more is refused before it is parsed.
            if let Ok(damaged) = String::from_utf8(damaged) {
                assert!(parse(&damaged).is_none(), "byte {at}");
            }
            assert!(!text.is_char_boundary(at) || parse(&text[..at]).is_none(), "cut at {at}");
        }
    }
}
