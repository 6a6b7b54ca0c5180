//! ALTER TABLE. Changes of the declaration only (names, defaults, constraints) leave the rows alone; changes of their
//! shape write the table anew ([`super::rewrite`]). A new rule is checked against all rows first, and the transaction
//! demands that nobody changes them meanwhile.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterTableOperation, ColumnDef, DropBehavior, Expr, Ident, RenameTableNameKind, Spanned,
    TableConstraint, UnaryOperator, VisitMut, VisitorMut,
};
use rustydb_storage::{NewIndex, NewTable, PRIMARY_KEY_NAME, TableDef, Transaction};

use super::declaration::{Declaration, check_default, duplicate_column};
use super::rewrite::{Rewrite, rewrite};
use super::sequence::create_column_sequence;
use super::view::views_on;
use crate::constraints::{CHECKS_KEY, Check, GENERATED_KEY, IDENTITY_KEY, checks_of, checks_text};
use crate::dml::defaults::column_index;
use crate::dml::foreign_key::{check_rows_of, is_referred_to};
use crate::dml::syntax::{cast, column, null, quoted};
use crate::error::sqlstate;
use crate::session::{Completion, Statement};
use crate::sql::check::refuse;
use crate::sql::parse::{fold, parse_expression, place, table_name};
use crate::sql::plan::{make_ready, plan_query};
use crate::sql::route::AlterTableStatement;
use crate::sql::types::{DEFAULT_KEY, column_type, name_of};
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
    for operation in operations {
        let mut step = Alteration { statement, transaction, table };
        step.apply(operation).await?;
        table = step.table;
    }
    Ok(Completion::new("ALTER TABLE"))
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
        let taken = {
            let view = self.transaction.view();
            use rustydb_storage::ObjectKind::{Sequence, View};
            let schema = &self.table.schema_name;
            [View, Sequence].iter().any(|kind| view.catalog().find_object(*kind, schema, &name).is_some())
        };
        if taken {
            return Err(Error::new(sqlstate::DUPLICATE_TABLE, format!("relation \"{name}\" already exists")));
        }
        self.redefine(|definition| {
            definition.name = name;
            Ok(())
        })
    }

    fn rename_column(&mut self, old: &Ident, new: &Ident) -> Result<()> {
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
        self.redefine(|definition| {
            definition.schema = Arc::new(Schema::new_with_metadata(fields, definition.schema.metadata().clone()));
            Ok(())
        })?;
        super::rewrite::follow_sequences(self.transaction, self.table.id, self.table.id, |column| {
            Some(if column == old_name { new_name.clone() } else { column.to_owned() })
        })?;
        self.set_checks(&checks)
    }

    fn rename_constraint(&mut self, old: &str, new: String) -> Result<()> {
        if self.has_constraint(&new)? {
            let message = format!("constraint \"{new}\" for table \"{}\" already exists", self.table.name);
            return Err(Error::new(sqlstate::DUPLICATE_OBJECT, message));
        }
        if !self.table.primary_key.is_empty() && self.table.primary_key_name() == old {
            return self.redefine(|definition| {
                let mut schema = definition.schema.as_ref().clone();
                schema.metadata.insert(PRIMARY_KEY_NAME.to_owned(), new);
                definition.schema = Arc::new(schema);
                Ok(())
            });
        }
        let mut checks = checks_of(&self.table)?;
        if let Some(check) = checks.iter_mut().find(|check| check.name == old) {
            check.name = new;
            return self.set_checks(&checks);
        }
        if self.table.foreign_keys.iter().any(|foreign_key| foreign_key.name == old) {
            return self.redefine(|definition| {
                let keys = definition.foreign_keys.iter_mut().filter(|foreign_key| foreign_key.name == old);
                keys.for_each(|foreign_key| foreign_key.name = new.clone());
                Ok(())
            });
        }
        refuse(self.table.indexes.iter().any(|index| index.name == old), "RENAME of a UNIQUE constraint")?;
        Err(self.no_constraint(old))
    }

    fn has_constraint(&self, name: &str) -> Result<bool> {
        Ok((!self.table.primary_key.is_empty() && self.table.primary_key_name() == name)
            || self.table.foreign_keys.iter().any(|foreign_key| foreign_key.name == name)
            || self.table.indexes.iter().any(|index| index.name == name)
            || checks_of(&self.table)?.iter().any(|check| check.name == name))
    }

    fn no_constraint(&self, name: &str) -> Error {
        let message = format!("constraint \"{name}\" of table \"{}\" does not exist", self.table.name);
        Error::new(sqlstate::UNDEFINED_OBJECT, message)
    }

    async fn alter_column(&mut self, index: usize, operation: AlterColumnOperation) -> Result<()> {
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
                if self.table.primary_key.contains(&index) {
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
                let text = value.to_string();
                check_default(&self.statement.context(self.transaction.view()), value, &field)?;
                self.redefine_field(index, |field| with_default(field, Some(text)))
            }
            AlterColumnOperation::DropDefault => {
                self.require_plain_default(&field)?;
                self.redefine_field(index, |field| with_default(field, None))
            }
            AlterColumnOperation::SetDataType { data_type, using, had_set: _ } => {
                self.set_type(index, &column_type(&data_type)?.field(field.name(), field.is_nullable()), using).await
            }
            AlterColumnOperation::AddGenerated { .. } => Err(Error::unsupported("ADD GENERATED")),
        }
    }

    fn require_plain_default(&self, field: &Field) -> Result<()> {
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

    async fn set_type(&mut self, index: usize, declared: &Field, using: Option<Expr>) -> Result<()> {
        let field = self.table.schema.field(index).clone();
        if field.metadata().contains_key(GENERATED_KEY) {
            return Err(Error::unsupported("another type of a generated column"));
        }
        let mut metadata = declared.metadata().clone();
        for key in [DEFAULT_KEY, IDENTITY_KEY] {
            metadata.extend(field.metadata().get(key).map(|value| (key.to_owned(), value.clone())));
        }
        let new_field = declared.clone().with_metadata(metadata);
        if let Some(default) = field.metadata().get(DEFAULT_KEY) {
            let context = self.statement.context(self.transaction.view());
            check_default(&context, parse_expression(default)?, &new_field)?;
        }
        let alias = quoted(&self.table.name);
        let mut change = Rewrite::of(&self.table);
        let old = column(&alias, field.name());
        change.values[index] = cast(using.unwrap_or(old), &name_of(new_field.data_type()))?;
        change.fields[index] = new_field;
        change.keeps_types = false;
        self.table = rewrite(self.statement, self.transaction, &self.table, change).await?;
        Ok(())
    }

    async fn add_column(&mut self, definition: ColumnDef, if_not_exists: bool) -> Result<()> {
        let name = fold(&definition.name);
        if self.table.schema.index_of(&name).is_ok() {
            if if_not_exists {
                return Ok(());
            }
            return Err(duplicate_column(&name)
                .map_message(|_| format!("column \"{name}\" of table \"{}\" already exists", self.table.name)));
        }
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
        change.values.push(cast(default.unwrap_or_else(null), &name_of(field.data_type()))?);
        change.become_table(new_table);
        self.table = rewrite(self.statement, self.transaction, &self.table, change).await?;
        Declaration::check_expressions(&self.statement.context(self.transaction.view()), &self.table)
    }

    async fn drop_column(&mut self, name: &Ident, if_exists: bool, cascade: bool) -> Result<()> {
        let index = match column_index(&self.table, &fold(name)) {
            Ok(index) => index,
            Err(_) if if_exists => return Ok(()),
            Err(error) => return Err(error.at(place(name.span))),
        };
        refuse(self.table.schema.fields().len() == 1, "a table without columns")?;
        let in_key = self.table.primary_key.contains(&index);
        if in_key && is_referred_to(self.transaction, &self.table) {
            return Err(self.is_referred_to("drop the column"));
        }
        let mut change = Rewrite::of(&self.table);
        change.drop_column(&self.table, index, cascade)?;
        change.drops_views = cascade;
        self.table = rewrite(self.statement, self.transaction, &self.table, change).await?;
        Ok(())
    }

    fn is_referred_to(&self, what: &str) -> Error {
        let message = format!("cannot {what} because foreign keys refer to table \"{}\"", self.table.name);
        Error::new(sqlstate::DEPENDENT_OBJECTS, message).with_hint("Drop the foreign keys first.")
    }

    async fn add_constraint(&mut self, constraint: TableConstraint, not_valid: bool) -> Result<()> {
        let context = self.statement.context(self.transaction.view());
        let mut declaration = Declaration::of(&self.table)?;
        let known = (declaration.index_count(), self.table.foreign_keys.len(), checks_of(&self.table)?.len());
        let rewrites = matches!(constraint, TableConstraint::PrimaryKey(_));
        declaration.add_constraint(&context, constraint)?;
        drop(context);
        let new_table = declaration.into_table()?;
        if rewrites {
            let mut change = Rewrite::of(&self.table);
            change.become_table(new_table);
            self.table = rewrite(self.statement, self.transaction, &self.table, change).await?;
            return Ok(());
        }
        if let Some(index) = new_table.indexes.get(known.0) {
            let index: NewIndex = index.clone();
            self.transaction.create_index(self.table.id, index).await?;
            let table = self.transaction.view().catalog().table(self.table.id).cloned();
            self.table = table.ok_or_else(|| Error::internal("an altered table is gone"))?;
            return Ok(());
        }
        let id = self.table.id;
        self.redefine(|definition| {
            definition.schema = Arc::clone(&new_table.schema);
            definition.foreign_keys = new_table.foreign_keys;
            if let Some(foreign_key) = definition.foreign_keys.get_mut(known.1) {
                foreign_key.not_validated = not_valid;
            }
            // The table itself has an identity already.
            let own = definition.foreign_keys.iter_mut();
            own.filter(|key| key.parent == rustydb_storage::TableId::SELF).for_each(|key| key.parent = id);
            Ok(())
        })?;
        let mut checks = checks_of(&self.table)?;
        if let Some(check) = checks.get_mut(known.2) {
            check.not_validated = not_valid;
            let added = check.clone();
            self.set_checks(&checks)?;
            Declaration::check_expressions(&self.statement.context(self.transaction.view()), &self.table)?;
            if !not_valid {
                self.validate_check(&added).await?;
            }
        } else if let Some(foreign_key) = self.table.foreign_keys.get(known.1).cloned()
            && !not_valid
        {
            self.transaction.require_unchanged(self.table.id);
            check_rows_of(self.statement, self.transaction, &self.table, &foreign_key).await?;
        }
        Ok(())
    }

    async fn validate_check(&mut self, check: &Check) -> Result<()> {
        let condition =
            Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(check.syntax()?))) };
        let (name, table) = (check.name.clone(), self.table.name.clone());
        self.transaction.require_unchanged(self.table.id);
        self.find_none(condition, || {
            let message = format!("check constraint \"{name}\" of table \"{table}\" is violated by some row");
            Error::new(sqlstate::CHECK_VIOLATION, message)
        })
        .await
    }

    async fn validate_constraint(&mut self, name: &str) -> Result<()> {
        let mut checks = checks_of(&self.table)?;
        if let Some(check) = checks.iter_mut().find(|check| check.name == name) {
            check.not_validated = false;
            let check = check.clone();
            self.validate_check(&check).await?;
            return self.set_checks(&checks);
        }
        if let Some(foreign_key) = self.table.foreign_keys.iter().find(|key| key.name == name).cloned() {
            self.transaction.require_unchanged(self.table.id);
            check_rows_of(self.statement, self.transaction, &self.table, &foreign_key).await?;
            return self.redefine(|definition| {
                let keys = definition.foreign_keys.iter_mut().filter(|key| key.name == name);
                keys.for_each(|key| key.not_validated = false);
                Ok(())
            });
        }
        match self.has_constraint(name)? {
            true => Ok(()),
            false => Err(self.no_constraint(name)),
        }
    }

    async fn drop_constraint(&mut self, name: &str, if_exists: bool, cascade: bool) -> Result<()> {
        let mut checks = checks_of(&self.table)?;
        if checks.iter().any(|check| check.name == name) {
            checks.retain(|check| check.name != name);
            return self.set_checks(&checks);
        }
        if self.table.foreign_keys.iter().any(|key| key.name == name) {
            return self.redefine(|definition| {
                definition.foreign_keys.retain(|key| key.name != name);
                Ok(())
            });
        }
        if let Some(index) = self.table.indexes.iter().find(|index| index.name == name).map(|index| index.id) {
            self.transaction.drop_index(self.table.id, index)?;
            let table = self.transaction.view().catalog().table(self.table.id).cloned();
            self.table = table.ok_or_else(|| Error::internal("an altered table is gone"))?;
            return Ok(());
        }
        if !self.table.primary_key.is_empty() && self.table.primary_key_name() == name {
            if is_referred_to(self.transaction, &self.table) {
                refuse(cascade, "DROP CONSTRAINT … CASCADE of a primary key that foreign keys refer to")?;
                return Err(self.is_referred_to("drop the primary key"));
            }
            let mut change = Rewrite::of(&self.table);
            change.primary_key.clear();
            change.metadata.remove(PRIMARY_KEY_NAME);
            self.table = rewrite(self.statement, self.transaction, &self.table, change).await?;
            return Ok(());
        }
        match if_exists {
            true => Ok(()),
            false => Err(self.no_constraint(name)),
        }
    }
}

fn with_default(field: Field, text: Option<String>) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(DEFAULT_KEY);
    metadata.extend(text.map(|text| (DEFAULT_KEY.to_owned(), text)));
    field.with_metadata(metadata)
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
