//! Operators of our own, where a profile showed DataFusion's to be the wrong ones. Each is put into a plan by a rule of
//! [`crate::optimizer`], shows in EXPLAIN, and is tested against the operator it replaces.

pub(crate) mod decimal;
pub(crate) mod direct_aggregate;
pub(crate) mod join_keys;
pub(crate) mod lazy_coalesce;
pub(crate) mod lazy_logic;
pub(crate) mod paced;
pub(crate) mod plain_rows;
pub(crate) mod single_rows;
