//! Look-ups of rows in a store that is larger than its cache: single pages are read, and nothing is wrong or too much.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{
    BLOCK_ROWS, Durability, Error, KeyRange, MemoryFiles, NewTable, RangeWindow, ReadView, Store, StoreOptions,
    TableDef, Tries, WantedColumns, insist,
};

use crate::common::*;

const ROWS: usize = 5 * BLOCK_ROWS + 77;

/// Room for the key index and a few pages, but not for all columns.
const CACHE_BYTES: usize = 3 << 20;

/// Columns of all kinds of encodings: many and few distinct strings, long ones, small and large numbers, NULLs.
fn wide() -> NewTable {
    let field = |name: &str, data_type, nullable| Field::new(name, data_type, nullable);
    let schema = Arc::new(Schema::new(vec![
        field("id", DataType::Int64, false),
        field("distinct", DataType::Utf8View, false),
        field("repeated", DataType::Utf8View, true),
        field("long", DataType::Utf8View, true),
        field("small", DataType::Int64, true),
        field("amount", DataType::Decimal128(12, 2), false),
        field("large", DataType::Decimal128(38, 0), true),
        field("float", DataType::Float64, true),
    ]));
    NewTable { schema, ..keyed("wide") }
}

/// Three hundred characters that no compression makes much shorter.
fn long(id: i64) -> String {
    let mut random = StdRng::seed_from_u64(id as u64);
    (0..300).map(|_| char::from(random.random_range(b'!'..=b'~'))).collect()
}

fn wide_rows(table: &NewTable) -> RecordBatch {
    let ids = || 0..ROWS as i64;
    let some = |id: &i64| id % 7 != 3;
    let texts = |text: fn(i64) -> String| -> ArrayRef {
        Arc::new(ids().map(|id| some(&id).then(|| text(id))).collect::<StringViewArray>())
    };
    let decimals = |factor: i128, precision, scale| -> ArrayRef {
        let values = ids().map(|id| Some(factor * i128::from(id)));
        let array: Decimal128Array = values.collect();
        Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
    };
    let distinct: StringViewArray = ids().map(|id| Some(format!("{id}-{}", id * 7919))).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids().map(|id| 2 * id))),
        Arc::new(distinct),
        texts(|id| format!("colour {}", id % 12)),
        // Pages of these are cut before they have all the rows of a block.
        texts(long),
        Arc::new(ids().map(|id| some(&id).then_some(id % 100)).collect::<Int64Array>()),
        decimals(123, 12, 2),
        decimals(10_i128.pow(30), 38, 0),
        Arc::new(ids().map(|id| some(&id).then_some(id as f64 / 3.0)).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(Arc::clone(&table.schema), columns).unwrap()
}

async fn filled() -> (MemoryFiles, RecordBatch) {
    filled_by(ROWS).await
}

/// The rows come so many at a time.
async fn filled_by(batch_rows: usize) -> (MemoryFiles, RecordBatch) {
    let rows = wide_rows(&wide());
    let (files, store, table) = store_with(wide()).await;
    let mut transaction = store.begin();
    let mut bulk = transaction.bulk_insert(table).unwrap();
    for start in (0..ROWS).step_by(batch_rows) {
        bulk.write(rows.slice(start, batch_rows.min(ROWS - start))).await.unwrap();
    }
    bulk.finish(&mut transaction).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    store.close().await.unwrap();
    (files, rows)
}

async fn cold(files: &MemoryFiles, column_cache_bytes: usize) -> (Store, Arc<TableDef>) {
    let store = Store::open(StoreOptions { column_cache_bytes, ..options(files) }).await.unwrap();
    let table = Arc::clone(store.snapshot().catalog().find("public", "wide").unwrap());
    (store, table)
}

/// A row by its key, in the row path, with what the store then has in memory.
async fn look_up(
    view: &ReadView,
    table: &TableDef,
    id: i64,
    columns: &WantedColumns,
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let mut range = KeyRange::new(table, None).unwrap();
    range.push(Some(&id.to_le_bytes())).unwrap();
    let found = insist(|| view.stored_row(table, range.key(), columns)).await?.expect("every id is there");
    Ok((0..8).map(|column| table.stored_value(&found.bytes, column).map(<[u8]>::to_vec)).collect())
}

fn cached_bytes(store: &Store) -> usize {
    let memory = store.memory();
    memory.column_cache_bytes + memory.key_index_bytes + memory.posting_bytes
}

#[tokio::test]
async fn every_column_of_any_row_is_found_through_its_page() {
    let seed = 20261130;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    // Pages end where a batch of the writer did, too: in the midst of blocks.
    let (files, rows) = filled_by(5000).await;
    let (roomy, table) = cold(&files, 256 << 20).await;
    let (small, _) = cold(&files.after_kill(), CACHE_BYTES).await;
    let (all, view) = (roomy.snapshot(), small.snapshot());
    let edges = (0..=5).flat_map(|page| [page * BLOCK_ROWS, (page * BLOCK_ROWS + BLOCK_ROWS - 1).min(ROWS - 1)]);
    let places: Vec<usize> = edges.chain((0..150).map(|_| random.random_range(0..ROWS))).collect();
    let every = WantedColumns::new(&table, 0..8);
    for place in &places {
        let id = 2 * *place as i64;
        let found = look_up(&view, &table, id, &every).await.unwrap();
        assert_eq!(found, look_up(&all, &table, id, &every).await.unwrap(), "row {place}");
        // By batches the same.
        let got = view.get(table.id, &keys(&[id]), &[7, 0, 3, 1, 2, 4, 5, 6]).await.unwrap();
        let expected = rows.slice(*place, 1).project(&[7, 0, 3, 1, 2, 4, 5, 6]).unwrap();
        assert_eq!(got.columns(), expected.columns(), "row {place}");
        assert!(cached_bytes(&small) <= small.memory().cache_limit_bytes, "{:?}", small.memory());
    }
    let evictions = small.memory().column_cache_evictions;
    assert!(evictions > 100, "the store was to be larger than its cache: {evictions} evictions");
    assert_eq!(roomy.memory().column_cache_evictions, 0);
}

#[tokio::test]
async fn a_row_costs_its_pages_and_not_its_columns() {
    let (files, _) = filled().await;
    let (store, table) = cold(&files, CACHE_BYTES).await;
    let view = store.snapshot();
    let (key, long) = (WantedColumns::new(&table, []), WantedColumns::new(&table, [3]));
    look_up(&view, &table, 0, &key).await.unwrap();
    let (before, column_bytes) = (cached_bytes(&store), 300 * ROWS);
    for place in 0..4 {
        let found = look_up(&view, &table, 2 * place, &long).await.unwrap();
        assert_eq!(found[3].is_some(), place != 3);
    }
    let page_bytes = cached_bytes(&store) - before;
    assert!((300 * 1000..column_bytes / 5).contains(&page_bytes), "{page_bytes} of {column_bytes} bytes");
    let misses = store.memory().column_cache_misses;
    look_up(&view, &table, 2, &long).await.unwrap();
    assert_eq!(store.memory().column_cache_misses, misses, "the page was kept");
}

#[tokio::test]
async fn a_range_of_rows_waits_for_its_pages() {
    let (files, rows) = filled().await;
    let (store, table) = cold(&files, CACHE_BYTES).await;
    let (view, columns) = (store.snapshot(), WantedColumns::new(&table, [1, 3]));
    // From one page to the next.
    let first = BLOCK_ROWS as i64 - 5;
    let mut range = KeyRange::new(&table, None).unwrap();
    range.bound(Some((&(2 * first).to_le_bytes(), true)), None).unwrap();
    let window = RangeWindow { descending: false, limit: 10, rows_max: 100 };
    let mut tries = Tries::new(&view);
    let found = loop {
        match view.stored_range(&table, &range, window, &columns) {
            Ok(found) => break found.unwrap(),
            Err(rustydb_storage::Blocked::Waits(obstacle)) => assert!(tries.overcome(obstacle).await.unwrap()),
            Err(rustydb_storage::Blocked::Failed(error)) => panic!("{error}"),
        }
    };
    let texts = arrow::array::AsArray::as_string_view(rows.column(1));
    for (row, place) in found.iter().zip(first as usize..) {
        assert_eq!(table.stored_value(&row.bytes, 1), Some(texts.value(place).as_bytes()));
    }
    assert_eq!(found.len(), 10);
}

#[tokio::test]
async fn a_damaged_page_is_an_error_and_no_other_page_suffers() {
    let (files, _) = filled().await;
    let path = files.paths().into_iter().map(|(path, _)| path).find(|path| path.starts_with("segments/")).unwrap();
    // The column of long strings takes most of the file: a byte in its middle belongs to it.
    files.damage(&path, |data| {
        let middle = data.len() / 2;
        data[middle] ^= 0x20;
    });
    let (store, table) = cold(&files, CACHE_BYTES).await;
    let (view, columns) = (store.snapshot(), WantedColumns::new(&table, [3]));
    let (mut found, mut damaged) = (0, 0);
    for place in (0..ROWS).step_by(500) {
        match look_up(&view, &table, 2 * place as i64, &columns).await {
            Ok(values) => {
                let expected = (place % 7 != 3).then(|| long(place as i64).into_bytes());
                assert_eq!(values[3], expected);
                found += 1;
            }
            Err(Error::Corruption { file, detail }) => {
                assert!(file == path && detail.contains("checksum"), "{file}: {detail}");
                damaged += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!((1..=BLOCK_ROWS / 500).contains(&damaged) && found > 0, "{damaged} rows damaged, {found} found");
}

#[tokio::test]
async fn thousands_of_rows_in_few_pages_wait_a_few_times() {
    let (files, rows) = filled().await;
    let (store, table) = cold(&files, CACHE_BYTES).await;
    let (view, columns) = (store.snapshot(), WantedColumns::new(&table, [1, 3]));
    let mut range = KeyRange::new(&table, None).unwrap();
    range.bound(Some((&1000_i64.to_le_bytes(), true)), None).unwrap();
    let window = RangeWindow { descending: false, limit: 5000, rows_max: 5000 };
    let mut tries = Tries::new(&view);
    let mut waits = 0;
    let found = loop {
        match view.stored_range(&table, &range, window, &columns) {
            Ok(found) => break found.unwrap(),
            Err(rustydb_storage::Blocked::Waits(obstacle)) => assert!(tries.overcome(obstacle).await.unwrap()),
            Err(rustydb_storage::Blocked::Failed(error)) => panic!("{error}"),
        }
        waits += 1;
    };
    assert!(waits <= 3, "{waits} waits");
    assert!(store.memory().background_bytes < CACHE_BYTES, "{:?}", store.memory());
    let texts = arrow::array::AsArray::as_string_view(rows.column(1));
    for (row, place) in found.iter().zip(500..) {
        assert_eq!(table.stored_value(&row.bytes, 1), Some(texts.value(place).as_bytes()));
    }
    assert_eq!(found.len(), 5000);
}

#[tokio::test]
async fn a_compaction_counts_its_columns_as_a_load_of_them_does() {
    let rows = wide_rows(&wide());
    let (files, store, table) = store_with(wide()).await;
    for part in 0..4 {
        let places: arrow::array::UInt32Array =
            (0..ROWS as u32).filter(|row| row % 4 == part).collect::<Vec<_>>().into();
        let mut transaction = store.begin();
        transaction.insert(table, &arrow::compute::take_record_batch(&rows, &places).unwrap()).await.unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
        store.flush().await.unwrap();
    }
    store.compact().await.unwrap();
    let view = store.snapshot();
    assert!(files.paths().iter().filter(|(path, _)| path.starts_with("segments/")).count() >= 1);
    let all: Vec<usize> = (0..8).collect();
    let got = view.get(table, &keys(&[2 * 777]), &all).await.unwrap();
    assert_eq!(got.columns(), rows.slice(777, 1).columns());
    let after = store.memory();
    store.close().await.unwrap();
    let store = open(&files).await;
    let view = store.snapshot();
    for unit in view.scan(rustydb_storage::ScanRequest::new(table, all.clone())).unwrap() {
        let mut reader = unit.open();
        while reader.next_batch().await.unwrap().is_some() {}
    }
    let (kept, loaded) = (after.column_cache_bytes as f64, store.memory().column_cache_bytes as f64);
    assert!((kept / loaded - 1.0).abs() < 0.1, "{kept} bytes kept by the compaction, {loaded} loaded");
}
