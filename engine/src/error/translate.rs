//! From the errors of the libraries below to the engine's [`Error`].
//!
//! DataFusion wraps an error in layers (context, diagnostics, shared, arrow's external). The layers are peeled, the
//! position of the outermost diagnostic that has one is kept, and the innermost error is named in PostgreSQL's terms
//! ([`wording`](super::wording) knows the sentences).

use std::error::Error as StdError;
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Diagnostic, SchemaError, TableReference};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, TokenizerError};

use super::{Error, Position, nearest, sqlstate, wording};
use crate::constraints::HIDDEN_PREFIX;

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        from_datafusion(&error)
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        from_arrow(&error)
    }
}

impl From<rustydb_storage::Error> for Error {
    fn from(error: rustydb_storage::Error) -> Self {
        from_storage(&error)
    }
}

impl From<TokenizerError> for Error {
    fn from(error: TokenizerError) -> Self {
        Error::syntax(lower_first(&error.message)).at(position_of(error.location))
    }
}

impl From<ParserError> for Error {
    fn from(error: ParserError) -> Self {
        from_parser(&error)
    }
}

/// So that an engine error can pass through a running DataFusion plan and come out as itself.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

pub(crate) fn position_of(location: Location) -> Option<Position> {
    // Line 0 marks "no place known" in sqlparser.
    (location.line > 0).then_some(Position { line: location.line, column: location.column })
}

fn from_datafusion(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let translated = from_datafusion(inner);
            let hint = translated.hint().is_none().then(|| first_help(diagnostic)).flatten();
            let translated = translated.at(span_position(diagnostic));
            match hint {
                Some(hint) => translated.with_hint(hint),
                None => translated,
            }
        }
        DataFusionError::Context(_, inner) => from_datafusion(inner),
        DataFusionError::Shared(inner) => from_datafusion(inner),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => from_datafusion(first),
            None => Error::internal("the planner reported an empty list of errors"),
        },
        DataFusionError::ArrowError(inner, _) => from_arrow(inner),
        DataFusionError::External(inner) => from_any(inner.as_ref()),
        DataFusionError::SQL(inner, _) => from_parser(inner),
        DataFusionError::SchemaError(inner, _) => from_schema(inner),
        DataFusionError::Plan(message) => wording::of_planner(clean(message)),
        DataFusionError::NotImplemented(message) => wording::of_missing(clean(message)),
        DataFusionError::Configuration(message) => {
            Error::new(sqlstate::INVALID_PARAMETER_VALUE, lower_first(clean(message)))
        }
        DataFusionError::ResourcesExhausted(message) => {
            Error::new(sqlstate::OUT_OF_MEMORY, "the statement needs more memory than the server may use for queries")
                .with_detail(clean(message).lines().map(str::trim).collect::<Vec<_>>().join(" "))
                .with_hint("Raise memory_limit, or let the statement touch fewer rows at a time.")
        }
        DataFusionError::Execution(message) => wording::of_value(clean(message), sqlstate::DATA_EXCEPTION),
        DataFusionError::IoError(inner) => Error::new(sqlstate::IO, inner.to_string()),
        DataFusionError::ObjectStore(inner) => Error::new(sqlstate::IO, inner.to_string()),
        DataFusionError::ParquetError(inner) => Error::new(sqlstate::BAD_COPY_FILE, inner.to_string()),
        DataFusionError::ExecutionJoin(inner) if inner.is_cancelled() => {
            Error::new(sqlstate::QUERY_CANCELED, "the statement was cancelled")
        }
        DataFusionError::ExecutionJoin(_) => Error::internal("a part of the query stopped unexpectedly"),
        DataFusionError::Internal(message) if message.contains("Failed to coerce types") => {
            wording::of_planner(first_sentence(clean(message)))
        }
        DataFusionError::Internal(message) if message.contains("Uncomparable values") => {
            Error::unsupported("a comparison of values of this type")
        }
        DataFusionError::Internal(message) => {
            Error::internal(format!("internal error in the query engine: {}", first_sentence(clean(message))))
        }
        DataFusionError::Substrait(message) | DataFusionError::Ffi(message) => Error::internal(clean(message)),
    }
}

fn from_any(error: &(dyn StdError + Send + Sync + 'static)) -> Error {
    let text = error.to_string();
    if text.contains("regex parse error") {
        return Error::new(sqlstate::INVALID_REGULAR_EXPRESSION, "invalid regular expression")
            .with_detail(clean(&text));
    }
    if let Some(own) = error.downcast_ref::<Error>() {
        own.clone()
    } else if let Some(inner) = error.downcast_ref::<DataFusionError>() {
        from_datafusion(inner)
    } else if let Some(inner) = error.downcast_ref::<Arc<DataFusionError>>() {
        from_datafusion(inner)
    } else if let Some(inner) = error.downcast_ref::<rustydb_storage::Error>() {
        from_storage(inner)
    } else if let Some(inner) = error.downcast_ref::<ArrowError>() {
        from_arrow(inner)
    } else {
        Error::internal(clean(&error.to_string()))
    }
}

fn from_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let relations = || valid_fields.iter().filter_map(|valid| valid.relation.as_ref());
            if let Some(relation) = &field.relation
                && !relations().any(|known| known.table() == relation.table())
            {
                return missing_relation(relation.table(), relations().map(TableReference::table));
            }
            let name = match &field.relation {
                Some(relation) => format!("{relation}.{}", field.name),
                None => field.name.clone(),
            };
            let missing = Error::new(sqlstate::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"));
            match nearest(&field.name, valid_fields.iter().map(|valid| valid.name.as_str())) {
                Some(near) if near == field.name => missing.with_hint(format!(
                    "There is a column \"{near}\" in another table of this statement, which is not visible here under that qualifier."
                )),
                Some(near) => missing.with_hint(format!("Did you mean \"{near}\"?")),
                None => missing,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new(sqlstate::AMBIGUOUS_COLUMN, format!("column reference \"{}\" is ambiguous", field.name))
                .with_hint("Write it with its table's name or alias in front.")
        }
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            let name = qualifier.table();
            Error::new(sqlstate::DUPLICATE_ALIAS, format!("table name \"{name}\" specified more than once"))
                .with_hint("Give the tables different aliases.")
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new(sqlstate::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
                .with_hint("Give the columns different names with AS.")
        }
    }
}

/// A name in front of a column that is no relation's.
fn missing_relation<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::new(sqlstate::UNDEFINED_TABLE, format!("missing FROM-clause entry for table \"{name}\""));
    match nearest(name, known) {
        Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
        None => error,
    }
}

fn from_arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => from_any(inner.as_ref()),
        ArrowError::DivideByZero => Error::new(sqlstate::DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ArithmeticOverflow(message) => {
            Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "the result of a calculation is out of range")
                .with_detail(clean(message))
        }
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::InvalidArgumentError(message)
        | ArrowError::ComputeError(message)
            if names_regular_expression(message) =>
        {
            Error::new(sqlstate::INVALID_REGULAR_EXPRESSION, "invalid regular expression").with_detail(clean(message))
        }
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::InvalidArgumentError(message)
        | ArrowError::ComputeError(message) => wording::of_value(clean(message), sqlstate::DATA_EXCEPTION),
        ArrowError::CsvError(message) | ArrowError::JsonError(message) | ArrowError::ParquetError(message) => {
            Error::new(sqlstate::BAD_COPY_FILE, clean(message))
        }
        ArrowError::NotYetImplemented(message) => wording::of_missing(clean(message)),
        ArrowError::IoError(message, _) => Error::new(sqlstate::IO, clean(message)),
        ArrowError::MemoryError(message) => Error::new(sqlstate::OUT_OF_MEMORY, clean(message)),
        other => Error::internal(strip_prefixes(clean(&other.to_string()))),
    }
}

/// Whether a message is about a regular expression that could not be read.
fn names_regular_expression(message: &str) -> bool {
    ["regex parse error", "did not compile", "egular expression"].iter().any(|part| message.contains(part))
}

/// What a unique index is about: of a hidden column, the expression it holds.
fn shown_keys(columns: &[String]) -> String {
    let shown = columns.iter().map(|column| match column.strip_prefix(HIDDEN_PREFIX) {
        Some(rest) => rest.split_once(": ").map_or(rest, |(_, key)| key),
        None => column,
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn from_storage(error: &rustydb_storage::Error) -> Error {
    use rustydb_storage::Error as Storage;
    let message = error.to_string();
    match error {
        Storage::DuplicateKey { table, constraint, columns, key } => Error::new(
            sqlstate::UNIQUE_VIOLATION,
            format!("duplicate key value violates unique constraint \"{constraint}\" of table \"{table}\""),
        )
        .with_detail(format!("Key ({}) = ({}) already exists.", shown_keys(columns), key.join(", ")))
        .with_key(columns.clone(), key.join(", ")),
        Storage::NotNull { .. } => Error::new(sqlstate::NOT_NULL_VIOLATION, message),
        Storage::Conflict { .. } => Error::new(sqlstate::SERIALIZATION_FAILURE, message)
            .with_hint("Run the transaction again; nothing of it was kept."),
        Storage::Unserializable => Error::new(sqlstate::SERIALIZATION_FAILURE, message)
            .with_hint("The transaction might succeed if it is run again."),
        Storage::Deadlock { cycle } => {
            Error::new(sqlstate::DEADLOCK, "deadlock detected").with_detail(format!("{cycle}.")).with_hint(
                "Run the transaction again; transactions that lock rows in the same order do not meet in circles.",
            )
        }
        Storage::LockTimeout { .. } => Error::new(sqlstate::LOCK_NOT_AVAILABLE, message)
            .with_hint("Another transaction has it; try again when it has ended, or raise lock_timeout."),
        Storage::LockNotAvailable { .. } => Error::new(sqlstate::LOCK_NOT_AVAILABLE, message),
        Storage::TableExists { name, .. } => {
            Error::new(sqlstate::DUPLICATE_TABLE, format!("table \"{name}\" already exists"))
                .with_hint("CREATE TABLE IF NOT EXISTS leaves an existing table as it is.")
        }
        Storage::ObjectExists { .. } => Error::new(sqlstate::DUPLICATE_TABLE, message),
        Storage::NoSuchObject => Error::new(sqlstate::UNDEFINED_OBJECT, message),
        Storage::SequenceExhausted { .. } => Error::new(sqlstate::SEQUENCE_LIMIT, message),
        Storage::NoSuchTable(_) => Error::new(sqlstate::UNDEFINED_TABLE, message),
        Storage::DependentObjects { table, dependents } => Error::new(
            sqlstate::DEPENDENT_OBJECTS,
            format!("cannot drop table \"{table}\" because other tables refer to it"),
        )
        .with_detail(format!("Foreign keys of: {}.", dependents.join(", ")))
        .with_hint("Drop those tables first."),
        Storage::Unsupported(_) => Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message),
        Storage::Locked { .. } => Error::new(sqlstate::OBJECT_IN_USE, message)
            .with_hint("Stop the other process, or connect to it instead of opening its directory."),
        Storage::NotADatabase { .. } => {
            Error::new(sqlstate::IO, message).with_hint("Name an empty or new directory, or one that holds a database.")
        }
        Storage::FutureFormat { .. } => Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message),
        Storage::Corruption { .. } => Error::new(sqlstate::DATA_CORRUPTED, message)
            .with_hint("Run rustydb check on the closed database to see the extent of the damage."),
        Storage::Poisoned { .. } => Error::new(sqlstate::CANNOT_CHANGE_NOW, message),
        full if full.is_disk_full() => Error::new(sqlstate::DISK_FULL, message).with_hint(
            "Make room on the disk, or delete rows, or drop or truncate tables; then writes are accepted again.",
        ),
        Storage::NoRoom { .. } => Error::new(sqlstate::DISK_FULL, message),
        Storage::Closed => Error::new(sqlstate::SHUTDOWN, message),
        Storage::Io { .. } => Error::new(sqlstate::IO, message),
        Storage::TransactionTooLarge { .. } => Error::new(sqlstate::LIMIT_EXCEEDED, message),
        Storage::Arrow(inner) => from_arrow(inner),
        Storage::Internal(_) => Error::internal(message),
    }
}

/// sqlparser glues the place onto the message: "Expected: an expression, found: FROM at Line: 1, Column: 8".
fn from_parser(error: &ParserError) -> Error {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
        ParserError::RecursionLimitExceeded => {
            return Error::new(sqlstate::STATEMENT_TOO_COMPLEX, "the statement is nested too deeply")
                .with_hint("Split it into several statements, or use common table expressions.");
        }
    };
    let (text, position) = match message.rsplit_once(" at Line: ") {
        Some((text, place)) => {
            let mut numbers = place.split(", Column: ").map(|number| number.trim().parse::<u64>().ok());
            match (numbers.next().flatten(), numbers.next().flatten()) {
                (Some(line), Some(column)) => (text, position_of(Location::new(line, column))),
                _ => (message, None),
            }
        }
        None => (message, None),
    };
    // Two spellings, of two functions of the parser.
    let expected = text.strip_prefix("Expected: ").or_else(|| text.strip_prefix("Expected "));
    let text = match expected.and_then(|rest| rest.split_once(", found: ")) {
        Some((expected, "EOF")) => format!("syntax error at the end of the statement: expected {expected}"),
        Some((expected, found)) => format!("syntax error at \"{found}\": expected {expected}"),
        None => format!("syntax error: {}", lower_first(text)),
    };
    Error::syntax(text).at(position)
}

fn span_position(diagnostic: &Diagnostic) -> Option<Position> {
    diagnostic.span.map(|span| Position { line: span.start.line, column: span.start.column })
}

fn first_help(diagnostic: &Diagnostic) -> Option<String> {
    diagnostic.helps.first().map(|help| help.message.clone())
}

/// The message without backtrace and without what library names it carries in front.
fn clean(message: &str) -> &str {
    strip_prefixes(message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(message)).trim_end()
}

pub(super) fn strip_prefixes(mut message: &str) -> &str {
    const PREFIXES: [&str; 14] = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Internal error: ",
        "External error: ",
        "Schema error: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "Optimizer rule failed: ",
        "Invalid or Unsupported Configuration: ",
        "Arithmetic overflow: ",
    ];
    'again: loop {
        for prefix in PREFIXES {
            if let Some(rest) = message.strip_prefix(prefix) {
                message = rest;
                continue 'again;
            }
        }
        return message;
    }
}

/// DataFusion ends internal errors with a request to file a bug in its own tracker: not for our users.
fn first_sentence(message: &str) -> &str {
    message.split(".\nThis issue was likely caused by a bug").next().unwrap_or(message)
}

/// Lower-cases the first letter unless the first word is an acronym or a name ("JOIN", "Int64").
pub(super) fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && (second.is_lowercase() || second == ' ') => {
            let word = message.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            if word.chars().any(|c| c.is_ascii_digit()) {
                return message.to_owned();
            }
            first.to_lowercase().chain(message.chars().skip(1)).collect()
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_peeled_down_to_the_cause() {
        let cause = Error::new(sqlstate::NOT_NULL_VIOLATION, "null value");
        let wrapped = DataFusionError::Context(
            "while optimising".into(),
            Box::new(DataFusionError::ArrowError(
                Box::new(ArrowError::ExternalError(Box::new(DataFusionError::from(cause)))),
                None,
            )),
        );
        assert_eq!(format!("{:?}", Error::from(wrapped)), "[23502] null value");
    }

    #[test]
    fn parser_errors_carry_their_position_apart() {
        let error =
            Error::from(ParserError::ParserError("Expected: an expression, found: FROM at Line: 2, Column: 8".into()));
        assert_eq!(error.message(), "syntax error at \"FROM\": expected an expression");
        assert_eq!(error.position(), Some(Position { line: 2, column: 8 }));
    }

    #[test]
    fn both_spellings_of_what_the_parser_expected_are_read() {
        for spelling in ["Expected: an expression, found: FROM", "Expected an expression, found: FROM"] {
            let error = Error::from(ParserError::ParserError(spelling.into()));
            assert_eq!(error.message(), "syntax error at \"FROM\": expected an expression");
        }
    }

    #[test]
    fn unreadable_text_names_type_and_value() {
        let error = Error::from(ArrowError::CastError("Cannot cast string 'x1' to value of Int32 type".into()));
        assert_eq!(format!("{error:?}"), "[22P02] invalid input syntax for type integer: \"x1\"");
    }
}
