//! A query that fails while its rows are read fails the transaction it runs in, as it would before its first row.
//!
//! A result stream outlives its statement: when the error appears, another statement may be running, even one that reads
//! this very stream, and nothing may wait for it. So the error is noted, and applied at once if no statement runs, else
//! before the next one begins. A stream that is dropped before its error fails nothing.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::MutexGuard;

use super::transaction::TransactionState;
use super::{Shared, StatementResult, Visible};

/// The transactions in which a stream has failed and whose state does not say so yet, by their identity.
pub(super) type StreamFailures = Arc<Mutex<Vec<Weak<()>>>>;

impl Shared {
    /// The session's transaction, for a statement.
    pub(super) async fn lock_transaction(&self) -> MutexGuard<'_, TransactionState> {
        let mut transaction = self.transaction.lock().await;
        if apply(&self.stream_failures, &mut transaction) {
            self.publish(&transaction);
        }
        transaction
    }

    /// Lets an error among the rows of `result` fail the open transaction.
    pub(super) fn fail_with_rows(&self, transaction: &TransactionState, result: &mut StatementResult) {
        let (StatementResult::Rows(rows), Some(identity)) = (result, transaction.identity()) else { return };
        let identity = Arc::downgrade(identity);
        let failures = Arc::clone(&self.stream_failures);
        let (transaction, visible) = (Arc::downgrade(&self.transaction), Arc::downgrade(&self.visible));
        rows.on_failure(move || {
            failures.lock().push(identity);
            if let Some(transaction) = transaction.upgrade()
                && let Ok(mut transaction) = transaction.try_lock()
                && apply(&failures, &mut transaction)
            {
                show(&transaction, &visible);
            }
        });
    }
}

/// Fails the transaction if one of its streams has; whether it did.
fn apply(failures: &StreamFailures, transaction: &mut TransactionState) -> bool {
    let failed = std::mem::take(&mut *failures.lock());
    let Some(identity) = transaction.identity() else { return false };
    let own = failed.iter().any(|of| std::ptr::eq(of.as_ptr(), Arc::as_ptr(identity)));
    if own {
        transaction.fail();
    }
    own
}

fn show(transaction: &TransactionState, visible: &Weak<Mutex<Visible>>) {
    if let Some(visible) = visible.upgrade() {
        let mut visible = visible.lock();
        visible.status = transaction.status();
        visible.catalog = None;
    }
}
