//! The transaction of a session: none, open, or failed.
//!
//! ```text
//!            BEGIN                     a statement fails, or is cancelled while it writes
//!   Idle ───────────► Active ────────────────────────────────────────────► Failed
//!    ▲                  │ ▲  ROLLBACK TO savepoint                           │ │
//!    │                  │ └──────────────────────────────────────────────────┘ │
//!    │                  │ COMMIT, ROLLBACK                                     │ COMMIT (= ROLLBACK), ROLLBACK
//!    └──────────────────┴──────────────────────────────────────────────────────┘
//! ```
//!
//! The store's transaction, and with it the snapshot, begins with the first statement that reads or writes. A failed
//! transaction holds nothing unless it has savepoints; then it is kept, as it was at the last of them. Outside a
//! transaction each statement is one of its own.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustydb_storage::{Isolation, LockWait, Mark, Store, Transaction, TransactionOptions};

use super::settings::Settings;
use crate::dml::foreign_key::DeferredChecks;
use crate::error::sqlstate;
use crate::sql::grammar::transaction::ModeList;
use crate::{Error, Result};

/// Savepoints of one transaction: each costs memory, and nobody needs many.
const SAVEPOINTS_MAX: usize = 10_000;

/// What a client may want to know about a session's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// None is open; statements commit themselves.
    Idle,
    /// One is open.
    Active,
    /// One is open, and everything but COMMIT, ROLLBACK and ROLLBACK TO fails in it.
    Failed,
}

/// What a transaction is allowed and promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(crate) isolation: Isolation,
    pub(crate) read_only: bool,
    pub(crate) deferrable: bool,
}

impl Modes {
    /// These modes, with those that a statement names instead.
    pub(crate) fn with(self, list: ModeList) -> Modes {
        Modes {
            isolation: list.isolation.unwrap_or(self.isolation),
            read_only: list.read_only.unwrap_or(self.read_only),
            deferrable: list.deferrable.unwrap_or(self.deferrable),
        }
    }

    /// What the store is told of them.
    pub(crate) fn options(self, lock_timeout: Option<Duration>) -> TransactionOptions {
        let Modes { isolation, read_only, deferrable } = self;
        TransactionOptions { isolation, read_only, deferrable, lock_wait: LockWait::Wait(lock_timeout) }
    }

    /// Fails with 25006 if the transaction may not change anything.
    pub(crate) fn require_read_write(self, what: &str) -> Result<()> {
        match self.read_only {
            false => Ok(()),
            true => Err(Error::new(
                sqlstate::READ_ONLY_TRANSACTION,
                format!("cannot execute {what} in a read-only transaction"),
            )),
        }
    }
}

/// The session's transaction with what belongs to it.
#[derive(Debug, Default)]
pub(crate) enum TransactionState {
    #[default]
    Idle,
    Active(Box<OpenTransaction>),
    Failed(Box<Frame>),
}

/// An open transaction.
#[derive(Debug)]
pub(crate) struct OpenTransaction {
    /// `None` before its first statement.
    transaction: Option<Transaction>,
    pub(crate) frame: Frame,
}

/// What a transaction has beside its data, and keeps when it fails.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) modes: Modes,
    savepoints: Vec<NamedSavepoint>,
    /// It failed because its client was silent for too long.
    expired: bool,
    /// Tells this transaction from others; going back to a savepoint makes it another.
    identity: Arc<()>,
    /// The transaction while it has failed, for ROLLBACK TO.
    home: Home,
}

/// Where a failed transaction waits.
type Home = Arc<Mutex<Option<Transaction>>>;

#[derive(Debug, Clone)]
struct NamedSavepoint {
    name: String,
    modes: Modes,
    /// `None` before the transaction's first statement.
    mark: Option<Arc<Mark>>,
    saved: Arc<SavedState>,
}

/// What a session has beside the data of its transaction, as it was at a savepoint.
#[derive(Debug)]
pub(super) struct SavedState {
    /// The checks that waited.
    pub(super) deferred: DeferredChecks,
    pub(super) settings: Arc<Settings>,
    /// How many changes SET LOCAL had made.
    pub(super) local: usize,
}

impl OpenTransaction {
    pub(crate) fn new(modes: Modes) -> Self {
        OpenTransaction { transaction: None, frame: Frame::new(modes) }
    }

    /// Whether it has read or written anything.
    pub(crate) fn has_begun(&self) -> bool {
        self.transaction.is_some()
    }

    pub(crate) fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    pub(crate) fn into_transaction(self) -> Option<Transaction> {
        self.transaction
    }

    /// The store's transaction for the next statement: it begins now if it has not yet, and at READ COMMITTED its
    /// snapshot moves.
    pub(crate) async fn begin(&mut self, store: &Store, lock_timeout: Option<Duration>) -> Result<&mut Transaction> {
        let Frame { savepoints, modes, expired: _, identity: _, home: _ } = &mut self.frame;
        let transaction = match &mut self.transaction {
            Some(transaction) => {
                transaction.set_lock_wait(LockWait::Wait(lock_timeout));
                if modes.isolation.moves_with_statements() && !transaction.refresh_at_once()? {
                    Box::pin(transaction.refresh()).await?;
                }
                transaction
            }
            none => {
                // What is READ ONLY since a savepoint may write again when that is gone.
                let read_only = modes.read_only && savepoints.iter().all(|savepoint| savepoint.modes.read_only);
                let options = Modes { read_only, ..*modes }.options(lock_timeout);
                let transaction = none.insert(store.begin_with(options).await);
                // Going back to a savepoint does not move the snapshot.
                savepoints.iter_mut().for_each(|savepoint| savepoint.mark = Some(Arc::new(transaction.mark())));
                transaction
            }
        };
        Ok(transaction)
    }

    /// Changes the modes. The snapshot must not have been taken if that changes what it promises.
    pub(crate) fn set_modes(&mut self, list: ModeList) -> Result<()> {
        let modes = self.frame.modes.with(list);
        let late = |what: &str| {
            Err(Error::new(sqlstate::ACTIVE_TRANSACTION, format!("{what} must be set before the first statement")))
        };
        if self.has_begun() {
            if modes.isolation != self.frame.modes.isolation {
                return late("the isolation level");
            }
            if self.frame.modes.read_only && !modes.read_only {
                return late("READ WRITE");
            }
            if modes.deferrable != self.frame.modes.deferrable {
                return late("[NOT] DEFERRABLE");
            }
        }
        self.frame.modes = modes;
        Ok(())
    }

    pub(super) fn add_savepoint(&mut self, name: String, saved: SavedState) -> Result<()> {
        if self.frame.savepoints.len() >= SAVEPOINTS_MAX {
            let message = format!("a transaction can have {SAVEPOINTS_MAX} savepoints");
            return Err(Error::new(sqlstate::LIMIT_EXCEEDED, message).with_hint("RELEASE those that are done with."));
        }
        let mark = self.transaction.as_mut().map(|transaction| Arc::new(transaction.mark()));
        let (modes, saved) = (self.frame.modes, Arc::new(saved));
        self.frame.savepoints.push(NamedSavepoint { name, modes, mark, saved });
        Ok(())
    }

    /// Forgets a savepoint and those after it; what was done since stays, but for READ ONLY, which was meant up to here.
    pub(crate) fn release(&mut self, name: &str) -> Result<()> {
        let place = self.frame.find(name)?;
        if let (Some(transaction), Some(mark)) = (&mut self.transaction, &self.frame.savepoints[place].mark) {
            transaction.release(Arc::clone(mark));
        }
        self.frame.modes.read_only = self.frame.savepoints[place].modes.read_only;
        self.frame.savepoints.truncate(place);
        Ok(())
    }
}

impl Frame {
    pub(crate) fn new(modes: Modes) -> Self {
        Frame { modes, savepoints: Vec::new(), expired: false, identity: Arc::default(), home: Home::default() }
    }

    /// Takes back what a failed transaction has done since its last savepoint.
    fn undo_to_last_savepoint(&self) {
        if let (Some(transaction), Some(savepoint)) = (self.home.lock().as_mut(), self.savepoints.last()) {
            savepoint.return_to(transaction);
        }
    }

    /// The newest savepoint of this name.
    fn find(&self, name: &str) -> Result<usize> {
        self.savepoints
            .iter()
            .rposition(|savepoint| savepoint.name == name)
            .ok_or_else(|| Error::new(sqlstate::NO_SUCH_SAVEPOINT, format!("savepoint \"{name}\" does not exist")))
    }
}

impl NamedSavepoint {
    fn return_to(&self, transaction: &mut Transaction) {
        if let Some(mark) = &self.mark {
            transaction.undo_to(mark);
            transaction.release_locks_since(mark);
        }
    }
}

/// A transaction at work. If that is given up half way, because it failed or its client went away, one with savepoints goes
/// where ROLLBACK TO finds it, and any other is rolled back.
pub(crate) struct Working {
    transaction: Option<Transaction>,
    home: Option<Home>,
}

impl Working {
    /// One that ends with its statement.
    pub(crate) fn alone(transaction: Transaction) -> Self {
        Working { transaction: Some(transaction), home: None }
    }

    pub(crate) fn into_inner(mut self) -> Transaction {
        self.transaction.take().expect("taken out only here and in drop")
    }
}

impl Deref for Working {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        self.transaction.as_ref().expect("taken out only at its end")
    }
}

impl DerefMut for Working {
    fn deref_mut(&mut self) -> &mut Transaction {
        self.transaction.as_mut().expect("taken out only at its end")
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if let (Some(home), Some(transaction)) = (&self.home, self.transaction.take()) {
            *home.lock() = Some(transaction);
        }
    }
}

/// The transaction a changing statement works in: the session's, or one that is committed when the statement is done.
pub(crate) struct Taken {
    pub(crate) transaction: Working,
    pub(crate) frame: Frame,
    /// Whether it ends with the statement.
    pub(crate) commits: bool,
}

impl TransactionState {
    pub(crate) fn status(&self) -> TransactionStatus {
        match self {
            TransactionState::Idle => TransactionStatus::Idle,
            TransactionState::Active(_) => TransactionStatus::Active,
            TransactionState::Failed(_) => TransactionStatus::Failed,
        }
    }

    /// The modes of the open transaction.
    pub(crate) fn modes(&self) -> Option<Modes> {
        match self {
            TransactionState::Idle => None,
            TransactionState::Active(open) => Some(open.frame.modes),
            TransactionState::Failed(frame) => Some(frame.modes),
        }
    }

    /// The open transaction, if statements can run in it.
    pub(crate) fn open(&mut self) -> Option<&mut OpenTransaction> {
        match self {
            TransactionState::Active(open) => Some(open),
            TransactionState::Idle | TransactionState::Failed(_) => None,
        }
    }

    /// What tells the open transaction from others.
    pub(super) fn identity(&self) -> Option<&Arc<()>> {
        match self {
            TransactionState::Active(open) => Some(&open.frame.identity),
            TransactionState::Idle | TransactionState::Failed(_) => None,
        }
    }

    /// Fails with 25P02 in a failed transaction.
    pub(crate) fn require_not_failed(&self) -> Result<()> {
        match self {
            TransactionState::Failed(frame) if frame.expired => Err(Error::new(
                sqlstate::IDLE_TRANSACTION,
                "the transaction was rolled back: nothing came for longer than idle_in_transaction_session_timeout, or the \
                 server's own limit, allows",
            )
            .with_hint("ROLLBACK ends it; then run it again.")),
            TransactionState::Failed(frame) => {
                let error = Error::new(
                    sqlstate::FAILED_TRANSACTION,
                    "the transaction failed: statements are ignored until its end",
                );
                Err(match frame.savepoints.is_empty() {
                    true => error.with_hint("ROLLBACK ends it."),
                    false => error.with_hint("ROLLBACK ends it; ROLLBACK TO goes back to a savepoint."),
                })
            }
            TransactionState::Idle | TransactionState::Active(_) => Ok(()),
        }
    }

    /// After a failed statement: an open transaction is lost, as far as its last savepoint.
    pub(crate) fn fail(&mut self) {
        if let TransactionState::Active(open) = self {
            let frame = open.frame.clone();
            *frame.home.lock() = open.transaction.take().filter(|_| !frame.savepoints.is_empty());
            *self = TransactionState::Failed(Box::new(frame));
        }
        // A statement that failed while it had the transaction has left it so already, but for its work.
        if let TransactionState::Failed(frame) = self {
            frame.undo_to_last_savepoint();
        }
    }

    /// Rolls an open transaction back because its client is silent. Nothing leads back into it.
    pub(crate) fn expire(&mut self) {
        if let Some(modes) = self.modes() {
            *self = TransactionState::Failed(Box::new(Frame { expired: true, ..Frame::new(modes) }));
        }
    }

    /// Takes the open transaction for a statement that changes it. Until [`give_back`](Self::give_back) the state is
    /// `Failed`, which is what it is if the statement is cancelled half way. `None` if no transaction is open.
    pub(crate) async fn take(&mut self, store: &Store, lock_timeout: Option<Duration>) -> Result<Option<Taken>> {
        let TransactionState::Active(open) = self else { return Ok(None) };
        open.begin(store, lock_timeout).await?;
        let frame = open.frame.clone();
        let TransactionState::Active(open) = std::mem::replace(self, TransactionState::Failed(Box::new(frame))) else {
            return Ok(None);
        };
        let OpenTransaction { transaction, frame } = *open;
        let home = (!frame.savepoints.is_empty()).then(|| Arc::clone(&frame.home));
        Ok(transaction.map(|transaction| {
            let transaction = Working { transaction: Some(transaction), home };
            Taken { transaction, frame, commits: false }
        }))
    }

    pub(crate) fn give_back(&mut self, taken: Taken) {
        let Taken { transaction, frame, commits: _ } = taken;
        let transaction = Some(transaction.into_inner());
        *self = TransactionState::Active(Box::new(OpenTransaction { transaction, frame }));
    }

    /// Goes back to a savepoint, which stays. A failed transaction goes on from there. What the session has beside it
    /// has to go back, too.
    pub(super) fn rollback_to(&mut self, name: &str) -> Result<Arc<SavedState>> {
        let (frame, mut transaction) = match self {
            TransactionState::Idle => return Err(no_transaction("ROLLBACK TO SAVEPOINT")),
            TransactionState::Active(open) => {
                open.frame.find(name)?;
                (&mut open.frame, open.transaction.take())
            }
            TransactionState::Failed(frame) => {
                frame.find(name)?;
                let transaction = frame.home.lock().take();
                (frame.as_mut(), transaction)
            }
        };
        let place = frame.find(name)?;
        frame.savepoints.truncate(place + 1);
        let savepoint = frame.savepoints[place].clone();
        match (&mut transaction, &savepoint.mark) {
            (Some(transaction), Some(_)) => savepoint.return_to(transaction),
            (_, None) => transaction = None,
            (None, Some(_)) => return Err(Error::internal("a transaction with savepoints is gone")),
        }
        let frame = Frame { savepoints: std::mem::take(&mut frame.savepoints), ..Frame::new(savepoint.modes) };
        *self = TransactionState::Active(Box::new(OpenTransaction { transaction, frame }));
        Ok(savepoint.saved)
    }
}

pub(crate) fn no_transaction(what: &str) -> Error {
    Error::new(sqlstate::NO_ACTIVE_TRANSACTION, format!("{what}: no transaction is in progress"))
        .with_hint("BEGIN starts one.")
}
