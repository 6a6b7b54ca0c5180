//! The timeline of an open store, shared by those who commit and those who read, and who waits for it.
//!
//! A commit waits here until it is published, and so does not depend on being polled: what publishes it is the last of
//! two reports, that it is in place (from its own thread, before it waits) and that it is durable (from the log's thread).
//! If its client goes away meanwhile, it is published all the same.
//!
//! What a commit holds, its locks, is let go as soon as it and every commit before it is in place: who gets a lock next
//! finds what was committed under it on an applied snapshot, and cannot be published, or told that it is done, before it.
//! Else all who want one row would wait for the disk one after the other (early lock release: DeWitt and others 1984;
//! Johnson and others, "Aether", 2010).

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustydb_txn::{SnapshotToken, Timeline, Timestamp};

use crate::sync::Mutex;

/// Why nothing is published any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The log has failed.
    Poisoned(Arc<str>),
    /// The store was closed.
    Closed,
}

/// Something that a commit holds until it, and every one before it, is in place.
pub(crate) type Held = Arc<dyn Any + Send + Sync>;

#[derive(Default)]
struct State {
    timeline: Timeline,
    /// Who waits for which commit; the numbers tell those apart who wait for the same.
    waiting: BTreeMap<(Timestamp, u64), Waker>,
    next_number: u64,
    /// What commits hold that are in place before an earlier one is.
    held: BTreeMap<Timestamp, Held>,
    end: Option<End>,
}

/// The timeline and its waiters.
#[derive(Default)]
pub(crate) struct Publication {
    state: Mutex<State>,
}

impl fmt::Debug for Publication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        formatter.debug_struct("Publication").field("timeline", &state.timeline).field("end", &state.end).finish()
    }
}

impl Publication {
    pub(crate) fn new(timeline: Timeline) -> Self {
        Publication { state: Mutex::new(State { timeline, ..State::default() }) }
    }

    pub(crate) fn open_snapshot(&self) -> SnapshotToken {
        self.state.lock().timeline.open_snapshot()
    }

    pub(crate) fn open_applied_snapshot(&self) -> SnapshotToken {
        self.state.lock().timeline.open_applied_snapshot()
    }

    pub(crate) fn share_snapshot(&self, token: &SnapshotToken) -> SnapshotToken {
        self.state.lock().timeline.share_snapshot(token)
    }

    pub(crate) fn close_snapshot(&self, token: SnapshotToken) {
        self.state.lock().timeline.close_snapshot(token);
    }

    pub(crate) fn published(&self) -> Timestamp {
        self.state.lock().timeline.published()
    }

    pub(crate) fn applied(&self) -> Timestamp {
        self.state.lock().timeline.applied()
    }

    pub(crate) fn allocated(&self) -> Timestamp {
        self.state.lock().timeline.allocated()
    }

    pub(crate) fn watermark(&self) -> Timestamp {
        self.state.lock().timeline.watermark()
    }

    /// See [`Timeline::readable`].
    pub(crate) fn readable(&self) -> Vec<Timestamp> {
        self.state.lock().timeline.readable()
    }

    /// Gives out the next timestamp; returns it with the watermark.
    pub(crate) fn allocate(&self, awaits_disk: bool) -> (Timestamp, Timestamp) {
        let timeline = &mut self.state.lock().timeline;
        (timeline.allocate(awaits_disk), timeline.watermark())
    }

    /// Reports that a commit is in place. Lets go of what it holds when every one before it is, too.
    pub(crate) fn apply(&self, timestamp: Timestamp, held: Option<Held>) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        let ready = if state.timeline.apply(timestamp) { state.ready() } else { BTreeMap::new() };
        let applied = state.timeline.applied();
        let own = if applied >= timestamp {
            held
        } else {
            held.and_then(|held| state.held.insert(timestamp, held));
            None
        };
        let later = match state.held.is_empty() {
            true => BTreeMap::new(),
            false => {
                let not_yet = state.held.split_off(&(applied + 1));
                std::mem::replace(&mut state.held, not_yet)
            }
        };
        // Waking may run others' code, and what was held may be locks that others wait for.
        drop(state);
        drop((own, later));
        ready.into_values().for_each(Waker::wake);
    }

    /// Reports that every commit up to `timestamp` is durable.
    pub(crate) fn make_durable(&self, timestamp: Timestamp) {
        let mut state = self.state.lock();
        if state.end.is_none() && state.timeline.make_durable(timestamp) {
            let ready = state.ready();
            drop(state);
            ready.into_values().for_each(Waker::wake);
        }
    }

    /// Publishes nothing more. The first reason counts.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        let (waiting, held) = (std::mem::take(&mut state.waiting), std::mem::take(&mut state.held));
        drop(state);
        drop(held);
        waiting.into_values().for_each(Waker::wake);
    }

    /// Waits until a commit, and every one before it, is visible.
    pub(crate) fn wait(&self, timestamp: Timestamp) -> Published<'_> {
        Published { publication: self, timestamp, number: None }
    }
}

impl State {
    /// Those whose commit is visible now.
    fn ready(&mut self) -> BTreeMap<(Timestamp, u64), Waker> {
        let still_waiting = self.waiting.split_off(&(self.timeline.published() + 1, 0));
        std::mem::replace(&mut self.waiting, still_waiting)
    }
}

/// Ready when a commit is visible.
pub(crate) struct Published<'a> {
    publication: &'a Publication,
    timestamp: Timestamp,
    /// Its number among those who wait.
    number: Option<u64>,
}

impl Future for Published<'_> {
    type Output = Result<(), End>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.publication.state.lock();
        if state.timeline.published() >= self.timestamp {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone()));
        }
        let number = self.number.unwrap_or_else(|| {
            state.next_number += 1;
            state.next_number
        });
        let before = state.waiting.insert((self.timestamp, number), context.waker().clone());
        drop(state);
        drop(before);
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = self.publication.state.lock();
        let before = state.waiting.remove(&(self.timestamp, number));
        drop(state);
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_waits_is_woken_by_whichever_report_comes_last() {
        for durable_first in [true, false] {
            let publication = Publication::default();
            let (timestamp, _) = publication.allocate(true);
            let mut wait = publication.wait(timestamp);
            assert_eq!((&mut wait).now_or_never(), None);
            match durable_first {
                true => publication.make_durable(timestamp),
                false => publication.apply(timestamp, None),
            }
            assert_eq!((&mut wait).now_or_never(), None);
            match durable_first {
                true => publication.apply(timestamp, None),
                false => publication.make_durable(timestamp),
            }
            assert_eq!(wait.now_or_never(), Some(Ok(())));
        }
    }

    #[test]
    fn what_a_commit_holds_is_kept_until_every_one_before_it_is_in_place_and_no_longer() {
        let publication = Publication::default();
        let (first, _) = publication.allocate(true);
        let (second, _) = publication.allocate(true);
        let (held, waits) = (Arc::new(()), publication.wait(second));
        publication.apply(second, Some(Arc::clone(&held) as Held));
        drop(waits);
        assert_eq!(
            Arc::strong_count(&held),
            2,
            "who got the lock now would not find the commit on an applied snapshot"
        );
        publication.apply(first, None);
        assert_eq!((Arc::strong_count(&held), publication.applied(), publication.published()), (1, second, 0));
        let (third, _) = publication.allocate(true);
        publication.apply(third, Some(Arc::clone(&held) as Held));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn after_the_end_nothing_is_published_and_nobody_waits() {
        let publication = Publication::default();
        let (timestamp, _) = publication.allocate(true);
        let mut wait = publication.wait(timestamp);
        assert_eq!((&mut wait).now_or_never(), None);
        publication.end(End::Poisoned("the disk is full".into()));
        publication.end(End::Closed);
        publication.apply(timestamp, None);
        publication.make_durable(timestamp);
        assert_eq!(wait.now_or_never(), Some(Err(End::Poisoned("the disk is full".into()))));
        assert_eq!(publication.published(), 0);
    }
}
