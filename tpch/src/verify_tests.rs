//! Tests of the comparison: every kind of wrong answer that an engine can give must be caught, and nothing else.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::array::{Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, StringViewArray};

use super::*;

/// Two orders, a tie in the ORDER BY column, a NULL and an empty string.
const REFERENCE: &str = "\
name,total,mean,day,items
text,\"decimal(38,2)\",double,date,integer
-,1,-,-,-
anvil,90.10,25.522005853257337,1994-01-01,3
bolt,50.00,1.5,1995-06-30,1
\"\",50.00,2.5,1995-06-30,1
\\N,7.25,0.034485860135,1996-02-29,\\N
";

struct Answer {
    name: Vec<Option<&'static str>>,
    total: Vec<i128>,
    total_scale: i8,
    mean: Vec<i128>,
    items: Vec<Option<i64>>,
}

impl Answer {
    fn right() -> Self {
        Self {
            name: vec![Some("anvil"), Some("bolt"), Some(""), None],
            total: vec![9010, 5000, 5000, 725],
            total_scale: 2,
            mean: vec![25_522_005, 1_500_000, 2_500_000, 34_485],
            items: vec![Some(3), Some(1), Some(1), None],
        }
    }

    fn batch(self) -> RecordBatch {
        let decimal = |values: Vec<i128>, scale| {
            Decimal128Array::from(values).with_precision_and_scale(38, scale).expect("a valid decimal type")
        };
        // 1994-01-01, 1995-06-30 twice, 1996-02-29.
        let days = Date32Array::from(vec![8766, 9311, 9311, 9555]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("name", Arc::new(StringViewArray::from(self.name))),
            ("total", Arc::new(decimal(self.total, self.total_scale))),
            ("mean", Arc::new(decimal(self.mean, 6))),
            ("day", Arc::new(days)),
            ("items", Arc::new(Int64Array::from(self.items))),
        ];
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    }
}

fn verdict(batches: &[RecordBatch]) -> Result<(), Mismatch> {
    let reference = Reference::parse("test", REFERENCE).expect("a readable reference");
    verify(&reference, &batches[0].schema(), batches)
}

fn verdict_on(change: impl FnOnce(&mut Answer)) -> Result<(), Mismatch> {
    let mut answer = Answer::right();
    change(&mut answer);
    verdict(&[answer.batch()])
}

fn wrong_cell(result: Result<(), Mismatch>) -> (usize, String) {
    match result.expect_err("the wrong answer was accepted") {
        Mismatch::Value { row, column, .. } => (row, column),
        other => panic!("expected a wrong value, got: {other}"),
    }
}

#[test]
fn the_right_answer_passes_whole_and_in_pieces() {
    assert_eq!(verdict_on(|_| {}), Ok(()));
    let whole = Answer::right().batch();
    assert_eq!(verdict(&[whole.slice(0, 1), whole.slice(1, 0), whole.slice(1, 3)]), Ok(()));
}

#[test]
fn a_wrong_digit_in_a_decimal_fails() {
    assert_eq!(wrong_cell(verdict_on(|answer| answer.total[3] = 726)), (4, "total".to_owned()));
    // The tie is compared as a multiset, but still exactly.
    assert_eq!(wrong_cell(verdict_on(|answer| answer.items[2] = Some(2))).1, "items");
}

#[test]
fn more_decimal_places_pass_only_if_they_are_zero() {
    let scaled = |extra: i128| {
        verdict_on(|answer| {
            answer.total = answer.total.iter().map(|value| value * 10_000).collect();
            answer.total[0] += extra;
            answer.total_scale = 6;
        })
    };
    assert_eq!(scaled(0), Ok(()));
    assert_eq!(wrong_cell(scaled(1)), (1, "total".to_owned()));
}

#[test]
fn a_missing_or_an_extra_row_fails() {
    let whole = Answer::right().batch();
    assert_eq!(verdict(&[whole.slice(0, 3)]), Err(Mismatch::Rows { expected: 4, found: 3 }));
    assert_eq!(verdict(&[whole.clone(), whole.slice(3, 1)]), Err(Mismatch::Rows { expected: 4, found: 5 }));
    assert_eq!(verdict(&[whole.slice(0, 0)]), Err(Mismatch::Rows { expected: 4, found: 0 }));
}

#[test]
fn rows_may_be_swapped_within_a_tie_and_nowhere_else() {
    let whole = Answer::right().batch();
    let in_order = |rows: [usize; 4]| verdict(&rows.map(|row| whole.slice(row, 1)));
    assert_eq!(in_order([0, 2, 1, 3]), Ok(()));
    assert_eq!(wrong_cell(in_order([1, 0, 2, 3])), (1, "total".to_owned()));
    assert_eq!(wrong_cell(in_order([0, 1, 3, 2])), (3, "total".to_owned()));
}

#[test]
fn a_row_twice_in_place_of_its_neighbour_in_a_tie_fails() {
    let whole = Answer::right().batch();
    assert_eq!(wrong_cell(verdict(&[0, 1, 1, 3].map(|row| whole.slice(row, 1)))).1, "name");
}

#[test]
fn null_is_neither_the_empty_string_nor_zero() {
    assert_eq!(wrong_cell(verdict_on(|answer| answer.name[3] = Some(""))), (4, "name".to_owned()));
    assert_eq!(wrong_cell(verdict_on(|answer| answer.name[2] = None)).1, "name");
    assert_eq!(wrong_cell(verdict_on(|answer| answer.items[3] = Some(0))), (4, "items".to_owned()));
}

#[test]
fn strings_are_compared_to_the_last_byte() {
    assert_eq!(wrong_cell(verdict_on(|answer| answer.name[0] = Some("anvil "))), (1, "name".to_owned()));
    assert_eq!(wrong_cell(verdict_on(|answer| answer.name[0] = Some("Anvil"))), (1, "name".to_owned()));
}

#[test]
fn the_last_place_of_a_quotient_may_be_rounded_or_truncated_and_nothing_else() {
    let first_mean = |value: i128| verdict_on(|answer| answer.mean[0] = value);
    assert_eq!(first_mean(25_522_005), Ok(()), "truncated");
    assert_eq!(first_mean(25_522_006), Ok(()), "rounded");
    assert_eq!(wrong_cell(first_mean(25_522_004)), (1, "mean".to_owned()));
    assert_eq!(wrong_cell(first_mean(25_522_007)), (1, "mean".to_owned()));
    // A reference printed with few digits is no licence: 1.5 means 1.500000 here.
    assert_eq!(wrong_cell(verdict_on(|answer| answer.mean[1] = 1_500_001)).1, "mean");
}

#[test]
fn a_quotient_as_a_double_agrees_to_fifteen_digits() {
    let reference = Reference::parse("t", "m\ndouble\n-\n38273.129734621674\n").expect("readable");
    let check = |value: f64| {
        let batch = RecordBatch::try_from_iter([("m", Arc::new(Float64Array::from(vec![value])) as ArrayRef)])
            .expect("one column");
        verify(&reference, &batch.schema(), &[batch])
    };
    assert_eq!(check(38_273.129_734_621_674), Ok(()));
    assert_eq!(check(38_273.129_734_621_68), Ok(()), "one bit off");
    assert!(check(38_273.129_734_622_0).is_err());
    assert!(check(f64::NAN).is_err());
}

#[test]
fn other_columns_or_types_that_lose_digits_fail() {
    let right = Answer::right().batch();
    let replaced = |index: usize, name: &str, array: ArrayRef| {
        let schema = right.schema();
        let columns = schema.fields().iter().zip(right.columns()).enumerate().map(|(at, (field, column))| {
            if at == index { (name.to_owned(), Arc::clone(&array)) } else { (field.name().clone(), Arc::clone(column)) }
        });
        verdict(&[RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).expect("columns of one length")])
    };
    let doubles: ArrayRef = Arc::new(Float64Array::from(vec![90.1, 50.0, 50.0, 7.25]));
    assert!(matches!(replaced(1, "total", doubles), Err(Mismatch::Type { column, .. }) if column == "total"));
    let days: ArrayRef = Arc::new(Int32Array::from(vec![8766, 9311, 9311, 9555]));
    assert!(matches!(replaced(3, "day", days), Err(Mismatch::Type { column, .. }) if column == "day"));
    let renamed = replaced(4, "count", Arc::clone(right.column(4)));
    assert!(matches!(renamed, Err(Mismatch::Columns { .. })));
    // The width of an integer is an engine's own choice.
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![Some(3), Some(1), Some(1), None]));
    assert_eq!(replaced(4, "items", narrow), Ok(()));
}

#[test]
fn a_mismatch_says_where_and_what() {
    let message = verdict_on(|answer| answer.total[3] = 726).expect_err("a wrong digit").to_string();
    assert_eq!(message, "row 4, column total: expected 7.25, found 7.26");
}
