//! What the server can do, as drivers ask for it (CommandGetSqlInfo).
//!
//! Invariant: every value is true of this release. What is not known for certain, or has no true value in the
//! protocol's terms, is left out rather than guessed: drivers then use their own defaults.
//!
//! A value of type `i32` goes into the union's `int32_bitmask` member (type code 3), which is where ADBC looks for
//! transaction support; a `bool` there would be ignored.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetSqlInfo, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries,
    SqlSupportedTransaction, SqlSupportedUnions, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};
use tonic::Status;

use super::SqlService;
use super::metadata::{MetadataCommand, not_a_batch};
use crate::auth::Caller;
use crate::options::Limits;

impl MetadataCommand for CommandGetSqlInfo {
    fn schema(&self, service: &SqlService) -> SchemaRef {
        service.sql_info.schema()
    }

    fn rows(self, service: &SqlService, _caller: &Caller) -> Result<RecordBatch, Status> {
        self.into_builder(&service.sql_info).build().map_err(not_a_batch)
    }
}

/// The values of a server with these limits.
pub(super) fn sql_info(limits: &Limits) -> SqlInfoData {
    let mut info = SqlInfoDataBuilder::new();
    server(&mut info, limits);
    language(&mut info);
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

fn language(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, true);
    // Unquoted names are folded to lower case. Quoted ones are case sensitive, for which there is no value.
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    // NULLS LAST when ascending, NULLS FIRST when descending.
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    let group_by =
        [SqlSupportedGroupBy::SqlGroupByUnrelated as i32, SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32];
    info.append(SqlInfo::SqlSupportedGroupBy, bits(group_by));
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    let grammar = [SupportedSqlGrammar::SqlMinimumGrammar as i32, SupportedSqlGrammar::SqlCoreGrammar as i32];
    info.append(SqlInfo::SqlSupportedGrammar, bits(grammar));
    // Keys and NOT NULL are enforced, but CHECK is missing, and the facility asks for all of them.
    info.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32);
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlSupportedPositionedCommands, 0);
    info.append(SqlInfo::SqlSelectForUpdateSupported, false);
    info.append(SqlInfo::SqlStoredProceduresSupported, false);
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
    ];
    info.append(SqlInfo::SqlSupportedSubqueries, bits(subqueries));
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let unions = [SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32];
    info.append(SqlInfo::SqlSupportedUnions, bits(unions));
    info.append(SqlInfo::SqlNamedParametersSupported, false);
    info.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

fn transactions(info: &mut SqlInfoDataBuilder) {
    // Snapshot isolation, which SQL knows as REPEATABLE READ.
    let isolation = SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i32;
    info.append(SqlInfo::SqlTransactionsSupported, true);
    info.append(SqlInfo::SqlDefaultTransactionIsolation, isolation);
    info.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, bits([isolation]));
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
}

fn sizes(info: &mut SqlInfoDataBuilder, limits: &Limits) {
    let count = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    info.append(SqlInfo::SqlMaxConnections, count(limits.connections));
    info.append(SqlInfo::SqlMaxStatementLength, count(limits.statement_bytes));
    info.append(SqlInfo::SqlMaxStatements, count(limits.prepared_statements));
}

/// The protocol's bit masks: bit n stands for the enumeration's value n.
fn bits<const N: usize>(values: [i32; N]) -> i32 {
    values.iter().fold(0, |mask, value| mask | 1 << value)
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
