//! Request bodies that end only if the client ended them.
//!
//! tonic turns a cancelled request stream into one that is complete: a client that breaks off in the middle of a bulk
//! ingest (its process is interrupted, its deadline passes) looks like one that has sent everything, and the rows so
//! far would be committed. HTTP/2 does tell the two apart, so this service, around the generated one, does too.
//!
//! Invariant: a stream of request messages ends without error only after END_STREAM.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};

use crate::status::refuse;

/// A service whose requests are intact or fail.
#[derive(Clone)]
pub(crate) struct IntactRequests<S>(pub(crate) S);

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for IntactRequests<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request.map(|body| Body::new(IntactBody(body))))
    }
}

struct IntactBody<B>(B);

impl<B: HttpBody<Data = Bytes, Error = Status> + Unpin> HttpBody for IntactBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(context));
        let broken_off = match &frame {
            Some(Ok(_)) => false,
            // The one code that tonic takes for the end of the stream.
            Some(Err(status)) => status.code() == Code::Cancelled,
            None => !self.0.is_end_stream(),
        };
        Poll::Ready(match broken_off {
            true => Some(Err(refuse("08006", "the client broke off its request").into())),
            false => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Frames, and whether END_STREAM comes after them.
    struct Scripted(VecDeque<Result<Bytes, Status>>, bool);

    impl HttpBody for Scripted {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|frame| frame.map(Frame::data)))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty() && self.1
        }
    }

    async fn read(frames: Vec<Result<Bytes, Status>>, ended: bool) -> Result<usize, Status> {
        let mut body = IntactBody(Scripted(frames.into(), ended));
        let mut count = 0;
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            frame?;
            count += 1;
        }
        Ok(count)
    }

    #[tokio::test]
    async fn only_end_stream_is_an_end() {
        let data = || Ok(Bytes::from_static(b"x"));
        assert_eq!(read(vec![data(), data()], true).await.expect("complete"), 2);
        let reset = read(vec![data()], false).await.expect_err("no END_STREAM");
        assert_eq!(reset.code(), Code::Unavailable);
        let cancelled = read(vec![data(), Err(Status::cancelled("reset"))], false).await.expect_err("cancelled");
        assert_eq!(cancelled.code(), Code::Unavailable);
        let other = read(vec![Err(Status::internal("frame"))], false).await.expect_err("an error stays one");
        assert_eq!(other.code(), Code::Internal);
    }
}
