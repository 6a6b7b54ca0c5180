//! The timeline of an open store, shared by those who commit and those who read, and who waits for it.
//!
//! A commit waits here until it is published, and so does not depend on being polled: what publishes it is the last of
//! two reports, that it is in place (from its own thread, before it waits) and that it is durable (from the log's thread).
//! If its client goes away meanwhile, it is published all the same, and what was to be kept until then is.

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

/// Something that a commit holds until it is visible.
pub(crate) type Held = Arc<dyn Any + Send + Sync>;

#[derive(Default)]
struct State {
    timeline: Timeline,
    /// Who waits for which commit; the numbers tell those apart who wait for the same.
    waiting: BTreeMap<(Timestamp, u64), Waiting>,
    next_number: u64,
    end: Option<End>,
}

enum Waiting {
    Task(Waker),
    /// Nobody any more; only what it held.
    Gone {
        _held: Held,
    },
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

    /// Gives out the next timestamp; returns it with the watermark.
    pub(crate) fn allocate(&self, awaits_disk: bool) -> (Timestamp, Timestamp) {
        let timeline = &mut self.state.lock().timeline;
        (timeline.allocate(awaits_disk), timeline.watermark())
    }

    /// Reports that a commit is in place.
    pub(crate) fn apply(&self, timestamp: Timestamp) {
        self.advance(|timeline| timeline.apply(timestamp));
    }

    /// Reports that every commit up to `timestamp` is durable.
    pub(crate) fn make_durable(&self, timestamp: Timestamp) {
        self.advance(|timeline| timeline.make_durable(timestamp));
    }

    fn advance(&self, report: impl FnOnce(&mut Timeline) -> bool) {
        let mut state = self.state.lock();
        if state.end.is_some() || !report(&mut state.timeline) || state.waiting.is_empty() {
            return;
        }
        let published = state.timeline.published();
        let still_waiting = state.waiting.split_off(&(published + 1, 0));
        let ready = std::mem::replace(&mut state.waiting, still_waiting);
        // Waking may run others' code, and what was held may be locks that others wait for.
        drop(state);
        wake(ready);
    }

    /// Publishes nothing more. The first reason counts.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        wake(waiting);
    }

    /// Waits until a commit, and every one before it, is visible. If the future is dropped before that, `held` is kept
    /// until then.
    pub(crate) fn wait(&self, timestamp: Timestamp, held: Option<Held>) -> Published<'_> {
        Published { publication: self, timestamp, number: None, held }
    }
}

fn wake(waiting: BTreeMap<(Timestamp, u64), Waiting>) {
    for waiting in waiting.into_values() {
        if let Waiting::Task(waker) = waiting {
            waker.wake();
        }
    }
}

/// Ready when a commit is visible.
pub(crate) struct Published<'a> {
    publication: &'a Publication,
    timestamp: Timestamp,
    /// Its number among those who wait.
    number: Option<u64>,
    held: Option<Held>,
}

impl Future for Published<'_> {
    type Output = Result<(), End>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.publication.state.lock();
        if state.timeline.published() >= self.timestamp {
            drop(state);
            self.held = None;
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone()));
        }
        let number = self.number.unwrap_or_else(|| {
            state.next_number += 1;
            state.next_number
        });
        let waker = context.waker().clone();
        let before = state.waiting.insert((self.timestamp, number), Waiting::Task(waker));
        drop(state);
        drop(before);
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        let mut state = self.publication.state.lock();
        let before = self.number.and_then(|number| state.waiting.remove(&(self.timestamp, number)));
        let is_open = state.timeline.published() < self.timestamp && state.end.is_none();
        if let Some(held) = self.held.take().filter(|_| is_open) {
            state.next_number += 1;
            let key = (self.timestamp, state.next_number);
            state.waiting.insert(key, Waiting::Gone { _held: held });
        }
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
            let mut wait = publication.wait(timestamp, None);
            assert_eq!((&mut wait).now_or_never(), None);
            match durable_first {
                true => publication.make_durable(timestamp),
                false => publication.apply(timestamp),
            }
            assert_eq!((&mut wait).now_or_never(), None);
            match durable_first {
                true => publication.apply(timestamp),
                false => publication.make_durable(timestamp),
            }
            assert_eq!(wait.now_or_never(), Some(Ok(())));
        }
    }

    #[test]
    fn what_a_commit_holds_is_kept_until_it_is_visible_although_nobody_waits() {
        let publication = Publication::default();
        let held = Arc::new(());
        let (timestamp, _) = publication.allocate(true);
        let mut wait = publication.wait(timestamp, Some(Arc::clone(&held) as Held));
        assert_eq!((&mut wait).now_or_never(), None);
        drop(wait);
        publication.apply(timestamp);
        assert_eq!(Arc::strong_count(&held), 2);
        publication.make_durable(timestamp);
        assert_eq!((Arc::strong_count(&held), publication.published()), (1, timestamp));
    }

    #[test]
    fn after_the_end_nothing_is_published_and_nobody_waits() {
        let publication = Publication::default();
        let (timestamp, _) = publication.allocate(true);
        let mut wait = publication.wait(timestamp, None);
        assert_eq!((&mut wait).now_or_never(), None);
        publication.end(End::Poisoned("the disk is full".into()));
        publication.end(End::Closed);
        publication.apply(timestamp);
        publication.make_durable(timestamp);
        assert_eq!(wait.now_or_never(), Some(Err(End::Poisoned("the disk is full".into()))));
        assert_eq!(publication.published(), 0);
    }
}
