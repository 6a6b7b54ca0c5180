//! Bulk ingest: a stream of batches into a table, all or nothing.
//!
//! What to do about the table is two enumerations in the protocol; together they name one of the engine's modes.
//!
//! | if it does not exist | if it exists | mode |
//! |---|---|---|
//! | create | fail | create |
//! | fail | append | append |
//! | create | replace | replace |
//! | create | append | create_append |
//!
//! Invariant: rows are handed to the engine as they arrive, and the network is read only as fast as it takes them. A
//! stream that breaks off, whoever breaks it, leaves nothing behind.

use std::sync::Arc;

use arrow::error::ArrowError;
use arrow_flight::FlightData;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use rustydb_engine::{CATALOG_NAME, Error, IngestMode, IngestTarget};
use tonic::{Code, Status};

use super::SqlService;
use crate::auth::Caller;
use crate::sessions::{Scope, without_session};
use crate::status::{from_engine, refuse};
use crate::upload::Upload;

impl SqlService {
    pub(super) async fn ingest(
        &self,
        caller: &Caller,
        command: CommandStatementIngest,
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + Unpin + 'static,
    ) -> Result<i64, Status> {
        let mode = check(&command)?;
        let (_home, scope) = self.sessions.enter_ingest(caller, command.transaction_id.as_deref())?;
        if command.temporary && matches!(scope, Scope::Own(_)) {
            return Err(without_session("an ingest into a temporary table", "run it inside a transaction"));
        }
        let Some(upload) = Upload::open(messages, None, self.limits.message_bytes).await? else {
            return Err(refuse("08P01", "the ingest stream has no schema").into());
        };
        upload.sent.schema.fields().iter().try_for_each(|field| check_name(field.name()))?;

        // The engine knows errors of its own kind only; the status behind one waits here until it comes back.
        let failure: Arc<Mutex<Option<Status>>> = Arc::default();
        let noted = Arc::clone(&failure);
        let columns = Arc::clone(&upload.sent.schema);
        let rows = upload.map(move |batch| {
            batch.map_err(|status| {
                let error = Error::from(ArrowError::IpcError(status.message().to_owned()));
                noted.lock().get_or_insert(status);
                error
            })
        });
        let target = IngestTarget {
            schema: command.schema.filter(|schema| !schema.is_empty()),
            table: command.table,
            temporary: command.temporary,
            mode,
            columns,
        };
        let outcome = scope.turn().await?.ingest(target, rows.boxed()).await;
        match (outcome, failure.lock().take()) {
            (Err(_), Some(status)) => Err(status),
            (Err(error), None) => Err(not_loaded(&error, mode)),
            (Ok(rows), _) => Ok(i64::try_from(rows).unwrap_or(i64::MAX)),
        }
    }
}

/// The status of an ingest that failed. ADBC wants it to be told apart that there is a table, but with other columns.
fn not_loaded(error: &Error, mode: IngestMode) -> Status {
    let status = from_engine(error);
    let appends = matches!(mode, IngestMode::Append | IngestMode::CreateAppend);
    match appends && matches!(error.sqlstate(), "42703" | "42804") {
        true => Status::with_metadata(Code::AlreadyExists, status.message(), status.metadata().clone()),
        false => status,
    }
}

fn check(command: &CommandStatementIngest) -> Result<IngestMode, Status> {
    if let Some(name) = command.options.keys().min() {
        let name: String = name.chars().take(80).collect();
        return Err(refuse("0A000", format!("the ingest option \"{name}\" is not supported")).into());
    }
    if let Some(catalog) = command.catalog.as_deref().filter(|catalog| !catalog.is_empty() && *catalog != CATALOG_NAME)
    {
        let catalog: String = catalog.chars().take(80).collect();
        return Err(refuse("3D000", format!("the catalog \"{catalog}\" does not exist"))
            .hint(format!("the only catalog is \"{CATALOG_NAME}\""))
            .into());
    }
    if command.table.is_empty() {
        return Err(refuse("08P01", "the ingest command names no table").into());
    }
    check_name(&command.table)?;
    check_name(command.schema.as_deref().unwrap_or_default())?;
    mode(command.table_definition_options.as_ref())
}

/// Refuses a name that no statement could say: nobody could read or drop what has it.
fn check_name(name: &str) -> Result<(), Status> {
    match name.contains('\0') {
        true => Err(refuse("42602", "a name cannot contain the character NUL").into()),
        false => Ok(()),
    }
}

fn mode(options: Option<&TableDefinitionOptions>) -> Result<IngestMode, Status> {
    let unspecified = || Status::from(refuse("08P01", "the ingest command does not say what to do about the table"));
    let options = options.ok_or_else(unspecified)?;
    let if_not_exist = TableNotExistOption::try_from(options.if_not_exist).map_err(|_| unspecified())?;
    let if_exists = TableExistsOption::try_from(options.if_exists).map_err(|_| unspecified())?;
    match (if_not_exist, if_exists) {
        (TableNotExistOption::Create, TableExistsOption::Fail) => Ok(IngestMode::Create),
        (TableNotExistOption::Fail, TableExistsOption::Append) => Ok(IngestMode::Append),
        (TableNotExistOption::Create, TableExistsOption::Replace) => Ok(IngestMode::Replace),
        (TableNotExistOption::Create, TableExistsOption::Append) => Ok(IngestMode::CreateAppend),
        (TableNotExistOption::Unspecified, _) | (_, TableExistsOption::Unspecified) => Err(unspecified()),
        (TableNotExistOption::Fail, TableExistsOption::Fail | TableExistsOption::Replace) => {
            Err(refuse("0A000", "this combination of ingest options is not supported")
                .hint("use create, append, replace or create_append")
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(if_not_exist: TableNotExistOption, if_exists: TableExistsOption) -> TableDefinitionOptions {
        TableDefinitionOptions { if_not_exist: if_not_exist.into(), if_exists: if_exists.into() }
    }

    #[test]
    fn the_four_modes_clients_have_are_told_apart() {
        use TableExistsOption as Exists;
        use TableNotExistOption as Missing;
        let of = |missing, exists| mode(Some(&options(missing, exists)));
        assert!(matches!(of(Missing::Create, Exists::Fail), Ok(IngestMode::Create)));
        assert!(matches!(of(Missing::Fail, Exists::Append), Ok(IngestMode::Append)));
        assert!(matches!(of(Missing::Create, Exists::Replace), Ok(IngestMode::Replace)));
        assert!(matches!(of(Missing::Create, Exists::Append), Ok(IngestMode::CreateAppend)));
        assert_eq!(of(Missing::Fail, Exists::Fail).expect_err("refused").code(), Code::Unimplemented);
        assert_eq!(of(Missing::Unspecified, Exists::Fail).expect_err("refused").code(), Code::InvalidArgument);
        assert_eq!(mode(None).expect_err("refused").code(), Code::InvalidArgument);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let command = CommandStatementIngest {
            table: "t".to_owned(),
            table_definition_options: Some(options(TableNotExistOption::Create, TableExistsOption::Fail)),
            ..Default::default()
        };
        assert!(check(&command).is_ok());
        for nameless in [
            CommandStatementIngest { table: "a\0b".to_owned(), ..command.clone() },
            CommandStatementIngest { schema: Some("\0".to_owned()), ..command.clone() },
        ] {
            assert!(check(&nameless).expect_err("refused").message().starts_with("[42602]"));
        }
        let catalog = CommandStatementIngest { catalog: Some("elsewhere".to_owned()), ..command.clone() };
        assert_eq!(check(&catalog).expect_err("refused").code(), Code::NotFound);
        let option = [("sharding".to_owned(), "on".to_owned())].into();
        let option = CommandStatementIngest { options: option, ..command };
        assert!(check(&option).expect_err("refused").message().contains("sharding"));
    }
}
