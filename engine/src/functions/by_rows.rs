//! Functions that are computed row by row: for those of which a query calls few.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// A function of one row's arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByRows {
    pub(super) name: &'static str,
    pub(super) volatility: Volatility,
    /// Whether it is NULL if one of the arguments is.
    pub(super) strict: bool,
    /// The types that arguments of these types are cast to, or `None`: there is no such function.
    pub(super) takes: fn(&[DataType]) -> Option<Vec<DataType>>,
    /// The type of the result, from those that it takes.
    pub(super) gives: fn(&[DataType]) -> DataType,
    pub(super) compute: fn(&[ScalarValue]) -> Result<ScalarValue>,
}

impl ByRows {
    pub(super) fn function(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Function { signature: Signature::user_defined(self.volatility), of: self }))
    }
}

#[derive(Debug)]
struct Function {
    of: ByRows,
    signature: Signature,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.of.name == other.of.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.of.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.of.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, argument_types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        (self.of.takes)(argument_types).ok_or_else(|| {
            let types: Vec<String> = argument_types.iter().map(name_of).collect();
            let message = format!("function {}({}) does not exist", self.of.name, types.join(", "));
            Error::new(sqlstate::UNDEFINED_FUNCTION, message)
                .with_hint("There is a function of that name, but not for these arguments. A cast may help.")
                .into()
        })
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok((self.of.gives)(argument_types))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = self.of.volatility != Volatility::Volatile
            && arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let columns = arguments.args.iter().map(|argument| argument.to_array(rows));
        let columns = columns.collect::<DataFusionResult<Vec<ArrayRef>>>()?;
        let wanted = arguments.return_field.data_type();
        let null = ScalarValue::try_from(wanted)?;
        let mut results = Vec::with_capacity(rows);
        for row in 0..rows {
            let values = columns.iter().map(|column| ScalarValue::try_from_array(column, row));
            let values = values.collect::<DataFusionResult<Vec<_>>>()?;
            let is_null = self.of.strict && values.iter().any(ScalarValue::is_null);
            results.push(if is_null { null.clone() } else { (self.of.compute)(&values)? });
        }
        let results = match results.is_empty() {
            true => new_null_array(wanted, 0),
            false => cast(&ScalarValue::iter_to_array(results)?, wanted)?,
        };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&results, 0)?)),
            false => Ok(ColumnarValue::Array(results)),
        }
    }
}

/// The text of an argument.
pub(super) fn text_of(value: &ScalarValue) -> Result<&str> {
    value.try_as_str().flatten().ok_or_else(|| Error::internal("a text was expected"))
}

/// A text as a result.
pub(super) fn text(text: impl Into<String>) -> ScalarValue {
    ScalarValue::Utf8View(Some(text.into()))
}

/// A whole number of an argument that was cast to bigint.
pub(super) fn integer_of(value: &ScalarValue) -> Result<i64> {
    match value {
        ScalarValue::Int64(Some(number)) => Ok(*number),
        _ => Err(Error::internal("a bigint was expected")),
    }
}

/// A number of an argument that was cast to double precision.
pub(super) fn float_of(value: &ScalarValue) -> Result<f64> {
    match value {
        ScalarValue::Float64(Some(number)) => Ok(*number),
        _ => Err(Error::internal("a double was expected")),
    }
}

/// Whether a type is text, or a NULL's, which is any.
pub(super) fn is_text(data_type: &DataType) -> bool {
    data_type.is_string() || data_type.is_null()
}

/// The types that text arguments are cast to.
pub(super) fn texts(types: &[DataType]) -> Option<Vec<DataType>> {
    types.iter().all(is_text).then(|| vec![DataType::Utf8View; types.len()])
}
