//! Locks on rows and tables: who holds what, who waits, in which order.
//!
//! ```text
//!  resource ──▶ holders: T1 {SHARE}  T2 {SHARE}      granted together, as their modes allow it
//!           └─▶ queue:   T3 UPDATE ─▶ T4 SHARE       first come, first served: T4 does not overtake T3
//! ```
//! The modes and their conflicts are PostgreSQL's, with two more for rows, which tell those who remove one from those who have
//! only locked it, and two more for tables, of loads and of those who look for what a load refers to. A [`LockTable`] is one
//! shard's worth of resources and is used under the caller's mutex; [`find_cycle`] looks for deadlocks in the graph of who
//! waits for whom, over all shards. Nothing here waits: a request that cannot be granted is queued and said to be
//! [`Answer::Busy`], and each release returns who may go on.
//!
//! What holds after every call:
//! * no two owners hold conflicting modes on one resource;
//! * a waiter is granted as soon as neither a holder nor somebody before it in the queue is in its way;
//! * an owner that already holds a resource and wants more of it waits before those that hold nothing.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// Who holds locks: a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u64);

/// What can be locked. A row is known by the hash of its key: rows whose hashes collide merely share a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A table as such.
    Table(u64),
    /// A row of a table.
    Row {
        /// The table.
        table: u64,
        /// The hash of its key, well mixed.
        key: u64,
    },
}

impl Resource {
    /// A number that spreads resources evenly over shards.
    pub fn spread(self) -> u64 {
        match self {
            Resource::Table(table) => table.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32),
            Resource::Row { table, key } => key ^ table.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        }
    }
}

/// How strongly something is locked: the first six are for rows, the others for tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LockMode {
    /// The row must not be on its way out or to another key. Whoever has only locked it may have it.
    RowPresence,
    /// The row must stay and keep its key (foreign keys pointing at it).
    RowKeyShare,
    /// The row must stay as it is.
    RowShared,
    /// The row is changed, but not its key.
    RowNoKeyUpdate,
    /// The row may be deleted, or its key changed.
    RowUpdate,
    /// The row is deleted, or its key is changed.
    RowRemoval,
    /// Reads of the table.
    AccessShare,
    /// Locks on rows of the table.
    RowShare,
    /// Changes of rows.
    RowExclusive,
    /// A load: rows come, and none changes or goes.
    Load,
    /// Work that only one may do at a time, beside changes of rows.
    ShareUpdateExclusive,
    /// No changes of rows by others, but for loads: what a load into another table refers to stays. Two that load a table and what
    /// refers to it (itself, perhaps) would otherwise each wait for the other's end.
    Referenced,
    /// No changes of rows by others.
    Share,
    /// No changes of rows by others, and only one may say so.
    ShareRowExclusive,
    /// Only reads by others.
    Exclusive,
    /// Nothing by others.
    AccessExclusive,
}

use LockMode::{
    AccessExclusive, AccessShare, Exclusive, Load, Referenced, RowExclusive, RowKeyShare, RowNoKeyUpdate, RowPresence,
    RowRemoval, RowShare, RowShared, RowUpdate, Share, ShareRowExclusive, ShareUpdateExclusive,
};

const fn set(modes: &[LockMode]) -> u16 {
    let (mut bits, mut at) = (0, 0);
    while at < modes.len() {
        bits |= 1 << modes[at] as u16;
        at += 1;
    }
    bits
}

impl LockMode {
    /// Every mode.
    pub const ALL: [LockMode; 16] = [
        RowPresence,
        RowKeyShare,
        RowShared,
        RowNoKeyUpdate,
        RowUpdate,
        RowRemoval,
        AccessShare,
        RowShare,
        RowExclusive,
        Load,
        ShareUpdateExclusive,
        Referenced,
        Share,
        ShareRowExclusive,
        Exclusive,
        AccessExclusive,
    ];

    const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The modes that another owner cannot hold at the same time, as bits (PostgreSQL's manual, tables 13.2 and 13.3).
    const fn conflicts(self) -> u16 {
        match self {
            RowPresence => set(&[RowRemoval]),
            RowKeyShare => set(&[RowUpdate, RowRemoval]),
            RowShared => set(&[RowNoKeyUpdate, RowUpdate, RowRemoval]),
            RowNoKeyUpdate => set(&[RowShared, RowNoKeyUpdate, RowUpdate, RowRemoval]),
            RowUpdate => set(&[RowKeyShare, RowShared, RowNoKeyUpdate, RowUpdate, RowRemoval]),
            RowRemoval => set(&[RowPresence, RowKeyShare, RowShared, RowNoKeyUpdate, RowUpdate, RowRemoval]),
            AccessShare => set(&[AccessExclusive]),
            RowShare => set(&[Exclusive, AccessExclusive]),
            RowExclusive => set(&[Referenced, Share, ShareRowExclusive, Exclusive, AccessExclusive]),
            Load => set(&[Share, ShareRowExclusive, Exclusive, AccessExclusive]),
            ShareUpdateExclusive => set(&[ShareUpdateExclusive, Share, ShareRowExclusive, Exclusive, AccessExclusive]),
            Referenced => set(&[RowExclusive, ShareRowExclusive, Exclusive, AccessExclusive]),
            Share => set(&[RowExclusive, Load, ShareUpdateExclusive, ShareRowExclusive, Exclusive, AccessExclusive]),
            ShareRowExclusive => set(&[
                RowExclusive,
                Load,
                ShareUpdateExclusive,
                Referenced,
                Share,
                ShareRowExclusive,
                Exclusive,
                AccessExclusive,
            ]),
            Exclusive => set(&[
                RowShare,
                RowExclusive,
                Load,
                ShareUpdateExclusive,
                Referenced,
                Share,
                ShareRowExclusive,
                Exclusive,
                AccessExclusive,
            ]),
            AccessExclusive => set(&[
                AccessShare,
                RowShare,
                RowExclusive,
                Load,
                ShareUpdateExclusive,
                Referenced,
                Share,
                ShareRowExclusive,
                Exclusive,
                AccessExclusive,
            ]),
        }
    }

    /// Whether two owners can not hold these modes of one resource at the same time.
    pub const fn conflicts_with(self, other: LockMode) -> bool {
        self.conflicts() & other.bit() != 0
    }
}

/// As SQL writes it.
impl fmt::Display for LockMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            RowPresence | RowKeyShare => "KEY SHARE",
            RowNoKeyUpdate => "NO KEY UPDATE",
            RowUpdate | RowRemoval => "UPDATE",
            AccessShare => "ACCESS SHARE",
            RowShare => "ROW SHARE",
            RowExclusive | Load => "ROW EXCLUSIVE",
            ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            RowShared | Referenced | Share => "SHARE",
            ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Exclusive => "EXCLUSIVE",
            AccessExclusive => "ACCESS EXCLUSIVE",
        })
    }
}

/// The modes one owner holds of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Modes(u16);

impl Modes {
    fn block(self, mode: LockMode) -> bool {
        mode.conflicts() & self.0 != 0
    }

    /// Whether holding `mode` too would keep nobody out who is not kept out already.
    fn cover(self, mode: LockMode) -> bool {
        if self.0 == 0 {
            return false;
        }
        let kept_out =
            LockMode::ALL.iter().filter(|held| self.0 & held.bit() != 0).fold(0, |all, held| all | held.conflicts());
        mode.conflicts() & !kept_out == 0
    }
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    owner: Owner,
    modes: Modes,
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    owner: Owner,
    mode: LockMode,
}

/// Holders and waiters of one resource. Nearly always there is one holder and nobody else, which takes no memory of its
/// own.
#[derive(Debug)]
struct Lock {
    /// A holder, if there is any.
    first: Holder,
    others: Vec<Holder>,
    queue: VecDeque<Waiter>,
}

impl Lock {
    fn holders(&self) -> impl Iterator<Item = &Holder> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn held_by(&self, owner: Owner) -> Modes {
        self.holders().find(|holder| holder.owner == owner).map_or(Modes(0), |holder| holder.modes)
    }

    fn blocked_by_holders(&self, owner: Owner, mode: LockMode) -> bool {
        self.holders().any(|holder| holder.owner != owner && holder.modes.block(mode))
    }

    fn grant(&mut self, owner: Owner, mode: LockMode) {
        let new = Holder { owner, modes: Modes(mode.bit()) };
        if self.first.modes.0 == 0 {
            self.first = new;
            return;
        }
        let present = std::iter::once(&mut self.first).chain(&mut self.others).find(|holder| holder.owner == owner);
        match present {
            Some(holder) => holder.modes.0 |= mode.bit(),
            None => self.others.push(new),
        }
    }

    /// Grants what can be granted, in the queue's order; returns to whom.
    fn serve(&mut self, granted: &mut Vec<Owner>) {
        let mut at = 0;
        while at < self.queue.len() {
            let Waiter { owner, mode } = self.queue[at];
            let overtakes = self.queue.iter().take(at).any(|before| before.mode.conflicts_with(mode));
            if overtakes || self.blocked_by_holders(owner, mode) {
                at += 1;
            } else {
                self.queue.remove(at);
                self.grant(owner, mode);
                granted.push(owner);
            }
        }
    }

    fn is_free(&self) -> bool {
        self.first.modes.0 == 0 && self.queue.is_empty()
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The owner holds a mode now, and nothing of the resource before; it must be released.
    Granted,
    /// The same of a resource that it holds already in another mode: it takes next to nothing.
    Raised,
    /// The owner holds as much already. There is nothing to release.
    Held,
    /// Somebody is in the way.
    Busy,
}

/// What to do with a request that cannot be granted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Queue it.
    Wait,
    /// Forget it.
    Give,
}

/// The locks of some resources.
#[derive(Debug, Default)]
pub struct LockTable {
    locks: HashMap<Resource, Lock, BuildHasherDefault<SpreadHasher>>,
}

impl LockTable {
    /// Asks for a mode of a resource. An owner waits for one resource at a time.
    pub fn request(&mut self, owner: Owner, resource: Resource, mode: LockMode, patience: Patience) -> Answer {
        let lock = match self.locks.entry(resource) {
            MapEntry::Vacant(vacant) => {
                let first = Holder { owner, modes: Modes(mode.bit()) };
                vacant.insert(Lock { first, others: Vec::new(), queue: VecDeque::new() });
                return Answer::Granted;
            }
            MapEntry::Occupied(occupied) => occupied.into_mut(),
        };
        let held = lock.held_by(owner);
        if held.cover(mode) {
            return Answer::Held;
        }
        let wants_more = held.0 != 0;
        let overtakes = !wants_more && lock.queue.iter().any(|waiter| waiter.mode.conflicts_with(mode));
        if !overtakes && !lock.blocked_by_holders(owner, mode) {
            lock.grant(owner, mode);
            return if wants_more { Answer::Raised } else { Answer::Granted };
        }
        if patience == Patience::Wait {
            let place = match wants_more {
                true => {
                    let holds = |waiter: &Waiter| lock.held_by(waiter.owner).0 != 0;
                    lock.queue.iter().position(|waiter| !holds(waiter)).unwrap_or(lock.queue.len())
                }
                false => lock.queue.len(),
            };
            lock.queue.insert(place, Waiter { owner, mode });
        }
        Answer::Busy
    }

    /// Gives one mode back. Returns who was granted what they waited for.
    pub fn release(&mut self, owner: Owner, resource: Resource, mode: LockMode) -> Vec<Owner> {
        self.change(resource, |lock| {
            let holders = std::iter::once(&mut lock.first).chain(&mut lock.others);
            for holder in holders.filter(|holder| holder.owner == owner) {
                holder.modes.0 &= !mode.bit();
            }
            lock.others.retain(|holder| holder.modes.0 != 0);
            if lock.first.modes.0 == 0
                && let Some(other) = lock.others.pop()
            {
                lock.first = other;
            }
        })
    }

    /// Takes a waiter out of the queue. Returns who was granted what they waited for.
    pub fn cancel(&mut self, owner: Owner, resource: Resource) -> Vec<Owner> {
        self.change(resource, |lock| lock.queue.retain(|waiter| waiter.owner != owner))
    }

    fn change(&mut self, resource: Resource, change: impl FnOnce(&mut Lock)) -> Vec<Owner> {
        let mut granted = Vec::new();
        if let Some(lock) = self.locks.get_mut(&resource) {
            change(lock);
            if !lock.queue.is_empty() {
                lock.serve(&mut granted);
            }
            if lock.is_free() {
                self.locks.remove(&resource);
            }
        }
        granted
    }

    /// Whom a waiting owner waits for: holders in its way, and conflicting waiters before it.
    pub fn blockers(&self, owner: Owner, resource: Resource) -> Vec<Owner> {
        let Some(lock) = self.locks.get(&resource) else { return Vec::new() };
        let Some(place) = lock.queue.iter().position(|waiter| waiter.owner == owner) else { return Vec::new() };
        let mode = lock.queue[place].mode;
        let holders = lock.holders().filter(|holder| holder.owner != owner && holder.modes.block(mode));
        let before = lock.queue.iter().take(place).filter(|waiter| waiter.mode.conflicts_with(mode));
        holders.map(|holder| holder.owner).chain(before.map(|waiter| waiter.owner)).collect()
    }

    /// Whether an owner holds so much of a resource that asking for this mode, too, would give it nothing new.
    pub fn covers(&self, owner: Owner, resource: Resource, mode: LockMode) -> bool {
        self.locks.get(&resource).is_some_and(|lock| lock.held_by(owner).cover(mode))
    }

    /// Whether an owner holds a resource, in whatever mode.
    pub fn is_held_by(&self, owner: Owner, resource: Resource) -> bool {
        self.locks.get(&resource).is_some_and(|lock| lock.held_by(owner).0 != 0)
    }

    /// Whether an owner is still in the queue.
    pub fn is_waiting(&self, owner: Owner, resource: Resource) -> bool {
        self.locks.get(&resource).is_some_and(|lock| lock.queue.iter().any(|waiter| waiter.owner == owner))
    }

    /// How many resources are locked.
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    #[cfg(test)]
    fn holds(&self, owner: Owner, resource: Resource, mode: LockMode) -> bool {
        self.locks.get(&resource).is_some_and(|lock| lock.held_by(owner).0 & mode.bit() != 0)
    }
}

/// Row keys are hashes already, so that they only have to be folded.
#[derive(Debug, Default)]
struct SpreadHasher(u64);

impl Hasher for SpreadHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(26) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }
}

/// A circle of owners that wait for each other, beginning with `start`, if waiting closes one. `waits_for` tells whom an
/// owner waits for, and nobody for one that does not wait.
pub fn find_cycle(start: Owner, mut waits_for: impl FnMut(Owner) -> Vec<Owner>) -> Option<Vec<Owner>> {
    let mut seen = HashSet::new();
    let mut path = vec![(start, waits_for(start))];
    while let Some((_, next)) = path.last_mut() {
        match next.pop() {
            None => {
                path.pop();
            }
            Some(owner) if owner == start => return Some(path.into_iter().map(|(owner, _)| owner).collect()),
            Some(owner) => {
                if seen.insert(owner) {
                    path.push((owner, waits_for(owner)));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Resource = Resource::Row { table: 1, key: 7 };
    const T1: Owner = Owner(1);
    const T2: Owner = Owner(2);
    const T3: Owner = Owner(3);

    #[test]
    fn conflicts_are_symmetric_and_row_and_table_modes_never_meet() {
        for one in LockMode::ALL {
            for other in LockMode::ALL {
                assert_eq!(one.conflicts_with(other), other.conflicts_with(one), "{one} and {other}");
                if (one <= RowRemoval) != (other <= RowRemoval) {
                    assert!(!one.conflicts_with(other), "{one} and {other}");
                }
            }
        }
        let of_rows: Vec<Vec<bool>> = LockMode::ALL[..6]
            .iter()
            .map(|one| LockMode::ALL[..6].iter().map(|other| one.conflicts_with(*other)).collect())
            .collect();
        let expected = [
            [false, false, false, false, false, true],
            [false, false, false, false, true, true],
            [false, false, false, true, true, true],
            [false, false, true, true, true, true],
            [false, true, true, true, true, true],
            [true, true, true, true, true, true],
        ];
        assert_eq!(of_rows, expected);
    }

    #[test]
    fn those_who_load_a_table_that_refers_to_itself_do_not_wait_for_each_other() {
        let kept_out = |mode: LockMode| -> Vec<LockMode> {
            LockMode::ALL.into_iter().filter(|other| mode.conflicts_with(*other)).collect()
        };
        assert_eq!(kept_out(Load), [Share, ShareRowExclusive, Exclusive, AccessExclusive]);
        assert_eq!(kept_out(Referenced), [RowExclusive, ShareRowExclusive, Exclusive, AccessExclusive]);
        let (table, mut locks) = (Resource::Table(1), LockTable::default());
        for owner in [T1, T2] {
            for (mode, answer) in [(Load, Answer::Granted), (Referenced, Answer::Raised)] {
                assert_eq!(locks.request(owner, table, mode, Patience::Give), answer);
            }
        }
        assert_eq!(locks.request(T3, table, RowExclusive, Patience::Give), Answer::Busy, "it may remove some");
        let mut locks = LockTable::default();
        locks.request(T1, table, RowExclusive, Patience::Give);
        assert_eq!(locks.request(T1, table, Load, Patience::Give), Answer::Held, "it may do more already");
    }

    #[test]
    fn waiters_are_served_in_order_and_not_overtaken() {
        let mut locks = LockTable::default();
        assert_eq!(locks.request(T1, ROW, RowShared, Patience::Wait), Answer::Granted);
        assert_eq!(locks.request(T2, ROW, RowUpdate, Patience::Wait), Answer::Busy);
        assert_eq!(locks.request(T3, ROW, RowShared, Patience::Wait), Answer::Busy, "T2 is first");
        assert_eq!(locks.blockers(T3, ROW), [T2]);
        assert_eq!(locks.release(T1, ROW, RowShared), [T2]);
        assert_eq!(locks.release(T2, ROW, RowUpdate), [T3]);
        assert!(locks.release(T3, ROW, RowShared).is_empty());
        assert!(locks.is_empty());
    }

    #[test]
    fn who_gives_up_waiting_lets_others_through() {
        let mut locks = LockTable::default();
        locks.request(T1, ROW, RowShared, Patience::Wait);
        locks.request(T2, ROW, RowUpdate, Patience::Wait);
        locks.request(T3, ROW, RowShared, Patience::Wait);
        assert_eq!(locks.cancel(T2, ROW), [T3]);
        assert_eq!(locks.request(T2, ROW, RowUpdate, Patience::Give), Answer::Busy);
        assert!(locks.blockers(T2, ROW).is_empty(), "not queued");
    }

    #[test]
    fn a_holder_gets_more_before_those_who_hold_nothing() {
        let mut locks = LockTable::default();
        locks.request(T1, ROW, RowShared, Patience::Wait);
        locks.request(T2, ROW, RowShared, Patience::Wait);
        assert_eq!(locks.request(T3, ROW, RowUpdate, Patience::Wait), Answer::Busy);
        assert_eq!(locks.request(T1, ROW, RowUpdate, Patience::Wait), Answer::Busy, "T2 shares it");
        assert_eq!(locks.release(T2, ROW, RowShared), [T1]);
        assert_eq!(locks.request(T1, ROW, RowKeyShare, Patience::Wait), Answer::Held);
        // Back to what it held before: T3 still has to wait for that.
        assert!(locks.release(T1, ROW, RowUpdate).is_empty());
        assert_eq!(locks.release(T1, ROW, RowShared), [T3]);
    }

    #[test]
    fn what_a_stronger_mode_keeps_out_is_covered_by_it() {
        let mut locks = LockTable::default();
        locks.request(T1, ROW, RowUpdate, Patience::Wait);
        assert!(LockMode::ALL[..5].iter().all(|mode| locks.covers(T1, ROW, *mode)));
        assert!(!locks.covers(T1, ROW, RowRemoval), "who looks for the row is not kept out yet");
        assert!(!locks.covers(T2, ROW, RowKeyShare), "it is another's");
        assert!(locks.is_held_by(T1, ROW) && !locks.is_held_by(T2, ROW));
        assert_eq!(locks.request(T1, ROW, RowRemoval, Patience::Give), Answer::Raised);
        locks.release(T1, ROW, RowRemoval);
        locks.release(T1, ROW, RowUpdate);
        locks.request(T1, ROW, RowShared, Patience::Wait);
        assert!(locks.covers(T1, ROW, RowKeyShare) && !locks.covers(T1, ROW, RowNoKeyUpdate));
    }

    #[test]
    fn a_cycle_is_found_whatever_its_length_and_named_in_order() {
        let graph: HashMap<Owner, Vec<Owner>> =
            HashMap::from([(T1, vec![Owner(9), T2]), (T2, vec![T3]), (T3, vec![T1]), (Owner(9), vec![T3])]);
        let waits = |owner| graph.get(&owner).cloned().unwrap_or_default();
        assert_eq!(find_cycle(T1, waits).unwrap(), [T1, T2, T3]);
        let acyclic = |owner| {
            if owner == T1 {
                vec![T2, T3]
            } else if owner == T2 {
                vec![T3]
            } else {
                Vec::new()
            }
        };
        assert_eq!(find_cycle(T1, acyclic), None);
    }

    /// The same rules, one list and no cleverness.
    #[derive(Default)]
    struct Twin {
        held: Vec<(Owner, Resource, LockMode)>,
        queue: Vec<(Owner, Resource, LockMode)>,
    }

    impl Twin {
        fn blocked(&self, owner: Owner, resource: Resource, mode: LockMode) -> bool {
            self.held.iter().any(|held| held.0 != owner && held.1 == resource && held.2.conflicts_with(mode))
        }

        fn holds(&self, owner: Owner, resource: Resource) -> bool {
            self.held.iter().any(|held| held.0 == owner && held.1 == resource)
        }

        fn request(&mut self, owner: Owner, resource: Resource, mode: LockMode) {
            let holds = self.holds(owner, resource);
            let queued = self.queue.iter().any(|other| other.1 == resource && other.2.conflicts_with(mode));
            if !self.blocked(owner, resource, mode) && (holds || !queued) {
                self.held.push((owner, resource, mode));
                return;
            }
            let place = self.queue.iter().position(|other| other.1 == resource && !self.holds(other.0, resource));
            match place.filter(|_| holds) {
                Some(place) => self.queue.insert(place, (owner, resource, mode)),
                None => self.queue.push((owner, resource, mode)),
            }
        }

        fn serve(&mut self) -> Vec<Owner> {
            let (mut granted, mut at) = (Vec::new(), 0);
            while at < self.queue.len() {
                let (owner, resource, mode) = self.queue[at];
                let overtakes =
                    |other: &&(Owner, Resource, LockMode)| other.1 == resource && other.2.conflicts_with(mode);
                if self.queue[..at].iter().any(|other| overtakes(&other)) || self.blocked(owner, resource, mode) {
                    at += 1;
                } else {
                    self.held.push(self.queue.remove(at));
                    granted.push(owner);
                }
            }
            granted
        }
    }

    /// A small generator of pseudo-random numbers (xorshift, Marsaglia 2003), so that the crate needs no other.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    #[test]
    fn random_histories_agree_with_the_twin() {
        for seed in 1..=400 {
            let (mut random, mut locks, mut twin) = (Random(seed), LockTable::default(), Twin::default());
            for _ in 0..120 {
                let owner = Owner(random.below(5));
                let waits = twin.queue.iter().find(|waiter| waiter.0 == owner).copied();
                let mut granted = match (waits, random.below(4)) {
                    (Some((_, resource, _)), 0) => {
                        twin.queue.retain(|waiter| waiter.0 != owner);
                        locks.cancel(owner, resource)
                    }
                    (Some(_), _) => continue,
                    (None, 0..=2) => {
                        let resource = Resource::Row { table: 1, key: random.below(3) };
                        let mode = LockMode::ALL[random.below(6) as usize];
                        if locks.request(owner, resource, mode, Patience::Wait) != Answer::Held {
                            twin.request(owner, resource, mode);
                        }
                        Vec::new()
                    }
                    (None, _) => {
                        let Some(at) = twin.held.iter().position(|held| held.0 == owner) else { continue };
                        let (_, resource, mode) = twin.held.swap_remove(at);
                        locks.release(owner, resource, mode)
                    }
                };
                let mut expected = twin.serve();
                granted.sort();
                expected.sort();
                assert_eq!(granted, expected, "seed {seed}");
                for (owner, resource, mode) in &twin.held {
                    assert!(locks.holds(*owner, *resource, *mode), "seed {seed}: {owner:?} {resource:?} {mode}");
                }
                for (owner, resource, _) in &twin.queue {
                    assert!(!locks.blockers(*owner, *resource).is_empty(), "seed {seed}: {owner:?} waits for nobody");
                }
            }
        }
    }

    #[test]
    fn random_graphs_have_a_cycle_where_the_closure_says_so() {
        for seed in 1..=300 {
            let mut random = Random(seed);
            let size = 6;
            let mut reaches = vec![vec![false; size]; size];
            for _ in 0..random.below(9) {
                let (from, to) = (random.below(size as u64) as usize, random.below(size as u64) as usize);
                reaches[from][to] = from != to;
            }
            let edges = reaches.clone();
            for middle in 0..size {
                for from in 0..size {
                    for to in 0..size {
                        reaches[from][to] |= reaches[from][middle] && reaches[middle][to];
                    }
                }
            }
            let waits = |owner: Owner| {
                let row = edges.get(owner.0 as usize).into_iter().flatten().enumerate();
                row.filter(|(_, edge)| **edge).map(|(to, _)| Owner(to as u64)).collect()
            };
            for (start, row) in reaches.iter().enumerate() {
                let cycle = find_cycle(Owner(start as u64), waits);
                assert_eq!(cycle.is_some(), row[start], "seed {seed}, from {start}");
                for (at, owner) in cycle.iter().flatten().enumerate() {
                    let cycle = cycle.as_deref().unwrap_or_default();
                    let next = cycle[(at + 1) % cycle.len()];
                    assert!(edges[owner.0 as usize][next.0 as usize], "seed {seed}: {cycle:?}");
                }
            }
        }
    }
}
