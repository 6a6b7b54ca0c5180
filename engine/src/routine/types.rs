//! The types of variables and parameters, and what happens to a value that is assigned to one.
//!
//! A variable takes what a column of its type would take, by the same rules: numbers are rounded, what is out of range is
//! an error, text that is too long is an error unless only blanks would be cut off. As in PL/pgSQL, text becomes any
//! type by being read as one, any type becomes text, and where PostgreSQL has no cast the value becomes the one by the other:
//! the number 20240131 is a date, 7 is none, and 2 is no boolean.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType as SqlSyntax};
use datafusion::sql::sqlparser::parser::Parser;

use crate::dml::rows::convert;
use crate::error::sqlstate;
use crate::row_path::{Datum, array_of};
use crate::sql::context::StatementContext;
use crate::sql::text::parse::{RustyDialect, table_name, tokenize};
use crate::sql::types::{DIGITS_KEY, LENGTH_KEY, column_type, declared_name, digits_of, name_of};
use crate::{Error, Result, Value};

/// The type of a variable or parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlType {
    /// How its values are held.
    pub data_type: DataType,
    /// The n of `varchar(n)`.
    length: Option<usize>,
    /// The p of `timestamp(p)` and `time(p)`, if its values have to be rounded to it.
    digits: Option<u8>,
    /// Its name in SQL.
    name: String,
}

impl SqlType {
    /// A type without a length.
    pub fn plain(data_type: DataType) -> SqlType {
        let name = type_name(&data_type);
        SqlType { data_type, length: None, digits: None, name }
    }

    /// Text of any length.
    pub fn text() -> SqlType {
        SqlType::plain(DataType::Utf8View)
    }

    /// Its name in SQL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of a column.
    pub(crate) fn of_field(field: &Field) -> SqlType {
        let length = field.metadata().get(LENGTH_KEY).and_then(|length| length.parse().ok());
        SqlType { data_type: field.data_type().clone(), length, digits: digits_of(field), name: declared_name(field) }
    }

    /// For a row type: its fields.
    pub fn shape(&self) -> Option<Shape> {
        match &self.data_type {
            DataType::Struct(fields) => Some(Shape::of_fields(fields)),
            _ => None,
        }
    }

    /// For an array: the type of its elements.
    pub fn element(&self) -> Option<SqlType> {
        match &self.data_type {
            DataType::List(field) => Some(SqlType::of_field(field)),
            _ => None,
        }
    }

    /// The elements of an array of this type; `None` for NULL.
    ///
    /// # Errors
    /// If the value is no array.
    pub fn elements(value: &Datum) -> Result<Option<Vec<Datum>>> {
        let Datum::Other(inner) = value else {
            return match value {
                Datum::Null => Ok(None),
                _ => Err(Error::internal("an array that is none")),
            };
        };
        let list = match inner.as_ref() {
            Value::List(list) => list.value(0),
            Value::LargeList(list) => list.value(0),
            Value::FixedSizeList(list) => list.value(0),
            _ => return Err(Error::internal("an array that is none")),
        };
        let element = |place| Ok(Datum::of(&Value::try_from_array(&list, place)?));
        (0..list.len()).map(element).collect::<Result<Vec<_>>>().map(Some)
    }

    /// An array of this type.
    pub fn array(&self, elements: &[Datum]) -> Result<Datum> {
        let DataType::List(field) = &self.data_type else { return Err(Error::internal("an array of no type")) };
        let values = array_of(field.data_type(), elements.iter())?;
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        let list = ListArray::try_new(Arc::clone(field), offsets, values, None)?;
        Ok(Datum::Other(Arc::new(Value::List(Arc::new(list)))))
    }

    fn field(&self, name: &str) -> Field {
        let length = self.length.map(|length| (LENGTH_KEY.to_owned(), length.to_string()));
        let digits = self.digits.map(|digits| (DIGITS_KEY.to_owned(), digits.to_string()));
        Field::new(name, self.data_type.clone(), true).with_metadata(length.into_iter().chain(digits).collect())
    }

    /// Whether every value of `from` is one of this type as it is.
    pub fn takes_as_is(&self, from: &DataType) -> bool {
        let is_plain = self.length.is_none() && self.digits.is_none();
        is_plain && (self.data_type == *from || (self.data_type.is_string() && from.is_string()))
    }

    /// Turns a value of type `from` into one of this type, in a session of this time zone.
    ///
    /// # Errors
    /// 22003, 22001, 22P02 and their like if it does not fit; 42804 if no value of `from` does.
    pub fn assign(&self, value: Datum, from: &DataType, zone: &str) -> Result<Datum> {
        if value.is_null() || self.takes_as_is(from) {
            return Ok(value);
        }
        match (&value, &self.data_type) {
            (Datum::Int(number), DataType::Int32) if from.is_signed_integer() => {
                return match i32::try_from(*number) {
                    Ok(_) => Ok(value),
                    Err(_) => Err(self.out_of_range()),
                };
            }
            (Datum::Int(_), DataType::Int64) if from.is_signed_integer() => return Ok(value),
            (Datum::Int(number), DataType::Decimal128(precision, scale)) if from.is_signed_integer() => {
                // What does not fit is left to the slow way, which knows how to say so.
                if let Some(digits) = rescale(i128::from(*number), 0, *scale)
                    && digits.unsigned_abs() < 10u128.pow(u32::from(*precision))
                {
                    return Ok(Datum::Decimal(digits));
                }
            }
            // What counts elements and the like.
            (Datum::Other(number), DataType::Int32 | DataType::Int64) if *from == DataType::UInt64 => {
                if let Value::UInt64(Some(number)) = number.as_ref()
                    && let Ok(number) = i32::try_from(*number)
                {
                    return Ok(Datum::Int(i64::from(number)));
                }
            }
            (Datum::Text(text), target) if from.is_string() && target.is_string() => {
                return self.limit(Arc::clone(text)).map(Datum::Text);
            }
            (Datum::Decimal(digits), DataType::Decimal128(precision, scale)) => {
                if let DataType::Decimal128(_, own) = from
                    && let Some(scaled) = rescale(*digits, *own, *scale)
                {
                    return match scaled.unsigned_abs() < 10u128.pow(u32::from(*precision)) {
                        true => Ok(Datum::Decimal(scaled)),
                        false => Err(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "numeric field overflow").with_detail(
                            format!(
                                "A field with precision {precision}, scale {scale} must round to an absolute value \
                                 less than 10^{}.",
                                i32::from(*precision) - i32::from(*scale)
                            ),
                        )),
                    };
                }
            }
            _ => {}
        }
        self.assign_slowly(&value, from, zone)
    }

    fn assign_slowly(&self, value: &Datum, from: &DataType, zone: &str) -> Result<Datum> {
        let mut array = value.to_value(from)?.to_array()?;
        if is_read_from_text(from, &self.data_type) {
            array = convert(&array, &SqlType::text().field(""), zone)?;
        }
        let without_column = |error: Error| {
            error.map_message(|text| text.strip_prefix("column \"\": ").map(str::to_owned).unwrap_or(text))
        };
        let array = convert(&array, &self.field(""), zone).map_err(|error| match error.sqlstate() {
            sqlstate::TYPE_MISMATCH => Error::new(
                sqlstate::TYPE_MISMATCH,
                format!("a value of type {} cannot be assigned to type {}", type_name(from), self.name),
            ),
            _ => without_column(error),
        })?;
        let converted = Datum::of(&Value::try_from_array(&array, 0)?);
        match converted {
            Datum::Text(text) => self.limit(text).map(Datum::Text),
            Datum::Bytes(bytes) if self.length.is_some_and(|length| bytes.len() > length) => {
                Err(Error::new(sqlstate::STRING_TOO_LONG, format!("value too long for type {}", self.name)))
            }
            other => Ok(other),
        }
    }

    fn out_of_range(&self) -> Error {
        Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, format!("{} out of range", self.name))
    }

    /// Text within the declared length. Blanks beyond it are cut off.
    fn limit(&self, text: Arc<str>) -> Result<Arc<str>> {
        let Some(length) = self.length.filter(|length| text.len() > *length) else { return Ok(text) };
        let Some((end, _)) = text.char_indices().nth(length) else { return Ok(text) };
        match text[end..].bytes().all(|byte| byte == b' ') {
            true => Ok(Arc::from(&text[..end])),
            false => Err(Error::new(sqlstate::STRING_TOO_LONG, format!("value too long for type {}", self.name))),
        }
    }
}

/// Whether PostgreSQL has no cast for the assignment of one type to the other, while Arrow would count days and seconds or ask what
/// is not 0.
fn is_read_from_text(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Boolean, to) => to.is_numeric() || to.is_temporal(),
        (from, DataType::Boolean) => from.is_numeric() || from.is_temporal(),
        (DataType::Date32, DataType::Time32(_) | DataType::Time64(_)) => true,
        (DataType::Time32(_) | DataType::Time64(_), to) => {
            to.is_numeric() || (to.is_temporal() && !matches!(to, DataType::Time32(_) | DataType::Time64(_)))
        }
        (DataType::Interval(_), to) => to.is_numeric() || (to.is_temporal() && !matches!(to, DataType::Interval(_))),
        (from, DataType::Interval(_)) => {
            from.is_numeric() || matches!(from, DataType::Date32 | DataType::Timestamp(..))
        }
        (from, to) => (from.is_numeric() && to.is_temporal()) || (from.is_temporal() && to.is_numeric()),
    }
}

/// The digits of a decimal at another scale, rounded half away from zero; `None` if there are too many of them.
fn rescale(digits: i128, from: i8, to: i8) -> Option<i128> {
    let shift = i32::from(to) - i32::from(from);
    let factor = 10i128.checked_pow(shift.unsigned_abs())?;
    if shift >= 0 {
        return digits.checked_mul(factor);
    }
    let (whole, rest) = (digits / factor, digits % factor);
    let away = i128::from(rest.unsigned_abs() * 2 >= factor.unsigned_abs());
    Some(whole + away * digits.signum())
}

/// SQL's name for an Arrow type, arrays included.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(field) => format!("{}[]", declared_name(field)),
        DataType::Struct(_) => "record".to_owned(),
        other => name_of(other),
    }
}

/// The columns of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Their names.
    pub names: Vec<String>,
    /// Their types.
    pub types: Vec<SqlType>,
}

impl Shape {
    pub(crate) fn of_fields(fields: &Fields) -> Shape {
        Shape {
            names: fields.iter().map(|field| field.name().clone()).collect(),
            types: fields.iter().map(|field| SqlType::of_field(field)).collect(),
        }
    }

    /// The place of a column.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The type of such rows.
    pub fn row_type(&self) -> SqlType {
        SqlType { name: "record".to_owned(), ..SqlType::plain(DataType::Struct(self.fields())) }
    }

    pub(crate) fn fields(&self) -> Fields {
        self.names.iter().zip(&self.types).map(|(name, sql_type)| sql_type.field(name)).collect()
    }

    /// The row as one value.
    pub fn to_row(&self, values: &[Datum]) -> Result<Datum> {
        let arrays = values
            .iter()
            .zip(&self.types)
            .map(|(value, sql_type)| Ok(value.to_value(&sql_type.data_type)?.to_array()?));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let row = arrow::array::StructArray::try_new(self.fields(), arrays, None)?;
        Ok(Datum::Other(Arc::new(Value::Struct(Arc::new(row)))))
    }

    /// The values in a row that is one value; all NULL for NULL.
    pub fn from_row(&self, row: &Datum) -> Result<Vec<Datum>> {
        match row {
            Datum::Null => Ok(vec![Datum::Null; self.types.len()]),
            Datum::Other(value) => match value.as_ref() {
                Value::Struct(row) => {
                    let value = |column: &ArrayRef| Ok(Datum::of(&Value::try_from_array(column, 0)?));
                    row.columns().iter().map(value).collect()
                }
                _ => Err(Error::internal("a row that is none")),
            },
            _ => Err(Error::internal("a row that is none")),
        }
    }
}

/// The type that a text names: as columns have them, arrays of those, and rows of tables.
pub(crate) fn resolve_type(context: &StatementContext, text: &str) -> Result<SqlType> {
    let mut parser = Parser::new(&RustyDialect).with_tokens_with_locations(tokenize(text)?);
    let syntax = parser.parse_data_type()?;
    match parser.peek_token().token {
        datafusion::sql::sqlparser::tokenizer::Token::EOF => resolve_syntax(context, &syntax),
        other => Err(Error::syntax(format!("syntax error at or near \"{other}\""))),
    }
}

fn resolve_syntax(context: &StatementContext, syntax: &SqlSyntax) -> Result<SqlType> {
    if let SqlSyntax::Array(
        ArrayElemTypeDef::SquareBracket(element, _)
        | ArrayElemTypeDef::AngleBracket(element)
        | ArrayElemTypeDef::Parenthesis(element),
    ) = syntax
    {
        let element = resolve_syntax(context, element)?;
        if matches!(element.data_type, DataType::List(_)) {
            return Err(Error::unsupported("an array of arrays"));
        }
        let name = format!("{}[]", element.name);
        return Ok(SqlType { name, ..SqlType::plain(DataType::List(Arc::new(element.field("item")))) });
    }
    if let SqlSyntax::Custom(name, arguments) = syntax
        && arguments.is_empty()
        && let Ok((schema, plain)) = table_name(name)
        && let Ok(table) = context.table(schema.as_deref(), &plain)
    {
        let shape = Shape::of_fields(table.schema.fields());
        return Ok(SqlType { name: plain, ..shape.row_type() });
    }
    let column = column_type(syntax)?;
    Ok(SqlType::of_field(&column.field("", true)))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn numbers_are_rounded_and_checked() {
        let integer = SqlType::plain(DataType::Int32);
        let assign = |value, from| integer.assign(value, &from, "UTC");
        assert_eq!(assign(Datum::Int(7), DataType::Int64).unwrap(), Datum::Int(7));
        assert_eq!(assign(Datum::Int(1 << 40), DataType::Int64).unwrap_err().sqlstate(), "22003");
        assert_eq!(assign(Datum::Decimal(25), DataType::Decimal128(5, 1)).unwrap(), Datum::Int(3));
        assert_eq!(assign(Datum::text("12"), DataType::Utf8View).unwrap(), Datum::Int(12));
        assert!(assign(Datum::text("x"), DataType::Utf8View).is_err());
        let numeric = SqlType::plain(DataType::Decimal128(4, 2));
        assert_eq!(
            numeric.assign(Datum::Decimal(-12_345), &DataType::Decimal128(9, 3), "UTC").unwrap(),
            Datum::Decimal(-1235)
        );
        let error = numeric.assign(Datum::Decimal(123), &DataType::Decimal128(9, 0), "UTC").unwrap_err();
        assert_eq!(error.sqlstate(), "22003");
    }

    #[test]
    fn times_are_rounded_to_their_digits() {
        let microseconds = DataType::Timestamp(TimeUnit::Microsecond, None);
        let tenths = DataType::Timestamp(TimeUnit::Millisecond, None);
        let tenths = SqlType { digits: Some(1), ..SqlType::plain(tenths) };
        assert!(!tenths.takes_as_is(&tenths.data_type));
        let assigned = tenths.assign(Datum::Int(946_684_800_049_600), &microseconds, "UTC").unwrap();
        assert_eq!(assigned, Datum::Int(946_684_800_000));
        let read = tenths.assign(Datum::text("2000-01-01 00:00:00.05"), &DataType::Utf8View, "UTC").unwrap();
        assert_eq!(read, Datum::Int(946_684_800_100));
    }

    #[test]
    fn what_has_no_cast_is_read_from_its_text() {
        let assign = |value, from, to| SqlType::plain(to).assign(value, &from, "UTC");
        let date = assign(Datum::Int(20_000_101), DataType::Int64, DataType::Date32).unwrap();
        assert_eq!(date, Datum::Int(10_957));
        let one = assign(Datum::Decimal(1), DataType::Decimal128(5, 0), DataType::Boolean).unwrap();
        assert_eq!(one, Datum::Bool(true));
        for (value, from, to) in [
            (Datum::Int(7), DataType::Int32, DataType::Date32),
            (Datum::Int(2), DataType::Int32, DataType::Boolean),
            (Datum::Int(7), DataType::Date32, DataType::Int32),
            (Datum::Bool(true), DataType::Boolean, DataType::Int32),
        ] {
            let error = assign(value, from, to).unwrap_err();
            assert!(["22007", "22P02"].contains(&error.sqlstate()), "{error}");
        }
    }

    #[test]
    fn text_is_limited_but_for_blanks() {
        let short = SqlType { length: Some(3), ..SqlType::text() };
        let assign = |text| short.assign(Datum::text(text), &DataType::Utf8View, "UTC");
        assert_eq!(assign("äöü").unwrap(), Datum::text("äöü"));
        assert_eq!(assign("abc  ").unwrap(), Datum::text("abc"));
        assert_eq!(assign("abcd").unwrap_err().sqlstate(), "22001");
        assert_eq!(assign("").unwrap(), Datum::text(""));
    }
}
