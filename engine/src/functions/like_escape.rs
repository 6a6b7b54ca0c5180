//! `like_escape(pattern, escape)`: a LIKE pattern with another escape character as one with backslashes.
//!
//! `x LIKE pattern ESCAPE e` is planned as `x LIKE like_escape(pattern, e)`, as PostgreSQL does it: operators know the
//! backslash only. An empty escape means that there is none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::error::sqlstate;
use crate::{Error, Result};

/// The function's name.
pub(crate) const LIKE_ESCAPE: &str = "like_escape";

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct LikeEscape {
    signature: Signature,
}

impl LikeEscape {
    pub(super) fn new() -> Self {
        LikeEscape { signature: Signature::string(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for LikeEscape {
    fn name(&self) -> &str {
        LIKE_ESCAPE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let is_constant = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let texts = arrays.iter().map(|array| cast(array, &DataType::Utf8View)).collect::<Result<Vec<_>, _>>()?;
        let (patterns, escapes) = (texts[0].as_string_view(), texts[1].as_string_view());
        let mut escaped = StringViewBuilder::with_capacity(patterns.len());
        for row in 0..patterns.len() {
            match patterns.is_null(row) || escapes.is_null(row) {
                true => escaped.append_null(),
                false => escaped.append_value(with_backslashes(patterns.value(row), escapes.value(row))?),
            }
        }
        let escaped: ArrayRef = Arc::new(escaped.finish());
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&escaped, 0)?),
            false => ColumnarValue::Array(escaped),
        })
    }
}

fn with_backslashes(pattern: &str, escape: &str) -> Result<String> {
    let mut letters = escape.chars();
    let escape = letters.next();
    if letters.next().is_some() {
        return Err(Error::new(sqlstate::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
            .with_hint("Escape string must be empty or one character."));
    }
    let mut result = String::with_capacity(pattern.len());
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        let is_escape = Some(letter) == escape;
        let meant = match is_escape {
            false => letter,
            true => letters.next().ok_or_else(|| {
                Error::new(sqlstate::INVALID_ESCAPE_SEQUENCE, "LIKE pattern must not end with escape character")
            })?,
        };
        if meant == '\\' || (is_escape && matches!(meant, '%' | '_')) {
            result.push('\\');
        }
        result.push(meant);
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_escape_becomes_a_backslash() {
        for (pattern, escape, expected) in [
            ("50!%%", "!", "50\\%%"),
            ("a!_b_!!", "!", "a\\_b_!"),
            ("a\\%", "!", "a\\\\%"),
            ("a\\%", "\\", "a\\%"),
            ("a\\\\", "\\", "a\\\\"),
            ("a\\%", "", "a\\\\%"),
            ("x%x%%", "%", "xx\\%"),
            ("éé%", "é", "é%"),
        ] {
            assert_eq!(with_backslashes(pattern, escape).unwrap_or_default(), expected, "{pattern} ESCAPE {escape}");
        }
        for (pattern, escape) in [("a!", "!"), ("a", "!!")] {
            assert_eq!(with_backslashes(pattern, escape).unwrap_err().sqlstate(), "22025");
        }
    }
}
