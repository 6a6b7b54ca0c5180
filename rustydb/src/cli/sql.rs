//! `rustydb sql`: arguments, the connection, and the choice between prompt and script.

use super::{CommandError, Exit, runtime};
use crate::shell::Shell;
use crate::shell::backend::{Backend, RemoteSession};
use crate::shell::render::Format;
use crate::shell::repl;
use crate::shell::script::{self, Lines, Stop};
use clap::Args;
use rustydb::{Database, DatabaseOptions, TransactionStatus};
use rustydb_flight::{RemoteClient, RemoteOptions};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use tokio::runtime::Runtime;

/// The name of a database that lives and dies with the process.
const IN_MEMORY: &str = ":memory:";

/// Run SQL: a prompt, or a script from -c, -f or standard input
///
/// Opens a database directory itself (created if it does not exist), or speaks to a server with --url. Without -c and
/// -f it is a prompt when standard input is a terminal, and a script otherwise.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rustydb sql                                      a prompt; \\? lists its commands
  rustydb sql --data shop -f schema.sql
  rustydb sql -c 'CREATE TABLE t (id BIGINT PRIMARY KEY)' -c 'INSERT INTO t VALUES (1)'
  rustydb sql -c 'SELECT * FROM t' --format csv > t.csv
  rustydb sql -c \"COPY t TO 't.parquet'\"
  echo 'SELECT 42 AS answer' | rustydb sql --data :memory: --format json
  rustydb sql --url grpc+tls://db.example.com:50051 --ca-certificate ca.pem --user ann

Scripts run statement by statement, each as soon as its semicolon is read, and stop at the first
error, which is shown on standard error with its line:
  ERROR 42703: column \"nam\" does not exist
  LINE 3: SELECT nam FROM person
                 ^
  FILE: schema.sql
Results stream; csv and json need constant memory, and with them (and markdown) nothing but results
is written to standard output.

Exit status:
  0  every statement succeeded
  1  a statement failed; those before it stand (unless a transaction was open)
  2  the command line is not valid
  3  the database could not be opened, or the server not reached
  130, 141  ended by Ctrl-C; by whoever read the output closing it

Environment:
  RUSTYDB_PASSWORD the password of --user, if there is no --password-file
  RUSTYDB_TOKEN    the token for --url, if there is no --token-file
  RUSTYDB_HISTORY  history file of the prompt [default: ~/.rustydb_history]")]
pub(crate) struct Arguments {
    /// Directory of the database, or :memory: for one that is forgotten at the end
    #[arg(long, value_name = "DIR", default_value = "./rustydb-data", conflicts_with = "url")]
    data: PathBuf,

    /// Server to speak to instead: grpc://HOST:PORT, or grpc+tls://HOST:PORT
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// User to log in as
    #[arg(long, value_name = "NAME", requires = "url", conflicts_with = "token_file")]
    user: Option<String>,

    /// File whose first line is the user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,

    /// File whose first line is the token for the server
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,

    /// For grpc+tls: PEM file with the server's certificate, or its authority's [default: the system's authorities]
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_certificate: Option<PathBuf>,

    /// PEM file with a certificate of your own, for servers that ask for one
    #[arg(long, value_name = "FILE", requires = "url", requires = "client_key")]
    client_certificate: Option<PathBuf>,

    /// PEM file with that certificate's private key
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,

    /// Statements to run; may be given several times, and come before -f
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    commands: Vec<String>,

    /// Script to run; - is standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// How results are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Memory the database may use, such as 4GiB or 70% [default: 70%]
    #[arg(long, value_name = "SIZE", conflicts_with = "url")]
    memory_limit: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, CommandError> {
    let memory_limit = super::memory_limit(arguments.memory_limit.as_deref())?;
    // Opened before the database, so that a wrong name changes nothing.
    let scripts = scripts(&arguments)?;
    let runtime = runtime()?;
    let (backend, database) = match &arguments.url {
        Some(url) => (connect(&runtime, url, &arguments)?, None),
        None => {
            let is_in_memory = arguments.data.as_os_str() == IN_MEMORY;
            let mut options =
                if is_in_memory { DatabaseOptions::memory() } else { DatabaseOptions::directory(&arguments.data) };
            options.memory_limit = memory_limit;
            options.languages = rustydb::languages();
            let database =
                runtime.block_on(Database::open(options)).map_err(|error| CommandError::cannot_open(&error))?;
            (Backend::Embedded(Box::new(database.connect())), Some(database))
        }
    };
    let mut shell = {
        let _entered = runtime.enter();
        Shell::new(backend, arguments.format).map_err(CommandError::failed)?
    };
    let outcome = if scripts.is_empty() {
        super::print(&greeting(&arguments))?;
        repl::run(&mut shell, &runtime)
    } else {
        runtime.block_on(async {
            for lines in scripts {
                script::run(&mut shell, lines).await?;
            }
            Ok(())
        })
    };
    if matches!(outcome, Ok(()) | Err(Stop::Quit)) && shell.backend().transaction_status() != TransactionStatus::Idle {
        shell.say("WARNING: the transaction that was open is rolled back, as there was no COMMIT");
    }
    // The session goes first: its open transaction is rolled back.
    runtime.block_on(shell.close());
    if let Some(database) = database {
        runtime.block_on(database.close()).map_err(|error| CommandError::failed(super::describe(&error)))?;
    }
    // A thread may still wait for standard input; it must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) | Err(Stop::Quit) => Ok(Exit::Success),
        Err(Stop::Failed) => Ok(Exit::Failure),
        Err(Stop::Interrupted) => Ok(Exit::Interrupted),
        Err(Stop::OutputClosed) => Ok(Exit::OutputClosed),
        Err(Stop::Output(error)) => Err(CommandError::Failed(format!("cannot write the output: {error}"))),
    }
}

/// The scripts to run, in order; none means the prompt.
fn scripts(arguments: &Arguments) -> Result<Vec<Lines>, CommandError> {
    let mut scripts: Vec<Lines> = arguments.commands.iter().map(|text| Lines::of_text(text.clone())).collect();
    match &arguments.file {
        Some(path) if path.as_os_str() == "-" => scripts.push(Lines::of_stdin()),
        Some(path) => {
            let unreadable = |error| CommandError::Usage(format!("cannot read {}: {error}", path.display()));
            scripts.push(Lines::of_file(path).map_err(unreadable)?);
        }
        None if scripts.is_empty() && !io::stdin().is_terminal() => scripts.push(Lines::of_stdin()),
        None => {}
    }
    Ok(scripts)
}

fn connect(runtime: &Runtime, url: &str, arguments: &Arguments) -> Result<Backend, CommandError> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (password, token) = match (&arguments.user, &arguments.password_file, &arguments.token_file) {
        (Some(_), Some(path), _) => (Some(super::first_line(path, "password")?), None),
        (Some(user), None, _) => {
            let missing = || CommandError::Usage(format!("set RUSTYDB_PASSWORD to the password of \"{user}\""));
            (Some(variable("RUSTYDB_PASSWORD").ok_or_else(missing)?), None)
        }
        (None, _, Some(path)) => (None, Some(super::first_line(path, "token")?)),
        (None, _, None) => (None, variable("RUSTYDB_TOKEN")),
    };
    let has_secret = password.is_some() || token.is_some();
    let options = RemoteOptions {
        url: url.to_owned(),
        user: arguments.user.clone(),
        password,
        token,
        ca_certificate: arguments.ca_certificate.clone(),
        client_certificate: arguments.client_certificate.clone().zip(arguments.client_key.clone()),
    };
    let client = runtime.block_on(RemoteClient::connect(options)).map_err(|error| {
        let hint = match error.sqlstate() {
            "28000" if !has_secret => Some("give a user with --user, or a token with --token-file or RUSTYDB_TOKEN"),
            _ => error.hint(),
        };
        let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        let text = format!("{} ({}){hint}", error.message(), error.sqlstate());
        match error.sqlstate() {
            "22023" => CommandError::Usage(text),
            _ => CommandError::Unavailable(text),
        }
    })?;
    Ok(Backend::Remote(Box::new(RemoteSession::new(client))))
}

fn greeting(arguments: &Arguments) -> String {
    let place = match &arguments.url {
        Some(url) => format!("server {url}"),
        None if arguments.data.as_os_str() == IN_MEMORY => "database in memory".to_owned(),
        None => format!("database {}", arguments.data.display()),
    };
    format!("RustyDB {}, {place}. \\? for help, \\q to quit.\n", env!("CARGO_PKG_VERSION"))
}
