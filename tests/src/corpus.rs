//! Running one script of `slt/` under one configuration.
//!
//! A script is run to its end even if statements fail, so that one run shows everything that is wrong with it. Each
//! script gets a database of its own in a scratch directory, and what it may write to as `$__TEST_DIR__`.

use std::path::Path;

use rustydb_engine::DatabaseOptions;
use rustydb_flight::{FlightOptions, FlightServer, RemoteClient, RemoteError, RemoteOptions, ServerError};
use sqllogictest::{Record, Runner, default_normalizer, default_validator, parse_file, strict_column_validator};

use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

use crate::restart::{Place, RestartingSession};
use crate::{ColumnKind, Connection};

/// The conditions a script is run under. Its answers must not depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// Files in a directory, default sizes: rows stay in the memtable.
    Default,
    /// A memtable of 4 KiB: nearly every commit is followed by a flush to segments.
    TinyMemtable,
    /// The database is closed and opened again between statements, as far as the session may go.
    Restart,
    /// A server and a client in one process, which speak Arrow Flight SQL over a socket.
    FlightSql,
}

impl Configuration {
    /// All of them.
    pub const ALL: [Configuration; 4] =
        [Configuration::Default, Configuration::TinyMemtable, Configuration::Restart, Configuration::FlightSql];

    /// How it is called in the list of tests, and in `onlyif` and `skipif` lines.
    pub fn name(self) -> &'static str {
        match self {
            Configuration::Default => "default",
            Configuration::TinyMemtable => "tiny_memtable",
            Configuration::Restart => "restart",
            Configuration::FlightSql => "flight_sql",
        }
    }

    pub(crate) fn options(self, directory: &Path) -> DatabaseOptions {
        let options = DatabaseOptions { languages: rustydb_udf::languages(), ..DatabaseOptions::directory(directory) };
        match self {
            Configuration::Default | Configuration::Restart | Configuration::FlightSql => options,
            Configuration::TinyMemtable => DatabaseOptions { memtable_bytes: Some(4096), ..options },
        }
    }
}

/// A Flight SQL server in this process.
struct Server {
    url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl Server {
    async fn start(place: &Mutex<Place>) -> Result<Server, String> {
        let database = place.lock().await.database().ok_or("the database is closed")?;
        let server = FlightServer::bind(FlightOptions::new("127.0.0.1:0"), database);
        let server = server.await.map_err(|error| error.to_string())?;
        let url = format!("grpc://{}", server.address());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async {
            // A sender that is gone stops it as well.
            let _ = stopped.await;
        }));
        Ok(Server { url, stop, serving })
    }

    async fn connect(&self) -> Result<RemoteClient, RemoteError> {
        RemoteClient::connect(RemoteOptions { url: self.url.clone(), ..RemoteOptions::default() }).await
    }

    async fn stop(self) -> Result<(), String> {
        drop(self.stop);
        self.serving.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

/// Runs a script; the error lists every statement that did not do what the script says.
///
/// With `complete`, the script is rewritten with the answers of the database instead: for new scripts, to be read
/// before they are committed.
pub async fn run_script(script: &Path, configuration: Configuration, complete: bool) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| format!("no scratch directory: {error}"))?;
    let place = Place::open(configuration, directory.path().join("data"))
        .await
        .map_err(|error| format!("cannot open a database: {error}"))?;
    let server = match configuration {
        Configuration::FlightSql => Some(Server::start(&place).await?),
        _ => None,
    };
    let records = parse_file::<ColumnKind>(script).map_err(|error| error.to_string())?;
    let mut runner = Runner::new(|| async {
        Ok(match (&server, configuration) {
            (Some(server), _) => Connection::remote(server.connect().await?),
            (None, Configuration::Restart) => Connection::restarting(RestartingSession::connect(&place).await),
            (None, _) => Connection::new(Place::session(&place).await),
        })
    });
    runner.with_column_validator(strict_column_validator);
    runner.add_label(configuration.name());
    let mut failures = Vec::new();
    if complete {
        runner
            .update_test_file(script, " ", default_validator, default_normalizer, strict_column_validator)
            .await
            .map_err(|error| error.to_string())?;
    } else {
        for record in records {
            if matches!(record, Record::Halt { .. }) {
                failures.push("`halt` hides the rest of the script".to_owned());
                break;
            }
            if let Err(error) = runner.run_async(record).await {
                failures.push(error.to_string());
            }
        }
    }
    runner.shutdown_async().await;
    drop(runner);
    if let Some(server) = server {
        server.stop().await?;
    }
    match place.lock().await.close().await {
        Err(error) => failures.push(format!("the database did not close: {error}")),
        Ok(0) if configuration == Configuration::Restart && !complete => {
            failures.push("nothing was ever restarted".to_owned());
        }
        Ok(_) => {}
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("{} failures:\n{}", failures.len(), failures.join("\n"))) }
}
