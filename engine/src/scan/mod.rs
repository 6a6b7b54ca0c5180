//! Reading tables: the scan operator ([`exec`]), the view and work queues it finds at execution ([`view`]), and the
//! predicates it passes down for pruning ([`predicate`]).

pub(crate) mod exec;
pub(crate) mod predicate;
mod view;

pub(crate) use exec::ColumnScanExec;
pub(crate) use view::{ExecutionView, ScanQueue};
