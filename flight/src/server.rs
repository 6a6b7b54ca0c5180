//! The life of the server: bind, serve, drain, cut, clean up.
//!
//! ```text
//! bind ──> serve ──shutdown──> drain: no new connections, running requests go on ──> all closed ──> done
//!        after the grace period: what still runs ends with 57P01, remaining connections are cut ────┘
//! ```
//!
//! Invariant: when [`FlightServer::serve`] returns, no request of a client is running, and every session, prepared
//! statement and transaction clients had is gone, so the database can be closed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use rustydb_engine::Database;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::authenticator::{Authenticator, read_tokens};
use crate::deadline::Deadlines;
use crate::frames::FramedRows;
use crate::intact::IntactRequests;
use crate::intake::Intake;
use crate::listen::{Accepting, GREETING_TIME, accept, listen};
use crate::options::{FlightOptions, TlsFiles};
use crate::service::SqlService;
use crate::wrapper::GuardedService;

/// How much a client may send on one request before the server has read it. The HTTP/2 default of 64 KiB would cap
/// bulk ingest at 64 KiB per round trip.
const REQUEST_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all requests of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// How long a client may take for its TLS handshake.
const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long the last words to clients may take. A client that reads has them at once.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// The transport adds keepalive times to the clock, which "never" would overflow; a month is as good.
const KEEPALIVE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why the server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is not one.
    #[error("\"{address}\" is not an address to listen on: {reason}; give it as HOST:PORT")]
    Malformed {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The address cannot be resolved.
    #[error("cannot listen on {address}: {reason}")]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Listening there would let anyone on the network in.
    #[error(
        "refusing to listen on {address}, which other machines can reach, without {missing}: make users and \
         certificates with `rustydb init`, listen on 127.0.0.1, or pass --insecure if the network is trusted"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
        /// Which protection is missing.
        missing: &'static str,
    },
    /// Another process has the port.
    #[error("{address} is in use by another process: stop it, or choose another port (port 0 picks a free one)")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The operating system refused the address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The token file cannot be used.
    #[error("token file {}: {reason}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate or its key cannot be used.
    #[error("TLS file {}: {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The transport gave up.
    #[error("the Flight SQL server stopped: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// A socket that listens, before there is a database to serve: whatever speaks against serving is found before a
/// database is opened or created.
pub struct FlightListener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<ServerTlsConfig>,
    options: FlightOptions,
    tokens: Option<Vec<String>>,
}

impl FlightListener {
    /// Checks the options and opens the socket. Clients that connect from now on wait until the server
    /// [serves](FlightServer::serve).
    ///
    /// `has_users`: whether the database that is to be served has users, so that clients must log in.
    pub async fn bind(options: FlightOptions, has_users: bool) -> Result<Self, ServerError> {
        let tokens = read_tokens(options.token_file.as_deref())?;
        let tls = options.tls.as_ref().map(tls_config).transpose()?;
        let listener = listen(&options, has_users || tokens.is_some()).await?;
        let address = listener
            .local_addr()
            .map_err(|error| ServerError::Address { address: options.address.clone(), reason: error.to_string() })?;
        Ok(Self { listener, address, tls, options, tokens })
    }

    /// The server of `database` on this socket.
    pub fn into_server(self, database: Database) -> FlightServer {
        let Self { listener, address, tls, options, tokens } = self;
        let authenticator = Authenticator::new(tokens, database.clone());
        let service = Arc::new(SqlService::new(database, authenticator, options.limits.clone()));
        FlightServer { listener, address, tls, options, service }
    }
}

/// A Flight SQL server that listens already, so that its address is known before it serves.
pub struct FlightServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<ServerTlsConfig>,
    options: FlightOptions,
    service: Arc<SqlService>,
}

impl FlightServer {
    /// A listener and its server in one step.
    pub async fn bind(options: FlightOptions, database: Database) -> Result<Self, ServerError> {
        let has_users = database.has_users();
        Ok(FlightListener::bind(options, has_users).await?.into_server(database))
    }

    /// Where the server listens, with the port the operating system picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, then lets running requests end within the grace period.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServerError> {
        let limits = &self.options.limits;
        let (interval, timeout) =
            (limits.keepalive_interval.min(KEEPALIVE_MAX), limits.keepalive_timeout.min(KEEPALIVE_MAX));
        let mut builder = Server::builder()
            .initial_stream_window_size(REQUEST_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(limits.requests_per_connection)
            .http2_keepalive_interval(Some(interval))
            .http2_keepalive_timeout(Some(timeout));
        let is_encrypted = self.tls.is_some();
        if let Some(tls) = self.tls {
            builder = builder.tls_config(tls)?;
        }
        let guarded = Arc::new(GuardedService::new(Arc::clone(&self.service)));
        let flight =
            FlightServiceServer::from_arc(Arc::clone(&guarded)).max_decoding_message_size(limits.message_bytes);
        let flight = FramedRows::new(flight, guarded, Intake::new(limits), Intake::of_strangers(limits));

        let cut = watch::Sender::new(false);
        let accepting = Accepting {
            connections_max: limits.connections,
            is_encrypted,
            greeting_time: GREETING_TIME,
            // Who takes nothing for so long could not have answered in time either.
            patience: interval + timeout,
            cut: cut.subscribe(),
        };
        let incoming = accept(self.listener, accepting);
        let (draining, drained) = oneshot::channel();
        let service = Arc::clone(&self.service);
        // Without tonic's router: there is one service, which refuses other paths itself.
        let flight = Deadlines(IntactRequests(flight));
        let serving = builder.serve_with_incoming_shutdown(flight, incoming, async move {
            shutdown.await;
            service.drain();
            // Nobody listens any more only if serving has ended already.
            let _ = draining.send(());
        });

        let cutting = async {
            if drained.await.is_ok() {
                tokio::time::sleep(self.options.shutdown_grace).await;
                tracing::warn!("stopping the statements that did not end within the grace period");
                self.service.stop_running();
                tokio::time::sleep(FAREWELL_MAX).await;
                cut.send_replace(true);
            }
            std::future::pending::<()>().await;
        };
        let sweeping = async {
            loop {
                tokio::time::sleep(limits.sweep_interval()).await;
                self.service.sweep();
            }
        };
        let outcome = tokio::select! {
            outcome = serving => outcome,
            () = cutting => Ok(()),
            () = sweeping => Ok(()),
        };
        self.service.clear();
        Ok(outcome?)
    }
}

fn tls_config(files: &TlsFiles) -> Result<ServerTlsConfig, ServerError> {
    let read = |path: &PathBuf, marker: &str| {
        let refused = |reason: String| ServerError::Tls { path: path.clone(), reason };
        let pem = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        match pem.contains(marker) {
            true => Ok(pem),
            false => Err(refused(format!("not a PEM file: there is no \"{marker}\" section"))),
        }
    };
    let certificate = read(&files.certificate, "-----BEGIN CERTIFICATE-----")?;
    let key = read(&files.key, "PRIVATE KEY-----")?;
    let mut config = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key)).timeout(TLS_HANDSHAKE_MAX);
    if let Some(path) = &files.client_ca {
        config = config.client_ca_root(Certificate::from_pem(read(path, "-----BEGIN CERTIFICATE-----")?));
    }
    // The builder is what checks that the two belong together: better now than at the first connection.
    Server::builder().tls_config(config.clone()).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        ServerError::Tls { path: files.certificate.clone(), reason: source.unwrap_or_else(|| error.to_string()) }
    })?;
    Ok(config)
}
