//! Functions that count the elements of an array, or their places: `cardinality`, `array_length`, `array_position`.
//!
//! DataFusion's give an unsigned integer of 64 bits, a type that PostgreSQL does not have. What takes their result is looked for
//! while a query is planned, before any rule, and for `array_remove(a, cardinality(a))` of integers nothing was found. So they
//! give an integer from the first.

use arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl};

use super::changed::Change;

/// As an integer, but of a constant NULL, which is an array of no type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AsInteger;

impl Change for AsInteger {
    fn return_type(&self, types: &[DataType]) -> Option<DataType> {
        types.first().is_some_and(|array| !array.is_null()).then_some(DataType::Int32)
    }

    fn invoke(&self, inner: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let wanted = arguments.return_field.data_type().clone();
        inner.invoke_with_args(arguments)?.cast_to(&wanted, None)
    }
}
