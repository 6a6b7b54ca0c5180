//! The row path: statements of the shape *key = values* as small programs of storage calls.
//!
//! DataFusion takes milliseconds to plan a statement and tens of microseconds to start it. A transaction is some thirty
//! statements that touch one row or a few each, by key. This module compiles such a statement once and runs it without
//! DataFusion, Arrow or another thread:
//!
//! ```text
//!   text ─▶ parse ─▶ route ─▶ DataFusion's analysed plan ─▶ compile ──▶ Program ◀── prepared handle, program cache
//!                                  (first time only)          │ None       │
//!                                                             ▼            ▼  values of the parameters
//!                                                      ordinary path ◀── run: keys ─▶ storage ─▶ rows of Datums
//!                                                                Undecided
//! ```
//!
//! What a statement means is decided in one place only, the ordinary path:
//! * **Compiling** starts from the plan that DataFusion's planner and analyser make of the statement, after coercion and
//!   our checked arithmetic. Types, scales, names and nullability are theirs. Whatever has a shape that
//!   the compiler does not know is not compiled.
//! * **Running** computes only what is plain. An overflow, a NaN, a NULL in a NOT NULL column, a key that is taken, a
//!   parent that is missing: the program changes nothing and ends undecided, and the ordinary path runs the statement and
//!   words the error. So a program makes no error of its own but those of locks and conflicts, which are the store's.
//! * **A range that turns out to be long** (more than [`RANGE_ROWS_MAX`] rows) is a scan's business: also undecided.
//!
//! A program belongs to a catalog, the planner's options and a search path, compared by pointer; parameter types are part
//! of its key. It holds no rows, no view and no session, so all connections share it ([`cache`]).
//!
//! | file | what it does |
//! |---|---|
//! | [`datum`] | single values: to and from DataFusion's scalars, bytes in rows, arrays |
//! | [`expression`] | expressions over single rows; also for the variables of procedures |
//! | [`pipeline`], [`access`], [`aggregate`] | what a query consists of; the ways to rows; sums and the like |
//! | [`compile`], [`program`] | from a routed statement to a program |
//! | [`execute`], [`result`] | running it, and what comes out |
//! | [`describe`] | what EXPLAIN says of it |

mod access;
mod aggregate;
mod cache;
mod compile;
pub(crate) mod datum;
mod describe;
mod execute;
pub(crate) mod expression;
mod pipeline;
mod program;
mod result;

pub use cache::ProgramCacheUsage;
pub(crate) use cache::{Known, ProgramCache, Ready};
pub(crate) use compile::compile;
pub(crate) use datum::array_of;
pub use datum::{Datum, Type};
pub(crate) use execute::{Call, Outcome, Stop};
pub use expression::{Expression, Undecided};
pub(crate) use program::{Origin, Passes, Program, is_of};
pub use result::DataRows;
