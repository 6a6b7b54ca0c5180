//! The statements that change rows, with only the clauses we have.
//!
//! WITH belongs to queries in the grammar; a changing statement under a WITH is the body of a query. Here the two come
//! apart again: common table expressions that only read go with the statement they precede ([`InsertStatement::with`]
//! and its like), those that change rows become steps of a [`WithStatement`].

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Assignment, ConflictTarget, Cte, Delete, DoUpdate, Expr, FromTable, Ident, Insert, Merge, MergeClause, ObjectName,
    OnConflict, OnConflictAction, OnInsert, OutputClause, Query, SelectItem, SetExpr, Statement, TableAlias,
    TableAliasWithoutColumns, TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind, VisitMut,
    VisitorMut, With, visit_relations,
};

use super::Write;
use crate::dml::syntax::prepend;
use crate::sql::check::refuse;
use crate::sql::grammar::insert::{Overriding, take_overriding};
use crate::sql::text::parse::fold;
use crate::{Error, Result, error::sqlstate};

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

/// A statement with data-modifying common table expressions.
#[derive(Debug, Clone)]
pub(crate) struct WithStatement {
    /// In the order they were written; each knows the plain expressions before it.
    pub(crate) steps: Vec<ChangeStep>,
    /// What the statement itself is, with all plain expressions.
    pub(crate) main: MainStatement,
}

/// `name (columns) AS (INSERT … RETURNING …)`
#[derive(Debug, Clone)]
pub(crate) struct ChangeStep {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) write: Write,
}

#[derive(Debug, Clone)]
pub(crate) enum MainStatement {
    Query(Box<Query>),
    Write(Box<Write>),
}

/// A query, or a changing statement in the clothes of one.
pub(crate) enum RoutedQuery {
    Query(Box<Query>),
    Write(Box<Write>),
}

/// Tells whether a query changes rows: by its body, or in its WITH.
pub(super) fn route_query(mut query: Box<Query>) -> Result<RoutedQuery> {
    let changes = |query: &Query| {
        matches!(*query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_))
    };
    let changing_step = query.with.iter().flat_map(|with| &with.cte_tables).any(|cte| changes(&cte.query));
    if !changing_step {
        if !changes(&query) {
            return Ok(RoutedQuery::Query(query));
        }
        let with = query.with.take();
        return body_as_write(*query, with).map(|write| RoutedQuery::Write(Box::new(write)));
    }
    let Some(With { with_token, recursive, cte_tables }) = query.with.take() else {
        return Err(Error::internal("a changing step came from nowhere"));
    };
    let mut plain: Vec<Cte> = Vec::new();
    let mut steps: Vec<ChangeStep> = Vec::new();
    let with_of = |plain: &[Cte]| {
        (!plain.is_empty()).then(|| With { with_token: with_token.clone(), recursive, cte_tables: plain.to_vec() })
    };
    for cte in cte_tables {
        if !changes(&cte.query) {
            plain.push(cte);
            continue;
        }
        let Cte { alias: TableAlias { explicit: _, name, columns, at }, query, from, materialized: _, .. } = cte;
        refuse(at.is_some() || from.is_some(), "FROM after a common table expression")?;
        let name = fold(&name);
        let known = plain.iter().map(|cte| fold(&cte.alias.name)).chain(steps.iter().map(|step| step.name.clone()));
        if known.into_iter().any(|other| other == name) {
            return Err(Error::new(
                sqlstate::DUPLICATE_ALIAS,
                format!("WITH query name \"{name}\" specified more than once"),
            ));
        }
        let mut query = *query;
        refuse(query.with.is_some(), "WITH inside a common table expression that changes rows")?;
        query.with = None;
        steps.push(ChangeStep {
            name,
            columns: columns.iter().map(|column| fold(&column.name)).collect(),
            write: body_as_write(query, with_of(&plain))?,
        });
    }
    let with = with_of(&plain);
    let main = if changes(&query) {
        MainStatement::Write(Box::new(body_as_write(*query, with)?))
    } else {
        query.with = with;
        MainStatement::Query(query)
    };
    Ok(RoutedQuery::Write(Box::new(Write::With(Box::new(WithStatement { steps, main })))))
}

/// The changing statement that a query without WITH consists of.
fn body_as_write(query: Query, with: Option<With>) -> Result<Write> {
    let Query {
        with: _,
        body,
        order_by,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    refuse(
        order_by.is_some()
            || limit_clause.is_some()
            || fetch.is_some()
            || !locks.is_empty()
            || for_clause.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || !pipe_operators.is_empty(),
        "a query's clause after a statement that changes rows",
    )?;
    let statement = match *body {
        SetExpr::Insert(statement)
        | SetExpr::Update(statement)
        | SetExpr::Delete(statement)
        | SetExpr::Merge(statement) => statement,
        _ => return Err(Error::internal("a query was taken for a statement that changes rows")),
    };
    let mut write = match statement {
        Statement::Insert(insert) => Write::Insert(route_insert(insert)?),
        Statement::Update(update) => Write::Update(route_update(update)?),
        Statement::Delete(delete) => Write::Delete(route_delete(delete)?),
        Statement::Merge(merge) => Write::Merge(Box::new(route_merge(merge)?)),
        _ => return Err(Error::unsupported("this statement inside a query")),
    };
    match &mut write {
        Write::Insert(insert) => {
            let update = insert.on_conflict.as_mut().and_then(|clause| clause.update.as_mut());
            if let Some(DoUpdate { assignments, selection }) = update {
                share(with.as_ref(), assignments);
                share(with.as_ref(), selection);
            }
            share(with.as_ref(), &mut insert.returning);
            insert.with = with;
        }
        Write::Update(update) => {
            share(with.as_ref(), &mut update.returning);
            update.with = with;
        }
        Write::Delete(delete) => {
            share(with.as_ref(), &mut delete.returning);
            delete.with = with;
        }
        Write::Merge(merge) => merge.with = with,
        _ => {}
    }
    Ok(write)
}

/// Gives a WITH to the subqueries of a clause that is planned by itself.
fn share<N: VisitMut>(with: Option<&With>, clause: &mut N) {
    if let Some(with) = with {
        let _ = VisitMut::visit(clause, &mut Sharing { with, depth: 0 });
    }
}

struct Sharing<'a> {
    with: &'a With,
    /// How many queries deep.
    depth: usize,
}

impl VisitorMut for Sharing<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        if self.depth == 0 && names_any(query, self.with) {
            prepend(Some(self.with.clone()), query);
        }
        ControlFlow::Continue(())
    }
}

/// Whether a query has the name of one of these expressions, anywhere.
fn names_any(query: &Query, with: &With) -> bool {
    let is_known = |ident: &Ident| with.cte_tables.iter().any(|cte| fold(&cte.alias.name) == fold(ident));
    let found = visit_relations(query, |name| match name.0.as_slice() {
        [part] if part.as_ident().is_some_and(is_known) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
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
