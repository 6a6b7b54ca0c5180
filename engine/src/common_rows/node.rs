//! The node of the logical plan. No condition goes below it and no column is left out there: all of a number are alike.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use datafusion::common::{DFSchemaRef, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

/// The rows of its input, computed once for all nodes of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CommonRows {
    pub(super) input: Arc<LogicalPlan>,
    pub(super) number: u64,
}

/// A number that no other node has.
pub(super) fn fresh_number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    COUNT.fetch_add(1, Atomic::Relaxed)
}

/// What is below such a node.
pub(crate) fn input_of_common_rows(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::Extension(extension) => {
            extension.node.as_any().downcast_ref::<CommonRows>().map(|rows| rows.input.as_ref())
        }
        _ => None,
    }
}

impl PartialOrd for CommonRows {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for CommonRows {
    fn name(&self) -> &str {
        "CommonRows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "CommonRows: {}", self.number)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Ok(CommonRows { input: Arc::new(input), number: self.number }),
            Err(_) => internal_err!("common rows come from one input"),
        }
    }
}
