//! A client that loads a server and measures: a Python client would spend more time on a short request than the server does.
//! `benches/flight/flight.py` runs it.
//!
//! ```text
//! load_client points  HOST:PORT CONNECTIONS SECONDS SQL KEYS    one row by its key: bind, fetch
//! load_client driver  HOST:PORT CONNECTIONS SECONDS SQL KEYS    the same as drivers do it: bind, GetFlightInfo, fetch
//! load_client updates HOST:PORT CONNECTIONS SECONDS SQL KEYS    a change of one row by its key, committed
//! load_client idle    URL COUNT TOKEN [CA-FILE]                 logs in, runs one query on each connection, and then waits
//! ```
//!
//! SQL has one parameter, the key: a number from 1 to KEYS, in an order that jumps about. Of a query's answer the first column
//! is the key, which is checked; of an update that it changed one row. Prints one line of JSON; `idle` then waits for the
//! end of its standard input.

use std::error::Error;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray as _, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use rustydb_flight::{RemoteClient, RemoteOptions, RemoteResult};
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
    Updates,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["points", rest @ ..] => load(Mode::Points, rest).await,
        ["driver", rest @ ..] => load(Mode::Driver, rest).await,
        ["updates", rest @ ..] => load(Mode::Updates, rest).await,
        ["idle", url, count, token] => idle(url, count.parse()?, token, None).await,
        ["idle", url, count, token, authority] => idle(url, count.parse()?, token, Some(authority.into())).await,
        _ => Err("load_client points|driver|updates|idle, see its source".into()),
    }
}

async fn load(mode: Mode, arguments: &[&str]) -> Outcome<()> {
    let [address, connections, seconds, sql, keys] = arguments else {
        return Err("load_client MODE HOST:PORT CONNECTIONS SECONDS SQL KEYS".into());
    };
    let (connections, keys): (i64, i64) = (connections.parse()?, keys.parse()?);
    let duration = Duration::from_secs_f64(seconds.parse()?);
    let mut clients = Vec::new();
    for number in 0..connections {
        let client = Client::connect(address, sql, number * keys / connections, keys).await?;
        clients.push(tokio::spawn(client.run(mode, duration)));
    }
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).map_or(0, Duration::as_micros);
    let per_second = latencies.len() as f64 / duration.as_secs_f64();
    println!(
        "{{\"connections\": {connections}, \"requests\": {}, \"per_s\": {per_second:.1}, \"p50_us\": {}, \"p99_us\": {}}}",
        latencies.len(),
        at(0.5),
        at(0.99)
    );
    Ok(())
}

/// A connection with a prepared statement.
struct Client {
    client: FlightServiceClient<Channel>,
    handle: bytes::Bytes,
    key: i64,
    keys: i64,
}

impl Client {
    async fn connect(address: &str, sql: &str, key: i64, keys: i64) -> Outcome<Self> {
        let channel = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
        let mut client = FlightServiceClient::new(channel);
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
        let answer = client.do_action(action).await?.into_inner().message().await?.ok_or("no answer")?;
        let answer: ActionCreatePreparedStatementResult =
            Any::decode(answer.body)?.unpack()?.ok_or("another answer")?;
        Ok(Self { client, handle: answer.prepared_statement_handle, key, keys })
    }

    /// Asks until the time is over; how long each request took.
    async fn run(mut self, mode: Mode, duration: Duration) -> Outcome<Vec<Duration>> {
        let prepared_statement_handle = self.handle.clone();
        let command = match mode {
            Mode::Updates => CommandPreparedStatementUpdate { prepared_statement_handle }.as_any(),
            Mode::Points | Mode::Driver => CommandPreparedStatementQuery { prepared_statement_handle }.as_any(),
        };
        let command = command.encode_to_vec();
        let mut latencies = Vec::new();
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.key = (self.key + STRIDE) % self.keys;
            let key = self.key + 1;
            let begin = Instant::now();
            let answers = self.bind(&command, key).await?;
            if mode == Mode::Updates {
                let changed = answers.first().ok_or("no answer to an update")?;
                let changed = DoPutUpdateResult::decode(changed.clone())?.record_count;
                if changed != 1 {
                    return Err(format!("{changed} rows changed instead of one, for key {key}").into());
                }
            } else {
                self.fetch(mode, &command, key).await?;
            }
            latencies.push(begin.elapsed());
        }
        Ok(latencies)
    }

    async fn bind(&mut self, command: &[u8], key: i64) -> Outcome<Vec<bytes::Bytes>> {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![key]));
        let messages: Vec<_> = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.to_vec())))
            .build(stream::iter([Ok(RecordBatch::try_from_iter([("key", column)])?)]))
            .try_collect()
            .await?;
        let answers = self.client.do_put(stream::iter(messages)).await?.into_inner();
        Ok(answers.map_ok(|answer| answer.app_metadata).try_collect().await?)
    }

    async fn fetch(&mut self, mode: Mode, command: &[u8], key: i64) -> Outcome<()> {
        let ticket = if mode == Mode::Driver {
            let info = self.client.get_flight_info(FlightDescriptor::new_cmd(command.to_vec())).await?.into_inner();
            info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).ok_or("no ticket")?
        } else {
            Ticket::new(command.to_vec())
        };
        let messages = self.client.do_get(ticket).await?.into_inner();
        let mut batches = FlightRecordBatchStream::new_from_flight_data(messages.map_err(FlightError::from));
        let mut rows = 0;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            rows += batch.num_rows();
            let found = cast(batch.column(0), &DataType::Int64)?;
            let found = found.as_primitive::<Int64Type>();
            if found.iter().any(|found| found != Some(key)) {
                return Err(format!("a row of another key than {key}").into());
            }
        }
        if rows == 1 { Ok(()) } else { Err(format!("{rows} rows instead of one, for key {key}").into()) }
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
