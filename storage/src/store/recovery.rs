//! From files to a store.
//!
//! The newest manifest gives tables, segments and delete sets as of its timestamp; the log files it does not cover are
//! replayed on top: tables, segments and sequences at once, in the order of the log, the rows at its end by
//! [`replay`](super::replay), into the tables that there are then. So nothing looks into the segments of a table that a later
//! record drops; its files may be gone.
//!
//! What a crash left half-done is referred to by neither and is removed: temporary files, segments whose commit was never
//! logged, log files and manifests that newer ones replace, the torn end of the newest log file, or all of it if it was only
//! just being created. Recovery may itself be cut short anywhere and begins again then.
//!
//! What is found may not be durable: if the process before was killed and the machine went on, the end of its log and the
//! names of its newest files may still be on the way to the disk. They are made durable before anything is built on them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use rustydb_txn::Timestamp;

use super::replay::RowChanges;
use super::{Segments, Version};
use crate::catalog::{Catalog, TableDef, TableId};
use crate::column_cache::ColumnSource;
use crate::deletes::DeleteSet;
use crate::error::{Error, Result};
use crate::files::{DirectoryLock, Files, LOCK_FILE, TEMPORARY_SUFFIX, publish_file};
use crate::log::{AddedSegment, LOG_DIRECTORY, Operation, Operations, log_number, log_path, read_log};
use crate::manifest::{self, Manifest};
use crate::objects::ObjectId;
use crate::options::Location;
use crate::segment::{SEGMENT_DIRECTORY, Segment};
use crate::sequence::{SequenceRecord, SequenceState};

const FORMAT_FILE: &str = "FORMAT";
const FORMAT_WORD: &str = "rustydb";
const FORMAT_VERSION: u32 = 1;

/// Whether recovery may tidy up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Create what is missing, remove what is left over.
    Open,
    /// Only look.
    Check,
    /// Only look, and only at what the manifest names: the log is damaged.
    CheckManifest,
}

/// A store as it was when its last durable commit ended.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) version: Version,
    pub(crate) manifest: Manifest,
    pub(crate) timestamp: Timestamp,
    /// Numbers of the replayed log files, ascending.
    pub(crate) log_files: Vec<u64>,
    /// Where the newest of them ends.
    pub(crate) log_end: Option<(u64, u64)>,
    pub(crate) log_records: usize,
    pub(crate) log_bytes: usize,
    pub(crate) next_table: u64,
    pub(crate) next_segment: u64,
    pub(crate) next_row_id: u64,
    pub(crate) sequences: Vec<SequenceRecord>,
}

fn path_of(location: &Location) -> std::path::PathBuf {
    match location {
        Location::Directory(path) => path.clone(),
        Location::Memory(_) => "<memory>".into(),
    }
}

/// Takes the directory's lock, having made sure that it is a database or empty.
pub(crate) fn lock(location: &Location, files: &dyn Files) -> Result<Box<dyn DirectoryLock>> {
    make_sure_it_is_ours(location, files)?;
    files.lock().map_err(|error| not_locked(location, error))
}

/// The same for whoever only reads: nothing is written, and a directory that nobody has ever locked is left as it is.
pub(crate) fn lock_to_read(location: &Location, files: &dyn Files) -> Result<Option<Box<dyn DirectoryLock>>> {
    make_sure_it_is_ours(location, files)?;
    files.lock_to_read().map_err(|error| not_locked(location, error))
}

fn make_sure_it_is_ours(location: &Location, files: &dyn Files) -> Result<()> {
    if read_format(location, files)?.is_some() {
        return Ok(());
    }
    // Empty, or what a crash during the very first opening leaves.
    let path = path_of(location);
    let names = files.top_level().map_err(|error| opening(&path, error))?;
    let format_temporary = format!("{FORMAT_FILE}{TEMPORARY_SUFFIX}");
    let ours = |name: &String| [LOCK_FILE, manifest::MANIFEST_DIRECTORY, &format_temporary].contains(&name.as_str());
    if !names.iter().all(ours) {
        return Err(Error::NotADatabase { path });
    }
    Ok(())
}

fn not_locked(location: &Location, error: io::Error) -> Error {
    let path = path_of(location);
    match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { path },
        _ => opening(&path.join(LOCK_FILE), error),
    }
}

fn opening(path: &std::path::Path, error: io::Error) -> Error {
    Error::io(format!("opening {}", path.display()), error)
}

/// The format version; `None` where there is no database yet.
fn read_format(location: &Location, files: &dyn Files) -> Result<Option<u32>> {
    let path = path_of(location);
    let text = match files.read(FORMAT_FILE) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(opening(&path.join(FORMAT_FILE), error)),
    };
    let text = String::from_utf8_lossy(&text);
    let version = text.trim_end().strip_prefix(FORMAT_WORD).and_then(|rest| rest.trim_start().parse().ok());
    match version {
        Some(found) if found > FORMAT_VERSION => Err(Error::FutureFormat { path, found, supported: FORMAT_VERSION }),
        Some(found) => Ok(Some(found)),
        None => Err(Error::corruption(FORMAT_FILE, format!("it reads \"{}\"", text.trim_end().escape_default()))),
    }
}

/// Reads the store's files into a version.
pub(crate) async fn recover(
    location: &Location,
    files: &Arc<dyn Files>,
    columns: &Arc<ColumnSource>,
    mode: Mode,
) -> Result<Recovered> {
    let objects = columns.objects.as_ref();
    let initialised = read_format(location, files.as_ref())?.is_some();
    let manifest = match manifest::load_newest(objects).await? {
        Some(manifest) => manifest,
        None if initialised => return Err(Error::corruption("manifest", "there is no manifest")),
        None if mode != Mode::Open => return Err(Error::NotADatabase { path: path_of(location) }),
        None => {
            manifest::store(objects, &Manifest::empty()).await?;
            Manifest::empty()
        }
    };
    if mode == Mode::Open {
        // Before anything goes that only an older manifest needs, and before FORMAT says that there is one.
        let synced = [manifest::MANIFEST_DIRECTORY, ""].into_iter().try_for_each(|folder| files.sync_directory(folder));
        synced.map_err(|error| Error::io("syncing the data directory", error))?;
    }
    if mode == Mode::Open && !initialised {
        // Written last: a directory with a FORMAT file has everything a database needs.
        let text = format!("{FORMAT_WORD} {FORMAT_VERSION}\n");
        publish_file(files.as_ref(), FORMAT_FILE, &[text.as_bytes()])
            .map_err(|error| Error::io("writing the FORMAT file", error))?;
    }
    let listing = files.list(SEGMENT_DIRECTORY).map_err(|error| Error::io("listing the segments", error))?;
    let segment_files = listing.into_iter().map(|file| (file.path, file.bytes)).collect();
    let mut replay = Replay::new(columns, &manifest, segment_files)?;
    let mut log_files = match mode {
        Mode::CheckManifest => Vec::new(),
        Mode::Open | Mode::Check => log_files(files.as_ref(), &manifest, mode)?,
    };
    let mut changes = RowChanges::default();
    let newest = log_files.last().copied();
    let mut log_end = None;
    for number in log_files.clone() {
        let end = manifest.log_ends.get(&number).copied();
        match replay.file(files.as_ref(), number, newest == Some(number), end, mode, &mut changes)? {
            Some(end) => log_end = Some((number, end)),
            None => {
                log_files.pop();
            }
        }
    }
    if log_files.is_empty() && manifest.timestamp > 0 && mode != Mode::CheckManifest {
        return Err(Error::corruption(log_path(manifest.log_start), "there is nothing in the file"));
    }
    replay.check_files(files.as_ref(), mode)?;
    replay.put_in_place(changes).await?;
    Ok(Recovered {
        timestamp: replay.timestamp,
        log_records: replay.records,
        log_bytes: replay.bytes,
        next_table: replay.next_table,
        next_segment: replay.next_segment,
        next_row_id: replay.next_row_id,
        sequences: replay.known_sequences(),
        version: replay.version,
        manifest,
        log_files,
        log_end,
    })
}

/// The log files to replay; they must continue the manifest without a gap.
fn log_files(files: &dyn Files, manifest: &Manifest, mode: Mode) -> Result<Vec<u64>> {
    let listing = files.list(LOG_DIRECTORY).map_err(|error| Error::io("listing the log", error))?;
    let numbers: Vec<u64> = listing.iter().filter_map(|file| log_number(&file.path)).collect();
    let (old, current): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|number| *number < manifest.log_start);
    let expected = manifest.log_start..;
    if let Some((missing, _)) = expected.zip(&current).find(|(expected, found)| expected != *found) {
        return Err(Error::corruption(log_path(missing), "the file is missing"));
    }
    if current.is_empty() && manifest.timestamp > 0 {
        return Err(Error::corruption(log_path(manifest.log_start), "the file is missing"));
    }
    if mode == Mode::Open {
        for number in old {
            files.remove(&log_path(number)).map_err(|error| Error::io("removing an old log file", error))?;
        }
    }
    Ok(current)
}

struct Replay<'a> {
    columns: &'a Arc<ColumnSource>,
    version: Version,
    timestamp: Timestamp,
    records: usize,
    bytes: usize,
    next_table: u64,
    next_segment: u64,
    next_row_id: u64,
    sequences: HashMap<ObjectId, SequenceState>,
    /// Path and size of each file there is.
    segment_files: BTreeMap<String, u64>,
}

impl<'a> Replay<'a> {
    fn new(columns: &'a Arc<ColumnSource>, manifest: &Manifest, segment_files: BTreeMap<String, u64>) -> Result<Self> {
        let damaged = |detail: String| Error::corruption("manifest", detail);
        let (mut tables, mut segments): (Vec<Arc<TableDef>>, HashMap<TableId, Segments>) = Default::default();
        for entry in &manifest.tables {
            let table = Arc::new(entry.table.clone().restore().map_err(damaged)?);
            let mut own = Vec::with_capacity(entry.segments.len());
            for added in &entry.segments {
                own.push(Arc::new(open_segment(columns, &table, added.clone(), manifest.timestamp).map_err(damaged)?));
            }
            segments.insert(table.id, own.into());
            tables.push(table);
        }
        let mut catalog = Catalog::with_version(manifest.catalog_version, tables);
        manifest.objects.iter().for_each(|object| catalog.put_object(Arc::new(object.clone())));
        Ok(Replay {
            columns,
            version: Version::new(catalog, segments),
            sequences: manifest.sequences.iter().map(|sequence| (sequence.id, sequence.state)).collect(),
            timestamp: manifest.timestamp,
            records: 0,
            bytes: 0,
            next_table: manifest.next_table,
            next_segment: manifest.next_segment,
            next_row_id: manifest.next_row_id,
            segment_files,
        })
    }

    /// Replays a log file, to its `end` if it is known. Returns where it ends; `None` if there is none: the newest may be
    /// unused.
    fn file(
        &mut self,
        files: &dyn Files,
        number: u64,
        newest: bool,
        end: Option<u64>,
        mode: Mode,
        changes: &mut RowChanges,
    ) -> Result<Option<u64>> {
        let path = log_path(number);
        let log = read_log(files, number, newest, end, |window, record| {
            self.record(&path, window, &window[record], changes)?;
            self.records += 1;
            changes.settle_if_many();
            Ok(())
        })?;
        self.bytes += log.valid_bytes as usize;
        if newest && mode == Mode::Open {
            if log.torn {
                tracing::info!(path, bytes = log.valid_bytes, "cutting off an unfinished write");
            }
            let tidied = match log.is_unused() {
                true => files.remove(&path),
                false => files.secure(&path, log.synced_bytes, log.valid_bytes),
            };
            tidied.map_err(|error| Error::io(format!("ending {path}"), error))?;
        }
        Ok(Some(log.valid_bytes).filter(|_| !log.is_unused()))
    }

    fn record(&mut self, path: &str, window: &Bytes, record: &[u8], changes: &mut RowChanges) -> Result<()> {
        let number = self.records;
        let damaged = |detail: String| Error::corruption(path, format!("record {number}: {detail}"));
        let (timestamp, operations) = Operations::of(record).map_err(damaged)?;
        // A record of a sequence is no commit and may stand anywhere.
        let timestamp = if timestamp == 0 { self.timestamp } else { timestamp };
        if timestamp < self.timestamp {
            return Err(damaged(format!("timestamp {timestamp} after {}", self.timestamp)));
        }
        self.timestamp = timestamp;
        changes.begin_window(window);
        for operation in operations {
            self.apply(operation.map_err(damaged)?, changes, timestamp).map_err(|error| match error {
                Error::Internal(detail) => damaged(detail),
                other => other,
            })?;
        }
        Ok(())
    }

    /// Puts the row changes of the whole log in place.
    async fn put_in_place(&mut self, changes: RowChanges) -> Result<()> {
        // A missing file is an error where somebody is going to work with it, and for a check one finding among others.
        let exists = |segment: &Segment| self.segment_files.contains_key(&segment.meta.path());
        for (table, last) in changes.put_in_place(&self.version, exists).await? {
            if self.version.catalog.table(table).is_some_and(|table| table.has_hidden_key()) {
                self.note_row_id(&last);
            }
        }
        Ok(())
    }

    fn apply(&mut self, operation: Operation<'_>, changes: &mut RowChanges, timestamp: Timestamp) -> Result<()> {
        match operation {
            Operation::Put { table, row } => changes.put(table, row, timestamp, || self.table(table).cloned())?,
            Operation::Delete { table, key } => {
                changes.delete(table, key, timestamp, || self.table(table).cloned())?;
            }
            Operation::CreateTable(record) => {
                let table = record.restore().map_err(Error::Internal)?;
                self.note_ids(&table);
                Arc::make_mut(&mut self.version.catalog).add(Arc::new(table));
            }
            Operation::DropTable(table) => {
                self.table(table)?;
                changes.forget(table);
                Arc::make_mut(&mut self.version.catalog).remove(table);
                self.version.segments.remove(&table);
            }
            Operation::AddSegment(added) => {
                let table = Arc::clone(self.table(added.meta.table)?);
                let segment = open_segment(self.columns, &table, *added, timestamp).map_err(Error::Internal)?;
                self.next_segment = self.next_segment.max(segment.meta.id + 1);
                if table.has_hidden_key() {
                    self.note_row_id(&segment.meta.last_key.0);
                }
                self.version.add_segments(table.id, [Arc::new(segment)]);
            }
            Operation::PutObject(object) => {
                self.next_table = self.next_table.max(object.id.0 + 1);
                Arc::make_mut(&mut self.version.catalog).put_object(Arc::from(object));
            }
            Operation::DropObject(object) => {
                Arc::make_mut(&mut self.version.catalog).remove_object(object);
                self.sequences.remove(&object);
            }
            Operation::Sequence(SequenceRecord { id, state }) => {
                // Its transaction may have been lost; its number must not come again nevertheless.
                self.next_table = self.next_table.max(id.0 + 1);
                self.sequences.insert(id, state);
            }
            Operation::AlterTable(record) => {
                let table = record.restore().map_err(Error::Internal)?;
                self.table(table.id)?;
                self.note_ids(&table);
                Arc::make_mut(&mut self.version.catalog).replace(Arc::new(table));
            }
            Operation::Seal => {}
        }
        Ok(())
    }

    /// The states of the sequences there are.
    fn known_sequences(&self) -> Vec<SequenceRecord> {
        let known = self.sequences.iter().filter(|(id, _)| self.version.catalog.object(**id).is_some());
        known.map(|(id, state)| SequenceRecord { id: *id, state: *state }).collect()
    }

    fn table(&self, table: TableId) -> Result<&Arc<TableDef>> {
        self.version.catalog.table(table).ok_or_else(|| Error::Internal(format!("table {} does not exist", table.0)))
    }

    fn note_ids(&mut self, table: &TableDef) {
        let indexes = table.indexes.iter().map(|index| index.id.0);
        self.next_table = indexes.chain([table.id.0]).fold(self.next_table, |next, used| next.max(used + 1));
    }

    /// Remembers that a hidden key is taken.
    fn note_row_id(&mut self, key: &[u8]) {
        if let Ok(id) = <[u8; 8]>::try_from(key) {
            self.next_row_id = self.next_row_id.max(u64::from_be_bytes(id).saturating_add(1));
        }
    }

    /// Every segment must be there with its size; files nobody refers to are left-overs of a crash.
    fn check_files(&self, files: &dyn Files, mode: Mode) -> Result<()> {
        let mut known = HashSet::new();
        for segment in self.version.segments.values().flat_map(|segments| segments.iter()) {
            let path = segment.meta.path();
            match self.segment_files.get(&path) {
                Some(bytes) if *bytes == segment.meta.file_bytes => {}
                // A check goes on and reports it with everything else.
                _ if mode != Mode::Open => {}
                Some(bytes) => {
                    let detail = format!("it has {bytes} bytes, not {}", segment.meta.file_bytes);
                    return Err(Error::corruption(path, detail));
                }
                None => return Err(Error::corruption(path, "the file is missing")),
            }
            known.insert(path);
        }
        if mode == Mode::Open {
            let left_over = self.segment_files.keys().map(String::as_str).filter(|path| !known.contains(*path));
            let folders = [manifest::MANIFEST_DIRECTORY, LOG_DIRECTORY];
            let others: Vec<_> = folders.iter().flat_map(|folder| files.list(folder).unwrap_or_default()).collect();
            let temporary =
                others.iter().map(|file| file.path.as_str()).filter(|path| path.ends_with(TEMPORARY_SUFFIX));
            for path in left_over.chain(temporary) {
                files.remove(path).map_err(|error| Error::io(format!("removing {path}"), error))?;
            }
        }
        Ok(())
    }
}

fn open_segment(
    columns: &Arc<ColumnSource>,
    table: &Arc<TableDef>,
    added: AddedSegment,
    created: Timestamp,
) -> std::result::Result<Segment, String> {
    let AddedSegment { meta, deleted } = added;
    let width = table.storage_schema().fields().len();
    if meta.columns.len() != width || meta.table != table.id || meta.rows == 0 {
        return Err(format!("segment {} does not fit table \"{}\"", meta.id, table.name));
    }
    let rows = if deleted.0.is_empty() {
        RoaringBitmap::new()
    } else {
        RoaringBitmap::deserialize_from(deleted.0.as_slice())
            .map_err(|error| format!("the delete set of segment {}: {error}", meta.id))?
    };
    if rows.max().is_some_and(|last| last >= meta.rows) {
        return Err(format!("the delete set of segment {} names rows it does not have", meta.id));
    }
    Ok(Segment::new(Arc::clone(columns), Arc::clone(table), meta, DeleteSet::with_base(rows), created))
}
