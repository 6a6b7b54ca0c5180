//! Queries: the ways to the tables, and what becomes of ORDER BY and LIMIT.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{GroupByExpr, Query, SetExpr, TableFactor};
use rustydb_storage::WantedColumns;

use super::Compiler;
use crate::row_path::access::{Access, Range, TableAccess, choose};
use crate::row_path::aggregate::{Aggregate, Function};
use crate::row_path::expression::Node;
use crate::row_path::pipeline::{Pipeline, Reader, SortKey, Source};
use crate::row_path::program::{Lock, Select};
use crate::sql::grammar::lock::{Busy, LockingQuery};
use crate::sql::names::shown;
use crate::sql::plan::plan_query;
use crate::sql::text::parse::fold;

impl Compiler<'_> {
    pub(super) fn query(&mut self, query: Query) -> Option<Select> {
        let plan = self.analyzed(plan_query(self.context, query).ok()?)?;
        let pipeline = Reader { context: self.context, at_hand: &[] }.read(&plan)?;
        select(pipeline, shown_schema(&plan), None)
    }

    pub(super) fn locking_query(&mut self, query: LockingQuery) -> Option<Select> {
        let LockingQuery { query, clauses } = query;
        let [clause] = clauses.as_slice() else { return None };
        let alias = only_table(&query)?;
        if clause.of.as_ref().is_some_and(|of| *of != alias) {
            return None;
        }
        let lock = Lock { lock: clause.lock, busy: clause.busy };
        let plan = self.analyzed(plan_query(self.context, *query).ok()?)?;
        let pipeline = Reader { context: self.context, at_hand: &[] }.read(&plan)?;
        if pipeline.sources.len() != 1 || pipeline.aggregates.is_some() {
            return None;
        }
        select(pipeline, shown_schema(&plan), Some(lock))
    }
}

/// The columns of a result, by the names clients see.
pub(super) fn shown_schema(plan: &LogicalPlan) -> SchemaRef {
    shown(&Arc::new(Schema::clone(plan.schema().as_arrow())))
}

/// The name of the only table of a plain query.
fn only_table(query: &Query) -> Option<String> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(expressions, _) => !expressions.is_empty(),
    };
    if query.with.is_some() || select.distinct.is_some() || grouped || select.having.is_some() {
        return None;
    }
    let [from] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, alias, .. } = &from.relation else { return None };
    if !from.joins.is_empty() {
        return None;
    }
    match alias {
        Some(alias) => Some(fold(&alias.name)),
        None => name.0.last().and_then(|part| part.as_ident()).map(fold),
    }
}

/// Puts a query together.
fn select(pipeline: Pipeline, schema: SchemaRef, lock: Option<Lock>) -> Option<Select> {
    let Pipeline { sources, conditions, aggregates, mut sort, skip, fetch, output } = pipeline;
    if sources.is_empty() && aggregates.is_some() {
        // Without a table there is one row to be counted and not none.
        return None;
    }
    let mut everything: Vec<&Node> = conditions.iter().chain(&output).collect();
    everything.extend(sort.iter().map(|key| &key.node));
    everything.extend(aggregates.iter().flatten().map(|aggregate| &aggregate.argument));
    let columns: Vec<Vec<usize>> = (0..sources.len()).map(|place| columns_of(&everything, place)).collect();
    let (mut tables, conditions) = tables(sources, conditions, columns)?;
    let mut limits_range = false;
    if let [(_, table)] = tables.as_mut_slice() {
        let without_conditions = table.conditions.is_empty();
        match &mut table.access {
            Access::Key(_) => sort.clear(),
            Access::Range(range) => {
                if let Some(descending) = given_order(range, &table.table, &sort) {
                    range.descending = descending;
                    sort.clear();
                }
                let skips = lock.is_some_and(|lock| lock.busy == Busy::Skip);
                limits_range = without_conditions && sort.is_empty() && aggregates.is_none() && !skips;
                if without_conditions && let Some(descending) = extreme(range, &table.table, aggregates.as_deref()) {
                    range.descending = descending;
                    range.limit = Some(1);
                }
            }
        }
    }
    if aggregates.is_some() {
        // There is one row.
        sort.clear();
    }
    Some(Select { tables, conditions, aggregates, sort, limits_range, skip, fetch, output, schema, lock })
}

/// The columns of the row at `place` that some expressions read.
pub(super) fn columns_of(nodes: &[&Node], place: usize) -> Vec<usize> {
    let mut columns = Vec::new();
    for node in nodes {
        node.visit(&mut |part| {
            if let Node::Stored(row, column) = part
                && *row == place
                && !columns.contains(column)
            {
                columns.push(*column);
            }
        });
    }
    columns
}

/// Tables by their place among the sources, and conditions.
type Ways = (Vec<(usize, TableAccess)>, Vec<Node>);

/// A way to each table, in the order in which they are to be read, and the conditions that need no table.
pub(super) fn tables(sources: Vec<Source>, conditions: Vec<Node>, mut columns: Vec<Vec<usize>>) -> Option<Ways> {
    let (fixed, mut open): (Vec<Node>, Vec<Node>) = conditions.into_iter().partition(|node| node.reads() == 0);
    let mut tables: Vec<(usize, TableAccess)> = Vec::with_capacity(sources.len());
    let mut bound = 0u64;
    while tables.len() < sources.len() {
        let unbound = sources.iter().enumerate().filter(|(place, _)| bound >> place & 1 == 0);
        let chosen = unbound.filter_map(|(place, source)| {
            choose(&source.table, &source.stored, place, bound, &open).map(|chosen| (place, chosen))
        });
        let (place, chosen) = chosen.max_by_key(|(_, chosen)| chosen.rank())?;
        bound |= 1 << place;
        let (mut kept, mut own) = (Vec::new(), Vec::new());
        for (order, condition) in open.into_iter().enumerate() {
            match condition.reads() & !bound == 0 {
                true if chosen.fulfilled.contains(&order) => {}
                true => own.push(condition),
                false => kept.push(condition),
            }
        }
        open = kept;
        let Source { table, stored } = sources[place].clone();
        let columns = std::mem::take(&mut columns[place]);
        let columns = WantedColumns::new(&table, columns);
        tables.push((place, TableAccess { table, stored, access: chosen.access, conditions: own, columns }));
    }
    Some((tables, fixed))
}

/// Whether a range, or its reverse, has the order that is asked for; tells whether it is the reverse.
fn given_order(range: &Range, table: &rustydb_storage::TableDef, sort: &[SortKey]) -> Option<bool> {
    let all = match range.index {
        None => table.key_columns(),
        Some(position) => &table.indexes.get(position)?.columns,
    };
    let fixed = &all[..range.equal.len()];
    let mut order = range.order(table).iter();
    let mut descending = None;
    for key in sort {
        let Node::Stored(_, column) = &key.node else { return None };
        if fixed.contains(column) {
            continue;
        }
        match order.next() {
            Some(next) if next == column => {}
            // Rows that agree in the whole primary key are one.
            None if range.index.is_none() => break,
            _ => return None,
        }
        if table.storage_schema().field(*column).is_nullable() && key.nulls_first != key.descending {
            return None;
        }
        if *descending.get_or_insert(key.descending) != key.descending {
            return None;
        }
    }
    Some(descending.unwrap_or(false))
}

/// Whether the only aggregate is the least or greatest value of the column the range is ordered by, so that one row tells
/// it; true for the greatest.
fn extreme(range: &Range, table: &rustydb_storage::TableDef, aggregates: Option<&[Aggregate]>) -> Option<bool> {
    let [Aggregate { function, argument: Node::Stored(_, column), .. }] = aggregates? else { return None };
    let first = range.order(table).first()?;
    let nullable = table.storage_schema().field(*column).is_nullable();
    match function {
        _ if first != column || nullable => None,
        Function::Min(_) => Some(false),
        Function::Max(_) => Some(true),
        _ => None,
    }
}
