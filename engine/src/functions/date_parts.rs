//! `date_part(field, x)`: double precision, as in PostgreSQL. DataFusion's is an integer for most fields, so that
//! `date_part('month', d) / 2` would divide integers.
//!
//! In a plan, a call of it becomes a cast of DataFusion's own ([`crate::sql::rules::mixed_types`]), whose years the optimiser knows
//! to look for. `extract` is made of that as well ([`crate::sql::tree::extract`]), and is a numeric.

use arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};

use super::changed::{Change, is_changed};

/// Whether it is this function, and not DataFusion's own.
pub(crate) fn is_double(function: &ScalarUDF) -> bool {
    is_changed::<DatePart>(function)
}

/// As a double precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DatePart;

impl Change for DatePart {
    fn return_type(&self, _types: &[DataType]) -> Option<DataType> {
        Some(DataType::Float64)
    }

    fn invoke(&self, inner: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        inner.invoke_with_args(arguments)?.cast_to(&DataType::Float64, None)
    }
}
