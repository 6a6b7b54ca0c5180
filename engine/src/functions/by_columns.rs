//! Functions that are computed column by column. Those of which a query calls few are shorter [by rows](super::by_rows).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// A function of columns of the same length, whose result depends on nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByColumns {
    pub(crate) name: &'static str,
    /// The types that arguments of these types are cast to, or `None`: there is no such function.
    pub(crate) takes: fn(&[DataType]) -> Option<Vec<DataType>>,
    /// The type of the result, from those that it takes.
    pub(crate) gives: fn(&[DataType]) -> DataType,
    pub(crate) nulls: Nulls,
    pub(crate) compute: fn(&[ArrayRef]) -> Result<ArrayRef>,
}

/// Where a result may be NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    Anywhere,
    IfAnArgumentIs,
    IfAllArgumentsAre,
}

impl ByColumns {
    pub(crate) fn function(self) -> Arc<ScalarUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Function { of: self, signature }))
    }
}

#[derive(Debug)]
struct Function {
    of: ByColumns,
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

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let mut nullable = arguments.arg_fields.iter().map(|field| field.is_nullable());
        let nullable = match self.of.nulls {
            Nulls::Anywhere => true,
            Nulls::IfAnArgumentIs => nullable.any(|nullable| nullable),
            Nulls::IfAllArgumentsAre => nullable.all(|nullable| nullable),
        };
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let types: Vec<DataType> = arguments.args.iter().map(ColumnarValue::data_type).collect();
        // Not all plans have had their arguments cast.
        let wanted = self.coerce_types(&types)?;
        let columns = arguments.args.iter().zip(&wanted).map(|(argument, wanted)| -> DataFusionResult<ArrayRef> {
            let column = argument.to_array(rows)?;
            Ok(if column.data_type() == wanted { column } else { cast(&column, wanted)? })
        });
        let columns = columns.collect::<DataFusionResult<Vec<ArrayRef>>>()?;
        let result = (self.of.compute)(&columns)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}
