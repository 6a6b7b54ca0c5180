//! What the server can do, as drivers ask for it (CommandGetSqlInfo): every value of the specification but those without
//! an answer here (the versions of Substrait).
//!
//! Invariant: every value is true of this release.
//!
//! The specification leaves open, or says otherwise than all clients do, in which member of the union some values travel.
//! They go where the drivers look, which is also where the reference servers put them:
//!
//! | value | member | because |
//! |---|---|---|
//! | `FLIGHT_SQL_SERVER_TRANSACTION` | `int32_bitmask` | ADBC ignores a `bool` there |
//! | case of identifiers, order of NULLs, default isolation | `bigint_value` | JDBC fails on, and ODBC misreads, an `int32` |
//! | level of outer joins | `int32_bitmask`, a bit per level | JDBC and ODBC test bits |

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetSqlInfo, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedElementActions, SqlSupportedGroupBy, SqlSupportedResultSetConcurrency, SqlSupportedResultSetType,
    SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions, SqlTransactionIsolationLevel,
    SupportedSqlGrammar,
};
use rustydb_engine::{RESULT_COLUMNS_MAX, TABLE_COLUMNS_MAX};
use tonic::Status;

use super::SqlService;
use super::metadata::{MetadataCommand, not_a_batch};
use super::vocabulary::{
    DATETIME_FUNCTIONS, KEYWORDS, NUMERIC_FUNCTIONS, STRING_FUNCTIONS, SYSTEM_FUNCTIONS, conversions,
};
use crate::auth::Caller;
use crate::options::Limits;

impl MetadataCommand for CommandGetSqlInfo {
    fn schema(&self, service: &SqlService) -> SchemaRef {
        service.sql_info.schema()
    }

    async fn rows(self, service: &SqlService, _caller: &Caller) -> Result<RecordBatch, Status> {
        self.into_builder(&service.sql_info).build().map_err(not_a_batch)
    }
}

/// The values of a server with these limits.
pub(super) fn sql_info(limits: &Limits) -> SqlInfoData {
    let mut info = SqlInfoDataBuilder::new();
    server(&mut info, limits);
    names(&mut info);
    language(&mut info);
    queries(&mut info);
    transactions(&mut info);
    result_sets(&mut info);
    sizes(&mut info, limits);
    info.build().expect("a fixed list of values always forms a batch")
}

fn server(info: &mut SqlInfoDataBuilder, limits: &Limits) {
    info.append(SqlInfo::FlightSqlServerName, "RustyDB");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::Savepoint as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, true);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, milliseconds(limits.prepared_statement_idle));
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, milliseconds(limits.transaction_idle));
}

fn names(info: &mut SqlInfoDataBuilder) {
    // Unquoted names are folded to lower case. Quoted ones are case sensitive, for which ODBC takes "unknown".
    info.append(SqlInfo::SqlIdentifierCase, i64::from(SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32));
    info.append(
        SqlInfo::SqlQuotedIdentifierCase,
        i64::from(SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32),
    );
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlExtraNameCharacters, "$");
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlProcedureTerm, "procedure");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    // There are procedures and indexes; there are no privileges.
    let named_in = bits([
        SqlSupportedElementActions::SqlElementInProcedureCalls as i32,
        SqlSupportedElementActions::SqlElementInIndexDefinitions as i32,
    ]);
    info.append(SqlInfo::SqlSchemasSupportedActions, named_in);
    info.append(SqlInfo::SqlCatalogsSupportedActions, named_in);
}

fn language(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, true);
    info.append(SqlInfo::SqlDdlTable, true);
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlKeywords, KEYWORDS);
    info.append(SqlInfo::SqlNumericFunctions, NUMERIC_FUNCTIONS);
    info.append(SqlInfo::SqlStringFunctions, STRING_FUNCTIONS);
    info.append(SqlInfo::SqlSystemFunctions, SYSTEM_FUNCTIONS);
    info.append(SqlInfo::SqlDatetimeFunctions, DATETIME_FUNCTIONS);
    info.append(SqlInfo::SqlSupportsConvert, conversions());
    // ODBC's core grammar and SQL-92's lowest level both ask for GRANT.
    info.append(SqlInfo::SqlSupportedGrammar, bits([SupportedSqlGrammar::SqlMinimumGrammar as i32]));
    info.append(SqlInfo::SqlAnsi92SupportedLevel, 0);
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    info.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, true);
    info.append(SqlInfo::SqlStoredProceduresSupported, true);
    // CALL is for procedures; functions are called in expressions.
    info.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
    info.append(SqlInfo::SqlNamedParametersSupported, false);
    info.append(SqlInfo::SqlLocatorsUpdateCopy, true);
}

fn queries(info: &mut SqlInfoDataBuilder) {
    // NULLS LAST when ascending, NULLS FIRST when descending.
    info.append(SqlInfo::SqlNullOrdering, i64::from(SqlNullOrdering::SqlNullsSortedHigh as i32));
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    let group_by =
        [SqlSupportedGroupBy::SqlGroupByUnrelated as i32, SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32];
    info.append(SqlInfo::SqlSupportedGroupBy, bits(group_by));
    info.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    let outer_joins =
        [SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32, SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32];
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, bits(outer_joins));
    info.append(SqlInfo::SqlSupportedPositionedCommands, 0);
    info.append(SqlInfo::SqlSelectForUpdateSupported, true);
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
        SqlSupportedSubqueries::SqlSubqueriesInQuantifieds as i32,
    ];
    info.append(SqlInfo::SqlSupportedSubqueries, bits(subqueries));
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let unions = [SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32];
    info.append(SqlInfo::SqlSupportedUnions, bits(unions));
}

fn transactions(info: &mut SqlInfoDataBuilder) {
    // Snapshot isolation, which SQL knows as REPEATABLE READ. READ UNCOMMITTED is accepted and means READ COMMITTED.
    let levels = [
        SqlTransactionIsolationLevel::SqlTransactionReadUncommitted as i32,
        SqlTransactionIsolationLevel::SqlTransactionReadCommitted as i32,
        SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i32,
        SqlTransactionIsolationLevel::SqlTransactionSerializable as i32,
    ];
    let default = SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i32;
    info.append(SqlInfo::SqlTransactionsSupported, true);
    info.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(default));
    info.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, bits(levels));
    info.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    info.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    info.append(SqlInfo::SqlBatchUpdatesSupported, true);
    info.append(SqlInfo::SqlSavepointsSupported, true);
}

fn result_sets(info: &mut SqlInfoDataBuilder) {
    let forward_only = SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32;
    info.append(SqlInfo::SqlSupportedResultSetTypes, bits([forward_only]));
    let read_only = SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32;
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, bits([read_only]));
    for none in [
        SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified,
        SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive,
        SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive,
    ] {
        info.append(none, 0);
    }
}

fn sizes(info: &mut SqlInfoDataBuilder, limits: &Limits) {
    let count = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    info.append(SqlInfo::SqlMaxConnections, count(limits.connections));
    info.append(SqlInfo::SqlMaxStatementLength, count(limits.statement_bytes));
    info.append(SqlInfo::SqlMaxStatements, count(limits.prepared_statements));
    info.append(SqlInfo::SqlMaxColumnsInSelect, count(RESULT_COLUMNS_MAX));
    info.append(SqlInfo::SqlMaxColumnsInTable, count(TABLE_COLUMNS_MAX));
    info.append(SqlInfo::SqlMaxTablesInSelect, count(TABLES_IN_SELECT_MAX));
    info.append(SqlInfo::SqlMaxUsernameLength, count(USER_NAME_BYTES_MAX));
    info.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
    // Zero: no limit but that of the statement or of memory; for cursors, that there are none.
    for unlimited in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxTableNameLength,
    ] {
        info.append(unlimited, 0_i64);
    }
}

/// As many tables as the engine plans in one list (54001 beyond).
const TABLES_IN_SELECT_MAX: usize = 1_000;
/// As long as CREATE USER takes names.
const USER_NAME_BYTES_MAX: usize = 63;

/// The protocol's bit masks: bit n stands for the enumeration's value n.
fn bits<const N: usize>(values: [i32; N]) -> i32 {
    values.iter().fold(0, |mask, value| mask | 1 << value)
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
