//! Marks against a model: whatever was done since one is taken back, and nothing else; in memory, in segments, and in an
//! index.

use std::collections::BTreeMap;

use crate::common::{contents, keyed, keys, load, rows, store_with};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{Durability, NewIndex, Transaction};

type Model = BTreeMap<i64, String>;

/// Changes a few rows at random, of which some are in segments and some pending.
async fn change(
    transaction: &mut Transaction,
    table: rustydb_storage::TableId,
    model: &mut Model,
    random: &mut StdRng,
    turn: usize,
) {
    let id = random.random_range(0..60);
    let name = format!("{}", turn % 7);
    match random.random_range(0..12) {
        0..5 if !model.contains_key(&id) => {
            transaction.insert(table, &rows(&[(id, &name)])).await.unwrap();
            model.insert(id, name);
        }
        5..9 => {
            let found = transaction.update(table, &keys(&[id]), &rows(&[(id, &name)])).await.unwrap();
            assert_eq!(found, u64::from(model.contains_key(&id)));
            if found > 0 {
                model.insert(id, name);
            }
        }
        9..11 => {
            let found = transaction.delete(table, &keys(&[id])).await.unwrap();
            assert_eq!(found, u64::from(model.remove(&id).is_some()));
        }
        11 => {
            let id = 1000 + turn as i64;
            load(transaction, table, &[(id, "loaded")]).await.unwrap();
            model.insert(id, "loaded".to_owned());
        }
        _ => {}
    }
}

#[tokio::test]
async fn what_was_done_since_a_mark_is_taken_back() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let (_, store, table) = store_with(keyed("t")).await;
        let mut transaction = store.begin();
        let index = NewIndex::new("t_name", vec![1], false);
        transaction.create_index(table, index).await.unwrap();
        let committed: Vec<(i64, String)> = (0..40).map(|id| (id, format!("old{}", id % 3))).collect();
        let committed: Vec<(i64, &str)> = committed.iter().map(|(id, name)| (*id, name.as_str())).collect();
        transaction.insert(table, &rows(&committed[..20])).await.unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        store.flush().await.unwrap();
        crate::common::insert(&store, table, &committed[20..]).await.unwrap();

        let mut transaction = store.begin();
        let mut model: Model = crate::common::map(&committed);
        let mut marks = Vec::new();
        for turn in 0..200 {
            match random.random_range(0..8) {
                0 if marks.len() < 4 => marks.push((transaction.mark(), model.clone())),
                1 => {
                    if let Some((mark, before)) = marks.pop() {
                        if random.random_range(0..3) > 0 {
                            transaction.undo_to(&mark);
                            model = before;
                        }
                        transaction.release(mark);
                    }
                }
                2 if turn % 5 == 0 => {
                    // Rows that are hidden move to other segments.
                    store.flush().await.unwrap();
                    transaction.refresh().await.unwrap();
                }
                _ => change(&mut transaction, table, &mut model, &mut random, turn).await,
            }
            if turn % 10 == 0 {
                assert_eq!(contents(&transaction.view(), table).await, model, "seed {seed}, turn {turn}");
            }
        }
        transaction.commit(Durability::Sync).await.unwrap();
        assert_eq!(contents(&store.snapshot(), table).await, model, "seed {seed}");
    }
}

#[tokio::test]
async fn a_mark_before_ddl_brings_the_tables_back() {
    let (_, store, table) = store_with(keyed("t")).await;
    crate::common::insert(&store, table, &[(1, "a")]).await.unwrap();
    let mut transaction = store.begin();
    transaction.insert(table, &rows(&[(2, "b")])).await.unwrap();
    let mark = transaction.mark();
    transaction.insert(table, &rows(&[(3, "c")])).await.unwrap();
    let index = NewIndex::new("t_name", vec![1], true);
    transaction.create_index(table, index).await.unwrap();
    transaction.insert(table, &rows(&[(4, "d")])).await.unwrap();
    transaction.drop_table(table).unwrap();
    transaction.undo_to(&mark);
    transaction.release(mark);
    assert_eq!(contents(&transaction.view(), table).await, crate::common::map(&[(1, "a"), (2, "b")]));
    transaction.insert(table, &rows(&[(5, "a")])).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, crate::common::map(&[(1, "a"), (2, "b"), (5, "a")]));
}

#[tokio::test]
async fn a_transaction_that_starts_again_has_done_nothing_and_keeps_its_locks() {
    let (_, store, table) = store_with(keyed("t")).await;
    crate::common::insert(&store, table, &[(1, "a")]).await.unwrap();
    let mut transaction = store.begin_with(rustydb_storage::TransactionOptions::default()).await;
    transaction.update(table, &keys(&[1]), &rows(&[(1, "b")])).await.unwrap();
    transaction.create_table(keyed("u")).unwrap();
    transaction.restart();
    assert!(!transaction.has_writes());
    assert_eq!(contents(&transaction.view(), table).await, crate::common::map(&[(1, "a")]));
    let mut other = store.begin_with(rustydb_storage::TransactionOptions::default()).await;
    other.set_lock_wait(rustydb_storage::LockWait::NoWait);
    assert!(other.update(table, &keys(&[1]), &rows(&[(1, "c")])).await.is_err());
}

#[tokio::test]
async fn nothing_is_left_of_a_table_that_was_created_and_filled_since_a_mark() {
    let (_, store, table) = store_with(keyed("t")).await;
    for (turn, in_bulk) in [(0, false), (1, true)] {
        let mut transaction = store.begin();
        transaction.insert(table, &rows(&[(turn, "a")])).await.unwrap();
        let mark = transaction.mark();
        let new = transaction.create_table(keyed("u")).unwrap().id;
        transaction.insert(new, &rows(&[(1, "b"), (2, "c")])).await.unwrap();
        transaction.delete(new, &keys(&[2])).await.unwrap();
        if in_bulk {
            load(&mut transaction, new, &[(3, "d")]).await.unwrap();
        }
        transaction.undo_to(&mark);
        transaction.release(mark);
        transaction.commit(Durability::Sync).await.unwrap();
    }
    // The store goes on.
    crate::common::insert(&store, table, &[(2, "b")]).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, crate::common::map(&[(0, "a"), (1, "a"), (2, "b")]));
}

#[tokio::test]
async fn a_table_whose_changes_were_all_undone_may_be_dropped_by_others() {
    let (_, store, table) = store_with(keyed("t")).await;
    let mut transaction = store.begin();
    let other = transaction.create_table(keyed("u")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    let mut transaction = store.begin();
    transaction.insert(table, &rows(&[(1, "a")])).await.unwrap();
    let mark = transaction.mark();
    transaction.insert(other, &rows(&[(1, "b")])).await.unwrap();
    transaction.undo_to(&mark);
    transaction.release(mark);
    let mut dropping = store.begin();
    dropping.drop_table(other).unwrap();
    dropping.commit(Durability::Sync).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    assert_eq!(contents(&store.snapshot(), table).await, crate::common::map(&[(1, "a")]));
}
