//! `rustydb tpch`: the benchmark at the command line. The tpch crate does the work and gives the verdicts; here they
//! become a progress bar, a table, a JSON file and an exit status.

use super::{CommandError, Exit, describe, print, runtime};
use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustydb::{Database, DatabaseOptions};
use rustydb_tpch::tpch::{
    LoadReport, Observer, Options, QUERIES, Query, QueryReport, Report, ScaleFactor, Table, parse_query_list,
};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a load reports where it is when nobody watches a bar.
const PLAIN_PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Generate, load, run and verify TPC-H
///
/// Generates the data, creates the eight tables with their primary and foreign keys, loads them the way any bulk data is
/// loaded, runs the queries and compares every answer with an independent engine's (scales 0.01, 0.1, 1 and 10). A
/// second start reuses the tables, and a load that was interrupted is continued.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rustydb tpch                                   scale 1: 8.7 million rows, in ./tpch-data/sf1
  rustydb tpch --scale 0.01 --runs 1             a quick look
  rustydb tpch --queries 1,6,18-21 --runs 5
  rustydb tpch --scale 10 --memory-limit 4GiB --json sf10.json

The JSON holds load.seconds and load.rows, and per query times_ms, plan_ms and cpu_ms of all runs, rows, and
verified (null at a scale without a reference answer).

Exit status:
  0  every query ran, and no answer was wrong
  1  an answer was wrong or a query failed
  2  the command line is not valid
  3  the store could not be opened, or holds something else")]
pub(crate) struct Arguments {
    /// Scale factor; 1 is about a gigabyte of text
    #[arg(long, value_name = "N", default_value = "1")]
    scale: ScaleFactor,

    /// Directory of the store [default: ./tpch-data/sf<N>]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// How often each query runs
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,

    /// Queries to run, such as 1,6,18-21 [default: all 22]
    #[arg(long, value_name = "LIST")]
    queries: Option<String>,

    /// File to write the results to, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Memory for tables, caches and queries, such as 4GiB or 70% [default: 70%]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, CommandError> {
    let mut options = Options::new(arguments.scale);
    options.runs = usize::from(arguments.runs);
    options.queries = match &arguments.queries {
        Some(list) => parse_query_list(list).map_err(CommandError::usage)?,
        None => QUERIES.to_vec(),
    };
    let directory = arguments.data.unwrap_or_else(|| PathBuf::from(format!("./tpch-data/sf{}", arguments.scale)));
    let mut database_options = DatabaseOptions::directory(&directory);
    database_options.memory_limit = super::memory_limit(arguments.memory_limit.as_deref())?;
    // Opened now, so that a wrong path is not found out after an hour; its old content stays until there is a new one.
    let json = arguments.json.as_deref().map(open_json).transpose()?;

    let runtime = runtime()?;
    print(&format!("TPC-H at scale {} in {}\n", arguments.scale, directory.display()))?;
    let database =
        runtime.block_on(Database::open(database_options)).map_err(|error| CommandError::cannot_open(&error))?;
    let screen = Arc::new(Screen::new());
    let result =
        runtime.block_on(rustydb_tpch::tpch::run(&database, &options, Arc::clone(&screen) as Arc<dyn Observer>));
    screen.finish_loading();
    let closed = runtime.block_on(database.close());
    let report = result.map_err(|error| match error {
        rustydb_tpch::Error::Engine(error) => CommandError::failed(describe(&error)),
        error @ (rustydb_tpch::Error::OtherScale { .. }
        | rustydb_tpch::Error::OtherTable { .. }
        | rustydb_tpch::Error::ChangedTable { .. }) => CommandError::Unavailable(error.to_string()),
        error => CommandError::failed(error),
    })?;
    closed.map_err(|error| CommandError::failed(describe(&error)))?;
    if let Some((path, file)) = json {
        write_json(&report, file).map_err(|error| cannot_write(path, &error))?;
    }
    match print(&summary(&report))? {
        Exit::Success if !report.verified() => Ok(Exit::Failure),
        exit => Ok(exit),
    }
}

fn open_json(path: &Path) -> Result<(&Path, File), CommandError> {
    let file = File::options().create(true).write(true).truncate(false).open(path);
    Ok((path, file.map_err(|error| cannot_write(path, &error))?))
}

fn cannot_write(path: &Path, error: &io::Error) -> CommandError {
    CommandError::Failed(format!("cannot write {}: {error}", path.display()))
}

fn write_json(report: &Report, mut file: File) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    file.set_len(0)?;
    file.write_all(text.as_bytes())
}

/// Shows a run while it goes on: a bar for the table being loaded, and a line for each query that has finished.
struct Screen {
    is_terminal: bool,
    loading: Mutex<Option<LoadingTable>>,
    queries: Mutex<Heading>,
}

/// Whether the heading of the table of queries is still to come.
struct Heading {
    is_pending: bool,
}

struct LoadingTable {
    table: Table,
    bar: ProgressBar,
    started: Instant,
    last_line: Instant,
}

impl Screen {
    fn new() -> Screen {
        Screen {
            is_terminal: io::stderr().is_terminal(),
            loading: Mutex::new(None),
            queries: Mutex::new(Heading { is_pending: true }),
        }
    }

    fn start_loading(&self, table: Table, total: u64) -> LoadingTable {
        let target = if self.is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(
            "{prefix:>9} {bar:32.cyan/dim} {human_pos:>11} of {human_len} rows, {per_sec:>14}, {elapsed}",
        )
        .expect("the template is a constant that a test renders");
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style).with_prefix(table.name());
        LoadingTable { table, bar, started: Instant::now(), last_line: Instant::now() }
    }

    /// Ends the bar of a table whose load broke off.
    fn finish_loading(&self) {
        if let Some(finished) = self.loading.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.finish_table(&finished);
        }
    }

    fn finish_table(&self, loading: &LoadingTable) {
        let rows = loading.bar.position();
        if self.is_terminal {
            loading.bar.abandon();
        } else {
            say(&format!("{}: {} rows{}", loading.table, HumanCount(rows), rate(rows, loading.started.elapsed())));
        }
    }
}

impl Observer for Screen {
    fn loading(&self, table: Table, done: u64, total: u64) {
        let mut current = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let loading = match current.take_if(|loading| loading.table != table) {
            None => current.get_or_insert_with(|| self.start_loading(table, total)),
            // Its load broke off, or nobody said that it was done.
            Some(_) => current.insert(self.start_loading(table, total)),
        };
        loading.bar.set_position(done);
        if !self.is_terminal && loading.last_line.elapsed() >= PLAIN_PROGRESS_INTERVAL {
            loading.last_line = Instant::now();
            say(&format!("{table}: {} of {} rows", HumanCount(done), HumanCount(total)));
        }
    }

    fn loaded(&self, table: Table) {
        let mut current = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(finished) = current.take_if(|loading| loading.table == table) {
            self.finish_table(&finished);
        }
    }

    fn query_finished(&self, query: &Query, report: &QueryReport) {
        let mut heading = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = String::new();
        if std::mem::take(&mut heading.is_pending) {
            lines.push_str(&heading_lines());
        }
        lines.push_str(&query_line(query, report));
        // Should nobody read it: the JSON and the exit status are still worth the run.
        let _ = io::stdout().lock().write_all(lines.as_bytes());
    }
}

/// Progress for people goes to standard error; nobody there is no reason to stop.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn heading_lines() -> String {
    format!(
        "\n{:<5}  {:<36} {:>9} {:>11} {:>9}  {}\n{}\n",
        "query",
        "",
        "rows",
        "ms",
        "plan ms",
        "verified",
        "-".repeat(85)
    )
}

/// A query's line: the fastest run, and the planning of the same run.
fn query_line(query: &Query, report: &QueryReport) -> String {
    let best = report.times_ms.iter().zip(&report.plan_ms).min_by(|left, right| left.0.total_cmp(right.0));
    let (total, plan) = match best {
        Some((total, plan)) => (format!("{total:.2}"), format!("{plan:.2}")),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let verdict = match report.verified {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "no reference",
    };
    let name = format!("Q{}", query.number);
    let mut line = format!(
        "{name:<5}  {:<36} {:>9} {total:>11} {plan:>9}  {verdict}\n",
        query.title,
        HumanCount(report.rows).to_string()
    );
    if let Some(failure) = &report.failure {
        line.push_str(&format!("       {failure}\n"));
    }
    line
}

/// What there is to say at the end.
fn summary(report: &Report) -> String {
    let mut text = format!("{}\n", "-".repeat(85));
    let best: Vec<f64> = report.queries.iter().filter_map(QueryReport::best_ms).collect();
    if !best.is_empty() {
        let total: f64 = best.iter().sum();
        // The exponential of the mean logarithm: a product of 22 times may leave the range of a double.
        let mean = (best.iter().map(|time| time.ln()).sum::<f64>() / best.len() as f64).exp();
        add(&mut text, format!("total {total:.1} ms, geometric mean {mean:.2} ms (fastest of each query's runs)"));
    }
    let count = |verdict| report.queries.iter().filter(|query| query.verified == verdict).count();
    let (right, wrong, unknown) = (count(Some(true)), count(Some(false)), count(None));
    let mut verdict = format!("{right} of {} answers verified", report.queries.len());
    if unknown > 0 {
        verdict.push_str(&format!(", {unknown} without a reference at this scale"));
    }
    if wrong > 0 {
        verdict.push_str(&format!(", {wrong} WRONG"));
    }
    add(&mut text, verdict);
    add(&mut text, load_line(&report.load));
    if let Some(bytes) = report.peak_memory_bytes {
        add(&mut text, format!("peak memory {}", HumanBytes(bytes)));
    }
    text
}

fn load_line(load: &LoadReport) -> String {
    let reused = match load.reused_rows {
        0 => String::new(),
        rows => format!("{} rows were there before", HumanCount(rows)),
    };
    match load.rows {
        0 => format!("load: nothing to do, {reused}"),
        rows => {
            let loaded = format!(
                "load: {} rows{}",
                HumanCount(rows),
                rate(rows, Duration::from_secs_f64(load.seconds.max(0.0)))
            );
            if reused.is_empty() { loaded } else { format!("{loaded}; {reused}") }
        }
    }
}

/// " in 1.2 s (3,456 rows/s)".
fn rate(rows: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let per_second = if seconds > 0.0 { (rows as f64 / seconds) as u64 } else { 0 };
    format!(" in {seconds:.1} s ({} rows/s)", HumanCount(per_second))
}

fn add(text: &mut String, line: String) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::{LoadReport, QUERIES, QueryReport, Screen, Table, load_line, query_line, rate};
    use rustydb_tpch::tpch::Observer;
    use std::time::Duration;

    fn query_report(verified: Option<bool>, failure: Option<&str>) -> QueryReport {
        QueryReport {
            query: 1,
            rows: 12_345,
            times_ms: vec![30.0, 20.0],
            plan_ms: vec![1.0, 2.0],
            cpu_ms: vec![1.0, 2.0],
            verified,
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn a_query_shows_its_fastest_run_with_that_runs_planning() {
        let line = query_line(&QUERIES[0], &query_report(Some(true), None));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "Q1");
        assert_eq!(words[words.len() - 4..], ["12,345", "20.00", "2.00", "yes"]);
    }

    #[test]
    fn a_wrong_answer_stands_out_with_its_reason() {
        let line = query_line(&QUERIES[0], &query_report(Some(false), Some("row 1 differs")));
        assert!(line.contains(" NO\n") && line.ends_with("row 1 differs\n"), "{line}");
        assert!(query_line(&QUERIES[0], &query_report(None, None)).contains("no reference"));
    }

    #[test]
    fn the_load_is_told_from_what_was_there() {
        let load = |rows, reused_rows| LoadReport { seconds: 2.0, rows, reused_rows, tables: Vec::new() };
        assert_eq!(load_line(&load(1_000, 0)), "load: 1,000 rows in 2.0 s (500 rows/s)");
        assert_eq!(load_line(&load(0, 1_000)), "load: nothing to do, 1,000 rows were there before");
        assert_eq!(load_line(&load(4, 9)), "load: 4 rows in 2.0 s (2 rows/s); 9 rows were there before");
        assert_eq!(rate(5, Duration::ZERO), " in 0.0 s (0 rows/s)");
    }

    #[test]
    fn a_bar_ends_when_its_table_is_loaded() {
        let screen = Screen::new();
        screen.loading(Table::Region, 0, 5);
        screen.loading(Table::Region, 5, 5);
        screen.loading(Table::Nation, 0, 25);
        let shown = || screen.loading.lock().unwrap().as_ref().map(|loading| loading.table);
        assert_eq!(shown(), Some(Table::Nation));
        screen.loaded(Table::Region);
        assert_eq!(shown(), Some(Table::Nation), "another one's end");
        screen.loaded(Table::Nation);
        assert_eq!(shown(), None, "before the queries begin");
    }
}
