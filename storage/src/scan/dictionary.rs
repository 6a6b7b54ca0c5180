//! A filter on a dictionary: evaluated once per distinct value, looked up by code for the rows.

use arrow::array::{ArrayRef, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::concat;

use super::test::Test;
use crate::block::Codes;
use crate::error::Result;
use crate::kernel::Mask;

/// Which codes of one dictionary pass.
#[derive(Debug)]
enum Passing {
    /// Those from the first to the last; none if they are in the wrong order. A comparison with a constant ends up
    /// here, because dictionaries are sorted.
    Range(u32, u32),
    /// One bit for each code.
    Table(Box<[u64]>),
}

/// The outcome of a test for each value of a dictionary.
#[derive(Debug)]
pub(crate) struct DictionaryTest {
    passing: Passing,
    null_passes: bool,
}

impl DictionaryTest {
    /// Tests all values of a dictionary, and NULL if rows may be. `None` if a predicate fails: perhaps on a value that
    /// no wanted row has, so the rows themselves must be asked.
    pub(crate) fn new(test: &Test, values: &ArrayRef, has_nulls: bool) -> Result<Option<DictionaryTest>> {
        let (passes, null_passes) = match test {
            Test::Rows(predicate) => {
                let with_null = match has_nulls {
                    true => concat(&[values.as_ref(), new_null_array(values.data_type(), 1).as_ref()])?,
                    false => values.clone(),
                };
                let Ok(outcome) = predicate.evaluate(std::slice::from_ref(&with_null), with_null.len()) else {
                    return Ok(None);
                };
                let rows = Mask::from_boolean(&outcome).indices();
                let mut passes = Mask::all(values.len()).inverted();
                rows.iter().filter(|row| (**row as usize) < values.len()).for_each(|row| passes.insert(*row as usize));
                (passes, rows.last().is_some_and(|row| *row as usize == values.len()))
            }
            Test::Null { negated, .. } => {
                (if *negated { Mask::all(values.len()) } else { Mask::all(values.len()).inverted() }, !negated)
            }
            test => (test.matches(values)?, false),
        };
        let mut runs = Vec::new();
        passes.for_each_run(|run| runs.push(run));
        let passing = match runs.as_slice() {
            [] => Passing::Range(1, 0),
            [run] => Passing::Range(run.start as u32, run.end as u32 - 1),
            _ => Passing::Table(passes.into_words()),
        };
        Ok(Some(DictionaryTest { passing, null_passes }))
    }

    /// Takes out of `mask` the rows that fail.
    pub(crate) fn filter(&self, codes: &Codes, nulls: Option<&NullBuffer>, mask: &mut Mask) {
        let null_rows = nulls.filter(|_| self.null_passes).map(|nulls| {
            let mut valid = Mask::all(mask.rows());
            valid.and_valid(Some(nulls));
            let mut null = valid.inverted();
            null.and(mask);
            null
        });
        match &self.passing {
            Passing::Range(first, last) if first > last => mask.clear(),
            Passing::Range(first, last) => {
                let (first, span) = (*first, last - first);
                codes.filter(|code| code.wrapping_sub(first) <= span, mask);
            }
            Passing::Table(table) => codes.filter(|code| table[code as usize / 64] >> (code % 64) & 1 == 1, mask),
        }
        mask.and_valid(nulls);
        if let Some(null_rows) = null_rows {
            mask.or(&null_rows);
        }
    }
}
