//! CREATE SCHEMA.
//!
//! Schemas have no owners. `AUTHORIZATION` is taken if it says who the user is anyway, and refused if it names somebody
//! else, who would not get what it promises.

use datafusion::sql::sqlparser::ast::Ident;
use rustydb_storage::{ObjectKind, Transaction};

use crate::catalog::information_schema::INFORMATION_SCHEMA;
use crate::error::sqlstate;
use crate::session::{Completion, Statement};
use crate::sql::route::CreateSchemaStatement;
use crate::sql::text::parse::{fold, place};
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
    create: CreateSchemaStatement,
) -> Result<Completion> {
    let CreateSchemaStatement { name, owner, if_not_exists } = create;
    let context = statement.context(transaction.view());
    if let Some(owner) = owner.filter(|owner| !is_user(owner, context.user())) {
        return Err(Error::unsupported(format!("a schema that belongs to \"{}\"", fold(&owner)))
            .with_hint("Schemas have no owners: leave AUTHORIZATION out.")
            .at(place(owner.span)));
    }
    let name = name.unwrap_or_else(|| context.user().to_owned());
    let exists = {
        [DEFAULT_SCHEMA, INFORMATION_SCHEMA].contains(&name.as_str())
            || context.view().catalog().find_object(ObjectKind::Schema, "", &name).is_some()
    };
    drop(context);
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

/// Whether somebody is named who is the session's user.
fn is_user(name: &Ident, user: &str) -> bool {
    let words = ["current_user", "session_user", "current_role"];
    let name_of = fold(name);
    name_of == user || (name.quote_style.is_none() && words.contains(&name_of.as_str()))
}
