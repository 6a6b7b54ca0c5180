//! The types of the first term of WITH RECURSIVE, where they are others than the planner takes them for:
//! `SELECT CASE WHEN a > 1 THEN a ELSE 1.5 END AS n … UNION ALL SELECT n + 1 FROM r`.
//!
//! The planner takes the type of the first result for that of a CASE, and `n` in the other term has it. Our rules find that it is
//! a numeric, when the query has been planned; then the terms do not fit each other. So where the rules make other types of a
//! first term than it was planned with, its columns are cast to these, and the query is planned again.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::OptimizerConfig;
use datafusion::sql::sqlparser::ast::{
    Expr, Query, SelectItem, SetExpr, SetOperator, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::recursive_constants::{DIGITS, fraction_in};
use crate::dml::syntax::{cast, named};
use crate::sql::context::StatementContext;
use crate::sql::names::output_name;
use crate::sql::text::parse::fold;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// Whether a query has a WITH RECURSIVE.
pub(in crate::sql) fn is_recursive(query: &Query) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            match query.with.as_ref().is_some_and(|with| with.recursive) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(query, &mut Finder).is_break()
}

/// Casts the columns of first terms in `query` that get other types than they have in its plan. Returns whether there are any.
pub(in crate::sql) fn cast_first_terms(
    context: &StatementContext,
    plan: &LogicalPlan,
    query: &mut Query,
) -> Result<bool> {
    let mut casts = Casts { wanted: Vec::new(), done: false };
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::RecursiveQuery(recursive) = node {
            casts.wanted.extend(other_types(context, &recursive.name, &recursive.static_term));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if casts.wanted.is_empty() {
        return Ok(false);
    }
    match VisitMut::visit(query, &mut casts) {
        ControlFlow::Continue(()) => Ok(casts.done),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A column of a first term, and the type that it gets.
struct Wanted {
    query: String,
    column: usize,
    data_type: DataType,
}

/// What is wrong with a term is left to be told when the whole query is analysed.
fn other_types(context: &StatementContext, name: &str, term: &LogicalPlan) -> Vec<Wanted> {
    let options = OptimizerConfig::options(context);
    let Ok(analyzed) = context.shared().analyzer().execute_and_check(term.clone(), &options, |_, _| {}) else {
        return Vec::new();
    };
    let mut wanted = Vec::new();
    let columns = term.schema().fields().iter().zip(analyzed.schema().fields().iter());
    for (column, (planned, found)) in columns.enumerate() {
        let (planned, found) = (planned.data_type(), found.data_type());
        let same = planned == found || (planned.is_string() && found.is_string());
        if !same && has_name(found) {
            wanted.push(Wanted { query: name.to_owned(), column, data_type: found.clone() });
        }
    }
    wanted
}

/// Whether a cast can name the type.
fn has_name(data_type: &DataType) -> bool {
    use DataType::{Boolean, Date32, Decimal128, Interval, Time64, Timestamp};
    data_type.is_signed_integer()
        || data_type.is_floating()
        || data_type.is_string()
        || matches!(data_type, Boolean | Date32 | Decimal128(..) | Interval(_) | Time64(_) | Timestamp(..))
}

struct Casts {
    wanted: Vec<Wanted>,
    done: bool,
}

impl VisitorMut for Casts {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let Some(with) = query.with.as_mut().filter(|with| with.recursive) else { return ControlFlow::Continue(()) };
        for cte in &mut with.cte_tables {
            let name = fold(&cte.alias.name);
            let has_names = !cte.alias.columns.is_empty();
            let SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } = cte.query.body.as_mut() else {
                continue;
            };
            let fraction = fraction_in(right);
            for Wanted { query: _, column, data_type } in self.wanted.iter().filter(|wanted| wanted.query == name) {
                match cast_column(left, *column, &name_with(data_type, fraction), has_names) {
                    Ok(done) => self.done |= done,
                    Err(error) => return ControlFlow::Break(error),
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The name of the type; of a numeric, which is one of any number of digits in PostgreSQL, of the widest with so many digits
/// behind the point.
fn name_with(data_type: &DataType, fraction: usize) -> String {
    match data_type {
        DataType::Decimal128(_, scale) => {
            let fraction = fraction.max(usize::try_from(*scale).unwrap_or(0)).min(DIGITS - 1);
            format!("numeric({DIGITS}, {fraction})")
        }
        other => name_of(other),
    }
}

/// Casts a column of a term. `has_names`: whether its name, which a cast changes, is that of an alias.
fn cast_column(term: &mut SetExpr, column: usize, type_name: &str, has_names: bool) -> Result<bool> {
    let taken = |expr: &mut Expr| std::mem::replace(expr, Expr::value(Value::Null));
    match term {
        SetExpr::Select(select) => {
            let is_item =
                |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
            if !select.projection.iter().take(column + 1).all(is_item) {
                return Ok(false);
            }
            let Some(item) = select.projection.get_mut(column) else { return Ok(false) };
            match item {
                SelectItem::ExprWithAlias { expr, .. } => *expr = cast(taken(expr), type_name)?,
                SelectItem::UnnamedExpr(expr) => {
                    let name = output_name(expr);
                    let expr = cast(taken(expr), type_name)?;
                    *item = if has_names { SelectItem::UnnamedExpr(expr) } else { named(expr, &name) };
                }
                _ => return Ok(false),
            }
            Ok(true)
        }
        SetExpr::Values(values) => {
            for value in values.rows.iter_mut().filter_map(|row| row.content.get_mut(column)) {
                *value = cast(taken(value), type_name)?;
            }
            Ok(true)
        }
        SetExpr::Query(query) => cast_column(&mut query.body, column, type_name, has_names),
        SetExpr::SetOperation { left, right, .. } => {
            let left = cast_column(left, column, type_name, has_names)?;
            Ok(cast_column(right, column, type_name, has_names)? || left)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::Statement;

    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn cast_in(sql: &str, data_type: DataType) -> String {
        let ParsedStatement::Sql(mut statement) = parse_statement(sql).unwrap().statement else { panic!("not a COPY") };
        let Statement::Query(query) = statement.as_mut() else { panic!("a query") };
        assert!(is_recursive(query));
        let mut casts = Casts { wanted: vec![Wanted { query: "r".to_owned(), column: 1, data_type }], done: false };
        assert!(VisitMut::visit(query, &mut casts).is_continue() && casts.done);
        query.to_string()
    }

    #[test]
    fn columns_keep_their_names() {
        assert_eq!(
            cast_in(
                "WITH RECURSIVE r AS (SELECT 1, f(a) FROM t UNION ALL SELECT 1, f FROM r) SELECT * FROM r",
                DataType::Int64
            ),
            "WITH RECURSIVE r AS (SELECT 1, CAST(f(a) AS BIGINT) AS \"f\" FROM t UNION ALL SELECT 1, f FROM r) \
             SELECT * FROM r"
        );
        assert_eq!(
            cast_in(
                "WITH RECURSIVE R (x, y) AS (VALUES (1, a) UNION SELECT x, y / 2 FROM r) SELECT x FROM r",
                DataType::Decimal128(12, 1)
            ),
            "WITH RECURSIVE R (x, y) AS (VALUES (1, CAST(a AS NUMERIC(38,10))) UNION SELECT x, y / 2 FROM r) \
             SELECT x FROM r"
        );
    }
}
