//! The listening socket: where it may be, how many connections it takes, and how they are cut at the end.
//!
//! Invariants: beyond loopback the server listens only with authentication and TLS, or when told that it may not need
//! them. A connection holds one of a fixed number of slots; when there is none, further clients wait in the operating
//! system's backlog and cost nothing here. Who connects and says nothing is cut off soon; later silence is found by HTTP/2's
//! keep-alive. Its last words, though, and those of an orderly end have to be sent before a connection is closed, for which a
//! client that takes nothing (its process is stopped, its machine gone) has no room: so no write waits for ever either.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::gather::Gather;
use crate::linger::{Linger, Talkers};
use crate::options::FlightOptions;
use crate::server::ServerError;

/// Pause after a failed accept. The usual reason is that the process has no file descriptor left: trying again at once
/// would only burn a core until one is closed.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How often to say so in the log, at most.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Connections that the operating system keeps until they are accepted, as far as it does. A client that finds no room tries
/// again after a second: with tokio's 128, a hundred clients at a time that come and go kept others waiting.
const BACKLOG: u32 = 4096;

/// Time that clients have for their first bytes.
pub(crate) const GREETING_TIME: Duration = Duration::from_secs(10);

/// That many: HTTP/2's preface; a TLS handshake begins with more.
const GREETING_BYTES: usize = 24;

/// Opens the socket the options ask for, if they may have it.
pub(crate) async fn listen(options: &FlightOptions, is_authenticated: bool) -> Result<TcpListener, ServerError> {
    check_address(&options.address)?;
    let unresolved = |reason: String| ServerError::Address { address: options.address.clone(), reason };
    let mut addresses =
        tokio::net::lookup_host(&options.address).await.map_err(|error| unresolved(error.to_string()))?;
    let address = addresses.next().ok_or_else(|| unresolved("the name has no address".to_owned()))?;
    refuse_exposure(options, is_authenticated, address)?;
    open(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::AddressInUse { address },
        _ => ServerError::Bind { address, source },
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that was just ended leaves connections behind that the system keeps for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether an address is one, as far as that can be told without asking for the name.
fn check_address(address: &str) -> Result<(), ServerError> {
    let malformed = |reason| Err(ServerError::Malformed { address: address.to_owned(), reason });
    let Some((host, port)) = address.rsplit_once(':') else { return malformed("it has no port") };
    if host.is_empty() {
        return malformed("it has no host");
    }
    if port.parse::<u16>().is_err() {
        return malformed("the port is not a number from 0 to 65535");
    }
    Ok(())
}

fn refuse_exposure(options: &FlightOptions, is_authenticated: bool, address: SocketAddr) -> Result<(), ServerError> {
    let missing = match (is_authenticated, options.tls.is_some()) {
        _ if address.ip().is_loopback() || options.insecure => return Ok(()),
        (true, true) => return Ok(()),
        (false, false) => "authentication and TLS",
        (false, true) => "authentication",
        (true, false) => "TLS",
    };
    Err(ServerError::Exposed { address, missing })
}

/// How connections are accepted.
pub(crate) struct Accepting {
    /// Slots for connections.
    pub(crate) connections_max: usize,
    /// Whether what speaks TLS is between a connection and HTTP/2.
    pub(crate) is_encrypted: bool,
    /// Time a client has for its first bytes.
    pub(crate) greeting_time: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub(crate) patience: Duration,
    /// When all connections are cut.
    pub(crate) cut: watch::Receiver<bool>,
}

/// Accepts connections as long as there are slots for them.
pub(crate) fn accept(listener: TcpListener, accepting: Accepting) -> impl Stream<Item = io::Result<Connection>> {
    let Accepting { connections_max, is_encrypted, greeting_time, patience, cut } = accepting;
    let talkers = Arc::<Talkers>::default();
    let slots = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    let warned: Option<Instant> = None;
    futures::stream::unfold(
        (listener, slots, talkers, cut, warned),
        move |(listener, slots, talkers, cut, mut warned)| async move {
            // The semaphore is never closed; should that change, ending the stream is the right answer.
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            let accepted = match listener.accept().await {
                Ok((socket, _)) => {
                    let socket = Gather::new(prompt(socket), !is_encrypted);
                    let linger = Linger::new(&talkers);
                    Ok(Connection::new(socket, slot, linger, cut.clone(), greeting_time, patience))
                }
                Err(error) => {
                    if warned.is_none_or(|warned| warned.elapsed() >= ACCEPT_WARNING_INTERVAL) {
                        tracing::warn!("cannot accept connections: {error}; clients wait until this changes");
                        warned = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                    Err(error)
                }
            };
            Some((accepted, (listener, slots, talkers, cut, warned)))
        },
    )
}

/// Small messages (the answers to most requests) must not wait for each other. Failing to say so is harmless.
fn prompt(socket: TcpStream) -> TcpStream {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!("TCP_NODELAY: {error}");
    }
    socket
}

/// An accepted connection, which ends when it is cut, or when its client takes nothing of what is sent.
pub(crate) struct Connection {
    socket: Gather<TcpStream>,
    linger: Linger,
    cut: Cut,
    /// Until its client has said something.
    greeting: Option<Greeting>,
    /// How long a write may wait.
    patience: Duration,
    /// Until when the one that waits may.
    stalled: Option<Pin<Box<Sleep>>>,
    _slot: OwnedSemaphorePermit,
}

/// Whether the connection has been cut, asked again and again by whoever reads from it.
struct Cut {
    /// Wakes the reader when it is.
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Tells in a moment that nothing has happened, so that `wait` is not polled with every read.
    news: watch::Receiver<bool>,
    /// Whom `wait` wakes.
    reader: Option<Waker>,
    is_cut: bool,
}

impl Cut {
    fn new(news: watch::Receiver<bool>) -> Self {
        let mut cut = news.clone();
        let wait = Box::pin(async move {
            // An error means that the server is gone without having cut us, which it does not want then.
            if cut.wait_for(|cut| *cut).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        Self { wait, news, reader: None, is_cut: false }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let is_known = self.reader.as_ref().is_some_and(|reader| reader.will_wake(context.waker()));
        if !self.is_cut && (!is_known || self.news.has_changed().unwrap_or(true)) {
            self.is_cut = self.wait.as_mut().poll(context).is_ready();
            self.reader = Some(context.waker().clone());
        }
        self.is_cut
    }
}

struct Greeting {
    deadline: Pin<Box<Sleep>>,
    missing_bytes: usize,
}

impl Connection {
    fn new(
        socket: Gather<TcpStream>,
        slot: OwnedSemaphorePermit,
        linger: Linger,
        cut: watch::Receiver<bool>,
        greeting_time: Duration,
        patience: Duration,
    ) -> Self {
        let deadline = Box::pin(tokio::time::sleep(greeting_time));
        let greeting = Some(Greeting { deadline, missing_bytes: GREETING_BYTES });
        Self { socket, linger, cut: Cut::new(cut), greeting, patience, stalled: None, _slot: slot }
    }

    /// What has become of a write: one that waits fails when the connection is cut, and when it has waited for too long.
    ///
    /// As long as one waits HTTP/2 may not read, so this is where a connection notices then that it has been cut.
    fn in_time<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if self.cut.poll(context) {
            return Poll::Ready(Err(was_cut()));
        }
        let patience = self.patience;
        let deadline = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of what is sent to it")))
    }
}

fn was_cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server is shutting down")
}

impl AsyncRead for Connection {
    // HTTP/2 always has a read pending, so this is where a connection notices that it has been cut.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.poll(context) {
            return Poll::Ready(Err(was_cut()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        let received = buffer.filled().len() - before;
        if received > 0 {
            self.linger.heard();
        }
        if let Some(greeting) = &mut self.greeting {
            if received >= greeting.missing_bytes {
                self.greeting = None;
            } else {
                greeting.missing_bytes -= received;
                if read.is_pending() && greeting.deadline.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client has said nothing")));
                }
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        let written = ready!(self.in_time(context, written))?;
        self.linger.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        let written = ready!(self.in_time(context, written))?;
        self.linger.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        ready!(self.in_time(context, flushed))?;
        let Self { socket, linger, .. } = &mut *self;
        linger.answered(socket.get_ref());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.socket).poll_shutdown(context);
        self.in_time(context, shut_down)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.get_ref().connect_info()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::options::TlsFiles;

    fn options(tls: bool, insecure: bool) -> FlightOptions {
        let mut options = FlightOptions::new("unused");
        options.tls = tls.then(|| TlsFiles { certificate: "c".into(), key: "k".into(), client_ca: None });
        options.insecure = insecure;
        options
    }

    #[test]
    fn beyond_loopback_needs_both_protections_or_consent() {
        let public: SocketAddr = "0.0.0.0:1".parse().expect("address");
        for (authenticated, tls, insecure, missing) in [
            (false, false, false, Some("authentication and TLS")),
            (true, false, false, Some("TLS")),
            (false, true, false, Some("authentication")),
            (true, true, false, None),
            (false, false, true, None),
        ] {
            let outcome = refuse_exposure(&options(tls, insecure), authenticated, public);
            match (outcome, missing) {
                (Ok(()), None) => {}
                (Err(error @ ServerError::Exposed { .. }), Some(missing)) => {
                    let text = error.to_string();
                    assert!(text.contains(missing) && text.contains("--insecure"), "{text}");
                }
                (outcome, _) => panic!("{authenticated} {tls} {insecure}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_address_is_told_from_one_that_does_not_answer() {
        for address in ["127.0.0.1:0", "[::1]:50051", "db.example.com:65535"] {
            assert!(check_address(address).is_ok(), "{address}");
        }
        for address in ["nonsense", "127.0.0.1", "127.0.0.1:", ":1", "127.0.0.1:99999", "127.0.0.1:http", ""] {
            assert!(matches!(check_address(address), Err(ServerError::Malformed { .. })), "{address}");
        }
    }

    #[test]
    fn loopback_needs_nothing() {
        for address in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1"] {
            assert!(refuse_exposure(&options(false, false), false, address.parse().expect("address")).is_ok());
        }
    }

    #[tokio::test]
    async fn many_may_connect_before_the_first_is_accepted() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
        if allowed.and_then(|allowed| allowed.trim().parse::<usize>().ok()).is_none_or(|allowed| allowed < 1_000) {
            return;
        }
        let listener = open("127.0.0.1:0".parse().expect("an address")).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(10));
        let waiting: Vec<_> = (0..300).map(|_| connect().expect("connected")).collect();
        for _ in waiting {
            listener.accept().await.expect("accepted");
        }
    }

    const SHORT: Duration = Duration::from_millis(20);

    async fn accepted() -> (TcpStream, Connection, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (sender, cut) = watch::channel(false);
        let accepting =
            Accepting { connections_max: 1, is_encrypted: false, greeting_time: SHORT, patience: SHORT * 10, cut };
        let mut connections = Box::pin(accept(listener, accepting));
        let (client, server) = tokio::join!(TcpStream::connect(address), connections.next());
        (client.expect("connected"), server.expect("open").expect("accepted"), sender)
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_cut_off() {
        for said in [&b""[..], b"PRI * HTTP"] {
            let (mut client, mut server, _cut) = accepted().await;
            client.write_all(said).await.expect("written");
            let mut buffer = vec![0; 64];
            let error = loop {
                match server.read(&mut buffer).await {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test]
    async fn a_client_that_has_greeted_may_be_silent() {
        let (mut client, mut server, _cut) = accepted().await;
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
        let mut buffer = vec![0; GREETING_BYTES];
        server.read_exact(&mut buffer).await.expect("the preface");
        let silent = tokio::time::timeout(SHORT * 5, server.read(&mut buffer)).await;
        assert!(silent.is_err(), "{silent:?}");
    }

    /// Writes more than sockets hold.
    async fn write_for_ever(mut server: Connection) -> io::Error {
        loop {
            if let Err(error) = server.write_all(&[0; 1 << 16]).await {
                break error;
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let (_client, server, _cut) = accepted().await;
        let written = tokio::time::timeout(Duration::from_secs(60), write_for_ever(server)).await;
        assert_eq!(written.expect("it does not wait for ever").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_write_that_waits_is_cut_as_well() {
        let (_client, mut server, cut) = accepted().await;
        server.patience = Duration::from_secs(600);
        let writing = tokio::spawn(write_for_ever(server));
        tokio::time::sleep(SHORT * 5).await;
        cut.send_replace(true);
        let written = tokio::time::timeout(Duration::from_secs(60), writing).await.expect("it notices");
        assert_eq!(written.expect("no panic").kind(), io::ErrorKind::ConnectionAborted);
    }
}
