//! Regular expressions from a place on: whether there is a match, how many there are, where one of them is and what it is.
//!
//! | function | what it gives |
//! |---|---|
//! | `regexp_like(text, pattern [, flags])` | whether the pattern matches |
//! | `regexp_count(text, pattern [, start [, flags]])` | how often |
//! | `regexp_instr(text, pattern [, start [, n [, end [, flags [, group]]]]])` | where the n-th match begins, or what is behind it |
//! | `regexp_substr(text, pattern [, start [, n [, flags [, group]]]])` | the n-th match, or a group of it |
//! | `regexp_replace(text, pattern, replacement, start [, n [, flags]])` | the text with the n-th match replaced, or with 0 all |
//!
//! Places are counted in characters, from 1. As in PostgreSQL a match without length may follow directly behind another one,
//! and `^` is the beginning of the text, wherever the search starts.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, StringViewArray, StringViewBuilder,
};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, binary_expr,
};
use regex::{Captures, Match, Regex};

use super::by_rows::is_text;
use super::regular::{Part, Patterns, Texts, fill, parts_of};
use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [Kind::Like, Kind::Count, Kind::Place, Kind::Part]
        .into_iter()
        .map(|kind| FromPlace { kind, signature: Signature::user_defined(Volatility::Immutable) })
        .map(|function| Arc::new(ScalarUDF::from(function)))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Like,
    Count,
    Place,
    Part,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Like => "regexp_like",
            Kind::Count => "regexp_count",
            Kind::Place => "regexp_instr",
            Kind::Part => "regexp_substr",
        }
    }

    /// The types of all arguments; the first two must be there.
    fn parameters(self) -> Vec<DataType> {
        use DataType::{Int64, Utf8View};
        match self {
            Kind::Like => vec![Utf8View; 3],
            Kind::Count => vec![Utf8View, Utf8View, Int64, Utf8View],
            Kind::Place => vec![Utf8View, Utf8View, Int64, Int64, Int64, Utf8View, Int64],
            Kind::Part => vec![Utf8View, Utf8View, Int64, Int64, Utf8View, Int64],
        }
    }

    /// Where among the arguments the flags are, the start, the number of the match, which end of it, and the group.
    fn places(self) -> [Option<usize>; 5] {
        match self {
            Kind::Like => [Some(2), None, None, None, None],
            Kind::Count => [Some(3), Some(2), None, None, None],
            Kind::Place => [Some(5), Some(2), Some(3), Some(4), Some(6)],
            Kind::Part => [Some(4), Some(2), Some(3), None, Some(5)],
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FromPlace {
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for FromPlace {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, argument_types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let parameters = self.kind.parameters();
        let fits = (2..=parameters.len()).contains(&argument_types.len())
            && argument_types.iter().zip(&parameters).all(|(given, wanted)| takes(wanted, given));
        match fits {
            true => Ok(parameters.into_iter().take(argument_types.len()).collect()),
            false => Err(undefined(self.name(), argument_types).into()),
        }
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(match self.kind {
            Kind::Like => DataType::Boolean,
            Kind::Count | Kind::Place => DataType::Int32,
            Kind::Part => DataType::Utf8View,
        })
    }

    /// The operators are faster, and known to the optimiser.
    fn simplify(&self, mut arguments: Vec<Expr>, context: &SimplifyContext) -> DataFusionResult<ExprSimplifyResult> {
        if self.kind != Kind::Like || arguments.len() < 2 {
            return Ok(ExprSimplifyResult::Original(arguments));
        }
        let flags = match arguments.get(2) {
            None => Some(""),
            Some(Expr::Literal(flags, _)) => flags.try_as_str().flatten(),
            Some(_) => None,
        };
        let operator = match flags {
            Some("") => Operator::RegexMatch,
            Some("i") => Operator::RegexIMatch,
            _ => return Ok(ExprSimplifyResult::Original(arguments)),
        };
        if context.get_data_type(&arguments[0])? != context.get_data_type(&arguments[1])? {
            return Ok(ExprSimplifyResult::Original(arguments));
        }
        let pattern = arguments.swap_remove(1);
        let text = arguments.swap_remove(0);
        Ok(ExprSimplifyResult::Simplified(binary_expr(text, operator, pattern)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let wanted = self.kind.parameters();
        let values = arguments.args.iter().zip(&wanted).map(|(argument, wanted)| argument.cast_to(wanted, None));
        let values = values.collect::<DataFusionResult<Vec<ColumnarValue>>>()?;
        let search = Search::new(self.kind, &values, rows)?;
        let results: ArrayRef = match self.kind {
            Kind::Like => {
                let found = search.each(|regex, value, _| Ok(regex.is_match(value)))?;
                Arc::new(BooleanArray::from(found))
            }
            Kind::Count => {
                let counts = search.each(|regex, value, asked| {
                    let count = byte_of(value, asked.start).map_or(0, |from| matches(regex, value, from).count());
                    small(count)
                })?;
                Arc::new(Int32Array::from(counts))
            }
            Kind::Place => {
                let places = search.each(|regex, value, asked| match asked.find(regex, value) {
                    Some(found) => {
                        let before = if asked.end == 1 { found.end() } else { found.start() };
                        small(value[..before].chars().count() + 1)
                    }
                    None => Ok(0),
                })?;
                Arc::new(Int32Array::from(places))
            }
            Kind::Part => {
                let parts =
                    search.each(|regex, value, asked| Ok(asked.find(regex, value).map(|found| found.as_str())))?;
                Arc::new(parts.into_iter().map(Option::flatten).collect::<StringViewArray>())
            }
        };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&results, 0)?)),
            false => Ok(ColumnarValue::Array(results)),
        }
    }
}

/// Whether an argument of one type can be given for a parameter of another.
fn takes(parameter: &DataType, argument: &DataType) -> bool {
    match parameter {
        DataType::Int64 => argument.is_integer() || argument.is_null(),
        _ => is_text(argument),
    }
}

fn undefined(function: &str, types: &[DataType]) -> Error {
    let types: Vec<String> = types.iter().map(name_of).collect();
    Error::new(sqlstate::UNDEFINED_FUNCTION, format!("function {function}({}) does not exist", types.join(", ")))
        .with_hint("There is a function of that name, but not for these arguments. A cast may help.")
}

fn small(number: usize) -> Result<i32> {
    i32::try_from(number).map_err(|_| Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "integer out of range"))
}

/// Numbers of rows, or what each of them is if none are given.
struct Numbers {
    given: Option<Int64Array>,
    otherwise: i64,
}

impl Numbers {
    fn new(given: Option<&ColumnarValue>, otherwise: i64, rows: usize) -> Result<Self> {
        let given = match given {
            Some(given) => given.to_array(rows)?.as_primitive_opt::<Int64Type>().cloned(),
            None => None,
        };
        Ok(Numbers { given, otherwise })
    }

    fn at(&self, row: usize) -> Option<i64> {
        match &self.given {
            Some(given) => given.is_valid(row).then(|| given.value(row)),
            None => Some(self.otherwise),
        }
    }
}

/// A number that must not be less than another one.
fn at_least(least: i64, number: i64, parameter: &str) -> Result<i64> {
    match number >= least {
        true => Ok(number),
        false => {
            let message = format!("invalid value for parameter \"{parameter}\": {number}");
            Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message))
        }
    }
}

/// What is asked for in one row.
struct Asked {
    start: i64,
    number: i64,
    end: i64,
    group: i64,
}

impl Asked {
    fn check(&self) -> Result<()> {
        at_least(1, self.start, "start")?;
        at_least(1, self.number, "n")?;
        if !(0..=1).contains(&self.end) {
            let message = format!("invalid value for parameter \"endoption\": {}", self.end);
            return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
        }
        at_least(0, self.group, "subexpr")?;
        Ok(())
    }

    /// The match of that number, or its group.
    fn find<'t>(&self, regex: &Regex, text: &'t str) -> Option<Match<'t>> {
        let from = byte_of(text, self.start)?;
        let found = matches(regex, text, from).nth(usize::try_from(self.number - 1).ok()?)?;
        match usize::try_from(self.group).ok()? {
            0 => Some(found),
            // As in PostgreSQL: a pattern without groups is its own first.
            1 if regex.captures_len() == 1 => Some(found),
            group => regex.captures_at(text, found.start())?.get(group),
        }
    }
}

/// The arguments of a call.
struct Search<'a> {
    kind: Kind,
    rows: usize,
    values: Texts<'a>,
    patterns: Texts<'a>,
    flags: Option<Texts<'a>>,
    /// Where to start, which match, which end of it, which group.
    numbers: [Numbers; 4],
}

impl<'a> Search<'a> {
    fn new(kind: Kind, arguments: &'a [ColumnarValue], rows: usize) -> Result<Self> {
        let [values, patterns, ..] = arguments else {
            return Err(Error::internal("a regular expression and a text were expected"));
        };
        let [flags, start, number, end, group] =
            kind.places().map(|place| place.and_then(|place| arguments.get(place)));
        let numbers = [
            Numbers::new(start, 1, rows)?,
            Numbers::new(number, 1, rows)?,
            Numbers::new(end, 0, rows)?,
            Numbers::new(group, 0, rows)?,
        ];
        let flags = flags.map(Texts::of).transpose()?;
        Ok(Search { kind, rows, values: Texts::of(values)?, patterns: Texts::of(patterns)?, flags, numbers })
    }

    fn asked(&self, row: usize) -> Option<Asked> {
        let [start, number, end, group] = &self.numbers;
        Some(Asked { start: start.at(row)?, number: number.at(row)?, end: end.at(row)?, group: group.at(row)? })
    }

    /// The result of each row; NULL if one of the arguments is.
    fn each<T>(&self, mut result: impl FnMut(&Regex, &'a str, &Asked) -> Result<T>) -> Result<Vec<Option<T>>> {
        let mut known = Patterns::new(&self.patterns, self.flags.as_ref());
        let mut results = Vec::with_capacity(self.rows);
        for row in 0..self.rows {
            let flags = match &self.flags {
                Some(flags) => flags.at(row),
                None => Some(""),
            };
            let (Some(value), Some(pattern), Some(flags), Some(asked)) =
                (self.values.at(row), self.patterns.at(row), flags, self.asked(row))
            else {
                results.push(None);
                continue;
            };
            asked.check()?;
            let pattern = known.compiled(pattern, flags)?;
            if pattern.all {
                let message = format!("{}() does not support the \"global\" option", self.kind.name());
                return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
            }
            results.push(Some(result(&pattern.regex, value, &asked)?));
        }
        Ok(results)
    }
}

/// Where the character of that number begins, or where the text ends if it has one less.
fn byte_of(text: &str, number: i64) -> Option<usize> {
    let before = usize::try_from(number - 1).ok()?;
    text.char_indices().map(|(place, _)| place).chain([text.len()]).nth(before)
}

/// What a search finds from a place on, each with where it is: behind a match of no length the next character is left out.
fn successive<T>(
    text: &str,
    from: usize,
    find: impl Fn(usize) -> Option<(Range<usize>, T)>,
) -> impl Iterator<Item = (Range<usize>, T)> {
    let mut at = Some(from);
    std::iter::from_fn(move || {
        let (place, found) = find(at?)?;
        at = match place.is_empty() {
            true => text[place.end..].chars().next().map(|letter| place.end + letter.len_utf8()),
            false => Some(place.end),
        };
        Some((place, found))
    })
}

/// The matches from a place on.
fn matches<'t>(regex: &Regex, text: &'t str, from: usize) -> impl Iterator<Item = Match<'t>> {
    let find = move |at| regex.find_at(text, at).map(|found| (found.range(), found));
    successive(text, from, find).map(|(_, found)| found)
}

/// The matches in a text, with their groups.
pub(super) fn matches_with_groups<'t>(regex: &Regex, text: &'t str) -> impl Iterator<Item = Captures<'t>> {
    let find = move |at| {
        let captures = regex.captures_at(text, at)?;
        Some((captures.get(0)?.range(), captures))
    };
    successive(text, 0, find).map(|(_, captures)| captures)
}

/// The types that `regexp_replace` with a place takes.
pub(super) fn replacement_types(types: &[DataType]) -> Option<Vec<DataType>> {
    use DataType::{Int64, Utf8View};
    let parameters = [Utf8View, Utf8View, Utf8View, Int64, Int64, Utf8View];
    let fits = (4..=parameters.len()).contains(&types.len())
        && types[3].is_integer()
        && types.iter().zip(&parameters).all(|(given, wanted)| takes(wanted, given));
    fits.then(|| parameters.into_iter().take(types.len()).collect())
}

/// `regexp_replace` with a place to start at.
pub(super) fn replaced_from(arguments: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let [values, patterns, replacements, start, rest @ ..] = arguments else {
        return Err(Error::internal("regexp_replace takes a text, a pattern, a replacement and a place"));
    };
    let (values, patterns, replacements) = (Texts::of(values)?, Texts::of(patterns)?, Texts::of(replacements)?);
    let start = Numbers::new(Some(start), 1, rows)?;
    let number = Numbers::new(rest.first(), 1, rows)?;
    let flags = rest.get(1).map(Texts::of).transpose()?;
    let mut known = Patterns::new(&patterns, flags.as_ref());
    let mut results = StringViewBuilder::with_capacity(rows);
    for row in 0..rows {
        let flags = match &flags {
            Some(flags) => flags.at(row),
            None => Some(""),
        };
        let (Some(value), Some(pattern), Some(replacement)) = (values.at(row), patterns.at(row), replacements.at(row))
        else {
            results.append_null();
            continue;
        };
        let (Some(start), Some(number), Some(flags)) = (start.at(row), number.at(row), flags) else {
            results.append_null();
            continue;
        };
        let (start, number) = (at_least(1, start, "start")?, at_least(0, number, "n")?);
        let regex = &known.compiled(pattern, flags)?.regex;
        results.append_value(replaced(value, regex, &parts_of(replacement), start, number));
    }
    Ok(Arc::new(results.finish()))
}

/// A text with the match of that number replaced, or if that is 0 all.
pub(super) fn replaced<'t>(value: &'t str, regex: &Regex, parts: &[Part], start: i64, number: i64) -> Cow<'t, str> {
    let Some(from) = byte_of(value, start) else { return Cow::Borrowed(value) };
    // Groups cost more to find.
    let wants_groups = parts.iter().any(|part| matches!(part, Part::Group(_)));
    let find = |at| match wants_groups {
        true => {
            let captures = regex.captures_at(value, at)?;
            Some((captures.get(0)?.range(), Some(captures)))
        }
        false => regex.find_at(value, at).map(|found| (found.range(), None)),
    };
    let (mut out, mut copied) = (String::new(), None);
    for (count, (place, captures)) in (1i64..).zip(successive(value, from, find)) {
        if number != 0 && count != number {
            continue;
        }
        out.push_str(&value[copied.unwrap_or(0)..place.start]);
        fill(parts, captures.as_ref(), &mut out);
        copied = Some(place.end);
        if number != 0 {
            break;
        }
    }
    let Some(copied) = copied else { return Cow::Borrowed(value) };
    out.push_str(&value[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_follow_each_other_as_in_postgresql() {
        let count = |pattern: &str, text: &str| matches(&Regex::new(pattern).unwrap(), text, 0).count();
        assert_eq!(count("b", "abcabc"), 2);
        assert_eq!(count("", "abc"), 4);
        assert_eq!(count("c*", "abc"), 4);
        assert_eq!(count("b*", "abbc"), 4);
        assert_eq!(count("^a", "aa"), 1);
        assert_eq!(count("", "äö"), 3);
    }

    #[test]
    fn places_are_counted_in_characters() {
        assert_eq!(byte_of("äbc", 2), Some(2));
        assert_eq!(byte_of("äbc", 4), Some(4));
        assert_eq!(byte_of("äbc", 5), None);
        let regex = Regex::new("b").unwrap();
        let asked = Asked { start: 1, number: 2, end: 0, group: 0 };
        assert_eq!(asked.find(&regex, "äbcäb").map(|found| found.start()), Some(6));
        assert!(Asked { start: 0, ..asked }.check().is_err());
    }

    #[test]
    fn one_match_is_replaced_or_all() {
        let regex = Regex::new("b(.)").unwrap();
        let parts = parts_of("[\\1]");
        let replace = |start, number| replaced("foobarbaz", &regex, &parts, start, number);
        assert_eq!(replace(1, 1), "foo[a]rbaz");
        assert_eq!(replace(1, 2), "foobar[a]z");
        assert_eq!(replace(5, 1), "foobar[a]z");
        assert_eq!(replace(1, 0), "foo[a]r[a]z");
        assert_eq!(replace(1, 3), "foobarbaz");
        assert_eq!(replace(50, 1), "foobarbaz");
    }
}
