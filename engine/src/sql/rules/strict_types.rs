//! What PostgreSQL refuses for its types and DataFusion computes all the same: an analyser rule that runs before types are
//! coerced, so that what it sees is what was written.
//!
//! | expression | to DataFusion |
//! |---|---|
//! | `CASE WHEN 1 THEN …`, `FILTER (WHERE 1)` | whether it is not 0 |
//! | `double precision % integer`, of columns and casts | what is left |
//! | `date = integer`, also of timestamps, `<` and the like | the number of the day |
//! | `CAST(number AS date)`, also as a time or timestamp, and back | so many days, or parts of a second, after 1970 |
//! | `CAST(double precision AS boolean)`, also of reals, numerics and smallints | whether it is not 0 |
//! | `extract(hour FROM date)`, `extract(week FROM interval)` | 0, the days by 7 |
//! | `extract(day FROM time)` | refused otherwise |

use arrow::compute::can_cast_types;
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{AggregateFunction, BinaryExpr, Case, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::interval_order::compares;
use crate::error::sqlstate;
use crate::functions::date_parts::is_double;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// The parts of a time of day, which a date does not have.
const PARTS_OF_DAYS: [&str; 9] =
    ["hour", "hours", "minute", "minutes", "second", "seconds", "millisecond", "microsecond", "microseconds"];

/// The parts of a date, which a time of day does not have.
const PARTS_OF_DATES: [&str; 7] = ["day", "days", "month", "months", "quarter", "year", "years"];

/// The parts of a date that need weeks or its place in a year, which an interval does not have either.
const PARTS_OF_WEEKS: [&str; 6] = ["week", "weeks", "dow", "doy", "isodow", "isoyear"];

/// The rule.
#[derive(Debug)]
pub(crate) struct StrictTypes;

impl AnalyzerRule for StrictTypes {
    fn name(&self) -> &str {
        "strict_types"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            // Most nodes have nothing to ask for the types of.
            let mut schema: Option<DFSchema> = None;
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    if concerns(part) {
                        check(part, schema.get_or_insert_with(|| merge_schema(&node.inputs())), node)?;
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(plan)
    }
}

fn concerns(expr: &Expr) -> bool {
    match expr {
        Expr::Case(case) => case.expr.is_none(),
        Expr::AggregateFunction(call) => call.params.filter.is_some(),
        Expr::BinaryExpr(binary) => binary.op == Operator::Modulo || compares(binary.op),
        Expr::Cast(_) | Expr::TryCast(_) => true,
        Expr::ScalarFunction(call) => call.func.name() == "date_part",
        _ => false,
    }
}

fn check(expr: &Expr, schema: &DFSchema, node: &LogicalPlan) -> Result<()> {
    // A parameter may have no type yet.
    let type_of = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
    let mismatch = |message: String| Err(Error::new(sqlstate::TYPE_MISMATCH, message));
    let condition = |condition: &Expr, of: &str| {
        let found = type_of(condition);
        // A constant of an open type is read as a boolean, and so is `coalesce(ok, 'f')`.
        let is_open = found.is_string() && condition.exists(|part| Ok(is_constant_text(part))).unwrap_or(false);
        match is_open || matches!(found, DataType::Boolean | DataType::Null) {
            true => Ok(()),
            false => mismatch(format!("argument of {of} must be type boolean, not type {}", name_of(&found))),
        }
    };
    match expr {
        Expr::Case(Case { when_then_expr, .. }) => {
            when_then_expr.iter().try_for_each(|(when, _)| condition(when, "CASE/WHEN"))
        }
        Expr::AggregateFunction(AggregateFunction { params, .. }) => {
            params.filter.iter().try_for_each(|filter| condition(filter, "FILTER"))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let is_float = |side: &Expr| type_of(side).is_floating() && is_double_in_postgres(side, node);
            let refused = match op {
                Operator::Modulo => is_float(left) || is_float(right),
                _ => {
                    let (left, right) = (type_of(left), type_of(right));
                    (is_day(&left) && right.is_numeric()) || (left.is_numeric() && is_day(&right))
                }
            };
            let (left, right) = (type_of(left), type_of(right));
            match refused {
                true => {
                    let message = format!("operator does not exist: {} {op} {}", name_of(&left), name_of(&right));
                    Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message))
                }
                false => Ok(()),
            }
        }
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            let (from, to) = (type_of(expr), field.data_type());
            match is_refused(&from, to) {
                true => mismatch(format!("cannot cast type {} to {}", name_of(&from), name_of(to))),
                false => Ok(()),
            }
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let [Expr::Literal(part, _), time] = args.as_slice() else { return Ok(()) };
            let part = part.try_as_str().flatten().unwrap_or_default().to_lowercase();
            let kind = type_of(time);
            // To `date_part`, a date is a timestamp.
            match lacks(&kind, &part) && !(kind == DataType::Date32 && is_double(func)) {
                true => {
                    let message = format!("unit \"{part}\" not supported for type {}", name_of(&kind));
                    Err(Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message))
                }
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Whether values of a type do not have a part that others have.
fn lacks(data_type: &DataType, part: &str) -> bool {
    match data_type {
        DataType::Date32 => PARTS_OF_DAYS.contains(&part),
        DataType::Time64(_) => PARTS_OF_DATES.contains(&part) || PARTS_OF_WEEKS.contains(&part),
        DataType::Interval(_) => PARTS_OF_WEEKS.contains(&part),
        _ => false,
    }
}

fn is_constant_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.data_type().is_string())
}

/// Whether a double precision is none of those that are numerics in PostgreSQL, as averages are and powers.
fn is_double_in_postgres(expr: &Expr, node: &LogicalPlan) -> bool {
    match expr {
        // A number with an exponent is written as the cast of a text.
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => !is_constant_text(expr),
        Expr::Column(_) => node.inputs().into_iter().all(shows_stored_columns),
        _ => false,
    }
}

fn shows_stored_columns(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(shows_stored_columns)
        }
        _ => false,
    }
}

/// What has a day in it. The time of a day is cast to a number when it is added to one.
fn is_day(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Timestamp(..))
}

/// Whether there is a CAST from one type to the other.
pub fn can_cast(from: &DataType, to: &DataType) -> bool {
    can_cast_types(from, to) && !is_refused(from, to)
}

fn is_refused(from: &DataType, to: &DataType) -> bool {
    match to {
        // Constants are bigints here, whatever their size: the integers of PostgreSQL, which are booleans.
        DataType::Boolean => from.is_floating() || matches!(from, DataType::Decimal128(..) | DataType::Int16),
        DataType::Time64(_) => from.is_numeric(),
        to => (is_day(to) && from.is_numeric()) || (is_day(from) && to.is_numeric()),
    }
}
