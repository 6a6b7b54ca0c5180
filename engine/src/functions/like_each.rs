//! `x LIKE ANY (ARRAY['a%', 'b%'])` and its like, where `x` is computed once.
//!
//! Of a column it is planned as `x LIKE 'a%' OR x LIKE 'b%'`, which scans can use ([`crate::sql::tree::like_lists`]). All else
//! is an argument of a function, which there is for each of the forms.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Scalar};
use arrow::compute::{and_kleene, cast, ilike, like, nilike, nlike, or_kleene};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::by_rows::is_text;
use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// What is asked of a text and of several patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LikeEach {
    /// Whether one of the patterns is enough, or all are needed.
    pub(crate) any: bool,
    pub(crate) negated: bool,
    /// ILIKE, to which case does not matter.
    pub(crate) in_any_case: bool,
}

impl LikeEach {
    /// The name of the function.
    pub(crate) fn name(self) -> &'static str {
        match (self.in_any_case, self.negated, self.any) {
            (false, false, true) => "like_any",
            (false, false, false) => "like_all",
            (false, true, true) => "not_like_any",
            (false, true, false) => "not_like_all",
            (true, false, true) => "ilike_any",
            (true, false, false) => "ilike_all",
            (true, true, true) => "not_ilike_any",
            (true, true, false) => "not_ilike_all",
        }
    }

    fn matches(self, text: &ArrayRef, pattern: &ColumnarValue) -> Result<BooleanArray> {
        let matches = match (self.in_any_case, self.negated) {
            (false, false) => like,
            (false, true) => nlike,
            (true, false) => ilike,
            (true, true) => nilike,
        };
        let as_text = |pattern: &ArrayRef| cast(pattern, &DataType::Utf8View);
        Ok(match pattern {
            ColumnarValue::Array(patterns) => matches(text, &as_text(patterns)?)?,
            ColumnarValue::Scalar(pattern) => matches(text, &Scalar::new(as_text(&pattern.to_array()?)?))?,
        })
    }
}

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions = Vec::with_capacity(8);
    for any in [false, true] {
        for negated in [false, true] {
            for in_any_case in [false, true] {
                let of = LikeEach { any, negated, in_any_case };
                let signature = Signature::user_defined(Volatility::Immutable);
                functions.push(Arc::new(ScalarUDF::from(Function { of, signature })));
            }
        }
    }
    functions
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    of: LikeEach,
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.of.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, argument_types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        if argument_types.len() > 1 && argument_types.iter().all(is_text) {
            return Ok(vec![DataType::Utf8View; argument_types.len()]);
        }
        let text = argument_types.first().map(name_of).unwrap_or_default();
        let pattern =
            argument_types.iter().skip(1).find(|pattern| !is_text(pattern)).map_or_else(|| "text".to_owned(), name_of);
        let operator = if self.of.in_any_case { "~~*" } else { "~~" };
        let message = format!("operator does not exist: {text} {operator} {pattern}");
        Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message)
            .with_hint("LIKE ANY and LIKE ALL compare texts. A cast may help, or a comparison with each pattern.")
            .into())
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let Some((text, patterns)) = arguments.args.split_first() else {
            return Err(Error::internal("a text and patterns were expected").into());
        };
        let text = cast(&text.to_array(rows)?, &DataType::Utf8View)?;
        let mut found = BooleanArray::from(vec![!self.of.any; rows]);
        for pattern in patterns {
            let matches = self.of.matches(&text, pattern)?;
            found = if self.of.any { or_kleene(&found, &matches)? } else { and_kleene(&found, &matches)? };
        }
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?),
            false => ColumnarValue::Array(Arc::new(found)),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;

    use super::*;

    #[test]
    fn each_form_has_a_function_of_its_own() {
        let mut names: Vec<String> = functions().iter().map(|function| function.name().to_owned()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8);
    }

    #[test]
    fn patterns_are_constants_or_columns() {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec![Some("Ab"), Some("b"), None]));
        let of = LikeEach { any: true, negated: false, in_any_case: true };
        let constant = ColumnarValue::Scalar(ScalarValue::Utf8(Some("a%".to_owned())));
        let expected = BooleanArray::from(vec![Some(true), Some(false), None]);
        assert_eq!(of.matches(&text, &constant).unwrap(), expected);
        let columns: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a%"), None, Some("%")]));
        let of = LikeEach { in_any_case: false, negated: true, ..of };
        let expected = BooleanArray::from(vec![Some(true), None, None]);
        assert_eq!(of.matches(&text, &ColumnarValue::Array(columns)).unwrap(), expected);
    }
}
