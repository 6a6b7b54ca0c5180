//! The durable list of everything a store consists of.
//!
//! A manifest is an immutable object `manifest/<number>.json`: one header line with format version and checksum, then
//! JSON. A new state is a new number, created conditionally: if another writer took the number first, the put fails.
//! Opening a store reads the newest manifest, takes the next number for its own *epoch*, and then reads the log files
//! that the manifest does not cover. From that moment on an earlier writer that lost its lock and does not know it (a
//! file system whose lease ran out, a machine that slept) finds its next number taken: it is fenced off and stops. What it
//! has written to its log file behind what the opening has read does not count: the epoch's manifest says where that
//! file ends.
//!
//! A place that does not answer for a moment, as an object store may, fences nobody off: it is asked again, and if it goes on
//! so, the manifest that was just written is taken back. Nobody has built on it, so the store is as it was before, and the one
//! operation fails that wanted it.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use futures::TryStreamExt;
use rustydb_txn::Timestamp;

use crate::catalog::TableRecord;
use crate::error::{Error, Result};
use crate::log::AddedSegment;
use crate::objects::ObjectDef;
use crate::sequence::SequenceRecord;

/// Folder of the manifests.
pub(crate) const MANIFEST_DIRECTORY: &str = "manifest";

const HEADER_WORD: &str = "rustydb-manifest";
const FORMAT_VERSION: u32 = 1;

/// How many old manifests are kept; history (time travel, backups) will want more.
const MANIFESTS_KEPT: usize = 2;

/// How long the place is left alone before it is asked again, what it could not answer the times before. Clients of object
/// stores try again by themselves, and for longer.
const RETRIES: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(160)];

/// One table and where its rows are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableManifest {
    pub(crate) table: TableRecord,
    pub(crate) segments: Vec<AddedSegment>,
}

/// The state of a store up to a commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) number: u64,
    /// Grows each time the store is opened for writing.
    pub(crate) epoch: u64,
    /// The newest commit contained.
    pub(crate) timestamp: Timestamp,
    /// The first log file that is not contained.
    pub(crate) log_start: u64,
    pub(crate) catalog_version: u64,
    pub(crate) next_table: u64,
    pub(crate) next_segment: u64,
    pub(crate) next_row_id: u64,
    pub(crate) tables: Vec<TableManifest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) objects: Vec<ObjectDef>,
    /// Also of sequences that a transaction has used and not committed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sequences: Vec<SequenceRecord>,
    /// Where log files of earlier epochs end, by their numbers: what is behind that, nobody was told to be durable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) log_ends: BTreeMap<u64, u64>,
}

impl Manifest {
    /// The manifest of an empty store.
    pub(crate) fn empty() -> Self {
        Manifest {
            number: 1,
            epoch: 0,
            timestamp: 0,
            log_start: 1,
            catalog_version: 0,
            next_table: 1,
            next_segment: 1,
            next_row_id: 1,
            tables: Vec::new(),
            objects: Vec::new(),
            sequences: Vec::new(),
            log_ends: BTreeMap::new(),
        }
    }

    /// The log files from `log_start` on are those that the manifest does not contain.
    pub(crate) fn begin_log_at(&mut self, log_start: u64) {
        self.log_start = log_start;
        self.log_ends.retain(|number, _| *number >= log_start);
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let body = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Internal(format!("encoding the manifest: {error}")))?;
        let header =
            format!("{HEADER_WORD} {FORMAT_VERSION} crc32c={:08x} bytes={}\n", crc32c::crc32c(&body), body.len());
        Ok([header.into_bytes(), body].concat())
    }

    fn decode(path: &str, data: &[u8]) -> Result<Manifest> {
        let damaged = |detail: &str| Error::corruption(path, detail);
        let end = data.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no header line"))?;
        let (header, body) = (&data[..end], &data[end + 1..]);
        let header = std::str::from_utf8(header).map_err(|_| damaged("the header is not text"))?;
        let mut words = header.split(' ');
        if words.next() != Some(HEADER_WORD) {
            return Err(damaged("this is no RustyDB manifest"));
        }
        let version: u32 = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| damaged("no version"))?;
        if version > FORMAT_VERSION {
            return Err(Error::FutureFormat { path: path.into(), found: version, supported: FORMAT_VERSION });
        }
        let expected = format!("{HEADER_WORD} {version} crc32c={:08x} bytes={}", crc32c::crc32c(body), body.len());
        if header != expected {
            return Err(damaged("the checksum is wrong"));
        }
        serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))
    }
}

fn path_of(number: u64) -> String {
    format!("{MANIFEST_DIRECTORY}/{number:012}.json")
}

fn number_of(path: &str) -> Option<u64> {
    path.strip_prefix(MANIFEST_DIRECTORY)?.strip_prefix('/')?.strip_suffix(".json")?.parse().ok()
}

fn failed(context: &str, error: object_store::Error) -> Error {
    Error::io(context, std::io::Error::other(error))
}

async fn numbers(objects: &dyn ObjectStore) -> Result<Vec<u64>> {
    let listing = objects.list(Some(&Path::from(MANIFEST_DIRECTORY)));
    let metas: Vec<_> = listing.try_collect().await.map_err(|error| failed("listing the manifests", error))?;
    let mut numbers: Vec<u64> = metas.iter().filter_map(|meta| number_of(meta.location.as_ref())).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The newest manifest, or `None` in a store that never had one. A damaged one is an error: an older manifest would
/// bring back a past that the log no longer continues.
pub(crate) async fn load_newest(objects: &dyn ObjectStore) -> Result<Option<Manifest>> {
    match numbers(objects).await?.pop() {
        Some(number) => load(objects, number).await.map(Some),
        None => Ok(None),
    }
}

async fn load(objects: &dyn ObjectStore, number: u64) -> Result<Manifest> {
    let path = path_of(number);
    let read = async { objects.get(&Path::from(path.as_str())).await?.bytes().await };
    let data = read.await.map_err(|error| failed(&format!("reading {path}"), error))?;
    Manifest::decode(&path, &data)
}

/// The manifests before `newest` that are damaged: files, and what is wrong with them.
pub(crate) async fn damaged_older(objects: &dyn ObjectStore, newest: u64) -> Result<Vec<(String, String)>> {
    let mut damaged = Vec::new();
    for number in numbers(objects).await?.into_iter().filter(|number| *number < newest) {
        match load(objects, number).await {
            Err(Error::Corruption { file, detail }) => damaged.push((file, detail)),
            Err(error @ Error::FutureFormat { .. }) => damaged.push((path_of(number), error.to_string())),
            Err(other) => return Err(other),
            Ok(_) => {}
        }
    }
    Ok(damaged)
}

/// Writes a manifest under its number.
///
/// # Errors
/// `Poisoned` if another writer took the number, or later ones, or if the manifest may be there or not. After any other error it
/// is not.
pub(crate) async fn store(objects: &dyn ObjectStore, manifest: &Manifest) -> Result<()> {
    let path = path_of(manifest.number);
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let payload = PutPayload::from(manifest.encode()?);
    let written = objects.put_opts(&Path::from(path.as_str()), payload, options).await;
    match written {
        Ok(_) => require_newest(objects, manifest.number).await,
        Err(object_store::Error::AlreadyExists { .. }) => Err(overtaken(&path)),
        Err(error) => match is_there(objects, &path).await {
            Ok(false) => Err(failed(&format!("writing {path}"), error)),
            _ => Err(Error::Poisoned { reason: format!("writing {path}, which may be durable or not: {error}") }),
        },
    }
}

async fn is_there(objects: &dyn ObjectStore, path: &str) -> Result<bool> {
    let location = &Path::from(path);
    let found = patiently(|| async move {
        match objects.head(location).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failed(&format!("looking for {location}"), error)),
        }
    });
    found.await
}

/// Fails if there are later manifests than the one that was just written: its number was free because another writer has come so
/// far since that it has removed the manifest which had it.
async fn require_newest(objects: &dyn ObjectStore, number: u64) -> Result<()> {
    match patiently(|| numbers(objects)).await {
        Ok(all) => match all.last() {
            Some(newest) if *newest > number => Err(overtaken(&path_of(*newest))),
            _ => Ok(()),
        },
        Err(error) => {
            let path = path_of(number);
            match take_back(objects, &path).await {
                Ok(()) => Err(error),
                Err(other) => Err(Error::Poisoned {
                    reason: format!("{path} was written, and whether it is the newest is not known: {error}; {other}"),
                }),
            }
        }
    }
}

/// Removes a manifest that nobody has built on. The one before it is the newest again, or another writer's.
async fn take_back(objects: &dyn ObjectStore, path: &str) -> Result<()> {
    let location = &Path::from(path);
    let removed = patiently(|| async move {
        match objects.delete(location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&format!("removing {location}"), error)),
        }
    });
    removed.await
}

/// Tries something again that fails, a few times.
async fn patiently<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> Result<T> {
    for pause in RETRIES {
        match attempt().await {
            Err(error) => tracing::debug!(%error, "it is tried again"),
            done => return done,
        }
        // Whoever opens a store may do so on a runtime without a clock.
        let paused = tokio::task::spawn_blocking(move || std::thread::sleep(pause)).await;
        paused.map_err(|error| Error::Internal(error.to_string()))?;
    }
    attempt().await
}

fn overtaken(path: &str) -> Error {
    Error::Poisoned { reason: format!("another process has opened the database since and written {path}") }
}

/// Makes the caller the only writer: the same state under the next number, in a new epoch. `log_end` is the newest log file
/// and where it was found to end.
pub(crate) async fn begin_epoch(
    objects: &dyn ObjectStore,
    newest: Manifest,
    log_end: Option<(u64, u64)>,
) -> Result<Manifest> {
    let mut manifest = Manifest { number: newest.number + 1, epoch: newest.epoch + 1, ..newest };
    // A later file that an earlier start has seen is gone: its name was not durable. The next one to be made has its number.
    let last = log_end.map_or(0, |(number, _)| number);
    manifest.log_ends.retain(|number, _| *number <= last);
    manifest.log_ends.extend(log_end);
    store(objects, &manifest).await?;
    remove_old(objects).await?;
    Ok(manifest)
}

/// Removes manifests that newer ones have replaced.
pub(crate) async fn remove_old(objects: &dyn ObjectStore) -> Result<()> {
    let numbers = numbers(objects).await?;
    for number in &numbers[..numbers.len().saturating_sub(MANIFESTS_KEPT)] {
        let path = Path::from(path_of(*number));
        objects.delete(&path).await.map_err(|error| failed("removing an old manifest", error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::files::{FileObjects, MemoryFiles};

    /// Changes of the disk that make a file of one piece: the removal of what may have its first name, its creation, an append, a
    /// sync, its name, and the sync of its folder.
    const PUT_CALLS: u64 = 6;

    #[tokio::test]
    async fn the_newest_manifest_is_found_and_old_ones_go() {
        let objects = FileObjects::new(Arc::new(MemoryFiles::new()));
        assert!(load_newest(&objects).await.unwrap().is_none());
        for number in 1..=5 {
            store(&objects, &Manifest { number, timestamp: number * 10, ..Manifest::empty() }).await.unwrap();
        }
        remove_old(&objects).await.unwrap();
        assert_eq!(load_newest(&objects).await.unwrap().unwrap().timestamp, 50);
        assert_eq!(numbers(&objects).await.unwrap(), [4, 5]);
    }

    #[tokio::test]
    async fn a_second_writer_of_one_number_is_refused() {
        let objects = FileObjects::new(Arc::new(MemoryFiles::new()));
        store(&objects, &Manifest::empty()).await.unwrap();
        assert!(matches!(store(&objects, &Manifest::empty()).await, Err(Error::Poisoned { .. })));
    }

    #[tokio::test]
    async fn a_number_that_is_free_again_is_refused_to_whoever_comes_too_late() {
        let objects = FileObjects::new(Arc::new(MemoryFiles::new()));
        for number in 1..=5 {
            store(&objects, &Manifest { number, ..Manifest::empty() }).await.unwrap();
        }
        remove_old(&objects).await.unwrap();
        let late = store(&objects, &Manifest { number: 2, ..Manifest::empty() }).await;
        assert!(matches!(late, Err(Error::Poisoned { .. })), "{late:?}");
        assert_eq!(load_newest(&objects).await.unwrap().unwrap().number, 5);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_listed_for_a_moment_is_listed_again() {
        let files = MemoryFiles::new();
        let objects = FileObjects::new(Arc::new(files.clone()));
        files.fail_lists(RETRIES.len() as u64);
        store(&objects, &Manifest::empty()).await.unwrap();
        assert_eq!(load_newest(&objects).await.unwrap().unwrap().number, 1);
    }

    #[tokio::test]
    async fn a_manifest_that_may_not_be_the_newest_is_taken_back() {
        let files = MemoryFiles::new();
        let objects = FileObjects::new(Arc::new(files.clone()));
        store(&objects, &Manifest::empty()).await.unwrap();
        let next = Manifest { number: 2, ..Manifest::empty() };
        files.fail_lists(u64::MAX);
        assert!(matches!(store(&objects, &next).await, Err(Error::Io { .. })));
        files.fail_lists(0);
        for left in [&files, &files.after_power_cut()] {
            assert_eq!(left.paths().len(), 1, "{:?}", left.paths());
        }
        store(&objects, &next).await.unwrap();

        // If that fails, too, nobody knows what the next start will find.
        files.fail_lists(u64::MAX);
        files.fail_once_after(PUT_CALLS);
        let uncertain = store(&objects, &Manifest { number: 3, ..Manifest::empty() }).await;
        assert!(matches!(uncertain, Err(Error::Io { .. })), "one that fails once is tried again: {uncertain:?}");
        files.fail_after(Some(PUT_CALLS));
        let uncertain = store(&objects, &Manifest { number: 3, ..Manifest::empty() }).await;
        assert!(matches!(uncertain, Err(Error::Poisoned { .. })), "{uncertain:?}");
    }

    #[tokio::test]
    async fn an_epoch_knows_no_end_of_a_log_file_that_is_still_to_be_made() {
        let objects = FileObjects::new(Arc::new(MemoryFiles::new()));
        let log_ends = BTreeMap::from([(3, 100), (4, 20)]);
        let manifest = Manifest { log_ends, ..Manifest::empty() };
        let next = begin_epoch(&objects, manifest, Some((3, 100))).await.unwrap();
        assert_eq!(next.log_ends, BTreeMap::from([(3, 100)]));
        assert_eq!(load_newest(&objects).await.unwrap().unwrap().log_ends, next.log_ends);
    }

    #[tokio::test]
    async fn every_flipped_byte_is_noticed() {
        let files = MemoryFiles::new();
        let objects = FileObjects::new(Arc::new(files.clone()));
        store(&objects, &Manifest::empty()).await.unwrap();
        for at in 0..files.paths()[0].1 as usize {
            files.damage(&path_of(1), |data| data[at] ^= 4);
            let loaded = load_newest(&objects).await;
            assert!(matches!(loaded, Err(Error::Corruption { .. } | Error::FutureFormat { .. })), "byte {at}");
            files.damage(&path_of(1), |data| data[at] ^= 4);
        }
    }
}
