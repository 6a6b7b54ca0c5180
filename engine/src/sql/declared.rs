//! What the columns of a query are declared as: `varchar(5)`, `timestamp(2)`. Arrow's types do not say that, and the columns of
//! queries carry nothing else along, so it is looked up in the plan, where a table is made of a query or a view is described.
//!
//! As in PostgreSQL a column keeps it, through subqueries, joins, groups and sorts, and so does what a cast says; an
//! expression only if all that it may give was declared alike (CASE, `coalesce`, `greatest`, UNION). What a function computes
//! is of the plain type: `max(t)` of a `timestamp(3)`, which Arrow has in milliseconds, is a `timestamp`.

use std::cell::Cell;
use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use datafusion::common::{Column, DFSchema};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::{Case, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan};

use super::types::{DIGITS_KEY, LENGTH_KEY, TYPE_KEY, digits_name, digits_of};
use crate::catalog::provider::ColumnTable;
use crate::functions::time_digits::{ROUND_TO_DIGITS, digits_of_unit};
use crate::functions::told_apart::TOLD_APART;

/// The metadata of a field that say how it was declared.
pub(crate) type Declaration = HashMap<String, String>;

/// How deep plans are looked into: more levels than anybody's declarations go through.
const DEPTH_MAX: usize = 200;

/// How many places are looked at for a column. Each level of `coalesce(a, a)` over another one doubles them.
const PLACES_MAX: usize = 10_000;

/// How far a search may still go.
#[derive(Clone, Copy)]
struct Search<'a> {
    depth: usize,
    places: &'a Cell<usize>,
}

impl Search<'_> {
    /// One level further down.
    fn down(self) -> Option<Self> {
        self.places.set(self.places.get().checked_sub(1)?);
        Some(Search { depth: self.depth.checked_sub(1)?, ..self })
    }
}

/// Of each column of a plan that the analyser has not been over, how it is declared.
pub(crate) fn declared_columns(plan: &LogicalPlan) -> Vec<Declaration> {
    let of_column = |column| {
        let search = Search { depth: DEPTH_MAX, places: &Cell::new(PLACES_MAX) };
        declared(plan, column, search).unwrap_or_default()
    };
    (0..plan.schema().fields().len()).map(of_column).collect()
}

/// The columns of a table for the rows of a query: declared like those, and of the plain type where nothing is.
pub(crate) fn stored_columns(schema: &Schema, declarations: &[Declaration]) -> Schema {
    let fields = schema.fields().iter().enumerate().map(|(column, field)| match field.data_type() {
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, zone)
            if declarations.get(column).is_none_or(HashMap::is_empty) =>
        {
            Field::clone(field).with_data_type(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
        }
        _ => Field::clone(field),
    });
    with_declarations(&Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()), declarations)
}

/// The columns declared like those of a query, each as far as its type is the one that goes with that.
pub(crate) fn with_declarations(schema: &Schema, declarations: &[Declaration]) -> Schema {
    let fields = schema.fields().iter().enumerate().map(|(column, field)| {
        let Some(declaration) = declarations.get(column).filter(|declaration| !declaration.is_empty()) else {
            return Field::clone(field);
        };
        let mut metadata = field.metadata().clone();
        metadata.extend(declaration.clone());
        let declared = Field::clone(field).with_metadata(metadata);
        if fits(&declared) { declared } else { Field::clone(field) }
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

/// Whether what a field says of its declaration is about its type.
fn fits(field: &Field) -> bool {
    let has_zone = || field.metadata().get(TYPE_KEY).is_some_and(|name| name.ends_with("with time zone"));
    match (field.data_type(), digits_of(field)) {
        (DataType::Utf8View, None) => field.metadata().contains_key(TYPE_KEY),
        (DataType::BinaryView, None) => !field.metadata().contains_key(TYPE_KEY),
        (DataType::Timestamp(unit, zone), Some(digits)) => {
            let held = match unit {
                TimeUnit::Millisecond => 1..=2,
                TimeUnit::Microsecond => 4..=5,
                TimeUnit::Nanosecond => 7..=8,
                TimeUnit::Second => return false,
            };
            held.contains(&digits) && zone.is_some() == has_zone()
        }
        (DataType::Time64(TimeUnit::Microsecond), Some(digits)) => digits < 6,
        (DataType::Time64(TimeUnit::Nanosecond), Some(digits)) => (7..=8).contains(&digits),
        _ => false,
    }
}

fn declared(plan: &LogicalPlan, column: usize, search: Search<'_>) -> Option<Declaration> {
    let search = search.down()?;
    match plan {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            let table = provider.downcast_ref::<ColumnTable>()?.definition();
            let name = scan.projected_schema.fields().get(column)?.name();
            let (_, field) = table.schema.fields().find(name)?;
            of_field(field)
        }
        LogicalPlan::Projection(projection) => in_expr(projection.expr.get(column)?, &projection.input, search),
        LogicalPlan::SubqueryAlias(alias) => declared(&alias.input, column, search),
        LogicalPlan::Subquery(subquery) => declared(&subquery.subquery, column, search),
        LogicalPlan::Filter(filter) => declared(&filter.input, column, search),
        LogicalPlan::Sort(sort) => declared(&sort.input, column, search),
        LogicalPlan::Limit(limit) => declared(&limit.input, column, search),
        LogicalPlan::Repartition(parts) => declared(&parts.input, column, search),
        LogicalPlan::Distinct(Distinct::All(input)) => declared(input, column, search),
        LogicalPlan::Distinct(Distinct::On(on)) => in_expr(on.select_expr.get(column)?, &on.input, search),
        LogicalPlan::Aggregate(Aggregate { input, group_expr, .. }) => in_expr(group_expr.get(column)?, input, search),
        LogicalPlan::Window(window) => declared(&window.input, column, search),
        LogicalPlan::Extension(extension) => match extension.node.inputs().as_slice() {
            [input] => declared(input, column, search),
            _ => None,
        },
        LogicalPlan::Join(join) => {
            let (own, left) = (join.schema.fields().len(), join.left.schema().fields().len());
            let right = join.right.schema().fields().len();
            match column.checked_sub(left) {
                Some(column) if own == left + right => declared(&join.right, column, search),
                None if own == left || own == left + right => declared(&join.left, column, search),
                _ => None,
            }
        }
        LogicalPlan::Union(union) => alike(union.inputs.iter().map(|input| declared(input, column, search))),
        LogicalPlan::Values(values) => {
            alike(values.values.iter().map(|row| row.get(column).and_then(|value| in_expr(value, plan, search))))
        }
        _ => None,
    }
}

/// The same of an expression over the rows of `input`.
fn in_expr(expr: &Expr, input: &LogicalPlan, search: Search<'_>) -> Option<Declaration> {
    let search = search.down()?;
    match expr {
        Expr::Column(column) => declared(input, place_of(column, input.schema())?, search),
        Expr::Alias(alias) => in_expr(&alias.expr, input, search),
        Expr::ScalarSubquery(subquery) => declared(&subquery.subquery, 0, search),
        // A time that is rounded to digits is held in a unit with more of them.
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            let rounded = match expr.as_ref() {
                Expr::ScalarFunction(function) => rounded_to(function),
                _ => None,
            };
            match rounded {
                Some(digits) => Some(of_digits(digits, &digits_name(field.data_type(), digits)?)),
                None => of_field(field),
            }
        }
        Expr::ScalarFunction(function) => match (function.func.name(), function.args.as_slice()) {
            (ROUND_TO_DIGITS, [value, _]) => {
                let (digits, data_type) = (rounded_to(function)?, cast_to(value)?);
                Some(of_digits(digits, &digits_name(data_type.data_type(), digits)?))
            }
            (TOLD_APART, [value, ..]) => in_expr(value, input, search),
            ("coalesce" | "greatest" | "least", values) => {
                alike(values.iter().map(|value| in_expr(value, input, search)))
            }
            // It compares texts, and so gives one.
            ("nullif", [value, _]) => {
                in_expr(value, input, search).filter(|declared| declared.contains_key(DIGITS_KEY))
            }
            _ => None,
        },
        Expr::Case(Case { expr: _, when_then_expr, else_expr }) => {
            let results = when_then_expr.iter().map(|(_, result)| result).chain([else_expr.as_ref()?]);
            alike(results.map(|result| in_expr(result, input, search)))
        }
        _ => None,
    }
}

fn place_of(column: &Column, schema: &DFSchema) -> Option<usize> {
    schema.maybe_index_of_column(column)
}

fn cast_to(expr: &Expr) -> Option<&FieldRef> {
    match expr {
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => Some(field),
        _ => None,
    }
}

/// The digits that a call rounds a time to.
fn rounded_to(function: &ScalarFunction) -> Option<u8> {
    match (function.func.name(), function.args.as_slice()) {
        (ROUND_TO_DIGITS, [_, Expr::Literal(digits, _)]) => digits.to_string().parse().ok(),
        _ => None,
    }
}

fn of_digits(digits: u8, declared: &str) -> Declaration {
    HashMap::from([(DIGITS_KEY.to_owned(), digits.to_string()), (TYPE_KEY.to_owned(), declared.to_owned())])
}

fn of_field(field: &Field) -> Option<Declaration> {
    let own = [LENGTH_KEY, DIGITS_KEY, TYPE_KEY].into_iter();
    let own = own.filter_map(|key| Some((key.to_owned(), field.metadata().get(key)?.clone())));
    let own: Declaration = own.collect();
    match field.data_type() {
        // The unit says how many digits there are; that it was asked for is noted all the same.
        DataType::Timestamp(unit @ (TimeUnit::Second | TimeUnit::Millisecond), _) if own.is_empty() => {
            Some(HashMap::from([(DIGITS_KEY.to_owned(), digits_of_unit(*unit).to_string())]))
        }
        _ => Some(own).filter(|declared| !declared.is_empty()),
    }
}

/// What all are declared as.
fn alike(mut declarations: impl Iterator<Item = Option<Declaration>>) -> Option<Declaration> {
    let first = declarations.next()??;
    declarations.all(|declared| declared.as_ref() == Some(&first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn declaration(pairs: &[(&str, &str)]) -> Declaration {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_declaration_goes_with_its_type_only() {
        let short = declaration(&[(LENGTH_KEY, "5"), (TYPE_KEY, "character varying(5)")]);
        let rounded = declaration(&[(DIGITS_KEY, "2"), (TYPE_KEY, "timestamp(2)")]);
        let in_its_unit = declaration(&[(DIGITS_KEY, "3")]);
        let in_zone = Some(Arc::from("UTC"));
        for (data_type, declared, kept) in [
            (DataType::Utf8View, &short, true),
            (DataType::Int32, &short, false),
            (DataType::Timestamp(TimeUnit::Millisecond, None), &rounded, true),
            (DataType::Timestamp(TimeUnit::Microsecond, None), &rounded, false),
            (DataType::Timestamp(TimeUnit::Millisecond, in_zone), &rounded, false),
            (DataType::Timestamp(TimeUnit::Millisecond, None), &in_its_unit, false),
            (DataType::Utf8View, &rounded, false),
        ] {
            let schema = Schema::new(vec![Field::new("a", data_type.clone(), true)]);
            let result = with_declarations(&schema, std::slice::from_ref(declared));
            assert_eq!(!result.field(0).metadata().is_empty(), kept, "{data_type} {declared:?}");
        }
    }

    #[test]
    fn what_is_computed_has_all_digits() {
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
        let schema =
            Schema::new(vec![Field::new("a", milliseconds.clone(), true), Field::new("b", milliseconds, true)]);
        let stored = stored_columns(&schema, &[declaration(&[(DIGITS_KEY, "3")]), Declaration::new()]);
        let units = stored.fields().iter().map(|field| match field.data_type() {
            DataType::Timestamp(unit, _) => *unit,
            other => panic!("{other}"),
        });
        assert_eq!(units.collect::<Vec<_>>(), [TimeUnit::Millisecond, TimeUnit::Microsecond]);
    }

    #[test]
    fn a_search_ends() {
        let places = Cell::new(3);
        let search = Search { depth: 2, places: &places };
        assert!(search.down().is_some_and(|search| search.down().is_some_and(|search| search.down().is_none())));
        let search = Search { depth: 2, places: &places };
        assert!(search.down().is_none());
    }

    #[test]
    fn what_differs_is_declared_as_nothing() {
        let (a, b) = (declaration(&[(LENGTH_KEY, "5")]), declaration(&[(LENGTH_KEY, "6")]));
        assert_eq!(alike([Some(a.clone()), Some(a.clone())].into_iter()), Some(a.clone()));
        assert_eq!(alike([Some(a.clone()), Some(b)].into_iter()), None);
        assert_eq!(alike([Some(a), None].into_iter()), None);
        assert_eq!(alike(std::iter::empty()), None);
    }
}
