//! Changes of a log against a plain map of what they leave.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Field, Schema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::catalog::{Catalog, IndexId, NewIndex, NewTable};
use crate::index::Interval;

const TABLE: TableId = TableId(1);

fn table() -> TableDef {
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("text", DataType::Utf8View, false)];
    let table = NewTable {
        schema_name: "public".into(),
        name: "t".into(),
        schema: Arc::new(Schema::new(fields)),
        primary_key: vec![0],
        foreign_keys: vec![],
        indexes: vec![NewIndex::new("by_text", vec![1], false)],
    };
    TableDef::new(TABLE, IndexId(2), table).unwrap()
}

fn row(table: &TableDef, id: i64, text: &str) -> Bytes {
    let mut writer = table.codec().unwrap().rows.writer();
    writer.push(Some(&id.to_le_bytes())).unwrap();
    writer.push(Some(text.as_bytes())).unwrap();
    writer.finish().unwrap()
}

fn key(id: i64) -> [u8; 8] {
    (id ^ i64::MIN).to_be_bytes()
}

type Twin = BTreeMap<i64, (String, Timestamp)>;

/// A change of a key: where its row lies in the window, or none; and when it was committed.
type Waiting = (i64, Option<(usize, usize)>, Timestamp);

/// Takes over `changes` random changes in windows of about `window_bytes`, with so many keys.
fn changes_of(
    random: &mut StdRng,
    table: &Arc<TableDef>,
    keys: i64,
    changes: u64,
    window_bytes: usize,
) -> (RowChanges, Twin) {
    let (mut twin, mut all) = (Twin::new(), RowChanges::settling_at(4 * window_bytes));
    let ascending = random.random_bool(0.3);
    let (mut window, mut timestamp) = (Vec::new(), 0);
    let mut waiting: Vec<Waiting> = Vec::new();
    for change in 0..changes {
        timestamp += u64::from(random.random_bool(0.3));
        let id = if ascending { change as i64 % keys } else { random.random_range(0..keys) };
        let place = random.random_bool(0.8).then(|| {
            let text = format!("{:0width$}", random.random_range(0..50), width = random.random_range(2..60));
            let row = row(table, id, &text);
            twin.insert(id, (text, timestamp));
            window.extend_from_slice(b"head");
            window.extend_from_slice(&row);
            (window.len() - row.len(), window.len())
        });
        if place.is_none() {
            twin.remove(&id);
        }
        waiting.push((id, place, timestamp));
        if window.len() >= window_bytes || change + 1 == changes {
            let full = Bytes::from(std::mem::take(&mut window));
            for (id, place, timestamp) in waiting.drain(..) {
                all.begin_window(&full);
                let find = || Ok(Arc::clone(table));
                match place {
                    Some((start, end)) => all.put(TABLE, &full[start..end], timestamp, find).unwrap(),
                    None => all.delete(TABLE, &key(id), timestamp, find).unwrap(),
                }
                all.settle_if_many();
            }
        }
    }
    (all, twin)
}

#[tokio::test]
async fn of_every_key_the_last_change_is_put_in_place_with_its_index_entries() {
    let table = Arc::new(table());
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let keys = [3, 100, 5_000][seed as usize % 3];
        let count = random.random_range(1..6_000);
        // From windows with a row each to one for everything.
        let window_bytes = [1, 300, 5_000, 10 << 20][seed as usize % 4];
        let (changes, twin) = changes_of(&mut random, &table, keys, count, window_bytes);
        let version = Version::new(Catalog::with_version(1, [Arc::clone(&table)]), HashMap::new());
        let greatest = changes.put_in_place(&version, |_| true).await.unwrap();
        assert_eq!(greatest.len(), 1, "seed {seed}");
        let part = version.active.table(TABLE).unwrap();
        let mut found = Vec::new();
        part.collect_visible(
            None,
            Timestamp::MAX,
            usize::MAX,
            |_| false,
            |key, row, written| {
                found.push((key.to_vec(), row, written));
            },
        );
        let expected: Vec<(Vec<u8>, Bytes, Timestamp)> =
            twin.iter().map(|(id, (text, written))| (key(*id).to_vec(), row(&table, *id, text), *written)).collect();
        assert!(found == expected, "seed {seed}: {} rows, not {}", found.len(), expected.len());

        let mut indexed = Vec::new();
        let index = (table.indexes[0].id, &table.codec().unwrap().indexes[0]);
        let everything = Interval::of_prefix(b"");
        part.walk_index(index, &table, &everything, false, Timestamp::MAX, |row| {
            indexed.push((row.value.to_vec(), row.key.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(indexed.is_sorted(), "seed {seed}");
        assert_eq!(indexed.len(), twin.len(), "seed {seed}");
    }
}

#[test]
fn a_log_of_many_changes_to_few_rows_does_not_keep_its_windows() {
    let table = Arc::new(table());
    let mut random = StdRng::seed_from_u64(1);
    let (changes, twin) = changes_of(&mut random, &table, 100, 50_000, 10_000);
    assert!(twin.len() <= 100);
    assert!(changes.window_bytes < 8 * 10_000, "{} bytes", changes.window_bytes);
}

#[test]
fn a_log_most_of_which_counts_is_not_settled_again_and_again() {
    let table = Arc::new(table());
    let mut random = StdRng::seed_from_u64(3);
    // Most keys are changed once or twice.
    let (mut changes, twin) = changes_of(&mut random, &table, 50_000, 50_000, 10_000);
    let (all, different) = changes.tables[0].changes.counts();
    assert_eq!(all, 50_000, "nothing was dropped");
    assert!(different > twin.len(), "{different}");
    assert!(changes.settle_bytes >= changes.window_bytes, "it is looked at again when there is more");
}

#[tokio::test]
async fn changes_of_a_table_that_goes_are_forgotten() {
    let table = Arc::new(table());
    let mut random = StdRng::seed_from_u64(2);
    let (mut changes, _) = changes_of(&mut random, &table, 100, 1_000, 1_000);
    changes.forget(TABLE);
    let version = Version::new(Catalog::with_version(1, []), HashMap::new());
    assert!(changes.put_in_place(&version, |_| true).await.unwrap().is_empty());
    assert!(version.active.table(TABLE).is_none());
}
