//! What a language for routines has to offer, and what it is told.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::execution::Execution;
use super::types::{Shape, SqlType};
use crate::row_path::Datum;
use crate::{Error, Result};

/// A language that routines can be written in. One value serves all databases and sessions.
pub trait Language: fmt::Debug + Send + Sync {
    /// Its name after LANGUAGE, in lower case.
    fn name(&self) -> &'static str;

    /// Checks the syntax of a routine and prepares it for being run. Tables need not exist yet.
    ///
    /// # Errors
    /// 42601 and its like, with a place in the body.
    fn compile(&self, source: &Source) -> Result<Arc<dyn Program>>;
}

/// A routine as it was declared.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name without schema.
    pub name: String,
    /// How it is called in messages: `f(integer, text)`.
    pub signature: String,
    /// Whether it is a procedure: it answers with its OUT parameters, if it has any.
    pub is_procedure: bool,
    /// All parameters, OUT included.
    pub parameters: Vec<Parameter>,
    /// What it returns.
    pub returns: Returns,
    /// Whether the columns of its rows are variables: RETURNS TABLE.
    pub names_columns: bool,
    /// The text between its quotes.
    pub body: String,
}

impl Source {
    /// The OUT and INOUT parameters, in order.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, &Parameter)> {
        self.parameters.iter().enumerate().filter(|(_, parameter)| parameter.mode.is_output())
    }

    /// The IN and INOUT parameters, in order: those that a caller gives values for.
    pub fn inputs(&self) -> impl Iterator<Item = (usize, &Parameter)> {
        self.parameters.iter().enumerate().filter(|(_, parameter)| parameter.mode.is_input())
    }
}

/// A parameter of a routine.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// `None`: it goes by its number only.
    pub name: Option<String>,
    /// Which way its value goes.
    pub mode: Mode,
    /// Its type.
    pub sql_type: SqlType,
}

/// Which way a parameter's value goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// From the caller.
    In,
    /// To the caller.
    Out,
    /// Both.
    InOut,
}

impl Mode {
    /// Whether the caller gives a value.
    pub fn is_input(self) -> bool {
        self != Mode::Out
    }

    /// Whether the caller gets a value.
    pub fn is_output(self) -> bool {
        self != Mode::In
    }
}

/// What a routine returns.
#[derive(Debug, Clone, PartialEq)]
pub enum Returns {
    /// Nothing.
    Void,
    /// One value: of the type, or of a row of the OUT parameters if there are several.
    Value(SqlType),
    /// Any number of values.
    Values(SqlType),
    /// Any number of rows.
    Rows(Arc<Shape>),
}

impl Returns {
    /// Whether it can be more or less than one.
    pub fn is_set(&self) -> bool {
        matches!(self, Returns::Values(_) | Returns::Rows(_))
    }
}

/// A routine ready to be run, any number of times at once.
#[async_trait]
pub trait Program: fmt::Debug + Send + Sync {
    /// Runs it. `arguments` are the IN and INOUT parameters in order, of the parameters' types.
    async fn run(&self, execution: &mut Execution<'_>, arguments: Vec<Datum>) -> Result<Outcome>;
}

/// What came of a routine.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nothing: a procedure or a `void` function.
    Nothing,
    /// A value of the type that the routine returns. Several OUT parameters are a row.
    Value(Datum),
    /// The OUT parameters of a procedure.
    Outputs(Vec<Datum>),
    /// Values or rows, as declared.
    Rows(Vec<Vec<Datum>>),
}

/// How serious a message is that a routine sends without failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// For who writes it.
    Debug,
    /// For the server's log.
    Log,
    /// What was asked for.
    Info,
    /// What helps to know.
    Notice,
    /// What may be a mistake.
    Warning,
}

/// A message that a routine sends without failing: RAISE NOTICE.
#[derive(Debug, Clone)]
pub struct Notice {
    /// How serious it is.
    pub severity: Severity,
    /// Message, detail, hint and SQLSTATE.
    pub message: Error,
}
