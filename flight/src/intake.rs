//! Messages of requests as gRPC frames them, put together from the pieces they come in; the memory that takes is counted
//! for the whole server.
//!
//! ```text
//! 0, length (4 bytes), protobuf
//! ```
//!
//! A client may send the beginning of a message and no more. Over all requests of all connections that would be more than
//! any machine has, so what is here of messages that have begun has a limit, `flight.message_size_total`: who finds no room
//! waits for it, and reads no further meanwhile, which holds the client back; who waits too long is refused with 53200.
//!
//! ```text
//! piece ─┬─ has all of a message ─▶ the message, as it lies in the piece: counts nothing
//!        └─ has a part ─▶ begun, counted ─ the rest comes ─▶ the message, no longer counted
//!                            └─ no room ─▶ waits ─┬─ room ─▶ goes on
//!                                                 ├─ its turn ─▶ goes on, counts nothing
//!                                                 └─ neither comes ─▶ 53200
//! ```
//!
//! Many messages that have begun, and all need more, would wait for each other. So the room of one message of any length is
//! kept free for whose turn it is, one after the other.
//!
//! Who calls is known before the message of some calls is read, and of others only afterwards. The latter have a limit of
//! their own: nobody who cannot log in takes the room of those who can.
//!
//! Invariants: what a prefix claims takes no memory; there is room for at most twice what has come. What a request has of
//! the limit, and its turn, it gives back with the message, and with its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use crate::options::Limits;
use crate::status::refuse;

/// gRPC's prefix of a message: whether it is compressed, and its length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Room for a message that has begun: at least this, and then twice as much each time.
const ROOM_BYTES_MIN: usize = 1 << 10;

/// How long a message waits for room.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// Of the limit, what those have besides of whom nobody knows yet who they are: one in so many parts.
const STRANGERS_PART: usize = 4;

/// What all requests share that are read.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    message_bytes_max: usize,
    /// How long nothing may come of a message that has begun.
    idle_max: Duration,
    /// How long a message waits for room.
    patience: Duration,
    /// One permit per KiB of messages that have begun.
    begun_kib: Arc<Semaphore>,
    /// One permit: who has it counts nothing.
    turn: Arc<Semaphore>,
}

impl Intake {
    /// For requests whose callers are known before they are read.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self::with_room(limits, limits.message_bytes_total)
    }

    /// For the others.
    pub(crate) fn of_strangers(limits: &Limits) -> Self {
        Self::with_room(limits, limits.message_bytes_total / STRANGERS_PART)
    }

    fn with_room(limits: &Limits, bytes: usize) -> Self {
        // What whose turn it is may need: one message of any length that is allowed finds room, whatever is set.
        let longest = limits.message_bytes.saturating_add(PREFIX_BYTES);
        let kib = bytes.saturating_sub(longest) / 1024;
        Self {
            message_bytes_max: limits.message_bytes,
            idle_max: limits.transfer_idle,
            // Well before what it waits for is given up, and the next one waits for that.
            patience: (limits.transfer_idle / 4).min(PATIENCE_MAX),
            begun_kib: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// The same for shorter messages.
    pub(crate) fn up_to(self, message_bytes_max: usize) -> Self {
        Self { message_bytes_max: self.message_bytes_max.min(message_bytes_max), ..self }
    }

    /// Waits for so much more room. Nothing is left of it when it is dropped.
    fn wait_for_room(&self, more_kib: u32) -> Waiting {
        let (begun_kib, turn) = (Arc::clone(&self.begun_kib), Arc::clone(&self.turn));
        let patience = self.patience;
        Box::pin(async move {
            tokio::select! {
                biased;
                room = begun_kib.acquire_many_owned(more_kib) => room.ok().map(Share::Room),
                turn = turn.acquire_owned() => turn.ok().map(Share::Turn),
                () = tokio::time::sleep(patience) => None,
            }
        })
    }

    /// The length of the message that begins here, prefix and all; `None`: not all of its prefix has come.
    fn length_of(&self, begun: &[u8]) -> Result<Option<usize>, Status> {
        let Some(prefix) = begun.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(refuse("0A000", "compressed requests are not supported").into());
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if length > self.message_bytes_max {
            let message = format!("a message has {length} bytes; the limit is {}", self.message_bytes_max);
            return Err(refuse("54000", message).hint("send less at a time").into());
        }
        Ok(Some(PREFIX_BYTES + length))
    }
}

/// What a message that has begun needs to go on.
enum Share {
    Room(OwnedSemaphorePermit),
    Turn(OwnedSemaphorePermit),
}

/// `None`: neither has come.
type Waiting = Pin<Box<dyn Future<Output = Option<Share>> + Send>>;

/// The messages of a request. As a body it has the same bytes, a message at a time.
pub(crate) struct Assembly {
    intake: Intake,
    /// `None` once it has ended.
    body: Option<Body>,
    /// What came last, as far as it has not been read.
    piece: Bytes,
    /// A message whose end is not here yet.
    begun: Vec<u8>,
    /// What it has of the limit, or its turn.
    counted: Option<OwnedSemaphorePermit>,
    has_turn: bool,
    /// While there is no room for the next piece of it.
    waiting: Option<Waiting>,
    /// Until when more must come.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the next message must begin by then, too.
    is_hurried: bool,
}

impl Assembly {
    pub(crate) fn new(body: Body, intake: Intake) -> Self {
        Self {
            intake,
            body: Some(body),
            piece: Bytes::new(),
            begun: Vec::new(),
            counted: None,
            has_turn: false,
            waiting: None,
            deadline: None,
            is_hurried: false,
        }
    }

    /// The same, but the next message must not keep it waiting either.
    ///
    /// A client that is stopped in the middle of a request may keep its connection, and answer pings: whatever the request
    /// holds, such as locks, must not wait for it for ever.
    pub(crate) fn hurried(self) -> Self {
        Self { is_hurried: true, ..self }
    }

    /// The next message, prefix and all. It ends with its first error.
    pub(crate) fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        let next = ready!(self.poll_whole(context));
        if !matches!(next, Ok(Some(_))) {
            self.end();
        }
        Poll::Ready(next)
    }

    /// Nothing more is wanted.
    pub(crate) fn end(&mut self) {
        self.body = None;
        self.piece = Bytes::new();
        self.take_begun();
    }

    fn poll_whole(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = ready!(self.poll_cut(context))? {
                return Poll::Ready(Ok(Some(message)));
            }
            let frame = match &mut self.body {
                Some(body) => Pin::new(body).poll_frame(context),
                None => Poll::Ready(None),
            };
            match frame {
                Poll::Pending if self.begun.is_empty() && !self.is_hurried => return Poll::Pending,
                Poll::Pending => {
                    let idle_max = self.intake.idle_max;
                    let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_max)));
                    ready!(deadline.as_mut().poll(context));
                    return Poll::Ready(Err(too_late()));
                }
                // What is no data are trailers, which say nothing in a request.
                Poll::Ready(Some(frame)) => {
                    if let Ok(data) = frame?.into_data() {
                        if !data.is_empty() {
                            self.deadline = None;
                        }
                        self.piece = data;
                    }
                }
                Poll::Ready(None) if self.begun.is_empty() => return Poll::Ready(Ok(None)),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(malformed("the last message is shorter than was announced")));
                }
            }
        }
    }

    /// The next message, if all of it is here; else the piece has been read.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            let here: &[u8] = if self.begun.is_empty() { &self.piece } else { &self.begun };
            let length = self.intake.length_of(here)?;
            match length {
                Some(length) if self.begun.len() == length => return Poll::Ready(Ok(Some(self.take_begun().into()))),
                Some(length) if self.begun.is_empty() && self.piece.len() >= length => {
                    return Poll::Ready(Ok(Some(self.piece.split_to(length))));
                }
                _ if self.piece.is_empty() => return Poll::Ready(Ok(None)),
                _ => {}
            }
            let missing = length.unwrap_or(PREFIX_BYTES) - self.begun.len();
            let more = missing.min(self.piece.len());
            ready!(self.poll_room(more, length, context))?;
            let part = self.piece.split_to(more);
            self.begun.extend_from_slice(&part);
        }
    }

    /// Makes room for more of the message that has begun, whose length is this as far as it is known.
    fn poll_room(&mut self, more: usize, length: Option<usize>, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let needed = self.begun.len() + more;
        if needed <= self.begun.capacity() {
            return Poll::Ready(Ok(()));
        }
        let room = (2 * needed).max(ROOM_BYTES_MIN).min(length.unwrap_or(usize::MAX));
        if !self.has_turn {
            let counted_kib = self.counted.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more_kib = u32::try_from(room.div_ceil(1024).saturating_sub(counted_kib)).unwrap_or(u32::MAX);
            let intake = &self.intake;
            let waiting = self.waiting.get_or_insert_with(|| intake.wait_for_room(more_kib));
            let share = ready!(waiting.as_mut().poll(context));
            self.waiting = None;
            match share {
                None => return Poll::Ready(Err(no_room())),
                Some(Share::Room(permit)) => match &mut self.counted {
                    Some(counted) => counted.merge(permit),
                    None => self.counted = Some(permit),
                },
                // What it has had is for the others.
                Some(Share::Turn(permit)) => (self.counted, self.has_turn) = (Some(permit), true),
            }
        }
        self.begun.reserve_exact(room - self.begun.len());
        Poll::Ready(Ok(()))
    }

    fn take_begun(&mut self) -> Vec<u8> {
        (self.counted, self.has_turn, self.waiting, self.deadline) = (None, false, None, None);
        std::mem::take(&mut self.begun)
    }
}

impl HttpBody for Assembly {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let message = ready!(self.poll_message(context));
        Poll::Ready(message.transpose().map(|message| message.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let is_over = self.body.as_ref().is_none_or(HttpBody::is_end_stream);
        is_over && self.piece.is_empty() && self.begun.is_empty()
    }
}

pub(crate) fn malformed(reason: &str) -> Status {
    refuse("08P01", format!("malformed message: {reason}")).into()
}

/// Nothing has come for a while.
fn too_late() -> Status {
    let message =
        "the request was cancelled by a timeout: nothing more came of it for longer than flight.transfer_idle";
    refuse("57014", message).hint("send it again, without pauses").into()
}

fn no_room() -> Status {
    refuse("53200", "the messages that clients have begun to send take too much memory")
        .hint("send less at a time, try again later, or raise flight.message_size_total")
        .into()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::FutureExt;
    use tokio::time::Interval;

    use super::*;

    const KIB: usize = 1 << 10;

    /// Pieces, after which nothing comes; an empty one stands for a pause.
    struct Unended(VecDeque<Vec<u8>>);

    impl HttpBody for Unended {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                Some(piece) if piece.is_empty() => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
                None => Poll::Pending,
            }
        }
    }

    /// A byte at a time.
    struct Slow(Interval, VecDeque<u8>);

    impl HttpBody for Slow {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            ready!(self.0.poll_tick(context));
            Poll::Ready(self.1.pop_front().map(|byte| Ok(Frame::data(vec![byte].into()))))
        }
    }

    /// Messages of up to a MiB, and room for `kib` of those that have begun.
    fn intake(kib: usize) -> Intake {
        Intake {
            message_bytes_max: 1024 * KIB,
            idle_max: Duration::from_secs(60),
            patience: Duration::from_millis(20),
            begun_kib: Arc::new(Semaphore::new(kib)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// The same while it is another one's turn.
    fn busy_intake(kib: usize) -> Intake {
        Intake { turn: Arc::new(Semaphore::new(0)), ..intake(kib) }
    }

    /// The beginning of a message.
    fn begun(claimed: usize, here: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(claimed).expect("small").to_be_bytes());
        bytes.resize(PREFIX_BYTES + here, 7);
        bytes
    }

    fn assembly(intake: &Intake, pieces: impl IntoIterator<Item = Vec<u8>>) -> Assembly {
        Assembly::new(Body::new(Unended(pieces.into_iter().collect())), intake.clone())
    }

    /// What it has for now; `None`: it waits for more.
    fn next(assembly: &mut Assembly) -> Option<Result<Option<Bytes>, Status>> {
        std::future::poll_fn(|context| assembly.poll_message(context)).now_or_never()
    }

    fn left(intake: &Intake) -> usize {
        intake.begun_kib.available_permits()
    }

    #[tokio::test]
    async fn what_is_here_counts_and_not_what_is_claimed() {
        let intake = intake(1024);
        let mut waiting = assembly(&intake, [begun(1000 * KIB, 10)]);
        assert!(next(&mut waiting).is_none());
        assert_eq!((left(&intake), waiting.begun.capacity()), (1023, KIB));
        let mut grown = assembly(&intake, [begun(1000 * KIB, 10), vec![7; 9 * KIB], vec![7; 90 * KIB]]);
        assert!(next(&mut grown).is_none());
        assert!(grown.begun.capacity() <= 2 * grown.begun.len(), "{}", grown.begun.capacity());
        assert_eq!(left(&intake), 1023 - grown.begun.capacity().div_ceil(KIB));
        drop(grown);
        assert_eq!(left(&intake), 1023);
        waiting.end();
        assert_eq!(left(&intake), 1024);
    }

    #[tokio::test]
    async fn a_message_that_is_here_counts_no_longer_and_one_in_a_piece_never() {
        let intake = intake(8);
        let two = [begun(10, 10), begun(20, 20)].concat();
        let mut whole = assembly(&intake, [two, begun(500 * KIB, 500 * KIB)]);
        for length in [10, 20, 500 * KIB] {
            let message = next(&mut whole).expect("it is here").expect("no error").expect("a message");
            assert_eq!((message.len(), left(&intake)), (PREFIX_BYTES + length, 8));
        }
        let mut cut = assembly(&intake, [begun(7 * KIB, 4 * KIB), vec![7; 3 * KIB], begun(3, 1)]);
        let message = next(&mut cut).expect("it is here").expect("no error").expect("a message");
        assert_eq!((message.as_ref(), left(&intake)), (begun(7 * KIB, 7 * KIB).as_slice(), 8));
        assert!(next(&mut cut).is_none());
        assert_eq!(left(&intake), 7);
    }

    #[tokio::test]
    async fn who_finds_no_room_for_long_is_refused_and_gives_back_what_it_has() {
        let intake = busy_intake(100);
        let mut first = assembly(&intake, [begun(1000 * KIB, 30 * KIB)]);
        assert!(next(&mut first).is_none());
        assert_eq!(left(&intake), 39);
        let mut second = assembly(&intake, [begun(1000 * KIB, 10 * KIB), vec![7; 20 * KIB]]);
        assert!(next(&mut second).is_none(), "it waits");
        let refused = std::future::poll_fn(|context| second.poll_message(context)).await.expect_err("no room");
        assert!(refused.message().starts_with("[53200]"), "{refused:?}");
        assert_eq!(left(&intake), 39);
        assert!(matches!(next(&mut second), Some(Ok(None))), "it has ended");
        let mut small = assembly(&intake, [begun(10, 10), begun(20 * KIB, 10 * KIB)]);
        assert!(next(&mut small).expect("it is here").is_ok());
        assert!(next(&mut small).is_none(), "there is room for others");
    }

    #[tokio::test]
    async fn who_waits_for_room_goes_on_as_soon_as_there_is_some() {
        let intake = Intake { patience: Duration::from_secs(60), ..busy_intake(100) };
        let mut first = assembly(&intake, [begun(1000 * KIB, 30 * KIB)]);
        assert!(next(&mut first).is_none());
        let mut second = assembly(&intake, [begun(60 * KIB, 40 * KIB), vec![7; 20 * KIB]]);
        let waiting = tokio::spawn(async move {
            let message = std::future::poll_fn(|context| second.poll_message(context)).await;
            message.expect("there is room").expect("a message").len()
        });
        let mut gone = assembly(&intake, [begun(1000 * KIB, 40 * KIB)]);
        tokio::task::yield_now().await;
        assert!(next(&mut gone).is_none());
        drop(gone);
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.expect("no panic"), PREFIX_BYTES + 60 * KIB);
        assert_eq!(left(&intake), 100);
    }

    #[tokio::test]
    async fn who_all_need_more_take_turns() {
        let intake = Intake { patience: Duration::from_secs(60), ..intake(64) };
        let loads = (0..32).map(|_| {
            // With pauses, so that all have begun before one is complete.
            let pieces = (0..499).flat_map(|_| [vec![], vec![7; KIB]]);
            let mut load = assembly(&intake, std::iter::once(begun(500 * KIB, KIB)).chain(pieces));
            tokio::spawn(async move {
                let message = std::future::poll_fn(|context| load.poll_message(context)).await;
                message.expect("there is room").expect("a message").len()
            })
        });
        for load in loads.collect::<Vec<_>>() {
            assert_eq!(load.await.expect("no panic"), PREFIX_BYTES + 500 * KIB);
        }
        assert_eq!((left(&intake), intake.turn.available_permits()), (64, 1));
    }

    #[tokio::test]
    async fn a_message_does_not_take_for_ever() {
        let mut intake = intake(100);
        intake.idle_max = Duration::from_millis(20);
        let mut silent = assembly(&intake, [begun(10, 10)]);
        assert!(next(&mut silent).expect("it is here").is_ok());
        tokio::time::sleep(intake.idle_max * 2).await;
        assert!(next(&mut silent).is_none(), "nothing has begun");
        let mut stuck = assembly(&intake, [begun(10, 9)]);
        let late = std::future::poll_fn(|context| stuck.poll_message(context)).await.expect_err("too late");
        assert!(late.message().starts_with("[57014]"), "{late:?}");
        assert_eq!(left(&intake), 100);
        let mut hurried = assembly(&intake, [begun(10, 10)]).hurried();
        assert!(next(&mut hurried).expect("it is here").is_ok());
        assert!(next(&mut hurried).is_none());
        let late = std::future::poll_fn(|context| hurried.poll_message(context)).await.expect_err("too late");
        assert!(late.message().starts_with("[57014]"), "{late:?}");
    }

    #[tokio::test]
    async fn a_message_that_goes_on_coming_may_take_longer() {
        let mut intake = intake(100);
        intake.idle_max = Duration::from_millis(80);
        let ticks = tokio::time::interval(Duration::from_millis(20));
        let mut slow = Assembly::new(Body::new(Slow(ticks, begun(10, 10).into())), intake);
        let message = std::future::poll_fn(|context| slow.poll_message(context)).await;
        assert_eq!(message.expect("in time").expect("a message").len(), PREFIX_BYTES + 10);
    }

    #[test]
    fn one_message_of_the_greatest_length_finds_room_whatever_is_set() {
        for (total, kib, strangers_kib) in [(1, 0, 0), (64 * KIB, 0, 0), (100 * KIB, 35, 0), (400 * KIB, 335, 35)] {
            let limits = Limits { message_bytes: 64 * KIB, message_bytes_total: total, ..Limits::default() };
            for (intake, kib) in [(Intake::new(&limits), kib), (Intake::of_strangers(&limits), strangers_kib)] {
                assert_eq!((left(&intake), intake.turn.available_permits()), (kib, 1), "{total}");
                assert_eq!(intake.up_to(KIB).message_bytes_max, KIB);
            }
        }
        let without = Limits { message_bytes: 1, message_bytes_total: usize::MAX, ..Limits::default() };
        assert!(left(&Intake::new(&without)) <= Semaphore::MAX_PERMITS);
    }

    #[tokio::test]
    async fn a_message_of_the_greatest_length_waits_for_nothing_but_its_turn() {
        let intake = intake(0);
        let mut cut = assembly(&intake, [begun(1024 * KIB, 3), vec![7; 1024 * KIB - 3], begun(10, 1)]);
        let message = next(&mut cut).expect("it is here").expect("no error").expect("a message");
        assert_eq!((message.len(), intake.turn.available_permits()), (PREFIX_BYTES + 1024 * KIB, 1));
        assert!(next(&mut cut).is_none());
        assert_eq!(intake.turn.available_permits(), 0);
        drop(cut);
        assert_eq!(intake.turn.available_permits(), 1);
    }
}
