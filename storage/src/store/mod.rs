//! The open store: one current version, one log, one order of commits.
//!
//! ```text
//!            Transaction::commit                    background thread
//!                   │                                      │ memtable full
//!   commit.rs ──────▼──────────┐                 flush.rs ──▼───────────────────────┐
//!   │ validate, log, apply     │                 │ freeze ─▶ segments ─▶ manifest   │
//!   │ wait until published     │                 │ ─▶ install ─▶ drop old log files │
//!   └──────────────────────────┘                 └──────────────────────────────────┘
//!     share the committer's lock                    changes `current`, with that lock alone
//! ```
//! A second background thread, of low priority, compacts (compact.rs). It and the flush take turns with the manifest. Both end
//! with the store (background.rs, closing.rs).

mod background;
mod closing;
mod commit;
mod compact;
mod flush;
mod publication;
pub(crate) mod recovery;
mod replay;
mod sequencer;
mod serializable;
mod table_segments;
#[cfg(test)]
mod tests;
mod validate;
mod version;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use arrow::array::ArrayRef;
use parking_lot::Mutex;
use rustydb_txn::{Isolation, Serializability, SnapshotToken, Timeline, Timestamp};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedRwLockReadGuard, oneshot};

pub(crate) use commit::{Commit, Structure};
pub(crate) use publication::Publication;
pub(crate) use sequencer::{footprint, hash};
pub(crate) use version::{Place, Segments, Version};

use crate::catalog::{Catalog, IndexId, TableId};
use crate::column_cache::{ColumnCache, ColumnSource, SpareMemory};
use crate::error::{Error, Result};
use crate::files::{DirectoryLock, FileObjects, Files, LocalFiles};
use crate::locks::Locks;
use crate::log::{Log, Observer};
use crate::manifest;
use crate::memtable::TableMemtable;
use crate::objects::ObjectId;
use crate::options::{Location, StoreOptions};
use crate::sequence::{SequenceSpec, SequenceState, Sequences};
use crate::transaction::{Control, Transaction, TransactionOptions, row_id_array};
use crate::view::{ReadView, Snapshot};
use background::Background;
use closing::Closing;
use commit::{Committer, Sequencer};
use flush::{FlushFailure, Frozen};

/// This many log files to replay make the next opening slow enough to be worth a flush.
const LOG_FILES_MAX: usize = 32;

/// What the background thread is asked to do.
#[derive(Debug)]
enum Job {
    Flush(Option<oneshot::Sender<Result<()>>>),
    Stop,
}

/// Shared state of an open store.
#[derive(Debug)]
pub(crate) struct Inner {
    files: Arc<dyn Files>,
    columns: Arc<ColumnSource>,
    pub(crate) options: StoreOptions,
    current: ArcSwap<Version>,
    publication: Arc<Publication>,
    sequencer: Mutex<Sequencer>,
    locks: Arc<Locks>,
    serializability: Mutex<Serializability>,
    /// A serializable transaction has ended.
    serial_ended: Notify,
    log: Log,
    committer: tokio::sync::RwLock<Committer>,
    next_table: AtomicU64,
    next_segment: AtomicU64,
    next_row_id: AtomicU64,
    sequences: Sequences,
    jobs: UnboundedSender<Job>,
    flush_requested: AtomicBool,
    flushed: Notify,
    /// A flush that has frozen the memtable and could not write it out.
    unfinished_flush: Mutex<Option<Frozen>>,
    /// Tables' parts of memtables that were written out, with their sizes. Who reads an older version has them in memory until
    /// it ends.
    retired: Mutex<Vec<(Weak<TableMemtable>, usize)>>,
    /// Why the last flush failed, and when, if it did.
    flush_failure: Mutex<Option<FlushFailure>>,
    /// Held by whoever writes a manifest, from choosing what it lists until the store is as it says.
    checkpoint: tokio::sync::Mutex<()>,
    /// Who waits for the compaction thread to find nothing more to do.
    compaction_requests: Mutex<Vec<oneshot::Sender<Result<()>>>>,
    compaction_wanted: Arc<Notify>,
    compacted_bytes: AtomicU64,
    pending_bytes: Arc<AtomicUsize>,
    closed: AtomicBool,
    /// Read-locked by whoever writes a file, see [`Writing`].
    writing: Arc<tokio::sync::RwLock<()>>,
    lock: LockSlot,
}

/// The directory's lock, until the store is closed.
struct LockSlot(Mutex<Option<Arc<dyn DirectoryLock>>>);

impl std::fmt::Debug for LockSlot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.lock().is_some() { "locked" } else { "unlocked" })
    }
}

/// A file is being written, though perhaps nobody waits for it: the directory's lock is not given up meanwhile.
#[must_use]
pub(crate) struct Writing {
    // Given back before those who wait for the end are told: whoever has closed the store may open it.
    _lock: Arc<dyn DirectoryLock>,
    _until_closed: OwnedRwLockReadGuard<()>,
}

/// Memory in use, by part, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Rows not yet written to segments.
    pub memtable_bytes: usize,
    /// Rows written to segments that a reader still has to find as they were.
    pub pinned_bytes: usize,
    /// Encoded columns of segments. Together with the next two at most as much as the cache may hold.
    pub column_cache_bytes: usize,
    /// Primary-key indexes of segments.
    pub key_index_bytes: usize,
    /// Postings of secondary indexes of segments.
    pub posting_bytes: usize,
    /// Delete sets.
    pub delete_set_bytes: usize,
    /// Changes that transactions have made and not committed.
    pub transaction_bytes: usize,
    /// Most memory that those have together.
    pub transaction_limit_bytes: usize,
    /// What loads, compactions, and statements that pin more than the cache keeps, have taken of the cache's memory.
    pub background_bytes: usize,
    /// Most memory that the cache's columns and indexes, loads and compactions have together.
    pub cache_limit_bytes: usize,
    /// Rows in memory beyond this are written out.
    pub memtable_limit_bytes: usize,
    /// Column requests served from memory since the store was opened.
    pub column_cache_hits: u64,
    /// Column requests that had to read a file.
    pub column_cache_misses: u64,
    /// Columns let go to keep the budget since the store was opened.
    pub column_cache_evictions: u64,
}

/// An open database store. Clones share it. [`close`](Store::close) ends it in order; when the last clone is dropped instead and no
/// transaction or view of it is left, its directory can be opened again, and what was not durable may be lost.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
    closing: Arc<Closing>,
    /// Let go of after the others, which have `inner`.
    background: Arc<Background>,
}

pub(crate) fn files_of(location: &Location) -> Arc<dyn Files> {
    match location {
        Location::Directory(path) => Arc::new(LocalFiles::new(path)),
        Location::Memory(files) => Arc::new(files.clone()),
    }
}

impl Store {
    /// Opens a store, creating it in an empty place and recovering it after a crash.
    pub async fn open(options: StoreOptions) -> Result<Store> {
        let files = files_of(&options.location);
        let lock: Arc<dyn DirectoryLock> = recovery::lock(&options.location, files.as_ref())?.into();
        let objects = Arc::new(FileObjects::new(Arc::clone(&files)));
        let (discarded, discards) = unbounded_channel();
        let columns = Arc::new(ColumnSource::new(objects, ColumnCache::new(options.column_cache_bytes), discarded));
        let recovered = recovery::recover(&options.location, &files, &columns, recovery::Mode::Open).await?;
        let log_number = recovered.log_files.last().map_or(recovered.manifest.log_start, |last| last + 1);
        let manifest = manifest::begin_epoch(columns.objects.as_ref(), recovered.manifest, recovered.log_end).await?;
        recovered.version.active.note_logged(recovered.log_bytes);
        let publication = Arc::new(Publication::new(Timeline::resume(recovered.timestamp)));
        let log = Log::start(Arc::clone(&files), log_number, Arc::clone(&publication) as _, Arc::clone(&lock))?;
        let (jobs, queue) = unbounded_channel();
        let replayed_files = recovered.log_files.len();
        let inner = Arc::new(Inner {
            files,
            columns,
            current: ArcSwap::from_pointee(recovered.version),
            publication,
            sequencer: Mutex::new(Sequencer::after(recovered.timestamp)),
            locks: Arc::new(Locks::new()),
            serializability: Mutex::default(),
            serial_ended: Notify::new(),
            log,
            committer: tokio::sync::RwLock::new(Committer::new(manifest, log_number)),
            next_table: AtomicU64::new(recovered.next_table),
            next_segment: AtomicU64::new(recovered.next_segment),
            next_row_id: AtomicU64::new(recovered.next_row_id),
            sequences: Sequences::restore(recovered.sequences),
            jobs,
            flush_requested: AtomicBool::new(false),
            flushed: Notify::new(),
            unfinished_flush: Mutex::default(),
            retired: Mutex::default(),
            flush_failure: Mutex::default(),
            checkpoint: tokio::sync::Mutex::new(()),
            compaction_requests: Mutex::default(),
            compaction_wanted: Arc::default(),
            compacted_bytes: AtomicU64::new(0),
            pending_bytes: Arc::default(),
            closed: AtomicBool::new(false),
            writing: Arc::default(),
            lock: LockSlot(Mutex::new(Some(lock))),
            options,
        });
        let background = Background::start(&inner, queue, discards)?;
        if replayed_files > LOG_FILES_MAX {
            inner.request_flush();
        }
        inner.request_flush_if_full();
        inner.compaction_wanted.notify_one();
        Ok(Store { inner, closing: Arc::default(), background: Arc::new(background) })
    }

    /// Starts a transaction on the newest committed state, at snapshot isolation and without locks: it never waits, and
    /// learns of conflicts at its commit.
    pub fn begin(&self) -> Transaction {
        Transaction::new(Arc::new(self.inner.open_snapshot()), Control::optimistic())
    }

    /// Starts a transaction that locks what it writes. Waits only if it is deferrable.
    pub async fn begin_with(&self, options: TransactionOptions) -> Transaction {
        let (snapshot, serial) = match options.isolation {
            Isolation::Serializable => self.inner.open_serializable(options.read_only, options.deferrable).await,
            Isolation::ReadCommitted | Isolation::Snapshot => (self.inner.open_snapshot(), None),
        };
        Transaction::new(Arc::new(snapshot), Control::new(&options, serial))
    }

    /// The tables there are now.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.inner.current.load().catalog)
    }

    /// The newest committed state, to read.
    pub fn snapshot(&self) -> ReadView {
        self.begin().view()
    }

    /// Writes the memtable out to segments and everything into a new manifest, and waits for it.
    pub async fn flush(&self) -> Result<()> {
        self.inner.wait_for_flush().await
    }

    /// Merges segments until none are worth merging and none has a dead row. The background does most of that by itself,
    /// when it pays; files that nobody reads any more go soon after.
    pub async fn compact(&self) -> Result<()> {
        self.inner.check_open()?;
        let (reply, answer) = oneshot::channel();
        self.inner.compaction_requests.lock().push(reply);
        self.inner.compaction_wanted.notify_one();
        // The thread may have ended just before it could see the request.
        self.inner.check_open()?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// What may be lent to this store: see [`SpareMemory`].
    pub fn spare_memory(&self) -> SpareMemory {
        SpareMemory::of(&self.inner.columns.cache)
    }

    /// Memory in use.
    pub fn memory(&self) -> MemoryUsage {
        let version = self.inner.current.load();
        let segments = || version.segments.values().flat_map(|segments| segments.iter());
        let pinned = self.inner.retired.lock().iter().map(|(part, bytes)| bytes * part.strong_count().min(1)).sum();
        let (column_cache_hits, column_cache_misses) = self.inner.columns.cache.hits_and_misses();
        let [column_cache_bytes, key_index_bytes, posting_bytes] = self.inner.columns.cache.memory_bytes();
        MemoryUsage {
            memtable_bytes: version.memtables().map(|(memtable, _)| memtable.memory_bytes()).sum(),
            pinned_bytes: pinned,
            column_cache_bytes,
            key_index_bytes,
            posting_bytes,
            transaction_bytes: self.inner.pending_bytes.load(Ordering::Relaxed),
            transaction_limit_bytes: self.inner.options.transaction_bytes,
            background_bytes: self.inner.columns.cache.reserved_bytes(),
            cache_limit_bytes: self.inner.columns.cache.limit_bytes(),
            memtable_limit_bytes: self.inner.options.memtable_bytes,
            delete_set_bytes: segments().map(|segment| segment.deletes.memory_bytes()).sum(),
            column_cache_hits,
            column_cache_misses,
            column_cache_evictions: self.inner.columns.cache.evictions(),
        }
    }

    /// The next `count` values of a sequence. Not part of any transaction: they are gone for good, durably so when this
    /// returns. Blocks for the log now and then.
    ///
    /// # Errors
    /// `SequenceExhausted` if there are not so many; none is taken then.
    pub fn sequence_next(&self, id: ObjectId, spec: &SequenceSpec, count: usize) -> Result<Vec<i64>> {
        self.inner.check_open()?;
        self.inner.sequences.next(&self.inner.log, id, spec, count)
    }

    /// Puts a sequence somewhere else, durably and outside of any transaction. Blocks for the log.
    pub fn sequence_set(&self, id: ObjectId, state: SequenceState) -> Result<()> {
        self.inner.check_open()?;
        self.inner.sequences.set(&self.inner.log, id, state)
    }

    /// Where a sequence stands.
    pub fn sequence_state(&self, id: ObjectId, spec: &SequenceSpec) -> SequenceState {
        self.inner.sequences.state(id, spec)
    }

    /// How many transactions are waiting for a lock.
    pub fn lock_waits(&self) -> usize {
        self.inner.locks.waiting()
    }

    /// Fails with the reason if the store accepts no writes.
    pub fn check_writable(&self) -> Result<()> {
        self.inner.check_open()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.compaction_wanted.notify_one();
    }
}

impl Observer for Publication {
    fn durable(&self, newest: Timestamp) {
        self.make_durable(newest);
    }

    fn poisoned(&self, reason: &Arc<str>) {
        self.end(publication::End::Poisoned(Arc::clone(reason)));
    }

    fn stopped(&self) {
        self.end(publication::End::Closed);
    }
}

impl Inner {
    /// Pins the newest published state. Timestamp and version belong together: every commit up to the timestamp was
    /// applied to this version or an earlier one, because the version did not change while the timestamp was read.
    pub(crate) fn open_snapshot(self: &Arc<Self>) -> Snapshot {
        self.open_with(Publication::open_snapshot)
    }

    /// The same for the newest state in place, of which the last commits may not be durable: for transactions that were
    /// given locks under which these commits were made. They wait for them when they end.
    pub(crate) fn open_applied_snapshot(self: &Arc<Self>) -> Snapshot {
        self.open_with(Publication::open_applied_snapshot)
    }

    fn open_with(self: &Arc<Self>, open: impl Fn(&Publication) -> SnapshotToken) -> Snapshot {
        loop {
            let version = self.current.load_full();
            let token = open(&self.publication);
            if Arc::ptr_eq(&version, &self.current.load()) {
                return Snapshot::new(Arc::clone(self), version, token);
            }
            self.close_snapshot(token);
        }
    }

    pub(crate) fn share_snapshot(&self, token: &SnapshotToken) -> SnapshotToken {
        self.publication.share_snapshot(token)
    }

    pub(crate) fn close_snapshot(&self, token: SnapshotToken) {
        self.publication.close_snapshot(token);
    }

    pub(crate) fn current(&self) -> Arc<Version> {
        self.current.load_full()
    }

    /// Whether nothing was committed after `timestamp`, visible or not.
    pub(crate) fn is_newest(&self, timestamp: Timestamp) -> bool {
        self.newest() == timestamp
    }

    /// The newest commit, visible or not.
    pub(crate) fn newest(&self) -> Timestamp {
        self.publication.allocated()
    }

    /// Whether the store still has the shape that it has in a version.
    pub(crate) fn has_shape_of(&self, version: &Arc<Version>) -> bool {
        Arc::ptr_eq(&self.current.load(), version)
    }

    pub(crate) fn locks(&self) -> &Arc<Locks> {
        &self.locks
    }

    /// Says that a file is about to be written, as long as the store is open.
    pub(crate) async fn begin_writing(&self) -> Result<Writing> {
        let _until_closed = Arc::clone(&self.writing).read_owned().await;
        let lock = self.lock.0.lock().clone();
        Ok(Writing { _until_closed, _lock: lock.ok_or(Error::Closed)? })
    }

    pub(crate) fn columns(&self) -> &Arc<ColumnSource> {
        &self.columns
    }

    /// The memory of all transactions' pending changes.
    pub(crate) fn pending_bytes(&self) -> &Arc<AtomicUsize> {
        &self.pending_bytes
    }

    pub(crate) fn transaction_bytes(&self) -> usize {
        self.options.transaction_bytes
    }

    pub(crate) fn new_table_id(&self) -> TableId {
        TableId(self.next_table.fetch_add(1, Ordering::Relaxed))
    }

    /// The first of `count` new index ids; they are drawn from the same sequence as the tables'.
    pub(crate) fn new_index_ids(&self, count: usize) -> IndexId {
        IndexId(self.next_table.fetch_add(count as u64, Ordering::Relaxed))
    }

    pub(crate) fn new_segment_id(&self) -> u64 {
        self.next_segment.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn new_row_ids(&self, count: usize) -> ArrayRef {
        row_id_array(self.next_row_id.fetch_add(count as u64, Ordering::Relaxed), count)
    }

    pub(crate) fn new_row_id(&self) -> u64 {
        self.next_row_id.fetch_add(1, Ordering::Relaxed)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { self.log.check() }
    }

    /// Has the background thread flush, and waits for it.
    async fn wait_for_flush(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Flush(Some(reply))).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    fn request_flush(&self) {
        if self.failed_lately().is_some() {
            return;
        }
        if !self.flush_requested.swap(true, Ordering::AcqRel) && self.jobs.send(Job::Flush(None)).is_err() {
            tracing::warn!("the background thread has ended; the memtable stays in memory");
        }
    }

    fn request_flush_if_full(&self) {
        if self.current.load().active.fullness(self.options.memtable_bytes) >= 1.0 {
            self.request_flush();
        }
    }

    async fn remove_file(&self, path: &str) {
        use object_store::ObjectStoreExt;
        let lock = self.lock.0.lock().clone();
        if !lock.is_some_and(|lock| lock.is_held().unwrap_or(false)) {
            // By now the file may be that of another process that was let in. It has removed those that nobody needs.
            return;
        }
        if let Err(error) = self.columns.objects.delete(&object_store::path::Path::from(path)).await {
            tracing::warn!(path, %error, "a file that is not needed any more could not be removed; the next start will");
        }
    }
}
