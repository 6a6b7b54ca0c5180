//! PollFlightInfo: a statement is started, and its client asks from time to time whether the first rows are there.
//!
//! ```text
//! PollFlightInfo(command) ──> plan, ticket, start ──┐ first rows within a moment?
//!   <── PollInfo: info, progress, descriptor ───────┤ no: ask again with this descriptor
//! PollFlightInfo(descriptor) ───────────────────────┤
//!   <── PollInfo: info ─────────────────────────────┘ yes, or done: fetch it
//! DoGet(ticket) ──> the rows, from the first on
//! ```
//!
//! Invariants: the statement runs once, however often it is polled and whether it is fetched before or after it is
//! complete. It holds at most the batches the engine makes ahead of its reader. Nobody polling or fetching for the
//! ticket's idle time ends it, as does cancelling it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow_flight::sql::{Any, Command, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use prost::Message;
use rustydb_engine::Progress;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

use super::SqlService;
use super::execution::{Begun, Job, check_parameters, ticket_info};
use crate::auth::Caller;
use crate::handles::Handle;
use crate::status::{internal, refuse};
use crate::type_url::usual;
use crate::wrapper::caller;

/// How long the first poll waits: most statements are complete by then, and need no second one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How long each further poll waits for news.
const FURTHER_WAIT: Duration = Duration::from_secs(1);

/// A statement that runs ahead of being fetched.
pub(super) struct Started {
    shared: Arc<Shared>,
    work: JoinHandle<()>,
}

struct Shared {
    progress: Mutex<Option<Progress>>,
    /// There once the statement is done or has its first rows.
    outcome: Mutex<Option<Result<Begun, Status>>>,
    is_ready: watch::Sender<bool>,
}

impl Started {
    /// Waits for the first rows, and takes them.
    pub(super) async fn finish(&self) -> Result<Begun, Status> {
        self.ready().await;
        let outcome = self.shared.outcome.lock().take();
        outcome.unwrap_or_else(|| Err(internal("a statement that was started ended without an outcome")))
    }

    async fn ready(&self) {
        // The sender lives in `shared`.
        let _ = self.shared.is_ready.subscribe().wait_for(|ready| *ready).await;
    }

    fn is_ready(&self) -> bool {
        *self.shared.is_ready.borrow()
    }

    /// The error the statement ended with, if it did.
    fn failure(&self) -> Option<Status> {
        self.shared.outcome.lock().as_ref().and_then(|outcome| outcome.as_ref().err().cloned())
    }

    fn progress(&self) -> Option<f64> {
        self.shared.progress.lock().as_ref().and_then(Progress::fraction)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl SqlService {
    /// Answers a poll; `None`: the command has nothing that could take long, GetFlightInfo answers it.
    pub(crate) async fn poll(
        self: &Arc<Self>,
        request: &Request<FlightDescriptor>,
        command: Command,
    ) -> Result<Option<Response<PollInfo>>, Status> {
        let caller = caller(request)?;
        let (job, wait) = match command {
            Command::CommandStatementQuery(query) => {
                (self.plan_statement(caller, &query.query, query.transaction_id.as_deref()).await?, FIRST_WAIT)
            }
            Command::CommandPreparedStatementQuery(query) => {
                (self.prepared_job_now(caller, &query.prepared_statement_handle).await?, FIRST_WAIT)
            }
            Command::TicketStatementQuery(ticket) => {
                let handle = self.tickets.parse(&ticket.statement_handle)?;
                return self.poll_again(request.get_ref(), caller, handle, FURTHER_WAIT).await.map(Some);
            }
            _ => return Ok(None),
        };
        check_parameters(&job)?;
        let handle = self.start(caller, job)?;
        self.poll_again(request.get_ref(), caller, handle, wait).await.map(Some)
    }

    /// Starts a job; its ticket keeps it alive.
    fn start(self: &Arc<Self>, caller: &Caller, job: Job) -> Result<Handle, Status> {
        let handle = Handle::random();
        let running = self.running.register_standing(&caller.principal, handle);
        let running = running.ok_or_else(|| internal("a random handle was not unique"))?;
        let is_ready = watch::Sender::new(false);
        let shared = Arc::new(Shared { progress: Mutex::default(), outcome: Mutex::default(), is_ready });

        let (service, caller_then, at_work) = (Arc::clone(self), caller.clone(), Arc::clone(&shared));
        let Job { home, plan, parameters, schema, started: _, shared: _ } = job;
        let mut to_run = Job::new(home.clone(), Arc::clone(&plan));
        to_run.parameters = parameters;
        to_run.schema.clone_from(&schema);
        let work = tokio::spawn(async move {
            let observe = |progress| *at_work.progress.lock() = Some(progress);
            let begun = std::panic::AssertUnwindSafe(first_rows(&service, &caller_then, running, &to_run, observe));
            let outcome = begun.catch_unwind().await.unwrap_or_else(|_| Err(internal("a statement panicked")));
            *at_work.outcome.lock() = Some(outcome);
            at_work.is_ready.send_replace(true);
        });
        let started = Some(Arc::new(Started { shared, work }));
        let job = Job { home, plan, parameters: None, schema, started, shared: None };
        self.tickets.insert_as(&caller.principal, handle, job)
    }

    async fn poll_again(
        &self,
        descriptor: &FlightDescriptor,
        caller: &Caller,
        handle: Handle,
        wait: Duration,
    ) -> Result<Response<PollInfo>, Status> {
        let job = self.tickets.get(&caller.principal, handle)?;
        let Some(started) = job.started.clone() else {
            return Err(refuse(
                "08P01",
                "this ticket was not given by PollFlightInfo, so there is nothing to wait for",
            )
            .hint("fetch it with DoGet")
            .into());
        };
        // That the time is up is an answer as good as any.
        let _ = tokio::time::timeout(wait, started.ready()).await;
        if let Some(failure) = started.failure() {
            drop(self.tickets.take(&caller.principal, handle));
            return Err(failure);
        }
        let info: FlightInfo = ticket_info(descriptor, handle, job.schema.as_ref());
        let is_complete = started.is_ready();
        let again = TicketStatementQuery { statement_handle: handle.to_bytes() }.as_any();
        Ok(Response::new(PollInfo {
            info: Some(info),
            flight_descriptor: (!is_complete).then(|| FlightDescriptor::new_cmd(again.encode_to_vec())),
            progress: if is_complete { Some(1.0) } else { started.progress() },
            expiration_time: Some(self.ticket_expiry()),
        }))
    }

    /// When a ticket that was used just now is forgotten.
    pub(super) fn ticket_expiry(&self) -> prost_types::Timestamp {
        // A limit beyond what the clock can say is as good as none.
        let expiry = SystemTime::now().checked_add(self.limits.ticket_idle).unwrap_or_else(SystemTime::now);
        prost_types::Timestamp::from(expiry)
    }
}

/// Runs a job until there is something to fetch.
async fn first_rows(
    service: &SqlService,
    caller: &Caller,
    running: crate::running::RunningGuard,
    job: &Job,
    observe: impl FnOnce(Progress) + Send,
) -> Result<Begun, Status> {
    match service.begin(caller, running, job, observe).await? {
        Begun::Done => Ok(Begun::Done),
        Begun::Rows(mut rows) => {
            let first = rows.next().await.transpose()?;
            Ok(Begun::Rows(stream::iter(first.map(Ok)).chain(rows).boxed()))
        }
    }
}

/// The command in a descriptor, whatever it is of.
pub(crate) fn decode_command(bytes: &[u8]) -> Result<Command, Status> {
    let malformed = |reason: String| Status::from(refuse("08P01", format!("malformed command: {reason}")));
    let any = Any::decode(bytes).map_err(|error| malformed(error.to_string()))?;
    Command::try_from(usual(any)).map_err(|error| malformed(error.to_string()))
}
