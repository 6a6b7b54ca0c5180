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
//! Invariants: the statement runs once, and each row is sent once. A result with an order has one endpoint. When no
//! endpoint is being fetched and no ticket is left, the work stops.

use std::sync::Arc;

use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use futures::{StreamExt, stream};
use prost::Message;
use tokio::sync::Mutex;
use tonic::Status;

use super::SqlService;
use super::execution::{Begun, Job, ticket_info};
use crate::auth::Caller;
use crate::handles::Handle;
use crate::running::Batches;
use crate::status::{internal, refuse};
use crate::stream::FlightStream;

/// A result that several endpoints share.
pub(super) struct SharedRows {
    job: Job,
    state: Mutex<State>,
}

enum State {
    Waiting,
    /// Left behind by an endpoint whose client went away while the statement began.
    Beginning,
    Running(Batches),
    /// All rows are sent, or there will be none for this reason.
    Over(Option<Status>),
}

impl SqlService {
    /// Hands out as many tickets as the caller asked for, if the rows may come in any order; else gives the job back.
    pub(super) fn hand_out_tickets(
        &self,
        caller: &Caller,
        descriptor: &FlightDescriptor,
        job: Job,
    ) -> Result<Result<FlightInfo, Job>, Status> {
        let has_order = || job.plan.prepared.sql().to_ascii_lowercase().contains("order");
        if caller.endpoints <= 1 || job.schema.is_none() || has_order() {
            return Ok(Err(job));
        }
        let (home, plan, schema) = (job.home.clone(), Arc::clone(&job.plan), job.schema.clone());
        let shared = Arc::new(SharedRows { job, state: Mutex::new(State::Waiting) });
        let mut handles = Vec::with_capacity(caller.endpoints);
        for _ in 0..caller.endpoints {
            let mut part = Job::new(home.clone(), Arc::clone(&plan));
            part.schema.clone_from(&schema);
            part.shared = Some(Arc::clone(&shared));
            handles.push(self.tickets.insert(&caller.principal, part)?);
        }
        let first = handles.first().ok_or_else(|| internal("no endpoints"))?;
        let mut info = ticket_info(descriptor, *first, schema.as_ref());
        info.endpoint.extend(handles[1..].iter().map(|handle| endpoint(*handle)));
        Ok(Ok(info))
    }

    /// Sends what one endpoint gets of a shared result.
    pub(super) async fn fetch_part(
        &self,
        caller: &Caller,
        handle: Handle,
        shared: Arc<SharedRows>,
    ) -> Result<FlightStream, Status> {
        let running = self.running.register(&caller.principal, handle).ok_or_else(|| self.tickets.unknown())?;
        let job = self.tickets.take(&caller.principal, handle)?;
        running.unless_cancelled(self.begin_shared(caller, &shared)).await?;
        let rows = running.stream(rows_of(shared));
        Ok(Begun::Rows(rows.boxed()).encode(job.schema.as_ref(), caller.compression))
    }

    /// Executes the statement, unless another endpoint has done so.
    async fn begin_shared(&self, caller: &Caller, shared: &SharedRows) -> Result<(), Status> {
        let mut state = shared.state.lock().await;
        match &*state {
            State::Waiting => {}
            State::Beginning => {
                let gone =
                    refuse("57014", "the statement was cancelled while it began").hint("execute it again").into();
                *state = State::Over(Some(gone));
                return Ok(());
            }
            // An error is for the stream to report.
            State::Running(_) | State::Over(_) => return Ok(()),
        }
        *state = State::Beginning;
        let running = self.running.register_unlisted(&caller.principal)?;
        *state = match self.begin(caller, running, &shared.job, |_| {}).await {
            Ok(Begun::Rows(batches)) => State::Running(batches),
            Ok(Begun::Done) => State::Over(None),
            Err(status) => State::Over(Some(status)),
        };
        Ok(())
    }
}

/// The batches that nobody else takes.
fn rows_of(shared: Arc<SharedRows>) -> Batches {
    let next = |shared: Arc<SharedRows>| async move {
        let mut state = shared.state.lock().await;
        let batch = match &mut *state {
            State::Running(batches) => batches.next().await,
            State::Over(Some(status)) => Some(Err(status.clone())),
            State::Waiting | State::Beginning | State::Over(None) => None,
        };
        match &batch {
            Some(Ok(_)) => {}
            Some(Err(status)) => *state = State::Over(Some(status.clone())),
            None => *state = State::Over(None),
        }
        drop(state);
        batch.map(|batch| (batch, shared))
    };
    stream::unfold(shared, next).boxed()
}

fn endpoint(handle: Handle) -> FlightEndpoint {
    let ticket = TicketStatementQuery { statement_handle: handle.to_bytes() };
    FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()))
}
