//! Who may connect: users with passwords, managed by SQL (`CREATE USER`, `ALTER USER`, `DROP USER`, `SHOW USERS`).
//!
//! Users belong to the database as a whole and not to a transaction: a change is durable when the statement returns, and
//! is refused inside a transaction block. They lie in a file of their own ([`file`]), because they decide who may read the
//! rest. A database in memory keeps them in memory.
//!
//! ```text
//! authenticate(name, password) ──> Identity ──> connect_as(identity) ──> Session
//!                                     │ is_current(identity)?  no, once the user is dropped, renamed or has a new password
//! ```
//!
//! Rules: as long as there is no user, nobody is asked who they are. The first user is an administrator with a password,
//! and the last one of those can be neither dropped nor demoted: otherwise a slip would lock everybody out, or let
//! everybody in. Only administrators manage users; everybody may change their own password. A session that the embedding
//! program opened with [`Database::connect`] has all rights.

mod file;
mod password;
mod statement;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

pub(crate) use file::{FILE_NAME, read as read_file};
pub use password::random_password;
pub(crate) use statement::{SHOW_USERS_COLUMNS, UserOutcome, execute};

use crate::error::sqlstate;
use crate::{Database, Error, Result};

/// The most users: each costs memory for good.
const USERS_MAX: usize = 100_000;
/// As PostgreSQL's names.
const NAME_BYTES_MAX: usize = 63;

/// A user as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// An argon2id hash; `None`: cannot log in with a password.
    password: Option<String>,
    is_administrator: bool,
    /// Changes when whoever logged in before must log in again. Not kept: sessions do not outlive the process.
    generation: u64,
}

/// A user who has proven who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: Arc<str>,
    generation: u64,
}

impl Identity {
    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The users of a database.
#[derive(Debug)]
pub(crate) struct Users {
    /// `None`: a database in memory.
    directory: Option<PathBuf>,
    state: RwLock<State>,
    /// Held while the file is replaced, so that changes are made one after the other.
    changing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<String, User>,
    generation: u64,
}

impl Users {
    /// Reads the users of a data directory.
    pub(crate) fn open(directory: Option<&Path>) -> Result<Self> {
        let users = directory.map(read_file).transpose()?.unwrap_or_default();
        let state = RwLock::new(State { users, generation: 0 });
        Ok(Users { directory: directory.map(Path::to_owned), state, changing: Mutex::default() })
    }

    fn is_empty(&self) -> bool {
        self.state.read().users.is_empty()
    }

    fn authenticate(&self, name: &str, password: &str) -> Option<Identity> {
        let known = self.state.read().users.get(name).cloned();
        let hash = known.as_ref().and_then(|user| user.password.as_deref());
        if !password::verify(password, hash) {
            return None;
        }
        known.map(|user| Identity { name: name.into(), generation: user.generation })
    }

    fn find(&self, identity: &Identity) -> Option<User> {
        let state = self.state.read();
        state.users.get(&*identity.name).filter(|user| user.generation == identity.generation).cloned()
    }

    /// Makes one change: to a copy, then to the file, then to what everybody sees.
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, User>, u64) -> Result<T>) -> Result<T> {
        let _changing = self.changing.lock();
        let (mut users, generation) = {
            let state = self.state.read();
            (state.users.clone(), state.generation + 1)
        };
        let before = users.clone();
        let outcome = change(&mut users, generation)?;
        if users == before {
            return Ok(outcome);
        }
        check(&before, &users)?;
        if let Some(directory) = &self.directory {
            file::write(directory, &users)?;
        }
        *self.state.write() = State { users, generation };
        Ok(outcome)
    }
}

/// Whether the users may become these.
fn check(before: &BTreeMap<String, User>, after: &BTreeMap<String, User>) -> Result<()> {
    if after.len() > USERS_MAX {
        return Err(Error::new(sqlstate::LIMIT_EXCEEDED, format!("there are {USERS_MAX} users already")));
    }
    if after.values().any(|user| user.is_administrator && user.password.is_some()) {
        return Ok(());
    }
    let error = |message| Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message));
    match before.is_empty() {
        true => error("the first user must be an administrator with a password: nobody else could log in")
            .map_err(|error| error.with_hint("CREATE USER name PASSWORD '…' SUPERUSER")),
        false => error("this would leave no administrator with a password")
            .map_err(|error| error.with_hint("Make another user an administrator first.")),
    }
}

/// Fails for a name that could not be used to log in.
fn check_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "is longer than 63 bytes"
    } else if name.contains(':') || name.chars().any(char::is_control) {
        "has a colon or a control character, which no login can carry"
    } else {
        return Ok(());
    };
    Err(Error::new(sqlstate::INVALID_NAME, format!("the user name \"{}\" {reason}", name.escape_debug())))
}

impl Database {
    /// Whether there are users, so that whoever connects from outside must log in.
    pub fn has_users(&self) -> bool {
        !self.users().is_empty()
    }

    /// Checks a password. Takes some 20 ms of work and 19 MiB, whether the user exists or not: call it where that
    /// blocks nobody.
    pub fn authenticate(&self, name: &str, password: &str) -> Option<Identity> {
        self.users().authenticate(name, password)
    }

    /// Whether a user who logged in is still the same: not dropped or renamed, the password not changed.
    pub fn is_current(&self, identity: &Identity) -> bool {
        self.users().find(identity).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn administrator(password: Option<&str>) -> User {
        User { password: password.map(str::to_owned), is_administrator: true, generation: 0 }
    }

    #[test]
    fn there_is_always_somebody_who_can_log_in_and_administer() {
        let users = Users::open(None).unwrap();
        let insert = |name: &str, user: User| {
            users.change(|users, _| {
                users.insert(name.to_owned(), user);
                Ok(())
            })
        };
        assert_eq!(insert("a", administrator(None)).unwrap_err().sqlstate(), "2BP01");
        assert!(users.is_empty());
        insert("a", administrator(Some("hash"))).unwrap();
        insert("b", User { is_administrator: false, ..administrator(Some("hash")) }).unwrap();
        let removed = users.change(|users, _| Ok(users.remove("a")));
        assert_eq!(removed.unwrap_err().sqlstate(), "2BP01");
        assert_eq!(users.state.read().users.len(), 2, "nothing changed");
    }

    #[test]
    fn a_change_that_cannot_be_written_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let users = Users::open(Some(directory.path())).unwrap();
        std::fs::create_dir(directory.path().join("users.tmp")).unwrap();
        let change = users.change(|users, _| {
            users.insert("a".to_owned(), administrator(Some("hash")));
            Ok(())
        });
        assert_eq!(change.unwrap_err().sqlstate(), "58030");
        assert!(users.is_empty());
    }

    #[test]
    fn names_that_cannot_log_in_are_refused() {
        for name in ["", "a:b", "a\nb", &"x".repeat(64)] {
            assert_eq!(check_name(name).unwrap_err().sqlstate(), "42602", "{name}");
        }
        check_name("Zoë B").unwrap();
    }
}
