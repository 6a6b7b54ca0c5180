//! Random histories against a slow, obvious twin.
//!
//! Several transactions run interleaved, with flushes, compactions, bulk loads, rewritten tables, restarts, kills and power
//! cuts in between, some of them during a start; and beside them another table with an index comes, changes, and goes. The
//! twin keeps each committed state as a plain map. Every read must agree with the twin of its snapshot, every commit with the
//! twin's verdict. What happened is printed when a history fails. `RUSTYDB_SEED=n` repeats one history,
//! `RUSTYDB_SEEDS=n` runs more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::common::*;
use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{
    CompareOp, Durability, Error, Filter, MemoryFiles, NewIndex, NewTable, Store, StoreOptions, TableId, Transaction,
};

const KEYS: i64 = 24;
const STEPS: usize = 120;

/// key → (value, number of the commit that wrote it)
type State = BTreeMap<i64, (String, u64)>;

struct Running {
    transaction: Transaction,
    snapshot: State,
    own: BTreeMap<i64, Option<String>>,
}

impl Running {
    fn visible(&self) -> BTreeMap<i64, String> {
        let mut visible: BTreeMap<i64, String> =
            self.snapshot.iter().map(|(key, (value, _))| (*key, value.clone())).collect();
        for (key, value) in &self.own {
            match value {
                Some(value) => visible.insert(*key, value.clone()),
                None => visible.remove(key),
            };
        }
        visible
    }

    /// Whether first-committer-wins lets the transaction commit on top of `current`.
    fn may_commit(&self, current: &State) -> bool {
        self.own.iter().all(|(key, value)| match (self.snapshot.get(key), current.get(key)) {
            (Some(seen), now) => now == Some(seen),
            (None, now) => value.is_none() || now.is_none(),
        })
    }
}

struct World {
    files: MemoryFiles,
    store: Store,
    table: TableId,
    current: State,
    commits: u64,
    running: Vec<Running>,
    /// A table that nobody else changes, and what is in it.
    side: Option<(TableId, BTreeMap<i64, String>)>,
}

impl World {
    async fn new(random: &mut StdRng) -> World {
        let files = MemoryFiles::new();
        let store = Store::open(Self::options(&files, random)).await.unwrap();
        let mut transaction = store.begin();
        let table = transaction.create_table(keyed("t")).unwrap().id;
        transaction.commit(Durability::Sync).await.unwrap();
        let (current, running) = (State::new(), Vec::new());
        World { files, store, table, current, commits: 0, running, side: None }
    }

    /// Tiny memtables and caches in some histories, so that flushes and evictions come by themselves, too.
    fn options(files: &MemoryFiles, random: &mut StdRng) -> StoreOptions {
        let memtable_bytes = if random.random_bool(0.5) { 2_000 } else { 1 << 20 };
        let column_cache_bytes = if random.random_bool(0.5) { 100 } else { 1 << 20 };
        StoreOptions { memtable_bytes, column_cache_bytes, ..options(files) }
    }

    async fn step(&mut self, random: &mut StdRng) {
        match random.random_range(0..100) {
            0..=14 if self.running.len() < 5 => {
                let (transaction, snapshot) = (self.store.begin(), self.current.clone());
                self.running.push(Running { transaction, snapshot, own: BTreeMap::new() });
                println!("begin #{}", self.running.len() - 1);
            }
            15..=69 if !self.running.is_empty() => self.statement(random).await,
            70..=84 if !self.running.is_empty() => {
                let index = random.random_range(0..self.running.len());
                self.commit(index, random).await;
            }
            85..=87 if !self.running.is_empty() => {
                let index = random.random_range(0..self.running.len());
                self.running.remove(index).transaction.rollback();
                println!("rollback #{index}");
            }
            88..=92 => {
                println!("flush");
                self.store.flush().await.unwrap();
            }
            93..=94 => self.restart(random).await,
            95..=96 => {
                println!("compact");
                self.store.compact().await.unwrap();
            }
            97 => self.rewrite().await,
            98 => self.change_side(random).await,
            _ => {
                self.check_side().await;
                let expected: BTreeMap<i64, String> =
                    self.current.iter().map(|(key, (value, _))| (*key, value.clone())).collect();
                assert_eq!(contents(&self.store.snapshot(), self.table).await, expected, "a fresh snapshot");
            }
        }
    }

    async fn statement(&mut self, random: &mut StdRng) {
        let index = random.random_range(0..self.running.len());
        let (table, running) = (self.table, &mut self.running[index]);
        let visible = running.visible();
        let some_keys: BTreeSet<i64> = (0..random.random_range(1..4)).map(|_| random.random_range(0..KEYS)).collect();
        let value = format!("v{}", random.random_range(0..1_000_000));
        match random.random_range(0..7) {
            kind @ 0..=1 => {
                let data: Vec<(i64, &str)> = some_keys.iter().map(|key| (*key, value.as_str())).collect();
                let taken = some_keys.iter().any(|key| visible.contains_key(key));
                let result = match kind {
                    0 => running.transaction.insert(table, &rows(&data)).await,
                    _ => load(&mut running.transaction, table, &data).await,
                };
                println!("#{index} insert({kind}) {some_keys:?}: {result:?}");
                match result {
                    Ok(_) => {
                        assert!(!taken, "a duplicate was let in");
                        running.own.extend(some_keys.iter().map(|key| (*key, Some(value.clone()))));
                    }
                    Err(Error::DuplicateKey { .. }) => assert!(taken, "no key was taken"),
                    Err(other) => panic!("{other}"),
                }
            }
            2 => {
                let ids: Vec<i64> = some_keys.iter().copied().collect();
                let count = running.transaction.delete(table, &keys(&ids)).await.unwrap();
                println!("#{index} delete {some_keys:?}: {count}");
                let hit: Vec<i64> = ids.into_iter().filter(|key| visible.contains_key(key)).collect();
                assert_eq!(count, hit.len() as u64);
                running.own.extend(hit.into_iter().map(|key| (key, None)));
            }
            3 => {
                let ids: Vec<i64> = some_keys.iter().copied().collect();
                let shift = random.random_range(0..3);
                let data: Vec<(i64, &str)> = ids.iter().map(|key| (key + shift, value.as_str())).collect();
                let hit: Vec<i64> = ids.iter().copied().filter(|key| visible.contains_key(key)).collect();
                let clash = hit.iter().any(|key| visible.contains_key(&(key + shift)) && !hit.contains(&(key + shift)));
                let result = running.transaction.update(table, &keys(&ids), &rows(&data)).await;
                println!("#{index} update {some_keys:?} by {shift}: {result:?}");
                match result {
                    Ok(count) => {
                        assert!(!clash && count == hit.len() as u64, "{count} rows, clash {clash}");
                        running.own.extend(hit.iter().map(|key| (*key, None)));
                        running.own.extend(hit.iter().map(|key| (key + shift, Some(value.clone()))));
                    }
                    Err(Error::DuplicateKey { .. }) => assert!(clash, "no key was taken"),
                    Err(other) => panic!("{other}"),
                }
            }
            4 => {
                let (filters, passes) = random_filters(random);
                let expected: BTreeMap<i64, String> =
                    visible.iter().filter(|(key, value)| passes(**key, value)).map(|(k, v)| (*k, v.clone())).collect();
                let found = filtered_contents(&running.transaction.view(), table, filters.clone()).await;
                assert_eq!(found, expected, "filtered scan of #{index} with {filters:?}");
            }
            5 => {
                let ids: Vec<i64> = (0..KEYS).collect();
                let found = running.transaction.view().lookup(table, &keys(&ids)).await.unwrap();
                let expected: Vec<bool> = ids.iter().map(|key| visible.contains_key(key)).collect();
                assert_eq!(found, expected, "look-ups of #{index}");
            }
            _ => assert_eq!(contents(&running.transaction.view(), table).await, visible, "scan of #{index}"),
        }
    }

    async fn commit(&mut self, index: usize, random: &mut StdRng) {
        let running = self.running.remove(index);
        let expected = running.may_commit(&self.current);
        let durability = if random.random_bool(0.8) { Durability::Sync } else { Durability::Async };
        let result = running.transaction.commit(durability).await;
        println!("commit #{index}: {result:?}");
        match result {
            Ok(_) => {
                assert!(expected, "a lost update was let in");
                self.commits += 1;
                for (key, value) in running.own {
                    match value {
                        Some(value) => drop(self.current.insert(key, (value, self.commits))),
                        None if running.snapshot.contains_key(&key) => drop(self.current.remove(&key)),
                        // Inserted and deleted again: nothing, even if somebody else has inserted the key meanwhile.
                        None => {}
                    }
                }
            }
            Err(Error::Conflict { .. } | Error::DuplicateKey { .. }) => assert!(!expected, "nothing was in the way"),
            Err(other) => panic!("{other}"),
        }
    }

    /// Ends every transaction and puts a new table with the same rows in the place of the old one, as ALTER TABLE does
    /// when rows change their shape.
    async fn rewrite(&mut self) {
        self.running.clear();
        let data: Vec<(i64, &str)> = self.current.iter().map(|(key, (value, _))| (*key, value.as_str())).collect();
        let mut transaction = self.store.begin();
        transaction.drop_table(self.table).unwrap();
        self.table = transaction.create_table(keyed("t")).unwrap().id;
        load(&mut transaction, self.table, &data).await.unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        println!("rewrite into {:?}", self.table);
    }

    /// A step in the life of the other table.
    async fn change_side(&mut self, random: &mut StdRng) {
        let mut transaction = self.store.begin();
        let index = NewIndex::new("side_name", vec![1], false);
        let value = format!("s{}", random.random_range(0..1_000_000));
        let key = random.random_range(0..KEYS);
        let kind = if self.side.is_some() { random.random_range(0..6) } else { 6 };
        println!("side {kind}, key {key}, {value}");
        let (table, mut rows_now) = self.side.take().unwrap_or((self.table, BTreeMap::new()));
        match kind {
            0 => drop(transaction.create_index(table, index).await.unwrap()),
            1 if rows_now.remove(&key).is_some() => drop(transaction.delete(table, &keys(&[key])).await.unwrap()),
            1 | 2 => {
                let mut put = vec![(key, value.as_str())];
                if rows_now.insert(key, value.clone()).is_some() {
                    transaction.update(table, &keys(&[key]), &rows(&put)).await.unwrap();
                } else if random.random_bool(0.5) {
                    load(&mut transaction, table, &put).await.unwrap();
                } else {
                    transaction.insert(table, &rows(&std::mem::take(&mut put))).await.unwrap();
                }
            }
            3 => {
                transaction.drop_table(table).unwrap();
                transaction.commit(Durability::Sync).await.unwrap();
                return;
            }
            _ => {
                if kind < 6 {
                    transaction.drop_table(table).unwrap();
                }
                rows_now.insert(key, value);
                let data: Vec<(i64, &str)> = rows_now.iter().map(|(key, value)| (*key, value.as_str())).collect();
                let indexes = if random.random_bool(0.5) { vec![index] } else { vec![] };
                let table = transaction.create_table(NewTable { indexes, ..keyed("side") }).unwrap().id;
                match kind {
                    4 => drop(transaction.insert(table, &rows(&data)).await.unwrap()),
                    _ => drop(load(&mut transaction, table, &data).await.unwrap()),
                }
                transaction.commit(Durability::Sync).await.unwrap();
                self.side = Some((table, rows_now));
                return;
            }
        }
        transaction.commit(Durability::Async).await.unwrap();
        self.side = Some((table, rows_now));
    }

    async fn check_side(&self) {
        let view = self.store.snapshot();
        let found = view.catalog().find("public", "side").map(|table| table.id);
        assert_eq!(found, self.side.as_ref().map(|(table, _)| *table));
        if let Some((table, rows)) = &self.side {
            assert_eq!(contents(&view, *table).await, *rows, "the other table");
        }
    }

    /// Ends every transaction and opens the store again.
    async fn restart(&mut self, random: &mut StdRng) {
        self.running.clear();
        self.files = end(&self.store, &self.files, random).await;
        self.store = Store::open(Self::options(&self.files, random)).await.unwrap();
    }
}

/// Whether a row with this key and value passes.
type Passes = Box<dyn Fn(i64, &str) -> bool>;

/// Filters on key and value, and the same as a function.
fn random_filters(random: &mut StdRng) -> (Vec<Filter>, Passes) {
    let (low, high) = (random.random_range(0..KEYS), random.random_range(0..KEYS));
    let text = format!("v{}", random.random_range(0..1_000_000));
    let key = |op, value: i64| Filter::Compare { column: 0, op, value: Arc::new(Int64Array::from(vec![value])) };
    let value: ArrayRef = Arc::new(StringViewArray::from(vec![text.as_str()]));
    let above = Filter::Compare { column: 1, op: CompareOp::Gt, value };
    match random.random_range(0..4) {
        0 => (vec![key(CompareOp::GtEq, low)], Box::new(move |key, _| key >= low)),
        1 => (vec![above], Box::new(move |_, value| value > text.as_str())),
        2 => {
            let values: ArrayRef = Arc::new(Int64Array::from(vec![low, high, -1]));
            let list = Filter::In { column: 0, values, negated: false };
            (vec![above, list], Box::new(move |key, value| [low, high].contains(&key) && value > text.as_str()))
        }
        _ => (
            vec![key(CompareOp::NotEq, low), key(CompareOp::Lt, high)],
            Box::new(move |key, _| key != low && key < high),
        ),
    }
}

async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(&mut random).await;
    for _ in 0..STEPS {
        world.step(&mut random).await;
    }
    world.restart(&mut random).await;
    let expected: BTreeMap<i64, String> = world.current.iter().map(|(key, (value, _))| (*key, value.clone())).collect();
    assert_eq!(contents(&world.store.snapshot(), world.table).await, expected, "after the last restart");
    world.check_side().await;
    world.store.close().await.unwrap();
    let report = rustydb_storage::check(options(&world.files)).await.unwrap();
    assert_eq!(report.findings, []);
}

#[test]
fn random_histories_agree_with_the_twin() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let seeds = match from_environment("RUSTYDB_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("RUSTYDB_SEEDS").unwrap_or(1000),
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run(seed))));
        assert!(outcome.is_ok(), "history {seed} failed; RUSTYDB_SEED={seed} repeats it");
    }
}
