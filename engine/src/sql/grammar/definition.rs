//! The grammar of definitions that sqlparser does not have, or takes for something else.
//!
//! ```text
//! CREATE [TEMPORARY] TABLE [IF NOT EXISTS] name [(column, …)] [ON COMMIT …] AS query [WITH [NO] DATA]
//! CREATE [TEMPORARY] TABLE [IF NOT EXISTS] name (…, LIKE other [{INCLUDING | EXCLUDING} part …], …) [ON COMMIT …]
//! ALTER TABLE [IF EXISTS] [ONLY] name operation [, …], with these beside sqlparser's:
//!     SET SCHEMA schema
//!     ALTER [COLUMN] column {ADD GENERATED … AS IDENTITY | SET GENERATED … | RESTART … | SET option … | DROP IDENTITY}
//!     ALTER [COLUMN] column DROP EXPRESSION [IF EXISTS]
//! ALTER {VIEW | INDEX | SEQUENCE | SCHEMA} [IF EXISTS] name {RENAME TO name | SET SCHEMA schema}
//! TABLE name, wherever a query may be
//! CREATE VIEW … AS query WITH [CASCADED | LOCAL] CHECK OPTION
//! CREATE [OR REPLACE] [TEMPORARY] RECURSIVE VIEW name (column, …) AS query
//! COMMENT ON {TABLE | VIEW | INDEX | SEQUENCE | SCHEMA | COLUMN | CONSTRAINT … ON} name IS {'text' | NULL}
//! ```

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Ident, ObjectName, ObjectNamePart, SelectItem, TableAlias, TableAliasColumnDef, With,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::statements::{next_words_are, restart_value, sequence_option, take_word, take_words};
use crate::dml::syntax::{alone, select, table_factor};
use crate::sql::route::{
    AlterOperation, AlterTableStatement, CheckOption, CommentStatement, Commented, CreateTableStatement,
    CreateViewStatement, IdentityChange, LikeClause, LikePart, RelationKind, RelocateStatement, Relocation, Write,
};
use crate::sql::text::parse::fold;
use crate::sql::tree::balance::balance;
use crate::{Error, Result};

/// Parses such a statement; `None` if the next words do not begin one.
pub(crate) fn parse_definition(parser: &mut Parser<'_>) -> Result<Option<Write>> {
    if parser.parse_keywords(&[Keyword::ALTER, Keyword::TABLE]) {
        return Ok(Some(Write::AlterTable(Box::new(alter_table(parser)?))));
    }
    if take_words(parser, &["comment", "on"]) {
        return Ok(Some(Write::Comment(Box::new(comment(parser)?))));
    }
    if let Some(relocate) = relocate(parser)? {
        return Ok(Some(Write::Relocate(Box::new(relocate))));
    }
    if let Some((or_replace, temporary)) = parser.maybe_parse(recursive_view_words)? {
        return Ok(Some(Write::CreateView(Box::new(recursive_view(parser, or_replace, temporary)?))));
    }
    if let Some(create) = parser.maybe_parse(create_table_like)? {
        return Ok(Some(Write::CreateTable(Box::new(create))));
    }
    let header = parser.maybe_parse(|parser| {
        let header = create_table_header(parser)?;
        parser.expect_keyword(Keyword::AS)?;
        Ok(header)
    })?;
    let Some(mut create) = header else { return Ok(None) };
    let mut query = parser.parse_query()?;
    balance(&mut query);
    if parser.parse_keyword(Keyword::WITH) {
        create.without_rows = parser.parse_keyword(Keyword::NO);
        if !take_word(parser, "data") {
            let found = parser.peek_token();
            return parser.expected("DATA or NO DATA", found).map_err(Into::into);
        }
    }
    create.query = Some(query);
    Ok(Some(Write::CreateTable(Box::new(create))))
}

/// The beginning of CREATE TABLE … AS.
fn create_table_header(parser: &mut Parser<'_>) -> Result<CreateTableStatement, ParserError> {
    let mut create = create_table_name(parser)?;
    if parser.peek_token().token == Token::LParen {
        create.names = column_names(parser)?;
    }
    create.on_commit = on_commit(parser, create.temporary)?;
    Ok(create)
}

/// Names in parentheses.
fn column_names(parser: &mut Parser<'_>) -> Result<Vec<Ident>, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let names = parser.parse_comma_separated(|parser| parser.parse_identifier())?;
    parser.expect_token(&Token::RParen)?;
    Ok(names)
}

/// CREATE TABLE with a LIKE among its columns and constraints.
fn create_table_like(parser: &mut Parser<'_>) -> Result<CreateTableStatement, ParserError> {
    let mut create = create_table_name(parser)?;
    parser.expect_token(&Token::LParen)?;
    loop {
        if parser.parse_keyword(Keyword::LIKE) {
            let place = create.columns.len();
            create.likes.push(like_clause(parser, place)?);
        } else if let Some(constraint) = parser.parse_optional_table_constraint()? {
            create.constraints.push(constraint);
        } else {
            create.columns.push(parser.parse_column_def()?);
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen)?;
    if create.likes.is_empty() {
        let found = parser.peek_token();
        return parser.expected("LIKE", found);
    }
    create.on_commit = on_commit(parser, create.temporary)?;
    balance(&mut create.columns);
    balance(&mut create.constraints);
    Ok(create)
}

fn like_clause(parser: &mut Parser<'_>, place: usize) -> Result<LikeClause, ParserError> {
    let source = parser.parse_object_name(false)?;
    let mut parts = BTreeSet::new();
    loop {
        let including = take_word(parser, "including");
        if !including && !take_word(parser, "excluding") {
            break;
        }
        let word = parser.parse_identifier()?;
        let named = match fold(&word).as_str() {
            "all" => LikePart::ALL.to_vec(),
            "comments" => vec![LikePart::Comments],
            "constraints" => vec![LikePart::Constraints],
            "defaults" => vec![LikePart::Defaults],
            "generated" => vec![LikePart::Generated],
            "identity" => vec![LikePart::Identity],
            "indexes" => vec![LikePart::Indexes],
            // What tables here do not have.
            "compression" | "statistics" | "storage" => Vec::new(),
            _ => {
                let found = parser.peek_token();
                return parser.expected("what to include of the other table", found);
            }
        };
        match including {
            true => parts.extend(named),
            false => parts.retain(|part| !named.contains(part)),
        }
    }
    Ok(LikeClause { source, parts, place })
}

/// CREATE TABLE as far as the name.
fn create_table_name(parser: &mut Parser<'_>) -> Result<CreateTableStatement, ParserError> {
    parser.expect_keyword(Keyword::CREATE)?;
    let scoped = parser.parse_one_of_keywords(&[Keyword::GLOBAL, Keyword::LOCAL]).is_some();
    let temporary = parser.parse_one_of_keywords(&[Keyword::TEMP, Keyword::TEMPORARY]).is_some();
    if scoped && !temporary {
        let found = parser.peek_token();
        return parser.expected("TEMPORARY", found);
    }
    parser.expect_keyword(Keyword::TABLE)?;
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    Ok(CreateTableStatement {
        name: parser.parse_object_name(false)?,
        if_not_exists,
        temporary,
        on_commit: None,
        columns: Vec::new(),
        constraints: Vec::new(),
        query: None,
        names: Vec::new(),
        without_rows: false,
        likes: Vec::new(),
    })
}

fn on_commit(parser: &mut Parser<'_>, temporary: bool) -> Result<Option<&'static str>, ParserError> {
    if !temporary || !parser.parse_keywords(&[Keyword::ON, Keyword::COMMIT]) {
        return Ok(None);
    }
    Ok(if take_words(parser, &["preserve", "rows"]) {
        None
    } else if take_words(parser, &["delete", "rows"]) {
        Some("delete")
    } else {
        parser.expect_keyword(Keyword::DROP)?;
        Some("drop")
    })
}

fn alter_table(parser: &mut Parser<'_>) -> Result<AlterTableStatement, ParserError> {
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let _ = parser.parse_keyword(Keyword::ONLY);
    let name = parser.parse_object_name(false)?;
    let _ = parser.consume_token(&Token::Mul);
    let operations = parser.parse_comma_separated(alter_operation)?;
    Ok(AlterTableStatement { name, if_exists, operations })
}

fn alter_operation(parser: &mut Parser<'_>) -> Result<AlterOperation, ParserError> {
    if take_words(parser, &["set", "schema"]) {
        return Ok(AlterOperation::SetSchema(fold(&parser.parse_identifier()?)));
    }
    let of_identity = parser.maybe_parse(|parser| {
        parser.expect_keyword(Keyword::ALTER)?;
        let _ = parser.parse_keyword(Keyword::COLUMN);
        let column: Ident = parser.parse_identifier()?;
        Ok(AlterOperation::Identity { column, change: identity_change(parser)? })
    })?;
    match of_identity {
        Some(operation) => Ok(operation),
        None => parser.parse_alter_table_operation().map(|operation| AlterOperation::Sql(Box::new(operation))),
    }
}

fn identity_change(parser: &mut Parser<'_>) -> Result<IdentityChange, ParserError> {
    let generation = |parser: &mut Parser<'_>| {
        if take_word(parser, "always") {
            return Ok(true);
        }
        parser.expect_keywords(&[Keyword::BY, Keyword::DEFAULT]).map(|()| false)
    };
    if take_words(parser, &["add", "generated"]) {
        let always = generation(parser)?;
        parser.expect_keywords(&[Keyword::AS, Keyword::IDENTITY])?;
        let mut options = Vec::new();
        if parser.consume_token(&Token::LParen) {
            while let Some(option) = sequence_option(parser)? {
                options.push(option);
            }
            parser.expect_token(&Token::RParen)?;
        }
        return Ok(IdentityChange::Add { always, options });
    }
    if take_words(parser, &["drop", "identity"]) {
        return Ok(IdentityChange::Drop { if_exists: parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]) });
    }
    if take_words(parser, &["drop", "expression"]) {
        return Ok(IdentityChange::DropExpression {
            if_exists: parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]),
        });
    }
    let (mut always, mut options, mut restart) = (None, Vec::new(), None);
    loop {
        if take_words(parser, &["set", "generated"]) {
            always = Some(generation(parser)?);
        } else if let Some(value) = restart_value(parser)? {
            restart = Some(value);
        } else if next_words_are(parser, &["set"]) {
            parser.next_token();
            match sequence_option(parser)? {
                Some(option) => options.push(option),
                None => {
                    let found = parser.peek_token();
                    return parser.expected("an option of a sequence", found);
                }
            }
        } else {
            break;
        }
    }
    if always.is_none() && options.is_empty() && restart.is_none() {
        let found = parser.peek_token();
        return parser.expected("a change of an identity column", found);
    }
    Ok(IdentityChange::Set { always, options, restart })
}

/// ALTER VIEW, INDEX, SEQUENCE and SCHEMA, as far as it is about names.
fn relocate(parser: &mut Parser<'_>) -> Result<Option<RelocateStatement>, ParserError> {
    parser.maybe_parse(|parser| {
        parser.expect_keyword(Keyword::ALTER)?;
        let kind = if parser.parse_keyword(Keyword::VIEW) {
            RelationKind::View
        } else if parser.parse_keyword(Keyword::INDEX) {
            RelationKind::Index
        } else if parser.parse_keyword(Keyword::SEQUENCE) {
            RelationKind::Sequence
        } else {
            parser.expect_keyword(Keyword::SCHEMA)?;
            RelationKind::Schema
        };
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name: ObjectName = parser.parse_object_name(false)?;
        let change = if take_words(parser, &["rename", "to"]) {
            Relocation::Name(fold(&parser.parse_identifier()?))
        } else {
            parser.expect_keywords(&[Keyword::SET, Keyword::SCHEMA])?;
            Relocation::Schema(fold(&parser.parse_identifier()?))
        };
        Ok(RelocateStatement { kind, name, if_exists, change })
    })
}

fn comment(parser: &mut Parser<'_>) -> Result<CommentStatement, ParserError> {
    let on = if parser.parse_keyword(Keyword::COLUMN) {
        let mut parts = parser.parse_object_name(false)?.0;
        match parts.pop().as_ref().and_then(|part| part.as_ident().cloned()) {
            Some(column) if !parts.is_empty() => Commented::Column { table: ObjectName(parts), column },
            _ => {
                let found = parser.peek_token();
                return parser.expected("a column as table.column", found);
            }
        }
    } else if parser.parse_keyword(Keyword::CONSTRAINT) {
        let name = parser.parse_identifier()?;
        parser.expect_keyword(Keyword::ON)?;
        Commented::Constraint { name, table: parser.parse_object_name(false)? }
    } else {
        let kinds = [
            (Keyword::TABLE, Commented::Table as fn(ObjectName) -> Commented),
            (Keyword::VIEW, Commented::View),
            (Keyword::INDEX, Commented::Index),
            (Keyword::SEQUENCE, Commented::Sequence),
            (Keyword::SCHEMA, Commented::Schema),
        ];
        let found = kinds.into_iter().find(|(keyword, _)| parser.parse_keyword(*keyword));
        match found {
            Some((_, on)) => on(parser.parse_object_name(false)?),
            None => {
                let words = parser.peek_token().to_string().to_ascii_uppercase();
                return Ok(CommentStatement { on: Commented::Other(words), text: skip_to_end(parser) });
            }
        }
    };
    parser.expect_keyword(Keyword::IS)?;
    let text = match parser.parse_keyword(Keyword::NULL) {
        true => None,
        false => Some(parser.parse_literal_string()?).filter(|text| !text.is_empty()),
    };
    Ok(CommentStatement { on, text })
}

/// Writes `TABLE t` as the `SELECT * FROM t` that it is. The parser takes the words behind the name for its own.
pub(in crate::sql) fn tables_as_queries(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let tokens = drop_concurrently(tokens);
    let keyword = |token: &Token| match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let mut rewritten: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut before: Option<Token> = None;
    // Behind the target of an INSERT, before what its rows come from: `INSERT INTO t (a) TABLE u`.
    let mut of_insert = false;
    for token in tokens {
        if matches!(token.token, Token::Whitespace(_)) {
            rewritten.push(token);
            continue;
        }
        let begins_query = before.as_ref().is_none_or(|before| {
            let words = [Keyword::AS, Keyword::UNION, Keyword::ALL, Keyword::EXCEPT, Keyword::INTERSECT];
            let ends = matches!(before, Token::SemiColon | Token::LParen | Token::RParen);
            ends || words.contains(&keyword(before)) || (of_insert && matches!(before, Token::Word(_)))
        });
        match keyword(&token.token) {
            Keyword::INTO => of_insert = before.as_ref().is_some_and(|before| keyword(before) == Keyword::INSERT),
            Keyword::SELECT | Keyword::VALUES | Keyword::WITH | Keyword::DEFAULT | Keyword::TABLE => of_insert = false,
            _ => {}
        }
        let is_table = keyword(&token.token) == Keyword::TABLE && begins_query;
        before = Some(token.token.clone());
        match is_table {
            false => rewritten.push(token),
            true => rewritten.extend(
                [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")]
                    .map(|word| TokenWithSpan::new(word, token.span)),
            ),
        }
    }
    rewritten
}

/// `DROP INDEX CONCURRENTLY` as `DROP INDEX`, which keeps nobody waiting either, unless the table is written anew for it.
fn drop_concurrently(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut visible = (0..tokens.len()).filter(|place| !matches!(tokens[*place].token, Token::Whitespace(_)));
    let first: Vec<usize> = visible.by_ref().take(3).collect();
    let is = |place: usize, wanted: &str| match &tokens[place].token {
        Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted),
        _ => false,
    };
    if let [drop, index, concurrently] = first[..]
        && is(drop, "drop")
        && is(index, "index")
        && is(concurrently, "concurrently")
    {
        tokens.remove(concurrently);
    }
    tokens
}

/// `WITH [CASCADED | LOCAL] CHECK OPTION`, behind the query of CREATE VIEW.
pub(in crate::sql) fn check_option(parser: &mut Parser<'_>) -> Result<CheckOption, ParserError> {
    parser.expect_keyword(Keyword::WITH)?;
    let option = if take_word(parser, "local") {
        CheckOption::Local
    } else {
        let _ = take_word(parser, "cascaded");
        CheckOption::Cascaded
    };
    match take_words(parser, &["check", "option"]) {
        true => Ok(option),
        false => {
            let found = parser.peek_token();
            parser.expected("CHECK OPTION", found)
        }
    }
}

/// CREATE RECURSIVE VIEW as far as VIEW: whether it may replace one, and whether it is temporary.
fn recursive_view_words(parser: &mut Parser<'_>) -> Result<(bool, bool), ParserError> {
    parser.expect_keyword(Keyword::CREATE)?;
    let or_replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
    let temporary = parser.parse_one_of_keywords(&[Keyword::TEMP, Keyword::TEMPORARY]).is_some();
    parser.expect_keyword(Keyword::RECURSIVE)?;
    parser.expect_keyword(Keyword::VIEW)?;
    Ok((or_replace, temporary))
}

/// The rest of `CREATE RECURSIVE VIEW v (a) AS query`, which is
/// `CREATE VIEW v (a) AS WITH RECURSIVE v (a) AS (query) SELECT a FROM v`.
fn recursive_view(parser: &mut Parser<'_>, or_replace: bool, temporary: bool) -> Result<CreateViewStatement> {
    let name = parser.parse_object_name(false)?;
    let columns = column_names(parser)?;
    parser.expect_keyword(Keyword::AS)?;
    let mut query = parser.parse_query()?;
    balance(&mut query);
    if next_words_are(parser, &["with"]) {
        check_option(parser)?;
        return Err(Error::unsupported("WITH CHECK OPTION of a recursive view"));
    }
    let Some(plain) = name.0.last().and_then(ObjectNamePart::as_ident).cloned() else {
        return Err(Error::syntax(format!("\"{name}\" is no name of a view")));
    };
    let column = |name: &Ident| TableAliasColumnDef { name: name.clone(), data_type: None };
    let alias =
        TableAlias { explicit: false, name: plain.clone(), columns: columns.iter().map(column).collect(), at: None };
    let own = Cte { alias, query, from: None, materialized: None, closing_paren_token: AttachedToken::empty() };
    let with = With { with_token: AttachedToken::empty(), recursive: true, cte_tables: vec![own] };
    let list = columns.iter().map(|column| SelectItem::UnnamedExpr(Expr::Identifier(column.clone()))).collect();
    let query = Box::new(select(Some(with), list, vec![alone(table_factor(vec![plain], None))], None));
    Ok(CreateViewStatement { name, temporary, or_replace, if_not_exists: false, columns, query, check: None })
}

/// What is refused by name is not read.
fn skip_to_end(parser: &mut Parser<'_>) -> Option<String> {
    while !matches!(parser.peek_token().token, Token::EOF | Token::SemiColon) {
        parser.next_token();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn parse(sql: &str) -> Write {
        match parse_statement(sql).unwrap().statement {
            ParsedStatement::Own(write) => *write,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn tables_of_queries_name_their_columns() {
        let Write::CreateTable(create) =
            parse("CREATE LOCAL TEMP TABLE t (a, \"B\") ON COMMIT DROP AS SELECT 1, 2 WITH NO DATA")
        else {
            panic!("a table")
        };
        let names: Vec<String> = create.names.iter().map(fold).collect();
        assert_eq!((names, create.on_commit), (vec!["a".to_owned(), "B".to_owned()], Some("drop")));
        assert!(create.temporary && create.without_rows && create.query.is_some());
    }

    #[test]
    fn parts_of_another_table_are_included_and_excluded() {
        let Write::CreateTable(create) =
            parse("CREATE TABLE t (LIKE s.o INCLUDING ALL EXCLUDING indexes EXCLUDING STORAGE)")
        else {
            panic!("a table")
        };
        let [LikeClause { source, parts, place: 0 }] = create.likes.as_slice() else { panic!("one LIKE") };
        assert_eq!((source.to_string().as_str(), parts.len()), ("s.o", LikePart::ALL.len() - 1));
        assert!(!parts.contains(&LikePart::Indexes));
    }

    #[test]
    fn other_tables_stand_among_columns_and_constraints() {
        let Write::CreateTable(create) =
            parse("CREATE TABLE t (a int, LIKE b, c text NOT NULL, LIKE d INCLUDING DEFAULTS, CHECK (a > 0))")
        else {
            panic!("a table")
        };
        let places: Vec<usize> = create.likes.iter().map(|like| like.place).collect();
        assert_eq!((places, create.columns.len(), create.constraints.len()), (vec![1, 2], 2, 1));
    }

    #[test]
    fn recursive_views_are_recursive_queries() {
        let Write::CreateView(create) = parse(
            "CREATE OR REPLACE TEMP RECURSIVE VIEW s.\"V\" (n, m) AS SELECT 1, 2 UNION ALL SELECT n, m FROM \"V\"",
        ) else {
            panic!("a view")
        };
        let expected =
            "WITH RECURSIVE \"V\" (n, m) AS (SELECT 1, 2 UNION ALL SELECT n, m FROM \"V\") SELECT n, m FROM \"V\"";
        assert_eq!(create.query.to_string(), expected);
        assert!(create.or_replace && create.temporary && create.columns.len() == 2);
    }

    #[test]
    fn tables_of_columns_are_left_to_sqlparser() {
        let parsed = parse_statement("CREATE TABLE t (a int, b int)").unwrap().statement;
        assert!(matches!(parsed, ParsedStatement::Sql(_)), "{parsed:?}");
    }

    #[test]
    fn operations_of_both_grammars_mix() {
        let Write::AlterTable(alter) = parse(
            "ALTER TABLE ONLY t ADD COLUMN a int, ALTER a SET DEFAULT 1, ALTER COLUMN b RESTART WITH 5 SET CACHE 3, \
             ALTER b SET GENERATED BY DEFAULT, SET SCHEMA s",
        ) else {
            panic!("a change")
        };
        let own: Vec<bool> =
            alter.operations.iter().map(|operation| !matches!(operation, AlterOperation::Sql(_))).collect();
        assert_eq!(own, [false, false, true, true, true]);
    }
}
