//! Short answers in one write each.
//!
//! HTTP/2 frames an answer as headers, data and trailers. Our transport copies frames into a buffer and writes them together,
//! but a data frame of 256 bytes or more it hands over as it lies, by itself, and what follows in a write of its own: so an answer
//! of one row took two system calls, and woke the client twice. A writer that does not gather itself gets frames of up to
//! a kilobyte in the buffer. So this one says that it does not, and gathers after all: a short piece waits here for the next
//! one or for the flush, which the transport asks for before it waits for anything.
//!
//! ```text
//! headers + row + trailers                  ─▶ held ─ flush ─▶ one write
//! head of a long frame, rest of it as it lies ─▶ held ─ piece ─▶ one vectored write, the long piece not copied
//! ```
//!
//! Only where it is told to: what encrypts gathers by itself, and writes its last words (the alert that says why a handshake
//! failed) without a flush.
//!
//! Invariants: bytes leave in the order in which they came; after a successful flush or shutdown none is held.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest piece that waits: the transport's kilobyte, and the frames around it.
const HELD_BYTES_MAX: usize = 2048;

/// A writer that holds short pieces back until it is flushed.
pub(crate) struct Gather<S> {
    inner: S,
    gathers: bool,
    held: Vec<u8>,
}

impl<S> Gather<S> {
    pub(crate) fn new(inner: S, gathers: bool) -> Self {
        Self { inner, gathers, held: Vec::new() }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Writes what is held and then `piece`, once; how much of `piece` was written, which may be nothing.
    fn poll_write_held(&mut self, context: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        let pieces = [IoSlice::new(&self.held), IoSlice::new(piece)];
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, &pieces))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_held = written.min(self.held.len());
        self.held.drain(..of_held);
        Poll::Ready(Ok(written - of_held))
    }

    fn poll_empty(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            ready!(self.poll_write_held(context, &[]))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathers && self.held.len() + piece.len() <= HELD_BYTES_MAX {
            self.held.extend_from_slice(piece);
            return Poll::Ready(Ok(piece.len()));
        }
        while !self.held.is_empty() {
            let written = ready!(self.poll_write_held(context, piece))?;
            if written > 0 {
                return Poll::Ready(Ok(written));
            }
        }
        Pin::new(&mut self.inner).poll_write(context, piece)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.gathers {
            let piece = pieces.iter().find(|piece| !piece.is_empty()).map_or(&[][..], |piece| piece);
            return self.poll_write(context, piece);
        }
        Pin::new(&mut self.inner).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        !self.gathers && self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Takes as many bytes of a write as it is told to, or none for now.
    #[derive(Default)]
    struct Sink {
        takes: VecDeque<usize>,
        written: Vec<u8>,
        writes: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(piece)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let take = self.takes.pop_front().unwrap_or(usize::MAX);
            if take == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(take).collect();
            self.written.extend_from_slice(&bytes);
            self.writes += 1;
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn short_pieces_leave_together_and_a_long_one_takes_them_along() {
        let mut writer = Gather::new(Sink::default(), true);
        writer.write_all(b"headers").await.expect("written");
        writer.write_all(b"row").await.expect("written");
        assert_eq!(writer.get_ref().writes, 0);
        writer.flush().await.expect("flushed");
        assert_eq!((writer.get_ref().writes, writer.get_ref().written.as_slice()), (1, &b"headersrow"[..]));

        writer.write_all(b"head").await.expect("written");
        writer.write_all(&[7; 2 * HELD_BYTES_MAX]).await.expect("written");
        assert_eq!((writer.get_ref().writes, writer.get_ref().written.len()), (2, 14 + 2 * HELD_BYTES_MAX));
        writer.write_all(b"end").await.expect("written");
        writer.shutdown().await.expect("shut down");
        assert_eq!((writer.get_ref().writes, writer.get_ref().written.ends_with(b"\x07end")), (3, true));
    }

    #[tokio::test]
    async fn no_byte_is_lost_or_moved_however_little_a_write_takes() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let takes = (0..400).map(|_| [0, 1, 7, 100, 5_000][random.random_range(0..5)]).collect();
            let mut writer = Gather::new(Sink { takes, ..Sink::default() }, true);
            let mut sent = Vec::new();
            for _ in 0..30 {
                let length = [1, 9, 300, HELD_BYTES_MAX, HELD_BYTES_MAX + 1, 9_000][random.random_range(0..6)];
                let piece: Vec<u8> = (0..length).map(|_| random.random()).collect();
                writer.write_all(&piece).await.expect("written");
                sent.extend_from_slice(&piece);
                if random.random_bool(0.3) {
                    writer.flush().await.expect("flushed");
                    assert!(writer.get_ref().written == sent, "seed {seed}: a flush left something");
                }
            }
            writer.flush().await.expect("flushed");
            assert!(writer.get_ref().written == sent, "seed {seed}");
        }
    }

    #[tokio::test]
    async fn nothing_is_held_where_it_is_not_to_gather() {
        let mut writer = Gather::new(Sink::default(), false);
        writer.write_all(b"alert").await.expect("written");
        assert_eq!(writer.get_ref().written, b"alert");
    }

    #[tokio::test]
    async fn a_writer_that_takes_nothing_is_an_error() {
        let mut full = Gather::new(io::Cursor::new(vec![0; 2].into_boxed_slice()), true);
        full.write_all(b"four").await.expect("held");
        assert_eq!(full.flush().await.map_err(|error| error.kind()), Err(io::ErrorKind::WriteZero));
    }
}
