//! WITH around statements that change rows, and such statements in a WITH.
//!
//! WITH belongs to queries in the grammar; a changing statement under a WITH is the body of a query. Here the two come apart
//! again. Common table expressions that change rows become steps of a [`WithStatement`]. Of those that only read, most go with
//! the one part that reads them, where the planner sees through them ([`InsertStatement::with`](super::InsertStatement) and its
//! like). But what several parts read is a step as well, and so is what RETURNING or ON CONFLICT read, for these are planned
//! apart from the query of their statement: it is computed once, as `nextval('s')` would be another number each time.
//!
//! ```text
//! WITH a AS (…), b AS (… FROM a), c AS (INSERT … FROM b), d AS (SELECT nextval('s') AS n)
//! INSERT INTO t SELECT n FROM d RETURNING (SELECT n FROM d)
//!    ⇒  step c: WITH a, b INSERT … FROM b
//!       step d: WITH d SELECT * FROM d
//!       INSERT INTO t SELECT n FROM d RETURNING (SELECT n FROM d)
//! ```

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, ObjectNamePart, Query, SetExpr, Statement, TableAlias, Visit, With, visit_relations,
};

use super::Write;
use super::dml::{route_delete, route_insert, route_merge, route_update};
use crate::dml::syntax::{alone, everything, select, table_factor};
use crate::sql::check::refuse;
use crate::sql::text::parse::fold;
use crate::{Error, Result, error::sqlstate};

/// A statement with common table expressions that run by themselves, before it.
#[derive(Debug, Clone)]
pub(crate) struct WithStatement {
    /// In the order they were written.
    pub(crate) steps: Vec<WithStep>,
    /// What the statement itself is.
    pub(crate) main: WithPart,
}

/// `name (columns) AS (INSERT … RETURNING …)`, or of a query.
#[derive(Debug, Clone)]
pub(crate) struct WithStep {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) part: WithPart,
}

/// A query, or a changing statement in the clothes of one; each knows the plain expressions that only it reads.
#[derive(Debug, Clone)]
pub(crate) enum WithPart {
    Query(Box<Query>),
    Write(Box<Write>),
}

/// Tells whether a query changes rows: by its body, or in its WITH.
pub(super) fn route_query(mut query: Box<Query>) -> Result<WithPart> {
    let changing_step = query.with.iter().flat_map(|with| &with.cte_tables).any(|cte| changes(&cte.query));
    if !changing_step && !changes(&query) {
        return Ok(WithPart::Query(query));
    }
    let Some(With { with_token, recursive, cte_tables }) = query.with.take() else {
        return body_as_write(*query, None).map(|write| WithPart::Write(Box::new(write)));
    };
    let readers = Readers::of(&cte_tables, &query)?;
    let with_of = |unit: usize, last: Option<&Cte>| {
        let own =
            cte_tables.iter().enumerate().filter(|(place, cte)| !changes(&cte.query) && readers.owns(unit, *place));
        let cte_tables: Vec<Cte> = own.map(|(_, cte)| cte).chain(last).cloned().collect();
        (!cte_tables.is_empty()).then(|| With { with_token: with_token.clone(), recursive, cte_tables })
    };
    let mut steps = Vec::new();
    for (place, cte) in cte_tables.iter().enumerate() {
        let Cte { alias, query, from, materialized: _, closing_paren_token: _ } = cte;
        let TableAlias { explicit: _, name, columns, at } = alias;
        if !changes(query) {
            if readers.alone[place] {
                let rows = vec![alone(table_factor(vec![name.clone()], None))];
                let read = select(with_of(place, Some(cte)), vec![everything()], rows, None);
                let part = WithPart::Query(Box::new(read));
                steps.push(WithStep { name: fold(name), columns: Vec::new(), part });
            }
            continue;
        }
        refuse(at.is_some() || from.is_some(), "FROM after a common table expression")?;
        refuse(query.with.is_some(), "WITH inside a common table expression that changes rows")?;
        steps.push(WithStep {
            name: fold(name),
            columns: columns.iter().map(|column| fold(&column.name)).collect(),
            part: WithPart::Write(Box::new(body_as_write(Query::clone(query), with_of(readers.units[place], None))?)),
        });
    }
    let with = with_of(readers.main, None);
    let main = if changes(&query) {
        WithPart::Write(Box::new(body_as_write(*query, with)?))
    } else {
        query.with = with;
        WithPart::Query(query)
    };
    Ok(match main {
        WithPart::Write(write) if steps.is_empty() => WithPart::Write(write),
        main => WithPart::Write(Box::new(Write::With(Box::new(WithStatement { steps, main })))),
    })
}

fn changes(query: &Query) -> bool {
    matches!(*query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_))
}

/// Which parts of a statement read which of its common table expressions. A part is a unit of planning: a changing
/// statement's query, one of its clauses that are planned apart from that, or an expression that runs by itself.
struct Readers {
    /// Which expressions run by themselves, of those that only read.
    alone: Vec<bool>,
    /// The units that read each expression, through others that do not run by themselves, too.
    of: Vec<BTreeSet<usize>>,
    /// The unit that the query of each expression is: of those that only read, its place.
    units: Vec<usize>,
    /// That of the statement itself.
    main: usize,
}

impl Readers {
    fn of(cte_tables: &[Cte], main: &Query) -> Result<Self> {
        let mut names: Vec<String> = Vec::with_capacity(cte_tables.len());
        for cte in cte_tables {
            let name = fold(&cte.alias.name);
            if names.contains(&name) {
                let message = format!("WITH query name \"{name}\" specified more than once");
                return Err(Error::new(sqlstate::DUPLICATE_ALIAS, message));
            }
            names.push(name);
        }
        let count = cte_tables.len();
        let mut readers = Readers {
            alone: vec![false; count],
            of: vec![BTreeSet::new(); count],
            units: (0..count).collect(),
            main: count,
        };
        let mut next = count;
        let queries = cte_tables.iter().map(|cte| cte.query.as_ref()).chain([main]).enumerate();
        for (place, query) in queries.filter(|(place, query)| *place == count || changes(query)) {
            match readers.units.get_mut(place) {
                Some(unit) => *unit = next,
                None => readers.main = next,
            }
            for (clause, read) in reads_of_clauses(query, &names[..place]).into_iter().enumerate() {
                for read in read {
                    readers.of[read].insert(next);
                    readers.alone[read] |= clause > 0;
                }
                next += 1;
            }
        }
        for (place, cte) in cte_tables.iter().enumerate().rev().filter(|(_, cte)| !changes(&cte.query)) {
            readers.alone[place] |= readers.of[place].len() > 1;
            let units = if readers.alone[place] { BTreeSet::from([place]) } else { readers.of[place].clone() };
            for read in reads(cte.query.as_ref(), &names[..place]) {
                readers.of[read].extend(&units);
            }
        }
        Ok(readers)
    }

    /// Whether an expression goes with a unit: with the only one that reads it, or if none does with the statement.
    fn owns(&self, unit: usize, place: usize) -> bool {
        !self.alone[place] && self.of[place].first().copied().unwrap_or(self.main) == unit
    }
}

/// Which of these names each clause of a query reads that is planned by itself. The query is the first.
fn reads_of_clauses(query: &Query, names: &[String]) -> Vec<BTreeSet<usize>> {
    let mut first = BTreeSet::new();
    match query.body.as_ref() {
        SetExpr::Insert(Statement::Insert(insert)) => {
            vec![reads(&insert.source, names), reads(&insert.on, names), reads(&insert.returning, names)]
        }
        SetExpr::Update(Statement::Update(update)) => {
            first.extend(reads(&update.assignments, names));
            first.extend(reads(&update.from, names));
            first.extend(reads(&update.selection, names));
            vec![first, reads(&update.returning, names)]
        }
        SetExpr::Delete(Statement::Delete(delete)) => {
            first.extend(reads(&delete.using, names));
            first.extend(reads(&delete.selection, names));
            vec![first, reads(&delete.returning, names)]
        }
        SetExpr::Merge(Statement::Merge(merge)) => {
            first.extend(reads(&merge.source, names));
            first.extend(reads(&merge.on, names));
            first.extend(reads(&merge.clauses, names));
            vec![first, reads(&merge.output, names)]
        }
        _ => vec![reads(query, names)],
    }
}

/// Which of these names are those of relations in a part of a statement. Where a query inside hides one, it counts all the same.
fn reads<N: Visit>(node: &N, names: &[String]) -> BTreeSet<usize> {
    let mut read = BTreeSet::new();
    let _: ControlFlow<()> = visit_relations(node, |name| {
        if let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() {
            read.extend(names.iter().position(|known| *known == fold(ident)));
        }
        ControlFlow::Continue(())
    });
    read
}

/// Takes the clauses away that are planned apart from the query of a changing statement, for who wants to see that one only.
pub(super) fn forget_clauses_apart(query: &mut Query) {
    if query.with.is_none() {
        return;
    }
    match query.body.as_mut() {
        SetExpr::Insert(Statement::Insert(insert)) => (insert.on, insert.returning) = (None, None),
        SetExpr::Update(Statement::Update(update)) => update.returning = None,
        SetExpr::Delete(Statement::Delete(delete)) => delete.returning = None,
        SetExpr::Merge(Statement::Merge(merge)) => merge.output = None,
        _ => {}
    }
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
        Write::Insert(insert) => insert.with = with,
        Write::Update(update) => update.with = with,
        Write::Delete(delete) => delete.with = with,
        Write::Merge(merge) => merge.with = with,
        _ => {}
    }
    Ok(write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn routed(sql: &str) -> WithPart {
        let ParsedStatement::Sql(statement) = parse_statement(sql).unwrap().statement else { panic!("{sql}") };
        let Statement::Query(query) = *statement else { panic!("{sql}") };
        route_query(query).unwrap()
    }

    fn steps(sql: &str) -> Vec<String> {
        match routed(sql) {
            WithPart::Write(write) => match *write {
                Write::With(with) => {
                    let text = |step: WithStep| match step.part {
                        WithPart::Query(query) => format!("{}: {query}", step.name),
                        WithPart::Write(_) => step.name,
                    };
                    with.steps.into_iter().map(text).collect()
                }
                _ => Vec::new(),
            },
            WithPart::Query(_) => panic!("a query: {sql}"),
        }
    }

    #[test]
    fn what_one_part_reads_goes_with_it() {
        for sql in [
            "WITH a AS (SELECT 1 AS n), b AS (SELECT n FROM a) INSERT INTO t SELECT b.n FROM a, b RETURNING n",
            "WITH a AS (SELECT 1 AS n) DELETE FROM t WHERE n IN (SELECT n FROM a) AND m IN (SELECT n FROM a)",
            "WITH a AS (SELECT 1 AS n) UPDATE a SET n = 2 RETURNING n",
        ] {
            assert!(steps(sql).is_empty(), "{sql}");
        }
        let WithPart::Write(write) = routed("WITH a AS (SELECT 1 AS n), b AS (SELECT 2) DELETE FROM t USING a") else {
            panic!("a DELETE")
        };
        let Write::Delete(delete) = *write else { panic!("a DELETE") };
        assert_eq!(delete.with.map(|with| with.cte_tables.len()), Some(2));
    }

    #[test]
    fn what_several_parts_read_is_a_step() {
        for (sql, expected) in [
            (
                "WITH a AS (SELECT 1 AS n) INSERT INTO t SELECT n FROM a RETURNING (SELECT n FROM a)",
                vec!["a: WITH a AS (SELECT 1 AS n) SELECT * FROM a"],
            ),
            (
                "WITH a AS (SELECT 1 AS n), b AS (SELECT n FROM a) UPDATE t SET n = 2 RETURNING (SELECT n FROM b)",
                vec!["b: WITH a AS (SELECT 1 AS n), b AS (SELECT n FROM a) SELECT * FROM b"],
            ),
            (
                "WITH a AS (SELECT 1 AS n), b AS (SELECT n FROM a) DELETE FROM t USING a RETURNING (SELECT n FROM b)",
                vec!["a: WITH a AS (SELECT 1 AS n) SELECT * FROM a", "b: WITH b AS (SELECT n FROM a) SELECT * FROM b"],
            ),
            (
                "WITH a AS (SELECT 1 AS n), b AS (INSERT INTO t SELECT n FROM a RETURNING n), c AS (SELECT n FROM b) \
                 SELECT a.n FROM a, c",
                vec!["a: WITH a AS (SELECT 1 AS n) SELECT * FROM a", "b"],
            ),
            (
                "WITH a AS (SELECT 1 AS n) INSERT INTO t VALUES (1) ON CONFLICT (n) DO UPDATE SET n = (SELECT n FROM a)",
                vec!["a: WITH a AS (SELECT 1 AS n) SELECT * FROM a"],
            ),
        ] {
            assert_eq!(steps(sql), expected, "{sql}");
        }
    }

    #[test]
    fn names_are_there_once() {
        let sql = "WITH a AS (SELECT 1), A AS (SELECT 2) DELETE FROM t USING a";
        let ParsedStatement::Sql(statement) = parse_statement(sql).unwrap().statement else { panic!("{sql}") };
        let Statement::Query(query) = *statement else { panic!("{sql}") };
        assert_eq!(route_query(query).err().map(|error| error.sqlstate()), Some("42712"));
    }
}
