//! One statement's text to its syntax tree.
//!
//! The grammar is sqlparser's PostgreSQL with a few friendly additions of the analytical systems (`* EXCLUDE`, `?`
//! parameters). COPY has a grammar of its own ([`crate::sql::grammar::copy`]) because PostgreSQL's and DataFusion's spellings
//! are both understood, and so have transactions ([`crate::sql::grammar::transaction`]), users ([`crate::sql::grammar::user`]),
//! routines ([`crate::sql::grammar::routine`]) and what looks after the store ([`crate::sql::grammar::maintenance`]).
//!
//! Invariants: no tree is built that is too deep to be walked and dropped on any thread ([`super::depth`]); after
//! parsing, parameters are always `$1 … $n`; a statement uses `?` or `$n`, never both.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::{
    ColumnOption, Expr, KeyOrIndexDisplay, NullsDistinctOption, ObjectName, ObjectNamePart, Statement, UniqueConstraint,
};
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer, Whitespace};

use super::depth::check_depth;
use super::idle_words::without_idle_words;
use super::late_conditions::joins_in_parentheses;
use super::no_columns::from_one_row;
use super::refused_forms::rewrite_refused;
use super::tail_forms::rewrite_tails;
use super::token_forms::{fields_by_name, named_by_arrows, operators_apart, values_as_subqueries};
use crate::dml::syntax::call_with;
use crate::error::translate_position as position_of;
use crate::sql::grammar::copy::{CopySource, CopyStatement, parse_copy};
use crate::sql::grammar::definition::{check_option, tables_as_queries};
use crate::sql::grammar::insert::rewrite_inserts;
use crate::sql::grammar::lock::rewrite_locks;
use crate::sql::grammar::maintenance::{MaintenanceStatement, parse_maintenance};
use crate::sql::grammar::named::{NamedStatement, parse_named};
use crate::sql::grammar::routine::{RoutineSyntax, parse_routine};
use crate::sql::grammar::statements::{next_words_are, ordered_identity_options, parse_own};
use crate::sql::grammar::transaction::{TransactionStatement, parse_transaction};
use crate::sql::grammar::user::{UserStatement, parse_user_statement};
use crate::sql::route::{Write, route_create_view};
use crate::sql::tree::balance::balance;
use crate::sql::tree::calls::SYMMETRIC;
use crate::sql::tree::join_aliases::{qualify_merged, resolve_join_aliases};
use crate::{Error, Position, Result, error::sqlstate};

/// How deep expressions and subqueries may nest. The parser grows its stack as needed, so that this bounds memory.
const RECURSION_LIMIT: usize = 128;

/// The largest parameter number. Bounds what `$4000000000` makes us allocate.
const MAX_PARAMETERS: usize = 65_535;

/// A statement that is syntactically right.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) statement: ParsedStatement,
    /// How many parameters it takes: the largest n of its `$n`.
    pub(crate) parameters: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum ParsedStatement {
    Sql(Box<Statement>),
    Copy(Box<CopyStatement>),
    Transaction(TransactionStatement),
    Named(NamedStatement),
    User(UserStatement),
    Maintenance(MaintenanceStatement),
    /// About functions and procedures.
    Routine(RoutineSyntax),
    /// What sqlparser has no grammar for.
    Own(Box<Write>),
}

/// Parses exactly one statement; a trailing semicolon is fine.
pub(crate) fn parse_statement(sql: &str) -> Result<Parsed> {
    let dialect = RustyDialect;
    let mut tokens = tokenize(sql)?;
    check_numbers(&tokens)?;
    let mut parameters = number_parameters(&mut tokens)?;
    let (tokens, has_join_aliases) = qualify_merged(joins_in_parentheses(from_one_row(without_idle_words(tokens))));
    let tokens = tables_as_queries(rewrite_inserts(ordered_identity_options(rewrite_locks(merge_nothing(
        doubles_from_exponents(subqueries_in_lists(rewrite_refused(joined_strings(operators_apart(
            values_as_subqueries(fields_by_name(named_by_arrows(rewrite_tails(tokens)))),
        ))))),
    )))));
    check_depth(&tokens)?;
    let first = tokens.iter().find(|token| !matches!(token.token, Token::Whitespace(_) | Token::SemiColon));
    let Some(first) = first else {
        return Err(Error::syntax("the statement is empty"));
    };
    let first_keyword = match &first.token {
        Token::Word(word) => Some(word.keyword),
        _ => None,
    };
    let is_copy = first_keyword == Some(Keyword::COPY);
    let mut parser = Parser::new(&dialect).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens);
    while parser.consume_token(&Token::SemiColon) {}
    let mut statement = if is_copy {
        let mut copy = parse_copy(&mut parser)?;
        if let CopySource::Query(query) = &mut copy.source {
            balance(query);
        }
        ParsedStatement::Copy(Box::new(copy))
    } else if let Some(transaction) = parse_transaction(&mut parser)? {
        ParsedStatement::Transaction(transaction)
    } else if let Some(named) = parse_named(&mut parser, sql)? {
        if matches!(named, NamedStatement::Prepare { .. }) {
            // The parameters are those of the statement inside.
            parameters = 0;
        }
        ParsedStatement::Named(named)
    } else if let Some(user) = parse_user_statement(&mut parser)? {
        ParsedStatement::User(user)
    } else if let Some(maintenance) = parse_maintenance(&mut parser)? {
        ParsedStatement::Maintenance(maintenance)
    } else if let Some(routine) = parse_routine(&mut parser)? {
        ParsedStatement::Routine(routine)
    } else if let Some(statement) = parse_own(&mut parser)? {
        ParsedStatement::Own(Box::new(statement))
    } else {
        let mut statement = parser.parse_statement().map_err(|error| place_found(error.into(), sql))?;
        balance(&mut statement);
        match statement {
            Statement::CreateView(view) if next_words_are(&parser, &["with"]) => {
                let mut view = route_create_view(view)?;
                view.check = Some(check_option(&mut parser)?);
                ParsedStatement::Own(Box::new(Write::CreateView(Box::new(view))))
            }
            statement => ParsedStatement::Sql(Box::new(statement)),
        }
    };
    if has_join_aliases {
        resolve_join_aliases(&mut statement);
    }
    let mut ended = false;
    while parser.consume_token(&Token::SemiColon) {
        ended = true;
    }
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(Parsed { statement, parameters }),
        _ if ended => Err(Error::syntax("one statement at a time: there is text after the semicolon")
            .with_hint("Send the statements one by one, or run a script with the shell.")
            .at(position_of(next.span.start))),
        token => Err(Error::syntax(format!("syntax error at \"{token}\": expected the end of the statement"))
            .at(position_of(next.span.start))),
    }
}

/// Parses a single expression, such as a stored column default.
pub(crate) fn parse_expression(sql: &str) -> Result<datafusion::sql::sqlparser::ast::Expr> {
    let tokens = operators_apart(named_by_arrows(tokenize(sql)?));
    check_numbers(&tokens)?;
    check_depth(&tokens)?;
    let mut parser =
        Parser::new(&RustyDialect).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens);
    let mut expr = parser.parse_expr()?;
    balance(&mut expr);
    Ok(expr)
}

/// A relation's name in a text, as `nextval('schema.name')` has it.
pub(crate) fn relation_name(text: &str) -> Result<(Option<String>, String)> {
    let mut parser = Parser::new(&RustyDialect).with_tokens_with_locations(tokenize(text)?);
    table_name(&parser.parse_object_name(false)?)
}

pub(crate) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>> {
    // The tokenizer takes it for the end of the text.
    if sql.contains('\0') {
        return Err(Error::syntax("a statement cannot contain the character NUL"));
    }
    let mut tokens = Tokenizer::new(&RustyDialect, sql).tokenize_with_location()?;
    for token in &mut tokens {
        // `U&'…'`, whose escapes the tokenizer has read.
        if let Token::UnicodeStringLiteral(text) = &mut token.token {
            if text.contains('\0') {
                return Err(Error::syntax("invalid Unicode escape value").at(position_of(token.span.start)));
            }
            let text = std::mem::take(text);
            token.token = Token::SingleQuotedString(text);
        }
    }
    Ok(tokens)
}

/// Refuses letters directly after the digits of a number, as in `0b11`: the tokenizer takes them for the next word,
/// which would be a column's name in `SELECT 0b11`.
fn check_numbers(tokens: &[TokenWithSpan]) -> Result<()> {
    for (index, token) in tokens.iter().enumerate() {
        let number = match &token.token {
            Token::Number(digits, false) => match tokens.get(index + 1).map(|next| &next.token) {
                Some(Token::Word(word)) if word.quote_style.is_none() => {
                    digits.chars().chain(word.value.chars().take(1)).collect::<String>()
                }
                _ => continue,
            },
            Token::Number(digits, true) => format!("{digits}L"),
            // Not `x'1f'`, which is one letter longer.
            Token::HexStringLiteral(digits) => {
                let (start, end) = (token.span.start, token.span.end);
                let letters = u64::try_from(digits.chars().count()).unwrap_or(u64::MAX);
                if start.line != end.line || end.column.saturating_sub(start.column) > letters.saturating_add(2) {
                    continue;
                }
                "0x".to_owned()
            }
            _ => continue,
        };
        let message = format!("trailing junk after numeric literal at or near \"{number}\"");
        return Err(Error::syntax(message).at(position_of(token.span.start)));
    }
    Ok(())
}

/// Makes one constant of string constants that only white space with a line break stands between.
fn joined_strings(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_string = |token: &TokenWithSpan| matches!(token.token, Token::SingleQuotedString(_));
    if tokens.iter().filter(|token| is_string(token)).count() < 2 {
        return tokens;
    }
    let mut joined: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        if let Token::SingleQuotedString(text) = &token.token {
            let blank = |token: &&TokenWithSpan| matches!(token.token, Token::Whitespace(_));
            let end = joined.len() - joined.iter().rev().take_while(blank).count();
            let (before, between) = joined.split_at_mut(end);
            let breaks = between.iter().any(|token| match &token.token {
                Token::Whitespace(Whitespace::Newline) => true,
                Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => comment.ends_with('\n'),
                _ => false,
            });
            if breaks && let Some(TokenWithSpan { token: Token::SingleQuotedString(first), .. }) = before.last_mut() {
                first.push_str(text);
                joined.truncate(end);
                continue;
            }
        }
        joined.push(token);
    }
    joined
}

/// Rewrites `1.5e300` to `CAST('1.5e300' AS DOUBLE PRECISION)`. Literals are exact decimals, and those with an exponent
/// mostly have no place among them.
fn doubles_from_exponents(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut rewritten = Vec::with_capacity(tokens.len());
    for token in tokens {
        match &token.token {
            Token::Number(digits, _) if digits.contains(['e', 'E']) => {
                let keyword = Token::make_keyword;
                let text = Token::SingleQuotedString(digits.clone());
                let type_name = [keyword("DOUBLE"), keyword("PRECISION"), Token::RParen];
                let cast = [keyword("CAST"), Token::LParen, text, keyword("AS")].into_iter().chain(type_name);
                rewritten.extend(cast.map(|part| TokenWithSpan::new(part, token.span)));
            }
            _ => rewritten.push(token),
        }
    }
    rewritten
}

/// Rewrites `IN ((SELECT …), 5)` to `IN (coalesce((SELECT …)), 5)`: the parser takes what a subquery begins for one.
fn subqueries_in_lists(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_word = |token: &Token, wanted: &[Keyword]| match token {
        Token::Word(word) => word.quote_style.is_none() && wanted.contains(&word.keyword),
        _ => false,
    };
    if !tokens.iter().any(|token| is_word(&token.token, &[Keyword::IN])) {
        return tokens;
    }
    let written: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    // The parentheses around such subqueries.
    let mut wrapped: Vec<(usize, usize)> = Vec::new();
    for window in written.windows(4).enumerate().filter_map(|(place, window)| match window {
        [word, list, subquery, select]
            if is_word(&tokens[*word].token, &[Keyword::IN])
                && tokens[*list].token == Token::LParen
                && tokens[*subquery].token == Token::LParen
                && is_word(&tokens[*select].token, &[Keyword::SELECT, Keyword::WITH, Keyword::VALUES]) =>
        {
            Some(place + 2)
        }
        _ => None,
    }) {
        let mut depth = 0;
        let closing = written[window..].iter().position(|index| {
            match tokens[*index].token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let Some(closing) = closing.map(|distance| window + distance) else { continue };
        if written.get(closing + 1).is_some_and(|next| tokens[*next].token == Token::Comma) {
            wrapped.push((written[window], written[closing]));
        }
    }
    if wrapped.is_empty() {
        return tokens;
    }
    let mut rewritten = Vec::with_capacity(tokens.len() + 3 * wrapped.len());
    for (index, token) in tokens.into_iter().enumerate() {
        let span = token.span;
        if wrapped.iter().any(|(opening, _)| *opening == index) {
            let call = [Token::make_word("coalesce", None), Token::LParen];
            rewritten.extend(call.into_iter().map(|part| TokenWithSpan::new(part, span)));
        }
        rewritten.push(token);
        if wrapped.iter().any(|(_, closing)| *closing == index) {
            rewritten.push(TokenWithSpan::new(Token::RParen, span));
        }
    }
    rewritten
}

/// What stands for DO NOTHING in a MERGE.
pub(crate) const MERGE_NOTHING: &str = "rustydb.do_nothing";

/// What stands for DEFAULT VALUES in a MERGE.
pub(crate) const MERGE_DEFAULTS: &str = "rustydb.default_values";

/// Rewrites `THEN DO NOTHING`, which the parser does not know, to an action that names [`MERGE_NOTHING`]: an INSERT for
/// rows that are not matched by the target, an UPDATE for all others. `INSERT DEFAULT VALUES` names [`MERGE_DEFAULTS`].
fn merge_nothing(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let words: Vec<(usize, Keyword)> = tokens
        .iter()
        .enumerate()
        .filter_map(|(index, token)| match &token.token {
            Token::Whitespace(_) => None,
            Token::Word(word) if word.quote_style.is_none() => Some((index, word.keyword)),
            _ => Some((index, Keyword::NoKeyword)),
        })
        .collect();
    if !words.iter().any(|(_, keyword)| *keyword == Keyword::MERGE) {
        return tokens;
    }
    let keyword = |place: usize| words.get(place).map(|(_, keyword)| *keyword);
    let mut inserts = false;
    let mut replaced: Vec<(usize, usize, Option<bool>)> = Vec::new();
    for place in 0..words.len() {
        match keyword(place) {
            Some(Keyword::MATCHED) => {
                let negated = place > 0 && keyword(place - 1) == Some(Keyword::NOT);
                let by_source = keyword(place + 1) == Some(Keyword::BY) && keyword(place + 2) == Some(Keyword::SOURCE);
                inserts = negated && !by_source;
            }
            Some(Keyword::THEN)
                if keyword(place + 1) == Some(Keyword::DO) && keyword(place + 2) == Some(Keyword::NOTHING) =>
            {
                replaced.push((words[place + 1].0, words[place + 2].0, Some(inserts)));
            }
            Some(Keyword::INSERT)
                if keyword(place + 1) == Some(Keyword::DEFAULT) && keyword(place + 2) == Some(Keyword::VALUES) =>
            {
                replaced.push((words[place + 1].0, words[place + 2].0, None));
            }
            _ => {}
        }
    }
    let name = |inserts: &Option<bool>| {
        Token::make_word(if inserts.is_some() { MERGE_NOTHING } else { MERGE_DEFAULTS }, Some('"'))
    };
    let zero = || Token::Number("0".to_owned(), false);
    let mut rewritten = Vec::with_capacity(tokens.len());
    let mut rest = replaced.into_iter().peekable();
    for (index, token) in tokens.into_iter().enumerate() {
        match rest.peek() {
            Some((first, last, inserts)) if (*first..=*last).contains(&index) => {
                if index == *last {
                    let word = Token::make_keyword;
                    let action = match inserts {
                        Some(false) => vec![word("UPDATE"), word("SET"), name(inserts), Token::Eq, zero()],
                        some => {
                            let columns = [Token::LParen, name(inserts), Token::RParen];
                            let values = [word("VALUES"), Token::LParen, zero(), Token::RParen];
                            let insert = some.map(|_| word("INSERT"));
                            insert.into_iter().chain(columns).chain(values).collect()
                        }
                    };
                    rewritten.extend(action.into_iter().map(|part| TokenWithSpan::new(part, token.span)));
                    rest.next();
                }
            }
            _ => rewritten.push(token),
        }
    }
    rewritten
}

/// Rewrites `?` to `$1`, `$2`, … in order and returns the number of parameters.
fn number_parameters(tokens: &mut [TokenWithSpan]) -> Result<usize> {
    let (mut anonymous, mut numbered) = (0usize, 0usize);
    for token in tokens {
        let Token::Placeholder(name) = &token.token else { continue };
        let place = position_of(token.span.start);
        if name == "?" {
            anonymous += 1;
            token.token = Token::Placeholder(format!("${anonymous}"));
        } else {
            let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
            match number {
                Some(number @ 1..=MAX_PARAMETERS) => numbered = numbered.max(number),
                _ => {
                    return Err(Error::syntax(format!("\"{name}\" is not a parameter"))
                        .with_hint(format!("Parameters are $1 to ${MAX_PARAMETERS}, or ? in order."))
                        .at(place));
                }
            }
        }
        if anonymous > 0 && numbered > 0 {
            return Err(Error::syntax("a statement takes either ? or $n parameters, not both").at(place));
        }
    }
    if anonymous > MAX_PARAMETERS {
        return Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, format!("more than {MAX_PARAMETERS} parameters")));
    }
    Ok(anonymous.max(numbered))
}

/// Gives a syntax error the place of the token it names: the parser sometimes says where the next one is.
fn place_found(error: Error, sql: &str) -> Error {
    let found = error.message().strip_prefix("syntax error at \"").and_then(|rest| rest.split_once("\": expected"));
    let (Some((found, _)), Some(at)) = (found, error.position()) else { return error };
    let before = |token: &&TokenWithSpan| position_of(token.span.start).is_some_and(|place| place <= at);
    let tokens = tokenize(sql).unwrap_or_default();
    let named = tokens.iter().rev().filter(before).find(|token| token.token.to_string() == found);
    match named.and_then(|token| position_of(token.span.start)) {
        Some(place) => error.moved_to(place),
        None => error,
    }
}

/// The place of a syntax node, if the parser kept it.
pub(crate) fn place(span: Span) -> Option<Position> {
    position_of(span.start)
}

/// A table's name as written: schema, if given, and name, in the case that unquoted identifiers fold to.
pub(crate) fn table_name(name: &ObjectName) -> Result<(Option<String>, String)> {
    let mut parts = Vec::with_capacity(name.0.len());
    for part in &name.0 {
        match part {
            ObjectNamePart::Identifier(ident) => parts.push(fold(ident)),
            ObjectNamePart::Function(_) => return Err(Error::unsupported(format!("\"{name}\" as a table's name"))),
        }
    }
    match (parts.pop(), parts.pop(), parts.pop()) {
        (Some(table), schema, None) => Ok((schema, table)),
        (Some(table), schema, Some(catalog)) if catalog == crate::CATALOG_NAME && parts.is_empty() => {
            Ok((schema, table))
        }
        _ => Err(Error::unsupported(format!("\"{name}\": a reference to another database"))),
    }
}

/// An identifier as stored: unquoted ones are lower case.
pub(crate) fn fold(ident: &datafusion::sql::sqlparser::ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

/// Whether a collation compares texts by their bytes, as they are compared here.
pub(crate) fn is_by_bytes(collation: &ObjectName) -> bool {
    let name = collation.0.last().and_then(ObjectNamePart::as_ident).map(|name| name.value.to_ascii_lowercase());
    matches!(name.as_deref(), Some("c" | "posix" | "default" | "ucs_basic"))
}

/// sqlparser's PostgreSQL, plus wildcard modifiers, minus geometric operators (whose `?` would hide parameters).
#[derive(Debug)]
pub(crate) struct RustyDialect;

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

impl Dialect for RustyDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }
    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_delimited_identifier_start(ch)
    }
    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch)
    }
    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch)
    }
    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        POSTGRES.is_reserved_for_identifier(keyword)
    }
    fn is_column_alias(&self, keyword: &Keyword, parser: &mut Parser) -> bool {
        // `INSERT INTO t SELECT 1 ON CONFLICT …` has no column of that name.
        *keyword != Keyword::ON && POSTGRES.is_column_alias(keyword, parser)
    }
    fn is_custom_operator_part(&self, ch: char) -> bool {
        // Not '?': "a=?" is a comparison with a parameter.
        ch != '?' && POSTGRES.is_custom_operator_part(ch)
    }
    /// What the parser reads otherwise than PostgreSQL: `IS [NOT] DISTINCT FROM`, whose right side it lets reach over AND
    /// and OR to the end; and what it does not know: `[NOT] BETWEEN SYMMETRIC`, with the bounds in either order.
    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, _precedence: u8) -> Option<Result<Expr, ParserError>> {
        let not_distinct = parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
        if not_distinct || parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            let right = parser.parse_subexpr(self.prec_value(Precedence::Is));
            let left = Box::new(expr.clone());
            return Some(right.map(|right| match not_distinct {
                true => Expr::IsNotDistinctFrom(left, Box::new(right)),
                false => Expr::IsDistinctFrom(left, Box::new(right)),
            }));
        }
        let negated = parser.parse_keywords(&[Keyword::NOT, Keyword::BETWEEN, Keyword::SYMMETRIC]);
        if !negated && !parser.parse_keywords(&[Keyword::BETWEEN, Keyword::SYMMETRIC]) {
            return None;
        }
        let precedence = self.prec_value(Precedence::Between);
        let mut bounds = || {
            let low = parser.parse_subexpr(precedence)?;
            parser.expect_keyword_is(Keyword::AND)?;
            Ok((low, parser.parse_subexpr(precedence)?))
        };
        // What it is planned as names all three twice: it is written when copies are counted.
        Some(bounds().map(|(low, high)| {
            let low = call_with(SYMMETRIC, vec![low], Span::empty());
            Expr::Between { expr: Box::new(expr.clone()), negated, low: Box::new(low), high: Box::new(high) }
        }))
    }
    /// `UNIQUE NULLS [NOT] DISTINCT`, and the collations that are the only one there is.
    fn parse_column_option(
        &self,
        parser: &mut Parser,
    ) -> Result<Option<Result<Option<ColumnOption>, ParserError>>, ParserError> {
        if parser.parse_keyword(Keyword::COLLATE) {
            let collation = parser.parse_object_name(false)?;
            return Ok(Some(match is_by_bytes(&collation) {
                true => parser.parse_optional_column_option(),
                false => Ok(Some(ColumnOption::Collation(collation))),
            }));
        }
        let not_distinct = [Keyword::UNIQUE, Keyword::NULLS, Keyword::NOT, Keyword::DISTINCT];
        let nulls_distinct = if parser.parse_keywords(&not_distinct) {
            NullsDistinctOption::NotDistinct
        } else if parser.parse_keywords(&[Keyword::UNIQUE, Keyword::NULLS, Keyword::DISTINCT]) {
            NullsDistinctOption::Distinct
        } else {
            return Ok(None);
        };
        Ok(Some(Ok(Some(ColumnOption::Unique(UniqueConstraint {
            name: None,
            index_name: None,
            index_type_display: KeyOrIndexDisplay::None,
            index_type: None,
            columns: Vec::new(),
            index_options: Vec::new(),
            characteristics: parser.parse_constraint_characteristics()?,
            nulls_distinct,
        })))))
    }
    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            // Operators like any other, which bind closer than comparisons.
            Token::Tilde
            | Token::TildeAsterisk
            | Token::ExclamationMarkTilde
            | Token::ExclamationMarkTildeAsterisk
            | Token::DoubleTilde
            | Token::DoubleTildeAsterisk
            | Token::ExclamationMarkDoubleTilde
            | Token::ExclamationMarkDoubleTildeAsterisk => Some(Ok(self.prec_value(Precedence::PgOther))),
            _ => POSTGRES.get_next_precedence(parser),
        }
    }
    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }
    fn supports_unicode_string_literal(&self) -> bool {
        true
    }
    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }
    fn supports_group_by_expr(&self) -> bool {
        true
    }
    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }
    fn allow_extract_custom(&self) -> bool {
        true
    }
    fn allow_extract_single_quotes(&self) -> bool {
        true
    }
    fn supports_create_index_with_clause(&self) -> bool {
        true
    }
    fn supports_explain_with_utility_options(&self) -> bool {
        true
    }
    fn supports_listen_notify(&self) -> bool {
        true
    }
    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }
    fn supports_comment_on(&self) -> bool {
        true
    }
    fn supports_nested_comments(&self) -> bool {
        true
    }
    fn supports_string_escape_constant(&self) -> bool {
        true
    }
    fn supports_numeric_literal_underscores(&self) -> bool {
        true
    }
    fn supports_array_typedef_with_brackets(&self) -> bool {
        true
    }
    fn supports_set_names(&self) -> bool {
        true
    }
    fn supports_notnull_operator(&self) -> bool {
        true
    }
    fn supports_interval_options(&self) -> bool {
        true
    }
    fn supports_insert_table_alias(&self) -> bool {
        true
    }
    fn supports_create_table_like_parenthesized(&self) -> bool {
        true
    }
    fn supports_comma_separated_trim(&self) -> bool {
        true
    }
    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }
    fn supports_select_wildcard_except(&self) -> bool {
        true
    }
    fn supports_select_wildcard_replace(&self) -> bool {
        true
    }
    fn supports_alter_column_type_using(&self) -> bool {
        true
    }
    fn supports_empty_projections(&self) -> bool {
        true
    }
    fn supports_parens_around_table_factor(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_marks_become_numbered_parameters() {
        let parsed = parse_statement("select * from t where a=? and b = ? -- what?").unwrap();
        assert_eq!(parsed.parameters, 2);
        let ParsedStatement::Sql(statement) = parsed.statement else { panic!("a query") };
        assert_eq!(statement.to_string(), "SELECT * FROM t WHERE a = $1 AND b = $2");
    }

    #[test]
    fn mixed_parameter_styles_are_refused() {
        let error = parse_statement("select ?, $1").unwrap_err();
        assert_eq!(error.sqlstate(), "42601");
    }

    #[test]
    fn second_statement_is_refused_with_its_place() {
        let error = parse_statement("select 1;\n  select 2").unwrap_err();
        assert_eq!(error.position(), Some(Position { line: 2, column: 3 }));
    }

    #[test]
    fn a_syntax_error_is_where_the_word_is_that_it_names() {
        for (sql, word, column) in
            [("SELECT , a FROM t", ",", 8), ("SELECT a, FROM t", "FROM", 11), ("SELECT a FORM t", "t", 15)]
        {
            let error = parse_statement(sql).unwrap_err();
            assert!(error.message().contains(&format!("\"{word}\"")), "{sql}: {error:?}");
            assert_eq!(error.position(), Some(Position { line: 1, column }), "{sql}: {error:?}");
        }
    }

    #[test]
    fn empty_text_is_an_error() {
        assert_eq!(parse_statement(" -- nothing\n;").unwrap_err().sqlstate(), "42601");
    }

    #[test]
    fn a_huge_parameter_number_is_refused() {
        assert_eq!(parse_statement("select $4000000000").unwrap_err().sqlstate(), "42601");
    }
}
