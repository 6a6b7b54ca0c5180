//! Statements that change what there is: tables ([`table`], [`declaration`], [`alter`], [`rewrite`]), indexes, views,
//! schemas, sequences, routines, what is [`temporary`], and DROP and TRUNCATE. All of them are part of the transaction
//! they run in, like rows, and wait for those who write to what they change ([`locks`]).

pub(crate) mod alter;
pub(crate) mod comment;
pub(crate) mod declaration;
pub(crate) mod drop;
pub(crate) mod index;
mod like;
pub(crate) mod locks;
pub(crate) mod relocate;
mod rewrite;
pub(crate) mod routine;
pub(crate) mod schema;
pub(crate) mod sequence;
pub(crate) mod table;
pub(crate) mod temporary;
pub(crate) mod truncate;
pub(crate) mod view;
