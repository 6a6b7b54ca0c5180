//! DISCARD: a session forgets what it has made of its own, so that the next user of a connection finds it as new.
//!
//! | statement | what goes |
//! |---|---|
//! | `DISCARD SEQUENCES` | what `currval` and `lastval` know |
//! | `DISCARD TEMP` | temporary tables, views and sequences, with the transaction |
//! | `DISCARD PLANS` | nothing: no plan depends on the session |
//! | `DISCARD ALL` | all of that, prepared statements, and settings |

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::DiscardObject;

use super::statement::Statement;
use super::transaction::TransactionState;
use super::{Completion, Shared, StatementResult};
use crate::error::sqlstate;
use crate::sql::route::Write;
use crate::{Error, Result};

impl Shared {
    pub(super) async fn discard(
        &self,
        transaction: &mut TransactionState,
        statement: &Statement<'_>,
        what: DiscardObject,
    ) -> Result<StatementResult> {
        let all = what == DiscardObject::ALL;
        if all && !matches!(transaction, TransactionState::Idle) {
            return Err(Error::new(sqlstate::ACTIVE_TRANSACTION, "DISCARD ALL cannot run inside a transaction block"));
        }
        if all {
            self.visible.lock().settings = Arc::clone(&self.defaults);
            self.named.lock().clear();
        }
        if all || what == DiscardObject::SEQUENCES {
            self.sequences.forget();
        }
        if (all || what == DiscardObject::TEMP) && self.temporary.is_used() {
            self.write(transaction, statement, Write::DiscardTemporary).await?;
        }
        Ok(StatementResult::Done(Completion::new(&format!("DISCARD {what}"))))
    }
}
