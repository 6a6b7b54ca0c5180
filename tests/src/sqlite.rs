//! SQLite's public corpus, as a second opinion: thousands of generated queries with the answers of another engine.
//!
//! The files lie outside of the repository and take minutes, so they are a job of their own (`cargo xtask sqlite`) and no
//! part of the tests. RustyDB follows PostgreSQL, so some records cannot pass; each of those is covered by a line of
//! `sqlite/differences.txt` that says why:
//!
//! ```text
//! select4.test | 0A000 | CREATE INDEX | indexes are not supported yet
//! ```
//!
//! a file, what happens instead (an SQLSTATE, `answer` for other rows, `accepted` for a statement that should fail), a
//! part of the statement or of its error, and the reason. A difference without a line fails the test, and so does a line without a
//! difference: the list is true.
//!
//! SQLite prints a value by the type the script asks for, not by the type it has: under `I` a float loses its
//! fraction, under `R` an integer gets three digits of one. [`SqliteConnection`] does the same.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use async_trait::async_trait;
use rustydb_engine::{Database, DatabaseOptions, Session, StatementResult};
use sqllogictest::{
    AsyncDB, Control, DBOutput, DefaultColumnType, QueryExpect, Record, ResultMode, Runner, TestError, TestErrorKind,
    parse_with_name,
};

use crate::{Configuration, ScriptError};

/// SQLite's test program hashes results of more values than this unless a file says otherwise.
const HASH_THRESHOLD_DEFAULT: usize = 8;

/// Some queries join dozens of tables in the worst order; without a limit one of them would be the end of the job.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The SQLSTATE of a statement that was cancelled for it.
const QUERY_CANCELED: &str = "57014";

/// A difference to SQLite that is known and explained.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    file: String,
    outcome: String,
    pattern: String,
    reason: String,
}

/// The committed list of differences.
#[derive(Debug)]
pub struct Differences(Vec<Difference>);

impl Differences {
    /// Reads the list: one difference per line, `#` for comments.
    pub fn parse(text: &str) -> Result<Differences, String> {
        let mut differences = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [file, outcome, pattern, reason] = fields[..] else {
                return Err(format!("line {}: expected FILE | OUTCOME | PATTERN | REASON", index + 1));
            };
            differences.push(Difference {
                file: file.to_owned(),
                outcome: outcome.to_owned(),
                pattern: pattern.to_owned(),
                reason: reason.to_owned(),
            });
        }
        Ok(Differences(differences))
    }
}

/// How one file of the corpus came out.
#[derive(Debug, Default)]
pub struct Tally {
    /// Statements and queries that did what SQLite does.
    pub same: usize,
    /// Those that did not, and are explained.
    pub different: usize,
}

/// Runs one file; the error lists what is not explained, and explanations of nothing.
pub async fn run_sqlite_file(path: &Path, differences: &Differences) -> Result<Tally, String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("a file without a name")?;
    let script = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let records =
        parse_with_name::<DefaultColumnType>(&plain_dialect(&script), name).map_err(|error| error.to_string())?;
    let directory = tempfile::tempdir().map_err(|error| format!("no scratch directory: {error}"))?;
    let options = DatabaseOptions {
        statement_timeout: Some(STATEMENT_TIMEOUT),
        ..Configuration::Default.options(directory.path())
    };
    let database = Database::open(options).await.map_err(|error| error.to_string())?;
    let expected_types = Arc::new(Mutex::new(Vec::new()));
    let mut runner = Runner::new(|| async {
        Ok(SqliteConnection { session: database.connect(), expected_types: Arc::clone(&expected_types) })
    });
    runner.add_label("postgresql");
    runner.with_hash_threshold(HASH_THRESHOLD_DEFAULT);
    let one_value_per_line = Record::Control(Control::ResultMode(ResultMode::ValueWise));
    runner.run_async(one_value_per_line).await.map_err(|error| error.to_string())?;

    let mut comparison = Comparison::new(differences, name);
    for record in records {
        let is_statement = match &record {
            Record::Halt { .. } => break,
            Record::Statement { .. } | Record::Query { .. } => true,
            _ => false,
        };
        if let Record::Query { expected: QueryExpect::Results { types, .. }, .. } = &record {
            types.clone_into(&mut expected_types.lock().unwrap_or_else(PoisonError::into_inner));
        }
        match runner.run_async(record).await {
            Ok(_) if is_statement => comparison.tally.same += 1,
            Ok(_) => {}
            Err(error) => comparison.note(&error),
        }
    }
    runner.shutdown_async().await;
    drop(runner);
    database.close().await.map_err(|error| error.to_string())?;
    comparison.finish()
}

/// What has been seen of one file, against the list of differences.
struct Comparison<'a> {
    /// The differences of this file, and whether each was seen.
    known: Vec<(&'a Difference, bool)>,
    tally: Tally,
    failures: Vec<String>,
}

impl<'a> Comparison<'a> {
    fn new(differences: &'a Differences, file: &str) -> Comparison<'a> {
        let known = differences.0.iter().filter(|difference| difference.file == file);
        Comparison { known: known.map(|known| (known, false)).collect(), tally: Tally::default(), failures: Vec::new() }
    }

    /// Looks for an explanation of a record that did not do what SQLite does.
    fn note(&mut self, error: &TestError) {
        let (outcome, text) = (outcome(&error.kind()), error.to_string());
        let explains = |known: &Difference| known.outcome == outcome && text.contains(known.pattern.as_str());
        match self.known.iter_mut().find(|(known, _)| explains(known)) {
            Some((_, is_seen)) => {
                *is_seen = true;
                self.tally.different += 1;
            }
            None => self.failures.push(format!("({outcome}) {text}")),
        }
    }

    fn finish(mut self) -> Result<Tally, String> {
        for (known, is_seen) in &self.known {
            // Whether a statement ends in time depends on the machine, so that line may stand without a difference.
            if !is_seen && known.outcome != QUERY_CANCELED {
                let Difference { outcome, pattern, reason, .. } = known;
                self.failures.push(format!("no longer a difference: {outcome} | {pattern} | {reason}"));
            }
        }
        if self.failures.is_empty() { Ok(self.tally) } else { Err(report(&self.failures)) }
    }
}

/// The first failures in full; thousands of them help nobody.
fn report(failures: &[String]) -> String {
    const SHOWN_MAX: usize = 20;
    let mut text = format!("{} failures\n", failures.len());
    for failure in failures.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "{failure}");
    }
    text
}

/// What happened instead of what the script says, in the words of the list of differences.
fn outcome(kind: &TestErrorKind) -> String {
    match kind {
        TestErrorKind::Ok { .. } => "accepted".to_owned(),
        TestErrorKind::Fail { err, .. } => match err.downcast_ref::<ScriptError>() {
            Some(error) => error.sqlstate().to_owned(),
            None => "error".to_owned(),
        },
        _ => "answer".to_owned(),
    }
}

/// Takes out what the parser does not know of SQLite's dialect: comments behind a keyword, and `halt` under a condition.
fn plain_dialect(script: &str) -> String {
    const KEYWORDS: [&str; 5] = ["statement", "query", "skipif", "onlyif", "hash-threshold"];
    let mut lines: Vec<String> = Vec::new();
    for line in script.lines() {
        let line = line.trim_end();
        if line == "halt" {
            match lines.last().map(String::as_str) {
                // Other systems stop here.
                Some(last) if last.starts_with("onlyif ") => {
                    lines.pop();
                    continue;
                }
                // Everybody but one stops here, so we do.
                Some(last) if last.starts_with("skipif ") => {
                    lines.pop();
                }
                _ => {}
            }
        }
        let is_keyword_line = KEYWORDS.iter().any(|keyword| line.starts_with(keyword));
        let end = if is_keyword_line { line.find(" #").unwrap_or(line.len()) } else { line.len() };
        lines.push(line[..end].trim_end().to_owned());
    }
    lines.join("\n")
}

/// A session that prints values as SQLite's test program does.
struct SqliteConnection {
    session: Session,
    /// The types that the record being run asks for.
    expected_types: Arc<Mutex<Vec<DefaultColumnType>>>,
}

#[async_trait]
impl AsyncDB for SqliteConnection {
    type Error = ScriptError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, ScriptError> {
        let stream = match self.session.execute(sql, &[]).await? {
            StatementResult::Done(completion) => return Ok(DBOutput::StatementComplete(completion.rows.unwrap_or(0))),
            StatementResult::Rows(stream) => stream,
        };
        let types = vec![DefaultColumnType::Any; stream.schema().fields().len()];
        let expected = self.expected_types.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut rows = Vec::new();
        for batch in stream.collect().await? {
            append_rows(&batch, &expected, &mut rows)?;
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "rustydb"
    }

    fn error_sql_state(error: &ScriptError) -> Option<String> {
        Some(error.sqlstate().to_owned())
    }
}

fn append_rows(
    batch: &RecordBatch,
    expected: &[DefaultColumnType],
    rows: &mut Vec<Vec<String>>,
) -> Result<(), ScriptError> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (index, column) in batch.columns().iter().enumerate() {
        columns.push(column_as_text(column, expected.get(index).unwrap_or(&DefaultColumnType::Any))?);
    }
    rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()));
    Ok(())
}

fn column_as_text(column: &dyn Array, expected: &DefaultColumnType) -> Result<Vec<String>, ScriptError> {
    let rows = 0..column.len();
    // Text asked for as a number is zero, as `sqlite3_column_int` has it; the cast gives NULL for it.
    let null_or = |row: usize, number: String| if column.is_null(row) { "NULL".to_owned() } else { number };
    Ok(match expected {
        DefaultColumnType::Integer => {
            let integers = cast(column, &DataType::Int64)?;
            let integers = integers.as_primitive::<Int64Type>();
            rows.map(|row| null_or(row, if integers.is_null(row) { 0 } else { integers.value(row) }.to_string()))
                .collect()
        }
        DefaultColumnType::FloatingPoint => {
            let floats = cast(column, &DataType::Float64)?;
            let floats = floats.as_primitive::<Float64Type>();
            rows.map(|row| null_or(row, format!("{:.3}", if floats.is_null(row) { 0.0 } else { floats.value(row) })))
                .collect()
        }
        DefaultColumnType::Text | DefaultColumnType::Any => {
            let texts = cast(column, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            rows.map(|row| null_or(row, printable(if texts.is_null(row) { "" } else { texts.value(row) }))).collect()
        }
    })
}

fn printable(text: &str) -> String {
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    text.chars().map(|character| if (' '..='~').contains(&character) { character } else { '@' }).collect()
}
