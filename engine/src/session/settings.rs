//! What a session can SET and SHOW.
//!
//! A session's settings are its own; the defaults are the database's. Options of the query planner and of EXPLAIN can be
//! set under DataFusion's names (`datafusion.optimizer.…`, `datafusion.explain.…`). All other names with a point are the
//! application's own, and take any text (`app.user`). [Some of PostgreSQL's](super::taken_settings) are taken and ignored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::config::ConfigNonZeroUsize;
use datafusion::prelude::SessionConfig;
use rustydb_storage::Durability;

use super::taken_settings::{self, default_of};
use crate::error::{nearest, sqlstate};
use crate::session::transaction::Modes;
use crate::sql::grammar::transaction::isolation_named;
use crate::{DEFAULT_SCHEMA, Error, Result};

/// The settings of one session.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) statement_timeout: Option<Duration>,
    pub(crate) lock_timeout: Option<Duration>,
    pub(crate) idle_in_transaction_session_timeout: Option<Duration>,
    pub(crate) synchronous_commit: bool,
    /// Whether statements may take the row path.
    pub(crate) row_path: bool,
    /// The modes of transactions that do not say otherwise.
    pub(crate) default_modes: Modes,
    /// Those of the open transaction.
    pub(crate) current_modes: Option<Modes>,
    pub(crate) application_name: String,
    /// The schemas that names without one are looked for in.
    pub(crate) search_path: Arc<[String]>,
    /// Settings that mean something to the application only, and those that are taken and ignored.
    own: BTreeMap<String, String>,
    /// What the planner and the operators look at; cheap to clone until it is changed.
    pub(crate) config: SessionConfig,
}

/// Name, and what SHOW ALL says about it.
const DESCRIPTIONS: [(&str, &str); 19] = [
    ("application_name", "A name for this session, for people who watch the server."),
    ("batch_size", "Rows in a batch that operators pass on."),
    ("client_encoding", "Always UTF8."),
    ("default_transaction_deferrable", "Whether serializable read-only transactions wait for a safe snapshot."),
    (
        "default_transaction_isolation",
        "The isolation level of transactions that do not name one: read committed, repeatable read or serializable.",
    ),
    ("default_transaction_read_only", "Whether transactions may not change anything unless they say READ WRITE."),
    (
        "idle_in_transaction_session_timeout",
        "Rolls a transaction back when its client sends nothing for longer; as statement_timeout. 0: never.",
    ),
    ("lock_timeout", "Fails a statement that waits longer for a lock; as statement_timeout. 0: never."),
    ("row_path", "Whether statements on single rows and short ranges are compiled; off: all go the ordinary way."),
    ("search_path", "The schemas that names without a schema are looked for in, in order."),
    ("server_version", "The version of the database."),
    ("standard_conforming_strings", "Always on: a backslash in '…' is a backslash."),
    (
        "statement_timeout",
        "Cancels a statement that takes longer; milliseconds or a number with ms, s, min, h. 0: never.",
    ),
    ("synchronous_commit", "Whether a commit waits until it is durable."),
    ("target_partitions", "Tasks a query is spread over."),
    ("timezone", "The time zone of timestamps with time zone."),
    ("transaction_deferrable", "Whether the transaction waits for a safe snapshot; SET TRANSACTION changes it."),
    ("transaction_isolation", "The isolation level of the transaction; SET TRANSACTION changes it."),
    ("transaction_read_only", "Whether the transaction may change nothing; SET TRANSACTION changes it."),
];

/// The largest batch: beyond it memory is spent without gain.
const MAX_BATCH_SIZE: usize = 1 << 20;
/// The most tasks of a query.
const MAX_PARTITIONS: usize = 1024;

/// The most that names and values of an application's own settings take.
const OWN_BYTES_MAX: usize = 64 * 1024;

const OPTION_PREFIXES: [&str; 2] = ["datafusion.optimizer.", "datafusion.explain."];

impl Settings {
    pub(crate) fn new(config: SessionConfig, statement_timeout: Option<Duration>) -> Self {
        Settings {
            statement_timeout,
            lock_timeout: None,
            idle_in_transaction_session_timeout: None,
            synchronous_commit: true,
            row_path: true,
            default_modes: Modes::default(),
            current_modes: None,
            application_name: String::new(),
            search_path: Arc::from([DEFAULT_SCHEMA.to_owned()]),
            own: BTreeMap::new(),
            config,
        }
    }

    /// The modes of the open transaction, or of the next.
    fn modes(&self) -> Modes {
        self.current_modes.unwrap_or(self.default_modes)
    }

    pub(crate) fn durability(&self) -> Durability {
        if self.synchronous_commit { Durability::Sync } else { Durability::Async }
    }

    /// The value as SHOW prints it.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
        Some(match name {
            "application_name" => self.application_name.clone(),
            "batch_size" => self.config.options().execution.batch_size.get().to_string(),
            "client_encoding" => "UTF8".to_owned(),
            "default_transaction_deferrable" => on_off(self.default_modes.deferrable),
            "default_transaction_isolation" => self.default_modes.isolation.to_string(),
            "default_transaction_read_only" => on_off(self.default_modes.read_only),
            "transaction_deferrable" => on_off(self.modes().deferrable),
            "transaction_isolation" => self.modes().isolation.to_string(),
            "transaction_read_only" => on_off(self.modes().read_only),
            "row_path" => on_off(self.row_path),
            "search_path" => self.search_path.join(", "),
            "server_version" => env!("CARGO_PKG_VERSION").to_owned(),
            "standard_conforming_strings" => "on".to_owned(),
            "idle_in_transaction_session_timeout" => in_milliseconds(self.idle_in_transaction_session_timeout),
            "lock_timeout" => in_milliseconds(self.lock_timeout),
            "statement_timeout" => in_milliseconds(self.statement_timeout),
            "synchronous_commit" => on_off(self.synchronous_commit),
            "target_partitions" => self.config.options().execution.target_partitions.to_string(),
            "timezone" => self.config.options().execution.time_zone.clone().unwrap_or_else(|| "UTC".to_owned()),
            _ if is_option(name) => {
                return self
                    .config
                    .options()
                    .entries()
                    .into_iter()
                    .find(|entry| entry.key == name)
                    .map(|entry| entry.value.unwrap_or_default());
            }
            _ => return self.own.get(name).cloned().or_else(|| default_of(name).map(str::to_owned)),
        })
    }

    /// The value to go back to when a change of `name` ends; one of the application's own may not have been set yet.
    pub(crate) fn value_to_restore(&self, name: &str) -> Option<String> {
        self.get(name).or_else(|| is_own(name).then(String::new))
    }

    /// Sets `name`; `None` gives it the value it has in `defaults`.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>, defaults: &Settings) -> Result<()> {
        if is_own(name) {
            return self.set_own(name, value.unwrap_or_default());
        }
        if let Some(default) = default_of(name)
            && let Some(taken) = taken_settings::taken(name, value.unwrap_or(default))
        {
            return self.set_own(name, &taken?);
        }
        let Some(current) = defaults.get(name) else { return Err(unknown(name)) };
        let value = value.unwrap_or(&current);
        match name {
            "application_name" => self.application_name = value.chars().take(63).collect(),
            "batch_size" => {
                let rows = number(name, value, 1..=MAX_BATCH_SIZE)?;
                let rows = ConfigNonZeroUsize::try_new(rows)?;
                self.config.options_mut().execution.batch_size = rows;
            }
            "target_partitions" => {
                let partitions = number(name, value, 1..=MAX_PARTITIONS)?;
                self.config.options_mut().execution.target_partitions = partitions;
            }
            "client_encoding" => {
                if !matches!(value.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode") {
                    return Err(Error::unsupported(format!("the encoding {value}")).with_hint("Text is UTF8."));
                }
            }
            "default_transaction_deferrable" => self.default_modes.deferrable = switch(name, value)?,
            "default_transaction_isolation" => {
                let levels = "It is read committed, repeatable read, serializable, or one of their synonyms.";
                self.default_modes.isolation = isolation_named(value).ok_or_else(|| invalid(name, value, levels))?;
            }
            "default_transaction_read_only" => self.default_modes.read_only = switch(name, value)?,
            "transaction_deferrable" | "transaction_isolation" | "transaction_read_only" => {
                return Err(Error::new(sqlstate::CANNOT_CHANGE_NOW, format!("\"{name}\" cannot be set as a setting"))
                    .with_hint("SET TRANSACTION changes the open transaction, SET default_… those to come."));
            }
            "standard_conforming_strings" => {
                if !switch(name, value)? {
                    return Err(
                        Error::unsupported("standard_conforming_strings = off").with_hint("Write E'…' for escapes.")
                    );
                }
            }
            "idle_in_transaction_session_timeout" => {
                self.idle_in_transaction_session_timeout = duration(name, value)?;
            }
            "row_path" => self.row_path = switch(name, value)?,
            "lock_timeout" => self.lock_timeout = duration(name, value)?,
            "statement_timeout" => self.statement_timeout = duration(name, value)?,
            "synchronous_commit" => self.synchronous_commit = switch(name, value)?,
            "timezone" => {
                let zone = time_zone(value)?;
                self.config.options_mut().execution.time_zone = Some(zone);
            }
            "search_path" => {
                let names = value.split(',').map(|name| name.trim().trim_matches('"').to_owned());
                self.search_path = names.filter(|name| !name.is_empty() && name != "$user").collect();
            }
            "server_version" => {
                return Err(Error::new(sqlstate::CANNOT_CHANGE_NOW, "\"server_version\" cannot be changed"));
            }
            _ => self.config.options_mut().set(name, value).map_err(|error| {
                Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("invalid value for \"{name}\": \"{value}\""))
                    .with_detail(Error::from(error).message())
            })?,
        }
        Ok(())
    }

    fn set_own(&mut self, name: &str, value: &str) -> Result<()> {
        let bytes: usize =
            self.own.iter().filter(|(known, _)| *known != name).map(|(name, value)| name.len() + value.len()).sum();
        if bytes + name.len() + value.len() > OWN_BYTES_MAX {
            return Err(Error::new(sqlstate::LIMIT_EXCEEDED, "an application's own settings take up to 64 KiB"));
        }
        self.own.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Makes the changes that lead from one state of another session's settings to a later one.
    pub(crate) fn take_changes(&mut self, before: &Settings, after: &Settings) {
        fn take<T: PartialEq + Clone>(own: &mut T, before: &T, after: &T) {
            if before != after {
                own.clone_from(after);
            }
        }
        take(&mut self.statement_timeout, &before.statement_timeout, &after.statement_timeout);
        take(&mut self.lock_timeout, &before.lock_timeout, &after.lock_timeout);
        take(
            &mut self.idle_in_transaction_session_timeout,
            &before.idle_in_transaction_session_timeout,
            &after.idle_in_transaction_session_timeout,
        );
        take(&mut self.synchronous_commit, &before.synchronous_commit, &after.synchronous_commit);
        take(&mut self.row_path, &before.row_path, &after.row_path);
        take(&mut self.default_modes, &before.default_modes, &after.default_modes);
        take(&mut self.application_name, &before.application_name, &after.application_name);
        take(&mut self.search_path, &before.search_path, &after.search_path);
        // Those that a RESET ALL has taken away.
        self.own.retain(|name, _| !before.own.contains_key(name) || after.own.contains_key(name));
        let own = after.own.iter().filter(|(name, value)| before.own.get(*name) != Some(*value));
        let mut refused: Vec<Error> = own.filter_map(|(name, value)| self.set_own(name, value).err()).collect();
        let (earlier, later) = (before.config.options(), after.config.options());
        if !Arc::ptr_eq(earlier, later) {
            for (old, new) in earlier.entries().into_iter().zip(later.entries()) {
                if old.key == new.key
                    && old.value != new.value
                    && let Some(value) = &new.value
                    && let Err(error) = self.config.options_mut().set(&new.key, value)
                {
                    refused.push(error.into());
                }
            }
        }
        for error in refused {
            tracing::warn!(error = error.message(), "a setting of a transaction did not come back to its session");
        }
    }

    /// Name, value and description of every setting of ours.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, String, &'static str)> + '_ {
        DESCRIPTIONS.iter().map(|(name, description)| (*name, self.get(name).unwrap_or_default(), *description))
    }
}

fn is_option(name: &str) -> bool {
    OPTION_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a name is one that an application may give a setting of its own: of words with a point between them.
fn is_own(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_alphabetic() || first == '_')
            && word.chars().all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '$')
    };
    name.contains('.') && !name.starts_with("datafusion.") && name.split('.').all(is_word)
}

/// The error for a setting there is not.
pub(crate) fn unknown(name: &str) -> Error {
    let error = Error::new(sqlstate::UNDEFINED_OBJECT, format!("unrecognized setting \"{name}\""));
    match nearest(name, DESCRIPTIONS.iter().map(|(known, _)| *known).chain(taken_settings::names())) {
        Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
        None => error.with_hint("SHOW ALL lists the settings."),
    }
}

pub(super) fn invalid(name: &str, value: &str, hint: impl Into<String>) -> Error {
    Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("invalid value for \"{name}\": \"{value}\"")).with_hint(hint)
}

fn switch(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err(invalid(name, value, "It is either on or off.")),
    }
}

fn number(name: &str, value: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize> {
    match value.parse::<usize>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(invalid(name, value, format!("It is a number from {} to {}.", range.start(), range.end()))),
    }
}

fn in_milliseconds(limit: Option<Duration>) -> String {
    limit.map_or("0".to_owned(), |limit| format!("{}ms", limit.as_millis()))
}

/// "1500", "1500ms", "30s", "5min", "1h"; 0 is no limit.
fn duration(name: &str, value: &str) -> Result<Option<Duration>> {
    let text = value.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, unit) = text.split_at(digits);
    let milliseconds = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "ms" => Some(1),
        "s" => Some(1_000),
        "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let total = count.parse::<u64>().ok().zip(milliseconds).and_then(|(count, unit)| count.checked_mul(unit));
    match total {
        Some(0) => Ok(None),
        Some(total) => Ok(Some(Duration::from_millis(total))),
        None => Err(invalid(name, value, "Write milliseconds, or a number with ms, s, min or h.")),
    }
}

fn time_zone(value: &str) -> Result<String> {
    let zone = match value.to_ascii_lowercase().as_str() {
        "utc" | "gmt" | "z" | "local" => "UTC".to_owned(),
        _ => value.to_owned(),
    };
    match zone.parse::<arrow::array::timezone::Tz>() {
        Ok(_) => Ok(zone),
        Err(_) => {
            Err(invalid("timezone", value, "Write UTC, an offset such as +02:00, or a name such as Europe/Berlin."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Settings {
        Settings::new(SessionConfig::new(), None)
    }

    #[test]
    fn durations_are_read_with_and_without_units() {
        let mut settings = defaults();
        for (text, milliseconds) in [("1500", 1500), ("2s", 2000), ("1 min", 60_000)] {
            settings.set("statement_timeout", Some(text), &defaults()).unwrap();
            assert_eq!(settings.statement_timeout, Some(Duration::from_millis(milliseconds)), "{text}");
        }
        settings.set("statement_timeout", Some("0"), &defaults()).unwrap();
        assert_eq!(settings.statement_timeout, None);
        assert_eq!(settings.set("statement_timeout", Some("soon"), &defaults()).unwrap_err().sqlstate(), "22023");
    }

    #[test]
    fn unknown_settings_are_named_with_the_nearest_known() {
        let error = defaults().set("statment_timeout", Some("1"), &defaults()).unwrap_err();
        assert_eq!((error.sqlstate(), error.hint()), ("42704", Some("Did you mean \"statement_timeout\"?")));
    }

    #[test]
    fn resetting_gives_the_default_back() {
        let mut settings = defaults();
        settings.set("synchronous_commit", Some("off"), &defaults()).unwrap();
        assert_eq!(settings.get("synchronous_commit").as_deref(), Some("off"));
        settings.set("synchronous_commit", None, &defaults()).unwrap();
        assert!(settings.synchronous_commit);
    }

    #[test]
    fn settings_without_effect_are_shown_as_they_were_set() {
        let mut settings = defaults();
        assert_eq!(settings.get("client_min_messages").as_deref(), Some("notice"));
        settings.set("client_min_messages", Some("warning"), &defaults()).unwrap();
        assert_eq!(settings.get("client_min_messages").as_deref(), Some("warning"));
        settings.set("client_min_messages", None, &defaults()).unwrap();
        assert_eq!(settings.get("client_min_messages").as_deref(), Some("notice"));
        assert_eq!(settings.set("datestyle", Some("SQL"), &defaults()).unwrap_err().sqlstate(), "0A000");
    }

    #[test]
    fn changes_are_taken_and_nothing_else() {
        let change = |settings: &mut Settings, changes: &[(&str, &str)]| {
            changes.iter().for_each(|(name, value)| settings.set(name, Some(value), &defaults()).unwrap());
        };
        let mut before = defaults();
        change(&mut before, &[("app.user", "ann"), ("lock_timeout", "1s")]);
        let mut own = before.clone();
        own.take_changes(&before, &defaults());
        assert_eq!((own.get("app.user"), own.get("lock_timeout").as_deref()), (None, Some("0")));
        let mut after = before.clone();
        change(&mut after, &[("timezone", "Asia/Tokyo"), ("search_path", "a, b"), ("app.user", "bob")]);
        let mut own = before.clone();
        change(&mut own, &[("lock_timeout", "2s"), ("batch_size", "17")]);
        own.take_changes(&before, &after);
        for (name, value) in [
            ("timezone", "Asia/Tokyo"),
            ("search_path", "a, b"),
            ("app.user", "bob"),
            ("lock_timeout", "2000ms"),
            ("batch_size", "17"),
        ] {
            assert_eq!(own.get(name).as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn partitions_are_bounded() {
        assert_eq!(defaults().set("target_partitions", Some("1000000"), &defaults()).unwrap_err().sqlstate(), "22023");
    }
}
