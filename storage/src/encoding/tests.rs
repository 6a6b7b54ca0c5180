//! Rows and keys of every type a table can hold: what is encoded comes back, keys order as their values, and bytes from
//! outside never do harm.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, RecordBatch, StringViewArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array, make_comparator,
};
use arrow::compute::{SortOptions, cast, concat, take};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema, SchemaRef, TimeUnit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Values of every type, with the least and the greatest one, in no order.
fn columns() -> Vec<ArrayRef> {
    let long = "a text that does not fit into a view";
    let integers: ArrayRef = Arc::new(Int64Array::from(vec![0, i64::MAX, -1, i64::MIN, 1, 256]));
    let decimals = |values: Vec<i128>, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![true, false, true])),
        Arc::new(Int8Array::from(vec![0, i8::MAX, -1, i8::MIN, 1])),
        Arc::new(Int16Array::from(vec![0, i16::MAX, -1, i16::MIN, 256])),
        Arc::new(Int32Array::from(vec![0, i32::MAX, -1, i32::MIN, 65_536])),
        cast(&Int32Array::from(vec![0, 20_000, -1]), &DataType::Date32).unwrap(),
        Arc::clone(&integers),
        Arc::new(UInt8Array::from(vec![7, u8::MAX, 0, 128])),
        Arc::new(UInt16Array::from(vec![7, u16::MAX, 0, 256])),
        Arc::new(UInt32Array::from(vec![7, u32::MAX, 0, 1 << 31])),
        Arc::new(UInt64Array::from(vec![7, u64::MAX, 0, 1 << 63])),
        Arc::new(Float32Array::from(vec![0.0, f32::MAX, -1.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40])),
        Arc::new(Float64Array::from(vec![0.0, f64::MAX, -1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 5e-324])),
        decimals(vec![0, 10_i128.pow(18) - 1, -1, 1 - 10_i128.pow(18)], 18, 2),
        decimals(vec![0, 10_i128.pow(38) - 1, -1, 1 - 10_i128.pow(38)], 38, 4),
        Arc::new(IntervalMonthDayNanoArray::from(vec![
            IntervalMonthDayNano::new(1, -2, 3),
            IntervalMonthDayNano::new(i32::MIN, i32::MAX, i64::MIN),
        ])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([b"abc", b"\0\0\0", b"\xff\0a"].into_iter()).unwrap()),
        Arc::new(StringViewArray::from(vec!["b", "", "a\0", "a", "a\0b", "ab", "é", long, "\0"])),
        Arc::new(BinaryViewArray::from_iter_values([
            b"".as_slice(),
            b"\xff",
            b"\0",
            b"\0\xff",
            b"\0\0",
            b"a",
            long.as_bytes(),
        ])),
    ];
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        columns.push(cast(&integers, &DataType::Timestamp(unit, None)).unwrap());
        columns.push(cast(&integers, &DataType::Timestamp(unit, Some("UTC".into()))).unwrap());
        columns.push(cast(&integers, &DataType::Duration(unit)).unwrap());
    }
    let times: ArrayRef = Arc::new(Int64Array::from(vec![1, 0, 86_399_999_999]));
    columns.extend(
        [TimeUnit::Microsecond, TimeUnit::Nanosecond].map(|unit| cast(&times, &DataType::Time64(unit)).unwrap()),
    );
    columns
}

/// `rows` values of a column picked at random, some of them NULL if `nullable`.
fn pick(column: &ArrayRef, rows: usize, nullable: bool, random: &mut StdRng) -> ArrayRef {
    let rows: arrow::array::UInt32Array = (0..rows)
        .map(|_| (!nullable || random.random_bool(0.7)).then(|| random.random_range(0..column.len() as u32)))
        .collect();
    take(column, &rows, None).unwrap()
}

fn schema_of(columns: &[ArrayRef], nullable: &[bool]) -> SchemaRef {
    let fields = columns.iter().zip(nullable).enumerate();
    Arc::new(Schema::new(
        fields
            .map(|(at, (column, nullable))| Field::new(format!("c{at}"), column.data_type().clone(), *nullable))
            .collect::<Vec<_>>(),
    ))
}

#[test]
fn rows_of_all_types_and_nulls_come_back_however_they_were_put_together() {
    let mut random = StdRng::seed_from_u64(1);
    let all = columns();
    assert!(all.iter().all(|column| Physical::of(column.data_type()).is_some()));
    for nullable in [false, true] {
        let picked: Vec<ArrayRef> = all.iter().map(|column| pick(column, 200, nullable, &mut random)).collect();
        let schema = schema_of(&picked, &vec![nullable; picked.len()]);
        let layout = RowLayout::new(&schema).unwrap();
        let batch = RecordBatch::try_new(schema, picked).unwrap();
        let rows = layout.encode(&batch).unwrap();
        for row in &rows {
            layout.validate(row).unwrap();
            let mut writer = layout.writer();
            (0..batch.num_columns()).for_each(|column| writer.push(layout.value(row, column)).unwrap());
            assert_eq!(&writer.finish().unwrap(), row);
            let built = layout.build(|column, take| take(layout.value(row, column))).unwrap();
            assert_eq!(&built, row);
        }
        let slices: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
        let everything: Vec<usize> = (0..batch.num_columns()).collect();
        assert_eq!(layout.decode(&slices, &everything).unwrap(), batch);
        let some = [17, 0, 5];
        assert_eq!(layout.decode(&slices, &some).unwrap(), batch.project(&some).unwrap());
    }
}

#[test]
fn damaged_rows_are_refused_or_read_but_never_a_panic() {
    let mut random = StdRng::seed_from_u64(2);
    let picked: Vec<ArrayRef> = columns().iter().map(|column| pick(column, 20, true, &mut random)).collect();
    let schema = schema_of(&picked, &vec![true; picked.len()]);
    let layout = RowLayout::new(&schema).unwrap();
    let batch = RecordBatch::try_new(schema, picked).unwrap();
    let everything: Vec<usize> = (0..batch.num_columns()).collect();
    for row in layout.encode(&batch).unwrap() {
        for length in 0..row.len() {
            assert!(layout.validate(&row[..length]).is_err(), "{length} of {} bytes", row.len());
        }
        for _ in 0..500 {
            let mut damaged = row.to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..damaged.len());
                damaged[at] = random.random();
            }
            if layout.validate(&damaged).is_ok() {
                let _ = layout.decode(&[&damaged], &everything);
            }
        }
    }
}

/// How keys of these columns should order: column by column, NULLs last.
fn expected_order(columns: &[ArrayRef], left: usize, right: usize) -> Ordering {
    let options = SortOptions { descending: false, nulls_first: false };
    let orders = columns.iter().map(|column| make_comparator(column, column, options).unwrap()(left, right));
    orders.fold(Ordering::Equal, Ordering::then)
}

/// Checks all pairs of keys of these columns, and that rows give the same keys as columns.
fn check_keys(columns: &[ArrayRef], nullable: &[bool]) {
    let schema = schema_of(columns, nullable);
    let layout = RowLayout::new(&schema).unwrap();
    let positions: Vec<usize> = (0..columns.len()).collect();
    let encoder = KeyEncoder::new(&layout, &positions).unwrap();
    let keys = encoder.encode(columns).unwrap();
    let batch = RecordBatch::try_new(schema, columns.to_vec()).unwrap();
    for (row, bytes) in layout.encode(&batch).unwrap().iter().enumerate() {
        let mut key = Vec::new();
        encoder.encode_row(&layout, bytes, &mut key).unwrap();
        assert_eq!(key, keys.get(row), "row {row} of {batch:?}");
    }
    for left in 0..keys.len() {
        for right in 0..keys.len() {
            let found = keys.get(left).cmp(keys.get(right));
            assert_eq!(found, expected_order(columns, left, right), "rows {left} and {right} of {batch:?}");
        }
    }
}

#[test]
fn keys_order_as_their_values_do() {
    let mut random = StdRng::seed_from_u64(3);
    let usable: Vec<ArrayRef> =
        columns().into_iter().filter(|column| Physical::of(column.data_type()) != Some(Physical::Interval)).collect();
    for column in &usable {
        check_keys(&[Arc::clone(column)], &[false]);
        let null = arrow::array::new_null_array(column.data_type(), 1);
        check_keys(&[concat(&[column, &null]).unwrap()], &[true]);
    }
    for _ in 0..60 {
        let count = random.random_range(2..5);
        let nullable: Vec<bool> = (0..count).map(|_| random.random_bool(0.4)).collect();
        let picked = nullable.iter().map(|nullable| {
            let column = &usable[random.random_range(0..usable.len())];
            pick(column, 30, *nullable, &mut random)
        });
        check_keys(&picked.collect::<Vec<_>>(), &nullable);
    }
}

#[test]
fn both_zeros_are_one_key_and_so_is_whatever_is_no_number() {
    let doubles = [0.0, -0.0, f64::NAN, -f64::NAN, f64::from_bits(0x7FF0_0000_0000_0001)];
    let singles = doubles.map(|value| value as f32);
    let columns: [ArrayRef; 2] =
        [Arc::new(Float64Array::from(doubles.to_vec())), Arc::new(Float32Array::from(singles.to_vec()))];
    for column in columns {
        let layout = RowLayout::new(&schema_of(&[Arc::clone(&column)], &[false])).unwrap();
        let keys = KeyEncoder::new(&layout, &[0]).unwrap().encode(&[column]).unwrap();
        assert_eq!(keys.get(0), keys.get(1));
        assert!(keys.get(0) < keys.get(2));
        assert_eq!((keys.get(2), keys.get(2)), (keys.get(3), keys.get(4)));
    }
}
