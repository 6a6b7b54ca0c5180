//! What a run found, as the JSON that `rustydb tpch --json` writes.
//!
//! Scripts and later measurements read these fields, so a field that is here keeps its name and its unit; new ones may
//! be added. Times are milliseconds where the name ends in `_ms`, seconds where it ends in `seconds`.

use serde::Serialize;

use super::scale::ScaleFactor;
use super::schema::Table;

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Always `"tpch"`.
    pub benchmark: &'static str,
    /// The scale factor.
    pub scale: ScaleFactor,
    /// What ran.
    pub versions: Versions,
    /// The threads that a query was spread over, where the database tells.
    pub threads: Option<usize>,
    /// The load, or what was found in its place.
    pub load: LoadReport,
    /// The queries, in the order in which they ran.
    pub queries: Vec<QueryReport>,
    /// The process's peak resident memory, where the system tells (Linux).
    pub peak_memory_bytes: Option<u64>,
}

impl Report {
    /// Whether every query ran and every answer that could be checked was right. Only false makes a run fail: at a scale
    /// without reference answers there is nothing to find wrong.
    pub fn verified(&self) -> bool {
        self.queries.iter().all(|query| query.verified != Some(false))
    }
}

/// The versions that a figure belongs to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Versions {
    /// RustyDB's.
    pub rustydb: &'static str,
    /// The data generator's.
    pub tpchgen: &'static str,
    /// The engine that made the reference answers.
    pub reference: &'static str,
}

impl Versions {
    /// The versions of this build.
    pub const CURRENT: Self = Self { rustydb: env!("CARGO_PKG_VERSION"), tpchgen: "4.0.0", reference: "DuckDB 2.0.0" };
}

/// How the tables came to be there.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// Time in which the tables that were not there before were generated and loaded, the two going on side by side. What
    /// the generator needs to start (a second or so, once) is not counted.
    pub seconds: f64,
    /// Rows that were loaded.
    pub rows: u64,
    /// Rows that an earlier load had left and that were kept.
    pub reused_rows: u64,
    /// The tables, in load order.
    pub tables: Vec<TableLoadReport>,
}

/// How one table came to be there.
#[derive(Debug, Clone, Serialize)]
pub struct TableLoadReport {
    /// The table.
    pub table: Table,
    /// Its rows.
    pub rows: u64,
    /// The time that generating and loading it took; 0 if it was reused.
    pub seconds: f64,
    /// Whether it was there before.
    pub reused: bool,
}

/// What one query did.
#[derive(Debug, Clone, Serialize)]
pub struct QueryReport {
    /// Its number.
    pub query: u8,
    /// The rows of its answer.
    pub rows: u64,
    /// Each run's time from the statement's text to the last row, planning included.
    pub times_ms: Vec<f64>,
    /// The part of each of those times that planning took.
    pub plan_ms: Vec<f64>,
    /// The processor time of all the process's threads during each run, where the system tells (Linux).
    pub cpu_ms: Vec<f64>,
    /// Whether the answers of all runs were right; null when there is no reference at this scale.
    pub verified: Option<bool>,
    /// What was wrong: the first difference from the reference answer, or the error that ended the query.
    pub failure: Option<String>,
}

impl QueryReport {
    /// The fastest run, if the query ran at all.
    pub fn best_ms(&self) -> Option<f64> {
        self.times_ms.iter().copied().min_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[Option<bool>]) -> Report {
        let query = |(verified, query): (&Option<bool>, u8)| QueryReport {
            query,
            rows: 4,
            times_ms: vec![12.5, 11.25],
            plan_ms: vec![1.5, 0.5],
            cpu_ms: vec![3.0, 2.5],
            verified: *verified,
            failure: None,
        };
        Report {
            benchmark: "tpch",
            scale: "0.01".parse().expect("a valid scale"),
            versions: Versions::CURRENT,
            threads: Some(2),
            load: LoadReport {
                seconds: 0.5,
                rows: 5,
                reused_rows: 0,
                tables: vec![TableLoadReport { table: Table::Region, rows: 5, seconds: 0.5, reused: false }],
            },
            queries: verdicts.iter().zip(1..).map(query).collect(),
            peak_memory_bytes: None,
        }
    }

    #[test]
    fn one_wrong_answer_fails_the_run_and_an_unknown_one_does_not() {
        assert!(report(&[Some(true), None]).verified());
        assert!(!report(&[Some(true), Some(false), None]).verified());
    }

    #[test]
    fn the_fields_that_scripts_read_keep_their_names() {
        let json = serde_json::to_value(report(&[Some(true), None])).expect("serializable");
        assert_eq!(json["scale"], 0.01);
        assert_eq!(json["load"]["seconds"], 0.5);
        assert_eq!(json["load"]["tables"][0]["table"], "region");
        assert_eq!(json["queries"][0]["times_ms"][1], 11.25);
        assert_eq!(json["queries"][0]["plan_ms"][0], 1.5);
        assert_eq!(json["queries"][0]["verified"], true);
        assert!(json["queries"][1]["verified"].is_null() && json["peak_memory_bytes"].is_null());
        assert_eq!(json["versions"]["rustydb"], env!("CARGO_PKG_VERSION"));
    }
}
