//! Running one script of `slt/` under one configuration.
//!
//! A script is run to its end even if statements fail, so that one run shows everything that is wrong with it. Each
//! script gets a database of its own in a scratch directory, and what it may write to as `$__TEST_DIR__`.

use std::path::Path;

use rustydb_engine::{Database, DatabaseOptions};
use sqllogictest::{Record, Runner, default_normalizer, default_validator, parse_file, strict_column_validator};

use crate::{ColumnKind, Connection};

/// The conditions a script is run under. Its answers must not depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// Files in a directory, default sizes: rows stay in the memtable.
    Default,
    /// A memtable of 4 KiB: nearly every commit is followed by a flush to segments.
    TinyMemtable,
}

impl Configuration {
    /// All of them.
    pub const ALL: [Configuration; 2] = [Configuration::Default, Configuration::TinyMemtable];

    /// How it is called in the list of tests, and in `onlyif` and `skipif` lines.
    pub fn name(self) -> &'static str {
        match self {
            Configuration::Default => "default",
            Configuration::TinyMemtable => "tiny_memtable",
        }
    }

    pub(crate) fn options(self, directory: &Path) -> DatabaseOptions {
        let options = DatabaseOptions { languages: rustydb_udf::languages(), ..DatabaseOptions::directory(directory) };
        match self {
            Configuration::Default => options,
            Configuration::TinyMemtable => DatabaseOptions { memtable_bytes: Some(4096), ..options },
        }
    }
}

/// Runs a script; the error lists every statement that did not do what the script says.
///
/// With `complete`, the script is rewritten with the answers of the database instead: for new scripts, to be read
/// before they are committed.
pub async fn run_script(script: &Path, configuration: Configuration, complete: bool) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| format!("no scratch directory: {error}"))?;
    let database = Database::open(configuration.options(&directory.path().join("data")))
        .await
        .map_err(|error| format!("cannot open a database: {error}"))?;
    let records = parse_file::<ColumnKind>(script).map_err(|error| error.to_string())?;
    let mut runner = Runner::new(|| async { Ok(Connection::new(database.connect())) });
    runner.with_column_validator(strict_column_validator);
    runner.add_label(configuration.name());
    let mut failures = Vec::new();
    if complete {
        runner
            .update_test_file(script, " ", default_validator, default_normalizer, strict_column_validator)
            .await
            .map_err(|error| error.to_string())?;
    } else {
        for record in records {
            if matches!(record, Record::Halt { .. }) {
                failures.push("`halt` hides the rest of the script".to_owned());
                break;
            }
            if let Err(error) = runner.run_async(record).await {
                failures.push(error.to_string());
            }
        }
    }
    runner.shutdown_async().await;
    drop(runner);
    if let Err(error) = database.close().await {
        failures.push(format!("the database did not close: {error}"));
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("{} failures:\n{}", failures.len(), failures.join("\n"))) }
}
