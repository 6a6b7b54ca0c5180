//! Texts that are written as they are in a statement: identifiers taken apart, escapes of Unicode characters.
//!
//! | function | what it gives |
//! |---|---|
//! | `parse_ident(name [, strict])` | the parts of a qualified name; with `false` whatever follows it is left out |
//! | `unistr(text)` | the text with `\XXXX`, `\+XXXXXX`, `\uXXXX` and `\UXXXXXXXX` replaced by characters |

use std::sync::Arc;

use arrow::array::{ListBuilder, StringViewBuilder};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::{ByRows, is_text, text, text_of};
use super::several::list_of;
use crate::error::sqlstate;
use crate::{Error, Result};

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let strict = |name, takes, gives, compute| ByRows {
        name,
        volatility: Volatility::Immutable,
        strict: true,
        takes,
        gives,
        compute,
    };
    [
        strict("parse_ident", name_and_boolean, |_| list_of(DataType::Utf8View), parse_ident),
        strict("unistr", one_text, |_| DataType::Utf8View, unistr),
    ]
    .into_iter()
    .map(ByRows::function)
    .collect()
}

fn name_and_boolean(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [name] if is_text(name) => Some(vec![DataType::Utf8View]),
        [name, DataType::Boolean | DataType::Null] if is_text(name) => {
            Some(vec![DataType::Utf8View, DataType::Boolean])
        }
        _ => None,
    }
}

fn one_text(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [value] if is_text(value) => Some(vec![DataType::Utf8View]),
        _ => None,
    }
}

fn parse_ident(values: &[ScalarValue]) -> Result<ScalarValue> {
    let strict = !matches!(values.get(1), Some(ScalarValue::Boolean(Some(false))));
    let parts = parts_of(text_of(&values[0])?, strict)?;
    let mut builder = ListBuilder::new(StringViewBuilder::new());
    builder.append_value(parts.iter().map(|part| Some(part.as_str())));
    Ok(ScalarValue::List(Arc::new(builder.finish())))
}

/// The parts of a name, those without quotes in lower case.
fn parts_of(name: &str, strict: bool) -> Result<Vec<String>> {
    let wrong = |detail: &str| {
        let error =
            Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("string is not a valid identifier: \"{name}\""));
        if detail.is_empty() { error } else { error.with_detail(detail) }
    };
    let without_blanks =
        |text: &str| -> usize { text.len() - text.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']).len() };
    let mut parts = Vec::new();
    let mut rest = &name[without_blanks(name)..];
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (part, behind) = quoted_part(quoted).ok_or_else(|| wrong("String has unclosed double quotes."))?;
            if part.is_empty() {
                return Err(wrong("Quoted identifier must not be empty."));
            }
            parts.push(part);
            rest = behind;
        } else if rest.starts_with(begins_name) {
            let end = rest.find(|letter: char| !continues_name(letter)).unwrap_or(rest.len());
            parts.push(rest[..end].to_ascii_lowercase());
            rest = &rest[end..];
        } else {
            return Err(match (rest.starts_with('.'), parts.is_empty()) {
                (true, _) => wrong("No valid identifier before \".\"."),
                (false, false) => wrong("No valid identifier after \".\"."),
                (false, true) => wrong(""),
            });
        }
        rest = &rest[without_blanks(rest)..];
        match rest.strip_prefix('.') {
            Some(behind) => rest = &behind[without_blanks(behind)..],
            None if rest.is_empty() || !strict => return Ok(parts),
            None => return Err(wrong("")),
        }
    }
}

/// What is before the closing quote, doubled ones being one, and what is behind it.
fn quoted_part(quoted: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut letters = quoted.chars();
    loop {
        match letters.next()? {
            '"' => match letters.as_str().strip_prefix('"') {
                Some(behind) => {
                    part.push('"');
                    letters = behind.chars();
                }
                None => return Some((part, letters.as_str())),
            },
            letter => part.push(letter),
        }
    }
}

fn begins_name(letter: char) -> bool {
    letter == '_' || letter.is_ascii_alphabetic() || !letter.is_ascii()
}

fn continues_name(letter: char) -> bool {
    begins_name(letter) || letter.is_ascii_digit() || letter == '$'
}

fn unistr(values: &[ScalarValue]) -> Result<ScalarValue> {
    unescaped(text_of(&values[0])?).map(text)
}

fn unescaped(written: &str) -> Result<String> {
    let wrong_pair = || Error::new(sqlstate::SYNTAX, "invalid Unicode surrogate pair");
    let mut out = String::with_capacity(written.len());
    // The first half of a character that is written in UTF-16.
    let mut half: Option<u32> = None;
    let mut rest = written;
    while let Some(letter) = rest.chars().next() {
        if letter != '\\' || rest.starts_with("\\\\") {
            if half.is_some() {
                return Err(wrong_pair());
            }
            out.push(letter);
            rest = &rest[if letter == '\\' { 2 } else { letter.len_utf8() }..];
            continue;
        }
        let (code, length) = escape(rest).ok_or_else(|| {
            Error::new(sqlstate::SYNTAX, "invalid Unicode escape")
                .with_hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.")
        })?;
        rest = &rest[length..];
        if code == 0 || code > 0x0010_ffff {
            let message = format!("invalid Unicode code point: {code:04X}");
            return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
        }
        let code = match (half.take(), code) {
            (None, first @ 0xd800..=0xdbff) => {
                half = Some(first);
                continue;
            }
            (Some(first), second @ 0xdc00..=0xdfff) => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
            (None, code) => code,
            (Some(_), _) => return Err(wrong_pair()),
        };
        // A second half by itself is none.
        out.push(char::from_u32(code).ok_or_else(wrong_pair)?);
    }
    match half {
        Some(_) => Err(wrong_pair()),
        None => Ok(out),
    }
}

/// The code of the escape that a text begins with, and how long it is.
fn escape(text: &str) -> Option<(u32, usize)> {
    [("\\", 4), ("\\u", 4), ("\\+", 6), ("\\U", 8)].into_iter().find_map(|(prefix, length)| {
        let digits = text.strip_prefix(prefix)?.get(..length)?;
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)?;
        Some((code, prefix.len() + length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        for (name, strict, expected) in [
            ("\"SomeSchema\".someTable", true, Some("SomeSchema sometable")),
            ("  FOO . Bar ", true, Some("foo bar")),
            ("\"a\"\"b\".c$1", true, Some("a\"b c$1")),
            ("foo.bar()", false, Some("foo bar")),
            ("foo.bar()", true, None),
            ("foo.", true, None),
            ("", true, None),
            ("1a", true, None),
            ("\"\".c", true, None),
            ("\"a", true, None),
            ("é.x", true, Some("é x")),
        ] {
            let found = parts_of(name, strict).ok().map(|parts| parts.join(" "));
            assert_eq!(found.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn escapes_are_characters() {
        for (written, expected) in [
            ("d\\0061t\\+000061", Ok("data")),
            ("d\\u0061t\\U00000061", Ok("data")),
            ("a\\\\b", Ok("a\\b")),
            ("\\D83D\\DE00", Ok("😀")),
            ("\\D83D", Err("42601")),
            ("\\DE00", Err("42601")),
            ("\\D83Dx", Err("42601")),
            ("\\00", Err("42601")),
            ("\\0000", Err("22023")),
            ("\\+110000", Err("22023")),
        ] {
            let found = unescaped(written);
            assert_eq!(found.as_deref().map_err(Error::sqlstate), expected, "{written}");
        }
    }
}
