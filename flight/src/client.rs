//! The other end of the wire: a client as the SQL shell needs it.
//!
//! Invariants: an error of a remote statement has the same parts (SQLSTATE, message, detail, hint, position) as the
//! engine's own, so that the shell shows both alike. One client is one session on the server: `BEGIN`, `SET` and the
//! like last from one `execute` to the next.

mod authorities;
mod exchange;
mod prepared;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::{FlightSqlServiceClient, PreparedStatement};
use arrow_flight::{Action, FlightInfo, HandshakeRequest, IpcMessage};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use rustydb_engine::Position;
use tokio::sync::Semaphore;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

pub use prepared::RemoteStatement;

use authorities::system_authorities;
use exchange::ExchangeRows;

use crate::status::{DETAIL, HINT, POSITION, SQLSTATE, detail_suffix, hint_suffix, position_suffix};

/// A message from the server may hold one row of any size; the rows of a result come in messages of about 2 MiB.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How much the server may send ahead of what has been read. The HTTP/2 default of 64 KiB means one round trip per
/// 64 KiB.
const RESULT_WINDOW_BYTES: u32 = 4 << 20;

/// The result of a remote call.
type Result<T> = std::result::Result<T, RemoteError>;

/// Where and as whom to connect.
#[derive(Clone, Default)]
pub struct RemoteOptions {
    /// `grpc://HOST:PORT`, `grpc+tcp://HOST:PORT` or `grpc+tls://HOST:PORT`.
    pub url: String,
    /// The user to log in as, if the server has users.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<String>,
    /// A static token instead, if the server has those.
    pub token: Option<String>,
    /// PEM file with the server's certificate or its authority's, for `grpc+tls`; `None`: any of the authorities that the
    /// operating system trusts.
    pub ca_certificate: Option<PathBuf>,
    /// PEM files with a certificate and its key, for servers that ask clients for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// Without the secrets.
impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteOptions").field("url", &self.url).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Streams of prepared statements that a client keeps open; a server allows a connection 256 requests at a time.
const EXCHANGES_MAX: usize = 64;

/// A session on a server.
#[derive(Clone)]
pub struct RemoteClient {
    client: FlightSqlServiceClient<Channel>,
    /// The header that says whose session it is.
    authorization: MetadataValue<Ascii>,
    exchanges: Arc<Semaphore>,
}

/// Without the token.
impl fmt::Debug for RemoteClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteClient").finish_non_exhaustive()
    }
}

/// What a statement answered.
#[derive(Debug)]
pub enum RemoteResult {
    /// A result set, read as the server produces it. Dropping it cancels the query.
    Rows(RemoteStream),
    /// The statement is done.
    Done {
        /// How many rows it changed.
        rows: u64,
    },
}

/// A table on the server.
#[derive(Debug, Clone)]
pub struct RemoteTable {
    /// The schema it is in.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `TABLE`.
    pub kind: String,
    /// Its columns, in the types the server sends them in.
    pub columns: SchemaRef,
}

impl RemoteClient {
    /// Connects in plain text, or with TLS to a server whose certificate is in `options`, and logs in.
    ///
    /// # Errors
    /// 22023 if the options make no sense, 08001 if the server cannot be reached, 28000 if it asks for a token and none
    /// is given, 28P01 if the token is wrong.
    pub async fn connect(options: RemoteOptions) -> Result<Self> {
        let channel = open_channel(&options).await?;
        let mut inner = FlightServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let session = log_in(&mut inner, &options).await?;
        let mut authorization = MetadataValue::try_from(format!("Bearer {session}"))
            .map_err(|_| RemoteError::local("08P01", "the server's token cannot be sent in a header"))?;
        authorization.set_sensitive(true);
        let mut client = FlightSqlServiceClient::new_from_inner(inner);
        client.set_token(session);
        Ok(Self { client, authorization, exchanges: Arc::new(Semaphore::new(EXCHANGES_MAX)) })
    }

    /// Executes one statement.
    pub async fn execute(&self, sql: &str) -> Result<RemoteResult> {
        let mut client = self.client.clone();
        let mut statement = client.prepare(sql.to_owned(), None).await?;
        let outcome = run(&mut client, &mut statement).await;
        // The server keeps what a result needs until it is read. That closing fails is no reason to lose the outcome,
        // and the server forgets an unused handle by itself.
        if let Err(error) = statement.close().await {
            tracing::debug!("closing a statement: {error}");
        }
        outcome
    }

    /// Ends the session; its open transaction is rolled back. Without it, the server ends the session when it has been
    /// idle for long.
    pub async fn close(self) -> Result<()> {
        let mut client = self.client;
        client.do_action(Action::new("CloseSession", "")).await?.try_collect::<Vec<_>>().await?;
        Ok(())
    }

    /// The tables whose schema and name match the SQL `LIKE` patterns; `None` matches everything.
    pub async fn tables(&self, schema: Option<&str>, name: Option<&str>) -> Result<Vec<RemoteTable>> {
        let mut client = self.client.clone();
        let command = CommandGetTables {
            db_schema_filter_pattern: schema.map(str::to_owned),
            table_name_filter_pattern: name.map(str::to_owned),
            include_schema: true,
            ..Default::default()
        };
        let info = client.get_tables(command).await?;
        let batches: Vec<RecordBatch> = fetch(&mut client, &info).await?.try_collect().await?;
        let mut tables = Vec::new();
        for batch in &batches {
            read_tables(batch, &mut tables)?;
        }
        Ok(tables)
    }
}

async fn open_channel(options: &RemoteOptions) -> Result<Channel> {
    let unusable = |reason: String| RemoteError::local("08001", reason);
    let (scheme, rest) = options.url.split_once("://").ok_or_else(|| {
        invalid(format!("\"{}\" is not a URL", options.url)).with_hint("write it as grpc://HOST:PORT")
    })?;
    let authority = rest.trim_end_matches('/');
    let tls = match scheme {
        "grpc" | "grpc+tcp" => None,
        "grpc+tls" => Some(client_tls(options)?),
        _ => {
            return Err(invalid(format!("the URL scheme \"{scheme}\" is not supported"))
                .with_hint("use grpc:// for plain text and grpc+tls:// for TLS"));
        }
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
        .map_err(|error| invalid(format!("\"{}\" is not a URL: {error}", options.url)))?
        .connect_timeout(CONNECT_TIME_MAX)
        .initial_stream_window_size(RESULT_WINDOW_BYTES)
        .initial_connection_window_size(4 * RESULT_WINDOW_BYTES);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).map_err(|error| unusable(root_cause(&error)))?;
    }
    endpoint.connect().await.map_err(|error| {
        unusable(format!("cannot connect to {}: {}", options.url, root_cause(&error)))
            .with_hint("is the server running, and is this the address it printed?")
    })
}

/// Options that no server could be reached with.
fn invalid(reason: String) -> RemoteError {
    RemoteError::local("22023", reason)
}

fn client_tls(options: &RemoteOptions) -> Result<ClientTlsConfig> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))
    };
    let authority = options.ca_certificate.clone().map_or_else(system_authorities, Ok)?;
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&authority)?));
    Ok(match &options.client_certificate {
        Some((certificate, key)) => config.identity(Identity::from_pem(read(certificate)?, read(key)?)),
        None => config,
    })
}

/// Trades a password, a token or nothing for a session token.
async fn log_in(client: &mut FlightServiceClient<Channel>, options: &RemoteOptions) -> Result<String> {
    let mut request = Request::new(stream::iter([HandshakeRequest::default()]));
    // A token as user and password, too, because that is the form every Flight SQL server understands in a handshake.
    let user = options.user.as_deref().unwrap_or("token");
    let secret = options.password.as_deref().or(options.token.as_deref()).unwrap_or_default();
    let credentials = BASE64_STANDARD.encode(format!("{user}:{secret}"));
    let header = MetadataValue::try_from(format!("Basic {credentials}"))
        .map_err(|_| RemoteError::local("28000", "the token cannot be sent in a header"))?;
    request.metadata_mut().insert("authorization", header);
    let response = client.handshake(request).await?;
    let session = response.metadata().get("authorization").and_then(|header| header.to_str().ok());
    let session = session.and_then(|header| header.strip_prefix("Bearer ")).map(str::to_owned);
    session.ok_or_else(|| RemoteError::local("08P01", "the server answered the handshake without a token"))
}

async fn run(
    client: &mut FlightSqlServiceClient<Channel>,
    statement: &mut PreparedStatement<Channel>,
) -> Result<RemoteResult> {
    // A statement without result columns is an update, by the convention that JDBC set.
    if statement.dataset_schema()?.fields().is_empty() {
        let rows = statement.execute_update().await?;
        return Ok(RemoteResult::Done { rows: u64::try_from(rows).unwrap_or(0) });
    }
    let info = statement.execute().await?;
    fetch(client, &info).await.map(RemoteResult::Rows)
}

async fn fetch(client: &mut FlightSqlServiceClient<Channel>, info: &FlightInfo) -> Result<RemoteStream> {
    let ticket = match info.endpoint.as_slice() {
        [endpoint] => endpoint.ticket.clone(),
        _ => None,
    };
    let ticket = ticket.ok_or_else(|| RemoteError::local("08P01", "the server did not say where the result is"))?;
    let schema = Schema::try_from(IpcMessage(info.schema.clone())).map_err(FlightError::from)?;
    let batches = client.do_get(ticket).await?;
    Ok(RemoteStream { schema: Arc::new(schema), batches: Batches::OfTicket(batches) })
}

fn read_tables(batch: &RecordBatch, tables: &mut Vec<RemoteTable>) -> Result<()> {
    use arrow::array::{Array as _, AsArray as _};
    let unexpected = || RemoteError::local("08P01", "the server's list of tables has an unexpected form");
    let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let schemas = text("db_schema_name").ok_or_else(unexpected)?;
    let names = text("table_name").ok_or_else(unexpected)?;
    let kinds = text("table_type").ok_or_else(unexpected)?;
    let columns = batch.column_by_name("table_schema").and_then(|column| column.as_binary_opt::<i32>());
    let columns = columns.ok_or_else(unexpected)?;
    for row in 0..batch.num_rows() {
        let message = IpcMessage(columns.value(row).to_vec().into());
        tables.push(RemoteTable {
            schema: if schemas.is_null(row) { String::new() } else { schemas.value(row).to_owned() },
            name: names.value(row).to_owned(),
            kind: kinds.value(row).to_owned(),
            columns: Arc::new(Schema::try_from(message).map_err(FlightError::from)?),
        });
    }
    Ok(())
}

/// The batches of a result set.
#[derive(Debug)]
pub struct RemoteStream {
    schema: SchemaRef,
    batches: Batches,
}

#[derive(Debug)]
enum Batches {
    OfTicket(FlightRecordBatchStream),
    OfExchange(Box<ExchangeRows>),
}

impl RemoteStream {
    fn of_exchange(schema: SchemaRef, rows: ExchangeRows) -> Self {
        Self { schema, batches: Batches::OfExchange(Box::new(rows)) }
    }

    /// The schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Stream for RemoteStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.batches {
            Batches::OfTicket(batches) => batches.poll_next_unpin(context).map_err(RemoteError::from),
            Batches::OfExchange(rows) => rows.poll_next_unpin(context),
        }
    }
}

/// A failed remote call, with the parts the engine gave it, as far as they came through. `Display` shows the message
/// only.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    sqlstate: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<Position>,
}

impl RemoteError {
    /// The five-character SQLSTATE.
    pub fn sqlstate(&self) -> &str {
        &self.sqlstate
    }

    /// What went wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The particulars.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Where in the statement, if the error belongs to a place.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    fn local(sqlstate: &str, message: impl Into<String>) -> Self {
        Self { sqlstate: sqlstate.to_owned(), message: message.into(), detail: None, hint: None, position: None }
    }

    fn with_hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

impl From<Status> for RemoteError {
    fn from(status: Status) -> Self {
        let metadata = status.metadata();
        let Some(sqlstate) = metadata.get(SQLSTATE).and_then(|value| value.to_str().ok()) else {
            return Self::local(transport_sqlstate(status.code()), status.message());
        };
        let (detail, hint) = (text(metadata, DETAIL), text(metadata, HINT));
        let position = metadata.get(POSITION).and_then(|value| value.to_str().ok()).and_then(parse_position);

        // The message has everything in it, for clients that show nothing else. Off with what has a place of its own.
        let mut message = status.message();
        message = strip_suffix(message, hint.as_deref().map(hint_suffix));
        message = strip_suffix(message, detail.as_deref().map(detail_suffix));
        message = strip_suffix(message, position.map(|at| position_suffix(at.line, at.column)));
        message = message.strip_prefix(&format!("[{sqlstate}] ")).unwrap_or(message);
        Self { sqlstate: sqlstate.to_owned(), message: message.to_owned(), detail, hint, position }
    }
}

impl From<FlightError> for RemoteError {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => Self::from(*status),
            other => Self::local("08P01", format!("the server's answer cannot be read: {other}")),
        }
    }
}

fn text(metadata: &MetadataMap, key: &str) -> Option<String> {
    let bytes = metadata.get_bin(key)?.to_bytes().ok()?;
    String::from_utf8(bytes.to_vec()).ok()
}

fn parse_position(text: &str) -> Option<Position> {
    let (line, column) = text.split_once(':')?;
    Some(Position { line: line.parse().ok()?, column: column.parse().ok()? })
}

fn strip_suffix(message: &str, suffix: Option<String>) -> &str {
    suffix.and_then(|suffix| message.strip_suffix(&suffix)).unwrap_or(message)
}

/// The SQLSTATE of a failure that did not come from a RustyDB server but from the way there.
fn transport_sqlstate(code: Code) -> &'static str {
    match code {
        Code::Unavailable | Code::Unknown => "08006",
        Code::Cancelled | Code::DeadlineExceeded => "57014",
        Code::Unauthenticated => "28000",
        Code::Unimplemented => "0A000",
        Code::ResourceExhausted | Code::OutOfRange => "54000",
        _ => "XX000",
    }
}

/// The innermost reason; the outer ones say "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::refuse;

    #[test]
    fn an_error_comes_back_in_the_parts_it_was_sent_in() {
        let sent: Status = refuse("42P01", "table \"t\" does not exist").hint("did you mean \"tt\"?").into();
        let received = RemoteError::from(sent);
        assert_eq!(received.sqlstate(), "42P01");
        assert_eq!(received.message(), "table \"t\" does not exist");
        assert_eq!(received.hint(), Some("did you mean \"tt\"?"));
        assert_eq!((received.detail(), received.position()), (None, None));
    }

    #[test]
    fn positions_are_read_and_nonsense_is_not() {
        assert_eq!(parse_position("3:14"), Some(Position { line: 3, column: 14 }));
        assert_eq!(parse_position("3"), None);
        assert_eq!(parse_position("a:b"), None);
    }

    #[test]
    fn statuses_of_other_origin_get_a_fitting_sqlstate() {
        assert_eq!(RemoteError::from(Status::unavailable("gone")).sqlstate(), "08006");
        assert_eq!(RemoteError::from(Status::internal("h2")).message(), "h2");
    }
}
