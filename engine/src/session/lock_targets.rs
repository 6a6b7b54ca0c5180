//! Whose rows a locking query locks, and the columns by which it tells their keys.
//!
//! ```text
//!   FROM t AS x                          ⇒  FROM "rustydb.rows"."<id of t>" AS x         x.key AS "lock 0 0"
//!   FROM v, a view of a, b FROM t        ⇒  FROM (SELECT a, b, t.key AS "lock 1 0 0" FROM "rustydb.rows"."<id of t>" AS t) AS v
//!                                                                              v."lock 1 0 0" AS "lock 0 0"
//! ```
//! As in PostgreSQL a clause reaches through views and subqueries in FROM to the rows of the tables in them, and passes by
//! common table expressions, functions and values. What it cannot reach is refused: rows that are grouped, a side of an
//! outer join that may be missing, tables of the system. Nothing that a clause is about is left unlocked.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr, Statement as SqlStatement,
    TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, visit_relations_mut,
};
use rustydb_storage::{ObjectDef, ObjectKind, RowLock, TableDef};

use crate::catalog::information_schema::VirtualTable;
use crate::ddl::view::ViewDefinition;
use crate::dml::many_rows::calls_of_many_rows;
use crate::dml::syntax::{alone, column, derived, named, quoted, select};
use crate::error::sqlstate;
use crate::sql::context::{ROWS_SCHEMA, StatementContext};
use crate::sql::grammar::lock::{Busy, RowLockClause};
use crate::sql::text::parse::{ParsedStatement, fold, parse_statement, table_name};
use crate::sql::tree::natural_joins::resolve_columns;
use crate::{DEFAULT_SCHEMA, Error, Result};

/// Views and subqueries inside each other; parsing bounds the latter, too.
const DEPTH_MAX: usize = 32;

/// Views and subqueries in all. A view is put in wherever it is named.
const SUBQUERIES_MAX: usize = 1_000;

/// A table whose rows are locked.
pub(super) struct Target {
    pub(super) table: Arc<TableDef>,
    pub(super) lock: RowLock,
    pub(super) busy: Busy,
}

impl Target {
    /// The keys in a result.
    pub(super) fn keys(&self, target: usize, rows: &RecordBatch) -> Result<RecordBatch> {
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (place, column) in self.table.key_columns().iter().enumerate() {
            let name = key_name(0, target, place);
            let found = rows.column_by_name(&name).ok_or_else(|| Error::internal("a key to be locked is missing"))?;
            fields.push(self.table.storage_schema().field(*column).clone());
            columns.push(Arc::clone(found));
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

/// What a column of a key is called, so many subqueries deep.
fn key_name(level: usize, target: usize, column: usize) -> String {
    match level {
        0 => format!("lock {target} {column}"),
        _ => format!("lock {level} {target} {column}"),
    }
}

/// Whether a column is part of a key to be locked.
pub(super) fn is_key(column: &str) -> bool {
    column.starts_with("lock ")
}

pub(super) fn not_with(what: &str) -> Error {
    Error::unsupported(format!("FOR UPDATE or SHARE with {what}"))
}

/// Finds the tables that the clauses of a query are about, and makes the query show the keys of their rows.
pub(super) fn find_targets(
    context: &StatementContext,
    query: &mut Query,
    clauses: &[RowLockClause],
) -> Result<Vec<Target>> {
    let names = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| fold(&cte.alias.name)).collect();
    let mut finder = Finder { context, named: names, targets: Vec::new(), seen: Vec::new(), subqueries: 0 };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(not_with("UNION, INTERSECT, EXCEPT or VALUES"));
    };
    finder.select(select, 0, clauses)?;
    let missing = clauses.iter().filter_map(|clause| clause.of.as_ref()).find(|of| !finder.seen.contains(of));
    if let Some(missing) = missing {
        let message = format!("table \"{missing}\" in FOR UPDATE or SHARE is not a table in the FROM clause");
        return Err(Error::new(sqlstate::UNDEFINED_TABLE, message));
    }
    Ok(finder.targets)
}

struct Finder<'a> {
    context: &'a StatementContext,
    /// The query's common table expressions.
    named: Vec<String>,
    targets: Vec<Target>,
    /// The relations of the query itself that clauses were about.
    seen: Vec<String>,
    /// How many views and subqueries there were.
    subqueries: usize,
}

/// A column of a key: the target it belongs to, its place, and what it is.
type Key = (usize, usize, Expr);

impl Finder<'_> {
    /// Adds the keys to a select list. They are called by their level, target and place.
    fn select(&mut self, select: &mut Select, level: usize, clauses: &[RowLockClause]) -> Result<Vec<(usize, usize)>> {
        check_select(select)?;
        let mut keys = Vec::new();
        for from in &mut select.from {
            self.joined(from, false, level, clauses, &mut keys)?;
        }
        let places = keys.iter().map(|(target, place, _)| (*target, *place)).collect();
        select
            .projection
            .extend(keys.into_iter().map(|(target, place, key)| named(key, &key_name(level, target, place))));
        Ok(places)
    }

    fn joined(
        &mut self,
        from: &mut TableWithJoins,
        may_be_null: bool,
        level: usize,
        clauses: &[RowLockClause],
        keys: &mut Vec<Key>,
    ) -> Result<()> {
        let TableWithJoins { relation, joins } = from;
        let mut sides = vec![relation];
        let mut nullable = Vec::new();
        for join in joins {
            match join.join_operator {
                JoinOperator::Left(_) | JoinOperator::LeftOuter(_) | JoinOperator::OuterApply => {
                    nullable.push(&mut join.relation)
                }
                JoinOperator::Right(_) | JoinOperator::RightOuter(_) => {
                    nullable.append(&mut sides);
                    sides.push(&mut join.relation);
                }
                JoinOperator::FullOuter(_) => {
                    nullable.append(&mut sides);
                    nullable.push(&mut join.relation);
                }
                _ => sides.push(&mut join.relation),
            }
        }
        let sides = sides.into_iter().map(|side| (side, may_be_null));
        for (factor, may_be_null) in sides.chain(nullable.into_iter().map(|side| (side, true))) {
            self.relation(factor, may_be_null, level, clauses, keys)?;
        }
        Ok(())
    }

    fn relation(
        &mut self,
        factor: &mut TableFactor,
        may_be_null: bool,
        level: usize,
        clauses: &[RowLockClause],
        keys: &mut Vec<Key>,
    ) -> Result<()> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let (schema, plain) = table_name(name)?;
                if schema.is_none() && self.named.contains(&plain) {
                    return Ok(());
                }
                let shown = alias.as_ref().map_or_else(|| quoted(&plain), |alias| alias.name.clone());
                let Some(clause) = wanted(clauses, &shown) else { return Ok(()) };
                if let Ok(table) = self.context.table(schema.as_deref(), &plain).cloned() {
                    self.see(&shown, may_be_null, level)?;
                    let rows = vec![quoted(ROWS_SCHEMA), quoted(&table.id.0.to_string())];
                    *name = ObjectName::from(rows);
                    if alias.is_none() {
                        *alias =
                            Some(TableAlias { explicit: true, name: shown.clone(), columns: Vec::new(), at: None });
                    }
                    let target = self.targets.len();
                    for (place, key) in table.key_columns().iter().enumerate() {
                        keys.push((target, place, column(&shown, table.storage_schema().field(*key).name())));
                    }
                    self.targets.push(Target { table, lock: clause.lock, busy: clause.busy });
                    return Ok(());
                }
                if let Some(view) = self.context.object(ObjectKind::View, schema.as_deref(), &plain).cloned() {
                    self.see(&shown, may_be_null, level)?;
                    let columns = alias.take().map(|alias| alias.columns).unwrap_or_default();
                    let mut query = self.view(&view)?;
                    let places = self.subquery(&mut query, level, &clause)?;
                    let query = shown_by(&ViewDefinition::of(&view)?, query, level + 1, &places)?;
                    *factor = derived(query, shown.clone());
                    if let TableFactor::Derived { alias: Some(alias), .. } = factor {
                        alias.columns = columns;
                        name_keys(alias, level + 1, &places);
                    }
                    pass_on(&shown, level + 1, &places, keys);
                    return Ok(());
                }
                match VirtualTable::find(schema.as_deref().unwrap_or(DEFAULT_SCHEMA), &plain) {
                    Some(_) => Err(not_with("a table of the system")),
                    // There is none of that name, and the planner says so; or its rows are at hand.
                    None => Ok(()),
                }
            }
            TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None } => {
                let shown = alias.name.clone();
                let Some(clause) = wanted(clauses, &shown) else { return Ok(()) };
                self.see(&shown, may_be_null, level)?;
                let places = self.subquery(subquery, level, &clause)?;
                name_keys(alias, level + 1, &places);
                pass_on(&shown, level + 1, &places, keys);
                Ok(())
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.joined(table_with_joins, may_be_null, level, clauses, keys)
            }
            TableFactor::Table { .. }
            | TableFactor::TableFunction { .. }
            | TableFactor::Function { .. }
            | TableFactor::UNNEST { .. } => Ok(()),
            _ if clauses.iter().any(|clause| clause.of.is_none()) => {
                Err(not_with("LATERAL or the like in FROM").with_hint("Name the tables to be locked: FOR UPDATE OF …"))
            }
            _ => Ok(()),
        }
    }

    /// Notes that a clause is about a relation.
    fn see(&mut self, name: &Ident, may_be_null: bool, level: usize) -> Result<()> {
        if level == 0 {
            self.seen.push(fold(name));
        }
        match may_be_null {
            false => Ok(()),
            true => Err(not_with_missing_side()),
        }
    }

    /// Makes a subquery in FROM show the keys of its rows.
    fn subquery(&mut self, query: &mut Query, level: usize, clause: &RowLockClause) -> Result<Vec<(usize, usize)>> {
        if level >= DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} views or subqueries inside each other");
            return Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, message));
        }
        self.subqueries += 1;
        if self.subqueries > SUBQUERIES_MAX {
            let message = format!("FOR UPDATE or SHARE with more than {SUBQUERIES_MAX} views or subqueries");
            return Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, message));
        }
        let inside = |what: &str| {
            not_with(&format!("a view or subquery in FROM that has {what}"))
                .with_hint("Name the tables to be locked, FOR UPDATE OF …, or lock inside of the subquery.")
        };
        let Query { with: None, body, limit_clause: None, fetch: None, .. } = query else {
            return Err(inside("WITH, LIMIT or OFFSET"));
        };
        let SetExpr::Select(select) = body.as_mut() else {
            return Err(inside("UNION, INTERSECT, EXCEPT or VALUES"));
        };
        let everything = RowLockClause { of: None, ..clause.clone() };
        self.select(select, level + 1, &[everything])
    }

    /// A view's query, with the relations in it by their full names.
    fn view(&self, view: &ObjectDef) -> Result<Query> {
        let definition = ViewDefinition::of(view)?;
        let ParsedStatement::Sql(statement) = parse_statement(&definition.query)?.statement else {
            return Err(Error::internal("a view that is no query"));
        };
        let SqlStatement::Query(mut query) = *statement else {
            return Err(Error::internal("a view that is no query"));
        };
        let context = self.context.clone().within_view(view, &definition);
        resolve_columns(&context, &mut query);
        let _ = visit_relations_mut(&mut query, |name| {
            if let Ok((schema, plain)) = table_name(name) {
                let found = match context.table(schema.as_deref(), &plain) {
                    Ok(table) => Some((table.schema_name.clone(), table.name.clone())),
                    Err(_) => context
                        .object(ObjectKind::View, schema.as_deref(), &plain)
                        .map(|view| (view.schema_name.clone(), view.name.clone())),
                };
                // Anything else, such as a common table expression or a function, goes by its own name.
                if let Some((schema, plain)) = found {
                    *name = ObjectName::from(vec![quoted(&schema), quoted(&plain)]);
                }
            }
            ControlFlow::<()>::Continue(())
        });
        Ok(*query)
    }
}

fn not_with_missing_side() -> Error {
    not_with("the side of an outer join that may be missing").with_hint("Name the tables to be locked: FOR UPDATE OF …")
}

/// The clause for a relation. Of several the strongest counts, and the least patience, as in PostgreSQL.
fn wanted(clauses: &[RowLockClause], name: &Ident) -> Option<RowLockClause> {
    let concerns = |clause: &&RowLockClause| clause.of.as_ref().is_none_or(|of| *of == fold(name));
    let concerning: Vec<&RowLockClause> = clauses.iter().filter(concerns).collect();
    let lock = concerning.iter().map(|clause| clause.lock).max_by_key(|lock| *lock as u8)?;
    let busy = [Busy::NoWait, Busy::Skip].into_iter().find(|busy| concerning.iter().any(|clause| clause.busy == *busy));
    Some(RowLockClause { lock, of: None, busy: busy.unwrap_or(Busy::Wait) })
}

/// Passes keys that a relation shows on to the query around it.
fn pass_on(relation: &Ident, level: usize, places: &[(usize, usize)], keys: &mut Vec<Key>) {
    for (target, place) in places {
        keys.push((*target, *place, column(relation, &key_name(level, *target, *place))));
    }
}

/// Gives the keys a name where the alias of a subquery names its columns.
fn name_keys(alias: &mut TableAlias, level: usize, places: &[(usize, usize)]) {
    if alias.columns.is_empty() {
        return;
    }
    for (target, place) in places {
        let name = quoted(&key_name(level, *target, *place));
        alias.columns.push(TableAliasColumnDef { name, data_type: None });
    }
}

/// A view's query under the names of the view's columns, with the keys behind them.
fn shown_by(view: &ViewDefinition, mut query: Query, level: usize, places: &[(usize, usize)]) -> Result<Query> {
    let SetExpr::Select(inner) = query.body.as_mut() else {
        return Err(Error::internal("a view to be locked that is no SELECT"));
    };
    let is_plain = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    if inner.projection.iter().all(is_plain) {
        for (item, name) in inner.projection.iter_mut().zip(&view.columns) {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                *item = named(expr.clone(), name);
            }
        }
        return Ok(query);
    }
    // With `*` the columns are found by what they were called when the view was made.
    let relation = quoted("shown");
    let columns = view.columns.iter().zip(view.outputs());
    let mut list: Vec<SelectItem> = columns.map(|(name, output)| named(column(&relation, output), name)).collect();
    for (target, place) in places {
        let name = key_name(level, *target, *place);
        list.push(named(column(&relation, &name), &name));
    }
    Ok(select(None, list, vec![alone(derived(query, relation))], None))
}

fn check_select(select: &Select) -> Result<()> {
    if select.distinct.is_some() {
        return Err(not_with("DISTINCT"));
    }
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(expressions, _) => !expressions.is_empty(),
    };
    if grouped {
        return Err(not_with("GROUP BY"));
    }
    if select.having.is_some() {
        return Err(not_with("HAVING"));
    }
    let expressions = select.projection.iter().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    for expr in expressions {
        if calls_of_many_rows(expr) {
            return Err(not_with("aggregate functions, window functions or sets in the select list"));
        }
    }
    Ok(())
}
