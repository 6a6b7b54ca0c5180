//! ALTER TABLE on constraints: adding, dropping, renaming and validating them.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{Expr, TableConstraint, UnaryOperator};
use rustydb_storage::{NewIndex, PRIMARY_KEY_NAME};

use super::super::declaration::Declaration;
use super::super::rewrite::Rewrite;
use super::Alteration;
use crate::constraints::{Check, checks_of};
use crate::dml::foreign_key::check_rows_of;
use crate::error::sqlstate;
use crate::{Error, Result};

impl Alteration<'_, '_> {
    pub(super) fn rename_constraint(&mut self, old: &str, new: String) -> Result<()> {
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
        let unique = self.table.indexes.iter().find(|index| index.unique && index.name == old).map(|index| index.id);
        match unique {
            Some(index) => {
                self.require_free(&self.table.schema_name, &new)?;
                self.transaction.rename_index(self.table.id, index, new)?;
                self.reload()
            }
            None => Err(self.no_constraint(old)),
        }
    }

    pub(super) fn has_constraint(&self, name: &str) -> Result<bool> {
        Ok((!self.table.primary_key.is_empty() && self.table.primary_key_name() == name)
            || self.table.foreign_keys.iter().any(|foreign_key| foreign_key.name == name)
            || self.table.indexes.iter().any(|index| index.name == name)
            || checks_of(&self.table)?.iter().any(|check| check.name == name))
    }

    pub(super) fn no_constraint(&self, name: &str) -> Error {
        let message = format!("constraint \"{name}\" of table \"{}\" does not exist", self.table.name);
        Error::new(sqlstate::UNDEFINED_OBJECT, message)
    }

    pub(super) async fn add_constraint(&mut self, constraint: TableConstraint, not_valid: bool) -> Result<()> {
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
            self.rewrite(change).await?;
            // The rows that are there already are not of a kind that may wait.
            self.transaction.check_deferred(None).await?;
            return Ok(());
        }
        if let Some(index) = new_table.indexes.get(known.0) {
            let index: NewIndex = index.clone();
            self.transaction.create_index(self.table.id, index).await?;
            return self.reload();
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

    pub(super) async fn validate_check(&mut self, check: &Check) -> Result<()> {
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

    pub(super) async fn validate_constraint(&mut self, name: &str) -> Result<()> {
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

    pub(super) async fn drop_constraint(&mut self, name: &str, if_exists: bool, cascade: bool) -> Result<()> {
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
        if let Some(index) = self.table.indexes.iter().find(|index| index.unique && index.name == name).cloned() {
            self.release(&index.columns, cascade, &format!("drop constraint {name}"))?;
            self.transaction.drop_index(self.table.id, index.id)?;
            return self.reload();
        }
        if !self.table.primary_key.is_empty() && self.table.primary_key_name() == name {
            let key = self.table.primary_key.clone();
            self.release(&key, cascade, &format!("drop constraint {name}"))?;
            let mut change = Rewrite::of(&self.table);
            change.primary_key.clear();
            change.metadata.remove(PRIMARY_KEY_NAME);
            self.rewrite(change).await?;
            return Ok(());
        }
        match if_exists {
            true => Ok(()),
            false => Err(self.no_constraint(name)),
        }
    }
}
