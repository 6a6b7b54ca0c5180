//! What a transaction is promised.

use std::fmt;

/// How far a transaction is kept apart from concurrent ones, weakest first.
///
/// | level | reads | what concurrent transactions can still do to it |
/// |---|---|---|
/// | `ReadCommitted` | each statement on a snapshot of its own | change what it has read before |
/// | `Snapshot` | everything on one snapshot | change what it has read, if nobody writes the same row (write skew) |
/// | `Serializable` | everything on one snapshot, remembered | nothing: some serial order explains all results |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum Isolation {
    /// SQL: READ COMMITTED, and READ UNCOMMITTED, which may be stronger than it sounds.
    ReadCommitted,
    /// SQL: REPEATABLE READ, or SNAPSHOT.
    #[default]
    Snapshot,
    /// SQL: SERIALIZABLE.
    Serializable,
}

impl Isolation {
    /// Whether each statement reads a snapshot of its own.
    pub fn moves_with_statements(self) -> bool {
        self == Isolation::ReadCommitted
    }
}

/// As SHOW prints it.
impl fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Isolation::ReadCommitted => "read committed",
            Isolation::Snapshot => "repeatable read",
            Isolation::Serializable => "serializable",
        })
    }
}
