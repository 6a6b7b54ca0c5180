//! The 22 analytical queries of CH-benCHmark (Cole et al. 2011, "The mixed workload CH-benCHmark"): TPC-H's questions over
//! the tables of TPC-C, each in a file of its own.
//!
//! Three liberties, so that the texts run unchanged on RustyDB and PostgreSQL and find something: `mod` is `%`, upper bounds
//! of dates are in the future, and two patterns are one letter shorter.

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Its number, 1 to 22.
    pub number: u8,
    /// Its text.
    pub sql: &'static str,
}

macro_rules! queries {
    ($($number:literal)+) => {
        [$(Query { number: $number, sql: include_str!(concat!("queries/q", $number, ".sql")) }),+]
    };
}

/// All queries, in order.
pub const QUERIES: [Query; 22] = queries![1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_headed_by_its_own_number() {
        for (query, number) in QUERIES.iter().zip(1..) {
            assert_eq!(query.number, number);
            assert!(query.sql.starts_with(&format!("-- CH-benCHmark Q{number}: ")), "q{number}.sql");
        }
    }
}
