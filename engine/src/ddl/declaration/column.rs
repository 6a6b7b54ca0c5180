//! Columns of a declaration, with the constraints written at them.

use arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast::{
    ColumnDef, ColumnOption, ColumnOptionDef, DataType as SqlType, ForeignKeyConstraint, GeneratedAs,
    GeneratedExpressionMode, NullsDistinctOption, PrimaryKeyConstraint, SequenceOptions,
};

use super::super::sequence::{nextval_text, with_full_names};
use super::keys::{deferral, refuse_index_clause};
use super::{ColumnSequence, Declaration, check_default, duplicate_column};
use crate::constraints::{GENERATED_KEY, IDENTITY_KEY};
use crate::error::sqlstate;
use crate::sql::check::refuse;
use crate::sql::context::StatementContext;
use crate::sql::text::parse::{fold, place};
use crate::sql::types::{DEFAULT_KEY, column_type};
use crate::{Error, Result};

impl Declaration {
    pub(super) fn read_column(
        &mut self,
        context: &StatementContext,
        column: ColumnDef,
        references: &mut Vec<ForeignKeyConstraint>,
    ) -> Result<()> {
        let ColumnDef { name: ident, data_type, options } = column;
        let (name, at) = (fold(&ident), place(ident.span));
        if self.fields.iter().any(|field| *field.name() == name) {
            return Err(duplicate_column(&name).at(at));
        }
        let serial = serial_type(&data_type);
        let mut field = match &serial {
            Some(integer) => Field::new(&name, integer.clone(), true),
            None => column_type(&data_type).map_err(|error| error.at(at))?.field(&name, true),
        };
        let mut sources = usize::from(serial.is_some());
        let mut nullable = None;
        let index = self.fields.len();
        let (mut in_primary_key, mut in_unique) = (None, None);
        for ColumnOptionDef { name: constraint_name, option } in options {
            match option {
                ColumnOption::Null if nullable == Some(false) => return Err(conflicting_null(&name).at(at)),
                ColumnOption::NotNull if nullable == Some(true) => return Err(conflicting_null(&name).at(at)),
                ColumnOption::Null => nullable = Some(true),
                ColumnOption::NotNull => nullable = Some(false),
                ColumnOption::Default(expr) => {
                    sources += 1;
                    let expr = with_full_names(context, expr);
                    let shown = expr.to_string();
                    check_default(context, expr, &field).map_err(|error| error.at(at))?;
                    field = with_metadata(field, DEFAULT_KEY, shown);
                }
                ColumnOption::Generated {
                    generated_as: GeneratedAs::ExpStored | GeneratedAs::Always,
                    generation_expr: Some(expr),
                    generation_expr_mode,
                    sequence_options: _,
                    generated_keyword: _,
                } => {
                    refuse(generation_expr_mode != Some(GeneratedExpressionMode::Stored), "a VIRTUAL column")?;
                    sources += 1;
                    field = with_metadata(field, GENERATED_KEY, expr.to_string());
                }
                ColumnOption::Generated { generated_as, sequence_options, generation_expr: None, .. } => {
                    sources += 1;
                    let integer = matches!(field.data_type(), DataType::Int16 | DataType::Int32 | DataType::Int64);
                    if !integer {
                        let message = "identity column type must be smallint, integer, or bigint";
                        return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message).at(at));
                    }
                    let kind = match generated_as {
                        GeneratedAs::Always => "always",
                        _ => "by default",
                    };
                    nullable = Some(false);
                    field = with_metadata(field, IDENTITY_KEY, kind.to_owned());
                    field = self.add_sequence(context, field, sequence_options.unwrap_or_default(), true);
                }
                ColumnOption::Unique(mut unique) => {
                    unique.name = unique.name.or(constraint_name);
                    in_unique = Some(unique);
                }
                ColumnOption::Check(mut check) => {
                    check.name = check.name.or(constraint_name);
                    self.read_check(check, Some(&name))?;
                }
                ColumnOption::PrimaryKey(mut key) => {
                    key.name = key.name.or(constraint_name);
                    in_primary_key = Some(key);
                }
                ColumnOption::ForeignKey(mut key) => {
                    key.name = key.name.or(constraint_name);
                    key.columns = vec![ident.clone()];
                    references.push(key);
                }
                other => return Err(unsupported_option(&other).at(at)),
            }
        }
        if sources > 1 {
            let message = format!("multiple default values specified for column \"{name}\" of table \"{}\"", self.name);
            return Err(Error::syntax(message).at(at));
        }
        if serial.is_some() {
            nullable = Some(false);
            field = self.add_sequence(context, field, Vec::new(), false);
        }
        if in_primary_key.is_some() && nullable == Some(true) {
            return Err(conflicting_null(&name).at(at));
        }
        self.fields.push(field.with_nullable(nullable.unwrap_or(true)));
        if let Some(mut unique) = in_unique {
            let distinct = !matches!(unique.nulls_distinct, NullsDistinctOption::NotDistinct);
            let name = unique.name.take();
            refuse_index_clause(
                unique.index_name.is_some() || unique.index_type.is_some() || !unique.index_options.is_empty(),
            )?;
            self.add_unique(name, vec![index], distinct, deferral(unique.characteristics.take())?)?;
        }
        match in_primary_key {
            Some(PrimaryKeyConstraint { name, index_name, index_type, columns: _, index_options, characteristics }) => {
                refuse_index_clause(index_name.is_some() || index_type.is_some() || !index_options.is_empty())?;
                self.set_primary_key(name, vec![index], deferral(characteristics)?)
            }
            None => Ok(()),
        }
    }

    /// Notes the sequence that numbers a column, and makes its next value the column's default.
    pub(super) fn add_sequence(
        &mut self,
        context: &StatementContext,
        field: Field,
        options: Vec<SequenceOptions>,
        identity: bool,
    ) -> Field {
        let base = format!("{}_{}_seq", self.name, field.name());
        let catalog = context.view().catalog();
        let taken = |name: &str| {
            use rustydb_storage::ObjectKind::{Sequence, View};
            catalog.find(&self.schema_name, name).is_some()
                || [View, Sequence].iter().any(|kind| catalog.find_object(*kind, &self.schema_name, name).is_some())
                || self.sequences.iter().any(|known| known.name == name)
        };
        let names = (0..).map(|number| if number == 0 { base.clone() } else { format!("{base}{number}") });
        let name = names.into_iter().find(|name| !taken(name)).unwrap_or(base.clone());
        let default = nextval_text(&self.schema_name, &name);
        let data_type = field.data_type().clone();
        self.sequences.push(ColumnSequence { column: field.name().clone(), name, data_type, options, identity });
        with_metadata(field, DEFAULT_KEY, default)
    }
}

fn conflicting_null(column: &str) -> Error {
    Error::syntax(format!("conflicting NULL and NOT NULL declarations for column \"{column}\""))
}

/// The integer type behind `serial` and its like.
fn serial_type(data_type: &SqlType) -> Option<DataType> {
    let SqlType::Custom(name, modifiers) = data_type else { return None };
    if !modifiers.is_empty() {
        return None;
    }
    match name.to_string().to_ascii_lowercase().as_str() {
        "smallserial" | "serial2" => Some(DataType::Int16),
        "serial" | "serial4" => Some(DataType::Int32),
        "bigserial" | "serial8" => Some(DataType::Int64),
        _ => None,
    }
}

fn with_metadata(field: Field, key: &str, value: String) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(key.to_owned(), value);
    field.with_metadata(metadata)
}

fn unsupported_option(option: &ColumnOption) -> Error {
    let what = match option {
        ColumnOption::Generated { .. } => "this kind of generated column",
        ColumnOption::Identity(_) => "IDENTITY or AUTOINCREMENT",
        ColumnOption::DialectSpecific(_) => "this column option",
        ColumnOption::CharacterSet(_) => "CHARACTER SET",
        ColumnOption::Collation(_) => "COLLATE",
        ColumnOption::Comment(_) => "COMMENT in CREATE TABLE",
        ColumnOption::OnUpdate(_) => "ON UPDATE of a column",
        ColumnOption::Materialized(_) | ColumnOption::Ephemeral(_) | ColumnOption::Alias(_) => {
            "a MATERIALIZED, EPHEMERAL or ALIAS column"
        }
        ColumnOption::Options(_) => "OPTIONS of a column",
        ColumnOption::OnConflict(_) => "ON CONFLICT of a column",
        ColumnOption::Policy(_) | ColumnOption::Tags(_) => "a policy or tag of a column",
        ColumnOption::Srid(_) | ColumnOption::Invisible => "this column option",
        ColumnOption::Null
        | ColumnOption::NotNull
        | ColumnOption::Default(_)
        | ColumnOption::PrimaryKey(_)
        | ColumnOption::Unique(_)
        | ColumnOption::Check(_)
        | ColumnOption::ForeignKey(_) => "this combination of column options",
    };
    Error::unsupported(what)
}
