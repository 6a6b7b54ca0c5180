//! What the storage tests share: a small table and short ways to write and read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use rand::Rng;
use rand::rngs::StdRng;
use rustydb_storage::{
    Durability, Error, Filter, Location, MemoryFiles, NewTable, ReadView, ScanRequest, Store, StoreOptions, TableId,
    Transaction,
};

/// `id BIGINT PRIMARY KEY, name TEXT`.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8View, true)]))
}

pub(crate) fn keyed(name: &str) -> NewTable {
    NewTable {
        schema_name: "public".into(),
        name: name.into(),
        schema: schema(),
        primary_key: vec![0],
        foreign_keys: vec![],
        indexes: vec![],
    }
}

pub(crate) fn keyless(name: &str) -> NewTable {
    NewTable { primary_key: vec![], ..keyed(name) }
}

pub(crate) fn rows(rows: &[(i64, &str)]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id));
    let names = StringViewArray::from_iter_values(rows.iter().map(|(_, name)| *name));
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

pub(crate) fn keys(ids: &[i64]) -> RecordBatch {
    let schema = Arc::new(schema().project(&[0]).unwrap());
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(ids.to_vec()))]).unwrap()
}

pub(crate) fn options(files: &MemoryFiles) -> StoreOptions {
    StoreOptions::at(Location::Memory(files.clone()))
}

pub(crate) async fn open(files: &MemoryFiles) -> Store {
    Store::open(options(files)).await.unwrap()
}

/// A store with one committed, empty table.
pub(crate) async fn store_with(table: NewTable) -> (MemoryFiles, Store, TableId) {
    let files = MemoryFiles::new();
    let store = open(&files).await;
    let mut transaction = store.begin();
    let id = transaction.create_table(table).unwrap().id;
    transaction.commit(Durability::Sync).await.unwrap();
    (files, store, id)
}

pub(crate) async fn insert(store: &Store, table: TableId, data: &[(i64, &str)]) -> Result<u64, Error> {
    let mut transaction = store.begin();
    transaction.insert(table, &rows(data)).await?;
    transaction.commit(Durability::Sync).await
}

pub(crate) async fn delete(store: &Store, table: TableId, ids: &[i64]) -> Result<u64, Error> {
    let mut transaction = store.begin();
    let count = transaction.delete(table, &keys(ids)).await?;
    transaction.commit(Durability::Sync).await?;
    Ok(count)
}

pub(crate) async fn update(store: &Store, table: TableId, ids: &[i64], data: &[(i64, &str)]) -> Result<u64, Error> {
    let mut transaction = store.begin();
    let count = transaction.update(table, &keys(ids), &rows(data)).await?;
    transaction.commit(Durability::Sync).await?;
    Ok(count)
}

pub(crate) async fn load(transaction: &mut Transaction, table: TableId, data: &[(i64, &str)]) -> Result<u64, Error> {
    let mut bulk = transaction.bulk_insert(table)?;
    for chunk in data.chunks(1000) {
        bulk.write(rows(chunk)).await?;
    }
    bulk.finish(transaction).await
}

/// All visible rows, read by a scan; fails if a key comes twice.
pub(crate) async fn contents(view: &ReadView, table: TableId) -> BTreeMap<i64, String> {
    filtered_contents(view, table, vec![]).await
}

/// The visible rows that pass all filters.
pub(crate) async fn filtered_contents(view: &ReadView, table: TableId, filters: Vec<Filter>) -> BTreeMap<i64, String> {
    let mut found = BTreeMap::new();
    let request = ScanRequest::new(table, vec![0, 1]).with_filters(filters);
    for unit in view.scan(request).unwrap() {
        let mut reader = unit.open();
        while let Some(batch) = reader.next_batch().await.unwrap() {
            let (ids, names) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string_view());
            for row in 0..batch.num_rows() {
                let name = if names.is_null(row) { "NULL" } else { names.value(row) };
                let before = found.insert(ids.value(row), name.to_string());
                assert_eq!(before, None, "id {} was found twice", ids.value(row));
            }
        }
    }
    found
}

pub(crate) fn map(rows: &[(i64, &str)]) -> BTreeMap<i64, String> {
    rows.iter().map(|(id, name)| (*id, name.to_string())).collect()
}

/// Waits until something is as it should be, for which others have to do something first.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// A number in an environment variable, by which a failed random test is repeated.
pub(crate) fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Ends a store in one of the ways in which that can happen, and perhaps one or more starts after it as well. Returns what is
/// left, to be opened again. Asynchronous commits survive, too.
pub(crate) async fn end(store: &Store, files: &MemoryFiles, random: &mut StdRng) -> MemoryFiles {
    let mut left = files.clone();
    if random.random_bool(0.4) {
        println!("close");
        store.close().await.unwrap();
    } else {
        // A synchronous commit makes every asynchronous one before it durable.
        let mut transaction = store.begin();
        let id = transaction.create_table(keyed("marker")).unwrap().id;
        transaction.commit(Durability::Sync).await.unwrap();
        let mut transaction = store.begin();
        transaction.drop_table(id).unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        left = crash(&left, random);
        let _ = store.close().await;
    }
    while random.random_bool(0.3) {
        let calls = random.random_range(0..25);
        println!("start that fails after {calls} calls");
        left.fail_after(Some(calls));
        if let Ok(store) = Store::open(options(&left)).await {
            let _ = store.close().await;
        }
        left = crash(&left, random);
    }
    left
}

/// What is left of a running store's files after a crash of some kind.
pub(crate) fn crash(files: &MemoryFiles, random: &mut StdRng) -> MemoryFiles {
    match random.random_range(0..3) {
        0 => {
            println!("kill");
            files.after_kill()
        }
        1 => {
            println!("power cut");
            files.after_torn_power_cut(random.random_range(0..64))
        }
        _ => {
            println!("scattered power cut");
            files.after_scattered_power_cut(random.random())
        }
    }
}
