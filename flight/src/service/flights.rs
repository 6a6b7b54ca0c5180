//! Flight without SQL: tables as flights, descriptors that are paths, and endpoints that are renewed.
//!
//! A client that knows Flight but not Flight SQL can list the tables (ListFlights), name one by its path
//! (`FlightDescriptor.for_path("public", "orders")` or just `"orders"`) and fetch its rows. A path is another spelling of
//! `SELECT * FROM` that table, so rights, snapshots and limits are the same.

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{Any, CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, RenewFlightEndpointRequest, Ticket};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use prost::Message;
use rustydb_engine::{DEFAULT_SCHEMA, TableDef, shown_schema, shown_tables};
use tonic::Status;

use super::SqlService;
use crate::auth::Caller;
use crate::status::refuse;
use crate::stream::FlightStream;
use crate::wire::{schema_message, wire_schema};

impl SqlService {
    /// Every table as a flight, its endpoint the query for its rows.
    pub(crate) fn flights(
        &self,
        caller: &Caller,
        expression: &[u8],
    ) -> Result<BoxStream<'static, Result<FlightInfo, Status>>, Status> {
        if !expression.is_empty() {
            return Err(refuse("0A000", "criteria of ListFlights are not supported")
                .hint("list all, or use the Flight SQL command CommandGetTables, which takes patterns")
                .into());
        }
        let catalog = self.sessions.catalog(caller)?;
        let mut flights: Vec<_> =
            shown_tables(&catalog).map(|table| (table.schema_name.clone(), flight(table))).collect();
        flights.sort_by(|(schema, _), (other, _)| schema.cmp(other));
        Ok(stream::iter(flights.into_iter().map(|(_, flight)| flight)).boxed())
    }

    /// Executes a query whose command is its ticket.
    pub(super) async fn fetch_statement(
        &self,
        caller: &Caller,
        command: CommandStatementQuery,
    ) -> Result<FlightStream, Status> {
        let job = self.plan_statement(caller, &command.query, command.transaction_id.as_deref()).await?;
        if job.schema.is_none() {
            // A ticket may be fetched twice, by a proxy or a client that retries: nothing must happen twice.
            return Err(refuse("07003", "this statement changes something, and a query's ticket only reads")
                .hint("execute it as an update (CommandStatementUpdate), or ask for a ticket with GetFlightInfo")
                .into());
        }
        self.fetch_now(caller, &job).await
    }

    /// Keeps a ticket: its time starts anew. Tickets that are commands never expire.
    pub(super) fn renew_endpoint(&self, caller: &Caller, body: &[u8]) -> Result<arrow_flight::Result, Status> {
        let malformed = |error: prost::DecodeError| {
            Status::from(refuse("08P01", format!("malformed RenewFlightEndpoint request: {error}")))
        };
        let request = RenewFlightEndpointRequest::decode(body).map_err(malformed)?;
        let ticket = request.endpoint.as_ref().and_then(|endpoint| endpoint.ticket.as_ref());
        let ticket = ticket.ok_or_else(|| refuse("08P01", "RenewFlightEndpoint without a ticket"))?.clone();
        let mut endpoint = FlightEndpoint::new().with_ticket(ticket.clone());
        let message = Any::decode(&*ticket.ticket).map_err(malformed)?;
        if let Ok(Some(statement)) = message.unpack::<TicketStatementQuery>() {
            let handle = self.tickets.parse(&statement.statement_handle)?;
            // Using it is what renews it.
            drop(self.tickets.get(&caller.principal, handle)?);
            endpoint.expiration_time = Some(self.ticket_expiry());
        }
        Ok(arrow_flight::Result::new(endpoint.encode_to_vec()))
    }
}

fn flight(table: &TableDef) -> Result<FlightInfo, Status> {
    let path = vec![table.schema_name.clone(), table.name.clone()];
    let ticket = Ticket::new(query_for(&table.schema_name, &table.name).as_any().encode_to_vec());
    let mut info = FlightInfo::new()
        .with_descriptor(FlightDescriptor::new_path(path))
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
        .with_total_records(-1)
        .with_total_bytes(-1);
    info.schema = schema_message(&wire_schema(&shown_schema(table)))?;
    Ok(info)
}

/// The query for all rows of a table or view.
pub(super) fn select_all(schema: &str, table: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("SELECT * FROM {}.{}", quoted(schema), quoted(table))
}

fn query_for(schema: &str, table: &str) -> CommandStatementQuery {
    CommandStatementQuery { query: select_all(schema, table), transaction_id: None }
}

/// The command a descriptor stands for, in the form of a command.
pub(crate) fn as_command(mut descriptor: FlightDescriptor) -> Result<FlightDescriptor, Status> {
    if descriptor.r#type() != DescriptorType::Path {
        return Ok(descriptor);
    }
    let (schema, table) = match descriptor.path.as_slice() {
        [table] => (DEFAULT_SCHEMA, table.as_str()),
        [schema, table] => (schema.as_str(), table.as_str()),
        _ => {
            return Err(refuse("08P01", "a path names a table: [TABLE] or [SCHEMA, TABLE]").into());
        }
    };
    descriptor.cmd = query_for(schema, table).as_any().encode_to_vec().into();
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_query_and_cannot_be_anything_else() {
        let query = |path: &[&str]| {
            let path = path.iter().map(|part| (*part).to_owned()).collect();
            let descriptor = as_command(FlightDescriptor::new_path(path))?;
            let any = Any::decode(&*descriptor.cmd).expect("an Any");
            Ok::<_, Status>(any.unpack::<CommandStatementQuery>().expect("a command").expect("of this type").query)
        };
        assert_eq!(query(&["t"]).expect("a table"), "SELECT * FROM \"public\".\"t\"");
        let nasty = "t\" WHERE false; DROP TABLE t; --";
        let expected = "SELECT * FROM \"s\".\"t\"\" WHERE false; DROP TABLE t; --\"";
        assert_eq!(query(&["s", nasty]).expect("a table"), expected);
        assert!(query(&[]).is_err() && query(&["a", "b", "c"]).is_err());
    }
}
