//! `rustydb tpcc`: transactions at the command line. The tpch crate does the work and gives the verdicts; here are the
//! arguments, the database they run on, and what becomes of Ctrl-C.

mod remote;
mod screen;

use super::{CommandError, Exit, describe, print, runtime};
use clap::{Args, ValueEnum};
use rustydb::{Database, DatabaseOptions};
use rustydb_flight::{RemoteClient, RemoteOptions};
use rustydb_tpch::tpcc::{
    Client, Durability, Embedded, Isolation, Mode, Observer, Options, REDUCTION_MAX, Report, Stop,
};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

pub(super) use remote::Remote;
pub(super) use screen::{Screen, milliseconds, summary};

/// Run TPC-C-derived transactions and check that the data stays consistent
///
/// Creates the nine tables and fills them (about 100 MB per warehouse), runs the five transactions in the specified mix on
/// as many terminals as you say, each one transaction after the other without think time, and reports rates and latencies.
/// After every run the twelve consistency conditions of the specification are checked. A second start uses the store again:
/// it grows, and the conditions still hold. Ctrl-C ends a run early, with its report.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rustydb tpcc                                     10 warehouses, 16 terminals, 30 seconds, in ./tpcc-data
  rustydb tpcc --warehouses 1 --seconds 5          a quick look
  rustydb tpcc --terminals 1 --json one.json       latencies without contention
  rustydb tpcc --mode statement                    prepared statements instead of procedures
  rustydb tpcc --durability async                  commits that a crash may lose
  rustydb tpcc --url grpc://127.0.0.1:50051        through a server
  rustydb tpcc --check-only                        only the conditions, nothing changes

Modes:
  procedure  a transaction is one CALL of a procedure in PL/pgSQL, which the command creates
  statement  a transaction is BEGIN, prepared statements, COMMIT

The JSON holds tps (committed transactions of all five kinds per second), tpmc_equivalent, and per kind in transactions
count, aborts, retries and latency_ms (p50, p95, p99, p99.9); further durability, mode, isolation, warehouses, terminals,
load, and consistency. One New-Order of a hundred is rolled back on purpose and counts as an abort.

Exit status:
  0  it ran, and all conditions hold
  1  a condition does not hold (the report names it and the rows), or a transaction failed
  2  the command line is not valid
  3  the store could not be opened, or holds something else; the server could not be reached
  130  ended by Ctrl-C; what had been measured is reported and the conditions hold

Environment:
  RUSTYDB_PASSWORD the password of --user
  RUSTYDB_TOKEN    the token for --url, if the server has those")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    workload: WorkloadArguments,

    /// Only check the conditions of what is there; nothing is loaded or run
    #[arg(long)]
    check_only: bool,

    /// File to write the results to, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Where the data is.
#[derive(Args)]
pub(super) struct TargetArguments {
    /// Directory of the store
    #[arg(long, value_name = "DIR", default_value = "./tpcc-data", conflicts_with = "url")]
    data: PathBuf,

    /// Server to speak to instead: grpc://HOST:PORT, or grpc+tls://HOST:PORT
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// User to log in as
    #[arg(long, value_name = "NAME", requires = "url")]
    user: Option<String>,

    /// For grpc+tls: PEM file with the server's certificate, or its authority's [default: the system's authorities]
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_certificate: Option<PathBuf>,

    /// Memory for rows, caches and queries, such as 4GiB or 70% [default: 70%]
    #[arg(long, value_name = "SIZE", conflicts_with = "url")]
    memory_limit: Option<String>,
}

/// What runs.
#[derive(Args)]
pub(super) struct WorkloadArguments {
    /// Warehouses [default: what the store has; 10 for a new one]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(i32).range(1..=100_000))]
    warehouses: Option<i32>,

    /// Terminals that run transactions side by side
    #[arg(long, value_name = "T", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    terminals: u16,

    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Seconds that run before, unmeasured
    #[arg(long, value_name = "S", default_value_t = 5)]
    warmup: u32,

    /// How transactions come to the database
    #[arg(long, value_enum, default_value_t = ModeArgument::Procedure)]
    mode: ModeArgument,

    /// When a commit is acknowledged: on disk, or earlier
    #[arg(long, value_enum, default_value_t = DurabilityArgument::Sync)]
    durability: DurabilityArgument,

    /// What a transaction sees of others [default: snapshot for procedures, read-committed for statements]
    #[arg(long, value_enum)]
    isolation: Option<IsolationArgument>,

    /// Seed of the inputs, and of the rows of a new store
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Divides items, customers and orders of a new store: for tests, no TPC-C
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(i32).range(1..=i64::from(REDUCTION_MAX)))]
    reduction: Option<i32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArgument {
    Procedure,
    Statement,
}

#[derive(Clone, Copy, ValueEnum)]
enum DurabilityArgument {
    Sync,
    Async,
}

#[derive(Clone, Copy, ValueEnum)]
enum IsolationArgument {
    ReadCommitted,
    Snapshot,
    Serializable,
}

impl WorkloadArguments {
    pub(super) fn options(&self) -> Options {
        Options {
            warehouses: self.warehouses,
            reduction: self.reduction,
            terminals: usize::from(self.terminals),
            duration: Duration::from_secs(self.seconds.into()),
            warm_up: Duration::from_secs(self.warmup.into()),
            mode: match self.mode {
                ModeArgument::Procedure => Mode::Procedure,
                ModeArgument::Statement => Mode::Statement,
            },
            durability: match self.durability {
                DurabilityArgument::Sync => Durability::Sync,
                DurabilityArgument::Async => Durability::Async,
            },
            isolation: match (self.isolation, self.mode) {
                (Some(IsolationArgument::ReadCommitted), _) | (None, ModeArgument::Statement) => {
                    Isolation::ReadCommitted
                }
                (Some(IsolationArgument::Snapshot), _) | (None, ModeArgument::Procedure) => Isolation::Snapshot,
                (Some(IsolationArgument::Serializable), _) => Isolation::Serializable,
            },
            seed: self.seed,
            ..Options::default()
        }
    }
}

/// An open database, in the process or on a server.
pub(super) enum Target {
    Embedded(Database),
    Remote(Remote),
}

impl TargetArguments {
    /// How people call it.
    pub(super) fn name(&self) -> String {
        self.url.clone().unwrap_or_else(|| self.data.display().to_string())
    }

    pub(super) fn open(&self, runtime: &Runtime, settings: &str) -> Result<Target, CommandError> {
        let Some(url) = &self.url else {
            let mut options = DatabaseOptions::directory(&self.data);
            options.memory_limit = super::memory_limit(self.memory_limit.as_deref())?;
            options.languages = rustydb::languages();
            let opened = runtime.block_on(Database::open(options));
            return opened.map(Target::Embedded).map_err(|error| CommandError::cannot_open(&error));
        };
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let options = RemoteOptions {
            url: url.clone(),
            user: self.user.clone(),
            password: self.user.as_ref().and_then(|_| variable("RUSTYDB_PASSWORD")),
            token: if self.user.is_none() { variable("RUSTYDB_TOKEN") } else { None },
            ca_certificate: self.ca_certificate.clone(),
            client_certificate: None,
        };
        let remote = Remote::new(options.clone(), settings.to_owned());
        // Tried at once: a wrong address is not worth the first line of a report.
        let client = runtime.block_on(RemoteClient::connect(options)).map_err(|error| {
            let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            let text = format!("{} ({}){hint}", error.message(), error.sqlstate());
            match error.sqlstate() {
                "22023" => CommandError::Usage(text),
                _ => CommandError::Unavailable(text),
            }
        })?;
        // The server would end the session by itself, later.
        let _ = runtime.block_on(client.close());
        Ok(Target::Remote(remote))
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, CommandError> {
    let options = arguments.workload.options();
    // Opened now, so that a wrong path is not found out after an hour; its old content stays until there is a new one.
    let json = arguments.json.as_deref().map(open_json).transpose()?;
    let runtime = runtime()?;
    let target = arguments.target.open(&runtime, &options.settings())?;
    print(&format!("TPC-C-derived transactions in {}\n", arguments.target.name()))?;
    let (screen, stop) = (Arc::new(Screen::new()), stop_at_interrupt(&runtime));
    let name = arguments.target.name();
    let check_only = arguments.check_only;
    let result = match target {
        Target::Embedded(database) => {
            let client = Embedded::new(database.clone(), options.settings());
            let result = runtime.block_on(work(&client, "embedded", &options, check_only, &screen, &stop));
            close(&runtime, &database, result)
        }
        Target::Remote(client) => runtime.block_on(work(&client, &name, &options, check_only, &screen, &stop)),
    };
    screen.finish();
    let report = match result {
        Err(rustydb_tpch::Error::Interrupted) => {
            screen::say(&rustydb_tpch::Error::Interrupted.to_string());
            return Ok(Exit::Interrupted);
        }
        result => result.map_err(command_error)?,
    };
    if let Some((path, file)) = json {
        write_json(&report, file).map_err(|error| cannot_write(path, &error))?;
    }
    match print(&summary(&report))? {
        Exit::Success if !report.is_consistent() => Ok(Exit::Failure),
        Exit::Success if report.interrupted => Ok(Exit::Interrupted),
        exit => Ok(exit),
    }
}

async fn work<C: Client>(
    client: &C,
    target: &str,
    options: &Options,
    check_only: bool,
    screen: &Arc<Screen>,
    stop: &Stop,
) -> rustydb_tpch::Result<Report> {
    let observer = Arc::clone(screen) as Arc<dyn Observer>;
    match check_only {
        true => rustydb_tpch::tpcc::check_only(client, target, options, observer).await,
        false => rustydb_tpch::tpcc::run(client, target, options, observer, stop).await,
    }
}

/// Closes a database; what happened before is the more important error.
pub(super) fn close<T>(
    runtime: &Runtime,
    database: &Database,
    result: rustydb_tpch::Result<T>,
) -> rustydb_tpch::Result<T> {
    let closed = runtime.block_on(database.close());
    result.and_then(|report| closed.map(|()| report).map_err(rustydb_tpch::Error::from))
}

/// What Ctrl-C asks to stop; a second one ends the process.
pub(super) fn stop_at_interrupt(runtime: &Runtime) -> Stop {
    let stop = Stop::default();
    let asked = stop.clone();
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            asked.request();
            screen::say("ending; once more to end at once (nothing acknowledged is lost)");
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    stop
}

pub(super) fn command_error(error: rustydb_tpch::Error) -> CommandError {
    match error {
        rustydb_tpch::Error::Engine(error) => CommandError::failed(describe(&error)),
        error @ (rustydb_tpch::Error::OtherWarehouses { .. }
        | rustydb_tpch::Error::ForeignTable { .. }
        | rustydb_tpch::Error::NotLoaded) => CommandError::Unavailable(error.to_string()),
        error => CommandError::failed(error),
    }
}

pub(super) fn open_json(path: &Path) -> Result<(&Path, File), CommandError> {
    let file = File::options().create(true).write(true).truncate(false).open(path);
    Ok((path, file.map_err(|error| cannot_write(path, &error))?))
}

pub(super) fn cannot_write(path: &Path, error: &io::Error) -> CommandError {
    CommandError::Failed(format!("cannot write {}: {error}", path.display()))
}

pub(super) fn write_json(report: &impl serde::Serialize, mut file: File) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    file.set_len(0)?;
    file.write_all(text.as_bytes())
}
