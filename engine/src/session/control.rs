//! Statements that control the session's transaction: BEGIN to COMMIT, savepoints, modes.

use std::sync::Arc;

use super::statement::Statement;
use super::transaction::{OpenTransaction, SavedState, TransactionState, no_transaction};
use super::{Completion, Shared};
use crate::error::sqlstate;
use crate::sql::grammar::transaction::TransactionStatement;
use crate::{Error, Result};

impl Shared {
    pub(super) async fn control(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        control: TransactionStatement,
    ) -> Result<Completion> {
        let done = |tag: &str| Ok(Completion::new(tag));
        match control {
            TransactionStatement::Begin(list) => {
                if !matches!(state, TransactionState::Idle) {
                    return Err(Error::new(sqlstate::ACTIVE_TRANSACTION, "a transaction is in progress already"));
                }
                let modes = statement.settings.default_modes.with(list);
                *state = TransactionState::Active(Box::new(OpenTransaction::new(modes)));
                self.visible.lock().begin();
                done("BEGIN")
            }
            TransactionStatement::SetTransaction(list) => {
                let open = state.open().ok_or_else(|| no_transaction("SET TRANSACTION"))?;
                open.set_modes(list)?;
                done("SET")
            }
            TransactionStatement::SetCharacteristics(list) => {
                let mut visible = self.visible.lock();
                let settings = Arc::make_mut(&mut visible.settings);
                settings.default_modes = settings.default_modes.with(list);
                done("SET")
            }
            TransactionStatement::Savepoint(name) => {
                let saved = self.saved_state();
                state.open().ok_or_else(|| no_transaction("SAVEPOINT"))?.add_savepoint(name, saved)?;
                done("SAVEPOINT")
            }
            TransactionStatement::Release(name) => {
                state.open().ok_or_else(|| no_transaction("RELEASE SAVEPOINT"))?.release(&name)?;
                done("RELEASE")
            }
            TransactionStatement::RollbackTo(name) => {
                let saved = state.rollback_to(&name)?;
                self.return_to(&saved);
                done("ROLLBACK")
            }
            TransactionStatement::Commit { chain } => {
                let modes = state.modes();
                let tag = match std::mem::take(state) {
                    TransactionState::Idle => return Err(no_transaction("COMMIT")),
                    TransactionState::Failed(_) => "ROLLBACK",
                    TransactionState::Active(open) => {
                        if let Some(transaction) = open.into_transaction() {
                            self.commit_now(transaction, statement).await?;
                        }
                        "COMMIT"
                    }
                };
                self.visible.lock().end(tag == "COMMIT", &self.defaults);
                self.begin_again(state, chain, modes);
                done(tag)
            }
            TransactionStatement::Rollback { chain } => {
                let modes = state.modes();
                match std::mem::take(state) {
                    TransactionState::Idle => return Err(no_transaction("ROLLBACK")),
                    TransactionState::Failed(_) => {}
                    TransactionState::Active(open) => {
                        if let Some(transaction) = open.into_transaction() {
                            transaction.rollback();
                        }
                    }
                }
                self.visible.lock().end(false, &self.defaults);
                self.begin_again(state, chain, modes);
                done("ROLLBACK")
            }
        }
    }

    /// AND CHAIN: the next transaction has the modes of the last.
    fn begin_again(&self, state: &mut TransactionState, chain: bool, modes: Option<super::transaction::Modes>) {
        if let (true, Some(modes)) = (chain, modes) {
            *state = TransactionState::Active(Box::new(OpenTransaction::new(modes)));
            self.visible.lock().begin();
        }
    }

    fn saved_state(&self) -> SavedState {
        let deferred = self.deferred.lock().clone();
        let visible = self.visible.lock();
        SavedState { deferred, settings: Arc::clone(&visible.settings), local: visible.local.len() }
    }

    fn return_to(&self, saved: &SavedState) {
        *self.deferred.lock() = saved.deferred.clone();
        let mut visible = self.visible.lock();
        visible.settings = Arc::clone(&saved.settings);
        visible.local.truncate(saved.local);
    }
}
