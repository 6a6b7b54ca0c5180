//! A client that loads a server and measures: a Python client would spend more time on a short request than the server does.
//! `benches/flight/flight.py` runs it.
//!
//! ```text
//! load_client points  HOST:PORT CONNECTIONS SECONDS SQL KEYS    one row by its key: bind, fetch
//! load_client driver  HOST:PORT CONNECTIONS SECONDS SQL KEYS    the same as drivers do it: bind, GetFlightInfo, fetch
//! load_client exchange HOST:PORT CONNECTIONS SECONDS SQL KEYS   the same on one stream of each connection, by `RemoteClient`
//! load_client updates HOST:PORT CONNECTIONS SECONDS SQL KEYS    a change of one row by its key, committed
//! load_client idle    URL COUNT TOKEN [CA-FILE]                 logs in, runs one query on each connection, and then waits
//! load_client nothing HOST:PORT                                 a server to compare with, for points and driver with KEYS = 1
//! ```
//!
//! SQL has one parameter, the key: a number from 1 to KEYS, in an order that jumps about. Of a query's answer the first column
//! is the key, which is checked; of an update that it changed one row. Prints one line of JSON; `idle` then waits for the
//! end of its standard input, and `nothing`, whose line has the address, for the end of its process.

mod nothing;

use std::collections::HashMap;
use std::error::Error;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray as _, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::utils::{batches_to_flight_data, flight_data_to_arrow_batch};
use arrow_flight::{Action, FlightData, FlightDescriptor, Ticket};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use rustydb_flight::{RemoteClient, RemoteOptions, RemoteResult, RemoteStatement};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Coprime to every number of keys that is not a multiple of it: visits them all.
const STRIDE: i64 = 7_919;
/// Logins at the same time.
const LOGINS: usize = 32;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Points,
    Driver,
    Exchange,
    Updates,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["points", rest @ ..] => load(Mode::Points, rest),
        ["driver", rest @ ..] => load(Mode::Driver, rest),
        ["exchange", rest @ ..] => load(Mode::Exchange, rest),
        ["updates", rest @ ..] => load(Mode::Updates, rest),
        ["idle", url, count, token] => Runtime::new()?.block_on(idle(url, count.parse()?, token, None)),
        ["idle", url, count, token, authority] => {
            Runtime::new()?.block_on(idle(url, count.parse()?, token, Some(authority.into())))
        }
        ["nothing", address] => Runtime::new()?.block_on(nothing::serve(address)),
        _ => Err("load_client points|driver|exchange|updates|idle|nothing, see its source".into()),
    }
}

/// What a load does.
#[derive(Clone)]
struct Load {
    mode: Mode,
    address: String,
    connections: i64,
    duration: Duration,
    sql: String,
    keys: i64,
}

fn load(mode: Mode, arguments: &[&str]) -> Outcome<()> {
    let [address, connections, seconds, sql, keys] = arguments else {
        return Err("load_client MODE HOST:PORT CONNECTIONS SECONDS SQL KEYS".into());
    };
    let load = Load {
        mode,
        address: (*address).to_owned(),
        connections: connections.parse()?,
        duration: Duration::from_secs_f64(seconds.parse()?),
        sql: (*sql).to_owned(),
        keys: keys.parse()?,
    };
    // A connection stays on one thread: handing its messages from thread to thread would cost more than they do.
    let threads = load.connections.min(i64::try_from(std::thread::available_parallelism()?.get())?);
    let threads: Vec<_> = (0..threads)
        .map(|first| {
            let load = load.clone();
            std::thread::spawn(move || -> Outcome<Vec<Duration>> {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(load.run((first..load.connections).step_by(threads as usize)))
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().map_err(|_| "a thread panicked")??);
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).map_or(0, Duration::as_micros);
    let per_second = latencies.len() as f64 / load.duration.as_secs_f64();
    println!(
        "{{\"connections\": {}, \"requests\": {}, \"per_s\": {per_second:.1}, \"p50_us\": {}, \"p99_us\": {}}}",
        load.connections,
        latencies.len(),
        at(0.5),
        at(0.99)
    );
    Ok(())
}

impl Load {
    /// Runs these of the connections; how long each request took.
    async fn run(&self, connections: impl Iterator<Item = i64>) -> Outcome<Vec<Duration>> {
        let mut running = Vec::new();
        for number in connections {
            let client: Box<dyn Client> = match self.mode {
                Mode::Exchange => Box::new(ExchangeClient::connect(self).await?),
                mode => Box::new(CallClient::connect(self, mode).await?),
            };
            let (duration, keys) = (self.duration, self.keys);
            running.push(tokio::spawn(measure(client, duration, number * keys / self.connections, keys)));
        }
        let mut latencies = Vec::new();
        for client in running {
            latencies.extend(client.await??);
        }
        Ok(latencies)
    }
}

/// Asks until the time is over; how long each request took.
async fn measure(mut client: Box<dyn Client>, duration: Duration, mut key: i64, keys: i64) -> Outcome<Vec<Duration>> {
    let mut latencies = Vec::new();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        key = (key + STRIDE) % keys;
        let begin = Instant::now();
        client.ask(key + 1).await?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}

/// A connection with a prepared statement.
trait Client: Send {
    /// Executes the statement for a key, and checks what comes back.
    fn ask(&mut self, key: i64) -> BoxFuture<'_, Outcome<()>>;
}

/// The key as the batch of parameters.
fn parameters(key: i64) -> Outcome<RecordBatch> {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![key]));
    Ok(RecordBatch::try_from_iter([("key", column)])?)
}

/// The rows of a batch, all of which are to have this key.
fn rows_of(batch: &RecordBatch, key: i64) -> Outcome<usize> {
    let found = cast(batch.column(0), &DataType::Int64)?;
    match found.as_primitive::<Int64Type>().iter().all(|found| found == Some(key)) {
        true => Ok(batch.num_rows()),
        false => Err(format!("a row of another key than {key}").into()),
    }
}

fn one(rows: usize, key: i64) -> Outcome<()> {
    if rows == 1 { Ok(()) } else { Err(format!("{rows} rows instead of one, for key {key}").into()) }
}

/// By the calls of Flight SQL. It shares the cores with the server that it measures, so what is the same in each query it does
/// once: it encodes the message of a key, in which the next key takes the place of the last, and decodes the answers' schema.
struct CallClient {
    client: FlightServiceClient<Channel>,
    mode: Mode,
    command: Vec<u8>,
    /// The messages of the parameters.
    schema: FlightData,
    row: FlightData,
    /// Where in the row's body the key is.
    key_at: usize,
    /// The schema of the answers, as it was sent and decoded.
    answers: Option<(Bytes, SchemaRef)>,
}

/// A key that nothing else in a message is like.
const PLACEHOLDER: i64 = i64::from_le_bytes(*b"the key!");

impl CallClient {
    async fn connect(load: &Load, mode: Mode) -> Outcome<Self> {
        let channel = Channel::from_shared(format!("http://{}", load.address))?.tcp_nodelay(true).connect().await?;
        let mut client = FlightServiceClient::new(channel);
        let request = ActionCreatePreparedStatementRequest { query: load.sql.clone(), transaction_id: None };
        let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
        let answer = client.do_action(action).await?.into_inner().message().await?.ok_or("no answer")?;
        let answer: ActionCreatePreparedStatementResult =
            Any::decode(answer.body)?.unpack()?.ok_or("another answer")?;
        let prepared_statement_handle = answer.prepared_statement_handle;
        let command = match mode {
            Mode::Updates => CommandPreparedStatementUpdate { prepared_statement_handle }.as_any(),
            _ => CommandPreparedStatementQuery { prepared_statement_handle }.as_any(),
        };
        let command = command.encode_to_vec();
        let parameters = parameters(PLACEHOLDER)?;
        let [schema, row]: [FlightData; 2] = batches_to_flight_data(&parameters.schema(), vec![parameters])?
            .try_into()
            .map_err(|_| "parameters are a schema and a row")?;
        let schema = schema.with_descriptor(FlightDescriptor::new_cmd(command.clone()));
        let placeholder = PLACEHOLDER.to_le_bytes();
        let key_at = row.data_body.windows(8).position(|bytes| bytes == placeholder).ok_or("the key is not there")?;
        Ok(Self { client, mode, command, schema, row, key_at, answers: None })
    }

    async fn bind(&mut self, key: i64) -> Outcome<Vec<Bytes>> {
        let mut body = BytesMut::from(&*self.row.data_body);
        body[self.key_at..self.key_at + 8].copy_from_slice(&key.to_le_bytes());
        let row = FlightData { data_body: body.freeze(), ..self.row.clone() };
        let messages = stream::iter([self.schema.clone(), row]);
        let answers = self.client.do_put(messages).await?.into_inner();
        Ok(answers.map_ok(|answer| answer.app_metadata).try_collect().await?)
    }

    async fn fetch(&mut self, key: i64) -> Outcome<()> {
        let ticket = if self.mode == Mode::Driver {
            let descriptor = FlightDescriptor::new_cmd(self.command.clone());
            let info = self.client.get_flight_info(descriptor).await?.into_inner();
            info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).ok_or("no ticket")?
        } else {
            Ticket::new(self.command.clone())
        };
        let mut messages = self.client.do_get(ticket).await?.into_inner();
        let first = messages.message().await?.ok_or("an answer without messages")?;
        let schema = match &self.answers {
            Some((message, schema)) if *message == first.data_header => Arc::clone(schema),
            _ => {
                let schema = Arc::new(Schema::try_from(&first)?);
                self.answers = Some((first.data_header, Arc::clone(&schema)));
                schema
            }
        };
        let mut rows = 0;
        while let Some(message) = messages.message().await? {
            rows += rows_of(&flight_data_to_arrow_batch(&message, Arc::clone(&schema), &HashMap::new())?, key)?;
        }
        one(rows, key)
    }
}

impl Client for CallClient {
    fn ask(&mut self, key: i64) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(async move {
            let answers = self.bind(key).await?;
            if self.mode != Mode::Updates {
                return self.fetch(key).await;
            }
            let changed = answers.first().ok_or("no answer to an update")?;
            match DoPutUpdateResult::decode(changed.clone())?.record_count {
                1 => Ok(()),
                changed => Err(format!("{changed} rows changed instead of one, for key {key}").into()),
            }
        })
    }
}

/// By the client of this crate, which executes a prepared statement on one stream.
struct ExchangeClient {
    client: RemoteClient,
    statement: RemoteStatement,
}

impl ExchangeClient {
    async fn connect(load: &Load) -> Outcome<Self> {
        let options = RemoteOptions { url: format!("grpc://{}", load.address), ..RemoteOptions::default() };
        let client = RemoteClient::connect(options).await?;
        let statement = client.prepare(&load.sql).await?;
        Ok(Self { client, statement })
    }
}

impl Client for ExchangeClient {
    fn ask(&mut self, key: i64) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(async move {
            let answer = self.client.execute_prepared(&self.statement, Some(parameters(key)?)).await?;
            let RemoteResult::Rows(mut batches) = answer else { return Err("no rows".into()) };
            let mut rows = 0;
            while let Some(batch) = batches.next().await {
                rows += rows_of(&batch?, key)?;
            }
            one(rows, key)
        })
    }
}

async fn idle(url: &str, count: usize, token: &str, ca_certificate: Option<PathBuf>) -> Outcome<()> {
    let options =
        RemoteOptions { url: url.to_owned(), token: Some(token.to_owned()), ca_certificate, ..Default::default() };
    let began = Instant::now();
    let clients: Vec<RemoteClient> = stream::iter((0..count).map(|number| log_in(options.clone(), number)))
        .buffer_unordered(LOGINS)
        .try_collect()
        .await?;
    println!("{{\"connections\": {}, \"seconds\": {:.1}}}", clients.len(), began.elapsed().as_secs_f64());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

/// A session on a connection of its own that has been used.
async fn log_in(options: RemoteOptions, number: usize) -> Outcome<RemoteClient> {
    let client = RemoteClient::connect(options).await?;
    let RemoteResult::Rows(rows) = client.execute(&format!("SELECT {number}")).await? else {
        return Err("no rows".into());
    };
    let batches: Vec<RecordBatch> = rows.try_collect().await?;
    match batches.iter().map(RecordBatch::num_rows).sum() {
        1 => Ok(client),
        rows => Err(format!("{rows} rows instead of one").into()),
    }
}
