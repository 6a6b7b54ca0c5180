//! The memtable's tree, delete sets and the order of commits under thousands of interleavings (shuttle).
//!
//! The crate's own source files are compiled here, with locks in place of the real ones that let shuttle choose at each of
//! their calls which thread goes on. A failure prints the schedule, which `shuttle::replay` repeats.

#![allow(dead_code, unreachable_pub, reason = "of the crate's files only a part is used here")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../src/deletes.rs"]
mod deletes;

#[path = "../src/id_map.rs"]
mod id_map;

#[path = "../src/kernel"]
mod kernel {
    mod mask;
    pub(crate) use mask::Mask;
}

#[path = "../src/memtable"]
mod memtable {
    mod directory;
    pub mod filter;
    pub mod leaf;
    mod search;
    mod slab;
    pub mod tree;
}

#[path = "../src/store"]
mod store {
    pub mod publication;
    pub mod sequencer;
}

/// What the crate has in `sync.rs`. The tests inside the files run here, too, without shuttle and with threads of their own.
mod sync {
    use std::cell::Cell;
    use std::ops::{Deref, DerefMut};
    use std::sync::{Arc, TryLockError};

    thread_local! {
        /// Shuttle runs all threads of an execution on the one that has started it.
        static EXPLORING: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs a scenario under many schedules.
    pub fn explore(iterations: usize, scenario: impl Fn() + Send + Sync + 'static) {
        EXPLORING.set(true);
        shuttle::check_random(scenario, iterations);
        EXPLORING.set(false);
    }

    /// Lets another thread go on.
    pub fn pause() {
        match EXPLORING.get() {
            true => shuttle::thread::yield_now(),
            false => std::thread::yield_now(),
        }
    }

    fn acquire<G>(attempt: impl Fn() -> Result<G, TryLockError<G>>) -> G {
        pause();
        loop {
            match attempt() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => pause(),
            }
        }
    }

    #[derive(Debug, Default)]
    pub struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub const fn new(value: T) -> Self {
            Mutex(std::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> impl DerefMut<Target = T> {
            acquire(|| self.0.try_lock())
        }
    }

    #[derive(Debug, Default)]
    pub struct RwLock<T>(std::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub const fn new(value: T) -> Self {
            RwLock(std::sync::RwLock::new(value))
        }

        pub fn read(&self) -> impl Deref<Target = T> {
            acquire(|| self.0.try_read())
        }

        pub fn write(&self) -> impl DerefMut<Target = T> {
            acquire(|| self.0.try_write())
        }

        pub fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap()
        }
    }

    #[derive(Debug)]
    pub struct ArcSwap<T>(std::sync::Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub fn from_pointee(value: T) -> Self {
            ArcSwap(std::sync::Mutex::new(Arc::new(value)))
        }

        pub fn load(&self) -> Arc<T> {
            Arc::clone(&acquire(|| self.0.try_lock()))
        }

        pub fn load_full(&self) -> Arc<T> {
            self.load()
        }

        pub fn store(&self, value: Arc<T>) {
            *acquire(|| self.0.try_lock()) = value;
        }
    }
}

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deletes::DeleteSet;
use memtable::filter::KeyFilter;
use memtable::leaf::Stamped;
use memtable::tree::{Tree, TreeBuilder};
use rustydb_storage::BLOCK_ROWS;
use rustydb_txn::Timestamp;
use shuttle::thread;
use store::publication::Publication;
use store::sequencer::{Admission, Window, footprint, hash};
use sync::{Mutex, explore, pause};

impl Stamped for u64 {
    fn stamp(&self) -> u64 {
        *self
    }

    fn has_ended(&self) -> bool {
        false
    }
}

const EVERYTHING: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Unbounded);

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Walks a tree while others put keys in: what was there before must be seen, once and in order.
fn check_walk(tree: &Tree<u64>, before: u64, step: u64, descending: bool) {
    let mut found = Vec::new();
    tree.walk(
        EVERYTHING,
        descending,
        u64::MAX,
        |value| Some(*value),
        |key, value| {
            found.push((u64::from_be_bytes(key.try_into().unwrap()), value));
            ControlFlow::Continue(())
        },
    );
    if descending {
        found.reverse();
    }
    assert!(found.is_sorted_by(|left, right| left.0 < right.0), "{found:?}");
    assert!(found.iter().all(|(number, value)| number == value));
    let old = found.iter().filter(|(number, _)| number % step == 0 && *number < before * step).count();
    assert_eq!(old as u64, before);
}

/// Full leaves that several threads split at once, and one that reads meanwhile.
fn split_at_once(leaves: u64) {
    const STEP: u64 = 10;
    let before = leaves * 64;
    let mut builder = TreeBuilder::default();
    (0..before).for_each(|number| builder.push(&key(number * STEP), number * STEP));
    let tree: Arc<Tree<u64>> = Arc::new(builder.finish());
    let writers = (1..3_u64).map(|writer| {
        let tree = Arc::clone(&tree);
        thread::spawn(move || {
            for position in [3, 31, 32, 63, 70] {
                let number = (before - 64 + position) * STEP + writer;
                tree.change(&key(number), |_| (Some(number), ()));
                assert_eq!(tree.get(&key(number), |value| *value), Some(number));
                // Both write this one; the second finds the first one's.
                tree.change(&key(5), |value| match value {
                    Some(value) => (None, assert_eq!(*value, 5)),
                    None => (Some(5), ()),
                });
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for number in [before - 64, before - 33, before - 32, before - 1] {
        assert!(tree.get(&key(number * STEP), |_| ()).is_some(), "{number} was there before");
    }
    if leaves < 4 {
        check_walk(&tree, before, STEP, false);
        check_walk(&tree, before, STEP, true);
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    check_walk(&tree, before, STEP, false);
    check_walk(&tree, before, STEP, true);
}

#[test]
fn leaves_may_be_split_by_several_writers_while_others_read() {
    explore(300, || split_at_once(1));
    explore(100, || split_at_once(3));
}

#[test]
fn a_branch_may_be_cut_in_two_while_others_read() {
    explore(20, || split_at_once(192));
}

/// A tree with its filter, as a table's part of a memtable has them.
#[derive(Default)]
struct Filtered {
    tree: Tree<u64>,
    filter: KeyFilter,
    keys: AtomicUsize,
}

impl Filtered {
    fn put(&self, number: u64) {
        self.tree.change(&key(number), |value| {
            if value.is_some() {
                return (None, ());
            }
            self.filter.insert(hash(1, &key(number)));
            self.keys.fetch_add(1, Ordering::Relaxed);
            (Some(number), ())
        });
        let keys = self.keys.load(Ordering::Relaxed);
        if self.filter.is_crowded(keys) {
            self.filter.grow(keys, |note| {
                self.tree.walk(
                    EVERYTHING,
                    false,
                    0,
                    |_| Some(()),
                    |key, ()| {
                        note(hash(1, key));
                        ControlFlow::Continue(())
                    },
                );
            });
        }
    }

    fn may_have(&self, number: u64) -> bool {
        self.filter.may_have(hash(1, &key(number)))
    }
}

#[test]
fn a_filter_that_grows_while_keys_come_in_knows_all_of_them() {
    explore(300, || {
        let filtered = Arc::new(Filtered::default());
        // One more makes it grow.
        (1..=320).for_each(|number| filtered.put(10 * number));
        let writers = (1..4_u64).map(|writer| {
            let filtered = Arc::clone(&filtered);
            thread::spawn(move || {
                for number in [5, 1_000, 1_600, 3_200, 4_000] {
                    filtered.put(number + writer);
                    assert!(filtered.may_have(number + writer), "{number} by {writer}");
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        for number in (1..=320).step_by(40) {
            pause();
            assert!(filtered.may_have(10 * number), "{number} was there before");
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let others = (1..4).flat_map(|writer| [5, 1_000, 1_600, 3_200, 4_000].map(|number| number + writer));
        assert!((1..=320).map(|number| 10 * number).chain(others).all(|number| filtered.may_have(number)));
        assert!(!filtered.filter.is_crowded(400), "it has grown");
    });
}

#[test]
fn a_reader_of_a_delete_set_sees_whole_commits_whatever_order_they_are_applied_in() {
    explore(2_000, || {
        let deletes = Arc::new(DeleteSet::default());
        let publication = Arc::new(Publication::default());
        let committers: Vec<_> = (0..3)
            .map(|_| {
                let (deletes, publication) = (Arc::clone(&deletes), Arc::clone(&publication));
                thread::spawn(move || {
                    let (timestamp, watermark) = publication.allocate(false);
                    for row in 0..2 {
                        deletes.add(timestamp as u32 * 2 + row, timestamp, watermark);
                    }
                    publication.apply(timestamp, None);
                })
            })
            .collect();
        for _ in 0..3 {
            let snapshot = publication.open_snapshot();
            let seen: Vec<u32> = deletes.at(snapshot.timestamp()).iter().flat_map(|deleted| deleted.rows()).collect();
            assert_eq!(seen, (2..2 * snapshot.timestamp() as u32 + 2).collect::<Vec<_>>());
            publication.close_snapshot(snapshot);
        }
        committers.into_iter().for_each(|committer| committer.join().unwrap());
        assert_eq!(publication.published(), 3);
    });
}

/// A store of counters: key → (commit, count), every version.
#[derive(Default)]
struct Counters {
    versions: Mutex<BTreeMap<u64, Vec<(Timestamp, u64)>>>,
}

impl Counters {
    fn newest(&self, key: u64) -> u64 {
        self.versions.lock().get(&key).and_then(|versions| versions.last()).map_or(0, |(_, count)| *count)
    }

    fn at(&self, key: u64, timestamp: Timestamp) -> u64 {
        let versions = self.versions.lock();
        let seen = versions.get(&key).into_iter().flatten().rev().find(|(written, _)| *written <= timestamp);
        seen.map_or(0, |(_, count)| *count)
    }

    fn put(&self, key: u64, timestamp: Timestamp, count: u64) {
        let mut versions = self.versions.lock();
        let versions = versions.entry(key).or_default();
        assert!(versions.last().is_none_or(|(last, _)| *last < timestamp), "versions of one key come in order");
        versions.push((timestamp, count));
    }
}

/// Adds one to two counters, as `store/commit.rs` commits.
fn add_one(keys: [u64; 2], counters: &Counters, publication: &Publication, window: &Mutex<Window>) -> Timestamp {
    let print = footprint(keys.iter().map(|key| hash(1, &key.to_be_bytes())));
    loop {
        let seen = publication.applied();
        let counts = keys.map(|key| counters.newest(key));
        let mut order = window.lock();
        if let Admission::After(other) = order.admit(seen, &print) {
            drop(order);
            while publication.applied() < other {
                pause();
            }
            continue;
        }
        let (timestamp, _) = publication.allocate(true);
        order.add(timestamp, print);
        drop(order);
        for (key, count) in keys.into_iter().zip(counts) {
            counters.put(key, timestamp, count + 1);
        }
        publication.apply(timestamp, None);
        return timestamp;
    }
}

#[test]
fn commits_that_meet_are_ordered_and_snapshots_see_all_of_one_or_nothing() {
    explore(3_000, || {
        let counters = Arc::new(Counters::default());
        let publication = Arc::new(Publication::default());
        let window = Arc::new(Mutex::new(Window::after(0)));
        let committers: Vec<_> = [[1, 2], [2, 3], [1, 3], [4, 5]]
            .into_iter()
            .map(|keys| {
                let (counters, publication) = (Arc::clone(&counters), Arc::clone(&publication));
                let window = Arc::clone(&window);
                thread::spawn(move || {
                    let timestamp = add_one(keys, &counters, &publication, &window);
                    shuttle::future::block_on(publication.wait(timestamp)).unwrap();
                    assert!(publication.published() >= timestamp);
                })
            })
            .collect();
        let log = {
            let publication = Arc::clone(&publication);
            thread::spawn(move || {
                while publication.published() < 4 {
                    publication.make_durable(publication.allocated());
                    pause();
                }
            })
        };
        for _ in 0..3 {
            let snapshot = publication.open_snapshot();
            let counts: Vec<u64> = (1..6).map(|key| counters.at(key, snapshot.timestamp())).collect();
            // Each commit adds two, so a half of one would make it odd; 4 and 5 are of the same one.
            assert_eq!(counts.iter().sum::<u64>(), 2 * snapshot.timestamp(), "{counts:?}");
            assert_eq!(counts[3], counts[4]);
            publication.close_snapshot(snapshot);
        }
        committers.into_iter().for_each(|committer| committer.join().unwrap());
        log.join().unwrap();
        assert_eq!((1..6).map(|key| counters.newest(key)).collect::<Vec<_>>(), [2, 2, 2, 1, 1]);
    });
}
