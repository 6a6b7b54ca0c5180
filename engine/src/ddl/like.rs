//! `CREATE TABLE t (…, LIKE other INCLUDING …, …)`: the columns of another table, and as much of what belongs to them as is
//! asked for. Nothing binds the two afterwards. Of a view these are the columns and their comments.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::ast::Spanned;
use rustydb_storage::{Catalog, NewIndex, NewTable, ObjectDef, ObjectKind, TableDef, Transaction};

use super::comment::COMMENT_KEY;
use super::declaration::{Declaration, TakenOver};
use super::index::{create_from_text, name_of_key};
use super::relocate::free_name;
use super::sequence::nextval_text;
use super::table::schema_of_rows;
use super::view::ViewDefinition;
use crate::constraints::{GENERATED_KEY, IDENTITY_KEY, IndexText, checks_of, index_texts, shown_columns};
use crate::sequences::{Owner, SequenceDefinition};
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::declared::stored_columns;
use crate::sql::route::{LikeClause, LikePart};
use crate::sql::text::parse::{parse_expression, place, table_name};
use crate::sql::types::DEFAULT_KEY;
use crate::{Error, Result};

/// A sequence that numbers an identity column of the new table as another one numbers that of the old.
struct CopiedSequence {
    name: String,
    definition: SequenceDefinition,
}

/// What is copied of other tables and can be made only when the new table is there.
#[derive(Default)]
pub(super) struct Copies {
    sequences: Vec<CopiedSequence>,
    indexes: Vec<IndexText>,
}

impl Copies {
    /// Copies what can be declared, and notes the rest.
    pub(super) fn copy(
        &mut self,
        context: &StatementContext,
        declaration: &mut Declaration,
        (schema_name, name): (&str, &str),
        like: &LikeClause,
    ) -> Result<()> {
        let LikeClause { source, parts, place: _ } = like;
        let (source_schema, source_name) = table_name(source)?;
        let has = |part| parts.contains(&part);
        let view = context.object(ObjectKind::View, source_schema.as_deref(), &source_name);
        let source = match (context.table(source_schema.as_deref(), &source_name), view) {
            (Ok(table), _) => Arc::clone(table),
            (Err(_), Some(view)) => {
                let fields = columns_of_view(view, has(LikePart::Comments))?;
                let (checks, primary_key, indexes) = (Vec::new(), Vec::new(), Vec::new());
                return declaration.take_over(TakenOver { fields, checks, primary_key, indexes });
            }
            (Err(error), None) => return Err(error.at(place(source.span()))),
        };
        let catalog = context.view().catalog();
        let mut fields = Vec::new();
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
                let sequence = copy_of_sequence(catalog, &source, field, schema_name, name)?;
                metadata.insert(DEFAULT_KEY.to_owned(), nextval_text(schema_name, &sequence.name));
                self.sequences.push(sequence);
            } else if is_identity {
                metadata.remove(IDENTITY_KEY);
                metadata.remove(DEFAULT_KEY);
            } else if !has(LikePart::Defaults) {
                metadata.remove(DEFAULT_KEY);
            }
            fields.push(field.as_ref().clone().with_metadata(metadata));
        }
        let mut checks = if has(LikePart::Constraints) { checks_of(&source)? } else { Vec::new() };
        // There are no rows yet that would not have been checked.
        checks.iter_mut().for_each(|check| check.not_validated = false);
        let (primary_key, indexes) = match has(LikePart::Indexes) {
            true => keys(declaration, &source, catalog, (schema_name, name)),
            false => (Vec::new(), Vec::new()),
        };
        if has(LikePart::Indexes) {
            self.indexes.extend(index_texts(&source)?);
        }
        declaration.take_over(TakenOver { fields, checks, primary_key, indexes })
    }

    /// Makes the sequences of identity columns and the indexes over expressions.
    pub(super) async fn complete(
        self,
        statement: &Statement<'_>,
        transaction: &mut Transaction,
        mut table: Arc<TableDef>,
    ) -> Result<()> {
        for CopiedSequence { name, definition } in self.sequences {
            let owner = definition.owner.map(|owner| Owner { table: table.id.0, ..owner });
            let definition = SequenceDefinition { owner, ..definition };
            let schema = table.schema_name.clone();
            transaction.create_object(ObjectKind::Sequence, schema, name, definition.text()?)?;
        }
        for text in self.indexes {
            let catalog = Arc::clone(transaction.view().catalog());
            let keys = text.keys.iter().map(|key| parse_expression(key).map(|key| name_of_key(&key)));
            let keys = keys.collect::<Result<Vec<String>>>()?.join("_");
            let name = free_name(&catalog, &table.schema_name, &format!("{}_{keys}_idx", table.name));
            table = create_from_text(statement, transaction, &table, IndexText { name, ..text }).await?;
        }
        Ok(())
    }
}

/// Columns of a table like those of a view.
fn columns_of_view(view: &ObjectDef, with_comments: bool) -> Result<Vec<Field>> {
    let definition = ViewDefinition::of(view)?;
    let shown = Schema::new(definition.fields());
    let declarations: Vec<_> = shown.fields().iter().map(|field| field.metadata().clone()).collect();
    let stored = stored_columns(&schema_of_rows(&shown)?, &declarations);
    let with_comment = |field: &Arc<Field>| {
        let comment = definition.comments.get(field.name()).filter(|_| with_comments);
        let mut metadata = field.metadata().clone();
        metadata.extend(comment.map(|comment| (COMMENT_KEY.to_owned(), comment.clone())));
        field.as_ref().clone().with_metadata(metadata)
    };
    Ok(stored.fields().iter().map(with_comment).collect())
}

/// The primary key and the indexes over plain columns, under names of their own.
fn keys(
    declaration: &Declaration,
    source: &TableDef,
    catalog: &Catalog,
    (schema, table): (&str, &str),
) -> (Vec<usize>, Vec<NewIndex>) {
    let NewTable { primary_key, indexes, .. } = source.to_new();
    let shown = shown_columns(source);
    let mut copied: Vec<NewIndex> = Vec::new();
    for index in indexes {
        if index.columns.iter().any(|column| *column >= shown) {
            continue;
        }
        let columns: Vec<&str> =
            index.columns.iter().map(|column| source.schema.field(*column).name().as_str()).collect();
        let base = match (index.primary, index.unique) {
            (true, _) => format!("{table}_pkey"),
            (false, true) => format!("{table}_{}_key", columns.join("_")),
            (false, false) => format!("{table}_{}_idx", columns.join("_")),
        };
        let mut name = free_name(catalog, schema, &base);
        let mut number = 0;
        while copied.iter().any(|known| known.name == name) || !declaration.is_new_name(&name) {
            number += 1;
            name = free_name(catalog, schema, &format!("{base}{number}"));
        }
        copied.push(NewIndex { name, ..index });
    }
    (primary_key, copied)
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
