//! Calls whose clients wait for so long and no longer, as gRPC's header `grpc-timeout` says it.
//!
//! tonic ends them, too, but with `Cancelled` and no SQLSTATE, which is what a cancellation is answered with. A client whose own
//! clock is a little late (ADBC's is, more often than not) takes that for the answer before it gives up itself, and raises
//! the wrong error. So this service, around all others, is there first.
//!
//! Invariant: its clock starts before tonic's, and is asked first: there is one call of both.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use crate::status::refuse;

const TIMEOUT: &str = "grpc-timeout";
/// A longer number is none of the protocol's.
const DIGITS_MAX: usize = 8;

/// A service that answers within its clients' time.
#[derive(Clone)]
pub(crate) struct Deadlines<S>(pub(crate) S);

impl<S> Service<http::Request<Body>> for Deadlines<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let deadline = timeout(request.headers()).map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        Answer { answer: self.0.call(request), deadline }
    }
}

/// An answer that is waited for.
pub(crate) struct Answer<F> {
    answer: F,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<F, E> Future for Answer<F>
where
    F: Future<Output = Result<http::Response<Body>, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(context) {
            return Poll::Ready(answer);
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(context).map(|()| Ok(too_late().into_http())),
            None => Poll::Pending,
        }
    }
}

fn too_late() -> Status {
    let message = "the call was cancelled by a timeout: its client waits no longer";
    refuse("57014", message).hint("raise the client's timeout").into()
}

/// How long the client waits; `None` also if it says so in another form than the protocol's, which says nothing.
fn timeout(headers: &http::HeaderMap) -> Option<Duration> {
    let value = headers.get(TIMEOUT)?.to_str().ok()?;
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= DIGITS_MAX)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 60 * 60),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Pending, pending};

    use tonic::Code;

    use super::*;

    /// Never answers.
    struct Silent;

    impl Service<http::Request<Body>> for Silent {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = Pending<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            pending()
        }
    }

    fn headers(value: &'static str) -> http::HeaderMap {
        [(http::HeaderName::from_static(TIMEOUT), http::HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn times_are_read_as_the_protocol_writes_them() {
        for (value, expected) in [
            ("2H", Some(Duration::from_secs(7_200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5m", Some(Duration::from_millis(5))),
            ("6u", Some(Duration::from_micros(6))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("1s", None),
            ("100000000S", None),
        ] {
            assert_eq!(timeout(&headers(value)), expected, "{value}");
        }
        assert_eq!(timeout(&http::HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn what_takes_longer_than_its_client_waits_is_a_timeout() {
        let mut request = http::Request::new(Body::empty());
        *request.headers_mut() = headers("1m");
        let response = Deadlines(Silent).call(request).await.expect("an answer");
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().starts_with("[57014] "), "{status:?}");
    }
}
