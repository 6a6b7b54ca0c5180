//! Isolation scripts: several connections, one step after the other, with what each level promises.
//!
//! ```text
//! setup                                     statements run before each case, one a line
//! CREATE TABLE t (…)
//!
//! case what it shows, at READ COMMITTED, SERIALIZABLE        run once for each level
//! T1: UPDATE …                              succeeds; T1's first step is preceded by BEGIN ISOLATION LEVEL …
//! T2: UPDATE … -> waits                     is waiting for a lock
//! T1: SELECT … -> 1|10, 2|20                these rows; `nothing` for none
//! T1: COMMIT
//! T2 goes on -> error 40001                 the step that waited ends like this; `anything` if it does not matter how
//! ```
//! Nothing sleeps: a step that should wait is polled until the database says that one more transaction is waiting for a
//! lock. A connection takes part in a case from its first step on.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustydb_engine::{Database, DatabaseOptions, Error, Session, StatementResult};
use tokio::task::JoinHandle;

use crate::connection::rows_as_text;

/// Steps may take this long before the case is given up: only a bug makes one wait for ever.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// What happens between the steps of a case. Its outcome must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Nothing.
    Nothing,
    /// Rows in memory are written out to segments.
    Flushes,
}

impl Between {
    /// All of them.
    pub const ALL: [Between; 2] = [Between::Nothing, Between::Flushes];

    /// How it is called in the list of tests.
    pub fn name(self) -> &'static str {
        match self {
            Between::Nothing => "in_memory",
            Between::Flushes => "flushed",
        }
    }
}

/// One case at one level.
#[derive(Clone, Debug)]
pub struct IsolationCase {
    /// What it shows, and the level.
    pub name: String,
    level: String,
    setup: Arc<Vec<String>>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    line: usize,
    session: String,
    /// `None`: the statement that waited goes on.
    sql: Option<String>,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    Rows(String),
    Error(String),
    Waits,
    /// It comes to an end.
    Anything,
}

type Running = JoinHandle<Result<String, Error>>;

impl IsolationCase {
    /// Reads a script.
    pub fn parse(path: &Path) -> Result<Vec<IsolationCase>, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (mut setup, mut in_setup) = (Vec::new(), false);
        let mut cases: Vec<(String, Vec<String>, Vec<Step>)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let (line, number) = (line.trim(), number + 1);
            let wrong = |what: &str| format!("{}:{number}: {what}: {line}", path.display());
            if line.starts_with('#') {
                continue;
            }
            if line.is_empty() {
                in_setup = false;
            } else if in_setup {
                setup.push(line.to_owned());
            } else if line == "setup" {
                in_setup = true;
            } else if let Some(case) = line.strip_prefix("case ") {
                let (title, levels) = case.rsplit_once(", at ").ok_or_else(|| wrong("a case names its levels"))?;
                cases.push((title.to_owned(), levels.split(", ").map(str::to_owned).collect(), Vec::new()));
            } else {
                let step = parse_step(line, number).ok_or_else(|| wrong("not a step"))?;
                cases.last_mut().ok_or_else(|| wrong("a step before the first case"))?.2.push(step);
            }
        }
        let setup = Arc::new(setup);
        let all = cases.into_iter().flat_map(|(title, levels, steps)| {
            let setup = Arc::clone(&setup);
            levels.into_iter().map(move |level| IsolationCase {
                name: format!("{title} ({level})"),
                level,
                setup: Arc::clone(&setup),
                steps: steps.clone(),
            })
        });
        Ok(all.collect())
    }

    /// Runs it on a database of its own.
    pub async fn run(&self, between: Between) -> Result<(), String> {
        let options = DatabaseOptions { query_threads: Some(2), ..DatabaseOptions::memory() };
        let database = Database::open(options).await.map_err(|error| format!("{error:?}"))?;
        let session = database.connect();
        for sql in self.setup.iter() {
            session.execute(sql, &[]).await.map_err(|error| format!("{sql}: {error:?}"))?;
        }
        let mut sessions: HashMap<&str, Arc<Session>> = HashMap::new();
        let mut waiting: HashMap<&str, Running> = HashMap::new();
        for step in &self.steps {
            if between == Between::Flushes {
                database.flush().await.map_err(|error| format!("flush: {error:?}"))?;
            }
            let result = tokio::time::timeout(PATIENCE, self.step(&database, step, &mut sessions, &mut waiting)).await;
            let result = result.unwrap_or_else(|_| Err("takes for ever".to_owned()));
            result.map_err(|error| format!("line {}, {}: {error}", step.line, step.session))?;
        }
        match waiting.keys().next() {
            Some(session) => Err(format!("{session} is still waiting at the end of the case")),
            None => database.close().await.map_err(|error| format!("close: {error:?}")),
        }
    }

    async fn step<'a>(
        &self,
        database: &Database,
        step: &'a Step,
        sessions: &mut HashMap<&'a str, Arc<Session>>,
        waiting: &mut HashMap<&'a str, Running>,
    ) -> Result<(), String> {
        let Some(sql) = &step.sql else {
            let running = waiting.remove(step.session.as_str()).ok_or("it was not waiting")?;
            return step.compare(finish(running).await?);
        };
        if !sessions.contains_key(step.session.as_str()) {
            let session = Arc::new(database.connect());
            let begin = format!("BEGIN ISOLATION LEVEL {}", self.level);
            session.execute(&begin, &[]).await.map_err(|error| format!("{begin}: {error:?}"))?;
            sessions.insert(&step.session, session);
        }
        let (session, sql) = (Arc::clone(&sessions[step.session.as_str()]), sql.clone());
        let running: Running = tokio::spawn(async move { execute(&session, &sql).await });
        if step.outcome != Outcome::Waits {
            return step.compare(finish(running).await?);
        }
        while database.lock_waits() <= waiting.len() {
            if running.is_finished() {
                return Err(format!("it did not wait: {:?}", finish(running).await?));
            }
            tokio::task::yield_now().await;
        }
        waiting.insert(&step.session, running);
        Ok(())
    }
}

impl Step {
    fn compare(&self, result: Result<String, Error>) -> Result<(), String> {
        match (&self.outcome, result) {
            (Outcome::Success, Ok(_)) | (Outcome::Anything, _) => Ok(()),
            (Outcome::Rows(expected), Ok(found)) if *expected == found => Ok(()),
            (Outcome::Rows(expected), Ok(found)) => Err(format!("expected {expected}, found {found}")),
            (Outcome::Error(expected), Err(error)) if error.sqlstate() == expected => Ok(()),
            (Outcome::Error(expected), Ok(found)) => Err(format!("expected error {expected}, found {found}")),
            (_, Err(error)) => Err(format!("{error:?}")),
            (Outcome::Waits, Ok(found)) => Err(format!("it did not wait: {found}")),
        }
    }
}

async fn finish(running: Running) -> Result<Result<String, Error>, String> {
    running.await.map_err(|error| error.to_string())
}

async fn execute(session: &Session, sql: &str) -> Result<String, Error> {
    match session.execute(sql, &[]).await? {
        StatementResult::Done(_) => Ok("nothing".to_owned()),
        StatementResult::Rows(rows) => {
            let rows = rows_as_text(&rows.collect().await?).unwrap_or_default();
            let lines: Vec<String> = rows.into_iter().map(|row| row.join("|")).collect();
            Ok(if lines.is_empty() { "nothing".to_owned() } else { lines.join(", ") })
        }
    }
}

fn parse_step(line: &str, number: usize) -> Option<Step> {
    let (what, outcome) = match line.split_once(" -> ") {
        None => (line, Outcome::Success),
        Some((what, "waits")) => (what, Outcome::Waits),
        Some((what, "anything")) => (what, Outcome::Anything),
        Some((what, outcome)) => match outcome.strip_prefix("error ") {
            Some(sqlstate) => (what, Outcome::Error(sqlstate.to_owned())),
            None => (what, Outcome::Rows(outcome.to_owned())),
        },
    };
    let (session, sql) = match what.strip_suffix(" goes on") {
        Some(session) => (session, None),
        None => what.split_once(": ").map(|(session, sql)| (session, Some(sql.to_owned())))?,
    };
    Some(Step { line: number, session: session.to_owned(), sql, outcome })
}
