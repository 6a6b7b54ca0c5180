//! Tables as DataFusion sees them: the user's ([`provider`]) and the ones that describe the database
//! ([`information_schema`]).

pub(crate) mod information_schema;
pub(crate) mod provider;
