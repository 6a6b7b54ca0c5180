//! What all units of one scan share: the request made ready, and what its filters turned out to be worth.
//!
//! Filters are tried in the order in which they rule rows out most cheaply, by the share of rows that passed them so far
//! in the whole scan. Row predicates stay in the order of the request, behind the comparisons, because they may fail on
//! rows that an earlier filter excludes. A dynamic filter that lets most rows pass is looked at now and then only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;

use super::dictionary::DictionaryTest;
use super::filter::{DynamicFilter, ScanRequest};
use super::test::{Test, Verdict, compile};
use crate::BLOCK_ROWS;
use crate::block::Column;
use crate::block::rank::{Zone, rank};
use crate::catalog::TableDef;
use crate::error::Result;
use crate::segment::Segment;

/// Rows after which the share of those that pass is trusted.
const SAMPLE_ROWS: u64 = 4 * BLOCK_ROWS as u64;

/// A dynamic filter that is not worth it is tried again every so many blocks: later parts of a table may differ.
const RETRY_BLOCKS: u64 = 64;

/// A dictionary is shared by the blocks of a segment: testing so many values for each row of one is no waste.
const DICTIONARY_ROWS_RATIO: usize = 32;

/// A test and how many rows passed it.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) test: Test,
    seen: AtomicU64,
    passed: AtomicU64,
    skipped: AtomicU64,
    /// Its outcome for the dictionaries of segments, by segment; `None` where it failed.
    dictionaries: Mutex<HashMap<u64, Option<Arc<DictionaryTest>>>>,
}

impl Counted {
    fn new(test: Test) -> Counted {
        let zero = || AtomicU64::new(0);
        Counted { test, seen: zero(), passed: zero(), skipped: zero(), dictionaries: Mutex::default() }
    }

    /// The outcome for each value of a segment's dictionary, if the column has one and testing it is worth it for
    /// `rows` rows of a block. `None`: test the rows.
    pub(crate) fn on_dictionary(
        &self,
        segment: u64,
        column: &Column,
        rows: usize,
    ) -> Result<Option<Arc<DictionaryTest>>> {
        let Some(values) = column.dictionary() else { return Ok(None) };
        if let Some(known) = self.dictionaries.lock().get(&segment) {
            return Ok(known.clone());
        }
        if matches!(self.test, Test::Rows(_)) && values.len() > DICTIONARY_ROWS_RATIO * rows.max(BLOCK_ROWS / 64) {
            return Ok(None);
        }
        let tested = DictionaryTest::new(&self.test, values, column.null_count() > 0)?.map(Arc::new);
        self.dictionaries.lock().insert(segment, tested.clone());
        Ok(tested)
    }

    pub(crate) fn record(&self, seen: usize, passed: usize) {
        self.seen.fetch_add(seen as u64, Ordering::Relaxed);
        self.passed.fetch_add(passed as u64, Ordering::Relaxed);
    }

    /// The share of rows that pass; a half while that is not known.
    fn share(&self) -> f64 {
        let (seen, passed) = (self.seen.load(Ordering::Relaxed), self.passed.load(Ordering::Relaxed));
        (passed as f64 + 1.0) / (seen as f64 + 2.0)
    }

    /// Whether a filter that need not be applied should be.
    pub(crate) fn is_worthwhile(&self) -> bool {
        let share_max = if matches!(self.test, Test::Rows(_)) { 0.6 } else { 0.9 };
        self.seen.load(Ordering::Relaxed) < SAMPLE_ROWS
            || self.share() <= share_max
            || self.skipped.fetch_add(1, Ordering::Relaxed) % RETRY_BLOCKS == RETRY_BLOCKS - 1
    }
}

/// A dynamic filter and what was known of it when it was last asked.
#[derive(Debug)]
struct Dynamic {
    filter: Arc<dyn DynamicFilter>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    generation: Option<u64>,
    tests: Vec<Arc<Counted>>,
}

/// What all units of a scan share.
#[derive(Debug)]
pub(crate) struct ScanPlan {
    pub(crate) table: Arc<TableDef>,
    pub(crate) projection: Vec<usize>,
    pub(crate) schema: SchemaRef,
    tests: Vec<Arc<Counted>>,
    dynamic: Vec<Dynamic>,
}

impl ScanPlan {
    pub(crate) fn new(table: Arc<TableDef>, request: ScanRequest) -> Result<ScanPlan> {
        let schema = Arc::new(table.storage_schema().project(&request.projection)?);
        let tests = compile(&request.filters, table.storage_schema())?;
        let dynamic = request.dynamic.into_iter();
        Ok(ScanPlan {
            schema,
            projection: request.projection,
            tests: tests.into_iter().map(|test| Arc::new(Counted::new(test))).collect(),
            dynamic: dynamic.map(|filter| Dynamic { filter, known: Mutex::default() }).collect(),
            table,
        })
    }

    /// The tests every row must pass, in the order to try them.
    pub(crate) fn tests(&self) -> Vec<Arc<Counted>> {
        let is_rows = |counted: &&Arc<Counted>| matches!(counted.test, Test::Rows(_));
        let mut ordered: Vec<Arc<Counted>> = self.tests.iter().filter(|test| !is_rows(test)).cloned().collect();
        let price = |counted: &Counted| counted.test.cost() / (1.0 - counted.share());
        ordered.sort_by(|one, other| price(one).total_cmp(&price(other)));
        ordered.extend(self.tests.iter().filter(is_rows).cloned());
        ordered
    }

    /// Tests that rows may, but need not pass, as far as they are known now.
    pub(crate) fn dynamic_tests(&self) -> Result<Vec<Arc<Counted>>> {
        let mut tests = Vec::new();
        for dynamic in &self.dynamic {
            let generation = dynamic.filter.generation();
            let mut known = dynamic.known.lock();
            if known.generation != Some(generation) {
                let compiled = compile(&dynamic.filter.current(), self.table.storage_schema())?;
                let tests = compiled.into_iter().map(|test| Arc::new(Counted::new(test))).collect();
                *known = Known { generation: Some(generation), tests };
            }
            tests.extend(known.tests.iter().cloned());
        }
        Ok(tests)
    }

    /// Whether a segment may hold rows that pass.
    pub(crate) fn may_match(&self, segment: &Segment) -> Result<bool> {
        let dynamic = self.dynamic_tests()?;
        if self.tests.is_empty() && dynamic.is_empty() {
            return Ok(true);
        }
        let bounds = segment.bounds()?;
        let rows = segment.meta.rows as usize;
        let zone = |column: usize| {
            let nulls = segment.meta.columns[column].null_count as usize;
            let array = bounds.column(column);
            match (rank(array.as_ref(), 0), rank(array.as_ref(), 1)) {
                // Parquet's statistics leave NaN out, so the bounds of floats do not bind.
                (Some(minimum), Some(maximum)) if !array.data_type().is_floating() => {
                    Zone { minimum, maximum, nulls, rows }
                }
                _ => Zone::unbounded(nulls, rows),
            }
        };
        let excluded = |counted: &Arc<Counted>| match (&counted.test, counted.test.column()) {
            (Test::Never, _) => true,
            (test, Some(column)) => test.verdict(&zone(column)) == Verdict::None,
            (_, None) => false,
        };
        Ok(!self.tests.iter().chain(&dynamic).any(excluded))
    }
}
