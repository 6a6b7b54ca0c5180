//! The crate's error type: what keeps a workload from being loaded or run.
//!
//! A wrong answer is not an error but a finding ([`crate::Mismatch`]): the run goes on and the report says so. The
//! messages are written for the person at the command line and say what to do next.

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a workload could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database refused a statement.
    #[error(transparent)]
    Engine(#[from] rustydb_engine::Error),
    /// A scale factor for which TPC-H's rules give no valid database.
    #[error("scale factor {given} cannot be used: {reason}")]
    Scale {
        /// The text or number that was given.
        given: String,
        /// Why it cannot be used, and which ones can.
        reason: String,
    },
    /// The store holds the tables of another scale factor.
    #[error(
        "this database holds TPC-H at scale {found}, not at scale {wanted}; use --scale {found}, or another data \
         directory for scale {wanted}"
    )]
    OtherScale {
        /// The scale whose row counts the tables have.
        found: String,
        /// The scale that was asked for.
        wanted: String,
    },
    /// A table has a row count that no load of ours leaves behind.
    #[error(
        "table {table} has {found} rows where TPC-H at scale {scale} has {expected}: it was changed since it was loaded; \
         drop it (and the tables that refer to it), or use another data directory"
    )]
    ChangedTable {
        /// The table's name.
        table: &'static str,
        /// Its rows now.
        found: u64,
        /// Its rows after a load.
        expected: u64,
        /// The scale that was asked for.
        scale: String,
    },
    /// A table of the workload's name exists, but with other columns or keys.
    #[error(
        "a table named {table} exists and is not TPC-H's: {difference}; use another data directory, or drop the table"
    )]
    OtherTable {
        /// The table's name.
        table: &'static str,
        /// The first difference found.
        difference: String,
    },
    /// A list of queries that cannot be read.
    #[error("cannot read the query list {list:?}: {reason}")]
    QueryList {
        /// The list as given.
        list: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A reference answer that cannot be read.
    #[error("the reference answer {name} cannot be read: {reason}")]
    Reference {
        /// Which answer.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database answered a query without rows or columns: a broken promise of its own.
    #[error("the database returned no result set for: {statement}")]
    NoResultSet {
        /// The query's text.
        statement: String,
    },
    /// A call that the database of TPC-C refused.
    #[error(transparent)]
    Database(#[from] crate::tpcc::Failure),
    /// A transaction failed in a way that running it again does not mend.
    #[error("a {kind} transaction failed: {failure}")]
    Transaction {
        /// The kind of transaction.
        kind: &'static str,
        /// How it failed.
        failure: crate::tpcc::Failure,
    },
    /// The store holds TPC-C of another size.
    #[error(
        "this database holds TPC-C with {found}, not {wanted}; use --warehouses {warehouses}, or another data directory"
    )]
    OtherWarehouses {
        /// The size that it has.
        found: String,
        /// The size that was asked for.
        wanted: String,
        /// Its warehouses.
        warehouses: i32,
    },
    /// A table of TPC-C's name exists, and it was not TPC-C that made it.
    #[error("this database has a table of its own that TPC-C needs: {message}; use another data directory")]
    ForeignTable {
        /// What the database says.
        message: String,
    },
    /// There is nothing to check.
    #[error("this database holds no complete TPC-C; run without --check-only first")]
    NotLoaded,
    /// Somebody asked for the end before there was anything to report.
    #[error("interrupted; the next start goes on with the load")]
    Interrupted,
}
