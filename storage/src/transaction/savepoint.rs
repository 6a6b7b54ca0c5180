//! Savepoints: a place in a transaction to come back to.
//!
//! It may outlive the transaction, so it shares what was changed before it: immutable state, of which the next change makes
//! a copy. Statements and blocks, which end before their transaction does, have [`Mark`](super::Mark)s instead. Segments
//! that were staged after a savepoint lose their last owner when the transaction goes back to it, and with it their file.
//! Locks taken after it are given back; what was read stays read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::mark::UndoLog;
use super::{Control, Transaction, Writes};
use crate::catalog::{Catalog, TableId};
use crate::store::Structure;
use crate::view::Snapshot;

/// The state of a transaction at one moment. It outlives the transaction if need be: see [`Savepoint::resume`].
#[derive(Debug, Clone)]
pub struct Savepoint {
    snapshot: Arc<Snapshot>,
    catalog: Arc<Catalog>,
    writes: Arc<Writes>,
    structure: Structure,
    unchanged: BTreeSet<TableId>,
    control: Control,
    /// How many locks were held.
    locks: usize,
}

impl Transaction {
    /// Remembers the present state.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            snapshot: Arc::clone(&self.snapshot),
            catalog: Arc::clone(&self.catalog),
            writes: Arc::clone(&self.writes),
            structure: self.structure.clone(),
            unchanged: self.unchanged.clone(),
            control: self.control.clone(),
            locks: self.control.lock_count(),
        }
    }
}

impl Savepoint {
    /// The transaction as it was then. Whatever it did later is forgotten, and must not go on in another value.
    pub fn resume(self) -> Transaction {
        self.release_later_locks();
        let Savepoint { snapshot, catalog, writes, structure, unchanged, control, locks: _ } = self;
        let undo = UndoLog::counted_in(snapshot.store.pending_bytes());
        Transaction { snapshot, catalog, writes, structure, unchanged, control, undo }
    }

    /// Gives back the locks that were taken after it: for a transaction that has failed and waits for its end.
    pub fn release_later_locks(&self) {
        self.control.release_to(self.locks);
    }
}
