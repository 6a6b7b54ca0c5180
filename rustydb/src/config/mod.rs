//! The configuration of `rustydb serve`: where values come from, and what becomes of them.
//!
//! What settings there are is in [`settings`]. A value is looked for in this order, and the first found counts:
//!
//! 1. the command-line flag, such as `--memory-limit 4GiB`;
//! 2. the environment variable: `RUSTYDB_` and the key in capitals with `_` for `.`, such as `RUSTYDB_FLIGHT_ADDRESS`;
//! 3. the file named by `--config` (or `RUSTYDB_CONFIG`), TOML;
//! 4. the default.
//!
//! An unknown key in the file is an error that names the nearest known ones: a setting that is silently ignored is
//! worse than one that is missing. An unknown `RUSTYDB_*` variable is only worth a warning, because others set such
//! variables too (Kubernetes sets `RUSTYDB_SERVICE_HOST` for a service called rustydb).

mod settings;
pub(crate) mod units;

use rustydb::DatabaseOptions;
use rustydb_flight::{FlightOptions, Limits, TlsFiles};
use settings::{Kind, SETTINGS, Setting, unknown_key, variable};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Variables of ours that are no settings.
const OTHER_VARIABLES: [&str; 4] = ["RUSTYDB_CONFIG", "RUSTYDB_HISTORY", "RUSTYDB_PASSWORD", "RUSTYDB_TOKEN"];

/// What "never" becomes where a limit in time must be given: longer than any process runs.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// What a setting says that leaves the choice to the database.
const AUTO: &str = "auto";

/// Where a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag,
}

/// The settings in force, each with its origin.
///
/// Holds every key of [`SETTINGS`], and each value has been read as its kind once: that is why the accessors below
/// cannot fail.
#[derive(Debug)]
pub(crate) struct Config {
    values: BTreeMap<&'static str, (String, Origin)>,
    /// Things worth a warning once logging works.
    pub(crate) warnings: Vec<String>,
}

/// A configuration that cannot be used; the text names the place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(String);

impl Config {
    /// Gathers the settings. `flags` are the values given on the command line, by key; `environment` is
    /// `std::env::vars_os()` as text, or a test's.
    pub(crate) fn load(
        flags: &[(&'static str, Option<String>)],
        environment: impl Iterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Config, ConfigError> {
        let defaults = SETTINGS.iter().map(|setting| (setting.key, (setting.default.to_owned(), Origin::Default)));
        let mut config = Config { values: defaults.collect(), warnings: Vec::new() };
        let environment: BTreeMap<String, String> =
            environment.filter(|(name, _)| name.starts_with("RUSTYDB_")).collect();
        let file = file.map(Path::to_owned).or_else(|| environment.get("RUSTYDB_CONFIG").map(PathBuf::from));
        if let Some(path) = file {
            config.read_file(&path)?;
        }
        for (name, value) in environment {
            match SETTINGS.iter().find(|setting| variable(setting.key) == name) {
                Some(setting) => config.set(setting, value, Origin::Environment(name)),
                None if OTHER_VARIABLES.contains(&name.as_str()) => {}
                None => config.warnings.push(format!("the environment variable {name} is no setting of RustyDB")),
            }
        }
        for (key, value) in flags {
            if let (Some(value), Some(setting)) = (value, settings::find(key)) {
                config.set(setting, value.clone(), Origin::Flag);
            }
        }
        config.verify()?;
        Ok(config)
    }

    fn set(&mut self, setting: &Setting, value: String, origin: Origin) {
        self.values.insert(setting.key, (value, origin));
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let error = |text: String| ConfigError(format!("{}: {text}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|cause| error(format!("cannot be read: {cause}")))?;
        let table: toml::Table = text.parse().map_err(|cause: toml::de::Error| error(cause.to_string()))?;
        let mut values = Vec::new();
        flatten(&table, "", &mut values);
        for (key, value) in values {
            let setting = settings::find(&key).ok_or_else(|| error(unknown_key(&key)))?;
            let text = value_text(setting, &value).map_err(|expected| error(format!("{key}: expected {expected}")))?;
            self.set(setting, text, Origin::File(path.to_owned()));
        }
        Ok(())
    }

    /// Reads every value once, so that a bad one is found at the start, with its place.
    fn verify(&self) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let (text, origin) = &self.values[setting.key];
            let checked = match setting.kind {
                Kind::Text => Ok(()),
                Kind::Size if setting.key == "memory_limit" => read_memory_limit(text).map(drop),
                Kind::SizeOrAuto if text == AUTO => Ok(()),
                Kind::Size | Kind::SizeOrAuto => read_size(text).map(drop),
                Kind::Duration => units::parse_duration(text).map(drop),
                Kind::Number => parse_count(text, 0).map(drop),
                Kind::Count => parse_count(text, 1).map(drop),
                Kind::Flag => parse_flag(text).map(drop),
            };
            checked.map_err(|problem| ConfigError(format!("{} ({origin}): {problem}", setting.key)))?;
        }
        let is_set = |key| !self.text(key).is_empty();
        if is_set("flight.tls_certificate") != is_set("flight.tls_key") {
            return Err(ConfigError("flight.tls_certificate and flight.tls_key must be set together".to_owned()));
        }
        if is_set("flight.tls_client_ca") && !is_set("flight.tls_certificate") {
            let problem = "flight.tls_client_ca needs flight.tls_certificate: clients show certificates over TLS only";
            return Err(ConfigError(problem.to_owned()));
        }
        Ok(())
    }

    /// The filter of the log.
    pub(crate) fn log(&self) -> &str {
        self.text("log")
    }

    /// The directory of the database.
    pub(crate) fn data(&self) -> &Path {
        Path::new(self.text("data"))
    }

    /// What the engine is opened with.
    pub(crate) fn database_options(&self) -> DatabaseOptions {
        let mut options = DatabaseOptions::directory(self.data());
        options.memory_limit = Some(self.size("memory_limit") as u64);
        options.memtable_bytes = (self.text("memtable_size") != AUTO).then(|| self.size("memtable_size"));
        let rate = (self.text("compaction_rate") != AUTO).then(|| self.size("compaction_rate") as u64);
        options.compaction_bytes_per_second = rate;
        options.allow_server_files = self.flag("allow_server_files");
        options.query_threads = Some(self.count("query_threads")).filter(|threads| *threads > 0);
        options.statement_timeout = self.duration("statement_timeout");
        options.languages = rustydb::languages();
        options
    }

    /// What the Flight SQL server is started with.
    pub(crate) fn flight_options(&self) -> FlightOptions {
        let idle = |key| self.duration(key).unwrap_or(NEVER);
        let mut options = FlightOptions::new(self.text("flight.address"));
        options.insecure = self.flag("flight.insecure");
        options.token_file = self.path("flight.token_file");
        options.tls = self
            .path("flight.tls_certificate")
            .zip(self.path("flight.tls_key"))
            .map(|(certificate, key)| TlsFiles { certificate, key, client_ca: self.path("flight.tls_client_ca") });
        options.shutdown_grace = self.duration("flight.shutdown_grace").unwrap_or(Duration::ZERO);
        options.limits = Limits {
            message_bytes: self.size("flight.message_size"),
            message_bytes_total: self.size("flight.message_size_total"),
            statement_bytes: self.size("flight.statement_size"),
            parameter_bytes: self.size("flight.parameter_size"),
            parameter_bytes_total: self.size("flight.parameter_size_total"),
            connections: self.count("flight.connections"),
            requests_per_connection: u32::try_from(self.count("flight.requests_per_connection")).unwrap_or(u32::MAX),
            result_streams: self.count("flight.result_streams"),
            sessions: self.count("flight.sessions"),
            tickets: self.count("flight.tickets"),
            prepared_statements: self.count("flight.prepared_statements"),
            transactions: self.count("flight.transactions"),
            savepoints: self.count("flight.savepoints"),
            session_idle: idle("flight.session_idle"),
            session_lifetime: idle("flight.session_lifetime"),
            ticket_idle: idle("flight.ticket_idle"),
            prepared_statement_idle: idle("flight.prepared_statement_idle"),
            transaction_idle: idle("flight.transaction_idle"),
            transfer_idle: idle("flight.transfer_idle"),
            keepalive_interval: idle("flight.keepalive_interval"),
            keepalive_timeout: idle("flight.keepalive_timeout"),
        };
        options
    }

    fn text(&self, key: &'static str) -> &str {
        &self.values[key].0
    }

    fn path(&self, key: &'static str) -> Option<PathBuf> {
        Some(self.text(key)).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Bytes.
    fn size(&self, key: &'static str) -> usize {
        usize::try_from(read_size(self.text(key)).expect("verified when it was loaded")).unwrap_or(usize::MAX)
    }

    fn flag(&self, key: &'static str) -> bool {
        parse_flag(self.text(key)).expect("verified when it was loaded")
    }

    fn count(&self, key: &'static str) -> usize {
        parse_count(self.text(key), 0).expect("verified when it was loaded")
    }

    /// `None`: never.
    fn duration(&self, key: &'static str) -> Option<Duration> {
        units::parse_duration(self.text(key)).expect("verified when it was loaded")
    }
}

/// The settings in force as a TOML file that gives the same settings when it is read back (`--print-config`).
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# The settings of `rustydb serve`, as they are in force.")?;
        let mut section = "";
        for setting in SETTINGS {
            let (value, origin) = &self.values[setting.key];
            let (group, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
            if group != section {
                writeln!(f, "\n[{group}]")?;
                section = group;
            }
            writeln!(f, "\n# {}", setting.meaning)?;
            let (default, variable) = (toml_text(setting, setting.default), variable(setting.key));
            writeln!(f, "# default {default}, environment {variable}; this is {origin}")?;
            writeln!(f, "{name} = {}", toml_text(setting, value))?;
        }
        Ok(())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "the default"),
            Origin::File(path) => write!(f, "from {}", path.display()),
            Origin::Environment(name) => write!(f, "from the environment variable {name}"),
            Origin::Flag => write!(f, "from the command line"),
        }
    }
}

fn flatten(table: &toml::Table, prefix: &str, values: &mut Vec<(String, toml::Value)>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            toml::Value::Table(inner) => flatten(inner, &format!("{key}."), values),
            value => values.push((key, value.clone())),
        }
    }
}

/// The text of a TOML value of the right kind, or what was expected instead.
fn value_text(setting: &Setting, value: &toml::Value) -> Result<String, &'static str> {
    match (setting.kind, value) {
        (Kind::Text | Kind::Size | Kind::SizeOrAuto | Kind::Duration, toml::Value::String(text)) => Ok(text.clone()),
        (Kind::Size | Kind::SizeOrAuto | Kind::Count | Kind::Number | Kind::Duration, toml::Value::Integer(number)) => {
            Ok(number.to_string())
        }
        (Kind::Flag, toml::Value::Boolean(flag)) => Ok(flag.to_string()),
        (Kind::Text, _) => Err("a string"),
        (Kind::Size | Kind::SizeOrAuto, _) => Err("a size, such as \"4GiB\""),
        (Kind::Duration, _) => Err("a duration, such as \"30s\""),
        (Kind::Count | Kind::Number, _) => Err("a whole number"),
        (Kind::Flag, _) => Err("true or false"),
    }
}

/// A value as TOML writes it.
fn toml_text(setting: &Setting, value: &str) -> String {
    match setting.kind {
        Kind::Text | Kind::Size | Kind::SizeOrAuto | Kind::Duration => toml::Value::from(value).to_string(),
        Kind::Count | Kind::Number => value.to_owned(),
        // A variable may say "yes" where TOML knows only true.
        Kind::Flag => parse_flag(value).unwrap_or(false).to_string(),
    }
}

/// Bytes, at least one.
fn read_size(text: &str) -> Result<u64, String> {
    match units::parse_size(text, units::machine_memory())? {
        0 => Err("it must be more than nothing".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Bytes of a memory limit that the engine takes.
pub(crate) fn read_memory_limit(text: &str) -> Result<u64, String> {
    let (bytes, least) = (read_size(text)?, DatabaseOptions::MEMORY_LIMIT_MIN);
    match bytes < least {
        true => Err(format!("\"{text}\" is too little; the least is {}MiB", least >> 20)),
        false => Ok(bytes),
    }
}

fn parse_flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "on" | "yes" => Ok(true),
        "false" | "0" | "off" | "no" => Ok(false),
        other => Err(format!("\"{other}\" is neither true nor false")),
    }
}

fn parse_count(text: &str, least: u32) -> Result<usize, String> {
    let count = text.parse::<u32>().ok().filter(|count| *count >= least);
    count.map(|count| count as usize).ok_or_else(|| format!("\"{text}\" is not a whole number from {least}"))
}

#[cfg(test)]
mod tests;
