//! Running programs.
//!
//! A program reads through a view and changes through a transaction, which the session has opened and ends. It runs on
//! the caller's task and waits only for locks and for parts of segments that are not in memory. Everything that could make
//! it [`Stop::Undecided`], or fail, comes before the first change.

mod access;
mod change;
mod query;

use rustydb_storage::{ReadView, Transaction};

use super::datum::Datum;
use super::expression::{Decided, Inputs, Node, StoredRow, Undecided};
use super::program::{Body, Program};
use crate::Error;

/// A range of more rows is a scan's business: from about here the ordinary path's start-up is won back.
pub(crate) const RANGE_ROWS_MAX: usize = 8192;

/// Why a program did not end well.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nothing was changed; the ordinary path shall run the statement.
    Undecided,
    /// The same, and because a range was long: it is likely to be so again.
    LongRange,
    Failed(Error),
}

impl From<Undecided> for Stop {
    fn from(_: Undecided) -> Self {
        Stop::Undecided
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

impl From<rustydb_storage::Error> for Stop {
    fn from(error: rustydb_storage::Error) -> Self {
        Stop::Failed(error.into())
    }
}

type Run<T> = Result<T, Stop>;

/// What a program did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Rows it found or changed.
    pub(crate) count: u64,
    /// Of queries, and for RETURNING; their columns are the program's.
    pub(crate) rows: Option<Vec<Vec<Datum>>>,
}

/// What a program is run with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) parameters: &'a [Datum],
    /// When the statement began, in microseconds since 1970.
    pub(crate) now: i64,
}

impl Call<'_> {
    fn inputs<'b>(&'b self, rows: &'b [StoredRow<'b>], values: &'b [Datum]) -> Inputs<'b> {
        Inputs { rows, values, parameters: self.parameters, now: self.now }
    }
}

impl Program {
    /// Runs a query that locks nothing.
    pub(crate) async fn read(&self, view: &ReadView, call: Call<'_>) -> Run<Outcome> {
        match &self.body {
            Body::Select(select) => select.run(view, None, call).await,
            _ => Err(Stop::Undecided),
        }
    }

    /// Runs any program inside a transaction.
    pub(crate) async fn run(&self, transaction: &mut Transaction, call: Call<'_>) -> Run<Outcome> {
        match &self.body {
            Body::Select(select) if select.lock.is_some() => {
                let view = transaction.view();
                select.run(&view, Some(transaction), call).await
            }
            Body::Select(select) => select.run(transaction.as_view(), None, call).await,
            Body::Insert(insert) => insert.run(transaction, call).await,
            Body::Update(update) => update.run(transaction, call).await,
            Body::Delete(delete) => delete.run(transaction, call).await,
        }
    }
}

fn fulfils(conditions: &[Node], inputs: &Inputs<'_>) -> Decided<bool> {
    for condition in conditions {
        if condition.truth(inputs)? != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}
