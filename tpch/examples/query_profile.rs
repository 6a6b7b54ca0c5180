//! Runs queries of TPC-H, loading the tables first if they are missing, and prints what they cost: for whoever tunes plans
//! and operators. The processor time hardly depends on what else the machine is doing, unlike the elapsed time.
//!
//! ```text
//! cargo run --release -p rustydb-tpch --example query_profile -- --data DIR [--scale 1] [--queries 1,6] [--runs 5]
//!     [--set NAME=VALUE] [--explain | --analyze]
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use rustydb_engine::{Database, DatabaseOptions, Session, StatementResult};
use rustydb_tpch::tpch::{Observer, QUERIES, Query, ScaleFactor, load, parse_query_list, run_query};

/// The server's allocator, so that profiles look alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: query_profile --data DIR [--scale N] [--queries LIST] [--runs K] [--set NAME=VALUE] [--explain | --analyze]";

struct Arguments {
    data: String,
    scale: ScaleFactor,
    queries: Vec<Query>,
    runs: usize,
    settings: Vec<(String, String)>,
    explain: Option<&'static str>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let run = async { profile(parse_arguments()?).await };
    match Box::pin(run).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("query_profile: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse_arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut parsed = Arguments {
        data: String::new(),
        scale: ScaleFactor::new(1.0)?,
        queries: QUERIES.to_vec(),
        runs: 3,
        settings: Vec::new(),
        explain: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--explain" => parsed.explain = Some("EXPLAIN"),
            "--analyze" => parsed.explain = Some("EXPLAIN ANALYZE"),
            "--data" => parsed.data = arguments.next().ok_or(USAGE)?,
            "--scale" => parsed.scale = arguments.next().ok_or(USAGE)?.parse()?,
            "--queries" => parsed.queries = parse_query_list(&arguments.next().ok_or(USAGE)?)?,
            "--runs" => parsed.runs = arguments.next().ok_or(USAGE)?.parse()?,
            "--set" => {
                let setting = arguments.next().ok_or(USAGE)?;
                let (name, value) = setting.split_once('=').ok_or(USAGE)?;
                parsed.settings.push((name.to_owned(), value.to_owned()));
            }
            _ => return Err(USAGE.into()),
        }
    }
    if parsed.data.is_empty() { Err(USAGE.into()) } else { Ok(parsed) }
}

/// Whether all answers were right.
async fn profile(arguments: Arguments) -> Result<bool, Box<dyn Error>> {
    let database = Database::open(DatabaseOptions::directory(arguments.data)).await?;
    let session = database.connect();
    let observer: Arc<dyn Observer> = Arc::new(());
    Box::pin(load(&session, arguments.scale, std::thread::available_parallelism()?.get(), &observer)).await?;
    for (name, value) in &arguments.settings {
        session.set(name, value).await?;
    }
    let mut right = true;
    println!("query   min ms   cpu ms  plan ms");
    let (mut total, mut total_cpu) = (0.0, 0.0);
    for query in &arguments.queries {
        if let Some(explain) = arguments.explain {
            println!("q{}\n{}", query.number, plan_of(&session, explain, &query.sql(arguments.scale)).await?);
            continue;
        }
        let report = run_query(&session, query, arguments.scale, arguments.runs).await?;
        let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        let (elapsed, cpu) = (least(&report.times_ms), least(&report.cpu_ms));
        (total, total_cpu) = (total + elapsed, total_cpu + cpu);
        let failure = report.failure.unwrap_or_default();
        println!("q{:<4} {elapsed:9.2} {cpu:8.2} {:8.2}  {failure}", query.number, least(&report.plan_ms));
        right &= report.verified != Some(false);
    }
    println!("total {total:9.2} {total_cpu:8.2}");
    database.close().await?;
    Ok(right)
}

async fn plan_of(session: &Session, explain: &str, sql: &str) -> Result<String, Box<dyn Error>> {
    let StatementResult::Rows(rows) = Box::pin(session.execute(&format!("{explain} {sql}"), &[])).await? else {
        return Err("EXPLAIN returned no rows".into());
    };
    let batches = rows.collect().await?;
    Ok(pretty_format_batches(&batches)?.to_string())
}
