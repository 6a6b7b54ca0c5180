//! How many rows and distinct values an operator will produce: the cost model's only view of the data.
//!
//! ```text
//!   writers' statistics ──► ColumnScanExec ──► Filter (selectivity) ──► Join (containment) ──► Aggregate (groups) ──► …
//!    rows, bounds, NDV        Estimate             Estimate                 Estimate             Estimate
//! ```
//!
//! An [`Estimate`] is made bottom-up from the children's. The assumptions are the classic ones (Selinger et al., 1979):
//! values are spread evenly between their bounds, columns are independent, and the smaller side's join keys are contained
//! in the larger's. Two refinements matter in practice: ranges on one column are intersected before they are weighed, and
//! a join that covers a key (primary key, GROUP BY columns) matches at most one row per key, however many columns it has.
//!
//! An estimate is never wrong in a way that changes an answer; it may only lead to a slower plan.

mod operators;
mod selectivity;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

pub(crate) use selectivity::selectivity;

/// Rows assumed of an operator nothing is known about.
const UNKNOWN_ROWS: f64 = 1_000.0;

/// What is expected of an operator's output.
#[derive(Debug, Clone)]
pub(crate) struct Estimate {
    /// Rows of all partitions together, at least 1.
    pub(crate) rows: f64,
    /// One for each output column.
    pub(crate) columns: Vec<ColumnEstimate>,
    /// What identifies a row.
    pub(crate) keys: Vec<Key>,
}

/// Output columns no two rows agree in.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) columns: Vec<usize>,
    /// How many keys there were before any filter.
    pub(crate) domain: f64,
}

/// What is expected of a column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnEstimate {
    /// Distinct values, at least 1.
    pub(crate) distinct: f64,
    /// Bounds as numbers, where the type has an order that numbers can express.
    pub(crate) range: Option<(f64, f64)>,
    /// The share of NULLs.
    pub(crate) nulls: f64,
}

impl ColumnEstimate {
    /// A column of `rows` rows nothing else is known about.
    pub(crate) fn unknown(rows: f64) -> Self {
        ColumnEstimate { distinct: (rows / 10.0).max(1.0), range: None, nulls: 0.0 }
    }
}

impl Estimate {
    /// Nothing is known but the number of rows and columns.
    pub(crate) fn unknown(rows: f64, columns: usize) -> Self {
        let rows = rows.max(1.0);
        Estimate { rows, columns: vec![ColumnEstimate::unknown(rows); columns], keys: Vec::new() }
    }

    /// The same rows thinned out evenly to the share `selectivity`.
    pub(crate) fn filtered(&self, selectivity: f64) -> Self {
        let rows = (self.rows * selectivity).max(1.0);
        let mut thinned = self.clone();
        thinned.scale_to(rows);
        thinned
    }

    /// Sets the number of rows, and reduces the distinct values to those that are left when rows go away at random: of
    /// d values with n/d rows each, 1 - (1 - s)^(n/d) keep a row (Yao's formula, simplified).
    pub(crate) fn scale_to(&mut self, rows: f64) {
        let share = (rows / self.rows).min(1.0);
        for column in &mut self.columns {
            let copies = (self.rows / column.distinct).max(1.0);
            column.distinct = (column.distinct * (1.0 - (1.0 - share).powf(copies))).clamp(1.0, rows.max(1.0));
        }
        self.rows = rows.max(1.0);
    }

    /// The columns `kept`, in that order.
    pub(crate) fn projected(&self, kept: &[usize]) -> Self {
        let mapped = |column: &usize| kept.iter().position(|kept| kept == column);
        let keys = self.keys.iter().filter_map(|key| {
            let columns = key.columns.iter().map(mapped).collect::<Option<Vec<_>>>()?;
            Some(Key { columns, domain: key.domain })
        });
        Estimate {
            rows: self.rows,
            columns: kept.iter().map(|column| self.column(*column)).collect(),
            keys: keys.collect(),
        }
    }

    pub(crate) fn column(&self, index: usize) -> ColumnEstimate {
        self.columns.get(index).copied().unwrap_or_else(|| ColumnEstimate::unknown(self.rows))
    }
}

/// Estimates operators, each once. It is made for one pass over a plan.
#[derive(Debug, Default)]
pub(crate) struct Estimator {
    /// By the operator's address; the operator is kept alive so that its address is not used again.
    known: HashMap<usize, (Arc<dyn ExecutionPlan>, Arc<Estimate>)>,
}

impl Estimator {
    /// What `plan` is expected to produce.
    pub(crate) fn estimate(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Arc<Estimate> {
        let address = Arc::as_ptr(plan).cast::<()>() as usize;
        if let Some((_, known)) = self.known.get(&address) {
            return Arc::clone(known);
        }
        let inputs: Vec<Arc<Estimate>> = plan.children().into_iter().map(|child| self.estimate(child)).collect();
        let mut estimate = operators::estimate(plan.as_ref(), &inputs);
        if let Some(fetch) = plan.fetch()
            && estimate.rows > fetch as f64
        {
            estimate.scale_to(fetch as f64);
        }
        let estimate = Arc::new(estimate);
        self.known.insert(address, (Arc::clone(plan), Arc::clone(&estimate)));
        estimate
    }
}
