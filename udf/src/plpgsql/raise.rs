//! RAISE: its grammar, and its format strings.
//!
//! ```text
//! RAISE [level] 'format' [, expression …] [USING option = expression, …]
//! RAISE [level] condition_name | SQLSTATE 'state' [USING …]
//! RAISE [level] USING …
//! RAISE
//! ```

use rustydb_engine::Result;

use super::ast::{Level, Raise, RaiseOption};
use super::conditions::states_of;
use super::lexer::Kind;
use super::parser::Parser;

/// Parses what follows RAISE, to the semicolon.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Raise> {
    let start = parser.offset();
    let mut raise = Raise {
        level: Level::Exception,
        again: false,
        state: None,
        condition: None,
        format: None,
        arguments: Vec::new(),
        options: Vec::new(),
    };
    if parser.take_symbol(';') {
        raise.again = true;
        return Ok(raise);
    }
    let levels = [
        ("debug", Level::Debug),
        ("log", Level::Log),
        ("info", Level::Info),
        ("notice", Level::Notice),
        ("warning", Level::Warning),
        ("exception", Level::Exception),
    ];
    if let Some((_, level)) = levels.into_iter().find(|(word, _)| parser.take_word(word)) {
        raise.level = level;
    }
    let ends = |kind: &Kind| match kind {
        Kind::Symbol(',' | ';') => true,
        Kind::Word(word) => word == "using",
        _ => false,
    };
    match parser.peek().clone() {
        Kind::Text(format) => {
            parser.advance();
            while parser.take_symbol(',') {
                raise.arguments.push(parser.fragment(ends)?);
            }
            let places = pieces(&format).iter().filter(|piece| **piece == Piece::Argument).count();
            if places != raise.arguments.len() {
                let which = if places > raise.arguments.len() { "few" } else { "many" };
                return Err(parser.error("42601", format!("too {which} parameters specified for RAISE"), start));
            }
            raise.format = Some(format);
        }
        Kind::Word(word) if word == "using" => {}
        Kind::Word(word) if word == "sqlstate" => {
            parser.advance();
            raise.state = Some(parser.state()?);
        }
        Kind::Word(_) | Kind::Quoted(_) => {
            let offset = parser.offset();
            let name = parser.name()?;
            let states = states_of(&name);
            let Some(state) = states.first() else {
                let message = format!("unrecognized exception condition \"{name}\"");
                return Err(parser.error("42704", message, offset));
            };
            raise.state = Some((*state).to_owned());
            raise.condition = Some(name);
        }
        _ => return Err(parser.unexpected()),
    }
    if parser.take_word("using") {
        loop {
            let offset = parser.offset();
            let option = match parser.name()?.as_str() {
                "message" => RaiseOption::Message,
                "detail" => RaiseOption::Detail,
                "hint" => RaiseOption::Hint,
                "errcode" => RaiseOption::Errcode,
                "column" | "constraint" | "datatype" | "table" | "schema" => RaiseOption::Other,
                _ => return Err(parser.error("42601", "unrecognized RAISE statement option", offset)),
            };
            if !matches!(parser.peek(), Kind::Assign | Kind::Symbol('=')) {
                return Err(parser.unexpected());
            }
            parser.advance();
            raise.options.push((option, parser.fragment(ends)?));
            if !parser.take_symbol(',') {
                break;
            }
        }
    }
    parser.expect_symbol(';')?;
    Ok(raise)
}

/// A part of a format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// `%`; `%%` is a percent sign.
    Argument,
}

/// Takes a format string apart.
pub(super) fn pieces(format: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
        } else if letters.next_if_eq(&'%').is_some() {
            text.push('%');
        } else {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Argument);
        }
    }
    pieces.push(Piece::Text(text));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_arguments_unless_doubled() {
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(pieces("a % of 10%%"), [text("a "), Piece::Argument, text(" of 10%")]);
    }
}
