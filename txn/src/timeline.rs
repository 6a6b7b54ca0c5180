//! The order of commits and who still looks at the past.
//!
//! ```text
//!     watermark      published        applied           allocated
//!  ───────┼──────────────┼───────────────┼──────────────────┼────▶ time
//!         │ open snapshots│ all in place, │ being put in place│
//!         │               │ not yet durable│ by several commits│
//! ```
//! Commits are put in place in any order and become durable in theirs. A commit is published when it and every one before
//! it is in place, and durable if it asked to be: whoever reports the last missing piece publishes all that was waiting
//! for it. So no commit depends on its own client to become visible.
//!
//! Invariants, asserted on every change because everything above relies on them:
//! `watermark ≤ published ≤ applied ≤ allocated`, none of them ever goes back, and no snapshot is older than the
//! watermark.

use std::collections::VecDeque;

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

/// A commit that is not published yet.
#[derive(Debug, Clone, Copy)]
struct Unpublished {
    applied: bool,
    /// Published only when it is durable.
    awaits_disk: bool,
}

/// Commit timestamps and open snapshots of one store.
#[derive(Debug, Default)]
pub struct Timeline {
    published: Timestamp,
    /// The commits after `published`, in order.
    unpublished: VecDeque<Unpublished>,
    /// Every commit up to here is in place.
    applied: Timestamp,
    /// Every commit up to here is durable.
    durable: Timestamp,
    /// Open snapshots, oldest first: timestamp and how many. Those in the middle may be 0.
    open: VecDeque<(Timestamp, usize)>,
}

impl Timeline {
    /// A timeline that continues after a recovered history whose last commit was `last`.
    pub fn resume(last: Timestamp) -> Self {
        Timeline { published: last, applied: last, durable: last, ..Timeline::default() }
    }

    /// Gives the next commit its timestamp. It is invisible until it, and every one before it, is in place, and durable
    /// if it `awaits_disk`.
    pub fn allocate(&mut self, awaits_disk: bool) -> Timestamp {
        self.unpublished.push_back(Unpublished { applied: false, awaits_disk });
        self.allocated()
    }

    /// Reports that all of a commit is in place. Returns whether that has published anything.
    pub fn apply(&mut self, timestamp: Timestamp) -> bool {
        let commit = self.place(timestamp).and_then(|place| self.unpublished.get_mut(place));
        let commit = commit.expect("a commit is reported once, after it was allocated a timestamp");
        assert!(!commit.applied, "commit {timestamp} was put in place twice");
        commit.applied = true;
        let next = (self.applied - self.published) as usize;
        self.applied += self.unpublished.range(next..).take_while(|commit| commit.applied).count() as u64;
        self.publish()
    }

    /// Reports that every commit up to `timestamp` is durable. Returns whether that has published anything.
    pub fn make_durable(&mut self, timestamp: Timestamp) -> bool {
        assert!(timestamp <= self.allocated(), "durable {timestamp} was never allocated");
        self.durable = self.durable.max(timestamp);
        self.publish()
    }

    fn publish(&mut self) -> bool {
        let before = self.published;
        while let Some(next) = self.unpublished.front()
            && next.applied
            && (!next.awaits_disk || self.published < self.durable)
        {
            self.unpublished.pop_front();
            self.published += 1;
        }
        self.published > before
    }

    fn place(&self, timestamp: Timestamp) -> Option<usize> {
        timestamp.checked_sub(self.published + 1).map(|place| place as usize)
    }

    /// The newest timestamp whose commit, and every one before it, is visible.
    pub fn published(&self) -> Timestamp {
        self.published
    }

    /// The newest timestamp whose commit, and every one before it, is in place.
    pub fn applied(&self) -> Timestamp {
        self.applied
    }

    /// The newest timestamp given out.
    pub fn allocated(&self) -> Timestamp {
        self.published + self.unpublished.len() as u64
    }

    /// Opens a snapshot of everything published so far.
    pub fn open_snapshot(&mut self) -> SnapshotToken {
        self.open_at(self.published)
    }

    /// Opens a snapshot of everything in place so far, durable or not. Whoever reads from it must not report anything as
    /// done before the snapshot's timestamp is published.
    pub fn open_applied_snapshot(&mut self) -> SnapshotToken {
        self.open_at(self.applied)
    }

    /// Opens another snapshot of what an open one sees.
    pub fn share_snapshot(&mut self, token: &SnapshotToken) -> SnapshotToken {
        self.open_at(token.timestamp)
    }

    fn open_at(&mut self, timestamp: Timestamp) -> SnapshotToken {
        match self.open.back_mut() {
            Some((last, count)) if *last == timestamp => *count += 1,
            Some((last, _)) if *last > timestamp => {
                // Only snapshots of what is not published yet are younger: a few.
                match self.open.binary_search_by_key(&timestamp, |(timestamp, _)| *timestamp) {
                    Ok(place) => self.open[place].1 += 1,
                    Err(place) => self.open.insert(place, (timestamp, 1)),
                }
            }
            _ => self.open.push_back((timestamp, 1)),
        }
        SnapshotToken { timestamp }
    }

    /// Ends a snapshot; the watermark may move on.
    pub fn close_snapshot(&mut self, token: SnapshotToken) {
        let place = self.open.binary_search_by_key(&token.timestamp, |(timestamp, _)| *timestamp);
        let open = place.ok().and_then(|place| self.open.get_mut(place));
        let (_, count) = open.expect("a token is made by open_snapshot and consumed here");
        *count -= 1;
        while self.open.front().is_some_and(|(_, count)| *count == 0) {
            self.open.pop_front();
        }
    }

    /// The oldest timestamp that is or can still be read: versions superseded at or before it are garbage.
    pub fn watermark(&self) -> Timestamp {
        self.open.front().map_or(self.published, |(timestamp, _)| self.published.min(*timestamp))
    }

    /// What can be read of the commits published so far, ascending: the timestamps of open snapshots, and the newest one,
    /// which those to come begin with. Of everything younger every commit can be.
    pub fn readable(&self) -> Vec<Timestamp> {
        let open = self.open.iter().filter(|(timestamp, count)| *count > 0 && *timestamp < self.published);
        open.map(|(timestamp, _)| *timestamp).chain([self.published]).collect()
    }

    /// How many snapshots are open.
    pub fn open_snapshots(&self) -> usize {
        self.open.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A durable commit that is in place.
    fn commit(timeline: &mut Timeline) -> Timestamp {
        let timestamp = timeline.allocate(true);
        timeline.apply(timestamp);
        timeline.make_durable(timestamp);
        timestamp
    }

    #[test]
    fn a_snapshot_sees_published_commits_only() {
        let mut timeline = Timeline::default();
        let first = timeline.allocate(true);
        let before = timeline.open_snapshot();
        assert_eq!(before.timestamp(), 0);
        assert!(!timeline.make_durable(first));
        assert!(timeline.apply(first));
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
        commit(&mut timeline);
        let middle = timeline.open_snapshot();
        for _ in 0..4 {
            commit(&mut timeline);
        }
        let young = timeline.open_snapshot();
        timeline.close_snapshot(middle);
        assert_eq!(timeline.watermark(), 10);
        assert_eq!(timeline.readable(), [10, 15], "nobody reads the one in the middle any more");
        timeline.close_snapshot(old);
        assert_eq!(timeline.watermark(), 10, "one of two equal snapshots is still open");
        timeline.close_snapshot(second);
        assert_eq!(timeline.watermark(), 15);
        timeline.close_snapshot(young);
        assert_eq!(timeline.open_snapshots(), 0);
    }

    #[test]
    fn a_snapshot_of_what_is_not_durable_holds_nothing_back_that_others_may_read() {
        let mut timeline = Timeline::resume(10);
        let first = timeline.allocate(true);
        timeline.apply(first);
        let second = timeline.allocate(true);
        let young = timeline.open_applied_snapshot();
        assert_eq!((young.timestamp(), timeline.watermark()), (first, 10), "others may still open one at 10");
        let (old, again) = (timeline.open_snapshot(), timeline.open_applied_snapshot());
        timeline.apply(second);
        let youngest = timeline.open_applied_snapshot();
        timeline.make_durable(second);
        assert_eq!((old.timestamp(), youngest.timestamp(), timeline.published()), (10, second, second));
        let (between, watermark) = (timeline.open_snapshot(), timeline.watermark());
        assert_eq!((between.timestamp(), watermark), (second, 10));
        timeline.close_snapshot(old);
        assert_eq!(timeline.watermark(), first);
        [again, youngest, young, between].into_iter().for_each(|snapshot| timeline.close_snapshot(snapshot));
        assert_eq!((timeline.watermark(), timeline.open_snapshots()), (second, 0));
    }

    #[test]
    fn commits_put_in_place_out_of_order_are_published_in_order() {
        let mut timeline = Timeline::default();
        let [first, second, third] = [true, true, true].map(|awaits_disk| timeline.allocate(awaits_disk));
        timeline.make_durable(third);
        assert!(!timeline.apply(second));
        assert_eq!((timeline.published(), timeline.applied(), timeline.allocated()), (0, 0, third));
        assert!(timeline.apply(first));
        assert_eq!((timeline.published(), timeline.applied()), (second, second));
        assert!(timeline.apply(third));
        assert_eq!(timeline.published(), third);
    }

    #[test]
    fn a_commit_that_does_not_wait_for_the_disk_shows_no_earlier_one_that_does() {
        let mut timeline = Timeline::default();
        let asynchronous = timeline.allocate(false);
        assert!(timeline.apply(asynchronous), "nothing is before it");
        let (durable, behind) = (timeline.allocate(true), timeline.allocate(false));
        timeline.apply(behind);
        assert!(!timeline.apply(durable));
        assert_eq!((timeline.published(), timeline.applied()), (asynchronous, behind));
        assert!(timeline.make_durable(durable));
        assert_eq!(timeline.published(), behind);
    }

    #[test]
    #[should_panic(expected = "never allocated")]
    fn what_was_never_allocated_cannot_be_durable() {
        Timeline::default().make_durable(1);
    }

    #[test]
    #[should_panic(expected = "put in place twice")]
    fn a_commit_is_put_in_place_once() {
        let mut timeline = Timeline::default();
        let first = timeline.allocate(true);
        timeline.apply(first);
        timeline.apply(first);
    }
}
