//! Aggregation whose groups are found by address, not by hash.
//!
//! ```text
//!   l_orderkey (1 … 6,000,000)            l_returnflag, l_linestatus
//!        │ - 1                                 │ code 0-31     │ code 0-31
//!        ▼                                     └── r * 32 + s ─┘
//!   slot 0 1 2 3 4 …  (pages of 4096)                ▼
//!        1 0 0 2 3 …  group + 1; 0: none       slot 0 … 1023 ──► group
//! ```
//!
//! Two kinds of keys have few enough possible values to number them: one integer column whose range the statistics bound
//! ([`group_index::IntegerIndex`]: keys of tables, references to them), and a few columns of few values
//! ([`group_index::SmallIndex`]: flags, names, years). DataFusion hashes such keys twice, once per input partition and
//! once more after redistributing them. Here each partition numbers its groups by itself, and the partitions' groups are
//! then merged by the same kind of index. Where keys come in order, partitions see different keys, and there is next to
//! nothing to merge ([`claims`]):
//!
//! ```text
//!   input 0 ─► own groups   ──────────────────────────┬─► evaluate ─┐
//!           └► kept apart   ─┐                        │             │
//!                            ├─► merge ─► hand over ──┼─► evaluate ─┼─► shares, one per output partition
//!           ┌► kept apart   ─┘                        │             │
//!   input 1 ─► own groups   ──────────────────────────┴─► evaluate ─┘
//! ```
//!
//! The accumulators are DataFusion's own ([`GroupsAccumulator`](datafusion::logical_expr::GroupsAccumulator)), so every
//! aggregate function means the same here as there.
//!
//! * **Statistics may be stale**: keys outside the expected range or number go to a hash table beside the slots. That is
//!   slower, never wrong.
//! * **Memory** is reserved before the first row is read, for what statistics make likely. If that fails the operator runs
//!   DataFusion's aggregation instead, which spills. Later growth is accounted batch by batch.

mod claims;
mod exec;
mod group_index;

pub(crate) use exec::{DirectAggregateExec, KeyDomain};
pub(crate) use group_index::ColumnDomain;

#[cfg(test)]
mod tests;
