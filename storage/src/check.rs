//! Is everything in a closed store what was once written?
//!
//! Reads every file that the store consists of, compares every checksum and the invariants that recovery relies on, and
//! collects what is wrong instead of stopping at the first finding:
//!
//! | damaged | goes on with |
//! |---|---|
//! | a column of a segment, or pages of it | the other columns |
//! | a segment | the others |
//! | the log | what the manifest names, without the rows of the log |
//! | an older manifest | everything: it is not needed, but not what was written either |
//! | the newest manifest, `FORMAT` | nothing: it alone says what the store consists of |
//!
//! Files that nobody refers to are no damage: a crash leaves them behind, and the next start removes them. They are listed.

mod references;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rustydb_txn::Timestamp;
use tokio::sync::mpsc::unbounded_channel;

use crate::catalog::TableId;
use crate::column_cache::{ColumnCache, ColumnSource};
use crate::error::{Error, Result};
use crate::files::{FileObjects, Files};
use crate::manifest;
use crate::options::StoreOptions;
use crate::segment::{SEGMENT_DIRECTORY, Segment};
use crate::store::{Version, files_of, recovery};
use references::check_references;

/// Columns are read once, so little cache will do.
const CHECK_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the data directory.
    pub file: String,
    /// What is wrong with it, and where.
    pub detail: String,
}

/// What a check has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// What is wrong; empty for a sound store.
    pub findings: Vec<Finding>,
    /// Segment files that nothing refers to, which the next start removes. No damage.
    pub left_over: Vec<String>,
    /// Tables.
    pub tables: usize,
    /// Segment files read.
    pub segments: usize,
    /// Visible rows.
    pub rows: u64,
    /// Log records replayed.
    pub log_records: usize,
}

/// Verifies a store that nobody has open, and keeps others from opening it meanwhile. Writes nothing: the store may be a
/// backup on a medium that cannot be written.
///
/// # Errors
/// Only when the store cannot be examined at all: `NotADatabase`, `Locked`, `FutureFormat`, `Io`.
pub async fn check(options: StoreOptions) -> Result<CheckReport> {
    let files = files_of(&options.location);
    let mut report = CheckReport::default();
    let _lock = match recovery::lock_to_read(&options.location, files.as_ref()) {
        Ok(lock) => lock,
        Err(Error::Corruption { file, detail }) => {
            report.findings.push(Finding { file, detail });
            return Ok(report);
        }
        Err(other) => return Err(other),
    };
    let objects = Arc::new(FileObjects::new(Arc::clone(&files)));
    let (discarded, _discards) = unbounded_channel();
    let columns = Arc::new(ColumnSource::new(objects, ColumnCache::new(CHECK_CACHE_BYTES), discarded));
    let recovered = match recovery::recover(&options.location, &files, &columns, recovery::Mode::Check).await {
        Ok(recovered) => recovered,
        Err(Error::Corruption { file, detail }) => {
            report.findings.push(Finding { file, detail });
            // The log may be damaged while all that was written out is sound, or damaged as well.
            let named = recovery::recover(&options.location, &files, &columns, recovery::Mode::CheckManifest).await;
            match named {
                Ok(recovered) => recovered,
                Err(Error::Corruption { .. }) => return Ok(report),
                Err(other) => return Err(other),
            }
        }
        Err(other) => return Err(other),
    };
    report.log_records = recovered.log_records;
    for (file, detail) in manifest::damaged_older(columns.objects.as_ref(), recovered.manifest.number).await? {
        report.findings.push(Finding { file, detail });
    }
    let version = recovered.version;
    let listing = files.list(SEGMENT_DIRECTORY).map_err(|error| Error::io("listing the segments", error))?;
    let sizes: HashMap<String, u64> = listing.into_iter().map(|file| (file.path, file.bytes)).collect();
    for table in version.catalog.tables() {
        report.tables += 1;
        for segment in version.segments(table.id) {
            report.segments += 1;
            let deleted = segment.deletes.at(Timestamp::MAX).map_or(0, |deleted| deleted.len() as u64);
            report.rows += u64::from(segment.meta.rows) - deleted;
            let checked = check_segment(segment, sizes.get(&segment.meta.path()), &mut report).await;
            if let Err(error) = checked {
                report.note(segment, error)?;
            }
        }
        if let Some(part) = version.active.table(table.id) {
            part.collect_visible(None, Timestamp::MAX, usize::MAX, |_| false, |_, _, _| report.rows += 1);
        }
        if report.findings.iter().all(|finding| finding.file.starts_with(manifest::MANIFEST_DIRECTORY)) {
            check_unique(&version, table.id, &mut report).await?;
        }
    }
    // A damaged key would have others look for their parents in vain.
    if report.findings.iter().all(|finding| finding.file.starts_with(manifest::MANIFEST_DIRECTORY)) {
        for table in version.catalog.tables() {
            check_references(&version, table, &mut report).await?;
        }
    }
    report.left_over = left_over(files.as_ref(), &version)?;
    Ok(report)
}

/// The segment files that are no segment's.
fn left_over(files: &dyn Files, version: &Version) -> Result<Vec<String>> {
    let segments = version.segments.values().flat_map(|segments| segments.iter());
    let known: HashSet<String> = segments.map(|segment| segment.meta.path()).collect();
    let listing = files.list(SEGMENT_DIRECTORY).map_err(|error| Error::io("listing the segments", error))?;
    Ok(listing.into_iter().map(|file| file.path).filter(|path| !known.contains(path)).collect())
}

impl CheckReport {
    /// Turns damage into a finding and hands other errors on.
    fn note(&mut self, segment: &Segment, error: Error) -> Result<()> {
        match error {
            Error::Corruption { file, detail } => self.findings.push(Finding { file, detail }),
            Error::Internal(detail) => self.findings.push(Finding { file: segment.meta.path(), detail }),
            other => return Err(other),
        }
        Ok(())
    }
}

/// Reads every column of a file of this size, compares each page with its checksum, and what the columns hold with what the
/// manifest says.
async fn check_segment(segment: &Segment, bytes: Option<&u64>, report: &mut CheckReport) -> Result<()> {
    if let Some(bytes) = bytes.filter(|bytes| **bytes != segment.meta.file_bytes) {
        let detail = format!("it has {bytes} bytes, not {}", segment.meta.file_bytes);
        return Err(Error::corruption(segment.meta.path(), detail));
    }
    let found_before = report.findings.len();
    let columns = segment.verify_columns().await?;
    for (index, (nulls, meta)) in columns.into_iter().zip(&segment.meta.columns).enumerate() {
        match nulls {
            Ok(nulls) if nulls as u64 == meta.null_count => {}
            Ok(nulls) => {
                let detail = format!("column {index} has {nulls} NULLs, the manifest says {}", meta.null_count);
                report.findings.push(Finding { file: segment.meta.path(), detail });
            }
            Err(error) => report.note(segment, error)?,
        }
    }
    if report.findings.len() > found_before {
        // The keys of rows that are damaged say nothing.
        return Ok(());
    }
    let keys = segment.keys().await?;
    let range = (Some(segment.meta.first_key.0.as_slice()), Some(segment.meta.last_key.0.as_slice()));
    if (keys.first(), keys.last()) != range {
        return Err(Error::corruption(segment.meta.path(), "its key range is not the one in the manifest"));
    }
    segment.bounds().map(drop)
}

/// No key may have two live rows.
async fn check_unique(version: &Version, table: TableId, report: &mut CheckReport) -> Result<()> {
    let segments = version.segments(table);
    for (index, segment) in segments.iter().enumerate() {
        let keys = segment.keys().await?;
        let live = |segment: &Segment, row: u32| !segment.deletes.contains(row, Timestamp::MAX);
        for other in &segments[index + 1..] {
            if !other.meta.overlaps(&segment.meta.first_key.0, &segment.meta.last_key.0) {
                continue;
            }
            let others = other.keys().await?;
            let both_live = |own, row| live(segment, own) && live(other, row);
            if let Some(row) = keys.first_match(&others, both_live) {
                let detail = format!("the key of row {row} has another live row in {}", other.meta.path());
                report.findings.push(Finding { file: segment.meta.path(), detail });
            }
        }
        if let Some(part) = version.active.table(table) {
            let (first, last) = (&segment.meta.first_key.0, &segment.meta.last_key.0);
            part.any_key_between(first, last, Timestamp::MAX, |key| {
                let double = keys.find(key).is_some_and(|row| live(segment, row as u32));
                if double {
                    let detail = "a key in the log has a live row here, too".to_string();
                    report.findings.push(Finding { file: segment.meta.path(), detail });
                }
                double
            });
        }
    }
    Ok(())
}
