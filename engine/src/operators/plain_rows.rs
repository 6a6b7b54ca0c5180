//! Hands rows through, and says less of them than its input does: not which columns are constant, or not even which are equal
//! and which order rows are in. It stands where DataFusion 55 takes what holds below an operator for what holds above it, or
//! forgets it on the way.
//!
//! | where | what is wrong | what came of it |
//! |---|---|---|
//! | below an outer join, on the side that may be missing | of `LEFT JOIN (SELECT a, 7 AS k FROM t) y`, `y.k` is 7 or NULL above the join; it is taken for constant there | `ORDER BY y.k` sorted nothing, and groups by it were taken to come in order |
//! | above the first stage of an aggregation by grouping sets | constants, equal columns and the order of its input are taken for its own, whose columns are NULL where a set has none of them | `ORDER BY k` of `GROUP BY ROLLUP (k)` sorted nothing, windows over `k` and groups of later stages were cut in pieces |
//! | below UNION ALL | of `SELECT 'a' AS k … UNION ALL SELECT 'b' …`, `k` is taken for constant in each part | the parts of a top-k by `k, v` were sorted by `v`, and one part told the other which rows cannot be among the first |
//! | below UNION ALL | columns that are equal in all parts are not above it | a sort by `b` of `SELECT x AS a, x AS b …` was handed down, became one by `a`, and the plan was refused above |
//! | below a join, on the right side | what is constant there is not above the join | a sort by `k, v` was handed down, became one by `v`, and the plan was refused above |
//!
//! Otherwise an order is kept. A sort stays above, where it is asked for: below, more is known than here. Where columns equal one
//! another they still do when all of them are NULL; expressions of columns, which may be something else of NULL than NULL, are
//! not spoken of.
//!
//! Invariant: the same rows in the same order; the input's own batches.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ScalarValue, Statistics};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::equivalence::{EquivalenceClass, EquivalenceGroup};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// What is not said of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsaid {
    /// Which columns are constant.
    Constants,
    /// Also which ones are equal.
    Equalities,
    /// Also which order rows are in.
    Everything,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct PlainRowsExec {
    input: Arc<dyn ExecutionPlan>,
    unsaid: Unsaid,
    properties: Arc<PlanProperties>,
}

impl PlainRowsExec {
    pub(crate) fn try_new(input: Arc<dyn ExecutionPlan>, unsaid: Unsaid) -> Result<Self> {
        let of_input = input.properties();
        let known = without(&of_input.eq_properties, unsaid)?;
        let properties = Arc::new(PlanProperties::clone(of_input).with_eq_properties(known));
        Ok(Self { input, unsaid, properties })
    }

    /// Whether an operator says more of its columns than that.
    pub(crate) fn is_needed(input: &Arc<dyn ExecutionPlan>, unsaid: Unsaid) -> bool {
        let known = input.properties().eq_properties.eq_group();
        known
            .iter()
            .any(|class| unsaid != Unsaid::Constants || is_constant(known, class) || !class.iter().all(is_column))
    }
}

/// The order that all rows are in: by a constant.
fn any_order() -> Option<OrderingRequirements> {
    let constant = PhysicalSortExpr::new_default(Arc::new(Literal::new(ScalarValue::Int64(Some(0)))));
    LexOrdering::new([constant]).map(OrderingRequirements::from)
}

/// Whether the expressions of a class, which equal one another, equal one value.
fn is_constant(known: &EquivalenceGroup, class: &EquivalenceClass) -> bool {
    class.iter().any(|expr| known.is_expr_constant(expr).is_some())
}

fn is_column(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Column>().is_some()
}

/// What is known, but for what is not to be said.
fn without(known: &EquivalenceProperties, unsaid: Unsaid) -> Result<EquivalenceProperties> {
    let mut kept = EquivalenceProperties::new(Arc::clone(known.schema()));
    if unsaid == Unsaid::Everything {
        return Ok(kept);
    }
    let classes = known.eq_group();
    let is_kept = |class: &EquivalenceClass| unsaid == Unsaid::Constants && !is_constant(classes, class);
    for class in classes.iter().filter(|class| is_kept(class)) {
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

impl DisplayAs for PlainRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlainRowsExec")
    }
}

impl ExecutionPlan for PlainRowsExec {
    fn name(&self) -> &str {
        "PlainRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![self.unsaid != Unsaid::Everything]
    }

    /// No other order may be asked for below this operator.
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![any_order()]
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
            (Some(input), true) => Ok(Arc::new(Self::try_new(input, self.unsaid)?)),
            _ => Err(DataFusionError::Internal("PlainRowsExec has one input".to_owned())),
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
    use datafusion::physical_expr::equivalence::{AcrossPartitions, ConstExpr};
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;

    fn column(index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(["a", "b", "k"][index], index))
    }

    #[test]
    fn orders_are_kept_and_constants_and_equal_columns_are_not() {
        let fields: Vec<Field> = ["a", "b", "k"].map(|name| Field::new(name, DataType::Int32, true)).into();
        let schema = Arc::new(Schema::new(fields));
        let mut known = EquivalenceProperties::new(Arc::clone(&schema));
        known.add_equal_conditions(column(0), column(1)).unwrap();
        known.add_ordering([PhysicalSortExpr::new(column(0), SortOptions::default())]);
        known.add_constants([ConstExpr::new(column(2), AcrossPartitions::Uniform(None))]).unwrap();
        let kept = without(&known, Unsaid::Constants).unwrap();
        assert!(kept.constants().is_empty());
        assert!(kept.eq_group().exprs_equal(&column(0), &column(1)));
        let by = |index| [PhysicalSortExpr::new(column(index), SortOptions::default())];
        assert!(known.ordering_satisfy(by(2)).unwrap() && !kept.ordering_satisfy(by(2)).unwrap());
        assert!(kept.ordering_satisfy(by(1)).unwrap());
        let kept = without(&known, Unsaid::Equalities).unwrap();
        assert!(!kept.eq_group().exprs_equal(&column(0), &column(1)));
        assert!(kept.ordering_satisfy(by(0)).unwrap() && !kept.ordering_satisfy(by(1)).unwrap());
        let kept = without(&known, Unsaid::Everything).unwrap();
        assert!(!kept.ordering_satisfy(by(0)).unwrap());
        let plain: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(schema));
        assert!(!PlainRowsExec::is_needed(&plain, Unsaid::Equalities));
    }
}
