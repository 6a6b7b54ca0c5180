//! The grammar of a few statements of PostgreSQL that sqlparser does not have.
//!
//! ```text
//! SET CONSTRAINTS {ALL | name [, …]} {DEFERRED | IMMEDIATE}
//! CREATE [TEMPORARY] SEQUENCE [IF NOT EXISTS] name [AS type] [option …] [OWNED BY table.column | NONE]
//! ALTER SEQUENCE [IF EXISTS] name [option …] [RESTART [[WITH] value]] [OWNED BY table.column | NONE]
//! ```
//! The options of sequences come in any order, also in `GENERATED … AS IDENTITY (…)`, where sqlparser wants its own
//! ([`ordered_identity_options`]).

use datafusion::sql::sqlparser::ast::{Expr, SequenceOptions};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::definition::parse_definition;
use crate::Result;
use crate::sql::route::{AlterSequenceStatement, CreateSequenceStatement, Write};
use crate::sql::text::parse::table_name;

/// Parses such a statement; `None` if the next words do not begin one.
pub(crate) fn parse_own(parser: &mut Parser<'_>) -> Result<Option<Write>> {
    if let Some(definition) = parse_definition(parser)? {
        return Ok(Some(definition));
    }
    if parser.parse_keywords(&[Keyword::ALTER, Keyword::SEQUENCE]) {
        return Ok(Some(Write::AlterSequence(Box::new(alter_sequence(parser)?))));
    }
    if parser.parse_keywords(&[Keyword::CREATE, Keyword::SEQUENCE]) {
        return Ok(Some(Write::CreateSequence(Box::new(create_sequence(parser, false)?))));
    }
    if ["temp", "temporary"].iter().any(|word| take_words(parser, &["create", word, "sequence"])) {
        return Ok(Some(Write::CreateSequence(Box::new(create_sequence(parser, true)?))));
    }
    if next_words_are(parser, &["set", "constraints"]) {
        parser.next_token();
        parser.next_token();
        return set_constraints(parser).map(Some);
    }
    Ok(None)
}

/// Whether the next words are these, keywords or not.
pub(crate) fn next_words_are(parser: &Parser<'_>, words: &[&str]) -> bool {
    words.iter().enumerate().all(|(place, word)| match parser.peek_nth_token(place).token {
        Token::Word(found) => found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word),
        _ => false,
    })
}

pub(crate) fn take_word(parser: &mut Parser<'_>, word: &str) -> bool {
    take_words(parser, &[word])
}

/// Takes these words, all or none.
pub(in crate::sql) fn take_words(parser: &mut Parser<'_>, words: &[&str]) -> bool {
    let found = next_words_are(parser, words);
    if found {
        words.iter().for_each(|_| drop(parser.next_token()));
    }
    found
}

/// RESTART, with its value if it has one.
pub(in crate::sql) fn restart_value(parser: &mut Parser<'_>) -> Result<Option<Option<Expr>>, ParserError> {
    if !take_word(parser, "restart") {
        return Ok(None);
    }
    let with = parser.parse_keyword(Keyword::WITH);
    let value = matches!(parser.peek_token().token, Token::Number(..) | Token::Minus | Token::Plus);
    Ok(Some(if with || value { Some(parser.parse_prefix()?) } else { None }))
}

fn set_constraints(parser: &mut Parser<'_>) -> Result<Write> {
    let mut names = Vec::new();
    if !parser.parse_keyword(Keyword::ALL) {
        for name in parser.parse_comma_separated(|parser| parser.parse_object_name(false))? {
            names.push(table_name(&name)?.1);
        }
    }
    let deferred = if parser.parse_keyword(Keyword::DEFERRED) {
        true
    } else if parser.parse_keyword(Keyword::IMMEDIATE) {
        false
    } else {
        let found = parser.peek_token();
        return parser.expected("DEFERRED or IMMEDIATE", found).map_err(Into::into);
    };
    Ok(Write::SetConstraints { names, deferred })
}

fn alter_sequence(parser: &mut Parser<'_>) -> Result<AlterSequenceStatement, ParserError> {
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = parser.parse_object_name(false)?;
    let (mut options, mut restart, mut owned_by) = (Vec::new(), None, None);
    loop {
        if let Some(value) = restart_value(parser)? {
            restart = Some(value);
        } else if parser.parse_keywords(&[Keyword::OWNED, Keyword::BY]) {
            let owner = parser.parse_object_name(false)?;
            owned_by = Some(Some(owner).filter(|owner| !owner.to_string().eq_ignore_ascii_case("none")));
        } else if let Some(option) = sequence_option(parser)? {
            options.push(option);
        } else {
            break;
        }
    }
    if options.is_empty() && restart.is_none() && owned_by.is_none() {
        let found = parser.peek_token();
        return parser.expected("an option of ALTER SEQUENCE", found);
    }
    Ok(AlterSequenceStatement { name, if_exists, options, restart, owned_by })
}

fn create_sequence(parser: &mut Parser<'_>, temporary: bool) -> Result<CreateSequenceStatement, ParserError> {
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = parser.parse_object_name(false)?;
    let data_type = if parser.parse_keyword(Keyword::AS) { Some(parser.parse_data_type()?) } else { None };
    let (mut options, mut owned_by) = (Vec::new(), None);
    loop {
        if parser.parse_keywords(&[Keyword::OWNED, Keyword::BY]) {
            let owner = parser.parse_object_name(false)?;
            owned_by = Some(owner).filter(|owner| !owner.to_string().eq_ignore_ascii_case("none"));
        } else if let Some(option) = sequence_option(parser)? {
            options.push(option);
        } else {
            break;
        }
    }
    Ok(CreateSequenceStatement { name, temporary, if_not_exists, data_type, options, owned_by })
}

pub(in crate::sql) fn sequence_option(parser: &mut Parser<'_>) -> Result<Option<SequenceOptions>, ParserError> {
    Ok(Some(if parser.parse_keyword(Keyword::INCREMENT) {
        let by = parser.parse_keyword(Keyword::BY);
        SequenceOptions::IncrementBy(parser.parse_prefix()?, by)
    } else if parser.parse_keyword(Keyword::MINVALUE) {
        SequenceOptions::MinValue(Some(parser.parse_prefix()?))
    } else if parser.parse_keywords(&[Keyword::NO, Keyword::MINVALUE]) {
        SequenceOptions::MinValue(None)
    } else if parser.parse_keyword(Keyword::MAXVALUE) {
        SequenceOptions::MaxValue(Some(parser.parse_prefix()?))
    } else if parser.parse_keywords(&[Keyword::NO, Keyword::MAXVALUE]) {
        SequenceOptions::MaxValue(None)
    } else if parser.parse_keyword(Keyword::START) {
        let with = parser.parse_keyword(Keyword::WITH);
        SequenceOptions::StartWith(parser.parse_prefix()?, with)
    } else if parser.parse_keyword(Keyword::CACHE) {
        SequenceOptions::Cache(parser.parse_prefix()?)
    } else if parser.parse_keyword(Keyword::CYCLE) {
        SequenceOptions::Cycle(false)
    } else if parser.parse_keywords(&[Keyword::NO, Keyword::CYCLE]) {
        SequenceOptions::Cycle(true)
    } else {
        return Ok(None);
    }))
}

/// Puts the options after IDENTITY into the order in which the parser takes them.
pub(crate) fn ordered_identity_options(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    /// An option's place in the parser's order, by the word it begins with.
    fn rank(keyword: Keyword) -> Option<usize> {
        let order =
            [Keyword::INCREMENT, Keyword::MINVALUE, Keyword::MAXVALUE, Keyword::START, Keyword::CACHE, Keyword::CYCLE];
        order.iter().position(|known| *known == keyword)
    }
    let keyword = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.keyword),
        _ => None,
    };
    let is_space = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    let mut rewritten: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter().peekable();
    let mut after_identity = false;
    while let Some(token) = rest.next() {
        let opens = after_identity && token.token == Token::LParen;
        after_identity = keyword(&token) == Some(Keyword::IDENTITY) || (after_identity && is_space(&token));
        rewritten.push(token);
        if !opens {
            continue;
        }
        let mut options: Vec<(usize, Vec<TokenWithSpan>)> = Vec::new();
        let mut no = None;
        while let Some(token) = rest.next_if(|token| token.token != Token::RParen) {
            if is_space(&token) {
                continue;
            }
            match keyword(&token) {
                Some(Keyword::NO) => no = Some(token),
                Some(found) if rank(found).is_some() => {
                    let words = no.take().into_iter().chain([token]).collect();
                    options.push((rank(found).unwrap_or_default(), words));
                }
                _ => match options.last_mut() {
                    Some((_, words)) => words.push(token),
                    None => options.push((0, vec![token])),
                },
            }
        }
        options.sort_by_key(|(rank, _)| *rank);
        rewritten.extend(options.into_iter().flat_map(|(_, words)| words));
        rewritten.extend(no);
    }
    rewritten
}

#[cfg(test)]
mod tests {
    use crate::sql::route::Write;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn parse(sql: &str) -> Write {
        match parse_statement(sql).unwrap().statement {
            ParsedStatement::Own(write) => *write,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn constraints_are_set_by_name_or_all() {
        for (sql, count, expected) in
            [("SET CONSTRAINTS ALL DEFERRED", 0, true), ("set constraints a, \"B\" immediate;", 2, false)]
        {
            let Write::SetConstraints { names, deferred } = parse(sql) else { panic!("{sql}") };
            assert_eq!((names.len(), deferred), (count, expected), "{sql}");
        }
        assert_eq!(parse_statement("SET CONSTRAINTS ALL").unwrap_err().sqlstate(), "42601");
    }

    #[test]
    fn sequences_restart_with_and_without_a_value() {
        for (sql, value) in [
            ("ALTER SEQUENCE s RESTART", Some(None)),
            ("ALTER SEQUENCE IF EXISTS s RESTART WITH -5", Some(Some("-5"))),
            ("ALTER SEQUENCE s RESTART 7 INCREMENT BY 2 NO CYCLE", Some(Some("7"))),
            ("ALTER SEQUENCE s CACHE 10", None),
        ] {
            let Write::AlterSequence(alter) = parse(sql) else { panic!("{sql}") };
            let restart = alter.restart.map(|value| value.map(|value| value.to_string()));
            assert_eq!(restart, value.map(|value| value.map(str::to_owned)), "{sql}");
        }
    }
}
