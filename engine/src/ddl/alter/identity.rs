//! ALTER COLUMN on what numbers a column or computes it: identities, and the expression of a generated column.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{Expr, Ident, SequenceOptions};
use rustydb_storage::{ObjectDef, ObjectKind};

use super::super::declaration::ColumnSequence;
use super::super::relocate::free_name;
use super::super::sequence::{change_sequence, create_column_sequence, nextval_text};
use super::Alteration;
use crate::constraints::{GENERATED_KEY, IDENTITY_KEY};
use crate::dml::defaults::column_index;
use crate::error::sqlstate;
use crate::sequences::SequenceDefinition;
use crate::sql::route::IdentityChange;
use crate::sql::text::parse::{fold, place};
use crate::sql::types::DEFAULT_KEY;
use crate::{Error, Result};

fn kind_text(always: bool) -> String {
    if always { "always" } else { "by default" }.to_owned()
}

impl Alteration<'_, '_> {
    pub(super) fn change_identity(&mut self, column: &Ident, change: IdentityChange) -> Result<()> {
        let index = column_index(&self.table, &fold(column)).map_err(|error| error.at(place(column.span)))?;
        match change {
            IdentityChange::Add { always, options } => self.add_identity(index, always, options),
            IdentityChange::Set { always, options, restart } => self.set_identity(index, always, &options, restart),
            IdentityChange::Drop { if_exists } => self.drop_identity(index, if_exists),
            IdentityChange::DropExpression { if_exists } => {
                let field = self.table.schema.field(index);
                match field.metadata().contains_key(GENERATED_KEY) {
                    true => self.redefine_field(index, |field| without(field, &[GENERATED_KEY])),
                    false if if_exists => Ok(()),
                    false => Err(self.wrong_state(index, "is not a stored generated column")),
                }
            }
        }
    }

    fn wrong_state(&self, index: usize, what: &str) -> Error {
        let (column, table) = (self.table.schema.field(index).name(), &self.table.name);
        Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, format!("column \"{column}\" of relation \"{table}\" {what}"))
    }

    fn add_identity(&mut self, index: usize, always: bool, options: Vec<SequenceOptions>) -> Result<()> {
        let field = self.table.schema.field(index).clone();
        if !matches!(field.data_type(), DataType::Int16 | DataType::Int32 | DataType::Int64) {
            let message = "identity column type must be smallint, integer, or bigint";
            return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
        }
        if field.is_nullable() {
            return Err(self.wrong_state(index, "must be declared NOT NULL before identity can be added"));
        }
        for (key, what) in [
            (IDENTITY_KEY, "is already an identity column"),
            (DEFAULT_KEY, "already has a default value"),
            (GENERATED_KEY, "is a generated column"),
        ] {
            if field.metadata().contains_key(key) {
                return Err(self.wrong_state(index, what));
            }
        }
        let schema = self.table.schema_name.clone();
        let base = format!("{}_{}_seq", self.table.name, field.name());
        let name = free_name(self.transaction.view().catalog(), &schema, &base);
        let default = nextval_text(&schema, &name);
        let (column, data_type) = (field.name().clone(), field.data_type().clone());
        let sequence = ColumnSequence { column, name, data_type, options, identity: true };
        create_column_sequence(self.transaction, &self.table, sequence)?;
        self.redefine_field(index, |field| {
            let mut metadata = field.metadata().clone();
            metadata.insert(IDENTITY_KEY.to_owned(), kind_text(always));
            metadata.insert(DEFAULT_KEY.to_owned(), default);
            field.with_metadata(metadata)
        })
    }

    /// The sequence of an identity column.
    fn identity_sequence(&self, index: usize) -> Result<std::sync::Arc<ObjectDef>> {
        let column = self.table.schema.field(index).name();
        let view = self.transaction.view();
        for object in view.catalog().objects().filter(|object| object.kind == ObjectKind::Sequence) {
            let owner = SequenceDefinition::of(object)?.owner;
            let is_own = owner.is_some_and(|own| own.identity && own.table == self.table.id.0 && own.column == *column);
            if is_own {
                return Ok(std::sync::Arc::clone(object));
            }
        }
        Err(Error::internal(format!("the sequence of identity column \"{column}\" is gone")))
    }

    fn set_identity(
        &mut self,
        index: usize,
        always: Option<bool>,
        options: &[SequenceOptions],
        restart: Option<Option<Expr>>,
    ) -> Result<()> {
        if !self.table.schema.field(index).metadata().contains_key(IDENTITY_KEY) {
            return Err(self.wrong_state(index, "is not an identity column"));
        }
        if !options.is_empty() || restart.is_some() {
            let sequence = self.identity_sequence(index)?;
            change_sequence(self.statement, self.transaction, &sequence, options, restart)?;
        }
        match always {
            None => Ok(()),
            Some(always) => self.redefine_field(index, |field| {
                let mut metadata = field.metadata().clone();
                metadata.insert(IDENTITY_KEY.to_owned(), kind_text(always));
                field.with_metadata(metadata)
            }),
        }
    }

    fn drop_identity(&mut self, index: usize, if_exists: bool) -> Result<()> {
        if !self.table.schema.field(index).metadata().contains_key(IDENTITY_KEY) {
            return match if_exists {
                true => Ok(()),
                false => Err(self.wrong_state(index, "is not an identity column")),
            };
        }
        let sequence = self.identity_sequence(index)?;
        self.redefine_field(index, |field| without(field, &[IDENTITY_KEY, DEFAULT_KEY]))?;
        self.transaction.drop_object(sequence.id)?;
        self.reload()
    }
}

fn without(field: arrow::datatypes::Field, keys: &[&str]) -> arrow::datatypes::Field {
    let mut metadata = field.metadata().clone();
    metadata.retain(|key, _| !keys.contains(&key.as_str()));
    field.with_metadata(metadata)
}
