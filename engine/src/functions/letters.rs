//! Booleans as `concat` shows them: a letter, where a cast to text gives a word.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::by_columns::{ByColumns, Nulls};
use crate::{Error, Result};

static LETTER: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let letter = ByColumns {
        name: "boolean_letter",
        takes: |types| (types.len() == 1).then(|| vec![DataType::Boolean]),
        gives: |_| DataType::Utf8,
        nulls: Nulls::IfAnArgumentIs,
        compute: letters,
    };
    letter.function()
});

/// `t` or `f`
pub(crate) fn letter_of(boolean: Expr) -> Expr {
    LETTER.call(vec![boolean])
}

fn letters(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [booleans] = columns else { return Err(Error::internal("one argument was expected")) };
    let letter = |value: bool| if value { "t" } else { "f" };
    let letters: StringArray = booleans.as_boolean().iter().map(|value| value.map(letter)).collect();
    Ok(Arc::new(letters))
}

#[cfg(test)]
mod tests {
    use arrow::array::BooleanArray;

    use super::*;

    #[test]
    fn booleans_are_letters() {
        let booleans: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]));
        let expected = StringArray::from(vec![Some("t"), Some("f"), None]);
        assert_eq!(letters(&[booleans]).unwrap().as_string::<i32>(), &expected);
    }
}
