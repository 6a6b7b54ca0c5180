//! Puts a compaction into the store: what to merge, and the swap. The story is in [`crate::compaction`].

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;
use rustydb_txn::Timestamp;
use tokio::sync::{Notify, oneshot};

use super::background::{Employer, caught};
use super::commit::serialize;
use super::{Inner, Version};
use crate::BLOCK_ROWS;
use crate::bulk::put_segment;
use crate::catalog::TableDef;
use crate::compaction::{INPUT_ROWS_MAX, Merged, Shape, choose, merge};
use crate::error::{Error, Result};
use crate::log::{AddedSegment, Lsn};
use crate::manifest::{self, Manifest};
use crate::segment::{Base64, Segment};

/// Segments to be merged, and the moment as of which their rows are live.
struct Task {
    table: Arc<TableDef>,
    inputs: Vec<Arc<Segment>>,
    dead: Vec<RoaringBitmap>,
    timestamp: Timestamp,
    /// What must be durable before rows that are dead by then may be forgotten.
    lsn: Lsn,
}

/// Of each row of a merge: its key, its place among the outputs, and where it comes from.
const MERGE_ROW_BYTES: u64 = 16 + 4 + 8;

/// However little memory there is, so many rows are merged at once.
const MERGE_ROWS_MIN: u64 = 8 * BLOCK_ROWS as u64;

/// After a failure, compaction rests; what failed may be a full disk or a damaged file, and reads and writes go on.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// The background thread: compacts whenever something was flushed, until the store is gone or closed.
pub(super) fn run(employer: &Employer, wanted: &Notify) {
    // Reads and commits go first. If the priority cannot be lowered, they share.
    let _ = rustix::process::nice(10);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "no compaction: its runtime could not be started"),
    };
    runtime.block_on(async {
        let mut rest_until: Option<Instant> = None;
        loop {
            let Some(inner) = employer.work() else { return };
            if inner.closed.load(Ordering::Acquire) {
                return;
            }
            let requests = std::mem::take(&mut *inner.compaction_requests.lock());
            if !requests.is_empty() || rest_until.is_none_or(|until| until <= Instant::now()) {
                // While rows go on dying there is always a dead one: once each segment had its turn, enough is enough.
                let segments: usize = inner.current.load().segments.values().map(|segments| segments.len()).sum();
                let mut thorough_rounds = if requests.is_empty() { 0 } else { segments };
                let result = async {
                    while inner.compact_once(thorough_rounds > 0).await? {
                        thorough_rounds = thorough_rounds.saturating_sub(1);
                    }
                    Ok::<_, Error>(())
                };
                let result = caught("merging segments", result).await.flatten();
                rest_until = result.is_err().then(|| Instant::now() + REST_AFTER_FAILURE);
                match &result {
                    Err(Error::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "a compaction failed; nothing is lost, it will be tried again")
                    }
                    Ok(()) => {}
                }
                answer(requests, result);
            }
            // While nothing is to be done, the store may go.
            drop(inner);
            wanted.notified().await;
        }
    });
}

/// Tells everybody who waits how it went; whoever does not wait any more does not mind.
fn answer(mut requests: Vec<oneshot::Sender<Result<()>>>, result: Result<()>) {
    let Some(first) = requests.pop() else { return };
    for request in requests {
        let result = match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(Error::io("compacting", std::io::Error::other(error.to_string()))),
        };
        let _ = request.send(result);
    }
    let _ = first.send(result);
}

impl Inner {
    /// Merges what is most worth it. Only the background thread may: two would choose the same segments. Returns whether there was anything.
    async fn compact_once(&self, thorough: bool) -> Result<bool> {
        let Some(task) = self.choose_compaction(thorough).await else { return Ok(false) };
        let started = Instant::now();
        let needed = task.inputs.iter().map(|input| merge_bytes(input)).sum::<u64>();
        let _memory = self.columns.cache.reserve(usize::try_from(needed).unwrap_or(usize::MAX));
        let mut outputs: Vec<Arc<Segment>> = Vec::new();
        // What outputs have in memory before the cache has it.
        let kept = RefCell::new(self.columns.cache.reserve(0));
        let merged = merge(
            &task.table,
            &task.inputs,
            &task.dead,
            || self.new_segment_id(),
            |counted, bytes| kept.borrow_mut().try_exchange(counted, bytes),
            async |bytes| self.pause_background(bytes).await,
            async |output| {
                let segment = put_segment(self, Arc::clone(&task.table), output.encoded).await?;
                segment.complete(output.written);
                kept.borrow_mut().resize(0);
                segment.warm(output.columns, &output.keys);
                outputs.push(segment);
                Ok(())
            },
        );
        let merged = merged.await?;
        self.log.wait_durable(task.lsn).await?;
        self.until_published(task.timestamp).await?;
        // Held until the log is poisoned, too: no flush must store a manifest of the same number.
        let checkpoint = self.checkpoint.lock().await;
        match caught("putting merged segments in their places", self.swap(&task, &outputs, &merged)).await {
            // Another process has the database, and what would be committed from now on would be lost; or there may be a manifest
            // that memory does not know of.
            Ok(Err(Error::Poisoned { reason })) => {
                self.log.poison(&reason);
                return Err(Error::Poisoned { reason });
            }
            Ok(swapped) => swapped?,
            Err(error) => {
                // There may be a manifest by now that memory does not know of.
                self.log.poison(&error.to_string());
                return Err(error);
            }
        }
        drop(checkpoint);
        let bytes = |segments: &[Arc<Segment>]| segments.iter().map(|segment| segment.meta.file_bytes).sum::<u64>();
        self.compacted_bytes.fetch_add(bytes(&outputs), Ordering::Relaxed);
        tracing::debug!(
            table = task.table.name,
            inputs = task.inputs.len(),
            outputs = outputs.len(),
            bytes_before = bytes(&task.inputs),
            bytes_after = bytes(&outputs),
            elapsed = ?started.elapsed(),
            "compacted"
        );
        Ok(true)
    }

    /// The most worthwhile merge of segments which the newest manifest lists.
    async fn choose_compaction(&self, thorough: bool) -> Option<Task> {
        // Alone: a commit that has its timestamp and not yet all of its deletes would lose them.
        let committer = self.committer.write().await;
        let version = self.current.load_full();
        let listed: HashSet<u64> = {
            let segments = committer.manifest.tables.iter().flat_map(|table| &table.segments);
            segments.map(|segment| segment.meta.id).collect()
        };
        let timestamp = self.publication.allocated();
        for table in version.catalog.tables() {
            let segments: Vec<&Arc<Segment>> =
                version.segments(table.id).iter().filter(|segment| listed.contains(&segment.meta.id)).collect();
            let dead: Vec<RoaringBitmap> = segments
                .iter()
                .map(|segment| segment.deletes.at(timestamp).map(|deleted| deleted.rows().clone()).unwrap_or_default())
                .collect();
            let shapes: Vec<Shape<'_>> =
                segments.iter().zip(&dead).map(|(segment, dead)| shape(segment, dead)).collect();
            let chosen = choose(&shapes, thorough, self.merge_rows_max(&segments));
            if !chosen.is_empty() {
                return Some(Task {
                    table: Arc::clone(table),
                    inputs: chosen.iter().map(|index| Arc::clone(segments[*index])).collect(),
                    dead: chosen.iter().map(|index| dead[*index].clone()).collect(),
                    timestamp,
                    lsn: self.log.position(),
                });
            }
        }
        None
    }

    /// How many rows of such segments a merge may have at once: their keys and their order, one column of all of them,
    /// and an output. A compaction may take what a load may.
    fn merge_rows_max(&self, segments: &[&Arc<Segment>]) -> u64 {
        let memory = self.columns.cache.reservable_bytes() as u64;
        let rows: u64 = segments.iter().map(|segment| u64::from(segment.meta.rows)).sum();
        let bytes: u64 = segments.iter().map(|segment| merge_bytes(segment)).sum();
        let affordable = u128::from(memory) * u128::from(rows) / u128::from(bytes.max(1));
        u64::try_from(affordable).unwrap_or(u64::MAX).clamp(MERGE_ROWS_MIN, INPUT_ROWS_MAX)
    }

    /// Steps 3 and 4, with the checkpoint lock held.
    async fn swap(&self, task: &Task, outputs: &[Arc<Segment>], merged: &Merged) -> Result<()> {
        let manifest = {
            let committer = self.committer.read().await;
            if self.current.load().catalog.table(task.table.id).is_none() {
                // Dropped meanwhile; the outputs go with their last reference.
                return Ok(());
            }
            replace(&committer.manifest, task, outputs, merged)?
        };
        outputs.iter().for_each(|output| output.keep());
        let stored = manifest::store(self.columns.objects.as_ref(), &manifest).await;
        if let Err(Error::Io { .. }) = &stored {
            // No manifest names them, and what it could not be written for may be their taking all the room.
            outputs.iter().for_each(|output| output.mark_obsolete());
        }
        stored?;
        {
            let mut committer = self.committer.write().await;
            let mut next = self.current.load().successor();
            if next.catalog.table(task.table.id).is_some() {
                self.install_merged(&mut next, task, outputs, merged);
            } else {
                // Dropped meanwhile: the manifest names the outputs, but so does the log name the drop.
                outputs.iter().for_each(|output| output.mark_obsolete());
            }
            committer.manifest = manifest;
            self.current.store(Arc::new(next));
        }
        task.inputs.iter().for_each(|input| input.mark_obsolete());
        manifest::remove_old(self.columns.objects.as_ref()).await
    }

    /// Carries the deletes since the merge's moment over to the outputs and puts these in the place of the inputs.
    fn install_merged(&self, next: &mut Version, task: &Task, outputs: &[Arc<Segment>], merged: &Merged) {
        let watermark = self.publication.watermark();
        let mut moved: Vec<(Timestamp, usize, u32)> = Vec::new();
        for (index, (input, dead)) in task.inputs.iter().zip(&task.dead).enumerate() {
            for (timestamp, row) in input.deletes.since(dead, task.timestamp) {
                let (output, row) = merged.new_place(index, row).expect("a row that was live is in an output");
                moved.push((timestamp, output, row));
            }
        }
        moved.sort_unstable();
        for (timestamp, output, row) in moved {
            outputs[output].deletes.add(row, timestamp, watermark);
        }
        outputs.iter().for_each(|output| output.commit(task.timestamp));
        let gone: HashSet<u64> = task.inputs.iter().map(|input| input.meta.id).collect();
        next.replace_segments(task.table.id, &gone, outputs);
    }

    /// Keeps background writes to the configured rate, and ends them when the store closes.
    async fn pause_background(&self, bytes: u64) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        match self.options.background_bytes_per_second {
            0 => tokio::task::yield_now().await,
            rate => tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await,
        }
        Ok(())
    }
}

/// Memory that a segment takes while it is merged.
fn merge_bytes(segment: &Segment) -> u64 {
    let widest = segment.meta.columns.iter().map(|column| column.chunk.bytes).max().unwrap_or(0);
    let rows = u64::from(segment.meta.rows) * (MERGE_ROW_BYTES + 2 * size_of::<u128>() as u64);
    // On disk values take a third of what they do decoded; a column is there as it was read and in its new order.
    rows + 2 * 3 * widest + segment.meta.file_bytes
}

fn shape<'a>(segment: &'a Segment, dead: &RoaringBitmap) -> Shape<'a> {
    let rows = u64::from(segment.meta.rows);
    let (first_key, last_key) = (&segment.meta.first_key.0, &segment.meta.last_key.0);
    Shape { rows, live: rows - dead.len(), first_key, last_key }
}

/// The manifest with the outputs in the place of the inputs. It stays at its moment, so the outputs' delete sets are
/// those of that moment; what came later is in the log.
fn replace(manifest: &Manifest, task: &Task, outputs: &[Arc<Segment>], merged: &Merged) -> Result<Manifest> {
    let mut deleted = vec![RoaringBitmap::new(); outputs.len()];
    for (index, (input, dead)) in task.inputs.iter().zip(&task.dead).enumerate() {
        let then = input.deletes.at(manifest.timestamp);
        for row in then.iter().flat_map(|deleted| deleted.rows().iter()).filter(|row| !dead.contains(*row)) {
            if let Some((output, row)) = merged.new_place(index, row) {
                deleted[output].insert(row);
            }
        }
    }
    let mut next = Manifest { number: manifest.number + 1, ..manifest.clone() };
    for entry in next.tables.iter_mut().filter(|entry| entry.table.id() == task.table.id) {
        let gone: HashSet<u64> = task.inputs.iter().map(|input| input.meta.id).collect();
        entry.segments.retain(|segment| !gone.contains(&segment.meta.id));
        for (output, deleted) in outputs.iter().zip(&deleted) {
            let deleted = Base64(serialize(Some(deleted))?);
            entry.segments.push(AddedSegment { meta: output.meta.clone(), deleted });
        }
    }
    // Ids that were given out must not be given out again: the outputs' are younger than the manifest's counter.
    let newest = outputs.iter().map(|output| output.meta.id + 1);
    next.next_segment = newest.fold(next.next_segment, u64::max);
    Ok(next)
}
