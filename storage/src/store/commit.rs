//! How changes become visible and durable.
//!
//! ```text
//!   encode ─▶ validate ─▶ ┌ sequencer ──────────────────────┐ ─▶ apply ─▶ wait ─▶ answer
//!      no lock            │ still valid? timestamp, log queue│   no lock    │
//!                         └─────────────────────────────────┘              │ published: this and all earlier ones
//!   log thread ─────────────────────▶ write, sync ─────────────────────────┘ are applied and durable
//! ```
//! Any number of row commits go through this at the same time; only the box is one at a time, a fraction of a microsecond
//! each. What must hold, and why it does:
//!
//! * *A commit is decided on all that was committed before it.* It is validated against what is in place, or was by its own
//!   statements against its snapshot, and
//!   [`sequencer`](super::sequencer) makes sure that no commit missing there writes a key or a unique value of it. Coarser
//!   guards (tables that must not have changed, serializability) are decided in the box itself.
//! * *Versions of one key are applied in the order of their timestamps*, because the later of two commits of a key is not
//!   admitted before the earlier one is in place. Row locks make such meetings rare; nothing rests on them.
//! * *A snapshot sees all of a commit or nothing.* Applied versions carry a timestamp that is not published yet; it is
//!   published when the last row is in place (`publication.rs`). A later committer does see them, and loses against them.
//! * *The store keeps its shape while rows are put into it.* From validating to having applied, a commit shares the
//!   [`Committer`]'s lock; freezing the memtable, installing segments, and commits that change tables or bring segments
//!   take it alone and so find nobody half-way.
//! * *A caller may go away at any time.* Between entering the box and having applied there is no await, and then the
//!   commit needs nobody any more. Before, nothing has happened.
//! * *A full disk undoes nothing.* Whoever is in the box has room in the log for its record, or leaves without a place in the
//!   order. It then waits outside for the room and is validated anew; if there will be none, it fails, and nothing has happened.
//!   Nothing of the store is locked meanwhile, unless others took the room each time: then it keeps the store for itself.
//!
//! Commits that change the structure cannot be hidden by timestamps alone; they have the store to themselves until they
//! are durable, in a task of their own.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use rustydb_txn::Timestamp;

use super::publication::{End, Held};
use super::sequencer::{Admission, Footprint, Window, footprint, hash};
use super::validate::name_of;
use super::{Inner, Place, Version};
use crate::catalog::{Catalog, TableDef, TableId, TableRecord};
use crate::encoding::Key;
use crate::error::{Error, Result};
use crate::index::unique_value;
use crate::locks::{ReleasedLocks, TransactionLocks};
use crate::log::{AddedSegment, Claim, Frame, Lsn, Operation, RecordWriter};
use crate::manifest::Manifest;
use crate::memtable::{Horizon, TableMemtable};
use crate::objects::ObjectChanges;
use crate::segment::{Base64, Pins};
use crate::serial::SerialTransaction;
use crate::transaction::{Durability, TableWrites, Writes};
use crate::view::Snapshot;

/// Tells the hashes of values in an index from those of a table's keys.
const INDEX_SPACE: u64 = 1 << 63;

/// At so many times the size at which it is written out, the memtable takes no more before the flush has caught up.
const FULLNESS_MAX: f64 = 2.0;

/// The same for commits that only remove rows, while the disk is full.
const FULLNESS_MAX_REMOVING: f64 = 4.0;

/// After so many validations that did not hold, or so much room that others have taken, a commit takes the store for itself: it
/// may be so large that others would always come first.
const VALIDATIONS_MAX: usize = 3;

/// Tables created, dropped and altered by a transaction.
#[derive(Debug, Default, Clone)]
pub(crate) struct Structure {
    pub(crate) created: Vec<Arc<TableDef>>,
    pub(crate) dropped: Vec<Arc<TableDef>>,
    /// Views, sequences and the like.
    pub(crate) objects: ObjectChanges,
    /// New definitions of tables that stay.
    pub(crate) altered: Vec<Arc<TableDef>>,
}

impl Structure {
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty() && self.dropped.is_empty() && self.altered.is_empty() && self.objects.is_empty()
    }
}

/// A transaction that wants to commit.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) snapshot: Arc<Snapshot>,
    /// All that its statements have found is so as of this moment, or was found later: the timestamp of the oldest snapshot
    /// that it has written on.
    pub(crate) judged: Timestamp,
    pub(crate) writes: Arc<Writes>,
    pub(crate) structure: Structure,
    pub(crate) unchanged: BTreeSet<TableId>,
    pub(crate) serial: Option<Arc<SerialTransaction>>,
    /// Kept until the commit and all before it are in place, even if its caller goes away before.
    pub(crate) locks: Option<Arc<TransactionLocks>>,
}

/// The shape of the store. Shared by commits of rows while they put these in place; whoever changes the shape has it alone.
#[derive(Debug)]
pub(super) struct Committer {
    /// The newest durable manifest.
    pub(super) manifest: Manifest,
    /// Whether tables or segments changed since that manifest.
    pub(super) structure_changed: bool,
}

impl Committer {
    /// With the newest manifest and the number of the log file being written.
    pub(super) fn new(manifest: Manifest, log_number: u64) -> Self {
        let structure_changed = manifest.log_start != log_number;
        Committer { manifest, structure_changed }
    }
}

/// What gives commits their order; locked for the moment in which one gets its place.
#[derive(Debug)]
pub(super) struct Sequencer {
    window: Window,
    /// The newest commit that changed each table since the store was opened, by table.
    last_change: Vec<(TableId, Timestamp)>,
}

impl Sequencer {
    /// The order continues after a recovered history.
    pub(super) fn after(last: Timestamp) -> Self {
        Sequencer { window: Window::after(last), last_change: Vec::new() }
    }

    /// For each of these tables, whether a commit changed it after `timestamp`.
    pub(super) fn changed_since(&self, tables: impl Iterator<Item = TableId>, timestamp: Timestamp) -> Vec<bool> {
        let last = |table: TableId| self.last_change.binary_search_by_key(&table, |(table, _)| *table);
        tables.map(|table| last(table).is_ok_and(|at| self.last_change[at].1 > timestamp)).collect()
    }

    fn note_change(&mut self, table: TableId, timestamp: Timestamp) {
        match self.last_change.binary_search_by_key(&table, |(table, _)| *table) {
            Ok(at) => self.last_change[at].1 = timestamp,
            Err(at) => self.last_change.insert(at, (table, timestamp)),
        }
    }

    /// Fails if a table changed that the transaction wants as its snapshot shows it.
    fn require_unchanged(&self, commit: &Commit) -> Result<()> {
        let changed = self.changed_since(commit.unchanged.iter().copied(), commit.snapshot.timestamp);
        match commit.unchanged.iter().zip(changed).find(|(_, changed)| *changed) {
            Some((table, _)) => Err(Error::Conflict { table: name_of(commit, *table) }),
            None => Ok(()),
        }
    }
}

/// The place of a commit in the order.
struct Ordered {
    timestamp: Timestamp,
    watermark: Timestamp,
    lsn: Lsn,
}

/// What becomes of a commit that wants its place in the order.
enum Turn {
    Come(Ordered),
    /// Another commit must be in place first.
    After(Timestamp, Frame),
    /// The log has no room for its record yet.
    NoRoom(Frame),
}

impl Commit {
    fn is_structural(&self) -> bool {
        !self.structure.is_empty() || self.writes.has_staged()
    }

    fn row_keys(writes: &TableWrites) -> impl Iterator<Item = &[u8]> + Clone {
        writes.rows.keys().map(|key| &**key)
    }

    /// Whether it leaves less than there was.
    fn only_removes(&self) -> bool {
        !self.writes.has_staged()
            && self.writes.tables().all(|(_, writes)| writes.rows.values().all(|pending| pending.row.is_none()))
    }

    /// How much of the room in the log it may have.
    fn claim(&self) -> Claim {
        let Structure { created: _, dropped, objects, altered: _ } = &self.structure;
        let takes_away = !dropped.is_empty() || objects.values().any(Option::is_none);
        match self.only_removes() && (self.structure.is_empty() || takes_away) {
            true => Claim::Last,
            false => Claim::Ordinary,
        }
    }

    /// Pins everything that deciding and applying the commit will look at, if it is in memory.
    fn pin_keys(&self, version: &Version) -> Result<Option<Pins>> {
        let mut pins = Pins::default();
        for (table, writes) in self.writes.tables() {
            let Some(keys) = version.pin_keys(table, Self::row_keys(writes)) else { return Ok(None) };
            pins.extend(keys);
            for (definition, position, values) in unique_values(version, table, writes)? {
                let Some(postings) = version.pin_postings(definition, position, &values)? else { return Ok(None) };
                pins.extend(postings);
            }
        }
        Ok(Some(pins))
    }

    /// Brings it into memory and pins it.
    async fn load_keys(&self, version: &Version) -> Result<Pins> {
        let mut pins = Pins::default();
        for (table, writes) in self.writes.tables() {
            pins.extend(version.load_keys(table, Self::row_keys(writes)).await?);
            for (definition, position, values) in unique_values(version, table, writes)? {
                pins.extend(version.load_postings(definition, position, &values).await?);
            }
        }
        Ok(pins)
    }

    /// What others must not have written meanwhile.
    fn footprint(&self, version: &Version) -> Result<Footprint> {
        let mut hashes = Vec::new();
        for (table, writes) in self.writes.tables() {
            let written = writes.rows.iter().filter(|(_, pending)| pending.changes_anything());
            hashes.extend(written.map(|(key, _)| hash(table.0, key)));
            for (definition, position, values) in unique_values(version, table, writes)? {
                let space = definition.indexes[position].id.0 | INDEX_SPACE;
                hashes.extend(values.iter().map(|value| hash(space, value)));
            }
        }
        Ok(footprint(hashes))
    }

    /// The record, but for its timestamp.
    fn encode(&self) -> Result<Frame> {
        Frame::new(|payload| {
            payload.reserve(self.writes.bytes());
            let mut record = RecordWriter::new(payload, 0);
            for table in &self.structure.dropped {
                record.write(&Operation::DropTable(table.id))?;
            }
            for table in &self.structure.created {
                record.write(&Operation::CreateTable(Box::new(TableRecord::from(table.as_ref()))))?;
            }
            for (id, _) in self.structure.objects.iter().filter(|(_, object)| object.is_none()) {
                record.write(&Operation::DropObject(*id))?;
            }
            for object in self.structure.objects.values().flatten() {
                record.write(&Operation::PutObject(Box::new(object.as_ref().clone())))?;
            }
            for table in &self.structure.altered {
                record.write(&Operation::AlterTable(Box::new(TableRecord::from(table.as_ref()))))?;
            }
            for (table, writes) in self.writes.tables() {
                for (key, pending) in &writes.rows {
                    match (&pending.row, &pending.replaced) {
                        (Some(row), _) => record.write(&Operation::Put { table, row })?,
                        (None, Some(_)) => record.write(&Operation::Delete { table, key })?,
                        (None, None) => {}
                    }
                }
                // After the rows: a key may be deleted first and then loaded.
                for segment in &writes.staged {
                    let deleted = Base64(serialize(writes.removed.get(&segment.meta.id))?);
                    let added = AddedSegment { meta: segment.meta.clone(), deleted };
                    record.write(&Operation::AddSegment(Box::new(added)))?;
                }
            }
            record.finish()
        })
    }
}

/// A table, the position of one of its unique indexes, and values in it.
type UniqueValues<'a> = (&'a TableDef, usize, Vec<Vec<u8>>);

/// The values of pending rows in each unique index of their table, as the store defines it now. None if the table is
/// gone or does not exist yet.
fn unique_values<'a>(version: &'a Version, table: TableId, writes: &TableWrites) -> Result<Vec<UniqueValues<'a>>> {
    let Some(definition) = version.catalog.table(table) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (position, index) in definition.indexes.iter().enumerate().filter(|(_, index)| index.unique) {
        let codec = definition.codec()?;
        let rows = writes.rows.values().filter_map(|pending| pending.row.as_deref());
        let values = rows.map(|row| unique_value(index, &codec.indexes[position], &codec.rows, row));
        all.push((definition.as_ref(), position, values.filter_map(Result::transpose).collect::<Result<_>>()?));
    }
    Ok(all)
}

/// A bitmap as bytes; empty for none.
pub(super) fn serialize(rows: Option<&RoaringBitmap>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(rows) = rows.filter(|rows| !rows.is_empty()) {
        rows.serialize_into(&mut bytes).map_err(|error| Error::Internal(format!("encoding a delete set: {error}")))?;
    }
    Ok(bytes)
}

/// Marks a row as replaced or removed where it is, unless that is the active memtable, where its next version says so.
fn end_row(version: &Version, table: TableId, key: &[u8], place: Place, timestamp: Timestamp, watermark: Timestamp) {
    match place {
        Place::Segment(segment, row) => segment.deletes.add(row, timestamp, watermark),
        Place::Frozen => version.frozen.iter().for_each(|frozen| frozen.supersede(table, key, timestamp)),
        Place::Active => {}
    }
}

/// Poisons the store unless the commit was applied in the end: it is in the log, and readers would wait for it for ever.
struct Applying<'a> {
    store: &'a Inner,
    timestamp: Timestamp,
    done: bool,
}

impl Applying<'_> {
    /// Lets the locks go as soon as nobody can miss the commit who gets them.
    fn finish(mut self, locks: Option<Arc<TransactionLocks>>) {
        self.done = true;
        self.store.publication.apply(self.timestamp, locks.map(|locks| Arc::new(ReleasedLocks(locks)) as Held));
    }
}

impl Drop for Applying<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.store.log.poison(&format!("commit {} was logged and could not be put in place", self.timestamp));
        }
    }
}

impl Inner {
    /// Commits a transaction that has changes.
    pub(crate) async fn commit(self: &Arc<Self>, commit: Commit, durability: Durability) -> Result<Timestamp> {
        self.check_open()?;
        self.wait_for_room(&commit).await?;
        if commit.is_structural() {
            let store = Arc::clone(self);
            let task = tokio::spawn(async move { store.commit_structure(commit).await });
            return task.await.map_err(|error| Error::Internal(format!("committing: {error}")))?;
        }
        let timestamp = self.commit_rows(commit, durability).await?;
        self.request_flush_if_full();
        self.until_published(timestamp).await?;
        Ok(timestamp)
    }

    /// Waits until a commit is visible, and so is every one before it.
    pub(crate) async fn until_published(&self, timestamp: Timestamp) -> Result<()> {
        self.publication.wait(timestamp).await.map_err(|end| match end {
            End::Poisoned(reason) => Error::Poisoned { reason: reason.to_string() },
            End::Closed => Error::Closed,
        })
    }

    /// Logs row changes and puts them in place. Returns their timestamp, which is not published yet.
    async fn commit_rows(&self, commit: Commit, durability: Durability) -> Result<Timestamp> {
        let mut frame = commit.encode()?;
        let claim = commit.claim();
        let (mut alone, mut times_without_room, mut _loaded) = (false, 0, Pins::default());
        'shape: loop {
            let (shared, only) = match alone {
                false => (Some(self.committer.read().await), None),
                true => (None, Some(self.committer.write().await)),
            };
            let version = self.current.load_full();
            let mut footprint = commit.footprint(&version)?;
            // If the store still has the shape that the statements saw, they have validated everything.
            let mut judged = Arc::ptr_eq(&version, &commit.snapshot.version).then_some(commit.judged);
            for _ in 0..=VALIDATIONS_MAX {
                let (seen, places) = match judged.take() {
                    Some(judged) => (judged, None),
                    None => {
                        let Some(_pins) = commit.pin_keys(&version)? else {
                            drop((shared, only));
                            _loaded = Box::pin(commit.load_keys(&version)).await?;
                            continue 'shape;
                        };
                        (self.publication.applied(), Some(self.validate(&commit, &version)?))
                    }
                };
                match self.admit(&commit, seen, &mut footprint, frame, claim, durability)? {
                    Turn::Come(ordered) => {
                        let applying = Applying { store: self, timestamp: ordered.timestamp, done: false };
                        let locks = commit.locks.clone();
                        self.apply_rows(commit, &version, &version.catalog, &ordered, places)?;
                        applying.finish(locks);
                        return Ok(ordered.timestamp);
                    }
                    Turn::After(other, refused) => {
                        frame = refused;
                        self.until_applied(other)?;
                    }
                    Turn::NoRoom(refused) if alone => {
                        frame = refused;
                        // Nobody else takes it meanwhile.
                        Box::pin(self.log.make_room(frame.len(), claim)).await?;
                    }
                    Turn::NoRoom(refused) => {
                        frame = refused;
                        drop((shared, only));
                        Box::pin(self.log.make_room(frame.len(), claim)).await?;
                        times_without_room += 1;
                        alone = times_without_room > VALIDATIONS_MAX;
                        continue 'shape;
                    }
                }
            }
            alone = true;
        }
    }

    /// What commits since a snapshot have written of what is in a footprint; `None` if that cannot be told without looking
    /// for the keys.
    pub(crate) fn written_since(&self, snapshot: &Snapshot, footprint: &[u64]) -> Option<Footprint> {
        if !Arc::ptr_eq(&self.current.load(), &snapshot.version) {
            return None;
        }
        self.sequencer.lock().window.written_since(snapshot.timestamp, footprint)
    }

    /// Gives a commit of rows its place in the order, if what it writes was validated against all commits up to `seen` and
    /// that holds.
    fn admit(
        &self,
        commit: &Commit,
        seen: Timestamp,
        footprint: &mut Footprint,
        frame: Frame,
        claim: Claim,
        durability: Durability,
    ) -> Result<Turn> {
        let mut sequencer = self.sequencer.lock();
        if let Admission::After(other) = sequencer.window.admit(seen, footprint) {
            return Ok(Turn::After(other, frame));
        }
        let turn = self.order(&mut sequencer, commit, frame, claim, durability)?;
        if let Turn::Come(ordered) = &turn {
            sequencer.window.add(ordered.timestamp, std::mem::take(footprint));
        }
        Ok(turn)
    }

    /// Decides what is left to decide, gives the commit its timestamp, and hands its record to the log.
    fn order(
        &self,
        sequencer: &mut Sequencer,
        commit: &Commit,
        frame: Frame,
        claim: Claim,
        durability: Durability,
    ) -> Result<Turn> {
        sequencer.require_unchanged(commit)?;
        // What follows cannot be taken back. From here on nothing can refuse the record.
        let place = match self.log.place(frame, claim)? {
            Ok(place) => place,
            Err(frame) => return Ok(Turn::NoRoom(frame)),
        };
        self.judge_writer(commit)?;
        let (timestamp, watermark) = self.publication.allocate(durability == Durability::Sync);
        self.current.load().active.note_logged(place.len());
        let lsn = place.append(timestamp);
        commit.writes.tables().for_each(|(table, _)| sequencer.note_change(table, timestamp));
        Ok(Turn::Come(Ordered { timestamp, watermark, lsn }))
    }

    /// Waits until a commit that was given its timestamp is in place. Its thread is at it and waits for nobody.
    fn until_applied(&self, timestamp: Timestamp) -> Result<()> {
        while self.publication.applied() < timestamp {
            self.log.check()?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// The same for commits that change tables or bring segments, which end durable and published with the store to
    /// themselves.
    async fn commit_structure(&self, commit: Commit) -> Result<Timestamp> {
        // While others commit, the most of a new index is made; what they bring meanwhile comes to it below.
        let indexed = self.publication.applied();
        self.add_entries(&commit, &self.current.load_full(), 0)?;
        let (frame, claim) = (commit.encode()?, commit.claim());
        // While nobody has to wait for it.
        self.log.make_room(frame.len(), claim).await?;
        let mut committer = self.committer.write().await;
        let version = self.current.load_full();
        let _pins = commit.load_keys(&version).await?;
        let places = self.validate(&commit, &version)?;
        self.validate_structure(&commit, &version)?;
        self.validate_objects(&commit, &version)?;
        self.validate_staged(&commit, &version).await?;
        self.add_entries(&commit, &version, indexed)?;
        let ordered = self.order_structure(&commit, frame, claim).await?;
        // The log may name them from now on, and until now did not: a commit that was refused leaves no files behind.
        commit.writes.tables().flat_map(|(_, writes)| &writes.staged).for_each(|segment| segment.keep());
        let applying = Applying { store: self, timestamp: ordered.timestamp, done: false };
        self.log.wait_durable(ordered.lsn).await?;

        let mut next = version.successor();
        let catalog = Arc::make_mut(&mut next.catalog);
        for table in &commit.structure.dropped {
            catalog.remove(table.id);
            let segments = next.segments.remove(&table.id);
            segments.iter().flat_map(|segments| segments.iter()).for_each(|segment| segment.mark_obsolete());
        }
        commit.structure.altered.iter().for_each(|table| catalog.replace(Arc::clone(table)));
        commit.structure.created.iter().for_each(|table| catalog.add(Arc::clone(table)));
        change_objects(catalog, &commit.structure.objects);
        for (table, writes) in commit.writes.tables() {
            for segment in &writes.staged {
                let removed = writes.removed.get(&segment.meta.id);
                let removed = removed.iter().flat_map(|rows| rows.iter());
                removed.for_each(|row| segment.deletes.add(row, ordered.timestamp, ordered.watermark));
                segment.commit(ordered.timestamp);
            }
            next.add_segments(table, writes.staged.iter().cloned());
        }
        for table in &commit.structure.altered {
            self.sequencer.lock().note_change(table.id, ordered.timestamp);
        }
        let locks = commit.locks.clone();
        self.apply_rows(commit, &version, &next.catalog, &ordered, Some(places))?;
        committer.structure_changed = true;
        self.current.store(Arc::new(next));
        applying.finish(locks);
        drop(committer);
        self.request_flush_if_full();
        self.until_published(ordered.timestamp).await?;
        Ok(ordered.timestamp)
    }

    /// The place in the order of a commit that has the store to itself. Others may have taken the room that was made for it
    /// before it had; now there are none.
    async fn order_structure(&self, commit: &Commit, mut frame: Frame, claim: Claim) -> Result<Ordered> {
        loop {
            let turn = self.order(&mut self.sequencer.lock(), commit, frame, claim, Durability::Sync)?;
            match turn {
                Turn::Come(ordered) => return Ok(ordered),
                Turn::After(_, refused) | Turn::NoRoom(refused) => frame = refused,
            }
            self.log.make_room(frame.len(), claim).await?;
        }
    }

    /// Adds the entries of new indexes for rows in memory that were changed after `since`. Those of an index that does not come
    /// to be are never looked at.
    fn add_entries(&self, commit: &Commit, version: &Version, since: Timestamp) -> Result<()> {
        for table in &commit.structure.altered {
            let before = version.catalog.table(table.id).map_or(&[][..], |before| &before.indexes);
            if table.indexes.iter().any(|index| before.iter().all(|other| other.id != index.id)) {
                version.memtables().try_for_each(|(memtable, _)| memtable.index_rows(table, since))?;
            }
        }
        Ok(())
    }

    /// Puts the rows of a commit into the active memtable and ends those they replace, which are at these places, or where
    /// the transaction has found them.
    fn apply_rows(
        &self,
        mut commit: Commit,
        version: &Version,
        catalog: &Catalog,
        ordered: &Ordered,
        places: Option<Vec<Place>>,
    ) -> Result<()> {
        let places = places.map(Vec::into_iter);
        let mut rows = Applied { store: self, version, catalog, ordered, places, bytes: 0 };
        // Views may share the changes. Usually nobody does, and the rows move instead of being counted.
        match Arc::get_mut(&mut commit.writes) {
            Some(writes) => writes.tables_mut().try_for_each(|(table, writes)| match Arc::get_mut(writes) {
                Some(writes) => {
                    rows.put(table, writes.rows.iter_mut().map(|(key, row)| (key, row.replaced.take(), row.row.take())))
                }
                None => rows.put_shared(table, writes),
            })?,
            None => commit.writes.tables().try_for_each(|(table, writes)| rows.put_shared(table, writes))?,
        }
        version.active.note_memory(rows.bytes);
        Ok(())
    }

    /// Waits while the memtable is so full that the flush must catch up first. If that cannot, for the disk is full, only
    /// what may make room goes on.
    async fn wait_for_room(&self, commit: &Commit) -> Result<()> {
        loop {
            let flushed = self.flushed.notified();
            let fullness = self.current.load().active.fullness(self.options.memtable_bytes);
            if fullness < FULLNESS_MAX {
                return Ok(());
            }
            self.log.check()?;
            if let Some(reason) = self.failed_lately() {
                let may_go_on = fullness < FULLNESS_MAX_REMOVING && commit.only_removes();
                let reason = format!("rows in memory cannot be written out: {reason}");
                return if may_go_on { Ok(()) } else { Err(Error::NoRoom { reason }) };
            }
            self.request_flush();
            flushed.await;
        }
    }
}

/// A commit's rows on their way into the memtable.
struct Applied<'a> {
    store: &'a Inner,
    version: &'a Version,
    catalog: &'a Catalog,
    ordered: &'a Ordered,
    /// Of all rows that are replaced, in their order; `None`: where the transaction has found them.
    places: Option<std::vec::IntoIter<Place>>,
    bytes: isize,
}

impl Applied<'_> {
    fn put_shared(&mut self, table: TableId, writes: &TableWrites) -> Result<()> {
        let rows = writes.rows.iter();
        self.put(table, rows.map(|(key, pending)| (key, pending.replaced.clone(), pending.row.clone())))
    }

    fn put<'k>(
        &mut self,
        table: TableId,
        rows: impl Iterator<Item = (&'k Key, Option<Place>, Option<Bytes>)>,
    ) -> Result<()> {
        let Ordered { timestamp, watermark, .. } = *self.ordered;
        let (store, version, catalog) = (self.store, self.version, self.catalog);
        let horizon = Horizon { watermark, readable: &|| store.publication.readable() };
        // Looked for when the first row comes: what nothing is left of may be gone.
        let mut target: Option<(&Arc<TableMemtable>, &Arc<TableDef>)> = None;
        for (key, found, row) in rows {
            let mut is_active = false;
            if let Some(found) = found {
                let place = match &mut self.places {
                    None => Some(found),
                    Some(places) => places.next(),
                };
                match place.ok_or_else(|| Error::Internal("a row that is replaced was not located".into()))? {
                    Place::Active => is_active = true,
                    place => end_row(version, table, key, place, timestamp, watermark),
                }
            }
            if row.is_some() || is_active {
                let (part, definition) = match target {
                    Some(known) => known,
                    None => {
                        let definition = catalog.table(table);
                        let definition = definition.ok_or_else(|| Error::Internal("a table is gone".into()))?;
                        *target.insert((version.active.part(table), definition))
                    }
                };
                self.bytes += part.put(definition, key, row, timestamp, &horizon)?;
            }
        }
        Ok(())
    }
}

fn change_objects(catalog: &mut Catalog, changes: &ObjectChanges) {
    changes.iter().filter(|(_, object)| object.is_none()).for_each(|(id, _)| catalog.remove_object(*id));
    changes.values().flatten().for_each(|object| catalog.put_object(Arc::clone(object)));
}
