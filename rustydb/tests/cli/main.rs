//! The `rustydb` binary as its users meet it: every test runs the real program as a process of its own.
//!
//! One test binary with a module per subject, because linking is the slow part.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files has failed")]

mod check;
mod crash;
mod help;
mod prompt;
mod races;
mod serve;
mod sql;
mod support;
mod tpcc;
mod tpch;
mod upgrade;
