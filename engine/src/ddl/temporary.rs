//! Temporary tables, views and sequences: a schema of each session's own.
//!
//! A session's schema is called `pg_temp_<number>`; inside the session `pg_temp` means it, and names without a schema are
//! looked for there first. Other sessions cannot name what is in it, and do not see it in the catalog.
//!
//! What is in it is stored as everything else is, so that transactions, savepoints, memory limits and spilling to files
//! hold for it, too. It is dropped when the session ends; what a process left that was killed is dropped when the database
//! is opened ([`drop_leftovers`]). No schema of a user's can have such a name ([`super::schema`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustydb_storage::{Durability, ObjectKind, ReadView, Store, TableDef, TableId, Transaction};

use super::truncate::empty_tables;
use crate::session::Statement;
use crate::{Database, Error, Result};

/// The name by which every session knows its own schema.
pub(crate) const ALIAS: &str = "pg_temp";
/// What the real names begin with.
const PREFIX: &str = "pg_temp_";
/// Schema metadata: what a commit does to a temporary table, `delete` or `drop`.
pub(crate) const ON_COMMIT_KEY: &str = "rustydb.on_commit";
/// Others may change the catalog while a session's tables are dropped; then it is tried again.
const ATTEMPTS_MAX: usize = 100;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// The schema of one session, or of several of the same client.
#[derive(Debug)]
pub(crate) struct TemporarySchema {
    name: String,
    used: AtomicBool,
    sessions: AtomicUsize,
}

impl Default for TemporarySchema {
    fn default() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        TemporarySchema {
            name: format!("{PREFIX}{number}"),
            used: AtomicBool::new(false),
            sessions: AtomicUsize::new(1),
        }
    }
}

impl TemporarySchema {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// One more session has it.
    pub(crate) fn enter(&self) {
        self.sessions.fetch_add(1, Ordering::AcqRel);
    }

    /// A session ends; whether it was the last.
    pub(crate) fn leave(&self) -> bool {
        self.sessions.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether there may be anything in it.
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Something is about to be created in it.
    pub(crate) fn use_it(&self) {
        self.used.store(true, Ordering::Release);
    }
}

/// Whether a schema is some session's.
pub(crate) fn is_temporary(schema: &str) -> bool {
    schema.starts_with(PREFIX)
}

/// Before a commit: empties and drops the session's tables that want it.
pub(crate) fn before_commit(statement: &Statement<'_>, transaction: &mut Transaction) -> Result<()> {
    let Some(own) = Some(statement.temporary()).filter(|own| own.is_used()) else { return Ok(()) };
    let view = transaction.view();
    let wants = |table: &&Arc<TableDef>, what: &str| {
        table.schema_name == own.name() && table.schema.metadata().get(ON_COMMIT_KEY).is_some_and(|said| said == what)
    };
    let mut to_empty = BTreeSet::new();
    for table in view.catalog().tables().filter(|table| wants(table, "delete")) {
        if view.rows(table.id)? > 0 {
            to_empty.insert(table.id);
        }
    }
    let mut to_drop: Vec<TableId> =
        view.catalog().tables().filter(|table| wants(table, "drop")).map(|table| table.id).collect();
    drop(view);
    if !to_empty.is_empty() {
        empty_tables(statement, transaction, to_empty, false)?;
    }
    // A table is created after those it refers to.
    to_drop.reverse();
    to_drop.into_iter().try_for_each(|table| drop_with_views(transaction, table))
}

/// Drops all that is in the session's schema.
pub(crate) fn discard(statement: &Statement<'_>, transaction: &mut Transaction) -> Result<()> {
    let own = statement.temporary();
    drop_contents(transaction, |schema| schema == own.name())
}

/// Drops a table and what depends on it, all of it the same session's.
fn drop_with_views(transaction: &mut Transaction, table: TableId) -> Result<()> {
    let catalog = Arc::clone(transaction.view().catalog());
    let Some(definition) = catalog.table(table) else { return Ok(()) };
    let mut waiting = super::view::views_on(&catalog, &definition.schema_name, &definition.name)?;
    while let Some(view) = waiting.pop() {
        waiting.extend(super::view::views_on(&catalog, &view.schema_name, &view.name)?);
        if transaction.view().catalog().object(view.id).is_some() {
            transaction.drop_object(view.id)?;
        }
    }
    for object in catalog.objects().filter(|object| object.kind == ObjectKind::Sequence) {
        let owner = crate::sequences::SequenceDefinition::of(object)?.owner;
        if owner.is_some_and(|owner| owner.table == table.0) {
            transaction.drop_object(object.id)?;
        }
    }
    forget_references(transaction, table)?;
    Ok(transaction.drop_table(table)?)
}

/// At the end of a session, in the background: drops what it has left.
pub(crate) fn drop_behind(database: &Database, own: &TemporarySchema) {
    if !own.is_used() {
        return;
    }
    let (store, name, kept_open) = (database.store().clone(), own.name().to_owned(), database.clone());
    let work = async move {
        let result = drop_all(&store, |schema| schema == name).await;
        if let Err(error) = &result {
            tracing::warn!(schema = name, error = error.message(), "temporary tables are left until the next start");
        }
        drop(kept_open);
        result
    };
    // The work goes on although nobody waits for it.
    drop(database.runtimes().run_to_end(work));
}

/// When a database is opened: drops what sessions of a process that was killed have left.
pub(crate) async fn drop_leftovers(store: &Store) -> Result<()> {
    drop_all(store, is_temporary).await
}

async fn drop_all(store: &Store, in_schema: impl Fn(&str) -> bool) -> Result<()> {
    for attempt in 1.. {
        let mut transaction = store.begin();
        drop_contents(&mut transaction, &in_schema)?;
        match transaction.commit(Durability::Async).await {
            Err(error) => {
                let error = Error::from(error);
                if !error.is_conflict() || attempt >= ATTEMPTS_MAX {
                    return Err(error);
                }
            }
            Ok(_timestamp) => return Ok(()),
        }
    }
    Ok(())
}

fn drop_contents(transaction: &mut Transaction, in_schema: impl Fn(&str) -> bool) -> Result<()> {
    let view: ReadView = transaction.view();
    let catalog = Arc::clone(view.catalog());
    drop(view);
    for object in catalog.objects().filter(|object| in_schema(&object.schema_name)) {
        transaction.drop_object(object.id)?;
    }
    let tables: Vec<TableId> =
        catalog.tables().filter(|table| in_schema(&table.schema_name)).map(|table| table.id).collect();
    for table in tables.into_iter().rev() {
        forget_references(transaction, table)?;
        transaction.drop_table(table)?;
    }
    Ok(())
}

/// Takes the foreign keys away by which other tables refer to one that goes.
fn forget_references(transaction: &mut Transaction, table: TableId) -> Result<()> {
    let catalog = Arc::clone(transaction.view().catalog());
    for child in catalog.referring_tables(table) {
        let mut definition = child.to_new();
        definition.foreign_keys.retain(|foreign_key| foreign_key.parent != table);
        transaction.alter_table(child.id, definition)?;
    }
    Ok(())
}
