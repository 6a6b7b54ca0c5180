//! PL/pgSQL's words.
//!
//! The language around the SQL has few tokens of its own, and SQL inside of it is handed over as text; so this lexer only
//! has to know where words, strings, comments and numbers begin and end. `1..10` is three tokens, as PL/pgSQL wants it.
//!
//! Invariant: tokens lie within the text, in order, on character boundaries, for whatever text.

use rustydb_engine::Position;

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or keyword without quotes, in lower case.
    Word(String),
    /// A quoted identifier, without its quotes.
    Quoted(String),
    Number,
    /// Any kind of string, with what it says.
    Text(String),
    /// `$1`
    Parameter,
    /// `:=`
    Assign,
    /// `..`
    DotDot,
    /// `<<`
    OpenLabel,
    /// `>>`
    CloseLabel,
    /// Any other single character.
    Symbol(char),
    End,
}

/// A token and where it is.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A text that cannot be split into tokens: what is wrong, and where.
#[derive(Debug)]
pub(super) struct LexError {
    pub(super) message: String,
    pub(super) offset: usize,
}

/// Splits a text. The last token is [`Kind::End`].
pub(super) fn tokenize(text: &str) -> Result<Vec<Token>, LexError> {
    let mut lexer = Lexer { text, position: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let start = lexer.position;
        let kind = lexer.next_kind()?;
        let ended = kind == Kind::End;
        tokens.push(Token { kind, start, end: lexer.position });
        if ended {
            return Ok(tokens);
        }
    }
}

/// The place of a byte in a text.
pub(super) fn place_of(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    Position { line, column }
}

struct Lexer<'a> {
    text: &'a str,
    position: usize,
}

fn begins_word(letter: char) -> bool {
    letter.is_alphabetic() || letter == '_' || !letter.is_ascii()
}

fn continues_word(letter: char) -> bool {
    begins_word(letter) || letter.is_ascii_digit() || letter == '$'
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.position..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &str {
        let start = self.position;
        let length = self.rest().find(|letter| !accept(letter)).unwrap_or(self.rest().len());
        self.position += length;
        &self.text[start..self.position]
    }

    fn fail<T>(&self, message: &str, offset: usize) -> Result<T, LexError> {
        Err(LexError { message: message.to_owned(), offset })
    }

    fn skip_blanks(&mut self) -> Result<(), LexError> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest().starts_with("--") {
                self.take_while(|letter| letter != '\n');
            } else if self.rest().starts_with("/*") {
                self.skip_comment()?;
            } else {
                return Ok(());
            }
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) -> Result<(), LexError> {
        let start = self.position;
        let mut depth = 0usize;
        loop {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.position += 2;
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.position += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                match self.peek() {
                    Some(letter) => self.position += letter.len_utf8(),
                    None => return self.fail("unterminated comment", start),
                }
            }
        }
    }

    fn next_kind(&mut self) -> Result<Kind, LexError> {
        let Some(first) = self.peek() else { return Ok(Kind::End) };
        let start = self.position;
        let second = self.rest().chars().nth(1);
        match (first, second) {
            ('\'', _) => self.quoted('\'', false).map(Kind::Text),
            ('e' | 'E', Some('\'')) => {
                self.position += 1;
                self.quoted('\'', true).map(Kind::Text)
            }
            ('b' | 'B' | 'x' | 'X' | 'n' | 'N', Some('\'')) => {
                self.position += 1;
                self.quoted('\'', false).map(Kind::Text)
            }
            ('"', _) => self.quoted('"', false).map(Kind::Quoted),
            ('$', Some(next)) if next.is_ascii_digit() => {
                self.position += 1;
                self.take_while(|letter| letter.is_ascii_digit());
                Ok(Kind::Parameter)
            }
            ('$', _) => match self.dollar_quoted() {
                Some(text) => text.map(Kind::Text),
                None => {
                    self.position += 1;
                    Ok(Kind::Symbol('$'))
                }
            },
            (':', Some('=')) => {
                self.position += 2;
                Ok(Kind::Assign)
            }
            ('.', Some('.')) => {
                self.position += 2;
                Ok(Kind::DotDot)
            }
            ('<', Some('<')) => {
                self.position += 2;
                Ok(Kind::OpenLabel)
            }
            ('>', Some('>')) => {
                self.position += 2;
                Ok(Kind::CloseLabel)
            }
            (digit, next) if digit.is_ascii_digit() || (digit == '.' && next.is_some_and(|c| c.is_ascii_digit())) => {
                self.number();
                Ok(Kind::Number)
            }
            (letter, _) if begins_word(letter) => {
                self.take_while(continues_word);
                Ok(Kind::Word(self.text[start..self.position].to_lowercase()))
            }
            (symbol, _) => {
                self.position += symbol.len_utf8();
                Ok(Kind::Symbol(symbol))
            }
        }
    }

    fn number(&mut self) {
        self.take_while(|letter| letter.is_ascii_digit());
        // `1..10` is a range and not the number `1.` before `.10`.
        if self.rest().starts_with('.') && !self.rest().starts_with("..") {
            self.position += 1;
            self.take_while(|letter| letter.is_ascii_digit());
        }
        let mut after = self.rest().chars();
        if matches!(after.next(), Some('e' | 'E')) {
            let next = after.next();
            let signed = matches!(next, Some('+' | '-'));
            let digit = if signed { after.next() } else { next };
            if digit.is_some_and(|letter| letter.is_ascii_digit()) {
                self.position += if signed { 2 } else { 1 };
                self.take_while(|letter| letter.is_ascii_digit());
            }
        }
    }

    /// From the opening quote to the closing one. A doubled quote stands for itself.
    fn quoted(&mut self, quote: char, escapes: bool) -> Result<String, LexError> {
        let start = self.position;
        self.position += 1;
        let mut value = String::new();
        while let Some(letter) = self.peek() {
            self.position += letter.len_utf8();
            if letter == quote {
                if self.peek() != Some(quote) {
                    return Ok(value);
                }
                self.position += 1;
                value.push(quote);
            } else if letter == '\\' && escapes {
                let Some(escaped) = self.peek() else { break };
                self.position += escaped.len_utf8();
                value.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    other => other,
                });
            } else {
                value.push(letter);
            }
        }
        self.fail(if quote == '"' { "unterminated quoted identifier" } else { "unterminated quoted string" }, start)
    }

    /// `$tag$ … $tag$`; `None` if it is no such string.
    fn dollar_quoted(&mut self) -> Option<Result<String, LexError>> {
        let start = self.position;
        let rest = self.rest();
        let tag_length = rest[1..].find(|letter| !(continues_word(letter) && letter != '$'))?;
        if !rest[1 + tag_length..].starts_with('$') {
            return None;
        }
        let tag = rest[..tag_length + 2].to_owned();
        self.position += tag.len();
        match self.rest().find(&tag) {
            Some(length) => {
                let text = self.rest()[..length].to_owned();
                self.position += length + tag.len();
                Some(Ok(text))
            }
            None => Some(self.fail("unterminated dollar-quoted string", start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        tokenize(text).unwrap().into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn a_range_is_not_two_numbers() {
        let texts: Vec<&str> =
            tokenize("1..10 1.5e3 .5").unwrap().iter().map(|token| &"1..10 1.5e3 .5"[token.start..token.end]).collect();
        assert_eq!(texts, ["1", "..", "10", "1.5e3", ".5", ""]);
    }

    #[test]
    fn strings_names_and_comments_are_one_token_or_none() {
        assert_eq!(
            kinds("a /* b /* c */ */ 'it''s' \"X\"\"y\" $q$;$q$ E'\\n' -- end\n$1"),
            [
                Kind::Word("a".into()),
                Kind::Text("it's".into()),
                Kind::Quoted("X\"y".into()),
                Kind::Text(";".into()),
                Kind::Text("\n".into()),
                Kind::Parameter,
                Kind::End
            ]
        );
    }

    #[test]
    fn what_never_ends_is_an_error_at_its_beginning() {
        for text in ["a 'b", "a \"b", "a $x$b", "a /* b"] {
            assert_eq!(tokenize(text).unwrap_err().offset, 2, "{text}");
        }
    }
}
