//! Other names and other schemas for views, sequences, indexes and schemas; and what moves with a table.
//!
//! Views are kept as text, which would go on speaking of the old name: what a view uses is not renamed. Defaults of
//! columns are texts, too, but `nextval('…')` in them is ours to change.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{ObjectName, Spanned};
use rustydb_storage::{Catalog, ObjectDef, ObjectKind, TableId, Transaction};

use super::index::find_index;
use super::sequence::{nextval_text, nextval_texts};
use super::view::views_on;
use crate::catalog::information_schema::INFORMATION_SCHEMA;
use crate::error::sqlstate;
use crate::sequences::SequenceDefinition;
use crate::session::{Completion, Statement};
use crate::sql::route::{RelationKind, RelocateStatement, Relocation};
use crate::sql::text::parse::{place, table_name};
use crate::sql::types::DEFAULT_KEY;
use crate::{DEFAULT_SCHEMA, Error, Result};

/// Whether a table, view, sequence or index has a name.
pub(super) fn name_is_taken(catalog: &Catalog, schema: &str, name: &str) -> bool {
    catalog.find(schema, name).is_some()
        || [ObjectKind::View, ObjectKind::Sequence]
            .iter()
            .any(|kind| catalog.find_object(*kind, schema, name).is_some())
        || catalog
            .tables()
            .filter(|table| table.schema_name == schema)
            .any(|table| table.indexes.iter().any(|index| index.name == name))
}

/// `base`, or `base` with the first number that makes it new.
pub(super) fn free_name(catalog: &Catalog, schema: &str, base: &str) -> String {
    (0..)
        .map(|number| if number == 0 { base.to_owned() } else { format!("{base}{number}") })
        .find(|name| !name_is_taken(catalog, schema, name))
        .unwrap_or_else(|| base.to_owned())
}

pub(crate) fn relocate(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    relocate: RelocateStatement,
) -> Result<Completion> {
    let RelocateStatement { kind, name, if_exists, change } = relocate;
    let (tag, missing) = match kind {
        RelationKind::View => ("ALTER VIEW", sqlstate::UNDEFINED_TABLE),
        RelationKind::Index => ("ALTER INDEX", sqlstate::UNDEFINED_TABLE),
        RelationKind::Sequence => ("ALTER SEQUENCE", sqlstate::UNDEFINED_TABLE),
        RelationKind::Schema => ("ALTER SCHEMA", sqlstate::INVALID_SCHEMA_NAME),
    };
    let done = match kind {
        RelationKind::View => move_object(statement, transaction, ObjectKind::View, &name, change),
        RelationKind::Sequence => move_object(statement, transaction, ObjectKind::Sequence, &name, change),
        RelationKind::Index => rename_index(statement, transaction, &name, change),
        RelationKind::Schema => rename_schema(transaction, &name, change),
    };
    match done {
        Err(error) if if_exists && error.sqlstate() == missing => {}
        Err(error) => return Err(error.at(place(name.span()))),
        Ok(()) => {}
    }
    Ok(Completion::new(tag))
}

fn taken(name: &str) -> Error {
    Error::new(sqlstate::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))
}

fn move_object(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    kind: ObjectKind,
    name: &ObjectName,
    change: Relocation,
) -> Result<()> {
    let context = statement.context(transaction.view());
    let (schema, plain_name) = table_name(name)?;
    let found = context.object(kind, schema.as_deref(), &plain_name).cloned();
    let object = found
        .ok_or_else(|| Error::new(sqlstate::UNDEFINED_TABLE, format!("relation \"{plain_name}\" does not exist")))?;
    let (schema, new_name) = match change {
        Relocation::Name(new_name) => (object.schema_name.clone(), new_name),
        Relocation::Schema(schema) => (context.schema_for_new(Some(schema), false)?, object.name.clone()),
    };
    if (&schema, &new_name) == (&object.schema_name, &object.name) {
        return Ok(());
    }
    if super::temporary::is_temporary(&schema) != super::temporary::is_temporary(&object.schema_name) {
        return Err(Error::unsupported("moving something into or out of a temporary schema"));
    }
    let catalog = Arc::clone(context.view().catalog());
    drop(context);
    if name_is_taken(&catalog, &schema, &new_name) {
        return Err(taken(&new_name));
    }
    if kind == ObjectKind::Sequence && schema != object.schema_name && SequenceDefinition::of(&object)?.owner.is_some()
    {
        let message = format!("cannot move an owned sequence into another schema: \"{}\"", object.name);
        return Err(Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
    }
    require_no_views(&catalog, &object.schema_name, &object.name)?;
    put(transaction, &object, schema, new_name)
}

fn require_no_views(catalog: &Catalog, schema: &str, name: &str) -> Result<()> {
    let views = views_on(catalog, schema, name)?;
    let Some(first) = views.first() else { return Ok(()) };
    let message = format!("cannot rename \"{name}\" because view \"{}\" depends on it", first.name);
    Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message).with_hint("Drop the view, and create it again afterwards."))
}

/// Gives an object another name; a sequence stays the default of the columns it numbers.
fn put(transaction: &mut Transaction, object: &ObjectDef, schema: String, name: String) -> Result<()> {
    if object.kind == ObjectKind::Sequence {
        for old in nextval_texts(&object.schema_name, &object.name) {
            change_defaults(transaction, &old, &nextval_text(&schema, &name))?;
        }
    }
    transaction.replace_object(object.id, schema, name, object.definition.clone())?;
    Ok(())
}

fn change_defaults(transaction: &mut Transaction, old: &str, new: &str) -> Result<()> {
    let catalog = Arc::clone(transaction.view().catalog());
    for table in catalog.tables() {
        let uses = |field: &arrow::datatypes::Field| {
            field.metadata().get(DEFAULT_KEY).is_some_and(|default| default.contains(old))
        };
        if !table.schema.fields().iter().any(|field| uses(field)) {
            continue;
        }
        let mut definition = table.to_new();
        let fields = definition.schema.fields().iter().map(|field| {
            let mut metadata = field.metadata().clone();
            if let Some(default) = metadata.get_mut(DEFAULT_KEY) {
                *default = default.replace(old, new);
            }
            Arc::new(field.as_ref().clone().with_metadata(metadata))
        });
        let fields: Vec<_> = fields.collect();
        let metadata = definition.schema.metadata().clone();
        definition.schema = Arc::new(arrow::datatypes::Schema::new_with_metadata(fields, metadata));
        transaction.alter_table(table.id, definition)?;
    }
    Ok(())
}

/// The sequences of a table's columns are always in its schema.
pub(super) fn move_owned_sequences(transaction: &mut Transaction, table: TableId, schema: &str) -> Result<()> {
    let catalog = Arc::clone(transaction.view().catalog());
    for object in catalog.objects().filter(|object| object.kind == ObjectKind::Sequence) {
        let owner = SequenceDefinition::of(object)?.owner;
        if owner.is_some_and(|owner| owner.table == table.0) && object.schema_name != schema {
            if name_is_taken(transaction.view().catalog(), schema, &object.name) {
                return Err(taken(&object.name));
            }
            put(transaction, object, schema.to_owned(), object.name.clone())?;
        }
    }
    Ok(())
}

fn rename_index(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    name: &ObjectName,
    change: Relocation,
) -> Result<()> {
    let Relocation::Name(new_name) = change else {
        return Err(Error::syntax("an index is where its table is: ALTER TABLE … SET SCHEMA moves it"));
    };
    let (schema, plain_name) = table_name(name)?;
    let context = statement.context(transaction.view());
    let catalog = Arc::clone(context.view().catalog());
    let found = context.schemas(schema.as_deref()).find_map(|schema| find_index(&catalog, schema, &plain_name));
    drop(context);
    let (table, index) = found
        .ok_or_else(|| Error::new(sqlstate::UNDEFINED_TABLE, format!("relation \"{plain_name}\" does not exist")))?;
    let definition = catalog.table(table).ok_or_else(|| Error::internal("an index without its table"))?;
    if name_is_taken(&catalog, &definition.schema_name, &new_name) {
        return Err(taken(&new_name));
    }
    super::index::rename_index(transaction, definition, index, new_name)
}

fn rename_schema(transaction: &mut Transaction, name: &ObjectName, change: Relocation) -> Result<()> {
    let Relocation::Name(new_name) = change else {
        return Err(Error::syntax("a schema is in no schema"));
    };
    let (_, old_name) = table_name(name)?;
    let catalog = Arc::clone(transaction.view().catalog());
    if [DEFAULT_SCHEMA, INFORMATION_SCHEMA].contains(&old_name.as_str()) {
        return Err(Error::unsupported(format!("another name for schema \"{old_name}\"")));
    }
    let missing = || Error::new(sqlstate::INVALID_SCHEMA_NAME, format!("schema \"{old_name}\" does not exist"));
    let schema = catalog.find_object(ObjectKind::Schema, "", &old_name).ok_or_else(missing)?;
    super::schema::check_name(&new_name)?;
    if [DEFAULT_SCHEMA, INFORMATION_SCHEMA].contains(&new_name.as_str())
        || catalog.find_object(ObjectKind::Schema, "", &new_name).is_some()
    {
        return Err(Error::new(sqlstate::DUPLICATE_SCHEMA, format!("schema \"{new_name}\" already exists")));
    }
    transaction.replace_object(schema.id, String::new(), new_name.clone(), schema.definition.clone())?;
    for object in catalog.objects().filter(|object| object.schema_name == old_name) {
        require_no_views(&catalog, &old_name, &object.name)?;
        put(transaction, object, new_name.clone(), object.name.clone())?;
    }
    for table in catalog.tables().filter(|table| table.schema_name == old_name) {
        require_no_views(&catalog, &old_name, &table.name)?;
        let current = transaction.view().catalog().table(table.id).map(|table| table.to_new());
        let mut definition = current.ok_or_else(|| Error::internal("a table of a renamed schema is gone"))?;
        definition.schema_name = new_name.clone();
        transaction.alter_table(table.id, definition)?;
    }
    Ok(())
}
