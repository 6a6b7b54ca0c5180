//! Benchmark workloads: what is loaded, what is run, and how we know that the answer is right.
//!
//! A workload is a folder of its own: [`tpch`] asks, [`tpcc`] changes. Each brings its schema, its generator, its statements
//! and a driver that runs them through a [`rustydb_engine::Session`] like any other client: nothing in the engine knows
//! that these workloads exist, and nothing here reaches below the engine's public interface.
//!
//! A benchmark that does not check its answers measures how fast a database can be wrong. So this crate also holds what
//! every workload shares for checking: [`Reference`], an answer of an independent engine kept as a CSV file with types,
//! and [`verify`], which compares a result with it, cell by cell, decimals digit by digit.
//!
//! Reading order: `tpch/schema.rs` (the eight tables), `tpch/generate.rs` (rows, in key order, on several threads),
//! `tpch/load.rs` (what is already there is kept, what was interrupted is done again), `tpch/queries.rs`,
//! `reference.rs`, `verify.rs`, `tpch/driver.rs` (times and verdicts), `tpch/report.rs` (the JSON contract). Then
//! `tpcc/input.rs` (what terminals ask for), `tpcc/statements.rs` and `tpcc/sql/procedures.sql` (what that means in SQL),
//! `tpcc/client.rs` (what a database must be able to do), `tpcc/driver.rs`, `tpcc/consistency.rs` (what must hold).

pub mod chbench;
mod error;
mod reference;
pub mod tpcc;
pub mod tpch;
mod verify;

pub use error::{Error, Result};
pub use reference::{Cell, ColumnType, Number, Reference, ReferenceColumn};
pub use verify::{Mismatch, verify};
