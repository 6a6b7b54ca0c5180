//! Scans of segments in the column cache on one core: filters on each encoding, decoding each encoding, and what deleted rows
//! cost. Bytes are those of decoded (Arrow) data, seconds those of the processor.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use rustydb_storage::{CompareOp, Durability, Filter, NewTable, ScanRequest, Store, TableId};

use super::{cpu_seconds, options};

const SEGMENT_ROWS: i64 = 1_048_576;
const ROWS: i64 = 2 * SEGMENT_ROWS;

/// Processor time that one measurement takes at least, of which the system counts hundredths of a second.
const SECONDS_MIN: f64 = 0.3;

/// The best of so many measurements counts.
const ROUNDS: usize = 5;

/// A column: how a part of it is made, what a value takes when it is decoded, and a filter that few rows pass or all.
struct Sample {
    name: &'static str,
    values: fn(&[i64]) -> ArrayRef,
    width: usize,
    op: CompareOp,
    value: ArrayRef,
}

/// A number below a limit, without a pattern.
fn scattered(row: i64, limit: u64) -> u64 {
    let mixed = (row as u64 ^ 0x5851_F42D_4C95_7F2D).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 17) % limit
}

fn integers(rows: &[i64], value: impl Fn(i64) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| value(*row))))
}

fn decimals(precision: u8, values: impl Iterator<Item = u64>) -> ArrayRef {
    let values = Decimal128Array::from_iter_values(values.map(i128::from));
    Arc::new(values.with_precision_and_scale(precision, 2).unwrap())
}

fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

fn samples() -> Vec<Sample> {
    let sample = |name, width, op, value, values| Sample { name, values, width, op, value };
    let (below, integer) = (CompareOp::Lt, |value: i64| integers(&[value], |value| value));
    let text = |text: &str| texts([text.to_owned()].into_iter());
    vec![
        sample("key, 13 bits", 8, below, integer(10_000), |rows| integers(rows, |row| row)),
        sample("constant", 8, CompareOp::NotEq, integer(8), |rows| integers(rows, |_| 7)),
        sample("runs", 8, CompareOp::Eq, integer(3), |rows| integers(rows, |row| row / 300 % 5)),
        sample("date, 12 bits", 4, below, Arc::new(Date32Array::from(vec![8036 + 25])), |rows| {
            Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| 8036 + scattered(*row, 2526) as i32)))
        }),
        sample("integer, 24 bits", 8, below, integer(100_000), |rows| {
            integers(rows, |row| scattered(row, 10_000_000) as i64)
        }),
        sample("decimal, 24 bits", 16, below, decimals(15, [100_000].into_iter()), |rows| {
            decimals(15, rows.iter().map(|row| scattered(*row, 10_000_000)))
        }),
        sample("decimal, 46 bits", 16, below, decimals(18, [(1 << 46) / 100].into_iter()), |rows| {
            decimals(18, rows.iter().map(|row| scattered(*row, 1 << 46)))
        }),
        sample("integer, plain", 8, below, integer((1 << 46) / 100), |rows| {
            integers(rows, |row| scattered(row, 1 << 46) as i64)
        }),
        sample("double, plain", 8, below, Arc::new(Float64Array::from(vec![(1 << 30) as f64 / 100.0])), |rows| {
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| scattered(*row, 1 << 30) as f64)))
        }),
        sample("text, 7 values", 16, CompareOp::Eq, text("MAIL"), |rows| {
            let few = ["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"];
            texts(rows.iter().map(|row| few[scattered(*row, 7) as usize].to_owned()))
        }),
        sample("text, 1000 values", 16 + 15, below, text("Clerk#000000010"), |rows| {
            texts(rows.iter().map(|row| format!("Clerk#{:09}", scattered(*row, 1000))))
        }),
        sample("text, plain", 16 + 27, below, text("000000000000001"), |rows| {
            texts(rows.iter().map(|row| format!("{:027}", scattered(*row, 1 << 40))))
        }),
    ]
}

/// Makes a table of these columns in full segments, of whose rows one in `deleted` is deleted, if any.
async fn load(store: &Store, name: &str, samples: &[Sample], deleted: Option<i64>) -> TableId {
    let rows: Vec<i64> = (0..ROWS).collect();
    let fields =
        samples.iter().map(|sample| Field::new(sample.name, (sample.values)(&rows[..1]).data_type().clone(), false));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mut transaction = store.begin();
    let definition = NewTable {
        schema_name: "public".into(),
        name: name.into(),
        schema: Arc::clone(&schema),
        primary_key: vec![0],
        foreign_keys: vec![],
        indexes: vec![],
    };
    let table = transaction.create_table(definition).unwrap().id;
    let mut bulk = transaction.bulk_insert(table).unwrap();
    for rows in rows.chunks(1 << 17) {
        let columns = samples.iter().map(|sample| (sample.values)(rows)).collect();
        bulk.write(RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()).await.unwrap();
    }
    bulk.finish(&mut transaction).await.unwrap();
    transaction.commit(Durability::Sync).await.unwrap();
    let Some(every) = deleted else { return table };
    let gone: Vec<i64> = (0..ROWS / every).map(|at| at * every + scattered(at, every as u64) as i64).collect();
    let keys = Arc::new(Schema::new(vec![Field::new(samples[0].name, DataType::Int64, false)]));
    for gone in gone.chunks(100_000) {
        let keys = RecordBatch::try_new(Arc::clone(&keys), vec![integers(gone, |row| row)]).unwrap();
        let mut transaction = store.begin();
        transaction.delete(table, &keys).await.unwrap();
        transaction.commit(Durability::Sync).await.unwrap();
    }
    table
}

/// What is done with the rows.
#[derive(Debug, Clone, Copy)]
enum Use {
    Nothing,
    /// The numbers of the first column are added up.
    Sum,
}

async fn scan(store: &Store, table: TableId, columns: &[usize], filters: &[Filter], what: Use) {
    let request = ScanRequest::new(table, columns.to_vec()).with_filters(filters.to_vec());
    for unit in store.snapshot().scan(request).unwrap() {
        let mut reader = unit.open();
        while let Some(batch) = reader.next_batch().await.unwrap() {
            if let Use::Sum = what {
                let numbers = batch.column(0).as_primitive::<Int64Type>().values();
                std::hint::black_box(numbers.iter().fold(0_i64, |sum, number| sum.wrapping_add(*number)));
            }
            std::hint::black_box(batch);
        }
    }
}

/// Processor time of one scan.
async fn seconds(store: &Store, table: TableId, columns: &[usize], filters: &[Filter], what: Use) -> f64 {
    let (before, mut scans) = (cpu_seconds(), 0);
    while cpu_seconds() - before < SECONDS_MIN {
        for _ in 0..4 {
            scan(store, table, columns, filters, what).await;
        }
        scans += 4;
    }
    (cpu_seconds() - before) / f64::from(scans)
}

/// Opens an empty store.
async fn open(directory: &Path) -> Store {
    let _ = std::fs::remove_dir_all(directory);
    Store::open(options(directory, 1 << 30)).await.unwrap()
}

pub(super) async fn filters(directory: &Path) {
    let directory = directory.join("filters");
    let (store, samples) = (open(&directory).await, samples());
    let table = load(&store, "t", &samples, None).await;
    for (column, sample) in samples.iter().enumerate() {
        let filter = [Filter::Compare { column, op: sample.op, value: Arc::clone(&sample.value) }];
        scan(&store, table, &[column], &filter, Use::Nothing).await;
        let (mut filtered, mut decoded) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            filtered = filtered.min(seconds(&store, table, &[], &filter, Use::Nothing).await);
            decoded = decoded.min(seconds(&store, table, &[column], &[], Use::Nothing).await);
        }
        let bytes = (ROWS as usize * sample.width) as f64;
        println!(
            "{:18} filter {:5.1} GB/s, {:5.2} ns a row; decode {:5.1} GB/s, {:5.2} ns a row",
            sample.name,
            bytes / filtered / 1e9,
            filtered * 1e9 / ROWS as f64,
            bytes / decoded / 1e9,
            decoded * 1e9 / ROWS as f64,
        );
    }
    store.close().await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Scans of a table of which some rows were deleted, against one of which none were; in turns.
pub(super) async fn deletes(directory: &Path) {
    let directory = directory.join("deletes");
    let store = open(&directory).await;
    let samples: Vec<Sample> = samples()
        .into_iter()
        .filter(|sample| !["constant", "runs", "double, plain", "decimal, 46 bits"].contains(&sample.name))
        .collect();
    let mut tables = Vec::new();
    for (name, every) in [("no", None), ("1 %", Some(100)), ("10 %", Some(10))] {
        tables.push((name, load(&store, name, &samples, every).await));
    }
    let place = |name: &str| samples.iter().position(|sample| sample.name == name).unwrap();
    let filter = |name: &str| {
        let (column, sample) = (place(name), &samples[place(name)]);
        Filter::Compare { column, op: sample.op, value: Arc::clone(&sample.value) }
    };
    let mut kinds: Vec<(String, Vec<usize>, Vec<Filter>, Use)> = samples
        .iter()
        .enumerate()
        .map(|(column, sample)| (format!("decode {}", sample.name), vec![column], vec![], Use::Nothing))
        .collect();
    let (integer, date) = (place("integer, 24 bits"), place("date, 12 bits"));
    kinds.push(("decode all of these".into(), (0..samples.len()).collect(), vec![], Use::Nothing));
    kinds.push(("sum of integers of 24 bits".into(), vec![integer], vec![], Use::Sum));
    kinds.push(("sum where text is one of 7".into(), vec![integer, date], vec![filter("text, 7 values")], Use::Sum));
    kinds.push(("count where text below".into(), vec![], vec![filter("text, plain")], Use::Nothing));
    for (name, columns, filters, what) in kinds {
        let mut best = vec![f64::MAX; tables.len()];
        for round in 0..=ROUNDS {
            for (best, (_, table)) in best.iter_mut().zip(&tables) {
                let seconds = seconds(&store, *table, &columns, &filters, what).await;
                // The first round fills the cache.
                *best = if round == 0 { f64::MAX } else { best.min(seconds) };
            }
        }
        let parts = best.iter().zip(&tables).map(|(seconds, (deleted, _))| {
            let (per_row, more) = (seconds * 1e9 / ROWS as f64, (seconds / best[0] - 1.0) * 100.0);
            format!("{deleted} deleted {per_row:5.2} ns a row ({more:+4.0} %)")
        });
        println!("{name:26} {}", parts.collect::<Vec<_>>().join(", "));
    }
    store.close().await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}
