//! Statements sent as SQL text.

use std::sync::Arc;

use tonic::Status;

use super::SqlService;
use super::execution::{Job, Plan};
use crate::auth::Caller;
use crate::status::{from_engine, refuse};

impl SqlService {
    /// Plans a statement without executing it.
    pub(super) async fn plan_statement(
        &self,
        caller: &Caller,
        sql: &str,
        transaction_id: Option<&[u8]>,
    ) -> Result<Job, Status> {
        let bytes_max = self.limits.statement_bytes;
        if sql.len() > bytes_max {
            let message = format!("the statement has {} bytes; the limit is {bytes_max}", sql.len());
            return Err(refuse("54000", message).hint("send data as parameters or by bulk ingest").into());
        }
        let (home, scope) = self.sessions.enter_call(caller, transaction_id)?;
        let planned = match scope.turn().await?.prepare(sql).await {
            // A failed transaction plans nothing, but COMMIT and ROLLBACK must end it. Planned in another session and
            // executed in this one, they do; anything else gets this very error when it is executed.
            Err(error) if error.sqlstate() == "25P02" => self.sessions.outside().prepare(sql).await,
            planned => planned,
        };
        let prepared = planned.map_err(|error| from_engine(&error))?;
        Ok(Job { home, plan: Arc::new(Plan::new(prepared, &self.waiting_kib)?), parameters: None })
    }
}
