//! COPY … TO: rows into a file ([`Target`]).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::{WriterBuilder, writer::LineDelimited};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use futures::StreamExt;

use super::csv::{CsvWriter, printable};
use super::target::Target;
use super::{Format, allowed_file};
use crate::constraints::{is_generated, shown_columns};
use crate::dml::defaults::column_index;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::grammar::copy::{CopySource, CopyStatement};
use crate::sql::plan::{bind, make_ready, plan_query};
use crate::sql::text::parse::{ParsedStatement, fold, parse_statement, place, table_name};
use crate::{Error, Result};

/// Bytes gathered before they are written.
const WRITE_BUFFER: usize = 1024 * 1024;

pub(crate) async fn copy_to(statement: &Statement<'_>, context: StatementContext, copy: CopyStatement) -> Result<u64> {
    let CopyStatement { source, to: _, target, options } = copy;
    let query = match source {
        CopySource::Query(query) => query,
        CopySource::Table { name, columns } => {
            let (schema, plain_name) = table_name(&name)?;
            let at = name.0.first().and_then(|part| part.as_ident()).and_then(|ident| place(ident.span));
            let table = context.table(schema.as_deref(), &plain_name).map_err(|error| error.at(at))?;
            let mut names = Vec::new();
            for ident in &columns {
                let column = column_index(table, &fold(ident)).map_err(|error| error.at(place(ident.span)))?;
                names.push(quoted(table.schema.field(column).name()));
            }
            if names.is_empty() {
                // Whoever loads the file computes those that are generated.
                let shown =
                    table.schema.fields().iter().take(shown_columns(table)).filter(|field| !is_generated(field));
                names.extend(shown.map(|field| quoted(field.name())));
            }
            table_query(&names.join(", "), &format!("{}.{}", quoted(&table.schema_name), quoted(&table.name)))?
        }
    };
    let path = allowed_file(statement.database, target)?;
    let format = Format::of(&options, &path)?;
    let ready = make_ready(&context, bind(plan_query(&context, *query)?, statement.parameters)?).await?;
    // From here on nothing is kept but what the query reads: whoever takes the rows may be slow.
    drop(context);
    let mut rows = statement.start(ready);
    // Opening a pipe waits for its reader: not on a thread that others need.
    let data = statement.database.directory().map(Path::to_owned);
    let opened = tokio::task::spawn_blocking(move || Target::open(&path, data.as_deref()));
    let target = opened.await??;
    let mut writer = FileWriter::new(&target, format, rows.schema()).map_err(|error| failed(&target, error))?;
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        count += batch.num_rows() as u64;
        writer.write(&batch).map_err(|error| failed(&target, error))?;
    }
    writer.finish().map_err(|error| failed(&target, error))?;
    let named = target.named().to_owned();
    target.finish().map_err(|error| Error::io(format!("cannot write {}", named.display()), &error))?;
    Ok(count)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn table_query(columns: &str, table: &str) -> Result<Box<datafusion::sql::sqlparser::ast::Query>> {
    let parsed = parse_statement(&format!("SELECT {columns} FROM {table}"))?;
    if let ParsedStatement::Sql(statement) = parsed.statement
        && let SqlStatement::Query(query) = *statement
    {
        return Ok(query);
    }
    Err(Error::internal("a SELECT is a query"))
}

/// What went wrong while writing: the system, or a value that has no form in this format.
enum WriteError {
    Io(std::io::Error),
    Other(Error),
}

impl From<std::io::Error> for WriteError {
    fn from(error: std::io::Error) -> Self {
        WriteError::Io(error)
    }
}

impl<E: Into<Error>> From<E> for WriteError {
    fn from(error: E) -> Self {
        WriteError::Other(error.into())
    }
}

fn failed(target: &Target, error: WriteError) -> Error {
    match error {
        WriteError::Io(error) => Error::io(format!("cannot write {}", target.named().display()), &error),
        WriteError::Other(error) => error,
    }
}

enum FileWriter {
    Csv(CsvWriter<BufWriter<File>>),
    Json(arrow::json::Writer<BufWriter<File>, LineDelimited>),
    Parquet(Box<ArrowWriter<BufWriter<File>>>),
}

impl FileWriter {
    fn new(target: &Target, format: Format, schema: SchemaRef) -> Result<Self, WriteError> {
        let file = BufWriter::with_capacity(WRITE_BUFFER, target.file()?);
        Ok(match format {
            Format::Csv(format) => FileWriter::Csv(CsvWriter::new(file, format, &schema)?),
            // NULL is written as null: a missing name would be a different object.
            Format::Json => FileWriter::Json(WriterBuilder::new().with_explicit_nulls(true).build(file)),
            Format::Parquet { compression } => {
                let properties = WriterProperties::builder().set_compression(compression).build();
                let writer = ArrowWriter::try_new(file, schema, Some(properties));
                FileWriter::Parquet(Box::new(writer.map_err(datafusion::error::DataFusionError::from)?))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        match self {
            FileWriter::Csv(writer) => writer.write(batch)??,
            FileWriter::Json(writer) => {
                let columns = batch.columns().iter().map(printable).collect::<Result<Vec<_>>>()?;
                let columns =
                    batch.schema().fields().iter().map(|field| field.name().clone()).zip(columns).collect::<Vec<_>>();
                writer.write(&RecordBatch::try_from_iter(columns)?)?;
            }
            FileWriter::Parquet(writer) => writer.write(batch).map_err(datafusion::error::DataFusionError::from)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<(), WriteError> {
        let mut file = match self {
            FileWriter::Csv(writer) => writer.finish()?,
            FileWriter::Json(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
            FileWriter::Parquet(writer) => writer.into_inner().map_err(datafusion::error::DataFusionError::from)?,
        };
        file.flush()?;
        Ok(())
    }
}
