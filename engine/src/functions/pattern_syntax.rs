//! Regular expressions as PostgreSQL writes them, in the syntax of the library that looks for them.
//!
//! | PostgreSQL | library | what it is |
//! |---|---|---|
//! | `\y`, `\Y` | `\b`, `\B` | a border of a word, a place that is none |
//! | `\m`, `\M`, `[[:<:]]`, `[[:>:]]` | `\b{start}`, `\b{end}` | begin and end of a word |
//! | `\Z` | `\z` | the end of the text |
//! | `\b`, `\B` | `\x08`, `\\` | the characters backspace and backslash |
//! | `\<`, `\>` | `<`, `>` | themselves |
//! | `{` before anything but a digit | `\{` | itself |
//! | `[[a]`, `[a&&b]`, `[a~~b]`, `[+--]` | `[\[a]`, `[a\&&b]`, `[a\~~b]`, `[+-\-]` | characters of a set |
//! | `(?n)…`, `(?p)…`, `(?w)…`, `(?c)…` | `(?m-s)…`, `(?-s)…`, `(?m)…`, `(?-i)…` | what flags say |
//! | `***=a.b`, `***:a.b` | `a\.b`, `a.b` | a text that stands for itself, an expression |
//!
//! What the library does not know, it refuses: references to groups, and what must come before or after a match.
//!
//! Patterns of `~` that are constants are written anew before a query is optimised, all others by the function
//! [`WRITTEN_PATTERN`], row by row; functions of patterns write them themselves.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::utils::take_function_args;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What a pattern begins with that has been written so; it makes `.` match line breaks. PostgreSQL's have no such options:
/// who writes `(?s)a` means a pattern that is still to be written.
pub(crate) const ACROSS_LINES: &str = "(?s-m)";

/// The name of the function that writes a pattern in the library's syntax.
pub(crate) const WRITTEN_PATTERN: &str = "written_pattern";

static WRITTEN: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Written { signature: Signature::any(1, Volatility::Immutable) })));

/// The function of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::clone(&WRITTEN)]
}

/// What a pattern is in the library's syntax that may be another one for each row.
pub(crate) fn written_pattern(pattern: Expr) -> Expr {
    WRITTEN.call(vec![pattern])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Written {
    signature: Signature,
}

impl ScalarUDFImpl for Written {
    fn name(&self) -> &str {
        WRITTEN_PATTERN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [patterns] = take_function_args(self.name(), arguments.args)?;
        let is_constant = matches!(patterns, ColumnarValue::Scalar(_));
        let rows = if is_constant { 1 } else { arguments.number_rows };
        let patterns = cast(&patterns.to_array(rows)?, &DataType::Utf8View)?;
        let mut results = StringViewBuilder::with_capacity(rows);
        // Most follow others that are the same.
        let mut last: Option<(&str, String)> = None;
        for pattern in patterns.as_string_view() {
            let Some(pattern) = pattern else {
                results.append_null();
                continue;
            };
            let known = last.take().filter(|(text, _)| *text == pattern);
            let (_, written) = last.insert(known.unwrap_or_else(|| (pattern, written(pattern))));
            results.append_value(written.as_str());
        }
        let results: ArrayRef = Arc::new(results.finish());
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&results, 0)?),
            false => ColumnarValue::Array(results),
        })
    }
}

/// The pattern as it is looked for, which it may be already: a plan may be analysed again.
fn written(pattern: &str) -> String {
    match pattern.starts_with(ACROSS_LINES) {
        true => pattern.to_owned(),
        false => format!("{ACROSS_LINES}{}", translated(pattern)),
    }
}

/// The pattern in the library's syntax.
pub(crate) fn translated(pattern: &str) -> Cow<'_, str> {
    if let Some(text) = pattern.strip_prefix("***=") {
        return Cow::Owned(regex::escape(text));
    }
    if !pattern.starts_with("***:") && !pattern.starts_with("(?") && !pattern.contains(['\\', '[', '{']) {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = after_options(pattern.strip_prefix("***:").unwrap_or(pattern), &mut out);
    while let Some(letter) = rest.chars().next() {
        rest = match letter {
            '\\' => after_escape(rest, &mut out),
            '[' => after_set(rest, &mut out),
            '{' if !rest[1..].starts_with(|next: char| next.is_ascii_digit()) => {
                out.push_str("\\{");
                &rest[1..]
            }
            _ => {
                out.push(letter);
                &rest[letter.len_utf8()..]
            }
        };
    }
    Cow::Owned(out)
}

/// Writes the options that a pattern may begin with, and returns what is behind them.
fn after_options<'a>(pattern: &'a str, out: &mut String) -> &'a str {
    let Some((options, rest)) = pattern.strip_prefix("(?").and_then(|options| options.split_once(')')) else {
        return pattern;
    };
    let mut written = String::new();
    for option in options.chars() {
        written.push_str(match option {
            'c' => "(?-i)",
            'e' => "",
            'i' => "(?i)",
            'm' | 'n' => "(?m-s)",
            'p' => "(?-s)",
            's' => "(?s-m)",
            't' => "(?-x)",
            'w' => "(?sm)",
            'x' => "(?x)",
            // A group that only looks like options.
            _ => return pattern,
        });
    }
    out.push_str(&written);
    rest
}

/// Writes the escape that a text begins with, and returns what is behind it.
fn after_escape<'a>(text: &'a str, out: &mut String) -> &'a str {
    let Some(letter) = text[1..].chars().next() else {
        out.push_str(text);
        return "";
    };
    let (escape, rest) = text.split_at(1 + letter.len_utf8());
    out.push_str(match letter {
        'y' => "\\b",
        'Y' => "\\B",
        'm' => "\\b{start}",
        'M' => "\\b{end}",
        'Z' => "\\z",
        'b' => "\\x08",
        'B' => "\\\\",
        '<' => "<",
        '>' => ">",
        _ => escape,
    });
    // What the library takes between braces.
    match (letter, rest.strip_prefix('{').and_then(|inside| inside.find('}'))) {
        ('p' | 'P' | 'x' | 'u' | 'U', Some(inside)) => {
            let (braces, rest) = rest.split_at(inside + 2);
            out.push_str(braces);
            rest
        }
        _ => rest,
    }
}

/// Writes the set of characters that a text begins with, and returns what is behind it.
fn after_set<'a>(text: &'a str, out: &mut String) -> &'a str {
    for (border, written) in [("[[:<:]]", "\\b{start}"), ("[[:>:]]", "\\b{end}")] {
        if let Some(rest) = text.strip_prefix(border) {
            out.push_str(written);
            return rest;
        }
    }
    out.push('[');
    let mut rest = &text[1..];
    if let Some(negated) = rest.strip_prefix('^') {
        out.push('^');
        rest = negated;
    }
    // In front it is one of the characters.
    if let Some(behind) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = behind;
    }
    let begin = rest.len();
    while let Some(letter) = rest.chars().next() {
        let next = rest[letter.len_utf8()..].chars().next();
        let taken = match (letter, next) {
            // The first of a set, which is no range to another one.
            ('-', Some('-')) if rest.len() == begin => {
                out.push_str("\\-");
                1
            }
            // A range up to it.
            ('-', Some('-')) => {
                out.push_str("-\\-");
                2
            }
            (']', _) => {
                out.push(']');
                return &rest[1..];
            }
            ('[', Some(':')) => match rest.find(":]") {
                Some(end) => {
                    out.push_str(&rest[..end + 2]);
                    end + 2
                }
                None => {
                    out.push_str("\\[");
                    1
                }
            },
            ('\\', Some(escaped)) => {
                let length = 1 + escaped.len_utf8();
                out.push_str(&rest[..length]);
                length
            }
            ('[', _) | ('&', Some('&')) | ('~', Some('~')) => {
                out.push('\\');
                out.push(letter);
                1
            }
            _ => {
                out.push(letter);
                letter.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    rest
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn patterns_are_written_for_the_library() {
        for (pattern, expected) in [
            ("^a.*(b|c)+?$", "^a.*(b|c)+?$"),
            ("\\yb\\Y", "\\bb\\B"),
            ("\\mb\\M\\Z", "\\b{start}b\\b{end}\\z"),
            ("[[:<:]]b[[:>:]]", "\\b{start}b\\b{end}"),
            ("\\d\\\\y\\.", "\\d\\\\y\\."),
            ("a{2,3}{x", "a{2,3}\\{x"),
            ("\\p{L}\\x{e9}\\x41", "\\p{L}\\x{e9}\\x41"),
            ("[^]a[&&~~[:digit:]\\]b]c", "[^\\]a\\[\\&&\\~~[:digit:]\\]b]c"),
            ("(?n)a.b", "(?m-s)a.b"),
            ("(?ic)a", "(?i)(?-i)a"),
            ("(?:a)(?i)", "(?:a)(?i)"),
            ("***=a.b", "a\\.b"),
            ("***:a.b", "a.b"),
            ("a\\", "a\\"),
            ("[é", "[é"),
            ("[+--][--/]", "[+-\\-][\\--/]"),
        ] {
            assert_eq!(translated(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn users_write_no_pattern_that_is_taken_for_one_written_before() {
        for pattern in ["(?s)a", "(?p)a", "(?n)a", "(?w)a", "(?is)a"] {
            assert!(!pattern.starts_with(ACROSS_LINES), "{pattern}");
            assert_ne!(translated(pattern), pattern);
        }
    }

    #[test]
    fn they_match_as_in_postgresql() {
        for (text, pattern, expected) in [
            ("hello world", "\\yworld\\y", true),
            ("hello world", "\\morld", false),
            ("foo bar", "\\bbar", false),
            ("a&b", "^[a-z&&]+$", true),
            ("a[b", "^[[ab]+$", true),
            ("a{b", "a{b", true),
            ("a<b", "a\\<b", true),
            ("a\\b", "a\\Bb", true),
        ] {
            let regex = Regex::new(&translated(pattern)).unwrap();
            assert_eq!(regex.is_match(text), expected, "{text} {pattern}");
        }
    }
}
