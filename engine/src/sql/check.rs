//! What a query may not say: the clauses DataFusion's planner would drop without a word, refused by name.
//!
//! Invariant: every node of a query that reaches the planner has been looked at here, and each of its fields has been
//! named: the structs are taken apart without `..`, so that a clause added to sqlparser does not compile until somebody
//! decided what to do with it. FETCH FIRST is rewritten to LIMIT on the way.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Cte, Expr, Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    LimitClause, Query, Select, SelectFlavor, SetExpr, Spanned, Statement, TableAlias, TableAliasColumnDef,
    TableFactor, TableFunctionArgs, UnaryOperator, Visit, VisitMut, Visitor, VisitorMut, With, visit_expressions,
};
use datafusion::sql::sqlparser::ast::{LockType, ObjectNamePart, Value, ValueWithSpan};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::size::check_size;
use crate::dml::syntax::{call, call_with, cast};
use crate::functions::like_escape::LIKE_ESCAPE;
use crate::functions::second_names::first_name;
use crate::sql::rules::limits::WITH_TIES;
use crate::sql::text::no_columns::{check_no_columns, check_subquery_columns};
use crate::sql::text::parse::{fold, place};
use crate::sql::tree::array_literals::open_elements;
use crate::sql::tree::calls;
use crate::sql::tree::cast_keys::tell_casts_apart;
use crate::sql::tree::copies::Copies;
use crate::sql::tree::date_words;
use crate::sql::tree::exponents;
use crate::sql::tree::first_results::tell_types;
use crate::sql::tree::grouping::group_as_planned;
use crate::sql::tree::lateral_joins::join_before_laterals;
use crate::sql::tree::like_lists::{like_each, match_each};
use crate::sql::tree::literal_scales;
use crate::sql::tree::literals::{at_time_zone, negate_as_a_whole, negate_before_powers, similar_to, spell_out};
use crate::sql::tree::merged_columns::merge_columns;
use crate::sql::tree::normal_forms;
use crate::sql::tree::recursive_constants::widen_first_terms;
use crate::sql::tree::recursive_terms::check_recursive_terms;
use crate::sql::tree::row_fields;
use crate::sql::tree::row_values::{compare_conditions, compare_parts};
use crate::sql::tree::select_lists::{
    Naming, check_order, check_sort_constants, check_subquery_names, distinct_by_places, name_select_list,
};
use crate::sql::tree::set_operations::{number_copies, type_constants, values_as_queries};
use crate::sql::tree::sets::{sets_in_from, sets_in_list};
use crate::sql::tree::time_digits::round_cast;
use crate::sql::tree::windows::{resolve_ordered_windows, resolve_windows};
use crate::{Error, Result};

/// Checks every query inside `node` and rewrites what has an equal form that DataFusion knows.
pub(crate) fn check_queries<N: Visit + VisitMut>(node: &mut N) -> Result<()> {
    check_queries_naming(node, Naming::AsWritten)
}

/// The same, with names for the columns of select lists as `naming` has them.
pub(crate) fn check_queries_naming<N: Visit + VisitMut>(node: &mut N, naming: Naming) -> Result<()> {
    check(node, QueryCheck { naming, is_inserted: false, copies: Copies::default() })
}

/// The same for the VALUES that an INSERT has: its rows take the types of the table's columns, each for itself.
pub(crate) fn check_inserted<N: Visit + VisitMut>(source: &mut N) -> Result<()> {
    check(source, QueryCheck { naming: Naming::AsWritten, is_inserted: true, copies: Copies::default() })
}

fn check<N: Visit + VisitMut>(node: &mut N, mut by: QueryCheck) -> Result<()> {
    check_size(node)?;
    match node.visit(&mut by) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Fails with 0A000 if `present`.
pub(crate) fn refuse(present: bool, what: &str) -> Result<()> {
    if present { Err(Error::unsupported(what)) } else { Ok(()) }
}

struct QueryCheck {
    naming: Naming,
    /// Whether the next query is what an INSERT inserts.
    is_inserted: bool,
    /// What rewrites may still write more than once.
    copies: Copies,
}

impl VisitorMut for QueryCheck {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if !std::mem::take(&mut self.is_inserted) {
            type_constants(&mut query.body);
        }
        flow(check_query(query, &mut self.copies))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        flow(check_subquery_names(select))?;
        flow(merge_columns(select, None))?;
        flow(distinct_by_places(select, &mut self.copies))?;
        tell_casts_apart(select, None);
        flow(group_as_planned(select, &mut self.copies))?;
        name_select_list(select, self.naming);
        sets_in_list(select);
        flow(sets_in_from(select, &mut self.copies))?;
        join_before_laterals(select);
        name_function_columns(select);
        for condition in select.selection.iter_mut().chain(&mut select.having) {
            flow(compare_conditions(condition))?;
        }
        flow(resolve_windows(select, &mut self.copies).and_then(|()| check_select(select)))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        flow(check_subquery_columns(expr))?;
        call_session_words(expr);
        flow(list_array(expr))?;
        any_as_not_all(expr);
        flow(spell_out(expr))?;
        negate_as_a_whole(expr);
        negate_before_powers(expr);
        similar_to(expr);
        flow(at_time_zone(expr))?;
        flow(like_each(expr).and_then(|()| match_each(expr)))?;
        escape_pattern(expr);
        date_words::rewrite(expr);
        round_cast(expr);
        exponents::write_out(expr);
        tell_types(expr);
        normal_forms::rewrite(expr);
        row_fields::rewrite(expr);
        flow(literal_scales::rewrite(expr))?;
        flow(calls::rewrite(expr, &mut self.copies))?;
        flow(compare_parts(expr, &mut self.copies))?;
        flow(self.copies.enter(expr))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.copies.leave(expr);
        call_by_first_name(expr);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let span = factor.span();
        flow(check_table_factor(factor).map_err(|error| error.at(place(span))))
    }

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<Error> {
        // A statement inside a query: WITH x AS (DELETE …) SELECT …
        match statement {
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => {
                ControlFlow::Break(Error::unsupported("a statement that changes data inside a query"))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn flow(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

fn check_query(query: &mut Query, copies: &mut Copies) -> Result<()> {
    let Query { with, body, order_by, limit_clause, fetch, locks, for_clause, settings, format_clause, pipe_operators } =
        query;
    if let Some(with) = with.as_mut() {
        check_recursive_terms(with)?;
        widen_first_terms(with)?;
    }
    if let Some(With { with_token: _, recursive: _, cte_tables }) = with {
        for Cte { alias, query: _, from, materialized: _, closing_paren_token: _ } in cte_tables {
            check_alias(Some(alias))?;
            refuse(from.is_some(), "FROM after a common table expression")?;
        }
    }
    if let Some(lock) = locks.first() {
        let strength = match lock.lock_type {
            LockType::Share => "SHARE",
            LockType::Update => "UPDATE",
        };
        return Err(Error::unsupported(format!("SELECT … FOR {strength} inside another query or statement"))
            .with_hint("Lock the rows with a SELECT of its own first."));
    }
    refuse(for_clause.is_some(), "a FOR XML, JSON or BROWSE clause")?;
    refuse(settings.is_some(), "a SETTINGS clause")?;
    refuse(format_clause.is_some(), "a FORMAT clause")?;
    refuse(!pipe_operators.is_empty(), "the pipe operator |>")?;
    if let Some(order_by) = order_by {
        refuse(order_by.interpolate.is_some(), "ORDER BY … INTERPOLATE")?;
        check_sort_constants(order_by)?;
    }
    match limit_clause {
        Some(LimitClause::LimitOffset { limit: _, offset: _, limit_by }) => refuse(!limit_by.is_empty(), "LIMIT … BY")?,
        Some(LimitClause::OffsetCommaLimit { offset: _, limit: _ }) | None => {}
    }
    if let Some(fetch) = fetch.take() {
        *limit_clause = Some(fetch_as_limit(fetch, limit_clause.take())?);
    }
    if let SetExpr::Select(select) = body.as_mut() {
        merge_columns(select, order_by.as_mut())?;
        if let Some(order_by) = order_by {
            check_order(select, order_by)?;
            resolve_ordered_windows(select, order_by, copies)?;
        }
        tell_casts_apart(select, order_by.as_mut());
    }
    values_as_queries(body)?;
    number_copies(body)?;
    match body.as_ref() {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::SetOperation { .. } | SetExpr::Values(_) => Ok(()),
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            Err(Error::unsupported("a statement that changes data inside a query"))
        }
        SetExpr::Table(_) => Err(Error::unsupported("TABLE as a query here").with_hint("Write SELECT * FROM …")),
    }
}

/// `x = ANY (ARRAY[a, b])` is `x IN (a, b)`, and `x <> ALL (ARRAY[a, b])` is `x NOT IN (a, b)`; likewise of `'{a,b}'` and of
/// a query. Of other arrays it is asked [whether they have `x`](crate::functions::any_element).
fn list_array(expr: &mut Expr) -> Result<()> {
    let (left, right, negated) = match expr {
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, is_some: _ } => (left, right, false),
        Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => (left, right, true),
        _ => return Ok(()),
    };
    let mut array = right.as_mut();
    while let Expr::Nested(inner) = array {
        array = inner.as_mut();
    }
    let expr_in = Box::new(Expr::Nested(left.clone()));
    if let Expr::Subquery(query) = array {
        // IN wants nothing correlated on its left.
        if holds_query(left) {
            return Ok(());
        }
        *expr = Expr::InSubquery { expr: expr_in, subquery: query.clone(), negated };
    } else if let Some(list) = open_elements(array)? {
        *expr = match list.is_empty() {
            true => in_nothing(expr_in, negated),
            false => Expr::InList { expr: expr_in, list, negated },
        };
    } else if let Expr::Array(array) = array
        && !array.elem.is_empty()
        && !array.elem.iter().any(|element| matches!(element, Expr::Array(_)))
    {
        let list = std::mem::take(&mut array.elem);
        *expr = Expr::InList { expr: expr_in, list, negated };
    }
    Ok(())
}

/// Whether a value is one of none, or not: known also of a NULL.
fn in_nothing(value: Box<Expr>, negated: bool) -> Expr {
    let op = if negated { BinaryOperator::Or } else { BinaryOperator::And };
    let known = Box::new(Expr::value(Value::Boolean(negated)));
    Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(Expr::IsNull(value)), op, right: known }))
}

/// `x > ANY (array)` is `NOT x <= ALL (array)`. DataFusion compares with the least or greatest element and passes over
/// NULLs; of ALL it knows what they do.
fn any_as_not_all(expr: &mut Expr) {
    let Expr::AnyOp { left, compare_op, right, is_some: _ } = expr else { return };
    let opposite = match compare_op {
        BinaryOperator::Lt => BinaryOperator::GtEq,
        BinaryOperator::LtEq => BinaryOperator::Gt,
        BinaryOperator::Gt => BinaryOperator::LtEq,
        BinaryOperator::GtEq => BinaryOperator::Lt,
        BinaryOperator::NotEq => BinaryOperator::Eq,
        _ => return,
    };
    if is_subquery(right) {
        return;
    }
    let taken = |part: &mut Expr| Box::new(std::mem::replace(part, Expr::value(Value::Null)));
    let left = Box::new(Expr::Nested(taken(left.as_mut())));
    let all = Expr::AllOp { left, compare_op: opposite, right: taken(right.as_mut()) };
    let none = Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(all))) };
    *expr = Expr::Nested(Box::new(none));
}

fn holds_query(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |part| match part {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

fn is_subquery(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_subquery(inner),
        other => matches!(other, Expr::Subquery(_)),
    }
}

/// A function in FROM that gives one column names it like its alias: `FROM generate_series(1, 3) AS n`. DataFusion calls
/// it `value`; the alias is given to it where the query speaks of it.
fn name_function_columns(select: &mut Select) {
    let mut names = Vec::new();
    for factor in select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
    {
        if let Some(alias) = function_alias(factor) {
            names.push(fold(alias));
        }
    }
    if names.is_empty() {
        return;
    }
    struct Finder<'a> {
        names: &'a [String],
        used: Vec<String>,
    }
    impl Visitor for Finder<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Identifier(ident) = expr
                && self.names.contains(&fold(ident))
            {
                self.used.push(fold(ident));
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder { names: &names, used: Vec::new() };
    let _ = Visit::visit(&*select, &mut finder);
    let used = finder.used;
    for from in &mut select.from {
        for factor in std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation)) {
            if let Some(name) = function_alias(factor).filter(|alias| used.contains(&fold(alias))).cloned()
                && let TableFactor::Table { alias, .. } | TableFactor::Function { alias, .. } = factor
            {
                let columns = vec![TableAliasColumnDef { name: name.clone(), data_type: None }];
                *alias = Some(TableAlias { explicit: true, name, columns, at: None });
            }
        }
    }
}

/// The alias of a function in FROM that names no columns, or its own name.
fn function_alias(factor: &TableFactor) -> Option<&Ident> {
    match factor {
        TableFactor::Table { alias: None, args: Some(_), name, .. } => match name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => Some(ident),
            _ => None,
        },
        TableFactor::Table { alias: Some(alias), args: Some(_), .. }
        | TableFactor::Function { alias: Some(alias), .. }
            if alias.columns.is_empty() =>
        {
            Some(&alias.name)
        }
        _ => None,
    }
}

/// `mod(a, b)` is `a % b`.
fn as_modulo(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let [ObjectNamePart::Identifier(ident)] = function.name.0.as_slice() else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(left)), FunctionArg::Unnamed(FunctionArgExpr::Expr(right))] =
        list.args.as_slice()
    else {
        return None;
    };
    let nested = |expr: &Expr| Box::new(Expr::Nested(Box::new(expr.clone())));
    (fold(ident) == "mod").then(|| {
        let modulo = Expr::BinaryOp { left: nested(left), op: BinaryOperator::Modulo, right: nested(right) };
        Expr::Nested(Box::new(modulo))
    })
}

/// `length(x)` is `character_length(x)`: see [`crate::functions::second_names`]. No other rewrite looks at the name after this.
fn call_by_first_name(expr: &mut Expr) {
    if let Expr::Function(function) = expr
        && let [ObjectNamePart::Identifier(ident)] = function.name.0.as_mut_slice()
        && let Some(first) = first_name(&fold(ident))
    {
        ident.value = first.to_owned();
    }
}

/// Words that are functions without parentheses.
const SESSION_WORDS: [&str; 8] = [
    "current_user",
    "session_user",
    "current_role",
    "current_catalog",
    "current_schema",
    "current_time",
    "localtimestamp",
    "localtime",
];

fn call_session_words(expr: &mut Expr) {
    let word = match expr {
        Expr::Identifier(ident) => Some(ident.clone()),
        // The parser knows some of these words as functions without arguments.
        Expr::Function(function) if matches!(function.args, FunctionArguments::None) => {
            match function.name.0.as_slice() {
                [ObjectNamePart::Identifier(ident)] => Some(ident.clone()),
                _ => None,
            }
        }
        Expr::Function(function) => {
            if let Some(modulo) = as_modulo(function) {
                *expr = modulo;
            }
            return;
        }
        _ => None,
    };
    if let Some(ident) = word
        && ident.quote_style.is_none()
        && let Some(word) = SESSION_WORDS.iter().find(|word| ident.value.eq_ignore_ascii_case(word))
    {
        *expr = match *word {
            // DataFusion's own current_time is of nanoseconds, which is another type than `time`.
            "localtimestamp" | "localtime" | "current_time" => {
                let data_type = if *word == "localtimestamp" { "timestamp" } else { "time" };
                cast(call("now", ident.span), data_type).unwrap_or_else(|_| call(word, ident.span))
            }
            word => call(word, ident.span),
        };
    }
}

/// `LIKE pattern ESCAPE e` is `LIKE like_escape(pattern, e)`. A pattern that ends with a backslash is one, too: that function
/// refuses it, where the operators take the backslash for itself.
fn escape_pattern(expr: &mut Expr) {
    let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expr else { return };
    let escape = match escape_char.take() {
        Some(escape) => Expr::Value(escape),
        None if ends_with_escape(pattern) => Expr::value(Value::SingleQuotedString("\\".to_owned())),
        None => return,
    };
    let arguments = vec![pattern.as_ref().clone(), escape];
    **pattern = call_with(LIKE_ESCAPE, arguments, Span::empty());
}

pub(in crate::sql) fn ends_with_escape(pattern: &Expr) -> bool {
    match pattern {
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text),
            ..
        }) => text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1,
        _ => false,
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
fn fetch_as_limit(fetch: Fetch, limit_clause: Option<LimitClause>) -> Result<LimitClause> {
    let Fetch { with_ties, percent, quantity } = fetch;
    refuse(percent, "FETCH … PERCENT")?;
    let one = || Expr::Value(ValueWithSpan { value: Value::Number("1".to_owned(), false), span: Span::empty() });
    let rows = quantity.unwrap_or_else(one);
    let limit = Some(if with_ties { call_with(WITH_TIES, vec![rows], Span::empty()) } else { rows });
    match limit_clause {
        None => Ok(LimitClause::LimitOffset { limit, offset: None, limit_by: Vec::new() }),
        Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) => {
            Ok(LimitClause::LimitOffset { limit, offset, limit_by })
        }
        Some(_) => Err(Error::syntax("a query takes either LIMIT or FETCH, not both")),
    }
}

fn check_select(select: &Select) -> Result<()> {
    let Select {
        select_token: _,
        // Hints are comments; ignoring them is what they are for.
        optimizer_hints: _,
        distinct: _,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection: _,
        exclude,
        into,
        from: _,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having: _,
        named_window: _,
        qualify: _,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    let at = |result: Result<()>| result.map_err(|error| error.at(place(select.select_token.0.span)));
    at(check_no_columns(select))?;
    at(refuse(select_modifiers.is_some(), "a modifier after SELECT"))?;
    at(refuse(top.is_some(), "SELECT TOP"))?;
    at(refuse(exclude.is_some(), "EXCLUDE after the select list"))?;
    at(match into {
        Some(_) => Err(Error::unsupported("SELECT INTO").with_hint("Use CREATE TABLE … AS SELECT.")),
        None => Ok(()),
    })?;
    at(refuse(!lateral_views.is_empty(), "LATERAL VIEW"))?;
    at(refuse(prewhere.is_some(), "PREWHERE"))?;
    at(refuse(!connect_by.is_empty(), "CONNECT BY"))?;
    at(refuse(!cluster_by.is_empty(), "CLUSTER BY"))?;
    at(refuse(!distribute_by.is_empty(), "DISTRIBUTE BY"))?;
    at(refuse(!sort_by.is_empty(), "SORT BY"))?;
    at(refuse(value_table_mode.is_some(), "SELECT AS VALUE or STRUCT"))?;
    at(match flavor {
        SelectFlavor::Standard => Ok(()),
        SelectFlavor::FromFirst | SelectFlavor::FromFirstNoSelect => Err(Error::unsupported("FROM before SELECT")),
    })?;
    match group_by {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => {
            at(refuse(!modifiers.is_empty(), "GROUP BY … WITH ROLLUP, CUBE or TOTALS"))
                .map_err(|error| error.with_hint("Write GROUP BY ROLLUP (…), CUBE (…) or GROUPING SETS (…)."))
        }
    }
}

fn check_table_factor(factor: &TableFactor) -> Result<()> {
    match factor {
        TableFactor::Table {
            name: _,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            check_alias(alias.as_ref())?;
            if let Some(TableFunctionArgs { args: _, settings }) = args {
                refuse(settings.is_some(), "SETTINGS of a table function")?;
            }
            refuse(!with_hints.is_empty(), "a table hint")?;
            refuse(version.is_some(), "a table's version (FOR SYSTEM_TIME, AT)")?;
            refuse(*with_ordinality, "WITH ORDINALITY")?;
            refuse(!partitions.is_empty(), "PARTITION after a table's name")?;
            refuse(json_path.is_some(), "a path after a table's name")?;
            refuse(sample.is_some(), "TABLESAMPLE")?;
            refuse(!index_hints.is_empty(), "an index hint")
        }
        TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
            check_alias(alias.as_ref())?;
            refuse(sample.is_some(), "TABLESAMPLE")
        }
        TableFactor::Function { lateral: _, name: _, args: _, with_ordinality, alias } => {
            check_alias(alias.as_ref())?;
            refuse(*with_ordinality, "WITH ORDINALITY")
        }
        TableFactor::UNNEST { alias, array_exprs: _, with_offset, with_offset_alias, with_ordinality } => {
            check_alias(alias.as_ref())?;
            refuse(*with_offset || with_offset_alias.is_some(), "UNNEST … WITH OFFSET")?;
            refuse(*with_ordinality, "WITH ORDINALITY")
        }
        TableFactor::NestedJoin { table_with_joins: _, alias } => check_alias(alias.as_ref()),
        TableFactor::TableFunction { .. } => Err(Error::unsupported("TABLE(…)")),
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } => Err(Error::unsupported("JSON_TABLE")),
        TableFactor::Pivot { .. } => Err(Error::unsupported("PIVOT")),
        TableFactor::Unpivot { .. } => Err(Error::unsupported("UNPIVOT")),
        TableFactor::MatchRecognize { .. } => Err(Error::unsupported("MATCH_RECOGNIZE")),
        TableFactor::XmlTable { .. } => Err(Error::unsupported("XMLTABLE")),
        TableFactor::SemanticView { .. } => Err(Error::unsupported("SEMANTIC_VIEW")),
    }
}

fn check_alias(alias: Option<&TableAlias>) -> Result<()> {
    match alias {
        Some(TableAlias { explicit: _, name: _, columns, at }) => {
            refuse(columns.iter().any(|column| column.data_type.is_some()), "a type in a list of column aliases")?;
            refuse(at.is_some(), "AT after a table's alias")
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn check(sql: &str) -> Result<String> {
        let ParsedStatement::Sql(mut statement) = parse_statement(sql)?.statement else { panic!("not a COPY") };
        let Statement::Query(query) = statement.as_mut() else { panic!("a query") };
        check_queries(query)?;
        Ok(query.to_string())
    }

    #[test]
    fn clauses_the_planner_would_drop_are_refused_by_name() {
        for (sql, name) in [
            ("select * from t for update", "FOR UPDATE"),
            ("select * from (select * from t for share) s", "FOR SHARE"),
            ("select 1 where exists (select 1 from t tablesample system (10))", "TABLESAMPLE"),
            ("select * into s from t", "SELECT INTO"),
            ("with d as (delete from t returning a) select * from d", "changes data"),
        ] {
            let error = check(sql).unwrap_err();
            assert_eq!(error.sqlstate(), "0A000", "{sql}");
            assert!(error.message().contains(name), "{sql}: {error}");
        }
    }

    #[test]
    fn fetch_first_becomes_limit() {
        assert_eq!(check("select a from t offset 2 fetch first row only").unwrap(), "SELECT a FROM t LIMIT 1 OFFSET 2");
    }
}
