//! The grammar of prepared statements with names, PostgreSQL's.
//!
//! ```text
//! PREPARE name [(type [, …])] AS statement
//! EXECUTE name [(value [, …])]
//! DEALLOCATE [PREPARE] {name | ALL}
//! ```

use datafusion::sql::sqlparser::ast::{DataType, Expr};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::statements::take_word;
use crate::Result;
use crate::sql::text::parse::fold;

/// A statement about a prepared statement.
#[derive(Debug, Clone)]
pub(crate) enum NamedStatement {
    Prepare {
        name: String,
        types: Vec<DataType>,
        text: String,
    },
    Execute {
        name: String,
        values: Vec<Expr>,
    },
    /// `None`: all.
    Deallocate(Option<String>),
}

impl NamedStatement {
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            NamedStatement::Prepare { .. } => "PREPARE",
            NamedStatement::Execute { .. } => "EXECUTE",
            NamedStatement::Deallocate(_) => "DEALLOCATE",
        }
    }
}

/// Parses such a statement of `sql`; `None` if the next words do not begin one.
pub(crate) fn parse_named(parser: &mut Parser<'_>, sql: &str) -> Result<Option<NamedStatement>> {
    if parser.parse_keyword(Keyword::PREPARE) {
        if parser.peek_keyword(Keyword::TRANSACTION) {
            return Err(crate::Error::unsupported("PREPARE TRANSACTION"));
        }
        let name = fold(&parser.parse_identifier()?);
        let mut types = Vec::new();
        if parser.consume_token(&Token::LParen) {
            types = parser.parse_comma_separated(|parser| parser.parse_data_type())?;
            parser.expect_token(&Token::RParen)?;
        }
        parser.expect_keyword(Keyword::AS)?;
        let text = sql[offset_of(sql, parser.peek_token().span.start)..].trim_end_matches([';', ' ', '\n']).to_owned();
        while parser.next_token().token != Token::EOF {}
        return Ok(Some(NamedStatement::Prepare { name, types, text }));
    }
    if parser.parse_keyword(Keyword::EXECUTE) {
        let name = fold(&parser.parse_identifier()?);
        let mut values = Vec::new();
        if parser.consume_token(&Token::LParen) {
            values = parser.parse_comma_separated0(|parser| parser.parse_expr(), Token::RParen)?;
            parser.expect_token(&Token::RParen)?;
        }
        return Ok(Some(NamedStatement::Execute { name, values }));
    }
    if take_word(parser, "deallocate") {
        let _ = parser.parse_keyword(Keyword::PREPARE);
        let all = parser.parse_keyword(Keyword::ALL);
        let name = if all { None } else { Some(fold(&parser.parse_identifier()?)) };
        return Ok(Some(NamedStatement::Deallocate(name)));
    }
    Ok(None)
}

/// Where a place of the tokenizer's is in the text.
fn offset_of(sql: &str, location: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    for (offset, letter) in sql.char_indices() {
        if (line, column) == (location.line, location.column) {
            return offset;
        }
        match letter {
            '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
    }
    sql.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn parse(sql: &str) -> NamedStatement {
        let parsed = parse_statement(sql).unwrap();
        assert_eq!(parsed.parameters, 0, "those of the inner statement are not the outer's");
        match parsed.statement {
            ParsedStatement::Named(named) => named,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn the_inner_statement_is_kept_as_it_was_written() {
        let NamedStatement::Prepare { name, types, text } =
            parse("PREPARE p (int, text)\n AS SELECT $1, 'it''s', $2 ;")
        else {
            panic!("a PREPARE")
        };
        assert_eq!((name.as_str(), types.len(), text.as_str()), ("p", 2, "SELECT $1, 'it''s', $2"));
    }

    #[test]
    fn values_and_names_are_read() {
        assert!(matches!(parse("EXECUTE p(1 + 1, 'x')"), NamedStatement::Execute { values, .. } if values.len() == 2));
        assert!(matches!(parse("execute p"), NamedStatement::Execute { values, .. } if values.is_empty()));
        assert!(matches!(parse("DEALLOCATE PREPARE ALL"), NamedStatement::Deallocate(None)));
    }
}
