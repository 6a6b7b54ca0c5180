//! The statements that change the database, with only the clauses we have.

use datafusion::sql::sqlparser::ast::{
    Assignment, ColumnDef, CreateTable, CreateTableOptions, Delete, Expr, FromTable, HiveDistributionStyle, Ident,
    Insert, ObjectName, Query, TableAlias, TableConstraint, TableFactor, TableObject, TableWithJoins, Update,
};

use crate::sql::check::refuse;
use crate::sql::copy_syntax::CopyStatement;
use crate::{Error, Result};

/// A statement that changes the database.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    CreateTable(Box<CreateTableStatement>),
    DropTable {
        names: Vec<ObjectName>,
        if_exists: bool,
    },
    Insert(InsertStatement),
    Update(UpdateStatement),
    Delete(DeleteStatement),
    CopyFrom(Box<CopyStatement>),
    /// Changes files, not tables; routed here because it is checked and counted like a load.
    CopyTo(Box<CopyStatement>),
}

#[derive(Debug, Clone)]
pub(crate) struct CreateTableStatement {
    pub(crate) name: ObjectName,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<ColumnDef>,
    pub(crate) constraints: Vec<TableConstraint>,
    pub(crate) query: Option<Box<Query>>,
}

#[derive(Debug, Clone)]
pub(crate) struct InsertStatement {
    pub(crate) table: ObjectName,
    pub(crate) columns: Vec<ObjectName>,
    /// Absent for DEFAULT VALUES.
    pub(crate) source: Option<Box<Query>>,
}

#[derive(Debug, Clone)]
pub(crate) struct UpdateStatement {
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<Ident>,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) selection: Option<Expr>,
}

#[derive(Debug, Clone)]
pub(crate) struct DeleteStatement {
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<Ident>,
    pub(crate) selection: Option<Expr>,
}

pub(super) fn route_insert(insert: Insert) -> Result<InsertStatement> {
    let Insert {
        insert_token: _,
        optimizer_hints: _,
        or,
        ignore,
        into: _,
        table,
        table_alias,
        columns,
        overwrite,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    refuse(on.is_some(), "INSERT … ON CONFLICT")?;
    refuse(returning.is_some(), "INSERT … RETURNING")?;
    refuse(output.is_some(), "INSERT … OUTPUT")?;
    refuse(or.is_some() || ignore || replace_into, "INSERT OR …, INSERT IGNORE or REPLACE")?;
    refuse(overwrite, "INSERT OVERWRITE")?;
    refuse(!assignments.is_empty(), "INSERT … SET")?;
    refuse(partitioned.is_some() || !after_columns.is_empty(), "INSERT … PARTITION")?;
    refuse(has_table_keyword, "INSERT INTO TABLE")?;
    refuse(priority.is_some(), "a priority of INSERT")?;
    refuse(table_alias.is_some() || insert_alias.is_some(), "an alias in INSERT")?;
    refuse(settings.is_some() || format_clause.is_some(), "SETTINGS or FORMAT in INSERT")?;
    refuse(
        multi_table_insert_type.is_some()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty()
            || multi_table_else_clause.is_some(),
        "INSERT into several tables",
    )?;
    let table = match table {
        TableObject::TableName(name) => name,
        TableObject::TableFunction(_) | TableObject::TableQuery(_) => {
            return Err(Error::unsupported("INSERT into anything but a table"));
        }
    };
    Ok(InsertStatement { table, columns, source })
}

pub(super) fn route_update(update: Update) -> Result<UpdateStatement> {
    let Update {
        update_token: _,
        optimizer_hints: _,
        table,
        assignments,
        from,
        selection,
        returning,
        output,
        or,
        order_by,
        limit,
    } = update;
    refuse(from.is_some(), "UPDATE … FROM").map_err(|error| error.with_hint("Use a subquery in SET and WHERE."))?;
    refuse(returning.is_some(), "UPDATE … RETURNING")?;
    refuse(output.is_some(), "UPDATE … OUTPUT")?;
    refuse(or.is_some(), "UPDATE OR …")?;
    refuse(!order_by.is_empty(), "UPDATE … ORDER BY")?;
    refuse(limit.is_some(), "UPDATE … LIMIT")?;
    let (table, alias) = target_table(table, "UPDATE")?;
    Ok(UpdateStatement { table, alias, assignments, selection })
}

pub(super) fn route_delete(delete: Delete) -> Result<DeleteStatement> {
    let Delete {
        delete_token: _,
        optimizer_hints: _,
        tables,
        from,
        using,
        selection,
        returning,
        output,
        order_by,
        limit,
    } = delete;
    refuse(!tables.is_empty(), "DELETE from several tables")?;
    refuse(using.is_some(), "DELETE … USING").map_err(|error| error.with_hint("Use a subquery in WHERE."))?;
    refuse(returning.is_some(), "DELETE … RETURNING")?;
    refuse(output.is_some(), "DELETE … OUTPUT")?;
    refuse(!order_by.is_empty(), "DELETE … ORDER BY")?;
    refuse(limit.is_some(), "DELETE … LIMIT")?;
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = from;
    let mut tables = tables.into_iter();
    match (tables.next(), tables.next()) {
        (Some(table), None) => {
            let (table, alias) = target_table(table, "DELETE")?;
            Ok(DeleteStatement { table, alias, selection })
        }
        _ => Err(Error::unsupported("DELETE from several tables")),
    }
}

/// The one table a statement changes.
fn target_table(table: TableWithJoins, statement: &str) -> Result<(ObjectName, Option<Ident>)> {
    let TableWithJoins { relation, joins } = table;
    refuse(!joins.is_empty(), &format!("{statement} of a join"))?;
    let TableFactor::Table {
        name,
        alias,
        args,
        with_hints,
        version,
        with_ordinality,
        partitions,
        json_path,
        sample,
        index_hints,
    } = relation
    else {
        return Err(Error::unsupported(format!("{statement} of anything but a table")));
    };
    refuse(args.is_some(), &format!("{statement} of a table function"))?;
    refuse(
        !with_hints.is_empty()
            || version.is_some()
            || with_ordinality
            || !partitions.is_empty()
            || json_path.is_some()
            || sample.is_some()
            || !index_hints.is_empty(),
        &format!("a clause after the table of {statement}"),
    )?;
    let alias = match alias {
        None => None,
        Some(TableAlias { explicit: _, name, columns, at }) => {
            refuse(!columns.is_empty() || at.is_some(), "a list of columns after the alias of a changed table")?;
            Some(name)
        }
    };
    Ok((name, alias))
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
    refuse(temporary || global.is_some(), "CREATE TEMPORARY TABLE")?;
    refuse(external || location.is_some() || file_format.is_some(), "CREATE EXTERNAL TABLE")
        .map_err(|error| error.with_hint("Load the file with COPY … FROM."))?;
    refuse(dynamic || transient || volatile || iceberg || snapshot, "this kind of table")?;
    refuse(like.is_some(), "CREATE TABLE … LIKE")?;
    refuse(clone.is_some() || version.is_some(), "CREATE TABLE … CLONE")?;
    refuse(comment.is_some(), "COMMENT in CREATE TABLE")?;
    refuse(on_commit.is_some(), "ON COMMIT")?;
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
    Ok(CreateTableStatement { name, if_not_exists, columns, constraints, query })
}
