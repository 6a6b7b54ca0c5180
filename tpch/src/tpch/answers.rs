//! The reference answers that are compiled in: all 22, at the scales people use.
//!
//! DuckDB made them on the rows that [`super::TableGenerator`] makes (`answers/README.md` says how). At other scales an
//! answer cannot be verified, and a report says so rather than calling it right.

use super::queries::Query;
use super::scale::ScaleFactor;
use crate::error::Result;
use crate::reference::Reference;

macro_rules! answers_at {
    ($scale:literal: $($number:literal)+) => {
        [$(include_str!(concat!("../../answers/sf", $scale, "/q", $number, ".csv"))),+]
    };
    ($scale:literal) => { answers_at!($scale: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22) };
}

/// The scales with reference answers, and the answers in query order.
static ANSWERS: [(f64, [&str; 22]); 4] =
    [(0.01, answers_at!("0.01")), (0.1, answers_at!("0.1")), (1.0, answers_at!("1")), (10.0, answers_at!("10"))];

/// The right answer to `query` at `scale`, or `None` when none is kept for this scale.
pub fn reference_answer(query: &Query, scale: ScaleFactor) -> Result<Option<Reference>> {
    let Some((_, answers)) = ANSWERS.iter().find(|(answered, _)| *answered == scale.get()) else {
        return Ok(None);
    };
    let name = format!("of q{} at scale {scale}", query.number);
    Reference::parse(&name, answers[usize::from(query.number) - 1]).map(Some)
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
