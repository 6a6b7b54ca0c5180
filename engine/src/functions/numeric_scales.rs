//! The digits of numerics behind the point.
//!
//! | function | what it gives |
//! |---|---|
//! | `scale(n)` | how many there are, which the type says |
//! | `min_scale(n)` | how many are needed: zeros at the end are not |
//! | `trim_scale(n)` | the number itself, as its type says how many there are; of a constant [without zeros at the end](crate::sql::tree::literal_scales) |

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::ByRows;
use crate::{Error, Result};

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    fn strict(name: &'static str, compute: fn(&[ScalarValue]) -> Result<ScalarValue>) -> ByRows {
        ByRows {
            name,
            volatility: Volatility::Immutable,
            strict: true,
            takes: one_numeric,
            gives: |_| DataType::Int32,
            compute,
        }
    }
    let trimmed = ByRows { gives: |types| types[0].clone(), ..strict("trim_scale", trim_scale) };
    [strict("scale", scale), strict("min_scale", min_scale), trimmed].into_iter().map(ByRows::function).collect()
}

fn one_numeric(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [numeric @ DataType::Decimal128(..)] => Some(vec![numeric.clone()]),
        [number] if number.is_integer() || number.is_null() => Some(vec![DataType::Decimal128(38, 0)]),
        _ => None,
    }
}

/// A numeric's digits as a whole number, and how many of them are behind the point.
fn digits_of(value: &ScalarValue) -> Result<(i128, i8)> {
    match value {
        ScalarValue::Decimal128(Some(digits), _, scale) => Ok((*digits, *scale)),
        _ => Err(Error::internal("a numeric was expected")),
    }
}

fn scale(values: &[ScalarValue]) -> Result<ScalarValue> {
    let (_, scale) = digits_of(&values[0])?;
    Ok(ScalarValue::Int32(Some(scale.into())))
}

fn min_scale(values: &[ScalarValue]) -> Result<ScalarValue> {
    let (mut digits, mut scale) = digits_of(&values[0])?;
    while scale > 0 && digits % 10 == 0 {
        digits /= 10;
        scale -= 1;
    }
    Ok(ScalarValue::Int32(Some(scale.into())))
}

fn trim_scale(values: &[ScalarValue]) -> Result<ScalarValue> {
    Ok(values[0].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_at_the_end_are_not_needed() {
        for (digits, digits_behind, expected) in [(84_100, 4, 2), (0, 2, 0), (-50, 2, 1), (7, 0, 0), (123, 2, 2)] {
            let value = ScalarValue::Decimal128(Some(digits), 38, digits_behind);
            let all = ScalarValue::Int32(Some(i32::from(digits_behind)));
            assert_eq!(scale(std::slice::from_ref(&value)).unwrap(), all);
            assert_eq!(min_scale(&[value]).unwrap(), ScalarValue::Int32(Some(expected)), "{digits}");
        }
    }
}
