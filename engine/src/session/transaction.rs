//! The transaction of a session: none, open, or failed.
//!
//! ```text
//!            BEGIN                     a statement fails, or is cancelled while it writes
//!   Idle ───────────► Active ────────────────────────────────────────────► Failed
//!    ▲                  │ COMMIT, ROLLBACK                                    │ COMMIT (= ROLLBACK), ROLLBACK
//!    └──────────────────┴─────────────────────────────────────────────────────┘
//! ```
//!
//! A failed transaction holds nothing any more: its changes were dropped when it failed. Outside a transaction each
//! statement is one of its own.

use rustydb_storage::Transaction;

use crate::error::sqlstate;
use crate::{Error, Result};

/// What a client may want to know about a session's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// None is open; statements commit themselves.
    Idle,
    /// One is open.
    Active,
    /// One is open, and everything but COMMIT and ROLLBACK fails in it.
    Failed,
}

/// The session's transaction with what belongs to it.
#[derive(Debug, Default)]
pub(crate) enum TransactionState {
    #[default]
    Idle,
    Active(OpenTransaction),
    Failed,
}

/// An open transaction.
#[derive(Debug)]
pub(crate) struct OpenTransaction {
    pub(crate) transaction: Transaction,
    pub(crate) read_only: bool,
}

impl OpenTransaction {
    /// Fails with 25006 if the transaction may not change anything.
    pub(crate) fn require_read_write(&self, what: &str) -> Result<()> {
        match self.read_only {
            false => Ok(()),
            true => Err(Error::new(
                sqlstate::READ_ONLY_TRANSACTION,
                format!("cannot execute {what} in a read-only transaction"),
            )),
        }
    }
}

impl TransactionState {
    pub(crate) fn status(&self) -> TransactionStatus {
        match self {
            TransactionState::Idle => TransactionStatus::Idle,
            TransactionState::Active(_) => TransactionStatus::Active,
            TransactionState::Failed => TransactionStatus::Failed,
        }
    }

    /// Fails with 25P02 in a failed transaction.
    pub(crate) fn require_not_failed(&self) -> Result<()> {
        match self {
            TransactionState::Failed => Err(Error::new(
                sqlstate::FAILED_TRANSACTION,
                "the transaction failed: statements are ignored until its end",
            )
            .with_hint("ROLLBACK ends it.")),
            TransactionState::Idle | TransactionState::Active(_) => Ok(()),
        }
    }

    /// After a failed statement: an open transaction is lost.
    pub(crate) fn fail(&mut self) {
        if let TransactionState::Active(_) = self {
            *self = TransactionState::Failed;
        }
    }
}
