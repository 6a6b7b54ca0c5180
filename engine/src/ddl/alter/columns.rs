//! ALTER TABLE on columns: adding, dropping, renaming and retyping them, their defaults and NOT NULL.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::sqlparser::ast::{AlterColumnOperation, AlterTableOperation, ColumnDef, Expr, Ident};

use super::super::comment::COMMENT_KEY;
use super::super::declaration::{Declaration, check_default, duplicate_column};
use super::super::rewrite::{Rewrite, follow_sequences};
use super::super::sequence::{create_column_sequence, with_full_names};
use super::{Alteration, renamed_in};
use crate::constraints::{GENERATED_KEY, IDENTITY_KEY, checks_of, index_texts, set_index_texts, shown_columns};
use crate::dml::defaults::column_index;
use crate::dml::many_rows::require_of_one_row;
use crate::dml::syntax::{cast, column, null, quoted};
use crate::error::sqlstate;
use crate::sql::check::refuse;
use crate::sql::text::parse::{fold, parse_expression, place};
use crate::sql::types::{DEFAULT_KEY, arriving_type, column_type, name_of};
use crate::sql::widths::check_table_width;
use crate::{Error, Result};

impl Alteration<'_, '_> {
    pub(super) fn rename_column(&mut self, old: &Ident, new: &Ident) -> Result<()> {
        let (old_name, new_name) = (fold(old), fold(new));
        let index = column_index(&self.table, &old_name).map_err(|error| error.at(place(old.span)))?;
        if self.table.schema.index_of(&new_name).is_ok() {
            let message = format!("column \"{new_name}\" of table \"{}\" already exists", self.table.name);
            return Err(Error::new(sqlstate::DUPLICATE_COLUMN, message).at(place(new.span)));
        }
        self.require_no_views("rename the column")?;
        let mut checks = checks_of(&self.table)?;
        for check in &mut checks {
            check.expression = renamed_in(check.syntax()?, &old_name, &new_name);
        }
        let mut fields: Vec<Field> = Vec::new();
        for (place, field) in self.table.schema.fields().iter().enumerate() {
            let mut metadata = field.metadata().clone();
            if let Some(text) = metadata.get_mut(GENERATED_KEY) {
                *text = renamed_in(parse_expression(text)?, &old_name, &new_name);
            }
            let name = if place == index { &new_name } else { field.name() };
            fields.push(field.as_ref().clone().with_name(name).with_metadata(metadata));
        }
        let mut texts = index_texts(&self.table)?;
        for expression in texts.iter_mut().flat_map(|text| text.keys.iter_mut().chain(&mut text.predicate)) {
            *expression = renamed_in(parse_expression(expression)?, &old_name, &new_name);
        }
        self.redefine(|definition| {
            let mut metadata = definition.schema.metadata().clone();
            set_index_texts(&mut metadata, &texts)?;
            definition.schema = Arc::new(Schema::new_with_metadata(fields, metadata));
            Ok(())
        })?;
        follow_sequences(self.transaction, self.table.id, self.table.id, |column| {
            Some(if column == old_name { new_name.clone() } else { column.to_owned() })
        })?;
        self.set_checks(&checks)
    }

    pub(super) async fn alter_column(&mut self, index: usize, operation: AlterColumnOperation) -> Result<()> {
        let field = self.table.schema.field(index).clone();
        match operation {
            AlterColumnOperation::SetNotNull => {
                let condition = Expr::IsNull(Box::new(column(&quoted(&self.table.name), field.name())));
                let table = self.table.name.clone();
                self.find_none(condition, || {
                    let message = format!("column \"{}\" of table \"{table}\" contains null values", field.name());
                    Error::new(sqlstate::NOT_NULL_VIOLATION, message)
                })
                .await?;
                self.transaction.require_unchanged(self.table.id);
                self.redefine_field(index, |field| field.with_nullable(false))
            }
            AlterColumnOperation::DropNotNull => {
                if self.table.primary_key_constraint().is_some_and(|(_, key)| key.contains(&index)) {
                    let message = format!("column \"{}\" is in a primary key", field.name());
                    return Err(Error::new(sqlstate::INVALID_TABLE_DEFINITION, message));
                }
                if field.metadata().contains_key(IDENTITY_KEY) {
                    return Err(Error::syntax(format!("column \"{}\" is an identity column", field.name())));
                }
                self.redefine_field(index, |field| field.with_nullable(true))
            }
            AlterColumnOperation::SetDefault { value } => {
                self.require_plain_default(&field)?;
                let context = self.statement.context(self.transaction.view());
                let value = with_full_names(&context, value);
                let text = value.to_string();
                check_default(&context, value, &field)?;
                drop(context);
                self.redefine_field(index, |field| with_default(field, Some(text)))
            }
            AlterColumnOperation::DropDefault => {
                self.require_plain_default(&field)?;
                self.redefine_field(index, |field| with_default(field, None))
            }
            AlterColumnOperation::SetDataType { .. } => {
                Err(Error::internal("SET DATA TYPE is taken with those beside it"))
            }
            AlterColumnOperation::AddGenerated { .. } => Err(Error::internal("ADD GENERATED has a grammar of its own")),
        }
    }

    pub(super) fn require_plain_default(&self, field: &Field) -> Result<()> {
        let what = if field.metadata().contains_key(GENERATED_KEY) {
            "a generated column"
        } else if field.metadata().contains_key(IDENTITY_KEY) {
            "an identity column"
        } else {
            return Ok(());
        };
        let message = format!("column \"{}\" of table \"{}\" is {what}", field.name(), self.table.name);
        Err(Error::syntax(message))
    }

    /// Gives columns other types, all of them at once.
    pub(super) async fn set_types(&mut self, operations: Vec<AlterTableOperation>) -> Result<()> {
        let mut change = Rewrite::of(&self.table);
        change.keeps_types = false;
        let mut retyped = BTreeSet::new();
        for operation in operations {
            let AlterTableOperation::AlterColumn {
                column_name,
                op: AlterColumnOperation::SetDataType { data_type, using, had_set: _ },
            } = operation
            else {
                return Err(Error::internal("not an operation that gives a column another type"));
            };
            let name = fold(&column_name);
            let index = column_index(&self.table, &name).map_err(|error| error.at(place(column_name.span)))?;
            if !retyped.insert(index) {
                let message = format!("cannot alter type of column \"{name}\" twice");
                return Err(Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message).at(place(column_name.span)));
            }
            let is_nullable = self.table.schema.field(index).is_nullable();
            self.set_type(&mut change, index, &column_type(&data_type)?.field(&name, is_nullable), using)?;
        }
        self.rewrite(change).await
    }

    fn set_type(&self, change: &mut Rewrite, index: usize, declared: &Field, using: Option<Expr>) -> Result<()> {
        let field = self.table.schema.field(index).clone();
        if field.metadata().contains_key(GENERATED_KEY) {
            return Err(Error::unsupported("another type of a generated column"));
        }
        if field.metadata().contains_key(IDENTITY_KEY) && !is_counted(declared.data_type()) {
            let message = "identity column type must be smallint, integer, or bigint";
            return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
        }
        if let Some(using) = &using {
            require_of_one_row(using, "transform expressions")?;
        }
        let mut metadata = declared.metadata().clone();
        if using.is_none() && !is_assigned(field.data_type(), declared.data_type()) {
            let (name, wanted) = (field.name(), name_of(declared.data_type()));
            let message = format!("column \"{name}\" cannot be cast automatically to type {wanted}");
            return Err(Error::new(sqlstate::TYPE_MISMATCH, message)
                .with_hint(format!("You might need to specify \"USING {name}::{wanted}\".")));
        }
        for key in [DEFAULT_KEY, IDENTITY_KEY, COMMENT_KEY] {
            metadata.extend(field.metadata().get(key).map(|value| (key.to_owned(), value.clone())));
        }
        let new_field = declared.clone().with_metadata(metadata);
        if let Some(default) = field.metadata().get(DEFAULT_KEY) {
            let context = self.statement.context(self.transaction.view());
            check_default(&context, parse_expression(default)?, &new_field)?;
        }
        let alias = quoted(&self.table.name);
        let old = column(&alias, field.name());
        change.values[index] = cast(using.unwrap_or(old), &name_of(&arriving_type(&new_field)))?;
        change.fields[index] = new_field;
        Ok(())
    }

    pub(super) async fn add_column(&mut self, definition: ColumnDef, if_not_exists: bool) -> Result<()> {
        let name = fold(&definition.name);
        if self.table.schema.index_of(&name).is_ok() {
            if if_not_exists {
                return Ok(());
            }
            return Err(duplicate_column(&name)
                .map_message(|_| format!("column \"{name}\" of table \"{}\" already exists", self.table.name)));
        }
        check_table_width(shown_columns(&self.table) + 1)?;
        let context = self.statement.context(self.transaction.view());
        let mut declaration = Declaration::of(&self.table)?;
        declaration.add_column(&context, definition)?;
        drop(context);
        let sequences = std::mem::take(&mut declaration.sequences);
        for sequence in sequences {
            create_column_sequence(self.transaction, &self.table, sequence)?;
        }
        let new_table = declaration.into_table()?;
        let field = new_table.schema.field(new_table.schema.fields().len() - 1).clone();
        let default = field.metadata().get(DEFAULT_KEY).map(|text| parse_expression(text)).transpose()?;
        let mut change = Rewrite::of(&self.table);
        change.values.push(cast(default.unwrap_or_else(null), &name_of(&arriving_type(&field)))?);
        change.become_table(new_table);
        self.rewrite(change).await?;
        Declaration::check_expressions(&self.statement.context(self.transaction.view()), &self.table)
    }

    pub(super) async fn drop_column(&mut self, name: &Ident, if_exists: bool, cascade: bool) -> Result<()> {
        let index = match column_index(&self.table, &fold(name)) {
            Ok(index) => index,
            Err(_) if if_exists => return Ok(()),
            Err(error) => return Err(error.at(place(name.span))),
        };
        refuse(self.table.schema.fields().len() == 1, "a table without columns")?;
        let keys = std::iter::once(self.table.primary_key.clone())
            .chain(self.table.indexes.iter().map(|index| index.columns.clone()));
        for key in keys.filter(|key| key.contains(&index)).collect::<Vec<_>>() {
            self.release(&key, cascade, &format!("drop column {}", fold(name)))?;
        }
        let mut change = Rewrite::of(&self.table);
        change.drop_column(&self.table, index, cascade)?;
        change.drops_views = cascade;
        self.rewrite(change).await?;
        Ok(())
    }
}

fn with_default(field: Field, text: Option<String>) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(DEFAULT_KEY);
    metadata.extend(text.map(|text| (DEFAULT_KEY.to_owned(), text)));
    field.with_metadata(metadata)
}

/// Whether a sequence's numbers are of the type.
fn is_counted(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int16 | DataType::Int32 | DataType::Int64)
}

/// Whether values of one type become those of another without a word, as in an assignment.
fn is_assigned(from: &DataType, to: &DataType) -> bool {
    let is_text = |data_type: &DataType| data_type.is_string();
    let is_number = DataType::is_numeric;
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Time32(_) | DataType::Time64(_));
    let is_instant = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
    let is_date = |data_type: &DataType| matches!(data_type, DataType::Date32 | DataType::Date64);
    from == to
        || is_text(to)
        || (is_number(from) && is_number(to))
        || ((is_instant(from) || is_date(from)) && (is_instant(to) || is_date(to)))
        || (is_instant(from) && is_time(to))
        || (is_time(from) && (is_time(to) || matches!(to, DataType::Interval(_))))
}
