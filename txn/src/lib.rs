//! Concurrency control as a pure state machine.
//!
//! This crate decides; it never waits, reads a clock, allocates a thread or touches a file. `storage` calls it under
//! its own locks and carries out what it says. That is what makes the rules testable one call at a time.
//!
//! The protocol is snapshot isolation by commit timestamps (Berenson et al., "A Critique of ANSI SQL Isolation
//! Levels", 1995):
//!
//! * A transaction reads the newest versions whose commit timestamp is at most its **snapshot**, the newest
//!   timestamp that was *published* when it began ([`Timeline::open_snapshot`]).
//! * A commit is **allocated** a timestamp, logged, **applied**, and **published** once it is in place and the log is
//!   durable. Timestamps are published in order, so a published timestamp stands for a complete prefix of history.
//! * Of two concurrent transactions that write one key, the first to commit wins ([`judge_write`]).
//! * Writers **lock** the rows they write, in PostgreSQL's modes, so that they wait for each other instead of losing at
//!   their commit; circles of waiting transactions are found ([`LockTable`], [`find_cycle`]).
//! * Serializable transactions remember what they read; a commit that could make history unserializable fails
//!   ([`Serializability`]).
//! * The **watermark** ([`Timeline::watermark`]) is the oldest timestamp that anybody may still read at; versions that
//!   are hidden from it are garbage.
//!
//! ```text
//!        watermark              published          allocated
//! ───────────┼──────────────────────┼──────────────────┼────────▶ time
//!  garbage   │  may still be read   │ logged, not yet  │
//!            │  by open snapshots   │ durable: unseen  │
//! ```

mod conflict;
mod isolation;
mod locks;
mod serializable;
mod timeline;

pub use conflict::{Expectation, Verdict, VersionState, judge_write};
pub use isolation::Isolation;
pub use locks::{Answer, LockMode, LockTable, Owner, Patience, Resource, find_cycle};
pub use serializable::{Candidate, Failure, KeyRange, ReadSet, Safety, Serializability, Ticket, WriteSet};
pub use timeline::{SnapshotToken, Timeline, Timestamp};
