//! First committer wins: may a transaction install its write of one key?
//!
//! The decision needs three facts and nothing else: what the transaction's snapshot showed for the key, what the
//! newest committed state of the key is now, and the snapshot's timestamp.

use crate::Timestamp;

/// What a transaction's snapshot showed for a key when it wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// A row was visible (UPDATE, DELETE, or an INSERT after a DELETE of one's own).
    Present,
    /// No row was visible (INSERT).
    Absent,
}

/// The newest committed state of a key, published or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// A row, written by the commit with this timestamp.
    Live(Timestamp),
    /// No row: never written, or removed.
    Absent,
}

/// The answer of [`judge_write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The write may be installed.
    Proceed,
    /// A concurrent transaction changed or removed the row first: retry the whole transaction (SQLSTATE 40001).
    Conflict,
    /// A concurrent transaction inserted the same key first (SQLSTATE 23505).
    Duplicate,
}

/// Decides one write at commit time.
///
/// | snapshot showed | now | verdict |
/// |---|---|---|
/// | a row | the same row (written at or before the snapshot) | proceed |
/// | a row | a younger row, or none | conflict |
/// | nothing | nothing (also if a row came and went meanwhile) | proceed |
/// | nothing | a row | duplicate |
pub fn judge_write(expectation: Expectation, current: VersionState, snapshot: Timestamp) -> Verdict {
    match (expectation, current) {
        (Expectation::Present, VersionState::Live(written)) if written <= snapshot => Verdict::Proceed,
        (Expectation::Present, _) => Verdict::Conflict,
        (Expectation::Absent, VersionState::Absent) => Verdict::Proceed,
        (Expectation::Absent, VersionState::Live(_)) => Verdict::Duplicate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_proceeds_only_on_the_version_its_snapshot_saw() {
        assert_eq!(judge_write(Expectation::Present, VersionState::Live(7), 7), Verdict::Proceed);
        assert_eq!(judge_write(Expectation::Present, VersionState::Live(8), 7), Verdict::Conflict);
        assert_eq!(judge_write(Expectation::Present, VersionState::Absent, 7), Verdict::Conflict);
    }

    #[test]
    fn an_insert_proceeds_only_where_there_is_no_row() {
        assert_eq!(judge_write(Expectation::Absent, VersionState::Absent, 7), Verdict::Proceed);
        assert_eq!(judge_write(Expectation::Absent, VersionState::Live(9), 7), Verdict::Duplicate);
        assert_eq!(judge_write(Expectation::Absent, VersionState::Live(3), 7), Verdict::Duplicate);
    }
}
