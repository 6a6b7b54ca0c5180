//! The order of commits and who still looks at the past.
//!
//! Invariants, asserted on every change because everything above relies on them:
//! `watermark ≤ published ≤ allocated`, each of the three never goes back, and no snapshot is older than the watermark.

use std::collections::BTreeMap;

/// A point in the commit order. 0 is the empty database; the first commit gets 1.
pub type Timestamp = u64;

/// Proof that a snapshot is registered; hand it back to [`Timeline::close_snapshot`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an unreturned snapshot holds the watermark back for ever"]
pub struct SnapshotToken {
    timestamp: Timestamp,
}

impl SnapshotToken {
    /// The newest commit this snapshot sees.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}

/// Commit timestamps and open snapshots of one store.
#[derive(Debug, Default)]
pub struct Timeline {
    allocated: Timestamp,
    published: Timestamp,
    /// Open snapshots: timestamp → how many.
    open: BTreeMap<Timestamp, usize>,
}

impl Timeline {
    /// A timeline that continues after a recovered history whose last commit was `last`.
    pub fn resume(last: Timestamp) -> Self {
        Timeline { allocated: last, published: last, open: BTreeMap::new() }
    }

    /// Gives the next commit its timestamp. It is invisible until it is published.
    pub fn allocate(&mut self) -> Timestamp {
        self.allocated += 1;
        self.allocated
    }

    /// Makes every commit up to `timestamp` visible to snapshots opened from now on. Older calls that arrive late
    /// change nothing.
    pub fn publish(&mut self, timestamp: Timestamp) {
        assert!(timestamp <= self.allocated, "published {timestamp} was never allocated (last: {})", self.allocated);
        self.published = self.published.max(timestamp);
    }

    /// The newest timestamp whose commit, and every one before it, is durable and visible.
    pub fn published(&self) -> Timestamp {
        self.published
    }

    /// The newest timestamp given out.
    pub fn allocated(&self) -> Timestamp {
        self.allocated
    }

    /// Opens a snapshot of everything published so far.
    pub fn open_snapshot(&mut self) -> SnapshotToken {
        *self.open.entry(self.published).or_insert(0) += 1;
        SnapshotToken { timestamp: self.published }
    }

    /// Ends a snapshot; the watermark may move on.
    pub fn close_snapshot(&mut self, token: SnapshotToken) {
        let count = self.open.get_mut(&token.timestamp).expect("a token is made by open_snapshot and consumed here");
        *count -= 1;
        if *count == 0 {
            self.open.remove(&token.timestamp);
        }
    }

    /// The oldest timestamp that is or can still be read: versions superseded at or before it are garbage.
    pub fn watermark(&self) -> Timestamp {
        self.open.keys().next().copied().unwrap_or(self.published)
    }

    /// How many snapshots are open.
    pub fn open_snapshots(&self) -> usize {
        self.open.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_published_commits_only() {
        let mut timeline = Timeline::default();
        let first = timeline.allocate();
        let before = timeline.open_snapshot();
        assert_eq!(before.timestamp(), 0);
        timeline.publish(first);
        let after = timeline.open_snapshot();
        assert_eq!(after.timestamp(), first);
        timeline.close_snapshot(before);
        timeline.close_snapshot(after);
    }

    #[test]
    fn the_watermark_waits_for_the_oldest_snapshot() {
        let mut timeline = Timeline::resume(10);
        let old = timeline.open_snapshot();
        let second = timeline.open_snapshot();
        for _ in 0..5 {
            let timestamp = timeline.allocate();
            timeline.publish(timestamp);
        }
        let young = timeline.open_snapshot();
        assert_eq!(timeline.watermark(), 10);
        timeline.close_snapshot(old);
        assert_eq!(timeline.watermark(), 10, "one of two equal snapshots is still open");
        timeline.close_snapshot(second);
        assert_eq!(timeline.watermark(), 15);
        timeline.close_snapshot(young);
        assert_eq!(timeline.open_snapshots(), 0);
    }

    #[test]
    fn a_late_publication_does_not_turn_time_back() {
        let mut timeline = Timeline::default();
        let first = timeline.allocate();
        let second = timeline.allocate();
        timeline.publish(second);
        timeline.publish(first);
        assert_eq!(timeline.published(), second);
    }

    #[test]
    #[should_panic(expected = "never allocated")]
    fn publishing_the_future_is_a_broken_invariant() {
        Timeline::default().publish(1);
    }
}
