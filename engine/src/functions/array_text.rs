//! Arrays as text, in PostgreSQL's words, and the texts of their elements, which `array_to_string` puts together.
//!
//! | array | Arrow's cast | here |
//! |---|---|---|
//! | `ARRAY[1, NULL]` | `[1, ]` | `{1,NULL}` |
//! | `ARRAY[true]` | `[true]` | `{t}` |
//! | `ARRAY['a b', '']` | `[a b, ]` | `{"a b",""}` |
//! | `ARRAY[ARRAY[1], ARRAY[2]]` | `[[1], [2]]` | `{{1},{2}}` |
//! | `ARRAY[ROW(1, 2)]` | `[{c0: 1, c1: 2}]` | `{"(1,2)"}` |

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringViewArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::exec_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::printed::{print, prints};
use crate::Result;

/// The function that [`texts_in`] calls.
pub(crate) const TEXTS_IN: &str = "texts_in";

static TEXTS: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(TextsIn { signature: Signature::any(2, Volatility::Immutable) })));

/// An array with the texts of its elements in their place; times by the clock of a zone.
pub(crate) fn texts_in(array: Expr, zone: &str) -> Expr {
    TEXTS.call(vec![array, lit(zone)])
}

/// Whether the elements of an array have texts of their own here.
pub(crate) fn prints_elements(array: &DataType) -> bool {
    match array {
        DataType::List(element) => match element.data_type() {
            nested @ DataType::List(_) => prints_elements(nested),
            DataType::Boolean => true,
            element => prints(element),
        },
        _ => false,
    }
}

/// The texts of values of any type, a boolean being one letter.
pub(super) fn output_texts(values: &ArrayRef, zone: &str) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Utf8View => Arc::clone(values),
        DataType::Boolean => {
            let letter = |value: bool| if value { "t" } else { "f" };
            let letters: StringViewArray = values.as_boolean().iter().map(|value| value.map(letter)).collect();
            Arc::new(letters)
        }
        data_type if prints(data_type) => print(values, zone)?,
        _ => cast(&cast(values, &DataType::Utf8)?, &DataType::Utf8View)?,
    })
}

/// The texts of arrays.
pub(super) fn print_arrays(arrays: &ListArray, zone: &str) -> Result<StringViewArray> {
    let nested = arrays.value_type().is_list();
    let elements = output_texts(arrays.values(), zone)?;
    let elements = elements.as_string_view();
    let mut texts = StringViewBuilder::with_capacity(arrays.len());
    let mut text = String::new();
    for (row, bounds) in arrays.value_offsets().windows(2).enumerate() {
        if arrays.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        text.push('{');
        for place in bounds[0]..bounds[1] {
            if place > bounds[0] {
                text.push(',');
            }
            let place = place as usize;
            match elements.is_valid(place).then(|| elements.value(place)) {
                None => text.push_str("NULL"),
                Some(element) if nested || !needs_quotes(element) => text.push_str(element),
                Some(element) => write_quoted(&mut text, element),
            }
        }
        text.push('}');
        texts.append_value(&text);
    }
    Ok(texts.finish())
}

/// Whether an element would be read as something else.
fn needs_quotes(element: &str) -> bool {
    let special =
        |letter: char| matches!(letter, '"' | '\\' | '{' | '}' | ',' | ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    element.is_empty() || element.eq_ignore_ascii_case("null") || element.contains(special)
}

fn write_quoted(text: &mut String, element: &str) {
    text.push('"');
    for letter in element.chars() {
        if matches!(letter, '"' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
}

/// The same array of arrays, of texts.
fn texts_of_elements(values: &ArrayRef, zone: &str) -> Result<ArrayRef> {
    match values.data_type() {
        DataType::List(_) => {
            let arrays = values.as_list::<i32>();
            let texts = texts_of_elements(arrays.values(), zone)?;
            let element = Arc::new(Field::new_list_field(texts.data_type().clone(), true));
            Ok(Arc::new(ListArray::try_new(element, arrays.offsets().clone(), texts, arrays.nulls().cloned())?))
        }
        _ => output_texts(values, zone),
    }
}

fn with_texts(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(element) => {
            DataType::List(Arc::new(Field::new_list_field(with_texts(element.data_type()), true)))
        }
        _ => DataType::Utf8View,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextsIn {
    signature: Signature,
}

impl ScalarUDFImpl for TextsIn {
    fn name(&self) -> &str {
        TEXTS_IN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            [array, _] => Ok(with_texts(array)),
            _ => exec_err!("{TEXTS_IN} takes 2 arguments"),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [arrays, ColumnarValue::Scalar(zone)] = arguments.args.as_slice() else {
            return exec_err!("{TEXTS_IN} takes an array and the name of a time zone");
        };
        let zone = zone.try_as_str().flatten().unwrap_or("UTC");
        let arrays = arrays.to_array(arguments.number_rows)?;
        Ok(ColumnarValue::Array(texts_of_elements(&arrays, zone)?))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, ListBuilder, StringBuilder};

    use super::*;

    #[test]
    fn elements_are_quoted_where_they_must() {
        let mut builder = ListBuilder::new(StringBuilder::new());
        let elements = [Some("a"), None, Some(""), Some("null"), Some("a b"), Some("x\"y"), Some("p\\q"), Some("{")];
        builder.append_value(elements);
        builder.append(false);
        builder.append(true);
        let texts = print_arrays(&builder.finish(), "UTC").unwrap();
        let expected = r#"{a,NULL,"","null","a b","x\"y","p\\q","{"}"#;
        assert_eq!(texts.iter().collect::<Vec<_>>(), [Some(expected), None, Some("{}")]);
    }

    #[test]
    fn booleans_are_letters() {
        let values: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]));
        let texts = output_texts(&values, "UTC").unwrap();
        assert_eq!(texts.as_string_view().iter().collect::<Vec<_>>(), [Some("t"), None, Some("f")]);
    }
}
