//! What a scan is asked to filter by.
//!
//! A [`Filter`] is a conjunct: a row is returned only if it is *true* for all of them; false and NULL are the same. The
//! comparisons that storage understands are evaluated on blocks as they lie in memory; anything else comes as a
//! [`RowPredicate`], which storage calls with decoded columns, or with the distinct values of a dictionary.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::error::ArrowError;

use crate::catalog::TableId;

/// What to read.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// The table.
    pub table: TableId,
    /// Columns of the table's storage schema, in the order they are wanted.
    pub projection: Vec<usize>,
    /// Conditions that exactly the returned rows meet.
    pub filters: Vec<Filter>,
    /// Conditions that become known while the scan runs. Rows that fail one need not be returned, but may be.
    pub dynamic: Vec<Arc<dyn DynamicFilter>>,
}

impl ScanRequest {
    /// All visible rows.
    pub fn new(table: TableId, projection: Vec<usize>) -> Self {
        ScanRequest { table, projection, filters: Vec::new(), dynamic: Vec::new() }
    }

    /// The same, with conditions that exactly the returned rows meet.
    pub fn with_filters(mut self, filters: Vec<Filter>) -> Self {
        self.filters = filters;
        self
    }

    /// The same, with conditions that become known while the scan runs.
    pub fn with_dynamic(mut self, dynamic: Vec<Arc<dyn DynamicFilter>>) -> Self {
        self.dynamic = dynamic;
        self
    }
}

/// A condition on rows. Columns are indexes into the table's storage schema.
///
/// Numbers, dates and times compare by value, text and binary by bytes, `false` before `true`. Floats: NaN equals
/// itself and is higher than all others (with a sign, lower than all others), and 0.0 equals -0.0.
#[derive(Debug, Clone)]
pub enum Filter {
    /// No row passes.
    Never,
    /// `column op value`; never true if either is NULL.
    Compare {
        /// The column.
        column: usize,
        /// How it compares.
        op: CompareOp,
        /// The value: length 1, of the column's type.
        value: ArrayRef,
    },
    /// `column [NOT] IN (values)`, with SQL's treatment of NULL in the column and among the values.
    In {
        /// The column.
        column: usize,
        /// The list: at least one value, of the column's type.
        values: ArrayRef,
        /// Whether it is NOT IN.
        negated: bool,
    },
    /// `column IS [NOT] NULL`.
    IsNull {
        /// The column.
        column: usize,
        /// Whether it is IS NOT NULL.
        negated: bool,
    },
    /// Any other condition.
    Rows(Arc<dyn RowPredicate>),
}

/// Comparison operators of [`Filter::Compare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// `=`
    Eq,
    /// `<>`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
}

/// A condition that storage cannot evaluate by itself.
///
/// It must depend on the values it is given only. It is called with values of visible rows that passed the filters
/// before it in the request, or, if it reads one column, with distinct values of that column; if it fails on the
/// latter, it is asked again with the former, so an error is reported only if a row of the result's candidates causes it.
pub trait RowPredicate: Debug + Send + Sync {
    /// The columns it reads, as indexes into the storage schema.
    fn columns(&self) -> &[usize];

    /// For each of `rows` rows, whether it passes. `columns` has one array for each of [`Self::columns`].
    fn evaluate(&self, columns: &[ArrayRef], rows: usize) -> Result<BooleanArray, ArrowError>;
}

/// A condition that becomes known, or stricter, while the scan runs: the bound of a top-k, the keys of a join.
pub trait DynamicFilter: Debug + Send + Sync {
    /// Changes whenever [`Self::current`] does. Asked before each block, so it should be cheap.
    fn generation(&self) -> u64;

    /// What is known by now.
    fn current(&self) -> Vec<Filter>;
}
