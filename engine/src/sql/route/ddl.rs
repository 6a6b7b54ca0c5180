//! The statements that change what there is, with only the clauses we have.

use datafusion::sql::sqlparser::ast::{
    AlterTable, AlterTableOperation, CascadeOption, CreateTableOptions, CreateView, DataType, Expr, Ident, ObjectName,
    ObjectType, Query, SchemaName, SequenceOptions, Statement, Truncate, TruncateIdentityOption, TruncateTableTarget,
    ViewColumnDef,
};

use serde::{Deserialize, Serialize};

use super::{CreateSchemaStatement, Write};
use crate::sql::check::refuse;
use crate::sql::text::parse::table_name;
use crate::{Error, Result};

#[derive(Debug, Clone)]
pub(crate) struct CreateViewStatement {
    pub(crate) name: ObjectName,
    pub(crate) temporary: bool,
    pub(crate) or_replace: bool,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<Ident>,
    pub(crate) query: Box<Query>,
    pub(crate) check: Option<CheckOption>,
}

/// Which rows may come into a table through a view: those that it shows, and that a view below it shows, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CheckOption {
    Local,
    Cascaded,
}

#[derive(Debug, Clone)]
pub(crate) struct CreateSequenceStatement {
    pub(crate) name: ObjectName,
    pub(crate) temporary: bool,
    pub(crate) if_not_exists: bool,
    pub(crate) data_type: Option<DataType>,
    pub(crate) options: Vec<SequenceOptions>,
    pub(crate) owned_by: Option<ObjectName>,
}

#[derive(Debug, Clone)]
pub(crate) struct AlterSequenceStatement {
    pub(crate) name: ObjectName,
    pub(crate) if_exists: bool,
    pub(crate) options: Vec<SequenceOptions>,
    /// RESTART; with the value, if one is given.
    pub(crate) restart: Option<Option<Expr>>,
    /// OWNED BY; `None` inside is NONE.
    pub(crate) owned_by: Option<Option<ObjectName>>,
}

/// ALTER of a view, index, sequence or schema that gives it another name or place.
#[derive(Debug, Clone)]
pub(crate) struct RelocateStatement {
    pub(crate) kind: RelationKind,
    pub(crate) name: ObjectName,
    pub(crate) if_exists: bool,
    pub(crate) change: Relocation,
}

/// What is given another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelationKind {
    View,
    Index,
    Sequence,
    Schema,
}

/// RENAME TO, or SET SCHEMA.
#[derive(Debug, Clone)]
pub(crate) enum Relocation {
    Name(String),
    Schema(String),
}

#[derive(Debug, Clone)]
pub(crate) struct CommentStatement {
    pub(crate) on: Commented,
    /// `None` takes the comment away.
    pub(crate) text: Option<String>,
}

/// What a comment is about.
#[derive(Debug, Clone)]
pub(crate) enum Commented {
    Table(ObjectName),
    View(ObjectName),
    Index(ObjectName),
    Sequence(ObjectName),
    Schema(ObjectName),
    Column {
        table: ObjectName,
        column: Ident,
    },
    Constraint {
        name: Ident,
        table: ObjectName,
    },
    /// Something we have no comments on, by the word it begins with.
    Other(String),
}

#[derive(Debug, Clone)]
pub(crate) struct DropStatement {
    pub(crate) kind: DropKind,
    pub(crate) names: Vec<ObjectName>,
    pub(crate) if_exists: bool,
    pub(crate) cascade: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct AlterTableStatement {
    pub(crate) name: ObjectName,
    pub(crate) if_exists: bool,
    pub(crate) operations: Vec<AlterOperation>,
}

/// A part of ALTER TABLE.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one for each statement, moved a few times")]
pub(crate) enum AlterOperation {
    Sql(Box<AlterTableOperation>),
    SetSchema(String),
    Identity { column: Ident, change: IdentityChange },
}

/// What ALTER COLUMN does to what numbers or computes the column.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one for each statement, moved a few times")]
pub(crate) enum IdentityChange {
    Add { always: bool, options: Vec<SequenceOptions> },
    Set { always: Option<bool>, options: Vec<SequenceOptions>, restart: Option<Option<Expr>> },
    Drop { if_exists: bool },
    DropExpression { if_exists: bool },
}

/// What a DROP drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropKind {
    Table,
    View,
    Sequence,
    Schema,
}

impl DropKind {
    pub(crate) fn tag(self) -> &'static str {
        match self {
            DropKind::Table => "DROP TABLE",
            DropKind::View => "DROP VIEW",
            DropKind::Sequence => "DROP SEQUENCE",
            DropKind::Schema => "DROP SCHEMA",
        }
    }

    pub(crate) fn noun(self) -> &'static str {
        match self {
            DropKind::Table => "table",
            DropKind::View => "view",
            DropKind::Sequence => "sequence",
            DropKind::Schema => "schema",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct TruncateStatement {
    pub(crate) names: Vec<ObjectName>,
    pub(crate) cascade: bool,
    pub(crate) restart_identity: bool,
}

pub(super) fn route_drop(statement: Statement) -> Result<Write> {
    let Statement::Drop { object_type, if_exists, names, cascade, restrict: _, purge, temporary, table } = statement
    else {
        return Err(Error::internal("a DROP that is none"));
    };
    let kind = match object_type {
        ObjectType::Table => DropKind::Table,
        ObjectType::View => DropKind::View,
        ObjectType::Sequence => DropKind::Sequence,
        ObjectType::Schema => DropKind::Schema,
        ObjectType::Index => return Ok(Write::DropIndex { names, if_exists, cascade }),
        other => return Err(Error::unsupported(format!("DROP {other}"))),
    };
    refuse(purge, "DROP TABLE … PURGE")?;
    refuse(temporary, "DROP TEMPORARY TABLE")?;
    refuse(table.is_some(), "DROP … ON")?;
    Ok(Write::Drop(DropStatement { kind, names, if_exists, cascade }))
}

pub(crate) fn route_create_view(create: CreateView) -> Result<CreateViewStatement> {
    let CreateView {
        or_alter,
        or_replace,
        materialized,
        secure,
        name,
        name_before_not_exists: _,
        columns,
        query,
        options,
        cluster_by,
        comment,
        with_no_schema_binding,
        if_not_exists,
        temporary,
        copy_grants,
        to,
        params,
    } = create;
    refuse(materialized, "CREATE MATERIALIZED VIEW")?;
    refuse(or_alter, "CREATE OR ALTER VIEW")?;
    refuse(!matches!(options, CreateTableOptions::None), "WITH or OPTIONS of a view")?;
    refuse(
        secure
            || !cluster_by.is_empty()
            || comment.is_some()
            || with_no_schema_binding
            || copy_grants
            || to.is_some()
            || params.is_some(),
        "another system's option of a view",
    )?;
    let mut names = Vec::with_capacity(columns.len());
    for ViewColumnDef { name, data_type, options } in columns {
        refuse(data_type.is_some() || options.is_some(), "a type or option of a view's column")?;
        names.push(name);
    }
    Ok(CreateViewStatement { name, temporary, or_replace, if_not_exists, columns: names, query, check: None })
}

pub(super) fn route_create_schema(statement: Statement) -> Result<Write> {
    let Statement::CreateSchema { schema_name, if_not_exists, with, options, default_collate_spec, clone } = statement
    else {
        return Err(Error::internal("a CREATE SCHEMA that is none"));
    };
    refuse(
        with.is_some() || options.is_some() || default_collate_spec.is_some() || clone.is_some(),
        "an option of a schema",
    )?;
    let (name, owner) = match schema_name {
        SchemaName::Simple(name) => (Some(table_name(&name)?.1), None),
        SchemaName::UnnamedAuthorization(owner) => (None, Some(owner)),
        SchemaName::NamedAuthorization(name, owner) => (Some(table_name(&name)?.1), Some(owner)),
    };
    Ok(Write::CreateSchema(CreateSchemaStatement { name, owner, if_not_exists }))
}

pub(super) fn route_alter_table(alter: AlterTable) -> Result<AlterTableStatement> {
    let AlterTable { name, if_exists, only: _, operations, location, on_cluster, table_type, end_token: _ } = alter;
    refuse(location.is_some() || on_cluster.is_some() || table_type.is_some(), "another system's ALTER TABLE")?;
    let operations = operations.into_iter().map(|operation| AlterOperation::Sql(Box::new(operation))).collect();
    Ok(AlterTableStatement { name, if_exists, operations })
}

pub(super) fn route_truncate(truncate: Truncate) -> Result<TruncateStatement> {
    let Truncate { table_names, partitions, table: _, if_exists, identity, cascade, on_cluster } = truncate;
    refuse(partitions.is_some(), "TRUNCATE … PARTITION")?;
    refuse(if_exists, "TRUNCATE IF EXISTS")?;
    refuse(on_cluster.is_some(), "TRUNCATE … ON CLUSTER")?;
    let names = table_names.into_iter().map(|TruncateTableTarget { name, .. }| name).collect();
    Ok(TruncateStatement {
        names,
        cascade: matches!(cascade, Some(CascadeOption::Cascade)),
        restart_identity: matches!(identity, Some(TruncateIdentityOption::Restart)),
    })
}
