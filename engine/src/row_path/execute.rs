//! Running programs.
//!
//! A program reads through a view and changes through a transaction, which the session has opened and ends. It is a plain
//! function that waits for nothing: nearly always all it needs is in memory, and nobody else has the locks. Where that is
//! not so it stops at what it would have to wait for ([`Stop::Waits`]):
//!
//! ```text
//!   run_at_once ─┬─▶ done, undecided, failed ◀──────────────┐
//!                └─▶ Waits(obstacle) ─▶ overcome ─▶ run_at_once, from the beginning
//!                          ▲                             │
//!                          └────── the next obstacle ────┘
//! ```
//! Everything that could make it [`Stop::Undecided`], wait, or fail comes before the first change, so one that has not ended
//! well has changed nothing, and running it again does the same again: its view has not moved, `now` is what it was, and
//! expressions give the same for the same. The locks it has got stay, and asking for them again costs nothing. A table
//! without a primary key loses a row number or two. What it must not do is to try for ever: where memory is too short for
//! what it needs, the ordinary path, which needs nothing to stay, runs the statement ([`Tries`]).

mod access;
mod change;
mod query;

use rustydb_storage::{Blocked, Obstacle, ReadView, Transaction, Tries};

use super::datum::Datum;
use super::expression::{Decided, Inputs, Node, StoredRow, Undecided};
use super::program::{Body, Program};
use crate::Error;

/// A range of more rows is a scan's business: from about here the ordinary path's start-up is won back.
pub(crate) const RANGE_ROWS_MAX: usize = 8192;

/// Rows, and keys without one, that a query of several tables may look at: nobody can stop it on the way, so it has to be over
/// within some ten milliseconds. One of more is an operator's business.
pub(crate) const LOOKS_MAX: usize = 2 * RANGE_ROWS_MAX;

/// Why a program did not end well.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nothing was changed; the ordinary path shall run the statement.
    Undecided,
    /// The same, and because a range was long: it is likely to be so again.
    LongRange,
    /// Nothing was changed, and it has to be waited for this.
    Waits(Obstacle),
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

impl From<Blocked> for Stop {
    fn from(blocked: Blocked) -> Self {
        match blocked {
            Blocked::Waits(obstacle) => Stop::Waits(obstacle),
            Blocked::Failed(error) => error.into(),
        }
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
    /// Rows it has looked at, which is what it has cost.
    pub(crate) looks: usize,
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
    /// Runs a query that locks nothing, if nothing stands in the way.
    pub(crate) fn read_at_once(&self, view: &ReadView, call: Call<'_>) -> Run<Outcome> {
        match &self.body {
            Body::Select(select) => select.run(view, None, call),
            _ => Err(Stop::Undecided),
        }
    }

    /// Runs any program inside a transaction, if nothing stands in the way.
    pub(crate) fn run_at_once(&self, transaction: &mut Transaction, call: Call<'_>) -> Run<Outcome> {
        match &self.body {
            Body::Select(select) if select.lock.is_some() => {
                let view = transaction.view();
                select.run(&view, Some(transaction), call)
            }
            Body::Select(select) => select.run(transaction.as_view(), None, call),
            Body::Insert(insert) => insert.run(transaction, call),
            Body::Update(update) => update.run(transaction, call),
            Body::Delete(delete) => delete.run(transaction, call),
        }
    }

    /// As [`read_at_once`](Self::read_at_once), waiting for what stands in the way. The future is small: what waits is in a
    /// box.
    pub(crate) async fn read(&self, view: &ReadView, call: Call<'_>) -> Run<Outcome> {
        match self.read_at_once(view, call) {
            Err(Stop::Waits(first)) => self.read_after(first, view, call).await,
            ended => ended,
        }
    }

    /// The same when it has met the first obstacle already.
    pub(crate) async fn read_after(&self, first: Obstacle, view: &ReadView, call: Call<'_>) -> Run<Outcome> {
        Box::pin(overcome(first, Tries::new(view), || self.read_at_once(view, call))).await
    }

    /// As [`run_at_once`](Self::run_at_once), waiting for what stands in the way. The future is small: what waits is in a box.
    pub(crate) async fn run(&self, transaction: &mut Transaction, call: Call<'_>) -> Run<Outcome> {
        match self.run_at_once(transaction, call) {
            Err(Stop::Waits(first)) => self.run_after(first, transaction, call).await,
            ended => ended,
        }
    }

    /// The same when it has met the first obstacle already.
    pub(crate) async fn run_after(
        &self,
        first: Obstacle,
        transaction: &mut Transaction,
        call: Call<'_>,
    ) -> Run<Outcome> {
        let tries = Tries::new(transaction.as_view());
        Box::pin(overcome(first, tries, || self.run_at_once(transaction, call))).await
    }
}

/// Tries again after each obstacle.
async fn overcome(mut obstacle: Obstacle, mut tries: Tries, mut attempt: impl FnMut() -> Run<Outcome>) -> Run<Outcome> {
    while tries.overcome(obstacle).await? {
        match attempt() {
            Err(Stop::Waits(next)) => obstacle = next,
            ended => return ended,
        }
    }
    Err(Stop::Undecided)
}

fn fulfils(conditions: &[Node], inputs: &Inputs<'_>) -> Decided<bool> {
    for condition in conditions {
        if condition.truth(inputs)? != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}
