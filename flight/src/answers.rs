//! What an exchange sends: the rows of one execution after the other, and where each of them ends.
//!
//! ```text
//! schema                               once, if the statement returns rows
//! rows, rows, rows + app_metadata      an execution
//! rows + app_metadata                  the next one
//! no rows + app_metadata               one that finds none
//! app_metadata                         one of a statement that returns no rows at all
//! ```
//!
//! `app_metadata` is the protocol's `DoPutUpdateResult`: the number of rows returned or changed.
//!
//! Invariants: a message that has it is the last one of an execution, and every execution has one. Where rows are
//! announced, every message is a batch, if an empty one: some decoders know no message without.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::record_batch::RecordBatch;
use arrow_flight::sql::DoPutUpdateResult;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use prost::Message as _;
use tonic::Status;

use crate::encoder::Encoder;
use crate::status::internal;
use crate::stream::{Compression, FlightStream, Message, contained};
use crate::wire::Announced;

/// A piece of an answer.
pub(crate) enum Piece {
    /// Rows.
    Rows(RecordBatch),
    /// The execution is over; `None`: count the rows.
    End(Option<u64>),
}

/// The messages of `pieces`; `announced` is the schema of their rows, if they are to have any.
pub(crate) fn answers(
    announced: Option<&Announced>,
    compression: Compression,
    pieces: impl Stream<Item = Result<Piece, Status>> + Send + 'static,
) -> Result<FlightStream, Status> {
    let encoder = announced.map(|announced| Encoder::new(announced, compression)).transpose()?;
    let first = announced.map(|announced| Message::new(announced.first(), Vec::new()));
    let answers = Answers { ready: first.into_iter().collect(), held: None, rows: 0, encoder, pieces: pieces.boxed() };
    Ok(answers.boxed())
}

struct Answers {
    ready: VecDeque<Message>,
    /// Rows that may be the last of their execution.
    held: Option<Message>,
    /// Rows of this execution so far.
    rows: u64,
    encoder: Option<Encoder>,
    pieces: BoxStream<'static, Result<Piece, Status>>,
}

impl Answers {
    /// Makes the next messages; `false`: there are no more.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Status>> {
        match self.pieces.poll_next_unpin(context) {
            Poll::Pending => match self.held.take() {
                // They must not wait for what comes next, which may take long.
                Some(held) => {
                    self.ready.push_back(held);
                    Poll::Ready(Ok(true))
                }
                None => Poll::Pending,
            },
            Poll::Ready(None) => Poll::Ready(Ok(false)),
            Poll::Ready(Some(piece)) => Poll::Ready(piece.and_then(|piece| self.take(piece)).map(|()| true)),
        }
    }

    fn take(&mut self, piece: Piece) -> Result<(), Status> {
        match piece {
            Piece::Rows(batch) => {
                let encoder = self.encoder.as_mut().ok_or_else(|| internal("rows that were not announced"))?;
                self.rows += batch.num_rows() as u64;
                self.ready.extend(self.held.take());
                encoder.encode(batch, &mut self.ready)?;
                self.held = self.ready.pop_back();
            }
            Piece::End(count) => {
                let counted = std::mem::take(&mut self.rows);
                let metadata = result(count.unwrap_or(counted));
                let last = match (self.held.take(), &mut self.encoder) {
                    (Some(held), _) => held,
                    (None, Some(encoder)) => encoder.encode_none()?,
                    (None, None) => Message::new(Bytes::new(), Vec::new()),
                };
                self.ready.push_back(Message { metadata, ..last });
            }
        }
        Ok(())
    }
}

/// A result in its protobuf form, which is never empty: 0 is written out.
fn result(count: u64) -> Bytes {
    match i64::try_from(count).unwrap_or(i64::MAX) {
        0 => Bytes::from_static(&[0x08, 0x00]),
        record_count => DoPutUpdateResult { record_count }.encode_to_vec().into(),
    }
}

impl Stream for Answers {
    type Item = Result<Message, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            match contained(|| self.poll_piece(context)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(None),
                Poll::Ready(Err(status)) => {
                    self.pieces = futures::stream::empty().boxed();
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use futures::stream;

    use super::*;
    use crate::status::refuse;

    fn rows(count: i64) -> Result<Piece, Status> {
        let column: ArrayRef = Arc::new((0..count).collect::<Int64Array>());
        Ok(Piece::Rows(RecordBatch::try_from_iter([("n", column)]).expect("a batch")))
    }

    fn announced() -> Arc<Announced> {
        Announced::new(&Schema::new(vec![Field::new("n", DataType::Int64, false)])).expect("it has an IPC form")
    }

    /// Of each message, whether it has rows or a schema, and the count it ends an execution with.
    async fn sent(pieces: impl Stream<Item = Result<Piece, Status>> + Send + 'static) -> Vec<(bool, Option<i64>)> {
        let mut messages = answers(Some(&announced()), None, pieces).expect("an encoder");
        let mut sent = Vec::new();
        while let Some(Ok(message)) = messages.next().await {
            let count = DoPutUpdateResult::decode(message.metadata.clone()).expect("it decodes").record_count;
            sent.push((!message.header.is_empty(), (!message.metadata.is_empty()).then_some(count)));
        }
        sent
    }

    #[tokio::test]
    async fn the_last_message_of_each_execution_says_so() {
        let pieces = [rows(2), Ok(Piece::End(None)), Ok(Piece::End(None)), rows(1), rows(3), Ok(Piece::End(None))];
        let expected = [(true, None), (true, Some(2)), (true, Some(0)), (true, None), (true, Some(4))];
        assert_eq!(sent(stream::iter(pieces)).await, expected);
        let mut changes =
            answers(None, None, stream::iter([Ok(Piece::End(Some(0))), Ok(Piece::End(Some(7)))])).expect("ok");
        for expected in [0, 7] {
            let message = changes.next().await.expect("a message").expect("no error");
            assert!(message.header.is_empty() && !message.metadata.is_empty());
            assert_eq!(DoPutUpdateResult::decode(message.metadata).expect("it decodes").record_count, expected);
        }
    }

    #[tokio::test]
    async fn rows_do_not_wait_for_the_end() {
        let pieces = stream::iter([rows(2)]).chain(stream::once(async {
            tokio::task::yield_now().await;
            Ok(Piece::End(None))
        }));
        assert_eq!(sent(pieces).await, [(true, None), (true, None), (true, Some(2))]);
    }

    #[tokio::test]
    async fn an_error_is_the_end() {
        let pieces = [rows(2), Err(refuse("22012", "division by zero").into()), rows(1)];
        let mut messages = answers(Some(&announced()), None, stream::iter(pieces)).expect("an encoder");
        assert!(messages.next().await.expect("the schema").is_ok());
        assert!(messages.next().await.expect("the error").is_err());
        assert!(messages.next().await.is_none());
    }
}
