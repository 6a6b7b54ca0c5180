//! Functions of two numerics for which Arrow's operators have too few digits: what [quotients](super::numeric_division) and
//! [products](super::numeric_products) share.
//!
//! The type of the result is decided where a call is planned, which knows more than the types of the arguments, and the
//! third argument tells it: `f(left, right, a NULL of the type that is wanted)`. What comes may have another scale than it
//! was planned with, so the scales of each batch are looked at. Integers are numerics of scale 0.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::types::Decimal128Type;
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, exec_err, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::Result;

/// What is computed of two numerics, which are whole numbers without their points.
pub(in crate::sql) trait Operation: Debug + Eq + Hash + Send + Sync + 'static {
    const NAME: &'static str;

    /// By how many digits the point must be moved, from the scales of both and that of the result.
    fn shift(left: i16, right: i16, wanted: i16) -> Result<i16>;

    fn compute(left: i128, right: i128, shift: i16, precision: u8) -> Result<i128>;
}

/// The function of an operation.
pub(in crate::sql) fn function(operation: impl Operation) -> Arc<ScalarUDF> {
    Arc::new(OfPair { operation, signature: Signature::any(3, Volatility::Immutable) }.into())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfPair<O> {
    operation: O,
    signature: Signature,
}

impl<O: Operation> ScalarUDFImpl for OfPair<O> {
    fn name(&self) -> &str {
        O::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            [_, _, wanted] => Ok(wanted.clone()),
            _ => exec_err!("{} takes 3 arguments", O::NAME),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let [left, right, wanted] = take_function_args(self.name(), arguments.args)?;
        let DataType::Decimal128(precision, scale) = wanted.data_type() else {
            return exec_err!("{} makes numerics", O::NAME);
        };
        let (left, right) = (numbers(&left, rows)?, numbers(&right, rows)?);
        let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
        let shift = O::shift(left.scale().into(), right.scale().into(), scale.into())?;
        let mut results = Vec::with_capacity(rows);
        for row in 0..rows {
            results.push(match left.is_valid(row) && right.is_valid(row) {
                true => Some(O::compute(left.value(row), right.value(row), shift, precision)?),
                false => None,
            });
        }
        let results = Decimal128Array::from(results).with_precision_and_scale(precision, scale)?;
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&results, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(results))),
        }
    }
}

fn numbers(value: &ColumnarValue, rows: usize) -> DataFusionResult<ArrayRef> {
    let array = value.to_array(rows)?;
    match array.data_type() {
        DataType::Decimal128(..) => Ok(array),
        _ => Ok(cast(&array, &DataType::Decimal128(38, 0))?),
    }
}
