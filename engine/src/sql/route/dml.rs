//! The statements that change rows, with only the clauses we have. What a WITH gives them is in [`super::with`].

use datafusion::sql::sqlparser::ast::{
    Assignment, ConflictTarget, Delete, DoUpdate, Expr, FromTable, Ident, Insert, Merge, MergeClause, ObjectName,
    OnConflict, OnConflictAction, OnInsert, OutputClause, Query, SelectItem, TableAlias, TableAliasWithoutColumns,
    TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind, With,
};

use crate::sql::check::refuse;
use crate::sql::grammar::insert::{Overriding, take_overriding};
use crate::{Error, Result};

#[derive(Debug, Clone)]
pub(crate) struct InsertStatement {
    pub(crate) with: Option<With>,
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<Ident>,
    pub(crate) columns: Vec<ObjectName>,
    pub(crate) overriding: Option<Overriding>,
    /// Absent for DEFAULT VALUES.
    pub(crate) source: Option<Box<Query>>,
    pub(crate) on_conflict: Option<ConflictClause>,
    pub(crate) returning: Option<Vec<SelectItem>>,
    /// Of an INSERT through views with CHECK OPTION.
    pub(crate) view_checks: Vec<ViewCheck>,
}

/// What a view WITH CHECK OPTION demands of new rows.
#[derive(Debug, Clone)]
pub(crate) struct ViewCheck {
    pub(crate) view: String,
    /// Over the columns of the table, by their names alone.
    pub(crate) condition: Expr,
}

/// ON CONFLICT, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct ConflictClause {
    pub(crate) target: Option<ConflictTarget>,
    /// Absent for DO NOTHING.
    pub(crate) update: Option<DoUpdate>,
}

#[derive(Debug, Clone)]
pub(crate) struct UpdateStatement {
    pub(crate) with: Option<With>,
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<Ident>,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) from: Vec<TableWithJoins>,
    pub(crate) selection: Option<Expr>,
    pub(crate) returning: Option<Vec<SelectItem>>,
    /// Of an UPDATE through views with CHECK OPTION.
    pub(crate) view_checks: Vec<ViewCheck>,
}

#[derive(Debug, Clone)]
pub(crate) struct DeleteStatement {
    pub(crate) with: Option<With>,
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<Ident>,
    pub(crate) using: Vec<TableWithJoins>,
    pub(crate) selection: Option<Expr>,
    pub(crate) returning: Option<Vec<SelectItem>>,
}

#[derive(Debug, Clone)]
pub(crate) struct MergeStatement {
    pub(crate) with: Option<With>,
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<Ident>,
    pub(crate) source: TableFactor,
    pub(crate) on: Expr,
    pub(crate) clauses: Vec<MergeClause>,
    pub(crate) returning: Option<Vec<SelectItem>>,
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
    refuse(output.is_some(), "INSERT … OUTPUT")?;
    refuse(or.is_some() || ignore || replace_into, "INSERT OR …, INSERT IGNORE or REPLACE")
        .map_err(|error| error.with_hint("Use INSERT … ON CONFLICT."))?;
    refuse(overwrite, "INSERT OVERWRITE")?;
    refuse(!assignments.is_empty(), "INSERT … SET")?;
    refuse(partitioned.is_some() || !after_columns.is_empty(), "INSERT … PARTITION")?;
    refuse(has_table_keyword, "INSERT INTO TABLE")?;
    refuse(priority.is_some(), "a priority of INSERT")?;
    refuse(insert_alias.is_some(), "an alias after the rows of INSERT")?;
    refuse(settings.is_some() || format_clause.is_some(), "SETTINGS or FORMAT in INSERT")?;
    refuse(
        multi_table_insert_type.is_some()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty()
            || multi_table_else_clause.is_some(),
        "INSERT into several tables",
    )?;
    let mut table = match table {
        TableObject::TableName(name) => name,
        TableObject::TableFunction(_) | TableObject::TableQuery(_) => {
            return Err(Error::unsupported("INSERT into anything but a table"));
        }
    };
    let alias = table_alias.map(|TableAliasWithoutColumns { explicit: _, alias }| alias);
    let on_conflict = match on {
        None => None,
        Some(OnInsert::OnConflict(OnConflict { conflict_target, action })) => {
            let update = match action {
                OnConflictAction::DoNothing => None,
                OnConflictAction::DoUpdate(update) if conflict_target.is_some() => Some(update),
                OnConflictAction::DoUpdate(_) => {
                    return Err(Error::syntax(
                        "ON CONFLICT DO UPDATE requires inference specification or constraint name",
                    )
                    .with_hint("For example, ON CONFLICT (column_name)."));
                }
            };
            Some(ConflictClause { target: conflict_target, update })
        }
        Some(OnInsert::DuplicateKeyUpdate(_)) => {
            return Err(Error::unsupported("ON DUPLICATE KEY UPDATE").with_hint("Use ON CONFLICT … DO UPDATE."));
        }
        Some(_) => return Err(Error::unsupported("this form of INSERT … ON")),
    };
    let overriding = take_overriding(&mut table);
    Ok(InsertStatement {
        with: None,
        table,
        alias,
        columns,
        overriding,
        source,
        on_conflict,
        returning,
        view_checks: Vec::new(),
    })
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
    refuse(output.is_some(), "UPDATE … OUTPUT")?;
    refuse(or.is_some(), "UPDATE OR …")?;
    refuse(!order_by.is_empty(), "UPDATE … ORDER BY")?;
    refuse(limit.is_some(), "UPDATE … LIMIT")?;
    let from = match from {
        None => Vec::new(),
        Some(UpdateTableFromKind::AfterSet(tables)) => tables,
        Some(UpdateTableFromKind::BeforeSet(_)) => return Err(Error::unsupported("FROM before SET")),
    };
    let (table, alias) = target_table(table, "UPDATE")?;
    Ok(UpdateStatement { with: None, table, alias, assignments, from, selection, returning, view_checks: Vec::new() })
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
    refuse(output.is_some(), "DELETE … OUTPUT")?;
    refuse(!order_by.is_empty(), "DELETE … ORDER BY")?;
    refuse(limit.is_some(), "DELETE … LIMIT")?;
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = from;
    let mut tables = tables.into_iter();
    match (tables.next(), tables.next()) {
        (Some(table), None) => {
            let (table, alias) = target_table(table, "DELETE")?;
            Ok(DeleteStatement { with: None, table, alias, using: using.unwrap_or_default(), selection, returning })
        }
        _ => Err(Error::unsupported("DELETE from several tables")),
    }
}

pub(super) fn route_merge(merge: Merge) -> Result<MergeStatement> {
    let Merge { merge_token: _, optimizer_hints: _, into: _, table, source, on, clauses, output } = merge;
    let returning = match output {
        None => None,
        Some(OutputClause::Returning { returning_token: _, select_items }) => Some(select_items),
        Some(OutputClause::Output { .. }) => return Err(Error::unsupported("MERGE … OUTPUT")),
    };
    let (table, alias) = target_table(TableWithJoins { relation: table, joins: Vec::new() }, "MERGE")?;
    Ok(MergeStatement { with: None, table, alias, source, on: *on, clauses, returning })
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
