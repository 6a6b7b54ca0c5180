//! From memtable to segments.
//!
//! ```text
//!  1 freeze    new log file, new active memtable            (no commit half-way, microseconds)
//!  2 write     rows as of the freeze ─▶ segment files       (commits go on)
//!  3 manifest  segments, delete sets and tables as of the freeze, log starts at the new file
//!  4 install   segments replace the frozen memtable          (no commit half-way, microseconds)
//!  5 tidy      old log files and manifests go
//! ```
//! A row that is changed between 1 and 4 is marked in the frozen memtable; step 4 turns the marks into entries of the
//! new segments' delete sets before anyone can see the segments. A crash before 3 finds the old manifest and the whole
//! log, one after 3 the new manifest and the new log file: the same rows either way.
//!
//! A flush that fails before 3, because the disk is full, loses nothing and stops nothing: the rows are in the log, which goes
//! on. What is frozen stays so, and the next attempt begins with 2, on the segments and tables that there are then: of a
//! table that was dropped meanwhile nothing is written, because its end is in the log. Attempts are made again and again;
//! meanwhile commits go on until the memtable has twice its size, and those that only remove rows beyond that.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustydb_txn::Timestamp;
use tokio::sync::oneshot;

use super::background::caught;
use super::commit::serialize;
use super::{Inner, Version};
use crate::bulk::put_segment;
use crate::catalog::{Catalog, TableDef, TableId, TableRecord};
use crate::encoding::Keys;
use crate::error::{Error, Result};
use crate::log::{AddedSegment, LOG_DIRECTORY, Lsn, log_number, log_path};
use crate::manifest::{self, Manifest, TableManifest};
use crate::memtable::{Memtable, TableMemtable};
use crate::segment::{Base64, SEGMENT_ROWS_MAX, Segment, encode_rows};

/// How long after a failed flush the next one is tried.
pub(super) const FLUSH_RETRY: Duration = Duration::from_secs(5);

/// The state at the freeze, without its segments: those that are dropped must be able to go.
#[derive(Debug)]
pub(super) struct Frozen {
    catalog: Arc<Catalog>,
    memtable: Arc<Memtable>,
    timestamp: Timestamp,
    lsn: Lsn,
    log_start: u64,
}

/// What a flush has met.
#[derive(Debug)]
pub(super) struct FlushFailure {
    at: Instant,
    reason: Arc<str>,
}

/// A segment the flush has written, with what installing it needs.
struct Flushed {
    table: TableId,
    segment: Arc<Segment>,
    keys: Keys,
}

impl Inner {
    /// Flushes. What the disk refuses is tried again later; any other failure poisons the store.
    pub(super) async fn flush_and_report(&self, reply: Option<oneshot::Sender<Result<()>>>) {
        self.flush_requested.store(false, Ordering::Release);
        let result = caught("writing rows out", self.flush()).await.flatten();
        match &result {
            Ok(()) => {
                if self.flush_failure.lock().take().is_some() {
                    tracing::info!("rows in memory could be written out again");
                }
            }
            Err(Error::Closed) => {}
            Err(error @ Error::Io { .. }) if self.log.check().is_ok() => {
                let failure = FlushFailure { at: Instant::now(), reason: error.to_string().into() };
                if self.flush_failure.lock().replace(failure).is_none() {
                    tracing::warn!(%error, "rows in memory could not be written out; nothing is lost, it will be tried again");
                }
            }
            Err(Error::Poisoned { reason }) => self.log.poison(reason),
            Err(error) => self.log.poison(&format!("writing the memtable out: {error}")),
        }
        if self.log.check().is_err() {
            // There will be no other attempt, and so nothing to wait for.
            self.flush_failure.lock().take();
        }
        self.flushed.notify_waiters();
        self.compaction_wanted.notify_one();
        if let Some(reply) = reply {
            // Nobody may be waiting any more; the store's state tells the same.
            let _ = reply.send(result);
        }
    }

    /// Why the last flush failed, if that was so short ago that another attempt would be one too many.
    pub(super) fn failed_lately(&self) -> Option<Arc<str>> {
        let failure = self.flush_failure.lock();
        failure.as_ref().filter(|failure| failure.at.elapsed() < FLUSH_RETRY).map(|failure| Arc::clone(&failure.reason))
    }

    async fn flush(&self) -> Result<()> {
        // A compaction must not change the segments between the choice of what a manifest lists and that manifest.
        let _checkpoint = self.checkpoint.lock().await;
        // The log may be poisoned because another process was let in. What this one has frozen is in the log, and the files are no
        // longer its own.
        self.log.check()?;
        let unfinished = self.unfinished_flush.lock().take();
        if let Some(frozen) = unfinished {
            self.write_out(frozen).await?;
        }
        match self.freeze().await? {
            Some(frozen) => self.write_out(frozen).await,
            None => Ok(()),
        }
    }

    /// Steps 2 to 5. What fails is kept for the next attempt.
    async fn write_out(&self, frozen: Frozen) -> Result<()> {
        let mut flushed = Vec::new();
        let stored = self.store_frozen(&frozen, &mut flushed).await;
        match stored {
            Ok(manifest) => {
                self.install(manifest, flushed).await;
                self.tidy(frozen.log_start).await;
                Ok(())
            }
            Err(error) => {
                if matches!(error, Error::Io { .. }) {
                    // No manifest names them.
                    flushed.iter().for_each(|new| new.segment.mark_obsolete());
                }
                *self.unfinished_flush.lock() = Some(frozen);
                Err(error)
            }
        }
    }

    /// Steps 2 and 3.
    async fn store_frozen(&self, frozen: &Frozen, flushed: &mut Vec<Flushed>) -> Result<Manifest> {
        self.log.wait_durable(frozen.lsn).await?;
        self.until_published(frozen.timestamp).await?;
        let current = self.current.load_full();
        for (table, part) in frozen.memtable.tables() {
            if let Some(definition) = frozen.catalog.table(table)
                && current.catalog.table(table).is_some()
            {
                self.write_table(definition, &part, frozen.timestamp, flushed).await?;
            }
        }
        let manifest = self.describe(frozen, flushed).await?;
        flushed.iter().for_each(|new| new.segment.keep());
        manifest::store(self.columns.objects.as_ref(), &manifest).await?;
        Ok(manifest)
    }

    /// Step 1. `None` if there is nothing to write.
    async fn freeze(&self) -> Result<Option<Frozen>> {
        let is_needed = |version: &Version, structure_changed| structure_changed || !version.active.is_untouched();
        let structure_changed = self.committer.read().await.structure_changed;
        if !is_needed(&self.current.load(), structure_changed) {
            return Ok(None);
        }
        let (mut committer, version, log_start, lsn) = loop {
            let prepared = self.log.prepare_file()?;
            let committer = self.committer.write().await;
            let version = self.current.load_full();
            assert!(version.frozen.is_none() || self.log.check().is_err(), "one flush at a time");
            self.log.check()?;
            if !is_needed(&version, committer.structure_changed) {
                return Ok(None);
            }
            if let Some((log_start, lsn)) = self.log.rotate(prepared)? {
                break (committer, version, log_start, lsn);
            }
        };
        committer.structure_changed = false;
        let mut next = version.successor();
        let successor = Arc::new(next.active.successor());
        let memtable = std::mem::replace(&mut next.active, successor);
        next.frozen = Some(Arc::clone(&memtable));
        let catalog = Arc::clone(&next.catalog);
        self.current.store(Arc::new(next));
        Ok(Some(Frozen { catalog, memtable, timestamp: self.publication.allocated(), lsn, log_start }))
    }

    /// Step 2 for one table: its rows, in key order, in as many segments as they need.
    async fn write_table(
        &self,
        table: &Arc<TableDef>,
        part: &TableMemtable,
        timestamp: Timestamp,
        flushed: &mut Vec<Flushed>,
    ) -> Result<()> {
        let rows_max = part.keys().min(SEGMENT_ROWS_MAX);
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let (mut rows, mut written): (Vec<Bytes>, Vec<Timestamp>) =
                (Vec::with_capacity(rows_max), Vec::with_capacity(rows_max));
            let (mut keys, mut refused) = (table.codec()?.keys.no_keys(), Ok(()));
            let last = part.collect_visible(
                after.as_deref(),
                timestamp,
                SEGMENT_ROWS_MAX,
                |_| false,
                |key, row, at| {
                    if refused.is_ok() {
                        refused = keys.push(key);
                    }
                    rows.push(row);
                    written.push(at);
                },
            );
            refused?;
            if !rows.is_empty() {
                let mut kept_bytes = 0;
                let keep = |bytes: usize| {
                    let has_room = self.columns.cache.has_room(kept_bytes + bytes);
                    kept_bytes += if has_room { bytes } else { 0 };
                    has_room
                };
                let (encoded, columns) = encode_rows(table, self.new_segment_id(), &rows, &keys, keep)?;
                let segment = put_segment(self, Arc::clone(table), encoded).await?;
                segment.complete(written.into_boxed_slice());
                segment.warm(columns, &keys);
                flushed.push(Flushed { table: table.id, segment, keys });
            }
            match last {
                Some(key) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// Step 3: everything as of the freeze, in the segments that there are now. Those that a commit has brought since are in the
    /// log, and so is the end of tables that were dropped.
    async fn describe(&self, frozen: &Frozen, flushed: &[Flushed]) -> Result<Manifest> {
        let committer = self.committer.read().await;
        let current = self.current.load_full();
        let listed: HashSet<u64> = {
            let segments = committer.manifest.tables.iter().flat_map(|table| &table.segments);
            segments.map(|segment| segment.meta.id).collect()
        };
        let mut tables = Vec::new();
        for table in frozen.catalog.tables() {
            let mut segments = Vec::new();
            let is_contained = |segment: &&Arc<Segment>| {
                // What a compaction has merged since is younger than what is in it.
                segment.created() <= frozen.timestamp || listed.contains(&segment.meta.id)
            };
            for segment in current.segments(table.id).iter().filter(is_contained) {
                let deleted = segment.deletes.at(frozen.timestamp);
                let deleted = Base64(serialize(deleted.as_ref().map(|deleted| deleted.rows()))?);
                segments.push(AddedSegment { meta: segment.meta.clone(), deleted });
            }
            for new in flushed.iter().filter(|new| new.table == table.id) {
                segments.push(AddedSegment { meta: new.segment.meta.clone(), deleted: Base64::default() });
            }
            tables.push(TableManifest { table: TableRecord::from(table.as_ref()), segments });
        }
        let mut manifest = Manifest {
            number: committer.manifest.number + 1,
            timestamp: frozen.timestamp,
            tables,
            objects: frozen.catalog.objects().map(|object| object.as_ref().clone()).collect(),
            sequences: self.sequences.records(),
            catalog_version: frozen.catalog.version(),
            next_table: self.next_table.load(Ordering::Relaxed),
            next_segment: self.next_segment.load(Ordering::Relaxed),
            next_row_id: self.next_row_id.load(Ordering::Relaxed),
            ..committer.manifest.clone()
        };
        manifest.begin_log_at(frozen.log_start);
        Ok(manifest)
    }

    /// Step 4.
    async fn install(&self, manifest: Manifest, flushed: Vec<Flushed>) {
        let mut committer = self.committer.write().await;
        let mut next = self.current.load().successor();
        let frozen = next.frozen.take();
        let mut retired = self.retired.lock();
        retired.retain(|(part, _)| part.strong_count() > 0);
        let shares = frozen.iter().flat_map(|memtable| memtable.shares());
        retired.extend(shares.map(|(part, bytes)| (Arc::downgrade(&part), bytes)));
        drop(retired);
        let watermark = self.publication.watermark();
        // Of a table that was dropped meanwhile nothing may have been written.
        let parts = frozen.iter().flat_map(|memtable| memtable.tables());
        for (table, part) in parts.filter(|(table, _)| next.catalog.table(*table).is_some()) {
            let of_table: Vec<&Flushed> = flushed.iter().filter(|new| new.table == table).collect();
            for (key, timestamp) in part.take_superseded() {
                let place = of_table.iter().find_map(|new| Some((&new.segment, new.keys.find(&key)? as u32)));
                let (segment, row) = place.expect("a superseded row was visible at the freeze, so it was written");
                segment.deletes.add(row, timestamp, watermark);
            }
        }
        for Flushed { table, segment, .. } in flushed {
            if next.catalog.table(table).is_some() {
                segment.commit(manifest.timestamp);
                next.add_segments(table, [segment]);
            } else {
                // The table was dropped meanwhile. The manifest names the segment, but so does the log name the drop.
                segment.mark_obsolete();
            }
        }
        next.segments.values().flat_map(|segments| segments.iter()).for_each(|segment| segment.settle(watermark));
        committer.manifest = manifest;
        self.current.store(Arc::new(next));
    }

    /// Step 5. What cannot be removed now is removed by the next flush, or the next start.
    async fn tidy(&self, log_start: u64) {
        let tidied = async {
            let listing = self.files.list(LOG_DIRECTORY).map_err(|error| Error::io("listing the log", error))?;
            let old = listing.iter().filter_map(|file| log_number(&file.path)).filter(|number| *number < log_start);
            for number in old {
                self.files
                    .remove(&log_path(number))
                    .map_err(|error| Error::io(format!("removing {}", log_path(number)), error))?;
            }
            self.files.sync_directory(LOG_DIRECTORY).map_err(|error| Error::io("syncing the log's folder", error))?;
            manifest::remove_old(self.columns.objects.as_ref()).await
        };
        if let Err(error) = tidied.await {
            tracing::warn!(%error, "what a flush has replaced could not be removed");
        }
    }
}
