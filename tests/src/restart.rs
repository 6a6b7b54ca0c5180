//! A session that finds its database closed and opened again before each statement: what a statement has changed must
//! be on disk when it is done, and a new process must find it.
//!
//! What a session holds by itself does not outlive its database. So there is no restart inside a transaction, none beside
//! a second connection, and none after a statement that leaves something in the session ([`leaves_state`]).

use std::path::PathBuf;
use std::sync::Arc;

use rustydb_engine::{Database, Error, Session};
use tokio::sync::Mutex;

use crate::Configuration;

/// A database that can be opened again.
pub struct Place {
    directory: PathBuf,
    configuration: Configuration,
    database: Option<Database>,
    connections: usize,
    restarts: usize,
}

impl Place {
    /// Opens a database in a directory.
    pub async fn open(configuration: Configuration, directory: PathBuf) -> Result<Arc<Mutex<Place>>, Error> {
        let database = Some(Database::open(configuration.options(&directory)).await?);
        Ok(Arc::new(Mutex::new(Place { directory, configuration, database, connections: 0, restarts: 0 })))
    }

    /// The database, if it is open.
    pub(crate) fn database(&self) -> Option<Database> {
        self.database.clone()
    }

    /// A session that lives as long as the database is open.
    pub(crate) async fn session(place: &Mutex<Place>) -> Session {
        place.lock().await.database.as_ref().expect("sessions are opened before the place is closed").connect()
    }

    /// Closes the database; returns how often it was opened again.
    pub async fn close(&mut self) -> Result<usize, Error> {
        match self.database.take() {
            Some(database) => database.close().await.map(|()| self.restarts),
            None => Ok(self.restarts),
        }
    }

    async fn restart(&mut self) -> Result<Session, Error> {
        self.close().await?;
        self.restarts += 1;
        let database = self.database.insert(Database::open(self.configuration.options(&self.directory)).await?);
        Ok(database.connect())
    }
}

/// A session of a [`Place`].
pub struct RestartingSession {
    place: Arc<Mutex<Place>>,
    session: Option<Session>,
    keeps: bool,
}

impl RestartingSession {
    /// Connects.
    pub async fn connect(place: &Arc<Mutex<Place>>) -> RestartingSession {
        let mut locked = place.lock().await;
        locked.connections += 1;
        let session = locked.database.as_ref().map(Database::connect);
        RestartingSession { place: Arc::clone(place), session, keeps: false }
    }

    /// The session to run `sql` in.
    pub(crate) async fn next(&mut self, sql: &str) -> Result<&Session, Error> {
        let in_transaction = self.session.as_ref().is_some_and(Session::in_transaction);
        let mut place = self.place.lock().await;
        let fresh = match in_transaction || self.keeps || place.connections > 1 {
            true => None,
            false => {
                self.session = None;
                Some(place.restart().await?)
            }
        };
        drop(place);
        self.keeps |= leaves_state(sql);
        if let Some(fresh) = fresh {
            self.session = Some(fresh);
        }
        Ok(self.session.as_ref().expect("a session is given back before the next statement"))
    }
}

/// Whether a statement may leave something in its session that the statements after it rely on.
fn leaves_state(sql: &str) -> bool {
    let text = sql.to_ascii_lowercase();
    let first = text.split_whitespace().next().unwrap_or_default();
    let words = ["temp", "nextval", "setval", "currval", "lastval", "serial", "identity"];
    matches!(first, "set" | "reset" | "prepare") || words.iter().any(|word| text.contains(word))
}
