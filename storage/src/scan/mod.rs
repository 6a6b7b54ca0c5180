//! Reading many rows: a union of morsels.
//!
//! A scan is cut into units of about [`UNIT_ROWS`] rows that any thread may take: ranges of segments, memtables, and a
//! transaction's own pending rows. Nothing is merged or ordered; each unit knows by itself which of its rows the reader
//! may see. A segment without deletes costs nothing beyond its columns.
//!
//! ```text
//!   segment ──bounds──▶ block ──zones──▶ mask of visible rows ──filter──▶ ──filter──▶ … ──▶ values of the rows left
//!            skipped?          skipped?   (delete set)         columns of filters only        the other columns
//! ```
//! Filters are exact, and columns are touched as late as possible (Abadi et al., ICDE 2007): a column that is only
//! returned is not even read from disk while no row of the unit has passed the filters.
//!
//! [`filter`]: what may be asked. [`test`]: filters made ready, and [`dictionary`] for dictionaries. [`plan`]: what the units of a scan share. [`reader`]:
//! one unit at work.

mod dictionary;
mod filter;
mod plan;
mod reader;
mod test;

use std::ops::Range;
use std::sync::Arc;

use rustydb_txn::Timestamp;

pub(crate) use dictionary::DictionaryTest;
pub use filter::{CompareOp, DynamicFilter, Filter, RowPredicate, ScanRequest};
pub(crate) use plan::ScanPlan;
pub use reader::UnitReader;
pub(crate) use test::Test;

use crate::BLOCK_ROWS;
use crate::deletes::DeletedRows;
use crate::memtable::TableMemtable;
use crate::segment::Segment;
use crate::transaction::TableWrites;

/// Rows of a unit: enough to amortise handing it out, few enough to spread a small table over the cores.
pub(crate) const UNIT_ROWS: usize = 8 * BLOCK_ROWS;

#[derive(Debug, Clone)]
enum Source {
    /// `rows` begins at a block.
    Segment {
        segment: Arc<Segment>,
        rows: Range<usize>,
        deleted: Option<Arc<DeletedRows>>,
    },
    Memtable {
        part: Arc<TableMemtable>,
        timestamp: Timestamp,
        writes: Option<Arc<TableWrites>>,
    },
    Pending {
        writes: Arc<TableWrites>,
    },
}

/// A part of a scan, to be read by one thread.
#[derive(Debug, Clone)]
pub struct ScanUnit {
    plan: Arc<ScanPlan>,
    source: Source,
}

impl ScanUnit {
    /// Rows of a segment that begin at a block's first.
    pub(crate) fn segment(
        plan: &Arc<ScanPlan>,
        segment: &Arc<Segment>,
        rows: Range<usize>,
        deleted: Option<Arc<DeletedRows>>,
    ) -> ScanUnit {
        Self::new(plan, Source::Segment { segment: Arc::clone(segment), rows, deleted })
    }

    pub(crate) fn memtable(
        plan: &Arc<ScanPlan>,
        part: Arc<TableMemtable>,
        timestamp: Timestamp,
        writes: Option<Arc<TableWrites>>,
    ) -> ScanUnit {
        Self::new(plan, Source::Memtable { part, timestamp, writes })
    }

    pub(crate) fn pending(plan: &Arc<ScanPlan>, writes: Arc<TableWrites>) -> ScanUnit {
        Self::new(plan, Source::Pending { writes })
    }

    fn new(plan: &Arc<ScanPlan>, source: Source) -> ScanUnit {
        ScanUnit { plan: Arc::clone(plan), source }
    }

    /// At most this many rows come out.
    pub fn rows_max(&self) -> usize {
        match &self.source {
            Source::Segment { rows, .. } => rows.len(),
            Source::Memtable { part, .. } => part.keys(),
            Source::Pending { writes } => writes.rows.len(),
        }
    }

    /// Cuts the unit after about `rows` rows, where a block ends, if it has more and can be cut: what is left is a unit, too.
    pub fn cut_after(&mut self, rows: usize) -> Option<ScanUnit> {
        let Source::Segment { segment, rows: own, deleted } = &mut self.source else { return None };
        let middle = own.start + rows.clamp(1, own.len()).next_multiple_of(BLOCK_ROWS);
        if middle >= own.end {
            return None;
        }
        let rest = Source::Segment { segment: Arc::clone(segment), rows: middle..own.end, deleted: deleted.clone() };
        own.end = middle;
        Some(ScanUnit { plan: Arc::clone(&self.plan), source: rest })
    }

    /// Whether both are rows of one segment, which share what has to be loaded.
    pub fn is_of_same_segment(&self, other: &ScanUnit) -> bool {
        match (&self.source, &other.source) {
            (Source::Segment { segment, .. }, Source::Segment { segment: other, .. }) => Arc::ptr_eq(segment, other),
            _ => false,
        }
    }

    /// Starts reading.
    pub fn open(self) -> UnitReader {
        UnitReader::new(self)
    }
}
