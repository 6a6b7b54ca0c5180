//! A thread that has answered a short request looks out for the next one for a moment before it sleeps.
//!
//! A program that sends one request after the other has its next one on the way some tens of microseconds after an
//! answer. A thread that sleeps by then has to be woken, and its core with it, which takes longer than all the work: of the 0.3 ms
//! of a prepared query by key, on an otherwise idle machine with two virtual cores, two thirds were four such awakenings, two of
//! them the server's. So the thread asks the socket for [`LINGER`] instead, as Seastar does (`idle-poll-time-us`, 200).
//!
//! Only where nobody is kept waiting by it: after an answer that is short, so that no result is under way, and for a connection
//! that has been the only one to say anything many times in a row. Between two questions the thread offers its core to others.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;

/// How long a thread looks out: about what a client takes to wake up, read, and ask again.
const LINGER: Duration = Duration::from_micros(150);

/// How often in a row a connection must have been the only one to be heard.
const ALONE_MIN: u32 = 16;

/// What is longer than the transport's own small talk, and no longer than a short answer.
const ANSWER_BYTES: std::ops::RangeInclusive<usize> = 32..=4096;

/// Who is talking to the server.
#[derive(Debug, Default)]
pub(crate) struct Talkers {
    connections: AtomicU64,
    /// Who was heard last, and how often in a row.
    last: AtomicU64,
    in_a_row: AtomicU32,
}

/// A connection among others.
pub(crate) struct Linger {
    talkers: Arc<Talkers>,
    number: u64,
    /// Bytes written since something was heard; `None`: an answer was given already.
    answer: Option<usize>,
}

impl Linger {
    pub(crate) fn new(talkers: &Arc<Talkers>) -> Self {
        let number = talkers.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { talkers: Arc::clone(talkers), number, answer: None }
    }

    /// The client has said something.
    pub(crate) fn heard(&mut self) {
        self.answer = Some(0);
        match self.talkers.last.swap(self.number, Ordering::Relaxed) == self.number {
            true => self.talkers.in_a_row.fetch_add(1, Ordering::Relaxed),
            false => self.talkers.in_a_row.swap(0, Ordering::Relaxed),
        };
    }

    /// Something was written for the client.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        if let Some(answer) = &mut self.answer {
            *answer += bytes;
        }
    }

    /// What was written is on its way: looks out for what the client says next, if that makes sense.
    pub(crate) fn answered(&mut self, socket: &TcpStream) {
        if self.expects_more() {
            look_out(socket, LINGER);
        }
    }

    fn expects_more(&mut self) -> bool {
        if self.answer.is_none_or(|answer| answer < *ANSWER_BYTES.start()) {
            return false;
        }
        let is_short = self.answer.take().is_some_and(|answer| ANSWER_BYTES.contains(&answer));
        is_short
            && self.talkers.last.load(Ordering::Relaxed) == self.number
            && self.talkers.in_a_row.load(Ordering::Relaxed) >= ALONE_MIN
    }
}

/// Waits for a socket without sleeping; whether there is something to read, which may be its end.
fn look_out(socket: &TcpStream, time: Duration) -> bool {
    let socket = SockRef::from(socket);
    let until = Instant::now() + time;
    loop {
        match socket.peek(&mut [MaybeUninit::uninit()]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return true,
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn answers(linger: &mut Linger, bytes: usize) -> bool {
        linger.heard();
        linger.wrote(bytes);
        linger.expects_more()
    }

    #[test]
    fn only_the_one_who_talks_alone_is_waited_for() {
        let talkers = Arc::default();
        let (mut one, mut other) = (Linger::new(&talkers), Linger::new(&talkers));
        let waited: Vec<bool> = (0..=ALONE_MIN + 1).map(|_| answers(&mut one, 100)).collect();
        assert_eq!(waited.iter().filter(|waited| **waited).count(), 2, "{waited:?}");
        assert!(!answers(&mut other, 100) && !answers(&mut one, 100), "they take turns");
    }

    #[test]
    fn only_a_short_answer_is_waited_after_and_only_once() {
        let talkers = Arc::default();
        let mut one = Linger::new(&talkers);
        (0..=ALONE_MIN).for_each(|_| one.heard());
        assert!(!answers(&mut one, 17), "a ping");
        one.wrote(100);
        assert!(one.expects_more(), "the answer after it");
        one.wrote(100);
        assert!(!one.expects_more(), "more of it");
        assert!(!answers(&mut one, 1 << 20), "a result");
    }

    #[tokio::test]
    async fn what_arrives_is_seen_and_stays_and_nothing_is_waited_for_in_vain() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut client, (mut server, _)) = (client.expect("connected"), accepted.expect("accepted"));
        assert!(!look_out(&server, Duration::from_micros(100)));
        client.write_all(b"next").await.expect("written");
        assert!(look_out(&server, Duration::from_secs(10)));
        let mut bytes = [0; 4];
        tokio::io::AsyncReadExt::read_exact(&mut server, &mut bytes).await.expect("read");
        assert_eq!(&bytes, b"next");
        drop(client);
        assert!(look_out(&server, Duration::from_secs(10)), "its end");
    }
}
