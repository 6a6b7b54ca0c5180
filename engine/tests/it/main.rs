//! The engine from the outside: an embedded database, SQL in, rows and errors out. One binary, because each costs a link
//! against all of DataFusion.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, with the error in its message")]

mod copy;
mod ddl;
mod dml;
mod early_aggregate;
mod errors;
mod explain;
mod foreign_keys;
mod group_once;
mod helpers;
mod information_schema;
mod ingest;
mod isolation;
mod join_order;
mod limits;
mod obstacles;
mod plan_cache;
mod prepared;
mod queries;
mod readers;
mod row_expressions;
mod row_path;
mod savepoints;
mod scans;
mod session;
mod storage;
mod transactions;
