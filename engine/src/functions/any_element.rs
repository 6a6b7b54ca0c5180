//! `x = ANY (array)`: unknown where no element is equal and one of them is NULL, as in PostgreSQL.
//!
//! DataFusion plans it as `array_has(array, x)`, which is false then. Of a constant array it makes an IN list, which knows
//! unknown, and so does this function.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_nested::array_has::ArrayHas;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

static ANY_ELEMENT: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(AnyElement { inner: ArrayHas::new() })));

/// Whether an element of an array, the first argument, is equal to the second.
pub(crate) fn any_element(arguments: Vec<Expr>) -> Expr {
    ANY_ELEMENT.call(arguments)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AnyElement {
    inner: ArrayHas,
}

impl ScalarUDFImpl for AnyElement {
    fn name(&self) -> &str {
        "any_element"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> DataFusionResult<ExprSimplifyResult> {
        self.inner.simplify(arguments, context)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let arrays = arguments.args.first().map(|array| array.to_array(rows)).transpose()?;
        let found = self.inner.invoke_with_args(arguments)?;
        let Some(arrays) = arrays.as_ref().and_then(|arrays| arrays.as_list_opt::<i32>()) else { return Ok(found) };
        let known: ArrayRef = Arc::new(known(found.to_array(rows)?.as_boolean(), arrays));
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&known, 0)?),
            false => ColumnarValue::Array(known),
        })
    }
}

/// What is known where an element was found, or none, or where the value that is looked for is NULL.
fn known(found: &BooleanArray, arrays: &ListArray) -> BooleanArray {
    let element_nulls = arrays.values().logical_nulls().filter(|nulls| nulls.null_count() > 0);
    if element_nulls.is_none() && found.null_count() == 0 {
        return found.clone();
    }
    let offsets = arrays.value_offsets();
    let in_row = |row: usize| {
        let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        let has_null = || element_nulls.as_ref().is_some_and(|nulls| (start..end).any(|place| nulls.is_null(place)));
        match found.is_valid(row) {
            _ if arrays.is_null(row) => None,
            // Nothing is equal to any element of none.
            _ if start == end => Some(false),
            true if found.value(row) => Some(true),
            true if !has_null() => Some(false),
            _ => None,
        }
    };
    (0..arrays.len()).map(in_row).collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn a_null_among_the_elements_makes_it_unknown() {
        let arrays = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            Some(vec![Some(2), None]),
            Some(vec![Some(2)]),
            Some(vec![]),
            Some(vec![Some(1)]),
            None,
        ]);
        let found = BooleanArray::from(vec![Some(true), Some(false), Some(false), None, None, None]);
        let expected = BooleanArray::from(vec![Some(true), None, Some(false), Some(false), None, None]);
        assert_eq!(known(&found, &arrays), expected);
    }
}
