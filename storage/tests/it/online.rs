//! What goes on beside others: an index that is made while rows change, and readers that take their time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::*;
use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::Int64Type;
use rustydb_storage::{
    Durability, Error, IndexId, MemoryFiles, NewIndex, RangeRequest, ReadView, ScanRequest, Store, StoreOptions,
    TableId,
};

/// The rows that an index finds, each by its own name; they have different names.
async fn by_index(view: &ReadView, table: TableId, index: IndexId) -> BTreeMap<i64, String> {
    let mut found = BTreeMap::new();
    for (id, name) in contents(view, table).await {
        let name_array: ArrayRef = Arc::new(StringViewArray::from(vec![name.as_str()]));
        let request = RangeRequest {
            table,
            index: Some(index),
            equal: vec![name_array],
            lower: None,
            upper: None,
            descending: false,
            limit: usize::MAX,
            projection: vec![0],
        };
        let rows = view.range(&request).await.unwrap();
        let ids: Vec<i64> = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(ids, [id], "rows whose name is {name}");
        found.insert(id, name);
    }
    found
}

#[tokio::test]
async fn an_index_has_what_others_commit_while_it_is_made_and_keeps_none_of_them_waiting() {
    for (flush_between, unique) in [(false, false), (true, false), (false, true)] {
        let (_files, store, table) = store_with(keyed("t")).await;
        insert(&store, table, &[(1, "one"), (2, "two"), (3, "three")]).await.unwrap();
        let mut before = store.begin();
        before.insert(table, &rows(&[(4, "four")])).await.unwrap();

        let mut making = store.begin();
        let index = making.create_index(table, NewIndex::new("by_name", vec![1], unique)).await.unwrap();
        if !unique {
            // The transaction that makes the index is open, and these commit.
            update(&store, table, &[2], &[(2, "deux")]).await.unwrap();
            delete(&store, table, &[3]).await.unwrap();
        }
        if flush_between {
            store.flush().await.unwrap();
        }
        if !unique {
            insert(&store, table, &[(5, "five")]).await.unwrap();
        }
        making.commit(Durability::Sync).await.unwrap();
        // This one began before there was an index.
        before.commit(Durability::Sync).await.unwrap();
        insert(&store, table, &[(6, "six")]).await.unwrap();
        let expected = match unique {
            true => map(&[(1, "one"), (2, "two"), (3, "three"), (4, "four"), (6, "six")]),
            false => map(&[(1, "one"), (2, "deux"), (4, "four"), (5, "five"), (6, "six")]),
        };
        assert_eq!(by_index(&store.snapshot(), table, index.id).await, expected);
        store.flush().await.unwrap();
        assert_eq!(by_index(&store.snapshot(), table, index.id).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_made_among_writers_miss_nothing() {
    let files = MemoryFiles::new();
    // Flushes come in between now and then.
    let store = Store::open(StoreOptions { memtable_bytes: 60_000, ..options(&files) }).await.unwrap();
    let mut transaction = store.begin();
    let table = transaction.create_table(keyed("t")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2_i64)
        .map(|writer| {
            let (store, done) = (store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                for step in 0_i64.. {
                    if done.load(Ordering::Relaxed) {
                        return step;
                    }
                    let id = 2 * step + writer;
                    insert(&store, table, &[(id, &format!("name {id}"))]).await.unwrap();
                    let changed = 2 * (step / 2) + writer;
                    update(&store, table, &[changed], &[(changed, &format!("name {changed} of step {step}"))])
                        .await
                        .unwrap();
                }
                0
            })
        })
        .collect();
    let mut indexes = Vec::new();
    for number in 0..10 {
        // Between two indexes some commits.
        let seen = store.snapshot().timestamp();
        while store.snapshot().timestamp() < seen + 50 {
            tokio::task::yield_now().await;
        }
        let mut transaction = store.begin();
        let index = NewIndex::new(format!("index_{number}"), vec![1], false);
        indexes.push(transaction.create_index(table, index).await.unwrap().id);
        transaction.commit(Durability::Sync).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    let view = store.snapshot();
    let expected = contents(&view, table).await;
    for index in indexes {
        assert_eq!(by_index(&view, table, index).await, expected);
    }
}

/// Waits until readers pin so much and no more: the store's own threads may be looking at an older version for a moment.
async fn pins(store: &Store, bytes: usize) {
    let wait = async {
        while store.memory().pinned_bytes != bytes {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "{} bytes are pinned instead of {bytes}", store.memory().pinned_bytes);
}

#[tokio::test]
async fn what_a_reader_keeps_of_a_written_memtable_is_accounted_and_goes_with_it() {
    let (_files, store, table) = store_with(keyed("t")).await;
    insert(&store, table, &[(1, "one"), (2, "two")]).await.unwrap();
    let (first, again) = (store.snapshot(), store.snapshot());
    store.flush().await.unwrap();
    assert_eq!(store.memory().memtable_bytes, 0);
    let pinned = store.memory().pinned_bytes;
    assert!(pinned > 0, "two readers have the rows as they were");
    drop(first);
    assert_eq!(store.memory().pinned_bytes, pinned);

    insert(&store, table, &[(3, "three")]).await.unwrap();
    store.flush().await.unwrap();
    pins(&store, pinned).await;
    assert_eq!(contents(&again, table).await, map(&[(1, "one"), (2, "two")]));
    drop(again);
    pins(&store, 0).await;
}

/// Waits until there are so many files of segments.
async fn has_segment_files(files: &MemoryFiles, count: usize) {
    let there = || files.paths().iter().filter(|(path, _)| path.starts_with("segments/")).count();
    let wait = async {
        while there() != count {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "{} files, not {count}", there());
}

#[tokio::test]
async fn a_view_of_one_table_keeps_nothing_of_the_others() {
    let (files, store, read) = store_with(keyed("read")).await;
    let mut transaction = store.begin();
    let other = transaction.create_table(keyed("other")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    for table in [read, other] {
        insert(&store, table, &[(1, "one"), (2, "two")]).await.unwrap();
    }
    store.flush().await.unwrap();
    pins(&store, 0).await;
    for table in [read, other] {
        insert(&store, table, &[(3, "three")]).await.unwrap();
    }
    let (whole, before) = (store.snapshot(), store.memory().memtable_bytes);
    let narrow = whole.only(&[read]);
    assert_eq!(narrow.timestamp(), whole.timestamp());
    drop(whole);
    for table in [read, other] {
        delete(&store, table, &[1]).await.unwrap();
    }
    store.flush().await.unwrap();
    store.compact().await.unwrap();
    let pinned = store.memory().pinned_bytes;
    assert!(0 < pinned && pinned < before, "{pinned} bytes are pinned, of {before} there were");
    // Each table has the segment that was written again and the one of the second flush, and its own also the one before.
    has_segment_files(&files, 5).await;

    assert_eq!(contents(&narrow, read).await, map(&[(1, "one"), (2, "two"), (3, "three")]));
    assert!(matches!(narrow.scan(ScanRequest::new(other, vec![0])), Err(Error::Internal(_))));
    assert!(narrow.only(&[other]).scan(ScanRequest::new(other, vec![0])).is_err(), "what is gone does not come back");
    let again = narrow.only(&[read, other]);
    drop(narrow);
    assert_eq!(contents(&again, read).await.len(), 3);
    drop(again);
    pins(&store, 0).await;
    has_segment_files(&files, 4).await;
}

#[tokio::test]
async fn a_compaction_writes_no_faster_than_it_may() {
    const RATE: u64 = 100_000;
    let files = MemoryFiles::new();
    let store = Store::open(StoreOptions { background_bytes_per_second: RATE, ..options(&files) }).await.unwrap();
    let mut transaction = store.begin();
    let table = transaction.create_table(keyed("t")).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    let text = |id: i64| format!("{:x}", (id as u128 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C834));
    let before = Instant::now();
    for part in 0..4 {
        let data: Vec<(i64, String)> = (0..400).map(|row| (row * 4 + part, text(row * 4 + part))).collect();
        let data: Vec<(i64, &str)> = data.iter().map(|(id, text)| (*id, text.as_str())).collect();
        insert(&store, table, &data).await.unwrap();
        store.flush().await.unwrap();
    }
    store.compact().await.unwrap();
    let view = store.snapshot();
    assert_eq!(contents(&view, table).await.len(), 1600);
    let bytes = view.statistics(table).unwrap().bytes as u64;
    assert!(bytes > 20_000, "{bytes} bytes are not worth waiting for");
    // It may have begun as soon as there were four segments.
    let least = Duration::from_secs_f64(bytes as f64 / RATE as f64 / 2.0);
    assert!(before.elapsed() >= least, "{bytes} bytes in {:?}", before.elapsed());
}
