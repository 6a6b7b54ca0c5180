//! The prompt on a terminal of its own. Python's `pty` makes the terminal; `prompt.py` types and watches.

use crate::support::{directory, finish};
use std::process::{Command, Stdio};

#[test]
fn the_prompt_edits_completes_cancels_and_remembers() {
    let directory = directory();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/prompt.py");
    let mut command = Command::new("python3");
    command.args([script, env!("CARGO_BIN_EXE_rustydb")]).current_dir(directory.path());
    command.env("RUSTYDB_HISTORY", directory.path().join("history")).env("TERM", "xterm");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let outcome = finish(child.expect("python3 is a requirement of the test suite"), "").expect_status(0);
    assert_eq!(outcome.stdout, "done\n");
}
