//! `rustydb serve`: the server. Configuration, ready line, signals; the protocol is the flight crate's.

use super::panics::log_panics;
use super::{CommandError, Exit, describe, print, runtime, start_logging};
use crate::config::Config;
use clap::Args;
use rustydb::Database;
use rustydb_flight::{FlightListener, ServerError};
use std::io;
use std::path::PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Serve a database over Arrow Flight SQL
///
/// Opens the database (created if the directory does not exist), prints `flight-sql listening on HOST:PORT` on standard
/// output when clients can connect, and runs until SIGTERM or Ctrl-C.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rustydb serve
  rustydb serve --data /var/lib/rustydb --memory-limit 4GiB
  rustydb serve --flight 127.0.0.1:0               a free port; the ready line names it
  rustydb serve --flight 0.0.0.0:50051 --insecure  for a trusted network only
  rustydb serve --config rustydb.toml
  rustydb serve --print-config > rustydb.toml      every setting, its meaning and its default

Every setting can also be given in the configuration file and as an environment variable
(RUSTYDB_DATA, RUSTYDB_FLIGHT_ADDRESS, …). A flag counts before the environment, the environment
before the file.

Signals:
  SIGTERM, SIGINT  end in order: no new connections, running requests finish, the store is closed
  SIGHUP           the same, unless the server was started with nohup
  the second one   ends at once; nothing acknowledged is lost, the next start replays the log

Exit status:
  0  ended in order
  1  broke off while serving
  2  the command line or the configuration is not valid, or asks for what is not safe
  3  the database could not be opened, or the address could not be listened on
  130  ended at once by the second signal")]
pub(crate) struct Arguments {
    /// Directory of the database [default: ./rustydb-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,

    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:50051]
    #[arg(long, value_name = "HOST:PORT")]
    flight: Option<String>,

    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Listen beyond this machine even without authentication and encryption
    #[arg(long)]
    insecure: bool,

    /// File of bearer tokens, one per line, that clients must send [default: none asked]
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,

    /// Memory for tables, caches and queries, such as 4GiB or 70% [default: 70%]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,

    /// Print the settings in force as a configuration file, and end
    #[arg(long)]
    print_config: bool,
}

pub(crate) fn run(arguments: Arguments, log: Option<String>) -> Result<Exit, CommandError> {
    let flags = [
        ("data", arguments.data),
        ("flight.address", arguments.flight),
        ("flight.insecure", arguments.insecure.then(|| "true".to_owned())),
        ("flight.token_file", arguments.token_file),
        ("memory_limit", arguments.memory_limit),
        ("log", log),
    ];
    // A variable that is not text cannot be one of ours.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
    let config = Config::load(&flags, environment, arguments.config.as_deref()).map_err(CommandError::usage)?;
    if arguments.print_config {
        return print(&config.to_string());
    }
    start_logging(config.log())?;
    log_panics();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    let result = runtime.block_on(serve(&config));
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config) -> Result<Exit, CommandError> {
    // From here on a signal is a request, not the end; also while the log is replayed.
    let mut stop = stop_on_signals().map_err(CommandError::failed)?;
    // Before the database: a server that cannot serve must not create one.
    let options = config.database_options();
    let has_users = Database::has_users_at(&options.location).map_err(|error| CommandError::cannot_open(&error))?;
    let listener = FlightListener::bind(config.flight_options(), has_users).await.map_err(explain)?;
    let database = Database::open(options).await.map_err(|error| CommandError::cannot_open(&error))?;
    let server = listener.into_server(database.clone());
    tracing::info!("database {} is open", config.data().display());
    // Should nobody read our output, the server is still of use.
    print(&format!("flight-sql listening on {}\n", server.address()))?;
    let stopped = async move {
        // The sender lives in the task that waits for signals, which never ends.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let served = server.serve(stopped).await;
    let closed = database.close().await;
    served.map_err(explain)?;
    closed.map_err(|error| CommandError::failed(describe(&error)))?;
    tracing::info!("the database is closed");
    Ok(Exit::Success)
}

fn explain(error: ServerError) -> CommandError {
    match error {
        ServerError::Malformed { .. }
        | ServerError::Exposed { .. }
        | ServerError::TokenFile { .. }
        | ServerError::Tls { .. } => CommandError::usage(error),
        ServerError::Transport(_) => CommandError::failed(error),
        error => CommandError::Unavailable(error.to_string()),
    }
}

/// Becomes true at the first SIGTERM, SIGINT or SIGHUP (the terminal was closed); the second one ends the process.
fn stop_on_signals() -> io::Result<watch::Receiver<bool>> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hang_up: (!ignores_hang_up()).then(|| signal(SignalKind::hangup())).transpose()?,
    };
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!("{name}: ending in order; once more ends at once");
        sender.send_replace(true);
        let name = signals.next().await;
        tracing::warn!("{name} again: ending at once; the next start replays the log");
        std::process::exit(130);
    });
    Ok(receiver)
}

/// The signals that end the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// None under nohup, which is there for the server to stay.
    hang_up: Option<Signal>,
}

impl Signals {
    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        let Signals { terminate, interrupt, hang_up } = self;
        let hung_up = async {
            match hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = hung_up => "SIGHUP",
        }
    }
}

/// Whether whoever started the process had it ignore SIGHUP.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
