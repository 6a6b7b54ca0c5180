//! The grammar of statements that control transactions, PostgreSQL's: sqlparser's lacks DEFERRABLE, ABORT and the
//! difference between SET TRANSACTION's levels and ours.
//!
//! ```text
//! BEGIN | START TRANSACTION [modes]      COMMIT | END | ROLLBACK | ABORT [WORK | TRANSACTION] [AND [NO] CHAIN]
//! SET TRANSACTION modes                  SET SESSION CHARACTERISTICS AS TRANSACTION modes
//! SAVEPOINT name                         ROLLBACK [WORK | TRANSACTION] TO [SAVEPOINT] name
//! RELEASE [SAVEPOINT] name
//!
//! modes: ISOLATION LEVEL {READ UNCOMMITTED | READ COMMITTED | REPEATABLE READ | SNAPSHOT | SERIALIZABLE},
//!        READ ONLY | READ WRITE, [NOT] DEFERRABLE; with or without commas between them
//! ```

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;
use rustydb_storage::Isolation;

use crate::sql::text::parse::fold;

/// A statement that controls transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TransactionStatement {
    Begin(ModeList),
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    /// The modes of the open transaction.
    SetTransaction(ModeList),
    /// The modes of the transactions to come.
    SetCharacteristics(ModeList),
}

impl TransactionStatement {
    /// Whether it is allowed in a failed transaction, because it ends the failure.
    pub(crate) fn ends_failure(&self) -> bool {
        matches!(
            self,
            TransactionStatement::Commit { .. }
                | TransactionStatement::Rollback { .. }
                | TransactionStatement::RollbackTo(_)
        )
    }
}

/// The modes a statement names; the others stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ModeList {
    pub(crate) isolation: Option<Isolation>,
    pub(crate) read_only: Option<bool>,
    pub(crate) deferrable: Option<bool>,
}

/// Parses such a statement; `None` if the next words do not begin one.
pub(crate) fn parse_transaction(parser: &mut Parser<'_>) -> Result<Option<TransactionStatement>, ParserError> {
    let start = [
        Keyword::BEGIN,
        Keyword::START,
        Keyword::COMMIT,
        Keyword::END,
        Keyword::ABORT,
        Keyword::ROLLBACK,
        Keyword::SAVEPOINT,
        Keyword::RELEASE,
    ];
    if parser.parse_keywords(&[Keyword::SET, Keyword::TRANSACTION]) {
        return Ok(Some(TransactionStatement::SetTransaction(at_least_one_mode(parser)?)));
    }
    if parser.parse_keywords(&[Keyword::SET, Keyword::SESSION, Keyword::CHARACTERISTICS]) {
        parser.expect_keywords(&[Keyword::AS, Keyword::TRANSACTION])?;
        return Ok(Some(TransactionStatement::SetCharacteristics(at_least_one_mode(parser)?)));
    }
    let Some(first) = parser.parse_one_of_keywords(&start) else { return Ok(None) };
    Ok(Some(match first {
        Keyword::BEGIN => {
            filler(parser);
            TransactionStatement::Begin(modes(parser)?)
        }
        Keyword::START => {
            parser.expect_keyword(Keyword::TRANSACTION)?;
            TransactionStatement::Begin(modes(parser)?)
        }
        Keyword::COMMIT | Keyword::END => {
            filler(parser);
            TransactionStatement::Commit { chain: chain(parser)? }
        }
        Keyword::SAVEPOINT => TransactionStatement::Savepoint(name(parser)?),
        Keyword::RELEASE => {
            let _ = parser.parse_keyword(Keyword::SAVEPOINT);
            TransactionStatement::Release(name(parser)?)
        }
        _ => {
            filler(parser);
            if first == Keyword::ROLLBACK && parser.parse_keyword(Keyword::TO) {
                let _ = parser.parse_keyword(Keyword::SAVEPOINT);
                TransactionStatement::RollbackTo(name(parser)?)
            } else {
                TransactionStatement::Rollback { chain: chain(parser)? }
            }
        }
    }))
}

/// WORK and TRANSACTION mean nothing after BEGIN, COMMIT and ROLLBACK.
fn filler(parser: &mut Parser<'_>) {
    let _ = parser.parse_one_of_keywords(&[Keyword::WORK, Keyword::TRANSACTION]);
}

fn chain(parser: &mut Parser<'_>) -> Result<bool, ParserError> {
    if !parser.parse_keyword(Keyword::AND) {
        return Ok(false);
    }
    let chain = !parser.parse_keyword(Keyword::NO);
    parser.expect_keyword(Keyword::CHAIN)?;
    Ok(chain)
}

fn name(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    Ok(fold(&parser.parse_identifier()?))
}

fn at_least_one_mode(parser: &mut Parser<'_>) -> Result<ModeList, ParserError> {
    let modes = modes(parser)?;
    match modes == ModeList::default() {
        true => parser.expected("ISOLATION LEVEL, READ ONLY, READ WRITE or [NOT] DEFERRABLE", parser.peek_token()),
        false => Ok(modes),
    }
}

fn modes(parser: &mut Parser<'_>) -> Result<ModeList, ParserError> {
    let mut modes = ModeList::default();
    let mut required = false;
    loop {
        if parser.parse_keywords(&[Keyword::ISOLATION, Keyword::LEVEL]) {
            modes.isolation = Some(isolation(parser)?);
        } else if parser.parse_keywords(&[Keyword::READ, Keyword::ONLY]) {
            modes.read_only = Some(true);
        } else if parser.parse_keywords(&[Keyword::READ, Keyword::WRITE]) {
            modes.read_only = Some(false);
        } else if parser.parse_keyword(Keyword::DEFERRABLE) {
            modes.deferrable = Some(true);
        } else if parser.parse_keywords(&[Keyword::NOT, Keyword::DEFERRABLE]) {
            modes.deferrable = Some(false);
        } else if required {
            return parser.expected("a transaction mode", parser.peek_token());
        } else {
            return Ok(modes);
        }
        required = parser.consume_token(&Token::Comma);
    }
}

fn isolation(parser: &mut Parser<'_>) -> Result<Isolation, ParserError> {
    if parser.parse_keywords(&[Keyword::READ, Keyword::UNCOMMITTED])
        || parser.parse_keywords(&[Keyword::READ, Keyword::COMMITTED])
    {
        Ok(Isolation::ReadCommitted)
    } else if parser.parse_keywords(&[Keyword::REPEATABLE, Keyword::READ]) || parser.parse_keyword(Keyword::SNAPSHOT) {
        Ok(Isolation::Snapshot)
    } else if parser.parse_keyword(Keyword::SERIALIZABLE) {
        Ok(Isolation::Serializable)
    } else {
        parser.expected("an isolation level", parser.peek_token())
    }
}

/// The level a setting's text names, as SHOW prints it or with a synonym.
pub(crate) fn isolation_named(text: &str) -> Option<Isolation> {
    let words = text.to_ascii_lowercase();
    match words.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["read", "uncommitted" | "committed"] => Some(Isolation::ReadCommitted),
        ["repeatable", "read"] | ["snapshot"] => Some(Isolation::Snapshot),
        ["serializable"] => Some(Isolation::Serializable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn parse(sql: &str) -> TransactionStatement {
        match parse_statement(sql).unwrap().statement {
            ParsedStatement::Transaction(statement) => statement,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn modes_come_in_any_order_with_or_without_commas() {
        let expected =
            ModeList { isolation: Some(Isolation::Serializable), read_only: Some(true), deferrable: Some(true) };
        for modes in
            ["ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE", "deferrable read only isolation level serializable"]
        {
            assert_eq!(parse(&format!("BEGIN {modes}")), TransactionStatement::Begin(expected));
            assert_eq!(parse(&format!("START TRANSACTION {modes};")), TransactionStatement::Begin(expected));
            assert_eq!(parse(&format!("SET TRANSACTION {modes}")), TransactionStatement::SetTransaction(expected));
        }
        assert_eq!(parse_statement("SET TRANSACTION").unwrap_err().sqlstate(), "42601");
        assert_eq!(parse_statement("BEGIN READ ONLY,").unwrap_err().sqlstate(), "42601");
    }

    #[test]
    fn ends_and_savepoints_have_their_synonyms() {
        for sql in ["COMMIT", "END TRANSACTION", "commit work and no chain"] {
            assert_eq!(parse(sql), TransactionStatement::Commit { chain: false }, "{sql}");
        }
        for sql in ["ROLLBACK AND CHAIN", "ABORT WORK AND CHAIN"] {
            assert_eq!(parse(sql), TransactionStatement::Rollback { chain: true }, "{sql}");
        }
        for sql in ["ROLLBACK TO A", "rollback work to savepoint a"] {
            assert_eq!(parse(sql), TransactionStatement::RollbackTo("a".into()), "{sql}");
        }
        assert_eq!(parse("RELEASE \"A\""), TransactionStatement::Release("A".into()));
        assert_eq!(parse("SAVEPOINT s1"), TransactionStatement::Savepoint("s1".into()));
    }

    #[test]
    fn other_settings_are_not_taken_for_modes() {
        assert!(matches!(parse_statement("SET timezone = 'UTC'").unwrap().statement, ParsedStatement::Sql(_)));
        assert!(matches!(parse_statement("SET SESSION timezone = 'UTC'").unwrap().statement, ParsedStatement::Sql(_)));
    }
}
