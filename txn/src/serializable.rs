//! Serializable snapshot isolation: which commit would make history unserializable.
//!
//! Under snapshot isolation a history is unserializable only if it contains two rw-antidependencies in a row between
//! concurrent transactions, the last of which committed first (Fekete et al. 2005; Cahill et al. 2008; Ports and Grittner
//! 2012, whose two refinements for read-only transactions are here as well):
//!
//! ```text
//!        rw              rw
//!   T1 ──────▶  pivot ──────▶ T3        A ──rw──▶ B: A read a state that B's write has ended
//!                             committed before T1 and the pivot; T1 may be T3
//!                             and, if T1 only reads, before T1's snapshot
//! ```
//! All three transactions are known when the last of them commits, so that is when it is decided, and the one that
//! commits last is the one that fails. Reads are kept by their transaction until then; here are only the transactions
//! that have committed and are still concurrent with an open one, each with what it read and wrote and the time of the
//! earliest commit it has an outgoing edge to. Reading never waits and costs no synchronisation.
//!
//! What is kept is bounded: beyond `COST_MAX` keys the oldest is forgotten, and transactions that were concurrent with
//! it fail at their commit ([`Failure::TooOld`]). Single reads and writes are folded into "the whole table" beyond
//! `KEYS_MAX` per table. Both are safe and only cause retries.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use crate::Timestamp;

/// Keys one transaction remembers of one table before it counts as having touched all of it.
const KEYS_MAX: usize = 4096;

/// Keys and ranges remembered of all committed transactions together.
const COST_MAX: usize = 1 << 20;

/// A range of encoded keys.
pub type KeyRange = (Bound<Box<[u8]>>, Bound<Box<[u8]>>);

/// What a transaction read: keys, present or not, ranges of keys, tables.
#[derive(Debug, Clone, Default)]
pub struct ReadSet {
    tables: HashMap<u64, TableReads>,
}

#[derive(Debug, Clone, Default)]
struct TableReads {
    whole: bool,
    keys: BTreeSet<Box<[u8]>>,
    ranges: Vec<KeyRange>,
}

impl ReadSet {
    /// Notes that a key was looked for.
    pub fn add_key(&mut self, table: u64, key: &[u8]) {
        let reads = self.tables.entry(table).or_default();
        if !reads.whole && !reads.keys.contains(key) {
            reads.keys.insert(key.into());
            reads.fold();
        }
    }

    /// Notes that all keys in a range were looked for.
    pub fn add_range(&mut self, table: u64, range: KeyRange) {
        let reads = self.tables.entry(table).or_default();
        if !reads.whole && !reads.ranges.contains(&range) {
            reads.ranges.push(range);
            reads.fold();
        }
    }

    /// Notes that a table was read from end to end.
    pub fn add_table(&mut self, table: u64) {
        *self.tables.entry(table).or_default() = TableReads { whole: true, ..TableReads::default() };
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether something of it was written.
    pub fn meets(&self, writes: &WriteSet) -> bool {
        let both =
            |(table, reads): (&u64, &TableReads)| writes.tables.get(table).is_some_and(|writes| reads.meet(writes));
        self.tables.iter().any(both)
    }

    fn cost(&self) -> usize {
        self.tables.values().map(|reads| 1 + reads.keys.len() + reads.ranges.len()).sum()
    }
}

impl TableReads {
    fn fold(&mut self) {
        if self.keys.len() + self.ranges.len() > KEYS_MAX {
            *self = TableReads { whole: true, ..TableReads::default() };
        }
    }

    fn meet(&self, writes: &TableWrites) -> bool {
        if self.whole || writes.whole {
            return true;
        }
        let by_key = match self.keys.len() < writes.keys.len() {
            true => self.keys.iter().any(|key| writes.keys.contains(key)),
            false => writes.keys.iter().any(|key| self.keys.contains(key)),
        };
        by_key || self.ranges.iter().any(|range| writes.any_in(range))
    }
}

/// The keys a transaction changed, added or removed.
#[derive(Debug, Clone, Default)]
pub struct WriteSet {
    tables: BTreeMap<u64, TableWrites>,
}

#[derive(Debug, Clone, Default)]
struct TableWrites {
    whole: bool,
    keys: BTreeSet<Box<[u8]>>,
}

impl WriteSet {
    /// Notes a change of a key.
    pub fn add_key(&mut self, table: u64, key: &[u8]) {
        let writes = self.tables.entry(table).or_default();
        if !writes.whole {
            writes.keys.insert(key.into());
            if writes.keys.len() > KEYS_MAX {
                self.add_table(table);
            }
        }
    }

    /// Notes changes anywhere in a table.
    pub fn add_table(&mut self, table: u64) {
        self.tables.insert(table, TableWrites { whole: true, keys: BTreeSet::new() });
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    fn cost(&self) -> usize {
        self.tables.values().map(|writes| 1 + writes.keys.len()).sum()
    }
}

impl TableWrites {
    fn any_in(&self, (low, high): &KeyRange) -> bool {
        // BTreeSet::range panics on an empty range, and a contradiction in a query makes one.
        let from = (low.as_ref().map(AsRef::as_ref), Bound::Unbounded);
        let first = self.keys.range::<[u8], _>(from).next();
        first.is_some_and(|key| match high {
            Bound::Included(high) => key <= high,
            Bound::Excluded(high) => key < high,
            Bound::Unbounded => true,
        })
    }
}

/// An open serializable transaction. Hand it back to `commit` or `abort`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an unreturned ticket keeps what was committed since in memory"]
pub struct Ticket {
    number: u64,
}

/// What a snapshot is worth to a transaction that only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// It can never be part of a dangerous structure: nothing it reads has to be remembered.
    Safe,
    /// It depends on writers that are still open.
    Open,
    /// A pivot has committed: depending on what it reads, it may be part of a dangerous structure.
    Unsafe,
}

/// Why a transaction cannot commit. Running it again helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// With it, no serial order would explain what all have read.
    Dangerous,
    /// It ran for so long that what it would have to be compared with is forgotten.
    TooOld,
}

#[derive(Debug)]
struct Committed {
    snapshot: Timestamp,
    /// The commit; of a transaction that only read, the newest commit when it ended.
    end: Timestamp,
    reads: ReadSet,
    /// Empty if it only read.
    writes: WriteSet,
    /// The earliest commit among the transactions that ended what it had read.
    out: Option<Timestamp>,
    cost: usize,
}

impl Committed {
    fn only_read(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether it was still open when a transaction began at `snapshot`.
    fn concurrent_with(&self, snapshot: Timestamp) -> bool {
        self.end > snapshot || (self.only_read() && self.end == snapshot)
    }
}

/// An open transaction, as far as others are concerned.
#[derive(Debug)]
struct Open {
    /// Its snapshot is at least this.
    since: Timestamp,
    only_reads: bool,
}

/// A transaction that wants to commit.
#[derive(Debug)]
pub struct Candidate {
    /// What it read at.
    pub snapshot: Timestamp,
    /// The timestamp of its commit; for one that only read, the newest published one.
    pub end: Timestamp,
    /// What it read.
    pub reads: ReadSet,
    /// What it wrote.
    pub writes: WriteSet,
}

/// The serializable transactions of a store.
#[derive(Debug, Default)]
pub struct Serializability {
    next: u64,
    open: BTreeMap<u64, Open>,
    committed: VecDeque<Committed>,
    cost: usize,
    /// Transactions that committed at or before this may have been forgotten although somebody needs them.
    forgotten: Timestamp,
}

impl Serializability {
    /// Registers a transaction before it takes its snapshot, which will be at least `since`.
    pub fn begin(&mut self, since: Timestamp, only_reads: bool) -> Ticket {
        self.next += 1;
        self.open.insert(self.next, Open { since, only_reads });
        Ticket { number: self.next }
    }

    /// Decides a commit, in the order of commits. `published` is a timestamp that every later snapshot will have seen.
    pub fn commit(&mut self, ticket: Ticket, candidate: Candidate, published: Timestamp) -> Result<(), Failure> {
        self.open.remove(&ticket.number);
        let decided = self.judge(&candidate);
        if let Ok(out) = decided {
            let Candidate { snapshot, end, reads, writes } = candidate;
            let cost = 1 + reads.cost() + writes.cost();
            self.cost += cost;
            self.committed.push_back(Committed { snapshot, end, reads, writes, out, cost });
        }
        self.forget(published);
        decided.map(|_| ())
    }

    /// Registers the end of a transaction that has no effect.
    pub fn abort(&mut self, ticket: Ticket, published: Timestamp) {
        self.open.remove(&ticket.number);
        self.forget(published);
    }

    /// What a transaction that only reads can count on at this snapshot. To be asked after the snapshot was taken.
    pub fn safety(&self, snapshot: Timestamp) -> Safety {
        let is_dangerous = |other: &Committed| {
            !other.only_read() && other.end > snapshot && other.out.is_some_and(|out| out <= snapshot)
        };
        if self.committed.iter().any(is_dangerous) || snapshot < self.forgotten {
            return Safety::Unsafe;
        }
        match self.open.values().any(|open| !open.only_reads && open.since < snapshot) {
            true => Safety::Open,
            false => Safety::Safe,
        }
    }

    /// How many committed transactions are remembered.
    pub fn remembered(&self) -> usize {
        self.committed.len()
    }

    /// The earliest outgoing edge of a transaction that may commit.
    fn judge(&self, candidate: &Candidate) -> Result<Option<Timestamp>, Failure> {
        let Candidate { snapshot, end: _, reads, writes } = candidate;
        if *snapshot < self.forgotten {
            return Err(Failure::TooOld);
        }
        let concurrent = || self.committed.iter().filter(|other| other.concurrent_with(*snapshot));
        let mut out: Option<Timestamp> = None;
        for other in concurrent().filter(|other| !other.only_read() && reads.meets(&other.writes)) {
            // The candidate as T1, the other as the pivot: T3 was first, because it committed before the pivot did.
            if other.out.is_some_and(|first| !writes.is_empty() || first <= *snapshot) {
                return Err(Failure::Dangerous);
            }
            out = Some(out.map_or(other.end, |out| out.min(other.end)));
        }
        // The candidate as the pivot.
        if let Some(first) = out
            && !writes.is_empty()
        {
            let before = |other: &&Committed| first <= if other.only_read() { other.snapshot } else { other.end };
            if concurrent().filter(before).any(|other| other.reads.meets(writes)) {
                return Err(Failure::Dangerous);
            }
        }
        Ok(out)
    }

    /// Drops what no open or future transaction is concurrent with, and what there is no room for.
    fn forget(&mut self, published: Timestamp) {
        let oldest = self.open.values().map(|open| open.since).min().unwrap_or(published).min(published);
        self.committed.retain(|other| other.end >= oldest);
        self.cost = self.committed.iter().map(|other| other.cost).sum();
        while self.cost > COST_MAX
            && let Some(dropped) = self.committed.pop_front()
        {
            self.cost -= dropped.cost;
            self.forgotten = self.forgotten.max(dropped.end);
        }
    }
}

#[cfg(test)]
mod tests;
