//! A server on a free port with a database in memory, and what most tests do with a client.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use rustydb_engine::{Database, DatabaseOptions};
use rustydb_flight::{FlightOptions, FlightServer, ServerError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub(crate) type Client = FlightSqlServiceClient<Channel>;

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServerError>>,
}

impl TestServer {
    /// A server with default options.
    pub(crate) async fn start() -> Self {
        Self::with(FlightOptions::new("127.0.0.1:0")).await
    }

    pub(crate) async fn with(options: FlightOptions) -> Self {
        Self::of(options, DatabaseOptions::memory()).await
    }

    /// A server whose database lies in a directory.
    pub(crate) async fn on_disk(directory: &Path) -> Self {
        Self::of(FlightOptions::new("127.0.0.1:0"), DatabaseOptions::directory(directory)).await
    }

    async fn of(options: FlightOptions, database: DatabaseOptions) -> Self {
        let database = Database::open(database).await.unwrap();
        let server = FlightServer::bind(options, database).await.unwrap();
        let address = server.address();
        let (shutdown, stop) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async {
            // Dropping the test server without shutting it down keeps it until the runtime ends.
            if stop.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        Self { address, shutdown, serving }
    }

    /// A client without a token: every call stands alone.
    pub(crate) async fn client(&self) -> Client {
        connect(self.address).await
    }

    /// A client that has logged in, with any credentials.
    pub(crate) async fn session(&self) -> Client {
        let mut client = self.client().await;
        client.handshake("anyone", "anything").await.unwrap();
        client
    }

    pub(crate) async fn shut_down(self) -> Result<(), ServerError> {
        self.shutdown.send(()).unwrap();
        self.serving.await.unwrap()
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Client {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let inner = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    FlightSqlServiceClient::new_from_inner(inner)
}

/// Fetches what a FlightInfo promises.
pub(crate) async fn fetch(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    client.do_get(ticket).await?.try_collect().await
}

/// Executes as a query: GetFlightInfo, DoGet.
pub(crate) async fn query(client: &mut Client, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
    let info = client.execute(sql.to_owned(), None).await?;
    fetch(client, info).await
}

/// Executes as an update.
pub(crate) async fn update(client: &mut Client, sql: &str) -> Result<i64, FlightError> {
    client.execute_update(sql.to_owned(), None).await
}

/// The one number a query answers.
pub(crate) async fn number(client: &mut Client, sql: &str) -> i64 {
    let batches = query(client, sql).await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// All values of a text column.
pub(crate) fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let values = batches.iter().flat_map(|batch| batch.column_by_name(column).unwrap().as_string::<i32>().iter());
    values.map(|value| value.unwrap_or("NULL").to_owned()).collect()
}

pub(crate) fn row_count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Rows of a table `(id BIGINT, name VARCHAR)`.
pub(crate) fn people(ids: std::ops::Range<i64>) -> RecordBatch {
    let names: StringArray = ids.clone().map(|id| Some(format!("person {id}"))).collect();
    let ids: Int64Array = ids.collect();
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("name", Arc::new(names) as ArrayRef)]).unwrap()
}

/// The status behind a client error.
pub(crate) fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => panic!("not a status: {other:?}"),
    }
}

/// Checks code and SQLSTATE of a failed call, both in the message and in the metadata.
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    outcome: Result<T, FlightError>,
    code: Code,
    sqlstate: &str,
) -> Status {
    let status = status(outcome.unwrap_err());
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().starts_with(&format!("[{sqlstate}] ")), "{status:?}");
    assert_eq!(status.metadata().get("x-sqlstate").unwrap(), sqlstate);
    status
}

/// A table whose cube has more rows than anybody can wait for.
pub(crate) const ENDLESS_QUERY: &str = "SELECT a.x + b.x + c.x AS s FROM many a CROSS JOIN many b CROSS JOIN many c";

pub(crate) async fn create_many(client: &mut Client) {
    update(client, "CREATE TABLE many (x BIGINT)").await.unwrap();
    let values: Vec<String> = (0..3_000).map(|x| format!("({x})")).collect();
    update(client, &format!("INSERT INTO many VALUES {}", values.join(","))).await.unwrap();
}
