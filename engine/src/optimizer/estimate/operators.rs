//! The estimate of one operator from those of its inputs.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{JoinType, ScalarValue};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, JoinOnRef, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::union::UnionExec;

use super::{ColumnEstimate, Estimate, Key, UNKNOWN_ROWS, selectivity};
use crate::operators::direct_aggregate::DirectAggregateExec;
use crate::scan::ColumnScanExec;

/// The share of pairs that a join condition other than an equality lets through.
const RESIDUAL_SELECTIVITY: f64 = 0.5;
/// More ways to identify a row are not worth remembering.
const KEYS_MAX: usize = 8;

pub(super) fn estimate(plan: &dyn ExecutionPlan, inputs: &[Arc<Estimate>]) -> Estimate {
    let columns = plan.schema().fields().len();
    if let Some(scan) = plan.downcast_ref::<ColumnScanExec>() {
        return of_scan(scan);
    }
    match inputs {
        [] => of_leaf(plan, columns),
        [input] => of_one(plan, input, columns),
        [left, right] if plan.downcast_ref::<UnionExec>().is_none() => of_join(plan, left, right, columns),
        _ => Estimate::unknown(inputs.iter().map(|input| input.rows).sum(), columns),
    }
}

/// A stored table: what its writers counted, less what the scan filters out.
fn of_scan(scan: &ColumnScanExec) -> Estimate {
    let (table, statistics) = (scan.table(), scan.stored_statistics());
    let rows = (statistics.rows as f64).max(1.0);
    let columns = table.storage_schema().fields().iter().enumerate().map(|(index, field)| {
        let Some(known) = statistics.columns.get(index) else { return ColumnEstimate::unknown(rows) };
        let bound =
            |value: &Option<arrow::array::ArrayRef>| number(&ScalarValue::try_from_array(value.as_ref()?, 0).ok()?);
        let range = bound(&known.min).zip(bound(&known.max));
        let possible = match (field.data_type(), range) {
            (DataType::Boolean, _) => 2.0,
            // Whole numbers and days: no more values than lie between the bounds.
            (kind, Some((low, high))) if kind.is_integer() || *kind == DataType::Date32 => (high - low + 1.0).max(1.0),
            _ => f64::INFINITY,
        };
        let counted = match (table.primary_key == [index], known.distinct) {
            (true, _) => rows,
            (false, Some(distinct)) => distinct as f64,
            (false, None) => ColumnEstimate::unknown(rows).distinct,
        };
        ColumnEstimate {
            distinct: counted.min(possible).clamp(1.0, rows),
            range,
            nulls: known.null_count.map_or(0.0, |nulls| (nulls as f64 / rows).min(1.0)),
        }
    });
    let keys = match table.primary_key.is_empty() {
        true => Vec::new(),
        false => vec![Key { columns: table.primary_key.clone(), domain: rows }],
    };
    let whole = Estimate { rows, columns: columns.collect(), keys };
    if scan.applied_filters().is_empty() {
        return whole.projected(scan.projection());
    }
    // All at once, for ranges of one column belong together.
    let filter = conjunction(scan.applied_filters().iter().cloned());
    whole.filtered(selectivity(&filter, &whole)).projected(scan.projection())
}

/// Values, generated series and whatever else says itself how many rows it has.
fn of_leaf(plan: &dyn ExecutionPlan, columns: usize) -> Estimate {
    let known = plan.statistics_from_inputs(&[], &StatisticsArgs::new()).ok();
    let rows = known.and_then(|statistics| statistics.num_rows.get_value().copied());
    Estimate::unknown(rows.map_or(UNKNOWN_ROWS, |rows| rows as f64), columns)
}

fn of_one(plan: &dyn ExecutionPlan, input: &Estimate, columns: usize) -> Estimate {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let filtered = input.filtered(selectivity(filter.predicate(), input));
        return match filter.projection() {
            Some(kept) => filtered.projected(kept),
            None => filtered,
        };
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return of_projection(projection, input);
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return of_aggregate(aggregate, input);
    }
    if let Some(aggregate) = plan.downcast_ref::<DirectAggregateExec>() {
        return of_aggregate(aggregate.definition(), input);
    }
    // Sorts, limits, repartitionings pass their input on; windows and the like add columns.
    let mut passed = input.clone();
    passed.columns.resize(columns, ColumnEstimate::unknown(input.rows));
    passed
}

fn of_projection(projection: &ProjectionExec, input: &Estimate) -> Estimate {
    let source = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
    let sources: Vec<Option<usize>> = projection.expr().iter().map(|column| source(&column.expr)).collect();
    let mapped = |column: &usize| sources.iter().position(|source| *source == Some(*column));
    let keys = input.keys.iter().filter_map(|key| {
        let columns = key.columns.iter().map(mapped).collect::<Option<Vec<_>>>()?;
        Some(Key { columns, domain: key.domain })
    });
    Estimate {
        rows: input.rows,
        columns: projection.expr().iter().map(|column| of_expression(&column.expr, input)).collect(),
        keys: keys.collect(),
    }
}

/// The values of an expression: no more than there are combinations of its columns' values.
fn of_expression(expr: &Arc<dyn PhysicalExpr>, input: &Estimate) -> ColumnEstimate {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return input.column(column.index());
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return of_expression(cast.expr(), input);
    }
    if let Some(part) = of_date_part(expr, input) {
        return part;
    }
    let columns = datafusion::physical_expr::utils::collect_columns(expr);
    let distinct: f64 = columns.iter().map(|column| input.column(column.index()).distinct).product();
    ColumnEstimate { distinct: distinct.clamp(1.0, input.rows), range: None, nulls: 0.0 }
}

/// Years, months and days of dates between known bounds.
fn of_date_part(expr: &Arc<dyn PhysicalExpr>, input: &Estimate) -> Option<ColumnEstimate> {
    const DAYS_PER_YEAR: f64 = 365.25;
    let call = expr.downcast_ref::<ScalarFunctionExpr>().filter(|call| call.name() == "date_part")?;
    let [part, date] = call.args() else { return None };
    let ScalarValue::Utf8(Some(part)) = part.downcast_ref::<Literal>()?.value() else { return None };
    let date = of_expression(date, input);
    let (low, high) = date.range?;
    let distinct = match part.to_ascii_lowercase().as_str() {
        "year" => (high - low) / DAYS_PER_YEAR + 2.0,
        "month" => 12.0,
        "day" => 31.0,
        _ => return None,
    };
    Some(ColumnEstimate { distinct: distinct.clamp(1.0, date.distinct.max(1.0)), range: None, nulls: date.nulls })
}

fn of_aggregate(aggregate: &AggregateExec, input: &Estimate) -> Estimate {
    let groups: Vec<ColumnEstimate> =
        aggregate.group_expr().expr().iter().map(|(expr, _)| of_expression(expr, input)).collect();
    let rows = group_count(input, aggregate, &groups);
    let width = aggregate.schema().fields().len();
    let mut columns: Vec<ColumnEstimate> =
        groups.iter().map(|group| ColumnEstimate { distinct: group.distinct.min(rows), ..*group }).collect();
    columns.resize(width, ColumnEstimate { distinct: rows, range: None, nulls: 0.0 });
    let whole = aggregate.mode().output_mode() == datafusion::physical_plan::aggregates::AggregateOutputMode::Final;
    let keys = match whole && !groups.is_empty() && !aggregate.group_expr().has_grouping_set() {
        true => vec![Key { columns: (0..groups.len()).collect(), domain: rows }],
        false => Vec::new(),
    };
    Estimate { rows, columns, keys }
}

/// The number of groups: at most the combinations of the columns' values, and one per key if the columns contain one.
fn group_count(input: &Estimate, aggregate: &AggregateExec, groups: &[ColumnEstimate]) -> f64 {
    if groups.is_empty() {
        return 1.0;
    }
    let columns: Vec<usize> = aggregate
        .group_expr()
        .expr()
        .iter()
        .filter_map(|(expr, _)| expr.downcast_ref::<Column>().map(Column::index))
        .collect();
    if input.keys.iter().any(|key| key.columns.iter().all(|column| columns.contains(column))) {
        return input.rows;
    }
    // Columns are seldom independent: each further one counts a little less (exponential back-off).
    let mut distinct: Vec<f64> = groups.iter().map(|group| group.distinct).collect();
    distinct.sort_by(|left, right| right.total_cmp(left));
    let combined: f64 =
        distinct.iter().enumerate().map(|(place, count)| count.powf(0.9f64.powi(place as i32))).product();
    let sets = aggregate.group_expr().groups().len().max(1) as f64;
    (combined * sets).clamp(1.0, input.rows.max(1.0))
}

/// A join as it stands in a plan.
fn of_join(plan: &dyn ExecutionPlan, left: &Estimate, right: &Estimate, columns: usize) -> Estimate {
    let index = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
    let pairs = |on: JoinOnRef<'_>| on.iter().map(|(left, right)| (index(left), index(right))).collect::<Vec<_>>();
    let (on, join_type, residual, projection) = if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        (pairs(join.on()), *join.join_type(), join.filter().is_some(), join.projection.clone())
    } else if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
        (pairs(join.on()), join.join_type(), join.filter().is_some(), None)
    } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        (Vec::new(), *join.join_type(), join.filter().is_some(), join.projection().clone())
    } else if plan.downcast_ref::<CrossJoinExec>().is_some() {
        (Vec::new(), JoinType::Inner, false, None)
    } else {
        return Estimate::unknown(left.rows.max(right.rows), columns);
    };
    let share = pair_selectivity(left, right, &on) * if residual { RESIDUAL_SELECTIVITY } else { 1.0 };
    let joined = joined(left, right, &on, share, join_type);
    match projection {
        Some(kept) => joined.projected(&kept),
        None => joined,
    }
}

/// The share of all pairs of rows that agree in the columns `on`.
pub(crate) fn pair_selectivity(left: &Estimate, right: &Estimate, on: &[(Option<usize>, Option<usize>)]) -> f64 {
    let distinct = |side: &Estimate, column: Option<usize>| match column {
        Some(column) => side.column(column).distinct,
        None => (side.rows / 10.0).max(1.0),
    };
    let independent: f64 = on
        .iter()
        .map(|(l, r)| {
            let nulls = |side: &Estimate, column: Option<usize>| column.map_or(0.0, |column| side.column(column).nulls);
            let present = (1.0 - nulls(left, *l)) * (1.0 - nulls(right, *r));
            present / distinct(left, *l).max(distinct(right, *r))
        })
        .product();
    // A covered key bounds the matches: each row of the other side meets at most one of the key's domain.
    let covered = |side: &Estimate, columns: Vec<Option<usize>>| {
        let covers =
            |key: &&Key| key.columns.len() > 1 && key.columns.iter().all(|column| columns.contains(&Some(*column)));
        side.keys.iter().filter(covers).map(|key| 1.0 / key.domain.max(1.0)).fold(0.0, f64::max)
    };
    let by_left = covered(left, on.iter().map(|(l, _)| *l).collect());
    let by_right = covered(right, on.iter().map(|(_, r)| *r).collect());
    independent.max(by_left).max(by_right).min(1.0)
}

/// The output of a join whose conditions let the share `share` of all pairs through.
pub(crate) fn joined(
    left: &Estimate,
    right: &Estimate,
    on: &[(Option<usize>, Option<usize>)],
    share: f64,
    join_type: JoinType,
) -> Estimate {
    let pairs = left.rows * right.rows * share;
    // The share of a side's rows that find a partner: its join keys are contained in the other's, or the other way round.
    let matching = |side: &Estimate, other: &Estimate, swapped: bool| -> f64 {
        let contained = on.iter().map(|(l, r)| {
            let (own, others) = if swapped { (r, l) } else { (l, r) };
            match (own, others) {
                (Some(own), Some(others)) => (other.column(*others).distinct / side.column(*own).distinct).min(1.0),
                _ => 0.5,
            }
        });
        contained.fold(1.0, f64::min).min(pairs / side.rows).clamp(0.0, 1.0)
    };
    let concatenated = |rows: f64| {
        let offset = left.columns.len();
        let mut columns = left.columns.clone();
        columns.extend_from_slice(&right.columns);
        for column in &mut columns {
            column.distinct = column.distinct.min(rows.max(1.0));
        }
        // A side's key stays one if no row of it can match twice. What equals a column of a key can stand for it.
        let covers = |side: &Estimate, columns: Vec<Option<usize>>| {
            side.keys.iter().any(|key| key.columns.iter().all(|column| columns.contains(&Some(*column))))
        };
        let mut keys = Vec::new();
        if covers(right, on.iter().map(|(_, r)| *r).collect()) {
            keys.extend(left.keys.iter().cloned());
        }
        if covers(left, on.iter().map(|(l, _)| *l).collect()) {
            keys.extend(right.keys.iter().map(|key| Key {
                columns: key.columns.iter().map(|column| column + offset).collect(),
                domain: key.domain,
            }));
        }
        for (l, r) in on.iter().filter_map(|(l, r)| l.zip(*r)) {
            let pair = [l, r + offset];
            for key in keys.clone() {
                for (own, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                    if key.columns.contains(&own) && !key.columns.contains(&other) && keys.len() < KEYS_MAX {
                        let replaced = key.columns.iter().map(|column| if *column == own { other } else { *column });
                        keys.push(Key { columns: replaced.collect(), domain: key.domain });
                    }
                }
            }
        }
        Estimate { rows: rows.max(1.0), columns, keys }
    };
    match join_type {
        JoinType::Inner => concatenated(pairs),
        JoinType::Left => concatenated(pairs.max(left.rows)),
        JoinType::Right => concatenated(pairs.max(right.rows)),
        JoinType::Full => concatenated(pairs.max(left.rows + right.rows)),
        JoinType::LeftSemi => left.filtered(matching(left, right, false)),
        JoinType::RightSemi => right.filtered(matching(right, left, true)),
        JoinType::LeftAnti => left.filtered((1.0 - matching(left, right, false)).max(0.05)),
        JoinType::RightAnti => right.filtered((1.0 - matching(right, left, true)).max(0.05)),
        JoinType::LeftMark => marked(left),
        JoinType::RightMark => marked(right),
    }
}

fn marked(side: &Estimate) -> Estimate {
    let mut marked = side.clone();
    marked.columns.push(ColumnEstimate { distinct: 2.0, range: None, nulls: 0.0 });
    marked
}

/// A value on the number line, for the types that have one.
pub(super) fn number(value: &ScalarValue) -> Option<f64> {
    Some(match value {
        ScalarValue::Int8(Some(value)) => f64::from(*value),
        ScalarValue::Int16(Some(value)) => f64::from(*value),
        ScalarValue::Int32(Some(value)) | ScalarValue::Date32(Some(value)) => f64::from(*value),
        ScalarValue::Int64(Some(value)) | ScalarValue::Date64(Some(value)) => *value as f64,
        ScalarValue::UInt8(Some(value)) => f64::from(*value),
        ScalarValue::UInt16(Some(value)) => f64::from(*value),
        ScalarValue::UInt32(Some(value)) => f64::from(*value),
        ScalarValue::UInt64(Some(value)) => *value as f64,
        ScalarValue::Float32(Some(value)) => f64::from(*value),
        ScalarValue::Float64(Some(value)) => *value,
        ScalarValue::Decimal128(Some(value), _, scale) => *value as f64 / 10f64.powi(i32::from(*scale)),
        ScalarValue::Decimal64(Some(value), _, scale) => *value as f64 / 10f64.powi(i32::from(*scale)),
        ScalarValue::TimestampSecond(Some(value), _)
        | ScalarValue::TimestampMillisecond(Some(value), _)
        | ScalarValue::TimestampMicrosecond(Some(value), _)
        | ScalarValue::TimestampNanosecond(Some(value), _)
        | ScalarValue::Time64Microsecond(Some(value)) => *value as f64,
        _ => return None,
    })
}
