//! Savepoints: a place in a transaction to come back to.
//!
//! What a transaction has changed is shared, immutable state until somebody writes to it, so a savepoint is a handful of
//! `Arc`s, however much was changed. Segments that were staged after a savepoint lose their last owner when the
//! transaction goes back to it, and with it their file.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Transaction, Writes};
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
        }
    }
}

impl Savepoint {
    /// The transaction as it was then. Whatever it did later is forgotten, and must not go on in another value.
    pub fn resume(self) -> Transaction {
        let Savepoint { snapshot, catalog, writes, structure, unchanged } = self;
        Transaction { snapshot, catalog, writes, structure, unchanged }
    }
}
