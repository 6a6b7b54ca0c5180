//! How far a frame reaches, where that is an expression: `ROWS BETWEEN (1 + 1) PRECEDING AND CURRENT ROW`. The planner knows
//! constants only; so the expression, which has no columns, is computed before, and its value put in its place.
//!
//! A frame that ends before it starts, as `1 FOLLOWING AND 0 FOLLOWING`, has no rows, and is refused by the planner. So
//! another one without rows takes its place.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Decimal128Type, DecimalType};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::Expr as LogicalExpr;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, Interval, NamedWindowExpr, ObjectNamePart, Query, Select, Spanned, UnaryOperator,
    Value, ValueWithSpan, VisitMut, VisitorMut, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowSpec,
    WindowType, visit_expressions,
};

use crate::error::sqlstate;
use crate::sql::check::check_queries;
use crate::sql::context::StatementContext;
use crate::sql::plan::planner;
use crate::sql::text::parse::{fold, place};
use crate::sql::types::name_of;
use crate::{Error, Result};

/// Computes the bounds of all frames in a query.
pub(in crate::sql) fn compute_frame_bounds(context: &StatementContext, query: &mut Query) -> Result<()> {
    match query.visit(&mut Bounds { context }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Bounds<'a> {
    context: &'a StatementContext,
}

impl Bounds<'_> {
    fn compute(&self, spec: &mut WindowSpec) -> ControlFlow<Error> {
        let Some(WindowFrame { units, start_bound, end_bound }) = &mut spec.window_frame else {
            return ControlFlow::Continue(());
        };
        let bounds =
            std::iter::once((start_bound, "starting")).chain(end_bound.as_mut().map(|bound| (bound, "ending")));
        for (bound, which) in bounds {
            if let WindowFrameBound::Preceding(Some(offset)) | WindowFrameBound::Following(Some(offset)) = bound
                && !is_known(offset, *units)
                && let Err(error) = computed(self.context, offset, *units, which).map(|value| **offset = value)
            {
                return ControlFlow::Break(error.at(place(offset.span())));
            }
        }
        start_behind_the_end(spec);
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Bounds<'_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for definition in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &mut definition.1 {
                self.compute(spec)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut function.over
        {
            self.compute(spec)?;
            take_nulls_only(function);
        }
        ControlFlow::Continue(())
    }
}

/// Writes a frame by ROWS or GROUPS that ends before it starts as one that starts behind the last row.
fn start_behind_the_end(spec: &mut WindowSpec) {
    let Some(frame) = &mut spec.window_frame else { return };
    let is_meant = match frame.units {
        WindowFrameUnits::Rows => true,
        // Without an order they are refused.
        WindowFrameUnits::Groups => !spec.order_by.is_empty() || spec.window_name.is_some(),
        WindowFrameUnits::Range => false,
    };
    if is_meant && ends_before_start(frame) {
        let behind = Box::new(Expr::value(Value::Number(i64::MAX.to_string(), false)));
        *frame = WindowFrame {
            units: WindowFrameUnits::Rows,
            start_bound: WindowFrameBound::Following(Some(behind)),
            end_bound: Some(WindowFrameBound::Following(None)),
        };
    }
}

/// Functions of a window that mind no frame.
const UNFRAMED: [&str; 8] = ["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"];

/// Functions that take no FILTER.
const UNFILTERED: [&str; 3] = ["first_value", "last_value", "nth_value"];

/// By RANGE, too, a frame that ends before it starts has no rows, but where the key is NULL: then it has all rows whose key is,
/// however far it reaches. Those are the equals of the row, so it becomes these, and for other rows a FILTER leaves out all.
fn take_nulls_only(function: &mut Function) {
    let Function { name, over: Some(WindowType::WindowSpec(spec)), filter, .. } = function else { return };
    let (Some(frame), [key]) = (&mut spec.window_frame, spec.order_by.as_slice()) else { return };
    let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return };
    let name = fold(name);
    let is_column = matches!(key.expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
    let is_range = matches!(frame.units, WindowFrameUnits::Range);
    if !is_range || !is_column || UNFILTERED.contains(&name.as_str()) || !ends_before_start(frame) {
        return;
    }
    *frame = WindowFrame {
        units: WindowFrameUnits::Range,
        start_bound: WindowFrameBound::CurrentRow,
        end_bound: Some(WindowFrameBound::CurrentRow),
    };
    if UNFRAMED.contains(&name.as_str()) {
        return;
    }
    let is_null = Box::new(Expr::IsNull(Box::new(key.expr.clone())));
    *filter = Some(match filter.take() {
        Some(own) => {
            let right = Box::new(Expr::Nested(own));
            Box::new(Expr::BinaryOp { left: is_null, op: BinaryOperator::And, right })
        }
        None => is_null,
    });
}

/// Whether both bounds of a frame are on one side of the row, and the wrong way round.
fn ends_before_start(frame: &WindowFrame) -> bool {
    let (near, far) = match (&frame.start_bound, &frame.end_bound) {
        (WindowFrameBound::Preceding(Some(start)), Some(WindowFrameBound::Preceding(Some(end)))) => (start, end),
        (WindowFrameBound::Following(Some(start)), Some(WindowFrameBound::Following(Some(end)))) => (end, start),
        _ => return false,
    };
    matches!((distance(near), distance(far)), (Some(near), Some(far)) if near < far)
}

/// An offset that is a number.
fn distance(offset: &Expr) -> Option<f64> {
    match offset {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => digits.parse().ok(),
        _ => None,
    }
}

/// Whether the planner takes an offset as it is written.
fn is_known(offset: &Expr, units: WindowFrameUnits) -> bool {
    let is_range = matches!(units, WindowFrameUnits::Range);
    match offset {
        Expr::Interval(_) => true,
        // What is negative it refuses, too.
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => is_known(expr, units),
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            is_range || digits.bytes().all(|digit| digit.is_ascii_digit())
        }
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. }) => true,
        _ => false,
    }
}

/// The value of an offset.
fn computed(context: &StatementContext, offset: &Expr, units: WindowFrameUnits, which: &str) -> Result<Expr> {
    let names_column = visit_expressions(offset, |part| match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if names_column.is_break() {
        let message = format!("argument of {units} must not contain variables");
        return Err(Error::new(sqlstate::INVALID_COLUMN_REFERENCE, message));
    }
    let mut offset = offset.clone();
    check_queries(&mut offset)?;
    let planned = planner(context).sql_to_expr(offset, &DFSchema::empty(), &mut context.planner_context())?;
    let Some(LogicalExpr::Literal(value, _)) = context.simplified(vec![planned])?.pop() else {
        return Err(Error::unsupported("an offset of a window's frame that is not constant"));
    };
    if value.is_null() {
        return Err(Error::new(sqlstate::NULL_NOT_ALLOWED, format!("frame {which} offset must not be null")));
    }
    let value = match units {
        WindowFrameUnits::Range => value,
        WindowFrameUnits::Rows | WindowFrameUnits::Groups => rounded(value)?,
    };
    let text = match &value {
        ScalarValue::Decimal128(Some(digits), precision, scale) => {
            Decimal128Type::format_decimal(*digits, *precision, *scale)
        }
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            let (months, days) = (interval.months, interval.days);
            let text = format!("{months} months {days} days {} nanoseconds", interval.nanoseconds);
            return Ok(Expr::Interval(Interval {
                value: Box::new(Expr::value(Value::SingleQuotedString(text))),
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            }));
        }
        number if number.data_type().is_numeric() => number.to_string(),
        other => {
            let message = format!("argument of {units} cannot be of type {}", name_of(&other.data_type()));
            return Err(Error::new(sqlstate::TYPE_MISMATCH, message));
        }
    };
    if text.starts_with('-') {
        return Err(Error::new(sqlstate::INVALID_FRAME_OFFSET, format!("frame {which} offset must not be negative")));
    }
    Ok(Expr::value(Value::Number(text, false)))
}

/// The number of rows or groups, halves away from zero.
fn rounded(value: ScalarValue) -> Result<ScalarValue> {
    match &value {
        ScalarValue::Decimal128(..) => Ok(value.cast_to(&DataType::Decimal128(38, 0))?.cast_to(&DataType::Int64)?),
        ScalarValue::Float64(Some(number)) => {
            Ok(ScalarValue::Float64(Some(number.round_ties_even())).cast_to(&DataType::Int64)?)
        }
        _ => Ok(value),
    }
}
