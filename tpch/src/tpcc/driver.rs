//! Runs TPC-C: terminals side by side, each one transaction after the other without think time, for a given time; then the
//! consistency conditions.
//!
//! A latency is what a terminal waits, from the first attempt to the acknowledged commit, retries included. Only what ends
//! between the warm-up and the end is counted, and the rate is what committed in that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::client::{Client, Connection, Failure};
use super::consistency::{CONDITIONS, Condition};
use super::executor::{Executor, Mode, Outcome};
use super::histogram::Histogram;
use super::input::{Kind, Terminal};
use super::load::{LoadReport, Loaded, Wanted, find_complete, load};
use super::report::{ConsistencyReport, KindReport, LatencyReport, Measured, Report, Transactions};
use super::scale::Constants;
use super::schema::{PROCEDURES, Table};
use super::{Durability, Isolation};
use crate::error::{Error, Result};

/// Warehouses of a new database for which nobody gave a number.
pub const DEFAULT_WAREHOUSES: i32 = 10;

/// How often a watcher hears how a run goes.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Warehouses; `None`: as many as the database has, or [`DEFAULT_WAREHOUSES`].
    pub warehouses: Option<i32>,
    /// What the rows of a warehouse are divided by, for tests; `None`: what the database has, or 1.
    pub reduction: Option<i32>,
    /// How many terminals run transactions.
    pub terminals: usize,
    /// How long they are measured.
    pub duration: Duration,
    /// How long they run before that.
    pub warm_up: Duration,
    /// How transactions come to the database.
    pub mode: Mode,
    /// When they are acknowledged.
    pub durability: Durability,
    /// What they see.
    pub isolation: Isolation,
    /// The seed of the inputs, and of the rows of a new database.
    pub seed: u64,
    /// Threads that make rows for a load.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            warehouses: None,
            reduction: None,
            terminals: 16,
            duration: Duration::from_secs(30),
            warm_up: Duration::from_secs(5),
            mode: Mode::Procedure,
            durability: Durability::Sync,
            isolation: Isolation::Snapshot,
            seed: 1,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Options {
    /// What each session sets: PostgreSQL's names, which RustyDB understands, too.
    pub fn settings(&self) -> String {
        let synchronous = match self.durability {
            Durability::Sync => "on",
            Durability::Async => "off",
        };
        let isolation = match self.isolation {
            Isolation::ReadCommitted => "read committed",
            Isolation::Snapshot => "repeatable read",
            Isolation::Serializable => "serializable",
        };
        format!("SET synchronous_commit = {synchronous}; SET default_transaction_isolation = '{isolation}';")
    }
}

/// Asks a run to end early. Clones ask the same run.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    requested: AtomicBool,
    waiting: Notify,
}

impl Stop {
    /// Asks.
    pub fn request(&self) {
        self.0.requested.store(true, Ordering::SeqCst);
        self.0.waiting.notify_waiters();
    }

    /// Whether somebody has asked.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// Waits until somebody asks.
    pub async fn requested(&self) {
        // Listening begins before the question, so that nobody asks in between.
        let asked = self.0.waiting.notified();
        if !self.is_requested() {
            asked.await;
        }
    }
}

/// How a run goes.
#[derive(Debug, Clone, Copy)]
pub struct RunProgress {
    /// Since the first transaction, warm-up included.
    pub elapsed: Duration,
    /// How long it will take in all.
    pub total: Duration,
    /// Transactions that have ended so far.
    pub transactions: u64,
}

/// Somebody who watches.
pub trait Observer: Send + Sync + 'static {
    /// `done` of `total` rows of `table` have been handed to the database. Called for every batch, first with 0.
    fn loading(&self, table: Table, done: u64, total: u64) {
        let _ = (table, done, total);
    }

    /// `table` is there with all its rows.
    fn loaded(&self, table: Table) {
        let _ = table;
    }

    /// Indexes and foreign keys are being added.
    fn adding_keys(&self) {}

    /// Transactions run; called a few times per second.
    fn running(&self, progress: RunProgress) {
        let _ = progress;
    }

    /// They have ended.
    fn ran(&self) {}

    /// A condition is about to be checked.
    fn checking(&self, condition: &Condition) {
        let _ = condition;
    }
}

/// Watches nothing.
impl Observer for () {}

/// Loads what is missing, runs transactions, checks the conditions, and reports. `target` names the database.
pub async fn run<C: Client>(
    client: &C,
    target: &str,
    options: &Options,
    observer: Arc<dyn Observer>,
    stop: &Stop,
) -> Result<Report> {
    let (loaded, load) = prepare(client, options, &observer, stop).await?;
    let measured = run_transactions(client, loaded, options, &observer, stop).await?;
    let interrupted = stop.is_requested();
    let consistency = check(client, loaded, &observer).await?;
    let report = Report::new(target.to_owned(), loaded, options, load, consistency);
    Ok(Report { measured: Some(measured), interrupted, ..report })
}

/// Checks the conditions of what is there, and changes nothing.
pub async fn check_only<C: Client>(
    client: &C,
    target: &str,
    options: &Options,
    observer: Arc<dyn Observer>,
) -> Result<Report> {
    let loaded = find_complete(client).await?;
    let consistency = check(client, loaded, &observer).await?;
    let load = LoadReport { seconds: 0.0, rows: 0, reused: true };
    Ok(Report::new(target.to_owned(), loaded, options, load, consistency))
}

/// Brings the rows and the procedures into the database.
pub async fn prepare<C: Client>(
    client: &C,
    options: &Options,
    observer: &Arc<dyn Observer>,
    stop: &Stop,
) -> Result<(Loaded, LoadReport)> {
    let wanted = Wanted {
        warehouses: options.warehouses,
        default_warehouses: DEFAULT_WAREHOUSES,
        reduction: options.reduction,
        seed: options.seed,
        threads: options.threads,
    };
    let found = load(client, wanted, observer, stop).await?;
    if options.mode == Mode::Procedure {
        // Again at each start, so that the database has the ones of this release.
        client.connect().await?.script(PROCEDURES).await?;
    }
    Ok(found)
}

/// Runs transactions on what is there, as long as `options` say.
pub async fn run_transactions<C: Client>(
    client: &C,
    loaded: Loaded,
    options: &Options,
    observer: &Arc<dyn Observer>,
    stop: &Stop,
) -> Result<Measured> {
    let constants = Constants::new(loaded.seed, options.seed);
    let mut executors = Vec::with_capacity(options.terminals);
    for _ in 0..options.terminals {
        executors.push(Executor::connect(client, options.mode).await?);
    }
    let started = Instant::now();
    let clock = Clock { from: started + options.warm_up, until: started + options.warm_up + options.duration };
    let counted = Arc::new(AtomicU64::new(0));
    let mut terminals = Vec::with_capacity(options.terminals);
    for (number, executor) in executors.into_iter().enumerate() {
        let terminal = Terminal::new(loaded.scale, constants, options.seed, number, options.terminals);
        let task = run_terminal(executor, terminal, clock, Arc::clone(&counted), stop.clone());
        terminals.push(tokio::spawn(task));
    }
    let watch = watch(Arc::clone(observer), Arc::clone(&counted), started, clock);
    let (tally, ended) = collect(terminals, stop).await?;
    watch.abort();
    observer.ran();
    // A run that was interrupted was measured until then.
    let seconds = ended.min(clock.until).saturating_duration_since(clock.from).as_secs_f64();
    Ok(tally.report(seconds))
}

/// When transactions count.
#[derive(Debug, Clone, Copy)]
struct Clock {
    from: Instant,
    until: Instant,
}

async fn run_terminal<C: Connection>(
    mut executor: Executor<C>,
    mut terminal: Terminal,
    clock: Clock,
    counted: Arc<AtomicU64>,
    stop: Stop,
) -> std::result::Result<Tally, (Kind, Failure)> {
    let mut tally = Tally::default();
    let mut started = Instant::now();
    while started < clock.until && !stop.is_requested() {
        let input = terminal.next_input();
        let kind = input.kind();
        let ended = executor.run(&input, terminal.random()).await;
        let (outcome, retries) = match ended {
            Ok(ended) => ended,
            Err(failure) => {
                // The other terminals need not go on.
                stop.request();
                return Err((kind, failure));
            }
        };
        let now = Instant::now();
        if now >= clock.from && now <= clock.until {
            tally.count(kind, outcome, retries, now.duration_since(started));
        }
        counted.fetch_add(1, Ordering::Relaxed);
        // Where nothing had to be waited for, the other terminals of this thread get their turn here.
        tokio::task::yield_now().await;
        started = Instant::now();
    }
    Ok(tally)
}

/// Waits for all terminals; the first failure is the run's.
async fn collect(
    terminals: Vec<JoinHandle<std::result::Result<Tally, (Kind, Failure)>>>,
    stop: &Stop,
) -> Result<(Tally, Instant)> {
    let mut all = Tally::default();
    let mut failed = None;
    for ended in join_all(terminals).await {
        match ended {
            Ok(Ok(tally)) => all.merge(&tally),
            Ok(Err((kind, failure))) => failed = failed.or(Some(Error::Transaction { kind: kind.name(), failure })),
            Err(panicked) => {
                stop.request();
                let failure = Failure::unexpected(panicked.to_string());
                failed = failed.or(Some(Error::Transaction { kind: "unknown", failure }));
            }
        }
    }
    failed.map_or(Ok((all, Instant::now())), Err)
}

fn watch(observer: Arc<dyn Observer>, counted: Arc<AtomicU64>, started: Instant, clock: Clock) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PROGRESS_INTERVAL).await;
            observer.running(RunProgress {
                elapsed: started.elapsed(),
                total: clock.until.duration_since(started),
                transactions: counted.load(Ordering::Relaxed),
            });
        }
    })
}

/// Checks all conditions.
pub async fn check<C: Client>(client: &C, loaded: Loaded, observer: &Arc<dyn Observer>) -> Result<ConsistencyReport> {
    let started = Instant::now();
    let mut connection = client.connect().await?;
    let mut report = ConsistencyReport::default();
    for condition in &CONDITIONS {
        observer.checking(condition);
        report.violations.extend(condition.check(&mut connection, loaded.scale).await?);
        report.checked.push(condition.number);
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// What a terminal counts.
#[derive(Default)]
struct Tally {
    kinds: [KindTally; 5],
}

#[derive(Default)]
struct KindTally {
    latencies: Histogram,
    rolled_back: u64,
    given_up: u64,
    retries: u64,
}

impl Tally {
    fn count(&mut self, kind: Kind, outcome: Outcome, retries: u32, latency: Duration) {
        let tally = &mut self.kinds[kind as usize];
        tally.retries += u64::from(retries);
        match outcome {
            Outcome::Committed => tally.latencies.record(latency),
            Outcome::RolledBack => tally.rolled_back += 1,
            Outcome::GivenUp => tally.given_up += 1,
        }
    }

    fn merge(&mut self, other: &Tally) {
        for (own, others) in self.kinds.iter_mut().zip(&other.kinds) {
            own.latencies.merge(&others.latencies);
            own.rolled_back += others.rolled_back;
            own.given_up += others.given_up;
            own.retries += others.retries;
        }
    }

    fn report(&self, seconds: f64) -> Measured {
        let kind = |kind: Kind| {
            let tally = &self.kinds[kind as usize];
            KindReport {
                count: tally.latencies.count(),
                aborts: tally.rolled_back + tally.given_up,
                given_up: tally.given_up,
                retries: tally.retries,
                latency_ms: LatencyReport::from(&tally.latencies),
            }
        };
        let committed: u64 = self.kinds.iter().map(|tally| tally.latencies.count()).sum();
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let new_orders = self.kinds[Kind::NewOrder as usize].latencies.count();
        Measured {
            seconds,
            tps: per_second(committed),
            tpmc_equivalent: per_second(new_orders) * 60.0,
            transactions: Transactions {
                new_order: kind(Kind::NewOrder),
                payment: kind(Kind::Payment),
                order_status: kind(Kind::OrderStatus),
                delivery: kind(Kind::Delivery),
                stock_level: kind(Kind::StockLevel),
            },
        }
    }
}
