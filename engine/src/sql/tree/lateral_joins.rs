//! `FROM a, b JOIN LATERAL (SELECT a.x + b.y) c ON true`: a subquery that sees relations before its list of joins.
//!
//! DataFusion plans each item of FROM by itself, and does not find `a` in the second. Inner and left joins can as well be made
//! with all that comes before:
//!
//! ```sql
//! FROM a CROSS JOIN b JOIN LATERAL (SELECT a.x + b.y) c ON true
//! ```
//!
//! Other joins stay as they are, and those whose condition has names without a table: they might be names of `a`, too.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Join, JoinConstraint, JoinOperator, Select, TableFactor, TableWithJoins, Visit, Visitor,
};

/// Joins the items of FROM that such subqueries may see.
pub(in crate::sql) fn join_before_laterals(select: &mut Select) {
    if !select.from.iter().skip(1).any(may_look_back) {
        return;
    }
    let mut joined: Vec<TableWithJoins> = Vec::with_capacity(select.from.len());
    for from in std::mem::take(&mut select.from) {
        if joined.is_empty() || !may_look_back(&from) {
            joined.push(from);
            continue;
        }
        let mut before = std::mem::take(&mut joined).into_iter().map(as_relation);
        let Some(relation) = before.next() else { continue };
        let TableWithJoins { relation: last, joins } = from;
        let joins = before.chain([last]).map(crossed).chain(joins).collect();
        joined = vec![TableWithJoins { relation, joins }];
    }
    select.from = joined;
}

/// Whether there is a subquery in it that may refer to the items before, and its joins can be made with those.
fn may_look_back(from: &TableWithJoins) -> bool {
    let is_lateral = |join: &Join| {
        matches!(
            join.relation,
            TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. }
        )
    };
    from.joins.iter().any(is_lateral) && from.joins.iter().all(keeps_left)
}

/// Whether a join has the rows of its left side, by a condition that says of which tables it speaks.
fn keeps_left(join: &Join) -> bool {
    match &join.join_operator {
        JoinOperator::CrossJoin(JoinConstraint::None) => true,
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => match constraint {
            JoinConstraint::On(condition) => !has_bare_names(condition),
            JoinConstraint::None => true,
            JoinConstraint::Using(_) | JoinConstraint::Natural => false,
        },
        _ => false,
    }
}

fn has_bare_names(condition: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    condition.visit(&mut Finder).is_break()
}

fn as_relation(from: TableWithJoins) -> TableFactor {
    match from.joins.is_empty() {
        true => from.relation,
        false => TableFactor::NestedJoin { table_with_joins: Box::new(from), alias: None },
    }
}

fn crossed(relation: TableFactor) -> Join {
    Join { relation, global: false, join_operator: JoinOperator::CrossJoin(JoinConstraint::None) }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::{SetExpr, Statement};

    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn joined(sql: &str) -> String {
        let ParsedStatement::Sql(mut statement) = parse_statement(sql).unwrap().statement else { panic!("a query") };
        let Statement::Query(query) = statement.as_mut() else { panic!("a query") };
        let SetExpr::Select(select) = query.body.as_mut() else { panic!("a select") };
        join_before_laterals(select);
        select.to_string()
    }

    #[test]
    fn items_before_a_lateral_join_are_joined_with_it() {
        for (sql, expected) in [
            (
                "SELECT 1 FROM a, b JOIN LATERAL (SELECT a.x) AS c ON true",
                "SELECT 1 FROM a CROSS JOIN b JOIN LATERAL (SELECT a.x) AS c ON true",
            ),
            (
                "SELECT 1 FROM a RIGHT JOIN d ON true, b LEFT JOIN LATERAL (SELECT a.x) AS c ON c.x = b.x, e",
                "SELECT 1 FROM (a RIGHT JOIN d ON true) CROSS JOIN b LEFT JOIN LATERAL (SELECT a.x) AS c ON c.x = b.x, e",
            ),
        ] {
            assert_eq!(joined(sql), expected);
        }
    }

    #[test]
    fn what_would_mean_something_else_stays() {
        for sql in [
            "SELECT 1 FROM a, b JOIN c ON true",
            "SELECT 1 FROM a JOIN LATERAL (SELECT a.x) AS c ON true, b",
            "SELECT 1 FROM a, b JOIN LATERAL (SELECT 1 AS x) AS c ON x = 1",
            "SELECT 1 FROM a, b JOIN LATERAL (SELECT 1 AS x) AS c USING(x)",
            "SELECT 1 FROM a, b JOIN LATERAL (SELECT 1 AS x) AS c ON true RIGHT JOIN d ON true",
        ] {
            assert_eq!(joined(sql), sql);
        }
    }
}
