//! `array_order(array)`: bytes that are in the order in which PostgreSQL has arrays.
//!
//! A NULL among the elements is greater than any other, and of two arrays the shorter one is smaller where it is the
//! beginning of the other. Arrow's comparison has NULLs first. Arrow's row format knows both orders; the bytes are that.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, BinaryArray, BinaryBuilder};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{ScalarValue, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

static ORDER: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(ArrayOrder { signature: Signature::any(1, Volatility::Immutable) })));

/// What an array is compared by.
pub(crate) fn order_of_array(array: Expr) -> Expr {
    ORDER.call(vec![array])
}

/// Whether these bytes say how values of a type compare. Of intervals, and of what has parts, they do not.
pub(crate) fn is_ordered_array(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => match element.data_type() {
            DataType::Interval(_) => false,
            nested if nested.is_nested() => is_ordered_array(nested),
            _ => true,
        },
        _ => false,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayOrder {
    signature: Signature,
}

impl ScalarUDFImpl for ArrayOrder {
    fn name(&self) -> &str {
        "array_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [array] = take_function_args(self.name(), arguments.args)?;
        let constant = matches!(array, ColumnarValue::Scalar(_));
        let arrays = array.to_array(if constant { 1 } else { rows })?;
        let keys: ArrayRef = Arc::new(keys_of(&arrays)?);
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&keys, 0)?),
            false => ColumnarValue::Array(keys),
        })
    }
}

pub(super) fn keys_of(arrays: &ArrayRef) -> DataFusionResult<BinaryArray> {
    // A NULL that has no type is no array.
    if *arrays.data_type() == DataType::Null {
        return Ok(BinaryArray::new_null(arrays.len()));
    }
    let options = SortOptions { descending: false, nulls_first: false };
    let converter = RowConverter::new(vec![SortField::new_with_options(arrays.data_type().clone(), options)])?;
    let rows = converter.convert_columns(std::slice::from_ref(arrays))?;
    let mut keys = BinaryBuilder::with_capacity(arrays.len(), 0);
    for (place, row) in rows.iter().enumerate() {
        match arrays.is_valid(place) {
            true => keys.append_value(row),
            false => keys.append_null(),
        }
    }
    Ok(keys.finish())
}

#[cfg(test)]
mod tests {
    use arrow::array::ListArray;
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn nulls_are_greater_than_other_elements() {
        let of = |elements: Option<Vec<Option<i32>>>| {
            let array: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([elements]));
            let keys = keys_of(&array).unwrap();
            keys.is_valid(0).then(|| keys.value(0).to_vec())
        };
        let ordered = [
            vec![],
            vec![Some(-1), None],
            vec![Some(1)],
            vec![Some(1), Some(2)],
            vec![Some(1), Some(2), Some(3)],
            vec![Some(1), None],
            vec![Some(2)],
            vec![None],
            vec![None, Some(1)],
            vec![None, None],
        ];
        let keys: Vec<_> = ordered.into_iter().map(|elements| of(Some(elements)).unwrap()).collect();
        assert!(keys.is_sorted());
        assert_eq!(of(None), None);
    }
}
