//! DataFusion's own test files, as a job (`cargo xtask datafusion`): they come with the crate `datafusion-sqllogictest` and
//! are run where cargo has it.
//!
//! RustyDB plans queries on DataFusion but is another database: it has tables of its own instead of external ones, and
//! follows PostgreSQL where DataFusion does not. `CREATE TABLE t (a INT, …) AS …` and `CREATE OR REPLACE TABLE`, which most
//! files begin with, are taken apart ([`plain_statements`]), and a change answers with its count, as DataFusion's do. Records
//! that cannot pass are covered by lines of `datafusion/differences.txt` ([`Differences`]). What is compared is the answer,
//! or that there is an error: not its words, not the types' letters, and not plans (EXPLAIN).
//!
//! DataFusion's runner prints values in its own way, and so does [`DatafusionConnection`]: floats and decimals without
//! trailing zeros, floats with at most twelve digits behind the point, lines of the last column as rows.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use rustydb_engine::{Database, DatabaseOptions, Session, StatementResult};
use sqllogictest::{
    AsyncDB, DBOutput, ExpectedError, Normalizer, QueryExpect, Record, Runner, StatementExpect,
    default_column_validator, parse_file,
};

use crate::connection::ColumnKind;
use crate::differences::{Comparison, Differences, Tally};
use crate::{Configuration, ScriptError};

/// Some queries make millions of rows, which takes a debug build long.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Digits behind the point that are compared.
const FRACTION_DIGITS: usize = 12;

/// The corpus as a whole: the list, and what has been seen.
#[derive(Debug)]
pub struct DatafusionCorpus {
    differences: Differences,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<bool>,
    files: Vec<(String, Tally)>,
    skipped_files: usize,
}

impl DatafusionCorpus {
    /// With the committed list.
    pub fn new(differences: Differences) -> Self {
        let seen = Seen { lines: vec![false; differences.len()], ..Seen::default() };
        DatafusionCorpus { differences, seen: Mutex::new(seen) }
    }

    /// Runs one file, which is called `name` in the list; the error lists what is not explained.
    pub async fn run(&self, path: &Path, name: &str) -> Result<(), String> {
        if let Some((line, _reason)) = self.differences.skipped(name) {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.lines[line] = true;
            seen.skipped_files += 1;
            return Ok(());
        }
        let records = parse_file::<ColumnKind>(path).map_err(|error| error.to_string())?;
        let directory = tempfile::tempdir().map_err(|error| format!("no scratch directory: {error}"))?;
        let options = DatabaseOptions {
            statement_timeout: Some(STATEMENT_TIMEOUT),
            ..Configuration::Default.options(directory.path())
        };
        let database = Database::open(options).await.map_err(|error| error.to_string())?;
        let mut runner = Runner::new(|| async { Ok(DatafusionConnection { session: database.connect() }) });
        runner.add_label("datafusion");
        runner.with_column_validator(default_column_validator);
        runner.with_normalizer(without_trailing_space);
        runner.with_validator(same_rows);
        let mut comparison = Comparison::new(&self.differences, name);
        for mut record in records {
            match &mut record {
                Record::Halt { .. } => break,
                // They prepare files for external tables.
                Record::System { .. } => continue,
                Record::Statement { sql, expected, .. } => {
                    if is_explain(sql) {
                        comparison.tally.skipped += 1;
                        continue;
                    }
                    if matches!(expected, StatementExpect::Error(_)) {
                        *expected = StatementExpect::Error(ExpectedError::Empty);
                    }
                }
                Record::Query { sql, expected, .. } => {
                    if is_explain(sql) {
                        comparison.tally.skipped += 1;
                        continue;
                    }
                    match expected {
                        QueryExpect::Error(_) => *expected = QueryExpect::Error(ExpectedError::Empty),
                        QueryExpect::Results { results, .. } if !is_ordered(sql) => {
                            results.insert(0, ANY_ORDER.to_owned());
                        }
                        QueryExpect::Results { .. } => {}
                    }
                }
                _ => {}
            }
            let is_statement = matches!(record, Record::Statement { .. } | Record::Query { .. });
            match runner.run_async(record).await {
                Ok(_) if is_statement => comparison.tally.same += 1,
                Ok(_) => {}
                Err(error) => comparison.note(&error),
            }
        }
        runner.shutdown_async().await;
        drop(runner);
        database.close().await.map_err(|error| error.to_string())?;
        let tally = comparison.tally;
        let (lines, result) = comparison.finish();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        lines.into_iter().for_each(|line| seen.lines[line] = true);
        seen.files.push((name.to_owned(), *result.as_ref().unwrap_or(&tally)));
        result.map(drop)
    }

    /// How many records passed, for people; and the lines of the list that explained nothing.
    pub fn summary(&self) -> (String, Vec<String>) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        let mut total = Tally::default();
        let mut files = seen.files.clone();
        files.sort_by(|one, other| one.0.cmp(&other.0));
        for (name, Tally { same, different, skipped }) in &files {
            text.push_str(&format!("{name:<60} {same:>6} same {different:>6} known differences {skipped:>5} plans\n"));
            total.same += same;
            total.different += different;
            total.skipped += skipped;
        }
        let compared = (total.same + total.different).max(1);
        text.push_str(&format!(
            "{} files, {} left out: {} of {compared} records as DataFusion ({:.1} %), {} known differences, {} plans not \
             compared",
            files.len(),
            seen.skipped_files,
            total.same,
            total.same as f64 * 100.0 / compared as f64,
            total.different,
            total.skipped,
        ));
        let stale = |line: &usize| !seen.lines[*line] && !self.differences.may_be_absent(*line);
        (text, (0..self.differences.len()).filter(stale).map(|line| self.differences.line(line)).collect())
    }
}

fn is_explain(sql: &str) -> bool {
    sql.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("explain"))
}

#[expect(clippy::ptr_arg, reason = "the runner's type")]
fn without_trailing_space(text: &String) -> String {
    text.trim_end().to_owned()
}

/// The first line of rows that come in no order.
const ANY_ORDER: &str = "<any order>";

/// Whether a query has an ORDER BY of its own; those of aggregates, windows and subqueries are in parentheses.
fn is_ordered(sql: &str) -> bool {
    let (mut depth, mut outside) = (0, String::new());
    for letter in sql.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            letter if depth == 0 => outside.push(letter.to_ascii_lowercase()),
            _ => {}
        }
    }
    let words: Vec<&str> = outside.split_whitespace().collect();
    words.windows(2).any(|pair| pair == ["order", "by"])
}

/// Compares rows; `<slt:ignore>` in those expected stands for anything.
fn same_rows(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    const ANYTHING: &str = "<slt:ignore>";
    let mut expected: Vec<String> = expected.iter().map(normalizer).collect();
    let mut actual: Vec<String> = actual.iter().map(|row| row.join(" ").trim_end().to_owned()).collect();
    if expected.first().is_some_and(|line| line == ANY_ORDER) {
        expected.remove(0);
        if !expected.iter().any(|line| line.contains(ANYTHING)) {
            expected.sort_unstable();
            actual.sort_unstable();
        }
    }
    if !expected.iter().any(|line| line.contains(ANYTHING)) {
        return actual == expected;
    }
    let (expected, actual) = (expected.join("\n"), actual.join("\n"));
    let mut rest = actual.as_str();
    for (number, fragment) in expected.split(ANYTHING).enumerate() {
        match rest.find(fragment) {
            Some(place) if number > 0 || place == 0 => rest = &rest[place + fragment.len()..],
            _ => return false,
        }
    }
    true
}

/// A session that prints values as DataFusion's runner does.
struct DatafusionConnection {
    session: Session,
}

#[async_trait]
impl AsyncDB for DatafusionConnection {
    type Error = ScriptError;
    type ColumnType = ColumnKind;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<ColumnKind>, ScriptError> {
        let statements = plain_statements(sql);
        let mut output = DBOutput::StatementComplete(0);
        for statement in &statements {
            output = self.run_one(statement).await?;
        }
        // Together they stand for one that returns nothing.
        Ok(if statements.len() > 1 { DBOutput::StatementComplete(0) } else { output })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        // What the scripts are about.
        "datafusion"
    }

    fn error_sql_state(error: &ScriptError) -> Option<String> {
        Some(error.sqlstate().to_owned())
    }
}

impl DatafusionConnection {
    async fn run_one(&self, sql: &str) -> Result<DBOutput<ColumnKind>, ScriptError> {
        let stream = match self.session.execute(sql, &[]).await? {
            StatementResult::Done(completion) => {
                let counts = matches!(completion.tag.as_str(), "INSERT" | "UPDATE" | "DELETE" | "MERGE");
                return Ok(match completion.rows.filter(|_| counts) {
                    Some(count) => {
                        DBOutput::Rows { types: vec![ColumnKind::Other], rows: vec![vec![count.to_string()]] }
                    }
                    None => DBOutput::StatementComplete(0),
                });
            }
            StatementResult::Rows(stream) => stream,
        };
        let types = vec![ColumnKind::Other; stream.schema().fields().len()];
        let mut rows = Vec::new();
        for batch in stream.collect().await? {
            append_rows(&batch, &mut rows)?;
        }
        Ok(DBOutput::Rows { types, rows })
    }
}

/// The same in RustyDB's dialect: a table that is created with columns and rows is created first and filled then, and one
/// that is replaced is dropped first.
fn plain_statements(sql: &str) -> Vec<String> {
    let unchanged = || vec![sql.to_owned()];
    let (replaces, rest) = match after(sql, &["create", "or", "replace", "table"]) {
        Some(rest) => (true, rest),
        None => match after(sql, &["create", "table"]) {
            Some(rest) => (false, rest),
            None => return unchanged(),
        },
    };
    let named = after(rest, &["if", "not", "exists"]).unwrap_or(rest).trim_start();
    let name_end = named.find(|letter: char| letter == '(' || letter.is_whitespace()).unwrap_or(named.len());
    let (name, rest) = named.split_at(name_end);
    let mut statements = Vec::new();
    if replaces {
        statements.push(format!("DROP TABLE IF EXISTS {name}"));
    }
    match columns_and_query(rest.trim_start()) {
        Some((columns, query)) => {
            statements.push(format!("CREATE TABLE {name} {columns}"));
            statements.push(format!("INSERT INTO {name} {query}"));
        }
        None if replaces => statements.push(format!("CREATE TABLE {name} {rest}")),
        None => return unchanged(),
    }
    statements
}

/// What follows some words, whatever their case.
fn after<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    words.iter().try_fold(text, |text, word| {
        let text = text.trim_start();
        let head = text.get(..word.len())?;
        let rest = &text[word.len()..];
        let ends = rest.chars().next().is_none_or(|next| !next.is_alphanumeric() && next != '_');
        (head.eq_ignore_ascii_case(word) && ends).then_some(rest)
    })
}

/// `(a INT, …) AS query`, unless only the columns' names are given.
fn columns_and_query(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut quoted) = (0, false);
    for (place, letter) in text.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    let (columns, rest) = text.split_at(place + 1);
                    let typed = columns.split(',').any(|column| column.split_whitespace().nth(1).is_some());
                    return after(rest, &["as"]).filter(|_| typed).map(|query| (columns, query));
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn append_rows(batch: &RecordBatch, rows: &mut Vec<Vec<String>>) -> Result<(), ScriptError> {
    for row in 0..batch.num_rows() {
        let mut cells =
            batch.columns().iter().map(|column| cell(column, row)).collect::<Result<Vec<String>, ScriptError>>()?;
        let lines: Vec<String> = match cells.last() {
            Some(last) if last.contains('\n') => last.split('\n').map(with_dashes).collect(),
            _ => Vec::new(),
        };
        if !lines.is_empty() {
            cells.pop();
        }
        rows.push(cells);
        rows.extend(lines.into_iter().map(|line| vec![line]));
    }
    Ok(())
}

/// A line whose indentation can be seen.
fn with_dashes(line: &str) -> String {
    let text = line.trim_start();
    format!("{}{text}", "-".repeat(line.len() - text.len()))
}

fn cell(column: &ArrayRef, row: usize) -> Result<String, ScriptError> {
    if column.is_null(row) || *column.data_type() == DataType::Null {
        return Ok("NULL".to_owned());
    }
    Ok(match column.data_type() {
        DataType::Float16 => float(f64::from(column.as_primitive::<Float16Type>().value(row).to_f32()), None),
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            float(f64::from(value), Some(value.to_string()))
        }
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row), None),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            // They have as many digits as their type says.
            rounded(&formatted(column, row)?, usize::MAX)
        }
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            cell(dictionary.values(), dictionary.normalized_keys()[row])?
        }
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        _ => formatted(column, row)?,
    })
}

fn formatted(column: &ArrayRef, row: usize) -> Result<String, ScriptError> {
    let options = FormatOptions::new().with_null("NULL");
    Ok(ArrayFormatter::try_new(column, &options)?.value(row).try_to_string()?)
}

fn text(value: &str) -> String {
    match value.is_empty() {
        true => "(empty)".to_owned(),
        false => value.trim_end_matches('\n').replace('\0', "\\0"),
    }
}

/// `shown` are its digits, if they are not those of a double.
fn float(value: f64, shown: Option<String>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-Infinity" } else { "Infinity" }.to_owned();
    }
    rounded(&shown.unwrap_or_else(|| value.to_string()), FRACTION_DIGITS)
}

/// Decimal digits, rounded and without zeros at the end.
fn rounded(digits: &str, kept: usize) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut all: Vec<u8> = whole.bytes().chain(fraction.bytes().take(kept)).map(|digit| digit - b'0').collect();
    let mut point = whole.len();
    let rest = fraction.as_bytes().get(kept..).unwrap_or_default();
    let half = match rest {
        [b'5', more @ ..] if more.iter().all(|digit| *digit == b'0') => all.last().is_some_and(|last| last % 2 == 1),
        [first, ..] => *first >= b'5',
        [] => false,
    };
    if half {
        let mut place = all.len();
        loop {
            if place == 0 {
                all.insert(0, 1);
                point += 1;
                break;
            }
            place -= 1;
            if all[place] < 9 {
                all[place] += 1;
                break;
            }
            all[place] = 0;
        }
    }
    let print = |digits: &[u8]| digits.iter().map(|digit| char::from(digit + b'0')).collect::<String>();
    let whole = print(&all[..point]);
    let fraction = print(&all[point..]);
    let fraction = fraction.trim_end_matches('0');
    let sign = if all.iter().all(|digit| *digit == 0) { "" } else { sign };
    match fraction.is_empty() {
        true => format!("{sign}{whole}"),
        false => format!("{sign}{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_rows_is_that_of_the_query_itself() {
        assert!(is_ordered("SELECT a FROM t\nORDER  BY a LIMIT 1"));
        for any in ["SELECT a FROM t", "SELECT array_agg(a ORDER BY a) FROM (SELECT a FROM t ORDER BY a) u"] {
            assert!(!is_ordered(any), "{any}");
        }
    }

    #[test]
    fn tables_with_columns_and_rows_are_created_and_filled() {
        assert_eq!(
            plain_statements("CREATE TABLE t(a INT, b VARCHAR(3)) AS VALUES (1, ')')"),
            ["CREATE TABLE t (a INT, b VARCHAR(3))", "INSERT INTO t  VALUES (1, ')')"]
        );
        assert_eq!(
            plain_statements("create or replace table t (a int)"),
            ["DROP TABLE IF EXISTS t", "CREATE TABLE t  (a int)"]
        );
        for same in ["CREATE TABLE t (a) AS SELECT 1", "CREATE TABLE t AS VALUES (1)", "CREATE TABLES", "SELECT 1"] {
            assert_eq!(plain_statements(same), [same]);
        }
    }
}
