//! Pieces of SQL inside a routine, parsed once. Their names are looked up when they first run ([`super::names`]).

use std::fmt;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Statement, Visit, Visitor,
};
use std::ops::ControlFlow;

use crate::error::sqlstate;
use crate::sql::text::parse::{ParsedStatement, parse_statement};
use crate::{Error, Position, Result};

/// An expression, as PL/pgSQL has them: whatever can stand behind SELECT.
#[derive(Clone)]
pub struct SqlExpression {
    text: String,
    pub(crate) syntax: ExpressionSyntax,
}

#[derive(Clone)]
pub(crate) enum ExpressionSyntax {
    /// It needs no rows.
    Scalar(Box<Expr>),
    /// `count(*) FROM t`, or something with a subquery in it.
    Query(Box<Query>),
}

/// A statement.
#[derive(Clone)]
pub struct SqlStatement {
    text: String,
    pub(crate) syntax: ParsedStatement,
}

/// What makes an expression a query.
const SELECT: &str = "SELECT ";

impl SqlExpression {
    /// Parses an expression. Places in errors are places in `text`.
    pub fn parse(text: &str) -> Result<SqlExpression> {
        let query = match parse_statement(&format!("{SELECT}{text}")).map_err(before_select)?.statement {
            ParsedStatement::Sql(statement) => match *statement {
                Statement::Query(query) => query,
                _ => return Err(Error::syntax(format!("\"{text}\" is no expression"))),
            },
            _ => return Err(Error::syntax(format!("\"{text}\" is no expression"))),
        };
        let text = text.to_owned();
        let Some(items) = rowless_items(&query) else {
            return Ok(SqlExpression { text, syntax: ExpressionSyntax::Query(query) });
        };
        let [item] = items else {
            return Err(Error::new(sqlstate::SYNTAX, format!("query \"{text}\" returned {} columns", items.len())));
        };
        let expr = match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, alias: _ } => expr.clone(),
            _ => return Err(Error::syntax(format!("\"{text}\" is no expression"))),
        };
        let syntax = match has_query(&expr) {
            true => ExpressionSyntax::Query(query),
            false => ExpressionSyntax::Scalar(Box::new(expr)),
        };
        Ok(SqlExpression { text, syntax })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for SqlExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlExpression({:?})", self.text)
    }
}

impl SqlStatement {
    /// Parses a statement. Places in errors are places in `text`.
    pub fn parse(text: &str) -> Result<SqlStatement> {
        let syntax = parse_statement(text)?.statement;
        if matches!(syntax, ParsedStatement::Transaction(_)) {
            return Err(Error::unsupported("this statement in a routine")
                .with_hint("A procedure can COMMIT and ROLLBACK; a block with EXCEPTION undoes what failed in it."));
        }
        Ok(SqlStatement { text: text.to_owned(), syntax })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is a query: its rows have to go somewhere.
    pub fn is_query(&self) -> bool {
        matches!(&self.syntax, ParsedStatement::Sql(statement) if matches!(**statement, Statement::Query(_)))
    }
}

impl fmt::Debug for SqlStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlStatement({:?})", self.text)
    }
}

fn before_select(error: Error) -> Error {
    match error.position() {
        Some(Position { line: 1, column }) => {
            let column = column.saturating_sub(SELECT.len() as u64).max(1);
            error.moved_to(Position { line: 1, column })
        }
        _ => error,
    }
}

/// The select list of a query that has no other clause: it gives one row, whatever the tables hold.
pub(crate) fn rowless_items(query: &Query) -> Option<&[SelectItem]> {
    let Query {
        with: None,
        body,
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks,
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators,
    } = query
    else {
        return None;
    };
    let SetExpr::Select(select) = body.as_ref() else { return None };
    let Select {
        projection,
        from,
        distinct: None,
        top: None,
        into: None,
        selection: None,
        having: None,
        qualify: None,
        group_by,
        ..
    } = select.as_ref()
    else {
        return None;
    };
    let ungrouped =
        matches!(group_by, GroupByExpr::Expressions(keys, modifiers) if keys.is_empty() && modifiers.is_empty());
    let plain = locks.is_empty() && pipe_operators.is_empty() && from.is_empty() && ungrouped;
    (plain && !projection.iter().any(has_aggregate_item)).then_some(projection.as_slice())
}

/// `count(*)` and `sum(1)` without FROM are queries.
fn has_aggregate_item(item: &SelectItem) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            const AGGREGATES: [&str; 12] = [
                "count",
                "sum",
                "avg",
                "min",
                "max",
                "array_agg",
                "string_agg",
                "bool_and",
                "bool_or",
                "every",
                "median",
                "stddev",
            ];
            match expr {
                Expr::Function(function)
                    if function.over.is_some()
                        || AGGREGATES.contains(&function.name.to_string().to_lowercase().as_str()) =>
                {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    item.visit(&mut Finder).is_break()
}

fn has_query(expr: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    expr.visit(&mut Finder).is_break()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_without_rows_is_told_from_a_query() {
        let scalar = |text: &str| matches!(SqlExpression::parse(text).unwrap().syntax, ExpressionSyntax::Scalar(_));
        assert!(scalar("a + 1") && scalar("f(x) > 3 AND NOT y") && scalar("CASE WHEN a THEN b END"));
        assert!(!scalar("count(*) FROM t") && !scalar("(SELECT 1)") && !scalar("EXISTS (SELECT 1)"));
    }

    #[test]
    fn errors_are_placed_in_the_expression() {
        let error = SqlExpression::parse("1 +").unwrap_err();
        assert_eq!(error.sqlstate(), "42601");
        assert!(SqlExpression::parse("1, 2").is_err() && SqlExpression::parse("1; DROP TABLE t").is_err());
        assert_eq!(SqlStatement::parse("BEGIN").unwrap_err().sqlstate(), "0A000");
    }
}
