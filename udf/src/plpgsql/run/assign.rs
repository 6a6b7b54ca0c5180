//! Assignment: to variables, fields, elements, and of whole rows.

use std::sync::Arc;

use arrow::datatypes::DataType;
use rustydb_engine::routine::{Datum, Execution, Shape, SqlType};
use rustydb_engine::{Error, Result};

use super::Call;
use super::at_once::has_subscript;
use crate::plpgsql::code::{Code, Number, Place, Variable};
use crate::plpgsql::frame::{Cell, Kind, LinkedCode, Record};

/// Text in a variable; more is a mistake that would only fill the memory.
const TEXT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A value on its way into a variable.
pub(super) struct Assigned<'v> {
    pub(super) value: Datum,
    /// The type that it has.
    pub(super) data_type: &'v DataType,
    /// The session's time zone.
    pub(super) zone: &'v str,
}

impl Assigned<'_> {
    /// The value as one of another type.
    fn to(self, sql_type: &SqlType) -> Result<Datum> {
        sql_type.assign(self.value, self.data_type, self.zone)
    }
}

impl Call<'_> {
    pub(super) async fn assign_expression(
        &mut self,
        execution: &mut Execution<'_>,
        place: &Place,
        value: Number,
    ) -> Result<()> {
        let linked = Arc::clone(&self.linked);
        let bound = self.expression(&linked, execution, value)?;
        let value = self.value_of(execution, &bound).await?;
        self.assign(execution, place, value, bound.compiled.data_type()).await
    }

    pub(super) async fn assign(
        &mut self,
        execution: &mut Execution<'_>,
        place: &Place,
        value: Datum,
        data_type: &DataType,
    ) -> Result<()> {
        let subscript = match place.subscript {
            Some(subscript) => Some(self.integer(execution, subscript, "subscript").await?),
            None => None,
        };
        self.put(place, subscript, value, data_type)
    }

    /// The same when it is known which element of an array is meant, if it is one.
    fn put(&mut self, place: &Place, subscript: Option<i64>, value: Datum, data_type: &DataType) -> Result<()> {
        let given = Assigned { value, data_type, zone: self.names.zone() };
        put(&self.linked, self.code, &mut self.frame, place, subscript, given)
    }

    /// Puts a row into targets; without a row they become NULL.
    pub(super) async fn assign_row(
        &mut self,
        execution: &mut Execution<'_>,
        targets: &[Place],
        shape: &Arc<Shape>,
        row: Option<Vec<Datum>>,
    ) -> Result<()> {
        if !has_subscript(targets) {
            return self.put_row(targets, shape, row);
        }
        for (target, (value, data_type)) in targets.iter().zip(columns(shape, row)) {
            self.assign(execution, target, value, data_type).await?;
        }
        Ok(())
    }

    /// The same where no target is an element of an array.
    pub(super) fn put_row(&mut self, targets: &[Place], shape: &Arc<Shape>, row: Option<Vec<Datum>>) -> Result<()> {
        if let [Place { variable, field: None, subscript: None }] = targets {
            let Call { linked, frame, names, .. } = &mut *self;
            let kind = &linked.kinds[*variable];
            if matches!(kind, Kind::Row(_) | Kind::Record) {
                let values = row.unwrap_or_else(|| shape.types.iter().map(|_| Datum::Null).collect());
                frame[*variable] = Cell::Record(Some(fit_row(kind, Arc::clone(shape), values, names.zone())?));
                return Ok(());
            }
        }
        targets
            .iter()
            .zip(columns(shape, row))
            .try_for_each(|(target, (value, data_type))| self.put(target, None, value, data_type))
    }
}

/// Puts a value into a variable, a field, or an element of an array.
pub(super) fn put(
    linked: &LinkedCode,
    code: &Code,
    frame: &mut [Cell],
    place: &Place,
    subscript: Option<i64>,
    given: Assigned<'_>,
) -> Result<()> {
    let Place { variable, field, subscript: _ } = place;
    if let Datum::Text(text) = &given.value
        && text.len() > TEXT_BYTES_MAX
    {
        return Err(Error::raised("54000", format!("a text of more than {TEXT_BYTES_MAX} bytes")));
    }
    match (&linked.kinds[*variable], field) {
        (Kind::Scalar(sql_type), None) => {
            let before = match &frame[*variable] {
                Cell::Scalar(before) => before,
                Cell::Record(_) => return Err(Error::raised("XX000", "a variable that is something else")),
            };
            let value = changed(sql_type, before, subscript, given)?;
            require_value(&code.variables[*variable], &value)?;
            frame[*variable] = Cell::Scalar(value);
        }
        (Kind::Scalar(_), Some(_)) => {
            let name = &code.variables[*variable].name;
            return Err(Error::raised("42601", format!("\"{name}\" is no record")));
        }
        (Kind::Dynamic, _) => {
            let shape = Shape { names: vec![String::new()], types: vec![SqlType::plain(given.data_type.clone())] };
            frame[*variable] = Cell::Record(Some(Record { shape: Arc::new(shape), values: vec![given.value] }));
        }
        (Kind::Row(_) | Kind::Record, Some(field)) => {
            let name = &code.variables[*variable].name;
            let Cell::Record(Some(record)) = &mut frame[*variable] else {
                return Err(Error::raised("55000", format!("record \"{name}\" is not assigned yet")));
            };
            let Some(position) = record.shape.position(field) else {
                return Err(Error::raised("42703", format!("record \"{name}\" has no field \"{field}\"")));
            };
            let sql_type = &record.shape.types[position];
            let value = changed(sql_type, &record.values[position], subscript, given)?;
            record.values[position] = value;
        }
        (kind @ (Kind::Row(_) | Kind::Record), None) => {
            let Assigned { value, data_type, zone } = given;
            require_value(&code.variables[*variable], &value)?;
            let Some(shape) = SqlType::plain(data_type.clone()).shape() else {
                if value.is_null() {
                    frame[*variable] = linked.empty(*variable);
                    return Ok(());
                }
                return Err(Error::raised("42804", "cannot assign non-composite value to a record variable"));
            };
            let values = shape.from_row(&value)?;
            let record = fit_row(kind, Arc::new(shape), values, zone)?;
            frame[*variable] = Cell::Record(Some(record));
        }
    }
    Ok(())
}

/// Fails for a NULL on its way into a variable that is declared NOT NULL.
fn require_value(variable: &Variable, value: &Datum) -> Result<()> {
    match value.is_null() && variable.not_null {
        true => Err(Error::raised(
            "22004",
            format!("null value cannot be assigned to variable \"{}\" declared NOT NULL", variable.name),
        )),
        false => Ok(()),
    }
}

/// The values of a row with their types, and then NULLs without end.
fn columns(shape: &Shape, row: Option<Vec<Datum>>) -> impl Iterator<Item = (Datum, &DataType)> {
    let values = row.unwrap_or_default().into_iter().zip(shape.types.iter().map(|kind| &kind.data_type));
    values.chain(std::iter::repeat_with(|| (Datum::Null, &DataType::Null)))
}

/// A value that a variable gets: all of it, or one element of its array.
pub(super) fn changed(
    sql_type: &SqlType,
    before: &Datum,
    subscript: Option<i64>,
    given: Assigned<'_>,
) -> Result<Datum> {
    let Some(subscript) = subscript else { return given.to(sql_type) };
    let Some(element) = sql_type.element() else {
        let message = format!("cannot subscript type {} because it does not support subscripting", sql_type.name());
        return Err(Error::raised("42804", message));
    };
    let value = given.to(&element)?;
    let mut elements = SqlType::elements(before)?.unwrap_or_default();
    let place = match usize::try_from(subscript) {
        Ok(place @ 1..=1_000_000) => place - 1,
        _ => return Err(Error::raised("2202E", format!("array subscript {subscript} out of range"))),
    };
    if elements.len() <= place {
        elements.resize(place + 1, Datum::Null);
    }
    elements[place] = value;
    sql_type.array(&elements)
}

/// A row as a variable of a kind holds it.
pub(super) fn fit_row(kind: &Kind, given: Arc<Shape>, values: Vec<Datum>, zone: &str) -> Result<Record> {
    match kind {
        Kind::Row(shape) => {
            // As in PL/pgSQL: what is too much is ignored, what is missing is NULL.
            let mut fitted = Vec::with_capacity(shape.types.len());
            let mut values = values.into_iter().zip(&given.types);
            for wanted in &shape.types {
                fitted.push(match values.next() {
                    Some((value, from)) => wanted.assign(value, &from.data_type, zone)?,
                    None => Datum::Null,
                });
            }
            Ok(Record { shape: Arc::clone(shape), values: fitted })
        }
        _ => Ok(Record { shape: given, values }),
    }
}

/// A row of the columns that a function returns.
pub(super) fn fit_values(wanted: &Shape, given: &Shape, values: Vec<Datum>, zone: &str) -> Result<Vec<Datum>> {
    if wanted.types.len() != values.len() {
        return Err(wrong_columns(wanted, given));
    }
    let pairs = values.into_iter().zip(&wanted.types).zip(&given.types);
    pairs.map(|((value, wanted), given)| wanted.assign(value, &given.data_type, zone)).collect()
}

pub(super) fn wrong_columns(wanted: &Shape, given: &Shape) -> Error {
    Error::raised("42804", "structure of query does not match function result type").with_detail(format!(
        "Number of returned columns ({}) does not match expected column count ({}).",
        given.types.len(),
        wanted.types.len()
    ))
}
