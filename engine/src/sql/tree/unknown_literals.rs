//! Constants whose type is open: `'2'` is a text only where nothing beside it says otherwise.
//!
//! PostgreSQL gives such a constant the type of what it is beside, and it is an error if it is none of that. DataFusion
//! takes it for a text: beside a number in CASE or UNION all become texts, and with a date or an interval it knows nothing
//! to do.
//!
//! | where | type of the constant |
//! |---|---|
//! | CASE, COALESCE, GREATEST, arrays, UNION | that of the others |
//! | `number + '2'`, `-`, `*`, `/`, `%` | the number's |
//! | `timestamp + '1 day'`, `interval + '1 day'` | interval |
//! | `timestamp - '2020-01-01'`, also of dates and times | the other's |
//! | `interval * '2'`, `/` | double precision |
//! | comparisons with booleans, intervals, arrays, numerics, UUIDs | the other's |
//!
//! A numeric gets as many digits as the constant has. Comparisons with other types DataFusion knows to make.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Alias, Case};
use datafusion::logical_expr::planner::RawBinaryExpr;
use datafusion::logical_expr::{Expr, ExprSchemable, cast, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::functions::input::{check_float, fixed_bytes_of};
use crate::functions::interval_texts::interval_of;
use crate::functions::numeric_texts::without_exponent;

/// The digits of any numeric.
const DIGITS: u8 = 38;

/// The text of a constant of an open type. Texts that have been cast to one are told apart by their Arrow type.
pub(in crate::sql) fn open_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text),
        _ => None,
    }
}

/// The same of a column of a select list.
pub(in crate::sql) fn open_column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Alias(Alias { expr, .. }) => open_column(expr),
        other => open_text(other),
    }
}

/// The type of constants that stand in the place of values of these types; `None` if that is a text, or nothing.
pub(crate) fn type_beside<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    let mut common: Option<DataType> = None;
    for data_type in types {
        common = match common {
            known if data_type.is_null() => known,
            None if takes_constants(data_type) => Some(data_type.clone()),
            Some(known) if known == *data_type => Some(known),
            Some(known) => Some(wider(&known, data_type)?),
            None => return None,
        };
    }
    common
}

fn takes_constants(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean
        | DataType::Date32
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Interval(IntervalUnit::MonthDayNano)
        | DataType::Binary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => true,
        DataType::List(element) => !element.data_type().is_nested(),
        other => other.is_numeric(),
    }
}

/// What values of two types are together.
fn wider(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Date32, Decimal128, Float32, Float64, Int64, Timestamp};
    Some(match (left, right) {
        (left, right) if left.is_numeric() && right.is_numeric() => match (left, right) {
            (Float64, _) | (_, Float64) => Float64,
            (Float32, _) | (_, Float32) => Float32,
            (left, right) if left.is_integer() && right.is_integer() => Int64,
            _ => Decimal128(DIGITS, 10),
        },
        (Date32, moment @ Timestamp(..)) | (moment @ Timestamp(..), Date32) => moment.clone(),
        (Timestamp(_, left), Timestamp(_, right)) => {
            Timestamp(TimeUnit::Microsecond, left.clone().or_else(|| right.clone()))
        }
        _ => return None,
    })
}

/// The constant of this text; an error if it is none of its type.
pub(in crate::sql) fn constant(text: &str, wanted: &DataType) -> DataFusionResult<Expr> {
    let value = match wanted {
        DataType::Decimal128(..) => {
            let written_out = without_exponent(text);
            let text = written_out.as_deref().unwrap_or(text).trim();
            match exact(text) {
                Some(number) => number,
                None => ScalarValue::from(text).cast_to(wanted)?,
            }
        }
        DataType::Interval(_) => ScalarValue::IntervalMonthDayNano(Some(interval_of(text)?)),
        DataType::FixedSizeBinary(length) => {
            ScalarValue::FixedSizeBinary(*length, Some(fixed_bytes_of(text, *length)?))
        }
        wanted if wanted.is_numeric() || *wanted == DataType::Boolean => {
            if wanted.is_floating() {
                check_float(text, wanted)?;
            }
            ScalarValue::from(text.trim()).cast_to(wanted)?
        }
        // By the rules for casts, which know the session's time zone.
        wanted => return Ok(cast(lit(text), wanted.clone())),
    };
    Ok(Expr::Literal(value, None))
}

/// A number with the digits that it is written with, as of a number without quotes.
fn exact(text: &str) -> Option<ScalarValue> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0').len().max(fraction.len()).max(1);
    let precision = u8::try_from(significant).ok().filter(|precision| *precision <= DIGITS)?;
    let value: i128 = digits.parse().ok()?;
    let value = if text.starts_with('-') { -value } else { value };
    Some(ScalarValue::Decimal128(Some(value), precision, i8::try_from(fraction.len()).ok()?))
}

/// Gives the open constants among values that stand in each other's place the type of the others; whether there were any.
pub(in crate::sql) fn resolve<'a>(
    values: impl IntoIterator<Item = &'a mut Expr>,
    type_of: impl Fn(&Expr) -> DataType,
) -> DataFusionResult<bool> {
    resolve_if(values, type_of, |_| true)
}

/// The same for values that are compared, where DataFusion does not know it.
pub(in crate::sql) fn resolve_compared<'a>(
    values: impl IntoIterator<Item = &'a mut Expr>,
    type_of: impl Fn(&Expr) -> DataType,
) -> DataFusionResult<bool> {
    resolve_if(values, type_of, needs_type)
}

fn needs_type(compared: &DataType) -> bool {
    matches!(
        compared,
        DataType::Boolean
            | DataType::Decimal128(..)
            | DataType::Interval(_)
            | DataType::List(_)
            | DataType::FixedSizeBinary(_)
    )
}

fn resolve_if<'a>(
    values: impl IntoIterator<Item = &'a mut Expr>,
    type_of: impl Fn(&Expr) -> DataType,
    concerns: impl Fn(&DataType) -> bool,
) -> DataFusionResult<bool> {
    let values: Vec<&mut Expr> = values.into_iter().collect();
    if !values.iter().any(|value| open_text(value).is_some()) {
        return Ok(false);
    }
    let types: Vec<DataType> =
        values.iter().filter(|value| open_text(value).is_none()).map(|value| type_of(value)).collect();
    let Some(wanted) = type_beside(&types).filter(|wanted| concerns(wanted)) else { return Ok(false) };
    for value in values {
        let known = match open_text(value) {
            Some(text) => constant(text, &wanted)?,
            None => continue,
        };
        *value = known;
    }
    Ok(true)
}

/// The same in a CASE: among its results, and in what is compared.
pub(in crate::sql) fn resolve_case(case: &mut Case, type_of: impl Fn(&Expr) -> DataType) -> DataFusionResult<bool> {
    let Case { expr, when_then_expr, else_expr } = case;
    let results = when_then_expr.iter_mut().map(|(_, then)| &mut **then);
    let results = resolve(results.chain(else_expr.iter_mut().map(|otherwise| &mut **otherwise)), &type_of)?;
    let Some(operand) = expr else { return Ok(results) };
    let compared = when_then_expr.iter_mut().map(|(when, _)| &mut **when);
    Ok(resolve_compared(compared.chain([&mut **operand]), &type_of)? || results)
}

/// The operands of an operator, constants being what PostgreSQL takes them for beside the other one.
pub(in crate::sql) fn beside_operator(expr: RawBinaryExpr, schema: &DFSchema) -> DataFusionResult<RawBinaryExpr> {
    let RawBinaryExpr { op, mut left, mut right } = expr;
    for side in [&mut left, &mut right] {
        if let Expr::Case(case) = side {
            resolve_case(case, |part| part.get_type(schema).unwrap_or(DataType::Null))?;
        }
    }
    let known = |text: &str, other: &Expr, is_left| -> DataFusionResult<Option<Expr>> {
        let wanted = other.get_type(schema).ok().and_then(|other| operand_type(&op, &other, is_left));
        wanted.map(|wanted| constant(text, &wanted)).transpose()
    };
    let (new_left, new_right) = match (open_text(&left), open_text(&right)) {
        (Some(text), None) => (known(text, &right, true)?, None),
        (None, Some(text)) => (None, known(text, &left, false)?),
        _ => (None, None),
    };
    Ok(RawBinaryExpr { left: new_left.unwrap_or(left), right: new_right.unwrap_or(right), op })
}

/// The type of a constant beside an operand.
fn operand_type(op: &BinaryOperator, other: &DataType, is_left: bool) -> Option<DataType> {
    use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
    use DataType::{Date32, Float64, Interval, Time64, Timestamp};
    Some(match (op, other) {
        (Plus | Minus | Multiply | Divide | Modulo, number) if number.is_numeric() => other.clone(),
        (Plus | Minus, Interval(_)) | (Plus, Timestamp(..)) => Interval(IntervalUnit::MonthDayNano),
        (Minus, Timestamp(..) | Date32 | Time64(_)) => other.clone(),
        (Multiply, Interval(_)) => Float64,
        (Divide, Interval(_)) if !is_left => Float64,
        (Eq | NotEq | Lt | LtEq | Gt | GtEq, compared) if needs_type(compared) => other.clone(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_have_the_digits_they_are_written_with() {
        for (text, expected) in [
            ("2.50", Some((250, 3, 2))),
            ("-0.05", Some((-5, 2, 2))),
            ("7", Some((7, 1, 0))),
            (".5", Some((5, 1, 1))),
            ("x", None),
            (".", None),
            ("1e3", None),
        ] {
            let expected =
                expected.map(|(value, precision, scale)| ScalarValue::Decimal128(Some(value), precision, scale));
            assert_eq!(exact(text), expected, "{text}");
        }
    }

    #[test]
    fn constants_take_the_type_of_what_is_beside_them() {
        let numeric = DataType::Decimal128(6, 2);
        assert_eq!(type_beside([&numeric, &DataType::Null]), Some(numeric));
        assert_eq!(type_beside([&DataType::Int32, &DataType::Int64]), Some(DataType::Int64));
        assert_eq!(type_beside([&DataType::Date32, &DataType::Utf8View]), None);
        assert_eq!(type_beside([&DataType::Null]), None);
        let error = constant("x", &DataType::Int32).unwrap_err();
        assert_eq!(crate::Error::from(error).sqlstate(), "22P02");
    }
}
