//! Serializable transactions: their beginning on a snapshot that is safe if possible, and the decision at their end.

use std::sync::Arc;

use rustydb_txn::{Safety, Ticket, Timestamp, WriteSet};

use super::{Commit, Inner};
use crate::error::{Error, Result};
use crate::serial::SerialTransaction;
use crate::view::Snapshot;

impl Inner {
    /// A snapshot for a serializable transaction, and where it remembers its reads; a read-only one on a safe snapshot
    /// does not have to. A deferrable one waits for a safe snapshot.
    pub(super) async fn open_serializable(
        self: &Arc<Self>,
        read_only: bool,
        deferrable: bool,
    ) -> (Snapshot, Option<Arc<SerialTransaction>>) {
        loop {
            // Registered first: whatever the snapshot turns out to be, it is not older than this.
            let since = self.publication.published();
            let ticket = self.serializability.lock().begin(since, read_only);
            let serial = Arc::new(SerialTransaction::new(Arc::clone(self), ticket));
            let snapshot = self.open_snapshot();
            if !read_only {
                return (snapshot, Some(serial));
            }
            loop {
                let ended = self.serial_ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                let safety = self.serializability.lock().safety(snapshot.timestamp);
                match safety {
                    Safety::Safe => return (snapshot, None),
                    Safety::Open | Safety::Unsafe if !deferrable => return (snapshot, Some(serial)),
                    Safety::Open => ended.await,
                    Safety::Unsafe => break,
                }
            }
        }
    }

    pub(crate) fn abort_serializable(&self, ticket: Ticket) {
        let published = self.publication.published();
        self.serializability.lock().abort(ticket, published);
        self.serial_ended.notify_waiters();
    }

    /// Decides the commit of a transaction that has changed nothing.
    pub(crate) fn commit_reader(&self, serial: &SerialTransaction, snapshot: Timestamp) -> Result<()> {
        let published = self.publication.published();
        self.judge(serial, snapshot, published, WriteSet::default())
    }

    /// Decides a commit with changes. Called under the sequencer's lock, right before the timestamp is allocated.
    pub(super) fn judge_writer(&self, commit: &Commit) -> Result<()> {
        let Some(serial) = &commit.serial else { return Ok(()) };
        let mut writes = WriteSet::default();
        for (table, changes) in commit.writes.tables() {
            changes.rows.keys().for_each(|key| writes.add_key(table.0, key));
            if !changes.staged.is_empty() {
                writes.add_table(table.0);
            }
        }
        for table in commit.structure.dropped.iter() {
            writes.add_table(table.id.0);
        }
        let end = self.publication.allocated() + 1;
        self.judge(serial, commit.snapshot.timestamp, end, writes)
    }

    fn judge(&self, serial: &SerialTransaction, snapshot: Timestamp, end: Timestamp, writes: WriteSet) -> Result<()> {
        let Some((ticket, candidate)) = serial.end(snapshot, end, writes) else { return Ok(()) };
        let published = self.publication.published();
        let decided = self.serializability.lock().commit(ticket, candidate, published);
        self.serial_ended.notify_waiters();
        decided.map_err(|_| Error::Unserializable)
    }
}
