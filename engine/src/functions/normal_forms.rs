//! Normal forms of Unicode's texts: `normalize(text [, form])`, and `is_normalized(text [, form])`, which is what
//! `text IS NORMALIZED` calls ([`crate::sql::tree::normal_forms`]).
//!
//! | form | letters and their marks are | `ﬁ` and the like are |
//! |---|---|---|
//! | `NFC`, where none is given | one character where there is one | themselves |
//! | `NFD` | apart | themselves |
//! | `NFKC` | one character where there is one | what they stand for |
//! | `NFKD` | apart | what they stand for |

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

use super::by_rows::{ByRows, text, text_of, texts};
use crate::error::sqlstate;
use crate::{Error, Result};

/// What `IS NORMALIZED` is rewritten with.
pub(crate) const IS_NORMALIZED: &str = "is_normalized";

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    fn of_text(
        name: &'static str,
        gives: fn(&[DataType]) -> DataType,
        compute: fn(&[ScalarValue]) -> Result<ScalarValue>,
    ) -> ByRows {
        let takes = |types: &[DataType]| texts(types).filter(|types| (1..=2).contains(&types.len()));
        ByRows { name, volatility: Volatility::Immutable, strict: true, takes, gives, compute }
    }
    let functions =
        [of_text("normalize", |_| DataType::Utf8View, normalize), of_text(IS_NORMALIZED, |_| DataType::Boolean, check)];
    functions.into_iter().map(ByRows::function).collect()
}

enum Form {
    Composed(ComposingNormalizerBorrowed<'static>),
    Decomposed(DecomposingNormalizerBorrowed<'static>),
}

fn form_of(values: &[ScalarValue]) -> Result<Form> {
    let name = match values.get(1) {
        Some(name) => text_of(name)?,
        None => "NFC",
    };
    Ok(match name.to_ascii_uppercase().as_str() {
        "NFC" => Form::Composed(ComposingNormalizerBorrowed::new_nfc()),
        "NFKC" => Form::Composed(ComposingNormalizerBorrowed::new_nfkc()),
        "NFD" => Form::Decomposed(DecomposingNormalizerBorrowed::new_nfd()),
        "NFKD" => Form::Decomposed(DecomposingNormalizerBorrowed::new_nfkd()),
        _ => {
            let message = format!("invalid normalization form: {name}");
            return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message)
                .with_hint("The forms are NFC, NFD, NFKC and NFKD."));
        }
    })
}

fn normalize(values: &[ScalarValue]) -> Result<ScalarValue> {
    let value = text_of(&values[0])?;
    Ok(text(match form_of(values)? {
        Form::Composed(form) => form.normalize(value),
        Form::Decomposed(form) => form.normalize(value),
    }))
}

fn check(values: &[ScalarValue]) -> Result<ScalarValue> {
    let value = text_of(&values[0])?;
    Ok(ScalarValue::Boolean(Some(match form_of(values)? {
        Form::Composed(form) => form.is_normalized(value),
        Form::Decomposed(form) => form.is_normalized(value),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_four_forms() {
        let apart = "a\u{308}\u{fb01}";
        for (form, expected) in
            [("NFC", "\u{e4}\u{fb01}"), ("nfd", "a\u{308}\u{fb01}"), ("NFKC", "\u{e4}fi"), ("NFKD", "a\u{308}fi")]
        {
            let values = [text(apart), text(form)];
            assert_eq!(normalize(&values).unwrap(), text(expected), "{form}");
            assert_eq!(check(&values).unwrap(), ScalarValue::Boolean(Some(apart == expected)), "{form}");
        }
        assert_eq!(check(&[text("abc")]).unwrap(), ScalarValue::Boolean(Some(true)));
        assert_eq!(normalize(&[text("a"), text("NFX")]).unwrap_err().sqlstate(), "22023");
    }
}
