//! A client that asks for one row by its key, again and again, through a prepared statement: two round trips each, one to
//! bind the key and one to fetch the row. `benches/flight/flight.py` runs it beside a server.
//!
//! ```text
//! point_queries HOST:PORT CONNECTIONS SECONDS SQL KEYS
//! ```
//!
//! Keys are the numbers from 1 to KEYS, in an order that jumps about. Prints one line of JSON.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery,
    ProstMessageExt,
};
use arrow_flight::{Action, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::transport::Channel;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Coprime to every number of keys that is not a multiple of it: visits them all.
const STRIDE: i64 = 7_919;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, connections, seconds, sql, keys] = arguments.as_slice() else {
        return Err("point_queries HOST:PORT CONNECTIONS SECONDS SQL KEYS".into());
    };
    let (connections, keys): (i64, i64) = (connections.parse()?, keys.parse()?);
    let duration = Duration::from_secs_f64(seconds.parse()?);
    let mut clients = Vec::new();
    for number in 0..connections {
        let first_key = number * keys / connections;
        clients.push(tokio::spawn(ask(address.clone(), sql.clone(), first_key, keys, duration)));
    }
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).map_or(0, Duration::as_micros);
    let per_second = latencies.len() as f64 / duration.as_secs_f64();
    println!(
        "{{\"connections\": {connections}, \"per_s\": {per_second:.0}, \"p50_us\": {}, \"p99_us\": {}}}",
        at(0.5),
        at(0.99)
    );
    Ok(())
}

async fn ask(address: String, sql: String, first: i64, keys: i64, duration: Duration) -> Outcome<Vec<Duration>> {
    let channel = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
    let mut client = FlightServiceClient::new(channel);
    let request = ActionCreatePreparedStatementRequest { query: sql, transaction_id: None };
    let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let answer = client.do_action(action).await?.into_inner().message().await?.ok_or("no answer")?;
    let answer: ActionCreatePreparedStatementResult = Any::decode(answer.body)?.unpack()?.ok_or("another answer")?;
    let command = CommandPreparedStatementQuery { prepared_statement_handle: answer.prepared_statement_handle };
    let command = command.as_any().encode_to_vec();

    let (mut latencies, mut key) = (Vec::new(), first);
    let end = Instant::now() + duration;
    while Instant::now() < end {
        key = (key + STRIDE) % keys;
        let begin = Instant::now();
        let column: ArrayRef = Arc::new(Int64Array::from(vec![key + 1]));
        let messages: Vec<_> = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.clone())))
            .build(stream::iter([Ok(RecordBatch::try_from_iter([("key", column)])?)]))
            .try_collect()
            .await?;
        client.do_put(stream::iter(messages)).await?.into_inner().try_collect::<Vec<_>>().await?;
        let mut rows = client.do_get(Ticket::new(command.clone())).await?.into_inner();
        let mut count = 0;
        while let Some(message) = rows.next().await {
            message?;
            count += 1;
        }
        if count != 2 {
            return Err(format!("{count} messages instead of a schema and a row, for key {}", key + 1).into());
        }
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}
