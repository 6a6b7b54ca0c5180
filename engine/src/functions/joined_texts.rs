//! `string_agg(x, ',') OVER w`, which DataFusion has not: the texts of `array_agg(x) OVER w`, joined. NULLs are passed over, and
//! of none it is NULL, where `array_to_string` gives an empty text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;

use super::by_columns::{ByColumns, Nulls};
use super::by_rows::is_text;
use super::several::list_of;
use crate::{Error, Result};

/// The function: an array and a separator.
pub(crate) const JOINED_TEXTS: &str = "joined_texts";

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let joined = ByColumns {
        name: JOINED_TEXTS,
        takes: |types| match types {
            [DataType::List(element), separator] if is_text(element.data_type()) && is_text(separator) => {
                Some(vec![list_of(DataType::Utf8View), DataType::Utf8View])
            }
            _ => None,
        },
        gives: |_| DataType::Utf8View,
        nulls: Nulls::Anywhere,
        compute: join,
    };
    vec![joined.function()]
}

fn join(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [arrays, separators] = columns else { return Err(Error::internal("two arguments were expected")) };
    let (arrays, separators) = (arrays.as_list::<i32>(), separators.as_string_view());
    let mut builder = StringViewBuilder::with_capacity(arrays.len());
    for (array, separator) in arrays.iter().zip(separators) {
        let texts = array.as_ref().map(|array| array.as_string_view());
        let present: Vec<&str> = texts.into_iter().flatten().flatten().collect();
        match present.is_empty() {
            true => builder.append_null(),
            false => builder.append_value(present.join(separator.unwrap_or_default())),
        }
    }
    Ok(Arc::new(builder.finish()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListBuilder, StringViewArray};

    use super::*;

    #[test]
    fn nulls_are_passed_over_and_of_none_it_is_null() {
        let mut arrays = ListBuilder::new(StringViewBuilder::new());
        arrays.append_value([Some("a"), None, Some("")]);
        arrays.append_value([None::<&str>]);
        arrays.append_null();
        let separators: ArrayRef = Arc::new(StringViewArray::from(vec![", "; 3]));
        let joined = join(&[Arc::new(arrays.finish()), separators]).unwrap();
        let expected = StringViewArray::from(vec![Some("a, "), None, None]);
        assert_eq!(joined.as_string_view(), &expected);
    }
}
