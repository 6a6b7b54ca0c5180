//! The grammar of the statements that sqlparser does not have, or takes for something else: one file for each kind. They
//! read the tokens of a statement and give its syntax tree, or none where it is not theirs.

pub(crate) mod copy;
pub(in crate::sql) mod definition;
pub(crate) mod insert;
pub(crate) mod lock;
pub(crate) mod maintenance;
pub(crate) mod named;
pub(crate) mod routine;
pub(crate) mod statements;
pub(crate) mod transaction;
pub(crate) mod user;
