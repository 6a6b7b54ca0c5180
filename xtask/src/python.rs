//! The Python client tests: an environment of pinned packages, and pytest in it.
//!
//! The environment lies in `target/python-venv`. It is complete when its stamp file holds the text of
//! `tests/python/requirements.txt` and the interpreter's version; anything else (other pins, another Python, an
//! installation that was interrupted) is removed and made again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::steps::echo_lines;
use crate::workspace::Workspace;

/// How pytest ended.
pub(crate) struct Outcome {
    pub(crate) success: bool,
    /// Pytest's own last line, `96 passed in 41.20s`.
    pub(crate) closing_line: String,
}

/// Runs the tests of `tests/python` against `binary`.
pub(crate) fn run(workspace: &Workspace, binary: &Path, pytest_arguments: &[String]) -> Result<Outcome> {
    let tests = workspace.root().join("tests").join("python");
    let environment = workspace.target_directory().join("python-venv");
    let python = prepare(&environment, &tests.join("requirements.txt"))?;
    // The tests change directories, so the path must not depend on one.
    let binary = binary.canonicalize().map_err(|error| format!("no binary at {}: {error}", binary.display()))?;
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-ra"])
        // Most of a test is waiting for a server to start or to answer. Each process has servers of its own, and takes whole files,
        // whose tests may share one.
        .args(["--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile"])
        .args(pytest_arguments)
        .current_dir(&tests)
        .env("RUSTYDB_TEST_BINARY", &binary)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let mut closing_line = String::new();
    let success = echo_lines(&mut command, |line| {
        if !line.trim().is_empty() {
            line.trim_matches(['=', ' ']).clone_into(&mut closing_line);
        }
    })?;
    Ok(Outcome { success, closing_line })
}

/// Makes the environment if it is not the one the requirements ask for, and returns its interpreter.
fn prepare(environment: &Path, requirements: &Path) -> Result<PathBuf> {
    let pins = std::fs::read_to_string(requirements)
        .map_err(|error| format!("cannot read {}: {error}", requirements.display()))?;
    let (base_python, version) = find_python()?;
    let wanted = format!("{version}\n{pins}");
    let stamp = environment.join("rustydb-stamp.txt");
    let python = environment.join("bin").join("python");
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && python.exists() {
        return Ok(python);
    }
    println!("making {} with {version}", environment.display());
    if environment.exists() {
        std::fs::remove_dir_all(environment)
            .map_err(|error| format!("cannot remove {}: {error}", environment.display()))?;
    }
    require_success(Command::new(base_python).args(["-m", "venv"]).arg(environment), "making a virtual environment")?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]);
    require_success(install.arg(requirements), "installing tests/python/requirements.txt")?;
    // Last, so that an interrupted installation is not taken for a finished one.
    std::fs::write(&stamp, wanted).map_err(|error| format!("cannot write {}: {error}", stamp.display()))?;
    Ok(python)
}

/// The interpreter to build the environment with, and what it calls itself.
fn find_python() -> Result<(String, String)> {
    let chosen = std::env::var("PYTHON").ok();
    let candidates: Vec<&str> = match &chosen {
        Some(python) => vec![python],
        None => vec!["python3.11", "python3"],
    };
    for candidate in &candidates {
        let Ok(output) = Command::new(candidate).arg("--version").stdin(Stdio::null()).output() else {
            continue;
        };
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && is_supported(&version) {
            return Ok(((*candidate).to_owned(), version));
        }
    }
    Err(format!("the Python tests need Python 3.11 or later; tried {}. Set PYTHON to name one", candidates.join(", ")))
}

/// Whether `Python 3.11.7` is recent enough.
fn is_supported(version: &str) -> bool {
    let Some(numbers) = version.strip_prefix("Python ") else {
        return false;
    };
    let mut parts = numbers.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (3, 11)
}

fn require_success(command: &mut Command, doing: &str) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().map_err(|error| format!("{doing}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{doing} failed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_versions_are_compared_as_numbers() {
        assert!(is_supported("Python 3.11.7"));
        assert!(is_supported("Python 3.14.0rc1"));
        assert!(is_supported("Python 4.0"));
        assert!(!is_supported("Python 3.9.2"));
        assert!(!is_supported("Python 2.7"));
        assert!(!is_supported(""));
    }
}
