//! Parquet files, read with the columns a load asks for.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{Decoded, file_error, malformed};
use crate::error::{nearest, sqlstate};
use crate::sql::nul;
use crate::{Error, Result};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// An open file, before its columns are chosen.
pub(super) struct ParquetFile {
    path: Arc<Path>,
    builder: ParquetRecordBatchReaderBuilder<File>,
}

impl ParquetFile {
    pub(super) fn open(path: &Arc<Path>, file: File) -> Result<Self> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(|error| malformed(path, None, format!("not a Parquet file that can be read: {error}")))?;
        Ok(ParquetFile { path: Arc::clone(path), builder })
    }

    /// The names of its columns.
    pub(super) fn columns(&self) -> Vec<String> {
        self.builder.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// A reader of the named columns. Returns the schema its batches will have.
    pub(super) fn read(self, names: &[String]) -> Result<(SchemaRef, ParquetReader)> {
        let schema = self.builder.schema();
        let mut roots = Vec::with_capacity(names.len());
        for name in names {
            let root = schema.fields().iter().position(|field| field.name() == name).ok_or_else(|| {
                let message = format!("the file has no column \"{name}\"");
                let error = Error::new(sqlstate::UNDEFINED_COLUMN, message);
                let error = match nearest(name, schema.fields().iter().map(|field| field.name().as_str())) {
                    Some(near) => error.with_hint(format!("It has a column \"{near}\".")),
                    None => error,
                };
                file_error(&self.path, None, error)
            })?;
            roots.push(root);
        }
        let mask = ProjectionMask::roots(self.builder.parquet_schema(), roots);
        let reader = self.builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        let batches = reader.map_err(|error| malformed(&self.path, None, error.to_string()))?;
        let schema = arrow::array::RecordBatchReader::schema(&batches);
        Ok((schema, ParquetReader { path: self.path, batches }))
    }
}

/// The batches of a file.
pub(super) struct ParquetReader {
    path: Arc<Path>,
    batches: ParquetRecordBatchReader,
}

impl ParquetReader {
    pub(super) fn next_batch(&mut self) -> Result<Option<Decoded>> {
        let batch = self.batches.next().transpose();
        let batch = batch.map_err(|error| malformed(&self.path, None, error.to_string()))?;
        if let Some(batch) = &batch {
            nul::check_rows(batch).map_err(|error| file_error(&self.path, None, error))?;
        }
        Ok(batch.map(|batch| Decoded { batch, lines: Vec::new() }))
    }
}
