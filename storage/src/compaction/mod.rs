//! Compaction: few, full, sorted segments without dead rows.
//!
//! Flushes leave small segments whose key ranges overlap, and updates leave dead rows in old ones. Both make reads
//! slower: a scan reads the dead, a look-up asks every segment whose range has the key. Compaction merges segments of
//! one table into new ones in key order, at most a million rows each, and lets the inputs go.
//!
//! ```text
//!  1 choose    which segments ([`choose`]: size tiers, dead rows, overlap)
//!  2 merge     rows alive at a moment T ─▶ new segment files        (commits and reads go on)
//!  3 manifest  the newest one, with the outputs in the place of the inputs
//!  4 install   deletes since T are re-mapped, the version changes    (commit lock, microseconds)
//! ```
//! Why nothing is lost:
//! * A row that is deleted while 2 runs is marked in its *input*, as always. Step 4 runs under the lock that commits
//!   take, and carries every mark made since T over to the output, through the map from old to new rows.
//! * The manifest stays at the moment M the last flush wrote it for, and the log goes on from there. Inputs are only
//!   segments which that manifest lists, so the log knows of their rows by key alone. A row that died between M and T
//!   is in no output; replaying its delete finds nothing, which is what it wants. A row that dies later is found in the
//!   output. The deletes up to M that came after T are in the manifest's delete sets of the outputs.
//! * A delete that made a row dead at T is durable before the manifest is written, or else a crash would lose the row
//!   and keep no delete.
//! * Readers with older snapshots hold the old version, and so the inputs, until they end; the files go with them.
//!
//! Merging is *vertical*: first the order of the rows is computed from the keys alone, then each output is built column by
//! column, so that memory is bounded by one column of the inputs and one output.

mod choose;
mod merge;

pub(crate) use choose::{INPUT_ROWS_MAX, Shape, choose};
pub(crate) use merge::{Merged, merge};
