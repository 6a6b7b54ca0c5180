//! CH-benCHmark: analytical queries beside TPC-C-derived transactions, on the same rows at the same time.
//!
//! The transactions run alone first, and then together with the analysts, each for the same time; the difference is what
//! analytics cost them. Freshness is measured: a heartbeat commits the time every few milliseconds, and each query reads it
//! in its own snapshot. So a query knows how old the newest commit was that it could see.

mod driver;
mod places;
mod queries;

pub use driver::{AnalystReport, AnsweredQuery, MixedOptions, MixedReport, run};
pub use queries::{QUERIES, Query};
