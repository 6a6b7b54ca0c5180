//! Parts of a syntax tree that a rewrite writes more than once.
//!
//! `(a, b) < (c, d)` is planned as `a < c OR (a = c AND b < d)`. With such a comparison in the place of `a`, one in that, and
//! so on, each level is written twice as often as the one around it: 30 of them, some 500 bytes, would be 2³⁰. And what gives
//! another value each time it is computed, as `random()` does, must not be written twice at all.
//!
//! So rewrites do without copies where they can, and those that cannot ask here. Trees are rewritten from the outside in, so
//! that a copy is counted as it is before what is in it grows: it is the sum of all copies in a statement that is bounded.
//!
//! The planner writes things again, too: `x > ALL (array)` becomes a CASE that names both several times, and the call of a
//! function by [a second name](crate::functions::second_names) is spelled out twice. That is done after a statement has been
//! checked, so what is in such an expression counts as often as the planner will write it.
//!
//! Invariant: the rewrites of one statement write at most [`COPIED_MAX`] nodes again, but for [small parts](SMALL): so many of
//! these are only where the statement has as many others.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, ObjectNamePart, Query, TableFactor, Visit, Visitor};

use crate::functions::second_names::is_second_name;
use crate::sql::text::parse::fold;
use crate::{Error, Result, error::sqlstate};

/// The nodes that are written again in a statement. A few thousand of them are planned in some ten milliseconds.
const COPIED_MAX: usize = 20_000;

/// What a query or a table counts: it takes as long to plan as so many expressions.
const NODES_OF_QUERY: usize = 10;

/// How often `x > ALL (array)` is planned to name the array.
const TIMES_OF_ARRAY: usize = 5;

/// The nodes of a part that may be copied for each element of a list: a column, its cast, a function of it.
const SMALL: usize = 4;

/// Functions that give another value each time, or do something.
const VOLATILE: &[&str] = &["clock_timestamp", "gen_random_uuid", "nextval", "random", "setval", "timeofday", "uuid"];

/// What may still be written again.
#[derive(Debug)]
pub(in crate::sql) struct Copies {
    left: usize,
    /// How often the planner writes what is at the place that is looked at.
    planned: usize,
}

impl Default for Copies {
    fn default() -> Self {
        Copies { left: COPIED_MAX, planned: 1 }
    }
}

impl Copies {
    /// Asks to write `node` so many times more. Fails with 54001 if it is too large, or gives another value each time.
    pub(in crate::sql) fn take<N: Visit>(&mut self, node: &N, times: usize) -> Result<()> {
        let measured = Measure::of(node);
        if measured.is_volatile && times > 0 {
            return Err(computed_twice());
        }
        self.count(measured.nodes, times)
    }

    /// The same of what the planner computes once for all copies of it.
    pub(in crate::sql) fn take_shared<N: Visit>(&mut self, node: &N, times: usize) -> Result<()> {
        self.count(Measure::of(node).nodes, times)
    }

    /// The same of what PostgreSQL computes several times as well: what is between two bounds, and rows in a list.
    pub(in crate::sql) fn take_as_postgresql_does<N: Visit>(&mut self, node: &N, times: usize) -> Result<()> {
        self.count(Measure::of(node).nodes, times)
    }

    /// What follows is in this expression, which is as the planner gets it.
    pub(in crate::sql) fn enter(&mut self, expr: &Expr) -> Result<()> {
        let times = times_planned(expr);
        if times > 1 {
            self.take_shared(expr, times - 1)?;
            self.planned = self.planned.saturating_mul(times);
        }
        Ok(())
    }

    /// What follows is no longer in it.
    pub(in crate::sql) fn leave(&mut self, expr: &Expr) {
        self.planned = (self.planned / times_planned(expr)).max(1);
    }

    fn count(&mut self, nodes: usize, times: usize) -> Result<()> {
        if nodes <= SMALL {
            return Ok(());
        }
        let nodes = nodes.checked_mul(times).and_then(|nodes| nodes.checked_mul(self.planned));
        self.left = nodes.and_then(|nodes| self.left.checked_sub(nodes)).ok_or_else(too_many)?;
        Ok(())
    }
}

/// How often the planner writes the parts of an expression.
fn times_planned(expr: &Expr) -> usize {
    match expr {
        Expr::AllOp { right, .. } if !matches!(right.as_ref(), Expr::Subquery(_)) => TIMES_OF_ARRAY,
        Expr::Function(function) => match function.name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] if is_second_name(&fold(name)) => 2,
            _ => 1,
        },
        _ => 1,
    }
}

/// Whether an expression is a column, a constant or not much more, and has the same value each time it is computed.
pub(in crate::sql) fn is_small(expr: &Expr) -> bool {
    let Measure { nodes, is_volatile } = Measure::of(expr);
    nodes < SMALL && !is_volatile
}

fn too_many() -> Error {
    Error::new(
        sqlstate::STATEMENT_TOO_COMPLEX,
        "comparisons or calls that are planned in several places nest too deeply",
    )
    .with_hint("Give what is in them a name of its own, in a subquery in FROM.")
}

/// The error for what must be computed once and cannot.
pub(in crate::sql) fn computed_twice() -> Error {
    let message = "a function that gives another value each time would be computed several times";
    Error::new(sqlstate::STATEMENT_TOO_COMPLEX, message)
        .with_hint("Compute it first: put its values into a table, and compare with these.")
}

#[derive(Debug, Default)]
struct Measure {
    /// Expressions, and queries and tables for what they are worth. Constants and parentheses do not count: they can have nothing in them that grows.
    nodes: usize,
    is_volatile: bool,
}

impl Measure {
    fn of<N: Visit>(node: &N) -> Measure {
        let mut measure = Measure::default();
        let _: ControlFlow<()> = node.visit(&mut measure);
        measure
    }
}

impl Visitor for Measure {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.nodes += NODES_OF_QUERY;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, _factor: &TableFactor) -> ControlFlow<()> {
        self.nodes += NODES_OF_QUERY;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.nodes += usize::from(!matches!(expr, Expr::Value(_) | Expr::Nested(_)));
        if let Expr::Function(function) = expr
            && let Some(ObjectNamePart::Identifier(name)) = function.name.0.last()
        {
            self.is_volatile |= VOLATILE.contains(&fold(name).as_str());
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};

    use super::*;
    use crate::sql::text::parse::parse_expression;

    fn taken(copies: &mut Copies, sql: &str, times: usize) -> Option<String> {
        let error = copies.take(&parse_expression(sql).unwrap(), times).err()?;
        Some(error.sqlstate().to_owned())
    }

    #[test]
    fn the_sum_of_all_copies_is_bounded() {
        let mut copies = Copies::default();
        let large = "a + b + c + d";
        assert_eq!(taken(&mut copies, large, COPIED_MAX / 7), None);
        assert_eq!(taken(&mut copies, large, 1).as_deref(), Some("54001"));
        assert_eq!(taken(&mut copies, large, 0), None);
        assert_eq!(taken(&mut copies, "lower(t.a)", usize::MAX), None, "in each row of a list");
        assert_eq!(taken(&mut copies, "'a'", usize::MAX), None);
    }

    #[test]
    fn what_the_planner_writes_again_counts_as_often() {
        let nested = |depth: usize, open: &str, close: &str| {
            let mut expr = parse_expression(&format!("{}a{}", open.repeat(depth), close.repeat(depth))).unwrap();
            let mut copies = Copies::default();
            struct Walk<'a>(&'a mut Copies);
            impl VisitorMut for Walk<'_> {
                type Break = Error;
                fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
                    self.0.enter(expr).map_or_else(ControlFlow::Break, ControlFlow::Continue)
                }
                fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
                    self.0.leave(expr);
                    ControlFlow::Continue(())
                }
            }
            let passed = VisitMut::visit(&mut expr, &mut Walk(&mut copies)).is_continue();
            (passed, copies.planned)
        };
        assert_eq!(nested(3, "(", " > ALL (ARRAY[1, 2]))"), (true, 1));
        assert!(!nested(9, "(", " > ALL (ARRAY[1, 2]))").0);
        assert_eq!(nested(6, "sign(1 + ", ")"), (true, 1));
        assert!(!nested(30, "sign(1 + ", ")").0);
        assert_eq!(nested(60, "lower(", ")"), (true, 1));
    }

    #[test]
    fn what_differs_each_time_is_not_copied() {
        let mut copies = Copies::default();
        for volatile in ["random()", "1 + Random()", "(SELECT nextval('s'))", "pg_catalog.random()"] {
            assert_eq!(taken(&mut copies, volatile, 1).as_deref(), Some("54001"), "{volatile}");
            assert_eq!(taken(&mut copies, volatile, 0), None, "{volatile}");
        }
        assert!(!is_small(&parse_expression("random()").unwrap()));
        assert!(is_small(&parse_expression("(a)::text").unwrap()));
        assert!(!is_small(&parse_expression("(a LIKE ANY (ARRAY['x']))::text").unwrap()));
    }
}
