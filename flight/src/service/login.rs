//! Handshake: credentials become a session and the token that stands for it; CloseSession ends it.
//!
//! With authentication off, anyone gets a session; with it on, whoever gives the name and password of a user, or a token of
//! the token file. The session token goes back in the `authorization` header, where ADBC, JDBC and pyarrow look for it, and as the payload, where
//! older Flight clients do.

use std::net::SocketAddr;
use std::time::Duration;

use arrow_flight::{BasicAuth, HandshakeRequest, HandshakeResponse};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::SqlService;
use crate::auth::{Caller, Credentials, session_token};
use crate::status::{internal, refuse};

/// How long an old client, whose credentials come as a message after the headers, may take to send it.
const PAYLOAD_WAIT_MAX: Duration = Duration::from_secs(10);

type Responses = BoxStream<'static, Result<HandshakeResponse, Status>>;

impl SqlService {
    /// Who is calling, by the headers of any request but Handshake.
    pub(crate) async fn identify(
        &self,
        credentials: Credentials,
        address: Option<SocketAddr>,
    ) -> Result<Caller, Status> {
        let Some(session) = credentials.session() else {
            let principal = self.authenticator.identify(credentials, address.map(|address| address.ip())).await?;
            return Ok(Caller::new(principal, None, address));
        };
        let session = session?;
        let principal = self.sessions.principal(session)?;
        if !self.authenticator.is_current(&principal) {
            self.sessions.log_out(&principal, session);
            return Err(no_longer_current());
        }
        Ok(Caller::new(principal, Some(session), address))
    }

    /// The same for a caller who was identified before and is still there.
    pub(super) fn admit_again(&self, caller: &Caller) -> Result<(), Status> {
        let session = caller.session.map(|session| self.sessions.principal(session)).transpose()?;
        match self.authenticator.is_current(session.as_ref().unwrap_or(&caller.principal)) {
            true => Ok(()),
            false => Err(no_longer_current()),
        }
    }

    pub(crate) async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let mut credentials = Credentials::from_metadata(request.metadata())?;
        let address = request.remote_addr();
        let mut protocol_version = 0;
        if credentials == Credentials::Absent && self.authenticator.is_on() {
            let mut messages = request.into_inner();
            let first = tokio::time::timeout(PAYLOAD_WAIT_MAX, messages.message()).await;
            let first = first.map_err(|_| refuse("28000", "the handshake sent no credentials"))??;
            if let Some(first) = first {
                protocol_version = first.protocol_version;
                credentials = from_payload(&first.payload)?;
            }
        }
        let caller = self.identify(credentials, address).await?;
        let session = match caller.session {
            // A client that logs in again with its session token keeps its session.
            Some(session) => session,
            None => self.sessions.log_in(&caller.principal)?,
        };

        let token = session_token(session);
        let header = MetadataValue::try_from(format!("Bearer {token}")).map_err(internal)?;
        let response = HandshakeResponse { protocol_version, payload: token.into() };
        let mut response = Response::new(stream::iter([Ok(response)]).boxed());
        response.metadata_mut().insert("authorization", header);
        Ok(response)
    }

    /// Forgets the caller's session; its open transaction is rolled back. A call without one has nothing to close.
    pub(super) fn close_session(&self, caller: &Caller) -> arrow_flight::Result {
        let status = match caller.session {
            Some(session) => {
                self.sessions.log_out(&caller.principal, session);
                CloseSessionResult::CLOSED
            }
            None => CloseSessionResult::NOT_CLOSEABLE,
        };
        arrow_flight::Result::new(CloseSessionResult { status }.encode_to_vec())
    }
}

/// Flight's message of this name, for which arrow-flight has no type: an enumeration as its only field.
#[derive(Clone, PartialEq, prost::Message)]
struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl CloseSessionResult {
    const CLOSED: i32 = 1;
    const NOT_CLOSEABLE: i32 = 3;
}

fn no_longer_current() -> Status {
    refuse("28000", "who may connect has changed since this session began").hint("log in again (Handshake)").into()
}

fn from_payload(payload: &[u8]) -> Result<Credentials, Status> {
    if payload.is_empty() {
        return Ok(Credentials::Absent);
    }
    match BasicAuth::decode(payload) {
        Ok(BasicAuth { username: user, password }) => Ok(Credentials::Basic { user, password }),
        Err(_) => Err(refuse("28000", "the handshake's payload is not BasicAuth").into()),
    }
}
