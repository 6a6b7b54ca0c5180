//! The row of a relation as a value: `t.*` inside of an expression, or the name of the relation by itself.
//!
//! | written | becomes |
//! |---|---|
//! | `t`, where no column has that name | `t.*` |
//! | `ROW(1, t.*)`, `(1, t.*)` | `ROW(1, t.a, t.b)`, `(1, t.a, t.b)` |
//! | `t.* IS NULL`, `(t.*) = …` | `ROW(t.a, t.b) IS NULL`, … |
//! | `count(t.*)` | `count(*)` |
//! | elsewhere | `ROW(t.a, t.b)` |
//! | the same, where an outer join may have no row of `t` | `CASE WHEN ROW(t.a, t.b) IS NULL THEN NULL ELSE ROW(t.a, t.b) END` |
//!
//! DataFusion knows no such rows: it counts those that an outer join lacks, takes none for NULL, and the rest it refuses. That a
//! row of NULLs is taken for none behind an outer join is what remains. What is not known, the columns of a function for
//! example, stays as it is.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, JoinOperator, ObjectName, ObjectNamePart,
    OrderBy, Select, SelectItem, TableFactor, TableWithJoins,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::known_columns::{KnownColumns, relation_name};
use super::own_expressions::{for_each_own, look_at_own};
use crate::dml::syntax::{call_with, cases, everything, named, null};
use crate::sql::text::parse::fold;

/// Whether a query may ask for the row of a relation.
pub(in crate::sql) fn asks_for_rows(select: &Select) -> bool {
    let look = |part: &Expr| match part {
        Expr::Identifier(ident) if has_relation(&select.from, ident) => ControlFlow::Break(()),
        part if shows_row(part) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    look_at_own(&select.projection, look).is_break()
        || look_at_own(&select.selection, look).is_break()
        || look_at_own(&select.having, look).is_break()
        || look_at_own(&select.group_by, look).is_break()
}

/// Whether rows are ordered by such a row.
pub(in crate::sql) fn orders_by_rows(order_by: &OrderBy) -> bool {
    let look = |part: &Expr| match shows_row(part) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    look_at_own(order_by, look).is_break()
}

/// Whether there is a star, or a call that has one.
fn shows_row(part: &Expr) -> bool {
    match part {
        Expr::QualifiedWildcard(..) => true,
        Expr::Function(function) => has_star(function),
        _ => false,
    }
}

/// Writes the rows of a query's relations out. `outer`: what the queries around it select from.
pub(in crate::sql) fn write_rows(
    known: &mut KnownColumns<'_>,
    outer: &[Vec<TableWithJoins>],
    select: &mut Select,
    mut order_by: Option<&mut OrderBy>,
) {
    if !asks_for_rows(select) && !order_by.as_deref().is_some_and(orders_by_rows) {
        return;
    }
    let from = select.from.clone();
    star_names(known, outer, &from, select);
    let mut rows = Rows { known, from: &from };
    for_each_part(select, order_by.as_deref_mut(), |part| rows.write_parts(part));
    for_each_part(select, order_by, |part| rows.write_value(part));
}

/// Calls `change` with each expression of a query where rows are looked for.
fn for_each_part(select: &mut Select, order_by: Option<&mut OrderBy>, mut change: impl FnMut(&mut Expr)) {
    let mut change = |part: &mut Expr| {
        change(part);
        ControlFlow::<()>::Continue(())
    };
    let _ = for_each_own(&mut select.projection, &mut change);
    let _ = for_each_own(&mut select.selection, &mut change);
    let _ = for_each_own(&mut select.having, &mut change);
    let _ = for_each_own(&mut select.group_by, &mut change);
    if let Some(order_by) = order_by {
        let _ = for_each_own(order_by, &mut change);
    }
}

/// Puts a star behind the names of relations that stand for their rows as items of the list, as arguments and before IS NULL,
/// if it is known that no column is meant.
fn star_names(
    known: &mut KnownColumns<'_>,
    outer: &[Vec<TableWithJoins>],
    from: &[TableWithJoins],
    select: &mut Select,
) {
    // Of rows at hand nothing is known here.
    if outer.iter().any(Vec::is_empty) {
        return;
    }
    let mut columns: Vec<String> = Vec::new();
    for relations in outer.iter().map(Vec::as_slice).chain([from]) {
        let Some(shown) = known.of_star(&everything(), relations) else { return };
        columns.extend(shown.into_iter().map(|(name, _)| name));
    }
    let row = |expr: &Expr| match expr {
        Expr::Identifier(ident) if has_relation(from, ident) && !columns.contains(&fold(ident)) => {
            let relation = ObjectName::from(vec![ident.clone()]);
            Some((Expr::QualifiedWildcard(relation, AttachedToken::empty()), fold(ident)))
        }
        _ => None,
    };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && let Some((star, name)) = row(expr)
        {
            *item = named(star, &name);
        }
    }
    let put = |expr: &mut Expr| {
        if let Some((star, _)) = row(expr) {
            *expr = star;
        }
    };
    let put_inside = |part: &mut Expr| {
        match part {
            Expr::Function(Function { args: FunctionArguments::List(list), .. }) => {
                for argument in &mut list.args {
                    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument {
                        put(expr);
                    }
                }
            }
            Expr::IsNull(expr) | Expr::IsNotNull(expr) => put(expr),
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    };
    let _ = for_each_own(&mut select.projection, put_inside);
    let _ = for_each_own(&mut select.selection, put_inside);
    let _ = for_each_own(&mut select.having, put_inside);
}

/// Whether a table or query of this name is in a FROM.
fn has_relation(from: &[TableWithJoins], name: &Ident) -> bool {
    matches!(
        relation_called(from, &fold(name)),
        Some(TableFactor::Table { args: None, .. } | TableFactor::Derived { .. })
    )
}

/// The relation of this name in a FROM.
fn relation_called<'a>(from: &'a [TableWithJoins], wanted: &str) -> Option<&'a TableFactor> {
    let mut factors = from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    factors.find_map(|factor| match factor {
        TableFactor::NestedJoin { table_with_joins, alias: None } => {
            relation_called(std::slice::from_ref(table_with_joins.as_ref()), wanted)
        }
        factor => is_called(factor, wanted).then_some(factor),
    })
}

fn is_called(factor: &TableFactor, wanted: &str) -> bool {
    relation_name(factor).is_some_and(|parts| parts.last().is_some_and(|name| fold(name) == wanted))
}

fn has_star(function: &Function) -> bool {
    match &function.args {
        FunctionArguments::List(list) => list.args.iter().any(|argument| argument_star(argument).is_some()),
        _ => false,
    }
}

fn argument_star(argument: &FunctionArg) -> Option<&ObjectName> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(relation)) => Some(relation),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => star(expr),
        _ => None,
    }
}

fn star(expr: &Expr) -> Option<&ObjectName> {
    match expr {
        Expr::Nested(inner) => star(inner),
        Expr::QualifiedWildcard(relation, _) => Some(relation),
        _ => None,
    }
}

/// The relations whose rows are written out.
struct Rows<'a, 'k> {
    known: &'a mut KnownColumns<'k>,
    from: &'a [TableWithJoins],
}

impl Rows<'_, '_> {
    /// The columns of a relation; `None` if they are not known.
    fn columns(&mut self, relation: &ObjectName) -> Option<Vec<Expr>> {
        let factor = relation_called(self.from, &name_of(relation)?)?;
        Some(self.known.of_relation(factor)?.into_iter().map(|(_, column)| column).collect())
    }

    fn row(&mut self, relation: &ObjectName) -> Option<Expr> {
        Some(call_with("row", self.columns(relation)?, Span::empty()))
    }

    /// The row of a relation, or NULL if there is none.
    fn value(&mut self, relation: &ObjectName) -> Option<Expr> {
        let row = self.row(relation)?;
        Some(match may_be_missing(self.from, relation) {
            true => cases(vec![(Expr::IsNull(Box::new(row.clone())), null())], row),
            false => row,
        })
    }

    /// Writes out the rows that an expression takes apart, and those that a call takes.
    fn write_parts(&mut self, part: &mut Expr) {
        match part {
            Expr::Function(function) => self.write_arguments(function),
            Expr::Tuple(values) => {
                let written = std::mem::take(values).into_iter().flat_map(|value| match &value {
                    Expr::QualifiedWildcard(relation, _) => self.columns(relation).unwrap_or_else(|| vec![value]),
                    _ => vec![value],
                });
                *values = written.collect();
            }
            Expr::IsNull(row) | Expr::IsNotNull(row) => self.write_row(row),
            Expr::InSubquery { expr, .. } | Expr::InList { expr, .. } => self.write_row(expr),
            Expr::BinaryOp { left, right, .. }
            | Expr::IsDistinctFrom(left, right)
            | Expr::IsNotDistinctFrom(left, right) => {
                self.write_row(left);
                self.write_row(right);
            }
            _ => {}
        }
    }

    fn write_arguments(&mut self, function: &mut Function) {
        if !has_star(function) {
            return;
        }
        let name = match function.name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => fold(name),
            _ => String::new(),
        };
        let FunctionArguments::List(list) = &mut function.args else { return };
        let counts = name == "count" && list.duplicate_treatment.is_none();
        let mut arguments = Vec::with_capacity(list.args.len());
        for argument in std::mem::take(&mut list.args) {
            let written: Option<Vec<FunctionArgExpr>> = match argument_star(&argument) {
                Some(relation) if name == "row" => {
                    self.columns(relation).map(|columns| columns.into_iter().map(FunctionArgExpr::Expr).collect())
                }
                Some(relation) if counts && !may_be_missing(self.from, relation) => {
                    self.columns(relation).map(|_| vec![FunctionArgExpr::Wildcard])
                }
                Some(relation) => self.value(relation).map(|value| vec![FunctionArgExpr::Expr(value)]),
                None => None,
            };
            match written {
                Some(values) => arguments.extend(values.into_iter().map(FunctionArg::Unnamed)),
                None => arguments.push(argument),
            }
        }
        list.args = arguments;
    }

    fn write_row(&mut self, expr: &mut Expr) {
        if let Some(relation) = star(expr)
            && let Some(row) = self.row(relation)
        {
            *expr = row;
        }
    }

    fn write_value(&mut self, part: &mut Expr) {
        if let Expr::QualifiedWildcard(relation, _) = part
            && let Some(value) = self.value(relation)
        {
            *part = value;
        }
    }
}

fn name_of(relation: &ObjectName) -> Option<String> {
    relation.0.last()?.as_ident().map(fold)
}

/// Whether an outer join may have no row of a relation.
fn may_be_missing(from: &[TableWithJoins], relation: &ObjectName) -> bool {
    name_of(relation).is_some_and(|name| from.iter().find_map(|from| in_joins(from, &name)) == Some(true))
}

/// Whether a row of a relation may be missing among those that are joined; `None` if the relation is none of these.
fn in_joins(from: &TableWithJoins, wanted: &str) -> Option<bool> {
    let in_factor = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, alias: None } => in_joins(table_with_joins, wanted),
        factor => is_called(factor, wanted).then_some(false),
    };
    let mut found = in_factor(&from.relation);
    for join in &from.joins {
        let (left, right) = match join.join_operator {
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => (false, true),
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => (true, false),
            JoinOperator::FullOuter(_) => (true, true),
            _ => (false, false),
        };
        found = match found {
            Some(may_be_missing) => Some(may_be_missing || left),
            None => in_factor(&join.relation).map(|may_be_missing| may_be_missing || right),
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::{SetExpr, Statement};

    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    /// What the query selects from.
    fn from_of(sql: &str) -> Vec<TableWithJoins> {
        let ParsedStatement::Sql(statement) = parse_statement(sql).unwrap().statement else { panic!("{sql}") };
        let Statement::Query(query) = *statement else { panic!("{sql}") };
        let SetExpr::Select(select) = *query.body else { panic!("{sql}") };
        select.from
    }

    #[test]
    fn outer_joins_may_lack_rows() {
        for (from, missing) in [
            ("a JOIN b ON true", ""),
            ("a LEFT JOIN b ON true JOIN c ON true", "b"),
            ("a RIGHT JOIN b ON true", "a"),
            ("a JOIN b ON true FULL JOIN c ON true", "abc"),
            ("a LEFT JOIN (b JOIN c ON true) ON true, d", "bc"),
            ("s.a CROSS JOIN (c AS b LEFT JOIN b AS d ON true)", "d"),
        ] {
            let relations = from_of(&format!("SELECT 1 FROM {from}"));
            let is_missing =
                |name: &&str| may_be_missing(&relations, &ObjectName::from(vec![Ident::new((*name).to_owned())]));
            let found: String = ["a", "b", "c", "d"].into_iter().filter(is_missing).collect();
            assert_eq!(found, missing, "{from}");
        }
    }
}
