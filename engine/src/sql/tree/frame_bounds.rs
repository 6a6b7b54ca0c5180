//! How far a frame reaches, where that is an expression: `ROWS BETWEEN (1 + 1) PRECEDING AND CURRENT ROW`. The planner knows
//! constants only; so the expression, which has no columns, is computed before, and its value put in its place.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Decimal128Type, DecimalType};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::Expr as LogicalExpr;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, Interval, NamedWindowExpr, Query, Select, Spanned, UnaryOperator, Value, ValueWithSpan, VisitMut,
    VisitorMut, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType, visit_expressions,
};

use crate::error::sqlstate;
use crate::sql::check::check_queries;
use crate::sql::context::StatementContext;
use crate::sql::plan::planner;
use crate::sql::text::parse::place;
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
        match expr {
            Expr::Function(Function { over: Some(WindowType::WindowSpec(spec)), .. }) => self.compute(spec),
            _ => ControlFlow::Continue(()),
        }
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
