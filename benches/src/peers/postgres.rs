//! PostgreSQL as a database for TPC-C: the extended query protocol over a Unix socket, with values as text.
//!
//! The protocol's client side is small, so it is written here (after "Frontend/Backend Protocol" in PostgreSQL's manual): a
//! client library would turn on features of shared dependencies, and with them rebuild the query engine for the benchmarks.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use futures::stream::BoxStream;
use rustydb_tpch::tpcc::{Client, Connection, Failure, Parameter, Rows};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// A server.
#[derive(Debug, Clone)]
pub struct Postgres {
    socket: PathBuf,
    settings: Arc<str>,
}

impl Postgres {
    /// The server behind a socket; each connection runs the script `settings` first.
    pub fn new(socket: PathBuf, settings: &str) -> Postgres {
        Postgres { socket, settings: settings.into() }
    }
}

impl Client for Postgres {
    type Connection = PostgresConnection;

    async fn connect(&self) -> Result<PostgresConnection, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(broken)?;
        let (reader, writer) = stream.into_split();
        let mut connection =
            PostgresConnection { reader: BufReader::new(reader), writer, out: Vec::new(), statements: 0 };
        let mut start = vec![0, 0, 0, 0, 0, 3, 0, 0];
        start.extend_from_slice(b"user\0postgres\0database\0postgres\0\0");
        let length = start.len() as u32;
        start[..4].copy_from_slice(&length.to_be_bytes());
        connection.writer.write_all(&start).await.map_err(broken)?;
        connection.answer().await?;
        connection.script(&self.settings).await?;
        Ok(connection)
    }

    async fn load(
        &self,
        table: &'static str,
        _columns: SchemaRef,
        mut rows: BoxStream<'static, Result<RecordBatch, ArrowError>>,
    ) -> Result<u64, Failure> {
        let mut connection = self.connect().await?;
        connection.message(b'Q', |out| text(out, &format!("COPY {table} FROM STDIN (FORMAT csv)")));
        connection.flush().await?;
        loop {
            match connection.receive().await? {
                (b'G', _) => break,
                (b'E', body) => return Err(error_of(&body)),
                _ => {}
            }
        }
        let mut count = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| Failure::unexpected(error.to_string()))?;
            let mut csv = Vec::new();
            let mut writer = arrow::csv::WriterBuilder::new().with_header(false).build(&mut csv);
            writer.write(&batch).map_err(|error| Failure::unexpected(error.to_string()))?;
            drop(writer);
            connection.message(b'd', |out| out.extend_from_slice(&csv));
            connection.flush().await?;
            count += batch.num_rows() as u64;
        }
        connection.message(b'c', |_| {});
        connection.flush().await?;
        connection.answer().await?;
        Ok(count)
    }
}

/// A connection.
#[derive(Debug)]
pub struct PostgresConnection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// Messages that are written but not sent.
    out: Vec<u8>,
    statements: u32,
}

/// What a server answered until it was ready again.
#[derive(Debug, Default)]
struct Answer {
    rows: Vec<Vec<Option<String>>>,
    /// The command's tag, such as `UPDATE 1`.
    tag: String,
}

impl PostgresConnection {
    fn message(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        write(&mut self.out);
        let length = (self.out.len() - start) as u32;
        self.out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.writer.write_all(&self.out).await.map_err(broken)?;
        self.out.clear();
        Ok(())
    }

    async fn receive(&mut self) -> Result<(u8, Vec<u8>), Failure> {
        let kind = self.reader.read_u8().await.map_err(broken)?;
        let length = self.reader.read_u32().await.map_err(broken)? as usize;
        let mut body = vec![0; length.saturating_sub(4)];
        self.reader.read_exact(&mut body).await.map_err(broken)?;
        Ok((kind, body))
    }

    /// Reads until the server is ready for the next statement. An error on the way is the outcome.
    async fn answer(&mut self) -> Result<Answer, Failure> {
        let mut answer = Answer::default();
        let mut failed = None;
        loop {
            let (kind, body) = self.receive().await?;
            match kind {
                b'D' => answer.rows.push(cells(&body)),
                b'C' => answer.tag = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).into_owned(),
                b'E' => failed = failed.or(Some(error_of(&body))),
                b'R' if body[..4] != [0; 4] => {
                    return Err(Failure::new("28000", "the server asks for a password"));
                }
                b'Z' => return failed.map_or(Ok(answer), Err),
                _ => {}
            }
        }
    }

    async fn simple(&mut self, sql: &str) -> Result<Answer, Failure> {
        self.message(b'Q', |out| text(out, sql));
        self.flush().await?;
        self.answer().await
    }

    async fn run(&mut self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Answer, Failure> {
        self.message(b'B', |out| {
            // The nameless portal, all parameters and results as text.
            text(out, "");
            text(out, statement);
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
            for parameter in parameters {
                bind(out, parameter);
            }
            out.extend_from_slice(&[0, 0]);
        });
        self.message(b'E', |out| {
            text(out, "");
            out.extend_from_slice(&[0; 4]);
        });
        self.message(b'S', |_| {});
        self.flush().await?;
        self.answer().await
    }
}

impl Connection for PostgresConnection {
    /// Its name on the server.
    type Statement = String;
    type Rows = TextRows;

    async fn prepare(&mut self, sql: &str) -> Result<String, Failure> {
        self.statements += 1;
        let name = format!("s{}", self.statements);
        self.message(b'P', |out| {
            text(out, &name);
            text(out, sql);
            out.extend_from_slice(&[0, 0]);
        });
        self.message(b'S', |_| {});
        self.flush().await?;
        self.answer().await?;
        Ok(name)
    }

    async fn query(&mut self, statement: &String, parameters: &[Parameter<'_>]) -> Result<TextRows, Failure> {
        self.run(statement, parameters).await.map(|answer| TextRows(answer.rows))
    }

    async fn execute(&mut self, statement: &String, parameters: &[Parameter<'_>]) -> Result<u64, Failure> {
        let answer = self.run(statement, parameters).await?;
        Ok(answer.tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0))
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        self.simple("BEGIN").await.map(drop)
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.simple("COMMIT").await.map(drop)
    }

    async fn roll_back(&mut self) -> Result<(), Failure> {
        // Outside of a transaction it is a warning.
        self.simple("ROLLBACK").await.map(drop)
    }

    async fn script(&mut self, sql: &str) -> Result<(), Failure> {
        self.simple(sql).await.map(drop)
    }

    async fn drain(&mut self, sql: &str) -> Result<u64, Failure> {
        self.simple(sql).await.map(|answer| answer.rows.len() as u64)
    }

    async fn texts(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        self.simple(sql).await.map(|answer| answer.rows)
    }
}

/// Rows whose cells are text.
#[derive(Debug)]
pub struct TextRows(pub Vec<Vec<Option<String>>>);

impl TextRows {
    fn cell(&self, row: usize, column: usize) -> Result<Option<&str>, Failure> {
        let cell = self.0.get(row).and_then(|row| row.get(column));
        let cell = cell.ok_or_else(|| Failure::unexpected(format!("there is no cell {row}, {column}")))?;
        Ok(cell.as_deref())
    }
}

impl Rows for TextRows {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn integer(&self, row: usize, column: usize) -> Result<Option<i64>, Failure> {
        let cell = self.cell(row, column)?;
        let unreadable = |cell: &str| Failure::unexpected(format!("{cell} is no whole number"));
        cell.map(|cell| cell.parse().map_err(|_| unreadable(cell))).transpose()
    }

    fn decimal(&self, row: usize, column: usize, scale: u8) -> Result<Option<i64>, Failure> {
        let cell = self.cell(row, column)?;
        cell.map(|cell| unscaled(cell, scale).ok_or_else(|| Failure::unexpected(format!("{cell} is no number"))))
            .transpose()
    }

    fn text(&self, row: usize, column: usize, text: &mut String) -> Result<bool, Failure> {
        let cell = self.cell(row, column)?;
        text.push_str(cell.unwrap_or_default());
        Ok(cell.is_some())
    }
}

/// A decimal in units of `10^-scale`; digits beyond are cut off.
fn unscaled(text: &str, scale: u8) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut number: i64 = whole.parse().ok()?;
    for place in 0..usize::from(scale) {
        let digit = fraction.as_bytes().get(place).map_or(0, |digit| i64::from(digit.wrapping_sub(b'0')));
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    Some(sign * number)
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(value.as_bytes());
    out.push(0);
}

fn bind(out: &mut Vec<u8>, parameter: &Parameter<'_>) {
    let value = match parameter {
        Parameter::Null => {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return;
        }
        Parameter::Integer(number) => number.to_string(),
        Parameter::Long(number) => number.to_string(),
        Parameter::Cents(cents) => {
            format!("{}{}.{:02}", if *cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
        }
        Parameter::Text(text) => (*text).to_owned(),
        Parameter::Timestamp(microseconds) => {
            let time = arrow::temporal_conversions::timestamp_us_to_datetime(*microseconds);
            time.map(|time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string()).unwrap_or_default()
        }
        Parameter::Integers(numbers) => {
            let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
            format!("{{{}}}", numbers.join(","))
        }
    };
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// The cells of a DataRow message.
fn cells(body: &[u8]) -> Vec<Option<String>> {
    let mut rest = body.get(2..).unwrap_or_default();
    let mut cells = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        rest = behind;
        match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => cells.push(None),
            Ok(length) => {
                let (cell, behind) = rest.split_at(length.min(rest.len()));
                cells.push(Some(String::from_utf8_lossy(cell).into_owned()));
                rest = behind;
            }
        }
    }
    cells
}

fn error_of(body: &[u8]) -> Failure {
    let field = |kind: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        fields.find(|field| field.first() == Some(&kind)).map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    };
    Failure::new(field(b'C').unwrap_or_default(), field(b'M').unwrap_or_default())
}

fn broken(error: std::io::Error) -> Failure {
    Failure::new("08006", error.to_string())
}
