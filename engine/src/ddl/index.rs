//! CREATE INDEX and DROP INDEX.
//!
//! An index over plain columns and all rows is the store's. What an index over expressions or a part of the rows is
//! about is kept as text with the table, and the store has an index over hidden columns that are computed from it:
//!
//! ```text
//!   CREATE UNIQUE INDEX i ON t (lower(a), b) WHERE c
//!      ⇒  "__index i: lower(a)"  GENERATED ALWAYS AS (CASE WHEN c THEN lower(a) END) STORED   hidden
//!      ⇒  a unique index over "__index i: lower(a)", b
//! ```
//! A row that is not in the index has a NULL there, and is like no other. Scans name the hidden columns where a condition
//! names what they hold (`catalog/expression_index.rs`).

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::sql::sqlparser::ast::{CreateIndex, Expr, IndexColumn, IndexType, ObjectName, OrderByExpr, Spanned};
use rustydb_storage::{Catalog, IndexId, NewIndex, TableDef, TableId, Transaction, canonical_type};

use super::relocate::{free_name, name_is_taken};
use super::rewrite::{Rewrite, rewrite};
use crate::constraints::{
    GENERATED_KEY, HIDDEN_KEY, HIDDEN_PREFIX, IndexText, index_texts, is_hidden, set_index_texts,
};
use crate::dml::defaults::{column_index, compile_over, is_volatile, type_over};
use crate::dml::foreign_key::references_to;
use crate::dml::syntax::{cast, null};
use crate::error::sqlstate;
use crate::session::{Completion, Statement};
use crate::sql::check::refuse;
use crate::sql::text::parse::{fold, parse_expression, place, table_name};
use crate::sql::types::name_of;
use crate::{Error, Result};

pub(crate) async fn create_index(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    create: CreateIndex,
) -> Result<Completion> {
    let CreateIndex {
        name,
        table_name: on,
        using,
        columns,
        unique,
        // Whether writers are waited for and kept waiting: see `ddl::locks`.
        concurrently: _,
        if_not_exists,
        include,
        nulls_distinct,
        with,
        predicate,
        index_options,
        alter_options,
    } = create;
    refuse(using.is_some_and(|using| !matches!(using, IndexType::BTree)), "an index that is not a btree")?;
    refuse(!include.is_empty(), "INCLUDE in CREATE INDEX")?;
    refuse(!with.is_empty() || !index_options.is_empty() || !alter_options.is_empty(), "an option of an index")?;
    let context = statement.context(transaction.view());
    let (schema, plain_name) = table_name(&on)?;
    let table = context.table(schema.as_deref(), &plain_name).map_err(|error| error.at(place(on.span())))?;
    let table = Arc::clone(table);
    let mut keys: Vec<Expr> = Vec::with_capacity(columns.len());
    for IndexColumn { column, operator_class } in columns {
        refuse(operator_class.is_some(), "an operator class in CREATE INDEX")?;
        // An index can be read in both directions: ASC, DESC and the place of NULLs change nothing.
        let OrderByExpr { expr, options: _, with_fill: _ } = column;
        keys.push(expr);
    }
    let catalog = Arc::clone(context.view().catalog());
    drop(context);
    let name = match name {
        Some(name) => table_name(&name)?.1,
        None => {
            let names: Vec<String> = keys.iter().map(name_of_key).collect();
            free_name(&catalog, &table.schema_name, &format!("{}_{}_idx", table.name, names.join("_")))
        }
    };
    if name_is_taken(&catalog, &table.schema_name, &name) || find_index(&catalog, &table.schema_name, &name).is_some() {
        if if_not_exists {
            return Ok(Completion::new("CREATE INDEX"));
        }
        return Err(Error::new(sqlstate::DUPLICATE_TABLE, format!("relation \"{name}\" already exists")));
    }
    let nulls_distinct = nulls_distinct.unwrap_or(true);
    let plain = keys.iter().all(|key| matches!(key, Expr::Identifier(_))) && predicate.is_none();
    if plain {
        let mut columns = Vec::with_capacity(keys.len());
        for key in &keys {
            let Expr::Identifier(ident) = key else { continue };
            columns.push(column_index(&table, &fold(ident)).map_err(|error| error.at(place(ident.span)))?);
        }
        let index = NewIndex { nulls_distinct, ..NewIndex::new(name, columns, unique) };
        transaction.create_index(table.id, index).await?;
        return Ok(Completion::new("CREATE INDEX"));
    }
    let keys = keys.iter().map(ToString::to_string).collect();
    let predicate = predicate.map(|predicate| predicate.to_string());
    let text = IndexText { name, keys, predicate, unique, nulls_distinct };
    create_from_text(statement, transaction, &table, text).await?;
    Ok(Completion::new("CREATE INDEX"))
}

/// The part of an index's own name that a key gives it, as in PostgreSQL.
pub(super) fn name_of_key(key: &Expr) -> String {
    match key {
        Expr::Identifier(ident) => fold(ident),
        Expr::Function(function) => {
            function.name.0.last().and_then(|part| part.as_ident()).map_or_else(|| "expr".to_owned(), fold)
        }
        Expr::Nested(inner) => name_of_key(inner),
        _ => "expr".to_owned(),
    }
}

/// Creates an index over expressions or a part of the rows. Returns the table as it is then.
pub(super) async fn create_from_text(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    text: IndexText,
) -> Result<Arc<TableDef>> {
    refuse(
        text.unique && !text.nulls_distinct && text.predicate.is_some(),
        "NULLS NOT DISTINCT in a partial unique index",
    )?;
    check_text(statement, transaction, table, &text)?;
    let mut texts = index_texts(table)?;
    texts.push(text.clone());
    let context = statement.context(transaction.view());
    let mut change = Rewrite::of(table);
    set_index_texts(&mut change.metadata, &texts)?;
    let mut columns = Vec::with_capacity(text.keys.len());
    for (number, key) in text.keys.iter().enumerate() {
        let syntax = parse_expression(key)?;
        if let Expr::Identifier(ident) = &syntax
            && (text.predicate.is_none() || number > 0)
        {
            columns.push(column_index(table, &fold(ident))?);
            continue;
        }
        let data_type = type_over(&context, table, syntax)?;
        let stored = canonical_type(&data_type)
            .ok_or_else(|| Error::unsupported(format!("an index on a value of type {}", name_of(&data_type))))?;
        let generated = match &text.predicate {
            None => key.clone(),
            Some(predicate) => format!("CASE WHEN {predicate} THEN {key} END"),
        };
        let name = format!("{HIDDEN_PREFIX}{}: {key}", text.name);
        let metadata = [(HIDDEN_KEY, text.name.clone()), (GENERATED_KEY, generated)];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        columns.push(change.fields.len());
        change.values.push(cast(null(), &name_of(&stored))?);
        change.fields.push(Field::new(name, stored, true).with_metadata(metadata));
    }
    drop(context);
    let successor = rewrite(statement, transaction, table, change).await?;
    let IndexText { name, unique, nulls_distinct, .. } = text;
    let index = NewIndex { nulls_distinct, ..NewIndex::new(name, columns, unique) };
    transaction.create_index(successor.id, index).await?;
    current(transaction, successor.id)
}

fn current(transaction: &Transaction, table: TableId) -> Result<Arc<TableDef>> {
    let table = transaction.view().catalog().table(table).cloned();
    table.ok_or_else(|| Error::internal("an indexed table is gone"))
}

fn check_text(statement: &Statement<'_>, transaction: &Transaction, table: &TableDef, text: &IndexText) -> Result<()> {
    let context = statement.context(transaction.view());
    for key in &text.keys {
        let syntax = parse_expression(key)?;
        if let Expr::Identifier(ident) = &syntax {
            column_index(table, &fold(ident))?;
            continue;
        }
        let data_type = type_over(&context, table, syntax.clone())?;
        compile_over(&context, table, syntax.clone(), Some(&data_type))?;
        if is_volatile(&context, table, syntax)? {
            let message = "functions in index expression must be marked IMMUTABLE";
            return Err(Error::new(sqlstate::INVALID_OBJECT_DEFINITION, message));
        }
    }
    if let Some(predicate) = &text.predicate {
        let syntax = parse_expression(predicate)?;
        compile_over(&context, table, syntax.clone(), None)
            .map_err(|error| error.map_message(|text| text.replace("of CHECK", "of WHERE")))?;
        if is_volatile(&context, table, syntax)? {
            let message = "functions in index predicate must be marked IMMUTABLE";
            return Err(Error::new(sqlstate::INVALID_OBJECT_DEFINITION, message));
        }
    }
    Ok(())
}

/// The table without its hidden columns and the indexes on them, and what these are made again from.
pub(super) async fn without_hidden(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
) -> Result<(Arc<TableDef>, Vec<IndexText>)> {
    let texts = index_texts(table)?;
    if !table.schema.fields().iter().any(|field| is_hidden(field)) {
        return Ok((Arc::clone(table), texts));
    }
    let mut change = Rewrite::of(table);
    set_index_texts(&mut change.metadata, &[])?;
    change.drop_hidden(table, |_| true);
    Ok((rewrite(statement, transaction, table, change).await?, texts))
}

/// An index by its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Stored(IndexId),
    /// The place among the table's [`index_texts`] of one that nothing is stored for: older releases did so with those that
    /// are not unique.
    Noted(usize),
}

pub(crate) fn find_index(catalog: &Catalog, schema: &str, name: &str) -> Option<(TableId, Found)> {
    let mut tables = catalog.tables().filter(|table| table.schema_name == schema);
    tables.find_map(|table| {
        if let Some(index) = table.indexes.iter().find(|index| index.name == name) {
            return Some((table.id, Found::Stored(index.id)));
        }
        let place = index_texts(table).ok()?.iter().position(|text| text.name == name)?;
        Some((table.id, Found::Noted(place)))
    })
}

pub(super) fn rename_index(transaction: &mut Transaction, table: &TableDef, index: Found, name: String) -> Result<()> {
    let mut texts = index_texts(table)?;
    let old = match index {
        Found::Noted(place) => texts[place].name.clone(),
        Found::Stored(id) => {
            let old = table.index(id).map(|index| index.name.clone()).unwrap_or_default();
            transaction.rename_index(table.id, id, name.clone())?;
            old
        }
    };
    let Some(text) = texts.iter_mut().find(|text| text.name == old) else { return Ok(()) };
    text.name = name;
    let mut definition = current(transaction, table.id)?.to_new();
    let mut schema = definition.schema.as_ref().clone();
    set_index_texts(&mut schema.metadata, &texts)?;
    definition.schema = Arc::new(schema);
    transaction.alter_table(table.id, definition)?;
    Ok(())
}

pub(crate) async fn drop_indexes(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    names: &[ObjectName],
    if_exists: bool,
    cascade: bool,
) -> Result<Completion> {
    for name in names {
        let (schema, plain_name) = table_name(name)?;
        let found = {
            let context = statement.context(transaction.view());
            let catalog = context.view().catalog();
            context.schemas(schema.as_deref()).find_map(|schema| find_index(catalog, schema, &plain_name))
        };
        match found {
            Some((table, index)) => {
                drop_index(statement, transaction, table, index, cascade)
                    .await
                    .map_err(|error| error.at(place(name.span())))?;
            }
            None if if_exists => {}
            None => {
                let message = format!("index \"{plain_name}\" does not exist");
                return Err(Error::new(sqlstate::UNDEFINED_OBJECT, message).at(place(name.span())));
            }
        }
    }
    Ok(Completion::new("DROP INDEX"))
}

async fn drop_index(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: TableId,
    index: Found,
    cascade: bool,
) -> Result<()> {
    let table = current(transaction, table)?;
    let mut texts = index_texts(&table)?;
    let id = match index {
        Found::Stored(id) => id,
        Found::Noted(place) => {
            texts.remove(place);
            let mut definition = table.to_new();
            let mut schema = definition.schema.as_ref().clone();
            set_index_texts(&mut schema.metadata, &texts)?;
            definition.schema = Arc::new(schema);
            transaction.alter_table(table.id, definition)?;
            return Ok(());
        }
    };
    let definition = table.index(id).ok_or_else(|| Error::internal("an index to drop is gone"))?;
    let references = references_to(transaction, &table, &definition.columns);
    if definition.unique && !references.is_empty() {
        if !cascade {
            let (child, foreign_key) = &references[0];
            let message = format!("cannot drop index {} because other objects depend on it", definition.name);
            return Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message)
                .with_detail(format!("constraint {} on table {} depends on it", foreign_key.name, child.name))
                .with_hint("Use DROP … CASCADE to drop the dependent objects too."));
        }
        for (child, foreign_key) in &references {
            let mut definition = current(transaction, child.id)?.to_new();
            definition.foreign_keys.retain(|known| known.name != foreign_key.name);
            transaction.alter_table(child.id, definition)?;
        }
    }
    if !definition.columns.iter().any(|column| is_hidden(table.schema.field(*column))) {
        transaction.drop_index(table.id, id)?;
        return Ok(());
    }
    texts.retain(|text| text.name != definition.name);
    let mut change = Rewrite::of(&table);
    set_index_texts(&mut change.metadata, &texts)?;
    let columns = definition.columns.clone();
    change.drop_hidden(&table, |column| columns.contains(&column));
    rewrite(statement, transaction, &table, change).await?;
    Ok(())
}
