//! `idle_in_transaction_session_timeout`: a transaction whose client says nothing must not hold locks and old versions
//! for ever.
//!
//! After each statement that leaves a transaction open, a task sleeps for that long and then rolls it back; the next
//! statement drops the task first. The task keeps the session alive no longer than its owner does.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::transaction::{TransactionState, TransactionStatus};
use super::{Session, Shared, Visible};

impl Session {
    /// Rolls the open transaction back as if `idle_in_transaction_session_timeout` were over, unless a statement begins in that
    /// moment: for those who see a client's silence themselves, such as a server with one limit for all its sessions.
    pub fn expire_transaction(&self) {
        if self.transaction_status() == TransactionStatus::Active {
            self.shared.expire_after(Duration::ZERO);
        }
    }
}

impl Shared {
    /// A statement begins: the client is not idle.
    pub(super) fn wake(&self) {
        self.idle.lock().take();
    }

    /// A statement has ended: from now on the client may be idle.
    pub(super) fn watch(&self) {
        let (limit, status) = {
            let visible = self.visible.lock();
            (visible.settings.idle_in_transaction_session_timeout, visible.status)
        };
        if let Some(limit) = limit
            && status != TransactionStatus::Idle
        {
            self.expire_after(limit);
        }
    }

    fn expire_after(&self, limit: Duration) {
        let (transaction, visible) = (Arc::downgrade(&self.transaction), Arc::downgrade(&self.visible));
        *self.idle.lock() = Some(self.database.runtimes().spawn(expire(limit, transaction, visible)));
    }
}

async fn expire(
    limit: Duration,
    transaction: Weak<tokio::sync::Mutex<TransactionState>>,
    visible: Weak<Mutex<Visible>>,
) {
    tokio::time::sleep(limit).await;
    let Some(transaction) = transaction.upgrade() else { return };
    let mut state = transaction.lock().await;
    state.expire();
    if let Some(visible) = visible.upgrade() {
        let mut visible = visible.lock();
        visible.status = state.status();
        visible.catalog = None;
    }
}
