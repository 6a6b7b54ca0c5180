//! Look-ups of rows in a store that is larger than its cache: single pages are read, and nothing is wrong or too much.

use std::ops::Range;
use std::sync::{Arc, Barrier};

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::file::metadata::ParquetMetaDataReader;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustydb_storage::{
    BLOCK_ROWS, Blocked, Durability, Error, FoundRow, KeyRange, MemoryFiles, NewTable, RangeWindow, ReadView, Store,
    StoreOptions, TableDef, Tries, WantedColumns, check, insist,
};
use tokio::runtime::Handle;

use crate::common::*;

const ROWS: usize = 5 * BLOCK_ROWS + 77;

/// What a page of the file has.
const PAGE_ROWS: usize = BLOCK_ROWS / 4;

/// Room for the key index and a few pages, but not for all columns.
const CACHE_BYTES: usize = 3 << 20;

/// Room for the key index and hardly more than one page of long strings.
const TIGHT_CACHE_BYTES: usize = 1 << 20;

/// Room for the key index, and not for any column as a look-up reckons it, which is with 16 bytes a row at least.
const SCANT_CACHE_BYTES: usize = 14 * ROWS;

/// So many ask at the same time.
const THREADS: usize = 8;

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
        // Pages of these are cut before they have as many rows as others.
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

/// The values of a row. Those of columns that were not asked for are NULL.
type Values = Vec<Option<Vec<u8>>>;

fn values_of(table: &TableDef, found: Option<FoundRow>) -> Values {
    let row = found.expect("every id is there");
    (0..8).map(|column| table.stored_value(&row.bytes, column).map(<[u8]>::to_vec)).collect()
}

fn range_of(table: &TableDef, id: i64) -> KeyRange<'_> {
    let mut range = KeyRange::new(table, None).unwrap();
    range.push(Some(&id.to_le_bytes())).unwrap();
    range
}

/// A row by its key, in the row path.
async fn look_up(view: &ReadView, table: &TableDef, id: i64, columns: &WantedColumns) -> Result<Values, Error> {
    let range = range_of(table, id);
    Ok(values_of(table, insist(|| view.stored_row(table, range.key(), columns)).await?))
}

/// The same in so many tries as are worth it; `None`: memory was too short.
async fn try_to_look_up(
    view: &ReadView,
    table: &TableDef,
    id: i64,
    columns: &WantedColumns,
) -> Result<Option<Values>, Error> {
    let (range, mut tries) = (range_of(table, id), Tries::new(view));
    loop {
        match view.stored_row(table, range.key(), columns) {
            Ok(found) => return Ok(Some(values_of(table, found))),
            Err(Blocked::Failed(error)) => return Err(error),
            Err(Blocked::Waits(obstacle)) => {
                if !tries.overcome(obstacle).await? {
                    return Ok(None);
                }
            }
        }
    }
}

/// Lets some threads begin at the same moment, and waits for them all.
fn at_once(threads: usize, work: impl Fn(usize) + Sync) {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                work(thread);
            });
        }
    });
}

fn segment_path(files: &MemoryFiles) -> String {
    files.paths().into_iter().map(|(path, _)| path).find(|path| path.starts_with("segments/")).unwrap()
}

/// The bytes of a file that have the dictionary of a column, and those that have its pages.
fn parts_of(files: &MemoryFiles, path: &str, column: usize) -> [Range<usize>; 2] {
    let mut file = Bytes::new();
    files.damage(path, |data| file = Bytes::copy_from_slice(data));
    let parquet = ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
    let chunk = parquet.row_group(0).column(column);
    let ((start, bytes), pages) = (chunk.byte_range(), chunk.data_page_offset() as u64);
    [start..pages, pages..start + bytes].map(|part| part.start as usize..part.end as usize)
}

/// Fails unless a page of this file was found to be damaged.
fn assert_is_damage(error: &Error, path: &str) {
    match error {
        Error::Corruption { file, detail } => {
            assert!(file == path && detail.contains("the checksum of a page"), "{file}: {detail}");
        }
        other => panic!("{other:?}"),
    }
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
    let path = segment_path(&files);
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
async fn damage_to_a_dictionary_or_a_page_is_told_to_whoever_needs_it_until_it_is_mended() {
    let (pristine, rows) = filled().await;
    let path = segment_path(&pristine);
    let colours = 2;
    let places: Vec<usize> = (0..ROWS).step_by(1000).collect();
    // Two or three of these places are in the page.
    let expected_damages = [places.len()..=places.len(), 2..=3];
    for (part, expected_damages) in parts_of(&pristine, &path, colours).into_iter().zip(expected_damages) {
        let files = pristine.after_kill();
        let middle = part.start.midpoint(part.end);
        files.damage(&path, |data| data[middle] ^= 0x20);
        let (store, table) = cold(&files, SCANT_CACHE_BYTES).await;
        let view = store.snapshot();
        let colour = WantedColumns::new(&table, [colours]);
        let others = WantedColumns::new(&table, [1, 3, 4, 5, 6, 7]);
        let texts = arrow::array::AsArray::as_string_view(rows.column(1));
        let expected = |place: usize| (place % 7 != 3).then(|| format!("colour {}", place % 12).into_bytes());
        let mut damaged = Vec::new();
        for place in &places {
            let id = 2 * *place as i64;
            match look_up(&view, &table, id, &colour).await {
                Ok(values) => assert_eq!(values[colours], expected(*place), "row {place}"),
                Err(error) => {
                    assert_is_damage(&error, &path);
                    assert_is_damage(&view.get(table.id, &keys(&[id]), &[colours]).await.unwrap_err(), &path);
                    assert_is_damage(&try_to_look_up(&view, &table, id, &colour).await.unwrap_err(), &path);
                    // All else of the row is there.
                    let values = look_up(&view, &table, id, &others).await.unwrap();
                    assert_eq!(values[1].as_deref(), Some(texts.value(*place).as_bytes()), "row {place}");
                    assert_eq!(values[colours], None);
                    damaged.push(*place);
                }
            }
        }
        assert!(expected_damages.contains(&damaged.len()), "rows {damaged:?} are damaged");
        assert_eq!(store.memory().background_bytes, 0);
        files.damage(&path, |data| data[middle] ^= 0x20);
        for place in damaged {
            let values = look_up(&view, &table, 2 * place as i64, &colour).await.unwrap();
            assert_eq!(values[colours], expected(place), "row {place}: nothing of the damage was kept");
        }
    }
}

#[tokio::test]
async fn the_check_names_each_column_that_is_damaged_and_a_page_of_it() {
    let (files, _) = filled().await;
    assert_eq!(check(options(&files)).await.unwrap().findings, []);
    let path = segment_path(&files);
    let ([_, pages], [dictionary, _]) = (parts_of(&files, &path, 1), parts_of(&files, &path, 2));
    for part in [pages, dictionary] {
        files.damage(&path, |data| data[part.start.midpoint(part.end)] ^= 0x20);
    }
    let report = check(options(&files)).await.unwrap();
    let details: Vec<&str> = report.findings.iter().map(|finding| finding.detail.as_str()).collect();
    assert!(report.findings.iter().all(|finding| finding.file == path), "{:?}", report.findings);
    let [distinct, repeated] = details.as_slice() else { panic!("{details:?}") };
    assert!(
        distinct.starts_with("the checksum of page ") && distinct.contains(" of column \"distinct\""),
        "{distinct}"
    );
    assert!(repeated.starts_with("the checksum of the dictionary of column \"repeated\""), "{repeated}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_many_ask_for_at_once_are_loaded_and_counted_once() {
    let (files, _) = filled().await;
    let middle = 6 * PAGE_ROWS;
    let of_neighbours = [middle - 1, middle - PAGE_ROWS, middle + PAGE_ROWS, middle + PAGE_ROWS + 700];
    let places = [[middle, middle + 1, middle + 700, middle + PAGE_ROWS - 1], of_neighbours].concat();
    let mut outcomes = Vec::new();
    for threads in [1, THREADS] {
        let (store, table) = cold(&files.after_kill(), CACHE_BYTES).await;
        let (view, runtime) = (store.snapshot(), Handle::current());
        let (key, long_text) = (WantedColumns::new(&table, []), WantedColumns::new(&table, [3]));
        look_up(&view, &table, 0, &key).await.unwrap();
        let before = store.memory();
        at_once(threads, |thread| {
            // All begin in one page, and half of them at one row.
            let rotated = places.iter().cycle().skip(thread / 2 % 2).take(places.len());
            for place in rotated {
                let values = runtime.block_on(look_up(&view, &table, 2 * *place as i64, &long_text)).unwrap();
                let expected = (place % 7 != 3).then(|| long(*place as i64).into_bytes());
                assert_eq!(values[3], expected, "row {place}");
            }
        });
        let after = store.memory();
        assert_eq!((after.column_cache_evictions, after.background_bytes), (0, 0), "{after:?}");
        let loads = after.column_cache_misses - before.column_cache_misses;
        outcomes.push((loads, after.column_cache_bytes, after.key_index_bytes));
    }
    assert!(outcomes[0].0 >= 3, "a page and both of its neighbours: {outcomes:?}");
    assert_eq!(outcomes[0], outcomes[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_right_where_many_drive_out_what_the_others_need_and_nothing_stays_taken() {
    let seed = 20261201;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (files, rows) = filled().await;
    let middle = 6 * PAGE_ROWS;
    let near = middle - PAGE_ROWS..middle + 2 * PAGE_ROWS;
    let mut places: Vec<usize> = (0..8).map(|_| random.random_range(near.clone())).collect();
    places.extend((0..8).map(|_| random.random_range(0..ROWS)));

    let (roomy, table) = cold(&files.after_kill(), 256 << 20).await;
    let (all, every) = (roomy.snapshot(), WantedColumns::new(&table, 0..8));
    let mut expected = Vec::new();
    for place in &places {
        expected.push(look_up(&all, &table, 2 * *place as i64, &every).await.unwrap());
    }

    let (store, _) = cold(&files, TIGHT_CACHE_BYTES).await;
    let (view, runtime) = (store.snapshot(), Handle::current());
    at_once(THREADS, |thread| {
        for turn in 0..places.len() {
            let at = (turn + thread % 3) % places.len();
            let (place, id) = (places[at], 2 * places[at] as i64);
            match thread % 4 {
                0 => {
                    let columns = [0, 1, 2, 3, 4, 5, 6, 7];
                    let got = runtime.block_on(view.get(table.id, &keys(&[id]), &columns)).unwrap();
                    assert_eq!(got.columns(), rows.slice(place, 1).columns(), "row {place}");
                }
                1 => {
                    if let Some(found) = runtime.block_on(try_to_look_up(&view, &table, id, &every)).unwrap() {
                        assert_eq!(found, expected[at], "row {place}");
                    }
                }
                _ => {
                    let found = runtime.block_on(look_up(&view, &table, id, &every)).unwrap();
                    assert_eq!(found, expected[at], "row {place}");
                }
            }
        }
    });
    let memory = store.memory();
    assert!(memory.column_cache_evictions > 20, "the cache was to be too small: {memory:?}");
    assert!(cached_bytes(&store) <= memory.cache_limit_bytes, "{memory:?}");
    assert_eq!(memory.background_bytes, 0, "{memory:?}");
    // Pages go with the segment that they are of.
    drop(view);
    let mut transaction = store.begin();
    transaction.drop_table(table.id).unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    until("nothing of the table in memory", || cached_bytes(&store) == 0).await;
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
