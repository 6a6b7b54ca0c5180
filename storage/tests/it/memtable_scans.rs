//! Scans of a memtable of many pages, again and again while it changes: by new snapshots, by old ones, and by transactions
//! with changes of their own.

use std::collections::BTreeMap;

use crate::common::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{CompareOp, Durability, Filter, ReadView};

type Rows = BTreeMap<i64, String>;

const KEYS: i64 = 30_000;

/// A run of keys, short or long.
fn some_keys(random: &mut StdRng) -> std::ops::Range<i64> {
    let start = random.random_range(0..KEYS);
    let length = if random.random_bool(0.7) { random.random_range(1..50) } else { random.random_range(1..6_000) };
    start..(start + length).min(KEYS)
}

#[tokio::test]
async fn every_scan_sees_its_snapshot_however_much_was_converted_before() {
    for seed in 0..3 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let (_files, store, table) = store_with(keyed("t")).await;
        let mut state = Rows::new();
        let mut old: Vec<(ReadView, Rows)> = Vec::new();
        for step in 0..25 {
            let (keys_of, value) = (some_keys(&mut random), format!("value {step}"));
            let mut transaction = store.begin();
            let before = state.clone();
            let (present, missing): (Vec<i64>, Vec<i64>) = keys_of.partition(|key| state.contains_key(key));
            if random.random_bool(0.4) {
                transaction.delete(table, &keys(&present)).await.unwrap();
                present.iter().for_each(|key| drop(state.remove(key)));
            } else {
                let new: Vec<(i64, &str)> = present.iter().map(|key| (*key, value.as_str())).collect();
                transaction.update(table, &keys(&present), &rows(&new)).await.unwrap();
                state.extend(map(&new));
            }
            let new: Vec<(i64, &str)> = missing.iter().map(|key| (*key, value.as_str())).collect();
            transaction.insert(table, &rows(&new)).await.unwrap();
            state.extend(map(&new));
            assert_eq!(contents(&store.snapshot(), table).await, before, "step {step}, before the commit");
            assert_eq!(contents(&transaction.view(), table).await, state, "step {step}, inside");
            transaction.commit(Durability::Async).await.unwrap();
            assert_eq!(contents(&store.snapshot(), table).await, state, "step {step}");
            let limit = random.random_range(0..KEYS);
            let id = std::sync::Arc::new(arrow::array::Int64Array::from(vec![limit]));
            let filter = Filter::Compare { column: 0, op: CompareOp::Lt, value: id };
            let below = filtered_contents(&store.snapshot(), table, vec![filter]).await;
            assert!(below.iter().eq(state.range(..limit)), "step {step}, below {limit}");
            if random.random_bool(0.3) {
                old.push((store.snapshot(), state.clone()));
            }
            if let Some((view, expected)) = old.get(random.random_range(0..old.len().max(1))) {
                assert_eq!(contents(view, table).await, *expected, "step {step}, an old snapshot");
            }
            if step == 15 {
                store.flush().await.unwrap();
            }
        }
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn converted_rows_are_accounted_and_go_with_the_memtable() {
    let (_files, store, table) = store_with(keyed("t")).await;
    let data: Vec<(i64, String)> = (0..10_000).map(|id| (id, format!("a name for {id}"))).collect();
    let data: Vec<(i64, &str)> = data.iter().map(|(id, name)| (*id, name.as_str())).collect();
    insert(&store, table, &data).await.unwrap();
    let before = store.memory().memtable_bytes;
    contents(&store.snapshot(), table).await;
    let converted = store.memory().memtable_bytes;
    assert!(converted > before + 10_000 * 16, "{before} to {converted} bytes");
    update(&store, table, &[7], &[(7, "another")]).await.unwrap();
    contents(&store.snapshot(), table).await;
    assert!(store.memory().memtable_bytes < converted + 10_000, "one changed row is no reason for a new page");
    store.flush().await.unwrap();
    assert_eq!(store.memory().memtable_bytes, 0);
}
