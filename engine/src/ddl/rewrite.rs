//! Writing a table anew in another shape, for the changes of ALTER TABLE that its rows must follow.
//!
//! ```text
//!  old table ─► renamed away ─► SELECT values FROM old ─► load ─► new table under the old name ─► old one dropped
//! ```
//! All of it is one transaction: others see the old table until it commits, and if they change it meanwhile the commit
//! fails. Foreign keys of other tables and the sequences of its columns go over to the new table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::ast::Expr;
use futures::StreamExt;
use rustydb_storage::{ForeignKey, NewIndex, NewTable, ObjectKind, PRIMARY_KEY_NAME, TableDef, TableId, Transaction};

use super::declaration::columns_in;
use super::view::{ViewDefinition, views_on};
use crate::constraints::{CHECKS_KEY, checks_in, checks_of, checks_text, generated_of, is_hidden};
use crate::dml::insert::load;
use crate::dml::modify::target_factor;
use crate::dml::rows::RowCheck;
use crate::dml::syntax::{alone, column, named, quoted, select};
use crate::error::sqlstate;
use crate::sequences::{Owner, SequenceDefinition};
use crate::session::Statement;
use crate::sql::plan::{make_ready, plan_any_width};
use crate::{Error, Result};

/// The new shape of a table, and where its values come from.
pub(super) struct Rewrite {
    pub(super) fields: Vec<Field>,
    pub(super) metadata: HashMap<String, String>,
    pub(super) primary_key: Vec<usize>,
    foreign_keys: Vec<ForeignKey>,
    indexes: Vec<NewIndex>,
    /// For each new column, an expression over the old table's.
    pub(super) values: Vec<Expr>,
    /// Where each old column is now.
    places: Vec<Option<usize>>,
    /// Whether views that no longer work go, too.
    pub(super) drops_views: bool,
    /// Whether the columns there were have the types they had.
    pub(super) keeps_types: bool,
}

impl Rewrite {
    /// The table as it is.
    pub(super) fn of(table: &TableDef) -> Self {
        let NewTable { schema, primary_key, foreign_keys, indexes, .. } = table.to_new();
        let alias = quoted(&table.name);
        Rewrite {
            fields: schema.fields().iter().map(|field| field.as_ref().clone()).collect(),
            metadata: schema.metadata().clone(),
            primary_key,
            foreign_keys,
            indexes,
            values: schema.fields().iter().map(|field| column(&alias, field.name())).collect(),
            places: (0..schema.fields().len()).map(Some).collect(),
            drops_views: false,
            keeps_types: true,
        }
    }

    /// Takes over a declaration that has the old columns first.
    pub(super) fn become_table(&mut self, table: NewTable) {
        let NewTable { schema_name: _, name: _, schema, primary_key, foreign_keys, indexes } = table;
        self.fields = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        self.metadata = schema.metadata().clone();
        self.primary_key = primary_key;
        self.foreign_keys = foreign_keys;
        self.indexes = indexes;
    }

    /// Leaves hidden columns out, and the indexes on them.
    pub(super) fn drop_hidden(&mut self, table: &TableDef, chosen: impl Fn(usize) -> bool) {
        let is_gone = |column: usize| is_hidden(table.schema.field(column)) && chosen(column);
        let gone: Vec<usize> = (0..table.schema.fields().len()).filter(|column| is_gone(*column)).collect();
        self.leave_out(&gone);
    }

    /// Leaves a column out, and the constraints it is part of.
    pub(super) fn drop_column(&mut self, table: &TableDef, index: usize, cascade: bool) -> Result<()> {
        let name = table.schema.field(index).name().clone();
        let mut gone = vec![index];
        for (other, field) in table.schema.fields().iter().enumerate() {
            if let Some(syntax) = generated_of(field)?
                && columns_in(&syntax).contains(&name)
            {
                if !cascade {
                    let message =
                        format!("cannot drop column {name} of table {} because other objects depend on it", table.name);
                    return Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message)
                        .with_detail(format!(
                            "column {} of table {} depends on column {name}",
                            field.name(),
                            table.name
                        ))
                        .with_hint("Use DROP … CASCADE to drop the dependent objects too."));
                }
                gone.push(other);
            }
        }
        let mut checks = checks_of(table)?;
        for column in &gone {
            let name = table.schema.field(*column).name();
            let mut kept = Vec::new();
            for check in checks {
                if !columns_in(&check.syntax()?).contains(name) {
                    kept.push(check);
                }
            }
            checks = kept;
        }
        self.metadata.remove(CHECKS_KEY);
        self.metadata.extend(checks_text(&checks)?.map(|text| (CHECKS_KEY.to_owned(), text)));
        if self.primary_key.iter().any(|column| gone.contains(column)) {
            self.primary_key.clear();
            self.metadata.remove(PRIMARY_KEY_NAME);
        }
        self.leave_out(&gone);
        Ok(())
    }

    /// Leaves columns out that are in no primary key.
    fn leave_out(&mut self, gone: &[usize]) {
        self.foreign_keys.retain(|key| key.columns.iter().all(|column| !gone.contains(column)));
        self.indexes.retain(|index| index.columns.iter().all(|column| !gone.contains(column)));
        let mut place = 0;
        for (index, slot) in self.places.iter_mut().enumerate() {
            *slot = (!gone.contains(&index)).then_some(place);
            place += usize::from(slot.is_some());
        }
        let places = self.places.clone();
        let moved = |column: &mut usize| *column = places[*column].unwrap_or_default();
        self.primary_key.iter_mut().for_each(moved);
        self.foreign_keys.iter_mut().flat_map(|key| key.columns.iter_mut()).for_each(moved);
        self.indexes.iter_mut().flat_map(|index| index.columns.iter_mut()).for_each(moved);
        let mut kept = places.iter().map(Option::is_some);
        self.fields.retain(|_| kept.next().unwrap_or(true));
        let mut kept = places.iter().map(Option::is_some);
        self.values.retain(|_| kept.next().unwrap_or(true));
    }
}

/// Writes a table anew. Returns its successor.
pub(super) async fn rewrite(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    change: Rewrite,
) -> Result<Arc<TableDef>> {
    let Rewrite {
        fields,
        mut metadata,
        primary_key,
        mut foreign_keys,
        indexes,
        values,
        places,
        drops_views,
        keeps_types,
    } = change;
    transaction.require_unchanged(table.id);
    let old_views = {
        let view = transaction.view();
        all_views_on(view.catalog(), &table.schema_name, &table.name)?
    };
    let ready = {
        let context = statement.context(transaction.view()).with_target(table);
        let alias = quoted(&table.name);
        let items = values.into_iter().enumerate();
        let items = items.map(|(index, value)| named(value, &format!("new {index}"))).collect();
        let query = select(None, items, vec![alone(target_factor(table, &alias))], None);
        make_ready(&context, plan_any_width(&context, query)?).await?
    };
    for foreign_key in foreign_keys.iter_mut().filter(|key| key.parent == table.id) {
        foreign_key.parent = TableId::SELF;
    }
    for foreign_key in foreign_keys.iter_mut().filter(|key| key.parent == TableId::SELF) {
        let moved = |column: &mut usize| *column = places.get(*column).copied().flatten().unwrap_or(*column);
        foreign_key.parent_columns.iter_mut().for_each(moved);
    }
    let held_back = NotValidated::take(&mut foreign_keys, &mut metadata, &table.name)?;
    // Two names may not be the same, not even for a moment.
    let mut aside = table.to_new();
    aside.name = format!("rustydb.altered.{}", table.id.0);
    transaction.alter_table(table.id, aside)?;
    let schema = Arc::new(Schema::new_with_metadata(key_fields(fields, &primary_key), metadata));
    let (schema_name, name) = (table.schema_name.clone(), table.name.clone());
    let new_table = NewTable { schema_name, name, schema, primary_key, foreign_keys, indexes };
    let successor = transaction.create_table(new_table)?;
    let children = referring(transaction, table.id);
    statement.deferred.lock().table_is_replaced(table.id, successor.id, &children);
    for child in children {
        let mut definition = child.to_new();
        for foreign_key in definition.foreign_keys.iter_mut().filter(|key| key.parent == table.id) {
            foreign_key.parent = successor.id;
            let moved = |column: &mut usize| *column = places.get(*column).copied().flatten().unwrap_or(*column);
            foreign_key.parent_columns.iter_mut().for_each(moved);
        }
        transaction.require_unchanged(child.id);
        transaction.alter_table(child.id, definition)?;
    }
    let names: BTreeMap<&str, bool> = table
        .schema
        .fields()
        .iter()
        .zip(&places)
        .map(|(field, place)| (field.name().as_str(), place.is_some()))
        .collect();
    follow_sequences(transaction, table.id, successor.id, |column| {
        names.get(column).copied().unwrap_or(true).then(|| column.to_owned())
    })?;
    transaction.drop_table(table.id)?;
    let check = RowCheck::new(&statement.context(transaction.view()), &successor)?;
    let rows = statement
        .start(ready)
        .map(move |batch| batch.and_then(|batch| check.conform(batch.columns(), batch.num_rows())));
    load(statement, transaction, &successor, rows).await?;
    if let Some(held_back) = held_back {
        held_back.give_back(transaction, successor.id)?;
    }
    check_views(statement, transaction, old_views, drops_views, keeps_types, &table.name)?;
    let view = transaction.view();
    let successor = view.catalog().table(successor.id).cloned();
    successor.ok_or_else(|| Error::internal("a rewritten table is gone"))
}

/// The constraints of a table some of which are `NOT VALID`. Rows that such a constraint has never looked at move without
/// being looked at.
struct NotValidated {
    foreign_keys: Vec<ForeignKey>,
    checks: Option<String>,
}

impl NotValidated {
    /// Takes those out that are not valid, if there are any, and keeps all.
    fn take(
        foreign_keys: &mut Vec<ForeignKey>,
        metadata: &mut HashMap<String, String>,
        table: &str,
    ) -> Result<Option<Self>> {
        let checks = checks_in(metadata, table)?;
        if !foreign_keys.iter().any(|key| key.not_validated) && !checks.iter().any(|check| check.not_validated) {
            return Ok(None);
        }
        let all = NotValidated { foreign_keys: foreign_keys.clone(), checks: metadata.remove(CHECKS_KEY) };
        foreign_keys.retain(|key| !key.not_validated);
        let valid: Vec<_> = checks.into_iter().filter(|check| !check.not_validated).collect();
        metadata.extend(checks_text(&valid)?.map(|text| (CHECKS_KEY.to_owned(), text)));
        Ok(Some(all))
    }

    /// Gives them all to the table that has its rows now.
    fn give_back(self, transaction: &mut Transaction, table: TableId) -> Result<()> {
        let NotValidated { mut foreign_keys, checks } = self;
        for foreign_key in foreign_keys.iter_mut().filter(|key| key.parent == TableId::SELF) {
            foreign_key.parent = table;
        }
        let current = transaction.view().catalog().table(table).cloned();
        let current = current.ok_or_else(|| Error::internal("a rewritten table is gone"))?;
        let mut definition = current.to_new();
        let mut schema = definition.schema.as_ref().clone();
        schema.metadata.extend(checks.map(|text| (CHECKS_KEY.to_owned(), text)));
        definition.schema = Arc::new(schema);
        definition.foreign_keys = foreign_keys;
        transaction.alter_table(table, definition)?;
        Ok(())
    }
}

/// A key's columns forbid NULL.
fn key_fields(fields: Vec<Field>, primary_key: &[usize]) -> Vec<Field> {
    let in_key = |(index, field): (usize, Field)| match primary_key.contains(&index) {
        true => field.with_nullable(false),
        false => field,
    };
    fields.into_iter().enumerate().map(in_key).collect()
}

fn referring(transaction: &Transaction, parent: TableId) -> Vec<Arc<TableDef>> {
    let view = transaction.view();
    view.catalog().referring_tables(parent).cloned().collect()
}

/// Gives the sequences of a table's columns to another table; `name` tells the column's new name, or that it is gone.
pub(super) fn follow_sequences(
    transaction: &mut Transaction,
    from: TableId,
    to: TableId,
    name: impl Fn(&str) -> Option<String>,
) -> Result<()> {
    let catalog = Arc::clone(transaction.view().catalog());
    for object in catalog.objects().filter(|object| object.kind == ObjectKind::Sequence) {
        let definition = SequenceDefinition::of(object)?;
        let Some(owner) = definition.owner.as_ref().filter(|owner| owner.table == from.0) else { continue };
        let Some(column) = name(&owner.column) else {
            transaction.drop_object(object.id)?;
            continue;
        };
        let owner = Some(Owner { table: to.0, column, identity: owner.identity });
        let definition = SequenceDefinition { owner, ..definition };
        transaction.replace_object(object.id, object.schema_name.clone(), object.name.clone(), definition.text()?)?;
    }
    Ok(())
}

/// The views on a relation and the views on those.
fn all_views_on(
    catalog: &rustydb_storage::Catalog,
    schema: &str,
    name: &str,
) -> Result<Vec<Arc<rustydb_storage::ObjectDef>>> {
    let mut all: Vec<Arc<rustydb_storage::ObjectDef>> = Vec::new();
    let mut waiting = views_on(catalog, schema, name)?;
    while let Some(view) = waiting.pop() {
        if all.iter().all(|known| known.id != view.id) {
            waiting.extend(views_on(catalog, &view.schema_name, &view.name)?);
            all.push(view);
        }
    }
    Ok(all)
}

/// Each view must still work and have the columns it had; or it goes, if that was asked for.
fn check_views(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    views: Vec<Arc<rustydb_storage::ObjectDef>>,
    drop_them: bool,
    keeps_types: bool,
    table: &str,
) -> Result<()> {
    for view in views {
        let definition = ViewDefinition::of(&view)?;
        let works = {
            let context = statement.context(transaction.view());
            definition.still_works(&context)?
        };
        if works {
            continue;
        }
        if drop_them {
            transaction.drop_object(view.id)?;
        } else if keeps_types {
            let message = format!("cannot change table {table} because view {} depends on it", view.name);
            return Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message)
                .with_hint("Use DROP … CASCADE to drop the dependent objects too."));
        } else {
            let message = format!("cannot alter type of a column used by view \"{}\"", view.name);
            return Err(Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
                .with_hint("Drop the view, and create it again afterwards."));
        }
    }
    Ok(())
}
