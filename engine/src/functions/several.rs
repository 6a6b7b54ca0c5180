//! Functions that PostgreSQL has and DataFusion has not, each too small for a file of its own.
//!
//! | function | what it gives |
//! |---|---|
//! | `div(a, b)` | the whole quotient of two numbers |
//! | `factorial(n)` | a numeric |
//! | `to_number(text, format)` | see [`super::number_format`] |
//! | `format(template, …)` | the template with `%s`, `%I` and `%L` filled in |
//! | `pg_typeof(x)` | the name of its type |
//! | `array_dims(array)` | `[1:2][1:3]` |
//! | `num_nulls(x, …)`, `num_nonnulls(x, …)` | how many of the arguments are NULL, and how many are not |
//!
//! Calls are rewritten to these ([`crate::sql::tree::calls`]):
//!
//! | function | what it gives |
//! |---|---|
//! | [`SPLIT_AT_MARKS`] | what lies between the marked parts of a text |
//! | [`OR_EMPTY`] | the array, or if it is NULL one without elements |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringViewBuilder, new_empty_array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::array_text::output_texts;
use super::by_rows::{ByRows, integer_of, is_text, text, text_of, texts};
use super::number_format;
use super::text::{quoted_identifier, quoted_literal};
use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

pub(crate) const SPLIT_AT_MARKS: &str = "split_at_marks";
pub(crate) const OR_EMPTY: &str = "or_empty";

/// Begin and end of a marked part.
pub(crate) const MARKS: [char; 2] = ['\u{e000}', '\u{e001}'];

/// Digits of an exact number: those of the type, and behind the point.
const NUMERIC: DataType = DataType::Decimal128(38, 10);

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let strict = |name, takes, gives, compute| ByRows {
        name,
        volatility: Volatility::Immutable,
        strict: true,
        takes,
        gives,
        compute,
    };
    let loose = |name, takes, gives, compute| ByRows { strict: false, ..strict(name, takes, gives, compute) };
    let gives_text: fn(&[DataType]) -> DataType = |_| DataType::Utf8View;
    [
        strict("div", two_numbers, |_| DataType::Decimal128(38, 0), div),
        strict("factorial", one_integer, |_| DataType::Decimal128(38, 0), factorial),
        strict("to_number", |types| texts(types).filter(|types| types.len() == 2), |_| NUMERIC, to_number),
        loose("format", format_arguments, gives_text, format),
        strict(SPLIT_AT_MARKS, texts, |_| list_of(DataType::Utf8View), split_at_marks),
        loose(OR_EMPTY, |types| Some(types.to_vec()), |types| types[0].clone(), or_empty),
        strict("array_dims", one_array, |_| DataType::Utf8View, array_dims),
        loose("num_nulls", some_arguments, |_| DataType::Int32, num_nulls),
        loose("num_nonnulls", some_arguments, |_| DataType::Int32, num_nonnulls),
    ]
    .into_iter()
    .map(ByRows::function)
    .chain([Arc::new(type_name::TypeName::default().into())])
    .collect()
}

pub(super) fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

pub(super) fn element_of(types: &[DataType]) -> DataType {
    match types.first() {
        Some(DataType::List(element)) => element.data_type().clone(),
        _ => DataType::Null,
    }
}

fn some_arguments(types: &[DataType]) -> Option<Vec<DataType>> {
    (!types.is_empty()).then(|| types.to_vec())
}

fn num_nulls(values: &[ScalarValue]) -> Result<ScalarValue> {
    counted(values.iter().filter(|value| value.is_null()).count())
}

fn num_nonnulls(values: &[ScalarValue]) -> Result<ScalarValue> {
    counted(values.iter().filter(|value| !value.is_null()).count())
}

fn counted(count: usize) -> Result<ScalarValue> {
    let count = i32::try_from(count).map_err(|_| Error::internal("too many arguments"))?;
    Ok(ScalarValue::Int32(Some(count)))
}

fn two_numbers(types: &[DataType]) -> Option<Vec<DataType>> {
    let exact = |data_type: &DataType| {
        data_type.is_integer() || data_type.is_null() || matches!(data_type, DataType::Decimal128(..))
    };
    let scale = types.iter().map(|data_type| match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    });
    let common = DataType::Decimal128(38, scale.max()?);
    (types.len() == 2 && types.iter().all(exact)).then(|| vec![common; 2])
}

fn div(values: &[ScalarValue]) -> Result<ScalarValue> {
    match values {
        [ScalarValue::Decimal128(Some(left), ..), ScalarValue::Decimal128(Some(right), ..)] => {
            let quotient = left.checked_div(*right);
            let quotient = quotient.ok_or_else(|| Error::new(sqlstate::DIVISION_BY_ZERO, "division by zero"))?;
            Ok(ScalarValue::Decimal128(Some(quotient), 38, 0))
        }
        _ => Err(Error::internal("two numerics were expected")),
    }
}

fn one_integer(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [number] if number.is_integer() || number.is_null() => Some(vec![DataType::Int64]),
        _ => None,
    }
}

fn factorial(values: &[ScalarValue]) -> Result<ScalarValue> {
    let number = integer_of(&values[0])?;
    let wrong = |message: &str| Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, message);
    if number < 0 {
        return Err(wrong("factorial of a negative number is undefined"));
    }
    let product = (1..=i128::from(number)).try_fold(1i128, |product, factor| product.checked_mul(factor));
    let product = product.ok_or_else(|| {
        wrong("value out of range for type numeric").with_detail(format!("{number}! has more than 38 digits."))
    })?;
    Ok(ScalarValue::Decimal128(Some(product), 38, 0))
}

fn to_number(values: &[ScalarValue]) -> Result<ScalarValue> {
    let digits = number_format::parse(text_of(&values[0])?, text_of(&values[1])?)?;
    let text = ScalarValue::Utf8(Some(digits));
    Ok(text.cast_to(&NUMERIC)?)
}

fn format_arguments(types: &[DataType]) -> Option<Vec<DataType>> {
    let first = types.first().filter(|first| is_text(first))?;
    let _ = first;
    Some(std::iter::once(DataType::Utf8View).chain(types[1..].iter().cloned()).collect())
}

/// A value as text, as PostgreSQL's output functions write it.
fn shown(value: &ScalarValue) -> Result<Option<String>> {
    if value.is_null() {
        return Ok(None);
    }
    let texts = output_texts(&value.to_array()?, "UTC")?;
    Ok(texts.as_string_view().iter().next().flatten().map(str::to_owned))
}

fn format(values: &[ScalarValue]) -> Result<ScalarValue> {
    let Some(template) = values[0].try_as_str().flatten() else { return Ok(ScalarValue::Utf8View(None)) };
    let arguments = &values[1..];
    let wrong = |message: String| Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
    let argument = |place: usize| match arguments.get(place) {
        Some(value) => shown(value),
        None => Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "too few arguments for format()")),
    };
    let (mut out, mut next) = (String::new(), 0);
    let mut letters = template.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        if letters.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let digits = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| -> String {
            std::iter::from_fn(|| letters.next_if(char::is_ascii_digit)).collect()
        };
        let (mut left, mut width) = (false, 0_usize);
        let (mut number, mut chosen) = (digits(&mut letters), None);
        if letters.next_if_eq(&'$').is_some() {
            match number.parse::<usize>() {
                Ok(place) if place > 0 => chosen = Some(place - 1),
                _ => return wrong(ARGUMENT_0.to_owned()),
            }
            number.clear();
        }
        if number.is_empty() {
            left = letters.next_if_eq(&'-').is_some();
            if letters.next_if_eq(&'*').is_some() {
                let place = digits(&mut letters);
                if !place.is_empty() {
                    if letters.next_if_eq(&'$').is_none() {
                        return wrong("width argument position must be ended by \"$\"".to_owned());
                    }
                    match place.parse::<usize>() {
                        Ok(place) if place > 0 => next = place - 1,
                        _ => return wrong(ARGUMENT_0.to_owned()),
                    }
                }
                // The value is the one behind the width, unless its place is given.
                let given = argument(next)?;
                next += 1;
                let given = match given.as_deref() {
                    None | Some("") => 0,
                    Some(digits) => digits.trim().parse::<i64>().map_err(|_| {
                        let message = format!("invalid input syntax for type integer: \"{digits}\"");
                        Error::new(sqlstate::INVALID_TEXT, message)
                    })?,
                };
                left |= given < 0;
                width = usize::try_from(given.unsigned_abs()).unwrap_or(0);
            } else {
                number = digits(&mut letters);
            }
        }
        if !number.is_empty() {
            width = number.parse().unwrap_or(usize::MAX);
        }
        if width > WIDTH_MAX {
            return Err(Error::new(sqlstate::LIMIT_EXCEEDED, "a width of format() is too large"));
        }
        let Some(kind) = letters.next() else {
            return wrong("unterminated format() type specifier".to_owned());
        };
        if !matches!(kind, 's' | 'I' | 'L') {
            return wrong(format!("unrecognized format() type specifier \"{kind}\""));
        }
        next = chosen.unwrap_or(next);
        let value = argument(next)?;
        next += 1;
        let filled = match (kind, value) {
            ('s', value) => value.unwrap_or_default(),
            ('I', Some(value)) => quoted_identifier(&value),
            ('I', None) => {
                let message = "null values cannot be formatted as an SQL identifier";
                return Err(Error::new(sqlstate::NULL_NOT_ALLOWED, message));
            }
            (_, Some(value)) => quoted_literal(&value),
            (_, None) => "NULL".to_owned(),
        };
        let blanks = " ".repeat(width.saturating_sub(filled.chars().count()));
        match left {
            true => out.extend([filled, blanks]),
            false => out.extend([blanks, filled]),
        }
    }
    Ok(text(out))
}

const ARGUMENT_0: &str = "format specifies argument 0, but arguments are numbered from 1";

/// The largest width in a template.
const WIDTH_MAX: usize = 1 << 20;

/// Texts and marked parts in turn, the first and the last being texts.
fn pieces(marked: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut between, mut parts) = (Vec::new(), Vec::new());
    let mut rest = marked;
    while let Some((before, after)) = rest.split_once(MARKS[0]) {
        let (part, after) = after.split_once(MARKS[1]).unwrap_or((after, ""));
        between.push(before);
        parts.push(part);
        rest = after;
    }
    between.push(rest);
    (between, parts)
}

/// Marked are the matches of a pattern: those of no length count only inside of the text, and not behind another.
fn split_at_marks(values: &[ScalarValue]) -> Result<ScalarValue> {
    let (between, parts) = pieces(text_of(&values[0])?);
    let mut found = vec![String::new()];
    for (index, text) in between.iter().enumerate() {
        if let Some(last) = found.last_mut() {
            last.push_str(text);
        }
        let Some(part) = parts.get(index) else { break };
        let at_start = index == 0 && text.is_empty();
        let at_end = between[index + 1..].iter().all(|text| text.is_empty()) && index + 1 == parts.len();
        let behind_another = index > 0 && text.is_empty();
        if !part.is_empty() || !(at_start || at_end || behind_another) {
            found.push(String::new());
        }
    }
    let mut builder = ListBuilder::new(StringViewBuilder::new());
    builder.append_value(found.iter().map(|text| Some(text.as_str())));
    Ok(ScalarValue::List(Arc::new(builder.finish())))
}

fn or_empty(values: &[ScalarValue]) -> Result<ScalarValue> {
    match (&values[0], values[0].data_type()) {
        (value, DataType::List(element)) if value.is_null() => {
            Ok(SingleRowListArrayBuilder::new(new_empty_array(element.data_type())).build_list_scalar())
        }
        (value, _) => Ok(value.clone()),
    }
}

/// The elements of an array; of NULL, none.
pub(super) fn elements_of(value: &ScalarValue) -> Result<ArrayRef> {
    match value {
        ScalarValue::List(list) if list.is_null(0) => Ok(new_empty_array(&list.value_type())),
        ScalarValue::List(list) => Ok(list.value(0)),
        _ => Err(Error::internal("an array was expected")),
    }
}

fn one_array(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [array @ DataType::List(_)] => Some(vec![array.clone()]),
        _ => None,
    }
}

/// `[1:2][1:3]`, or NULL of an empty array.
fn array_dims(values: &[ScalarValue]) -> Result<ScalarValue> {
    let mut elements = elements_of(&values[0])?;
    let mut dimensions = String::new();
    while !elements.is_empty() {
        dimensions.push_str(&format!("[1:{}]", elements.len()));
        let first = match elements.as_list_opt::<i32>() {
            Some(lists) if lists.is_valid(0) => lists.value(0),
            _ => break,
        };
        elements = first;
    }
    Ok(ScalarValue::Utf8View((!dimensions.is_empty()).then_some(dimensions)))
}

mod type_name {
    //! `pg_typeof`: known before a query runs.

    use arrow::datatypes::DataType;
    use datafusion::common::ScalarValue;
    use datafusion::error::Result;
    use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

    use super::name_of;

    #[derive(Debug, PartialEq, Eq, Hash)]
    pub(super) struct TypeName {
        signature: Signature,
    }

    impl Default for TypeName {
        fn default() -> Self {
            TypeName { signature: Signature::any(1, Volatility::Stable) }
        }
    }

    impl ScalarUDFImpl for TypeName {
        fn name(&self) -> &str {
            "pg_typeof"
        }

        fn signature(&self) -> &Signature {
            &self.signature
        }

        fn return_type(&self, _argument_types: &[DataType]) -> Result<DataType> {
            Ok(DataType::Utf8View)
        }

        fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
            let name =
                arguments.args.first().map_or_else(|| "unknown".to_owned(), |value| full_name(&value.data_type()));
            Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(Some(name))))
        }
    }

    fn full_name(data_type: &DataType) -> String {
        match data_type {
            // An array of arrays has the name of one of elements.
            DataType::List(element) if matches!(element.data_type(), DataType::List(_)) => {
                full_name(element.data_type())
            }
            DataType::List(element) => format!("{}[]", full_name(element.data_type())),
            data_type => {
                let name = name_of(data_type);
                // Without the parameters of the type.
                let name = match name.split_once('(') {
                    Some((before, rest)) => {
                        format!("{before}{}", rest.split_once(')').map_or("", |(_, behind)| behind))
                    }
                    None => name,
                };
                match name.as_str() {
                    "timestamp" | "time" => format!("{name} without time zone"),
                    _ => name,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_without_length_split_inside_only() {
        let split = |marked: &str| split_at_marks(&[text(marked.replace('<', "\u{e000}").replace('>', "\u{e001}"))]);
        let found = |marked: &str| split(marked).unwrap().to_string();
        assert_eq!(found("<>a<>b<>"), "[a, b]");
        assert_eq!(found("a<, >b< >c"), "[a, b, c]");
        assert_eq!(found("<,>a<,>"), "[, a, ]");
    }

    #[test]
    fn templates_are_filled_in() {
        let shown = |values: &[ScalarValue]| format(values).unwrap().to_string();
        let (name, number) = (text("A b"), ScalarValue::Int64(Some(7)));
        assert_eq!(shown(&[text("%I=%L %% %s"), name, text("it's"), number.clone()]), "\"A b\"='it''s' % 7");
        assert_eq!(shown(&[text("|%5s|%-5s|%2$s|"), number.clone(), number]), "|    7|7    |7|");
        let width = ScalarValue::Int64(Some(-3));
        assert_eq!(shown(&[text("|%2$*1$s|%*3$s|"), width, text("x"), text("5"), text("y")]), "|x  |    y|");
        assert_eq!(shown(&[text("|%2$*s|%s|"), text("4"), text("x"), text("z")]), "|   x|z|");
        assert_eq!(format(&[text("%*s"), text("x"), text("y")]).unwrap_err().sqlstate(), "22P02");
        assert_eq!(format(&[text("%s")]).unwrap_err().sqlstate(), "22023");
        assert_eq!(format(&[text("%I"), ScalarValue::Utf8(None)]).unwrap_err().sqlstate(), "22004");
    }
}
