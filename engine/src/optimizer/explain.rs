//! What EXPLAIN adds to DataFusion's: the number of rows that the cost model expected of each operator.
//!
//! A plan to be shown is wrapped operator by operator. A wrapper prints one thing more, and is the operator it wraps in all
//! other respects, so that `EXPLAIN ANALYZE` shows the estimate beside what came out.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use super::estimate::Estimator;

/// The same plan, showing estimates.
pub(crate) fn with_estimates(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    wrapped(plan, &mut Estimator::default())
}

fn wrapped(plan: &Arc<dyn ExecutionPlan>, estimator: &mut Estimator) -> Arc<dyn ExecutionPlan> {
    let rows = estimator.estimate(plan).rows;
    let children = plan.children().into_iter().map(|child| wrapped(child, estimator)).collect();
    Arc::new(EstimatedExec { inner: Arc::clone(plan), children, rows })
}

/// An operator with the rows expected of it.
#[derive(Debug)]
struct EstimatedExec {
    inner: Arc<dyn ExecutionPlan>,
    /// The inner operator's children, wrapped.
    children: Vec<Arc<dyn ExecutionPlan>>,
    rows: f64,
}

impl DisplayAs for EstimatedExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_as(format, f)?;
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, ", estimated_rows={:.0}", self.rows),
            DisplayFormatType::TreeRender => writeln!(f, "estimated_rows={:.0}", self.rows),
        }
    }
}

impl ExecutionPlan for EstimatedExec {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.inner.as_ref())
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.children.iter().collect()
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(visit)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = replace_children_if_necessary(Arc::clone(&self.inner), children.clone())?;
        Ok(Arc::new(EstimatedExec { inner, children, rows: self.rows }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.inner.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.inner.metrics()
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        arguments: &StatisticsArgs,
    ) -> Result<Arc<Statistics>, DataFusionError> {
        self.inner.statistics_from_inputs(inputs, arguments)
    }
}
