//! Expressions of a running routine, and the routines that they call.
//!
//! Nearly all are computed at once, on the values of variables ([`CompiledExpression::evaluate_now`]). What is left is a
//! query, or calls a routine, and is waited for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::DataType;

use super::statements::rows_of;
use super::{DEPTH_MAX, Execution, INSIDE_DEPTH_MAX, Move};
use crate::error::sqlstate;
use crate::interrupt;
use crate::routine::definition::Routine;
use crate::routine::expression::{Argument, CompiledExpression, Compiler, Node};
use crate::routine::language::{Outcome, Program};
use crate::routine::names::InputTypes;
use crate::routine::statement::{CompiledStatement, Relation};
use crate::routine::types::SqlType;
use crate::row_path::Datum;
use crate::sql::text::parse::parse_expression;
use crate::{Error, Result};

type Boxed<'b, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'b>>;

impl Execution<'_> {
    /// The value of an expression.
    pub async fn evaluate(&mut self, expression: &CompiledExpression, inputs: &[Datum]) -> Result<Datum> {
        match expression.evaluate_now(inputs, self.clock) {
            Some(value) => Ok(value),
            None => self.evaluate_slowly(expression, inputs).await,
        }
    }

    fn evaluate_slowly<'b>(&'b mut self, expression: &'b CompiledExpression, inputs: &'b [Datum]) -> Boxed<'b, Datum> {
        Box::pin(async move {
            match &expression.node {
                Node::Input(_) | Node::Constant(_) => Err(Error::internal("a variable without a value")),
                Node::Plain { fast: _, slow: query } | Node::Query(query) => {
                    self.single_value(query, inputs, &expression.data_type).await
                }
                Node::Call { routine, arguments } => {
                    let arguments = self.arguments(arguments, inputs).await?;
                    self.call_function(routine, arguments).await
                }
                Node::Calls { calls, rest } => {
                    let mut all = inputs.to_vec();
                    // The inputs may be fewer than the expression knows of.
                    for call in calls {
                        let value = self.evaluate(call, inputs).await?;
                        all.push(value);
                    }
                    self.evaluate(rest, &all).await
                }
                Node::Case { branches, otherwise } => {
                    for (condition, result) in branches {
                        if self.evaluate(condition, inputs).await? == Datum::Bool(true) {
                            return self.evaluate_as(result, inputs, &expression.data_type).await;
                        }
                    }
                    match otherwise {
                        Some(result) => self.evaluate_as(result, inputs, &expression.data_type).await,
                        None => Ok(Datum::Null),
                    }
                }
                Node::Logic { or, sides } => {
                    let [left, right] = sides.as_ref();
                    let left = self.evaluate(left, inputs).await?;
                    if left == Datum::Bool(*or) {
                        return Ok(left);
                    }
                    let right = self.evaluate(right, inputs).await?;
                    Ok(if right == Datum::Bool(*or) || !left.is_null() { right } else { Datum::Null })
                }
                Node::Coalesce(parts) => {
                    for part in parts {
                        let value = self.evaluate_as(part, inputs, &expression.data_type).await?;
                        if !value.is_null() {
                            return Ok(value);
                        }
                    }
                    Ok(Datum::Null)
                }
            }
        })
    }

    async fn evaluate_as(
        &mut self,
        expression: &CompiledExpression,
        inputs: &[Datum],
        data_type: &DataType,
    ) -> Result<Datum> {
        let value = self.evaluate(expression, inputs).await?;
        SqlType::plain(data_type.clone()).assign(value, &expression.data_type, self.zone())
    }

    /// The only column of the only row.
    async fn single_value(
        &mut self,
        query: &CompiledStatement,
        inputs: &[Datum],
        data_type: &DataType,
    ) -> Result<Datum> {
        let mut rows = self.open(query, inputs).await?;
        let shape = Arc::clone(rows.shape());
        let Some(mut row) = rows.next().await? else { return Ok(Datum::Null) };
        if rows.next().await?.is_some() {
            return Err(Error::new(sqlstate::CARDINALITY_VIOLATION, "query returned more than one row"));
        }
        match (row.pop(), shape.types.last()) {
            // The ordinary path may know a decimal's scale better than the expression does.
            (Some(value), Some(own)) if own.data_type.is_decimal() && own.data_type != *data_type => {
                SqlType::plain(data_type.clone()).assign(value, &own.data_type, self.zone())
            }
            (Some(value), _) => Ok(value),
            _ => Err(Error::internal("a query without columns")),
        }
    }

    pub(super) async fn arguments(&mut self, arguments: &[Argument], inputs: &[Datum]) -> Result<Vec<Datum>> {
        let mut values = Vec::with_capacity(arguments.len());
        for Argument { value, wanted } in arguments {
            let given = self.evaluate(value, inputs).await?;
            values.push(wanted.assign(given, &value.data_type, self.zone())?);
        }
        Ok(values)
    }

    async fn call_function(&mut self, routine: &Arc<Routine>, arguments: Vec<Datum>) -> Result<Datum> {
        if routine.definition.is_strict && arguments.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        self.functions += 1;
        let outcome = self.call(routine, arguments).await;
        self.functions -= 1;
        match outcome? {
            Outcome::Value(value) => Ok(value),
            Outcome::Nothing => Ok(Datum::text("")),
            Outcome::Outputs(_) | Outcome::Rows(_) => Err(Error::internal("a function that returned no value")),
        }
    }

    /// Runs a routine.
    pub(crate) async fn call(&mut self, routine: &Arc<Routine>, arguments: Vec<Datum>) -> Result<Outcome> {
        let program = routine.program()?;
        if self.depth >= INSIDE_DEPTH_MAX {
            self.require_threads(Move::Always)?;
        }
        if self.depth >= DEPTH_MAX {
            return Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
                .with_detail(format!("More than {DEPTH_MAX} routines call each other.")));
        }
        interrupt::check()?;
        self.depth += 1;
        let outcome = program.run(self, arguments).await;
        self.depth -= 1;
        outcome
    }

    /// Runs a block that has no name.
    pub(crate) async fn run_program(&mut self, program: &Arc<dyn Program>) -> Result<Outcome> {
        program.run(self, Vec::new()).await
    }

    /// The value of an expression without variables, and its type.
    pub(crate) async fn constant(&mut self, text: &str) -> Result<(Datum, DataType)> {
        self.require_threads(Move::Always)?;
        let syntax = parse_expression(text)?;
        let context = self.context();
        let routines = Arc::clone(&self.routines);
        let compiler = Compiler { context: &context, routines: &routines };
        let compiled = compiler.expression(syntax, &InputTypes::new())?;
        let value = self.evaluate(&compiled, &[]).await?;
        Ok((value, compiled.data_type))
    }

    /// The rows that a routine in FROM gives.
    pub(super) async fn call_for_rows(&mut self, relation: &Relation, inputs: &[Datum]) -> Result<Vec<Vec<Datum>>> {
        let arguments = self.arguments(&relation.arguments, inputs).await?;
        let routine = &relation.routine;
        if routine.definition.is_strict && arguments.iter().any(Datum::is_null) {
            let nulls = relation.shape.types.iter().map(|_| Datum::Null).collect();
            return Ok(if routine.source.returns.is_set() { Vec::new() } else { vec![nulls] });
        }
        self.functions += 1;
        let outcome = self.call(routine, arguments).await;
        self.functions -= 1;
        rows_of(routine, outcome?)
    }
}
