//! Runs transactions alone, then transactions and analysts together, and compares.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::Serialize;
use tokio::task::JoinHandle;

use super::places;
use super::queries::{QUERIES, Query};
use crate::error::{Error, Result};
use crate::tpcc::{
    self, Client, Connection, ConsistencyReport, Durability, Failure, Histogram, Isolation, LatencyReport, LoadReport,
    Loaded, Measured, Mode, Observer, Options, Parameter, Random, Rows, Stop,
};

/// How often the heartbeat commits: freshness is measured no finer.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(5);

/// What to run.
#[derive(Debug, Clone)]
pub struct MixedOptions {
    /// The transactions; they run alone for `duration`, and then with the analysts for as long again.
    pub transactions: Options,
    /// Clients that ask one query after the other.
    pub analysts: usize,
}

/// What a run found.
#[derive(Debug, Clone, Serialize)]
pub struct MixedReport {
    /// Always `"chbench"`.
    pub benchmark: &'static str,
    /// RustyDB's version.
    pub version: &'static str,
    /// The database: `"embedded"`, or a server's address.
    pub target: String,
    /// The warehouses.
    pub warehouses: i32,
    /// What their rows are divided by; anything but 1 is a test.
    pub reduction: i32,
    /// Terminals that run transactions.
    pub terminals: usize,
    /// Clients that ask queries.
    pub analysts: usize,
    /// How transactions came to the database.
    pub mode: Mode,
    /// When they were acknowledged.
    pub durability: Durability,
    /// What they saw.
    pub isolation: Isolation,
    /// The seed.
    pub seed: u64,
    /// The load of TPC-C's tables.
    pub load: LoadReport,
    /// The transactions without analysts.
    pub alone: Measured,
    /// The transactions beside the analysts.
    pub together: Measured,
    /// How much of their rate transactions lost to the analysts, in percent.
    pub transactions_lost_percent: f64,
    /// What the analysts did meanwhile.
    pub analytics: AnalystReport,
    /// Whether Ctrl-C ended it early.
    pub interrupted: bool,
    /// TPC-C's conditions, at the end.
    pub consistency: ConsistencyReport,
}

impl MixedReport {
    /// Whether all conditions hold.
    pub fn is_consistent(&self) -> bool {
        self.consistency.violations.is_empty()
    }
}

/// What the analysts did.
#[derive(Debug, Clone, Serialize)]
pub struct AnalystReport {
    /// Queries that were answered per hour.
    pub queries_per_hour: f64,
    /// Queries that were answered.
    pub count: u64,
    /// How long they took.
    pub latency_ms: LatencyReport,
    /// How old the newest commit was that a query saw, when it began.
    pub freshness_ms: LatencyReport,
    /// How old it was when the answer was there.
    pub answer_age_ms: LatencyReport,
    /// By query.
    pub queries: Vec<AnsweredQuery>,
}

/// One of the 22.
#[derive(Debug, Clone, Serialize)]
pub struct AnsweredQuery {
    /// Its number.
    pub query: u8,
    /// How often it was answered.
    pub count: u64,
    /// How long it took, from its snapshot to its last row.
    pub latency_ms: LatencyReport,
}

/// Loads what is missing, runs transactions alone and beside analysts, checks the conditions, and reports.
pub async fn run<C: Client>(
    client: &Arc<C>,
    target: &str,
    options: &MixedOptions,
    observer: Arc<dyn Observer>,
    stop: &Stop,
) -> Result<MixedReport> {
    let transactions = &options.transactions;
    let (loaded, load) = tpcc::prepare(client.as_ref(), transactions, &observer, stop).await?;
    places::load(client.as_ref(), loaded.seed).await?;
    let alone = tpcc::run_transactions(client.as_ref(), loaded, transactions, &observer, stop).await?;
    let (together, analytics) = run_together(client, loaded, options, &observer, stop).await?;
    let interrupted = stop.is_requested();
    let consistency = tpcc::check(client.as_ref(), loaded, &observer).await?;
    let lost = if alone.tps > 0.0 { 100.0 * (1.0 - together.tps / alone.tps) } else { 0.0 };
    Ok(MixedReport {
        benchmark: "chbench",
        version: env!("CARGO_PKG_VERSION"),
        target: target.to_owned(),
        warehouses: loaded.scale.warehouses,
        reduction: loaded.scale.reduction,
        terminals: transactions.terminals,
        analysts: options.analysts,
        mode: transactions.mode,
        durability: transactions.durability,
        isolation: transactions.isolation,
        seed: transactions.seed,
        load,
        alone,
        together,
        transactions_lost_percent: lost,
        analytics,
        interrupted,
        consistency,
    })
}

async fn run_together<C: Client>(
    client: &Arc<C>,
    loaded: Loaded,
    options: &MixedOptions,
    observer: &Arc<dyn Observer>,
    stop: &Stop,
) -> Result<(Measured, AnalystReport)> {
    // Ends with the transactions, while `stop` ends everything.
    let ended = Stop::default();
    let heart = tokio::spawn(beat(client.connect().await?, ended.clone()));
    let started = Instant::now();
    let mut analysts: Vec<JoinHandle<std::result::Result<Answers, Failure>>> = Vec::new();
    for number in 0..options.analysts {
        let random = Random::of(&[options.transactions.seed, 0xA7, number as u64]);
        let from = started + options.transactions.warm_up;
        let task = ask(client.connect().await?, random, from, ended.clone(), stop.clone());
        analysts.push(tokio::spawn(task));
    }
    let measured = tpcc::run_transactions(client.as_ref(), loaded, &options.transactions, observer, stop).await;
    ended.request();
    let seconds = started.elapsed().saturating_sub(options.transactions.warm_up).as_secs_f64();
    let mut all = Answers::default();
    let mut failed = None;
    for answers in join_all(analysts).await {
        match answers.unwrap_or_else(|panicked| Err(Failure::unexpected(panicked.to_string()))) {
            Ok(answers) => all.merge(&answers),
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    let beaten = heart.await.unwrap_or_else(|panicked| Err(Failure::unexpected(panicked.to_string())));
    let measured = measured?;
    if let Some(failure) = failed.or(beaten.err()) {
        return Err(Error::from(failure));
    }
    Ok((measured, all.report(seconds)))
}

/// Commits the time, again and again.
async fn beat<C: Connection>(mut connection: C, ended: Stop) -> std::result::Result<(), Failure> {
    let statement = connection.prepare("UPDATE chbench_heartbeat SET at_us = $1 WHERE id = 1").await?;
    while !ended.is_requested() {
        let now = now_us();
        connection.execute(&statement, &[Parameter::Long(now)]).await?;
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    }
    Ok(())
}

/// Asks the 22 queries in random order, and again in another one, until the transactions have ended.
async fn ask<C: Connection>(
    mut connection: C,
    mut random: Random,
    from: Instant,
    ended: Stop,
    stop: Stop,
) -> std::result::Result<Answers, Failure> {
    let heartbeat = connection.prepare("SELECT at_us FROM chbench_heartbeat WHERE id = 1").await?;
    let mut answers = Answers::default();
    loop {
        for place in random.permutation(QUERIES.len() as i32) {
            if ended.is_requested() || stop.is_requested() {
                return Ok(answers);
            }
            let query = &QUERIES[place as usize - 1];
            let started = Instant::now();
            connection.begin().await?;
            let seen = connection.query(&heartbeat, &[]).await?;
            let seen_us = seen.integer(0, 0)?.ok_or_else(|| Failure::unexpected("the heartbeat is NULL"))?;
            let age_at_start = age(seen_us);
            // What is not answered in time does not count, and nobody waits for it.
            tokio::select! {
                answered = connection.drain(query.sql) => answered?,
                () = ended.requested() => return Ok(answers),
                () = stop.requested() => return Ok(answers),
            };
            let (age_at_end, latency) = (age(seen_us), started.elapsed());
            connection.commit().await?;
            // The first ones may have begun before there was a heartbeat.
            if started >= from && seen_us > 0 {
                answers.count(query, latency, age_at_start, age_at_end);
            }
        }
    }
}

fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn age(seen_us: i64) -> Duration {
    Duration::from_micros((now_us() - seen_us).max(0).unsigned_abs())
}

/// What an analyst counts.
#[derive(Default)]
struct Answers {
    all: Histogram,
    freshness: Histogram,
    ages: Histogram,
    queries: Vec<(u8, Histogram)>,
}

impl Answers {
    fn count(&mut self, query: &Query, latency: Duration, at_start: Duration, at_end: Duration) {
        self.all.record(latency);
        self.freshness.record(at_start);
        self.ages.record(at_end);
        self.of(query.number).record(latency);
    }

    fn of(&mut self, query: u8) -> &mut Histogram {
        let place = self.queries.iter().position(|(number, _)| *number == query).unwrap_or_else(|| {
            self.queries.push((query, Histogram::default()));
            self.queries.len() - 1
        });
        &mut self.queries[place].1
    }

    fn merge(&mut self, other: &Answers) {
        self.all.merge(&other.all);
        self.freshness.merge(&other.freshness);
        self.ages.merge(&other.ages);
        for (number, histogram) in &other.queries {
            self.of(*number).merge(histogram);
        }
    }

    fn report(mut self, seconds: f64) -> AnalystReport {
        self.queries.sort_by_key(|(number, _)| *number);
        let answered = |(query, histogram): &(u8, Histogram)| AnsweredQuery {
            query: *query,
            count: histogram.count(),
            latency_ms: LatencyReport::from(histogram),
        };
        AnalystReport {
            queries_per_hour: if seconds > 0.0 { self.all.count() as f64 * 3_600.0 / seconds } else { 0.0 },
            count: self.all.count(),
            latency_ms: LatencyReport::from(&self.all),
            freshness_ms: LatencyReport::from(&self.freshness),
            answer_age_ms: LatencyReport::from(&self.ages),
            queries: self.queries.iter().map(answered).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows the time of the heartbeat, and answers no query, ever.
    struct Silent;

    impl Rows for Silent {
        fn count(&self) -> usize {
            1
        }

        fn integer(&self, _: usize, _: usize) -> std::result::Result<Option<i64>, Failure> {
            Ok(Some(now_us()))
        }

        fn decimal(&self, _: usize, _: usize, _: u8) -> std::result::Result<Option<i64>, Failure> {
            Ok(None)
        }

        fn text(&self, _: usize, _: usize, _: &mut String) -> std::result::Result<bool, Failure> {
            Ok(false)
        }
    }

    impl Connection for Silent {
        type Statement = ();
        type Rows = Silent;

        async fn prepare(&mut self, _: &str) -> std::result::Result<(), Failure> {
            Ok(())
        }

        async fn query(&mut self, _: &(), _: &[Parameter<'_>]) -> std::result::Result<Silent, Failure> {
            Ok(Silent)
        }

        async fn execute(&mut self, _: &(), _: &[Parameter<'_>]) -> std::result::Result<u64, Failure> {
            Ok(0)
        }

        async fn begin(&mut self) -> std::result::Result<(), Failure> {
            Ok(())
        }

        async fn commit(&mut self) -> std::result::Result<(), Failure> {
            Ok(())
        }

        async fn roll_back(&mut self) -> std::result::Result<(), Failure> {
            Ok(())
        }

        async fn script(&mut self, _: &str) -> std::result::Result<(), Failure> {
            Ok(())
        }

        async fn drain(&mut self, _: &str) -> std::result::Result<u64, Failure> {
            std::future::pending().await
        }

        async fn texts(&mut self, _: &str) -> std::result::Result<Vec<Vec<Option<String>>>, Failure> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_query_under_way_ends_with_the_transactions_and_with_the_run() {
        for ends_all in [false, true] {
            let (ended, stop) = (Stop::default(), Stop::default());
            let asking = ask(Silent, Random::of(&[1]), Instant::now(), ended.clone(), stop.clone());
            let mut asking = Box::pin(asking);
            assert!(futures::poll!(asking.as_mut()).is_pending(), "the query is under way");
            if ends_all {
                stop.request()
            } else {
                ended.request()
            }
            let answers = asking.await.expect("no failure");
            assert_eq!(answers.all.count(), 0, "what was not answered is not counted");
        }
    }
}
