//! Single pages of columns, for rows of segments whose columns are not in memory.
//!
//! A look-up that does not find a column in memory could load all of it, and does as long as the cache has room: the next
//! look-up will find it. Where the cache is full, a million values for the sake of one would drive out what the next
//! look-up needs, and take a hundred milliseconds each time. Then only the page of the file that has the row is read and
//! kept: some [`PAGE_ROWS`](super::writer::PAGE_ROWS) rows, and hardly more than a megabyte.
//!
//! ```text
//!   footer ─┬─ offset index: where each page lies, and its first row
//!           └─ "rustydb.page_crc32c": a checksum for each dictionary and page; that of the whole column says nothing of one
//! ```
//! Where the pages are is in memory as long as the cache keeps it, like they themselves, which nobody finds without it: who needs
//! them for a while holds both.
//!
//! Segments of older releases have no checksums of pages: their columns are loaded whole.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use object_store::ObjectStore;
use parking_lot::RwLock;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::page_index::offset_index::PageLocation;

use super::meta::{ChunkRef, SegmentMeta};
use super::reader::{FetchedParts, decode_column, fetch, read_footer_with_pages};
use crate::BLOCK_ROWS;
use crate::block::{Column, ColumnEncoder};
use crate::column_cache::{Held, Part, Slot};
use crate::error::{Error, Result};

/// The entry of the footer with the checksums: of each column that of its dictionary, if it has one, and those of its
/// pages, as little-endian numbers of four bytes, in base64.
const CHECKSUMS: &str = "rustydb.page_crc32c";

/// A column of one page is read as a whole. What takes more than this may be several.
const SMALL_BYTES: usize = 1 << 20;

/// So many pages are in memory as they were fetched.
const FETCHED_TOGETHER: usize = 64;

/// Slots that no longer hold anything are looked for when there are so many more than after the last look.
const SWEEP_AFTER: usize = 64;

/// The checksums of parts of a file, as its footer has them.
pub(super) fn checksums_entry<'a>(parts: impl Iterator<Item = &'a [u8]>) -> KeyValue {
    let checksums: Vec<u8> = parts.flat_map(|part| crc32c::crc32c(part).to_le_bytes()).collect();
    KeyValue::new(CHECKSUMS.to_owned(), STANDARD.encode(checksums))
}

/// Where the pages of a file are.
#[derive(Debug)]
pub(super) struct PageTable {
    footer: ArrowReaderMetadata,
    /// None in a file without checksums of pages: they cannot be read one by one.
    columns: Box<[ColumnPages]>,
    rows: usize,
}

/// The pages of one column.
#[derive(Debug)]
struct ColumnPages {
    dictionary: Option<ChunkRef>,
    /// With the first row of each.
    pages: Box<[(u32, ChunkRef)]>,
}

impl PageTable {
    /// Reads it out of the file's footer.
    pub(super) async fn read(objects: &dyn ObjectStore, meta: &SegmentMeta) -> Result<PageTable> {
        let (footer, rows) = (read_footer_with_pages(objects, meta).await?, meta.rows as usize);
        let parquet = Arc::clone(footer.metadata());
        let entries = parquet.file_metadata().key_value_metadata();
        let entry = entries.into_iter().flatten().find(|entry| entry.key == CHECKSUMS);
        let Some(text) = entry.and_then(|entry| entry.value.as_deref()) else {
            return Ok(PageTable { footer, columns: Box::default(), rows });
        };
        // The footer's checksum was right, so only a faulty writer can have made it so.
        let columns = STANDARD.decode(text).ok().and_then(|bytes| columns_of(&parquet, &bytes));
        let columns = columns.filter(|columns| {
            columns.len() == meta.columns.len() && columns.iter().all(|column| have_all_rows(&column.pages, meta.rows))
        });
        let columns = columns.ok_or_else(|| Error::corruption(meta.path(), "its pages and their checksums differ"))?;
        Ok(PageTable { footer, columns, rows })
    }

    /// Whether the pages can be read one by one.
    pub(super) fn has_pages(&self) -> bool {
        !self.columns.is_empty()
    }

    fn memory_bytes(&self) -> usize {
        let pages: usize = self.columns.iter().map(|column| size_of_val(&*column.pages)).sum();
        size_of::<Self>() + size_of_val(&*self.columns) + pages + self.footer.metadata().memory_size()
    }

    /// The page of a column that has a row.
    fn page_of(&self, column: usize, row: u32) -> usize {
        self.columns[column].pages.partition_point(|(first, _)| *first <= row).saturating_sub(1)
    }

    /// Its rows.
    pub(super) fn rows_of(&self, column: usize, page: usize) -> Range<usize> {
        let pages = &self.columns[column].pages;
        let end = pages.get(page + 1).map_or(self.rows, |(first, _)| *first as usize);
        pages[page].0 as usize..end
    }

    /// What has to be fetched for it.
    fn parts_of(&self, column: usize, page: usize) -> impl Iterator<Item = &ChunkRef> {
        let ColumnPages { dictionary, pages } = &self.columns[column];
        dictionary.iter().chain([&pages[page].1])
    }

    /// The dictionary of a column.
    pub(super) fn dictionary_of(&self, column: usize) -> Option<&ChunkRef> {
        self.columns[column].dictionary.as_ref()
    }

    /// The pages of a column.
    pub(super) fn pages_of(&self, column: usize) -> impl Iterator<Item = &ChunkRef> {
        self.columns[column].pages.iter().map(|(_, page)| page)
    }
}

/// Whether pages with these first rows have all rows.
fn have_all_rows(pages: &[(u32, ChunkRef)], rows: u32) -> bool {
    pages.first().is_some_and(|(first, _)| *first == 0)
        && pages.is_sorted_by(|(one, _), (next, _)| one < next)
        && pages.last().is_some_and(|(last, _)| *last < rows)
}

/// The pages of all columns, if there is a checksum for each.
fn columns_of(parquet: &ParquetMetaData, checksums: &[u8]) -> Option<Box<[ColumnPages]>> {
    let (checksums, []) = checksums.as_chunks::<4>() else { return None };
    let mut checksums = checksums.iter().map(|bytes| u32::from_le_bytes(*bytes));
    let ([group], [index]) = (parquet.row_groups(), parquet.offset_index()?.as_slice()) else { return None };
    let mut columns = Vec::with_capacity(index.len());
    for (chunk, offsets) in group.columns().iter().zip(index) {
        let mut part = |offset: u64, bytes: u64| Some(ChunkRef { offset, bytes, crc32c: checksums.next()? });
        let (start, _) = chunk.byte_range();
        let locations = offsets.page_locations();
        let first = u64::try_from(locations.first()?.offset).ok()?;
        let dictionary = match first.checked_sub(start)? {
            0 => None,
            bytes => Some(part(start, bytes)?),
        };
        let page = |location: &PageLocation| {
            let (offset, bytes) = (location.offset, location.compressed_page_size);
            let first_row = u32::try_from(location.first_row_index).ok()?;
            Some((first_row, part(u64::try_from(offset).ok()?, u64::try_from(bytes).ok()?)?))
        };
        columns.push(ColumnPages { dictionary, pages: locations.iter().map(page).collect::<Option<_>>()? });
    }
    (checksums.next().is_none() && columns.len() == group.num_columns()).then(|| columns.into())
}

/// A column or a page of it, with the place of a row in it.
#[derive(Debug, Clone)]
pub(crate) struct RowColumn {
    pub(super) values: Arc<Column>,
    pub(super) row: usize,
}

type PageSlot = Arc<Slot<Column>>;

/// A page that somebody needs.
struct WantedPage {
    column: usize,
    page: usize,
    slot: PageSlot,
}

impl WantedPage {
    /// What has to be fetched for it.
    fn parts<'a>(&self, table: &'a PageTable) -> impl Iterator<Item = &'a ChunkRef> {
        table.parts_of(self.column, self.page)
    }

    fn hold(&self, values: Arc<Column>) -> Held {
        let bytes = values.memory_bytes();
        self.slot.hold(values, bytes)
    }
}

/// The pages of a segment that are in memory, or were.
#[derive(Debug)]
pub(super) struct Pages {
    table: Slot<PageTable>,
    slots: RwLock<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_place: HashMap<(u32, u32), PageSlot>,
    /// How many were left by the last sweep.
    swept: usize,
}

impl Pages {
    pub(super) fn new(segment: u64) -> Self {
        Pages { table: Slot::new((segment, Part::PageTable)), slots: RwLock::default() }
    }

    /// The page with a column's value in a row, if it is in memory.
    pub(super) fn get(&self, column: usize, row: u32) -> Option<RowColumn> {
        let (slot, row) = self.find(column, row)?;
        Some(RowColumn { values: slot.get()?, row })
    }

    fn find(&self, column: usize, row: u32) -> Option<(PageSlot, usize)> {
        let place_in = |table: &PageTable| {
            let page = table.has_pages().then(|| table.page_of(column, row))?;
            Some((page, row as usize - table.rows_of(column, page).start))
        };
        // Somebody may hold it, though the cache has let it go.
        let place = self.table.with(place_in).or_else(|| self.table.get().map(|table| place_in(&table)));
        let (page, row) = place.flatten()?;
        let slot = self.slots.read().by_place.get(&(column as u32, page as u32)).cloned()?;
        Some((slot, row))
    }

    fn slot(&self, segment: u64, column: usize, page: usize) -> PageSlot {
        let place = (column as u32, page as u32);
        let mut slots = self.slots.write();
        let Slots { by_place, swept } = &mut *slots;
        if by_place.len() > 2 * *swept + SWEEP_AFTER {
            // Whoever else has one is about to fill it.
            by_place.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.is_present());
            *swept = by_place.len();
        }
        let new = || Arc::new(Slot::new((segment, Part::Page(place.0, place.1))));
        Arc::clone(by_place.entry(place).or_insert_with(new))
    }
}

impl super::Segment {
    /// The value of a column in a row, if it is in memory: the column, or its page.
    pub(super) fn row_column(&self, column: usize, row: u32) -> Option<RowColumn> {
        match self.columns[column].get() {
            Some(values) => Some(RowColumn { values, row: row as usize }),
            None => self.pages.get(column, row),
        }
    }

    /// Loads what is missing of these columns for some rows, and holds it: whole columns if there is room for all of them, or
    /// else the pages.
    pub(crate) async fn load_rows(&self, rows: &[u32], columns: &[usize]) -> Result<Vec<Held>> {
        let is_missing = |column: &usize| rows.iter().any(|row| self.row_column(*column, *row).is_none());
        let missing: Vec<usize> = columns.iter().copied().filter(is_missing).collect();
        if let Some(table) = self.must_read_pages(&missing).await? {
            return self.load_pages(&table, rows, &missing).await;
        }
        let mut held = Vec::with_capacity(missing.len());
        for column in missing {
            held.push(self.hold_column(column).await?);
        }
        Ok(held)
    }

    /// Where the pages are, if these columns would drive others out and can be read page by page.
    async fn must_read_pages(&self, columns: &[usize]) -> Result<Option<Arc<PageTable>>> {
        if columns.is_empty() {
            return Ok(None);
        }
        let (rows, parquet) = (self.meta.rows as usize, self.footer().await?.metadata());
        let chunks = parquet.row_groups().first().map_or(&[][..], |group| group.columns());
        let bytes_of = |column: &usize| {
            let plain_bytes = chunks.get(*column).and_then(|chunk| usize::try_from(chunk.uncompressed_size()).ok());
            // No value takes more than this beside its bytes: of a string it is the view.
            plain_bytes.unwrap_or(usize::MAX).saturating_add(size_of::<u128>() * rows)
        };
        let bytes = columns.iter().map(bytes_of).fold(0, usize::saturating_add);
        let is_small = rows <= BLOCK_ROWS && bytes <= SMALL_BYTES * columns.len();
        if is_small || self.source.cache.has_room(bytes) {
            return Ok(None);
        }
        Ok(Some(self.page_table().await?).filter(|table| table.has_pages()))
    }

    async fn page_table(&self) -> Result<Arc<PageTable>> {
        let read = PageTable::read(self.source.objects.as_ref(), &self.meta);
        self.source.cache.get_or_load(&self.pages.table, PageTable::memory_bytes, read).await
    }

    /// Loads the pages that are missing of these columns for some rows, and holds them with their table. Some are fetched together,
    /// since each trip to the disk may take long; those that somebody else is just loading are waited for.
    async fn load_pages(&self, table: &Arc<PageTable>, rows: &[u32], columns: &[usize]) -> Result<Vec<Held>> {
        let (objects, cache) = (self.source.objects.as_ref(), &self.source.cache);
        let held_table = self.pages.table.hold(Arc::clone(table), table.memory_bytes());
        let missing = |column: usize| {
            let rows = rows.iter().filter(move |row| self.row_column(column, **row).is_none());
            rows.map(move |row| (column, table.page_of(column, *row)))
        };
        let pages: BTreeSet<(usize, usize)> = columns.iter().flat_map(|column| missing(*column)).collect();
        let mut pages_wanted = Vec::with_capacity(pages.len());
        for (column, page) in pages {
            pages_wanted.push(WantedPage { column, page, slot: self.pages.slot(self.meta.id, column, page) });
        }
        let (mut held, mut awaited) = (Vec::with_capacity(1 + pages_wanted.len()), Vec::new());
        held.push(held_table);
        for pages in pages_wanted.chunks(FETCHED_TOGETHER) {
            let mut own = Vec::with_capacity(pages.len());
            for wanted in pages {
                // Nobody is waited for here: two that each have what the other one needs would wait for ever.
                let Some(loading) = wanted.slot.try_begin_loading() else {
                    awaited.push(wanted);
                    continue;
                };
                match cache.get(&wanted.slot) {
                    Some(values) => held.push(wanted.hold(values)),
                    None => own.push((wanted, loading)),
                }
            }
            let parts: Vec<&ChunkRef> = own.iter().flat_map(|(wanted, _)| wanted.parts(table)).collect();
            if parts.is_empty() {
                continue;
            }
            let mut fetched = fetch(objects, &self.meta.path(), "a page", &parts).await?.into_iter();
            for (wanted, loading) in own {
                let parts = wanted.parts(table).zip(fetched.by_ref());
                let parts = parts.map(|(part, data)| (part.offset, data)).collect();
                let decode = async { self.decode_page(table, wanted, parts) };
                held.push(wanted.hold(cache.load(&wanted.slot, loading, Column::memory_bytes, decode).await?));
            }
        }
        for wanted in awaited {
            // Whoever was loading it may have failed or given up, or it may be gone again.
            let load = async {
                let parts: Vec<&ChunkRef> = wanted.parts(table).collect();
                let fetched = fetch(objects, &self.meta.path(), "a page", &parts).await?;
                let parts = parts.iter().zip(fetched).map(|(part, data)| (part.offset, data)).collect();
                self.decode_page(table, wanted, parts)
            };
            held.push(wanted.hold(cache.get_or_load(&wanted.slot, Column::memory_bytes, load).await?));
        }
        Ok(held)
    }

    /// Makes a page of what was fetched of it.
    fn decode_page(&self, table: &PageTable, wanted: &WantedPage, parts: Vec<(u64, Bytes)>) -> Result<Column> {
        let (column, rows) = (wanted.column, table.rows_of(wanted.column, wanted.page));
        let parts = FetchedParts { file_bytes: self.meta.file_bytes, parts };
        let mut encoder = ColumnEncoder::new(self.table.storage_schema().field(column).data_type(), rows.len());
        let take = |values| encoder.push(values);
        decode_column(&self.table, &self.meta, &table.footer, column, rows, parts, take)?;
        encoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use object_store::path::Path;
    use object_store::{PutMode, PutOptions};
    use tokio::runtime::Handle;
    use tokio::sync::mpsc::unbounded_channel;

    use super::super::writer::PAGE_ROWS;
    use super::super::{EncodedSegment, Segment, encode_segment};
    use super::*;
    use crate::catalog::{IndexId, NewTable, TableDef, TableId};
    use crate::column_cache::{ColumnCache, ColumnSource};
    use crate::deletes::DeleteSet;
    use crate::files::{FileObjects, MemoryFiles};

    const ROWS: usize = 5 * PAGE_ROWS + 3;
    const COLUMNS: [usize; 4] = [0, 1, 2, 3];

    fn name(row: usize) -> String {
        format!("a name of its own: {}", row * 7919)
    }

    fn colour(row: usize) -> String {
        format!("colour {}", row % 12)
    }

    fn number(row: usize) -> Option<i64> {
        (row % 7 != 3).then_some(row as i64 % 100)
    }

    /// The value of a column as a compact row has it.
    fn value(column: usize, row: usize) -> Option<Vec<u8>> {
        match column {
            0 => Some((row as i64).to_le_bytes().to_vec()),
            1 => Some(name(row).into_bytes()),
            2 => Some(colour(row).into_bytes()),
            _ => number(row).map(|number| number.to_le_bytes().to_vec()),
        }
    }

    /// A segment in a cache that keeps nothing, its footer changed in a way that its checksum does not tell.
    async fn segment(change: impl FnOnce(&mut [u8])) -> Segment {
        segment_in(&MemoryFiles::new(), change).await
    }

    async fn segment_in(files: &MemoryFiles, change: impl FnOnce(&mut [u8])) -> Segment {
        segment_cached(files, 1, change).await
    }

    async fn segment_cached(files: &MemoryFiles, cache_bytes: usize, change: impl FnOnce(&mut [u8])) -> Segment {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8View, false),
            Field::new("colour", DataType::Utf8View, false),
            Field::new("number", DataType::Int64, true),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..ROWS as i64)),
            Arc::new(StringViewArray::from_iter_values((0..ROWS).map(name))),
            Arc::new(StringViewArray::from_iter_values((0..ROWS).map(colour))),
            Arc::new((0..ROWS).map(number).collect::<Int64Array>()),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let (schema_name, name) = ("public".to_owned(), "t".to_owned());
        let new = NewTable { schema_name, name, schema, primary_key: vec![0], foreign_keys: vec![], indexes: vec![] };
        let table = Arc::new(TableDef::new(TableId(1), IndexId(2), new).unwrap());
        let keys = table.codec().unwrap().keys.encode(&batch.columns()[..1]).unwrap();
        let EncodedSegment { mut meta, file } = encode_segment(&table, 7, &[batch], &keys).unwrap();
        let mut file = file.to_vec();
        let tail = &mut file[meta.tail.offset as usize..];
        change(tail);
        meta.tail.crc32c = crc32c::crc32c(tail);
        let objects = Arc::new(FileObjects::new(Arc::new(files.clone())));
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        objects.put_opts(&Path::from(meta.path()), file.into(), create).await.unwrap();
        let source = Arc::new(ColumnSource::new(objects, ColumnCache::new(cache_bytes), unbounded_channel().0));
        Segment::new(source, table, meta, DeleteSet::default(), 0)
    }

    fn place_of(tail: &[u8], text: &str) -> usize {
        tail.windows(text.len()).position(|bytes| bytes == text.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_segment_without_checksums_of_pages_is_read_by_columns() {
        let rename = |tail: &mut [u8]| {
            let at = place_of(tail, CHECKSUMS);
            tail[at..at + CHECKSUMS.len()].fill(b'x');
        };
        for (is_old, segment) in [(false, segment(|_| {}).await), (true, segment(rename).await)] {
            for row in [0, PAGE_ROWS - 1, PAGE_ROWS, ROWS - 1] {
                let bytes = segment.row(row as u32, &[0, 1]).await.unwrap();
                assert_eq!(segment.table.stored_value(&bytes, 1), Some(name(row).as_bytes()), "row {row}");
            }
            assert!(segment.verify_columns().await.unwrap().iter().all(|column| column.is_ok()));
            let held = segment.load_rows(&[77], &[1]).await.unwrap();
            let bytes: usize = held.iter().map(Held::bytes).sum();
            assert_eq!(bytes > 3 * PAGE_ROWS * (16 + name(ROWS).len()), is_old, "{bytes} bytes for a row");
        }
    }

    #[tokio::test]
    async fn checksums_that_are_not_those_of_the_pages_are_damage() {
        let not_base64 = |tail: &mut [u8]| {
            let at = place_of(tail, CHECKSUMS) + CHECKSUMS.len();
            tail[at + 10] = b'!';
        };
        let another = |tail: &mut [u8]| {
            let at = place_of(tail, CHECKSUMS) + CHECKSUMS.len() + 8;
            tail[at..at + 40].fill(b'A');
        };
        for damaged in [segment(not_base64).await, segment(another).await] {
            let read = damaged.row(5, &[0, 1]).await;
            assert!(matches!(&read, Err(Error::Corruption { file, .. }) if *file == damaged.meta.path()), "{read:?}");
            // Who reads whole columns would never know.
            for column in COLUMNS {
                damaged.column(column).await.unwrap();
            }
            let verified = damaged.verify_columns().await;
            let verified = verified.and_then(|columns| columns.into_iter().collect::<Result<Vec<usize>>>());
            let is_found = matches!(&verified, Err(Error::Corruption { file, .. }) if *file == damaged.meta.path());
            assert!(is_found, "{verified:?}");
        }
    }

    #[tokio::test]
    async fn who_verifies_a_segment_learns_of_every_column_which_page_is_damaged() {
        let files = MemoryFiles::new();
        let segment = segment_in(&files, |_| {}).await;
        let path = segment.meta.path();
        let nulls: Vec<usize> =
            segment.verify_columns().await.unwrap().into_iter().map(|column| column.unwrap()).collect();
        assert_eq!(nulls, [0, 0, 0, (0..ROWS).filter(|row| number(*row).is_none()).count()]);
        let table = PageTable::read(segment.source.objects.as_ref(), &segment.meta).await.unwrap();
        let (names, colours) = (&table.columns[1].pages, table.columns[2].dictionary.as_ref().unwrap());
        let damaged = [&names[3].1, &names[5].1, colours];
        files.damage(&path, |data| {
            damaged.iter().for_each(|part| data[(part.offset + part.bytes / 2) as usize] ^= 0x20);
        });
        let found = segment.verify_columns().await.unwrap().into_iter().map(|column| match column {
            Ok(nulls) => nulls.to_string(),
            Err(Error::Corruption { file, detail }) if file == path => detail,
            Err(other) => panic!("{other:?}"),
        });
        let (rows, at) = (table.rows_of(1, 3), names[3].1.offset);
        let page = format!("page 3 (rows {} to {}) of column \"name\" at byte {at}", rows.start, rows.end - 1);
        let name = format!("the checksum of {page} is wrong, as are those of others of its pages (1)");
        let dictionary = format!("the dictionary of column \"colour\" at byte {}", colours.offset);
        let colour = format!("the checksum of {dictionary} is wrong");
        assert_eq!(found.collect::<Vec<_>>(), ["0".to_owned(), name, colour, nulls[3].to_string()]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_page_that_several_need_at_once_is_fetched_once() {
        const THREADS: usize = 4;
        let files = MemoryFiles::new();
        let segment = segment_in(&files, |_| {}).await;
        // As long as this is held it is known where the pages are.
        let known = segment.load_rows(&[0], &[1]).await.unwrap();
        assert_eq!(known.len(), 2, "their table and a page");
        for page in 1..5 {
            let (start, runtime, reads) = (Barrier::new(THREADS), Handle::current(), files.reads());
            std::thread::scope(|scope| {
                let readers = [0, 1, 2, 3].map(|thread| {
                    let (segment, start, runtime) = (&segment, &start, &runtime);
                    scope.spawn(move || {
                        start.wait();
                        runtime.block_on(segment.load_rows(&[(page * PAGE_ROWS + thread) as u32], &[1])).unwrap()
                    })
                });
                // What the first has is held until the last has it.
                let _held = readers.map(|reader| reader.join().unwrap());
            });
            assert_eq!(files.reads() - reads, 1, "page {page}");
        }
    }

    #[tokio::test]
    async fn where_the_pages_are_is_counted_and_goes_with_what_the_cache_lets_go() {
        let files = MemoryFiles::new();
        let segment = segment_cached(&files, 256 << 10, |_| {}).await;
        let cache = &segment.source.cache;
        let held = segment.load_rows(&[5], &[1]).await.unwrap();
        let bytes = segment.page_table().await.unwrap().memory_bytes();
        // Each page has its place and its checksum, and the footer has its place once more.
        assert!(bytes > 4 * 6 * 2 * size_of::<ChunkRef>(), "{bytes}");
        assert_eq!(cache.memory_bytes()[0], held.iter().map(Held::bytes).sum::<usize>());
        assert!(held.iter().any(|held| held.bytes() == bytes));
        assert_eq!(held.iter().map(Held::uncounted_bytes).sum::<usize>(), 0);
        drop(held);
        let reads = files.reads();
        segment.row(5, &[1]).await.unwrap();
        assert_eq!(files.reads(), reads, "both were kept");
        cache.remove_segment(segment.meta.id);
        assert_eq!(cache.memory_bytes(), [0; 3]);
        assert!(!segment.pages.table.is_present());
        let bytes = segment.row(5, &[1]).await.unwrap();
        assert_eq!(segment.table.stored_value(&bytes, 1), value(1, 5).as_deref());
        assert_eq!(files.reads(), reads + 2, "the footer and the page");
    }

    #[tokio::test]
    async fn a_flipped_byte_of_a_dictionary_or_a_page_is_damage_to_the_rows_that_need_it() {
        let files = MemoryFiles::new();
        let segment = segment_in(&files, |_| {}).await;
        let path = segment.meta.path();
        let table = segment.page_table().await.unwrap();
        let mut dictionaries = Vec::new();
        for column in COLUMNS {
            let ColumnPages { dictionary, pages } = &table.columns[column];
            dictionaries.push(dictionary.is_some());
            let of_pages = (0..pages.len()).map(|page| (&pages[page].1, table.rows_of(column, page)));
            for (part, rows) in dictionary.iter().map(|part| (part, 0..ROWS)).chain(of_pages) {
                // The first byte is of the page's header, the others of what it has.
                for at in [0, part.bytes / 2, part.bytes - 1].map(|at| (part.offset + at) as usize) {
                    files.damage(&path, |data| data[at] ^= 0x20);
                    // Nothing stays in memory, so that each row is read from the file.
                    for row in (0..ROWS).step_by(PAGE_ROWS).chain([rows.end - 1]) {
                        let read = segment.row(row as u32, &[column]).await;
                        match &read {
                            Ok(bytes) if !rows.contains(&row) => {
                                let found = segment.table.stored_value(bytes, column);
                                assert_eq!(found, value(column, row).as_deref(), "row {row}, byte {at}");
                            }
                            Err(Error::Corruption { file, detail }) if rows.contains(&row) => {
                                assert!(*file == path && detail.contains("checksum"), "{file}: {detail}");
                            }
                            _ => panic!("row {row} of column {column}, byte {at}: {read:?}"),
                        }
                    }
                    let others: Vec<usize> = COLUMNS.into_iter().filter(|other| *other != column).collect();
                    let bytes = segment.row(rows.start as u32, &others).await.unwrap();
                    for other in others {
                        let found = segment.table.stored_value(&bytes, other);
                        assert_eq!(found, value(other, rows.start).as_deref(), "column {other}, byte {at}");
                    }
                    files.damage(&path, |data| data[at] ^= 0x20);
                }
            }
        }
        assert_eq!(dictionaries, [false, false, true, true]);
        let bytes = segment.row(1, &COLUMNS).await.unwrap();
        let found = COLUMNS.map(|column| segment.table.stored_value(&bytes, column).map(<[u8]>::to_vec));
        assert_eq!(found, COLUMNS.map(|column| value(column, 1)), "the damage is mended, and so are the rows");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_of_pages_that_nobody_keeps_come_to_all_who_ask_at_once() {
        const THREADS: usize = 8;
        let segment = segment(|_| {}).await;
        let (start, runtime) = (Barrier::new(THREADS), Handle::current());
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (segment, start, runtime) = (&segment, &start, &runtime);
                scope.spawn(move || {
                    start.wait();
                    // All begin in one page. Then it is its neighbour's turn, for some sooner than for others.
                    for row in (PAGE_ROWS + thread..3 * PAGE_ROWS).step_by(300 + thread) {
                        let bytes = runtime.block_on(segment.row(row as u32, &COLUMNS)).unwrap();
                        for column in COLUMNS {
                            let found = segment.table.stored_value(&bytes, column);
                            assert_eq!(found, value(column, row).as_deref(), "row {row}, column {column}");
                        }
                    }
                });
            }
        });
        assert_eq!(segment.source.cache.memory_bytes(), [0; 3]);
        let slots = segment.pages.slots.read();
        assert_eq!(slots.by_place.len(), 2 * COLUMNS.len(), "two pages of each column");
        assert!(slots.by_place.values().all(|slot| !slot.is_present()), "nobody holds a page any more");
    }

    #[test]
    fn pages_have_all_rows_when_they_begin_with_the_first_and_ascend() {
        let pages = |firsts: &[u32]| -> Vec<(u32, ChunkRef)> {
            firsts.iter().map(|first| (*first, ChunkRef { offset: 0, bytes: 1, crc32c: 0 })).collect()
        };
        assert!(have_all_rows(&pages(&[0]), 1) && have_all_rows(&pages(&[0, 5, 9]), 10));
        for firsts in [&[][..], &[1], &[0, 5, 5], &[0, 7, 5], &[0, 5, 10]] {
            assert!(!have_all_rows(&pages(firsts), 10), "{firsts:?}");
        }
    }
}
