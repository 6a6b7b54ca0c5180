//! Marks: places that a statement, a block or ROLLBACK TO comes back to.
//!
//! Keeping what was changed before would make the next change copy it; with one mark for each statement a transaction of n
//! changes would copy n² rows. So a mark costs nothing beforehand: while one is open, each change notes how to take itself
//! back.
//!
//! ```text
//!   mark a ── change ── mark b ── change ── change ── undo to b ── release b ── release a
//!   log:      [1]                 [1 2]     [1 2 3]   [1]                       []
//! ```
//! Marks nest, and those inside of another one end with it: work that was given up half way leaves some open. Segments that
//! were staged after a mark lose their last owner when the transaction goes back to it, and with it their file. What was
//! read stays read. What is seldom (DDL, bulk loads, a flush that moved the rows which are hidden) is noted by keeping the
//! whole of the pending changes.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::writes::Charge;
use super::{DeferredKeys, PendingRow, Transaction, Writes};
use crate::catalog::{Catalog, IndexId, TableId};
use crate::encoding::Key;
use crate::store::Structure;
use crate::view::Snapshot;

/// Memory a noted change costs beside its key.
const UNDO_BYTES: usize = 80;

/// A place in a transaction, good until it is released or the transaction ends.
#[derive(Debug)]
#[must_use]
pub struct Mark {
    /// How many marks are open with it.
    depth: usize,
    snapshot: Arc<Snapshot>,
    catalog: Arc<Catalog>,
    structure: Structure,
    unchanged: BTreeSet<TableId>,
    deferred: DeferredKeys,
    /// How much was noted, how many bytes of changes there were, how many locks.
    noted: usize,
    bytes: usize,
    locks: usize,
}

impl Transaction {
    /// Opens a mark. What it takes to come back is noted until it is [released](Self::release).
    pub fn mark(&mut self) -> Mark {
        self.undo.open += 1;
        Mark {
            depth: self.undo.open,
            snapshot: Arc::clone(&self.view.snapshot),
            catalog: Arc::clone(&self.view.catalog),
            structure: self.structure.clone(),
            unchanged: self.unchanged.clone(),
            deferred: self.deferred.clone(),
            noted: self.undo.changes.len(),
            bytes: self.view.writes.bytes(),
            locks: self.control.lock_count(),
        }
    }

    /// Takes back what was done since an open mark, and keeps the locks. The mark stays; those inside of it end.
    pub fn undo_to(&mut self, mark: &Mark) {
        self.undo.open = mark.depth;
        self.undo.take_back(mark.noted, &mut self.view.writes);
        // A copy only if somebody still reads what was taken back.
        if self.view.writes.bytes() != mark.bytes {
            Arc::make_mut(&mut self.view.writes).set_bytes(mark.bytes);
        }
        // The commit need not know of tables of which nothing is left, nor could it find those that were created since the mark.
        if self.view.writes.has_unchanged() {
            Arc::make_mut(&mut self.view.writes).forget_unchanged();
        }
        self.view.snapshot = Arc::clone(&mark.snapshot);
        self.view.catalog = Arc::clone(&mark.catalog);
        self.structure = mark.structure.clone();
        self.unchanged = mark.unchanged.clone();
        self.deferred = mark.deferred.clone();
    }

    /// Forgets all that was done, and keeps the locks: for a transaction that is run again from its beginning. No mark is
    /// open.
    pub fn restart(&mut self) {
        self.view.catalog = Arc::clone(&self.view.snapshot.version.catalog);
        self.view.writes = Arc::new(Writes::counted_in(self.view.snapshot.store.pending_bytes()));
        self.structure = Structure::default();
        self.began = None;
        self.unchanged.clear();
        self.deferred = DeferredKeys::default();
    }

    /// Gives back the locks that were taken since a mark.
    pub fn release_locks_since(&self, mark: &Mark) {
        self.control.release_to(mark.locks);
    }

    /// Closes a mark, and those inside of it: what was done since stays.
    pub fn release(&mut self, mark: impl Borrow<Mark>) {
        self.undo.open = mark.borrow().depth.saturating_sub(1);
        if self.undo.open == 0 {
            self.undo.changes.clear();
            self.undo.charge.set(0);
        }
    }
}

/// What takes the changes since the oldest open mark back, the latest last.
#[derive(Debug)]
pub(crate) struct UndoLog {
    open: usize,
    changes: Vec<Change>,
    charge: Charge,
}

#[derive(Debug)]
enum Change {
    /// The pending state of a key as it was.
    Row { table: TableId, key: Key, before: Option<PendingRow> },
    /// An entry of an index as it was.
    Entry { table: TableId, index: IndexId, entry: Box<[u8]>, before: Option<u32> },
    /// A row of a segment that was not hidden.
    Hidden { table: TableId, segment: u64, row: u32 },
    /// Everything as it was.
    All(Arc<Writes>),
}

impl Change {
    fn bytes(&self) -> usize {
        UNDO_BYTES
            + match self {
                Change::Row { key, .. } => key.len(),
                Change::Entry { entry, .. } => entry.len(),
                Change::Hidden { .. } | Change::All(_) => 0,
            }
    }
}

impl UndoLog {
    pub(super) fn counted_in(total: &Arc<AtomicUsize>) -> UndoLog {
        UndoLog { open: 0, changes: Vec::new(), charge: Charge::counted_in(total) }
    }

    fn note(&mut self, change: Change) {
        self.charge.add(change.bytes());
        self.changes.push(change);
    }

    pub(super) fn note_row(&mut self, table: TableId, key: &[u8], before: Option<&PendingRow>) {
        if self.open > 0 {
            self.note(Change::Row { table, key: key.into(), before: before.cloned() });
        }
    }

    pub(super) fn note_entry(
        &mut self,
        table: TableId,
        index: IndexId,
        entry: &[u8],
        before: impl FnOnce(&[u8]) -> Option<u32>,
    ) {
        if self.open > 0 {
            self.note(Change::Entry { table, index, entry: entry.into(), before: before(entry) });
        }
    }

    pub(super) fn note_hidden(&mut self, table: TableId, segment: u64, row: u32) {
        if self.open > 0 {
            self.note(Change::Hidden { table, segment, row });
        }
    }

    pub(super) fn note_all(&mut self, writes: &Arc<Writes>) {
        if self.open > 0 {
            self.note(Change::All(Arc::clone(writes)));
        }
    }

    fn take_back(&mut self, noted: usize, writes: &mut Arc<Writes>) {
        while self.changes.len() > noted {
            let Some(change) = self.changes.pop() else { return };
            self.charge.set(self.charge.bytes().saturating_sub(change.bytes()));
            match change {
                Change::Row { table, key, before } => {
                    let rows = &mut Arc::make_mut(writes).table_mut(table).rows;
                    match before {
                        Some(before) => drop(rows.insert(key, before)),
                        None => drop(rows.remove(&*key)),
                    }
                }
                Change::Entry { table, index, entry, before } => {
                    let entries = Arc::make_mut(writes).table_mut(table).entries.entry(index).or_default();
                    match before {
                        Some(length) => drop(entries.insert(entry, length)),
                        None => drop(entries.remove(&entry)),
                    }
                }
                Change::Hidden { table, segment, row } => {
                    let removed = &mut Arc::make_mut(writes).table_mut(table).removed;
                    if let Some(rows) = removed.get_mut(&segment) {
                        rows.remove(row);
                        if rows.is_empty() {
                            removed.remove(&segment);
                        }
                    }
                }
                Change::All(before) => *writes = before,
            }
        }
    }
}
