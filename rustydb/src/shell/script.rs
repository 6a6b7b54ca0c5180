//! Scripts: `-c`, `-f`, `\i`, and standard input when it is not a terminal.
//!
//! Lines are read by a thread of their own and handed over through a short queue, so that a script of any size runs
//! in constant memory, a statement piped in is executed as soon as its `;` arrives (a program may wait for the answer
//! before it sends the next), and Ctrl-C is heard while nothing arrives.
//!
//! [`StatementReader`] turns lines into statements. It is pure: what goes in are lines, what comes out are statements
//! that know their line number.

use super::Shell;
use super::failure::{Failure, Source};
use super::meta::{self, MetaCommand};
use rustydb::{split_statements, statement_is_complete};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use tokio::sync::mpsc;

/// The largest statement a script may hold. A file that is no script (a Parquet file, say) must not fill the memory
/// while we look for its first `;`.
const STATEMENT_BYTES_MAX: usize = 256 << 20;
/// Lines read ahead of the statement that runs.
const LINES_AHEAD_MAX: usize = 256;

/// Why a script ended before its last statement.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A statement failed, and the error has been shown.
    Failed,
    /// Ctrl-C; the running statement was cancelled.
    Interrupted,
    /// `\q`.
    Quit,
    /// The reader of our output has gone away (`| head`).
    OutputClosed,
    /// Our output cannot be written, for another reason.
    Output(io::Error),
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Statement(Source),
    Meta(MetaCommand),
}

/// Lines that cannot be cut into statements, such as an unterminated string.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) failure: Box<Failure>,
    /// The text the failure's position points into.
    pub(crate) text: Option<Source>,
}

impl From<Failure> for Unreadable {
    fn from(failure: Failure) -> Unreadable {
        Unreadable { failure: Box::new(failure), text: None }
    }
}

/// Cuts lines into statements and backslash commands.
#[derive(Debug)]
pub(crate) struct StatementReader {
    /// Lines not executed yet, with their line ends.
    pending: String,
    /// The number of the first line of `pending`.
    pending_line: u64,
    /// The number of the line that comes next.
    next_line: u64,
}

impl StatementReader {
    pub(crate) fn new() -> StatementReader {
        StatementReader { pending: String::new(), pending_line: 1, next_line: 1 }
    }

    /// Takes the next line; returns what it completed.
    pub(crate) fn push(&mut self, line: &str) -> Result<Vec<Item>, Unreadable> {
        let line_number = self.next_line;
        self.next_line += 1;
        // Some editors put a byte-order mark in front of a file.
        let line = if line_number == 1 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        if self.pending.trim().is_empty() {
            self.pending.clear();
            self.pending_line = line_number;
        }
        if line.trim_start().starts_with('\\') && self.is_between_statements() {
            self.pending.clear();
            return Ok(vec![Item::Meta(meta::parse(line)?)]);
        }
        if self.pending.len() + line.len() > STATEMENT_BYTES_MAX {
            return Err(too_long().into());
        }
        self.pending.push_str(line);
        self.pending.push('\n');
        if may_end_statement(line) && statement_is_complete(&self.pending) { self.take() } else { Ok(Vec::new()) }
    }

    /// The input has ended: what is left is executed even without its semicolon.
    pub(crate) fn finish(&mut self) -> Result<Vec<Item>, Unreadable> {
        self.take()
    }

    /// Whether what is pending holds nothing but space and comments.
    fn is_between_statements(&self) -> bool {
        split_statements(&self.pending).is_ok_and(|statements| statements.is_empty())
    }

    fn take(&mut self) -> Result<Vec<Item>, Unreadable> {
        let text = std::mem::take(&mut self.pending);
        let lines_before = self.pending_line - 1;
        let statements = match split_statements(&text) {
            Ok(statements) => statements,
            Err(error) => {
                let text = Some(Source { sql: text, first_line: self.pending_line });
                return Err(Unreadable { failure: Box::new(error.into()), text });
            }
        };
        let items = statements
            .into_iter()
            .map(|statement| Item::Statement(Source { sql: statement.sql, first_line: lines_before + statement.line }));
        Ok(items.collect())
    }
}

/// Lines from a file, from standard input, or from an argument.
pub(crate) struct Lines {
    receiver: mpsc::Receiver<io::Result<String>>,
    /// The file they come from, as it was named.
    file: Option<String>,
}

impl Lines {
    pub(crate) fn of_text(text: String) -> Lines {
        Lines::read(io::Cursor::new(text))
    }

    pub(crate) fn of_file(path: &Path) -> io::Result<Lines> {
        let lines = Lines::read(std::fs::File::open(path)?);
        Ok(Lines { file: Some(path.display().to_string()), ..lines })
    }

    pub(crate) fn of_stdin() -> Lines {
        Lines::read(io::stdin())
    }

    /// The thread ends with the input, or at the next line after `Lines` is dropped. One blocked on a silent standard
    /// input ends with the process.
    fn read(input: impl Read + Send + 'static) -> Lines {
        let (sender, receiver) = mpsc::channel(LINES_AHEAD_MAX);
        std::thread::spawn(move || {
            let mut input = BufReader::new(input);
            while let Some(line) = read_line(&mut input).transpose() {
                let failed = line.is_err();
                if sender.blocking_send(line).is_err() || failed {
                    return;
                }
            }
        });
        Lines { receiver, file: None }
    }

    async fn next(&mut self) -> Option<io::Result<String>> {
        self.receiver.recv().await
    }
}

/// One line without its end; `None` when the input has ended.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if input.take(STATEMENT_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text");
    String::from_utf8(line).map(Some).map_err(invalid)
}

/// Runs everything `lines` holds, up to the first error.
pub(crate) async fn run(shell: &mut Shell, mut lines: Lines) -> Result<(), Stop> {
    let file = lines.file.take();
    let is_file = file.is_some();
    shell.files.extend(file);
    let result = run_lines(shell, lines).await;
    if is_file {
        shell.files.pop();
    }
    result
}

async fn run_lines(shell: &mut Shell, mut lines: Lines) -> Result<(), Stop> {
    let mut reader = StatementReader::new();
    loop {
        let line = tokio::select! {
            biased;
            () = shell.interrupted() => return Err(Stop::Interrupted),
            line = lines.next() => line,
        };
        let (items, at_end) = match line {
            Some(Ok(line)) => (reader.push(&line), false),
            Some(Err(error)) => {
                let failure = Failure::new("58030", format!("cannot read line {}: {error}", reader.next_line));
                return Err(shell.failed(&failure, None));
            }
            None => (reader.finish(), true),
        };
        for item in items.map_err(|refused| shell.failed(&refused.failure, refused.text.as_ref()))? {
            shell.run_item(item).await?;
        }
        if at_end {
            return Ok(());
        }
    }
}

/// Whether a line holds a semicolon with nothing but space or a comment behind it. Only such a line can end a statement;
/// looking at the whole statement again for every line of a long VALUES list would take quadratic time.
fn may_end_statement(line: &str) -> bool {
    line.match_indices(';').any(|(at, _)| {
        let rest = line[at + 1..].trim_start_matches(|c: char| c == ';' || c.is_whitespace());
        rest.is_empty() || rest.starts_with("--") || rest.starts_with("/*")
    })
}

fn too_long() -> Failure {
    Failure::new("54000", format!("a statement is longer than {} MiB", STATEMENT_BYTES_MAX >> 20))
        .with_hint("load large data with COPY … FROM 'file' instead of INSERT")
}

#[cfg(test)]
mod tests {
    use super::{Item, StatementReader, may_end_statement, read_line};
    use crate::shell::meta::MetaCommand;

    /// Statements with their line numbers, as the reader releases them line by line.
    fn released(script: &str) -> Vec<Vec<(u64, String)>> {
        let mut reader = StatementReader::new();
        let mut steps: Vec<_> = script.lines().map(|line| reader.push(line).unwrap()).collect();
        steps.push(reader.finish().unwrap());
        let describe = |item| match item {
            Item::Statement(source) => (source.first_line, source.sql),
            Item::Meta(command) => (0, format!("{command:?}")),
        };
        steps.into_iter().map(|items| items.into_iter().map(describe).collect()).collect()
    }

    #[test]
    fn a_statement_is_released_by_its_semicolon_and_knows_its_line() {
        let steps = released("-- a script\nSELECT 1;\n\nSELECT\n  2;\nSELECT 3");
        let lines: Vec<Vec<u64>> = steps.iter().map(|step| step.iter().map(|(line, _)| *line).collect()).collect();
        assert_eq!(lines[1].len(), 1, "released on line 2: {steps:?}");
        assert_eq!(lines[4], [4], "begins on line 4, released on line 5: {steps:?}");
        assert_eq!(lines[6], [6], "released by the end of the input: {steps:?}");
        assert!(steps[4][0].1.contains('2'));
    }

    #[test]
    fn semicolons_inside_strings_and_comments_end_nothing() {
        let steps = released("INSERT INTO t VALUES ('a;\nb;\n'); -- done; really\n");
        assert!(steps[0].is_empty() && steps[1].is_empty());
        assert_eq!(steps[2].len(), 1, "{steps:?}");
        assert!(steps[2][0].1.contains("'a;\nb;\n'"), "{steps:?}");
    }

    #[test]
    fn a_line_may_end_a_statement_only_behind_its_last_word() {
        for line in [";", "SELECT 1; ", "SELECT 1; -- a; b", "SELECT 1;; /* c */", "SELECT 1; /* open"] {
            assert!(may_end_statement(line), "{line}");
        }
        for line in ["SELECT 1", "(1, 'a; b'),", "SELECT 1; SELECT 2", "-- a; b"] {
            assert!(!may_end_statement(line), "{line}");
        }
        let steps = released("SELECT 1; -- a; b\nSELECT 2;");
        assert_eq!((steps[0].len(), steps[1].len()), (1, 1), "{steps:?}");
    }

    #[test]
    fn what_cannot_be_cut_is_shown_with_its_line() {
        let mut reader = StatementReader::new();
        reader.push("SELECT 1;").unwrap();
        reader.push("SELECT 'open").unwrap();
        let refused = reader.finish().unwrap_err();
        assert_eq!(refused.text.map(|text| text.first_line), Some(2));
        assert_eq!(refused.failure.position, Some((1, 8)));
    }

    #[test]
    fn several_statements_on_a_line_come_in_order() {
        let steps = released("SELECT 1; SELECT 2;");
        let texts: Vec<bool> = steps[0].iter().zip(["1", "2"]).map(|((_, sql), n)| sql.contains(n)).collect();
        assert_eq!(texts, [true, true], "{steps:?}");
    }

    #[test]
    fn a_backslash_is_a_command_only_between_statements() {
        let mut reader = StatementReader::new();
        assert_eq!(reader.push("-- a comment").unwrap(), []);
        assert_eq!(reader.push("  \\timing on").unwrap(), [Item::Meta(MetaCommand::Timing(Some(true)))]);
        assert_eq!(reader.push("SELECT '").unwrap(), []);
        assert_eq!(reader.push("\\timing on").unwrap(), [], "a line of the string");
        assert_eq!(reader.push("';").unwrap().len(), 1);
        assert!(reader.push("\\nonsense").is_err());
    }

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let mut input = &b"a\r\n \n\nlast"[..];
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["a", " ", "", "last"]);
        assert!(read_line(&mut &b"\xff\xfe"[..]).is_err());
    }
}
