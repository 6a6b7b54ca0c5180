//! Compiled statements.
//!
//! A program is what is left of a statement when everything that does not depend on the values of its parameters has been
//! done: the tables and the way to their rows ([`super::access`]), expressions ([`super::expression`]), the rules new rows
//! must keep ([`Rules`]) and the parents they refer to. It is immutable and shared.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::config::ConfigOptions;
use rustydb_storage::{Catalog, RowLock, TableDef};

use super::access::TableAccess;
use super::aggregate::Aggregate;
use super::datum::{Datum, Stored, Type};
use super::expression::{Decided, Node, Undecided};
use super::pipeline::SortKey;
use crate::Value;
use crate::functions::input::{check_float, reads};
use crate::functions::numeric_texts::without_exponent;
use crate::functions::time_texts::readable;
use crate::sql::context::StatementContext;
use crate::sql::grammar::lock::Busy;

/// How often what was of no use is passed over before it is tried again.
const PASSES: u32 = 200;

/// A compiled statement.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) origin: Origin,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Body,
    /// Executions that will be left to the ordinary path, because a range was too long.
    pub(crate) passes: Passes,
}

/// Executions of something compiled that will go another way, because it was of no use lately.
#[derive(Debug, Default)]
pub(crate) struct Passes(AtomicU32);

impl Passes {
    /// Whether it should be tried now.
    pub(crate) fn are_over(&self) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => true,
            _ => {
                self.0.fetch_sub(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// The same without counting.
    pub(crate) fn are_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Notes that it was of no use.
    pub(crate) fn begin(&self) {
        self.0.store(PASSES, Ordering::Relaxed);
    }
}

/// What a program was compiled for. It is good as long as these are the very same.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) options: Arc<ConfigOptions>,
    pub(crate) search_path: Arc<[String]>,
}

impl Origin {
    pub(crate) fn of(context: &StatementContext) -> Origin {
        Origin {
            catalog: Arc::clone(context.view().catalog()),
            options: Arc::clone(Session::config(context).options()),
            search_path: Arc::clone(context.search_path()),
        }
    }

    pub(crate) fn is(&self, catalog: &Arc<Catalog>, options: &Arc<ConfigOptions>, search_path: &Arc<[String]>) -> bool {
        Arc::ptr_eq(&self.catalog, catalog)
            && Arc::ptr_eq(&self.options, options)
            && (Arc::ptr_eq(&self.search_path, search_path) || self.search_path == *search_path)
    }
}

/// What is known of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// The type of the values that come.
    pub(crate) given: Type,
    /// Text stands for a value of any type: the one its place wants.
    pub(crate) cast: Option<Type>,
}

/// What kind of statement it is.
#[derive(Debug)]
pub(crate) enum Body {
    Select(Box<Select>),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
}

/// Whether Arrow reads a text as a cast of SQL does. It would go by a time zone where the type has none, and cut digits off.
fn is_read_alike(text: Option<&str>, wanted: &Type) -> bool {
    let Some(text) = text else { return true };
    match wanted {
        Type::Float32 | Type::Float64 => check_float(text, wanted).is_ok(),
        Type::Date32 | Type::Time64(_) | Type::Timestamp(..) => readable(text, wanted).is_none(),
        Type::Decimal128(..) => without_exponent(text).is_none(),
        _ => !reads(wanted),
    }
}

impl Program {
    /// Whether it was compiled for parameters of these values' types.
    pub(crate) fn accepts(&self, values: &[Value]) -> bool {
        values.len() == self.parameters.len()
            && values.iter().zip(&self.parameters).all(|(value, parameter)| is_of(value, &parameter.given))
    }

    /// Values that it accepts as it takes them.
    pub(crate) fn bind(&self, values: &[Value]) -> Decided<Vec<Datum>> {
        let bound = values.iter().zip(&self.parameters).map(|(value, parameter)| match &parameter.cast {
            None => Ok(Datum::of(value)),
            // A NULL is not cast, and may have another meaning then.
            Some(_) if value.is_null() => Err(Undecided),
            Some(wanted) if !is_read_alike(value.try_as_str().flatten(), wanted) => Err(Undecided),
            Some(wanted) => value.cast_to(wanted).map(|value| Datum::of(&value)).map_err(|_| Undecided),
        });
        bound.collect()
    }

    /// The same for data of the types it was compiled for.
    pub(crate) fn bind_data<'a>(&self, values: &'a [Datum]) -> Decided<Cow<'a, [Datum]>> {
        if self.parameters.iter().all(|parameter| parameter.cast.is_none()) {
            return Ok(Cow::Borrowed(values));
        }
        let bound = values.iter().zip(&self.parameters).map(|(value, parameter)| match &parameter.cast {
            None => Ok(value.clone()),
            Some(_) if value.is_null() => Err(Undecided),
            Some(wanted) if !is_read_alike(value.as_text(), wanted) => Err(Undecided),
            Some(wanted) => {
                let value = value.to_value(&parameter.given).map_err(|_| Undecided)?;
                value.cast_to(wanted).map(|value| Datum::of(&value)).map_err(|_| Undecided)
            }
        });
        bound.collect::<Decided<Vec<_>>>().map(Cow::Owned)
    }

    /// Whether it should be tried now.
    pub(crate) fn is_due(&self) -> bool {
        self.passes.are_over()
    }

    /// The same without counting that it was passed over: who asks tries it in another way afterwards.
    pub(crate) fn may_be_due(&self) -> bool {
        self.passes.are_none()
    }

    /// Notes that it met a range that is a scan's business.
    pub(crate) fn was_too_long(&self) {
        self.passes.begin();
    }

    /// Whether it changes or locks rows.
    pub(crate) fn writes(&self) -> bool {
        match &self.body {
            Body::Select(select) => select.lock.is_some(),
            Body::Insert(_) | Body::Update(_) | Body::Delete(_) => true,
        }
    }

    /// The columns of its rows, if it gives any.
    pub(crate) fn schema(&self) -> Option<&SchemaRef> {
        let returning = match &self.body {
            Body::Select(select) => return Some(&select.schema),
            Body::Insert(insert) => &insert.returning,
            Body::Update(update) => &update.returning,
            Body::Delete(delete) => &delete.returning,
        };
        returning.as_ref().map(|returning| &returning.schema)
    }

    /// Its kind, as completions and errors call it.
    pub(crate) fn tag(&self) -> &'static str {
        match &self.body {
            Body::Select(select) if select.lock.is_some() => "SELECT … FOR UPDATE or SHARE",
            Body::Select(_) => "SELECT",
            Body::Insert(_) => "INSERT",
            Body::Update(_) => "UPDATE",
            Body::Delete(_) => "DELETE",
        }
    }
}

/// Whether a value is of this type, without making its type.
pub(crate) fn is_of(value: &Value, data_type: &Type) -> bool {
    match (value, data_type) {
        (Value::Int32(_), Type::Int32)
        | (Value::Int64(_), Type::Int64)
        | (Value::Utf8(_), Type::Utf8)
        | (Value::Utf8View(_), Type::Utf8View)
        | (Value::Float64(_), Type::Float64)
        | (Value::Boolean(_), Type::Boolean)
        | (Value::Date32(_), Type::Date32) => true,
        (Value::Decimal128(_, precision, scale), Type::Decimal128(own_precision, own_scale)) => {
            precision == own_precision && scale == own_scale
        }
        (value, data_type) => value.data_type() == *data_type,
    }
}

/// A query.
#[derive(Debug)]
pub(crate) struct Select {
    /// In the order in which they are read; each with its place in the FROM list.
    pub(crate) tables: Vec<(usize, TableAccess)>,
    /// Conditions on parameters alone.
    pub(crate) conditions: Vec<Node>,
    pub(crate) aggregates: Option<Vec<Aggregate>>,
    /// Empty if the rows come in order.
    pub(crate) sort: Vec<SortKey>,
    /// Whether the first so many rows of the range are those wanted.
    pub(crate) limits_range: bool,
    pub(crate) skip: Option<Node>,
    pub(crate) fetch: Option<Node>,
    pub(crate) output: Vec<Node>,
    pub(crate) schema: SchemaRef,
    pub(crate) lock: Option<Lock>,
}

/// How the rows of the only table of a query are locked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lock {
    pub(crate) lock: RowLock,
    pub(crate) busy: Busy,
}

/// What a statement returns of the rows it changed.
#[derive(Debug)]
pub(crate) struct Returning {
    pub(crate) output: Vec<Node>,
    pub(crate) schema: SchemaRef,
}

/// Where a column of a changed row comes from.
#[derive(Debug)]
pub(crate) enum NewValue {
    /// From the row as it was.
    Kept,
    Computed(Node),
}

/// What new rows must fulfil. Those that do not are the ordinary path's.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) columns: Vec<ColumnRule>,
    /// CHECK constraints, over the new row as stored.
    pub(crate) checks: Vec<Node>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnRule {
    pub(crate) nullable: bool,
    /// Characters of `varchar(n)`, bytes of `varbinary(n)`.
    pub(crate) length_max: Option<usize>,
}

impl ColumnRule {
    pub(crate) fn accepts(self, value: &Datum) -> bool {
        match (value, self.length_max) {
            (Datum::Null, _) => self.nullable,
            (Datum::Text(text), Some(length)) => text.len() <= length || text.chars().count() <= length,
            (Datum::Bytes(bytes), Some(length)) => bytes.len() <= length,
            _ => true,
        }
    }
}

/// A foreign key of new rows.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) table: Arc<TableDef>,
    /// The child's columns in the order of the parent's key.
    pub(crate) columns: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Insert {
    pub(crate) table: Arc<TableDef>,
    pub(crate) stored: Vec<Stored>,
    /// Values for all columns, of their types.
    pub(crate) rows: Vec<Vec<Node>>,
    pub(crate) rules: Rules,
    pub(crate) parents: Vec<Parent>,
    pub(crate) conflict: Option<Conflict>,
    pub(crate) returning: Option<Returning>,
}

/// ON CONFLICT with the primary key; there is one row then.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// `None`: DO NOTHING.
    pub(crate) update: Option<ConflictUpdate>,
}

/// DO UPDATE. Expressions see the row there is at place 0 and the proposed one at place 1.
#[derive(Debug)]
pub(crate) struct ConflictUpdate {
    pub(crate) conditions: Vec<Node>,
    pub(crate) values: Vec<NewValue>,
    pub(crate) parents: Vec<Parent>,
}

#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) target: TableAccess,
    /// For each of the user's columns.
    pub(crate) values: Vec<NewValue>,
    pub(crate) rules: Rules,
    pub(crate) parents: Vec<Parent>,
    pub(crate) returning: Option<Returning>,
}

#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) target: TableAccess,
    pub(crate) returning: Option<Returning>,
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{IntervalUnit, TimeUnit};

    use super::*;

    #[test]
    fn texts_that_arrow_reads_otherwise_are_not_read_here() {
        for (text, unit, expected) in [
            ("2020-01-01 10:00:00", TimeUnit::Second, true),
            ("2020-01-01 10:00:00.9", TimeUnit::Second, false),
            ("2020-01-01 10:00:00.123", TimeUnit::Millisecond, true),
            ("2020-01-01 10:00:00.1239", TimeUnit::Millisecond, false),
            ("2020-01-01 10:00:00.123456", TimeUnit::Microsecond, true),
            ("2020-01-01 10:00:00.1234567", TimeUnit::Microsecond, false),
            ("2020-01-01 10:00:00+02", TimeUnit::Microsecond, false),
        ] {
            assert_eq!(is_read_alike(Some(text), &Type::Timestamp(unit, None)), expected, "{text} {unit:?}");
            let (zoned, utc) = (format!("{text}+00"), Type::Timestamp(unit, Some("UTC".into())));
            assert!(text.contains('+') || is_read_alike(Some(&zoned), &utc) == expected, "{zoned} {unit:?}");
        }
        for (text, wanted, expected) in [
            ("1.5", Type::Decimal128(5, 2), true),
            ("1.5e1", Type::Decimal128(5, 2), false),
            ("\\x01ff", Type::BinaryView, false),
            ("7", Type::Interval(IntervalUnit::MonthDayNano), false),
            ("7", Type::Int64, true),
        ] {
            assert_eq!(is_read_alike(Some(text), &wanted), expected, "{text} {wanted}");
        }
    }
}
