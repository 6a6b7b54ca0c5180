//! The messages of a request's body, for the calls that are answered without tonic's codec ([`crate::frames`]).

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::Stream;
use prost::Message;
use tonic::Status;
use tonic::body::Body;

use crate::intake::{Assembly, Intake, PREFIX_BYTES, malformed};

/// A stream of messages. It ends with its first error.
pub(crate) struct Requests<M> {
    assembly: Assembly,
    messages: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Requests<M> {
    pub(crate) fn new(body: Body, intake: Intake) -> Self {
        Self { assembly: Assembly::new(body, intake), messages: PhantomData }
    }

    /// The same, but it ends with an error if nothing more comes for too long.
    pub(crate) fn hurried(self) -> Self {
        Self { assembly: self.assembly.hurried(), ..self }
    }
}

fn decode<M: Message + Default>(mut message: Bytes) -> Result<M, Status> {
    message.advance(PREFIX_BYTES);
    M::decode(message).map_err(|error| malformed(&error.to_string()))
}

impl<M: Message + Default> Stream for Requests<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = ready!(self.assembly.poll_message(context))?;
        let decoded = message.map(decode);
        if matches!(decoded, Some(Err(_))) {
            self.assembly.end();
        }
        Poll::Ready(decoded)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use arrow_flight::Ticket;
    use futures::StreamExt;
    use http_body::{Body as HttpBody, Frame};

    use super::*;
    use crate::options::Limits;

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
        let limits = Limits { message_bytes: bytes_max, ..Limits::default() };
        Requests::new(Body::new(Pieces(pieces)), Intake::new(&limits)).collect().await
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
}
