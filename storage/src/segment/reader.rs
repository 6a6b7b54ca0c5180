//! Reads columns out of a segment file, verifying every byte first.
//!
//! A column is fetched as one range, its checksum compared with what the writer recorded, and only then decoded: a
//! flipped bit becomes [`Error::Corruption`] with the file's name, never a wrong value.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use super::file_type::{from_file, narrow_schema, narrow_type};
use super::meta::{ChunkRef, SegmentMeta};
use crate::BLOCK_ROWS;
use crate::catalog::TableDef;
use crate::error::{Error, Result};

/// The parts of a file that were fetched; reading anything else is an error.
pub(super) struct FetchedParts {
    pub(super) file_bytes: u64,
    /// With the offset of each.
    pub(super) parts: Vec<(u64, Bytes)>,
}

impl FetchedParts {
    fn slice(&self, range: Range<u64>) -> ParquetResult<Bytes> {
        let inside = |(start, data): &&(u64, Bytes)| *start <= range.start && range.end <= start + data.len() as u64;
        let (start, data) = self
            .parts
            .iter()
            .find(inside)
            .ok_or_else(|| ParquetError::General(format!("bytes {range:?} lie outside the column")))?;
        Ok(data.slice((range.start - start) as usize..(range.end - start) as usize))
    }
}

impl Length for FetchedParts {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for FetchedParts {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let part = self.parts.iter().find(|(at, data)| *at <= start && start < at + data.len() as u64);
        let (at, data) = part.ok_or_else(|| ParquetError::General(format!("byte {start} lies outside the column")))?;
        Ok(Box::new(Cursor::new(data.slice((start - at) as usize..))))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.slice(start..start + length as u64)
    }
}

/// Fetches ranges of a file together and compares their checksums.
pub(super) async fn fetch(
    objects: &dyn ObjectStore,
    path: &str,
    what: &str,
    chunks: &[&ChunkRef],
) -> Result<Vec<Bytes>> {
    let fetched = fetch_unverified(objects, path, what, chunks).await?;
    for (index, chunk) in chunks.iter().enumerate() {
        if !fetched.get(index).is_some_and(|data| is_sound(chunk, data)) {
            return Err(unsound(path, what, chunk));
        }
    }
    Ok(fetched)
}

/// Whether this is what was written there.
pub(super) fn is_sound(chunk: &ChunkRef, data: &[u8]) -> bool {
    data.len() as u64 == chunk.bytes && crc32c::crc32c(data) == chunk.crc32c
}

/// The error for something that is not.
pub(super) fn unsound(path: &str, what: &str, chunk: &ChunkRef) -> Error {
    Error::corruption(path, format!("the checksum of {what} at byte {} is wrong", chunk.offset))
}

/// Fetches ranges of a file together.
pub(super) async fn fetch_unverified(
    objects: &dyn ObjectStore,
    path: &str,
    what: &str,
    chunks: &[&ChunkRef],
) -> Result<Vec<Bytes>> {
    let location = Path::from(path);
    let ranges: Vec<Range<u64>> = chunks.iter().map(|chunk| chunk.offset..chunk.offset + chunk.bytes).collect();
    match objects.get_ranges(&location, &ranges).await {
        Ok(fetched) => Ok(fetched),
        Err(object_store::Error::NotFound { .. }) => Err(Error::corruption(path, "the file is missing")),
        Err(other) => {
            let end = ranges.iter().map(|range| range.end).max().unwrap_or_default();
            match objects.head(&location).await {
                Ok(found) if found.size < end => {
                    let detail = format!("it has {} bytes; {what} ends at {end}", found.size);
                    Err(Error::corruption(path, detail))
                }
                _ => Err(Error::io(format!("reading {path}"), std::io::Error::other(other))),
            }
        }
    }
}

/// The same for one range.
async fn fetch_one(objects: &dyn ObjectStore, path: &str, what: &str, chunk: &ChunkRef) -> Result<Bytes> {
    let fetched = fetch(objects, path, what, &[chunk]).await?.pop();
    fetched.ok_or_else(|| Error::Internal(format!("nothing was fetched of {path}")))
}

/// Reads and parses the file's footer. What is read with it has decimals that fit 64 bits as such.
pub(crate) async fn read_footer(objects: &dyn ObjectStore, meta: &SegmentMeta) -> Result<ArrowReaderMetadata> {
    read_footer_by(objects, meta, ParquetMetaDataReader::new()).await
}

/// The same with the places of all pages.
pub(super) async fn read_footer_with_pages(
    objects: &dyn ObjectStore,
    meta: &SegmentMeta,
) -> Result<ArrowReaderMetadata> {
    let reader = ParquetMetaDataReader::new().with_offset_index_policy(PageIndexPolicy::Optional);
    read_footer_by(objects, meta, reader).await
}

async fn read_footer_by(
    objects: &dyn ObjectStore,
    meta: &SegmentMeta,
    reader: ParquetMetaDataReader,
) -> Result<ArrowReaderMetadata> {
    let path = meta.path();
    let tail = fetch_one(objects, &path, "the footer", &meta.tail).await?;
    let parts = FetchedParts { file_bytes: meta.file_bytes, parts: vec![(meta.tail.offset, tail)] };
    let parse = || {
        let parquet = Arc::new(reader.parse_and_finish(&parts)?);
        let written = ArrowReaderMetadata::try_new(Arc::clone(&parquet), ArrowReaderOptions::new())?;
        let narrow = ArrowReaderOptions::new().with_schema(narrow_schema(written.schema()));
        ArrowReaderMetadata::try_new(parquet, narrow)
    };
    parse().map_err(|error| Error::corruption(path, format!("the footer cannot be read: {error}")))
}

/// Reads a range of rows of one column, in blocks of [`BLOCK_ROWS`] rows from the first one on, decimals that fit 64 bits
/// as `Decimal64`. Each block is given to `take` before the next is decoded.
pub(crate) async fn read_column(
    objects: &dyn ObjectStore,
    table: &TableDef,
    meta: &SegmentMeta,
    footer: &ArrowReaderMetadata,
    column: usize,
    wanted: Range<usize>,
    take: impl FnMut(ArrayRef) -> Result<()>,
) -> Result<()> {
    let chunk = &meta.columns[column].chunk;
    let what = format!("column \"{}\"", table.storage_schema().field(column).name());
    let data = fetch_one(objects, &meta.path(), &what, chunk).await?;
    let parts = FetchedParts { file_bytes: meta.file_bytes, parts: vec![(chunk.offset, data)] };
    decode_column(table, meta, footer, column, wanted, parts, take)
}

/// The same for what was fetched: the whole column, or the pages with these rows if `footer` tells where they are.
pub(super) fn decode_column(
    table: &TableDef,
    meta: &SegmentMeta,
    footer: &ArrowReaderMetadata,
    column: usize,
    wanted: Range<usize>,
    parts: FetchedParts,
    mut take: impl FnMut(ArrayRef) -> Result<()>,
) -> Result<()> {
    let (path, field) = (meta.path(), table.storage_schema().field(column));
    let damaged = |error: ParquetError| Error::corruption(&path, format!("column \"{}\": {error}", field.name()));
    let open = || {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(parts, footer.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), [column]);
        let builder = builder.with_projection(mask).with_batch_size(BLOCK_ROWS);
        match wanted.len() == meta.rows as usize {
            true => builder.build(),
            false => builder.with_offset(wanted.start).with_limit(wanted.len()).build(),
        }
    };
    let (mut rows, mut fits) = (0, true);
    for batch in open().map_err(damaged)? {
        let batch = batch.map_err(|error| damaged(error.into()))?;
        let values = from_file(batch.column(0), field.data_type())
            .map_err(|error| damaged(ParquetError::General(error.to_string())))?;
        rows += values.len();
        fits &= rows <= wanted.len() && values.data_type() == &narrow_type(field.data_type());
        if !fits {
            break;
        }
        take(values)?;
    }
    if !fits || rows != wanted.len() {
        return Err(Error::corruption(
            &path,
            format!("column \"{}\" has {rows} rows at {}, not {}", field.name(), wanted.start, wanted.len()),
        ));
    }
    Ok(())
}
