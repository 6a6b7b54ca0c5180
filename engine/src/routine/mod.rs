//! Functions and procedures of users: what the engine does for them, whatever language they are written in.
//!
//! ```text
//!   CREATE FUNCTION ─▶ ddl::routine ─▶ catalog object (RoutineDefinition)
//!   CALL, SELECT f() ─▶ Routines (by name, per catalog) ─▶ Routine ─▶ Program ◀── compiled by a Language (crate `udf`)
//!                                                                       │ run
//!   DataFusion ◀─ CompiledStatement ◀─┐                                 ▼
//!              ◀─ CompiledExpression ◀┴── Execution: the transaction, savepoints, limits, messages
//! ```
//! The engine knows no language. A [`Language`] turns the text of a body into a [`Program`], whose pieces of SQL are
//! parsed at once ([`SqlExpression`], [`SqlStatement`]) and have their names looked up when they first run, against the
//! catalog of that moment ([`Variables`]). A program that runs is given an [`Execution`].
//!
//! | file | what it does |
//! |---|---|
//! | [`language`] | the traits, and what a language is told of a routine |
//! | [`definition`], [`registry`] | what the catalog keeps; finding the routine that a call means |
//! | [`call`] | CALL as a statement of its own |
//! | [`fragment`], [`names`] | pieces of SQL, and which of their names are variables |
//! | [`expression`], [`statement`] | those pieces compiled: for the row path where it can, else for DataFusion |
//! | [`execution`] | running them in the transaction of who called |
//! | [`function`] | routines in queries over rows |
//! | [`types`] | types of variables, and assignment |

mod call;
pub(crate) mod definition;
pub(crate) mod execution;
pub(crate) mod expression;
mod fragment;
pub(crate) mod function;
mod language;
mod names;
pub(crate) mod registry;
pub(crate) mod statement;
pub(crate) mod types;

pub use crate::row_path::Datum;
pub use execution::{Clock, Execution, Names, Ran, RanAtOnce};
pub use expression::CompiledExpression;
pub use fragment::{SqlExpression, SqlStatement};
pub use language::{Language, Mode, Notice, Outcome, Parameter, Program, Returns, Severity, Source};
pub use names::{Variable, Variables};
pub use rustydb_storage::Mark;
pub use statement::{CompiledStatement, Rows};
pub use types::{Shape, SqlType};

pub(crate) use call::CompiledCall;
pub(crate) use fragment::rowless_items;
pub(crate) use names::InputTypes;
