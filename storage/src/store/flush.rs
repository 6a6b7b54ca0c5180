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

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use bytes::Bytes;
use rustydb_txn::Timestamp;
use tokio::sync::oneshot;

use super::commit::serialize;
use super::{Inner, Version};
use crate::BLOCK_ROWS;
use crate::bulk::put_segment;
use crate::catalog::{TableDef, TableId, TableRecord};
use crate::encoding::Keys;
use crate::error::{Error, Result};
use crate::log::{AddedSegment, LOG_DIRECTORY, Lsn, log_number, log_path};
use crate::manifest::{self, Manifest, TableManifest};
use crate::memtable::TableMemtable;
use crate::segment::{Base64, SEGMENT_ROWS_MAX, Segment, encode_segment};
use crate::transaction::key_columns;

/// The state at the freeze.
struct Frozen {
    version: Arc<Version>,
    timestamp: Timestamp,
    lsn: Lsn,
    manifest: Manifest,
}

/// A segment the flush has written, with what installing it needs.
struct Flushed {
    table: TableId,
    segment: Arc<Segment>,
    keys: Keys,
}

impl Inner {
    /// Flushes; a failure poisons the store, because the memtable could otherwise grow without end.
    pub(super) async fn flush_and_report(&self, reply: Option<oneshot::Sender<Result<()>>>) {
        self.flush_requested.store(false, Ordering::Release);
        let result = self.flush().await;
        if let Err(error) = &result
            && !matches!(error, Error::Poisoned { .. })
        {
            self.log.poison(&format!("writing the memtable out: {error}"));
        }
        self.flushed.notify_waiters();
        self.compaction_wanted.notify_one();
        if let Some(reply) = reply {
            // Nobody may be waiting any more; the store's state tells the same.
            let _ = reply.send(result);
        }
    }

    async fn flush(&self) -> Result<()> {
        // A compaction must not change the segments between the freeze and the manifest that lists them.
        let _checkpoint = self.checkpoint.lock().await;
        let Some(frozen) = self.freeze().await? else { return Ok(()) };
        self.log.wait_durable(frozen.lsn).await?;
        self.until_published(frozen.timestamp).await?;

        let mut flushed = Vec::new();
        if let Some(memtable) = &frozen.version.frozen {
            for (table, part) in memtable.tables() {
                if let Some(definition) = frozen.version.catalog.table(table) {
                    self.write_table(definition, &part, frozen.timestamp, &mut flushed).await?;
                }
            }
        }
        let manifest = self.describe(&frozen, &flushed)?;
        flushed.iter().for_each(|new| new.segment.keep());
        manifest::store(self.columns.objects.as_ref(), &manifest).await?;
        let log_start = manifest.log_start;
        self.install(manifest, flushed).await;
        self.tidy(log_start).await
    }

    /// Step 1. `None` if there is nothing to write.
    async fn freeze(&self) -> Result<Option<Frozen>> {
        let mut committer = self.committer.write().await;
        let version = self.current.load_full();
        assert!(version.frozen.is_none() || self.log.check().is_err(), "one flush at a time");
        self.log.check()?;
        if version.active.is_untouched() && !committer.structure_changed {
            return Ok(None);
        }
        let (log_start, lsn) = self.log.rotate()?;
        committer.structure_changed = false;
        let mut next = version.successor();
        next.frozen = Some(std::mem::take(&mut next.active));
        let next = Arc::new(next);
        self.current.store(Arc::clone(&next));
        let timestamp = self.publication.allocated();
        let manifest =
            Manifest { number: committer.manifest.number + 1, log_start, timestamp, ..committer.manifest.clone() };
        Ok(Some(Frozen { version: next, timestamp, lsn, manifest }))
    }

    /// Step 2 for one table: its rows, in key order, in as many segments as they need.
    async fn write_table(
        &self,
        table: &Arc<TableDef>,
        part: &TableMemtable,
        timestamp: Timestamp,
        flushed: &mut Vec<Flushed>,
    ) -> Result<()> {
        let codec = table.codec()?;
        let all: Vec<usize> = (0..table.storage_schema().fields().len()).collect();
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let (mut rows, mut written): (Vec<Bytes>, Vec<Timestamp>) = (Vec::new(), Vec::new());
            let last = part.collect_visible(
                after.as_deref(),
                timestamp,
                SEGMENT_ROWS_MAX,
                |_| false,
                |_, row, at| {
                    rows.push(row);
                    written.push(at);
                },
            );
            if !rows.is_empty() {
                let slices: Vec<&[u8]> = rows.iter().map(Bytes::as_ref).collect();
                let decode = |rows: &[&[u8]]| codec.rows.decode(rows, &all);
                let batches = slices.chunks(BLOCK_ROWS).map(decode).collect::<Result<Vec<RecordBatch>>>()?;
                let chunks = batches.iter().map(|batch| codec.keys.encode(&key_columns(table, batch)));
                let keys = Keys::concat(&chunks.collect::<Result<Vec<_>>>()?)?;
                let encoded = encode_segment(table, self.new_segment_id(), &batches, &keys)?;
                let segment = put_segment(self, Arc::clone(table), encoded).await?;
                segment.complete(written.into_boxed_slice());
                segment.warm(&batches, &keys)?;
                flushed.push(Flushed { table: table.id, segment, keys });
            }
            match last {
                Some(key) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// Step 3: everything as of the freeze.
    fn describe(&self, frozen: &Frozen, flushed: &[Flushed]) -> Result<Manifest> {
        let mut tables = Vec::new();
        for table in frozen.version.catalog.tables() {
            let mut segments = Vec::new();
            for segment in frozen.version.segments(table.id) {
                let deleted = segment.deletes.at(frozen.timestamp);
                let deleted = Base64(serialize(deleted.as_ref().map(|deleted| deleted.rows()))?);
                segments.push(AddedSegment { meta: segment.meta.clone(), deleted });
            }
            for new in flushed.iter().filter(|new| new.table == table.id) {
                segments.push(AddedSegment { meta: new.segment.meta.clone(), deleted: Base64::default() });
            }
            tables.push(TableManifest { table: TableRecord::from(table.as_ref()), segments });
        }
        Ok(Manifest {
            tables,
            objects: frozen.version.catalog.objects().map(|object| object.as_ref().clone()).collect(),
            sequences: self.sequences.records(),
            catalog_version: frozen.version.catalog.version(),
            next_table: self.next_table.load(Ordering::Relaxed),
            next_segment: self.next_segment.load(Ordering::Relaxed),
            next_row_id: self.next_row_id.load(Ordering::Relaxed),
            ..frozen.manifest.clone()
        })
    }

    /// Step 4.
    async fn install(&self, manifest: Manifest, flushed: Vec<Flushed>) {
        let mut committer = self.committer.write().await;
        let mut next = self.current.load().successor();
        let frozen = next.frozen.take();
        let watermark = self.publication.watermark();
        for (table, part) in frozen.iter().flat_map(|memtable| memtable.tables()) {
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

    /// Step 5.
    async fn tidy(&self, log_start: u64) -> Result<()> {
        let listing = self.files.list(LOG_DIRECTORY).map_err(|error| Error::io("listing the log", error))?;
        let old = listing.iter().filter_map(|file| log_number(&file.path)).filter(|number| *number < log_start);
        for number in old {
            self.files
                .remove(&log_path(number))
                .map_err(|error| Error::io(format!("removing {}", log_path(number)), error))?;
        }
        self.files.sync_directory(LOG_DIRECTORY).map_err(|error| Error::io("syncing the log's folder", error))?;
        manifest::remove_old(self.columns.objects.as_ref()).await
    }
}
