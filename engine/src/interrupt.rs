//! How a statement is stopped while it is being planned.
//!
//! A future is cancelled by dropping it, but only where it waits, and planning never waits: a statement that takes long
//! to plan would go on after its client has left, and `statement_timeout` would not be looked at. So each task on the
//! statements' threads has an [`Interrupt`], and planning asks it ([`check`]) wherever a table or function is looked up
//! and before each rule of analyser and optimisers.
//!
//! What lies between two questions is bounded: a rule's work on one plan, whose size [`crate::sql`] bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{AnalyzerRule, ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::stream::Deadline;
use crate::{Error, Result, error::sqlstate};

tokio::task_local! {
    static CURRENT: Arc<Interrupt>;
}

/// Whether a task has been told to stop.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    cancelled: AtomicBool,
    deadline: Mutex<Option<Instant>>,
}

impl Interrupt {
    /// Makes the task stop the next time it asks.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Runs `work` so that [`check`] inside of it asks this interrupt.
    pub(crate) async fn scope<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }
}

/// The interrupt of the current task.
pub(crate) fn current() -> Option<Arc<Interrupt>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// From now on the current task has to stop at `deadline`.
pub(crate) fn stop_at(deadline: Option<Instant>) {
    // Outside of a task, as in unit tests, nothing can be interrupted.
    let _ = CURRENT.try_with(|interrupt| *interrupt.deadline.lock() = deadline);
}

/// Fails with 57014 if the statement that is being planned was cancelled, or its time is up.
pub(crate) fn check() -> Result<()> {
    let verdict = CURRENT.try_with(|interrupt| {
        if interrupt.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(sqlstate::QUERY_CANCELED, "the statement was cancelled"));
        }
        match *interrupt.deadline.lock() {
            Some(deadline) if Instant::now() >= deadline => Err(Deadline::exceeded()),
            _ => Ok(()),
        }
    });
    verdict.unwrap_or(Ok(()))
}

/// The same planner, asking [`check`] before each rule and, where a rule is applied node by node, before each node.
pub(crate) fn interruptible(state: SessionState) -> SessionState {
    let analyzer = state.analyzer().rules.iter().cloned().map(|rule| Arc::new(Checked(rule)) as _).collect();
    let logical = state.optimizer().rules.iter().cloned().map(|rule| Arc::new(Checked(rule)) as _).collect();
    let physical = state.physical_optimizers().iter().cloned().map(|rule| Arc::new(Checked(rule)) as _).collect();
    SessionStateBuilder::new_from_existing(state)
        .with_analyzer_rules(analyzer)
        .with_optimizer_rules(logical)
        .with_physical_optimizer_rules(physical)
        .build()
}

#[derive(Debug)]
struct Checked<R>(R);

impl AnalyzerRule for Checked<Arc<dyn AnalyzerRule + Send + Sync>> {
    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        check()?;
        self.0.analyze(plan, config)
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}

impl OptimizerRule for Checked<Arc<dyn OptimizerRule + Send + Sync>> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DataFusionResult<Transformed<LogicalPlan>> {
        check()?;
        self.0.rewrite(plan, config)
    }
}

impl PhysicalOptimizerRule for Checked<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        check()?;
        self.0.optimize(plan, config)
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        check()?;
        self.0.optimize_with_context(plan, context)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_cancelled_task_and_a_late_one_are_told_to_stop() {
        assert!(check().is_ok(), "outside of a task");
        let interrupt = Arc::new(Interrupt::default());
        let inside = async {
            assert!(check().is_ok());
            stop_at(Instant::now().checked_sub(Duration::from_millis(1)));
            assert_eq!(check().unwrap_err().sqlstate(), "57014");
            stop_at(None);
            assert!(check().is_ok());
            interrupt.cancel();
            assert_eq!(check().unwrap_err().message(), "the statement was cancelled");
        };
        Arc::clone(&interrupt).scope(inside).await;
    }
}
