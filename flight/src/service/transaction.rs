//! BeginTransaction and EndTransaction, BeginSavepoint and EndSavepoint.
//!
//! A savepoint is the engine's, made with SQL in the transaction's session under a name of our own, so that two savepoints
//! a client gives the same name stay two. Rolling back to one keeps it and ends those after it; releasing it ends them all.
//!
//! Invariant: a commit is answered with success only if the transaction was committed. Once the commit has begun it
//! runs to its end even if the client disconnects, because half a commit is not a state to leave a session in.

use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionResult, ActionEndSavepointRequest,
    ActionEndTransactionRequest, EndTransaction,
};
use tonic::Status;

use super::SqlService;
use crate::auth::Caller;
use crate::status::{internal, refuse};

/// The values of the protocol's `EndSavepoint`, which arrow-flight does not export.
const RELEASE_SAVEPOINT: i32 = 1;
const ROLL_BACK_TO_SAVEPOINT: i32 = 2;

impl SqlService {
    pub(super) fn begin_transaction(&self, caller: &Caller) -> Result<ActionBeginTransactionResult, Status> {
        let handle = self.sessions.begin(caller)?;
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

    pub(super) async fn begin_savepoint(
        &self,
        caller: &Caller,
        command: &ActionBeginSavepointRequest,
    ) -> Result<ActionBeginSavepointResult, Status> {
        let handle = self.sessions.begin_savepoint(&caller.principal, &command.transaction_id).await?;
        Ok(ActionBeginSavepointResult { savepoint_id: handle.to_bytes() })
    }

    pub(super) async fn end_savepoint(
        &self,
        caller: &Caller,
        command: &ActionEndSavepointRequest,
    ) -> Result<(), Status> {
        let roll_back = match command.action {
            RELEASE_SAVEPOINT => false,
            ROLL_BACK_TO_SAVEPOINT => true,
            _ => {
                return Err(refuse("08P01", "EndSavepoint says neither release nor rollback").into());
            }
        };
        self.sessions.end_savepoint(&caller.principal, &command.savepoint_id, roll_back).await
    }
}
