//! The expressions of a part of a query, but for those of the queries inside of it: these have columns, groups and windows of
//! their own, and are looked at by themselves.
//!
//! The parser's visitors go through everything. What looks for a name, an aggregate or a window must know how many queries
//! deep it is, and that is counted here only.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Visit, VisitMut, Visitor, VisitorMut};

/// Calls `change` with each expression of `node`, those inside of another one first, until it breaks.
pub(crate) fn for_each_own<N: VisitMut, B>(
    node: &mut N,
    mut change: impl FnMut(&mut Expr) -> ControlFlow<B>,
) -> ControlFlow<B> {
    VisitMut::visit(node, &mut Walk { change: &mut change, depth: 0 })
}

/// Calls `look` with each expression of `node`, those around another one first, until it breaks.
pub(crate) fn look_at_own<N: Visit, B>(node: &N, mut look: impl FnMut(&Expr) -> ControlFlow<B>) -> ControlFlow<B> {
    Visit::visit(node, &mut Look { look: &mut look, depth: 0 })
}

struct Walk<'a, B> {
    change: &'a mut dyn FnMut(&mut Expr) -> ControlFlow<B>,
    /// How many queries deep.
    depth: usize,
}

struct Look<'a, B> {
    look: &'a mut dyn FnMut(&Expr) -> ControlFlow<B>,
    depth: usize,
}

impl<B> VisitorMut for Walk<'_, B> {
    type Break = B;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<B> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<B> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<B> {
        match self.depth {
            0 => (self.change)(expr),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl<B> Visitor for Look<'_, B> {
    type Break = B;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<B> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<B> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<B> {
        match self.depth {
            0 => (self.look)(expr),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    #[test]
    fn queries_inside_are_left_alone() {
        let mut expr = parse_expression("f(a, (SELECT g(b) FROM t), ARRAY[c])").unwrap();
        let mut seen = Vec::new();
        let walked: ControlFlow<()> = for_each_own(&mut expr, |part| {
            seen.push(part.to_string());
            ControlFlow::Continue(())
        });
        assert!(walked.is_continue());
        assert_eq!(seen, ["a", "(SELECT g(b) FROM t)", "c", "ARRAY[c]", "f(a, (SELECT g(b) FROM t), ARRAY[c])"]);
        let mut seen = Vec::new();
        let found = look_at_own(&expr, |part| {
            seen.push(part.to_string());
            match part {
                Expr::Array(_) => ControlFlow::Break(part.to_string()),
                _ => ControlFlow::Continue(()),
            }
        });
        assert_eq!(found, ControlFlow::Break("ARRAY[c]".to_owned()));
        assert_eq!(seen, ["f(a, (SELECT g(b) FROM t), ARRAY[c])", "a", "(SELECT g(b) FROM t)", "ARRAY[c]"]);
    }
}
