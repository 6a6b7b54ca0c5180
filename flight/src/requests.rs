//! The messages of a request's body, as gRPC frames them:
//!
//! ```text
//! 0, length (4 bytes), protobuf
//! ```
//!
//! For the calls that are answered without tonic's codec ([`crate::frames`]). Messages are cut out of the pieces they come in;
//! one that comes in several is put together first.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http_body::Body as HttpBody;
use prost::Message;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use crate::status::refuse;

/// gRPC's prefix of a message: whether it is compressed, and its length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// A stream of messages.
pub(crate) struct Requests<M> {
    /// `None` once it has ended.
    body: Option<Body>,
    /// What has been read and belongs to no message so far: a piece as it came, or pieces put together. Not both.
    piece: Bytes,
    read: BytesMut,
    message_bytes_max: usize,
    messages: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Requests<M> {
    pub(crate) fn new(body: Body, message_bytes_max: usize) -> Self {
        Self { body: Some(body), piece: Bytes::new(), read: BytesMut::new(), message_bytes_max, messages: PhantomData }
    }

    /// The next message, if all of it has been read.
    fn take(&mut self) -> Result<Option<M>, Status> {
        let unread: &[u8] = if self.piece.is_empty() { &self.read } else { &self.piece };
        let (bytes, prefix) = (unread.len(), unread.first_chunk::<PREFIX_BYTES>());
        let Some(prefix) = prefix else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(refuse("0A000", "compressed requests are not supported").into());
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if length > self.message_bytes_max {
            let message = format!("a message has {length} bytes; the limit is {}", self.message_bytes_max);
            return Err(refuse("54000", message).hint("send less at a time").into());
        }
        if bytes < PREFIX_BYTES + length {
            self.read.reserve(PREFIX_BYTES + length - self.read.len());
            return Ok(None);
        }
        let mut message = match self.piece.is_empty() {
            true => self.read.split_to(PREFIX_BYTES + length).freeze(),
            false => self.piece.split_to(PREFIX_BYTES + length),
        };
        message.advance(PREFIX_BYTES);
        M::decode(message).map(Some).map_err(|error| malformed(&error.to_string()))
    }

    /// Notes what was read.
    fn push(&mut self, data: Bytes) {
        if self.piece.is_empty() && self.read.is_empty() {
            self.piece = data;
        } else {
            let begun = std::mem::take(&mut self.piece);
            self.read.extend_from_slice(&begun);
            self.read.extend_from_slice(&data);
        }
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<M>, Status>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            let frame = match &mut self.body {
                Some(body) => ready!(Pin::new(body).poll_frame(context)),
                None => None,
            };
            match frame {
                // What is no data are trailers, which say nothing in a request.
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.push(data);
                    }
                }
                None if self.piece.is_empty() && self.read.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(malformed("the last message is shorter than was announced"))),
            }
        }
    }
}

impl<M: Message + Default> Stream for Requests<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.poll_message(context));
        if !matches!(next, Ok(Some(_))) {
            // It ends with its first error.
            self.body = None;
            self.piece.clear();
            self.read.clear();
        }
        Poll::Ready(next.transpose())
    }
}

/// A stream of messages that ends with an error if the next one does not come in time.
///
/// A client that is stopped in the middle of a request may keep its connection, and answer pings: whatever the request holds,
/// such as locks, must not wait for it for ever.
pub(crate) struct InTime<S> {
    messages: S,
    idle_max: Duration,
    /// Until when the message that is waited for may come.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> InTime<S> {
    pub(crate) fn new(messages: S, idle_max: Duration) -> Self {
        Self { messages, idle_max, deadline: None }
    }
}

impl<M, S: Stream<Item = Result<M, Status>> + Unpin> Stream for InTime<S> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { messages, idle_max, deadline } = &mut *self;
        if let Poll::Ready(next) = messages.poll_next_unpin(context) {
            *deadline = None;
            return Poll::Ready(next);
        }
        let idle_max = *idle_max;
        ready!(deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_max))).as_mut().poll(context));
        let message =
            "the request was cancelled by a timeout: nothing more came of it for longer than flight.transfer_idle";
        Poll::Ready(Some(Err(refuse("57014", message).hint("send it again, without pauses").into())))
    }
}

fn malformed(reason: &str) -> Status {
    refuse("08P01", format!("malformed message: {reason}")).into()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use arrow_flight::Ticket;
    use futures::{FutureExt, stream};
    use http_body::Frame;
    use tonic::Code;

    use super::*;

    struct Pieces(VecDeque<Bytes>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn framed(ticket: &Ticket, longer: usize, flag: u8) -> Vec<u8> {
        let message = ticket.encode_to_vec();
        let mut bytes = vec![flag];
        bytes.extend(u32::try_from(message.len() + longer).expect("small").to_be_bytes());
        bytes.extend(message);
        bytes
    }

    async fn read(bytes: &[u8], piece_bytes: usize, bytes_max: usize) -> Vec<Result<Ticket, Status>> {
        let pieces = bytes.chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
        Requests::new(Body::new(Pieces(pieces)), bytes_max).collect().await
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let tickets = [Ticket::new(vec![7; 300]), Ticket::new(vec![]), Ticket::new(vec![8; 20])];
        let bytes: Vec<u8> = tickets.iter().flat_map(|ticket| framed(ticket, 0, 0)).collect();
        for piece_bytes in [1, 4, 5, 6, 300, 1_000] {
            let read: Vec<Ticket> = read(&bytes, piece_bytes, 1_000).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(read, tickets, "{piece_bytes}");
        }
        assert!(read(&[], 1, 1_000).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_stream_with_one_error() {
        let ticket = Ticket::new(vec![7; 300]);
        let undecodable = [0, 0, 0, 0, 2, 0xff, 0xff];
        for (bytes, bytes_max, sqlstate) in [
            (framed(&ticket, 1, 0), 1_000, "08P01"),
            (framed(&ticket, 0, 1), 1_000, "0A000"),
            (framed(&ticket, 0, 0), 100, "54000"),
            (vec![0, 0, 0], 100, "08P01"),
            (undecodable.to_vec(), 100, "08P01"),
        ] {
            let read = read(&bytes, 50, bytes_max).await;
            assert_eq!(read.len(), 1);
            let status = read[0].as_ref().expect_err("refused");
            assert!(status.message().starts_with(&format!("[{sqlstate}]")), "{status:?}");
        }
    }

    #[tokio::test]
    async fn a_message_that_does_not_come_is_an_error_after_a_while() {
        const SHORT: Duration = Duration::from_millis(20);
        let never = stream::iter([Ok(1)]).chain(stream::pending::<Result<i32, Status>>());
        let mut messages = InTime::new(never, SHORT);
        assert!(matches!(messages.next().await, Some(Ok(1))));
        assert!(messages.next().now_or_never().is_none());
        let status = messages.next().await.expect("an error").expect_err("too late");
        assert_eq!((status.code(), &status.message()[..7]), (Code::DeadlineExceeded, "[57014]"));

        let slow = stream::unfold(0_u32, |sent| async move {
            tokio::time::sleep(SHORT).await;
            (sent < 5).then_some((Ok::<_, Status>(sent), sent + 1))
        });
        let arrived: Vec<_> = InTime::new(slow.boxed(), SHORT * 4).collect().await;
        assert_eq!(arrived.into_iter().filter_map(Result::ok).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
