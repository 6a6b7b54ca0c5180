//! A Flight SQL server that does nothing: what a client can get at most from the transport alone.
//!
//! It answers the calls of a prepared query (CreatePreparedStatement, DoPut, GetFlightInfo, DoGet) with messages that were made
//! when it started, and looks at nothing but where a request ends: no command is read, no parameter, no schema. Only gRPC,
//! HTTP/2 and the kernel are at work, with the same crates (tonic, hyper, h2) and kind of runtime as in RustyDB's server.
//!
//! Its one answer is the row with the key 1, so a client asks it with KEYS = 1, and checks what it gets as with any server.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray};
use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{
    ActionCreatePreparedStatementResult, CommandPreparedStatementQuery, DoPutPreparedStatementResult, ProstMessageExt,
};
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, IpcMessage, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::Outcome;

/// Prints the address it listens on, and answers until the process ends.
pub(crate) async fn serve(address: &str) -> Outcome<()> {
    let service = FlightServiceServer::new(Nothing::new()?);
    let listener = TcpListener::bind(address).await?;
    println!("{{\"address\": \"{}\"}}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().serve_with_incoming(service, incoming).await?)
}

type Answers<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

/// The answers.
struct Nothing {
    prepared: arrow_flight::Result,
    bound: PutResult,
    announced: FlightInfo,
    rows: Vec<FlightData>,
}

impl Nothing {
    fn new() -> Outcome<Self> {
        let row = customer()?;
        let handle = Bytes::from_static(&[7; 16]);
        let parameters = RecordBatch::try_from_iter([("$1", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])?;
        let prepared = ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.clone(),
            dataset_schema: schema_message(&row.schema())?,
            parameter_schema: schema_message(&parameters.schema())?,
        };
        let bound = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle.clone()) };
        let ticket = CommandPreparedStatementQuery { prepared_statement_handle: handle }.as_any().encode_to_vec();
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
        let announced = FlightInfo::new().try_with_schema(&row.schema())?.with_endpoint(endpoint);
        Ok(Self {
            prepared: arrow_flight::Result::new(prepared.as_any().encode_to_vec()),
            bound: PutResult { app_metadata: bound.encode_to_vec().into() },
            announced,
            rows: batches_to_flight_data(&row.schema(), vec![row])?,
        })
    }
}

/// The row that flight.py's query finds for the key 1, of the size and the types of any other.
fn customer() -> Outcome<RecordBatch> {
    let balance = Decimal128Array::from(vec![71_156]).with_precision_and_scale(15, 2)?;
    let columns: [(&str, ArrayRef); 3] = [
        ("c_custkey", Arc::new(Int64Array::from(vec![1]))),
        ("c_name", Arc::new(StringArray::from(vec!["Customer#000000001"]))),
        ("c_acctbal", Arc::new(balance)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn schema_message(schema: &Schema) -> Outcome<Bytes> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into()?;
    Ok(bytes)
}

fn all<T: Clone + Send + 'static>(messages: &[T]) -> Answers<T> {
    let messages: Vec<Result<T, Status>> = messages.iter().cloned().map(Ok).collect();
    Ok(Response::new(stream::iter(messages).boxed()))
}

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("this server answers prepared queries only"))
}

#[tonic::async_trait]
impl FlightService for Nothing {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn do_action(&self, _: Request<Action>) -> Answers<arrow_flight::Result> {
        all(std::slice::from_ref(&self.prepared))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answers<PutResult> {
        // Not before the client has said everything, which HTTP/2 would have to tell it to stop.
        request.into_inner().try_for_each(|_| std::future::ready(Ok(()))).await?;
        all(std::slice::from_ref(&self.bound))
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Ok(Response::new(self.announced.clone()))
    }

    async fn do_get(&self, _: Request<Ticket>) -> Answers<FlightData> {
        all(&self.rows)
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Answers<HandshakeResponse> {
        not_here()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answers<FlightInfo> {
        not_here()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        not_here()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        not_here()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Answers<FlightData> {
        not_here()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answers<ActionType> {
        not_here()
    }
}
