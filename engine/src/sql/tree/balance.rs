//! Long chains of AND or OR, folded into shallow trees.
//!
//! The parser reads `a OR b OR c OR d …` into a tree as deep as the chain is long, and what comes after it (planner,
//! optimiser, operators) takes time that grows with the square of the depth, and a stack that grows with it. Generated
//! filters have thousands of terms. AND and OR are associative, so the same terms in the same order give the same value
//! in a tree of logarithmic depth:
//!
//! ```text
//!        OR                     OR
//!       /  \                  /    \
//!      OR   d      ──►      OR      OR
//!     /  \                 /  \    /  \
//!    OR   c               a    b  c    d
//!   /  \
//!  a    b
//! ```

use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value, ValueWithSpan, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Span;

/// Shorter chains stay as they were written.
const MIN_TERMS: usize = 16;

/// Folds every long chain inside `node`.
pub(in crate::sql) fn balance<N: VisitMut>(node: &mut N) {
    match node.visit(&mut Balance) {
        ControlFlow::Continue(()) => {}
        ControlFlow::Break(never) => match never {},
    }
}

struct Balance;

impl VisitorMut for Balance {
    type Break = Infallible;

    /// Parents come before their children, so the walk never enters a chain that has not been folded.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Infallible> {
        if let Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } = expr {
            let op = op.clone();
            if terms_of(expr, &op) >= MIN_TERMS {
                let chain = std::mem::replace(expr, nothing());
                *expr = join(&mut take_apart(chain, &op), &op);
            }
        }
        ControlFlow::Continue(())
    }
}

fn terms_of(mut expr: &Expr, operator: &BinaryOperator) -> usize {
    let mut terms = 1;
    while let Expr::BinaryOp { left, op, .. } = expr
        && op == operator
    {
        terms += 1;
        expr = left;
    }
    terms
}

/// The terms of a chain from left to right.
fn take_apart(mut chain: Expr, operator: &BinaryOperator) -> Vec<Expr> {
    let mut terms = Vec::new();
    loop {
        match chain {
            Expr::BinaryOp { left, op, right } if op == *operator => {
                terms.push(*right);
                chain = *left;
            }
            first => {
                terms.push(first);
                terms.reverse();
                return terms;
            }
        }
    }
}

/// One tree of all terms, which are taken out of the slice.
fn join(terms: &mut [Expr], operator: &BinaryOperator) -> Expr {
    if let [term] = terms {
        return std::mem::replace(term, nothing());
    }
    let (left, right) = terms.split_at_mut(terms.len().div_ceil(2));
    Expr::BinaryOp {
        left: Box::new(join(left, operator)),
        op: operator.clone(),
        right: Box::new(join(right, operator)),
    }
}

fn nothing() -> Expr {
    Expr::Value(ValueWithSpan { value: Value::Null, span: Span::empty() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    fn depth(expr: &Expr) -> usize {
        match expr {
            Expr::BinaryOp { left, right, .. } => 1 + depth(left).max(depth(right)),
            _ => 0,
        }
    }

    #[test]
    fn a_long_chain_becomes_shallow_and_keeps_its_terms_in_order() {
        for operator in ["AND", "OR"] {
            let terms: Vec<String> = (0..1_000).map(|number| format!("c{number}")).collect();
            let text = terms.join(&format!(" {operator} "));
            let balanced = parse_expression(&text).unwrap();
            assert_eq!(balanced.to_string(), text);
            assert_eq!(depth(&balanced), 10);
        }
    }

    #[test]
    fn chains_inside_of_chains_are_folded_and_others_are_left_alone() {
        let inner = vec!["x"; 100].join(" AND ");
        let text = vec![inner.as_str(); 100].join(" OR ");
        let balanced = parse_expression(&text).unwrap();
        assert_eq!(balanced.to_string(), text);
        assert_eq!(depth(&balanced), 14);
        assert_eq!(depth(&parse_expression("a OR b OR c OR d").unwrap()), 3);
        assert_eq!(depth(&parse_expression(&vec!["1"; 100].join(" + ")).unwrap()), 99);
    }
}
