//! Tests of the configuration: precedence, refusals, and that documentation, code and the server's own defaults agree.

use super::settings::{SETTINGS, variable};
use super::{Config, FlightOptions};
use std::path::Path;
use std::time::Duration;

fn environment(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
    let owned: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    owned.into_iter()
}

/// A configuration from the text of a file alone.
fn from_file(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rustydb.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&[], environment(&[]), Some(&path)).map_err(|error| error.to_string())
}

#[test]
fn without_anything_the_defaults_hold() {
    let config = Config::load(&[], environment(&[("PATH", "/bin")]), None).unwrap();
    assert_eq!(config.data(), Path::new("./rustydb-data"));
    let database = config.database_options();
    assert_eq!(database.query_threads, None);
    assert_eq!(database.statement_timeout, None);
    assert_eq!(database.memtable_bytes, None);
    assert_eq!(database.compaction_bytes_per_second, None);
    assert!(!database.allow_server_files, "a server's files are not its clients'");
    assert!(database.memory_limit.unwrap() > 1 << 20, "a share of this machine");
    assert!(config.warnings.is_empty());
}

#[test]
fn compaction_keeps_to_a_rate_that_is_set() {
    let config = from_file("compaction_rate = \"50MiB\"\n").unwrap();
    assert_eq!(config.database_options().compaction_bytes_per_second, Some(50 << 20));
}

#[test]
fn our_defaults_are_those_of_the_flight_server() {
    let ours = Config::load(&[], environment(&[]), None).unwrap().flight_options();
    let theirs = FlightOptions::new("127.0.0.1:50051");
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rustydb.toml");
    std::fs::write(
        &path,
        "data = \"file\"\nlog = \"file\"\nstatement_timeout = \"5s\"\n[flight]\naddress = \"file:1\"\n",
    )
    .unwrap();
    let variables =
        [("RUSTYDB_CONFIG", path.to_str().unwrap()), ("RUSTYDB_LOG", "env"), ("RUSTYDB_FLIGHT_ADDRESS", "env:1")];
    let flags = [("flight.address", Some("flag:1".to_owned())), ("data", None)];
    let config = Config::load(&flags, environment(&variables), None).unwrap();
    assert_eq!(config.data(), Path::new("file"));
    assert_eq!(config.log(), "env");
    assert_eq!(config.flight_options().address, "flag:1");
    assert_eq!(config.database_options().statement_timeout, Some(Duration::from_secs(5)));
}

#[test]
fn an_unknown_key_names_the_nearest() {
    assert!(from_file("memory_limt = \"1GiB\"").unwrap_err().contains("did you mean memory_limit?"));
    assert!(from_file("[flight]\nadress = \"x\"").unwrap_err().contains("did you mean flight.address?"));
    assert!(from_file("colour = \"blue\"").unwrap_err().contains("--print-config"));
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place() {
    for (text, expected) in [
        ("memory_limit = true", "memory_limit: expected a size"),
        ("memory_limit = \"much\"", "is not a size"),
        ("memory_limit = 0", "more than nothing"),
        ("memory_limit = 1", "the least is 64MiB"),
        ("memory_limit = \"63MiB\"", "the least is 64MiB"),
        ("query_threads = -1", "is not a whole number"),
        ("statement_timeout = \"30\"", "is not a duration"),
        ("[flight]\nconnections = 0", "is not a whole number from 1"),
        ("[flight]\ninsecure = \"maybe\"", "flight.insecure: expected true or false"),
    ] {
        let error = from_file(text).unwrap_err();
        assert!(error.contains(expected) && error.contains("rustydb.toml"), "{text}: {error}");
    }
    assert!(from_file("data = [").unwrap_err().contains("rustydb.toml"));
    assert!(from_file("[flight]\ntls_key = \"key.pem\"").unwrap_err().contains("must be set together"));
    let error = Config::load(&[], environment(&[("RUSTYDB_MEMORY_LIMIT", "x")]), None).unwrap_err().to_string();
    assert!(error.contains("RUSTYDB_MEMORY_LIMIT"), "{error}");
}

#[test]
fn a_strange_variable_is_only_a_warning() {
    let config = Config::load(&[], environment(&[("RUSTYDB_SERVICE_HOST", "10.0.0.1")]), None).unwrap();
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn the_printed_configuration_reads_back_as_itself() {
    let flags = [("memory_limit", Some("123MiB".to_owned())), ("data", Some("a \"quoted\" path".to_owned()))];
    let variables = environment(&[("RUSTYDB_FLIGHT_INSECURE", "yes")]);
    let printed = Config::load(&flags, variables, None).unwrap().to_string();
    let again = from_file(&printed).unwrap();
    assert_eq!(again.database_options().memory_limit, Some(123 << 20));
    assert_eq!(again.data(), Path::new("a \"quoted\" path"));
    assert!(again.flight_options().insecure);
    for setting in SETTINGS {
        assert!(printed.contains(setting.meaning) && printed.contains(&variable(setting.key)), "{}", setting.key);
    }
}

#[test]
fn the_table_in_the_documentation_lists_every_setting() {
    let rows: Vec<&str> = include_str!("settings.rs").lines().filter(|line| line.starts_with("//! | `")).collect();
    assert_eq!(rows.len(), SETTINGS.len());
    for (setting, row) in SETTINGS.iter().zip(rows) {
        assert!(row.starts_with(&format!("//! | `{}` |", setting.key)), "{} is not in its place: {row}", setting.key);
        assert!(row.contains(setting.meaning), "{row}");
        let default = setting.default;
        assert!(row.contains(&format!("`{default}`")) || row.contains(&format!("`\"{default}\"`")), "{row}");
    }
}
