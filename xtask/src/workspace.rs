//! Where the workspace lies, what `cargo metadata` says of it, and how cargo is called from inside `cargo run`.
//!
//! Invariant: a build started here and one started by hand have the same fingerprints. `cargo run` hands its program the
//! variables of the *xtask* package (`CARGO_PKG_NAME`, `CARGO_MANIFEST_DIR`, …). Build scripts that watch such
//! variables, `ring`'s for one, would run again for every switch between the two, and half of the dependency tree with
//! them; so [`Workspace::cargo`] takes those variables out.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Result;

/// The workspace this xtask belongs to.
pub(crate) struct Workspace {
    root: PathBuf,
    metadata: Value,
}

impl Workspace {
    /// Asks cargo for the workspace around this crate.
    pub(crate) fn load() -> Result<Workspace> {
        // Known at compile time, so it is right whatever the current directory is.
        let manifest_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest_directory.parent().ok_or("xtask lies at the root of the file system")?.to_owned();
        let output = cargo_in(&root)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .map_err(|error| format!("cannot start cargo: {error}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr)));
        }
        let metadata = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("cargo metadata did not answer with JSON: {error}"))?;
        Ok(Workspace { root, metadata })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The answer of `cargo metadata --no-deps`.
    pub(crate) fn metadata(&self) -> &Value {
        &self.metadata
    }

    pub(crate) fn target_directory(&self) -> PathBuf {
        match self.metadata["target_directory"].as_str() {
            Some(path) => PathBuf::from(path),
            None => self.root.join("target"),
        }
    }

    /// A cargo command at the workspace root.
    pub(crate) fn cargo(&self) -> Command {
        cargo_in(&self.root)
    }

    /// Another program that calls cargo, at the workspace root.
    pub(crate) fn command(&self, program: &str) -> Command {
        command_in(&self.root, program.as_ref())
    }
}

fn cargo_in(directory: &Path) -> Command {
    // `cargo run` names the cargo that runs us; outside of it the one on the path will do.
    command_in(directory, &std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn command_in(directory: &Path, program: &OsStr) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(belongs_to_the_running_package) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether `cargo run` set this variable to describe xtask, as opposed to the user's own settings (`CARGO_HOME`,
/// `CARGO_TARGET_DIR`, `CARGO_TERM_COLOR`, …).
fn belongs_to_the_running_package(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_that_describe_xtask_are_hidden_from_inner_builds() {
        for hidden in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PRIMARY_PACKAGE"] {
            assert!(belongs_to_the_running_package(hidden), "{hidden}");
        }
        for kept in ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_TERM_COLOR", "CARGO_INCREMENTAL", "PATH"] {
            assert!(!belongs_to_the_running_package(kept), "{kept}");
        }
    }
}
