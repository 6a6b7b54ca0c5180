//! The bounds of arrays, and arrays without their last elements.
//!
//! | function | what it gives |
//! |---|---|
//! | `array_lower(array, n)`, `array_upper(array, n)` | the first and the last place in the n-th dimension; NULL if there is none |
//! | `array_ndims(array)` | how many dimensions it has; NULL if it is empty |
//! | `trim_array(array, n)` | the array without its last n elements |
//!
//! The first place is always 1.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::{ByRows, integer_of};
use super::several::elements_of;
use crate::error::sqlstate;
use crate::{Error, Result};

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let strict = |name, gives, compute| ByRows {
        name,
        volatility: Volatility::Immutable,
        strict: true,
        takes: array_and_number,
        gives,
        compute,
    };
    let integer: fn(&[DataType]) -> DataType = |_| DataType::Int32;
    [
        strict("array_lower", integer, array_lower),
        strict("array_upper", integer, array_upper),
        ByRows { takes: one_array, ..strict("array_ndims", integer, array_ndims) },
        strict("trim_array", |types| types[0].clone(), trim_array),
    ]
    .into_iter()
    .map(ByRows::function)
    .collect()
}

fn one_array(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [array @ DataType::List(_)] => Some(vec![array.clone()]),
        _ => None,
    }
}

fn array_and_number(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [array @ DataType::List(_), number] if number.is_integer() || number.is_null() => {
            Some(vec![array.clone(), DataType::Int64])
        }
        _ => None,
    }
}

/// How long an array is in a dimension, counted from 1.
fn length_of(array: &ScalarValue, dimension: i64) -> Result<Option<i32>> {
    let mut elements = elements_of(array)?;
    for _ in 1..dimension {
        let first = match elements.as_list_opt::<i32>() {
            Some(lists) if !lists.is_empty() && lists.is_valid(0) => lists.value(0),
            _ => return Ok(None),
        };
        elements = first;
    }
    let length = i32::try_from(elements.len()).map_err(|_| Error::internal("an array is too long"))?;
    Ok((dimension > 0 && length > 0).then_some(length))
}

fn array_lower(values: &[ScalarValue]) -> Result<ScalarValue> {
    let length = length_of(&values[0], integer_of(&values[1])?)?;
    Ok(ScalarValue::Int32(length.map(|_| 1)))
}

fn array_upper(values: &[ScalarValue]) -> Result<ScalarValue> {
    let length = length_of(&values[0], integer_of(&values[1])?)?;
    Ok(ScalarValue::Int32(length))
}

fn array_ndims(values: &[ScalarValue]) -> Result<ScalarValue> {
    let (mut elements, mut dimensions) = (elements_of(&values[0])?, 0);
    while !elements.is_empty() {
        dimensions += 1;
        let first = match elements.as_list_opt::<i32>() {
            Some(lists) if lists.is_valid(0) => lists.value(0),
            _ => break,
        };
        elements = first;
    }
    Ok(ScalarValue::Int32((dimensions > 0).then_some(dimensions)))
}

fn trim_array(values: &[ScalarValue]) -> Result<ScalarValue> {
    let (elements, trimmed) = (elements_of(&values[0])?, integer_of(&values[1])?);
    let length = elements.len();
    match usize::try_from(trimmed).ok().and_then(|trimmed| length.checked_sub(trimmed)) {
        Some(kept) => {
            let kept = SingleRowListArrayBuilder::new(elements.slice(0, kept));
            Ok(match values[0].data_type() {
                DataType::List(field) => kept.with_field(&field).build_list_scalar(),
                _ => kept.build_list_scalar(),
            })
        }
        None => {
            let message = format!("number of elements to trim must be between 0 and {length}");
            Err(Error::new(sqlstate::ARRAY_SUBSCRIPT, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Builder, ListBuilder};

    use super::*;

    fn array(elements: &[i32]) -> ScalarValue {
        let mut builder = ListBuilder::new(Int32Builder::new());
        builder.append_value(elements.iter().copied().map(Some));
        ScalarValue::List(Arc::new(builder.finish()))
    }

    #[test]
    fn bounds_are_those_of_a_dimension() {
        let number = |number| ScalarValue::Int64(Some(number));
        let of = |elements: &[i32], dimension| array_upper(&[array(elements), number(dimension)]).unwrap();
        assert_eq!(of(&[1, 8, 3], 1), ScalarValue::Int32(Some(3)));
        for dimension in [2, 0, -1] {
            assert_eq!(of(&[1], dimension), ScalarValue::Int32(None), "{dimension}");
        }
        assert_eq!(of(&[], 1), ScalarValue::Int32(None));
        assert_eq!(array_lower(&[array(&[7]), number(1)]).unwrap(), ScalarValue::Int32(Some(1)));
        assert_eq!(array_ndims(&[array(&[7])]).unwrap(), ScalarValue::Int32(Some(1)));
        assert_eq!(array_ndims(&[array(&[])]).unwrap(), ScalarValue::Int32(None));
    }

    #[test]
    fn no_more_is_trimmed_than_there_is() {
        let trim = |trimmed| trim_array(&[array(&[1, 2]), ScalarValue::Int64(Some(trimmed))]);
        assert_eq!(trim(1).unwrap().to_string(), "[1]");
        assert_eq!(trim(2).unwrap().to_string(), "[]");
        assert_eq!(trim(3).unwrap_err().sqlstate(), "2202E");
        assert_eq!(trim(-1).unwrap_err().sqlstate(), "2202E");
    }
}
