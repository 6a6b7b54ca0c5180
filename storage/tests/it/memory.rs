//! Little memory: everything works, and nothing has more than it may.

use std::collections::BTreeMap;

use crate::common::*;
use rustydb_storage::{Durability, Error, MemoryFiles, Store, StoreOptions, check};

const MIB: usize = 1024 * 1024;

/// A store whose cache holds a fraction of what the tests put into it.
fn small(files: &MemoryFiles) -> StoreOptions {
    StoreOptions { column_cache_bytes: 8 * MIB, memtable_bytes: MIB, transaction_bytes: MIB, ..options(files) }
}

fn assert_within_limits(store: &Store) {
    let memory = store.memory();
    let cached = memory.column_cache_bytes + memory.key_index_bytes + memory.posting_bytes;
    assert!(cached <= memory.cache_limit_bytes, "{memory:?}");
    assert!(memory.transaction_bytes <= memory.transaction_limit_bytes, "{memory:?}");
}

/// Rows of about 200 bytes.
fn text(id: i64) -> String {
    format!("{id:0>200}")
}

#[tokio::test]
async fn many_rows_are_loaded_and_read_by_key_with_little_memory() {
    const ROWS: i64 = 120_000;
    let files = MemoryFiles::new();
    let store = Store::open(small(&files)).await.unwrap();
    let mut transaction = store.begin();
    let table = transaction.create_table(keyed("t")).unwrap().id;
    let mut bulk = transaction.bulk_insert(table).unwrap();
    for first in 0..ROWS / 1000 {
        // Every batch is spread over all keys, so that every segment may have any key.
        let texts: Vec<(i64, String)> =
            (0..1000).map(|row| row * (ROWS / 1000) + first).map(|id| (id, text(id))).collect();
        let borrowed: Vec<(i64, &str)> = texts.iter().map(|(id, text)| (*id, text.as_str())).collect();
        bulk.write(rows(&borrowed)).await.unwrap();
        assert!(store.memory().background_bytes <= 5 * MIB * 4, "{:?}", store.memory());
        assert_within_limits(&store);
    }
    assert!(store.memory().background_bytes > 0, "a load takes its memory from the cache");
    bulk.finish(&mut transaction).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    assert_eq!(store.memory().background_bytes, 0);
    let segments = files.paths().iter().filter(|(path, _)| path.starts_with("segments/")).count();
    assert!(segments >= 4, "{segments} segments: they were not cut to the memory there is");

    let view = store.snapshot();
    for id in (0..ROWS).step_by(9973).chain([ROWS - 1]) {
        let found = view.get(table, &keys(&[id, -id - 1]), &[0, 1]).await.unwrap();
        assert_eq!(found.columns(), rows(&[(id, &text(id))]).columns());
        assert_within_limits(&store);
    }
    drop(view);
    assert!(store.memory().column_cache_evictions > 0, "{:?}", store.memory());
    delete(&store, table, &[0, 5, ROWS - 1]).await.unwrap();
    update(&store, table, &[7], &[(7, "new")]).await.unwrap();
    assert!(matches!(insert(&store, table, &[(8, "taken")]).await, Err(Error::DuplicateKey { .. })));
    store.flush().await.unwrap();
    store.compact().await.unwrap();
    assert_within_limits(&store);
    let found = contents(&store.snapshot(), table).await;
    assert_eq!((found.len() as i64, found[&7].as_str()), (ROWS - 3, "new"));
    assert!(found.iter().all(|(id, name)| *id == 7 || *name == text(*id)));
    store.close().await.unwrap();
    assert_eq!(check(small(&files)).await.unwrap().findings, []);
}

#[tokio::test]
async fn all_transactions_together_have_a_limit() {
    let files = MemoryFiles::new();
    let store = Store::open(small(&files)).await.unwrap();
    let mut transaction = store.begin();
    let table = transaction.create_table(keyed("t")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    let texts: Vec<(i64, String)> = (0..2000).map(|id| (id, text(id))).collect();
    let of = |first: i64| {
        let borrowed: Vec<(i64, &str)> = texts.iter().map(|(id, text)| (first + id, text.as_str())).collect();
        rows(&borrowed)
    };
    let (mut one, mut other) = (store.begin(), store.begin());
    one.insert(table, &of(0)).await.unwrap();
    let refused = other.insert(table, &of(10_000)).await;
    assert!(matches!(refused, Err(Error::TransactionTooLarge { .. })), "{refused:?}");
    one.commit(Durability::Sync).await.unwrap();
    assert_eq!(store.memory().transaction_bytes, 0);
    other.insert(table, &of(10_000)).await.unwrap();
    assert!(store.memory().transaction_bytes > 400_000);
    other.rollback();
    assert_eq!(store.memory().transaction_bytes, 0);
    assert_eq!(contents(&store.snapshot(), table).await.len(), 2000);
}

#[tokio::test]
async fn what_was_in_memory_before_a_compaction_is_so_after_it_without_the_dead() {
    const ROWS: i64 = 4000;
    let (_, store, table) = store_with(keyed("t")).await;
    // Four segments, whose keys are mixed, and rows in each that die.
    for segment in 0..4 {
        let texts: Vec<(i64, String)> = (0..ROWS).map(|row| 4 * row + segment).map(|id| (id, text(id))).collect();
        let borrowed: Vec<(i64, &str)> = texts.iter().map(|(id, text)| (*id, text.as_str())).collect();
        insert(&store, table, &borrowed).await.unwrap();
        store.flush().await.unwrap();
    }
    let dead: Vec<i64> = (0..4 * ROWS).filter(|id| id % 4 != 1 && id % 100 < 60).collect();
    delete(&store, table, &dead).await.unwrap();
    let before = store.memory();
    store.flush().await.unwrap();
    store.compact().await.unwrap();
    let after = store.memory();
    assert!(after.column_cache_bytes > 0 && after.key_index_bytes > 0, "{after:?}");
    let live = 1.0 - dead.len() as f64 / (4 * ROWS) as f64;
    let expected = before.column_cache_bytes as f64 * live;
    assert!(
        (after.column_cache_bytes as f64) < 1.1 * expected,
        "{} of {}: {live}",
        after.column_cache_bytes,
        before.column_cache_bytes
    );
    let view = store.snapshot();
    for id in (0..4 * ROWS).step_by(7) {
        let found = view.get(table, &keys(&[id]), &[0, 1]).await.unwrap();
        let expected = if dead.binary_search(&id).is_ok() { rows(&[]) } else { rows(&[(id, &text(id))]) };
        assert_eq!(found.columns(), expected.columns());
    }
    assert_eq!(store.memory().column_cache_misses, after.column_cache_misses, "nothing was read again");
}

#[tokio::test]
async fn inputs_of_which_a_part_is_in_memory_are_merged_however_full_the_cache_is() {
    const ROWS: i64 = 5000;
    const SEGMENTS: i64 = 3;
    let (pristine, store, table) = store_with(keyed("t")).await;
    // Segments whose keys are mixed.
    for segment in 0..SEGMENTS {
        let texts: Vec<(i64, String)> =
            (0..ROWS).map(|row| SEGMENTS * row + segment).map(|id| (id, text(id))).collect();
        let borrowed: Vec<(i64, &str)> = texts.iter().map(|(id, text)| (*id, text.as_str())).collect();
        insert(&store, table, &borrowed).await.unwrap();
        store.flush().await.unwrap();
    }
    // Too few rows die for the background to care.
    let is_dead = |id: &i64| id % 10 == 3;
    delete(&store, table, &(0..SEGMENTS * ROWS).filter(is_dead).collect::<Vec<_>>()).await.unwrap();
    store.flush().await.unwrap();
    store.close().await.unwrap();
    let live: BTreeMap<i64, String> = (0..SEGMENTS * ROWS).filter(|id| !is_dead(id)).map(|id| (id, text(id))).collect();

    // Of so many segments the columns are in memory, as far as there is room. They stay there if that is most of the rows.
    for (column_cache_bytes, segments, stays) in [
        (64 * MIB, 0, Some(false)),
        (64 * MIB, 1, Some(false)),
        (64 * MIB, 2, Some(true)),
        (64 * MIB, 3, Some(true)),
        (8 * MIB, 3, None),
        (3 * MIB, 2, None),
        (MIB / 2, 3, None),
        (1, 3, Some(false)),
    ] {
        let case = format!("{column_cache_bytes} bytes, {segments} of the segments");
        let files = pristine.after_kill();
        let store = Store::open(StoreOptions { column_cache_bytes, ..options(&files) }).await.unwrap();
        for id in 0..segments {
            let found = store.snapshot().get(table, &keys(&[id]), &[0, 1]).await.unwrap();
            assert_eq!(found.columns(), rows(&[(id, &text(id))]).columns(), "{case}");
        }
        store.compact().await.unwrap();
        assert_within_limits(&store);
        assert_eq!(store.memory().background_bytes, 0, "{case}");
        let (view, misses) = (store.snapshot(), store.memory().column_cache_misses);
        let found = view.get(table, &keys(&[0, 3, 7]), &[0, 1]).await.unwrap();
        assert_eq!(found.columns(), rows(&[(0, &text(0)), (7, &text(7))]).columns(), "{case}");
        if let Some(stays) = stays {
            assert_eq!(store.memory().column_cache_misses == misses, stays, "{case}");
        }
        assert!(contents(&view, table).await == live, "{case}");
        drop(view);
        store.close().await.unwrap();
        // What is in the file is the same.
        assert_eq!(check(options(&files)).await.unwrap().findings, [], "{case}");
        assert!(contents(&open(&files).await.snapshot(), table).await == live, "{case}");
    }
}
