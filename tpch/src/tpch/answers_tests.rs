//! Tests of the compiled-in answers: all there, all readable, and at scale 1 the TPC's own.

use super::*;
use crate::reference::{Cell, Number};
use crate::tpch::QUERIES;

fn scale(text: &str) -> ScaleFactor {
    text.parse().expect("a valid scale")
}

#[test]
fn every_answer_at_every_scale_is_readable_and_ordered_as_its_query_says() {
    for at in ["0.01", "0.1", "1", "10"] {
        for query in &QUERIES {
            let reference = reference_answer(query, scale(at)).expect("a readable answer").expect("an answer");
            assert!(!reference.columns().is_empty() && !reference.rows().is_empty(), "q{} at {at}", query.number);
            let ordered = query.sql(scale(at)).contains("\norder by\n");
            assert_eq!(ordered, !reference.order().is_empty(), "q{} at {at}", query.number);
        }
    }
}

#[test]
fn an_unknown_scale_has_no_answer() {
    assert!(reference_answer(&QUERIES[0], scale("0.5")).expect("no error").is_none());
}

/// The TPC's answer set comes as text tables: columns split by `|`, padded with blanks, numbers rounded to two places by
/// way of a double, so that an exact half may go either way.
#[test]
fn at_scale_1_the_answers_agree_with_the_answer_set_of_the_tpc() {
    // The file has 348406.02 for Q17, three cents off and within the 1 % that clause 2.1.3.5 allows an average; all other
    // answers are exact.
    for query in QUERIES.iter().filter(|query| query.number != 17) {
        let reference = reference_answer(query, scale("1")).expect("a readable answer").expect("an answer");
        let official = tpchgen::q_and_a::answers_sf1::answer(i32::from(query.number)).expect("an official answer");
        let official: Vec<&str> = official.lines().filter(|line| !line.trim().is_empty()).skip(1).collect();
        assert_eq!(reference.rows().len(), official.len(), "q{}", query.number);
        for (row, line) in reference.rows().iter().zip(official) {
            let printed: Vec<&str> = line.split('|').map(str::trim).collect();
            assert_eq!(row.len(), printed.len(), "q{}: {line}", query.number);
            for (cell, printed) in row.iter().zip(printed) {
                // The TPC's file cuts Q11's keys off after four characters.
                let cut_off = query.number == 11 && cell.to_string().starts_with(printed);
                assert!(cut_off || agrees(cell, printed), "q{}: {cell} is not {printed} in: {line}", query.number);
            }
        }
    }
}

fn agrees(cell: &Cell, printed: &str) -> bool {
    match cell {
        Cell::Number(exact) if exact.scale > 0 => Number::parse(printed).is_some_and(|official| {
            // Half a cent, in units of the exact number's last place, doubled to stay whole.
            let unit = 10_i128.pow(u32::from(exact.scale.max(2)) - 2);
            let widened = exact.mantissa * 10_i128.pow(2 - u32::from(exact.scale.min(2)));
            official.scale == 2 && 2 * (widened - official.mantissa * unit).abs() <= unit
        }),
        Cell::Text(text) => text.trim() == printed,
        other => other.to_string() == printed,
    }
}
