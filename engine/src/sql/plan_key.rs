//! What a kept plan is found by: the statement's text, in a form that layout and comments do not change, and the values of
//! its parameters.
//!
//! Two texts with one key must mean the same, so texts are only brought into form as far as that is plain: spaces and
//! comments to the end of the line outside of quotes become one space, and those at the end go, with the semicolon. What has
//! quotes of other kinds, or comments within comments, stays as it is.

use std::borrow::Cow;
use std::fmt::Write;

use datafusion::scalar::ScalarValue;

/// Longer texts, and texts with longer values, are seldom sent twice.
const KEY_BYTES_MAX: usize = 16 * 1024;

/// The key of a statement with these parameters; `None` if it would be long, or a value has no exact form.
pub(crate) fn plan_key<'a>(text: &'a str, parameters: &[ScalarValue]) -> Option<Cow<'a, str>> {
    // It is what stands before values, and no statement has it.
    if text.contains('\0') {
        return None;
    }
    if text.len() > KEY_BYTES_MAX {
        return None;
    }
    let mut key = in_form(text);
    for value in parameters {
        let printed = printed(value)?;
        if key.len() + printed.len() > KEY_BYTES_MAX {
            return None;
        }
        // The length tells where a text ends that may hold anything.
        write!(key.to_mut(), "\0{}:{printed}", printed.len()).ok()?;
    }
    Some(key)
}

/// A value with its type, whole and exact, if that is short.
fn printed(value: &ScalarValue) -> Option<String> {
    match value {
        // Days beyond the calendar's end, and times within a day, are not in what dates print.
        ScalarValue::Date32(Some(days)) => Some(format!("Date32 {days}")),
        ScalarValue::Date64(Some(milliseconds)) => Some(format!("Date64 {milliseconds}")),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text))
            if text.len() > KEY_BYTES_MAX =>
        {
            None
        }
        ScalarValue::Binary(Some(bytes))
        | ScalarValue::LargeBinary(Some(bytes))
        | ScalarValue::BinaryView(Some(bytes))
        | ScalarValue::FixedSizeBinary(_, Some(bytes))
            if bytes.len() > KEY_BYTES_MAX =>
        {
            None
        }
        // Arrays print as much of themselves as people like to read.
        value if value.data_type().is_nested() => None,
        value => Some(format!("{value:?}")),
    }
}

/// Whether a key is one of a statement with parameters.
pub(crate) fn has_values(key: &str) -> bool {
    key.contains('\0')
}

fn in_form(text: &str) -> Cow<'_, str> {
    // Dollar quotes, escapes, comments that nest, and lines that end as they did on old Macintoshes, comments too.
    let is_plain =
        !text.contains(['\\', '`']) && !text.contains("/*") && !has_dollar_quote(text) && !has_lone_return(text);
    if !is_plain {
        return Cow::Borrowed(text);
    }
    let mut form = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut quote = None;
    let mut gap = None;
    while let Some(character) = characters.next() {
        if quote.is_none() && character.is_ascii_whitespace() {
            gap = Some(if gap == Some('\n') || character == '\n' { '\n' } else { ' ' });
            continue;
        }
        if quote.is_none() && character == '-' && characters.peek() == Some(&'-') {
            characters.by_ref().find(|character| *character == '\n');
            gap = Some('\n');
            continue;
        }
        if let Some(gap) = gap.take()
            && !form.is_empty()
        {
            // Two strings on two lines are one string; on one line they are a mistake.
            form.push(if gap == '\n' && character == '\'' && form.ends_with('\'') { '\n' } else { ' ' });
        }
        form.push(character);
        quote = match quote {
            // A quote within quotes is written twice: it ends them, and begins them again.
            Some(open) if open == character => None,
            None if matches!(character, '\'' | '"') => Some(character),
            other => other,
        };
    }
    if quote.is_some() {
        return Cow::Borrowed(text);
    }
    let ended = form.trim_end_matches([';', ' ']).len();
    form.truncate(ended);
    Cow::Owned(form)
}

/// Whether there is a dollar that does not begin the name of a parameter.
fn has_dollar_quote(text: &str) -> bool {
    text.match_indices('$').any(|(at, _)| !text[at + 1..].starts_with(|next: char| next.is_ascii_digit()))
}

fn has_lone_return(text: &str) -> bool {
    text.match_indices('\r').any(|(at, _)| !text[at + 1..].starts_with('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> String {
        plan_key(text, &[]).unwrap().into_owned()
    }

    #[test]
    fn layout_and_comments_outside_of_quotes_make_no_difference() {
        let plain = key("SELECT a, 'x  y' FROM t WHERE b = $1");
        for same in [
            "SELECT a, 'x  y' FROM t WHERE b = $1;",
            "  SELECT a,\n\t'x  y'\n  FROM t  -- of t's rows\n WHERE b = $1 ; ",
            "-- first\nSELECT a, 'x  y' FROM t WHERE b = $1 --",
        ] {
            assert_eq!(key(same), plain, "{same}");
        }
        for other in [
            "SELECT a, 'x y' FROM t WHERE b = $1",
            "SELECT a, 'x -- y' FROM t WHERE b = $1",
            "select a, 'x  y' FROM t WHERE b = $1",
            "SELECT a, \"x  y\" FROM t WHERE b = $1",
            "SELECT a, 'x  y' FROM t WHERE b = $2",
        ] {
            assert_ne!(key(other), plain, "{other}");
        }
        assert_eq!(key("SELECT 'it''s  -- no comment'"), "SELECT 'it''s  -- no comment'");
        assert_eq!(key("SELECT \"a  'b\" ,  1"), "SELECT \"a  'b\" , 1");
        assert_eq!(key("SELECT 'a;  '"), "SELECT 'a;  '");
    }

    #[test]
    fn strings_on_two_lines_are_not_those_on_one() {
        assert_ne!(key("SELECT 'a'\n'b'"), key("SELECT 'a' 'b'"));
        assert_eq!(key("SELECT 'a' \n  'b'"), key("SELECT 'a'\n'b'"));
        assert_ne!(key("SELECT 'a'--\n'b'"), key("SELECT 'a' 'b'"));
    }

    #[test]
    fn what_is_not_plain_stays_as_it_is() {
        assert_eq!(key("SELECT 1 -- one\r\n , 2"), "SELECT 1 , 2");
        for text in [
            "SELECT count(*) FROM t -- x\rWHERE b = 1",
            "SELECT 'a'\r'b'",
            "SELECT  E'a\\'  b'",
            "SELECT  $$a  b$$",
            "SELECT  $x$a  b$x$",
            "SELECT  1 /* a  /* b */ */",
            "SELECT  'open  ",
            "SELECT  $",
        ] {
            assert_eq!(key(text), text);
        }
    }

    #[test]
    fn values_of_parameters_are_told_apart_with_their_types() {
        let of = |values: &[ScalarValue]| plan_key("SELECT $1, $2", values).map(Cow::into_owned);
        let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
        let number = |number: i64| ScalarValue::Int64(Some(number));
        let keys = [
            of(&[number(1), number(2)]),
            of(&[number(2), number(1)]),
            of(&[number(1), ScalarValue::Int32(Some(2))]),
            of(&[number(1), ScalarValue::Int64(None)]),
            of(&[text("a"), text("b")]),
            of(&[text("a\0"), text("b")]),
            of(&[text("a"), text("\")\0Utf8(\"b")]),
            of(&[text("a\")\0\u{31}1:Utf8(\"b\")"), text("")]),
            of(&[ScalarValue::Float64(Some(0.0)), number(1)]),
            of(&[ScalarValue::Float64(Some(-0.0)), number(1)]),
            of(&[ScalarValue::Decimal128(Some(100), 5, 2), number(1)]),
            of(&[ScalarValue::Decimal128(Some(100), 5, 1), number(1)]),
        ];
        let different: std::collections::HashSet<_> = keys.iter().flatten().collect();
        assert_eq!(different.len(), keys.len(), "{keys:?}");
        let list = ScalarValue::new_list_nullable(&[number(1)], &arrow::datatypes::DataType::Int64);
        assert!(of(&[ScalarValue::List(list), number(1)]).is_none());
        let days = |days| of(&[ScalarValue::Date32(Some(days)), number(1)]).unwrap();
        assert_ne!(days(i32::MAX), days(i32::MIN));
        let milliseconds = |milliseconds| of(&[ScalarValue::Date64(Some(milliseconds)), number(1)]).unwrap();
        assert_ne!(milliseconds(i64::MIN), milliseconds(i64::MAX));
        assert_ne!(milliseconds(0), milliseconds(1));
        assert!(of(&[text(&"x".repeat(20_000)), number(1)]).is_none());
        assert!(plan_key(&" ".repeat(20_000), &[]).is_none());
        assert!(plan_key("SELECT $1\0\u{38}:Int64(1)", &[]).is_none());
    }
}
