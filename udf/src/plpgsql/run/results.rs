//! What a routine returns.

use std::sync::Arc;

use rustydb_engine::routine::{Datum, Execution, Outcome, Returns, Shape, SqlType};
use rustydb_engine::{Error, Result};

use super::Call;
use super::assign::{fit_values, wrong_columns};
use crate::plpgsql::code::{Number, Query};
use crate::plpgsql::frame::Cell;

/// Rows to be returned are counted in steps of this many bytes.
const MEMORY_STEP_BYTES: usize = 64 * 1024;

impl Call<'_> {
    /// The OUT parameters, in order.
    pub(super) fn outputs(&self) -> Result<Vec<Datum>> {
        let value = |variable: &usize| match &self.frame[*variable] {
            Cell::Scalar(value) => Ok(value.clone()),
            Cell::Record(Some(record)) => record.shape.to_row(&record.values),
            Cell::Record(None) => Ok(Datum::Null),
        };
        self.code.outputs.iter().map(value).collect()
    }

    pub(super) async fn return_value(
        &mut self,
        execution: &mut Execution<'_>,
        value: Option<Number>,
    ) -> Result<Outcome> {
        let Some(number) = value else { return self.finished() };
        let (value, data_type) = self.evaluate(execution, number).await?;
        let Returns::Value(sql_type) = &self.source.returns else { return self.finished() };
        match sql_type.shape() {
            None => Ok(Outcome::Value(sql_type.assign(value, &data_type, execution.zone())?)),
            Some(_) if value.is_null() => Ok(Outcome::Value(Datum::Null)),
            Some(shape) => {
                let Some(given) = SqlType::plain(data_type).shape() else {
                    return Err(Error::raised(
                        "42804",
                        "cannot return non-composite value from function returning composite type",
                    ));
                };
                let row = fit_values(&shape, &given, given.from_row(&value)?, execution.zone())?;
                Ok(Outcome::Value(shape.to_row(&row)?))
            }
        }
    }

    /// What comes of a RETURN without a value.
    pub(super) fn finished(&mut self) -> Result<Outcome> {
        if self.source.is_procedure {
            return Ok(match self.code.outputs.is_empty() {
                true => Outcome::Nothing,
                false => Outcome::Outputs(self.outputs()?),
            });
        }
        match &self.source.returns {
            Returns::Void => Ok(Outcome::Nothing),
            Returns::Values(_) | Returns::Rows(_) => Ok(Outcome::Rows(std::mem::take(&mut self.rows))),
            Returns::Value(sql_type) => {
                let mut outputs = self.outputs()?;
                match sql_type.shape() {
                    Some(shape) if self.code.outputs.len() > 1 => Ok(Outcome::Value(shape.to_row(&outputs)?)),
                    _ => Ok(Outcome::Value(outputs.pop().unwrap_or_default())),
                }
            }
        }
    }

    /// The end of the body.
    pub(super) fn end(&mut self) -> Result<Outcome> {
        if matches!(self.source.returns, Returns::Value(_)) && self.code.outputs.is_empty() {
            return Err(Error::raised("2F005", "control reached end of function without RETURN"));
        }
        self.finished()
    }

    pub(super) fn keep_row(&mut self, execution: &mut Execution<'_>, row: Vec<Datum>) -> Result<()> {
        let bytes = |value: &Datum| match value {
            Datum::Text(text) => text.len(),
            Datum::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        self.rows_bytes += row.iter().map(|value| size_of::<Datum>() + bytes(value)).sum::<usize>();
        if self.rows_bytes >= MEMORY_STEP_BYTES {
            execution.take_memory(self.rows_bytes)?;
            self.rows_bytes = 0;
        }
        self.rows.push(row);
        Ok(())
    }

    pub(super) async fn return_next(&mut self, execution: &mut Execution<'_>, value: Option<Number>) -> Result<()> {
        let source = self.source;
        let row = match (value, &source.returns) {
            (None, _) => self.outputs()?,
            (Some(number), Returns::Values(sql_type)) => {
                let (value, data_type) = self.evaluate(execution, number).await?;
                vec![sql_type.assign(value, &data_type, execution.zone())?]
            }
            (Some(number), Returns::Rows(shape)) => {
                let (value, data_type) = self.evaluate(execution, number).await?;
                match SqlType::plain(data_type).shape() {
                    Some(given) => fit_values(shape, &given, given.from_row(&value)?, execution.zone())?,
                    None => {
                        let message = "cannot return non-composite value from function returning composite type";
                        return Err(Error::raised("42804", message));
                    }
                }
            }
            _ => return Err(Error::raised("XX000", "RETURN NEXT where nothing is returned")),
        };
        self.keep_row(execution, row)
    }

    pub(super) async fn return_query(&mut self, execution: &mut Execution<'_>, query: &Query) -> Result<()> {
        let mut rows = self.open(execution, query).await?;
        let given = Arc::clone(rows.shape());
        let wanted = match &self.source.returns {
            Returns::Rows(shape) => Arc::clone(shape),
            Returns::Values(sql_type) => Arc::new(Shape { names: vec![String::new()], types: vec![sql_type.clone()] }),
            _ => return Err(Error::raised("XX000", "RETURN QUERY where nothing is returned")),
        };
        let mut count = 0;
        while let Some(row) = rows.next().await? {
            let row = fit_values(&wanted, &given, row, execution.zone())?;
            self.keep_row(execution, row)?;
            count += 1;
        }
        if given.types.len() != wanted.types.len() {
            return Err(wrong_columns(&wanted, &given));
        }
        self.row_count = count;
        self.set_found(count > 0);
        self.relink(execution)
    }
}
