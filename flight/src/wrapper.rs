//! The one gate every request passes: a newtype around the Flight SQL service that implements what arrow-flight's
//! blanket implementation leaves out or does not let us change.
//!
//! - Authentication: no request but Handshake reaches the service without a [`Caller`].
//! - Containment: a panic in a handler becomes an internal error of that request; without this it would take down the
//!   connection, and with it the client's other requests.
//! - Blame: the blanket implementation answers undecodable messages with `Internal`; they are `InvalidArgument`.
//! - GetSchema, PollFlightInfo and ListFlights, which the blanket implementation refuses; ListActions, which would claim
//!   actions that are not there.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::ipc::CompressionType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, future, stream};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::auth::{Caller, Credentials};
use crate::service::{SqlService, as_command, decode_command};
use crate::status::{SQLSTATE, internal, refuse};
use crate::stream::{Compression, FlightStream, panic_text};
use crate::type_url::usual_form;

pub(crate) struct GuardedService {
    service: Arc<SqlService>,
}

impl GuardedService {
    pub(crate) fn new(service: Arc<SqlService>) -> Self {
        Self { service }
    }

    /// Finds out who is calling.
    async fn caller_of(&self, metadata: &MetadataMap, peer: Option<SocketAddr>) -> Result<Caller, Status> {
        let credentials = Credentials::from_metadata(metadata)?;
        let mut caller = self.service.identify(credentials, peer).await?;
        caller.compression = compression(metadata)?;
        caller.endpoints = endpoints(metadata)?;
        caller.is_adbc = is_adbc(metadata);
        Ok(caller)
    }

    /// Finds out who is calling and notes it in the request.
    async fn admit<T>(&self, mut request: Request<T>) -> Result<Request<T>, Status> {
        let caller = self.caller_of(request.metadata(), request.remote_addr()).await?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }

    /// Answers DoGet. The ticket is read only for who may ask.
    pub(crate) async fn fetch(
        &self,
        request: Request<impl Future<Output = Result<Ticket, Status>> + Send>,
    ) -> Result<FlightStream, Status> {
        let caller = self.caller_of(request.metadata(), request.remote_addr()).await?;
        let ticket = request.into_inner().await?;
        self.guard("DoGet", self.service.fetch_ticket(&caller, &ticket)).await
    }

    /// Answers DoPut.
    pub(crate) async fn put(
        &self,
        request: Request<impl Stream<Item = Result<FlightData, Status>> + Send + Unpin + 'static>,
    ) -> Result<PutResult, Status> {
        let caller = self.caller_of(request.metadata(), request.remote_addr()).await?;
        self.guard("DoPut", self.service.put(&caller, request.into_inner().map_err(blame))).await
    }

    /// Answers DoExchange.
    pub(crate) async fn exchange(
        &self,
        request: Request<impl Stream<Item = Result<FlightData, Status>> + Send + 'static>,
    ) -> Result<FlightStream, Status> {
        let request = self.admit(request).await?;
        let caller = caller(&request)?.clone();
        Ok(self.service.exchange(&caller, request.into_inner().map_err(blame)))
    }

    /// Awaits a handler, and makes sure that whatever it does ends as one response.
    async fn guard<T>(
        &self,
        call: &'static str,
        handler: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let outcome = match AssertUnwindSafe(handler).catch_unwind().await {
            Ok(outcome) => outcome.map_err(blame),
            Err(panic) => Err(internal(panic_text(panic.as_ref()))),
        };
        if let Err(status) = &outcome {
            tracing::debug!(call, code = ?status.code(), "{}", status.message());
        }
        outcome
    }
}

/// Statuses of ours carry an SQLSTATE. One without comes from arrow-flight's dispatch or from the transport: `Internal`
/// then means a message that cannot be decoded, `OutOfRange` one that is too long, `Unimplemented` one that is compressed.
pub(crate) fn blame(status: Status) -> Status {
    if status.metadata().get(SQLSTATE).is_some() {
        return status;
    }
    match status.code() {
        Code::Internal | Code::InvalidArgument => {
            // Of a message that is none, arrow-flight prints what a Rust program would look at.
            let reason = match status.message() {
                debug if debug.starts_with("DecodeError") => "it does not follow the protocol's encoding",
                reason => reason,
            };
            refuse("08P01", format!("malformed message: {reason}")).into()
        }
        Code::Unimplemented => refuse("0A000", status.message()).into(),
        Code::OutOfRange => refuse("54000", status.message()).hint("send less at a time").into(),
        _ => status,
    }
}

#[tonic::async_trait]
impl FlightService for GuardedService {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        self.guard("Handshake", self.service.handshake(request)).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let request = self.admit(request).await?;
        let list = async { self.service.flights(caller(&request)?, &request.get_ref().expression) };
        self.guard("ListFlights", list).await.map(Response::new)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let request = as_command_request(self.admit(request).await?)?;
        self.guard("GetFlightInfo", FlightService::get_flight_info(&*self.service, request)).await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let request = as_command_request(self.admit(request).await?)?;
        let poll = async { self.service.poll(&request, decode_command(&request.get_ref().cmd)?).await };
        if let Some(polled) = self.guard("PollFlightInfo", poll).await? {
            return Ok(polled);
        }
        // Metadata is there at once: the poll is complete with its first answer.
        let info = self.guard("PollFlightInfo", FlightService::get_flight_info(&*self.service, request)).await?;
        Ok(info.map(|info| PollInfo {
            info: Some(info),
            flight_descriptor: None,
            progress: Some(1.0),
            expiration_time: None,
        }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let request = as_command_request(self.admit(request).await?)?;
        let describe = async {
            let caller = caller(&request)?;
            let schema = self.service.describe(caller, decode_command(&request.get_ref().cmd)?).await?;
            SchemaAsIpc::new(&schema, &Default::default())
                .try_into()
                .map(Response::new)
                .map_err(|error: arrow::error::ArrowError| internal(error))
        };
        self.guard("GetSchema", describe).await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        // The way of clients is `FramedRows`, which sends the same without copying it.
        let messages = self.fetch(request.map(|ticket| future::ready(Ok(ticket)))).await?;
        Ok(Response::new(messages.map(|message| message.map(FlightData::from)).boxed()))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        // As with DoGet.
        let answer = self.put(request).await?;
        Ok(Response::new(stream::iter([Ok(answer)]).boxed()))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        // The way of clients is `FramedRows` here, too.
        let answers = self.exchange(request).await?;
        Ok(Response::new(answers.map(|message| message.map(FlightData::from)).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let mut request = self.admit(request).await?;
        let action = request.get_mut();
        if SQL_ACTIONS.contains(&action.r#type.as_str())
            && let Some(usual) = usual_form(&action.body)
        {
            action.body = usual;
        }
        if request.get_ref().r#type == CREATE_PREPARED_STATEMENT {
            let prepare = async { self.service.prepare_action(caller(&request)?, &request.get_ref().body).await };
            let prepared = self.guard("CreatePreparedStatement", prepare).await?;
            return Ok(Response::new(stream::iter([Ok(prepared)]).boxed()));
        }
        self.guard("DoAction", FlightService::do_action(&*self.service, request)).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.admit(request).await?;
        let actions = SqlService::ACTIONS
            .map(|(name, description)| Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() }));
        Ok(Response::new(stream::iter(actions).boxed()))
    }
}

/// The one action of Flight SQL whose answer arrow-flight cannot express.
const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";

/// Actions of Flight SQL, whose messages come in an `Any`; those of Flight do not.
const SQL_ACTIONS: [&str; 8] = [
    CREATE_PREPARED_STATEMENT,
    "CreatePreparedSubstraitPlan",
    "ClosePreparedStatement",
    "BeginTransaction",
    "EndTransaction",
    "BeginSavepoint",
    "EndSavepoint",
    "CancelQuery",
];

/// The header with which a client asks for compressed rows; ADBC sends it when told
/// `adbc.flight.sql.rpc.call_header.x-rustydb-compression`.
const COMPRESSION_HEADER: &str = "x-rustydb-compression";

fn compression(metadata: &MetadataMap) -> Result<Compression, Status> {
    let Some(value) = metadata.get(COMPRESSION_HEADER) else { return Ok(None) };
    // That arrow has both is due to DataFusion, which asks for them.
    match value.to_str() {
        Ok("none") => Ok(None),
        Ok("lz4") => Ok(Some(CompressionType::LZ4_FRAME)),
        Ok("zstd") => Ok(Some(CompressionType::ZSTD)),
        _ => Err(refuse("22023", format!("{COMPRESSION_HEADER} is none of none, lz4 and zstd")).into()),
    }
}

/// The header with which a client asks for several endpoints, so that it can fetch a large result in parallel.
const ENDPOINTS_HEADER: &str = "x-rustydb-endpoints";
/// More than there are cores to encode on gains nothing.
const ENDPOINTS_MAX: usize = 16;

fn endpoints(metadata: &MetadataMap) -> Result<usize, Status> {
    let Some(value) = metadata.get(ENDPOINTS_HEADER) else { return Ok(1) };
    let number = value.to_str().ok().and_then(|value| value.parse().ok());
    number
        .filter(|number| (1..=ENDPOINTS_MAX).contains(number))
        .ok_or_else(|| refuse("22023", format!("{ENDPOINTS_HEADER} is a number from 1 to {ENDPOINTS_MAX}")).into())
}

/// What ADBC's driver calls itself, followed by its version.
const ADBC_USER_AGENT: &str = "ADBC Flight SQL Driver";

fn is_adbc(metadata: &MetadataMap) -> bool {
    let agent = metadata.get("user-agent").and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.starts_with(ADBC_USER_AGENT))
}

/// Who sent a request that has been admitted.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    request.extensions().get::<Caller>().ok_or_else(|| internal("a request got past the gate"))
}

/// The same request with a descriptor that is a command, whatever it was.
fn as_command_request(request: Request<FlightDescriptor>) -> Result<Request<FlightDescriptor>, Status> {
    let (metadata, extensions, descriptor) = request.into_parts();
    let mut descriptor = as_command(descriptor)?;
    if let Some(usual) = usual_form(&descriptor.cmd) {
        descriptor.cmd = usual;
    }
    Ok(Request::from_parts(metadata, extensions, descriptor))
}
