//! RAISE, and what GET DIAGNOSTICS tells.

use arrow::datatypes::DataType;
use rustydb_engine::routine::{Datum, Execution, Notice, Severity};
use rustydb_engine::{Error, Result};

use super::Call;
use crate::plpgsql::ast::{Item, Level, RaiseOption};
use crate::plpgsql::code::{Place, RaiseCode};
use crate::plpgsql::conditions::{is_state, states_of};
use crate::plpgsql::raise::Piece;

/// The lines about routines begin like this.
const CONTEXT_START: &str = "PL/pgSQL function ";

impl Call<'_> {
    pub(super) async fn raise(&mut self, execution: &mut Execution<'_>, raise: &RaiseCode) -> Result<()> {
        let mut message = None;
        if let Some(format) = &raise.format {
            let mut text = String::new();
            let mut arguments = raise.arguments.iter();
            for piece in format {
                match piece {
                    Piece::Text(part) => text.push_str(part),
                    Piece::Argument => {
                        if let Some(argument) = arguments.next() {
                            let value = self.text(execution, *argument).await?;
                            text.push_str(value.as_deref().unwrap_or("<NULL>"));
                        }
                    }
                }
            }
            message = Some(text);
        }
        let (mut state, mut detail, mut hint) = (raise.state.clone(), None, None);
        for (option, value) in &raise.options {
            let value = self.text(execution, *value).await?;
            let Some(value) = value else {
                return Err(Error::raised("22004", "RAISE statement option cannot be null"));
            };
            let (said, name) = match option {
                RaiseOption::Message => (message.replace(value), "MESSAGE"),
                RaiseOption::Detail => (detail.replace(value), "DETAIL"),
                RaiseOption::Hint => (hint.replace(value), "HINT"),
                RaiseOption::Errcode => {
                    let found = match (is_state(&value), states_of(&value).first()) {
                        (true, _) => value,
                        (false, Some(state)) => (*state).to_owned(),
                        (false, None) => {
                            let message = format!("unrecognized exception condition \"{value}\"");
                            return Err(Error::raised("42704", message));
                        }
                    };
                    (state.replace(found), "ERRCODE")
                }
                RaiseOption::Other => (None, ""),
            };
            if said.is_some() {
                return Err(Error::raised("42601", format!("RAISE option already specified: {name}")));
            }
        }
        let severity = match raise.level {
            Level::Debug => Some(Severity::Debug),
            Level::Log => Some(Severity::Log),
            Level::Info => Some(Severity::Info),
            Level::Notice => Some(Severity::Notice),
            Level::Warning => Some(Severity::Warning),
            Level::Exception => None,
        };
        let message = message.or_else(|| raise.condition.clone()).or_else(|| state.clone());
        let unsaid = match severity {
            None => "P0001",
            Some(Severity::Warning) => "01000",
            Some(_) => "00000",
        };
        let mut error =
            Error::raised(state.as_deref().unwrap_or(unsaid), message.unwrap_or_else(|| "P0001".to_owned()));
        if let Some(detail) = detail {
            error = error.with_detail(detail);
        }
        if let Some(hint) = hint {
            error = error.with_hint(hint);
        }
        match severity {
            None => Err(error),
            Some(severity) => {
                execution.notice(Notice { severity, message: error });
                Ok(())
            }
        }
    }

    pub(super) async fn diagnose(
        &mut self,
        execution: &mut Execution<'_>,
        stacked: bool,
        items: &[(Place, Item)],
        at: usize,
    ) -> Result<()> {
        let error = match (stacked, self.handled.last()) {
            (true, None) => return Err(no_handler()),
            (_, error) => error.cloned(),
        };
        let (line, what) = self.code.places[at];
        for (place, item) in items {
            let of_error =
                |part: fn(&Error) -> Option<&str>| Datum::text(error.as_ref().and_then(part).unwrap_or_default());
            let (value, data_type) = match item {
                Item::RowCount => (Datum::Int(i64::try_from(self.row_count).unwrap_or(i64::MAX)), DataType::Int64),
                Item::Context => {
                    let text = format!("PL/pgSQL function {} line {line} at {what}", self.source.signature);
                    (Datum::text(&text), DataType::Utf8)
                }
                Item::ReturnedSqlstate => (of_error(|error| Some(error.sqlstate())), DataType::Utf8),
                Item::MessageText => (of_error(|error| Some(error.message())), DataType::Utf8),
                Item::ExceptionDetail => (of_error(own_detail), DataType::Utf8),
                Item::ExceptionHint => (of_error(Error::hint), DataType::Utf8),
                Item::ExceptionContext => (of_error(context_of), DataType::Utf8),
                Item::Unknown => (Datum::text(""), DataType::Utf8),
            };
            self.assign(execution, place, value, &data_type).await?;
        }
        Ok(())
    }
}

pub(super) fn own_detail(error: &Error) -> Option<&str> {
    let detail = error.detail()?;
    let end =
        if detail.starts_with(CONTEXT_START) { 0 } else { detail.find("\nPL/pgSQL function ").unwrap_or(detail.len()) };
    Some(&detail[..end])
}

pub(super) fn context_of(error: &Error) -> Option<&str> {
    let detail = error.detail()?;
    match detail.starts_with(CONTEXT_START) {
        true => Some(detail),
        false => detail.find("\nPL/pgSQL function ").map(|start| &detail[start + 1..]),
    }
}

pub(super) fn no_handler() -> Error {
    Error::raised("0Z002", "GET STACKED DIAGNOSTICS cannot be used outside an exception handler")
}
