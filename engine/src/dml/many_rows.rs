//! Calls in an expression that are not computed from one row: they decide whether rows can be changed or locked through a
//! query, and whether a column of its select list means the same by itself.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Function, ObjectNamePart};

use crate::error::sqlstate;
use crate::sql::text::parse::fold;
use crate::sql::tree::own_expressions::look_at_own;
use crate::{Error, Result};

/// Whether an expression calls, outside of subqueries, something that is not computed from one row: DataFusion's aggregates,
/// any window, a set.
pub(crate) fn calls_of_many_rows(expr: &Expr) -> bool {
    calls(expr, is_of_many_rows)
}

/// Whether an expression calls, outside of subqueries, an aggregate.
pub(crate) fn calls_aggregates(expr: &Expr) -> bool {
    calls(expr, |function| function.over.is_none() && is_aggregate(function))
}

/// Fails if a value that is for one row calls, outside of subqueries, something that is not computed from one.
pub(crate) fn require_of_one_row(value: &Expr, place: &str) -> Result<()> {
    if !calls_of_many_rows(value) {
        return Ok(());
    }
    let (code, what) = match value {
        value if calls(value, |function| function.over.is_some()) => (sqlstate::WINDOWING, "window"),
        value if calls_aggregates(value) => (sqlstate::GROUPING, "aggregate"),
        _ => (sqlstate::FEATURE_NOT_SUPPORTED, "set-returning"),
    };
    Err(Error::new(code, format!("{what} functions are not allowed in {place}")))
}

fn calls(expr: &Expr, wanted: fn(&Function) -> bool) -> bool {
    let look = |part: &Expr| match part {
        Expr::Function(function) if wanted(function) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    look_at_own(expr, look).is_break()
}

fn is_of_many_rows(function: &Function) -> bool {
    const SETS: [&str; 6] = [
        "generate_series",
        "generate_subscripts",
        "unnest",
        "string_to_table",
        "regexp_split_to_table",
        "regexp_matches",
    ];
    function.over.is_some() || SETS.contains(&name_of_call(function).as_str()) || is_aggregate(function)
}

fn name_of_call(function: &Function) -> String {
    function.name.0.last().and_then(ObjectNamePart::as_ident).map(fold).unwrap_or_default()
}

fn is_aggregate(function: &Function) -> bool {
    let name = name_of_call(function);
    let aggregates = datafusion::functions_aggregate::all_default_aggregate_functions();
    !function.within_group.is_empty()
        || aggregates.iter().any(|known| known.name() == name || known.aliases().contains(&name))
}
