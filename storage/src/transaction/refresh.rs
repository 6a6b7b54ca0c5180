//! The moves of a transaction's snapshot, with its pending changes on top.
//!
//! At READ COMMITTED each statement sees what was committed before it, and a statement that has met a concurrent change runs
//! again on a newer snapshot. Pending changes go by keys, so they stay; but they know where the rows were that they replace,
//! and a flush or a compaction may have moved those. As long as the store has kept its shape there is nothing to do, and a
//! snapshot moves without waiting; otherwise the rows are looked for, for which keys may have to be loaded.

use std::sync::Arc;

use roaring::RoaringBitmap;

use super::{TableWrites, Transaction, Writes};
use crate::catalog::{TableDef, TableId};
use crate::error::{Error, Result};
use crate::id_map::IdMap;
use crate::store::Place;
use crate::view::{ReadView, Snapshot};

impl Transaction {
    /// Moves the snapshot to the newest committed state; own changes stay. Does nothing where that would mix tables as
    /// they are now with tables this transaction has changed, or with rows it has put into them. A transaction that has locked something sees commits that
    /// are not durable yet.
    pub async fn refresh(&mut self) -> Result<()> {
        if let Some(newest) = self.newer_snapshot() {
            let rebased = Box::pin(self.rebased(&newest)).await?;
            self.move_to(newest, rebased);
        }
        Ok(())
    }

    /// The same if nothing has to be loaded for it. `false`: something has, and nothing has happened.
    pub fn refresh_at_once(&mut self) -> Result<bool> {
        let Some(newest) = self.newer_snapshot() else { return Ok(true) };
        let Some(rebased) = self.rebased_at_once(&newest)? else { return Ok(false) };
        self.move_to(newest, rebased);
        Ok(true)
    }

    /// The newest snapshot, if that is another and the transaction may move to it.
    fn newer_snapshot(&self) -> Option<Arc<Snapshot>> {
        let (newest, present) = (self.open_newest(), &self.view.snapshot);
        let moved = newest.timestamp != present.timestamp || !Arc::ptr_eq(&newest.version, &present.version);
        (moved && self.may_move_to(&newest)).then(|| Arc::new(newest))
    }

    fn may_move_to(&self, newest: &Snapshot) -> bool {
        self.same_catalog(newest) || (self.structure.is_empty() && self.has_rows_for(newest))
    }

    /// Whether [`refresh`](Self::refresh) can show something newer: if not, running a statement again is of no use.
    pub fn may_refresh(&self) -> bool {
        self.may_move_to(&self.open_newest())
    }

    fn move_to(&mut self, newest: Arc<Snapshot>, rebased: Arc<Writes>) {
        if self.has_writes() {
            self.began.get_or_insert(self.view.snapshot.timestamp);
        }
        if !Arc::ptr_eq(&rebased, &self.view.writes) {
            self.undo.note_all(&self.view.writes);
            self.view.writes = rebased;
        }
        if self.structure.is_empty() {
            self.view.catalog = Arc::clone(&newest.version.catalog);
        }
        self.view.snapshot = newest;
    }

    /// The newest committed state with this transaction's changes, whatever its snapshot is: for checks that must know
    /// of everything, such as foreign keys.
    ///
    /// # Errors
    /// `Conflict` if others have changed tables meanwhile and this transaction, too.
    pub async fn newest_view(&self) -> Result<ReadView> {
        let newest = Arc::new(self.view.snapshot.store.open_applied_snapshot());
        if let Some(locks) = &self.control.locks {
            locks.note_seen(newest.timestamp);
        }
        let catalog = match self.structure.is_empty() {
            true => Arc::clone(&newest.version.catalog),
            false if self.same_catalog(&newest) => Arc::clone(&self.view.catalog),
            false => return Err(Error::Conflict { table: "(the catalog)".to_owned() }),
        };
        let writes = self.rebased(&newest).await?;
        Ok(ReadView { snapshot: newest, catalog, writes, serial: None, tables: None })
    }

    fn open_newest(&self) -> Snapshot {
        let store = &self.view.snapshot.store;
        match self.control.locks {
            Some(_) => store.open_applied_snapshot(),
            None => store.open_snapshot(),
        }
    }

    fn same_catalog(&self, newest: &Snapshot) -> bool {
        Arc::ptr_eq(&newest.version.catalog, &self.view.snapshot.version.catalog)
    }

    /// Whether the tables with pending rows are in another snapshot what they were when the rows were compared with them. If they
    /// are not, the commit has to see the difference, and does so as long as the snapshot is the one before it.
    fn has_rows_for(&self, newest: &Snapshot) -> bool {
        let (before, after) = (&self.view.snapshot.version.catalog, &newest.version.catalog);
        let indexes = |table: &TableDef| table.indexes.iter().map(|index| (index.id, index.unique)).collect::<Vec<_>>();
        self.view.writes.changed_tables().all(|table| {
            before.table(table).zip(after.table(table)).is_some_and(|(then, now)| {
                let own = self.view.writes.table(table);
                let may_end = |reference| own.is_some_and(|own| own.may_end(now, reference));
                (Arc::ptr_eq(then, now) || (then.accepts_the_same_rows(now) && indexes(then) == indexes(now)))
                    && !after.new_references(before, table).any(may_end)
            })
        })
    }

    /// The pending changes on top of another snapshot: a flush or a compaction may have moved the rows they hide.
    async fn rebased(&self, newest: &Snapshot) -> Result<Arc<Writes>> {
        let mut writes = Arc::clone(&self.view.writes);
        if self.stays_in_place(newest) {
            return Ok(writes);
        }
        for (table, own) in self.view.writes.tables() {
            let keys = own.replaced_keys();
            let _pins = newest.version.load_keys(table, keys.iter().copied()).await?;
            rebase_table(newest, table, own, &keys, &mut writes)?;
        }
        Ok(writes)
    }

    /// The same if the keys are in memory.
    fn rebased_at_once(&self, newest: &Snapshot) -> Result<Option<Arc<Writes>>> {
        let mut writes = Arc::clone(&self.view.writes);
        if self.stays_in_place(newest) {
            return Ok(Some(writes));
        }
        for (table, own) in self.view.writes.tables() {
            let keys = own.replaced_keys();
            let Some(_pins) = newest.version.pin_keys(table, keys.iter().copied()) else { return Ok(None) };
            rebase_table(newest, table, own, &keys, &mut writes)?;
        }
        Ok(Some(writes))
    }

    /// Whether the rows under the pending changes are where they were: their keys are locked, so only a flush or a
    /// compaction moves them.
    fn stays_in_place(&self, newest: &Snapshot) -> bool {
        Arc::ptr_eq(&newest.version, &self.view.snapshot.version)
    }
}

/// Puts the pending changes of a table on top of another snapshot. The key indexes are pinned.
fn rebase_table(
    newest: &Snapshot,
    table: TableId,
    own: &TableWrites,
    replaced_keys: &[&[u8]],
    writes: &mut Arc<Writes>,
) -> Result<()> {
    let is_staged = |id: &u64| own.staged.iter().any(|segment| segment.meta.id == *id);
    let staged = own.removed.iter().filter(|(id, _)| is_staged(id));
    let mut removed: IdMap<u64, RoaringBitmap> = staged.map(|(id, rows)| (*id, rows.clone())).collect();
    let mut places = Vec::with_capacity(replaced_keys.len());
    for key in replaced_keys {
        let place = newest.version.locate(table, key, newest.timestamp)?.map(|located| located.place);
        if let Some(Place::Segment(segment, row)) = &place {
            removed.entry(segment.meta.id).or_default().insert(*row);
        }
        places.push(place);
    }
    let moved = Arc::make_mut(writes).table_mut(table);
    moved.removed = removed;
    let replaced = moved.rows.values_mut().filter_map(|pending| pending.replaced.as_mut());
    for (replaced, place) in replaced.zip(places) {
        // A row that is gone is told by the commit.
        *replaced = place.unwrap_or_else(|| replaced.clone());
    }
    Ok(())
}
