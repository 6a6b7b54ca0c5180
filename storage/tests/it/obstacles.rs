//! What the row path's functions have to wait for: parts of segments that are not in memory, and locks. Each is overcome, and
//! then the attempt gives what it would have given at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_storage::{
    Attempt, Blocked, Change, Durability, Error, FoundRow, Isolation, KeyRange, LockMode, LockWait, MemoryFiles,
    NewIndex, NewTable, Obstacle, RangeWindow, ReadView, RowLock, Store, StoreOptions, TableDef, Transaction,
    TransactionOptions, Tries, WantedColumns, insist,
};

use crate::common::*;

/// Fewer than are merged: what a program waits for stays what it is.
const SEGMENTS: i64 = 3;
const ROWS: i64 = 20;

fn key_of(table: &TableDef, id: i64) -> Vec<u8> {
    let mut range = KeyRange::new(table, None).unwrap();
    range.push(Some(&id.to_le_bytes())).unwrap();
    range.key().to_vec()
}

fn row_of(table: &TableDef, id: i64, name: &str) -> Bytes {
    let mut writer = table.row_writer().unwrap();
    writer.push(Some(&id.to_le_bytes())).unwrap();
    writer.push(Some(name.as_bytes())).unwrap();
    writer.finish().unwrap()
}

fn name_of(table: &TableDef, row: &FoundRow) -> String {
    String::from_utf8(table.stored_value(&row.bytes, 1).unwrap().to_vec()).unwrap()
}

/// A table whose rows lie in some segments: `SEGMENTS * ROWS` rows, the keys of each segment between those of the others.
async fn filled(unique: bool) -> MemoryFiles {
    let table = NewTable { indexes: vec![NewIndex::new("by_name", vec![1], unique)], ..keyed("t") };
    let (files, store, table) = store_with(table).await;
    for segment in 0..SEGMENTS {
        let names: Vec<(i64, String)> =
            (0..ROWS).map(|row| row * SEGMENTS + segment).map(|id| (id, name(id))).collect();
        let rows: Vec<(i64, &str)> = names.iter().map(|(id, name)| (*id, name.as_str())).collect();
        insert(&store, table, &rows).await.unwrap();
        store.flush().await.unwrap();
    }
    store.close().await.unwrap();
    files
}

fn name(id: i64) -> String {
    format!("n{id:05}")
}

/// The same store, opened again: nothing of its segments is in memory, nor stays there for long with a small cache.
async fn cold(files: &MemoryFiles, column_cache_bytes: usize) -> (Store, Arc<TableDef>) {
    let store = Store::open(StoreOptions { column_cache_bytes, ..options(files) }).await.unwrap();
    let table = Arc::clone(store.snapshot().catalog().find("public", "t").unwrap());
    (store, table)
}

const ROOMY: usize = 64 << 20;

fn obstacle<T: std::fmt::Debug>(attempt: Attempt<T>) -> Obstacle {
    match attempt {
        Err(Blocked::Waits(obstacle)) => obstacle,
        other => panic!("nothing stood in the way: {other:?}"),
    }
}

/// Tries something until it ends; `None`: the tries have ended first. Returns how often it had to wait, too.
async fn waits<T: std::fmt::Debug>(view: &ReadView, attempt: impl Fn() -> Attempt<T>) -> (usize, Option<T>) {
    let mut tries = Tries::new(view);
    for count in 0.. {
        match attempt() {
            Ok(done) => return (count, Some(done)),
            Err(Blocked::Failed(error)) => panic!("{error}"),
            Err(Blocked::Waits(obstacle)) => {
                if !tries.overcome(obstacle).await.unwrap() {
                    return (count, None);
                }
            }
        }
    }
    unreachable!("tries end")
}

#[tokio::test]
async fn a_cold_row_is_found_after_its_keys_and_its_columns_were_loaded() {
    let files = filled(false).await;
    let (store, table) = cold(&files, ROOMY).await;
    let (view, columns) = (store.snapshot(), WantedColumns::new(&table, 0..2));
    let (id, absent) = (SEGMENTS * 7 + 2, -1);
    let (count, found) = waits(&view, || view.stored_row(&table, &key_of(&table, id), &columns)).await;
    assert_eq!(name_of(&table, &found.flatten().unwrap()), name(id));
    assert_eq!(count, 2, "once for the keys of all segments, once for the columns of one");
    // By now it is all there.
    assert!(view.stored_row(&table, &key_of(&table, id), &columns).unwrap().is_some());
    assert!(!view.has_stored(&table, &key_of(&table, absent)).unwrap());
    assert!(view.has_stored(&table, &key_of(&table, id + 1)).unwrap());
}

#[tokio::test]
async fn a_range_over_many_cold_segments_waits_once_for_each_kind_of_part() {
    let files = filled(false).await;
    for (index, bound) in [(None, 0i64.to_le_bytes().to_vec()), (Some(0), b"n".to_vec())] {
        let (store, table) = cold(&files, ROOMY).await;
        let (view, columns) = (store.snapshot(), WantedColumns::new(&table, 0..2));
        let mut range = KeyRange::new(&table, index).unwrap();
        range.bound(Some((&bound, true)), None).unwrap();
        let window = RangeWindow { descending: true, limit: 50, rows_max: 1000 };
        let (count, found) = waits(&view, || view.stored_range(&table, &range, window, &columns)).await;
        let names: Vec<String> = found.flatten().unwrap().iter().map(|row| name_of(&table, row)).collect();
        let expected: Vec<String> = (0..SEGMENTS * ROWS).rev().take(50).map(name).collect();
        assert_eq!(names, expected);
        assert_eq!(count, 2, "for keys or postings, and for columns");
    }
}

#[tokio::test]
async fn tries_end_where_memory_is_too_short_for_what_must_be_there_together() {
    let files = MemoryFiles::new();
    let store = open(&files).await;
    let mut transaction = store.begin();
    for number in 0..20 {
        let table = transaction.create_table(keyed(&format!("t{number}"))).unwrap().id;
        transaction.insert(table, &rows(&[(number, "a")])).await.unwrap();
    }
    transaction.commit(Durability::Sync).await.unwrap();
    store.flush().await.unwrap();
    store.close().await.unwrap();
    let store = Store::open(StoreOptions { column_cache_bytes: 1, ..options(&files) }).await.unwrap();
    let view = store.snapshot();
    let tables: Vec<_> = view.catalog().tables().cloned().collect();
    // More key indexes and columns than are pinned.
    let read_all = || {
        let found = tables.iter().map(|table| {
            let number: i64 = table.name[1..].parse().unwrap();
            let columns = WantedColumns::new(table, 0..2);
            Ok(view.stored_row(table, &key_of(table, number), &columns)?.is_some())
        });
        found.collect::<Attempt<Vec<bool>>>()
    };
    let (count, found) = waits(&view, read_all).await;
    assert!(found.is_none() && count < 40, "{found:?} after {count} tries");
    // Who insists gets it.
    assert_eq!(insist(read_all).await.unwrap(), [true; 20]);
}

#[tokio::test]
async fn what_a_row_of_one_segment_needs_is_pinned_however_small_the_cache_is() {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "one"), (2, "two")]).await.unwrap();
    store.flush().await.unwrap();
    store.close().await.unwrap();
    let (store, table) = cold(&files, 1).await;
    let (view, columns) = (store.snapshot(), WantedColumns::new(&table, 0..2));
    let (count, found) = waits(&view, || view.stored_row(&table, &key_of(&table, 2), &columns)).await;
    assert_eq!(name_of(&table, &found.flatten().unwrap()), "two");
    assert_eq!(count, 2);
}

#[tokio::test]
async fn a_new_value_of_a_unique_index_waits_for_cold_postings_and_then_knows() {
    let files = filled(true).await;
    let (store, table) = cold(&files, ROOMY).await;
    for (id, name, expected) in [(1000, name(9), Change::Taken), (1001, "n99999".to_owned(), Change::Made)] {
        let mut transaction = store.begin_with(TransactionOptions::default()).await;
        let row = row_of(&table, id, &name);
        let first = transaction.insert_stored(&table, vec![row.clone()]);
        let changed = match first {
            Ok(changed) => changed,
            Err(Blocked::Failed(error)) => panic!("{error}"),
            Err(Blocked::Waits(obstacle)) => {
                assert!(!transaction.has_writes(), "nothing was changed");
                let mut tries = Tries::new(transaction.as_view());
                assert!(tries.overcome(obstacle).await.unwrap());
                insist(|| transaction.insert_stored(&table, vec![row.clone()])).await.unwrap()
            }
        };
        assert_eq!(changed, expected);
        transaction.rollback();
    }
}

async fn begin(store: &Store) -> Transaction {
    store.begin_with(TransactionOptions { isolation: Isolation::Snapshot, ..TransactionOptions::default() }).await
}

fn change(transaction: &mut Transaction, table: &TableDef, id: i64, name: &str) -> Attempt<Change> {
    let columns = WantedColumns::new(table, 0..2);
    let found = transaction.as_view().stored_row(table, &key_of(table, id), &columns)?.unwrap();
    transaction.update_stored(table, vec![(found, row_of(table, id, name))])
}

async fn with_rows(rows: &[(i64, &str)]) -> (Store, Arc<TableDef>) {
    let (_, store, table) = store_with(keyed("t")).await;
    insert(&store, table, rows).await.unwrap();
    let table = Arc::clone(store.snapshot().catalog().find("public", "t").unwrap());
    (store, table)
}

#[tokio::test]
async fn a_change_waits_for_the_lock_and_goes_on_or_conflicts_as_its_holder_ends() {
    for commits in [false, true] {
        let (store, table) = with_rows(&[(1, "a"), (2, "b")]).await;
        let (mut first, mut second) = (begin(&store).await, begin(&store).await);
        assert_eq!(change(&mut first, &table, 1, "first").unwrap(), Change::Made);
        let held = obstacle(change(&mut second, &table, 1, "second"));
        assert!(!second.has_writes());
        let mut tries = Tries::new(second.as_view());
        let waiting = tokio::spawn(async move { tries.overcome(held).await });
        while store.lock_waits() == 0 {
            tokio::task::yield_now().await;
        }
        match commits {
            true => drop(first.commit(Durability::Sync).await.unwrap()),
            false => first.rollback(),
        }
        assert!(waiting.await.unwrap().unwrap(), "it is worth trying again");
        match change(&mut second, &table, 1, "second") {
            Ok(Change::Made) => assert!(!commits),
            Err(Blocked::Failed(Error::Conflict { .. })) => assert!(commits),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn all_locks_of_a_change_are_waited_for_in_one_go_and_in_one_order() {
    let (store, table) = with_rows(&[(1, "a"), (2, "b"), (3, "c")]).await;
    let mut holders = Vec::new();
    for id in 1..=3 {
        let mut holder = begin(&store).await;
        assert_eq!(change(&mut holder, &table, id, "held").unwrap(), Change::Made);
        holders.push(holder);
    }
    let mut all = begin(&store).await;
    let keys: Vec<Vec<u8>> = (1..=3).map(|id| key_of(&table, id)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let held = obstacle(all.lock_stored(&table, &keys, RowLock::Update, None));
    let mut tries = Tries::new(all.as_view());
    let waiting = tokio::spawn(async move { tries.overcome(held).await });
    for holder in holders {
        while store.lock_waits() == 0 {
            tokio::task::yield_now().await;
        }
        holder.rollback();
    }
    assert!(waiting.await.unwrap().unwrap());
    all.lock_stored(&table, &keys, RowLock::Update, None).unwrap();
}

#[tokio::test]
async fn a_circle_a_time_limit_and_nowait_end_the_wait_for_a_lock() {
    let (store, table) = with_rows(&[(1, "a"), (2, "b")]).await;
    let (mut first, mut second) = (begin(&store).await, begin(&store).await);
    assert_eq!(change(&mut first, &table, 1, "first").unwrap(), Change::Made);
    assert_eq!(change(&mut second, &table, 2, "second").unwrap(), Change::Made);
    let keys = [key_of(&table, 1)];
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let refused = second.lock_stored(&table, &keys, RowLock::Share, Some(LockWait::NoWait));
    assert!(matches!(refused, Err(Blocked::Failed(Error::LockNotAvailable { .. }))), "{refused:?}");
    let limit = LockWait::Wait(Some(Duration::from_millis(5)));
    let held = obstacle(second.lock_stored(&table, &keys, RowLock::Share, Some(limit)));
    let ended = Tries::new(second.as_view()).overcome(held).await;
    assert!(matches!(ended, Err(Error::LockTimeout { .. })), "{ended:?}");

    let held = obstacle(change(&mut first, &table, 2, "first"));
    let mut tries = Tries::new(first.as_view());
    let waiting = tokio::spawn(async move { tries.overcome(held).await });
    while store.lock_waits() == 0 {
        tokio::task::yield_now().await;
    }
    let closing = obstacle(change(&mut second, &table, 1, "second"));
    let ended = Tries::new(second.as_view()).overcome(closing).await;
    assert!(matches!(ended, Err(Error::Deadlock { .. })), "{ended:?}");
    second.rollback();
    assert!(waiting.await.unwrap().unwrap());
    assert_eq!(change(&mut first, &table, 2, "first").unwrap(), Change::Made);
}

/// What an attempt has locked before it met an obstacle is not counted again by the next.
#[tokio::test]
async fn trying_again_needs_no_more_room_for_locks() {
    const LOCK_BYTES: usize = 160;
    let (files, store, table) = store_with(keyed("t")).await;
    let rows: Vec<(i64, &str)> = (0..100).map(|id| (id, "a")).collect();
    insert(&store, table, &rows).await.unwrap();
    store.close().await.unwrap();
    let small = StoreOptions { transaction_bytes: 110 * LOCK_BYTES, ..options(&files) };
    let store = Store::open(small).await.unwrap();
    let table = Arc::clone(store.snapshot().catalog().find("public", "t").unwrap());
    let (mut holder, mut all) = (begin(&store).await, begin(&store).await);
    let keys: Vec<Vec<u8>> = (0..100).map(|id| key_of(&table, id)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    holder.lock_stored(&table, &keys[50..51], RowLock::Update, None).unwrap();
    let held = obstacle(all.lock_stored(&table, &keys, RowLock::Update, None));
    holder.rollback();
    assert!(Tries::new(all.as_view()).overcome(held).await.unwrap());
    for _ in 0..3 {
        all.lock_stored(&table, &keys, RowLock::Update, None).unwrap();
    }
    let more =
        all.lock_stored(&table, &[b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"10"], RowLock::Update, None);
    assert!(matches!(more, Err(Blocked::Failed(Error::TransactionTooLarge { .. }))), "{more:?}");
}

#[tokio::test]
async fn free_rows_are_locked_in_order_and_others_passed_over() {
    let (store, table) = with_rows(&[(1, "a"), (2, "b"), (3, "c"), (4, "d")]).await;
    let (mut holder, mut taker, mut third) = (begin(&store).await, begin(&store).await, begin(&store).await);
    let keys: Vec<Vec<u8>> = (1..=4).map(|id| key_of(&table, id)).collect();
    let keys = || keys.iter().map(Vec::as_slice);
    let own = keys().skip(1).take(1).collect::<Vec<_>>();
    holder.lock_stored(&table, &own, RowLock::Update, None).unwrap();
    assert_eq!(taker.lock_free_stored(&table, keys(), 2, RowLock::Update).unwrap(), [0, 2]);
    assert_eq!(third.lock_free_stored(&table, keys(), usize::MAX, RowLock::Update).unwrap(), [3]);
    assert!(taker.lock_free_stored(&table, keys(), 0, RowLock::Update).unwrap().is_empty());
    // Whoever has a row may lock it again.
    assert_eq!(taker.lock_free_stored(&table, keys(), 4, RowLock::Update).unwrap(), [0, 2]);
}

/// While something is loaded, rows that were busy may become free: what was locked instead of them is given back.
#[tokio::test]
async fn free_rows_are_given_back_if_something_has_to_be_loaded_first() {
    let files = filled(false).await;
    // Nothing stays in memory, so that it has to be loaded whether a row that was changed since is in the snapshot.
    let (store, table) = cold(&files, 1).await;
    let (mut taker, mut other, mut writer) = (begin(&store).await, begin(&store).await, begin(&store).await);
    assert_eq!(insist(|| change(&mut writer, &table, 2, "newer")).await.unwrap(), Change::Made);
    writer.commit(Durability::Sync).await.unwrap();
    let keys: Vec<Vec<u8>> = (0..3).map(|id| key_of(&table, id)).collect();
    let keys = || keys.iter().map(Vec::as_slice);
    let missing = obstacle(taker.lock_free_stored(&table, keys(), 3, RowLock::Update));
    let first: Vec<&[u8]> = keys().take(2).collect();
    other.lock_stored(&table, &first, RowLock::Update, Some(LockWait::NoWait)).unwrap();
    other.rollback();
    drop(missing);
    let result = insist(|| taker.lock_free_stored(&table, keys(), 3, RowLock::Update)).await;
    assert!(matches!(result, Err(Error::Conflict { .. })), "{result:?}");
}

/// The rows that a new snapshot shows may be others.
#[tokio::test]
async fn free_rows_are_given_back_if_one_of_them_has_changed() {
    let (store, table) = with_rows(&[(1, "a"), (2, "b"), (3, "c")]).await;
    let (mut taker, mut other, mut writer) = (begin(&store).await, begin(&store).await, begin(&store).await);
    assert_eq!(change(&mut writer, &table, 3, "newer").unwrap(), Change::Made);
    writer.commit(Durability::Sync).await.unwrap();
    let keys: Vec<Vec<u8>> = (1..=3).map(|id| key_of(&table, id)).collect();
    let keys = || keys.iter().map(Vec::as_slice);
    // What it had before stays.
    let first: Vec<&[u8]> = keys().take(1).collect();
    taker.lock_stored(&table, &first, RowLock::Update, None).unwrap();
    let result = taker.lock_free_stored(&table, keys(), 3, RowLock::Update);
    assert!(matches!(result, Err(Blocked::Failed(Error::Conflict { .. }))), "{result:?}");
    assert_eq!(other.lock_free_stored(&table, keys().take(2), 2, RowLock::Update).unwrap(), [1]);
}

#[tokio::test]
async fn nowait_and_skip_locked_wait_for_the_table() {
    let (store, table) = with_rows(&[(1, "a"), (2, "b"), (3, "c")]).await;
    let keys: Vec<Vec<u8>> = (1..=3).map(|id| key_of(&table, id)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let nowait = Some(LockWait::NoWait);
    for skips in [false, true] {
        let (mut holder, mut taker, mut other) = (begin(&store).await, begin(&store).await, begin(&store).await);
        other.lock_stored(&table, &keys[1..2], RowLock::Update, None).unwrap();
        holder.lock_table(table.id, LockMode::Share, None).await.unwrap();
        // Only who changes rows is kept out.
        taker.lock_stored(&table, &keys[..1], RowLock::Update, nowait).unwrap();
        taker.rollback();
        other.rollback();
        holder.rollback();
        let (mut holder, mut taker, mut other) = (begin(&store).await, begin(&store).await, begin(&store).await);
        holder.lock_table(table.id, LockMode::Exclusive, None).await.unwrap();
        let mut attempt = || match skips {
            false => taker.lock_stored(&table, &keys[..1], RowLock::Update, nowait).map(|()| vec![0]),
            true => taker.lock_free_stored(&table, keys.iter().copied(), 3, RowLock::Update),
        };
        let held = obstacle(attempt());
        let view = store.snapshot();
        let waiting = tokio::spawn(async move { Tries::new(&view).overcome(held).await });
        while store.lock_waits() == 0 {
            tokio::task::yield_now().await;
        }
        holder.rollback();
        assert!(waiting.await.unwrap().unwrap());
        other.lock_stored(&table, &keys[1..2], RowLock::Update, None).unwrap();
        assert_eq!(attempt().unwrap(), if skips { vec![0, 2] } else { vec![0] });
        // Rows are not waited for.
        let refused = taker.lock_stored(&table, &keys[1..2], RowLock::Update, nowait);
        assert!(matches!(refused, Err(Blocked::Failed(Error::LockNotAvailable { .. }))), "{refused:?}");
    }
}

#[tokio::test]
async fn new_values_of_a_unique_index_wait_once_for_all_segments_that_came_since() {
    let by_name = NewTable { indexes: vec![NewIndex::new("by_name", vec![1], true)], ..keyed("t") };
    let (_, store, id) = store_with(by_name).await;
    let table = Arc::clone(store.snapshot().catalog().find("public", "t").unwrap());
    let mut transaction = begin(&store).await;
    // Each segment has values of its own, and between them there is one that is free.
    for first in (0..SEGMENTS).map(|segment| segment * 100) {
        insert(&store, id, &[(first, &name(first)), (first + 50, &name(first + 50))]).await.unwrap();
        store.flush().await.unwrap();
    }
    let new = (0..SEGMENTS).map(|segment| row_of(&table, 10_000 + segment, &name(segment * 100 + 25)));
    let new: Vec<Bytes> = new.collect();
    let mut tries = Tries::new(transaction.as_view());
    let mut waits = 0;
    let changed = loop {
        match transaction.insert_stored(&table, new.clone()) {
            Err(Blocked::Waits(obstacle)) => {
                assert!(tries.overcome(obstacle).await.unwrap());
                waits += 1;
            }
            ended => break ended.unwrap(),
        }
    };
    assert_eq!((waits, changed), (1, Change::Made));
}

#[tokio::test]
async fn the_keys_of_rows_that_nobody_has_written_are_not_needed() {
    let (files, store, id) = store_with(keyed("t")).await;
    for first in (0..SEGMENTS).map(|segment| segment * 100) {
        insert(&store, id, &[(first, "a"), (first + 50, "b")]).await.unwrap();
        store.flush().await.unwrap();
    }
    store.close().await.unwrap();
    let (store, table) = cold(&files, ROOMY).await;
    let (mut taker, mut writer) = (begin(&store).await, begin(&store).await);
    assert_eq!(insist(|| change(&mut writer, &table, 100, "newer")).await.unwrap(), Change::Made);
    writer.commit(Durability::Sync).await.unwrap();
    let loaded = store.memory().key_index_bytes;
    assert!(loaded > 0, "the keys of one segment");
    let keys: Vec<Vec<u8>> = (0..SEGMENTS).map(|segment| key_of(&table, segment * 100)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let locked = insist(|| taker.lock_stored(&table, &keys, RowLock::Update, None)).await;
    assert!(matches!(locked, Err(Error::Conflict { .. })), "{locked:?}");
    taker.lock_stored(&table, &keys[2..], RowLock::Update, None).unwrap();
    assert_eq!(store.memory().key_index_bytes, loaded);
}

#[tokio::test]
async fn what_is_pinned_and_not_kept_by_the_cache_is_taken_out_of_its_budget() {
    let (files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "one"), (2, "two")]).await.unwrap();
    store.flush().await.unwrap();
    store.close().await.unwrap();
    for (column_cache_bytes, is_counted) in [(1, true), (ROOMY, false)] {
        let (store, table) = cold(&files, column_cache_bytes).await;
        let (view, columns) = (store.snapshot(), WantedColumns::new(&table, 0..2));
        let mut tries = Tries::new(&view);
        while let Err(Blocked::Waits(obstacle)) = view.stored_row(&table, &key_of(&table, 2), &columns) {
            assert!(tries.overcome(obstacle).await.unwrap());
            assert_eq!(store.memory().background_bytes > 0, is_counted);
        }
        drop(tries);
        assert_eq!(store.memory().background_bytes, 0);
    }
}

fn find(view: &ReadView, table: &TableDef, id: i64) -> Option<FoundRow> {
    view.stored_row(table, &key_of(table, id), &WantedColumns::new(table, 0..2)).unwrap()
}

/// The same table in a store whose transactions may take little memory.
async fn with_little_room(table: NewTable, rows: &[(i64, &str)], transaction_bytes: usize) -> (Store, Arc<TableDef>) {
    let (files, store, table) = store_with(table).await;
    insert(&store, table, rows).await.unwrap();
    store.close().await.unwrap();
    let store = Store::open(StoreOptions { transaction_bytes, ..options(&files) }).await.unwrap();
    let table = Arc::clone(store.snapshot().catalog().find("public", "t").unwrap());
    (store, table)
}

#[tokio::test]
async fn a_row_that_is_locked_for_update_needs_no_other_lock_to_be_changed() {
    let rows: Vec<(i64, &str)> = (0..100).map(|id| (id, "a")).collect();
    // 160 bytes a lock.
    let (store, table) = with_little_room(keyed("t"), &rows, 110 * 160).await;
    let mut transaction = begin(&store).await;
    let keys: Vec<Vec<u8>> = (0..100).map(|id| key_of(&table, id)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    transaction.lock_stored(&table, &keys, RowLock::Update, None).unwrap();
    let found = (0..100).map(|id| (find(transaction.as_view(), &table, id).unwrap(), row_of(&table, id, "b")));
    let changes = found.collect();
    assert_eq!(transaction.update_stored(&table, changes).unwrap(), Change::Made);
}

/// What a row is locked for first stays beside what it is locked for then, which takes a list's entry and not another lock.
#[tokio::test]
async fn a_row_that_is_locked_for_update_needs_little_more_to_be_removed() {
    let rows: Vec<(i64, &str)> = (0..100).map(|id| (id, "a")).collect();
    for by_rows in [false, true] {
        let (store, table) = with_little_room(keyed("t"), &rows, 130 * 160).await;
        let mut transaction = begin(&store).await;
        let ids: Vec<i64> = (0..100).collect();
        transaction.lock_rows(table.id, &keys(&ids), RowLock::Update, None).await.unwrap();
        match by_rows {
            true => {
                let found: Vec<FoundRow> =
                    ids.iter().map(|id| find(transaction.as_view(), &table, *id).unwrap()).collect();
                transaction.delete_stored(&table, &found).unwrap();
            }
            false => assert_eq!(transaction.delete(table.id, &keys(&ids)).await.unwrap(), 100),
        }
        transaction.commit(Durability::Sync).await.unwrap();
        assert_eq!(contents(&store.snapshot(), table.id).await.len(), 0);
    }
}

#[tokio::test]
async fn deletes_that_need_too_much_room_delete_nothing() {
    let by_name = NewTable { indexes: vec![NewIndex::new("by_name", vec![1], false)], ..keyed("t") };
    let rows: Vec<(i64, &str)> = (0..200).map(|id| (id, "a")).collect();
    let (store, table) = with_little_room(by_name, &rows, 150 * 160).await;
    let mut transaction = begin(&store).await;
    let own = (1000..1010).map(|id| row_of(&table, id, "own")).collect();
    assert_eq!(transaction.insert_stored(&table, own).unwrap(), Change::Made);
    let mut delete = |ids: std::ops::Range<i64>| {
        let rows: Vec<FoundRow> = ids.map(|id| find(transaction.as_view(), &table, id).unwrap()).collect();
        let deleted = transaction.delete_stored(&table, &rows);
        match deleted {
            Ok(()) => true,
            Err(Blocked::Failed(Error::TransactionTooLarge { .. })) => false,
            other => panic!("{other:?}"),
        }
    };
    let fitting = (0..20).take_while(|turn| delete(turn * 10..turn * 10 + 10)).count() as i64;
    // Locks alone would have allowed fourteen.
    assert!((5..14).contains(&fitting), "{fitting}");
    // What it has inserted itself is there already.
    assert!(delete(1000..1010));
    let view = transaction.as_view();
    assert!((0..200).all(|id| find(view, &table, id).is_some() == (id >= fitting * 10)));
    assert!(find(view, &table, 1000).is_none());
}

#[tokio::test]
async fn a_row_that_an_index_cannot_have_is_refused_before_any_is_changed() {
    let by_name = NewTable { indexes: vec![NewIndex::new("by_name", vec![1], false)], ..keyed("t") };
    let (_, store, id) = store_with(by_name).await;
    insert(&store, id, &[(1, "a"), (2, "b")]).await.unwrap();
    let table = Arc::clone(store.snapshot().catalog().find("public", "t").unwrap());
    // A zero takes two bytes of the 4,096 that an index value may have.
    for too_long in ["x".repeat(5000), "\0".repeat(2100)] {
        let mut transaction = begin(&store).await;
        let found = |transaction: &Transaction, id| find(transaction.as_view(), &table, id).unwrap();
        let changes = vec![
            (found(&transaction, 1), row_of(&table, 1, "c")),
            (found(&transaction, 2), row_of(&table, 2, &too_long)),
        ];
        let changed = transaction.update_stored(&table, changes);
        assert!(matches!(changed, Err(Blocked::Failed(Error::Unsupported(_)))), "{changed:?}");
        // A new key as well.
        let changes = vec![
            (found(&transaction, 1), row_of(&table, 7, "c")),
            (found(&transaction, 2), row_of(&table, 8, &too_long)),
        ];
        let changed = transaction.update_stored(&table, changes);
        assert!(matches!(changed, Err(Blocked::Failed(Error::Unsupported(_)))), "{changed:?}");
        let new = vec![row_of(&table, 3, "d"), row_of(&table, 4, &too_long)];
        let changed = transaction.insert_stored(&table, new);
        assert!(matches!(changed, Err(Blocked::Failed(Error::Unsupported(_)))), "{changed:?}");
        let changed = transaction.update(id, &keys(&[1, 2]), &rows(&[(1, "c"), (2, &too_long)])).await;
        assert!(matches!(changed, Err(Error::Unsupported(_))), "{changed:?}");
        let changed = transaction.insert(id, &rows(&[(3, "d"), (4, &too_long)])).await;
        assert!(matches!(changed, Err(Error::Unsupported(_))), "{changed:?}");
        assert!(!transaction.has_writes());
        assert_eq!(contents(&transaction.view(), id).await, map(&[(1, "a"), (2, "b")]));
    }
    let mut transaction = begin(&store).await;
    for just_short in ["x".repeat(4000), "\0".repeat(2000)] {
        let changes = vec![(find(transaction.as_view(), &table, 1).unwrap(), row_of(&table, 1, &just_short))];
        assert_eq!(transaction.update_stored(&table, changes).unwrap(), Change::Made);
    }
}
