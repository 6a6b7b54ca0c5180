//! Scripts to statements, for the shell and script runners.
//!
//! The split goes by the same tokenizer the parser uses, so that a semicolon in a string, a comment, a quoted name or a
//! dollar-quoted body is never taken for the end of a statement.

use datafusion::sql::sqlparser::tokenizer::{Location, Token, Whitespace};

use super::parse::tokenize;
use crate::Result;

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptStatement {
    /// Its text, from its first word to before its semicolon.
    pub sql: String,
    /// The line of the script on which it starts, from 1.
    pub line: u64,
}

/// Splits a script at its semicolons. Pieces that hold only comments or blanks are left out.
///
/// # Errors
/// 42601 when the text cannot be split into words: an unterminated string, comment or quoted name.
pub fn split_statements(script: &str) -> Result<Vec<ScriptStatement>> {
    let offsets = LineOffsets::new(script);
    let mut statements = Vec::new();
    let mut start: Option<Location> = None;
    let mut finish = |start: Option<Location>, end: usize| {
        if let Some(location) = start {
            let sql = script[offsets.byte(location)..end].trim_end().to_owned();
            statements.push(ScriptStatement { sql, line: location.line });
        }
    };
    for token in tokenize(script)? {
        match token.token {
            Token::Whitespace(_) => {}
            Token::SemiColon => finish(start.take(), offsets.byte(token.span.start)),
            _ => start = start.or(Some(token.span.start)),
        }
    }
    finish(start, script.len());
    Ok(statements)
}

/// Whether an interactive text can be run: its last word is a semicolon and nothing is left open. A text without any
/// word is complete as well.
pub fn statement_is_complete(text: &str) -> bool {
    let Ok(tokens) = tokenize(text) else { return false };
    // A comment that runs to the end of the input without its newline is complete too.
    let significant = |token: &Token| {
        !matches!(
            token,
            Token::Whitespace(
                Whitespace::Space
                    | Whitespace::Newline
                    | Whitespace::Tab
                    | Whitespace::SingleLineComment { .. }
                    | Whitespace::MultiLineComment(_)
            )
        )
    };
    tokens
        .iter()
        .rev()
        .map(|token| &token.token)
        .find(|token| significant(token))
        .is_none_or(|last| *last == Token::SemiColon)
}

/// Finds the byte of a tokenizer location, which counts lines and characters.
struct LineOffsets<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> LineOffsets<'a> {
    fn new(text: &'a str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        LineOffsets { text, lines: std::iter::once(0).chain(starts).collect() }
    }

    fn byte(&self, location: Location) -> usize {
        let line = usize::try_from(location.line).unwrap_or(usize::MAX).saturating_sub(1);
        let Some(start) = self.lines.get(line) else { return self.text.len() };
        let characters = usize::try_from(location.column).unwrap_or(usize::MAX).saturating_sub(1);
        self.text[*start..].char_indices().nth(characters).map_or(self.text.len(), |(offset, _)| start + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_inside_quotes_and_comments_do_not_split() {
        let script = "select 'a;b', \"c;d\"; -- e;f\n/* g;h */ select $x$i;j$x$\n;;\nselect 1";
        let statements = split_statements(script).unwrap();
        let texts: Vec<_> = statements.iter().map(|statement| (statement.line, statement.sql.as_str())).collect();
        assert_eq!(texts, [(1, "select 'a;b', \"c;d\""), (2, "select $x$i;j$x$"), (4, "select 1")]);
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let statements = split_statements("select 'äöü'; select 2").unwrap();
        assert_eq!(statements[1].sql, "select 2");
    }

    #[test]
    fn unterminated_string_is_an_error_and_incomplete() {
        assert_eq!(split_statements("select 'abc").unwrap_err().sqlstate(), "42601");
        assert!(!statement_is_complete("select 'abc;"));
    }

    #[test]
    fn completeness_asks_for_a_final_semicolon() {
        assert!(statement_is_complete("select 1; -- done"));
        assert!(!statement_is_complete("select 1"));
        assert!(statement_is_complete("  "));
    }
}
