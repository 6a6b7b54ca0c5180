//! Stopping a statement by the FlightInfo it was announced with: CancelQuery of Flight SQL, CancelFlightInfo of Flight.
//!
//! Invariant: "cancelled" is answered only when it is true: the statement had not begun and cannot begin any more, or
//! it ran and has been stopped.

use arrow_flight::sql::{ActionCancelQueryResult, Any, TicketStatementQuery};
use arrow_flight::{CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use prost::Message;
use tonic::Status;

use super::SqlService;
use crate::auth::Caller;
use crate::status::refuse;

impl SqlService {
    pub(super) fn cancel_query(&self, caller: &Caller, info: &[u8]) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(info).map_err(|error| malformed(&error))?;
        // The two protocols number their results alike.
        Ok(ActionCancelQueryResult { result: self.cancel(caller, &info)? as i32 })
    }

    pub(super) fn cancel_flight_info(&self, caller: &Caller, body: &[u8]) -> Result<arrow_flight::Result, Status> {
        let request = CancelFlightInfoRequest::decode(body).map_err(|error| malformed(&error))?;
        let info = request.info.ok_or_else(|| refuse("08P01", "CancelFlightInfo without a FlightInfo"))?;
        let result = CancelFlightInfoResult::new(self.cancel(caller, &info)?);
        Ok(arrow_flight::Result::new(result.encode_to_vec()))
    }

    fn cancel(&self, caller: &Caller, info: &FlightInfo) -> Result<CancelStatus, Status> {
        let mut cancelled = false;
        for ticket in info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref()) {
            let message = Any::decode(&*ticket.ticket).map_err(|error| malformed(&error))?;
            // Metadata commands are tickets as well, and done before anyone could cancel them.
            let Ok(Some(statement)) = message.unpack::<TicketStatementQuery>() else { continue };
            let handle = self.tickets.parse(&statement.statement_handle)?;
            // A job is among the running ones before it leaves the ticket table, so one of the two has it.
            let waiting = self.tickets.take(&caller.principal, handle).is_ok();
            cancelled |= waiting || self.running.cancel(&caller.principal, handle);
        }
        Ok(match cancelled {
            true => CancelStatus::Cancelled,
            false => CancelStatus::NotCancellable,
        })
    }

    pub(super) fn unknown_action(&self, name: &str) -> Status {
        let name: String = name.chars().take(80).collect();
        let known: Vec<&str> = Self::ACTIONS.iter().map(|(name, _)| *name).collect();
        refuse("0A000", format!("the action \"{name}\" is not supported"))
            .hint(format!("the actions are {}", known.join(", ")))
            .into()
    }
}

fn malformed(error: &prost::DecodeError) -> Status {
    refuse("08P01", format!("malformed FlightInfo: {error}")).into()
}
