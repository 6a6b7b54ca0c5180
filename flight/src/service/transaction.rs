//! BeginTransaction and EndTransaction.
//!
//! Invariant: a commit is answered with success only if the transaction was committed. Once the commit has begun it
//! runs to its end even if the client disconnects, because half a commit is not a state to leave a session in.

use arrow_flight::sql::{ActionBeginTransactionResult, ActionEndTransactionRequest, EndTransaction};
use tonic::Status;

use super::SqlService;
use crate::auth::Caller;
use crate::status::{internal, refuse};

impl SqlService {
    pub(super) fn begin_transaction(&self, caller: &Caller) -> Result<ActionBeginTransactionResult, Status> {
        let handle = self.sessions.begin(&caller.principal)?;
        Ok(ActionBeginTransactionResult { transaction_id: handle.to_bytes() })
    }

    pub(super) async fn end_transaction(
        &self,
        caller: &Caller,
        command: &ActionEndTransactionRequest,
    ) -> Result<(), Status> {
        let commit = match EndTransaction::try_from(command.action) {
            Ok(EndTransaction::Commit) => true,
            Ok(EndTransaction::Rollback) => false,
            Ok(EndTransaction::Unspecified) | Err(_) => {
                return Err(refuse("08P01", "EndTransaction says neither commit nor rollback").into());
            }
        };
        let transaction = self.sessions.take_transaction(&caller.principal, &command.transaction_id)?;
        tokio::spawn(async move { transaction.end(commit).await }).await.map_err(internal)?
    }
}
