//! `chr` that refuses the numbers of no character, and 0, as PostgreSQL does: no text of its holds that character.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl};

use super::changed::Change;
use crate::error::sqlstate;
use crate::{Error, Result};

/// For characters only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Character;

impl Change for Character {
    fn invoke(&self, inner: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        for argument in &arguments.args {
            let constant = matches!(argument, ColumnarValue::Scalar(_));
            let numbers = argument.to_array(if constant { 1 } else { arguments.number_rows })?;
            let numbers = cast(&numbers, &DataType::Int64)?;
            numbers.as_primitive::<Int64Type>().iter().flatten().try_for_each(check)?;
        }
        inner.invoke_with_args(arguments)
    }
}

/// Fails unless the number is a character's.
fn check(number: i64) -> Result<()> {
    let is_character = || u32::try_from(number).is_ok_and(|number| char::from_u32(number).is_some());
    match number {
        0 => Err(Error::new(sqlstate::LIMIT_EXCEEDED, "null character not permitted")),
        ..0 => Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "character number must be positive")),
        _ if is_character() => Ok(()),
        _ => {
            let message = format!("requested character not valid for encoding: {number}");
            Err(Error::new(sqlstate::LIMIT_EXCEEDED, message))
        }
    }
}
