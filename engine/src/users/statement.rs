//! CREATE USER, ALTER USER, DROP USER and SHOW USERS, executed.

use std::sync::Arc;

use super::{Identity, User, check_name, password};
use crate::error::{nearest, sqlstate};
use crate::sql::grammar::user::{NewPassword, UserName, UserOptions, UserStatement};
use crate::{Database, Error, Result};

/// The columns of SHOW USERS.
pub(crate) const SHOW_USERS_COLUMNS: [&str; 3] = ["name", "administrator", "password"];

/// What a statement about users did.
pub(crate) enum UserOutcome {
    Done(&'static str),
    /// The columns of SHOW USERS.
    Users([Vec<String>; 3]),
}

/// Executes a statement for `who`; `None` is the program that embeds the database, or anybody while there are no users.
/// Hashing a password takes its time, so this runs where that blocks nobody.
pub(crate) fn execute(database: &Database, who: Option<&Identity>, statement: UserStatement) -> Result<UserOutcome> {
    let rights = Rights::of(database, who)?;
    match statement {
        UserStatement::Create { name, if_not_exists, options } => {
            rights.require_administrator("create users")?;
            create(database, name, if_not_exists, options)?;
            Ok(UserOutcome::Done("CREATE USER"))
        }
        UserStatement::Alter { name, if_exists, options } => {
            alter(database, &rights, &name, if_exists, options)?;
            Ok(UserOutcome::Done("ALTER USER"))
        }
        UserStatement::Rename { name, to } => {
            rights.require_administrator("rename users")?;
            rename(database, &rights.resolve(&name)?, to)?;
            Ok(UserOutcome::Done("ALTER USER"))
        }
        UserStatement::Drop { names, if_exists } => {
            rights.require_administrator("drop users")?;
            drop_users(database, &rights, &names, if_exists)?;
            Ok(UserOutcome::Done("DROP USER"))
        }
        UserStatement::Show => Ok(UserOutcome::Users(show(database, &rights))),
    }
}

/// Who executes a statement, and what that allows.
struct Rights {
    name: Option<Arc<str>>,
    is_administrator: bool,
}

impl Rights {
    fn of(database: &Database, who: Option<&Identity>) -> Result<Self> {
        let Some(identity) = who else { return Ok(Rights { name: None, is_administrator: true }) };
        let user = database.users().find(identity).ok_or_else(|| {
            Error::new(sqlstate::INSUFFICIENT_PRIVILEGE, "the user of this session was changed or dropped")
                .with_hint("Log in again.")
        })?;
        Ok(Rights { name: Some(Arc::clone(&identity.name)), is_administrator: user.is_administrator })
    }

    fn require_administrator(&self, what: &str) -> Result<()> {
        match self.is_administrator {
            true => Ok(()),
            false => Err(Error::new(sqlstate::INSUFFICIENT_PRIVILEGE, format!("only administrators can {what}"))),
        }
    }

    fn resolve(&self, name: &UserName) -> Result<String> {
        match (name, &self.name) {
            (UserName::Named(name), _) => Ok(name.clone()),
            (UserName::Current, Some(name)) => Ok(name.to_string()),
            (UserName::Current, None) => {
                Err(Error::new(sqlstate::UNDEFINED_OBJECT, "this session belongs to no user")
                    .with_hint("Name the user."))
            }
        }
    }

    fn is_own(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }
}

fn create(database: &Database, name: String, if_not_exists: bool, options: UserOptions) -> Result<()> {
    check_name(&name)?;
    let password = hashed(options.password)?.flatten();
    database.users().change(|users, generation| {
        if users.contains_key(&name) {
            return match if_not_exists {
                true => Ok(()),
                false => Err(Error::new(sqlstate::DUPLICATE_OBJECT, format!("user \"{name}\" already exists"))),
            };
        }
        let is_administrator = options.administrator.unwrap_or(false);
        users.insert(name, User { password, is_administrator, generation });
        Ok(())
    })
}

fn alter(database: &Database, rights: &Rights, name: &UserName, if_exists: bool, options: UserOptions) -> Result<()> {
    let name = rights.resolve(name)?;
    if !rights.is_own(&name) || options.administrator.is_some() || matches!(options.password, Some(NewPassword::None)) {
        rights.require_administrator("change other users, or anything but their own password")?;
    }
    let password = hashed(options.password)?;
    database.users().change(|users, generation| {
        let Some(user) = users.get_mut(&name) else {
            return if if_exists { Ok(()) } else { Err(unknown(&name, users.keys())) };
        };
        if let Some(password) = password {
            user.password = password;
            user.generation = generation;
        }
        if let Some(is_administrator) = options.administrator {
            user.is_administrator = is_administrator;
        }
        Ok(())
    })
}

fn rename(database: &Database, name: &str, to: String) -> Result<()> {
    check_name(&to)?;
    database.users().change(|users, generation| {
        if users.contains_key(&to) {
            return Err(Error::new(sqlstate::DUPLICATE_OBJECT, format!("user \"{to}\" already exists")));
        }
        let user = users.remove(name).ok_or_else(|| unknown(name, users.keys()))?;
        users.insert(to, User { generation, ..user });
        Ok(())
    })
}

fn drop_users(database: &Database, rights: &Rights, names: &[UserName], if_exists: bool) -> Result<()> {
    database.users().change(|users, _generation| {
        for name in names {
            let name = rights.resolve(name)?;
            if rights.is_own(&name) {
                return Err(Error::new(sqlstate::OBJECT_IN_USE, "a user cannot drop themselves"));
            }
            if users.remove(&name).is_none() && !if_exists {
                return Err(unknown(&name, users.keys()));
            }
        }
        Ok(())
    })
}

/// Every user for administrators, themselves for others.
fn show(database: &Database, rights: &Rights) -> [Vec<String>; 3] {
    let state = database.users().state.read();
    let shown = state.users.iter().filter(|(name, _)| rights.is_administrator || rights.is_own(name));
    let yes_no = |yes: bool| if yes { "YES" } else { "NO" }.to_owned();
    let mut columns: [Vec<String>; 3] = Default::default();
    for (name, user) in shown {
        columns[0].push(name.clone());
        columns[1].push(yes_no(user.is_administrator));
        columns[2].push(yes_no(user.password.is_some()));
    }
    columns
}

/// The outer `None`: nothing said; the inner one: no password.
fn hashed(password: Option<NewPassword>) -> Result<Option<Option<String>>> {
    match password {
        None => Ok(None),
        Some(NewPassword::None) => Ok(Some(None)),
        Some(NewPassword::Secret(secret)) => password::hash(secret.reveal()).map(|hash| Some(Some(hash))),
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Error {
    let error = Error::new(sqlstate::UNDEFINED_OBJECT, format!("user \"{name}\" does not exist"));
    match nearest(name, known.map(String::as_str)) {
        Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
        None => error,
    }
}
