//! How a store ends while a file is being written for which nobody waits any more.

use std::pin::pin;
use std::sync::mpsc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use futures::FutureExt;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::bulk::put_segment;
use crate::catalog::NewTable;
use crate::check::check;
use crate::files::MemoryFiles;
use crate::segment::encode_segment;
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

/// Begins to write a segment of the table and no longer waits for it. The disk is busy with something else until the sender
/// goes. Returns the segment's path.
fn write_and_give_up(store: &Store, writers: &Runtime) -> (String, mpsc::Sender<()>) {
    let (go_on, busy) = mpsc::channel::<()>();
    drop(writers.spawn_blocking(move || busy.recv()));
    let table = Arc::clone(store.catalog().find("public", "t").unwrap());
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let rows = RecordBatch::try_new(Arc::clone(table.storage_schema()), vec![ids]).unwrap();
    let keys = table.codec().unwrap().keys.encode(rows.columns()).unwrap();
    let encoded = encode_segment(&table, store.inner.new_segment_id(), &[rows], &keys).unwrap();
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
