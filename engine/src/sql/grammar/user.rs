//! The grammar of statements about users, PostgreSQL's as far as it goes: sqlparser's is another system's.
//!
//! ```text
//! CREATE USER [IF NOT EXISTS] name [[WITH] option …]
//! ALTER USER [IF EXISTS] {name | CURRENT_USER} [WITH] option …
//! ALTER USER name RENAME TO name
//! DROP USER [IF EXISTS] name [, …]
//! SHOW USERS
//!
//! option: [ENCRYPTED] PASSWORD {'text' | NULL} | SUPERUSER | NOSUPERUSER | LOGIN
//! ```
//!
//! Invariant: a password is in no error message and in no debug output.

use std::fmt;

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::sql::text::parse::fold;

/// A statement about users.
#[derive(Debug, Clone)]
pub(crate) enum UserStatement {
    Create { name: String, if_not_exists: bool, options: UserOptions },
    Alter { name: UserName, if_exists: bool, options: UserOptions },
    Rename { name: UserName, to: String },
    Drop { names: Vec<UserName>, if_exists: bool },
    Show,
}

/// A user who exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UserName {
    Named(String),
    /// CURRENT_USER
    Current,
}

/// What a statement says about a user; the rest stays as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserOptions {
    pub(crate) password: Option<NewPassword>,
    pub(crate) administrator: Option<bool>,
}

#[derive(Debug, Clone)]
pub(crate) enum NewPassword {
    /// PASSWORD NULL
    None,
    Secret(Secret),
}

/// Text that is not shown.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Parses such a statement; `None` if the next words do not begin one.
pub(crate) fn parse_user_statement(parser: &mut Parser<'_>) -> Result<Option<UserStatement>, ParserError> {
    if parser.parse_keywords(&[Keyword::CREATE, Keyword::USER]) {
        let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        let name = fold(&parser.parse_identifier()?);
        let options = if ends(parser) { UserOptions::default() } else { options(parser)? };
        return Ok(Some(UserStatement::Create { name, if_not_exists, options }));
    }
    if parser.parse_keywords(&[Keyword::ALTER, Keyword::USER]) {
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = user_name(parser)?;
        if !if_exists && parser.parse_keywords(&[Keyword::RENAME, Keyword::TO]) {
            return Ok(Some(UserStatement::Rename { name, to: fold(&parser.parse_identifier()?) }));
        }
        return Ok(Some(UserStatement::Alter { name, if_exists, options: options(parser)? }));
    }
    if parser.parse_keywords(&[Keyword::DROP, Keyword::USER]) {
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let names = parser.parse_comma_separated(user_name)?;
        return Ok(Some(UserStatement::Drop { names, if_exists }));
    }
    // USERS is no keyword of the parser's.
    let is_users = |token: &Token| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case("users"));
    if matches!(&parser.peek_token().token, Token::Word(word) if word.keyword == Keyword::SHOW)
        && is_users(&parser.peek_nth_token(1).token)
    {
        parser.next_token();
        parser.next_token();
        return Ok(Some(UserStatement::Show));
    }
    Ok(None)
}

fn ends(parser: &Parser<'_>) -> bool {
    matches!(parser.peek_token().token, Token::EOF | Token::SemiColon)
}

fn user_name(parser: &mut Parser<'_>) -> Result<UserName, ParserError> {
    if parser.parse_one_of_keywords(&[Keyword::CURRENT_USER, Keyword::SESSION_USER]).is_some() {
        return Ok(UserName::Current);
    }
    Ok(UserName::Named(fold(&parser.parse_identifier()?)))
}

fn options(parser: &mut Parser<'_>) -> Result<UserOptions, ParserError> {
    let _ = parser.parse_keyword(Keyword::WITH);
    let mut options = UserOptions::default();
    loop {
        let error = |text: &str| Err(ParserError::ParserError(text.to_owned()));
        let word = match parser.next_token().token {
            Token::Word(word) => word.value.to_ascii_uppercase(),
            _ => return error("expected an option of a user: PASSWORD '…', SUPERUSER or NOSUPERUSER"),
        };
        match word.as_str() {
            "ENCRYPTED" if matches!(&parser.peek_token().token, Token::Word(word) if word.keyword == Keyword::PASSWORD) =>
                {}
            "PASSWORD" if options.password.is_some() => return error("PASSWORD is given twice"),
            "PASSWORD" => options.password = Some(password(parser)?),
            "SUPERUSER" | "NOSUPERUSER" if options.administrator.is_some() => {
                return error("SUPERUSER or NOSUPERUSER is given twice");
            }
            "SUPERUSER" => options.administrator = Some(true),
            "NOSUPERUSER" => options.administrator = Some(false),
            // What every user can do.
            "LOGIN" => {}
            // Quoted, it could be a password that lost its keyword.
            _ => return error("this option of a user is not known: there are PASSWORD '…', SUPERUSER and NOSUPERUSER"),
        }
        if ends(parser) {
            return Ok(options);
        }
    }
}

fn password(parser: &mut Parser<'_>) -> Result<NewPassword, ParserError> {
    match parser.next_token().token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Ok(NewPassword::Secret(Secret(text))),
        Token::Word(word) if word.keyword == Keyword::NULL => Ok(NewPassword::None),
        _ => Err(ParserError::ParserError("expected a password in single quotes, or NULL, after PASSWORD".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn parsed(sql: &str) -> UserStatement {
        match parse_statement(sql).unwrap().statement {
            ParsedStatement::User(statement) => statement,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_statements_are_read() {
        let UserStatement::Create { name, if_not_exists: false, options } =
            parsed("create user Ann with encrypted password 'secret!!' superuser;")
        else {
            panic!("CREATE USER")
        };
        assert_eq!((name.as_str(), options.administrator), ("ann", Some(true)));
        assert!(matches!(&options.password, Some(NewPassword::Secret(secret)) if secret.reveal() == "secret!!"));
        assert!(matches!(parsed("ALTER USER ann PASSWORD NULL"), UserStatement::Alter { if_exists: false, .. }));
        let current = parsed("ALTER USER CURRENT_USER PASSWORD 'x'");
        assert!(matches!(current, UserStatement::Alter { name: UserName::Current, .. }));
        assert!(matches!(parsed("ALTER USER a RENAME TO \"B\""), UserStatement::Rename { to, .. } if to == "B"));
        let UserStatement::Drop { names, if_exists: true } = parsed("DROP USER IF EXISTS a, b") else { panic!("DROP") };
        assert_eq!(names.len(), 2);
        assert!(matches!(parsed("SHOW users"), UserStatement::Show));
    }

    #[test]
    fn a_password_is_never_shown() {
        for sql in [
            "CREATE USER a PASSWORD hunter2222",
            "CREATE USER a PASSWORD \"hunter2222\"",
            "CREATE USER a PASSWORD 'x' 'hunter2222'",
            "CREATE USER a hunter2222",
            "ALTER USER a PASSWORD 'x' PASSWORD 'hunter2222'",
        ] {
            let error = parse_statement(sql).unwrap_err();
            assert_eq!(error.sqlstate(), "42601", "{sql}");
            assert!(!format!("{error:?}").contains("hunter2222"), "{error:?}");
        }
        let statement = parsed("CREATE USER a PASSWORD 'hunter2222'");
        assert!(!format!("{statement:?}").contains("hunter2222"));
    }
}
