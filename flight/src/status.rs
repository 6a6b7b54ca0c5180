//! How an error reaches a client: one gRPC status, made in one place.
//!
//! Every status this crate sends carries the five-letter SQLSTATE twice: readable, in square brackets at the start of
//! the message, and machine-readable, in the response metadata. The rest of an engine error travels the same way.
//!
//! | metadata key | value |
//! |---|---|
//! | `x-sqlstate` | `42P01` |
//! | `x-sql-position` | `LINE:COLUMN`, counted from 1, when the error has a place in the statement |
//! | `x-sql-detail-bin`, `x-sql-hint-bin` | UTF-8 text, when there is any |
//!
//! | SQLSTATE | gRPC status | a client should |
//! |---|---|---|
//! | `07…` `08P01` `22…` `42…` | InvalidArgument | correct the statement, its parameters or the message |
//! | `3D000` `3F000` `42P01` `42703` `42704` `42883` | NotFound | name something that exists |
//! | `26000` `34000` `25P01` `3B001` | NotFound | prepare, execute or begin again: the handle is unknown, ended or expired |
//! | `42P07` `42P06` `42710` `23505` | AlreadyExists | use another name or key |
//! | `42703` `42804` of an ingest that appends | AlreadyExists | send the columns of the table that is there |
//! | `23…` `25…` `2B…` `55…` | FailedPrecondition | change the data or the transaction's state first |
//! | `0A000` | Unimplemented; InvalidArgument when a statement with parameters is prepared | do without |
//! | `40…` `55P03` | Aborted | run the transaction again |
//! | `28…` | Unauthenticated | log in (again) |
//! | `42501` | PermissionDenied | ask for the right |
//! | `53…` `54…` | ResourceExhausted | use less, or raise the limit |
//! | `57014` | Cancelled, or DeadlineExceeded for a timeout | – |
//! | `57…` `08…` | Unavailable | try again later |
//! | `XX001` `XX002` | DataLoss | run `rustydb check`, restore from a backup |
//! | everything else | Internal | report it |

use rustydb_engine::{Error, Position};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

pub(crate) const SQLSTATE: &str = "x-sqlstate";
pub(crate) const POSITION: &str = "x-sql-position";
pub(crate) const DETAIL: &str = "x-sql-detail-bin";
pub(crate) const HINT: &str = "x-sql-hint-bin";

// The whole status travels in HTTP/2 headers, for which gRPC clients accept about 8 KiB (C++, Java) after
// percent-encoding. Messages that quote user input can be of any length, so each part has its share.
const MESSAGE_BYTES_MAX: usize = 1536;
const DETAIL_BYTES_MAX: usize = 512;

/// An error of the front end itself, on its way to becoming a status.
pub(crate) struct Refusal {
    sqlstate: &'static str,
    message: String,
    hint: Option<String>,
}

/// Starts an error of the front end itself; `?` or `.into()` turns it into a [`Status`].
pub(crate) fn refuse(sqlstate: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { sqlstate, message: message.into(), hint: None }
}

impl Refusal {
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        assemble(refusal.sqlstate, &refusal.message, None, None, refusal.hint.as_deref())
    }
}

/// The status for an error of the engine.
pub(crate) fn from_engine(error: &Error) -> Status {
    let status = assemble(error.sqlstate(), error.message(), error.position(), error.detail(), error.hint());
    // Logged here because the client is where the error ends: these three are the server's own trouble.
    if matches!(status.code(), Code::Internal | Code::DataLoss) {
        tracing::error!(sqlstate = error.sqlstate(), "{}", error.message());
    }
    status
}

/// The status for a failure that should not exist: ours, not the client's.
pub(crate) fn internal(what: impl std::fmt::Display) -> Status {
    tracing::error!("{what}");
    refuse("XX000", format!("internal error: {what}")).into()
}

fn assemble(
    sqlstate: &str,
    message: &str,
    position: Option<Position>,
    detail: Option<&str>,
    hint: Option<&str>,
) -> Status {
    let detail = detail.map(|text| shorten(text, DETAIL_BYTES_MAX));
    let hint = hint.map(|text| shorten(text, DETAIL_BYTES_MAX));

    let mut text = format!("[{sqlstate}] {}", shorten(message, MESSAGE_BYTES_MAX));
    let mut metadata = MetadataMap::new();
    if let Ok(value) = MetadataValue::try_from(sqlstate) {
        metadata.insert(SQLSTATE, value);
    }
    if let Some(position) = position {
        text += &position_suffix(position.line, position.column);
        if let Ok(value) = MetadataValue::try_from(format!("{}:{}", position.line, position.column)) {
            metadata.insert(POSITION, value);
        }
    }
    if let Some(detail) = detail {
        text += &detail_suffix(detail);
        metadata.insert_bin(DETAIL, MetadataValue::from_bytes(detail.as_bytes()));
    }
    if let Some(hint) = hint {
        text += &hint_suffix(hint);
        metadata.insert_bin(HINT, MetadataValue::from_bytes(hint.as_bytes()));
    }
    Status::with_metadata(code(sqlstate, message), text, metadata)
}

// The three suffixes are also what the client takes off again to get the bare message back.
pub(crate) fn position_suffix(line: u64, column: u64) -> String {
    format!(" (line {line}, column {column})")
}

pub(crate) fn detail_suffix(detail: &str) -> String {
    format!("\nDetail: {detail}")
}

pub(crate) fn hint_suffix(hint: &str) -> String {
    format!("\nHint: {hint}")
}

/// At most `bytes_max` bytes of `text`, cut between characters.
fn shorten(text: &str, bytes_max: usize) -> &str {
    match text.len() > bytes_max {
        true => &text[..text.floor_char_boundary(bytes_max)],
        false => text,
    }
}

fn code(sqlstate: &str, message: &str) -> Code {
    match sqlstate {
        "3D000" | "3F000" | "42P01" | "42703" | "42704" | "42883" => Code::NotFound,
        "26000" | "34000" | "25P01" | "3B001" => Code::NotFound,
        "42P06" | "42P07" | "42710" | "23505" => Code::AlreadyExists,
        "0A000" => Code::Unimplemented,
        "42501" => Code::PermissionDenied,
        "55P03" => Code::Aborted,
        "08P01" => Code::InvalidArgument,
        // One SQLSTATE for both, as in PostgreSQL; only the words tell a timeout from a cancellation.
        "57014" if message.contains("timeout") => Code::DeadlineExceeded,
        "57014" => Code::Cancelled,
        "XX001" | "XX002" => Code::DataLoss,
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "07" | "22" | "42" => Code::InvalidArgument,
            "23" | "25" | "2B" | "55" => Code::FailedPrecondition,
            "40" => Code::Aborted,
            "28" => Code::Unauthenticated,
            "53" | "54" => Code::ResourceExhausted,
            "08" | "57" => Code::Unavailable,
            _ => Code::Internal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_the_sqlstate_for_people_and_for_programs() {
        let status: Status = refuse("42P01", "table \"t\" does not exist").hint("did you mean \"tt\"?").into();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "[42P01] table \"t\" does not exist\nHint: did you mean \"tt\"?");
        assert_eq!(status.metadata().get(SQLSTATE).expect("sqlstate"), "42P01");
        let hint = status.metadata().get_bin(HINT).expect("hint").to_bytes().expect("base64");
        assert_eq!(&hint[..], "did you mean \"tt\"?".as_bytes());
    }

    #[test]
    fn each_class_maps_to_the_code_a_client_can_act_on() {
        for (sqlstate, message, expected) in [
            ("42601", "syntax", Code::InvalidArgument),
            ("22P02", "bad number", Code::InvalidArgument),
            ("23505", "duplicate", Code::AlreadyExists),
            ("23503", "foreign key", Code::FailedPrecondition),
            ("25P02", "failed transaction", Code::FailedPrecondition),
            ("25P01", "no such transaction", Code::NotFound),
            ("40001", "conflict", Code::Aborted),
            ("57014", "cancelled", Code::Cancelled),
            ("57014", "statement timeout", Code::DeadlineExceeded),
            ("53200", "memory", Code::ResourceExhausted),
            ("58030", "disk", Code::Internal),
            ("XX001", "checksum", Code::DataLoss),
            ("", "nothing", Code::Internal),
        ] {
            assert_eq!(code(sqlstate, message), expected, "{sqlstate} {message}");
        }
    }

    #[test]
    fn a_message_that_quotes_megabytes_still_fits_into_headers() {
        let status: Status = refuse("42601", "ü".repeat(1 << 20)).into();
        assert!(status.message().len() < 2048);
    }
}
