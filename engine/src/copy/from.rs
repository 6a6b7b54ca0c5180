//! COPY … FROM: a file's rows into a table.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{Stream, StreamExt, stream};
use rustydb_storage::{TableDef, Transaction};
use tokio::sync::mpsc;

use super::csv::CsvReader;
use super::json::JsonReader;
use super::parquet::{ParquetFile, ParquetReader};
use super::{Decoded, Format, allowed_file, file_error};
use crate::constraints::is_generated;
use crate::ddl::locks::require_loaded_table;
use crate::dml::defaults::{column_index, sources_by_name};
use crate::dml::insert::load;
use crate::dml::rows::{Arrangement, RowCheck};
use crate::error::{FaultyKey, sqlstate};
use crate::functions::input::is_time;
use crate::session::Statement;
use crate::sql::grammar::copy::{CopySource, CopyStatement};
use crate::sql::text::parse::{fold, place, table_name};
use crate::sql::widths::check_table_width;
use crate::{Error, Result};

/// Batches decoded ahead of the store.
const BATCHES_AHEAD: usize = 4;
/// Bytes read from a text file at once.
const READ_BUFFER: usize = 1024 * 1024;

pub(crate) async fn copy_from(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    copy: CopyStatement,
) -> Result<u64> {
    let CopyStatement { source, to: _, target, options } = copy;
    let CopySource::Table { name, columns } = source else {
        return Err(Error::syntax("COPY FROM fills a table, not a query"));
    };
    let context = statement.context(transaction.view());
    let (schema, plain_name) = table_name(&name)?;
    let table = context.table(schema.as_deref(), &plain_name);
    let table = Arc::clone(table.map_err(|error| {
        error.at(name.0.first().and_then(|part| part.as_ident()).and_then(|ident| place(ident.span)))
    })?);
    let mut named = Vec::with_capacity(columns.len());
    for ident in &columns {
        let column = column_index(&table, &fold(ident)).map_err(|error| error.at(place(ident.span)))?;
        named.push(table.schema.field(column).name().clone());
    }
    let path: Arc<Path> = allowed_file(statement.database, target)?.into();
    let format = Format::of(&options, &path)?;
    let (names, reader) = open(&path, format.clone(), &table, named.clone())?;
    let sources = sources_by_name(&context, &table, names.iter().map(String::as_str)).map_err(|error| {
        file_error(&path, None, error).with_hint("Name the columns to load: COPY table (columns) FROM …")
    })?;
    let rows = Arc::new((Arrangement::new(sources), RowCheck::new(&context, &table)?));
    drop(context);
    let (file, arranged) = (Arc::clone(&path), Arc::clone(&rows));
    let loaded = batches(reader).map(move |decoded| {
        let (arrangement, check) = arranged.as_ref();
        let decoded = decoded?;
        let columns = arrangement.arrange(&decoded.batch)?;
        check
            .conform(&columns, decoded.batch.num_rows())
            .map_err(|error| locate(&file, check, &columns, &decoded.lines, error))
    });
    let error = match load(statement, transaction, &table, Box::pin(loaded)).await {
        Err(error) => error,
        Ok(rows) => {
            require_loaded_table(transaction, &table)?;
            return Ok(rows);
        }
    };
    // Of a duplicate key or a missing parent the store does not know the origin.
    let says_where = error.message().starts_with(&path.display().to_string());
    if says_where || !error.sqlstate().starts_with("23") {
        return Err(error);
    }
    let line = match (error.key(), open(&path, format, &table, named)) {
        (Some(key), Ok((_, reader))) => find_line(reader, &table, &rows, key).await,
        _ => None,
    };
    Err(file_error(&path, line, error))
}

/// The line that has a key which is at fault, by reading the file again: the second one that has it, if there are several,
/// and the first otherwise.
async fn find_line(
    reader: Reader,
    table: &TableDef,
    (arrangement, check): &(Arrangement, RowCheck),
    key: &FaultyKey,
) -> Option<u64> {
    let places = key.columns.iter().map(|name| table.schema.index_of(name).ok());
    let places = places.collect::<Option<Vec<usize>>>()?;
    let options = FormatOptions::default();
    let mut found = None;
    let mut decoded = std::pin::pin!(batches(reader));
    while let Some(batch) = decoded.next().await {
        let Decoded { batch, lines } = batch.ok()?;
        let rows = check.conform(&arrangement.arrange(&batch).ok()?, batch.num_rows()).ok()?;
        let columns = places.iter().map(|place| ArrayFormatter::try_new(rows.column(*place), &options).ok());
        let columns = columns.collect::<Option<Vec<_>>>()?;
        for (row, line) in lines.iter().enumerate() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            if values.join(", ") == key.values {
                if found.is_some() {
                    return Some(*line);
                }
                found = Some(*line);
            }
        }
    }
    found
}

/// The error of the first row that fails on its own, with its line.
fn locate(path: &Path, check: &RowCheck, columns: &[ArrayRef], lines: &[u64], error: Error) -> Error {
    for (row, line) in lines.iter().enumerate() {
        let columns: Vec<ArrayRef> = columns.iter().map(|column| column.slice(row, 1)).collect();
        if let Err(error) = check.conform(&columns, 1) {
            return file_error(path, Some(*line), error);
        }
    }
    file_error(path, None, error)
}

/// A reader of any format.
enum Reader {
    Csv(CsvReader<BufReader<File>>),
    Json(JsonReader<BufReader<File>>),
    Parquet(Box<ParquetReader>),
}

impl Reader {
    fn next_batch(&mut self) -> Result<Option<Decoded>> {
        match self {
            Reader::Csv(reader) => reader.next_batch(),
            Reader::Json(reader) => reader.next_batch(),
            Reader::Parquet(reader) => reader.next_batch(),
        }
    }
}

/// Opens a file. Returns the table's columns its batches hold, in their order.
fn open(path: &Arc<Path>, format: Format, table: &TableDef, named: Vec<String>) -> Result<(Vec<String>, Reader)> {
    let failed = |error: &std::io::Error| Error::io(format!("cannot open {}", path.display()), error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    if file.metadata().map_err(|error| failed(&error))?.is_dir() {
        return Err(Error::new(sqlstate::IO, format!("{} is a directory; COPY reads one file", path.display())));
    }
    match format {
        Format::Parquet { .. } => {
            let file = ParquetFile::open(path, file)?;
            let names = if named.is_empty() { file.columns() } else { named };
            check_table_width(names.len()).map_err(|error| file_error(path, None, error))?;
            let (schema, reader) = file.read(&names)?;
            let names = schema.fields().iter().map(|field| field.name().clone()).collect();
            Ok((names, Reader::Parquet(Box::new(reader))))
        }
        Format::Csv(format) => {
            let (names, fields) = table_fields(table, named, true)?;
            let input = BufReader::with_capacity(READ_BUFFER, file);
            Ok((names, Reader::Csv(CsvReader::new(input, Arc::clone(path), format, fields)?)))
        }
        Format::Json => {
            let (names, fields) = table_fields(table, named, false)?;
            let input = BufReader::with_capacity(READ_BUFFER, file);
            Ok((names, Reader::Json(JsonReader::new(input, Arc::clone(path), fields))))
        }
    }
}

/// The fields of the named columns, or of all. NULL is refused later, with the table's name in the message.
fn table_fields(table: &TableDef, named: Vec<String>, reads_dates: bool) -> Result<(Vec<String>, Vec<Field>)> {
    let names = match named.is_empty() {
        true => {
            let stored = table.schema.fields().iter().filter(|field| !is_generated(field));
            stored.map(|field| field.name().clone()).collect()
        }
        false => named,
    };
    let field = |name: &String| {
        let data_type = match table.schema.field(column_index(table, name)?).data_type() {
            // A date is the same by any clock: the thread of the reader reads it, ahead of the store.
            DataType::Date32 if reads_dates => DataType::Date32,
            // Its text is read when it is assigned: by the session's clock, in all forms, and rounded where the column has few
            // digits.
            data_type if is_time(data_type) => DataType::Utf8View,
            other => other.clone(),
        };
        Ok(Field::new(name, data_type, true))
    };
    let fields = names.iter().map(field).collect::<Result<Vec<_>>>()?;
    Ok((names, fields))
}

/// Decodes on a thread of its own, a few batches ahead. The thread ends when nobody takes its batches any more.
fn batches(mut reader: Reader) -> impl Stream<Item = Result<Decoded>> + Send {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            let next = reader.next_batch();
            let last = !matches!(next, Ok(Some(_)));
            let Some(next) = next.transpose() else { return };
            if sender.blocking_send(next).is_err() || last {
                return;
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|batch| (batch, receiver)) })
}
