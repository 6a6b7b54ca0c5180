//! RustyDB in this process as a [`Client`]: sessions, prepared statements, and bulk ingest.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use futures::stream::BoxStream;
use rustydb_engine::{
    DEFAULT_SCHEMA, DataRows, Database, Datum, Error, IngestMode, IngestTarget, Prepared, Session, StatementResult,
    Value,
};

use super::client::{Client, Connection, Failure, Parameter, Rows};

/// An open database.
#[derive(Debug, Clone)]
pub struct Embedded {
    database: Database,
    /// Statements that every session begins with, such as `SET synchronous_commit = off`.
    settings: String,
}

impl Embedded {
    /// Sessions of `database`, each of which runs the script `settings` first.
    pub fn new(database: Database, settings: impl Into<String>) -> Self {
        Embedded { database, settings: settings.into() }
    }
}

impl Client for Embedded {
    type Connection = EmbeddedConnection;

    async fn connect(&self) -> Result<EmbeddedConnection, Failure> {
        let session = self.database.connect();
        session.execute_script(&self.settings).await?;
        let begin = session.prepare("BEGIN").await?;
        let commit = session.prepare("COMMIT").await?;
        let roll_back = session.prepare("ROLLBACK").await?;
        Ok(EmbeddedConnection { session, begin, commit, roll_back })
    }

    async fn load(
        &self,
        table: &'static str,
        columns: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch, ArrowError>>,
    ) -> Result<u64, Failure> {
        let target = IngestTarget {
            schema: Some(DEFAULT_SCHEMA.to_owned()),
            table: table.to_owned(),
            temporary: false,
            mode: IngestMode::Append,
            columns,
        };
        let rows = rows.map(|batch| batch.map_err(Error::from)).boxed();
        // Boxed here and below: the engine's futures are deeply nested types, and the compiler's depth limit counts them
        // into those of every caller.
        Ok(Box::pin(self.database.connect().ingest(target, rows)).await?)
    }
}

/// A session.
#[derive(Debug)]
pub struct EmbeddedConnection {
    session: Session,
    begin: Prepared,
    commit: Prepared,
    roll_back: Prepared,
}

impl EmbeddedConnection {
    async fn run(&self, statement: &Prepared, parameters: &[Parameter<'_>]) -> Result<StatementResult, Failure> {
        let schema = statement.parameter_schema();
        let values: Vec<Value> = parameters
            .iter()
            .zip(schema.fields())
            .map(|(parameter, field)| value_of(parameter, field.data_type()))
            .collect();
        Ok(Box::pin(self.session.execute_prepared(statement, &values)).await?)
    }
}

impl Connection for EmbeddedConnection {
    type Statement = Prepared;
    type Rows = EmbeddedRows;

    async fn prepare(&mut self, sql: &str) -> Result<Prepared, Failure> {
        Ok(Box::pin(self.session.prepare(sql)).await?)
    }

    async fn query(&mut self, statement: &Prepared, parameters: &[Parameter<'_>]) -> Result<EmbeddedRows, Failure> {
        match self.run(statement, parameters).await? {
            StatementResult::Rows(rows) => Ok(match rows.into_data() {
                Ok(data) => EmbeddedRows::Data(data),
                Err(rows) => EmbeddedRows::Batches(Batches::new(rows.collect().await?)),
            }),
            StatementResult::Done(done) => {
                Err(Failure::unexpected(format!("{} instead of rows: {}", done.tag, statement.sql())))
            }
        }
    }

    async fn execute(&mut self, statement: &Prepared, parameters: &[Parameter<'_>]) -> Result<u64, Failure> {
        match self.run(statement, parameters).await? {
            StatementResult::Rows(_) => Err(Failure::unexpected(format!("rows nobody asked for: {}", statement.sql()))),
            StatementResult::Done(done) => Ok(done.rows.unwrap_or(0)),
        }
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        self.run(&self.begin, &[]).await.map(drop)
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.run(&self.commit, &[]).await.map(drop)
    }

    async fn roll_back(&mut self) -> Result<(), Failure> {
        if self.session.in_transaction() { self.run(&self.roll_back, &[]).await.map(drop) } else { Ok(()) }
    }

    async fn script(&mut self, sql: &str) -> Result<(), Failure> {
        Ok(Box::pin(self.session.execute_script(sql)).await?)
    }

    async fn drain(&mut self, sql: &str) -> Result<u64, Failure> {
        let StatementResult::Rows(mut rows) = Box::pin(self.session.execute(sql, &[])).await? else {
            return Err(Failure::unexpected(format!("no rows: {sql}")));
        };
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            count += batch?.num_rows() as u64;
        }
        Ok(count)
    }

    async fn texts(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        match Box::pin(self.session.execute(sql, &[])).await? {
            StatementResult::Rows(rows) => texts_of(&rows.collect().await?),
            StatementResult::Done(done) => Err(Failure::unexpected(format!("{} instead of rows: {sql}", done.tag))),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut message = error.message().to_owned();
        if let Some(detail) = error.detail() {
            message.push_str(&format!("; {detail}"));
        }
        Failure::new(error.sqlstate(), message)
    }
}

/// A parameter as the engine takes it, of the type that the statement asks for where that is one of its kind.
pub fn value_of(parameter: &Parameter<'_>, wanted: &DataType) -> Value {
    match (*parameter, wanted) {
        (Parameter::Null, wanted) => Value::try_from(wanted).unwrap_or(Value::Null),
        (Parameter::Integer(number), DataType::Int64) => Value::Int64(Some(i64::from(number))),
        (Parameter::Integer(number), _) => Value::Int32(Some(number)),
        (Parameter::Long(number), _) => Value::Int64(Some(number)),
        (Parameter::Cents(cents), DataType::Decimal128(precision, scale)) if *scale >= 2 => {
            let factor = 10_i128.pow(u32::from(scale.unsigned_abs()) - 2);
            Value::Decimal128(Some(i128::from(cents) * factor), *precision, *scale)
        }
        (Parameter::Cents(cents), _) => Value::Decimal128(Some(i128::from(cents)), 12, 2),
        (Parameter::Text(text), _) => Value::Utf8(Some(text.to_owned())),
        (Parameter::Timestamp(microseconds), DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            Value::TimestampMicrosecond(Some(microseconds), zone.clone())
        }
        (Parameter::Timestamp(microseconds), _) => Value::TimestampMicrosecond(Some(microseconds), None),
        (Parameter::Integers(numbers), _) => {
            let numbers = Int32Array::from(numbers.to_vec());
            let field = Arc::new(Field::new_list_field(DataType::Int32, true));
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([numbers.len()]);
            Value::List(Arc::new(arrow::array::ListArray::new(field, offsets, Arc::new(numbers), None)))
        }
    }
}

/// The rows of a result: single values where the engine has them at hand, or else batches.
#[derive(Debug)]
pub enum EmbeddedRows {
    /// Of a statement on the row path.
    Data(DataRows),
    /// Of any other.
    Batches(Batches),
}

/// A cell of single values, and its type.
fn datum(data: &DataRows, row: usize, column: usize) -> Result<(&Datum, &DataType), Failure> {
    let datum = data.rows.get(row).and_then(|row| row.get(column));
    let field = data.schema.fields().get(column);
    match (datum, field) {
        (Some(datum), Some(field)) => Ok((datum, field.data_type())),
        _ => Err(Failure::unexpected(format!("there is no row {row} or no column {column}"))),
    }
}

impl Rows for EmbeddedRows {
    fn count(&self) -> usize {
        match self {
            EmbeddedRows::Data(data) => data.rows.len(),
            EmbeddedRows::Batches(batches) => batches.count(),
        }
    }

    fn integer(&self, row: usize, column: usize) -> Result<Option<i64>, Failure> {
        match self {
            EmbeddedRows::Batches(batches) => batches.integer(row, column),
            EmbeddedRows::Data(data) => match datum(data, row, column)? {
                (Datum::Null, _) => Ok(None),
                (Datum::Int(number), data_type) if data_type.is_integer() => Ok(Some(*number)),
                (_, other) => Err(Failure::unexpected(format!("column {column} is no whole number but {other}"))),
            },
        }
    }

    fn decimal(&self, row: usize, column: usize, scale: u8) -> Result<Option<i64>, Failure> {
        match self {
            EmbeddedRows::Batches(batches) => batches.decimal(row, column, scale),
            EmbeddedRows::Data(data) => match datum(data, row, column)? {
                (Datum::Null, _) => Ok(None),
                (Datum::Decimal(unscaled), DataType::Decimal128(_, digits)) => {
                    rescaled(*unscaled, *digits, scale, column).map(Some)
                }
                (_, other) => Err(Failure::unexpected(format!("column {column} is no decimal but {other}"))),
            },
        }
    }

    fn text(&self, row: usize, column: usize, text: &mut String) -> Result<bool, Failure> {
        match self {
            EmbeddedRows::Batches(batches) => batches.text(row, column, text),
            EmbeddedRows::Data(data) => match datum(data, row, column)? {
                (Datum::Null, _) => Ok(false),
                (Datum::Text(found), _) => {
                    text.push_str(found);
                    Ok(true)
                }
                (_, other) => Err(Failure::unexpected(format!("column {column} is no text but {other}"))),
            },
        }
    }
}

/// The digits of a decimal at another scale, cut off.
fn rescaled(unscaled: i128, digits: i8, scale: u8, column: usize) -> Result<i64, Failure> {
    let shift = i32::from(scale) - i32::from(digits);
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    let scaled = power.and_then(|power| if shift >= 0 { unscaled.checked_mul(power) } else { Some(unscaled / power) });
    let scaled = scaled.and_then(|scaled| i64::try_from(scaled).ok());
    scaled.ok_or_else(|| Failure::unexpected(format!("column {column} holds a number out of range")))
}

/// Record batches as [`Rows`].
#[derive(Debug)]
pub struct Batches {
    batches: Vec<RecordBatch>,
}

impl Batches {
    /// The rows of all batches.
    pub fn new(batches: Vec<RecordBatch>) -> Self {
        Batches { batches }
    }

    /// The array that holds a cell, and the cell's place in it.
    fn cell(&self, row: usize, column: usize) -> Result<(&dyn Array, usize), Failure> {
        let mut place = row;
        for batch in &self.batches {
            if place < batch.num_rows() {
                let array = batch.columns().get(column);
                let array = array.ok_or_else(|| Failure::unexpected(format!("there is no column {column}")))?;
                return Ok((array.as_ref(), place));
            }
            place -= batch.num_rows();
        }
        Err(Failure::unexpected(format!("there is no row {row}")))
    }
}

impl Rows for Batches {
    fn count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    fn integer(&self, row: usize, column: usize) -> Result<Option<i64>, Failure> {
        let (array, row) = self.cell(row, column)?;
        if array.is_null(row) {
            return Ok(None);
        }
        Ok(Some(match array.data_type() {
            DataType::Int16 => i64::from(array.as_primitive::<Int16Type>().value(row)),
            DataType::Int32 => i64::from(array.as_primitive::<Int32Type>().value(row)),
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row),
            other => return Err(Failure::unexpected(format!("column {column} is no whole number but {other}"))),
        }))
    }

    fn decimal(&self, row: usize, column: usize, scale: u8) -> Result<Option<i64>, Failure> {
        let (array, row) = self.cell(row, column)?;
        if array.is_null(row) {
            return Ok(None);
        }
        let DataType::Decimal128(_, digits) = *array.data_type() else {
            return Err(Failure::unexpected(format!("column {column} is no decimal but {}", array.data_type())));
        };
        rescaled(array.as_primitive::<Decimal128Type>().value(row), digits, scale, column).map(Some)
    }

    fn text(&self, row: usize, column: usize, text: &mut String) -> Result<bool, Failure> {
        let (array, row) = self.cell(row, column)?;
        if array.is_null(row) {
            return Ok(false);
        }
        text.push_str(match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value(row),
            DataType::LargeUtf8 => array.as_string::<i64>().value(row),
            DataType::Utf8View => array.as_string_view().value(row),
            other => return Err(Failure::unexpected(format!("column {column} is no text but {other}"))),
        });
        Ok(true)
    }
}

/// The cells of batches as text.
pub fn texts_of(batches: &[RecordBatch]) -> Result<Vec<Vec<Option<String>>>, Failure> {
    let unreadable = |error: ArrowError| Failure::unexpected(error.to_string());
    let options = FormatOptions::default();
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter();
        let formatters: Vec<_> = columns
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(&formatters);
            rows.push(cells.map(|(column, cell)| column.is_valid(row).then(|| cell.value(row).to_string())).collect());
        }
    }
    Ok(rows)
}
