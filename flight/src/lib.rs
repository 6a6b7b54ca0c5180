//! Everything a client speaks to. Today that is Arrow Flight SQL; other protocols will stand beside it, over the same
//! sessions.
//!
//! # A query's way through this crate
//!
//! ```text
//!            TCP, TLS, HTTP/2        who is it?           which command?
//! client ──> listen ── server ──> wrapper ── auth ──> service::dispatch
//!                                                          │
//!   GetFlightInfo(SQL) ─────────────────────────────> statement ── sessions: where does it run?
//!                                                          │ plans it, keeps the plan in handles
//!   <── schema + ticket ───────────────────────────────────┘
//!   DoGet(ticket) ──────────────────────────────────> execution ── running: so that it can be cancelled
//!                                                          │ engine::Session::execute_prepared
//!   <── Arrow batches ──────────────────────────────── stream, wire: engine types become wire types, one batch at a time
//! ```
//!
//! Flight SQL has no connections: each request stands alone, and what belongs together is held together by opaque
//! handles. Hence three modules carry the crate. `handles` is the bounded, expiring table that everything a client
//! holds lives in. `sessions` decides in which engine session a statement runs: that of a transaction id, of a login
//! token, or one of its own. `service` has one module per topic of the protocol.
//!
//! # What holds everywhere
//!
//! - A statement runs exactly once per request to run it, and a request that is cancelled, by the client's leaving or
//!   by CancelQuery, stops its work.
//! - A request whose client breaks off fails; it is never taken for complete.
//! - Nothing a client sends can panic the server or grow it without bound; every limit is in [`Limits`].
//! - Every error carries an SQLSTATE, and says what to do; `status` has the table.
//! - What is not supported is refused by name.
//! - Beyond loopback the server wants authentication and TLS, or to be told that it may go without.
//!
//! [`RemoteClient`] is the other end of the wire, as the SQL shell uses it.

mod answers;
mod auth;
mod authenticator;
mod claims;
mod client;
mod deadline;
mod encoder;
mod first_word;
mod frames;
mod gather;
mod handles;
mod intact;
mod intake;
mod linger;
mod listen;
mod onward;
mod options;
mod requests;
mod running;
mod server;
mod service;
mod sessions;
mod short;
mod status;
mod stream;
mod throttle;
mod type_url;
mod upload;
mod values;
mod wire;
mod wrapper;

pub use client::{RemoteClient, RemoteError, RemoteOptions, RemoteResult, RemoteStatement, RemoteStream, RemoteTable};
pub use options::{FlightOptions, Limits, TlsFiles};
pub use server::{FlightListener, FlightServer, ServerError};
pub use upload::is_decoding;
