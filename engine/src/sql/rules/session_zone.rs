//! `SET timezone`: whose clock is meant where a timestamp with time zone becomes something else, or is made of it.
//!
//! The values are instants and stored as UTC, which DataFusion goes on to take for the clock; of a type that names another zone,
//! as columns and parameters of clients may, it takes that. In a session with another zone than UTC, and where there are such types,
//! this analyser rule, which runs after type coercion, puts `session_clock(zone, …)` where the clock matters:
//!
//! | expression, `i` an instant | becomes |
//! |---|---|
//! | `CAST(i AS date)`, `time`, `timestamp` | of `session_clock(zone, i)` |
//! | `CAST(i AS text)`, also of arrays, and in `format`, `array_to_string` | with the zone's clock and offset |
//! | `CAST(timestamp AS timestamptz)`, of a date | `session_clock(zone, timestamp)` |
//! | `CAST(text AS timestamptz)` | read by the zone's clock if the text names no other |
//! | the same of arrays | [by elements](crate::functions::array_casts) |
//! | `timestamptz - timestamp` | [planned](super::interval_math) as one of two timestamptz |
//! | `date_part(field, i)` | of `session_clock(zone, i)`; not `epoch` |
//! | `to_char(i, …)` | of `i` with the zone in its type |
//! | `date_part('timezone', i)` and the like | [of the zone](crate::functions::zone_parts) |
//! | `date_trunc(field, i)` | `session_date_trunc(field, i, zone)`, [which takes `i` once](crate::functions::zone_truncate) |
//! | `i + interval '1 day'` | the same, for days and months |

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, Placeholder, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, cast, lit};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::{any_node, any_part, map_parts, recomputed};
use crate::functions::array_casts::{cast_elements, converts_elements};
use crate::functions::array_text::TEXTS_IN;
use crate::functions::calendar_parts::CALENDAR_PART;
use crate::functions::printed::text_of;
use crate::functions::zone_parts::ZONE_PART;
use crate::functions::zone_truncate::truncated_by_session;
use crate::functions::zones;

static CLOCK: LazyLock<Arc<ScalarUDF>> = LazyLock::new(zones::session_clock);

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The rule.
#[derive(Debug)]
pub(crate) struct SessionZone;

impl AnalyzerRule for SessionZone {
    fn name(&self) -> &str {
        "session_zone"
    }

    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let zone = options.execution.time_zone.as_deref().unwrap_or("UTC");
        if is_utc(zone) && !mentions_other_zones(&plan)? {
            return Ok(plan);
        }
        // Once a type has changed, all that is above must know.
        let mut changed = false;
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let node = map_parts(node, |part| rewrite(part, &schema, zone))?;
            recomputed(node, &mut changed)
        });
        rewritten.map(|plan| plan.data)
    }
}

/// Whether there is a type of instants that names another zone than UTC.
fn mentions_other_zones(plan: &LogicalPlan) -> DataFusionResult<bool> {
    any_node(plan, |node| {
        let shows_some = node.schema().fields().iter().any(|field| names_other_zone(field.data_type()));
        let makes_some = |part: &Expr| match part {
            Expr::Literal(value, _) => names_other_zone(&value.data_type()),
            Expr::Cast(Cast { field, .. }) | Expr::Placeholder(Placeholder { field: Some(field), .. }) => {
                names_other_zone(field.data_type())
            }
            _ => false,
        };
        Ok(shows_some || any_part(node, makes_some)?)
    })
}

fn names_other_zone(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => names_other_zone(element.data_type()),
        DataType::Timestamp(_, Some(zone)) => !is_utc(zone),
        _ => false,
    }
}

/// Whether the zone's clock is that of the stored values.
pub(crate) fn is_utc(zone: &str) -> bool {
    matches!(zone.to_ascii_uppercase().as_str(), "UTC" | "ETC/UTC" | "GMT" | "+00:00" | "+00" | "Z")
}

fn is_instant(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(_)))
}

/// Whether it is a type of instants, or of arrays or rows with some.
fn holds_instants(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => holds_instants(element.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_instants(field.data_type())),
        other => is_instant(other),
    }
}

/// From an instant to the zone's local time, or back.
fn by_clock(zone: &str, time: Expr) -> Expr {
    CLOCK.call(vec![lit(zone), time])
}

fn rewrite(expr: Expr, schema: &DFSchema, zone: &str) -> DataFusionResult<Transformed<Expr>> {
    Ok(match expr {
        Expr::Cast(Cast { expr, field }) => {
            let from = expr.get_type(schema)?;
            let to = field.data_type();
            match (&from, to) {
                (from, to) if holds_instants(from) && to.is_string() => {
                    Transformed::yes(Expr::Cast(Cast { expr: Box::new(text_of(*expr, zone)), field }))
                }
                (from, DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(_, None)) if is_instant(from) => {
                    Transformed::yes(Expr::Cast(Cast { expr: Box::new(by_clock(zone, *expr)), field }))
                }
                (from, to) if from.is_string() && is_instant(to) => {
                    let DataType::Timestamp(unit, _) = to else { return Ok(kept(expr, field)) };
                    let read = cast(*expr, DataType::Timestamp(*unit, Some(zone.into())));
                    Transformed::yes(Expr::Cast(Cast { expr: Box::new(read), field }))
                }
                (from, to) if (holds_instants(from) || holds_instants(to)) && converts_elements(from, to) => {
                    Transformed::yes(cast_elements(*expr, to, zone)?)
                }
                (DataType::Date32 | DataType::Timestamp(_, None), to) if is_instant(to) => {
                    let instant = by_clock(zone, cast(*expr, LOCAL));
                    Transformed::yes(Expr::Cast(Cast { expr: Box::new(instant), field }))
                }
                _ => kept(expr, field),
            }
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args }) => {
            let of_instant = |place: usize| args.get(place).map(|arg| arg.get_type(schema)).transpose();
            match func.name() {
                "date_part" | CALENDAR_PART
                    if of_instant(1)?.is_some_and(|kind| is_instant(&kind)) && !is_absolute(&args[0]) =>
                {
                    args[1] = by_clock(zone, args[1].clone());
                    Transformed::yes(func.call(args))
                }
                // It goes by the zone of its argument's type, and can show its offset.
                "to_char" if of_instant(0)?.is_some_and(|kind| is_instant(&kind)) => {
                    args[0] = cast(args[0].clone(), DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into())));
                    Transformed::yes(func.call(args))
                }
                TEXTS_IN if of_instant(0)?.is_some_and(|kind| holds_instants(&kind)) => {
                    args[1] = lit(zone);
                    Transformed::yes(func.call(args))
                }
                "format" => {
                    let mut changed = false;
                    for arg in args.iter_mut().skip(1) {
                        if holds_instants(&arg.get_type(schema)?) {
                            *arg = text_of(arg.clone(), zone);
                            changed = true;
                        }
                    }
                    Transformed::new_transformed(func.call(args), changed)
                }
                ZONE_PART if args.len() == 3 => {
                    args[2] = lit(zone);
                    Transformed::yes(func.call(args))
                }
                "date_trunc" if args.len() == 2 && of_instant(1)?.is_some_and(|kind| is_instant(&kind)) => {
                    let time = args.remove(1);
                    Transformed::yes(truncated_by_session(zone, args.remove(0), time))
                }
                _ => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right })
            if is_instant(&left.get_type(schema)?) && has_days(&right) =>
        {
            let local = Box::new(by_clock(zone, *left));
            Transformed::yes(by_clock(zone, Expr::BinaryExpr(BinaryExpr { left: local, op, right })))
        }
        other => Transformed::no(other),
    })
}

fn kept(expr: Box<Expr>, field: arrow::datatypes::FieldRef) -> Transformed<Expr> {
    Transformed::no(Expr::Cast(Cast { expr, field }))
}

/// Whether a part of a time is the same by every clock.
fn is_absolute(part: &Expr) -> bool {
    matches!(part, Expr::Literal(part, _) if part.try_as_str().flatten().is_some_and(|part| part.eq_ignore_ascii_case("epoch")))
}

/// Whether it is an interval of days or months, whose length in hours the clock decides, and of nothing else.
fn has_days(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            interval.months != 0 || interval.days != 0
        }
        _ => false,
    }
}
