//! Errors as the shell shows them: the same words and the same picture, whether the statement ran in this process or
//! on a server.
//!
//! ```text
//! ERROR 42703: column "nam" does not exist
//! LINE 3: SELECT id, nam FROM person
//!                    ^
//! HINT: did you mean "name"?
//! FILE: people.sql
//! ```

use super::render::value::{escape_controls, width};
use rustydb_flight::RemoteError;
use std::io::{self, Write};

/// Characters of a source line that are shown; of a longer one, the part around the error.
const LINE_CHARS_MAX: usize = 100;

/// What went wrong with one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// Line and column in the statement's text, both from 1.
    pub(crate) position: Option<(u64, u64)>,
}

/// A statement, and where it stands in the script it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) sql: String,
    /// The line of the file, of the `-c` argument or of what was typed, on which the statement begins; from 1.
    pub(crate) first_line: u64,
}

impl Failure {
    pub(crate) fn new(sqlstate: &str, message: impl Into<String>) -> Failure {
        Failure { sqlstate: sqlstate.to_owned(), message: message.into(), detail: None, hint: None, position: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The user pressed Ctrl-C.
    pub(crate) fn cancelled() -> Failure {
        Failure::new("57014", "the statement was cancelled")
    }

    /// Writes the error, with the offending line of `source` and a caret below the place when it is known, and the
    /// `file` the statement came from.
    pub(crate) fn report(&self, source: Option<&Source>, file: Option<&str>, err: &mut dyn Write) -> io::Result<()> {
        writeln!(err, "ERROR {}: {}", self.sqlstate, escape_controls(self.message.clone()))?;
        if let (Some((line, column)), Some(source)) = (self.position, source)
            && let Some(text) = usize::try_from(line).ok().and_then(|line| source.sql.lines().nth(line.checked_sub(1)?))
        {
            let label = format!("LINE {}: ", source.first_line + line - 1);
            let (excerpt, indent) = excerpt(text, usize::try_from(column).unwrap_or(1).saturating_sub(1));
            writeln!(err, "{label}{excerpt}")?;
            writeln!(err, "{}^", " ".repeat(label.len() + indent))?;
        }
        for (label, text) in [("DETAIL", &self.detail), ("HINT", &self.hint)] {
            if let Some(text) = text {
                writeln!(err, "{label}: {}", escape_controls(text.clone()))?;
            }
        }
        if let Some(file) = file {
            let file = escape_controls(file.to_owned());
            match source {
                // Without a mark, the line is that of the statement's beginning.
                Some(source) if self.position.is_none() => writeln!(err, "FILE: {file}, line {}", source.first_line)?,
                _ => writeln!(err, "FILE: {file}")?,
            }
        }
        Ok(())
    }
}

impl From<rustydb::Error> for Failure {
    fn from(error: rustydb::Error) -> Failure {
        Failure {
            sqlstate: error.sqlstate().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            position: error.position().map(|position| (position.line, position.column)),
        }
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Failure {
        Failure {
            sqlstate: error.sqlstate().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            position: error.position().map(|position| (position.line, position.column)),
        }
    }
}

/// The part of a line to show, and the width of what stands before the character at `column` (from 0).
fn excerpt(line: &str, column: usize) -> (String, usize) {
    let line = escape_controls(line.replace('\t', " "));
    let chars: Vec<char> = line.chars().collect();
    let column = column.min(chars.len());
    if chars.len() <= LINE_CHARS_MAX {
        let before: String = chars[..column].iter().collect();
        return (line, width(&before));
    }
    let start = column.saturating_sub(LINE_CHARS_MAX / 2).min(chars.len() - LINE_CHARS_MAX);
    let end = start + LINE_CHARS_MAX;
    let (head, tail) = (if start > 0 { "…" } else { "" }, if end < chars.len() { "…" } else { "" });
    let before: String = chars[start..column].iter().collect();
    let shown: String = chars[start..end].iter().collect();
    (format!("{head}{shown}{tail}"), width(head) + width(&before))
}

#[cfg(test)]
mod tests {
    use super::{Failure, Source};

    fn report(failure: &Failure, sql: &str, first_line: u64) -> String {
        let mut out = Vec::new();
        failure.report(Some(&Source { sql: sql.to_owned(), first_line }), None, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_caret_points_at_the_place_in_the_file() {
        let mut failure = Failure::new("42703", "column \"nam\" does not exist").with_hint("did you mean \"name\"?");
        failure.position = Some((2, 8));
        assert_eq!(
            report(&failure, "SELECT\n\tid, ж, nam\nFROM t", 10),
            "ERROR 42703: column \"nam\" does not exist\n\
             LINE 11:  id, ж, nam\n\
             \u{20}               ^\n\
             HINT: did you mean \"name\"?\n"
        );
    }

    #[test]
    fn the_file_is_named_with_the_line_if_no_mark_tells_it() {
        let source = Source { sql: "INSERT INTO t VALUES (1)".to_owned(), first_line: 7 };
        let shown = |failure: &Failure| {
            let mut out = Vec::new();
            failure.report(Some(&source), Some("load.sql"), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let mut failure = Failure::new("23505", "duplicate key");
        assert_eq!(shown(&failure), "ERROR 23505: duplicate key\nFILE: load.sql, line 7\n");
        failure.position = Some((1, 1));
        assert!(shown(&failure).ends_with("^\nFILE: load.sql\n"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let mut failure = Failure::new("42601", "syntax error");
        failure.position = Some((1, 501));
        let sql = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = report(&failure, &sql, 1);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].chars().count() < 120, "{shown}");
        let caret = lines[2].chars().count() - 1;
        assert_eq!(lines[1].chars().nth(caret), Some('X'), "{shown}");
    }

    #[test]
    fn a_position_outside_the_text_is_left_out() {
        let mut failure = Failure::new("XX000", "odd");
        for position in [(0, 0), (9, 1), (u64::MAX, u64::MAX)] {
            failure.position = Some(position);
            assert_eq!(report(&failure, "SELECT 1", 1), "ERROR XX000: odd\n");
        }
        failure.position = Some((1, u64::MAX));
        assert!(report(&failure, "SELECT 1", 1).contains("LINE 1: SELECT 1\n                ^\n"));
    }
}
