//! What the recursive term of WITH RECURSIVE may not say. An aggregate of what the step before gave has a row in every step,
//! also of nothing: the query would go on for ever.

use datafusion::sql::sqlparser::ast::{
    ObjectNamePart, Select, SelectItem, SetExpr, SetOperator, TableFactor, TableWithJoins, With,
};

use crate::dml::many_rows::calls_aggregates;
use crate::error::sqlstate;
use crate::sql::text::parse::fold;
use crate::{Error, Result};

/// Refuses aggregates in the recursive terms that read themselves.
pub(in crate::sql) fn check_recursive_terms(with: &With) -> Result<()> {
    if !with.recursive {
        return Ok(());
    }
    for cte in &with.cte_tables {
        if let SetExpr::SetOperation { op: SetOperator::Union, right, .. } = cte.query.body.as_ref() {
            check_term(right, &fold(&cte.alias.name))?;
        }
    }
    Ok(())
}

fn check_term(term: &SetExpr, name: &str) -> Result<()> {
    match term {
        SetExpr::Select(select) if select.from.iter().any(|from| reads(from, name)) && aggregates(select) => {
            let message = "aggregate functions are not allowed in a recursive query's recursive term";
            Err(Error::new(sqlstate::INVALID_RECURSION, message))
        }
        SetExpr::Query(query) => {
            let is_hidden = |with: &With| with.cte_tables.iter().any(|cte| fold(&cte.alias.name) == name);
            match query.with.as_ref().is_some_and(is_hidden) {
                true => Ok(()),
                false => check_term(&query.body, name),
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            check_term(left, name)?;
            check_term(right, name)
        }
        _ => Ok(()),
    }
}

/// Whether a table of this name is among those of FROM, not of its subqueries.
fn reads(from: &TableWithJoins, name: &str) -> bool {
    std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)).any(|factor| match factor {
        TableFactor::Table { name: table, args: None, .. } => {
            matches!(table.0.as_slice(), [ObjectNamePart::Identifier(ident)] if fold(ident) == name)
        }
        TableFactor::NestedJoin { table_with_joins, .. } => reads(table_with_joins, name),
        _ => false,
    })
}

fn aggregates(select: &Select) -> bool {
    let in_list = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => calls_aggregates(expr),
        _ => false,
    };
    select.projection.iter().any(in_list) || select.having.as_ref().is_some_and(calls_aggregates)
}
