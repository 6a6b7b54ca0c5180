//! The grammar of COPY, which understands three spellings of its options:
//!
//! ```text
//! COPY t FROM 'f.csv' WITH (FORMAT csv, HEADER true, DELIMITER '|')          PostgreSQL
//! COPY t FROM 'f.csv' DELIMITER '|' CSV HEADER                               PostgreSQL before 9.0
//! COPY t TO 'f.csv' STORED AS CSV OPTIONS ('format.has_header' 'true')       DataFusion
//! ```
//!
//! Options are kept as written, in lower case; [`crate::copy`] gives them meaning and refuses those it does not know.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Query};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{IsOptional, Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::Position;
use crate::error::translate_position as position_of;

/// A COPY statement as written.
#[derive(Debug, Clone)]
pub(crate) struct CopyStatement {
    pub(crate) source: CopySource,
    /// `TO` rather than `FROM`.
    pub(crate) to: bool,
    pub(crate) target: CopyTarget,
    pub(crate) options: Vec<CopyOption>,
}

#[derive(Debug, Clone)]
pub(crate) enum CopySource {
    Table { name: ObjectName, columns: Vec<Ident> },
    Query(Box<Query>),
}

#[derive(Debug, Clone)]
pub(crate) enum CopyTarget {
    File {
        path: String,
        place: Option<Position>,
    },
    /// STDIN, STDOUT or PROGRAM, by the word used.
    Other {
        what: &'static str,
        place: Option<Position>,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct CopyOption {
    pub(crate) name: String,
    /// Absent for a bare word such as HEADER.
    pub(crate) value: Option<String>,
    pub(crate) place: Option<Position>,
}

pub(crate) fn parse_copy(parser: &mut Parser<'_>) -> Result<CopyStatement, ParserError> {
    parser.expect_keyword(Keyword::COPY)?;
    let source = if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query()?;
        parser.expect_token(&Token::RParen)?;
        CopySource::Query(query)
    } else {
        let name = parser.parse_object_name(false)?;
        CopySource::Table { name, columns: parser.parse_parenthesized_column_list(IsOptional::Optional, false)? }
    };
    let to = parser.expect_one_of_keywords(&[Keyword::FROM, Keyword::TO])? == Keyword::TO;
    if !to && matches!(source, CopySource::Query(_)) {
        return parser.expected("a table's name before FROM", parser.peek_token());
    }
    let place = position_of(parser.peek_token_ref().span.start);
    let target = match parser.parse_one_of_keywords(&[Keyword::STDIN, Keyword::STDOUT, Keyword::PROGRAM]) {
        Some(Keyword::STDIN) => CopyTarget::Other { what: "COPY FROM STDIN", place },
        Some(Keyword::STDOUT) => CopyTarget::Other { what: "COPY TO STDOUT", place },
        Some(_) => {
            parser.parse_literal_string()?;
            CopyTarget::Other { what: "COPY … PROGRAM", place }
        }
        None => CopyTarget::File { path: parser.parse_literal_string()?, place },
    };
    Ok(CopyStatement { source, to, target, options: parse_options(parser)? })
}

fn parse_options(parser: &mut Parser<'_>) -> Result<Vec<CopyOption>, ParserError> {
    let mut options = Vec::new();
    loop {
        let token = parser.peek_token();
        let place = position_of(token.span.start);
        match token.token {
            Token::EOF | Token::SemiColon => return Ok(options),
            Token::LParen => parse_list(parser, &mut options)?,
            Token::Word(word) => {
                parser.next_token();
                match word.value.to_ascii_lowercase().as_str() {
                    "with" | "options" => {}
                    "stored" => {
                        parser.expect_keyword(Keyword::AS)?;
                        let format = parser.parse_identifier()?.value.to_ascii_lowercase();
                        options.push(CopyOption { name: "format".into(), value: Some(format), place });
                    }
                    format @ ("csv" | "parquet" | "json" | "binary") => {
                        options.push(CopyOption { name: "format".into(), value: Some(format.into()), place });
                    }
                    name @ "header" => options.push(CopyOption { name: name.into(), value: None, place }),
                    name @ ("delimiter" | "null" | "quote" | "escape" | "encoding") => {
                        let _ = parser.parse_keyword(Keyword::AS);
                        let value = Some(parser.parse_literal_string()?);
                        options.push(CopyOption { name: name.into(), value, place });
                    }
                    _ => return parser.expected("an option of COPY", parser.peek_token()),
                }
            }
            _ => return parser.expected("an option of COPY or the end of the statement", token),
        }
    }
}

/// `( name [=] [value], … )`
fn parse_list(parser: &mut Parser<'_>, options: &mut Vec<CopyOption>) -> Result<(), ParserError> {
    parser.expect_token(&Token::LParen)?;
    loop {
        if parser.consume_token(&Token::RParen) {
            return Ok(());
        }
        let place = position_of(parser.peek_token_ref().span.start);
        let name = match parser.peek_token().token {
            Token::SingleQuotedString(name) => {
                parser.next_token();
                name
            }
            _ => parser.parse_object_name(false)?.to_string(),
        };
        let _ = parser.consume_token(&Token::Eq);
        let value = match parser.peek_token().token {
            Token::Comma | Token::RParen => None,
            Token::LParen => {
                // FORCE_QUOTE (a, b) and its like: kept so that it can be refused by name.
                let columns = parser.parse_parenthesized_column_list(IsOptional::Mandatory, false)?;
                Some(columns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Token::Word(word) => {
                parser.next_token();
                Some(word.value)
            }
            Token::Number(number, _) => {
                parser.next_token();
                Some(number)
            }
            Token::Mul => {
                parser.next_token();
                Some("*".to_owned())
            }
            _ => Some(parser.parse_literal_string()?),
        };
        options.push(CopyOption { name: name.to_ascii_lowercase(), value, place });
        if !parser.consume_token(&Token::Comma) {
            parser.expect_token(&Token::RParen)?;
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn options(sql: &str) -> Vec<(String, Option<String>)> {
        let ParsedStatement::Copy(copy) = parse_statement(sql).unwrap().statement else { panic!("a COPY") };
        copy.options.into_iter().map(|option| (option.name, option.value)).collect()
    }

    #[test]
    fn three_spellings_give_the_same_options() {
        let expected =
            vec![("format".to_owned(), Some("csv".to_owned())), ("delimiter".to_owned(), Some("|".to_owned()))];
        assert_eq!(options("COPY t FROM 'f' WITH (FORMAT csv, DELIMITER '|')"), expected);
        assert_eq!(options("COPY t FROM 'f' CSV DELIMITER AS '|'"), expected);
        assert_eq!(options("COPY t TO 'f' STORED AS CSV OPTIONS ('delimiter' '|');"), expected);
    }

    #[test]
    fn a_query_can_only_be_copied_to_a_file() {
        assert_eq!(parse_statement("COPY (SELECT 1) FROM 'f'").unwrap_err().sqlstate(), "42601");
    }
}
