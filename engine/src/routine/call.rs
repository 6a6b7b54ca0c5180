//! CALL as a statement of its own, compiled once and kept, as programs of the row path are.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::sql::sqlparser::ast::Function;

use super::definition::schema_of;
use super::registry::Routines;
use super::statement::{CompiledStatement, Kind, compile_call};
use crate::row_path::{Origin, Passes, is_of};
use crate::sql::context::StatementContext;
use crate::{Error, Result, Value};

/// A CALL, good for its origin and for parameters of its types.
#[derive(Debug)]
pub(crate) struct CompiledCall {
    pub(crate) origin: Origin,
    types: Vec<DataType>,
    pub(crate) statement: CompiledStatement,
    /// The columns it answers with; `None`: the procedure has no OUT parameters.
    pub(crate) schema: Option<SchemaRef>,
    /// Runs that begin on the threads of queries, because one had to go there.
    pub(crate) passes: Passes,
}

impl CompiledCall {
    pub(crate) fn new(
        function: Function,
        types: Vec<DataType>,
        context: &StatementContext,
        routines: &Routines,
    ) -> Result<CompiledCall> {
        let statement = compile_call(function, types.clone(), context, routines)?;
        let Kind::Call { routine, .. } = &statement.kind else {
            return Err(Error::internal("a CALL that is none"));
        };
        let schema = routine.output_shape().map(|shape| schema_of(&shape));
        Ok(CompiledCall { origin: Origin::of(context), types, statement, schema, passes: Passes::default() })
    }

    /// The types of its parameters.
    pub(crate) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Whether it was compiled for parameters of these values' types.
    pub(crate) fn accepts(&self, values: &[Value]) -> bool {
        values.len() == self.types.len() && values.iter().zip(&self.types).all(|(value, kind)| is_of(value, kind))
    }
}
