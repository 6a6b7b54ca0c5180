//! The grammar of statements about routines, PostgreSQL's.
//!
//! ```text
//! CREATE [OR REPLACE] {FUNCTION | PROCEDURE} name ([[mode] [name] type [{DEFAULT | =} expression] [, …]])
//!     [RETURNS type | RETURNS SETOF type | RETURNS TABLE (name type [, …])]
//!     {LANGUAGE name | IMMUTABLE | STABLE | VOLATILE | STRICT | … | AS 'body' | RETURN expression} …
//! DROP {FUNCTION | PROCEDURE | ROUTINE} [IF EXISTS] name [(type [, …])] [, …] [CASCADE | RESTRICT]
//! DO [LANGUAGE name] 'body'
//! ```

use datafusion::sql::sqlparser::ast::{DataType, Expr, ObjectName};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::statements::{next_words_are, take_word};
use crate::routine::Mode;
use crate::routine::definition::Volatility;
use crate::sql::text::parse::{fold, place};
use crate::{Error, Position, Result};

/// A type as written.
#[derive(Debug, Clone)]
pub(crate) enum TypeSyntax {
    Named(DataType),
    /// `table.column%TYPE`
    OfColumn(ObjectName),
}

#[derive(Debug, Clone)]
pub(crate) struct ParameterSyntax {
    pub(crate) name: Option<String>,
    pub(crate) mode: Mode,
    pub(crate) type_name: TypeSyntax,
    pub(crate) default: Option<Expr>,
}

#[derive(Debug, Clone)]
pub(crate) enum ReturnsSyntax {
    /// No RETURNS clause.
    Unsaid,
    One(TypeSyntax),
    Many(TypeSyntax),
    Table(Vec<(String, TypeSyntax)>),
}

#[derive(Debug, Clone)]
pub(crate) struct CreateRoutineStatement {
    pub(crate) name: ObjectName,
    pub(crate) or_replace: bool,
    pub(crate) is_procedure: bool,
    pub(crate) parameters: Vec<ParameterSyntax>,
    pub(crate) returns: ReturnsSyntax,
    pub(crate) language: String,
    pub(crate) body: String,
    /// Where the body begins, if places in it can be told.
    pub(crate) body_place: Option<Position>,
    pub(crate) volatility: Volatility,
    pub(crate) is_strict: bool,
}

/// Which routines a DROP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoutineKind {
    Function,
    Procedure,
    Either,
}

#[derive(Debug, Clone)]
pub(crate) struct DropRoutineStatement {
    pub(crate) kind: RoutineKind,
    pub(crate) if_exists: bool,
    /// Names, with the types of the inputs if they are given.
    pub(crate) routines: Vec<(ObjectName, Option<Vec<TypeSyntax>>)>,
}

/// Such a statement.
#[derive(Debug, Clone)]
pub(crate) enum RoutineSyntax {
    Create(Box<CreateRoutineStatement>),
    Drop(DropRoutineStatement),
    Do { language: String, body: String },
}

/// Parses such a statement; `None` if the next words do not begin one.
pub(crate) fn parse_routine(parser: &mut Parser<'_>) -> Result<Option<RoutineSyntax>> {
    for (or_replace, words) in [(false, &["create"][..]), (true, &["create", "or", "replace"][..])] {
        for (is_procedure, word) in [(false, "function"), (true, "procedure")] {
            let all: Vec<&str> = words.iter().copied().chain([word]).collect();
            if next_words_are(parser, &all) {
                all.iter().for_each(|_| parser.advance_token());
                return create(parser, or_replace, is_procedure).map(Some);
            }
        }
    }
    for (kind, word) in
        [(RoutineKind::Function, "function"), (RoutineKind::Procedure, "procedure"), (RoutineKind::Either, "routine")]
    {
        if next_words_are(parser, &["drop", word]) {
            parser.advance_token();
            parser.advance_token();
            return Ok(Some(RoutineSyntax::Drop(drop_routines(parser, kind)?)));
        }
    }
    if next_words_are(parser, &["do"]) {
        parser.advance_token();
        return do_block(parser).map(Some);
    }
    Ok(None)
}

fn do_block(parser: &mut Parser<'_>) -> Result<RoutineSyntax> {
    let (mut language, mut body) = (None, None);
    loop {
        if language.is_none() && take_word(parser, "language") {
            language = Some(language_name(parser)?);
        } else if body.is_none()
            && let Some((text, _)) = string(parser)
        {
            body = Some(text);
        } else {
            break;
        }
    }
    match body {
        Some(body) => Ok(RoutineSyntax::Do { language: language.unwrap_or_else(|| "plpgsql".to_owned()), body }),
        None => {
            let found = parser.peek_token();
            Err(parser
                .expected::<()>("a block in quotes", found)
                .err()
                .map_or_else(|| Error::syntax("a block in quotes is missing"), Into::into))
        }
    }
}

fn drop_routines(parser: &mut Parser<'_>, kind: RoutineKind) -> Result<DropRoutineStatement> {
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let mut routines = Vec::new();
    loop {
        let name = parser.parse_object_name(false)?;
        let mut types = None;
        if parser.consume_token(&Token::LParen) {
            let mut list = Vec::new();
            if !parser.consume_token(&Token::RParen) {
                loop {
                    let parameter = parameter(parser)?;
                    if parameter.mode.is_input() {
                        list.push(parameter.type_name);
                    }
                    if !parser.consume_token(&Token::Comma) {
                        break;
                    }
                }
                parser.expect_token(&Token::RParen)?;
            }
            types = Some(list);
        }
        routines.push((name, types));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    // Nothing depends on a routine.
    let _ = parser.parse_one_of_keywords(&[Keyword::CASCADE, Keyword::RESTRICT]);
    Ok(DropRoutineStatement { kind, if_exists, routines })
}

fn language_name(parser: &mut Parser<'_>) -> Result<String> {
    if let Some((name, _)) = string(parser) {
        return Ok(name.to_lowercase());
    }
    Ok(fold(&parser.parse_identifier()?))
}

/// A string of any kind, and where what is in it begins, if lines and columns go on from there.
fn string(parser: &mut Parser<'_>) -> Option<(String, Option<Position>)> {
    let next = parser.peek_token();
    let at = place(next.span);
    let found = match next.token {
        Token::SingleQuotedString(text) => {
            // A doubled quote takes two characters and is one.
            let at = at.filter(|_| !text.contains('\''));
            (text, at.map(|at| Position { column: at.column + 1, ..at }))
        }
        Token::EscapedStringLiteral(text) => (text, None),
        Token::DollarQuotedString(quoted) => {
            let tag = quoted.tag.as_ref().map_or(0, |tag| tag.chars().count());
            (quoted.value, at.map(|at| Position { column: at.column + tag as u64 + 2, ..at }))
        }
        _ => return None,
    };
    parser.advance_token();
    Some(found)
}

fn create(parser: &mut Parser<'_>, or_replace: bool, is_procedure: bool) -> Result<RoutineSyntax> {
    let name = parser.parse_object_name(false)?;
    parser.expect_token(&Token::LParen)?;
    let mut parameters = Vec::new();
    if !parser.consume_token(&Token::RParen) {
        loop {
            parameters.push(parameter(parser)?);
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen)?;
    }
    let mut returns = ReturnsSyntax::Unsaid;
    if !next_words_are(parser, &["returns", "null"]) && take_word(parser, "returns") {
        returns = if next_words_are(parser, &["table"]) {
            parser.advance_token();
            parser.expect_token(&Token::LParen)?;
            let columns = parser.parse_comma_separated(|parser| {
                let name = fold(&parser.parse_identifier()?);
                Ok((name, type_syntax(parser)?))
            })?;
            parser.expect_token(&Token::RParen)?;
            ReturnsSyntax::Table(columns)
        } else if take_word(parser, "setof") {
            ReturnsSyntax::Many(type_syntax(parser)?)
        } else {
            ReturnsSyntax::One(type_syntax(parser)?)
        };
    }
    let (mut language, mut body, mut body_place) = (None, None, None);
    let (mut volatility, mut is_strict) = (Volatility::Volatile, false);
    loop {
        let next = parser.peek_token();
        let at = place(next.span);
        let refused = |what: &str| Err(Error::unsupported(what.to_owned()).at(at));
        if take_word(parser, "language") {
            language = Some(language_name(parser)?);
        } else if take_word(parser, "immutable") {
            volatility = Volatility::Immutable;
        } else if take_word(parser, "stable") {
            volatility = Volatility::Stable;
        } else if take_word(parser, "volatile") {
            volatility = Volatility::Volatile;
        } else if take_word(parser, "strict") || take_words(parser, &["returns", "null", "on", "null", "input"]) {
            is_strict = true;
        } else if take_words(parser, &["called", "on", "null", "input"]) {
            is_strict = false;
        } else if take_word(parser, "leakproof") || take_words(parser, &["not", "leakproof"]) {
            // There is nothing to leak: routines run with the rights of who calls them.
        } else if take_words(parser, &["security", "invoker"])
            || take_words(parser, &["external", "security", "invoker"])
        {
        } else if next_words_are(parser, &["security"]) || next_words_are(parser, &["external"]) {
            return refused("SECURITY DEFINER");
        } else if take_word(parser, "parallel") || take_word(parser, "cost") || take_word(parser, "rows") {
            // Hints for a planner.
            parser.advance_token();
        } else if next_words_are(parser, &["window"]) {
            return refused("a window function in SQL");
        } else if next_words_are(parser, &["set"]) {
            return refused("SET in a routine's declaration");
        } else if next_words_are(parser, &["support"]) || next_words_are(parser, &["transform"]) {
            return refused("SUPPORT or TRANSFORM");
        } else if next_words_are(parser, &["begin", "atomic"]) {
            return Err(Error::unsupported("BEGIN ATOMIC").with_hint("Write AS $$ … $$.").at(at));
        } else if take_word(parser, "return") {
            body = Some(format!("SELECT {}", parser.parse_expr()?));
            language = language.or_else(|| Some("sql".to_owned()));
        } else if parser.parse_keyword(Keyword::AS) {
            match string(parser) {
                Some((text, at)) => (body, body_place) = (Some(text), at),
                None => {
                    let found = parser.peek_token();
                    return parser.expected("a body in quotes", found).map_err(Into::into);
                }
            }
        } else {
            break;
        }
    }
    let kind = if is_procedure { "procedure" } else { "function" };
    let (Some(body), Some(language)) = (body, language) else {
        let next = parser.peek_token();
        return match next.token {
            Token::EOF | Token::SemiColon => Err(Error::new(
                crate::error::sqlstate::INVALID_FUNCTION_DEFINITION,
                format!("no body or language of the {kind} is specified"),
            )
            .with_hint("LANGUAGE plpgsql AS $$ … $$")),
            _ => parser.expected("LANGUAGE or AS", next).map_err(Into::into),
        };
    };
    Ok(RoutineSyntax::Create(Box::new(CreateRoutineStatement {
        name,
        or_replace,
        is_procedure,
        parameters,
        returns,
        language,
        body,
        body_place,
        volatility,
        is_strict,
    })))
}

fn take_words(parser: &mut Parser<'_>, words: &[&str]) -> bool {
    let found = next_words_are(parser, words);
    if found {
        words.iter().for_each(|_| parser.advance_token());
    }
    found
}

fn mode(parser: &mut Parser<'_>) -> Result<Option<Mode>> {
    let next = parser.peek_token();
    if next_words_are(parser, &["variadic"]) {
        return Err(Error::unsupported("VARIADIC").at(place(next.span)).with_hint("Take an array."));
    }
    Ok(if take_words(parser, &["in", "out"]) || take_word(parser, "inout") {
        Some(Mode::InOut)
    } else if take_word(parser, "in") {
        Some(Mode::In)
    } else if take_word(parser, "out") {
        Some(Mode::Out)
    } else {
        None
    })
}

fn parameter(parser: &mut Parser<'_>) -> Result<ParameterSyntax> {
    let mut found = mode(parser)?;
    let ends = |token: &Token| match token {
        Token::Comma | Token::RParen | Token::Eq => true,
        Token::Word(word) => word.keyword == Keyword::DEFAULT,
        _ => false,
    };
    let unnamed = parser.maybe_parse(|parser| {
        let parsed = type_syntax(parser)?;
        match ends(&parser.peek_token().token) {
            true => Ok(parsed),
            false => Err(ParserError::ParserError("a name".to_owned())),
        }
    })?;
    let (name, type_name) = match unnamed {
        Some(type_name) => (None, type_name),
        None => {
            let name = fold(&parser.parse_identifier()?);
            if found.is_none() {
                found = mode(parser)?;
            }
            (Some(name), type_syntax(parser)?)
        }
    };
    let has_default = parser.parse_keyword(Keyword::DEFAULT) || parser.consume_token(&Token::Eq);
    let default = if has_default { Some(parser.parse_expr()?) } else { None };
    Ok(ParameterSyntax { name, mode: found.unwrap_or(Mode::In), type_name, default })
}

fn type_syntax(parser: &mut Parser<'_>) -> Result<TypeSyntax, ParserError> {
    let parsed = parser.parse_data_type()?;
    if parser.peek_token().token == Token::Mod
        && let DataType::Custom(name, arguments) = &parsed
        && arguments.is_empty()
    {
        parser.advance_token();
        if take_word(parser, "type") {
            return Ok(TypeSyntax::OfColumn(name.clone()));
        }
        let found = parser.peek_token();
        return parser.expected("TYPE", found);
    }
    Ok(TypeSyntax::Named(parsed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn parse(sql: &str) -> RoutineSyntax {
        match parse_statement(sql).unwrap().statement {
            ParsedStatement::Routine(routine) => routine,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn parameters_are_told_from_types() {
        let sql = "CREATE FUNCTION f(integer, a double precision, OUT b text, c INOUT t.x%TYPE, date date = '2020-01-01') \
                   RETURNS record LANGUAGE plpgsql AS $x$BEGIN END$x$";
        let RoutineSyntax::Create(create) = parse(sql) else { panic!("no CREATE") };
        let names: Vec<Option<&str>> = create.parameters.iter().map(|parameter| parameter.name.as_deref()).collect();
        assert_eq!(names, [None, Some("a"), Some("b"), Some("c"), Some("date")]);
        let modes: Vec<Mode> = create.parameters.iter().map(|parameter| parameter.mode).collect();
        assert_eq!(modes, [Mode::In, Mode::In, Mode::Out, Mode::InOut, Mode::In]);
        assert!(create.parameters[4].default.is_some() && create.body == "BEGIN END");
    }

    #[test]
    fn options_come_in_any_order() {
        let sql =
            "create or replace function g() immutable strict language 'SQL' returns null on null input as 'select 1'";
        assert!(parse_statement(sql).is_ok());
        assert_eq!(parse_statement("CREATE FUNCTION g() RETURNS int AS 'select 1'").unwrap_err().sqlstate(), "42P13");
        assert_eq!(
            parse_statement("CREATE FUNCTION g() RETURNS int LANGUAGE sql SECURITY DEFINER AS ''")
                .unwrap_err()
                .sqlstate(),
            "0A000"
        );
        let RoutineSyntax::Drop(dropped) = parse("DROP FUNCTION IF EXISTS a, s.b(int, OUT text) CASCADE") else {
            panic!("no DROP")
        };
        assert_eq!(dropped.routines.len(), 2);
        assert_eq!(dropped.routines[1].1.as_ref().map(Vec::len), Some(1));
    }
}
