//! Reference answers: what an independent engine says a query's result is, as a CSV file that keeps its types.
//!
//! The file begins with three records: column names, column types, and each column's place in the query's ORDER BY
//! (`1`, `2`, … or `-`). The rows follow, in the order in which the other engine returned them. NULL is written `\N`,
//! and a backslash inside a string is doubled, so that NULL, the empty string and the text `\N` are three things.
//! `answers/README.md` describes the format for people; `answers/make_answers.py` writes it.

use std::fmt;

use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::Date32Type;

use crate::error::{Error, Result};

/// How a NULL is written.
const NULL: &str = r"\N";

/// The decimal places kept of a number: what a 128-bit mantissa can hold beside an integer part. A double's digits
/// beyond the 17th say nothing, so nothing is lost.
const SCALE_MAX: usize = 38;

/// The type of a reference column, which decides how its cells are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// A whole number, of whatever width an engine gives it. Compared exactly.
    Integer,
    /// An exact number with a fixed count of decimal places. Compared exactly.
    Decimal {
        /// The decimal places that the reference carries.
        scale: u8,
    },
    /// A quotient (average, ratio): engines differ in its type. See [`crate::verify`] for how it is compared.
    Double,
    /// A string. Compared byte by byte.
    Text,
    /// A calendar date. Compared exactly.
    Date,
    /// A truth value.
    Boolean,
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer => f.write_str("integer"),
            Self::Decimal { scale } => write!(f, "decimal with {scale} decimal places"),
            Self::Double => f.write_str("double"),
            Self::Text => f.write_str("text"),
            Self::Date => f.write_str("date"),
            Self::Boolean => f.write_str("boolean"),
        }
    }
}

/// A number as its digits: `mantissa / 10^scale`. Equality is of values: 1.10 equals 1.1.
#[derive(Debug, Clone, Copy)]
pub struct Number {
    /// All digits, with the sign.
    pub mantissa: i128,
    /// How many of them stand after the decimal point.
    pub scale: u8,
}

impl Number {
    /// The same value with no trailing zeros after the point.
    fn normalized(self) -> (i128, u8) {
        let (mut mantissa, mut scale) = (self.mantissa, self.scale);
        while scale > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
        }
        (mantissa, scale)
    }

    /// Reads plain decimal digits (`-12.340`); no exponent. Decimal places beyond the 38th are cut off.
    pub fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let fraction = &fraction[..fraction.len().min(SCALE_MAX)];
        let sign = if text.starts_with('-') { "-" } else { "" };
        let mantissa = format!("{sign}{whole}{fraction}").parse().ok()?;
        Some(Self { mantissa, scale: u8::try_from(fraction.len()).ok()? })
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.normalized() == other.normalized()
    }
}

impl Eq for Number {}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        // One digit stands before the point even when the value is below one.
        let digits = format!("{:0>width$}", self.mantissa.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        if fraction.is_empty() { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction}") }
    }
}

/// One value of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// SQL's NULL.
    Null,
    /// An integer, a decimal, or the digits of a double.
    Number(Number),
    /// A string.
    Text(String),
    /// A date as days since 1970-01-01.
    Date(i32),
    /// A truth value.
    Boolean(bool),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Date(days) => match arrow::temporal_conversions::date32_to_datetime(*days) {
                Some(moment) => moment.date().fmt(f),
                None => write!(f, "day {days}"),
            },
            Self::Boolean(value) => value.fmt(f),
        }
    }
}

/// A column of a reference answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceColumn {
    /// Its name in the result.
    pub name: String,
    /// Its type, which decides how cells are compared.
    pub column_type: ColumnType,
}

/// The answer that a query must give.
#[derive(Debug, Clone)]
pub struct Reference {
    columns: Vec<ReferenceColumn>,
    /// Column indexes, in ORDER BY order; empty for a query without ORDER BY.
    order: Vec<usize>,
    rows: Vec<Vec<Cell>>,
}

impl Reference {
    /// Reads a reference answer; `name` is for the message if it cannot be read.
    pub fn parse(name: &str, csv_text: &str) -> Result<Self> {
        parse(csv_text).map_err(|reason| Error::Reference { name: name.to_owned(), reason })
    }

    /// The columns, in result order.
    pub fn columns(&self) -> &[ReferenceColumn] {
        &self.columns
    }

    /// The indexes of the columns that the rows are ordered by, the first one leading.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The rows, in the order in which the other engine returned them.
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }
}

fn parse(csv_text: &str) -> std::result::Result<Reference, String> {
    let mut records = csv::ReaderBuilder::new().has_headers(false).from_reader(csv_text.as_bytes()).into_records();
    let mut header = |what: &str| match records.next() {
        Some(Ok(record)) => Ok(record),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("the record of {what} is missing")),
    };
    let (names, types, places) = (header("names")?, header("types")?, header("order")?);
    let columns = names
        .iter()
        .zip(&types)
        .map(|(name, text)| {
            let column_type = parse_type(text).ok_or_else(|| format!("column {name} has the unknown type {text:?}"))?;
            Ok(ReferenceColumn { name: name.to_owned(), column_type })
        })
        .collect::<std::result::Result<Vec<_>, String>>()?;
    let order = parse_order(places.iter())?;
    // The first row stands on line 4, after the three records of the header.
    let rows = records
        .zip(4..)
        .map(|(record, line)| {
            let record = record.map_err(|error| error.to_string())?;
            let cell = |(text, column): (&str, &ReferenceColumn)| {
                parse_cell(text, column.column_type)
                    .ok_or_else(|| format!("line {line}: {text:?} is no {}", column.column_type))
            };
            record.iter().zip(&columns).map(cell).collect()
        })
        .collect::<std::result::Result<Vec<_>, String>>()?;
    Ok(Reference { columns, order, rows })
}

fn parse_type(text: &str) -> Option<ColumnType> {
    match text {
        "integer" => Some(ColumnType::Integer),
        "double" => Some(ColumnType::Double),
        "text" => Some(ColumnType::Text),
        "date" => Some(ColumnType::Date),
        "boolean" => Some(ColumnType::Boolean),
        _ => {
            let (_precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
            Some(ColumnType::Decimal { scale: scale.trim().parse().ok()? })
        }
    }
}

/// Turns each column's place in the ORDER BY into the list of columns by place.
fn parse_order<'a>(places: impl Iterator<Item = &'a str>) -> std::result::Result<Vec<usize>, String> {
    let mut placed = Vec::new();
    for (column, place) in places.enumerate().filter(|(_, place)| *place != "-") {
        let place: usize = place.parse().map_err(|_| format!("{place:?} is no place in an ORDER BY"))?;
        placed.push((place, column));
    }
    placed.sort_unstable();
    Ok(placed.into_iter().map(|(_, column)| column).collect())
}

fn parse_cell(text: &str, column_type: ColumnType) -> Option<Cell> {
    if text == NULL {
        return Some(Cell::Null);
    }
    match column_type {
        ColumnType::Integer => Number::parse(text).filter(|number| number.scale == 0).map(Cell::Number),
        ColumnType::Decimal { scale } => Number::parse(text).filter(|number| number.scale == scale).map(Cell::Number),
        ColumnType::Double => Number::parse(text).map(Cell::Number),
        ColumnType::Text => Some(Cell::Text(text.replace(r"\\", r"\"))),
        ColumnType::Date => Date32Type::parse(text).map(Cell::Date),
        ColumnType::Boolean => text.parse().ok().map(Cell::Boolean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).expect("a number")
    }

    #[test]
    fn numbers_are_equal_by_value_and_not_by_spelling() {
        assert_eq!(number("1.10"), number("1.1"));
        assert_eq!(number("0.00"), number("0"));
        assert_ne!(number("1.10"), number("1.01"));
        assert_ne!(number("-1.1"), number("1.1"));
        assert_ne!(number("10"), number("1"));
    }

    #[test]
    fn a_number_below_one_keeps_its_sign_and_zeros() {
        assert_eq!(number("-0.05").mantissa, -5);
        assert_eq!(number("-0.05").to_string(), "-0.05");
        assert_eq!(number("12.340").to_string(), "12.340");
        assert_eq!(number("7").to_string(), "7");
    }

    #[test]
    fn text_that_is_no_plain_number_is_refused() {
        for text in ["", "-", ".5", "1e3", "1.2.3", "--1", "0x1", "NaN", "1 "] {
            assert!(Number::parse(text).is_none(), "{text:?} was read as a number");
        }
    }

    #[test]
    fn null_empty_text_and_a_literal_backslash_n_are_three_things() {
        let reference = Reference::parse("t", "a\ntext\n-\n\\N\n\"\"\n\\\\N\n").expect("a readable answer");
        let cells: Vec<_> = reference.rows().iter().map(|row| row[0].clone()).collect();
        assert_eq!(cells, [Cell::Null, Cell::Text(String::new()), Cell::Text(r"\N".to_owned())]);
    }

    #[test]
    fn order_columns_are_listed_by_their_place_and_not_by_their_position() {
        let reference = Reference::parse("t", "a,b,c\ninteger,date,text\n2,-,1\n1,1994-03-01,x\n").expect("readable");
        assert_eq!(reference.order(), [2, 0]);
        assert_eq!(reference.rows()[0][1].to_string(), "1994-03-01");
    }

    #[test]
    fn a_damaged_answer_is_refused_with_its_name_and_line() {
        let refused = |text: &str| Reference::parse("q9", text).expect_err("a damaged answer").to_string();
        assert!(refused("a\n").contains("q9"), "the name is missing");
        assert!(refused("a\nmoney\n-\n").contains("unknown type"));
        assert!(refused("a\ninteger\n-\n1\ntwo\n").contains("line 5"));
        assert!(refused("a\n\"decimal(9,2)\"\n-\n1.234\n").contains("line 4"));
        assert!(!refused("a,b\ninteger,integer\n-,-\n1\n").is_empty(), "a short row was accepted");
    }
}
