//! One result over several endpoints, for clients that fetch them at the same time.
//!
//! ```text
//! GetFlightInfo, x-rustydb-endpoints: 3 ──> three tickets, one statement
//! DoGet(first)  ──> batch 1, batch 4, …  ┐
//! DoGet(second) ──> batch 2, batch 3, …  ├─ whoever is ready takes the next batch
//! DoGet(third)  ──> batch 5, …           ┘
//! ```
//!
//! What is gained is that converting and encoding, and the client's decoding, happen in as many tasks as there are
//! endpoints. The statement starts with the first DoGet. A client that fetches only some of the endpoints, or one after
//! the other, gets all rows as well: those nobody else takes.
//!
//! An endpoint whose client does not read is not asked for its next batch, for as long as the client likes: drivers that
//! give out one endpoint after the other (ADBC's) let the others fill their windows and stand. So an endpoint that waits
//! owns nothing, neither a lock nor the one place where the engine says that there is a batch.
//!
//! Invariants: the statement runs once, and each row is sent once. Whoever is asked for a batch gets the next one, whatever
//! the others do. A result with an order has one endpoint. When no endpoint is being fetched and no ticket is left, the
//! work stops.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use arrow::record_batch::RecordBatch;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use futures::task::AtomicWaker;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use prost::Message;
use tonic::Status;

use super::SqlService;
use super::execution::{Begun, Job, ticket_info};
use crate::auth::Caller;
use crate::first_word::first_word;
use crate::handles::Handle;
use crate::running::Batches;
use crate::status::{internal, refuse};
use crate::stream::{FlightStream, contained};

/// One of the endpoints that share a result.
#[derive(Clone)]
pub(super) struct Part {
    job: Arc<Job>,
    /// Held by the endpoint that begins the statement.
    turn: Arc<tokio::sync::Mutex<()>>,
    rows: Arc<SharedRows>,
    number: usize,
}

/// What the endpoints take batches from.
struct SharedRows {
    state: Mutex<State>,
    waiting: Arc<Waiting>,
}

enum State {
    Waiting,
    /// Left behind by an endpoint whose client went away while the statement began.
    Beginning,
    Running(Batches),
    /// All rows are sent, or there will be none for this reason.
    Over(Option<Status>),
}

/// The endpoints that wait for a batch, each in its own place.
struct Waiting(Vec<AtomicWaker>);

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.iter().for_each(AtomicWaker::wake);
    }
}

impl SqlService {
    /// Hands out as many tickets as the caller asked for, if the rows may come in any order; else gives the job back.
    pub(super) fn hand_out_tickets(
        &self,
        caller: &Caller,
        descriptor: &FlightDescriptor,
        job: Job,
    ) -> Result<Result<FlightInfo, Job>, Status> {
        if caller.endpoints <= 1 || job.schema.is_none() || may_have_order(job.plan.prepared.sql()) {
            return Ok(Err(job));
        }
        let (home, plan, schema) = (job.home.clone(), Arc::clone(&job.plan), job.schema.clone());
        let (job, turn, rows) = (Arc::new(job), Arc::default(), Arc::new(SharedRows::new(caller.endpoints)));
        let mut handles = Vec::with_capacity(caller.endpoints);
        for number in 0..caller.endpoints {
            let mut part = Job::new(home.clone(), Arc::clone(&plan));
            part.schema.clone_from(&schema);
            let (job, turn, rows) = (Arc::clone(&job), Arc::clone(&turn), Arc::clone(&rows));
            part.shared = Some(Part { job, turn, rows, number });
            handles.push(self.tickets.insert(&caller.principal, part)?);
        }
        let first = handles.first().ok_or_else(|| internal("no endpoints"))?;
        let mut info = ticket_info(descriptor, *first, schema.as_ref());
        info.endpoint.extend(handles[1..].iter().map(|handle| endpoint(*handle)));
        Ok(Ok(info))
    }

    /// Sends what one endpoint gets of a shared result.
    pub(super) async fn fetch_part(&self, caller: &Caller, handle: Handle, part: Part) -> Result<FlightStream, Status> {
        let running =
            self.running.register_standing(&caller.principal, handle).ok_or_else(|| self.tickets.unknown())?;
        let job = self.tickets.take(&caller.principal, handle)?;
        running.unless_cancelled(self.begin_shared(caller, &part)).await?;
        let rows = running.stream(part.into_rows().boxed());
        Ok(Begun::Rows(rows.boxed()).encode(job.schema.as_ref(), caller.compression))
    }

    /// Executes the statement, unless another endpoint has done so.
    async fn begin_shared(&self, caller: &Caller, part: &Part) -> Result<(), Status> {
        let _turn = part.turn.lock().await;
        let running = self.running.register_unlisted(&caller.principal)?;
        if !part.rows.is_to_begin() {
            return Ok(());
        }
        let begun = match self.begin(caller, running, &part.job, |_| {}).await {
            Ok(Begun::Rows(batches)) => State::Running(batches),
            Ok(Begun::Done) => State::Over(None),
            Err(status) => State::Over(Some(status)),
        };
        *part.rows.state.lock() = begun;
        Ok(())
    }
}

/// Whether a result may have an order. A query says so; of what EXECUTE stands for the text is elsewhere, and what EXPLAIN,
/// SHOW and the like answer is to be read from the first row to the last.
fn may_have_order(sql: &str) -> bool {
    let first = first_word(sql);
    let is_query = ["SELECT", "WITH", "TABLE", "VALUES"].iter().any(|word| first.eq_ignore_ascii_case(word));
    !is_query || sql.to_ascii_lowercase().contains("order")
}

impl Part {
    fn into_rows(self) -> PartRows {
        PartRows { rows: self.rows, number: self.number }
    }
}

impl SharedRows {
    fn new(endpoints: usize) -> Self {
        let waiting = (0..endpoints).map(|_| AtomicWaker::new()).collect();
        Self { state: Mutex::new(State::Waiting), waiting: Arc::new(Waiting(waiting)) }
    }

    /// Whether it is for the one who asks to begin the statement.
    fn is_to_begin(&self) -> bool {
        let mut state = self.state.lock();
        match &*state {
            State::Waiting => {
                *state = State::Beginning;
                true
            }
            State::Beginning => {
                let gone =
                    refuse("57014", "the statement was cancelled while it began").hint("execute it again").into();
                *state = State::Over(Some(gone));
                false
            }
            // An error is for the stream to report.
            State::Running(_) | State::Over(_) => false,
        }
    }

    fn poll_next(&self, number: usize, context: &mut Context<'_>) -> Poll<Option<Result<RecordBatch, Status>>> {
        if let Some(place) = self.waiting.0.get(number) {
            place.register(context.waker());
        }
        let mut state = self.state.lock();
        let failure = match &mut *state {
            State::Running(batches) => {
                // Whoever asked last may not ask again for long: the next batch is announced to all.
                let all = Waker::from(Arc::clone(&self.waiting));
                let poll = || batches.poll_next_unpin(&mut Context::from_waker(&all)).map(Option::transpose);
                match ready!(contained(poll)) {
                    Ok(Some(batch)) => return Poll::Ready(Some(Ok(batch))),
                    Ok(None) => None,
                    Err(failure) => Some(failure),
                }
            }
            State::Over(failure) => failure.clone(),
            State::Waiting | State::Beginning => None,
        };
        let ended = std::mem::replace(&mut *state, State::Over(failure.clone()));
        drop(state);
        if let State::Running(batches) = ended {
            drop(batches);
            self.waiting.wake_by_ref();
        }
        Poll::Ready(failure.map(Err))
    }
}

/// The batches that nobody else takes.
struct PartRows {
    rows: Arc<SharedRows>,
    number: usize,
}

impl Stream for PartRows {
    type Item = Result<RecordBatch, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rows.poll_next(self.number, context)
    }
}

fn endpoint(handle: Handle) -> FlightEndpoint {
    let ticket = TicketStatementQuery { statement_handle: handle.to_bytes() };
    FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::datatypes::Schema;
    use futures::channel::mpsc;
    use futures::{FutureExt, stream};

    use super::*;

    type Sender = mpsc::UnboundedSender<Result<RecordBatch, Status>>;

    fn shared(endpoints: usize) -> (Sender, Vec<PartRows>) {
        let (sender, batches) = mpsc::unbounded();
        let rows = Arc::new(SharedRows::new(endpoints));
        assert!(rows.is_to_begin());
        *rows.state.lock() = State::Running(batches.boxed());
        (sender, (0..endpoints).map(|number| PartRows { rows: Arc::clone(&rows), number }).collect())
    }

    fn send(sender: &Sender, count: usize) {
        for _ in 0..count {
            sender.unbounded_send(Ok(RecordBatch::new_empty(Arc::new(Schema::empty())))).expect("somebody reads");
        }
    }

    /// Counts how often somebody is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn only_what_surely_has_no_order_is_shared() {
        for sql in ["SELECT * FROM t", "-- x\n(select 1)", "WITH a AS (SELECT 1) TABLE a", "VALUES (1), (2)"] {
            assert!(!may_have_order(sql), "{sql}");
        }
        for sql in
            ["SELECT * FROM t Order By 1", "EXECUTE p", "EXPLAIN SELECT 1", "SHOW ALL", "DELETE FROM t RETURNING a"]
        {
            assert!(may_have_order(sql), "{sql}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_stands_keeps_nothing_from_the_others() {
        let (sender, mut parts) = shared(3);
        for part in &mut parts {
            assert!(part.next().now_or_never().is_none(), "nothing to read yet");
        }
        // The first and the last to ask are never asked again.
        send(&sender, 2);
        assert!(parts[1].next().await.expect("a batch").is_ok());
        assert!(parts[1].next().await.expect("another").is_ok());
        drop(sender);
        assert!(parts[1].next().await.is_none());
        assert!(parts[0].next().await.is_none() && parts[2].next().await.is_none());
    }

    #[test]
    fn a_batch_is_announced_to_all_who_wait_for_one() {
        let (sender, mut parts) = shared(2);
        let woken = [Arc::new(Woken::default()), Arc::new(Woken::default())];
        for (part, woken) in parts.iter_mut().zip(&woken) {
            let waker = Waker::from(Arc::clone(woken));
            assert!(part.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
        }
        send(&sender, 1);
        assert_eq!(woken.map(|woken| woken.0.load(Ordering::SeqCst)), [1, 1]);
    }

    #[tokio::test]
    async fn an_error_is_told_to_each_and_a_beginning_that_was_left_is_one() {
        let (sender, parts) = shared(2);
        sender.unbounded_send(Err(refuse("22012", "division by zero").into())).expect("somebody reads");
        for mut part in parts {
            assert!(part.next().await.expect("an error").expect_err("failed").message().starts_with("[22012]"));
        }
        let rows = Arc::new(SharedRows::new(2));
        assert!(rows.is_to_begin() && !rows.is_to_begin());
        let mut part = PartRows { rows, number: 1 };
        assert!(part.next().await.expect("an error").expect_err("left").message().starts_with("[57014]"));
    }

    #[tokio::test]
    async fn each_batch_is_taken_once() {
        let (sender, parts) = shared(4);
        let counts = parts.into_iter().map(|part| tokio::spawn(part.count()));
        let counts = stream::iter(counts.collect::<Vec<_>>()).then(|count| async { count.await.expect("counted") });
        let all = tokio::spawn(counts.fold(0, |all, count| async move { all + count }));
        for _ in 0..100 {
            send(&sender, 10);
            tokio::task::yield_now().await;
        }
        drop(sender);
        assert_eq!(all.await.expect("summed"), 1_000);
    }
}
