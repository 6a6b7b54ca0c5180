//! TRUNCATE: empty tables in the place of full ones. Nothing is read or written; the old rows go with the old table, when
//! nobody has it locked any more.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::sql::sqlparser::ast::Spanned;
use rustydb_storage::{LockMode, ObjectKind, SequenceState, TableId, Transaction};

use super::drop::change_definition;
use crate::error::sqlstate;
use crate::sequences::{Owner, SequenceDefinition};
use crate::session::{Completion, Statement};
use crate::sql::route::TruncateStatement;
use crate::sql::text::parse::{place, table_name};
use crate::{Error, Result};

/// `alone`: nothing was read before it that could contradict it.
pub(crate) async fn truncate(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    truncate: TruncateStatement,
    alone: bool,
) -> Result<Completion> {
    let TruncateStatement { names, cascade, restart_identity } = truncate;
    let context = statement.context(transaction.view());
    let mut tables: BTreeSet<TableId> = BTreeSet::new();
    for name in &names {
        let (schema, plain_name) = table_name(name)?;
        let table = context.table(schema.as_deref(), &plain_name).map_err(|error| error.at(place(name.span())))?;
        tables.insert(table.id);
    }
    let catalog = std::sync::Arc::clone(context.view().catalog());
    drop(context);
    loop {
        let referring = catalog.tables().find(|child| {
            !tables.contains(&child.id) && child.foreign_keys.iter().any(|key| tables.contains(&key.parent))
        });
        let Some(child) = referring else { break };
        if !cascade {
            let message = "cannot truncate a table referenced in a foreign key constraint";
            return Err(Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
                .with_detail(format!("Table \"{}\" references it.", child.name))
                .with_hint("Truncate that table at the same time, or use TRUNCATE … CASCADE."));
        }
        tables.insert(child.id);
    }
    if !alone && !transaction.isolation().moves_with_statements() {
        // Rows that the transaction has never seen would go as well.
        tables.iter().for_each(|table| transaction.require_unchanged(*table));
    }
    for table in &tables {
        transaction.lock_table(*table, LockMode::AccessExclusive, None).await?;
    }
    empty_tables(statement, transaction, tables, restart_identity)?;
    Ok(Completion::new("TRUNCATE TABLE"))
}

/// Puts empty tables in the places of these; all that refer to one of them must be among them.
pub(super) fn empty_tables(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    tables: BTreeSet<TableId>,
    restart_identity: bool,
) -> Result<()> {
    let catalog = std::sync::Arc::clone(transaction.view().catalog());
    let definitions: Vec<_> =
        tables.iter().filter_map(|id| catalog.table(*id)).map(|table| (table.id, table.to_new())).collect();
    transaction.drop_tables(definitions.iter().map(|(id, _)| *id))?;
    let mut successors: BTreeMap<TableId, TableId> = BTreeMap::new();
    let mut referring = Vec::new();
    for (id, mut definition) in definitions {
        let all = definition.foreign_keys.clone();
        definition.foreign_keys.retain(|key| key.parent == id || !tables.contains(&key.parent));
        let is_referring = definition.foreign_keys.len() < all.len();
        for foreign_key in definition.foreign_keys.iter_mut().filter(|key| key.parent == id) {
            foreign_key.parent = TableId::SELF;
        }
        let successor = transaction.create_table(definition)?.id;
        successors.insert(id, successor);
        if is_referring {
            referring.push((successor, all));
        }
    }
    // They may refer to each other in circles: the keys between them come when all of them are there.
    for (successor, mut foreign_keys) in referring {
        for foreign_key in &mut foreign_keys {
            if let Some(parent) = successors.get(&foreign_key.parent) {
                foreign_key.parent = *parent;
            }
        }
        change_definition(transaction, successor, |definition| definition.foreign_keys = foreign_keys)?;
    }
    for object in catalog.objects().filter(|object| object.kind == ObjectKind::Sequence) {
        let definition = SequenceDefinition::of(object)?;
        let Some(owner) = &definition.owner else { continue };
        let Some(successor) = successors.get(&TableId(owner.table)) else { continue };
        if restart_identity {
            let state = SequenceState { value: definition.spec.start, called: false };
            statement.database.store().sequence_set(object.id, state)?;
        }
        let owner = Some(Owner { table: successor.0, ..owner.clone() });
        let definition = SequenceDefinition { owner, ..definition };
        transaction.replace_object(object.id, object.schema_name.clone(), object.name.clone(), definition.text()?)?;
    }
    Ok(())
}
