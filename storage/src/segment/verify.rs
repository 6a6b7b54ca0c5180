//! Is a segment file what was once written, down to each page?
//!
//! A column is read in one piece and has one checksum; its pages have others, by which look-ups read them one by one. Whoever
//! verifies a file compares both: a page whose own checksum is wrong would be an error to look-ups though the column is sound, and of a
//! column that is damaged the pages tell where.

use bytes::Bytes;

use super::meta::ChunkRef;
use super::pages::PageTable;
use super::reader::{FetchedParts, decode_column, fetch_unverified, is_sound, unsound};
use crate::block::{Column, ColumnEncoder};
use crate::error::{Error, Result};

impl super::Segment {
    /// Reads all columns, whatever is in memory of them, and compares what it reads with every checksum. Tells of each how many
    /// NULLs it has, or what is wrong with it.
    ///
    /// # Errors
    /// If nothing can be told of any column.
    pub(crate) async fn verify_columns(&self) -> Result<Vec<Result<usize>>> {
        // Not kept with the segment: it is large, and nobody will need it again.
        let table = PageTable::read(self.source.objects.as_ref(), &self.meta).await?;
        let pages = table.has_pages().then_some(&table);
        let mut verified = Vec::with_capacity(self.columns.len());
        for column in 0..self.columns.len() {
            let values = self.verify_column(pages, column).await;
            verified.push(values.map(|values| {
                let nulls = values.null_count();
                self.warm_column(column, values);
                nulls
            }));
        }
        Ok(verified)
    }

    async fn verify_column(&self, pages: Option<&PageTable>, column: usize) -> Result<Column> {
        let (path, chunk, rows) = (self.meta.path(), &self.meta.columns[column].chunk, self.meta.rows as usize);
        let field = self.table.storage_schema().field(column);
        let name = format!("column \"{}\"", field.name());
        let fetched = fetch_unverified(self.source.objects.as_ref(), &path, &name, &[chunk]).await?.pop();
        let data = fetched.ok_or_else(|| Error::Internal(format!("nothing was fetched of {path}")))?;
        if let Some(damage) = pages.and_then(|pages| damage_of_pages(pages, column, &name, chunk, &data)) {
            return Err(Error::corruption(path, damage));
        }
        if !is_sound(chunk, &data) {
            return Err(unsound(&path, &name, chunk));
        }
        let mut encoder = ColumnEncoder::new(field.data_type(), rows);
        let parts = FetchedParts { file_bytes: self.meta.file_bytes, parts: vec![(chunk.offset, data)] };
        let take = |values| encoder.push(values);
        decode_column(&self.table, &self.meta, self.footer().await?, column, 0..rows, parts, take)?;
        encoder.finish()
    }
}

/// The first page of a column (or its dictionary) whose checksum is wrong, and how many others there are. `data` is the chunk.
fn damage_of_pages(pages: &PageTable, column: usize, name: &str, chunk: &ChunkRef, data: &Bytes) -> Option<String> {
    let is_damaged = |part: &ChunkRef| {
        let start = usize::try_from(part.offset.checked_sub(chunk.offset)?).ok()?;
        let end = start.checked_add(usize::try_from(part.bytes).ok()?)?;
        Some(!is_sound(part, data.get(start..end)?))
    };
    let dictionary = pages.dictionary_of(column).map(|part| (None, part));
    let parts = dictionary.into_iter().chain(pages.pages_of(column).enumerate().map(|(page, part)| (Some(page), part)));
    // What lies outside of the column is not sound either.
    let mut damaged = parts.filter(|&(_, part)| is_damaged(part).unwrap_or(true));
    let (page, part) = damaged.next()?;
    let what = match page {
        None => "the dictionary".to_owned(),
        Some(page) => {
            let rows = pages.rows_of(column, page);
            format!("page {page} (rows {} to {})", rows.start, rows.end - 1)
        }
    };
    let others = match damaged.count() {
        0 => String::new(),
        others => format!(", as are those of others of its pages ({others})"),
    };
    Some(format!("the checksum of {what} of {name} at byte {} is wrong{others}", part.offset))
}
