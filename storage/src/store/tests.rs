//! How a store ends: asked for more than once, and while a file is being written for which nobody waits any more.

use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use futures::FutureExt;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::bulk::put_segment;
use crate::catalog::{NewTable, TableDef};
use crate::check::check;
use crate::files::MemoryFiles;
use crate::segment::{EncodedSegment, encode_segment};
use crate::transaction::Durability;

/// A runtime of its own for those who write, with one thread for calls of the disk.
fn writers() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).enable_all().build().unwrap()
}

/// The one on which stores are opened and closed.
fn others() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn options(files: &MemoryFiles) -> StoreOptions {
    StoreOptions::at(Location::Memory(files.clone()))
}

/// An open store with a table.
async fn store() -> (MemoryFiles, Store) {
    let files = MemoryFiles::new();
    let store = Store::open(options(&files)).await.unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let (schema_name, name) = ("public".to_owned(), "t".to_owned());
    let table = NewTable { schema_name, name, schema, primary_key: vec![0], foreign_keys: vec![], indexes: vec![] };
    let mut transaction = store.begin();
    transaction.create_table(table).unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    (files, store)
}

/// The table, and a segment of it that is not written yet.
fn encoded(store: &Store) -> (Arc<TableDef>, EncodedSegment) {
    let table = Arc::clone(store.catalog().find("public", "t").unwrap());
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let rows = RecordBatch::try_new(Arc::clone(table.storage_schema()), vec![ids]).unwrap();
    let keys = table.codec().unwrap().keys.encode(rows.columns()).unwrap();
    let encoded = encode_segment(&table, store.inner.new_segment_id(), &[rows], &keys).unwrap();
    (table, encoded)
}

/// Begins to write a segment of the table and no longer waits for it. The disk is busy with something else until the sender
/// goes. Returns the segment's path.
fn write_and_give_up(store: &Store, writers: &Runtime) -> (String, mpsc::Sender<()>) {
    let (go_on, busy) = mpsc::channel::<()>();
    drop(writers.spawn_blocking(move || busy.recv()));
    let (table, encoded) = encoded(store);
    let path = encoded.meta.path();
    let _entered = writers.enter();
    let put = put_segment(&store.inner, table, encoded).now_or_never();
    assert!(put.is_none(), "the disk is busy");
    (path, go_on)
}

/// The files of segments, whole or not.
fn segment_files(files: &MemoryFiles) -> Vec<String> {
    files.paths().into_iter().map(|(path, _)| path).filter(|path| path.starts_with("segments/")).collect()
}

#[test]
fn closing_waits_for_a_write_for_which_nobody_waits_any_more() {
    for fails in [false, true] {
        let (writers, others) = (writers(), others());
        others.block_on(async {
            let (files, store) = store().await;
            let (path, go_on) = write_and_give_up(&store, &writers);
            let mut closing = pin!(store.close());
            while store.inner.log.check().is_ok() {
                assert!(futures::poll!(closing.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
            // The log has ended. In the same step closing has either given up the lock or begun to wait.
            assert!(matches!(Store::open(options(&files)).await, Err(Error::Locked { .. })));
            assert!(futures::poll!(closing.as_mut()).is_pending());
            let mut late = pin!(store.inner.begin_writing());
            assert!(futures::poll!(late.as_mut()).is_pending());
            assert_eq!(segment_files(&files), Vec::<String>::new(), "it was to be held up");
            files.fill(fails.then_some("segments"));
            drop(go_on);
            closing.await.unwrap();
            assert!(matches!(late.await, Err(Error::Closed)), "the lock is gone");
            files.fill(None);

            // What was written is whole. Nothing refers to it, so the next start removes it.
            let left = if fails { vec![] } else { vec![path] };
            assert_eq!(segment_files(&files), left);
            let report = check(options(&files)).await.unwrap();
            assert_eq!((report.findings, report.left_over), (vec![], left));
            Store::open(options(&files)).await.unwrap().close().await.unwrap();
            assert_eq!(segment_files(&files), Vec::<String>::new());
        });
    }
}

#[test]
fn a_store_that_is_dropped_keeps_its_lock_until_nothing_of_it_is_written() {
    let (writers, others) = (writers(), others());
    others.block_on(async {
        let (files, store) = store().await;
        let (_, go_on) = write_and_give_up(&store, &writers);
        drop(store);
        assert!(matches!(Store::open(options(&files)).await, Err(Error::Locked { .. })));
        assert_eq!(segment_files(&files), Vec::<String>::new(), "it was to be held up");
        drop(go_on);
        let next = loop {
            match Store::open(options(&files)).await {
                Err(Error::Locked { .. }) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        assert_eq!(segment_files(&files), Vec::<String>::new(), "what was written before it was opened");
        next.close().await.unwrap();
        let report = check(options(&files)).await.unwrap();
        assert_eq!((report.findings, report.left_over), (vec![], vec![]));
    });
}

#[test]
fn the_lock_is_kept_by_a_write_whose_runtime_has_ended() {
    let (writers, others) = (others(), others());
    let (files, store) = others.block_on(store());
    let (table, encoded) = encoded(&store);
    let path = encoded.meta.path();
    let syncs = files.hold_syncs();
    writers.block_on(async {
        let mut put = pin!(put_segment(&store.inner, table, encoded));
        while segment_files(&files).is_empty() {
            assert!(futures::poll!(put.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    });
    // With it goes the task that has begun the write. The thread that writes is waiting for the disk.
    writers.shutdown_background();
    drop(store);
    assert!(files.lock().is_err(), "a file is being written");
    assert_ne!(segment_files(&files), std::slice::from_ref(&path), "it was to be held up");
    drop(syncs);
    while files.lock().is_err() {
        std::thread::yield_now();
    }
    assert_eq!(segment_files(&files), [path], "what was written before the lock was given up");
    others.block_on(async {
        Store::open(options(&files)).await.unwrap().close().await.unwrap();
        assert_eq!(segment_files(&files), Vec::<String>::new());
    });
}

#[test]
fn whoever_closes_a_store_that_is_being_closed_waits_until_it_is() {
    let (writers, others) = (writers(), others());
    others.block_on(async {
        let (files, store) = store().await;
        let (_, go_on) = write_and_give_up(&store, &writers);
        {
            // Who has begun it gives up.
            let mut first = pin!(store.close());
            while store.inner.log.check().is_ok() {
                assert!(futures::poll!(first.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
        }
        let clone = store.clone();
        let mut second = pin!(store.close());
        let mut third = pin!(clone.close());
        assert!(futures::poll!(second.as_mut()).is_pending());
        assert!(futures::poll!(third.as_mut()).is_pending());
        assert!(matches!(Store::open(options(&files)).await, Err(Error::Locked { .. })));
        drop(go_on);
        let (second, third) = futures::join!(second, third);
        second.unwrap();
        third.unwrap();
        Store::open(options(&files)).await.unwrap().close().await.unwrap();
        store.close().await.unwrap();
    });
}

#[test]
fn a_store_whose_closing_was_given_up_goes_with_its_last_handle() {
    let (writers, others) = (writers(), others());
    others.block_on(async {
        let (files, store) = store().await;
        let (_, go_on) = write_and_give_up(&store, &writers);
        {
            let mut closing = pin!(store.close());
            while store.inner.log.check().is_ok() {
                assert!(futures::poll!(closing.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
        }
        drop(go_on);
        drop(store);
        let unlocked = async {
            while files.lock().is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), unlocked).await.expect("nobody has the store any more");
    });
}

#[test]
fn all_who_close_a_store_learn_that_it_could_not_be_sealed() {
    others().block_on(async {
        let (files, store) = store().await;
        files.fail_after(Some(0));
        let (first, second) = futures::join!(store.close(), store.close());
        let outcomes = [first, second, store.close().await];
        let reasons = outcomes.map(|outcome| match outcome {
            Err(Error::Poisoned { reason }) => reason,
            other => panic!("{other:?}"),
        });
        assert!(reasons[0].contains("injected failure"), "{reasons:?}");
        assert!(reasons.iter().all(|reason| *reason == reasons[0]), "{reasons:?}");
        files.fail_after(None);
        Store::open(options(&files)).await.unwrap().close().await.unwrap();
    });
}
