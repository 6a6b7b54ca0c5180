//! Which rows of a segment are gone, and since when.
//!
//! A base bitmap of the rows that every open snapshot sees as deleted, and a short list of younger deletes with their
//! commit timestamps. A scan asks once for the bitmap of its snapshot; a segment without deletes costs it nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roaring::RoaringBitmap;
use rustydb_txn::Timestamp;

use crate::sync::RwLock;

/// Young deletes are folded into the base when there are this many, if the watermark allows.
const FOLD_THRESHOLD: usize = 1024;

#[derive(Debug, Default)]
struct State {
    base: Arc<RoaringBitmap>,
    /// In order of their timestamps.
    recent: Vec<(Timestamp, u32)>,
    /// The same by row, for look-ups.
    recent_rows: HashMap<u32, Timestamp>,
}

/// The versioned delete set of one segment.
#[derive(Debug, Default)]
pub(crate) struct DeleteSet {
    state: RwLock<State>,
    any: AtomicBool,
}

impl DeleteSet {
    /// A set whose `rows` were deleted before any snapshot that can be open.
    pub(crate) fn with_base(rows: RoaringBitmap) -> Self {
        let any = AtomicBool::new(!rows.is_empty());
        DeleteSet { state: RwLock::new(State { base: Arc::new(rows), ..State::default() }), any }
    }

    /// Records the delete of a row. Commits come in any order, but none at or before the watermark.
    pub(crate) fn add(&self, row: u32, timestamp: Timestamp, watermark: Timestamp) {
        let mut state = self.state.write();
        let younger = state.recent.iter().rev().take_while(|(other, _)| *other > timestamp).count();
        let place = state.recent.len() - younger;
        state.recent.insert(place, (timestamp, row));
        state.recent_rows.insert(row, timestamp);
        self.any.store(true, Ordering::Release);
        if state.recent.len().is_multiple_of(FOLD_THRESHOLD) {
            let settled = state.recent.partition_point(|(timestamp, _)| *timestamp <= watermark);
            let rows: Vec<u32> = state.recent.drain(..settled).map(|(_, row)| row).collect();
            state.recent_rows.retain(|_, deleted| *deleted > watermark);
            Arc::make_mut(&mut state.base).extend(rows);
        }
    }

    /// Whether the row is deleted for a reader at `timestamp`.
    pub(crate) fn contains(&self, row: u32, timestamp: Timestamp) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let state = self.state.read();
        state.base.contains(row) || state.recent_rows.get(&row).is_some_and(|deleted| *deleted <= timestamp)
    }

    /// The rows deleted for a reader at `timestamp`; `None` if there are none.
    pub(crate) fn at(&self, timestamp: Timestamp) -> Option<Arc<RoaringBitmap>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let state = self.state.read();
        let settled = state.recent.partition_point(|(deleted, _)| *deleted <= timestamp);
        let mut rows = Arc::clone(&state.base);
        if settled > 0 {
            Arc::make_mut(&mut rows).extend(state.recent[..settled].iter().map(|(_, row)| *row));
        }
        (!rows.is_empty()).then_some(rows)
    }

    /// The deletes that are not in `known`, in order of their timestamps; those that every snapshot sees have `settled`.
    pub(crate) fn since(&self, known: &RoaringBitmap, settled: Timestamp) -> Vec<(Timestamp, u32)> {
        let state = self.state.read();
        let base = (&*state.base - known).into_iter().map(|row| (settled, row));
        let recent = state.recent.iter().filter(|(_, row)| !known.contains(*row)).copied();
        base.chain(recent).collect()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let state = self.state.read();
        state.base.serialized_size() + state.recent.capacity() * 2 * size_of::<(Timestamp, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_is_seen_from_its_timestamp_on() {
        let deletes = DeleteSet::with_base([3].into_iter().collect());
        deletes.add(7, 10, 0);
        deletes.add(8, 12, 0);
        assert!(deletes.contains(3, 0));
        assert!(!deletes.contains(7, 9) && deletes.contains(7, 10));
        let rows: Vec<u32> = deletes.at(11).unwrap().iter().collect();
        assert_eq!(rows, [3, 7]);
        assert!(DeleteSet::default().at(u64::MAX).is_none());
    }

    #[test]
    fn commits_may_report_their_deletes_in_any_order() {
        let deletes = DeleteSet::default();
        for timestamp in [12, 10, 13, 11] {
            deletes.add(timestamp as u32, timestamp, 9);
        }
        for seen in 9..14 {
            let rows: Vec<u32> = deletes.at(seen).iter().flat_map(|rows| rows.iter()).collect();
            assert_eq!(rows, (10..=seen as u32).collect::<Vec<_>>());
        }
        assert_eq!(deletes.since(&RoaringBitmap::new(), 9), [(10, 10), (11, 11), (12, 12), (13, 13)]);
    }

    #[test]
    fn deletes_since_a_moment_are_listed_in_commit_order() {
        let deletes = DeleteSet::with_base([3, 5].into_iter().collect());
        deletes.add(7, 10, 0);
        let known = deletes.at(10).unwrap();
        deletes.add(9, 12, 0);
        deletes.add(8, 12, 0);
        assert_eq!(deletes.since(&known, 10), [(12, 9), (12, 8)]);
        assert_eq!(deletes.since(&[5].into_iter().collect(), 10), [(10, 3), (10, 7), (12, 9), (12, 8)]);
    }

    #[test]
    fn folding_respects_the_watermark() {
        let deletes = DeleteSet::default();
        let last = FOLD_THRESHOLD as u64;
        for timestamp in 1..=last {
            deletes.add(timestamp as u32, timestamp, 500);
        }
        assert!(deletes.contains(500, 500));
        assert!(!deletes.contains(501, 500), "a snapshot at 500 still sees row 501");
        assert_eq!(deletes.at(last).unwrap().len(), last);
        assert_eq!(deletes.at(600).unwrap().len(), 600);
    }
}
