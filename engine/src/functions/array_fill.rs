//! `array_fill(x, ARRAY[2, 3])`: arrays of arrays of one value. It is written as `array_filled(x, 2, 3)`, because the number
//! of lengths makes the type of the result.
//!
//! A length of 0 makes an empty array of all of it, a NULL or a negative one is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// What `array_fill` is written for: the lengths are arguments.
pub(crate) const ARRAY_FILLED: &str = "array_filled";

/// The dimensions of an array.
const DIMENSIONS_MAX: usize = 6;

/// The elements of an array, as in PostgreSQL.
const ELEMENTS_MAX: usize = 134_217_727;

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::new(TypeSignature::VariadicAny, Volatility::Immutable);
    vec![Arc::new(ScalarUDF::from(Filled { signature }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Filled {
    signature: Signature,
}

fn list_of(element: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element.clone(), true)))
}

impl ScalarUDFImpl for Filled {
    fn name(&self) -> &str {
        ARRAY_FILLED
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        let (value, lengths) = match argument_types {
            [value, lengths @ ..] if !lengths.is_empty() => (value, lengths),
            _ => return Err(Error::new(sqlstate::UNDEFINED_FUNCTION, "array_fill takes a value and lengths").into()),
        };
        if let DataType::List(_) = value {
            let message = format!("could not find array type for data type {}", name_of(value));
            return Err(Error::new(sqlstate::UNDEFINED_OBJECT, message).into());
        }
        if let Some(other) = lengths.iter().find(|length| !length.is_integer() && !length.is_null()) {
            let message = format!("function array_fill({}, {}[]) does not exist", name_of(value), name_of(other));
            return Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message).into());
        }
        if lengths.len() > DIMENSIONS_MAX {
            let message = format!(
                "number of array dimensions ({}) exceeds the maximum allowed ({DIMENSIONS_MAX})",
                lengths.len()
            );
            return Err(Error::new(sqlstate::LIMIT_EXCEEDED, message).into());
        }
        Ok(lengths.iter().fold(value.clone(), |element, _| list_of(&element)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let arrays = arguments.args.iter().map(|argument| argument.to_array(rows));
        let arrays = arrays.collect::<DataFusionResult<Vec<ArrayRef>>>()?;
        let Some((value, lengths)) = arrays.split_first() else {
            return Err(Error::internal("array_fill has no arguments").into());
        };
        let filled = filled(value, lengths, rows)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&filled, 0)?),
            false => ColumnarValue::Array(filled),
        })
    }
}

fn filled(values: &ArrayRef, lengths: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let integers = |lengths: &ArrayRef| -> Result<Int64Array> {
        Ok(cast(lengths, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    };
    let lengths = lengths.iter().map(integers).collect::<Result<Vec<Int64Array>>>()?;
    // The lengths of the arrays of each dimension, the outermost first, and for each value the row that it is of.
    let mut arrays: Vec<Vec<usize>> = vec![Vec::new(); lengths.len()];
    let mut places: Vec<u64> = Vec::new();
    let mut elements = 0_usize;
    for row in 0..rows {
        let of_row = lengths_in(&lengths, row)?;
        let mut copies = 1;
        for (dimension, length) in arrays.iter_mut().zip(&of_row) {
            dimension.extend(std::iter::repeat_n(*length, copies));
            copies *= length;
        }
        elements = elements.saturating_add(copies);
        if elements > i32::MAX as usize {
            let message = format!("the result of array_fill would have more than {} elements", i32::MAX);
            return Err(Error::new(sqlstate::LIMIT_EXCEEDED, message));
        }
        places.extend(std::iter::repeat_n(row as u64, copies));
    }
    let mut filled = take(values, &UInt64Array::from(places), None)?;
    for dimension in arrays.into_iter().rev() {
        let element = Arc::new(Field::new_list_field(filled.data_type().clone(), true));
        let offsets = OffsetBuffer::<i32>::from_lengths(dimension);
        filled = Arc::new(ListArray::try_new(element, offsets, filled, None)?);
    }
    Ok(filled)
}

/// The lengths of one row's arrays, all of them 0 if one is. Their product is bounded.
fn lengths_in(lengths: &[Int64Array], row: usize) -> Result<Vec<usize>> {
    if lengths.iter().any(|lengths| lengths.is_null(row)) {
        return Err(Error::new(sqlstate::NULL_NOT_ALLOWED, "dimension values cannot be null"));
    }
    let too_large = || {
        let message = format!("array size exceeds the maximum allowed ({ELEMENTS_MAX})");
        Error::new(sqlstate::LIMIT_EXCEEDED, message)
    };
    let mut of_row = Vec::with_capacity(lengths.len());
    let mut elements = 1_usize;
    for lengths in lengths {
        let length = usize::try_from(lengths.value(row)).map_err(|_| too_large())?;
        elements = elements.checked_mul(length).filter(|elements| *elements <= ELEMENTS_MAX).ok_or_else(too_large)?;
        of_row.push(length);
    }
    if elements == 0 {
        of_row.fill(0);
    }
    Ok(of_row)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use arrow::datatypes::Int32Type;

    use super::*;

    fn of(values: Vec<i32>, lengths: Vec<Vec<Option<i64>>>) -> Result<ArrayRef> {
        let rows = values.len();
        let values: ArrayRef = Arc::new(Int32Array::from(values));
        let lengths: Vec<ArrayRef> =
            lengths.into_iter().map(|lengths| Arc::new(Int64Array::from(lengths)) as ArrayRef).collect();
        filled(&values, &lengths, rows)
    }

    #[test]
    fn rows_have_arrays_of_their_own_lengths() {
        let filled = of(vec![7, 8], vec![vec![Some(1), Some(2)]]).unwrap();
        let expected = vec![Some(vec![Some(7)]), Some(vec![Some(8), Some(8)])];
        assert_eq!(filled.as_list::<i32>(), &ListArray::from_iter_primitive::<Int32Type, _, _>(expected));
    }

    #[test]
    fn a_length_of_zero_empties_all_dimensions() {
        let filled = of(vec![7, 8], vec![vec![Some(2), Some(2)], vec![Some(0), Some(3)]]).unwrap();
        let lengths: Vec<usize> = filled.as_list::<i32>().iter().flatten().map(|array| array.len()).collect();
        assert_eq!(lengths, [0, 2]);
        assert_eq!(filled.as_list::<i32>().values().as_list::<i32>().values().len(), 6);
    }

    #[test]
    fn lengths_are_known_and_not_negative() {
        let fails = |lengths: Vec<Vec<Option<i64>>>, expected: &str| {
            assert_eq!(of(vec![7], lengths).unwrap_err().sqlstate(), expected);
        };
        fails(vec![vec![None]], "22004");
        fails(vec![vec![Some(-1)], vec![None]], "22004");
        fails(vec![vec![Some(-1)]], "54000");
        fails(vec![vec![Some(0)], vec![Some(-1)]], "54000");
        fails(vec![vec![Some(20_000)], vec![Some(20_000)]], "54000");
    }
}
