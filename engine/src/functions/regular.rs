//! Functions of regular expressions, as PostgreSQL has them: `.` matches a line break, a group that takes no part in a
//! match is NULL, and in a replacement `\1`, `\&` and `\\` mean something, `$` does not.
//!
//! | function | what it gives |
//! |---|---|
//! | `regexp_replace(text, pattern, replacement [, flags])` | the text, the first match replaced, or with `g` all |
//! | `regexp_match(text, pattern [, flags])` | the groups of the first match, or without groups the match |
//! | [`ALL_MATCHES`] | an array of such arrays: of the first match, or with `g` of all |
//!
//! The flags: `i` and `c` whether case matters, `x` and `t` whether blanks do, `q` for a text that stands for itself, and
//! what line breaks are: `s` letters as any, `n` and `m` the ends of lines, `p` no matches of `.`, `w` places for `^` and
//! `$`. Patterns are [PostgreSQL's](super::pattern_syntax), but for what the library cannot do. Functions that begin at a
//! place in the text, or look for the n-th match, are in [`super::regular_places`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringViewArray, StringViewBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_nested::extract::array_element_udf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use regex::{CaptureLocations, Captures, Regex, RegexBuilder};

use super::by_rows::texts;
use super::pattern_syntax::{ACROSS_LINES, translated};
use super::regular_places::{matches_with_groups, replaced as replaced_at, replaced_from, replacement_types};
use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// The array of what `regexp_matches` returns as a set (see [`crate::sql`]).
pub(crate) const ALL_MATCHES: &str = "all_regexp_matches";

static FIRST_MATCH: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let (kind, signature) = (Kind::FirstMatch, Signature::user_defined(Volatility::Immutable));
    Arc::new(ScalarUDF::from(OfPattern { kind, signature }))
});

/// The first group of the first match, or without groups the match.
pub(crate) fn first_group(text: Expr, pattern: Expr) -> Expr {
    array_element_udf().call(vec![FIRST_MATCH.call(vec![text, pattern]), lit(1_i64)])
}

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [Kind::Replace, Kind::FirstMatch, Kind::AllMatches]
        .into_iter()
        .map(|kind| OfPattern { kind, signature: Signature::user_defined(Volatility::Immutable) })
        .map(|function| Arc::new(ScalarUDF::from(function)))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Replace,
    FirstMatch,
    AllMatches,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfPattern {
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for OfPattern {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Replace => "regexp_replace",
            Kind::FirstMatch => "regexp_match",
            Kind::AllMatches => ALL_MATCHES,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, argument_types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        if self.kind == Kind::Replace
            && let Some(types) = replacement_types(argument_types)
        {
            return Ok(types);
        }
        let least = if self.kind == Kind::Replace { 3 } else { 2 };
        let fits = (least..=least + 1).contains(&argument_types.len());
        texts(argument_types).filter(|_| fits).ok_or_else(|| {
            let types: Vec<String> = argument_types.iter().map(name_of).collect();
            let message = format!("function {}({}) does not exist", self.name(), types.join(", "));
            Error::new(sqlstate::UNDEFINED_FUNCTION, message)
                .with_hint("There is a function of that name, but not for these arguments. A cast may help.")
                .into()
        })
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        let list_of = |element| DataType::List(Arc::new(Field::new_list_field(element, true)));
        Ok(match self.kind {
            Kind::Replace => DataType::Utf8View,
            Kind::FirstMatch => list_of(DataType::Utf8View),
            Kind::AllMatches => list_of(list_of(DataType::Utf8View)),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let from_place = arguments.args.get(3).is_some_and(|place| place.data_type() == DataType::Int64);
        let results = if from_place {
            replaced_from(&arguments.args, rows)?
        } else {
            let values = arguments.args.iter().map(|argument| argument.cast_to(&DataType::Utf8View, None));
            let values = values.collect::<DataFusionResult<Vec<ColumnarValue>>>()?;
            let texts = values.iter().map(Texts::of).collect::<Result<Vec<Texts<'_>>>>()?;
            match self.kind {
                Kind::Replace => replaced(&texts, rows)?,
                Kind::FirstMatch => first_matches(&texts, rows)?,
                Kind::AllMatches => all_matches(&texts, rows)?,
            }
        };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&results, 0)?)),
            false => Ok(ColumnarValue::Array(results)),
        }
    }
}

/// An argument: one text for all rows, or one for each.
pub(super) enum Texts<'a> {
    One(Option<&'a str>),
    Each(&'a StringViewArray),
}

impl<'a> Texts<'a> {
    pub(super) fn of(argument: &'a ColumnarValue) -> Result<Self> {
        let texts = match argument {
            ColumnarValue::Scalar(value) => value.try_as_str().map(Texts::One),
            ColumnarValue::Array(values) => values.as_string_view_opt().map(Texts::Each),
        };
        texts.ok_or_else(|| Error::internal("a text was expected"))
    }

    pub(super) fn at(&self, row: usize) -> Option<&'a str> {
        match self {
            Texts::One(text) => *text,
            Texts::Each(values) => values.is_valid(row).then(|| values.value(row)),
        }
    }
}

/// A pattern that can be looked for.
pub(super) struct Pattern {
    pub(super) regex: Regex,
    /// Whether all matches are meant, not the first only.
    pub(super) all: bool,
    /// The pattern without its end, where group 1 is what replacing a match by that gives.
    begin: Option<(Regex, CaptureLocations)>,
}

impl Pattern {
    fn new(pattern: &str, flags: &str) -> Result<Self> {
        let (mut all, mut ignores_case, mut ignores_blanks, mut literal) = (false, false, false, false);
        let (mut dot_is_any, mut by_lines) = (true, false);
        for flag in flags.chars() {
            match flag {
                'g' => all = true,
                'i' => ignores_case = true,
                'c' => ignores_case = false,
                'x' => ignores_blanks = true,
                't' => ignores_blanks = false,
                's' => (dot_is_any, by_lines) = (true, false),
                'n' | 'm' => (dot_is_any, by_lines) = (false, true),
                'p' => (dot_is_any, by_lines) = (false, false),
                'w' => (dot_is_any, by_lines) = (true, true),
                'q' => literal = true,
                'e' => {}
                'b' => return Err(Error::unsupported("a basic regular expression (flag \"b\")")),
                other => {
                    let message = format!("invalid regular expression option: \"{other}\"");
                    return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
                }
            }
        }
        let compile = |pattern: &str| {
            RegexBuilder::new(pattern)
                .case_insensitive(ignores_case)
                .ignore_whitespace(ignores_blanks && !literal)
                .dot_matches_new_line(dot_is_any)
                .multi_line(by_lines)
                .build()
        };
        let written = match literal {
            true => Cow::Owned(regex::escape(pattern)),
            false if pattern.starts_with(ACROSS_LINES) => Cow::Borrowed(pattern),
            false => translated(pattern),
        };
        let regex = compile(&written).map_err(|error| {
            Error::new(sqlstate::INVALID_REGULAR_EXPRESSION, "invalid regular expression")
                .with_detail(error.to_string())
        })?;
        let begin = match flags {
            "" => begin_of(&written).and_then(|begin| compile(begin).ok()).filter(|begin| begin.captures_len() == 2),
            _ => None,
        };
        let begin = begin.map(|begin| {
            let places = begin.capture_locations();
            (begin, places)
        });
        Ok(Pattern { regex, all, begin })
    }
}

/// The part of a pattern `^….*$` before `.*$`, which matches whatever is left.
fn begin_of(pattern: &str) -> Option<&str> {
    let begin = pattern.strip_suffix(".*$").filter(|begin| begin.starts_with('^'))?;
    let plain_groups = begin.match_indices("(?").all(|(at, _)| begin[at + 2..].starts_with(':'));
    (plain_groups && !begin.contains('|')).then_some(begin)
}

/// The patterns of a batch of rows, each compiled once: nearly always there is only one.
pub(super) struct Patterns {
    constant: bool,
    one: Option<Pattern>,
    several: HashMap<String, Pattern>,
}

impl Patterns {
    pub(super) fn new(patterns: &Texts<'_>, flags: Option<&Texts<'_>>) -> Self {
        let constant = matches!(patterns, Texts::One(_)) && matches!(flags, None | Some(Texts::One(_)));
        Patterns { constant, one: None, several: HashMap::new() }
    }

    pub(super) fn compiled(&mut self, pattern: &str, flags: &str) -> Result<&mut Pattern> {
        if self.constant {
            if self.one.is_none() {
                self.one = Some(Pattern::new(pattern, flags)?);
            }
            return self.one.as_mut().ok_or_else(|| Error::internal("a pattern has just been compiled"));
        }
        // No flag is a NUL.
        match self.several.entry(format!("{flags}\0{pattern}")) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Pattern::new(pattern, flags)?)),
        }
    }
}

/// A part of what a match is replaced by.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    /// A group of the match, 0 being the whole of it.
    Group(usize),
}

pub(super) fn parts_of(replacement: &str) -> Vec<Part> {
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut letters = replacement.chars().peekable();
    while let Some(letter) = letters.next() {
        let next = letters.peek().copied().filter(|_| letter == '\\');
        let group = match next {
            Some('&') => Some(0),
            Some(digit @ '1'..='9') => digit.to_digit(10).map(|digit| digit as usize),
            _ => None,
        };
        match group {
            Some(group) => {
                letters.next();
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Group(group));
            }
            None => {
                text.push(letter);
                if next == Some('\\') {
                    letters.next();
                }
            }
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

/// Writes the parts that stand in the place of a match.
pub(super) fn fill(parts: &[Part], captures: Option<&Captures<'_>>, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Group(group) => {
                let found = captures.and_then(|captures| captures.get(*group));
                out.push_str(found.map_or("", |found| found.as_str()));
            }
        }
    }
}

/// The flags of a row; none are no NULL.
fn flags_at<'a>(flags: Option<&Texts<'a>>, row: usize) -> Option<&'a str> {
    match flags {
        Some(flags) => flags.at(row),
        None => Some(""),
    }
}

fn replaced(texts: &[Texts<'_>], rows: usize) -> Result<ArrayRef> {
    let [values, patterns, replacements, flags @ ..] = texts else {
        return Err(Error::internal("regexp_replace takes three arguments"));
    };
    let flags = flags.first();
    let mut known = Patterns::new(patterns, flags);
    let fixed = match replacements {
        Texts::One(Some(replacement)) => Some(parts_of(replacement)),
        _ => None,
    };
    let mut results = StringViewBuilder::with_capacity(rows);
    for row in 0..rows {
        let (Some(value), Some(pattern), Some(replacement), Some(flags)) =
            (values.at(row), patterns.at(row), replacements.at(row), flags_at(flags, row))
        else {
            results.append_null();
            continue;
        };
        let own;
        let parts = match &fixed {
            Some(parts) => parts,
            None => {
                own = parts_of(replacement);
                &own
            }
        };
        let pattern = known.compiled(pattern, flags)?;
        match (&mut pattern.begin, parts.as_slice()) {
            (Some((begin, places)), [Part::Group(1)]) => match begin.captures_read(places, value) {
                Some(_) => results.append_value(places.get(1).map_or("", |(start, end)| &value[start..end])),
                None => results.append_value(value),
            },
            _ => {
                let number = i64::from(!pattern.all);
                results.append_value(replaced_at(value, &pattern.regex, parts, 1, number));
            }
        }
    }
    Ok(Arc::new(results.finish()))
}

fn append_groups(groups: &mut StringViewBuilder, captures: &Captures<'_>) {
    let without_whole = usize::from(captures.len() > 1);
    for group in captures.iter().skip(without_whole) {
        groups.append_option(group.map(|group| group.as_str()));
    }
}

fn first_matches(texts: &[Texts<'_>], rows: usize) -> Result<ArrayRef> {
    let [values, patterns, flags @ ..] = texts else {
        return Err(Error::internal("regexp_match takes two arguments"));
    };
    let flags = flags.first();
    let mut known = Patterns::new(patterns, flags);
    let mut results = ListBuilder::new(StringViewBuilder::new());
    for row in 0..rows {
        let (Some(value), Some(pattern), Some(flags)) = (values.at(row), patterns.at(row), flags_at(flags, row)) else {
            results.append(false);
            continue;
        };
        let pattern = known.compiled(pattern, flags)?;
        if pattern.all {
            let message = "regexp_match() does not support the \"global\" option";
            return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message)
                .with_hint("Use the regexp_matches function instead."));
        }
        match pattern.regex.captures(value) {
            Some(captures) => {
                append_groups(results.values(), &captures);
                results.append(true);
            }
            None => results.append(false),
        }
    }
    Ok(Arc::new(results.finish()))
}

/// Of a NULL there are no matches.
fn all_matches(texts: &[Texts<'_>], rows: usize) -> Result<ArrayRef> {
    let [values, patterns, flags @ ..] = texts else {
        return Err(Error::internal("regexp_matches takes two arguments"));
    };
    let flags = flags.first();
    let mut known = Patterns::new(patterns, flags);
    let mut results = ListBuilder::new(ListBuilder::new(StringViewBuilder::new()));
    for row in 0..rows {
        if let (Some(value), Some(pattern), Some(flags)) = (values.at(row), patterns.at(row), flags_at(flags, row)) {
            let pattern = known.compiled(pattern, flags)?;
            let most = if pattern.all { usize::MAX } else { 1 };
            for captures in matches_with_groups(&pattern.regex, value).take(most) {
                append_groups(results.values().values(), &captures);
                results.values().append(true);
            }
        }
        results.append(true);
    }
    Ok(Arc::new(results.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(value: &str, pattern: &str, replacement: &str, flags: &str) -> String {
        let texts = [value, pattern, replacement, flags].map(|text| Texts::One(Some(text)));
        replaced(&texts, 1).unwrap().as_string_view().value(0).to_owned()
    }

    #[test]
    fn replacements_are_those_of_postgresql() {
        for (value, pattern, replacement, flags, expected) in [
            ("price: X", "X", "$5", "", "price: $5"),
            ("abc", "b", "\\\\", "", "a\\c"),
            ("abc", "b", "\\\\1", "", "a\\1c"),
            ("abc", "(b)", "[\\1\\&]", "", "a[bb]c"),
            ("abc", "b", "\\0", "", "a\\0c"),
            ("abc", "b", "x\\", "", "ax\\c"),
            ("abab", "b", "x", "g", "axax"),
            ("baaac", "a*", "-", "g", "-b--c-"),
            ("baaac", "(a*)", "[\\1]", "g", "[]b[aaa][]c[]"),
            ("baaac", "x", "-", "g", "baaac"),
            ("aBb", "b", "x", "gi", "axx"),
            ("a\nb", "a.b", "x", "", "x"),
            ("a\nb", "a.b", "x", "n", "a\nb"),
            ("a\nb", "^b", "x", "n", "a\nx"),
            ("a.c", "a.", "x", "q", "xc"),
            ("http://www.x.y/z\nw", "^https?://(?:www\\.)?([^/]+)/.*$", "\\1", "", "x.y"),
            ("ftp://x/y", "^https?://(?:www\\.)?([^/]+)/.*$", "\\1", "", "ftp://x/y"),
            ("xby", "^a|(b).*$", "\\1", "", "xb"),
        ] {
            assert_eq!(replace(value, pattern, replacement, flags), expected, "{value} {pattern} {replacement}");
        }
    }

    #[test]
    fn wrong_patterns_and_flags_are_refused() {
        assert_eq!(Pattern::new("(", "").err().unwrap().sqlstate(), "2201B");
        assert_eq!(Pattern::new("a", "z").err().unwrap().sqlstate(), "22023");
        assert_eq!(begin_of("^(?i)(a).*$"), None);
        assert_eq!(begin_of("^(?:b)(a).*$"), Some("^(?:b)(a)"));
    }

    #[test]
    fn groups_that_take_no_part_are_null() {
        let texts = ["abc", "(x)|(b)"].map(|text| Texts::One(Some(text)));
        let found = first_matches(&texts, 1).unwrap();
        let groups = found.as_list::<i32>().value(0);
        assert_eq!(groups.as_string_view().iter().collect::<Vec<_>>(), [None, Some("b")]);
        for (value, pattern, count) in [("axb", "(x)|(b)", 2), ("baaac", "a*", 4)] {
            let texts = [value, pattern, "g"].map(|text| Texts::One(Some(text)));
            assert_eq!(all_matches(&texts, 1).unwrap().as_list::<i32>().value(0).len(), count, "{value} {pattern}");
        }
    }
}
