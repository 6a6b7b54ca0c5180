//! Runs TPC-H: loads the tables, runs each query a number of times, and checks the answer of every run.
//!
//! A time is what a client of the session waits: from the statement's text to the last batch, planning included.
//! Collecting the rows belongs to it, comparing them with the reference does not. A query that fails or answers wrongly
//! does not end the run; its report says so, and [`Report::verified`] is false.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use rustydb_engine::{Database, Session, StatementResult};

use super::answers::reference_answer;
use super::load::load;
use super::queries::{QUERIES, Query};
use super::report::{QueryReport, Report, Versions};
use super::scale::ScaleFactor;
use super::schema::Table;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::verify::verify;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The scale factor.
    pub scale: ScaleFactor,
    /// How often each query runs, one run right after the other; at least once.
    pub runs: usize,
    /// Which queries run, in this order.
    pub queries: Vec<Query>,
    /// The threads that generate rows during a load. How many run queries is the database's setting.
    pub threads: usize,
}

impl Options {
    /// All queries, three times each, with as many threads as the machine has.
    pub fn new(scale: ScaleFactor) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        Self { scale, runs: 3, queries: QUERIES.to_vec(), threads }
    }
}

/// Somebody who watches a run: a progress bar, a table that grows.
pub trait Observer: Send + Sync + 'static {
    /// `done` of `total` rows of `table` have been handed to the database. Called for every batch, first with 0.
    fn loading(&self, table: Table, done: u64, total: u64) {
        let _ = (table, done, total);
    }

    /// `table` is in the database, with all its rows.
    fn loaded(&self, table: Table) {
        let _ = table;
    }

    /// A query has run as often as was asked for.
    fn query_finished(&self, query: &Query, report: &QueryReport) {
        let _ = (query, report);
    }
}

/// Watches nothing.
impl Observer for () {}

/// Loads what is missing, runs the queries, and reports.
pub async fn run(database: &Database, options: &Options, observer: Arc<dyn Observer>) -> Result<Report> {
    let session = database.connect();
    let load = load(&session, options.scale, options.threads, &observer).await?;
    let mut queries = Vec::with_capacity(options.queries.len());
    for query in &options.queries {
        let report = run_query(&session, query, options.scale, options.runs).await?;
        observer.query_finished(query, &report);
        queries.push(report);
    }
    Ok(Report {
        benchmark: "tpch",
        scale: options.scale,
        versions: Versions::CURRENT,
        threads: query_threads(&session),
        load,
        queries,
        peak_memory_bytes: peak_memory_bytes(),
    })
}

/// Runs one query `runs` times and checks each answer. Only an unreadable reference is an error; what the database does
/// wrong is in the report.
pub async fn run_query(session: &Session, query: &Query, scale: ScaleFactor, runs: usize) -> Result<QueryReport> {
    let reference = reference_answer(query, scale)?;
    let mut report = QueryReport {
        query: query.number,
        rows: 0,
        times_ms: Vec::with_capacity(runs),
        plan_ms: Vec::with_capacity(runs),
        cpu_ms: Vec::with_capacity(runs),
        verified: reference.is_some().then_some(true),
        failure: None,
    };
    let sql = query.sql(scale);
    for _ in 0..runs.max(1) {
        let before = processor_time();
        let outcome = execute(session, &sql).await;
        let after = processor_time();
        let failure = match outcome {
            Ok(answer) => {
                report
                    .cpu_ms
                    .extend(before.zip(after).map(|(before, after)| milliseconds(after.saturating_sub(before))));
                report.rows = answer.row_count();
                report.times_ms.push(milliseconds(answer.total));
                report.plan_ms.push(milliseconds(answer.planning));
                reference.as_ref().and_then(|reference| answer.difference(reference))
            }
            Err(error) => Some(error.to_string()),
        };
        if failure.is_some() {
            report.verified = Some(false);
            report.failure = failure;
            break;
        }
    }
    Ok(report)
}

/// The rows of one run, and how long they took.
struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    planning: Duration,
    total: Duration,
}

impl Answer {
    fn row_count(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    fn difference(&self, reference: &Reference) -> Option<String> {
        verify(reference, &self.schema, &self.batches).err().map(|mismatch| mismatch.to_string())
    }
}

async fn execute(session: &Session, sql: &str) -> Result<Answer> {
    let started = Instant::now();
    // Boxed here and in the loader: the engine's futures are deeply nested types, and the compiler's depth limit counts
    // them into those of every caller.
    let StatementResult::Rows(rows) = Box::pin(session.execute(sql, &[])).await? else {
        return Err(Error::NoResultSet { statement: sql.to_owned() });
    };
    let (schema, planning) = (rows.schema(), rows.planning_time());
    let batches = rows.collect().await?;
    Ok(Answer { schema, batches, planning, total: started.elapsed() })
}

/// The tasks that the session spreads a query over, which is one per thread unless somebody set it otherwise.
fn query_threads(session: &Session) -> Option<usize> {
    session.setting("target_partitions")?.parse().ok()
}

/// Milliseconds with all the digits that a clock gives: a tenth of a millisecond matters to the fastest queries.
fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The processor time of all threads that live (Linux: the first number of each thread's `schedstat`, in nanoseconds).
/// The threads that run statements live as long as the database.
fn processor_time() -> Option<Duration> {
    let mut total = 0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        total += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(total))
}

/// The process's largest resident size so far, as Linux counts it (`VmHWM`, in kibibytes).
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn peak_memory_is_read_in_bytes() {
        let peak = peak_memory_bytes().expect("Linux tells");
        // A test process takes more than one mebibyte and less than one tebibyte.
        assert!((1 << 20..1 << 40).contains(&peak), "{peak} bytes");
    }
}
