//! Compares a result with a reference answer: the same columns, the same rows, in an order that the query allows.
//!
//! What must hold, column by column:
//! - *Integers, decimals, strings, dates, truth values* are equal. Decimals are compared as the digits they are: 1.10 is
//!   1.1, and 1.10 is not 1.1000001. Nothing passes through a floating-point number.
//! - *Quotients* (AVG, ratios) have no common type: PostgreSQL and DataFusion answer with a decimal of some scale,
//!   truncated or rounded; DuckDB answers with a double, good for 15 significant digits. The two must agree in every
//!   decimal place that *both* define, where the last such place may be rounded or truncated:
//!   `|found - reference| < 10^-places`, `places` being the smaller of the found column's scale and what leaves the
//!   reference 15 digits. For 25.522005853257337 and a column of scale 6, 25.522005 and 25.522006 pass; 25.522004 and
//!   25.522007 do not.
//! - *Order*: the ORDER BY columns, read down the rows, are exactly the reference's. Rows that are equal in all of them
//!   may come in any order among themselves, so each such run is compared as a multiset. A query without ORDER BY is one
//!   run.
//!
//! ```text
//!   order by a:   reference        found            verdict
//!                 a=1  b=x         a=1  b=y         ┐ one run, same multiset: fine
//!                 a=1  b=y         a=1  b=x         ┘
//!                 a=2  b=z         a=2  b=Z         row 3, column b: wrong
//! ```

use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, SchemaRef, i256};
use arrow::record_batch::RecordBatch;

use crate::reference::{Cell, ColumnType, Number, Reference, ReferenceColumn};

/// The significant decimal digits that any double carries.
const DOUBLE_DIGITS: i32 = 15;

/// The first way in which a result differs from the reference. Rows are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// Other columns, or in another order.
    Columns {
        /// The reference's column names.
        expected: Vec<String>,
        /// The result's column names.
        found: Vec<String>,
    },
    /// A column whose type cannot hold the reference's values exactly.
    Type {
        /// The column's name.
        column: String,
        /// The reference's type.
        expected: ColumnType,
        /// The result's type.
        found: DataType,
    },
    /// More or fewer rows.
    Rows {
        /// The reference's row count.
        expected: usize,
        /// The result's row count.
        found: usize,
    },
    /// A value that differs, which is also what a row out of order looks like.
    Value {
        /// The row, from 1.
        row: usize,
        /// The column's name.
        column: String,
        /// The reference's value, as text for people.
        expected: String,
        /// The result's value.
        found: String,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Columns { expected, found } => {
                write!(f, "expected columns {}, found {}", expected.join(", "), found.join(", "))
            }
            Self::Type { column, expected, found } => {
                write!(f, "column {column}: expected {expected}, found type {found}")
            }
            Self::Rows { expected, found } => write!(f, "expected {expected} rows, found {found}"),
            Self::Value { row, column, expected, found } => {
                write!(f, "row {row}, column {column}: expected {expected}, found {found}")
            }
        }
    }
}

/// Compares the rows of `batches`, whose schema is `schema`, with the reference. `Ok` means: the same answer.
pub fn verify(reference: &Reference, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<(), Mismatch> {
    let columns = comparisons(reference, schema)?;
    let found = read_rows(&columns, schema, batches)?;
    let expected = reference.rows();
    if found.len() != expected.len() {
        return Err(Mismatch::Rows { expected: expected.len(), found: found.len() });
    }
    for (row, (expected, found)) in expected.iter().zip(&found).enumerate() {
        compare_cells(&columns, reference.order().iter().copied(), row, expected, found)?;
    }
    let mut start = 0;
    for run in expected.chunk_by(|left, right| reference.order().iter().all(|&column| left[column] == right[column])) {
        let end = start + run.len();
        compare_run(&columns, start, run, &found[start..end])?;
        start = end;
    }
    Ok(())
}

/// How the cells of one column are compared.
struct Comparison<'a> {
    column: &'a ReferenceColumn,
    /// For a quotient: the decimal places that the found type defines; `None` for a floating-point type.
    found_places: Option<u8>,
}

impl Comparison<'_> {
    fn matches(&self, expected: &Cell, found: &Cell) -> bool {
        match (expected, found) {
            (Cell::Number(expected), Cell::Number(found)) if self.column.column_type == ColumnType::Double => {
                quotients_agree(*expected, *found, self.found_places)
            }
            _ => expected == found,
        }
    }
}

/// Pairs the columns, and refuses types that could not carry the reference's values.
fn comparisons<'a>(reference: &'a Reference, schema: &SchemaRef) -> Result<Vec<Comparison<'a>>, Mismatch> {
    let columns = reference.columns();
    if !columns.iter().map(|column| &column.name).eq(schema.fields().iter().map(|field| field.name())) {
        return Err(Mismatch::Columns {
            expected: columns.iter().map(|column| column.name.clone()).collect(),
            found: schema.fields().iter().map(|field| field.name().clone()).collect(),
        });
    }
    let compare = |(column, data_type): (&'a ReferenceColumn, &DataType)| {
        if !can_hold(column.column_type, data_type) {
            return Err(Mismatch::Type {
                column: column.name.clone(),
                expected: column.column_type,
                found: data_type.clone(),
            });
        }
        Ok(Comparison { column, found_places: decimal_places(data_type) })
    };
    columns.iter().zip(schema.fields().iter().map(|field| field.data_type())).map(compare).collect()
}

fn can_hold(expected: ColumnType, found: &DataType) -> bool {
    match expected {
        ColumnType::Integer => found.is_integer() || decimal_places(found) == Some(0),
        ColumnType::Decimal { .. } => decimal_places(found).is_some(),
        ColumnType::Double => *found == DataType::Float64 || decimal_places(found).is_some(),
        ColumnType::Text => match found {
            DataType::Dictionary(_, values) => values.is_string(),
            other => other.is_string(),
        },
        ColumnType::Date => *found == DataType::Date32,
        ColumnType::Boolean => *found == DataType::Boolean,
    }
}

fn decimal_places(data_type: &DataType) -> Option<u8> {
    match data_type {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            u8::try_from(*scale).ok()
        }
        _ => None,
    }
}

/// Turns the columns of all batches into rows of cells.
fn read_rows(
    columns: &[Comparison<'_>],
    schema: &SchemaRef,
    batches: &[RecordBatch],
) -> Result<Vec<Vec<Cell>>, Mismatch> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for batch in batches {
        let first = rows.len();
        rows.resize_with(first + batch.num_rows(), || Vec::with_capacity(columns.len()));
        for ((comparison, array), field) in columns.iter().zip(batch.columns()).zip(schema.fields()) {
            let column_type = comparison.column.column_type;
            // A batch whose column is of another type than its schema says is refused like a wrong schema.
            let cells = read_cells(array, comparison.found_places).ok_or_else(|| Mismatch::Type {
                column: field.name().clone(),
                expected: column_type,
                found: array.data_type().clone(),
            })?;
            for (row, cell) in rows[first..].iter_mut().zip(cells) {
                row.push(cell);
            }
        }
    }
    Ok(rows)
}

fn read_cells(array: &ArrayRef, decimal_places: Option<u8>) -> Option<Vec<Cell>> {
    fn cells<T>(values: impl Iterator<Item = Option<T>>, cell: impl Fn(T) -> Cell) -> Vec<Cell> {
        values.map(|value| value.map_or(Cell::Null, &cell)).collect()
    }
    match array.data_type() {
        data_type if data_type.is_integer() || data_type.is_decimal() => {
            let scale = decimal_places.unwrap_or(0);
            // 38 digits hold every 64-bit integer and every decimal that got past `can_hold`.
            let exact = cast(array, &DataType::Decimal128(38, i8::try_from(scale).ok()?)).ok()?;
            let values = exact.as_primitive_opt::<Decimal128Type>()?;
            Some(cells(values.iter(), |mantissa| Cell::Number(Number { mantissa, scale })))
        }
        DataType::Float64 => {
            let values = array.as_primitive_opt::<Float64Type>()?;
            // A value that is no number (NaN, an infinity) becomes a text, which equals no reference number.
            Some(cells(values.iter(), |value| {
                let digits = value.to_string();
                Number::parse(&digits).map_or(Cell::Text(digits), Cell::Number)
            }))
        }
        DataType::Date32 => Some(cells(array.as_primitive_opt::<Date32Type>()?.iter(), Cell::Date)),
        DataType::Boolean => Some(cells(array.as_boolean_opt()?.iter(), Cell::Boolean)),
        _ => {
            let text = cast(array, &DataType::LargeUtf8).ok()?;
            Some(cells(text.as_string_opt::<i64>()?.iter(), |value| Cell::Text(value.to_owned())))
        }
    }
}

fn compare_cells(
    columns: &[Comparison<'_>],
    which: impl Iterator<Item = usize>,
    row: usize,
    expected: &[Cell],
    found: &[Cell],
) -> Result<(), Mismatch> {
    for column in which {
        if !columns[column].matches(&expected[column], &found[column]) {
            return Err(Mismatch::Value {
                row: row + 1,
                column: columns[column].column.name.clone(),
                expected: expected[column].to_string(),
                found: found[column].to_string(),
            });
        }
    }
    Ok(())
}

/// Compares two runs of rows as multisets: both are brought into one canonical order and then compared in pairs.
fn compare_run(
    columns: &[Comparison<'_>],
    first_row: usize,
    expected: &[Vec<Cell>],
    found: &[Vec<Cell>],
) -> Result<(), Mismatch> {
    let found = canonical_order(columns, found);
    for (offset, (expected, found)) in canonical_order(columns, expected).into_iter().zip(found).enumerate() {
        compare_cells(columns, 0..columns.len(), first_row + offset, expected, found)?;
    }
    Ok(())
}

/// Orders rows by their exact columns first, so that two engines' digits of a quotient decide only between rows that
/// are equal in everything else.
fn canonical_order<'a>(columns: &[Comparison<'_>], rows: &'a [Vec<Cell>]) -> Vec<&'a Vec<Cell>> {
    let mut ordered: Vec<&Vec<Cell>> = rows.iter().collect();
    if ordered.len() < 2 {
        return ordered;
    }
    let key = |row: &&Vec<Cell>| {
        let (exact, quotients): (Vec<_>, Vec<_>) = columns
            .iter()
            .zip(row.iter())
            .partition(|(comparison, _)| comparison.column.column_type != ColumnType::Double);
        exact.into_iter().chain(quotients).map(|(_, cell)| canonical_text(cell)).collect::<Vec<_>>()
    };
    ordered.sort_by_cached_key(key);
    ordered
}

/// A text that is equal for equal cells: numbers lose the zeros after their last decimal place.
fn canonical_text(cell: &Cell) -> String {
    match cell {
        Cell::Number(number) if number.scale > 0 => {
            number.to_string().trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        other => other.to_string(),
    }
}

/// Whether two values of a quotient agree in all decimal places that both define; see the head of this file.
fn quotients_agree(reference: Number, found: Number, found_places: Option<u8>) -> bool {
    let places = places_of_double(reference).min(found_places.unwrap_or(u8::MAX));
    let scale = places.max(reference.scale).max(found.scale);
    // Both mantissas are below 2^127 and the factor is at most 10^38, so that the products stay below 2^254.
    let widen = |number: Number| {
        i256::from_i128(number.mantissa).wrapping_mul(i256::from_i128(10).wrapping_pow(u32::from(scale - number.scale)))
    };
    let difference = widen(found).wrapping_sub(widen(reference)).wrapping_abs();
    difference < i256::from_i128(10).wrapping_pow(u32::from(scale - places))
}

/// The decimal places of a double that its 15 significant digits reach.
fn places_of_double(value: Number) -> u8 {
    if value.mantissa == 0 {
        return DOUBLE_DIGITS as u8;
    }
    // At most 39 digits, and a scale of at most 38.
    let digits = value.mantissa.unsigned_abs().ilog10() as i32 + 1;
    let digits_before_point = digits - i32::from(value.scale);
    (DOUBLE_DIGITS - digits_before_point).clamp(0, 38) as u8
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
