//! Does every row refer to a row that is there?
//!
//! The engine looks at foreign keys when rows change; nothing in the files would show if it had missed one, or if a row had
//! been lost. So the check asks for the parent of every live row, as a commit would: by primary key, or by the unique
//! index that the constraint refers to. Rows with a NULL among the referring columns refer to nothing.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{filter, take};
use bytes::Bytes;
use rustydb_txn::Timestamp;

use super::{CheckReport, Finding};
use crate::BLOCK_ROWS;
use crate::catalog::{ForeignKey, TableDef};
use crate::encoding::KeyEncoder;
use crate::error::Result;
use crate::kernel::Mask;
use crate::log::LOG_DIRECTORY;
use crate::store::Version;

/// How the parent of a row is found.
struct Reference<'a> {
    parent: &'a TableDef,
    /// The position of the unique index among the parent's; `None` for the primary key.
    index: Option<usize>,
    encoder: &'a KeyEncoder,
    /// The child's columns in the order of that key.
    columns: Vec<usize>,
}

impl<'a> Reference<'a> {
    /// `None` if the constraint does not promise that there is a parent, or in a way that is not known here.
    fn new(version: &'a Version, child: &TableDef, foreign_key: &ForeignKey) -> Result<Option<Reference<'a>>> {
        let Some(parent) = version.catalog.table(foreign_key.parent) else { return Ok(None) };
        if foreign_key.not_validated {
            return Ok(None);
        }
        let columns = |key: &[usize]| -> Option<Vec<usize>> {
            let of_child = |column: &usize| {
                let at = foreign_key.parent_columns.iter().position(|parent| parent == column)?;
                let (own, other) = (foreign_key.columns[at], parent.storage_schema().field(*column));
                (child.storage_schema().field(own).data_type() == other.data_type()).then_some(own)
            };
            (key.len() == foreign_key.columns.len()).then(|| key.iter().map(of_child).collect()).flatten()
        };
        let codec = parent.codec()?;
        if let Some(columns) = columns(parent.key_columns()) {
            return Ok(Some(Reference { parent, index: None, encoder: &codec.keys, columns }));
        }
        let unique = parent.indexes.iter().enumerate().filter(|(_, index)| index.unique);
        let found = unique.filter_map(|(position, index)| Some((position, columns(&index.columns)?))).next();
        Ok(found.map(|(position, columns)| Reference {
            parent,
            index: Some(position),
            encoder: &codec.indexes[position],
            columns,
        }))
    }

    /// How many rows, given as the child's columns, have no parent.
    async fn orphans(&self, version: &Version, columns: &[ArrayRef]) -> Result<usize> {
        let mut complete = Mask::all(columns.first().map_or(0, |column| column.len()));
        columns.iter().for_each(|column| complete.and_valid(column.nulls()));
        let complete = complete.to_boolean();
        let columns = columns.iter().map(|column| Ok(filter(column, &complete)?)).collect::<Result<Vec<_>>>()?;
        let keys = self.encoder.encode(&columns)?;
        let mut orphans = 0;
        match self.index {
            None => {
                let _pins = version.load_keys(self.parent.id, (0..keys.len()).map(|row| keys.get(row))).await?;
                for row in 0..keys.len() {
                    let parent = version.locate(self.parent.id, keys.get(row), Timestamp::MAX)?;
                    orphans += usize::from(parent.is_none());
                }
            }
            Some(position) => {
                let values: Vec<Vec<u8>> = (0..keys.len()).map(|row| keys.get(row).to_vec()).collect();
                let _pins = version.load_postings(self.parent, position, &values).await?;
                for value in &values {
                    let parent = version.holder(self.parent, position, value, Timestamp::MAX, |_| false)?;
                    orphans += usize::from(parent.is_none());
                }
            }
        }
        Ok(orphans)
    }
}

/// Reports rows of a table that refer to rows that are not there.
pub(super) async fn check_references(version: &Version, child: &Arc<TableDef>, report: &mut CheckReport) -> Result<()> {
    for foreign_key in &child.foreign_keys {
        let Some(reference) = Reference::new(version, child, foreign_key)? else { continue };
        let mut note = |file: String, orphans: usize| {
            if orphans > 0 {
                let (name, parent) = (&foreign_key.name, &reference.parent.name);
                let detail = format!("{orphans} rows of \"{}\" have no parent in \"{parent}\" ({name})", child.name);
                report.findings.push(Finding { file, detail });
            }
        };
        for segment in version.segments(child.id) {
            let deleted = segment.deletes.at(Timestamp::MAX).unwrap_or_default();
            let rows = segment.meta.rows as usize;
            let mut columns = Vec::with_capacity(reference.columns.len());
            for column in &reference.columns {
                columns.push(segment.column(*column).await?.to_array()?);
            }
            let mut orphans = 0;
            for start in (0..rows).step_by(BLOCK_ROWS) {
                let live = deleted.live(start / BLOCK_ROWS, BLOCK_ROWS.min(rows - start)).indices();
                let live: UInt32Array = live.into_iter().map(|row| row + start as u32).collect::<Vec<u32>>().into();
                let of_block = columns.iter().map(|column| Ok(take(column, &live, None)?));
                orphans += reference.orphans(version, &of_block.collect::<Result<Vec<_>>>()?).await?;
            }
            note(segment.meta.path(), orphans);
        }
        let mut rows: Vec<Bytes> = Vec::new();
        if let Some(part) = version.active.table(child.id) {
            part.collect_visible(None, Timestamp::MAX, usize::MAX, |_| false, |_, row, _| rows.push(row));
        }
        let mut orphans = 0;
        for rows in rows.chunks(BLOCK_ROWS) {
            let rows: Vec<&[u8]> = rows.iter().map(Bytes::as_ref).collect();
            let columns = child.codec()?.rows.decode(&rows, &reference.columns)?;
            orphans += reference.orphans(version, columns.columns()).await?;
        }
        note(LOG_DIRECTORY.to_owned(), orphans);
    }
    Ok(())
}
