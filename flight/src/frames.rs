//! The calls that have to be fast, without tonic's codec: DoGet, DoExchange and DoPut, from Arrow buffers to HTTP/2 frames.
//!
//! tonic encodes a message by copying it into a buffer of its own, and arrow-flight makes one by copying its buffers
//! together: two copies of every row, a third of the processor time of a large result. And what both do for a message is
//! more than all the work for a short one, such as the parameters of a query by key. This service, around the
//! generated one, answers these calls itself. A message leaves as a few frames: its protobuf and Arrow headers with the
//! small buffers, and each large buffer as it lies in memory.
//!
//! ```text
//! gRPC    0, length (4 bytes)
//! FlightData   0x12, length, data_header      (field 2: the Arrow message's metadata)
//!              0x1A, length, app_metadata     (field 3)
//!              0xC2 0x3E, length, data_body   (field 1000: buffers, each padded as the metadata says)
//! ```
//!
//! Invariant: what a client reads is byte by byte what tonic would have sent it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::buffer::Buffer;
use arrow_flight::Ticket;
use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use http_body::{Body as HttpBody, Frame};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::MetadataMap;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Request, Status};

use crate::intake::{Assembly, Intake, PREFIX_BYTES};
use crate::requests::Requests;
use crate::status::{SQLSTATE, refuse};
use crate::stream::{FlightStream, Message};
use crate::wrapper::{GuardedService, blame};

const DO_GET: &str = "/arrow.flight.protocol.FlightService/DoGet";
const DO_PUT: &str = "/arrow.flight.protocol.FlightService/DoPut";
const DO_EXCHANGE: &str = "/arrow.flight.protocol.FlightService/DoExchange";
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// The longest message of a Handshake: a name and a password.
const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

/// Room for all of a short answer: its schema and a row.
const SMALL_BYTES: usize = 1 << 10;

/// What frames are made of.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Buffers up to this are copied together: a frame costs more than copying them.
    copied_bytes_max: usize,
    /// A frame of small buffers and messages is sent when it is this large.
    target_bytes: usize,
    /// A frame has at most as many bytes.
    frame_bytes_max: usize,
}

impl Sizes {
    /// Buffers go to the kernel from where they lie, as many bytes at a time as the other side lets us.
    const PLAIN: Self = Self { copied_bytes_max: 4 << 10, target_bytes: 32 << 10, frame_bytes_max: usize::MAX };

    /// rustls takes 64 KiB at a time, and makes records of 16 KiB of them. What is left of a frame, a few bytes often, would
    /// be a record and a call of the kernel of its own, and wake the client for it: so a frame and its header are no longer.
    const TLS: Self = Self { copied_bytes_max: 16 << 10, target_bytes: 48 << 10, frame_bytes_max: (64 << 10) - 9 };

    fn of(request: &http::Extensions) -> Self {
        match request.get::<TlsConnectInfo<TcpConnectInfo>>() {
            Some(_) => Self::TLS,
            None => Self::PLAIN,
        }
    }
}

/// Answers the calls that send or receive rows; everything else goes to the service inside, a message at a time.
#[derive(Clone)]
pub(crate) struct FramedRows<S> {
    inner: S,
    service: Arc<GuardedService>,
    /// For calls of which the caller is known before the message.
    intake: Intake,
    /// For the others, which anybody can begin.
    strangers: Intake,
}

impl<S> FramedRows<S> {
    pub(crate) fn new(inner: S, service: Arc<GuardedService>, intake: Intake, strangers: Intake) -> Self {
        Self { inner, service, intake, strangers }
    }
}

impl<S> Service<http::Request<Body>> for FramedRows<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (service, intake) = (Arc::clone(&self.service), self.intake.clone());
        match request.uri().path() {
            DO_GET => Box::pin(async move {
                let (parts, body) = request.into_parts();
                let sizes = Sizes::of(&parts.extensions);
                let (metadata, ticket) = (MetadataMap::from_headers(parts.headers), read_ticket(body, intake));
                let rows = service.fetch(Request::from_parts(metadata, parts.extensions, ticket));
                Ok(response(rows.await, sizes))
            }),
            DO_PUT => Box::pin(async move {
                let (parts, body) = request.into_parts();
                let messages = Requests::new(body, intake).hurried();
                let metadata = MetadataMap::from_headers(parts.headers);
                let answer = service.put(Request::from_parts(metadata, parts.extensions, messages)).await;
                Ok(match answer {
                    Ok(answer) => succeeded(Frames::of(&answer)),
                    Err(status) => status.into_http(),
                })
            }),
            DO_EXCHANGE => Box::pin(async move {
                let (parts, body) = request.into_parts();
                let sizes = Sizes::of(&parts.extensions);
                let (metadata, messages) = (MetadataMap::from_headers(parts.headers), Requests::new(body, intake));
                let answers = service.exchange(Request::from_parts(metadata, parts.extensions, messages));
                Ok(response(answers.await, sizes))
            }),
            _ => {
                let call = request.uri().clone();
                let intake = match call.path() {
                    HANDSHAKE => self.strangers.clone().up_to(HANDSHAKE_BYTES_MAX),
                    _ => self.strangers.clone(),
                };
                // tonic would make room for whatever a prefix claims.
                let response = self.inner.call(request.map(|body| Body::new(Assembly::new(body, intake))));
                Box::pin(async move { response.await.map(|response| precise(response, call.path())) })
            }
        }
    }
}

/// tonic refuses a message that is too long or no protobuf, and a call that there is not, before anybody here sees it: its
/// statuses get an SQLSTATE, too.
fn precise(response: http::Response<Body>, call: &str) -> http::Response<Body> {
    let is_ours = response.headers().contains_key(SQLSTATE);
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() == Code::Unimplemented && status.message().is_empty() => {
            Status::from(refuse("0A000", format!("there is no call \"{call}\""))).into_http()
        }
        Some(status) if status.code() != Code::Ok && !is_ours => blame(status).into_http(),
        _ => response,
    }
}

/// The one message of the request.
async fn read_ticket(body: Body, intake: Intake) -> Result<Ticket, Status> {
    let mut messages = Requests::new(body, intake);
    let malformed = |reason: &str| Status::from(refuse("08P01", format!("malformed message: {reason}")));
    let ticket = messages.try_next().await?.ok_or_else(|| malformed("the request has no ticket"))?;
    match messages.try_next().await? {
        None => Ok(ticket),
        Some(_) => Err(malformed("the request has a second ticket")),
    }
}

/// A response that sends these messages.
fn response(messages: Result<FlightStream, Status>, sizes: Sizes) -> http::Response<Body> {
    match messages {
        Ok(messages) => succeeded(Frames::new(messages, sizes)),
        Err(status) => status.into_http(),
    }
}

fn succeeded(frames: Frames) -> http::Response<Body> {
    let mut response = http::Response::new(Body::new(frames));
    let content_type = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}

/// The response's body.
struct Frames {
    rows: Option<FlightStream>,
    sizes: Sizes,
    /// Complete frames, to be sent in order.
    ready: VecDeque<Bytes>,
    /// Small pieces on their way to becoming a frame.
    small: BytesMut,
    /// What the stream ended with, once it has.
    end: Option<Status>,
}

impl Frames {
    fn new(rows: FlightStream, sizes: Sizes) -> Self {
        let small = BytesMut::with_capacity(SMALL_BYTES);
        Self { rows: Some(rows), sizes, ready: VecDeque::new(), small, end: None }
    }

    /// A response of one message.
    fn of(answer: &impl prost::Message) -> Self {
        let length = answer.encoded_len();
        let mut small = BytesMut::with_capacity(PREFIX_BYTES + length);
        put_prefix(&mut small, length);
        // It fails where there is no room, of which a BytesMut makes more.
        let _ = answer.encode(&mut small);
        let (ready, end) = (VecDeque::from([small.freeze()]), Some(Status::new(Code::Ok, "")));
        Self { rows: None, sizes: Sizes::PLAIN, ready, small: BytesMut::new(), end }
    }

    fn push(&mut self, message: Message) {
        let body: usize = message.body.iter().map(Buffer::len).sum();
        let copied: usize = message.body.iter().map(Buffer::len).filter(|bytes| self.copies(*bytes)).sum();
        let (header, metadata) = (message.header.len(), message.metadata.len());
        let fields = field_bytes(1, header) + field_bytes(1, metadata) + field_bytes(2, body);
        self.small.reserve(PREFIX_BYTES + fields - body + copied);
        put_prefix(&mut self.small, fields);
        if !message.header.is_empty() {
            self.small.put_u8(0x12);
            put_varint(&mut self.small, message.header.len());
            self.small.put_slice(&message.header);
        }
        if !message.metadata.is_empty() {
            self.small.put_u8(0x1a);
            put_varint(&mut self.small, message.metadata.len());
            self.small.put_slice(&message.metadata);
        }
        if body > 0 {
            self.small.put_slice(&[0xc2, 0x3e]);
            put_varint(&mut self.small, body);
            for buffer in message.body {
                if self.copies(buffer.len()) {
                    self.small.put_slice(&buffer);
                    if self.small.len() >= self.sizes.target_bytes {
                        self.flush();
                    }
                } else {
                    self.flush();
                    self.push_buffer(buffer);
                }
            }
        }
        if self.small.len() >= self.sizes.target_bytes {
            self.flush();
        }
    }

    fn copies(&self, bytes: usize) -> bool {
        bytes <= self.sizes.copied_bytes_max
    }

    /// Makes frames of a large buffer: as few as possible, of about the same size.
    fn push_buffer(&mut self, buffer: Buffer) {
        let mut rest = Bytes::from_owner(Owned(buffer));
        let mut frames = rest.len().div_ceil(self.sizes.frame_bytes_max);
        while frames > 1 {
            self.ready.push_back(rest.split_to(rest.len().div_ceil(frames)));
            frames -= 1;
        }
        self.ready.push_back(rest);
    }

    /// Makes a frame of the small pieces there are.
    fn flush(&mut self) {
        if !self.small.is_empty() {
            let frame = self.small.split().freeze();
            self.ready.push_back(frame);
        }
    }

    /// What comes after the last message.
    fn trailers(status: Status) -> http::HeaderMap {
        let mut trailers = http::HeaderMap::new();
        // It fails for messages that are no text, which percent-encoding makes of any.
        let _ = status.add_header(&mut trailers);
        trailers
    }
}

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            if let Some(end) = self.end.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(Self::trailers(end)))));
            }
            let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
            match rows.poll_next_unpin(context) {
                // What is there goes out while the next batch is being made.
                Poll::Pending if self.small.is_empty() => return Poll::Pending,
                Poll::Pending => self.flush(),
                Poll::Ready(Some(Ok(message))) => self.push(message),
                Poll::Ready(end) => {
                    self.rows = None;
                    self.flush();
                    self.end = Some(end.and_then(Result::err).unwrap_or_else(|| Status::new(Code::Ok, "")));
                }
            }
        }
    }
}

/// A buffer as `Bytes` wants its owners.
struct Owned(Buffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Bytes that a protobuf field of this length takes, whose tag has `tag` bytes; an empty one is left out.
fn field_bytes(tag: usize, length: usize) -> usize {
    match length {
        0 => 0,
        _ => tag + varint_bytes(length) + length,
    }
}

fn varint_bytes(mut number: usize) -> usize {
    let mut bytes = 1;
    while number >= 0x80 {
        number >>= 7;
        bytes += 1;
    }
    bytes
}

/// gRPC's prefix of a message of this length.
fn put_prefix(out: &mut BytesMut, length: usize) {
    out.put_u8(0);
    // Messages are cut far below this.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn put_varint(out: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        out.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_flight::{FlightData, PutResult};
    use futures::stream;
    use prost::Message as _;

    fn message(header: usize, body: &[usize]) -> Message {
        let bytes = |length: usize| (0..length).map(|index| (index % 251) as u8).collect::<Vec<_>>();
        let body = body.iter().map(|length| Buffer::from(bytes(*length))).collect();
        Message::new(bytes(header).into(), body)
    }

    async fn frames(messages: Vec<Result<Message, Status>>, sizes: Sizes) -> (Vec<Bytes>, http::HeaderMap) {
        read(Frames::new(stream::iter(messages).boxed(), sizes)).await
    }

    async fn read(mut body: Frames) -> (Vec<Bytes>, http::HeaderMap) {
        let (mut data, mut trailers) = (Vec::new(), http::HeaderMap::new());
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            match frame.expect("no transport error").into_data() {
                Ok(bytes) => data.push(bytes),
                Err(frame) => trailers = frame.into_trailers().expect("data or trailers"),
            }
        }
        (data, trailers)
    }

    #[tokio::test]
    async fn the_bytes_are_those_of_the_protocol() {
        let sizes: [(usize, &[usize]); 5] =
            [(0, &[]), (100, &[]), (300, &[1, 64, 127]), (8, &[4_096, 4_097]), (9, &[70_000, 8, 70_000])];
        let mut messages: Vec<Message> = sizes.iter().map(|(header, body)| message(*header, body)).collect();
        messages[2].metadata = Bytes::from_static(b"beside the rows");
        messages.push(Message { metadata: vec![7; 200].into(), ..message(0, &[]) });
        let mut expected = Vec::new();
        for message in &messages {
            let data = FlightData::from(message.clone()).encode_to_vec();
            expected.push(0);
            expected.extend(u32::try_from(data.len()).expect("small").to_be_bytes());
            expected.extend(data);
        }
        for (sizes, large) in [(Sizes::PLAIN, &[4_097, 70_000, 70_000][..]), (Sizes::TLS, &[35_000; 4])] {
            let (data, trailers) = frames(messages.iter().cloned().map(Ok).collect(), sizes).await;
            assert_eq!(data.concat().len(), expected.len());
            assert!(data.concat() == expected);
            assert_eq!(trailers.get("grpc-status").expect("a status"), "0");
            let as_they_lie: Vec<usize> = data.iter().map(Bytes::len).filter(|bytes| large.contains(bytes)).collect();
            assert_eq!(as_they_lie, large);
            assert!(data.iter().all(|frame| frame.len() <= sizes.frame_bytes_max));
        }
    }

    #[tokio::test]
    async fn an_answer_of_one_message_is_a_frame_and_its_trailers() {
        for length in [0, 16, 300] {
            let answer = PutResult { app_metadata: vec![7; length].into() };
            let (data, trailers) = read(Frames::of(&answer)).await;
            let mut expected = vec![0];
            expected.extend(u32::try_from(answer.encoded_len()).expect("small").to_be_bytes());
            expected.extend(answer.encode_to_vec());
            assert_eq!(data, [expected]);
            assert_eq!(trailers.get("grpc-status").expect("a status"), "0");
        }
    }

    #[tokio::test]
    async fn an_error_comes_after_the_rows_before_it() {
        let refused = Status::from(refuse("22012", "division by zero"));
        let (data, trailers) = frames(vec![Ok(message(8, &[8])), Err(refused)], Sizes::PLAIN).await;
        assert_eq!(data.len(), 1);
        assert_eq!(trailers.get("grpc-status").expect("a status"), "3");
        assert_eq!(trailers.get("x-sqlstate").expect("metadata"), "22012");
        assert!(trailers.get("content-type").is_none());
    }
}
