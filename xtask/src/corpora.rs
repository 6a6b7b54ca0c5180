//! The jobs that run tests others wrote: SQLite's corpus and DataFusion's test files. They lie outside of the repository
//! and take minutes, so they are no steps of `cargo xtask test`. Where they are absent, a job says so and succeeds.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::Result;
use crate::steps::{TESTED_PACKAGES, cannot_start};
use crate::workspace::Workspace;

/// Runs SQLite's corpus.
pub(crate) fn run_sqlite(workspace: &Workspace, corpus: Option<&Path>) -> Result<bool> {
    let usual = workspace.root().join("../shared/corpus/sqlite");
    let corpus = corpus.unwrap_or(&usual);
    let Ok(corpus) = corpus.canonicalize() else {
        println!("skipped: SQLite's corpus is not at {}", corpus.display());
        return Ok(true);
    };
    run(workspace, "RUSTYDB_SQLITE_CORPUS", &corpus, None)
}

/// Runs DataFusion's test files.
pub(crate) fn run_datafusion(workspace: &Workspace, corpus: Option<&Path>, name: Option<&str>) -> Result<bool> {
    let version = datafusion_version(workspace)?;
    let found = match corpus {
        Some(folder) => folder.canonicalize().ok(),
        None => fetched_test_files(&version),
    };
    let Some(corpus) = found else {
        println!(
            "skipped: cargo has not fetched datafusion-sqllogictest {version} (a package that depends on it and \
             `cargo fetch` do that), and no folder is given"
        );
        return Ok(true);
    };
    println!("DataFusion's test files: {}", corpus.display());
    run(workspace, "RUSTYDB_DATAFUSION_CORPUS", &corpus, name)
}

fn run(workspace: &Workspace, variable: &str, corpus: &Path, name: Option<&str>) -> Result<bool> {
    let mut command = workspace.cargo();
    command
        .args(["test", "--locked"])
        .args(TESTED_PACKAGES)
        .args(["--test", "sql", "--"])
        .args(name)
        .env(variable, corpus);
    let status = command.stdin(Stdio::null()).status().map_err(|error| cannot_start(&command, &error))?;
    Ok(status.success())
}

/// The version of DataFusion that the workspace is locked to: its test files must be of the same.
fn datafusion_version(workspace: &Workspace) -> Result<String> {
    let path = workspace.root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    version_in(&lock).ok_or_else(|| format!("{} names no version of datafusion", path.display()))
}

fn version_in(lock: &str) -> Option<String> {
    let (_, rest) = lock.split_once("name = \"datafusion\"\nversion = \"")?;
    rest.split_once('"').map(|(version, _)| version.to_owned())
}

/// Where cargo keeps the sources of the crate, if it has them.
fn fetched_test_files(version: &str) -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    let mut folders = registries.filter_map(|registry| {
        Some(registry.ok()?.path().join(format!("datafusion-sqllogictest-{version}/test_files")))
    });
    folders.find(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_lock_file() {
        let lock = "[[package]]\nname = \"datafusion\"\nversion = \"55.2.0\"\n";
        assert_eq!(version_in(lock).as_deref(), Some("55.2.0"));
        assert_eq!(version_in("[[package]]\nname = \"other\"\n"), None);
    }
}
