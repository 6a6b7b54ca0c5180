//! How a program gets at the rows of a table: by their key, or by a short range of the key or of an index.
//!
//! A condition `column = expression` whose expression is known before the table is read (a parameter, a constant, a
//! column of a table read earlier) gives a key column its value. If that covers the primary key, the table is read by
//! key; otherwise by the longest run of leading columns that has values, with bounds for the next one if there are any. A
//! table with neither is not for the row path.
//!
//! Types are coerced before, so the column may stand under a widening cast: `CAST(id AS bigint) = $1`. The value is then
//! taken back to the column's type ([`Narrowing`]); one that has no counterpart there equals no row.

use std::sync::Arc;

use rustydb_storage::{TableDef, WantedColumns};

use super::datum::{Datum, Stored};
use super::expression::{Class, Comparison, Conversion, Node};

/// A table with what it is to be read by.
#[derive(Debug)]
pub(crate) struct TableAccess {
    pub(crate) table: Arc<TableDef>,
    /// The stored types of all columns of the storage schema.
    pub(crate) stored: Vec<Stored>,
    pub(crate) access: Access,
    /// What its rows must fulfil beyond the key, decided as soon as they are read.
    pub(crate) conditions: Vec<Node>,
    /// Columns of the storage schema that somebody asks for.
    pub(crate) columns: WantedColumns,
}

/// The ways to rows.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each table of a program, which is kept")]
pub(crate) enum Access {
    /// One row at most: values for all columns of the primary key.
    Key(Vec<KeyPart>),
    Range(Range),
}

/// A range of the primary key or an index.
#[derive(Debug)]
pub(crate) struct Range {
    /// The position of the index among the table's; `None` for the primary key.
    pub(crate) index: Option<usize>,
    pub(crate) equal: Vec<KeyPart>,
    pub(crate) lower: Option<Bound>,
    pub(crate) upper: Option<Bound>,
    pub(crate) descending: bool,
    /// No more rows are needed than this, in the range's order.
    pub(crate) limit: Option<usize>,
}

/// A value for a key column.
#[derive(Debug)]
pub(crate) struct KeyPart {
    pub(crate) value: Node,
    pub(crate) narrowing: Narrowing,
    pub(crate) stored: Stored,
}

/// An end of a range.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) part: KeyPart,
    pub(crate) inclusive: bool,
}

/// How a value compared with a column under a cast becomes one of the column's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Narrowing {
    /// As it is; integers must fit the column.
    Direct,
    /// A decimal that must be this many times an integer.
    DecimalToInt(i128),
    /// A decimal that must be this many times one of the column's scale.
    Decimal(i128),
}

impl Narrowing {
    /// The same value in the column's type; `None` if it has none that is equal.
    pub(crate) fn narrow(self, value: Datum, stored: Stored) -> Option<Datum> {
        let narrowed = match (self, value) {
            (Narrowing::Direct, value) => value,
            (Narrowing::DecimalToInt(factor), Datum::Decimal(value)) if value % factor == 0 => {
                Datum::Int(i64::try_from(value / factor).ok()?)
            }
            (Narrowing::Decimal(factor), Datum::Decimal(value)) if value % factor == 0 => {
                Datum::Decimal(value / factor)
            }
            _ => return None,
        };
        let fits = match (&narrowed, stored) {
            (Datum::Int(value), Stored::Signed(width)) => {
                let unused = 64 - 8 * width as u32;
                (*value << unused) >> unused == *value
            }
            (Datum::Int(value), Stored::Unsigned(width)) => {
                u64::try_from(*value).is_ok_and(|value| value >> (8 * width) == 0)
            }
            (Datum::Decimal(value), Stored::Decimal64) => i64::try_from(*value).is_ok(),
            _ => true,
        };
        fits.then_some(narrowed)
    }
}

/// A condition on one column of a table.
struct ColumnCondition {
    column: usize,
    comparison: Comparison,
    part: KeyPart,
    /// Its place among all conditions.
    place: usize,
}

/// The column that one side of a comparison is, and how values of the other side are taken to its type.
fn column_side(node: &Node, place: usize) -> Option<(usize, Narrowing)> {
    match node {
        Node::Stored(row, column) if *row == place => Some((*column, Narrowing::Direct)),
        Node::Convert(conversion, inner) => {
            let Node::Stored(row, column) = inner.as_ref() else { return None };
            let narrowing = match conversion {
                Conversion::Range(..) => Narrowing::Direct,
                Conversion::IntToDecimal { factor, .. } => Narrowing::DecimalToInt(*factor),
                Conversion::Rescale { from, to } if from.1 <= to.1 => {
                    Narrowing::Decimal(10i128.checked_pow(u32::try_from(to.1 - from.1).ok()?)?)
                }
                _ => return None,
            };
            (*row == place).then_some((*column, narrowing))
        }
        _ => None,
    }
}

fn column_condition(
    condition: &Node,
    order: usize,
    place: usize,
    bound: u64,
    stored: &[Stored],
) -> Option<ColumnCondition> {
    let Node::Compare(comparison, class, sides) = condition else { return None };
    // Floats are left to the conditions: 0.0 equals -0.0, and their keys differ from what a comparison says of NaN.
    if *class == Class::Float {
        return None;
    }
    let (left, right) = sides.as_ref();
    let (column, narrowing, value, comparison) = match (column_side(left, place), column_side(right, place)) {
        (Some((column, narrowing)), _) if right.reads() & !bound == 0 => (column, narrowing, right, *comparison),
        (_, Some((column, narrowing))) if left.reads() & !bound == 0 => (column, narrowing, left, comparison.flipped()),
        _ => return None,
    };
    let part = KeyPart { value: value.clone(), narrowing, stored: *stored.get(column)? };
    Some(ColumnCondition { column, comparison, part, place: order })
}

/// What was found for a table.
pub(crate) struct Chosen {
    pub(crate) access: Access,
    /// The conditions (by place) that the access fulfils exactly.
    pub(crate) fulfilled: Vec<usize>,
}

impl Chosen {
    /// How good it is: reads by key first, then more columns, then bounds, then the primary key.
    pub(crate) fn rank(&self) -> (bool, usize, bool, bool) {
        match &self.access {
            Access::Key(parts) => (true, parts.len(), true, true),
            Access::Range(range) => {
                (false, range.equal.len(), range.lower.is_some() || range.upper.is_some(), range.index.is_none())
            }
        }
    }
}

/// The best way to the rows of the table at `place`, when the tables in the set `bound` have been read.
pub(crate) fn choose(
    table: &TableDef,
    stored: &[Stored],
    place: usize,
    bound: u64,
    conditions: &[Node],
) -> Option<Chosen> {
    let find = || {
        let each = conditions.iter().enumerate();
        each.filter_map(move |(order, condition)| column_condition(condition, order, place, bound, stored))
    };
    let orders = std::iter::once((None, table.key_columns()))
        .chain(table.indexes.iter().enumerate().map(|(position, index)| (Some(position), index.columns.as_slice())));
    let candidates = orders.filter_map(|(index, columns)| {
        let (mut equal, mut fulfilled) = (Vec::new(), Vec::new());
        for column in columns {
            let is_value = |found: &ColumnCondition| found.column == *column && found.comparison == Comparison::Equal;
            let Some(found) = find().find(is_value) else { break };
            fulfilled.push(found.place);
            equal.push(found.part);
        }
        if index.is_none() && equal.len() == columns.len() {
            return Some(Chosen { access: Access::Key(equal), fulfilled });
        }
        let (mut lower, mut upper) = (None, None);
        if let Some(next) = columns.get(equal.len()) {
            for found in find().filter(|found| found.column == *next) {
                let inclusive = matches!(found.comparison, Comparison::GreaterOrEqual | Comparison::LessOrEqual);
                match found.comparison {
                    Comparison::Greater | Comparison::GreaterOrEqual if lower.is_none() => {
                        lower = Some(Bound { part: found.part, inclusive });
                    }
                    Comparison::Less | Comparison::LessOrEqual if upper.is_none() => {
                        upper = Some(Bound { part: found.part, inclusive });
                    }
                    _ => {}
                }
            }
        }
        let bounded = !equal.is_empty() || (lower.is_some() && upper.is_some());
        let range = Range { index, equal, lower, upper, descending: false, limit: None };
        bounded.then_some(Chosen { access: Access::Range(range), fulfilled })
    });
    candidates.max_by_key(Chosen::rank)
}

impl Range {
    /// The columns of the storage schema in the range's order, from the first that has no value on.
    pub(crate) fn order<'t>(&self, table: &'t TableDef) -> &'t [usize] {
        let columns = match self.index {
            None => table.key_columns(),
            Some(position) => table.indexes.get(position).map_or(&[][..], |index| &index.columns),
        };
        columns.get(self.equal.len()..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_to_the_columns_type_only_if_they_are_equal() {
        let int = Stored::Signed(4);
        assert_eq!(Narrowing::Direct.narrow(Datum::Int(7), int), Some(Datum::Int(7)));
        assert_eq!(Narrowing::Direct.narrow(Datum::Int(1 << 40), int), None);
        assert_eq!(Narrowing::Direct.narrow(Datum::Int(-1), Stored::Unsigned(4)), None);
        assert_eq!(Narrowing::DecimalToInt(100).narrow(Datum::Decimal(700), int), Some(Datum::Int(7)));
        assert_eq!(Narrowing::DecimalToInt(100).narrow(Datum::Decimal(750), int), None);
        assert_eq!(Narrowing::Decimal(10).narrow(Datum::Decimal(70), Stored::Decimal64), Some(Datum::Decimal(7)));
        assert_eq!(Narrowing::Decimal(10).narrow(Datum::Decimal(75), Stored::Decimal64), None);
        assert_eq!(Narrowing::Direct.narrow(Datum::Int(i64::MIN), Stored::Signed(8)), Some(Datum::Int(i64::MIN)));
    }
}
