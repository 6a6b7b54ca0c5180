//! Hands the rows of the side of an outer join through that may be missing, and says of no column that it is constant.
//!
//! `… LEFT JOIN (SELECT a, 7 AS k FROM t) y …`: below the join `k` is always 7, above it 7 or NULL. DataFusion 55 takes
//! what is constant below an outer join for constant above it, so that `ORDER BY y.k` sorted nothing and groups by
//! `y.k` were taken to come in order. Where columns equal one another they still do when all of them are NULL, and an
//! order is kept; expressions of columns, which may be something else of NULL than NULL, are not spoken of.
//!
//! Invariant: the same rows in the same order; the input's own batches.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::equivalence::{EquivalenceClass, EquivalenceGroup};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct MaybeMissingExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl MaybeMissingExec {
    pub(crate) fn try_new(input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let of_input = input.properties();
        let known = without_constants(&of_input.eq_properties)?;
        let properties = Arc::new(PlanProperties::clone(of_input).with_eq_properties(known));
        Ok(Self { input, properties })
    }

    /// Whether an operator below an outer join says more of its columns than what holds above the join.
    pub(crate) fn is_needed(input: &Arc<dyn ExecutionPlan>) -> bool {
        let known = input.properties().eq_properties.eq_group();
        known.iter().any(|class| is_constant(known, class) || !class.iter().all(is_column))
    }
}

/// Whether the expressions of a class, which equal one another, equal one value.
fn is_constant(known: &EquivalenceGroup, class: &EquivalenceClass) -> bool {
    class.iter().any(|expr| known.is_expr_constant(expr).is_some())
}

fn is_column(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Column>().is_some()
}

/// What is known of columns that may all be NULL instead.
fn without_constants(known: &EquivalenceProperties) -> Result<EquivalenceProperties> {
    let mut kept = EquivalenceProperties::new(Arc::clone(known.schema()));
    let classes = known.eq_group();
    for class in classes.iter().filter(|class| !is_constant(classes, class)) {
        let mut columns = class.iter().filter(|expr| is_column(expr));
        if let Some(first) = columns.next() {
            for other in columns {
                kept.add_equal_conditions(Arc::clone(first), Arc::clone(other))?;
            }
        }
    }
    kept.add_orderings(known.oeq_class().iter().cloned());
    Ok(kept)
}

impl DisplayAs for MaybeMissingExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MaybeMissingExec")
    }
}

impl ExecutionPlan for MaybeMissingExec {
    fn name(&self) -> &str {
        "MaybeMissingExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::try_new(input)?)),
            _ => Err(DataFusionError::Internal("MaybeMissingExec has one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(filters, &self.children())
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(result))
    }
}

#[cfg(test)]
mod tests {
    use arrow::compute::SortOptions;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_expr::PhysicalSortExpr;
    use datafusion::physical_expr::equivalence::{AcrossPartitions, ConstExpr};
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;

    fn column(index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(["a", "b", "k"][index], index))
    }

    #[test]
    fn orders_and_equal_columns_are_kept_and_constants_are_not() {
        let fields: Vec<Field> = ["a", "b", "k"].map(|name| Field::new(name, DataType::Int32, true)).into();
        let schema = Arc::new(Schema::new(fields));
        let mut known = EquivalenceProperties::new(Arc::clone(&schema));
        known.add_equal_conditions(column(0), column(1)).unwrap();
        known.add_ordering([PhysicalSortExpr::new(column(0), SortOptions::default())]);
        known.add_constants([ConstExpr::new(column(2), AcrossPartitions::Uniform(None))]).unwrap();
        let kept = without_constants(&known).unwrap();
        assert!(kept.constants().is_empty());
        assert!(kept.eq_group().exprs_equal(&column(0), &column(1)));
        let by = |index| [PhysicalSortExpr::new(column(index), SortOptions::default())];
        assert!(known.ordering_satisfy(by(2)).unwrap() && !kept.ordering_satisfy(by(2)).unwrap());
        assert!(kept.ordering_satisfy(by(1)).unwrap());
        let plain: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(schema));
        assert!(!MaybeMissingExec::is_needed(&plain));
    }
}
