//! `CREATE TABLE t (LIKE other INCLUDING …)`: a table with the columns of another one, and with as much of what belongs to
//! them as is asked for. Nothing binds the two afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::ast::{ObjectName, Spanned};
use rustydb_storage::{Catalog, NewIndex, NewTable, ObjectKind, TableDef, Transaction};

use super::comment::COMMENT_KEY;
use super::index::{create_from_text, name_of_key};
use super::relocate::free_name;
use super::sequence::nextval_text;
use super::table::{plain_table, set_on_commit};
use crate::constraints::{
    CHECKS_KEY, GENERATED_KEY, IDENTITY_KEY, IndexText, checks_of, checks_text, index_texts, shown_columns,
};
use crate::sequences::{Owner, SequenceDefinition};
use crate::session::Statement;
use crate::sql::parse::{parse_expression, place, table_name};
use crate::sql::route::LikePart;
use crate::sql::types::DEFAULT_KEY;
use crate::{Error, Result};

/// A sequence that numbers an identity column of the new table as another one numbers that of the old.
struct CopiedSequence {
    name: String,
    definition: SequenceDefinition,
}

/// Creates the table.
pub(super) async fn create_like(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    (source, parts): (ObjectName, BTreeSet<LikePart>),
    (schema_name, name): (String, String),
    on_commit: Option<&'static str>,
) -> Result<()> {
    let context = statement.context(transaction.view());
    let (source_schema, source_name) = table_name(&source)?;
    let source = context.table(source_schema.as_deref(), &source_name).map_err(|error| error.at(place(source.span())));
    let source = Arc::clone(source?);
    let catalog = Arc::clone(context.view().catalog());
    drop(context);
    let has = |part| parts.contains(&part);
    let (mut fields, mut sequences) = (Vec::new(), Vec::new());
    for field in source.schema.fields().iter().take(shown_columns(&source)) {
        let mut metadata = field.metadata().clone();
        if !has(LikePart::Comments) {
            metadata.remove(COMMENT_KEY);
        }
        if !has(LikePart::Generated) {
            metadata.remove(GENERATED_KEY);
        }
        let is_identity = metadata.contains_key(IDENTITY_KEY);
        if is_identity && has(LikePart::Identity) {
            let sequence = copy_of_sequence(&catalog, &source, field, &schema_name, &name)?;
            metadata.insert(DEFAULT_KEY.to_owned(), nextval_text(&schema_name, &sequence.name));
            sequences.push(sequence);
        } else if is_identity {
            metadata.remove(IDENTITY_KEY);
            metadata.remove(DEFAULT_KEY);
        } else if !has(LikePart::Defaults) {
            metadata.remove(DEFAULT_KEY);
        }
        fields.push(field.as_ref().clone().with_metadata(metadata));
    }
    let mut schema = Schema::new(fields);
    if has(LikePart::Constraints) {
        let mut checks = checks_of(&source)?;
        // There are no rows yet that would not have been checked.
        checks.iter_mut().for_each(|check| check.not_validated = false);
        schema.metadata.extend(checks_text(&checks)?.map(|text| (CHECKS_KEY.to_owned(), text)));
    }
    let mut table = plain_table(schema_name, name, Arc::new(schema));
    if has(LikePart::Indexes) {
        add_keys(&mut table, &source, &catalog);
    }
    set_on_commit(&mut table, on_commit);
    let mut table = transaction.create_table(table)?;
    for CopiedSequence { name, definition } in sequences {
        let owner = definition.owner.map(|owner| Owner { table: table.id.0, ..owner });
        let definition = SequenceDefinition { owner, ..definition };
        let schema = table.schema_name.clone();
        transaction.create_object(ObjectKind::Sequence, schema, name, definition.text()?)?;
    }
    if has(LikePart::Indexes) {
        for text in index_texts(&source)? {
            let catalog = Arc::clone(transaction.view().catalog());
            let keys = text.keys.iter().map(|key| parse_expression(key).map(|key| name_of_key(&key)));
            let keys = keys.collect::<Result<Vec<String>>>()?.join("_");
            let name = free_name(&catalog, &table.schema_name, &format!("{}_{keys}_idx", table.name));
            table = create_from_text(statement, transaction, &table, IndexText { name, ..text }).await?;
        }
    }
    Ok(())
}

/// The primary key and the indexes over plain columns, under names of their own.
fn add_keys(table: &mut NewTable, source: &TableDef, catalog: &Catalog) {
    let NewTable { primary_key, indexes, .. } = source.to_new();
    table.primary_key = primary_key;
    let shown = shown_columns(source);
    for index in indexes {
        if index.columns.iter().any(|column| *column >= shown) {
            continue;
        }
        let columns: Vec<&str> =
            index.columns.iter().map(|column| source.schema.field(*column).name().as_str()).collect();
        let base = match (index.primary, index.unique) {
            (true, _) => format!("{}_pkey", table.name),
            (false, true) => format!("{}_{}_key", table.name, columns.join("_")),
            (false, false) => format!("{}_{}_idx", table.name, columns.join("_")),
        };
        let mut name = free_name(catalog, &table.schema_name, &base);
        let mut number = 0;
        while table.indexes.iter().any(|known| known.name == name) {
            number += 1;
            name = free_name(catalog, &table.schema_name, &format!("{base}{number}"));
        }
        table.indexes.push(NewIndex { name, ..index });
    }
}

fn copy_of_sequence(
    catalog: &Catalog,
    source: &TableDef,
    field: &Field,
    schema: &str,
    table: &str,
) -> Result<CopiedSequence> {
    for object in catalog.objects().filter(|object| object.kind == ObjectKind::Sequence) {
        let definition = SequenceDefinition::of(object)?;
        let owner = definition.owner.as_ref();
        if owner.is_some_and(|owner| owner.table == source.id.0 && owner.column == *field.name()) {
            let name = free_name(catalog, schema, &format!("{table}_{}_seq", field.name()));
            return Ok(CopiedSequence { name, definition: SequenceDefinition { comment: None, ..definition } });
        }
    }
    Err(Error::internal(format!("the identity column \"{}\" has no sequence", field.name())))
}
