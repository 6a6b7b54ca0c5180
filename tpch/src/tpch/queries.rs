//! The 22 queries, with the specification's validation values as parameters, each in a file of its own.
//!
//! The texts are those of the specification (clause 2.4), with three liberties that it allows or that every kit takes:
//! Q15's view is a common table expression, Q18's sum has a name, and "the first n rows" is a LIMIT. They are standard SQL
//! and run unchanged on DuckDB, which made the reference answers. One parameter depends on the scale: Q11's FRACTION.

use std::borrow::Cow;

use super::scale::ScaleFactor;
use crate::error::{Error, Result};

/// A query of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Its number, 1 to 22.
    pub number: u8,
    /// What it asks, in the specification's words.
    pub title: &'static str,
    /// Its text at scale 1.
    text: &'static str,
}

/// Q11's FRACTION at scale 1, as its file spells it.
const FRACTION_AT_ONE: &str = "0.0001";

impl Query {
    /// Its text at a scale factor.
    pub fn sql(&self, scale: ScaleFactor) -> Cow<'static, str> {
        if self.number != 11 {
            return Cow::Borrowed(self.text);
        }
        // Ten decimal places, as the specification prints it; the zeros at the end would only widen a decimal type.
        let fraction = format!("{:.10}", 0.0001 / scale.get());
        Cow::Owned(self.text.replace(FRACTION_AT_ONE, fraction.trim_end_matches('0')))
    }
}

macro_rules! queries {
    ($($number:literal $title:literal),+ $(,)?) => {
        [$(Query { number: $number, title: $title, text: include_str!(concat!("queries/q", $number, ".sql")) }),+]
    };
}

/// All queries, in order.
pub const QUERIES: [Query; 22] = queries![
    1 "Pricing Summary Report",
    2 "Minimum Cost Supplier",
    3 "Shipping Priority",
    4 "Order Priority Checking",
    5 "Local Supplier Volume",
    6 "Forecasting Revenue Change",
    7 "Volume Shipping",
    8 "National Market Share",
    9 "Product Type Profit Measure",
    10 "Returned Item Reporting",
    11 "Important Stock Identification",
    12 "Shipping Modes and Order Priority",
    13 "Customer Distribution",
    14 "Promotion Effect",
    15 "Top Supplier",
    16 "Parts/Supplier Relationship",
    17 "Small-Quantity-Order Revenue",
    18 "Large Volume Customer",
    19 "Discounted Revenue",
    20 "Potential Part Promotion",
    21 "Suppliers Who Kept Orders Waiting",
    22 "Global Sales Opportunity",
];

/// Reads a list such as `1,3,6-9`: numbers and ranges, separated by commas. The queries come in the order given, each
/// once.
pub fn parse_query_list(list: &str) -> Result<Vec<Query>> {
    let refuse = |reason: String| Error::QueryList { list: list.to_owned(), reason };
    let number = |text: &str| -> Result<u8> {
        let text = text.trim();
        match text.strip_prefix(['q', 'Q']).unwrap_or(text).parse() {
            Ok(number @ 1..=22) => Ok(number),
            Ok(number) => Err(refuse(format!("there is no query {number}; TPC-H has the queries 1 to 22"))),
            Err(_) => Err(refuse(format!("{text:?} is no query number; write for example 1,3,6-9"))),
        }
    };
    let mut chosen: Vec<Query> = Vec::new();
    for item in list.split(',') {
        let (first, last) = match item.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(item)?, number(item)?),
        };
        if first > last {
            return Err(refuse(format!("the range {} runs backwards", item.trim())));
        }
        for number in first..=last {
            let query = QUERIES[usize::from(number) - 1];
            if !chosen.contains(&query) {
                chosen.push(query);
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(list: &str) -> Vec<u8> {
        parse_query_list(list).expect("a readable list").iter().map(|query| query.number).collect()
    }

    #[test]
    fn a_list_of_numbers_and_ranges_selects_each_query_once_in_the_order_given() {
        assert_eq!(numbers("6"), [6]);
        assert_eq!(numbers(" q18, 1-3 ,2"), [18, 1, 2, 3]);
        assert_eq!(numbers("1-22").len(), 22);
    }

    #[test]
    fn a_list_that_names_no_query_is_refused_with_the_reason() {
        for (list, reason) in
            [("", "no query number"), ("0", "no query 0"), ("23", "1 to 22"), ("1,x", "no query number")]
        {
            let message = parse_query_list(list).expect_err("a bad list").to_string();
            assert!(message.contains(reason), "{list:?} gave: {message}");
        }
        assert!(parse_query_list("9-6").is_err() && parse_query_list("1-").is_err());
    }

    #[test]
    fn every_file_is_headed_by_its_own_number_and_title() {
        for (query, number) in QUERIES.iter().zip(1..) {
            assert_eq!(query.number, number);
            let head = format!("-- TPC-H Q{number}: {}.", query.title);
            assert!(query.text.starts_with(&head), "q{number}.sql does not start with {head:?}");
        }
    }

    #[test]
    fn the_fraction_of_q11_shrinks_with_the_scale_and_nothing_else_changes() {
        let at = |scale: &str| QUERIES[10].sql(scale.parse().expect("a valid scale"));
        assert_eq!(at("1"), QUERIES[10].text);
        assert!(at("10").contains("* 0.00001\n") && at("0.01").contains("* 0.01\n") && at("0.1").contains("* 0.001\n"));
        assert_eq!(QUERIES[5].sql("10".parse().expect("a valid scale")), QUERIES[5].text);
    }
}
