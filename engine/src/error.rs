//! The one error type of the engine: a message for people, an SQLSTATE for programs, and, where known, a detail line, a
//! hint, and the place in the statement.
//!
//! Invariant: a message never carries the inner workings of a library (its error prefixes, "caused by" chains or
//! backtraces). Errors of DataFusion, Arrow and the store are translated once, in [`translate`].

mod translate;
mod wording;

pub(crate) use translate::position_of as translate_position;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use parking_lot::Mutex;

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The SQLSTATE codes the engine uses, named as in the standard.
pub(crate) mod sqlstate {
    pub(crate) const PROTOCOL_VIOLATION: &str = "08P01";
    pub(crate) const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub(crate) const DATA_EXCEPTION: &str = "22000";
    pub(crate) const STRING_TOO_LONG: &str = "22001";
    pub(crate) const INVALID_SUBSTRING: &str = "22011";
    pub(crate) const INVALID_CHARACTER: &str = "22021";
    pub(crate) const UNTRANSLATABLE_CHARACTER: &str = "22P05";
    pub(crate) const ARRAY_SUBSCRIPT: &str = "2202E";
    pub(crate) const INVALID_ESCAPE_SEQUENCE: &str = "22025";
    pub(crate) const NUMERIC_OUT_OF_RANGE: &str = "22003";
    pub(crate) const INVALID_DATETIME: &str = "22007";
    pub(crate) const UNDEFINED_PREPARED_STATEMENT: &str = "26000";
    pub(crate) const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
    pub(crate) const DIVISION_BY_ZERO: &str = "22012";
    pub(crate) const DATETIME_OVERFLOW: &str = "22008";
    pub(crate) const INTERVAL_OVERFLOW: &str = "22015";
    pub(crate) const INVALID_LIMIT: &str = "2201W";
    pub(crate) const INVALID_OFFSET: &str = "2201X";
    pub(crate) const INVALID_LOGARITHM: &str = "2201E";
    pub(crate) const INVALID_POWER: &str = "2201F";
    pub(crate) const INVALID_WIDTH_BUCKET: &str = "2201G";
    pub(crate) const INVALID_FRAME_OFFSET: &str = "22013";
    pub(crate) const INVALID_NTILE: &str = "22014";
    pub(crate) const INVALID_NTH_VALUE: &str = "22016";
    pub(crate) const NULL_NOT_ALLOWED: &str = "22004";
    pub(crate) const INVALID_REGULAR_EXPRESSION: &str = "2201B";
    pub(crate) const INVALID_PARAMETER_VALUE: &str = "22023";
    pub(crate) const SEQUENCE_LIMIT: &str = "2200H";
    pub(crate) const INVALID_TEXT: &str = "22P02";
    pub(crate) const BAD_COPY_FILE: &str = "22P04";
    pub(crate) const CARDINALITY_VIOLATION: &str = "21000";
    pub(crate) const NOT_NULL_VIOLATION: &str = "23502";
    pub(crate) const FOREIGN_KEY_VIOLATION: &str = "23503";
    pub(crate) const UNIQUE_VIOLATION: &str = "23505";
    pub(crate) const CHECK_VIOLATION: &str = "23514";
    pub(crate) const CHECK_OPTION_VIOLATION: &str = "44000";
    pub(crate) const ACTIVE_TRANSACTION: &str = "25001";
    pub(crate) const READ_ONLY_TRANSACTION: &str = "25006";
    pub(crate) const NO_ACTIVE_TRANSACTION: &str = "25P01";
    pub(crate) const FAILED_TRANSACTION: &str = "25P02";
    pub(crate) const IDLE_TRANSACTION: &str = "25P03";
    pub(crate) const DEPENDENT_OBJECTS: &str = "2BP01";
    pub(crate) const INVALID_TRANSACTION_TERMINATION: &str = "2D000";
    pub(crate) const NO_SUCH_SAVEPOINT: &str = "3B001";
    pub(crate) const INVALID_SCHEMA_NAME: &str = "3F000";
    pub(crate) const SERIALIZATION_FAILURE: &str = "40001";
    pub(crate) const DEADLOCK: &str = "40P01";
    pub(crate) const SYNTAX_OR_ACCESS: &str = "42000";
    pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub(crate) const SYNTAX: &str = "42601";
    pub(crate) const INVALID_NAME: &str = "42602";
    pub(crate) const DUPLICATE_COLUMN: &str = "42701";
    pub(crate) const AMBIGUOUS_COLUMN: &str = "42702";
    pub(crate) const UNDEFINED_COLUMN: &str = "42703";
    pub(crate) const UNDEFINED_OBJECT: &str = "42704";
    pub(crate) const INVALID_RECURSION: &str = "42P19";
    pub(crate) const WINDOWING: &str = "42P20";
    pub(crate) const DUPLICATE_OBJECT: &str = "42710";
    pub(crate) const DUPLICATE_ALIAS: &str = "42712";
    pub(crate) const WRONG_OBJECT_TYPE: &str = "42809";
    pub(crate) const GENERATED_ALWAYS: &str = "428C9";
    pub(crate) const GROUPING: &str = "42803";
    pub(crate) const TYPE_MISMATCH: &str = "42804";
    pub(crate) const INVALID_FOREIGN_KEY: &str = "42830";
    pub(crate) const UNDEFINED_FUNCTION: &str = "42883";
    pub(crate) const DUPLICATE_FUNCTION: &str = "42723";
    pub(crate) const AMBIGUOUS_FUNCTION: &str = "42725";
    pub(crate) const UNDEFINED_PARAMETER: &str = "42P02";
    pub(crate) const INVALID_FUNCTION_DEFINITION: &str = "42P13";
    pub(crate) const UNDEFINED_TABLE: &str = "42P01";
    pub(crate) const DUPLICATE_TABLE: &str = "42P07";
    pub(crate) const INVALID_COLUMN_REFERENCE: &str = "42P10";
    pub(crate) const INVALID_TABLE_DEFINITION: &str = "42P16";
    pub(crate) const INVALID_OBJECT_DEFINITION: &str = "42P17";
    pub(crate) const DUPLICATE_SCHEMA: &str = "42P06";
    pub(crate) const RESERVED_NAME: &str = "42939";
    pub(crate) const DISK_FULL: &str = "53100";
    pub(crate) const OUT_OF_MEMORY: &str = "53200";
    pub(crate) const LIMIT_EXCEEDED: &str = "54000";
    pub(crate) const STATEMENT_TOO_COMPLEX: &str = "54001";
    pub(crate) const TOO_MANY_COLUMNS: &str = "54011";
    pub(crate) const TOO_MANY_ARGUMENTS: &str = "54023";
    pub(crate) const OBJECT_IN_USE: &str = "55006";
    pub(crate) const NOT_IN_PREREQUISITE_STATE: &str = "55000";
    pub(crate) const CANNOT_CHANGE_NOW: &str = "55P02";
    pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub(crate) const QUERY_CANCELED: &str = "57014";
    pub(crate) const SHUTDOWN: &str = "57P01";
    pub(crate) const IO: &str = "58030";
    pub(crate) const INTERNAL: &str = "XX000";
    pub(crate) const DATA_CORRUPTED: &str = "XX001";
}

/// Lines about the routines an error has passed through; those further out are left out.
const CONTEXT_BYTES_MAX: usize = 2_000;

/// SQLSTATEs made up by users that are kept; further ones become `P0001`.
const STATES_MAX: usize = 4_096;

/// A state as a text that lives for ever.
fn known_state(state: &str) -> &'static str {
    static KNOWN: LazyLock<Mutex<BTreeSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock();
    if let Some(found) = known.get(state) {
        return found;
    }
    if known.len() >= STATES_MAX || state.len() != 5 || !state.is_ascii() {
        return "P0001";
    }
    let state: &'static str = Box::leak(state.to_owned().into_boxed_str());
    known.insert(state);
    state
}

/// A place in the text of a statement, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// A failed statement or call. `Display` shows the message only; the rest has accessors.
#[derive(Clone)]
pub struct Error(Box<Fields>);

#[derive(Clone)]
struct Fields {
    sqlstate: &'static str,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<Position>,
    /// The value that is at fault, if one is: its place in the statement can be looked for.
    value: Option<String>,
    /// The key that is at fault, if one is: its row can be looked for.
    key: Option<FaultyKey>,
}

/// A key as a row has it.
#[derive(Debug, Clone)]
pub(crate) struct FaultyKey {
    pub(crate) columns: Vec<String>,
    /// The columns' values as they are printed, separated by `, `.
    pub(crate) values: String,
}

impl Error {
    pub(crate) fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Error(Box::new(Fields {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            value: None,
            key: None,
        }))
    }

    /// An error with an SQLSTATE of a routine's choice.
    pub fn raised(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(known_state(sqlstate), message)
    }

    /// Adds a line to the detail that tells where in a routine the error is; the place in the text of a piece of SQL
    /// inside of it means nothing outside.
    pub fn in_routine(mut self, place: &str) -> Self {
        let detail = self.0.detail.get_or_insert_default();
        if detail.len() + place.len() < CONTEXT_BYTES_MAX {
            if !detail.is_empty() {
                detail.push('\n');
            }
            detail.push_str(place);
        }
        self.0.position = None;
        self.0.value = None;
        self
    }

    /// A clause or statement this release does not have. `what` is a noun phrase that names it.
    pub(crate) fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(sqlstate::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
    }

    pub(crate) fn syntax(message: impl Into<String>) -> Self {
        Self::new(sqlstate::SYNTAX, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(sqlstate::INTERNAL, message)
    }

    pub(crate) fn io(context: impl fmt::Display, source: &std::io::Error) -> Self {
        Self::new(sqlstate::IO, format!("{context}: {source}"))
    }

    /// Adds a detail, replacing one that is there.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Says what to do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Notes the value that is at fault.
    pub(crate) fn with_value(mut self, value: &str) -> Self {
        self.0.value = Some(value.to_owned());
        self
    }

    /// Notes the key that is at fault.
    pub(crate) fn with_key(mut self, columns: Vec<String>, values: String) -> Self {
        self.0.key = Some(FaultyKey { columns, values });
        self
    }

    /// The key that is at fault.
    pub(crate) fn key(&self) -> Option<&FaultyKey> {
        self.0.key.as_ref()
    }

    /// The value that is at fault, as the message shows it.
    pub(crate) fn value(&self) -> Option<&str> {
        self.0.value.as_deref()
    }

    /// Replaces the position.
    pub fn moved_to(mut self, position: Position) -> Self {
        self.0.position = Some(position);
        self
    }

    /// Sets the position unless a more precise one is known already.
    pub fn at(mut self, position: Option<Position>) -> Self {
        self.0.position = self.0.position.or(position);
        self
    }

    pub(crate) fn map_message(mut self, change: impl FnOnce(String) -> String) -> Self {
        self.0.message = change(std::mem::take(&mut self.0.message));
        self
    }

    /// Whether a concurrent transaction is the cause, so that a new snapshot may help.
    pub(crate) fn is_conflict(&self) -> bool {
        self.0.sqlstate == sqlstate::SERIALIZATION_FAILURE
    }

    /// The five-character SQLSTATE.
    pub fn sqlstate(&self) -> &'static str {
        self.0.sqlstate
    }

    /// What went wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The particulars: the offending key, the transaction's state.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Where in the statement, if the error belongs to a place.
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// Whether the same transaction may succeed when it is simply run again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.sqlstate, sqlstate::SERIALIZATION_FAILURE | sqlstate::DEADLOCK)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// As `Display`, with everything else that is known: this is what a failed `unwrap` in a test prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.0.sqlstate, self.0.message)?;
        if let Some(Position { line, column }) = self.0.position {
            write!(f, " (line {line}, column {column})")?;
        }
        if let Some(detail) = &self.0.detail {
            write!(f, "; detail: {detail}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The candidate most like `name`, if one is like it at all: fewer than half of the letters differ.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| distance * 2 < wanted.chars().count().max(candidate.chars().count()).max(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, one row at a time (Wagner and Fischer 1974).
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_found_when_close_and_absent_when_not() {
        assert_eq!(nearest("custmer", ["orders", "customer", "part"]), Some("customer"));
        assert_eq!(nearest("zebra", ["orders", "customer", "part"]), None);
    }

    #[test]
    fn display_is_the_message_alone() {
        let error = Error::unsupported("SAVEPOINT").with_hint("commit in smaller steps");
        assert_eq!(error.to_string(), "SAVEPOINT is not supported");
        assert_eq!(error.sqlstate(), "0A000");
    }
}
