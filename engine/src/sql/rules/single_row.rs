//! Correlated scalar subqueries that are not aggregates: `(SELECT x FROM s WHERE s.id = t.id)`.
//!
//! DataFusion wants proof that such a subquery gives one row at most, and refuses it otherwise. SQL wants the proof while
//! it runs: more than one row is error 21000. This analyser rule supplies it by an aggregate that passes on the only
//! value of its group, gives NULL for none and fails for several; DataFusion then decorrelates it like any other.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LogicalPlan, LogicalPlanBuilder, Projection, Signature,
    Subquery, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::map_parts;
use crate::Error;
use crate::error::sqlstate;

/// The rule, with the aggregate it inserts.
#[derive(Debug)]
pub(crate) struct SingleRow {
    single_value: Arc<AggregateUDF>,
}

impl Default for SingleRow {
    fn default() -> Self {
        let signature = Signature::any(1, Volatility::Immutable);
        SingleRow { single_value: Arc::new(AggregateUDF::from(SingleValue { signature })) }
    }
}

impl AnalyzerRule for SingleRow {
    fn name(&self) -> &str {
        "single_row"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| map_parts(node, |part| self.rewrite(part)));
        rewritten.map(|plan| plan.data)
    }
}

impl SingleRow {
    fn rewrite(&self, expr: Expr) -> DataFusionResult<Transformed<Expr>> {
        let Expr::ScalarSubquery(subquery) = expr else { return Ok(Transformed::no(expr)) };
        if subquery.outer_ref_columns.is_empty() {
            return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
        }
        if is_aggregate(&subquery.subquery) {
            let Subquery { subquery, outer_ref_columns, spans } = subquery;
            let subquery = Arc::new(named_apart(Arc::unwrap_or_clone(subquery))?);
            return Ok(Transformed::yes(Expr::ScalarSubquery(Subquery { subquery, outer_ref_columns, spans })));
        }
        if subquery.subquery.max_rows().is_some_and(|rows| rows <= 1) {
            return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
        }
        let Subquery { subquery, outer_ref_columns, spans } = subquery;
        let inner = named_apart(unsorted(subquery))?;
        let (relation, field) = inner.schema().qualified_field(0);
        let column = Column::new(relation.cloned(), field.name());
        // Not the column's own name: what depends on the outer row is grouped by that column where it is the one compared.
        let name = format!("single value of {}", field.name());
        let value = self.single_value.call(vec![Expr::Column(column)]).alias(name);
        let plan = LogicalPlanBuilder::from(inner).aggregate(Vec::<Expr>::new(), vec![value])?.build()?;
        Ok(Transformed::yes(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans })))
    }
}

/// Whether the subquery is an aggregate already, behind what the planner puts in front of one.
fn is_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) => true,
        LogicalPlan::Projection(node) => is_aggregate(&node.input),
        LogicalPlan::SubqueryAlias(node) => is_aggregate(&node.input),
        LogicalPlan::Filter(node) => is_aggregate(&node.input),
        LogicalPlan::Sort(node) => is_aggregate(&node.input),
        _ => false,
    }
}

/// An order without a limit means nothing to a single row.
fn unsorted(plan: Arc<LogicalPlan>) -> LogicalPlan {
    match Arc::unwrap_or_clone(plan) {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Arc::unwrap_or_clone(sort.input),
        plan => plan,
    }
}

/// Gives a value that is called as a column below it a name of its own: where that column is the one compared, it is wanted
/// beside the value. A cast of a column has the column's name.
fn named_apart(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let LogicalPlan::Projection(projection) = &plan else { return Ok(plan) };
    let [value] = projection.expr.as_slice() else { return Ok(plan) };
    let mut inner = value;
    while let Expr::Cast(Cast { expr, .. }) = inner {
        inner = expr;
    }
    let taken = match inner {
        Expr::Column(_) => matches!(value, Expr::Cast(_)),
        Expr::Alias(alias) => projection.input.exists(|node| {
            let mut fields = node.schema().fields().iter();
            Ok(fields.any(|field| *field.name() == alias.name))
        })?,
        _ => false,
    };
    if !taken {
        return Ok(plan);
    }
    let value = value.clone().alias(format!("value of {}", projection.schema.field(0).name()));
    Ok(LogicalPlan::Projection(Projection::try_new(vec![value], Arc::clone(&projection.input))?))
}

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleValue {
    signature: Signature,
}

impl AggregateUDFImpl for SingleValue {
    fn name(&self) -> &str {
        "single_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(argument_types.first().cloned().unwrap_or(DataType::Null))
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        let none = ScalarValue::try_from(arguments.return_field.data_type())?;
        Ok(Box::new(SingleAccumulator { rows: 0, value: none }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> DataFusionResult<Vec<FieldRef>> {
        let name = arguments.name;
        Ok(vec![
            Arc::new(Field::new(format!("{name}[value]"), arguments.return_field.data_type().clone(), true)),
            Arc::new(Field::new(format!("{name}[rows]"), DataType::UInt64, false)),
        ])
    }
}

/// One group: how many rows it has had, and the value of the first.
#[derive(Debug)]
struct SingleAccumulator {
    rows: u64,
    value: ScalarValue,
}

impl SingleAccumulator {
    fn add(&mut self, rows: u64, value: impl FnOnce() -> DataFusionResult<ScalarValue>) -> DataFusionResult<()> {
        if rows == 0 {
            return Ok(());
        }
        self.rows += rows;
        if self.rows > 1 {
            let message = "more than one row returned by a subquery used as an expression";
            return Err(Error::new(sqlstate::CARDINALITY_VIOLATION, message).into());
        }
        self.value = value()?;
        Ok(())
    }
}

impl Accumulator for SingleAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        let Some(values) = values.first() else { return Ok(()) };
        self.add(values.len() as u64, || ScalarValue::try_from_array(values, 0))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        let [values, rows] = states else { return Ok(()) };
        let rows = rows.as_primitive::<UInt64Type>();
        for index in 0..rows.len() {
            self.add(rows.value(index), || ScalarValue::try_from_array(values, index))?;
        }
        Ok(())
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::UInt64(Some(self.rows))])
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }
}
