//! The life of the server: bind, serve, drain, cut, clean up.
//!
//! ```text
//! bind ──> serve ──shutdown──> drain: no new connections, running requests go on ──> all closed ──> done
//!                                └── after the grace period: remaining connections are cut ─────────┘
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

use crate::authenticator::Authenticator;
use crate::intact::IntactRequests;
use crate::listen::{accept, listen};
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
/// The transport adds keepalive times to the clock, which "never" would overflow; a month is as good.
const KEEPALIVE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why the server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be resolved.
    #[error("cannot listen on {address}: {reason}; give the address as HOST:PORT")]
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

/// A Flight SQL server that listens already, so that its address is known before it serves.
pub struct FlightServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<ServerTlsConfig>,
    options: FlightOptions,
    service: Arc<SqlService>,
}

impl FlightServer {
    /// Checks the options and opens the socket. Clients that connect from now on wait until [`serve`](Self::serve).
    pub async fn bind(options: FlightOptions, database: Database) -> Result<Self, ServerError> {
        let authenticator = Authenticator::open(options.token_file.as_deref(), database.clone())?;
        let tls = options.tls.as_ref().map(tls_config).transpose()?;
        let listener = listen(&options, authenticator.is_on()).await?;
        let address = listener
            .local_addr()
            .map_err(|error| ServerError::Address { address: options.address.clone(), reason: error.to_string() })?;
        let service = Arc::new(SqlService::new(database, authenticator, options.limits.clone()));
        Ok(Self { listener, address, tls, options, service })
    }

    /// Where the server listens, with the port the operating system picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, then lets running requests end within the grace period.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServerError> {
        let limits = &self.options.limits;
        let mut builder = Server::builder()
            .initial_stream_window_size(REQUEST_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(limits.requests_per_connection)
            .http2_keepalive_interval(Some(limits.keepalive_interval.min(KEEPALIVE_MAX)))
            .http2_keepalive_timeout(Some(limits.keepalive_timeout.min(KEEPALIVE_MAX)));
        if let Some(tls) = self.tls {
            builder = builder.tls_config(tls)?;
        }
        let flight = FlightServiceServer::new(GuardedService::new(Arc::clone(&self.service)))
            .max_decoding_message_size(limits.message_bytes);

        let cut = watch::Sender::new(false);
        let incoming = accept(self.listener, limits.connections, cut.subscribe());
        let (draining, drained) = oneshot::channel();
        let serving = builder.add_service(IntactRequests(flight)).serve_with_incoming_shutdown(incoming, async move {
            shutdown.await;
            // Nobody listens any more only if serving has ended already.
            let _ = draining.send(());
        });

        let cutting = async {
            if drained.await.is_ok() {
                tokio::time::sleep(self.options.shutdown_grace).await;
                tracing::warn!("cutting the connections that did not end within the grace period");
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
