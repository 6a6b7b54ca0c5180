//! SELECT without columns, which PostgreSQL has: its rows are counted, or looked for, and have nothing in them.
//!
//! | written | parsed |
//! |---|---|
//! | `SELECT FROM t` | the same |
//! | `SELECT`, `SELECT WHERE a` | `SELECT FROM (VALUES (1)) AS "nothing"`, `SELECT FROM (VALUES (1)) AS "nothing" WHERE a` |
//!
//! After a list without columns the parser takes any word for the name of a table, and DISTINCT for a word like any other.

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArguments, ObjectNamePart, Query, Select, SelectItem, SetExpr, Spanned,
    TableFactor, TableWithJoins,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::parse::place;
use crate::{Error, Result};

/// Words that begin what comes after a select list and after FROM.
const CLAUSES: [Keyword; 12] = [
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::WINDOW,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::OFFSET,
    Keyword::FETCH,
    Keyword::FOR,
    Keyword::UNION,
    Keyword::EXCEPT,
    Keyword::INTERSECT,
];

/// Gives a SELECT of nothing from nothing the one row that it has.
pub(in crate::sql) fn from_one_row(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut places = Vec::new();
    // Behind a point it is the name of a column.
    let (mut after_select, mut after_point) = (false, false);
    for (index, token) in tokens.iter().enumerate() {
        if matches!(token.token, Token::Whitespace(_)) {
            continue;
        }
        if after_select && ends_list(&token.token) {
            places.push(index);
        }
        after_select = !after_point && keyword(&token.token) == Keyword::SELECT;
        after_point = token.token == Token::Period;
    }
    if after_select {
        places.push(tokens.len());
    }
    let Some(span) = tokens.last().map(|token| token.span).filter(|_| !places.is_empty()) else { return tokens };
    let word = Token::make_keyword;
    let rows = [
        word("FROM"),
        Token::LParen,
        word("VALUES"),
        Token::LParen,
        Token::Number("1".to_owned(), false),
        Token::RParen,
        Token::RParen,
        word("AS"),
        Token::make_word("nothing", Some('"')),
    ];
    let mut rewritten = Vec::with_capacity(tokens.len() + places.len() * rows.len());
    let mut places = places.into_iter().peekable();
    for (index, token) in tokens.into_iter().enumerate() {
        if places.next_if_eq(&index).is_some() {
            rewritten.extend(rows.iter().map(|row| TokenWithSpan::new(row.clone(), token.span)));
        }
        rewritten.push(token);
    }
    if places.next().is_some() {
        rewritten.extend(rows.map(|row| TokenWithSpan::new(row, span)));
    }
    rewritten
}

fn ends_list(token: &Token) -> bool {
    matches!(token, Token::RParen | Token::SemiColon | Token::EOF) || CLAUSES.contains(&keyword(token))
}

fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// Refuses what is no SELECT without columns, though the parser takes it for one.
pub(in crate::sql) fn check_no_columns(select: &Select) -> Result<()> {
    if !select.projection.is_empty() {
        return Ok(());
    }
    if matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))) {
        return Err(Error::syntax("SELECT DISTINCT takes a list of columns"));
    }
    let Some(TableFactor::Table { name, .. }) = select.from.first().map(|from| &from.relation) else { return Ok(()) };
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] if ident.quote_style.is_none() && is_clause(&ident.value) => {
            Err(Error::syntax(format!("syntax error at \"{}\": expected a table", ident.value)).at(place(name.span())))
        }
        _ => Ok(()),
    }
}

/// Refuses a subquery without columns that stands for a value, of which the planner takes the first column.
pub(in crate::sql) fn check_subquery_columns(expr: &Expr) -> Result<()> {
    match subquery_of_values(expr).filter(|query| has_no_columns(&query.body)) {
        Some(query) => Err(without_value(query)),
        None => Ok(()),
    }
}

/// The subquery in an expression that takes values from its first column: `(SELECT …)`, `IN (SELECT …)`, `ARRAY(SELECT …)`.
pub(in crate::sql) fn subquery_of_values(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::Subquery(query) | Expr::InSubquery { subquery: query, .. } => Some(query),
        Expr::Function(Function { args: FunctionArguments::Subquery(query), .. }) => Some(query),
        _ => None,
    }
}

/// The error for one that has no column.
pub(in crate::sql) fn without_value(query: &Query) -> Error {
    Error::syntax("a subquery that stands for a value must return a column").at(place(query.span()))
}

/// Whether a query has no columns, as far as its text says.
fn has_no_columns(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            let is_star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_));
            select.projection.is_empty()
                || select.projection.iter().all(is_star)
                    && !select.from.is_empty()
                    && select.from.iter().all(joins_no_columns)
        }
        SetExpr::Query(query) => has_no_columns(&query.body),
        SetExpr::SetOperation { left, .. } => has_no_columns(left),
        _ => false,
    }
}

fn joins_no_columns(from: &TableWithJoins) -> bool {
    let mut relations = std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation));
    relations.all(|relation| match relation {
        TableFactor::Derived { subquery, .. } => has_no_columns(&subquery.body),
        _ => false,
    })
}

/// Whether a word begins a clause.
fn is_clause(word: &str) -> bool {
    CLAUSES.contains(&keyword(&Token::make_word(word, None)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::tokenize;

    fn rewritten(sql: &str) -> String {
        let tokens = from_one_row(tokenize(sql).unwrap());
        let text: String = tokens.iter().map(|token| format!("{} ", token.token)).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_selects_nothing_has_one_row() {
        let row = "FROM ( VALUES ( 1 ) ) AS \"nothing\"";
        for (sql, expected) in [
            ("select", format!("select {row}")),
            ("select where a;", format!("select {row} where a ;")),
            ("(select) union select", format!("( select {row} ) union select {row}")),
            ("select from t", "select from t".to_owned()),
            ("select a where b", "select a where b".to_owned()),
            ("grant select on t", "grant select on t".to_owned()),
            ("select a from t order by t.select", "select a from t order by t . select".to_owned()),
        ] {
            assert_eq!(rewritten(sql), expected, "{sql}");
        }
    }

    #[test]
    fn values_have_a_column() {
        let check = |sql: &str| check_subquery_columns(&crate::sql::text::parse::parse_expression(sql).unwrap());
        for sql in
            ["(SELECT FROM t)", "1 IN (SELECT FROM t UNION SELECT FROM t)", "(SELECT * FROM (SELECT FROM t) AS x)"]
        {
            assert_eq!(check(sql).unwrap_err().sqlstate(), "42601", "{sql}");
        }
        for sql in ["(SELECT 1)", "EXISTS (SELECT FROM t)", "(SELECT * FROM t)", "(SELECT a FROM (SELECT FROM t) AS x)"]
        {
            assert!(check(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn clauses_are_no_tables() {
        assert!(is_clause("Where") && is_clause("union"));
        assert!(!is_clause("t") && !is_clause("as"));
    }
}
