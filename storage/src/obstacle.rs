//! What stands in the way of work that never waits, and getting over it.
//!
//! The row path reads, locks and changes rows in plain functions, since nearly always everything is in memory and nobody
//! else has the locks. Where that is not so they end with an [`Obstacle`]; who called them waits for it and calls them
//! again, from the beginning:
//!
//! ```text
//!   attempt ─┬─▶ done, or failed
//!      ▲     └─▶ Waits(obstacle) ─▶ Tries::overcome ─┬─ loads parts of segments, and pins them
//!      │                                             └─ sleeps for locks (deadlocks, time limits: crate::locks)
//!      └──────────────── what was got stays ─────────┘
//! ```
//! An attempt that ends with an obstacle has changed no rows. It keeps the locks that it has taken, in the order in which
//! everybody takes them, and an obstacle of locks names all those that were still to come: once it is overcome, none of
//! them is waited for again. An obstacle of parts names everything of its kind that was missing.
//!
//! Parts that were loaded are pinned while the work is tried again, as far as that takes no more than a share of the
//! column cache ([`Tries`]). What the cache does not keep itself, because it is too large or others drive it out, is taken
//! out of the cache's budget meanwhile. Where memory is too short even for what a few rows need, a part must be loaded
//! again and again; then the tries end, and the caller has to do the work in another way. Those who have no other way
//! ([`insist`]) pin all of it.

use std::sync::Arc;
use std::time::Duration;

use rustydb_txn::{LockMode, Resource};

use crate::catalog::IndexId;
use crate::column_cache::{Held, Reservation};
use crate::encoding::KeyEncoder;
use crate::error::{Error, Result};
use crate::locks::{LockWait, TransactionLocks};
use crate::segment::{Pins, Segment};
use crate::view::ReadView;

/// The outcome of work that never waits.
pub type Attempt<T> = std::result::Result<T, Blocked>;

/// Why an attempt did not end well.
#[derive(Debug)]
pub enum Blocked {
    /// Something has to be waited for. No rows were changed.
    Waits(Obstacle),
    /// It failed.
    Failed(Error),
}

impl From<Error> for Blocked {
    fn from(error: Error) -> Self {
        Blocked::Failed(error)
    }
}

impl From<Obstacle> for Blocked {
    fn from(obstacle: Obstacle) -> Self {
        Blocked::Waits(obstacle)
    }
}

/// Something to wait for.
#[derive(Debug)]
#[must_use]
pub struct Obstacle(Need);

#[derive(Debug)]
enum Need {
    Parts(Vec<MissingPart>),
    Locks(Box<MissingLocks>),
}

/// A part of a segment that is not in memory.
#[derive(Debug)]
struct MissingPart {
    segment: Arc<Segment>,
    part: Part,
}

#[derive(Debug)]
enum Part {
    KeyIndex,
    Columns(Box<[usize]>),
    /// The values of these columns in some rows.
    Rows(Vec<u32>, Box<[usize]>),
    Postings(IndexId, Box<KeyEncoder>),
}

/// Locks that somebody is in the way of, in the order in which they are to be taken.
#[derive(Debug)]
struct MissingLocks {
    locks: Arc<TransactionLocks>,
    wanted: Vec<(Resource, LockMode)>,
    limit: Option<Duration>,
    table: String,
}

impl Obstacle {
    /// Parts of segments, of which none is known yet.
    pub(crate) fn of_parts() -> Obstacle {
        Obstacle(Need::Parts(Vec::new()))
    }

    /// Columns of a segment.
    pub(crate) fn of_columns(segment: &Arc<Segment>, columns: &[usize]) -> Obstacle {
        let part = Part::Columns(columns.into());
        Obstacle(Need::Parts(vec![MissingPart { segment: Arc::clone(segment), part }]))
    }

    /// The values of some columns in a row of a segment.
    pub(crate) fn of_row(segment: &Arc<Segment>, row: u32, columns: &[usize]) -> Obstacle {
        let part = Part::Rows(vec![row], columns.into());
        Obstacle(Need::Parts(vec![MissingPart { segment: Arc::clone(segment), part }]))
    }

    /// Locks that `locks` are to get, waiting at most `limit` for each.
    pub(crate) fn of_locks(
        locks: &Arc<TransactionLocks>,
        wanted: Vec<(Resource, LockMode)>,
        limit: Option<Duration>,
        table: &str,
    ) -> Obstacle {
        let (locks, table) = (Arc::clone(locks), table.to_owned());
        Obstacle(Need::Locks(Box::new(MissingLocks { locks, wanted, limit, table })))
    }

    /// Adds the key index of a segment, unless it is in memory.
    pub(crate) fn add_key_index(&mut self, segment: &Arc<Segment>) {
        if !segment.key_slot().is_present() {
            self.add(MissingPart { segment: Arc::clone(segment), part: Part::KeyIndex });
        }
    }

    /// Adds the postings of an index in a segment, unless they are in memory.
    pub(crate) fn add_postings(&mut self, segment: &Arc<Segment>, index: IndexId, encoder: &KeyEncoder) {
        if segment.postings(index).is_none() {
            let part = Part::Postings(index, Box::new(encoder.clone()));
            self.add(MissingPart { segment: Arc::clone(segment), part });
        }
    }

    fn add(&mut self, missing: MissingPart) {
        let Need::Parts(parts) = &mut self.0 else { return };
        // Rows of one segment are a part together: many of them lie in one page.
        if let Part::Rows(rows, columns) = &missing.part {
            let of_segment = parts.iter_mut().filter(|part| Arc::ptr_eq(&part.segment, &missing.segment));
            let others = of_segment.filter_map(|part| match &mut part.part {
                Part::Rows(others, of_others) if of_others == columns => Some(others),
                _ => None,
            });
            if let Some(others) = others.last() {
                return others.extend(rows);
            }
        }
        if !parts.iter().any(|part| part.is(&missing)) {
            parts.push(missing);
        }
    }

    /// Adds what another consists of. Locks are waited for alone: what is missing beside them shows in the next attempt.
    fn join(&mut self, other: Obstacle) {
        if let Need::Parts(parts) = other.0 {
            parts.into_iter().for_each(|part| self.add(part));
        }
    }

    /// Waits for all of it. What was loaded is in memory as long as the pins are held.
    pub(crate) async fn overcome(self) -> Result<Pins> {
        let mut pins = Pins::default();
        match self.0 {
            Need::Parts(parts) => {
                for part in parts {
                    pins.hold(part.load().await?);
                }
            }
            Need::Locks(locks) => locks.acquire().await?,
        }
        Ok(pins)
    }
}

impl MissingPart {
    fn is(&self, other: &MissingPart) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment)
            && match (&self.part, &other.part) {
                (Part::KeyIndex, Part::KeyIndex) => true,
                (Part::Columns(columns), Part::Columns(others)) => columns == others,
                (Part::Rows(rows, columns), Part::Rows(others, of_others)) => columns == of_others && rows == others,
                (Part::Postings(index, _), Part::Postings(other, _)) => index == other,
                _ => false,
            }
    }

    /// Loads it, and holds what it consists of.
    async fn load(&self) -> Result<Vec<Held>> {
        Ok(match &self.part {
            Part::KeyIndex => vec![self.segment.hold_key_index().await?],
            Part::Columns(columns) => {
                let mut held = Vec::with_capacity(columns.len());
                for column in columns {
                    held.push(self.segment.hold_column(*column).await?);
                }
                held
            }
            Part::Rows(rows, columns) => self.segment.load_rows(rows, columns).await?,
            Part::Postings(index, encoder) => vec![self.segment.hold_postings(*index, encoder).await?],
        })
    }
}

impl MissingLocks {
    async fn acquire(self) -> Result<()> {
        for (resource, mode) in self.wanted {
            self.locks.acquire(resource, mode, LockWait::Wait(self.limit), &self.table).await?;
        }
        Ok(())
    }
}

/// Collects what stands in the way of several attempts, so that all of it is overcome together.
#[derive(Debug, Default)]
pub struct Hindrance(Option<Obstacle>);

impl Hindrance {
    /// The outcome of one; `None`: it has to wait.
    ///
    /// # Errors
    /// What it failed with.
    pub fn pass<T>(&mut self, attempt: Attempt<T>) -> Result<Option<T>> {
        match attempt {
            Ok(done) => Ok(Some(done)),
            Err(Blocked::Failed(error)) => Err(error),
            Err(Blocked::Waits(obstacle)) => {
                match &mut self.0 {
                    Some(all) => all.join(obstacle),
                    none => *none = Some(obstacle),
                }
                Ok(None)
            }
        }
    }

    /// Ends with all that stood in the way, if anything did.
    pub fn end(self) -> Attempt<()> {
        self.0.map_or(Ok(()), |obstacle| Err(obstacle.into()))
    }
}

/// Attempts that nobody will need more of.
const TRIES_MAX: usize = 64;

/// So many parts may have to be loaded again because they could not be pinned.
const RELOADS_MAX: usize = 8;

/// What is pinned is at most this part of the column cache.
const PINNED_SHARE: usize = 16;

/// So many parts are pinned however large they are: what a key needs that may be in some segments, and its row.
const PINNED_MIN: usize = 16;

/// Attempts at one piece of work, with what was loaded for it.
#[derive(Debug)]
pub struct Tries {
    left: usize,
    /// What was loaded, the latest at the end.
    parts: Vec<TriedPart>,
    pinned: usize,
    pinned_bytes: usize,
    pinned_bytes_max: usize,
    reloads: usize,
    /// What is pinned and not kept by the cache, which counts the rest: a part of its budget.
    uncounted: Reservation,
}

/// A part that was loaded, with what it consists of as long as that is pinned.
#[derive(Debug)]
struct TriedPart {
    part: MissingPart,
    pinned: Option<Vec<Held>>,
}

impl Tries {
    /// Attempts at something that reads this view.
    pub fn new(view: &ReadView) -> Tries {
        let store = &view.snapshot.store;
        let pinned_bytes_max = store.options.column_cache_bytes / PINNED_SHARE;
        let (parts, uncounted) = (Vec::new(), store.columns().cache.reserve(0));
        Tries { left: TRIES_MAX, parts, pinned: 0, pinned_bytes: 0, pinned_bytes_max, reloads: 0, uncounted }
    }

    /// Waits for what stood in the way. Tells whether it is worth trying again.
    ///
    /// # Errors
    /// What loading fails with, and `Deadlock` and `LockTimeout`.
    pub async fn overcome(&mut self, obstacle: Obstacle) -> Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        match obstacle.0 {
            Need::Locks(locks) => locks.acquire().await?,
            Need::Parts(parts) => {
                for part in parts {
                    let tried = self.parts.iter().position(|tried| tried.part.is(&part));
                    if tried.is_some() {
                        self.reloads += 1;
                        if self.reloads > RELOADS_MAX {
                            return Ok(false);
                        }
                    }
                    // Only what is missing of it is loaded. What was loaded before stays until then: two halves that drive each
                    // other out would never be there together.
                    let mut held = part.load().await?;
                    if let Some(at) = tried {
                        held.extend(self.unpin(at));
                        self.parts.remove(at);
                    }
                    self.pin(part, held);
                }
            }
        }
        Ok(true)
    }

    fn pin(&mut self, part: MissingPart, held: Vec<Held>) {
        self.pinned += 1;
        self.pinned_bytes += bytes_of(&held);
        self.parts.push(TriedPart { part, pinned: Some(held) });
        while self.pinned_bytes > self.pinned_bytes_max
            && self.pinned > PINNED_MIN
            && let Some(oldest) = self.parts.iter().position(|tried| tried.pinned.is_some())
        {
            self.unpin(oldest);
        }
        let held = self.parts.iter().flat_map(|tried| &tried.pinned).flatten();
        self.uncounted.resize(held.map(Held::uncounted_bytes).sum());
    }

    fn unpin(&mut self, at: usize) -> Vec<Held> {
        let Some(held) = self.parts[at].pinned.take() else { return Vec::new() };
        self.pinned -= 1;
        self.pinned_bytes -= bytes_of(&held);
        held
    }
}

fn bytes_of(held: &[Held]) -> usize {
    held.iter().map(Held::bytes).sum()
}

/// Tries something until nothing stands in the way; everything that it takes stays in memory until then.
///
/// # Errors
/// What it fails with, and what [`Tries::overcome`] does.
pub async fn insist<T>(mut attempt: impl FnMut() -> Attempt<T>) -> Result<T> {
    let mut pins = Pins::default();
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Blocked::Failed(error)) => return Err(error),
            Err(Blocked::Waits(obstacle)) => pins.extend(obstacle.overcome().await?),
        }
    }
}
