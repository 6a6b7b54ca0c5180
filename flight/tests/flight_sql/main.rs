//! The server as a client sees it: arrow-flight's own Flight SQL client against a server in this process, over a real
//! socket. One binary, because each links the whole database.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is a failed test")]

mod abuse;
mod auth;
mod cancel;
mod exchange;
mod ingest;
mod jdbc;
mod metadata;
mod parameters;
mod prepared;
mod protocol;
mod remote_client;
mod robustness;
mod server;
mod session_options;
mod sql_info;
mod statements;
mod support;
mod transactions;
mod types;
