//! Reading tables: the scan operator ([`exec`]), the view and work queues it finds at execution ([`view`]), and the
//! filters it passes down to the store ([`filter`]).

pub(crate) mod exec;
mod filter;
mod view;

pub(crate) use exec::ColumnScanExec;
pub(crate) use view::{ExecutionView, ScanQueue};
