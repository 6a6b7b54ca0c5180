//! The variables of a running body, and what the names in its SQL are bound to.

use std::sync::Arc;

use arrow::datatypes::DataType;
use rustydb_engine::routine::{
    CompiledExpression, CompiledStatement, Datum, Execution, Shape, SqlType, Variable as SqlVariable, Variables,
};
use rustydb_engine::{Error, Result};

use super::code::{Code, Declared};
use super::compile::find;
use super::parser::Conflict;
use crate::linked::Slot;

/// What a variable holds.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Scalar(Datum),
    /// `None`: nothing was assigned yet.
    Record(Option<Record>),
}

/// A row with its columns.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) shape: Arc<Shape>,
    pub(super) values: Vec<Datum>,
}

/// What a variable can hold.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar(SqlType),
    /// A row of a table.
    Row(Arc<Shape>),
    /// Any row.
    Record,
    /// Any single value, kept as a row of one column.
    Dynamic,
}

/// Where an input of a piece of SQL comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Scalar(usize),
    Field(usize, usize),
    Whole(usize),
    /// A value of USING.
    Given(usize),
}

/// A piece of SQL with its inputs.
#[derive(Debug)]
pub(super) struct Bound<T> {
    pub(super) compiled: T,
    pub(super) inputs: Vec<Input>,
    /// The columns that records had when it was compiled; `None`: nothing was assigned yet.
    shapes: Vec<(usize, Option<Arc<Shape>>)>,
}

impl<T> Bound<T> {
    pub(super) fn fits(&self, frame: &[Cell]) -> bool {
        self.shapes.iter().all(|(record, shape)| match (&frame[*record], shape) {
            (Cell::Record(Some(found)), Some(shape)) => Arc::ptr_eq(&found.shape, shape) || found.shape == *shape,
            (Cell::Record(None), None) => true,
            _ => false,
        })
    }

    /// The values of the inputs.
    pub(super) fn values(&self, frame: &[Cell], given: &[Datum]) -> Result<Vec<Datum>> {
        let mut values = Vec::with_capacity(self.inputs.len());
        self.put_values(frame, given, &mut values)?;
        Ok(values)
    }

    /// The same behind others.
    pub(super) fn put_values(&self, frame: &[Cell], given: &[Datum], values: &mut Vec<Datum>) -> Result<()> {
        for input in &self.inputs {
            values.push(match (*input, frame) {
                (Input::Given(place), _) => given.get(place).cloned().unwrap_or_default(),
                (Input::Scalar(variable), frame) => match &frame[variable] {
                    Cell::Scalar(value) => value.clone(),
                    Cell::Record(_) => return Err(mistaken()),
                },
                (Input::Field(record, field), frame) => match &frame[record] {
                    Cell::Record(Some(record)) => record.values.get(field).cloned().ok_or_else(mistaken)?,
                    _ => return Err(mistaken()),
                },
                (Input::Whole(record), frame) => match &frame[record] {
                    Cell::Record(Some(record)) => record.shape.to_row(&record.values)?,
                    _ => Datum::Null,
                },
            });
        }
        Ok(())
    }
}

fn mistaken() -> Error {
    Error::raised("XX000", "a variable that is something else")
}

/// A body whose names have been looked up, as far as it has run.
pub(super) struct LinkedCode {
    pub(super) kinds: Vec<Kind>,
    pub(super) expressions: Vec<Slot<Bound<CompiledExpression>>>,
    pub(super) statements: Vec<Slot<Bound<CompiledStatement>>>,
}

impl LinkedCode {
    pub(super) fn new(code: &Code, execution: &Execution<'_>) -> Result<LinkedCode> {
        let mut kinds: Vec<Kind> = Vec::with_capacity(code.variables.len());
        for variable in &code.variables {
            let kind = match &variable.declared {
                Declared::Known(sql_type) => kind_of(sql_type.clone()),
                Declared::Named(text) => kind_of(execution.sql_type(text)?),
                Declared::OfVariable(other) => kinds.get(*other).cloned().ok_or_else(mistaken)?,
                Declared::OfColumn(path) => kind_of(execution.column_type(path)?),
                Declared::RowOf(path) => Kind::Row(Arc::new(execution.row_shape(path)?)),
                Declared::Record => Kind::Record,
                Declared::Dynamic => Kind::Dynamic,
            };
            kinds.push(kind);
        }
        Ok(LinkedCode {
            kinds,
            expressions: code.expressions.iter().map(|_| Slot::default()).collect(),
            statements: code.statements.iter().map(|_| Slot::default()).collect(),
        })
    }

    /// A variable without a value.
    pub(super) fn empty(&self, variable: usize) -> Cell {
        match &self.kinds[variable] {
            Kind::Scalar(_) => Cell::Scalar(Datum::Null),
            Kind::Row(shape) => {
                let values = shape.types.iter().map(|_| Datum::Null).collect();
                Cell::Record(Some(Record { shape: Arc::clone(shape), values }))
            }
            Kind::Record | Kind::Dynamic => Cell::Record(None),
        }
    }
}

fn kind_of(sql_type: SqlType) -> Kind {
    match sql_type.shape() {
        Some(shape) => Kind::Row(Arc::new(shape)),
        None => Kind::Scalar(sql_type),
    }
}

/// The variables in sight of a piece of SQL.
pub(super) struct Sight<'a> {
    code: &'a Code,
    linked: &'a LinkedCode,
    frame: &'a [Cell],
    scope: usize,
    inputs: Vec<Input>,
    shapes: Vec<(usize, Option<Arc<Shape>>)>,
}

impl<'a> Sight<'a> {
    pub(super) fn new(code: &'a Code, linked: &'a LinkedCode, frame: &'a [Cell], scope: usize) -> Self {
        Sight { code, linked, frame, scope, inputs: Vec::new(), shapes: Vec::new() }
    }

    pub(super) fn bind<T>(self, compiled: T) -> Bound<T> {
        Bound { compiled, inputs: self.inputs, shapes: self.shapes }
    }

    fn input(&mut self, input: Input) -> usize {
        match self.inputs.iter().position(|known| *known == input) {
            Some(place) => place,
            None => {
                self.inputs.push(input);
                self.inputs.len() - 1
            }
        }
    }

    /// The columns of a record, which the piece of SQL from now on relies on.
    fn shape(&mut self, variable: usize) -> Result<Arc<Shape>> {
        self.shape_if_assigned(variable).ok_or_else(|| {
            let name = &self.code.variables[variable].name;
            let error = Error::raised("55000", format!("record \"{name}\" is not assigned yet"));
            error.with_detail("The tuple structure of a not-yet-assigned record is indeterminate.")
        })
    }

    /// The same, or that it has none yet.
    fn shape_if_assigned(&mut self, variable: usize) -> Option<Arc<Shape>> {
        let shape = match &self.frame[variable] {
            Cell::Record(Some(record)) => Some(Arc::clone(&record.shape)),
            _ => None,
        };
        if !self.shapes.iter().any(|(known, _)| *known == variable) {
            self.shapes.push((variable, shape.clone()));
        }
        shape
    }
}

impl Variables for Sight<'_> {
    fn resolve(&mut self, path: &[String]) -> Result<Option<SqlVariable>> {
        let numbered = match path {
            [only] => only.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()),
            _ => None,
        };
        let found = match numbered {
            Some(number) => number
                .checked_sub(1)
                .and_then(|place| self.code.numbered.get(place))
                .map(|variable| (*variable, &[][..])),
            None => find(&self.code.scopes, self.scope, path),
        };
        let Some((variable, rest)) = found else { return Ok(None) };
        match (&self.linked.kinds[variable], rest) {
            (Kind::Scalar(sql_type), []) => {
                let data_type = sql_type.data_type.clone();
                Ok(Some(SqlVariable { input: self.input(Input::Scalar(variable)), data_type }))
            }
            (Kind::Scalar(_), _) => Ok(None),
            (Kind::Dynamic, []) => {
                let shape = self.shape(variable)?;
                let data_type = shape.types[0].data_type.clone();
                Ok(Some(SqlVariable { input: self.input(Input::Field(variable, 0)), data_type }))
            }
            (_, []) => {
                // As a whole, a record that was not assigned yet is NULL.
                let shape = self.shape_if_assigned(variable);
                let data_type = shape.map_or(DataType::Null, |shape| shape.row_type().data_type);
                Ok(Some(SqlVariable { input: self.input(Input::Whole(variable)), data_type }))
            }
            (_, [field]) => {
                let shape = self.shape(variable)?;
                let name = &self.code.variables[variable].name;
                let Some(place) = shape.position(field) else {
                    return Err(Error::raised("42703", format!("record \"{name}\" has no field \"{field}\"")));
                };
                let data_type = shape.types[place].data_type.clone();
                Ok(Some(SqlVariable { input: self.input(Input::Field(variable, place)), data_type }))
            }
            _ => Ok(None),
        }
    }

    fn prefers_variable(&self) -> Option<bool> {
        match self.code.conflict {
            Conflict::Error => None,
            Conflict::UseVariable => Some(true),
            Conflict::UseColumn => Some(false),
        }
    }
}

/// The values of USING, by number.
pub(super) struct Given<'a> {
    pub(super) types: &'a [DataType],
    pub(super) inputs: Vec<Input>,
}

impl Variables for Given<'_> {
    fn resolve(&mut self, path: &[String]) -> Result<Option<SqlVariable>> {
        let [only] = path else { return Ok(None) };
        let Some(number) = only.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()) else {
            return Ok(None);
        };
        let Some(data_type) = number.checked_sub(1).and_then(|place| self.types.get(place)) else { return Ok(None) };
        let input = Input::Given(number - 1);
        let place = self.inputs.iter().position(|known| *known == input).unwrap_or_else(|| {
            self.inputs.push(input);
            self.inputs.len() - 1
        });
        Ok(Some(SqlVariable { input: place, data_type: data_type.clone() }))
    }
}

impl Given<'_> {
    pub(super) fn bind<T>(self, compiled: T) -> Bound<T> {
        Bound { compiled, inputs: self.inputs, shapes: Vec::new() }
    }
}
