//! Everything a client holds by an opaque handle: sessions, tickets, prepared statements, transactions.
//!
//! A handle is 122 random bits, so it cannot be guessed; it belongs to the principal it was given to, and for anyone
//! else it does not exist. A table is bounded, and forgets what nobody used for its idle time. When it is full, tickets and
//! prepared statements of whoever has the most of them go that were not used for longest, so that a client that forgets to
//! close what it opened keeps nobody else out. (A transaction has changes; it is never given up for another.)
//!
//! Invariant: an entry with a [`Lease`] out is in use and never expires for being idle; its idle time starts anew when the last lease
//! is dropped, however long the statement ran. Removing an entry from the table does not take it away from a lease
//! holder: the value is dropped with the last one.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tonic::Status;
use uuid::Uuid;

use crate::auth::Principal;
use crate::status::refuse;

/// The opaque name of something the server keeps for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Handle([u8; 16]);

impl Handle {
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4().into_bytes())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// 32 hexadecimal digits, for handles that travel in headers.
    pub(crate) fn to_text(self) -> String {
        Uuid::from_bytes(self.0).simple().to_string()
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        // Uuid also reads hyphens, braces and urn:uuid:; only the form we write counts.
        (text.len() == 32).then(|| Uuid::try_parse(text).ok().map(|uuid| Self(uuid.into_bytes()))).flatten()
    }
}

/// What one table keeps, in the words of its error messages.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Singular noun.
    pub(crate) name: &'static str,
    /// SQLSTATE of a handle that is unknown, ended, expired, or somebody else's.
    pub(crate) unknown: &'static str,
    /// What to do about that.
    pub(crate) remedy: &'static str,
    /// Whether an entry may be given up before its idle time: the client can make it again, and nothing is lost.
    pub(crate) gives_way: bool,
}

/// Entries that have just been used do not give way: their client is about to use them again.
const USED_JUST_NOW: Duration = Duration::from_secs(1);

/// When a table is full, this part of what its greediest owner has goes at once, so that it is not searched each time.
const SHARE_GIVEN_UP: usize = 16;

pub(crate) const SESSION: Kind = Kind { name: "session", unknown: "28000", remedy: "log in again", gives_way: false };
pub(crate) const TICKET: Kind = Kind {
    name: "ticket",
    unknown: "34000",
    remedy: "a ticket can be fetched once: execute the statement again",
    gives_way: true,
};
pub(crate) const PREPARED: Kind =
    Kind { name: "prepared statement", unknown: "26000", remedy: "prepare the statement again", gives_way: true };
pub(crate) const SAVEPOINT: Kind = Kind {
    name: "savepoint",
    unknown: "3B001",
    remedy: "it ends with its transaction: begin a new one",
    gives_way: false,
};
pub(crate) const TRANSACTION: Kind = Kind {
    name: "transaction",
    unknown: "25P01",
    remedy: "begin a new transaction and repeat its statements",
    gives_way: false,
};

/// A bounded table of values by handle.
pub(crate) struct HandleTable<T> {
    kind: &'static Kind,
    entries_max: usize,
    idle_max: Duration,
    lifetime_max: Option<Duration>,
    entries: Mutex<HashMap<Handle, Arc<Entry<T>>>>,
}

struct Entry<T> {
    value: T,
    owner: Principal,
    created: Instant,
    leases: AtomicUsize,
    last_used: Mutex<Instant>,
}

impl<T> HandleTable<T> {
    pub(crate) fn new(kind: &'static Kind, entries_max: usize, idle_max: Duration) -> Self {
        Self { kind, entries_max, idle_max, lifetime_max: None, entries: Mutex::default() }
    }

    /// Entries end after this time even if they are used.
    pub(crate) fn with_lifetime(self, lifetime_max: Duration) -> Self {
        Self { lifetime_max: Some(lifetime_max), ..self }
    }

    /// Keeps `value` for `owner`.
    pub(crate) fn insert(&self, owner: &Principal, value: T) -> Result<Handle, Status> {
        self.insert_as(owner, Handle::random(), value)
    }

    /// Keeps `value` for `owner` under a handle that was made before.
    pub(crate) fn insert_as(&self, owner: &Principal, handle: Handle, value: T) -> Result<Handle, Status> {
        if self.entries.lock().len() >= self.entries_max {
            self.sweep();
            if self.kind.gives_way && self.entries.lock().len() >= self.entries_max {
                self.make_room_at(Instant::now());
            }
        }
        let mut entries = self.entries.lock();
        if entries.len() >= self.entries_max {
            let name = self.kind.name;
            return Err(refuse("53300", format!("too many {name}s: {} are open", entries.len()))
                .hint(format!("close {name}s that are no longer needed, or raise the server's limit"))
                .into());
        }
        let now = Instant::now();
        let entry = Entry {
            value,
            owner: owner.clone(),
            created: now,
            leases: AtomicUsize::new(0),
            last_used: Mutex::new(now),
        };
        entries.insert(handle, Arc::new(entry));
        Ok(handle)
    }

    /// Reads a handle out of a client's message.
    pub(crate) fn parse(&self, bytes: &[u8]) -> Result<Handle, Status> {
        Handle::from_bytes(bytes).ok_or_else(|| {
            refuse("08P01", format!("malformed {} handle: {} bytes instead of 16", self.kind.name, bytes.len())).into()
        })
    }

    /// Uses an entry.
    pub(crate) fn get(&self, owner: &Principal, handle: Handle) -> Result<Lease<T>, Status> {
        let entries = self.entries.lock();
        match entries.get(&handle) {
            Some(entry) if entry.owner == *owner && !entry.is_old(Instant::now(), self.lifetime_max) => {
                Ok(Lease::of(entry))
            }
            _ => Err(self.unknown()),
        }
    }

    /// Uses an entry and forgets it.
    pub(crate) fn take(&self, owner: &Principal, handle: Handle) -> Result<Lease<T>, Status> {
        let mut entries = self.entries.lock();
        match entries.get(&handle) {
            Some(entry) if entry.owner == *owner => {
                let lease = Lease::of(entry);
                entries.remove(&handle);
                Ok(lease)
            }
            _ => Err(self.unknown()),
        }
    }

    /// The one entry of `owner` that is like this; `None` also if there are several.
    pub(crate) fn only(&self, owner: &Principal, like: impl Fn(&T) -> bool) -> Option<Handle> {
        let entries = self.entries.lock();
        let mut found = entries.iter().filter(|(_, entry)| entry.owner == *owner && like(&entry.value));
        match (found.next(), found.next()) {
            (Some((handle, _)), None) => Some(*handle),
            _ => None,
        }
    }

    /// Whose the entry is; also counts as a use.
    pub(crate) fn owner(&self, handle: Handle) -> Option<Principal> {
        let (entries, now) = (self.entries.lock(), Instant::now());
        entries.get(&handle).filter(|entry| !entry.is_old(now, self.lifetime_max)).map(|entry| {
            *entry.last_used.lock() = now;
            entry.owner.clone()
        })
    }

    /// Forgets what has been idle for too long; the values are dropped after the lock is released, because dropping a
    /// session rolls its transaction back.
    pub(crate) fn sweep(&self) {
        self.sweep_at(Instant::now());
    }

    fn sweep_at(&self, now: Instant) {
        let expired: Vec<_> = {
            let mut entries = self.entries.lock();
            let is_over = |entry: &Entry<T>| entry.is_idle(now, self.idle_max) || entry.is_old(now, self.lifetime_max);
            entries.extract_if(|_, entry| is_over(entry)).collect()
        };
        if !expired.is_empty() {
            tracing::debug!(count = expired.len(), "{}s expired", self.kind.name);
        }
    }

    /// Does this with what has not been used for so long. It is no use of it, and must not take long.
    pub(crate) fn each_idle(&self, idle_min: Duration, act: impl Fn(&T)) {
        let (entries, now) = (self.entries.lock(), Instant::now());
        entries.values().filter(|entry| entry.is_idle(now, idle_min)).for_each(|entry| act(&entry.value));
    }

    /// Forgets what the owner of most entries has not used for longest.
    fn make_room_at(&self, now: Instant) {
        let given_up: Vec<_> = {
            let mut entries = self.entries.lock();
            let mut counts: Vec<(&Principal, usize)> = Vec::new();
            for entry in entries.values() {
                match counts.iter_mut().find(|(owner, _)| **owner == entry.owner) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((&entry.owner, 1)),
                }
            }
            let Some(owner) = counts.iter().max_by_key(|(_, count)| *count).map(|(owner, _)| (*owner).clone()) else {
                return;
            };
            let idle = |entry: &Entry<T>| entry.owner == owner && entry.is_idle(now, USED_JUST_NOW);
            let mut idle: Vec<(Instant, Handle)> = entries
                .iter()
                .filter(|(_, entry)| idle(entry))
                .map(|(handle, entry)| (*entry.last_used.lock(), *handle))
                .collect();
            idle.sort_unstable_by_key(|(last_used, _)| *last_used);
            idle.truncate(idle.len().div_ceil(SHARE_GIVEN_UP));
            idle.iter().filter_map(|(_, handle)| entries.remove(handle)).collect()
        };
        if !given_up.is_empty() {
            tracing::info!(count = given_up.len(), "{}s gave way to new ones: there were too many", self.kind.name);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let entries = std::mem::take(&mut *self.entries.lock());
        drop(entries);
    }

    /// What a handle that is not in the table is answered with.
    pub(crate) fn unknown(&self) -> Status {
        let Kind { name, unknown, remedy, .. } = self.kind;
        refuse(unknown, format!("no such {name}: it has ended, expired, or never existed")).hint(*remedy).into()
    }
}

impl<T> Entry<T> {
    fn is_old(&self, now: Instant, lifetime_max: Option<Duration>) -> bool {
        lifetime_max.is_some_and(|lifetime_max| now.saturating_duration_since(self.created) > lifetime_max)
    }

    fn is_idle(&self, now: Instant, idle_max: Duration) -> bool {
        self.leases.load(Ordering::Acquire) == 0 && now.saturating_duration_since(*self.last_used.lock()) > idle_max
    }
}

/// An entry in use.
pub(crate) struct Lease<T>(Arc<Entry<T>>);

impl<T> Lease<T> {
    fn of(entry: &Arc<Entry<T>>) -> Self {
        entry.leases.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(entry))
    }
}

impl<T> Clone for Lease<T> {
    fn clone(&self) -> Self {
        Self::of(&self.0)
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        // The time first: an entry must never be seen without leases and with the time its statement began.
        *self.0.last_used.lock() = Instant::now();
        self.0.leases.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    const OWNER: Principal = Principal::Token(0);
    const OTHER: Principal = Principal::Token(1);
    const IDLE: Duration = Duration::from_secs(60);

    fn table(entries_max: usize) -> HandleTable<&'static str> {
        HandleTable::new(&PREPARED, entries_max, IDLE)
    }

    #[test]
    fn a_handle_of_somebody_else_does_not_exist() {
        let table = table(8);
        let handle = table.insert(&OWNER, "mine").expect("room");
        assert_eq!(*table.get(&OWNER, handle).expect("mine"), "mine");
        let stolen = table.get(&OTHER, handle).err().expect("refused");
        let unknown = table.get(&OWNER, Handle::random()).err().expect("refused");
        assert_eq!((stolen.code(), stolen.message()), (unknown.code(), unknown.message()));
        assert!(table.take(&OTHER, handle).is_err());
        assert!(table.get(&OWNER, handle).is_ok());
    }

    #[test]
    fn taking_an_entry_works_once() {
        let table = table(8);
        let handle = table.insert(&OWNER, "ticket").expect("room");
        assert_eq!(*table.take(&OWNER, handle).expect("first"), "ticket");
        assert_eq!(table.take(&OWNER, handle).err().expect("second").code(), Code::NotFound);
    }

    #[test]
    fn idle_entries_expire_and_used_ones_do_not() {
        let table = table(8);
        let idle = table.insert(&OWNER, "idle").expect("room");
        let busy = table.insert(&OWNER, "busy").expect("room");
        let lease = table.get(&OWNER, busy).expect("there");
        let later = Instant::now() + IDLE * 2;
        table.sweep_at(later);
        assert!(table.get(&OWNER, idle).is_err());
        assert!(table.get(&OWNER, busy).is_ok());
        drop(lease);
        table.sweep_at(Instant::now() + IDLE / 2);
        assert!(table.get(&OWNER, busy).is_ok(), "idle time starts when the lease ends");
        table.sweep_at(later + IDLE);
        assert!(table.get(&OWNER, busy).is_err());
    }

    #[test]
    fn a_lifetime_ends_also_what_is_in_use() {
        let table = table(8).with_lifetime(IDLE * 3);
        let handle = table.insert(&OWNER, "session").expect("room");
        let lease = table.get(&OWNER, handle).expect("there");
        table.sweep_at(Instant::now() + IDLE * 2);
        assert!(table.owner(handle).is_some());
        table.sweep_at(Instant::now() + IDLE * 4);
        assert!(table.owner(handle).is_none() && table.get(&OWNER, handle).is_err());
        assert_eq!(*lease, "session", "what runs goes on");
    }

    #[test]
    fn the_only_one_is_found_and_one_of_several_is_not() {
        let table = table(8);
        let first = table.insert(&OWNER, "one").expect("room");
        table.insert(&OTHER, "one").expect("room");
        table.insert(&OWNER, "two").expect("room");
        assert_eq!(table.only(&OWNER, |value| *value == "one"), Some(first));
        assert_eq!(table.only(&OWNER, |_| true), None, "there are two");
        assert_eq!(table.only(&OWNER, |value| *value == "three"), None);
    }

    #[test]
    fn a_full_table_refuses_until_something_expires() {
        let table = table(2);
        table.insert(&OWNER, "a").expect("room");
        table.insert(&OWNER, "b").expect("room");
        assert_eq!(table.insert(&OWNER, "c").expect_err("full").code(), Code::ResourceExhausted);
        table.sweep_at(Instant::now() + IDLE * 2);
        table.insert(&OWNER, "c").expect("the idle ones made room");
    }

    #[test]
    fn handles_survive_the_way_through_text_and_bytes() {
        let handle = Handle::random();
        assert_eq!(Handle::from_text(&handle.to_text()), Some(handle));
        assert_eq!(Handle::from_bytes(&handle.to_bytes()), Some(handle));
        assert_eq!(Handle::from_bytes(b"short"), None);
        assert_eq!(Handle::from_text("{67e55044-10b1-426f-9247-bb680e5}"), None);
    }

    #[test]
    fn when_a_table_is_full_the_longest_idle_of_whoever_has_most_gives_way() {
        let table = HandleTable::new(&PREPARED, 5, IDLE);
        let others = table.insert(&OTHER, "others").expect("room");
        let own: Vec<Handle> = (0..4).map(|_| table.insert(&OWNER, "own").expect("room")).collect();
        assert!(table.insert(&OTHER, "more").is_err(), "all were used just now");
        table.make_room_at(Instant::now() + USED_JUST_NOW * 2);
        assert!(table.get(&OTHER, others).is_ok(), "it is older, but its owner has only one");
        let kept = own.iter().filter(|handle| table.get(&OWNER, **handle).is_ok()).count();
        assert_eq!((kept, table.get(&OWNER, own[0]).is_err()), (3, true));
        let transactions = HandleTable::new(&TRANSACTION, 1, IDLE);
        let first = transactions.insert(&OWNER, "first").expect("room");
        assert!(transactions.insert(&OWNER, "second").is_err());
        assert!(transactions.get(&OWNER, first).is_ok());
    }
}
