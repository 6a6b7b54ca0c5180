//! ALTER TABLE. Changes of the declaration only (names, defaults, constraints) leave the rows alone; changes of their
//! shape write the table anew ([`super::rewrite`]). A new rule is checked against all rows first, and the transaction
//! demands that nobody changes them meanwhile.
//!
//! Here are the steps and what they share; [`columns`], [`constraints`] and [`identity`] hold what they are named after.

mod columns;
mod constraints;
mod identity;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, DropBehavior, Expr, RenameTableNameKind, Spanned, TableConstraint,
    VisitMut, VisitorMut,
};
use rustydb_storage::{ForeignKey, NewTable, PRIMARY_KEY_NAME, TableDef, Transaction};

use super::declaration::{check_comparable, columns_in};
use super::index::{create_from_text, without_hidden};
use super::rewrite::{Rewrite, rewrite};
use super::view::views_on;
use crate::constraints::{CHECKS_KEY, Check, IndexText, checks_text, index_texts, is_generated};
use crate::dml::defaults::column_index;
use crate::dml::foreign_key::{check_rows_of, references_to, references_with};
use crate::dml::syntax::quoted;
use crate::error::sqlstate;
use crate::session::{Completion, Statement};
use crate::sql::check::refuse;
use crate::sql::plan::{make_ready, plan_query};
use crate::sql::route::{AlterOperation, AlterTableStatement};
use crate::sql::text::parse::{fold, parse_expression, place, table_name};
use crate::{Error, Result};

pub(crate) async fn alter_table(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    alter: AlterTableStatement,
) -> Result<Completion> {
    let AlterTableStatement { name, if_exists, operations } = alter;
    let (schema, plain_name) = table_name(&name)?;
    let found = statement.context(transaction.view()).table(schema.as_deref(), &plain_name).cloned();
    let mut table = match found {
        Ok(table) => table,
        Err(error) if if_exists && error.sqlstate() == sqlstate::UNDEFINED_TABLE => {
            return Ok(Completion::new("ALTER TABLE"));
        }
        Err(error) => return Err(error.at(place(name.span()))),
    };
    // Hidden columns come after all others, and are made again from the indexes they are for.
    let texts = match operations.iter().any(reshapes) {
        false => Vec::new(),
        true => {
            let (bare, texts) = without_hidden(statement, transaction, &table).await?;
            table = bare;
            texts
        }
    };
    let retyped: Vec<String> = operations.iter().filter_map(retyped_column).collect();
    let mut operations = operations.into_iter().peekable();
    while let Some(operation) = operations.next() {
        let mut step = Alteration { statement, transaction, table };
        match operation {
            // Several in a row are one step: what makes the new values are the old ones of all columns.
            AlterOperation::Sql(operation) if retyped_by(&operation).is_some() => {
                let mut retyping = vec![*operation];
                while let Some(AlterOperation::Sql(next)) = operations.next_if(|next| retyped_column(next).is_some()) {
                    retyping.push(*next);
                }
                step.set_types(retyping).await?;
            }
            AlterOperation::Sql(operation) => step.apply(*operation).await?,
            AlterOperation::SetSchema(schema) => step.set_schema(schema)?,
            AlterOperation::Identity { column, change } => step.change_identity(&column, change)?,
        }
        table = step.table;
    }
    for text in texts {
        // What an index was about may be gone, and then so is the index.
        let known = columns_of_index(&text)?.iter().all(|column| table.schema.index_of(column).is_ok());
        if known && !index_texts(&table)?.contains(&text) {
            table = create_from_text(statement, transaction, &table, text).await?;
        }
    }
    // Other steps may have given the columns on the other side of a foreign key the same type.
    for column in retyped {
        check_references(statement, transaction, &table, &column).await?;
    }
    Ok(Completion::new("ALTER TABLE"))
}

/// The column that an operation gives another type.
fn retyped_column(operation: &AlterOperation) -> Option<String> {
    let AlterOperation::Sql(operation) = operation else { return None };
    retyped_by(operation)
}

fn retyped_by(operation: &AlterTableOperation) -> Option<String> {
    match operation {
        AlterTableOperation::AlterColumn { column_name, op: AlterColumnOperation::SetDataType { .. } } => {
            Some(fold(column_name))
        }
        _ => None,
    }
}

/// Checks the foreign keys of a column whose values have become others: both sides must have types that can be compared, and
/// what rows of this and of other tables refer to must still be there. (Loading this table's rows has checked its own keys.)
async fn check_references(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    column: &str,
) -> Result<()> {
    let Ok(index) = table.schema.index_of(column) else { return Ok(()) };
    let catalog = Arc::clone(transaction.view().catalog());
    for foreign_key in table.foreign_keys.iter().filter(|key| key.columns.contains(&index)) {
        let Some(parent) = catalog.table(foreign_key.parent) else { continue };
        require_comparable(table, foreign_key, parent)?;
    }
    let changed = |column: usize| column == index || is_generated(table.schema.field(column));
    for (child, foreign_key) in references_with(transaction, table, changed) {
        require_comparable(&child, &foreign_key, table)?;
        if !foreign_key.not_validated {
            check_rows_of(statement, transaction, &child, &foreign_key).await?;
        }
    }
    Ok(())
}

fn require_comparable(child: &TableDef, foreign_key: &ForeignKey, parent: &TableDef) -> Result<()> {
    for (own, referred) in foreign_key.columns.iter().zip(&foreign_key.parent_columns) {
        check_comparable(child.schema.field(*own), parent.schema.field(*referred)).map_err(|error| {
            let detail = format!("Foreign key \"{}\" of table \"{}\".", foreign_key.name, child.name);
            error.with_detail(detail).with_hint("Drop the foreign key first, and add it again afterwards.")
        })?;
    }
    Ok(())
}

/// Whether an operation changes which columns there are, or their types.
pub(super) fn reshapes(operation: &AlterOperation) -> bool {
    let AlterOperation::Sql(operation) = operation else { return false };
    match operation.as_ref() {
        AlterTableOperation::AddColumn { .. }
        | AlterTableOperation::DropColumn { .. }
        | AlterTableOperation::DropConstraint { .. } => true,
        AlterTableOperation::AddConstraint { constraint, .. } => matches!(constraint, TableConstraint::PrimaryKey(_)),
        AlterTableOperation::AlterColumn { op, .. } => matches!(op, AlterColumnOperation::SetDataType { .. }),
        _ => false,
    }
}

/// The columns that an index is about.
fn columns_of_index(text: &IndexText) -> Result<BTreeSet<String>> {
    let mut columns = BTreeSet::new();
    for expression in text.keys.iter().chain(&text.predicate) {
        columns.extend(columns_in(&parse_expression(expression)?));
    }
    Ok(columns)
}

/// One step of an ALTER TABLE; `table` is the definition as it is by then.
struct Alteration<'a, 'b> {
    statement: &'a Statement<'b>,
    transaction: &'a mut Transaction,
    table: Arc<TableDef>,
}

impl Alteration<'_, '_> {
    async fn apply(&mut self, operation: AlterTableOperation) -> Result<()> {
        match operation {
            AlterTableOperation::AddColumn { column_keyword: _, if_not_exists, column_def, column_position } => {
                refuse(column_position.is_some(), "FIRST or AFTER in ADD COLUMN")?;
                self.add_column(column_def, if_not_exists).await
            }
            AlterTableOperation::DropColumn { has_column_keyword: _, column_names, if_exists, drop_behavior } => {
                for name in column_names {
                    let cascade = drop_behavior == Some(DropBehavior::Cascade);
                    self.drop_column(&name, if_exists, cascade).await?;
                }
                Ok(())
            }
            AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
                self.rename_column(&old_column_name, &new_column_name)
            }
            AlterTableOperation::RenameTable {
                table_name: RenameTableNameKind::To(name) | RenameTableNameKind::As(name),
            } => self.rename_table(table_name(&name)?.1),
            AlterTableOperation::RenameConstraint { old_name, new_name } => {
                self.rename_constraint(&fold(&old_name), fold(&new_name))
            }
            AlterTableOperation::AlterColumn { column_name, op } => {
                let index = column_index(&self.table, &fold(&column_name))
                    .map_err(|error| error.at(place(column_name.span)))?;
                self.alter_column(index, op).await
            }
            AlterTableOperation::AddConstraint { constraint, not_valid } => {
                self.add_constraint(constraint, not_valid).await
            }
            AlterTableOperation::DropConstraint { if_exists, name, drop_behavior } => {
                let cascade = drop_behavior == Some(DropBehavior::Cascade);
                self.drop_constraint(&fold(&name), if_exists, cascade).await
            }
            AlterTableOperation::ValidateConstraint { name } => self.validate_constraint(&fold(&name)).await,
            other => {
                let text = other.to_string();
                let words: Vec<&str> = text.split(' ').take(2).collect();
                Err(Error::unsupported(format!("ALTER TABLE … {}", words.join(" "))))
            }
        }
    }

    /// Changes the definition and nothing else.
    fn redefine(&mut self, change: impl FnOnce(&mut NewTable) -> Result<()>) -> Result<()> {
        let mut definition = self.table.to_new();
        change(&mut definition)?;
        self.table = self.transaction.alter_table(self.table.id, definition)?;
        Ok(())
    }

    fn redefine_field(&mut self, index: usize, change: impl FnOnce(Field) -> Field) -> Result<()> {
        self.redefine(|definition| {
            let mut fields: Vec<Field> =
                definition.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
            fields[index] = change(fields[index].clone());
            definition.schema = Arc::new(Schema::new_with_metadata(fields, definition.schema.metadata().clone()));
            Ok(())
        })
    }

    fn set_checks(&mut self, checks: &[Check]) -> Result<()> {
        let text = checks_text(checks)?;
        self.redefine(|definition| {
            let mut schema = definition.schema.as_ref().clone();
            schema.metadata.remove(CHECKS_KEY);
            schema.metadata.extend(text.map(|text| (CHECKS_KEY.to_owned(), text)));
            definition.schema = Arc::new(schema);
            Ok(())
        })
    }

    /// Fails if a row makes `condition` true.
    async fn find_none(&self, condition: Expr, found: impl FnOnce() -> Error) -> Result<()> {
        use crate::dml::syntax::{alone, named, number, select};
        let context = self.statement.context(self.transaction.view()).with_target(&self.table);
        let alias = quoted(&self.table.name);
        let from = vec![alone(crate::dml::modify::target_factor(&self.table, &alias))];
        let query = select(None, vec![named(number(1), "found")], from, Some(condition));
        let plan = plan_query(&context, query)?;
        let plan = datafusion::logical_expr::LogicalPlanBuilder::from(plan).limit(0, Some(1))?.build()?;
        let ready = make_ready(&context, plan).await?;
        let batches = self.statement.start(ready).collect().await?;
        match batches.iter().all(|batch| batch.num_rows() == 0) {
            true => Ok(()),
            false => Err(found()),
        }
    }

    /// The table's views would go on speaking of the old name.
    fn require_no_views(&self, what: &str) -> Result<()> {
        let view = self.transaction.view();
        let views = views_on(view.catalog(), &self.table.schema_name, &self.table.name)?;
        let Some(first) = views.first() else { return Ok(()) };
        let message = format!("cannot {what} because view \"{}\" depends on table \"{}\"", first.name, self.table.name);
        Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message)
            .with_hint("Drop the view, and create it again afterwards."))
    }

    fn rename_table(&mut self, name: String) -> Result<()> {
        self.require_no_views("rename the table")?;
        self.require_free(&self.table.schema_name, &name)?;
        // The name of a key does not follow that of its table.
        let key = (!self.table.primary_key.is_empty()).then(|| self.table.primary_key_name());
        self.redefine(|definition| {
            definition.name = name;
            if let Some(key) = key {
                let mut schema = definition.schema.as_ref().clone();
                schema.metadata.insert(PRIMARY_KEY_NAME.to_owned(), key);
                definition.schema = Arc::new(schema);
            }
            Ok(())
        })
    }

    /// The table's sequences go with it.
    fn set_schema(&mut self, schema: String) -> Result<()> {
        self.require_no_views("move the table")?;
        let schema = self.statement.context(self.transaction.view()).schema_for_new(Some(schema), false)?;
        if super::temporary::is_temporary(&schema) != super::temporary::is_temporary(&self.table.schema_name) {
            return Err(Error::unsupported("moving a table into or out of a temporary schema"));
        }
        if schema == self.table.schema_name {
            return Ok(());
        }
        self.require_free(&schema, &self.table.name)?;
        let moved = schema.clone();
        self.redefine(|definition| {
            definition.schema_name = moved;
            Ok(())
        })?;
        super::relocate::move_owned_sequences(self.transaction, self.table.id, &schema)?;
        self.reload()
    }

    fn require_free(&self, schema: &str, name: &str) -> Result<()> {
        let view = self.transaction.view();
        match super::relocate::name_is_taken(view.catalog(), schema, name) {
            false => Ok(()),
            true => Err(Error::new(sqlstate::DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))),
        }
    }

    /// Takes the definition as the transaction has it now.
    fn reload(&mut self) -> Result<()> {
        let table = self.transaction.view().catalog().table(self.table.id).cloned();
        self.table = table.ok_or_else(|| Error::internal("an altered table is gone"))?;
        Ok(())
    }

    async fn rewrite(&mut self, change: Rewrite) -> Result<()> {
        self.table = rewrite(self.statement, self.transaction, &self.table, change).await?;
        Ok(())
    }

    /// Foreign keys that refer to these columns keep them, or go with CASCADE.
    fn release(&mut self, columns: &[usize], cascade: bool, what: &str) -> Result<()> {
        let references = references_to(self.transaction, &self.table, columns);
        if let (Some((child, foreign_key)), false) = (references.first(), cascade) {
            let message = format!("cannot {what} because other objects depend on it");
            return Err(Error::new(sqlstate::DEPENDENT_OBJECTS, message)
                .with_detail(format!("constraint {} on table {} depends on it", foreign_key.name, child.name))
                .with_hint("Use DROP … CASCADE to drop the dependent objects too."));
        }
        for (child, foreign_key) in references {
            let current = self.transaction.view().catalog().table(child.id).map(|child| child.to_new());
            let mut definition = current.ok_or_else(|| Error::internal("a table that refers to another is gone"))?;
            definition.foreign_keys.retain(|known| known.name != foreign_key.name);
            self.transaction.alter_table(child.id, definition)?;
        }
        self.reload()
    }
}

/// The text of an expression with another name for one of its columns.
fn renamed_in(mut expr: Expr, old: &str, new: &str) -> String {
    struct Rename<'a>(&'a str, &'a str);
    impl VisitorMut for Rename<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let ident = match expr {
                Expr::Identifier(ident) => Some(ident),
                Expr::CompoundIdentifier(parts) => parts.last_mut(),
                _ => None,
            };
            if let Some(ident) = ident.filter(|ident| fold(ident) == self.0) {
                *ident = quoted(self.1);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = expr.visit(&mut Rename(old, new));
    expr.to_string()
}
