//! `date_part(field, x)`: double precision, as in PostgreSQL. DataFusion's is an integer for most fields, so that
//! `date_part('month', d) / 2` would divide integers.
//!
//! In a plan, a call of it becomes a cast of DataFusion's own ([`crate::sql::mixed_types`]), whose years the optimiser knows
//! to look for. `extract` is made of that as well ([`crate::sql::extract`]), and is a numeric.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

/// Whether it is this function, and not DataFusion's own.
pub(crate) fn is_double(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<DatePart>().is_some()
}

/// DataFusion's function, as a double precision.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DatePart {
    pub(super) inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DatePart {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.inner().aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        self.inner.inner().invoke_with_args(arguments)?.cast_to(&DataType::Float64, None)
    }
}
