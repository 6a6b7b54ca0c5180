//! The grammar of statements that look after the store: CHECKPOINT, VACUUM and ANALYZE.
//!
//! ```text
//! CHECKPOINT                       VACUUM [FULL | VERBOSE | FREEZE | ANALYZE]… [table, …]
//! ANALYZE [VERBOSE] [table, …]     both also with their options in parentheses
//! ```
//! The store flushes, compacts and counts by itself. The statements exist because people and tools know them, and to
//! have it done *now*: before a measurement, a backup or a look at the files. They always mean the whole database; the
//! names of tables are checked by nobody.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaintenanceStatement {
    /// Rows in memory go to segments, and the log begins anew.
    Checkpoint,
    /// That, and segments are merged until none are worth merging.
    Vacuum,
    /// Nothing: the writers keep the statistics.
    Analyze,
}

impl MaintenanceStatement {
    /// Its name, which is also its completion tag.
    pub(crate) fn name(self) -> &'static str {
        match self {
            MaintenanceStatement::Checkpoint => "CHECKPOINT",
            MaintenanceStatement::Vacuum => "VACUUM",
            MaintenanceStatement::Analyze => "ANALYZE",
        }
    }
}

/// Parses such a statement; `None` if the next word does not begin one.
pub(crate) fn parse_maintenance(parser: &mut Parser<'_>) -> Result<Option<MaintenanceStatement>, ParserError> {
    let statement = match parser.peek_token().token {
        Token::Word(word) if word.quote_style.is_none() => match word.value.to_ascii_lowercase().as_str() {
            "checkpoint" => MaintenanceStatement::Checkpoint,
            "vacuum" => MaintenanceStatement::Vacuum,
            "analyze" | "analyse" => MaintenanceStatement::Analyze,
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    parser.next_token();
    if statement == MaintenanceStatement::Checkpoint {
        return Ok(Some(statement));
    }
    if parser.consume_token(&Token::LParen) {
        parser.parse_comma_separated(|parser| {
            parser.parse_identifier()?;
            if !matches!(parser.peek_token().token, Token::Comma | Token::RParen) {
                parser.next_token();
            }
            Ok(())
        })?;
        parser.expect_token(&Token::RParen)?;
    }
    while parser.parse_one_of_keywords(&[Keyword::FULL, Keyword::VERBOSE, Keyword::FREEZE, Keyword::ANALYZE]).is_some()
    {
    }
    if !matches!(parser.peek_token().token, Token::EOF | Token::SemiColon) {
        parser.parse_comma_separated(|parser| {
            parser.parse_object_name(false)?;
            if parser.peek_token().token == Token::LParen {
                parser.parse_parenthesized_column_list(
                    datafusion::sql::sqlparser::parser::IsOptional::Mandatory,
                    false,
                )?;
            }
            Ok(())
        })?;
    }
    Ok(Some(statement))
}
