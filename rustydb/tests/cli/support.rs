//! Running the binary: directories of its own, a clean environment, and deadlines, so that a program that hangs fails
//! its test instead of stopping the suite.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine with a debug build.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// What a program did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Fails the test unless the program ended with this status.
    #[track_caller]
    pub(crate) fn expect_status(self, status: i32) -> Outcome {
        assert_eq!(self.status, Some(status), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless standard error holds all of these.
    #[track_caller]
    pub(crate) fn expect_stderr(self, texts: &[&str]) -> Outcome {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in standard error:\n{}", self.stderr);
        }
        self
    }
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The binary, run in `directory`, without settings from this process's environment.
pub(crate) fn rustydb(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rustydb"));
    command.current_dir(directory).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RUSTYDB_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("HOME", directory);
    command
}

/// Runs to the end.
#[track_caller]
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Outcome {
    finish(rustydb(directory, arguments).spawn().expect("the binary starts"), "")
}

/// Runs to the end with this on standard input.
#[track_caller]
pub(crate) fn run_with_input(directory: &Path, arguments: &[&str], input: &str) -> Outcome {
    finish(rustydb(directory, arguments).stdin(Stdio::piped()).spawn().expect("the binary starts"), input)
}

/// Rows as CSV, without the header.
#[track_caller]
pub(crate) fn rows(directory: &Path, data: &str, sql: &str) -> Vec<String> {
    let outcome = run(directory, &["sql", "--data", data, "--format", "csv", "-c", sql]).expect_status(0);
    outcome.stdout.lines().skip(1).map(str::to_owned).collect()
}

/// Waits for a program that was started, feeding and draining its pipes.
#[track_caller]
pub(crate) fn finish(mut child: Child, input: &str) -> Outcome {
    let input = input.to_owned();
    let stdin = child.stdin.take();
    let writer = thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A program that stops reading at an error closes the pipe.
            let _ = stdin.write_all(input.as_bytes());
        }
    });
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child);
    writer.join().expect("the writer does not panic");
    let text = |reader: thread::JoinHandle<String>| reader.join().expect("the reader does not panic");
    Outcome { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        }
        String::from_utf8(bytes).expect("text")
    })
}

/// Waits for the end; kills and fails after the deadline.
#[track_caller]
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return status;
        }
        if started.elapsed() > DEADLINE {
            child.kill().expect("the child is ours");
            panic!("the program did not end within {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(id, signal).expect("the child is ours");
}

/// A running server on a free port.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// `grpc://HOST:PORT`.
    pub(crate) url: String,
    /// `HOST:PORT`.
    pub(crate) address: String,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts `rustydb serve` and waits for its ready line.
    #[track_caller]
    pub(crate) fn start(directory: &Path, data: &str, variables: &[(&str, &str)]) -> Server {
        let mut command = rustydb(directory, &["serve", "--data", data, "--flight", "127.0.0.1:0"]);
        // Inherited, so that what a failing server says is in the test's output and no pipe can fill up.
        command.envs(variables.iter().copied()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a pipe can be read");
        let address = line.trim_end().strip_prefix("flight-sql listening on ");
        let address = address.unwrap_or_else(|| panic!("no ready line but {line:?}")).to_owned();
        Server { child, url: format!("grpc://{address}"), address, stdout }
    }

    /// Ends the server in order; returns its status and what it wrote after the ready line.
    #[track_caller]
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        signal(&self.child, rustix::process::Signal::TERM);
        let status = wait(&mut self.child);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("a pipe can be read");
        (status.code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill; after a failed assertion the server must not outlive the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
