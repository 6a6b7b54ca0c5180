//! What a run found, as the JSON that `rustydb tpcc --json` writes.
//!
//! Scripts read these fields, so a field that is here keeps its name and its unit; new ones may be added.

use serde::Serialize;

use super::consistency::Violation;
use super::driver::Options;
use super::executor::Mode;
use super::histogram::Histogram;
use super::input::Kind;
use super::load::{LoadReport, Loaded};
use super::{Durability, Isolation};

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Always `"tpcc"`.
    pub benchmark: &'static str,
    /// RustyDB's version.
    pub version: &'static str,
    /// The database: `"embedded"`, or a server's address.
    pub target: String,
    /// The warehouses.
    pub warehouses: i32,
    /// What their rows are divided by; anything but 1 is a test, and no TPC-C.
    pub reduction: i32,
    /// Terminals, each running one transaction after the other without think time.
    pub terminals: usize,
    /// How transactions came to the database.
    pub mode: Mode,
    /// When they were acknowledged.
    pub durability: Durability,
    /// What they saw.
    pub isolation: Isolation,
    /// The seed of the inputs.
    pub seed: u64,
    /// The load, or what was found in its place.
    pub load: LoadReport,
    /// What the transactions did; `null` if only the conditions were checked.
    #[serde(flatten)]
    pub measured: Option<Measured>,
    /// Whether Ctrl-C ended it early.
    pub interrupted: bool,
    /// The conditions.
    pub consistency: ConsistencyReport,
}

impl Report {
    /// Whether all conditions hold, as far as they were asked.
    pub fn is_consistent(&self) -> bool {
        self.consistency.violations.is_empty()
    }

    pub(super) fn new(
        target: String,
        loaded: Loaded,
        options: &Options,
        load: LoadReport,
        consistency: ConsistencyReport,
    ) -> Self {
        Report {
            benchmark: "tpcc",
            version: env!("CARGO_PKG_VERSION"),
            target,
            warehouses: loaded.scale.warehouses,
            reduction: loaded.scale.reduction,
            terminals: options.terminals,
            mode: options.mode,
            durability: options.durability,
            isolation: options.isolation,
            seed: options.seed,
            load,
            measured: None,
            interrupted: false,
            consistency,
        }
    }
}

/// What the transactions did while they were measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// How long it was measured.
    pub seconds: f64,
    /// Committed transactions of all five kinds per second.
    pub tps: f64,
    /// Committed New-Order transactions per minute: what TPC-C calls tpmC, without its think times and rules of audit.
    pub tpmc_equivalent: f64,
    /// By kind.
    pub transactions: Transactions,
}

/// The kinds of transactions.
#[derive(Debug, Clone, Serialize)]
pub struct Transactions {
    /// Orders entered.
    pub new_order: KindReport,
    /// Payments taken.
    pub payment: KindReport,
    /// Orders asked about.
    pub order_status: KindReport,
    /// Orders delivered, ten at a time.
    pub delivery: KindReport,
    /// Stock levels asked for.
    pub stock_level: KindReport,
}

impl Transactions {
    /// With their kinds.
    pub fn all(&self) -> [(Kind, &KindReport); 5] {
        [
            (Kind::NewOrder, &self.new_order),
            (Kind::Payment, &self.payment),
            (Kind::OrderStatus, &self.order_status),
            (Kind::Delivery, &self.delivery),
            (Kind::StockLevel, &self.stock_level),
        ]
    }
}

/// What transactions of one kind did.
#[derive(Debug, Clone, Serialize)]
pub struct KindReport {
    /// Committed.
    pub count: u64,
    /// Rolled back: as their input wants it (one New-Order of a hundred), or given up after too many retries.
    pub aborts: u64,
    /// Of those, the ones that were given up.
    pub given_up: u64,
    /// How often one was run again because another one was first.
    pub retries: u64,
    /// From the first attempt to the acknowledged commit.
    pub latency_ms: LatencyReport,
}

/// Latencies in milliseconds; `null` where nothing was committed.
#[derive(Debug, Clone, Serialize)]
pub struct LatencyReport {
    /// The mean.
    pub mean: Option<f64>,
    /// Half are not longer.
    pub p50: Option<f64>,
    /// 95 of 100 are not longer.
    pub p95: Option<f64>,
    /// 99 of 100 are not longer.
    pub p99: Option<f64>,
    /// 999 of 1,000 are not longer.
    #[serde(rename = "p99.9")]
    pub p999: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

impl From<&Histogram> for LatencyReport {
    fn from(histogram: &Histogram) -> Self {
        LatencyReport {
            mean: histogram.mean_ms(),
            p50: histogram.percentile_ms(50.0),
            p95: histogram.percentile_ms(95.0),
            p99: histogram.percentile_ms(99.0),
            p999: histogram.percentile_ms(99.9),
            max: histogram.max_ms(),
        }
    }
}

/// The consistency conditions.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConsistencyReport {
    /// The conditions that were asked.
    pub checked: Vec<u8>,
    /// Those that do not hold.
    pub violations: Vec<Violation>,
    /// How long asking took.
    pub seconds: f64,
}
