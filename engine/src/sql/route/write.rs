//! The statements that change the database, with only the clauses we have.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{
    ColumnDef, CreateIndex, CreateTable, CreateTableLike, CreateTableLikeDefaults, CreateTableLikeKind,
    CreateTableOptions, HiveDistributionStyle, Ident, ObjectName, OnCommit, Query, TableConstraint,
};

use super::ddl::{
    AlterSequenceStatement, AlterTableStatement, CommentStatement, CreateSequenceStatement, CreateViewStatement,
    DropStatement, RelocateStatement, TruncateStatement,
};
use super::dml::{DeleteStatement, InsertStatement, MergeStatement, UpdateStatement};
use super::with::WithStatement;

use crate::error::sqlstate;
use crate::sql::check::refuse;
use crate::sql::grammar::copy::CopyStatement;
use crate::sql::grammar::routine::{CreateRoutineStatement, DropRoutineStatement};
use crate::{Error, Result};

/// `CREATE SCHEMA [IF NOT EXISTS] [name] [AUTHORIZATION owner]`
#[derive(Debug, Clone)]
pub(crate) struct CreateSchemaStatement {
    /// `None`: that of its owner.
    pub(crate) name: Option<String>,
    pub(crate) owner: Option<Ident>,
    pub(crate) if_not_exists: bool,
}

/// A statement that changes the database.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    CreateTable(Box<CreateTableStatement>),
    CreateSchema(CreateSchemaStatement),
    CreateView(Box<CreateViewStatement>),
    CreateSequence(Box<CreateSequenceStatement>),
    AlterSequence(Box<AlterSequenceStatement>),
    CreateRoutine(Box<CreateRoutineStatement>),
    DropRoutine(DropRoutineStatement),
    AlterTable(Box<AlterTableStatement>),
    Relocate(Box<RelocateStatement>),
    Comment(Box<CommentStatement>),
    /// Taken apart where it is carried out.
    CreateIndex(Box<CreateIndex>),
    DropIndex {
        names: Vec<ObjectName>,
        if_exists: bool,
        cascade: bool,
    },
    Drop(DropStatement),
    Truncate(TruncateStatement),
    /// All that is temporary in the session.
    DiscardTemporary,
    /// Changes when rows are checked; routed here because the checks look at the transaction's changes.
    SetConstraints {
        names: Vec<String>,
        deferred: bool,
    },
    Insert(InsertStatement),
    Update(UpdateStatement),
    Delete(DeleteStatement),
    Merge(Box<MergeStatement>),
    With(Box<WithStatement>),
    CopyFrom(Box<CopyStatement>),
    /// Changes files, not tables; routed here because it is checked and counted like a load.
    CopyTo(Box<CopyStatement>),
}

#[derive(Debug, Clone)]
pub(crate) struct CreateTableStatement {
    pub(crate) name: ObjectName,
    pub(crate) if_not_exists: bool,
    pub(crate) temporary: bool,
    /// What a commit does to a temporary table's rows, or to it: `delete` or `drop`.
    pub(crate) on_commit: Option<&'static str>,
    pub(crate) columns: Vec<ColumnDef>,
    pub(crate) constraints: Vec<TableConstraint>,
    pub(crate) query: Option<Box<Query>>,
    /// What the columns of the query are called in the table; the others keep their names.
    pub(crate) names: Vec<Ident>,
    /// WITH NO DATA
    pub(crate) without_rows: bool,
    pub(crate) likes: Vec<LikeClause>,
}

/// LIKE in CREATE TABLE.
#[derive(Debug, Clone)]
pub(crate) struct LikeClause {
    /// The other table.
    pub(crate) source: ObjectName,
    /// What comes of it beside its columns.
    pub(crate) parts: BTreeSet<LikePart>,
    /// How many columns are declared before it.
    pub(crate) place: usize,
}

/// What INCLUDING names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LikePart {
    Comments,
    Constraints,
    Defaults,
    Generated,
    Identity,
    Indexes,
}

impl LikePart {
    pub(crate) const ALL: [LikePart; 6] = [
        LikePart::Comments,
        LikePart::Constraints,
        LikePart::Defaults,
        LikePart::Generated,
        LikePart::Identity,
        LikePart::Indexes,
    ];
}

impl CreateTableStatement {
    /// A table of the rows of a query.
    pub(super) fn of_query(name: ObjectName, temporary: bool, query: Box<Query>) -> Self {
        CreateTableStatement {
            name,
            if_not_exists: false,
            temporary,
            on_commit: None,
            columns: Vec::new(),
            constraints: Vec::new(),
            query: Some(query),
            names: Vec::new(),
            without_rows: false,
            likes: Vec::new(),
        }
    }
}

pub(super) fn route_create_table(create: CreateTable) -> Result<CreateTableStatement> {
    let CreateTable {
        or_replace,
        temporary,
        external,
        dynamic,
        global,
        if_not_exists,
        transient,
        volatile,
        iceberg,
        snapshot,
        name,
        columns,
        constraints,
        hive_distribution,
        hive_formats,
        table_options,
        file_format,
        location,
        query,
        without_rowid,
        like,
        clone,
        version,
        comment,
        on_commit,
        on_cluster,
        primary_key,
        order_by,
        partition_by,
        cluster_by,
        clustered_by,
        inherits,
        partition_of,
        for_values,
        strict,
        copy_grants,
        enable_schema_evolution,
        change_tracking,
        data_retention_time_in_days,
        max_data_extension_time_in_days,
        default_ddl_collation,
        with_aggregation_policy,
        with_row_access_policy,
        with_storage_lifecycle_policy,
        with_tags,
        external_volume,
        base_location,
        catalog,
        catalog_sync,
        storage_serialization_policy,
        target_lag,
        warehouse,
        refresh_mode,
        initialize,
        require_user,
        diststyle,
        distkey,
        sortkey,
        backup,
    } = create;
    refuse(or_replace, "CREATE OR REPLACE TABLE")?;
    refuse(external || location.is_some() || file_format.is_some(), "CREATE EXTERNAL TABLE")
        .map_err(|error| error.with_hint("Load the file with COPY … FROM."))?;
    refuse(dynamic || transient || volatile || iceberg || snapshot, "this kind of table")?;
    let like = like.map(|(CreateTableLikeKind::Parenthesized(like) | CreateTableLikeKind::Plain(like))| {
        let CreateTableLike { name: source, defaults } = like;
        let with_defaults = matches!(defaults, Some(CreateTableLikeDefaults::Including));
        LikeClause { source, parts: with_defaults.then_some(LikePart::Defaults).into_iter().collect(), place: 0 }
    });
    refuse(clone.is_some() || version.is_some(), "CREATE TABLE … CLONE")?;
    refuse(comment.is_some(), "COMMENT in CREATE TABLE")?;
    // GLOBAL and LOCAL mean nothing, as in PostgreSQL.
    let temporary = temporary || global.is_some();
    if on_commit.is_some() && !temporary {
        let message = "ON COMMIT can only be used on temporary tables";
        return Err(Error::new(sqlstate::INVALID_TABLE_DEFINITION, message));
    }
    let on_commit = match on_commit {
        None | Some(OnCommit::PreserveRows) => None,
        Some(OnCommit::DeleteRows) => Some("delete"),
        Some(OnCommit::Drop) => Some("drop"),
    };
    refuse(inherits.is_some(), "INHERITS")?;
    refuse(partition_by.is_some() || partition_of.is_some() || for_values.is_some(), "PARTITION BY or PARTITION OF")?;
    refuse(hive_distribution != HiveDistributionStyle::NONE, "PARTITIONED BY")?;
    refuse(cluster_by.is_some() || clustered_by.is_some() || order_by.is_some(), "CLUSTER BY or ORDER BY of a table")?;
    refuse(primary_key.is_some(), "PRIMARY KEY after the columns' list")?;
    refuse(without_rowid || strict, "WITHOUT ROWID or STRICT")?;
    refuse(!matches!(table_options, CreateTableOptions::None), "WITH or OPTIONS of a table")?;
    let no_hive_format = hive_formats.is_none_or(|format| {
        format.row_format.is_none()
            && format.serde_properties.is_none()
            && format.storage.is_none()
            && format.location.is_none()
    });
    refuse(!no_hive_format, "a table's storage format")?;
    refuse(
        on_cluster.is_some()
            || copy_grants
            || enable_schema_evolution.is_some()
            || change_tracking.is_some()
            || data_retention_time_in_days.is_some()
            || max_data_extension_time_in_days.is_some()
            || default_ddl_collation.is_some()
            || with_aggregation_policy.is_some()
            || with_row_access_policy.is_some()
            || with_storage_lifecycle_policy.is_some()
            || with_tags.is_some()
            || external_volume.is_some()
            || base_location.is_some()
            || catalog.is_some()
            || catalog_sync.is_some()
            || storage_serialization_policy.is_some()
            || target_lag.is_some()
            || warehouse.is_some()
            || refresh_mode.is_some()
            || initialize.is_some()
            || require_user
            || diststyle.is_some()
            || distkey.is_some()
            || sortkey.is_some()
            || backup.is_some(),
        "another system's table option",
    )?;
    Ok(CreateTableStatement {
        name,
        if_not_exists,
        temporary,
        on_commit,
        columns,
        constraints,
        query,
        names: Vec::new(),
        without_rows: false,
        likes: like.into_iter().collect(),
    })
}
