//! The command line: arguments, help texts, logging, and what the exit status means.
//!
//! Each subcommand is a file with its arguments, its help and its `run`. A `run` answers with an [`Exit`], or with a
//! [`CommandError`] that is printed here, once, as `error: …`. Results go to standard output, everything else to
//! standard error, so that output can always be piped.

mod certificates;
mod chbench;
mod check;
mod init;
mod panics;
mod serve;
mod sql;
mod tpcc;
mod tpch;

use crate::config::read_memory_limit;
use clap::{Parser, Subcommand};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

/// The stack of a worker thread. Planning recurses over the expression tree, and a deep tree must not be the end of
/// the process; debug builds need several times the stack of release builds.
const WORKER_STACK_BYTES: usize = 8 << 20;

const ABOUT: &str = "RustyDB: one database for transactions and analytics, over Arrow and open Parquet files";

const EXAMPLES: &str = "\
Examples:
  rustydb sql                                    a prompt on the database in ./rustydb-data
  rustydb sql -c 'SELECT 1 AS one' --format json one statement, for programs
  rustydb serve                                  a Flight SQL server on 127.0.0.1:50051
  rustydb init                                   an administrator and certificates for a server
  rustydb sql --url grpc://127.0.0.1:50051       a prompt on that server
  rustydb tpch --scale 1                         generate, load, run and verify TPC-H
  rustydb tpcc --warehouses 1                    run and verify transactions derived from TPC-C
  rustydb chbench --analysts 1                   the same beside analytical queries
  rustydb check --data ./rustydb-data            look for damage in a closed database

Exit status:
  0  success
  1  it ran, and something was wrong: a statement failed, an answer differed, damage was found
  2  the command line or the configuration is not valid
  3  the database could not be opened, the server could not be reached or could not listen
  130, 141  ended by Ctrl-C; by whoever read the output closing it

Logging goes to standard error; RUST_LOG or --log chooses what.";

/// The version, with the commit if the build was told it (`RUSTYDB_COMMIT=$(git rev-parse --short HEAD) cargo build`).
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    option_env!("RUSTYDB_COMMIT").map_or(version.to_owned(), |commit| format!("{version} (commit {commit})"))
});

#[derive(Parser)]
#[command(name = "rustydb", version = VERSION.as_str(), about = ABOUT, after_help = EXAMPLES, max_term_width = 120)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,

    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as rustydb_storage=debug
    /// [default: RUST_LOG, or warn; for serve its setting "log"]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Arguments),
    Serve(serve::Arguments),
    Sql(sql::Arguments),
    Tpch(tpch::Arguments),
    Tpcc(tpcc::Arguments),
    Chbench(chbench::Arguments),
    Check(check::Arguments),
}

/// How a command ended, when it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Success,
    /// It ran, and something was wrong with the data or the statements; already reported.
    Failure,
    /// Ctrl-C.
    Interrupted,
    /// The reader of our output went away; nobody is left to tell.
    OutputClosed,
}

/// Why a command could not run.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// The command line or the configuration is wrong.
    Usage(String),
    /// The database cannot be opened, the server cannot be reached, the address cannot be listened on.
    Unavailable(String),
    /// It broke off in the middle.
    Failed(String),
}

impl CommandError {
    fn usage(text: impl Display) -> CommandError {
        CommandError::Usage(text.to_string())
    }

    fn failed(text: impl Display) -> CommandError {
        CommandError::Failed(text.to_string())
    }

    /// The database in a directory could not be opened.
    fn cannot_open(error: &rustydb::Error) -> CommandError {
        CommandError::Unavailable(describe(error))
    }
}

/// An error of the engine with what helps, for people.
fn describe(error: &rustydb::Error) -> String {
    let mut text = format!("{} ({})", error.message(), error.sqlstate());
    for (label, more) in [("detail", error.detail()), ("hint", error.hint())] {
        if let Some(more) = more {
            text.push_str(&format!("\n{label}: {more}"));
        }
    }
    text
}

/// Runs what the command line asks for.
pub(crate) fn run() -> ExitCode {
    let arguments = CommandLine::parse();
    let log = arguments.log.or_else(|| std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty()));
    let result = match arguments.command {
        Command::Init(arguments) => start_logging(log.as_deref().unwrap_or("warn")).and_then(|()| init::run(arguments)),
        Command::Serve(arguments) => serve::run(arguments, log),
        Command::Sql(arguments) => start_logging(log.as_deref().unwrap_or("warn")).and_then(|()| sql::run(arguments)),
        Command::Tpch(arguments) => start_logging(log.as_deref().unwrap_or("warn")).and_then(|()| tpch::run(arguments)),
        Command::Tpcc(arguments) => start_logging(log.as_deref().unwrap_or("warn")).and_then(|()| tpcc::run(arguments)),
        Command::Chbench(arguments) => {
            start_logging(log.as_deref().unwrap_or("warn")).and_then(|()| chbench::run(arguments))
        }
        Command::Check(arguments) => {
            start_logging(log.as_deref().unwrap_or("warn")).and_then(|()| check::run(arguments))
        }
    };
    match result {
        Ok(Exit::Success) => ExitCode::SUCCESS,
        Ok(Exit::Failure) => ExitCode::from(1),
        Ok(Exit::Interrupted) => ExitCode::from(130),
        Ok(Exit::OutputClosed) => ExitCode::from(141),
        Err(error) => {
            let (text, status) = match error {
                CommandError::Failed(text) => (text, 1),
                CommandError::Usage(text) => (text, 2),
                CommandError::Unavailable(text) => (text, 3),
            };
            // If standard error is gone too, the exit status still tells.
            let _ = writeln!(io::stderr(), "error: {text}");
            ExitCode::from(status)
        }
    }
}

/// Starts logging to standard error.
fn start_logging(filter: &str) -> Result<(), CommandError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| CommandError::Usage(format!("\"{filter}\" is not a log filter: {error}")))?;
    // Colours are for people; a log file is for tools.
    let has_colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(has_colours).init();
    Ok(())
}

/// Writes a command's result to standard output. A reader that has gone away is an [`Exit`], not an error.
fn print(text: &str) -> Result<Exit, CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::OutputClosed),
        Err(error) => Err(CommandError::Failed(format!("cannot write the output: {error}"))),
    }
}

/// Bytes of a `--memory-limit`; `None`: the engine's default.
fn memory_limit(text: Option<&str>) -> Result<Option<u64>, CommandError> {
    let bytes = text.map(read_memory_limit).transpose();
    bytes.map_err(|problem| CommandError::Usage(format!("--memory-limit: {problem}")))
}

/// The first line of a file that is neither empty nor a comment: a secret that should not be in a command line.
fn first_line(path: &Path, what: &str) -> Result<String, CommandError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CommandError::Usage(format!("cannot read the {what} file {}: {error}", path.display())))?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let none = || CommandError::Usage(format!("the {what} file {} holds no {what}", path.display()));
    line.map(str::to_owned).ok_or_else(none)
}

/// The runtime of a command.
fn runtime() -> Result<Runtime, CommandError> {
    let runtime = Builder::new_multi_thread().enable_all().thread_stack_size(WORKER_STACK_BYTES).build();
    runtime.map_err(|error| CommandError::Failed(format!("cannot start threads: {error}")))
}

#[cfg(test)]
mod tests {
    use super::{CommandLine, first_line};
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_secret_is_the_first_line_that_says_something() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "# for the laptop\n\n  secret-token-1234  \nanother\n").unwrap();
        assert_eq!(first_line(&path, "token").ok().as_deref(), Some("secret-token-1234"));
        std::fs::write(&path, "# nothing\n").unwrap();
        assert!(first_line(&path, "token").is_err());
    }
}
