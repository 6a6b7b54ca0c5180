//! `coalesce` that computes an argument for those rows only for which those before it are NULL.
//!
//! DataFusion's optimiser writes a CASE, which does so but computes each argument twice. Of arguments that must be computed once
//! it is [a function](crate::functions::coalesce), which is given all of them for all rows: of `coalesce(a + random(), 1 / b)`
//! the division would fail where nobody asks for it. So this takes the function's place.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, is_not_null, is_null};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::functions::coalesce::is_first_known;

/// The call of the function, computed argument by argument.
#[derive(Debug, Clone)]
pub(crate) struct LazyCoalesce {
    call: Arc<dyn PhysicalExpr>,
}

impl PartialEq for LazyCoalesce {
    fn eq(&self, other: &Self) -> bool {
        self.call.eq(&other.call)
    }
}

impl Eq for LazyCoalesce {}

impl Hash for LazyCoalesce {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.call.hash(state);
    }
}

impl LazyCoalesce {
    /// In the place of an expression that is such a call.
    pub(super) fn of(expr: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        let function = expr.downcast_ref::<ScalarFunctionExpr>()?;
        is_first_known(function.fun()).then(|| LazyCoalesce { call: Arc::clone(expr) })
    }
}

impl fmt::Display for LazyCoalesce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}

impl PhysicalExpr for LazyCoalesce {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.call.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.call.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.call.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let mut arguments = self.call.children().into_iter();
        let Some(first) = arguments.next() else {
            return Err(DataFusionError::Internal("coalesce has no arguments".into()));
        };
        let mut known: ArrayRef = first.evaluate(batch)?.into_array(rows)?;
        for argument in arguments {
            if known.logical_null_count() == 0 {
                break;
            }
            let other = argument.evaluate_selection(batch, &is_null(&known)?)?.into_array(rows)?;
            let other = if other.data_type() == known.data_type() { other } else { cast(&other, known.data_type())? };
            known = zip(&is_not_null(&known)?, &known, &other)?;
        }
        Ok(ColumnarValue::Array(known))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.call.children()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(LazyCoalesce { call: Arc::clone(&self.call).with_new_children(children)? }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt_sql(f)
    }
}
