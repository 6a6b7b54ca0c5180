//! What a caller chooses about the Flight SQL front end, with defaults that are safe on a laptop and sane on a server.
//!
//! Invariant: everything a client can make the server keep (connections, sessions, handles, open transactions, result
//! streams, message and statement sizes) has a limit here, and everything it can leave behind has an idle time after
//! which the server forgets it. Nothing grows because a client says so.

use std::path::PathBuf;
use std::time::Duration;

/// How to run a [`FlightServer`](crate::FlightServer).
#[derive(Debug, Clone)]
pub struct FlightOptions {
    /// Where to listen, as `HOST:PORT`. Port 0 lets the operating system pick one.
    pub address: String,
    /// Certificate and key; `None` speaks plain text.
    pub tls: Option<TlsFiles>,
    /// Static bearer tokens, one per line (`#` starts a comment). Without it, and as long as the database has no users,
    /// authentication is off.
    pub token_file: Option<PathBuf>,
    /// Listen beyond loopback even without authentication and encryption.
    pub insecure: bool,
    /// Bounds on what clients can use up.
    pub limits: Limits,
    /// How long a shutdown waits for running requests before it cuts their connections.
    pub shutdown_grace: Duration,
}

impl FlightOptions {
    /// Plain text without authentication on `address`, which the server accepts for loopback only.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            tls: None,
            token_file: None,
            insecure: false,
            limits: Limits::default(),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// PEM files that identify the server.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, followed by its intermediate certificates if there are any.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// Certificates of the authorities that clients' certificates must come from; `None` asks clients for none.
    pub client_ca: Option<PathBuf>,
}

/// Bounds on what clients can make the server keep, and for how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest gRPC message accepted, in bytes. gRPC's own default of 4 MiB is too small for bulk ingest.
    pub message_bytes: usize,
    /// Most memory that the messages of all clients together may take whose ends are not here yet, in bytes; there is
    /// always enough for one.
    pub message_bytes_total: usize,
    /// Longest SQL text accepted, in bytes.
    pub statement_bytes: usize,
    /// Most parameter data one prepared statement may hold between binding and execution, in bytes of Arrow memory.
    pub parameter_bytes: usize,
    /// Most memory that the statements and parameters of all clients together may take while they wait to be
    /// executed, in bytes.
    pub parameter_bytes_total: usize,
    /// Most TCP connections at one time; further ones wait in the operating system's backlog.
    pub connections: usize,
    /// Most requests in flight on one connection (HTTP/2 streams).
    pub requests_per_connection: u32,
    /// Most result sets being sent at one time, over all connections.
    pub result_streams: usize,
    /// Most sessions (login tokens) at one time.
    pub sessions: usize,
    /// Most planned statements waiting for their DoGet.
    pub tickets: usize,
    /// Most prepared statements at one time.
    pub prepared_statements: usize,
    /// Most transactions opened by BeginTransaction at one time.
    pub transactions: usize,
    /// Most savepoints set by BeginSavepoint at one time, in all transactions together.
    pub savepoints: usize,
    /// A session unused for this long is forgotten, its open transaction rolled back.
    pub session_idle: Duration,
    /// A session ends after this time even if it is used: whoever logged in must do so again.
    pub session_lifetime: Duration,
    /// A ticket not fetched for this long is forgotten.
    pub ticket_idle: Duration,
    /// A prepared statement unused for this long is forgotten.
    pub prepared_statement_idle: Duration,
    /// A transaction unused for this long is rolled back. Long enough for a person at a notebook, because ADBC keeps
    /// one open all the time when autocommit is off.
    pub transaction_idle: Duration,
    /// A result whose client does not ask for more rows for this long ends, as does an ingest (or what is sent else in a
    /// DoPut) of which nothing more comes. It may hold locks, and old versions of rows.
    pub transfer_idle: Duration,
    /// How often an idle connection is asked whether its client is still there.
    pub keepalive_interval: Duration,
    /// How long the client has to answer that.
    pub keepalive_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        const MINUTE: Duration = Duration::from_secs(60);
        Self {
            message_bytes: 64 * MIB,
            message_bytes_total: 512 * MIB,
            statement_bytes: 16 * MIB,
            parameter_bytes: 256 * MIB,
            parameter_bytes_total: 1024 * MIB,
            connections: 20_000,
            requests_per_connection: 256,
            result_streams: 4_096,
            sessions: 20_000,
            tickets: 10_000,
            prepared_statements: 50_000,
            transactions: 2_000,
            savepoints: 20_000,
            session_idle: 8 * 60 * MINUTE,
            session_lifetime: 7 * 24 * 60 * MINUTE,
            ticket_idle: 10 * MINUTE,
            prepared_statement_idle: 4 * 60 * MINUTE,
            transaction_idle: 30 * MINUTE,
            transfer_idle: 30 * MINUTE,
            keepalive_interval: MINUTE,
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// How often to look for idle handles: often enough that the shortest idle time is kept within a quarter, and
    /// never so often that looking costs anything.
    pub(crate) fn sweep_interval(&self) -> Duration {
        let shortest = self
            .session_idle
            .min(self.session_lifetime)
            .min(self.ticket_idle)
            .min(self.prepared_statement_idle)
            .min(self.transaction_idle)
            .min(self.transfer_idle);
        (shortest / 4).clamp(Duration::from_millis(50), Duration::from_secs(30))
    }
}
