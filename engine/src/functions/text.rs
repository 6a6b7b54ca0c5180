//! Functions of text that DataFusion lacks.
//!
//! | function | what it gives |
//! |---|---|
//! | `similar_to_escape(pattern [, escape])` | the POSIX expression of a pattern of SIMILAR TO |
//! | `quote_ident(text)` | an identifier, in quotes if it needs them |
//! | `quote_literal(text)`, `quote_nullable(text)` | a string constant |

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::pattern_syntax::{ACROSS_LINES, translated};
use crate::error::sqlstate;
use crate::{Error, Result};

/// What SIMILAR TO is rewritten with.
pub(crate) const SIMILAR_TO_ESCAPE: &str = "similar_to_escape";

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [Kind::SimilarTo, Kind::QuoteIdent, Kind::QuoteLiteral, Kind::QuoteNullable]
        .into_iter()
        .map(|kind| Arc::new(ScalarUDF::from(OfText::new(kind))))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    SimilarTo,
    QuoteIdent,
    QuoteLiteral,
    QuoteNullable,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfText {
    kind: Kind,
    signature: Signature,
}

impl OfText {
    fn new(kind: Kind) -> Self {
        let arguments = match kind {
            Kind::SimilarTo => TypeSignature::OneOf(vec![
                TypeSignature::Exact(vec![DataType::Utf8View]),
                TypeSignature::Exact(vec![DataType::Utf8View, DataType::Utf8View]),
            ]),
            Kind::QuoteIdent => TypeSignature::Exact(vec![DataType::Utf8View]),
            Kind::QuoteLiteral | Kind::QuoteNullable => TypeSignature::Any(1),
        };
        OfText { kind, signature: Signature::new(arguments, Volatility::Immutable) }
    }

    /// The result for one row.
    fn compute(&self, arguments: &[Option<&str>]) -> Result<Option<String>> {
        Ok(match (self.kind, arguments) {
            (Kind::QuoteNullable, [None]) => Some("NULL".to_owned()),
            (_, [None, ..] | [_, None]) => None,
            (Kind::SimilarTo, [Some(pattern)]) => Some(posix_of(pattern, Some('\\'))?),
            (Kind::SimilarTo, [Some(pattern), Some(escape)]) => {
                let mut letters = escape.chars();
                match (letters.next(), letters.next()) {
                    (escape, None) => Some(posix_of(pattern, escape)?),
                    _ => {
                        return Err(Error::new(sqlstate::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
                            .with_hint("Escape string must be empty or one character."));
                    }
                }
            }
            (Kind::QuoteIdent, [Some(name)]) => Some(quoted_identifier(name)),
            (Kind::QuoteLiteral | Kind::QuoteNullable, [Some(text)]) => Some(quoted_literal(text)),
            _ => return Err(Error::internal("a function of text has other arguments")),
        })
    }
}

impl ScalarUDFImpl for OfText {
    fn name(&self) -> &str {
        match self.kind {
            Kind::SimilarTo => SIMILAR_TO_ESCAPE,
            Kind::QuoteIdent => "quote_ident",
            Kind::QuoteLiteral => "quote_literal",
            Kind::QuoteNullable => "quote_nullable",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let mut texts = Vec::with_capacity(arguments.args.len());
        for argument in &arguments.args {
            texts.push(cast(&argument.to_array(rows)?, &DataType::Utf8View)?);
        }
        if texts.is_empty() {
            return exec_err!("{} takes arguments", self.name());
        }
        let mut results = StringViewBuilder::with_capacity(rows);
        let mut values = Vec::with_capacity(texts.len());
        for row in 0..rows {
            values.clear();
            values.extend(texts.iter().map(|text| text.is_valid(row).then(|| text.as_string_view().value(row))));
            results.append_option(self.compute(&values)?);
        }
        let results = results.finish();
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&results, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(results))),
        }
    }
}

/// A pattern of SIMILAR TO as a regular expression for the whole text, [written](super::pattern_syntax) for the library.
fn posix_of(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut posix = String::from("^(?:");
    let mut letters = pattern.chars();
    let mut in_class = false;
    while let Some(letter) = letters.next() {
        if Some(letter) == escape {
            let Some(next) = letters.next() else { break };
            // Elsewhere two of them are around what `substring` takes out.
            if next == '"' && !in_class {
                continue;
            }
            posix.push('\\');
            posix.push(next);
            continue;
        }
        match letter {
            '\\' => posix.push_str("\\\\"),
            _ if in_class => {
                in_class = letter != ']';
                posix.push(letter);
            }
            '[' => {
                in_class = true;
                posix.push('[');
            }
            '%' => posix.push_str(".*"),
            '_' => posix.push('.'),
            '.' | '^' | '$' => {
                posix.push('\\');
                posix.push(letter);
            }
            '(' => posix.push_str("(?:"),
            _ => posix.push(letter),
        }
    }
    posix.push_str(")$");
    Ok(format!("{ACROSS_LINES}{}", translated(&posix)))
}

pub(super) fn quoted_identifier(name: &str) -> String {
    let starts = name.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_');
    let plain = name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    match starts && plain && !is_reserved(name) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// Whether a name is a word of PostgreSQL's that must be quoted.
fn is_reserved(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "between",
        "both",
        "case",
        "cast",
        "check",
        "coalesce",
        "collate",
        "column",
        "constraint",
        "create",
        "cross",
        "current_date",
        "current_time",
        "current_timestamp",
        "current_user",
        "default",
        "deferrable",
        "desc",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "exists",
        "extract",
        "false",
        "fetch",
        "for",
        "foreign",
        "from",
        "full",
        "grant",
        "group",
        "having",
        "ilike",
        "in",
        "initially",
        "inner",
        "intersect",
        "interval",
        "into",
        "is",
        "isnull",
        "join",
        "lateral",
        "leading",
        "left",
        "like",
        "limit",
        "localtime",
        "localtimestamp",
        "natural",
        "not",
        "notnull",
        "null",
        "nullif",
        "offset",
        "on",
        "only",
        "or",
        "order",
        "outer",
        "overlaps",
        "placing",
        "position",
        "primary",
        "references",
        "returning",
        "right",
        "row",
        "select",
        "session_user",
        "similar",
        "some",
        "substring",
        "symmetric",
        "table",
        "then",
        "time",
        "timestamp",
        "to",
        "trailing",
        "trim",
        "true",
        "union",
        "unique",
        "user",
        "using",
        "values",
        "varchar",
        "variadic",
        "when",
        "where",
        "window",
        "with",
    ];
    WORDS.contains(&name)
}

pub(super) fn quoted_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_similar_to_match_whole_texts() {
        for (pattern, expected) in [
            ("a", "^(?:a)$"),
            ("%(b|d)%", "^(?:.*(?:b|d).*)$"),
            ("a_c", "^(?:a.c)$"),
            ("a.c", "^(?:a\\.c)$"),
            ("a\\%", "^(?:a\\%)$"),
            ("[%_.]", "^(?:[%_.])$"),
            ("\\d\\\"[[:alpha:]&&]", "^(?:\\d[[:alpha:]\\&&])$"),
        ] {
            let expected = format!("{ACROSS_LINES}{expected}");
            assert_eq!(posix_of(pattern, Some('\\')).unwrap(), expected, "{pattern}");
        }
    }

    #[test]
    fn identifiers_are_quoted_where_they_must() {
        for (name, expected) in
            [("a1", "a1"), ("A", "\"A\""), ("a\"b", "\"a\"\"b\""), ("select", "\"select\""), ("", "\"\"")]
        {
            assert_eq!(quoted_identifier(name), expected);
        }
        assert_eq!(quoted_literal("it's"), "'it''s'");
        assert_eq!(quoted_literal("a\\b"), "E'a\\\\b'");
    }
}
