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
        let (surroundings, prepared) = {
            let session = scope.turn().await?;
            (session.surroundings(), session.prepare(sql).await.map_err(|error| from_engine(&error))?)
        };
        Ok(Job::new(home, Arc::new(Plan::new(prepared, surroundings, &self.waiting_kib)?)))
    }
}
