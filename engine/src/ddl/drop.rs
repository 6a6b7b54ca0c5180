//! DROP TABLE, VIEW, SEQUENCE and SCHEMA, with what depends on them.
//!
//! | dropped | depends on it |
//! |---|---|
//! | table | views that name it, foreign keys that refer to it; its own sequences go with it |
//! | view | views that name it |
//! | sequence | columns whose default it is |
//! | schema | everything in it |
//!
//! RESTRICT, the default, refuses if anything depends on what is dropped and is not dropped by the same statement (2BP01);
//! CASCADE drops it as well: a foreign key and a default go, the table they are of stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{ObjectName, Spanned};
use rustydb_storage::{Catalog, NewTable, ObjectDef, ObjectId, ObjectKind, TableDef, TableId, Transaction};

use super::sequence::nextval_texts;
use super::view::views_on;
use crate::catalog::information_schema::INFORMATION_SCHEMA;
use crate::error::sqlstate;
use crate::sequences::SequenceDefinition;
use crate::session::{Completion, Statement};
use crate::sql::context::StatementContext;
use crate::sql::route::{DropKind, DropStatement};
use crate::sql::text::parse::{place, table_name};
use crate::sql::types::DEFAULT_KEY;
use crate::{DEFAULT_SCHEMA, Error, Result};

/// All that a DROP takes with it.
#[derive(Default)]
struct Doomed {
    tables: BTreeSet<TableId>,
    objects: BTreeSet<ObjectId>,
    /// What was not named and would go only because of CASCADE: `view v depends on table t`.
    dependents: Vec<String>,
    /// Foreign keys of tables that stay.
    foreign_keys: Vec<(TableId, String)>,
    /// Defaults of columns of tables that stay.
    defaults: Vec<(TableId, usize)>,
}

pub(crate) fn drop_relations(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    drop_statement: DropStatement,
) -> Result<Completion> {
    let doomed = Doomed::of(&statement.context(transaction.view()), &drop_statement)?;
    let DropStatement { kind, names, if_exists: _, cascade } = drop_statement;
    if !cascade && !doomed.dependents.is_empty() {
        let what = names.first().map(ToString::to_string).unwrap_or_default();
        let message = match names.len() {
            1 => format!("cannot drop {} {what} because other objects depend on it", kind.noun()),
            _ => "cannot drop desired objects because other objects depend on them".to_owned(),
        };
        return Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message)
            .with_detail(doomed.dependents.join("\n"))
            .with_hint("Use DROP … CASCADE to drop the dependent objects too."));
    }
    doomed.drop_from(transaction)?;
    Ok(Completion::new(kind.tag()))
}

/// The tables that a DROP takes with it or changes. None if it is going to be refused.
pub(super) fn changed_tables(context: &StatementContext, drop_statement: &DropStatement) -> Result<BTreeSet<TableId>> {
    let Doomed { tables, objects: _, dependents, foreign_keys, defaults } = Doomed::of(context, drop_statement)?;
    if !drop_statement.cascade && !dependents.is_empty() {
        return Ok(BTreeSet::new());
    }
    let of_keys = foreign_keys.into_iter().map(|(table, _)| table);
    let of_defaults = defaults.into_iter().map(|(table, _)| table);
    Ok(tables.into_iter().chain(of_keys).chain(of_defaults).collect())
}

/// Drops one table as DROP TABLE … RESTRICT does: with its own sequences, and not if anything depends on it.
pub(crate) fn drop_table(transaction: &mut Transaction, table: &TableDef) -> Result<()> {
    let catalog = Arc::clone(transaction.view().catalog());
    let mut doomed = Doomed::default();
    doomed.tables.insert(table.id);
    doomed.close(&catalog)?;
    if !doomed.dependents.is_empty() {
        let message = format!("cannot replace table \"{}\" because other objects depend on it", table.name);
        return Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message)
            .with_detail(doomed.dependents.join("\n"))
            .with_hint("Drop them first, or empty the table and append to it."));
    }
    doomed.drop_from(transaction)
}

fn find_table(context: &StatementContext, name: &ObjectName) -> Result<Arc<TableDef>> {
    let (schema, plain_name) = table_name(name)?;
    context.table(schema.as_deref(), &plain_name).cloned()
}

fn find_object(context: &StatementContext, kind: ObjectKind, name: &ObjectName) -> Result<Arc<ObjectDef>> {
    let (schema, plain_name) = table_name(name)?;
    if let Some(object) = context.object(kind, schema.as_deref(), &plain_name) {
        return Ok(Arc::clone(object));
    }
    let what = if kind == ObjectKind::View { "view" } else { "sequence" };
    if context.table(schema.as_deref(), &plain_name).is_ok() {
        let message = format!("\"{plain_name}\" is not a {what}");
        return Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, message).with_hint("Use DROP TABLE to remove a table."));
    }
    Err(Error::new(sqlstate::UNDEFINED_TABLE, format!("{what} \"{plain_name}\" does not exist")))
}

fn find_schema(catalog: &Catalog, name: &ObjectName) -> Result<Arc<ObjectDef>> {
    let (_, plain_name) = table_name(name)?;
    if [DEFAULT_SCHEMA, INFORMATION_SCHEMA].contains(&plain_name.as_str()) {
        let message = format!("cannot drop schema {plain_name} because it is required by the database system");
        return Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message));
    }
    catalog
        .find_object(ObjectKind::Schema, "", &plain_name)
        .cloned()
        .ok_or_else(|| Error::new(sqlstate::INVALID_SCHEMA_NAME, format!("schema \"{plain_name}\" does not exist")))
}

fn is_missing(error: &Error) -> bool {
    [sqlstate::UNDEFINED_TABLE, sqlstate::INVALID_SCHEMA_NAME].contains(&error.sqlstate())
}

impl Doomed {
    /// What a statement names, with everything that depends on it.
    fn of(context: &StatementContext, drop_statement: &DropStatement) -> Result<Doomed> {
        let DropStatement { kind, names, if_exists, cascade: _ } = drop_statement;
        let catalog = context.view().catalog();
        let mut doomed = Doomed::default();
        for name in names {
            let found = match kind {
                DropKind::Table => find_table(context, name).map(|table| {
                    doomed.tables.insert(table.id);
                }),
                DropKind::View => find_object(context, ObjectKind::View, name).map(|view| {
                    doomed.objects.insert(view.id);
                }),
                DropKind::Sequence => find_object(context, ObjectKind::Sequence, name).map(|sequence| {
                    doomed.objects.insert(sequence.id);
                }),
                DropKind::Schema => find_schema(catalog, name).map(|schema| {
                    doomed.objects.insert(schema.id);
                }),
            };
            match found {
                Err(error) if *if_exists && is_missing(&error) => {}
                other => other.map_err(|error| error.at(place(name.span())))?,
            }
        }
        doomed.close(catalog)?;
        Ok(doomed)
    }

    /// Adds everything that depends on what is in it, until nothing new turns up.
    fn close(&mut self, catalog: &Catalog) -> Result<()> {
        // In a chain of views every round adds one; it need not go over those before it again.
        let (mut known_objects, mut known_tables) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let before = (self.tables.len(), self.objects.len());
            let is_new =
                |object: &&Arc<ObjectDef>| self.objects.contains(&object.id) && known_objects.insert(object.id);
            for object in catalog.objects().filter(is_new).cloned().collect::<Vec<_>>() {
                match object.kind {
                    ObjectKind::Schema => self.add_contents(catalog, &object),
                    ObjectKind::View => self.add_views(catalog, "view", &object.schema_name, &object.name)?,
                    ObjectKind::Sequence => self.add_defaults(catalog, &object),
                    ObjectKind::Comment | ObjectKind::Routine => {}
                }
            }
            let is_new = |table: &&Arc<TableDef>| self.tables.contains(&table.id) && known_tables.insert(table.id);
            for table in catalog.tables().filter(is_new).cloned().collect::<Vec<_>>() {
                self.add_views(catalog, "table", &table.schema_name, &table.name)?;
                for object in catalog.objects().filter(|object| object.kind == ObjectKind::Sequence) {
                    let owner = SequenceDefinition::of(object)?.owner;
                    if owner.is_some_and(|owner| owner.table == table.id.0) {
                        self.objects.insert(object.id);
                    }
                }
            }
            if before == (self.tables.len(), self.objects.len()) {
                break;
            }
        }
        for child in catalog.tables().filter(|child| !self.tables.contains(&child.id)) {
            for foreign_key in child.foreign_keys.iter().filter(|key| self.tables.contains(&key.parent)) {
                let parent = catalog.table(foreign_key.parent).map(|parent| parent.name.as_str()).unwrap_or_default();
                self.dependents
                    .push(format!("constraint {} on table {} depends on table {parent}", foreign_key.name, child.name));
                self.foreign_keys.push((child.id, foreign_key.name.clone()));
            }
        }
        let stays = |(table, _): &(TableId, usize)| !self.tables.contains(table);
        self.defaults = self.defaults.iter().copied().filter(stays).collect();
        for (table, column) in &self.defaults {
            if let Some(table) = catalog.table(*table) {
                let column = table.schema.field(*column).name();
                self.dependents
                    .push(format!("default value for column {column} of table {} depends on it", table.name));
            }
        }
        Ok(())
    }

    fn add_contents(&mut self, catalog: &Catalog, schema: &ObjectDef) {
        for table in catalog.tables().filter(|table| table.schema_name == schema.name) {
            if self.tables.insert(table.id) {
                self.dependents.push(format!("table {}.{} depends on schema {}", schema.name, table.name, schema.name));
            }
        }
        for object in catalog.objects().filter(|object| object.schema_name == schema.name) {
            if self.objects.insert(object.id) {
                self.dependents.push(format!("{}.{} depends on schema {}", schema.name, object.name, schema.name));
            }
        }
    }

    fn add_views(&mut self, catalog: &Catalog, what: &str, schema: &str, name: &str) -> Result<()> {
        for view in views_on(catalog, schema, name)? {
            if self.objects.insert(view.id) {
                self.dependents.push(format!("view {} depends on {what} {name}", view.name));
            }
        }
        Ok(())
    }

    fn add_defaults(&mut self, catalog: &Catalog, sequence: &ObjectDef) {
        let texts = nextval_texts(&sequence.schema_name, &sequence.name);
        for table in catalog.tables() {
            for (column, field) in table.schema.fields().iter().enumerate() {
                let default = field.metadata().get(DEFAULT_KEY);
                let uses = default.is_some_and(|default| texts.iter().any(|text| default.contains(text)));
                if uses && !self.defaults.contains(&(table.id, column)) {
                    self.defaults.push((table.id, column));
                }
            }
        }
    }

    fn drop_from(self, transaction: &mut Transaction) -> Result<()> {
        for (table, name) in self.foreign_keys {
            change_definition(transaction, table, |definition| {
                definition.foreign_keys.retain(|foreign_key| foreign_key.name != name);
            })?;
        }
        for (table, column) in self.defaults {
            change_definition(transaction, table, |definition| {
                definition.schema = without_default(definition, column);
            })?;
        }
        for object in self.objects {
            transaction.drop_object(object)?;
        }
        transaction.drop_tables(self.tables)?;
        Ok(())
    }
}

pub(super) fn change_definition(
    transaction: &mut Transaction,
    table: TableId,
    change: impl FnOnce(&mut NewTable),
) -> Result<()> {
    let definition = transaction.view().catalog().table(table).map(|table| table.to_new());
    let mut definition = definition.ok_or_else(|| Error::internal("a table to change is gone"))?;
    change(&mut definition);
    transaction.alter_table(table, definition)?;
    Ok(())
}

fn without_default(definition: &NewTable, column: usize) -> arrow::datatypes::SchemaRef {
    let fields = definition.schema.fields().iter().enumerate().map(|(index, field)| {
        let mut metadata = field.metadata().clone();
        if index == column {
            metadata.remove(DEFAULT_KEY);
        }
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    });
    let fields: Vec<_> = fields.collect();
    Arc::new(arrow::datatypes::Schema::new_with_metadata(fields, definition.schema.metadata().clone()))
}
