//! Constraints whose check waits for the end of the transaction: SET CONSTRAINTS, and the checks of foreign keys at last.
//! Those of unique keys are the store's.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::compute::filter_record_batch;
use rustydb_storage::{ForeignKey, IndexId, TableDef, TableId, Transaction};

use super::child::{References, check_rows_of};
use super::parent::check_gone;
use super::referred_columns;
use crate::error::sqlstate;
use crate::session::Statement;
use crate::{Error, Result};

/// So many parents are locked one by one; more are locked with their table.
const LOCKED_PARENTS_MAX: usize = 65_536;

/// What a transaction has put off to its end. Whoever comes back to a mark of the transaction has to come back to what this
/// was then, too.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeferredChecks {
    /// Constraints that something was done about since they were last checked, and whether the rows concerned are no longer
    /// known one by one.
    pending: BTreeMap<(TableId, String), bool>,
    /// What SET CONSTRAINTS said of single ones, by name, ...
    modes: BTreeMap<String, bool>,
    /// ... and of all.
    all: Option<bool>,
}

impl DeferredChecks {
    /// At the end of a transaction.
    pub(crate) fn clear(&mut self) {
        *self = DeferredChecks::default();
    }

    /// Notes a check if it is to be put off.
    pub(super) fn put_off(&mut self, table: &TableDef, foreign_key: &ForeignKey) -> bool {
        let said = self.modes.get(&foreign_key.name).copied().or(self.all);
        let deferred = foreign_key.deferrable && said.unwrap_or(foreign_key.initially_deferred);
        if deferred {
            self.pending.entry((table.id, foreign_key.name.clone())).or_insert(false);
        }
        deferred
    }

    /// A table with other rows has taken the place of one: `children` are the tables that refer to it, as they were before. What
    /// was done to the old one's rows is not known any more.
    pub(crate) fn table_is_replaced(&mut self, old: TableId, new: TableId, children: &[Arc<TableDef>]) {
        let of_old = self.pending.keys().filter(|(table, _)| *table == old).map(|(_, name)| (new, name.clone()));
        let mut concerned: Vec<(TableId, String)> = of_old.collect();
        for child in children.iter().filter(|child| child.id != old) {
            let keys = child.foreign_keys.iter().filter(|key| key.parent == old);
            concerned.extend(keys.map(|key| (child.id, key.name.clone())).filter(|key| self.pending.contains_key(key)));
        }
        self.pending.extend(concerned.into_iter().map(|key| (key, true)));
    }
}

/// SET CONSTRAINTS: which checks wait. Those that no longer do are made now.
pub(crate) async fn set_constraints(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    names: &[String],
    deferred: bool,
) -> Result<()> {
    let view = transaction.view();
    let mut indexes: Vec<IndexId> = Vec::new();
    for name in names {
        let mut waits = None;
        for table in view.catalog().tables() {
            let foreign_keys = table.foreign_keys.iter().filter(|key| key.name == *name).map(|key| key.deferrable);
            let keyed = !table.primary_key.is_empty() && table.primary_key_name() == *name;
            let unique = table.indexes.iter().filter(|index| index.unique && index.name == *name);
            indexes.extend(unique.clone().map(|index| index.id));
            let unique = unique.map(|index| index.deferral.is_deferrable());
            waits =
                foreign_keys.chain(unique).chain(keyed.then_some(false)).reduce(|one, other| one && other).or(waits);
        }
        match waits {
            None => {
                let message = format!("constraint \"{name}\" does not exist");
                return Err(Error::new(sqlstate::UNDEFINED_OBJECT, message));
            }
            Some(false) => {
                let message = format!("constraint \"{name}\" is not deferrable");
                return Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, message));
            }
            Some(true) => {}
        }
    }
    drop(view);
    let indexes = (!names.is_empty()).then_some(indexes.as_slice());
    transaction.set_deferred(indexes, deferred);
    {
        let mut checks = statement.deferred.lock();
        if names.is_empty() {
            checks.modes.clear();
            checks.all = Some(deferred);
        }
        checks.modes.extend(names.iter().map(|name| (name.clone(), deferred)));
    }
    if deferred {
        return Ok(());
    }
    transaction.check_deferred(indexes).await?;
    let is_due = |name: &String| names.is_empty() || names.contains(name);
    let due: Vec<_> = {
        let checks = statement.deferred.lock();
        let due = checks.pending.iter().filter(|((_, name), _)| is_due(name));
        due.map(|(key, whole)| (key.clone(), *whole)).collect()
    };
    check_all(statement, transaction, due).await?;
    // Not before all is well: what has failed waits on if the transaction goes back to a savepoint.
    statement.deferred.lock().pending.retain(|(_, name), _| !is_due(name));
    Ok(())
}

/// Makes the checks that were put off.
pub(crate) async fn check_deferred(statement: &Statement<'_>, transaction: &mut Transaction) -> Result<()> {
    let due: Vec<_> = std::mem::take(&mut statement.deferred.lock().pending).into_iter().collect();
    check_all(statement, transaction, due).await
}

async fn check_all(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    due: Vec<((TableId, String), bool)>,
) -> Result<()> {
    for ((table, name), whole) in due {
        let table = transaction.view().catalog().table(table).cloned();
        // What was dropped since needs no check.
        let Some(table) = table else { continue };
        match table.foreign_keys.iter().find(|foreign_key| foreign_key.name == name) {
            Some(foreign_key) if whole && !foreign_key.not_validated => {
                check_rows_of(statement, transaction, &table, foreign_key).await?;
            }
            Some(foreign_key) => check_own_rows(statement, transaction, &table, foreign_key).await?,
            // It may have another name by now.
            None => {
                for foreign_key in table.foreign_keys.iter().filter(|key| key.deferrable) {
                    check_own_rows(statement, transaction, &table, foreign_key).await?;
                }
            }
        }
    }
    Ok(())
}

/// Makes a check that was put off: of the rows that the transaction has put into the child, and of those that it has taken
/// from the parent. Where they are not known one by one, it is of all rows.
async fn check_own_rows(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    foreign_key: &ForeignKey,
) -> Result<()> {
    let view = transaction.newest_view().await?;
    let Some(parent) = view.catalog().table(foreign_key.parent).cloned() else {
        // Somebody has put another table in its place.
        return Err(rustydb_storage::Error::Conflict { table: table.name.clone() }.into());
    };
    let referred = referred_columns(&parent, foreign_key);
    let new = view.own_rows(table.id, &foreign_key.columns)?;
    let old = view.replaced_rows(parent.id, &referred).await?;
    let (Some(new), Some(old)) = (new, old) else {
        drop(view);
        return check_rows_of(statement, transaction, table, foreign_key).await;
    };
    let references = References::of(&view, table, foreign_key, &new)?;
    drop(view);
    if let Some(references) = references {
        if references.count() > LOCKED_PARENTS_MAX {
            return check_rows_of(statement, transaction, table, foreign_key).await;
        }
        references.lock_newest(statement, transaction).await?;
    }
    let known = (0..old.num_rows()).map(|row| Some(old.columns().iter().all(|column| column.is_valid(row))));
    let old = filter_record_batch(&old, &BooleanArray::from_iter(known))?;
    if old.num_rows() == 0 {
        return Ok(());
    }
    check_gone(statement, transaction, (&parent, &referred, &old), table, foreign_key).await
}
