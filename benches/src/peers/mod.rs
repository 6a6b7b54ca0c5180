//! The databases that RustyDB's transactions are measured beside, as clients of the same driver.

pub mod postgres;
pub mod postgres_server;
pub mod sqlite;
