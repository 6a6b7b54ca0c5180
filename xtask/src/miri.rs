//! The loops over encoded data under Miri, the interpreter that finds what Rust leaves undefined. The code has no `unsafe`, so
//! this says that the crates below it are used within their rules, on every encoding and at every edge the tests know.
//!
//! It needs the nightly toolchain, which neither `rust-toolchain.toml` nor the build machine has, and takes minutes: it is no
//! step of `cargo xtask test`, and where the toolchain is absent, it says so and succeeds.

use std::process::Stdio;

use crate::Result;
use crate::steps::cannot_start;
use crate::workspace::Workspace;

/// The tests that are run if none are asked for, as filters of their names.
const TESTS: [&str; 2] = ["kernel::", "block::"];

/// Runs the tests of kernels and encodings, or those that `arguments` name; these go to the test program.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<bool> {
    if !is_installed() {
        println!(
            "skipped: there is no nightly toolchain with Miri \
             (rustup toolchain install nightly --component miri,rust-src)"
        );
        return Ok(true);
    }
    let names_tests = arguments.iter().any(|argument| !argument.starts_with('-'));
    let mut command = workspace.command("rustup");
    command
        .args(["run", "nightly", "cargo", "miri", "test", "--locked", "-p", "rustydb-storage", "--lib", "--"])
        .args(TESTS.iter().filter(|_| !names_tests))
        .args(arguments)
        // What it builds has nothing in common with what other builds need.
        .env("CARGO_TARGET_DIR", workspace.target_directory().join("miri"));
    let status = command.stdin(Stdio::null()).status().map_err(|error| cannot_start(&command, &error))?;
    Ok(status.success())
}

fn is_installed() -> bool {
    let mut command = std::process::Command::new("rustup");
    command.args(["run", "nightly", "cargo", "miri", "--version"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
