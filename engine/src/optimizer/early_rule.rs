//! The rule that aggregates before a join instead of after it, where that leaves far fewer rows to join.
//!
//! ```text
//!   aggregate by d.name: sum(f.x), count(*)          aggregate by d.name: sum(s), sum(n)
//!             │                                                │
//!       f.d = d.id                             ═▶         f.d = d.id
//!        ╱       ╲                                        ╱       ╲
//!   fact f      dimension d          aggregate by f.d: sum(x) s, count(*) n     dimension d
//!                                              │
//!                                           fact f
//! ```
//! Each row of the other side meets all rows with its key, or none, so it may as well meet what they add up to (eager
//! aggregation: Yan and Larson, "Eager aggregation and lazy aggregation", VLDB 1995). It holds for sums, counts, minima and
//! maxima of one side of an inner join on equal columns, however often a key comes on either side. It pays if the rows of a
//! key are many and the join would keep most of them; the keys are numbers more often than what is grouped by in the end.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, NullEquality};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::joins::{HashJoinExec, HashJoinExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::estimate::Estimator;
use crate::sql::rules::opaque_values::known;

/// Fewer rows are joined faster than anything can be gained.
const ROWS_MIN: f64 = 50_000.0;
/// Rows that a key must have on average.
const ROWS_PER_KEY_MIN: f64 = 16.0;
/// The share of the rows that the join must keep: the others would be aggregated for nothing.
const KEPT_MIN: f64 = 0.5;

/// Aggregates one side of a join before it.
#[derive(Debug, Default)]
pub(super) struct EarlyAggregate;

impl PhysicalOptimizerRule for EarlyAggregate {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !options.optimizer.join_reordering {
            return Ok(plan);
        }
        let mut estimator = Estimator::default();
        plan.transform_up(|plan| {
            Ok(match replacement(&plan, &mut estimator, options)? {
                Some(early) => Transformed::yes(early),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "early_aggregate"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Columns of an operator by their index in another: `None` for what is not there.
type Places = Vec<Option<usize>>;

/// An aggregation of one side, and the columns of that side it groups by.
type Early = (Arc<dyn ExecutionPlan>, Vec<usize>);

/// A join below an aggregation, seen from the side that may be aggregated early.
struct Sides<'a> {
    join: &'a HashJoinExec,
    /// Whether that is the left one.
    left: bool,
    early: Arc<dyn ExecutionPlan>,
    /// Of each column of the aggregation's input: where it is on that side, and where on the other.
    own: Places,
    other: Places,
}

impl<'a> Sides<'a> {
    /// `columns`: of each column of the aggregation's input, where it is among those of both sides.
    fn new(join: &'a HashJoinExec, columns: &[usize], left: bool) -> Sides<'a> {
        let width = join.left().schema().fields().len();
        let place = |column: &usize, left: bool| match (left, *column < width) {
            (true, true) => Some(*column),
            (false, false) => Some(*column - width),
            _ => None,
        };
        let own = columns.iter().map(|column| place(column, left)).collect();
        let other = columns.iter().map(|column| place(column, !left)).collect();
        let early = Arc::clone(if left { join.left() } else { join.right() });
        Sides { join, left, early, own, other }
    }
}

/// What lies below projections that only choose columns, and which of its columns come out of them.
fn below_projections(plan: &Arc<dyn ExecutionPlan>) -> (&Arc<dyn ExecutionPlan>, Vec<usize>) {
    let (mut below, mut columns) = (plan, (0..plan.schema().fields().len()).collect::<Vec<usize>>());
    while let Some(projection) = below.downcast_ref::<ProjectionExec>() {
        let chosen = columns.iter().map(|column| index_of(&projection.expr()[*column].expr));
        let Some(chosen) = chosen.collect::<Option<Vec<usize>>>() else { break };
        (below, columns) = (projection.input(), chosen);
    }
    (below, columns)
}

/// Of each column that comes out of a join, where it is among those of both sides.
fn output_columns(join: &HashJoinExec) -> Vec<usize> {
    match &join.projection {
        Some(projection) => projection.to_vec(),
        None => (0..join.left().schema().fields().len() + join.right().schema().fields().len()).collect(),
    }
}

fn replacement(
    plan: &Arc<dyn ExecutionPlan>,
    estimator: &mut Estimator,
    options: &ConfigOptions,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(last) = plan.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let Some(first) = last.input().downcast_ref::<AggregateExec>() else { return Ok(None) };
    let group = first.group_expr();
    let plain = matches!(last.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned)
        && *first.mode() == AggregateMode::Partial
        && !group.expr().is_empty()
        && !group.has_grouping_set()
        && last.limit_options().is_none()
        && first.limit_options().is_none()
        && first.filter_expr().iter().all(Option::is_none)
        && first.aggr_expr().iter().all(|function| total_of(function).is_some())
        && group.expr().iter().all(|(expr, _)| expr.is::<Column>());
    let (below, columns) = below_projections(first.input());
    let Some(join) = below.downcast_ref::<HashJoinExec>().filter(|_| plain) else { return Ok(None) };
    let on_columns = join.on().iter().all(|(left, right)| left.is::<Column>() && right.is::<Column>());
    if *join.join_type() != JoinType::Inner
        || join.filter().is_some()
        || join.null_equality() != NullEquality::NullEqualsNothing
        || !on_columns
    {
        return Ok(None);
    }
    let joined = output_columns(join);
    let columns: Vec<usize> = columns.into_iter().map(|column| joined[column]).collect();
    for left in [false, true] {
        let sides = Sides::new(join, &columns, left);
        let rows = estimator.estimate(&sides.early).rows;
        if rows < ROWS_MIN || estimator.estimate(below).rows < rows * KEPT_MIN {
            continue;
        }
        let Some((early, keys)) = early_aggregate(&sides, first, last.mode())? else { continue };
        if estimator.estimate(&early).rows * ROWS_PER_KEY_MIN <= rows {
            return late_aggregate(&sides, early, &keys, first, plan, options).map(Some);
        }
    }
    Ok(None)
}

/// The function that makes the whole of the parts of an aggregate; `None` if there is none.
fn total_of(function: &AggregateFunctionExpr) -> Option<Arc<AggregateUDF>> {
    let simple = !function.is_distinct() && function.order_bys().is_empty() && !function.ignore_nulls();
    let numeric = function.field().data_type().is_numeric();
    match function.fun().name() {
        "count" if simple => Some(sum_udaf()),
        "sum" if simple && numeric => Some(Arc::new(function.fun().clone())),
        "min" | "max" if simple => Some(Arc::new(function.fun().clone())),
        _ => None,
    }
}

/// The aggregation of one side by its join keys and those of its columns that are grouped by, and which columns these
/// are; `None` if the aggregates are not of this side.
fn early_aggregate(sides: &Sides<'_>, first: &AggregateExec, mode: &AggregateMode) -> Result<Option<Early>> {
    let schema = sides.early.schema();
    let own = sides.join.on().iter().map(|(left, right)| if sides.left { left } else { right });
    let grouped = first.group_expr().expr().iter().filter_map(|(expr, _)| sides.own[index_of(expr)?]);
    let mut keys: Vec<usize> = Vec::new();
    for key in own.filter_map(index_of).chain(grouped) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut functions = Vec::with_capacity(first.aggr_expr().len());
    for (number, function) in first.aggr_expr().iter().enumerate() {
        let arguments = function.expressions();
        let is_own = |column: &Column| sides.own.get(column.index()).is_some_and(Option::is_some);
        if !arguments.iter().all(|argument| collect_columns(argument).iter().all(is_own)) {
            return Ok(None);
        }
        let arguments = arguments.into_iter().map(|argument| of_side(argument, &sides.own, &schema));
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        let function = Arc::new(function.fun().clone());
        functions.push(built(function, arguments, &schema, &format!("early {number}"))?);
    }
    let group = keys.iter().map(|key| column(&schema, *key)).collect();
    Ok(Some((two_stages(PhysicalGroupBy::new_single(group), functions, Arc::clone(&sides.early), mode)?, keys)))
}

/// An expression over the aggregation's input in terms of one side of the join.
fn of_side(expr: Arc<dyn PhysicalExpr>, places: &Places, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    expr.transform_up(|part| {
        let place = part.downcast_ref::<Column>().and_then(|part| places[part.index()]);
        Ok(place.map_or_else(|| Transformed::no(part), |place| Transformed::yes(column(schema, place).0)))
    })
    .data()
}

/// The join of what was aggregated early, and the aggregation of that.
fn late_aggregate(
    sides: &Sides<'_>,
    early: Arc<dyn ExecutionPlan>,
    keys: &[usize],
    first: &AggregateExec,
    plan: &Arc<dyn ExecutionPlan>,
    options: &ConfigOptions,
) -> Result<Arc<dyn ExecutionPlan>> {
    let (join, schema) = (sides.join, early.schema());
    let key = |expr: &Arc<dyn PhysicalExpr>| -> Arc<dyn PhysicalExpr> {
        let place = index_of(expr).and_then(|index| keys.iter().position(|key| *key == index));
        column(&schema, place.unwrap_or_default()).0
    };
    let on = join.on().iter().map(|(left, right)| match sides.left {
        true => (key(left), Arc::clone(right)),
        false => (Arc::clone(left), key(right)),
    });
    let on = on.collect();
    let (left, right) = match sides.left {
        true => (early, Arc::clone(join.right())),
        false => (Arc::clone(join.left()), early),
    };
    let left_width = left.schema().fields().len();
    let (own_start, other_start) = if sides.left { (0, left_width) } else { (left_width, 0) };
    let joined = HashJoinExecBuilder::new(left, right, on, JoinType::Inner);
    let joined = joined.with_partition_mode(*join.partition_mode()).build_exec()?;
    let joined_schema = joined.schema();

    let grouped = first.group_expr().expr().iter().map(|(expr, name)| {
        let place = index_of(expr).and_then(|index| match (sides.own[index], sides.other[index]) {
            (Some(own), _) => keys.iter().position(|key| *key == own).map(|place| own_start + place),
            (None, other) => other.map(|other| other_start + other),
        });
        (column(&joined_schema, place.unwrap_or_default()).0, name.clone())
    });
    let group = PhysicalGroupBy::new_single(grouped.collect());
    let mut functions = Vec::with_capacity(first.aggr_expr().len());
    for (number, function) in first.aggr_expr().iter().enumerate() {
        let Some(total) = total_of(function) else { continue };
        let part = column(&joined_schema, own_start + keys.len() + number).0;
        functions.push(built(total, vec![part], &joined_schema, function.name())?);
    }
    let mode = plan.downcast_ref::<AggregateExec>().map_or(AggregateMode::Final, |last| *last.mode());
    let late = two_stages(group, functions, joined, &mode)?;
    let (late_schema, wanted) = (late.schema(), plan.schema());
    let columns = wanted.fields().iter().enumerate().map(|(index, field)| {
        let (mut expr, _) = column(&late_schema, index);
        let made = late_schema.field(index);
        if made.data_type() != field.data_type() {
            // A sum of sums has a wider type than a sum.
            expr = Arc::new(CastExpr::new(expr, field.data_type().clone(), None));
        }
        if made.is_nullable() && !field.is_nullable() {
            // A sum of counts might be NULL, says its type; but there are rows in each group.
            let (known, options) = (Arc::new(known()), Arc::new(options.clone()));
            expr = Arc::new(ScalarFunctionExpr::new("known", known, vec![expr], Arc::clone(field), options));
        }
        ProjectionExpr { expr, alias: field.name().clone() }
    });
    Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), late)?))
}

/// An aggregation as the planner makes it.
fn two_stages(
    group: PhysicalGroupBy,
    functions: Vec<Arc<AggregateFunctionExpr>>,
    input: Arc<dyn ExecutionPlan>,
    mode: &AggregateMode,
) -> Result<Arc<dyn ExecutionPlan>> {
    let (schema, last_group) = (input.schema(), group.as_final());
    let no_filters = vec![None; functions.len()];
    let first = AggregateExec::try_new(
        AggregateMode::Partial,
        group,
        functions.clone(),
        no_filters.clone(),
        input,
        Arc::clone(&schema),
    )?;
    Ok(Arc::new(AggregateExec::try_new(*mode, last_group, functions, no_filters, Arc::new(first), schema)?))
}

fn built(
    function: Arc<AggregateUDF>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    schema: &SchemaRef,
    name: &str,
) -> Result<Arc<AggregateFunctionExpr>> {
    Ok(Arc::new(AggregateExprBuilder::new(function, arguments).schema(Arc::clone(schema)).alias(name).build()?))
}

fn index_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

fn column(schema: &SchemaRef, index: usize) -> (Arc<dyn PhysicalExpr>, String) {
    let name = schema.field(index).name();
    (Arc::new(Column::new(name, index)), name.clone())
}
