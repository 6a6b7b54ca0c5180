//! Array constants of several dimensions: `'{{1,2},{3,4}}'::int[]` is read as `ARRAY[ARRAY['1'::int, '2'::int], …]`.
//!
//! Here the type of an array says how many dimensions it has, in PostgreSQL it does not. So a constant of several is taken
//! apart before a statement is planned; those of one are read when it runs ([`crate::functions::input`]), but in
//! `x = ANY ('{1,2}')`, where `x` says the type of the elements.

use datafusion::sql::sqlparser::ast::{Array, ArrayElemTypeDef, CastKind, DataType, Expr, Value, ValueWithSpan};

use crate::dml::syntax::null;
use crate::error::sqlstate;
use crate::functions::input::elements;
use crate::{Error, Result};

/// As many as in PostgreSQL.
const DIMENSIONS_MAX: usize = 6;

/// What a cast of `value` is read as, if it is such a constant.
pub(in crate::sql) fn nested(value: &Expr, data_type: &DataType) -> Result<Option<Expr>> {
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = value else { return Ok(None) };
    let DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) = data_type else { return Ok(None) };
    let is_nested = text.trim_start().strip_prefix('{').is_some_and(|inner| inner.trim_start().starts_with('{'));
    if !is_nested {
        return Ok(None);
    }
    let mut element = element.as_ref();
    while let DataType::Array(ArrayElemTypeDef::SquareBracket(inner, _)) = element {
        element = inner.as_ref();
    }
    let (array, lengths) = array_of(text, element, 1)?;
    // An array of empty arrays is empty.
    Ok(if lengths.contains(&0) { None } else { Some(array) })
}

/// The elements of an array constant without a type, each a constant without a type; `None` if it is something else.
pub(in crate::sql) fn open_elements(array: &Expr) -> Result<Option<Vec<Expr>>> {
    let Expr::Value(ValueWithSpan { value, .. }) = array else { return Ok(None) };
    let (Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text)) = value else { return Ok(None) };
    let constant = |text| Expr::value(Value::SingleQuotedString(text));
    Ok(Some(elements(text)?.into_iter().map(|element| element.map_or_else(null, constant)).collect()))
}

fn malformed(text: &str, detail: &str) -> Error {
    Error::new(sqlstate::INVALID_TEXT, format!("malformed array literal: \"{text}\"")).with_detail(detail)
}

/// An array, and its lengths in each dimension.
fn array_of(text: &str, element: &DataType, dimension: usize) -> Result<(Expr, Vec<usize>)> {
    if dimension > DIMENSIONS_MAX {
        let message = format!("number of array dimensions exceeds the maximum allowed ({DIMENSIONS_MAX})");
        return Err(Error::new(sqlstate::LIMIT_EXCEEDED, message));
    }
    let parts = parts_of(text).ok_or_else(|| malformed(text, "Its braces and quotes do not match."))?;
    if !parts.iter().any(|part| part.starts_with('{')) {
        let values: Vec<Expr> = elements(text)?.into_iter().map(|value| typed(value, element)).collect();
        let length = values.len();
        return Ok((Expr::Array(Array { elem: values, named: true }), vec![length]));
    }
    let mut arrays = Vec::with_capacity(parts.len());
    let mut lengths: Option<Vec<usize>> = None;
    for part in &parts {
        let unequal = || malformed(text, "Multidimensional arrays must have sub-arrays with matching dimensions.");
        if !part.starts_with('{') {
            return Err(unequal());
        }
        let (array, own) = array_of(part, element, dimension + 1)?;
        if lengths.as_ref().is_some_and(|known| *known != own) {
            return Err(unequal());
        }
        arrays.push(array);
        lengths = Some(own);
    }
    let lengths = std::iter::once(arrays.len()).chain(lengths.unwrap_or_default()).collect();
    Ok((Expr::Array(Array { elem: arrays, named: true }), lengths))
}

fn typed(value: Option<String>, data_type: &DataType) -> Expr {
    let value = value.map_or_else(null, |text| Expr::value(Value::SingleQuotedString(text)));
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(value), data_type: data_type.clone(), array: false, format: None }
}

/// What is between the commas of an array; `None`: braces or quotes are not closed.
fn parts_of(text: &str) -> Option<Vec<&str>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    let (mut parts, mut begin, mut depth, mut quoted) = (Vec::new(), 0, 0_usize, false);
    let mut letters = inner.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '\\' => {
                letters.next()?;
            }
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(inner[begin..place].trim());
                begin = place + 1;
            }
            _ => {}
        }
    }
    parts.push(inner[begin..].trim());
    (depth == 0 && !quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_expression;

    fn read(sql: &str) -> Result<Option<String>> {
        match parse_expression(sql)? {
            Expr::Cast { expr, data_type, .. } => Ok(nested(&expr, &data_type)?.map(|array| array.to_string())),
            other => panic!("{other} is no cast"),
        }
    }

    #[test]
    fn elements_of_constants_without_a_type_have_none() {
        let read = |sql: &str| {
            let list = open_elements(&parse_expression(sql).unwrap())?;
            Ok::<_, Error>(list.map(|list| list.iter().map(Expr::to_string).collect::<Vec<_>>().join("|")))
        };
        assert_eq!(read("'{1,\"b c\",NULL}'").unwrap().as_deref(), Some("'1'|'b c'|NULL"));
        assert_eq!(read("'{}'").unwrap().as_deref(), Some(""));
        assert_eq!(read("ARRAY[1]").unwrap(), None);
        assert_eq!(read("'1'").unwrap_err().sqlstate(), "22P02");
    }

    #[test]
    fn constants_of_several_dimensions_are_taken_apart() {
        let one = "CAST('1' AS INT)";
        assert_eq!(read("'{{1},{1}}'::int[]").unwrap(), Some(format!("ARRAY[ARRAY[{one}], ARRAY[{one}]]")));
        assert_eq!(
            read("' { {1, null } }'::int[][]").unwrap(),
            Some(format!("ARRAY[ARRAY[{one}, CAST(NULL AS INT)]]"))
        );
        let text = "ARRAY[ARRAY[CAST('a,}b' AS TEXT)]]".to_owned();
        assert_eq!(read("'{{\"a,}b\"}}'::text[]").unwrap(), Some(text));
        for one_dimension in ["'{1,2}'::int[]", "'{{1}}'::text", "'{{},{}}'::int[]"] {
            assert_eq!(read(one_dimension).unwrap(), None, "{one_dimension}");
        }
        for wrong in ["'{{1,2},{3}}'::int[]", "'{{1},2}'::int[]", "'{{1}'::int[]", "'{{1}}}'::int[]"] {
            assert_eq!(read(wrong).unwrap_err().sqlstate(), "22P02", "{wrong}");
        }
        assert_eq!(read("'{{{{{{{1}}}}}}}'::int[]").unwrap_err().sqlstate(), "54000");
    }
}
