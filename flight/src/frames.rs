//! DoGet without copying rows: from Arrow buffers to HTTP/2 frames.
//!
//! tonic encodes a message by copying it into a buffer of its own, and arrow-flight makes one by copying its buffers
//! together: two copies of every row, a third of the processor time of a large result. This service, around the
//! generated one, answers DoGet itself. A message leaves as a few frames: its protobuf and Arrow headers with the small
//! buffers, and each large buffer as it lies in memory.
//!
//! ```text
//! gRPC    0, length (4 bytes)
//! FlightData   0x12, length, data_header      (field 2: the Arrow message's metadata)
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
use futures::StreamExt;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame};
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Request, Status};

use crate::status::{SQLSTATE, refuse};
use crate::stream::{FlightStream, Message};
use crate::wrapper::{GuardedService, blame};

const DO_GET: &str = "/arrow.flight.protocol.FlightService/DoGet";

/// Buffers smaller than this are copied together: a frame costs more than copying them.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// A frame of small buffers and messages is sent when it is this large.
const FRAME_BYTES_TARGET: usize = 32 << 10;
/// gRPC's prefix of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Answers DoGet; everything else goes to the service inside.
#[derive(Clone)]
pub(crate) struct FramedDoGet<S> {
    inner: S,
    service: Arc<GuardedService>,
    /// The largest ticket taken.
    message_bytes_max: usize,
}

impl<S> FramedDoGet<S> {
    pub(crate) fn new(inner: S, service: Arc<GuardedService>, message_bytes_max: usize) -> Self {
        Self { inner, service, message_bytes_max }
    }
}

impl<S> Service<http::Request<Body>> for FramedDoGet<S>
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
        if request.uri().path() != DO_GET {
            let response = self.inner.call(request);
            return Box::pin(async move { response.await.map(precise) });
        }
        let (service, bytes_max) = (Arc::clone(&self.service), self.message_bytes_max);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let rows = async {
                let ticket = read_ticket(body, bytes_max).await?;
                let metadata = MetadataMap::from_headers(parts.headers);
                service.fetch(Request::from_parts(metadata, parts.extensions, ticket)).await
            };
            Ok(match rows.await {
                Ok(rows) => {
                    let mut response = http::Response::new(Body::new(Frames::new(rows)));
                    let content_type = http::HeaderValue::from_static("application/grpc");
                    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
                    response
                }
                Err(status) => status.into_http(),
            })
        })
    }
}

impl<S: NamedService> NamedService for FramedDoGet<S> {
    const NAME: &'static str = S::NAME;
}

/// tonic refuses a message that is too long or no protobuf before anybody here sees it: its statuses get an SQLSTATE, too.
fn precise(response: http::Response<Body>) -> http::Response<Body> {
    let is_ours = response.headers().contains_key(SQLSTATE);
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok && !is_ours => blame(status).into_http(),
        _ => response,
    }
}

/// The one message of the request.
async fn read_ticket(mut body: Body, bytes_max: usize) -> Result<Ticket, Status> {
    let mut read = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if read.len() + data.len() > bytes_max + PREFIX_BYTES {
            return Err(refuse("54000", format!("the ticket has more than {bytes_max} bytes")).into());
        }
        read.extend_from_slice(&data);
    }
    let malformed = |reason: &str| Status::from(refuse("08P01", format!("malformed message: {reason}")));
    let Some((prefix, message)) = read.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(malformed("the request has no ticket"));
    };
    if prefix[0] != 0 {
        return Err(refuse("0A000", "compressed requests are not supported").into());
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if usize::try_from(length).ok() != Some(message.len()) {
        return Err(malformed("the ticket's length is another than was announced"));
    }
    Ticket::decode(message).map_err(|error| malformed(&error.to_string()))
}

/// The response's body.
struct Frames {
    rows: Option<FlightStream>,
    /// Complete frames, to be sent in order.
    ready: VecDeque<Bytes>,
    /// Small pieces on their way to becoming a frame.
    small: BytesMut,
    /// What the stream ended with, once it has.
    end: Option<Status>,
}

impl Frames {
    fn new(rows: FlightStream) -> Self {
        Self { rows: Some(rows), ready: VecDeque::new(), small: BytesMut::new(), end: None }
    }

    fn push(&mut self, message: Message) {
        let body: usize = message.body.iter().map(Buffer::len).sum();
        let fields = field_bytes(1, message.header.len()) + field_bytes(2, body);
        self.small.reserve(PREFIX_BYTES + fields - body);
        self.small.put_u8(0);
        // Messages are cut far below this.
        self.small.put_u32(u32::try_from(fields).unwrap_or(u32::MAX));
        if !message.header.is_empty() {
            self.small.put_u8(0x12);
            put_varint(&mut self.small, message.header.len());
            self.small.put_slice(&message.header);
        }
        if body > 0 {
            self.small.put_slice(&[0xc2, 0x3e]);
            put_varint(&mut self.small, body);
            for buffer in message.body {
                if buffer.len() <= COPIED_BYTES_MAX {
                    self.small.put_slice(&buffer);
                } else {
                    self.flush();
                    self.ready.push_back(Bytes::from_owner(Owned(buffer)));
                }
            }
        }
        if self.small.len() >= FRAME_BYTES_TARGET {
            self.flush();
        }
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
    use arrow_flight::FlightData;
    use futures::stream;

    fn message(header: usize, body: &[usize]) -> Message {
        let bytes = |length: usize| (0..length).map(|index| (index % 251) as u8).collect::<Vec<_>>();
        let body = body.iter().map(|length| Buffer::from(bytes(*length))).collect();
        Message { header: bytes(header).into(), body }
    }

    async fn frames(messages: Vec<Result<Message, Status>>) -> (Vec<Bytes>, http::HeaderMap) {
        let mut body = Frames::new(stream::iter(messages).boxed());
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
        let sizes: [(usize, &[usize]); 5] = [
            (0, &[]),
            (100, &[]),
            (300, &[1, 64, 127]),
            (8, &[COPIED_BYTES_MAX, COPIED_BYTES_MAX + 1]),
            (9, &[70_000, 8, 70_000]),
        ];
        let messages: Vec<Message> = sizes.iter().map(|(header, body)| message(*header, body)).collect();
        let mut expected = Vec::new();
        for message in &messages {
            let data = FlightData::from(message.clone()).encode_to_vec();
            expected.push(0);
            expected.extend(u32::try_from(data.len()).expect("small").to_be_bytes());
            expected.extend(data);
        }
        let (data, trailers) = frames(messages.into_iter().map(Ok).collect()).await;
        assert_eq!(data.concat().len(), expected.len());
        assert!(data.concat() == expected);
        assert_eq!(trailers.get("grpc-status").expect("a status"), "0");
        assert_eq!(data.iter().filter(|frame| [COPIED_BYTES_MAX + 1, 70_000].contains(&frame.len())).count(), 3);
    }

    #[tokio::test]
    async fn an_error_comes_after_the_rows_before_it() {
        let refused = Status::from(refuse("22012", "division by zero"));
        let (data, trailers) = frames(vec![Ok(message(8, &[8])), Err(refused)]).await;
        assert_eq!(data.len(), 1);
        assert_eq!(trailers.get("grpc-status").expect("a status"), "3");
        assert_eq!(trailers.get("x-sqlstate").expect("metadata"), "22012");
        assert!(trailers.get("content-type").is_none());
    }

    #[tokio::test]
    async fn tickets_are_read_as_they_are_sent() {
        let ticket = Ticket::new(vec![7; 300]);
        let encoded = ticket.encode_to_vec();
        let framed = |length: usize, flag: u8| {
            let mut bytes = vec![flag];
            bytes.extend(u32::try_from(length).expect("small").to_be_bytes());
            bytes.extend(&encoded);
            Body::new(http_body_of(bytes.into()))
        };
        assert_eq!(read_ticket(framed(encoded.len(), 0), 1_000).await.expect("a ticket"), ticket);
        for (body, bytes_max, sqlstate) in [
            (framed(encoded.len() + 1, 0), 1_000, "08P01"),
            (framed(encoded.len(), 1), 1_000, "0A000"),
            (framed(encoded.len(), 0), 100, "54000"),
            (Body::new(http_body_of(Bytes::new())), 100, "08P01"),
        ] {
            let status = read_ticket(body, bytes_max).await.expect_err("refused");
            assert!(status.message().starts_with(&format!("[{sqlstate}]")), "{status:?}");
        }
    }

    /// A body of one frame.
    fn http_body_of(bytes: Bytes) -> OneFrame {
        OneFrame(Some(bytes))
    }

    struct OneFrame(Option<Bytes>);

    impl HttpBody for OneFrame {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }
}
