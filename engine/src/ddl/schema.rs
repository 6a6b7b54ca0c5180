//! CREATE SCHEMA.

use rustydb_storage::{ObjectKind, Transaction};

use crate::catalog::information_schema::INFORMATION_SCHEMA;
use crate::error::sqlstate;
use crate::session::{Completion, Statement};
use crate::{DEFAULT_SCHEMA, Error, Result};

/// Names that start like this are the system's.
const RESERVED_PREFIXES: [&str; 2] = ["pg_", "rustydb."];

/// Refuses names that only the system gives.
pub(super) fn check_name(name: &str) -> Result<()> {
    match RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        false => Ok(()),
        true => Err(Error::new(sqlstate::RESERVED_NAME, format!("unacceptable schema name \"{name}\""))
            .with_detail("The prefix is reserved for the system.")),
    }
}

pub(crate) fn create_schema(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    name: String,
    if_not_exists: bool,
) -> Result<Completion> {
    let exists = {
        let context = statement.context(transaction.view());
        [DEFAULT_SCHEMA, INFORMATION_SCHEMA].contains(&name.as_str())
            || context.view().catalog().find_object(ObjectKind::Schema, "", &name).is_some()
    };
    if exists {
        return match if_not_exists {
            true => Ok(Completion::new("CREATE SCHEMA")),
            false => Err(Error::new(sqlstate::DUPLICATE_SCHEMA, format!("schema \"{name}\" already exists"))),
        };
    }
    check_name(&name)?;
    transaction.create_object(ObjectKind::Schema, String::new(), name, String::new())?;
    Ok(Completion::new("CREATE SCHEMA"))
}
