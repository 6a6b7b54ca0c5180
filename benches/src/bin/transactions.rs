//! TPC-C-derived transactions on RustyDB, PostgreSQL and SQLite: the same rows, inputs and mix, in turns, in one run.
//!
//! PostgreSQL runs the same procedures as RustyDB, in a server that this command starts and stops. Every engine commits
//! durably. In each round all engines run once with each number of terminals, the one that goes first changing from round to
//! round, so that a noisy minute of a shared machine hits all. At the end the consistency conditions are checked everywhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rustydb_benches::peers::postgres::Postgres;
use rustydb_benches::peers::postgres_server::PostgresServer;
use rustydb_benches::peers::sqlite::Sqlite;
use rustydb_engine::{Database, DatabaseOptions};
use rustydb_tpch::tpcc::{self, Client, Embedded, Isolation, Loaded, Measured, Mode, Observer, Options, Stop, Table};
use serde::Serialize;

/// The allocator of the `rustydb` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Transactions on RustyDB beside PostgreSQL and SQLite, in one run
///
/// Needs PostgreSQL's server programs (apt-get install postgresql); as root it runs them as the user "postgres". Build with
/// --release. Ratios are RustyDB's rate divided by the peer's.
#[derive(Parser)]
struct Arguments {
    /// Warehouses
    #[arg(long, default_value_t = 10)]
    warehouses: i32,

    /// Numbers of terminals
    #[arg(long, value_delimiter = ',', default_value = "1,8,16")]
    terminals: Vec<usize>,

    /// Measured seconds per engine, number of terminals and round
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Seconds before that
    #[arg(long, default_value_t = 3)]
    warmup: u64,

    /// How often the engines take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Of rustydb (procedures), rustydb-statement, postgresql (procedures), postgresql-statement, sqlite (statements)
    #[arg(long, value_delimiter = ',', default_value = "rustydb,postgresql,rustydb-statement,sqlite")]
    peers: Vec<String>,

    /// The isolation of PostgreSQL's transactions; READ COMMITTED, its default, spares it retries, and TPC-C allows it
    #[arg(long, default_value = "read-committed", value_parser = ["read-committed", "snapshot"])]
    postgres_isolation: String,

    /// Divides items, customers and orders: for tests, no TPC-C
    #[arg(long, hide = true, default_value_t = 1)]
    reduction: i32,

    /// Directory for the stores, emptied first; PostgreSQL's user must be able to reach it [default: in the system's
    /// directory for temporary files]
    #[arg(long)]
    work: Option<PathBuf>,

    /// File to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// An engine with its rows loaded.
struct Engine<C> {
    name: String,
    client: C,
    mode: Mode,
    isolation: Isolation,
    loaded: Loaded,
}

enum AnyEngine {
    RustyDb(Engine<Embedded>),
    Postgres(Engine<Postgres>),
    Sqlite(Engine<Sqlite>),
}

/// What is written to the JSON file.
#[derive(Serialize)]
struct Figures {
    warehouses: i32,
    seconds: u64,
    rounds: usize,
    postgres: Option<PostgresFigures>,
    /// By number of terminals, then by engine.
    results: BTreeMap<usize, BTreeMap<String, EngineFigures>>,
    /// RustyDB's rate (procedures beside procedures, statements beside statements) divided by the peer's.
    ratios: BTreeMap<usize, BTreeMap<String, f64>>,
    /// Conditions that do not hold, by engine.
    violations: BTreeMap<String, Vec<u8>>,
}

#[derive(Serialize)]
struct PostgresFigures {
    version: String,
    isolation: String,
    settings: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct EngineFigures {
    tps_median: f64,
    tps: Vec<f64>,
    runs: Vec<Measured>,
}

/// Says on standard error what is being loaded.
struct Progress(String);

impl Observer for Progress {
    fn loaded(&self, table: Table) {
        eprintln!("{}: {table} loaded", self.0);
    }
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(8 << 20).build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Outcome<()> {
    let work = arguments.work.clone().unwrap_or_else(|| std::env::temp_dir().join("rustydb-transactions"));
    if work.exists() {
        std::fs::remove_dir_all(&work)?;
    }
    std::fs::create_dir_all(&work)?;
    let wants = |name: &str| arguments.peers.iter().any(|peer| peer.starts_with(name));
    let server = if wants("postgresql") { Some(PostgresServer::start(&work.join("postgres"))?) } else { None };
    let database = if wants("rustydb") { Some(rustydb_database(&work).await?) } else { None };
    let mut engines = Vec::new();
    for name in &arguments.peers {
        engines.push(open(name, &arguments, &work, server.as_ref(), database.as_ref()).await?);
    }

    let mut runs: BTreeMap<usize, BTreeMap<String, Vec<Measured>>> = BTreeMap::new();
    for round in 0..arguments.rounds {
        for terminals in &arguments.terminals {
            let first = round % engines.len();
            for engine in engines[first..].iter().chain(&engines[..first]) {
                let measured = engine.measure(&arguments, *terminals, round as u64).await?;
                eprintln!("round {}, {terminals} terminals: {} {:.0} tps", round + 1, engine.name(), measured.tps);
                runs.entry(*terminals).or_default().entry(engine.name().to_owned()).or_default().push(measured);
            }
        }
    }
    let mut violations = BTreeMap::new();
    for engine in &engines {
        violations.insert(engine.name().to_owned(), engine.violations().await?);
    }
    let figures = figures(&arguments, server.as_ref(), runs, violations);
    print!("{}", table(&figures));
    if let Some(path) = &arguments.json {
        serde_json::to_writer_pretty(File::create(path)?, &figures)?;
    }
    if let Some(database) = database {
        database.close().await?;
    }
    drop(server);
    let is_consistent = figures.violations.values().all(Vec::is_empty);
    if is_consistent { Ok(()) } else { Err("a consistency condition does not hold".into()) }
}

/// RustyDB with the languages of procedures.
async fn rustydb_database(work: &std::path::Path) -> rustydb_engine::Result<Database> {
    let options = DatabaseOptions::directory(work.join("rustydb"));
    Database::open(DatabaseOptions { languages: rustydb_udf::languages(), ..options }).await
}

async fn open(
    name: &str,
    arguments: &Arguments,
    work: &std::path::Path,
    server: Option<&PostgresServer>,
    database: Option<&Database>,
) -> Outcome<AnyEngine> {
    let mode = if name == "sqlite" || name.ends_with("-statement") { Mode::Statement } else { Mode::Procedure };
    let moves = match name.starts_with("postgresql") {
        true => arguments.postgres_isolation == "read-committed",
        false => mode == Mode::Statement,
    };
    let isolation = if moves { Isolation::ReadCommitted } else { Isolation::Snapshot };
    let options = Options {
        warehouses: Some(arguments.warehouses),
        reduction: Some(arguments.reduction),
        mode,
        isolation,
        ..Options::default()
    };
    let settings = options.settings();
    let name = name.to_owned();
    match (name.split('-').next(), server, database) {
        (Some("rustydb"), _, Some(database)) => {
            let client = Embedded::new(database.clone(), settings);
            Engine::load(name, client, options).await.map(AnyEngine::RustyDb)
        }
        (Some("postgresql"), Some(server), _) => {
            let client = Postgres::new(server.socket(), &settings);
            let engine = Engine::load(name, client, options).await?;
            // As after any large load.
            let mut connection = engine.client.connect().await?;
            tpcc::Connection::script(&mut connection, "VACUUM ANALYZE").await?;
            tpcc::Connection::script(&mut connection, "CHECKPOINT").await?;
            Ok(AnyEngine::Postgres(engine))
        }
        (Some("sqlite"), ..) => {
            Engine::load(name, Sqlite::new(work.join("sqlite.db")), options).await.map(AnyEngine::Sqlite)
        }
        _ => Err(format!("no such engine: {name}").into()),
    }
}

impl<C: Client> Engine<C> {
    async fn load(name: String, client: C, options: Options) -> Outcome<Engine<C>> {
        let observer: Arc<dyn Observer> = Arc::new(Progress(name.clone()));
        let (loaded, report) = tpcc::prepare(&client, &options, &observer, &Stop::default()).await?;
        eprintln!("{name}: {} rows in {:.1} s", report.rows, report.seconds);
        Ok(Engine { name, client, mode: options.mode, isolation: options.isolation, loaded })
    }

    async fn measure(&self, arguments: &Arguments, terminals: usize, round: u64) -> Outcome<Measured> {
        let options = Options {
            terminals,
            duration: Duration::from_secs(arguments.seconds),
            warm_up: Duration::from_secs(arguments.warmup),
            mode: self.mode,
            isolation: self.isolation,
            // The same inputs for all engines, others in each round.
            seed: 1_000 + round,
            ..Options::default()
        };
        let observer: Arc<dyn Observer> = Arc::new(());
        Ok(tpcc::run_transactions(&self.client, self.loaded, &options, &observer, &Stop::default()).await?)
    }

    async fn violations(&self) -> Outcome<Vec<u8>> {
        let observer: Arc<dyn Observer> = Arc::new(());
        let report = tpcc::check(&self.client, self.loaded, &observer).await?;
        for violation in &report.violations {
            eprintln!("{}: condition {} does not hold: {:?}", self.name, violation.condition, violation.first_rows);
        }
        Ok(report.violations.iter().map(|violation| violation.condition).collect())
    }
}

impl AnyEngine {
    fn name(&self) -> &str {
        match self {
            AnyEngine::RustyDb(engine) => &engine.name,
            AnyEngine::Postgres(engine) => &engine.name,
            AnyEngine::Sqlite(engine) => &engine.name,
        }
    }

    async fn measure(&self, arguments: &Arguments, terminals: usize, round: u64) -> Outcome<Measured> {
        match self {
            AnyEngine::RustyDb(engine) => engine.measure(arguments, terminals, round).await,
            AnyEngine::Postgres(engine) => engine.measure(arguments, terminals, round).await,
            AnyEngine::Sqlite(engine) => engine.measure(arguments, terminals, round).await,
        }
    }

    async fn violations(&self) -> Outcome<Vec<u8>> {
        match self {
            AnyEngine::RustyDb(engine) => engine.violations().await,
            AnyEngine::Postgres(engine) => engine.violations().await,
            AnyEngine::Sqlite(engine) => engine.violations().await,
        }
    }
}

fn figures(
    arguments: &Arguments,
    server: Option<&PostgresServer>,
    runs: BTreeMap<usize, BTreeMap<String, Vec<Measured>>>,
    violations: BTreeMap<String, Vec<u8>>,
) -> Figures {
    let mut results: BTreeMap<usize, BTreeMap<String, EngineFigures>> = BTreeMap::new();
    for (terminals, engines) in runs {
        for (name, runs) in engines {
            let tps: Vec<f64> = runs.iter().map(|run| run.tps).collect();
            let figures = EngineFigures { tps_median: median(&tps), tps, runs };
            results.entry(terminals).or_default().insert(name, figures);
        }
    }
    let mut ratios: BTreeMap<usize, BTreeMap<String, f64>> = BTreeMap::new();
    for (terminals, engines) in &results {
        for (name, peer) in engines.iter().filter(|(name, _)| !name.starts_with("rustydb")) {
            let own = if name == "postgresql" { "rustydb" } else { "rustydb-statement" };
            if let Some(own) = engines.get(own).filter(|_| peer.tps_median > 0.0) {
                ratios.entry(*terminals).or_default().insert(name.clone(), own.tps_median / peer.tps_median);
            }
        }
    }
    let postgres = server.map(|server| PostgresFigures {
        version: server.version(),
        isolation: arguments.postgres_isolation.clone(),
        settings: server.settings().into_iter().collect(),
    });
    let Arguments { warehouses, seconds, rounds, .. } = *arguments;
    Figures { warehouses, seconds, rounds, postgres, results, ratios, violations }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

/// What people read (Markdown); a ratio above 1 means that RustyDB is faster.
fn table(figures: &Figures) -> String {
    let mut text =
        "| terminals | engine | tps (median) | New-Order p50 ms | p99 ms | RustyDB is faster by |\n".to_owned();
    text.push_str("|---:|---|---:|---:|---:|---:|\n");
    for (terminals, engines) in &figures.results {
        for (name, engine) in engines {
            let latencies = |percentile: fn(&Measured) -> Option<f64>| {
                median(&engine.runs.iter().filter_map(percentile).collect::<Vec<_>>())
            };
            let p50 = latencies(|run| run.transactions.new_order.latency_ms.p50);
            let p99 = latencies(|run| run.transactions.new_order.latency_ms.p99);
            let ratio = figures.ratios.get(terminals).and_then(|ratios| ratios.get(name));
            let ratio = ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x"));
            text.push_str(&format!(
                "| {terminals} | {name} | {:.0} | {p50:.3} | {p99:.3} | {ratio} |\n",
                engine.tps_median
            ));
        }
    }
    for (name, violations) in &figures.violations {
        if !violations.is_empty() {
            text.push_str(&format!("\n{name}: conditions {violations:?} do NOT hold\n"));
        }
    }
    text
}
