//! `range()` over points in time, in the place of a table: DataFusion's function knows nanoseconds only, and
//! RustyDB's timestamps have microseconds. (`generate_series()` over points in time is an array: see `sql/tree/sets.rs`.)

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, Result as DataFusionResult, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast};

/// The zone of a series that begins with a point in time.
fn zone_of(name: &str, arguments: &[Expr]) -> Option<Option<Arc<str>>> {
    match (name, arguments.first()) {
        ("range", Some(Expr::Literal(ScalarValue::TimestampMicrosecond(_, zone), _))) => Some(zone.clone()),
        _ => None,
    }
}

/// The arguments, of which texts take the types that the first one gives them: that of the other end, and an interval.
pub(super) fn typed(name: &str, arguments: Vec<Expr>) -> Vec<Expr> {
    let Some(zone) = zone_of(name, &arguments) else { return arguments };
    let point = DataType::Timestamp(TimeUnit::Microsecond, zone);
    let step = DataType::Interval(IntervalUnit::MonthDayNano);
    let with_type = |(place, argument): (usize, Expr)| match &argument {
        Expr::Literal(value, _) if value.data_type().is_string() => {
            cast(argument, if place < 2 { point.clone() } else { step.clone() })
        }
        _ => argument,
    };
    arguments.into_iter().enumerate().map(with_type).collect()
}

/// The arguments as DataFusion's function wants them: of a series that begins with a timestamp, the other end is one, too,
/// and the step an interval.
pub(super) fn in_nanoseconds(name: &str, arguments: Vec<Expr>) -> DataFusionResult<Vec<Expr>> {
    let Some(zone) = zone_of(name, &arguments) else { return Ok(arguments) };
    let point = DataType::Timestamp(TimeUnit::Nanosecond, zone);
    let step = DataType::Interval(IntervalUnit::MonthDayNano);
    let converted = |(place, argument): (usize, Expr)| match argument {
        Expr::Literal(value, metadata) => {
            Ok(Expr::Literal(value.cast_to(if place < 2 { &point } else { &step })?, metadata))
        }
        other => Ok(other),
    };
    arguments.into_iter().enumerate().map(converted).collect()
}

/// The same table with timestamps of microseconds.
pub(super) fn in_microseconds(provider: Arc<dyn TableProvider>) -> DataFusionResult<Arc<dyn TableProvider>> {
    let schema = provider.schema();
    let fine = |data_type: &DataType| matches!(data_type, DataType::Timestamp(TimeUnit::Nanosecond, _));
    if !schema.fields().iter().any(|field| fine(field.data_type())) {
        return Ok(provider);
    }
    let columns = schema.fields().iter().map(|field| {
        let column = Expr::Column(Column::from_name(field.name()));
        match field.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                cast(column, DataType::Timestamp(TimeUnit::Microsecond, zone.clone())).alias(field.name())
            }
            _ => column,
        }
    });
    let plan = LogicalPlanBuilder::scan("series", provider_as_source(provider), None)?.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
