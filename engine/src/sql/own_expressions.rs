//! The expressions of a part of a query, but for those of the queries inside of it: these have columns, groups and windows of
//! their own, and are looked at by themselves.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, VisitMut, VisitorMut};

/// Calls `change` with each expression of `node`, those inside of another one first, until it breaks.
pub(super) fn for_each_own<N: VisitMut, B>(
    node: &mut N,
    mut change: impl FnMut(&mut Expr) -> ControlFlow<B>,
) -> ControlFlow<B> {
    node.visit(&mut Walk { change: &mut change, depth: 0 })
}

struct Walk<'a, B> {
    change: &'a mut dyn FnMut(&mut Expr) -> ControlFlow<B>,
    /// How many queries deep.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse::parse_expression;

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
    }
}
