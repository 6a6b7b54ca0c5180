//! `x ~ ANY (array)`, `x LIKE ALL (array)` and their like, where the array is not written out in the query: a column, a parameter,
//! what a function returns. Of one that is, LIKE is [written out as well](crate::sql::tree::like_lists).
//!
//! | written | function |
//! |---|---|
//! | `x ~ ANY (a)`, `x ~* ALL (a)`, `x !~ ANY (a)` | `matches_any_of(x, a)`, `imatches_all_of(x, a)`, `not_matches_any_of(x, a)` |
//! | `x LIKE ANY (a)`, `x NOT ILIKE ALL (a)` | `like_any_of(x, a)`, `not_ilike_all_of(x, a)` |
//!
//! ANY is true if one of the patterns fits, else unknown if one is NULL, else false, as of no patterns; ALL the other way around.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, ListArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::common::utils::take_function_args;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::by_rows::is_text;
use super::pattern_syntax::ACROSS_LINES;
use super::regular::{Patterns, Texts};
use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// What is asked of a text and an array of patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MatchEach {
    /// Whether one of the patterns is enough, or all are needed.
    pub(crate) any: bool,
    pub(crate) negated: bool,
    pub(crate) in_any_case: bool,
    /// Whether they are regular expressions, and not patterns of LIKE.
    pub(crate) regular: bool,
}

impl MatchEach {
    /// The name of the function.
    pub(crate) fn name(self) -> &'static str {
        match (self.regular, self.in_any_case, self.negated, self.any) {
            (true, false, false, true) => "matches_any_of",
            (true, false, false, false) => "matches_all_of",
            (true, false, true, true) => "not_matches_any_of",
            (true, false, true, false) => "not_matches_all_of",
            (true, true, false, true) => "imatches_any_of",
            (true, true, false, false) => "imatches_all_of",
            (true, true, true, true) => "not_imatches_any_of",
            (true, true, true, false) => "not_imatches_all_of",
            (false, false, false, true) => "like_any_of",
            (false, false, false, false) => "like_all_of",
            (false, false, true, true) => "not_like_any_of",
            (false, false, true, false) => "not_like_all_of",
            (false, true, false, true) => "ilike_any_of",
            (false, true, false, false) => "ilike_all_of",
            (false, true, true, true) => "not_ilike_any_of",
            (false, true, true, false) => "not_ilike_all_of",
        }
    }

    fn operator(self) -> &'static str {
        match (self.regular, self.in_any_case, self.negated) {
            (true, false, false) => "~",
            (true, false, true) => "!~",
            (true, true, false) => "~*",
            (true, true, true) => "!~*",
            (false, false, false) => "~~",
            (false, false, true) => "!~~",
            (false, true, false) => "~~*",
            (false, true, true) => "!~~*",
        }
    }

    /// The result for each row. One text, or one array, is that of all rows.
    fn found(self, texts: &StringViewArray, arrays: &ListArray, rows: usize) -> Result<BooleanArray> {
        let place = |length: usize, row: usize| if length == 1 { 0 } else { row };
        let flags = if self.in_any_case { "i" } else { "" };
        let mut known = Patterns::new(&Texts::Each(texts), None);
        let mut results = BooleanBuilder::with_capacity(rows);
        for row in 0..rows {
            let (text, array) = (place(texts.len(), row), place(arrays.len(), row));
            if arrays.is_null(array) {
                results.append_null();
                continue;
            }
            let text = texts.is_valid(text).then(|| texts.value(text));
            let patterns = arrays.value(array);
            let (mut is_decided, mut is_unknown) = (false, false);
            for pattern in patterns.as_string_view() {
                let (Some(text), Some(pattern)) = (text, pattern) else {
                    is_unknown = true;
                    continue;
                };
                let fits = match self.regular {
                    true => known.compiled(pattern, flags)?.regex.is_match(text),
                    false => known.compiled(&as_regular(pattern)?, flags)?.regex.is_match(text),
                };
                if (fits != self.negated) == self.any {
                    is_decided = true;
                    break;
                }
            }
            results.append_option(match (is_decided, is_unknown) {
                (true, _) => Some(self.any),
                (false, true) => None,
                (false, false) => Some(!self.any),
            });
        }
        Ok(results.finish())
    }
}

/// A pattern of LIKE as a regular expression in the library's syntax.
fn as_regular(pattern: &str) -> Result<String> {
    let mut written = String::with_capacity(ACROSS_LINES.len() + pattern.len() + 8);
    written.push_str(ACROSS_LINES);
    written.push('^');
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        let meant = match letter {
            '%' => {
                written.push_str(".*");
                continue;
            }
            '_' => {
                written.push('.');
                continue;
            }
            '\\' => letters.next().ok_or_else(|| {
                Error::new(sqlstate::INVALID_ESCAPE_SEQUENCE, "LIKE pattern must not end with escape character")
            })?,
            letter => letter,
        };
        written.push_str(&regex::escape(meant.encode_utf8(&mut [0; 4])));
    }
    written.push('$');
    Ok(written)
}

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let each = |bits: u8| {
        let is_set = |bit: u8| bits & (1 << bit) != 0;
        let of = MatchEach { any: is_set(0), negated: is_set(1), in_any_case: is_set(2), regular: is_set(3) };
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Function { of, signature }))
    };
    (0..16).map(each).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    of: MatchEach,
    signature: Signature,
}

fn array_of_texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true)))
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.of.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, argument_types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let holds_texts = |array: &DataType| match array {
            DataType::List(element) => is_text(element.data_type()),
            other => other.is_null(),
        };
        match argument_types {
            [text, array] if is_text(text) && holds_texts(array) => Ok(vec![DataType::Utf8View, array_of_texts()]),
            types => {
                let types: Vec<String> = types.iter().map(name_of).collect();
                let operands = types.join(&format!(" {} ", self.of.operator()));
                let message = format!("operator does not exist: {operands}");
                Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message)
                    .with_hint("A text is compared with an array of texts. A cast may help.")
                    .into())
            }
        }
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let [text, array] = take_function_args(self.name(), arguments.args)?;
        let column = |value: ColumnarValue| match value {
            ColumnarValue::Array(column) => Ok(column),
            ColumnarValue::Scalar(value) => value.to_array(),
        };
        let texts = cast(&column(text)?, &DataType::Utf8View)?;
        let arrays = cast(&column(array)?, &array_of_texts())?;
        let found: ArrayRef = Arc::new(self.of.found(texts.as_string_view(), arrays.as_list::<i32>(), rows)?);
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?),
            false => ColumnarValue::Array(found),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListBuilder, StringViewBuilder};

    use super::*;

    #[test]
    fn each_form_has_a_function_of_its_own() {
        let mut names: Vec<String> = functions().iter().map(|function| function.name().to_owned()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 16);
    }

    #[test]
    fn patterns_are_those_of_the_row_or_of_all() {
        let texts = StringViewArray::from(vec![Some("ab"), Some("B"), None]);
        let mut arrays = ListBuilder::new(StringViewBuilder::new());
        arrays.append_value([Some("^a"), None]);
        arrays.append_value([Some("c"), None]);
        arrays.append_value(Vec::<Option<&str>>::new());
        let arrays = arrays.finish();
        let of = MatchEach { any: true, negated: false, in_any_case: false, regular: true };
        let expected = BooleanArray::from(vec![Some(true), None, Some(false)]);
        assert_eq!(of.found(&texts, &arrays, 3).unwrap(), expected);
        let one = arrays.slice(0, 1);
        let all = MatchEach { any: false, negated: true, ..of };
        let expected = BooleanArray::from(vec![Some(false), None, None]);
        assert_eq!(all.found(&texts, &one, 3).unwrap(), expected);
    }

    #[test]
    fn patterns_of_like_stand_for_themselves_but_for_two_letters() {
        assert_eq!(as_regular("a.%\\%_").unwrap(), format!("{ACROSS_LINES}^a\\..*%.$"));
        assert_eq!(as_regular("a\\").unwrap_err().sqlstate(), "22025");
    }
}
