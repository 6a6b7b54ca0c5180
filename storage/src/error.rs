//! Everything that can go wrong in a store, sorted by what the caller can do about it.

use std::path::PathBuf;

use arrow::error::ArrowError;

/// The result of a storage call.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed storage call. Nothing is half-done when one is returned: a failed statement leaves its transaction as it
/// was, a failed commit leaves the store as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's data: a second row with the same key.
    #[error("duplicate key value violates unique constraint \"{constraint}\" of table \"{table}\": ({columns}) = ({key})",
        columns = columns.join(", "), key = key.join(", "))]
    DuplicateKey {
        /// The table's name.
        table: String,
        /// The constraint's name, `<table>_pkey` for the primary key.
        constraint: String,
        /// The key columns' names.
        columns: Vec<String>,
        /// The offending key, one printed value per key column.
        key: Vec<String>,
    },
    /// The user's data: NULL in a column that forbids it.
    #[error("null value in column \"{column}\" of table \"{table}\" violates not-null constraint")]
    NotNull {
        /// The table's name.
        table: String,
        /// The column's name.
        column: String,
    },
    /// A concurrent transaction was first; run this one again.
    #[error("could not serialize access to table \"{table}\" due to a concurrent change")]
    Conflict {
        /// The table's name.
        table: String,
    },
    /// Together with what others have committed, no serial order would explain what the transaction has read; run it
    /// again.
    #[error("could not serialize access due to read/write dependencies among transactions")]
    Unserializable,
    /// The transaction waited for another that waited for it.
    #[error("deadlock detected: {cycle}")]
    Deadlock {
        /// Who waited for whom.
        cycle: String,
    },
    /// A lock was not granted within the time limit.
    #[error("a lock on table \"{table}\" or a row of it was not granted within lock_timeout")]
    LockTimeout {
        /// The table's name.
        table: String,
    },
    /// Somebody else has the lock, and the caller did not want to wait.
    #[error("could not obtain a lock on table \"{table}\" or a row of it")]
    LockNotAvailable {
        /// The table's name.
        table: String,
    },
    /// A table of that name exists.
    #[error("table \"{schema}.{name}\" already exists")]
    TableExists {
        /// The schema's name.
        schema: String,
        /// The table's name.
        name: String,
    },
    /// A view, sequence or schema of that name exists.
    #[error("\"{name}\" already exists")]
    ObjectExists {
        /// Its name.
        name: String,
    },
    /// The view, sequence or schema is gone or never was.
    #[error("the object does not exist")]
    NoSuchObject,
    /// A sequence has no more values.
    #[error("the sequence has reached its {} value", if *upwards { "highest" } else { "lowest" })]
    SequenceExhausted {
        /// Whether it counts up.
        upwards: bool,
    },
    /// The table is gone or never was.
    #[error("table {0} does not exist")]
    NoSuchTable(String),
    /// Other tables' foreign keys point at the table.
    #[error("cannot drop table \"{table}\" because other objects depend on it: {}", dependents.join(", "))]
    DependentObjects {
        /// The table that was to be dropped.
        table: String,
        /// What depends on it.
        dependents: Vec<String>,
    },
    /// Something this version cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// Another process has the directory open.
    #[error("the database in {path} is in use by another process (its lock file is held)", path = path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{path} is not a RustyDB database: it is not empty and has no FORMAT file", path = path.display())]
    NotADatabase {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a newer release.
    #[error("{path} has format version {found}, this release reads up to {supported}; use a newer rustydb", path = path.display())]
    FutureFormat {
        /// The directory.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// A file does not hold what was written to it.
    #[error("file {file} is damaged: {detail}")]
    Corruption {
        /// The file, relative to the data directory.
        file: String,
        /// What is wrong, and where.
        detail: String,
    },
    /// An earlier write failed; the store only reads until it is opened again.
    #[error(
        "the database accepts no more writes since a write failed ({reason}); reads go on; restart it when the cause is mended"
    )]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// There is no room on the disk for the change, or for rows that are in memory and as many as may be there. Nothing has
    /// happened; when there is room again, changes are accepted again.
    #[error("no more changes are accepted for lack of room: {reason}")]
    NoRoom {
        /// What has been met.
        reason: String,
    },
    /// The store was closed.
    #[error("the database is closed")]
    Closed,
    /// The operating system refused.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The transaction wrote more than it may hold in memory.
    #[error(
        "the transaction holds more than {limit_bytes} bytes of uncommitted row changes; commit in smaller steps or load in bulk (COPY, INSERT … SELECT)"
    )]
    TransactionTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// A compute kernel refused its input.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// A broken promise of our own code, caught before it did harm.
    #[error("internal error in the store: {0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io { context: context.into(), source }
    }

    pub(crate) fn corruption(file: impl Into<String>, detail: impl Into<String>) -> Self {
        Error::Corruption { file: file.into(), detail: detail.into() }
    }

    /// Whether there is not enough room on the disk for what was to be done.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Error::NoRoom { .. } => true,
            Error::Io { source, .. } => is_full(source),
            _ => false,
        }
    }

    /// The same for another who has waited for the same.
    pub(crate) fn for_another(&self) -> Self {
        match self {
            Error::Closed => Error::Closed,
            Error::Poisoned { reason } => Error::Poisoned { reason: reason.clone() },
            Error::NoRoom { reason } => Error::NoRoom { reason: reason.clone() },
            Error::Io { context, source } => {
                let kind = if is_full(source) { std::io::ErrorKind::StorageFull } else { source.kind() };
                Error::io(context.clone(), std::io::Error::new(kind, source.to_string()))
            }
            Error::Internal(detail) => Error::Internal(detail.clone()),
            other => Error::Internal(other.to_string()),
        }
    }

    /// Whether the same transaction may succeed when it is simply run again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Conflict { .. } | Error::Unserializable | Error::Deadlock { .. })
    }
}

/// Whether the system has said so, however often that was wrapped on the way.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    let says_so = |error: &std::io::Error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    if says_so(error) {
        return true;
    }
    let wrapped = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    std::iter::successors(wrapped, |error| error.source())
        .any(|error| error.downcast_ref::<std::io::Error>().is_some_and(says_so))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_full_disk_is_known_however_its_error_is_wrapped() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let object = object_store::Error::Generic { store: "a store", source: Box::new(full()) };
        let other = object_store::Error::Generic { store: "a store", source: "a lease has run out".into() };
        for (error, expected) in [
            (Error::io("writing", full()), true),
            (Error::io("writing", io::Error::other(object)), true),
            (Error::io("writing", io::Error::other(other)), false),
            (Error::io("writing", io::ErrorKind::NotFound.into()), false),
            (Error::NoRoom { reason: "the log cannot grow".into() }, true),
            (Error::Closed, false),
        ] {
            assert_eq!(error.is_disk_full(), expected, "{error}");
            assert_eq!(error.for_another().is_disk_full(), expected, "{error}");
        }
    }
}
