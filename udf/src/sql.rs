//! Routines written in SQL: statements one after the other. The last one gives the result.
//!
//! Parameters go by name or number; where a name is a column, too, it is the column.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use rustydb_engine::routine::{
    CompiledStatement, Datum, Execution, Language, Outcome, Program, Ran, Returns, Source, SqlStatement, SqlType,
    Variable, Variables,
};
use rustydb_engine::{Error, Position, Result, split_statements};

use crate::linked::{Held, Linked, Slot};

/// The language.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sql;

impl Language for Sql {
    fn name(&self) -> &'static str {
        "sql"
    }

    fn compile(&self, source: &Source) -> Result<Arc<dyn Program>> {
        let mut statements = Vec::new();
        for piece in split_statements(&source.body)? {
            let parsed = SqlStatement::parse(&piece.sql).map_err(|error| match error.position() {
                Some(Position { line, column }) => error.moved_to(Position { line: piece.line + line - 1, column }),
                None => error,
            })?;
            statements.push(parsed);
        }
        let returns_nothing = matches!(source.returns, Returns::Void);
        if statements.is_empty() && !returns_nothing {
            return Err(wrong_result("Function's final statement must be SELECT or INSERT/UPDATE/DELETE RETURNING."));
        }
        Ok(Arc::new(Statements { source: source.clone(), statements, linked: Linked::default() }))
    }
}

fn wrong_result(detail: &str) -> Error {
    Error::raised("42P13", "return type mismatch in function declared to return something").with_detail(detail)
}

struct Statements {
    source: Source,
    statements: Vec<SqlStatement>,
    linked: Linked<Vec<Slot<Compiled>>>,
}

struct Compiled {
    statement: CompiledStatement,
    /// Which argument each input is.
    inputs: Vec<usize>,
}

impl fmt::Debug for Statements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statements").field("routine", &self.source.signature).finish_non_exhaustive()
    }
}

/// The parameters of a routine in SQL.
struct Parameters<'a> {
    source: &'a Source,
    inputs: Vec<usize>,
}

impl Variables for Parameters<'_> {
    fn resolve(&mut self, path: &[String]) -> Result<Option<Variable>> {
        let name = match path {
            [name] => name,
            [routine, name] if *routine == self.source.name => name,
            _ => return Ok(None),
        };
        let mut inputs = self.source.inputs().map(|(_, parameter)| parameter).enumerate();
        let found = match name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()) {
            Some(number) => inputs.nth(number.wrapping_sub(1)),
            None => inputs.find(|(_, parameter)| parameter.name.as_ref() == Some(name)),
        };
        let Some((argument, parameter)) = found else { return Ok(None) };
        let input = self.inputs.iter().position(|known| *known == argument).unwrap_or_else(|| {
            self.inputs.push(argument);
            self.inputs.len() - 1
        });
        Ok(Some(Variable { input, data_type: parameter.sql_type.data_type.clone() }))
    }

    fn prefers_variable(&self) -> Option<bool> {
        Some(false)
    }
}

impl Statements {
    /// The places of the statements for what names mean now.
    fn slots(&self, execution: &Execution<'_>) -> Result<Arc<Vec<Slot<Compiled>>>> {
        self.linked.get(&execution.names(), || Ok(self.statements.iter().map(|_| Slot::default()).collect::<Vec<_>>()))
    }

    fn compiled<'s>(
        &self,
        slots: &'s [Slot<Compiled>],
        execution: &Execution<'_>,
        number: usize,
    ) -> Result<Held<'s, Compiled>> {
        if let Some(compiled) = slots[number].get(|_| true) {
            return Ok(compiled);
        }
        let mut parameters = Parameters { source: &self.source, inputs: Vec::new() };
        let statement = execution.statement(&self.statements[number], &mut parameters)?;
        Ok(slots[number].put(Compiled { statement, inputs: parameters.inputs }))
    }

    async fn run_all(&self, execution: &mut Execution<'_>, arguments: &[Datum], at: &mut usize) -> Result<Outcome> {
        let last = self.statements.len().saturating_sub(1);
        let returns_value = !matches!(self.source.returns, Returns::Void) || self.source.outputs().next().is_some();
        for number in 0..self.statements.len() {
            *at = number + 1;
            let slots = self.slots(execution)?;
            let compiled = self.compiled(&slots, execution, number)?;
            let inputs: Vec<Datum> =
                compiled.inputs.iter().map(|argument| arguments.get(*argument).cloned().unwrap_or_default()).collect();
            if number < last || !returns_value {
                let Ran { .. } = execution.run(&compiled.statement, &inputs).await?;
                continue;
            }
            return self.result(execution, &compiled.statement, &inputs).await;
        }
        Ok(Outcome::Nothing)
    }

    async fn result(
        &self,
        execution: &mut Execution<'_>,
        statement: &CompiledStatement,
        inputs: &[Datum],
    ) -> Result<Outcome> {
        let mut rows = execution.open(statement, inputs).await?;
        let given = Arc::clone(rows.shape());
        let outputs: Vec<SqlType> = self.source.outputs().map(|(_, parameter)| parameter.sql_type.clone()).collect();
        let wanted: Vec<SqlType> = match &self.source.returns {
            Returns::Rows(shape) => shape.types.clone(),
            Returns::Values(sql_type) => vec![sql_type.clone()],
            _ if !outputs.is_empty() => outputs.clone(),
            Returns::Value(sql_type) => match sql_type.shape() {
                // One column that is a row, or the columns of a row.
                Some(shape) if given.types.len() == shape.types.len() => shape.types,
                _ => vec![sql_type.clone()],
            },
            Returns::Void => Vec::new(),
        };
        if wanted.len() != given.types.len() {
            return Err(wrong_result(&format!(
                "Final statement returns {} columns instead of {}.",
                given.types.len(),
                wanted.len()
            )));
        }
        let zone = execution.zone().to_owned();
        let fit = |row: Vec<Datum>| -> Result<Vec<Datum>> {
            let pairs = row.into_iter().zip(&wanted).zip(&given.types);
            pairs.map(|((value, wanted), given)| wanted.assign(value, &given.data_type, &zone)).collect()
        };
        if self.source.returns.is_set() {
            let mut found = Vec::new();
            while let Some(row) = rows.next().await? {
                execution.take_memory(row.len() * size_of::<Datum>())?;
                found.push(fit(row)?);
            }
            return Ok(Outcome::Rows(found));
        }
        let row = rows.next().await?.map(fit).transpose()?;
        let mut row = row.unwrap_or_else(|| wanted.iter().map(|_| Datum::Null).collect());
        if self.source.is_procedure {
            return Ok(Outcome::Outputs(row));
        }
        match &self.source.returns {
            Returns::Value(sql_type) if row.len() > 1 => match sql_type.shape() {
                Some(shape) => Ok(Outcome::Value(shape.to_row(&row)?)),
                None => Err(wrong_result("Final statement returns too many columns.")),
            },
            _ => Ok(Outcome::Value(row.pop().unwrap_or_default())),
        }
    }
}

#[async_trait]
impl Program for Statements {
    async fn run(&self, execution: &mut Execution<'_>, arguments: Vec<Datum>) -> Result<Outcome> {
        let mut at = 0;
        let outcome = self.run_all(execution, &arguments, &mut at).await;
        outcome.map_err(|error| error.in_routine(&format!("SQL function \"{}\" statement {at}", self.source.name)))
    }
}
