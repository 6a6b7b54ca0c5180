//! Secondary indexes against a slow, obvious twin.
//!
//! Random histories of several transactions on a table with a unique index over a nullable column and an ordinary
//! two-column one; flushes, bulk loads, restarts and crashes, and indexes dropped and made anew in between. Each range read through
//! an index must be what filtering and sorting the twin gives; each statement and commit must be refused exactly when
//! the twin has the value twice. `RUSTYDB_SEED=n` repeats one history, `RUSTYDB_SEEDS=n` runs more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::common::{end, from_environment, keys, options};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{
    Durability, Error, IndexId, MemoryFiles, NewIndex, NewTable, RangeBound, RangeRequest, ReadView, Store,
    StoreOptions, TableId, Transaction,
};

const KEYS: i64 = 20;
const STEPS: usize = 100;

/// What a row holds beside its key: `code` (unique unless NULL) and `word`.
type Row = (Option<i64>, String);
type Rows = BTreeMap<i64, Row>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("code", DataType::Int64, true),
        Field::new("word", DataType::Utf8View, false),
    ]))
}

fn code_index() -> NewIndex {
    NewIndex::new("t_code_key", vec![1], true)
}

fn word_index() -> NewIndex {
    NewIndex::new("t_word_code", vec![2, 1], false)
}

fn batch(rows: &[(i64, Row)]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id));
    let codes: Int64Array = rows.iter().map(|(_, row)| row.0).collect();
    let words = StringViewArray::from_iter_values(rows.iter().map(|(_, row)| row.1.as_str()));
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(codes), Arc::new(words)]).unwrap()
}

fn unbatch(batch: &RecordBatch) -> Vec<(i64, Row)> {
    let (ids, codes) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
    let words = batch.column(2).as_string_view();
    let code = |row: usize| codes.is_valid(row).then(|| codes.value(row));
    (0..batch.num_rows()).map(|row| (ids.value(row), (code(row), words.value(row).to_string()))).collect()
}

struct Running {
    transaction: Transaction,
    snapshot: BTreeMap<i64, (Row, u64)>,
    own: BTreeMap<i64, Option<Row>>,
}

impl Running {
    fn visible(&self) -> Rows {
        let mut visible: Rows = self.snapshot.iter().map(|(key, (row, _))| (*key, row.clone())).collect();
        apply(&mut visible, &self.own);
        visible
    }
}

fn apply(rows: &mut Rows, changes: &BTreeMap<i64, Option<Row>>) {
    for (key, row) in changes {
        match row {
            Some(row) => rows.insert(*key, row.clone()),
            None => rows.remove(key),
        };
    }
}

/// Whether `changes` put a code into `rows` that another row has there or in `changes`.
fn doubles(rows: &Rows, changes: &BTreeMap<i64, Option<Row>>) -> bool {
    let mut after = rows.clone();
    apply(&mut after, changes);
    let codes: Vec<i64> = after.values().filter_map(|row| row.0).collect();
    codes.iter().collect::<BTreeSet<_>>().len() < codes.len()
}

struct World {
    files: MemoryFiles,
    store: Store,
    table: TableId,
    indexes: [IndexId; 2],
    current: BTreeMap<i64, (Row, u64)>,
    commits: u64,
    running: Vec<Running>,
}

impl World {
    async fn new(random: &mut StdRng) -> World {
        let files = MemoryFiles::new();
        let store = Store::open(Self::options(&files, random)).await.unwrap();
        let mut transaction = store.begin();
        let table = NewTable {
            schema_name: "public".into(),
            name: "t".into(),
            schema: schema(),
            primary_key: vec![0],
            foreign_keys: vec![],
            indexes: vec![code_index(), word_index()],
        };
        let table = transaction.create_table(table).unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        let indexes = [table.indexes[0].id, table.indexes[1].id];
        World { files, store, table: table.id, indexes, current: BTreeMap::new(), commits: 0, running: Vec::new() }
    }

    fn options(files: &MemoryFiles, random: &mut StdRng) -> StoreOptions {
        let memtable_bytes = if random.random_bool(0.5) { 3_000 } else { 1 << 20 };
        StoreOptions { memtable_bytes, ..options(files) }
    }

    async fn step(&mut self, random: &mut StdRng) {
        match random.random_range(0..100) {
            0..=14 if self.running.len() < 4 => {
                let (transaction, snapshot) = (self.store.begin(), self.current.clone());
                self.running.push(Running { transaction, snapshot, own: BTreeMap::new() });
            }
            15..=59 if !self.running.is_empty() => self.write(random).await,
            60..=74 if !self.running.is_empty() => {
                let running = &self.running[random.random_range(0..self.running.len())];
                self.read(&running.transaction.view(), &running.visible(), random).await;
            }
            75..=87 if !self.running.is_empty() => {
                let index = random.random_range(0..self.running.len());
                self.commit(index).await;
            }
            88..=90 => self.store.flush().await.unwrap(),
            91..=92 => self.store.compact().await.unwrap(),
            93..=94 => {
                self.running.clear();
                self.files = end(&self.store, &self.files, random).await;
                self.store = Store::open(Self::options(&self.files, random)).await.unwrap();
            }
            95..=96 => self.remake_index(random).await,
            _ => {
                let rows = self.current.iter().map(|(key, (row, _))| (*key, row.clone())).collect();
                self.read(&self.store.snapshot(), &rows, random).await;
            }
        }
    }

    async fn remake_index(&mut self, random: &mut StdRng) {
        let which = random.random_range(0..2);
        println!("index {which} anew");
        self.running.clear();
        let mut transaction = self.store.begin();
        transaction.drop_index(self.table, self.indexes[which]).unwrap();
        let new = if which == 0 { code_index() } else { word_index() };
        let made = transaction.create_index(self.table, new).await.unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        self.indexes[which] = made.id;
    }

    async fn write(&mut self, random: &mut StdRng) {
        let index = random.random_range(0..self.running.len());
        let (table, running) = (self.table, &mut self.running[index]);
        let visible = running.visible();
        let ids: BTreeSet<i64> = (0..random.random_range(1..4)).map(|_| random.random_range(0..KEYS)).collect();
        let mut row = || {
            let code = random.random_bool(0.7).then(|| random.random_range(0..KEYS));
            (code, ["", "a", "ab", "b\0c"][random.random_range(0..4)].to_string())
        };
        let rows: Vec<(i64, Row)> = ids.iter().map(|id| (*id, row())).collect();
        let kind = random.random_range(0..5);
        let ids: Vec<i64> = ids.into_iter().collect();
        let (result, changes, key_taken) = match kind {
            0 | 1 => {
                let result = match kind {
                    0 => running.transaction.insert(table, &batch(&rows)).await,
                    _ => match running.transaction.bulk_insert(table) {
                        Ok(mut bulk) => match bulk.write(batch(&rows)).await {
                            Ok(()) => bulk.finish(&mut running.transaction).await,
                            Err(error) => Err(error),
                        },
                        Err(error) => Err(error),
                    },
                };
                let changes: BTreeMap<i64, Option<Row>> =
                    rows.iter().map(|(id, row)| (*id, Some(row.clone()))).collect();
                (result, changes, ids.iter().any(|id| visible.contains_key(id)))
            }
            2 => {
                let result = running.transaction.delete(table, &keys(&ids)).await;
                let changes = ids.iter().filter(|id| visible.contains_key(id)).map(|id| (*id, None));
                (result, changes.collect(), false)
            }
            _ => {
                let result = running.transaction.update(table, &keys(&ids), &batch(&rows)).await;
                let hit = rows.iter().filter(|(id, _)| visible.contains_key(id));
                (result, hit.map(|(id, row)| (*id, Some(row.clone()))).collect(), false)
            }
        };
        println!("#{index} {kind} {rows:?}: {result:?}");
        let refused = key_taken || doubles(&visible, &changes);
        match result {
            Ok(_) => {
                assert!(!refused, "a duplicate was let in");
                running.own.extend(changes);
            }
            Err(Error::DuplicateKey { constraint, .. }) => {
                assert!(refused, "nothing was there twice");
                assert!(constraint == "t_pkey" || constraint == "t_code_key", "{constraint}");
            }
            Err(other) => panic!("{other}"),
        }
    }

    async fn commit(&mut self, index: usize) {
        let Running { transaction, snapshot, own } = self.running.remove(index);
        let seen = |key: &i64| snapshot.get(key);
        let first = own.iter().all(|(key, row)| match (seen(key), self.current.get(key)) {
            (Some(seen), now) => now == Some(seen),
            (None, now) => row.is_none() || now.is_none(),
        });
        let effective: BTreeMap<i64, Option<Row>> =
            own.into_iter().filter(|(key, row)| row.is_some() || snapshot.contains_key(key)).collect();
        let rows: Rows = self.current.iter().map(|(key, (row, _))| (*key, row.clone())).collect();
        let expected = first && !doubles(&rows, &effective);
        let result = transaction.commit(Durability::Sync).await;
        println!("commit #{index}: {result:?}");
        match result {
            Ok(_) => {
                assert!(expected, "a duplicate or a lost update was let in");
                self.commits += 1;
                for (key, row) in effective {
                    match row {
                        Some(row) => drop(self.current.insert(key, (row, self.commits))),
                        None => drop(self.current.remove(&key)),
                    }
                }
            }
            Err(Error::Conflict { .. } | Error::DuplicateKey { .. }) => assert!(!expected, "nothing was in the way"),
            Err(other) => panic!("{other}"),
        }
    }

    /// One random range through each order there is.
    async fn read(&self, view: &ReadView, rows: &Rows, random: &mut StdRng) {
        let number = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
        let (low, high) = (random.random_range(-1..KEYS), random.random_range(-1..=KEYS));
        let bound = |value: i64, inclusive: bool| Some(RangeBound { value: number(value), inclusive });
        let (low_in, high_in) = (random.random_bool(0.5), random.random_bool(0.5));
        let (lower, upper) = (random.random_bool(0.7), random.random_bool(0.7));
        let inside = |value: i64| {
            let above = !lower || value > low || (low_in && value == low);
            above && (!upper || value < high || (high_in && value == high))
        };
        let descending = random.random_bool(0.5);
        let limit = if random.random_bool(0.5) { random.random_range(1..6) } else { usize::MAX };
        let request = |index: Option<IndexId>, equal: Vec<ArrayRef>| RangeRequest {
            table: self.table,
            index,
            equal,
            lower: lower.then(|| bound(low, low_in)).flatten(),
            upper: upper.then(|| bound(high, high_in)).flatten(),
            descending,
            limit,
            projection: vec![0, 1, 2],
        };
        let cut = |mut wanted: Vec<(i64, Row)>| {
            if descending {
                wanted.reverse();
            }
            wanted.truncate(limit);
            wanted
        };

        let found = unbatch(&view.range(&request(None, vec![])).await.unwrap());
        let wanted = rows.iter().filter(|(key, _)| inside(**key)).map(|(key, row)| (*key, row.clone()));
        assert_eq!(found, cut(wanted.collect()), "by key");

        let found = unbatch(&view.range(&request(Some(self.indexes[0]), vec![])).await.unwrap());
        let bounded = lower || upper;
        let in_range = |row: &Row| row.0.map_or(!bounded, inside);
        let mut wanted: Vec<(i64, Row)> =
            rows.iter().filter(|(_, row)| in_range(row)).map(|(key, row)| (*key, row.clone())).collect();
        wanted.sort_by_key(|(_, row)| (row.0.is_none(), row.0));
        let codes = |rows: &[(i64, Row)]| rows.iter().map(|(_, row)| row.0).collect::<Vec<_>>();
        assert_eq!(codes(&found), codes(&cut(wanted)), "by code, from {low} to {high}");

        let word = ["", "a", "ab", "b\0c"][random.random_range(0..4)];
        let equal: ArrayRef = Arc::new(StringViewArray::from(vec![word]));
        let found = unbatch(&view.range(&request(Some(self.indexes[1]), vec![equal])).await.unwrap());
        let mut wanted: Vec<(i64, Row)> = rows
            .iter()
            .filter(|(_, row)| row.1 == word && in_range(row))
            .map(|(key, row)| (*key, row.clone()))
            .collect();
        wanted.sort_by_key(|(_, row)| (row.0.is_none(), row.0));
        assert!(found.iter().all(|(key, row)| rows.get(key) == Some(row) && row.1 == word), "{found:?}");
        assert_eq!(codes(&found), codes(&cut(wanted)), "by word {word:?} and code");
    }
}

async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(&mut random).await;
    for _ in 0..STEPS {
        world.step(&mut random).await;
    }
    world.running.clear();
    world.store.close().await.unwrap();
    let report = rustydb_storage::check(options(&world.files)).await.unwrap();
    assert_eq!(report.findings, []);
}

#[test]
fn index_reads_and_uniqueness_agree_with_the_twin() {
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
