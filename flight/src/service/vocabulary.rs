//! The words drivers ask for: functions and keywords, as CommandGetSqlInfo lists them, and which types convert into which.
//!
//! Invariant: every function listed can be called and every conversion listed can be written as a CAST; a test does each
//! of them (`flight/tests/flight_sql/sql_info.rs`). There are more functions than these: the lists hold those that
//! JDBC's and ODBC's escape syntax has names for, and the commonest of the others.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use arrow_flight::sql::SqlSupportsConvert;

pub(super) const NUMERIC_FUNCTIONS: &[&str] = &[
    "ABS",
    "ACOS",
    "ASIN",
    "ATAN",
    "ATAN2",
    "CEIL",
    "COS",
    "COT",
    "DEGREES",
    "EXP",
    "FACTORIAL",
    "FLOOR",
    "GCD",
    "LCM",
    "LN",
    "LOG",
    "LOG10",
    "PI",
    "POWER",
    "RADIANS",
    "RANDOM",
    "ROUND",
    "SIGNUM",
    "SIN",
    "SQRT",
    "TAN",
    "TRUNC",
];

pub(super) const STRING_FUNCTIONS: &[&str] = &[
    "ASCII",
    "BIT_LENGTH",
    "BTRIM",
    "CHARACTER_LENGTH",
    "CHAR_LENGTH",
    "CHR",
    "CONCAT",
    "CONCAT_WS",
    "INITCAP",
    "LEFT",
    "LENGTH",
    "LEVENSHTEIN",
    "LOWER",
    "LPAD",
    "LTRIM",
    "OCTET_LENGTH",
    "OVERLAY",
    "POSITION",
    "REPEAT",
    "REPLACE",
    "REVERSE",
    "RIGHT",
    "RPAD",
    "RTRIM",
    "SPLIT_PART",
    "STARTS_WITH",
    "STRPOS",
    "SUBSTR",
    "SUBSTRING",
    "TO_HEX",
    "TRANSLATE",
    "TRIM",
    "UPPER",
];

pub(super) const SYSTEM_FUNCTIONS: &[&str] = &["CAST", "COALESCE", "GREATEST", "LEAST", "NULLIF", "NVL", "VERSION"];

pub(super) const DATETIME_FUNCTIONS: &[&str] = &[
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "DATE_BIN",
    "DATE_PART",
    "DATE_TRUNC",
    "EXTRACT",
    "FROM_UNIXTIME",
    "MAKE_DATE",
    "NOW",
    "TO_CHAR",
    "TO_DATE",
    "TO_TIMESTAMP",
    "TO_UNIXTIME",
];

/// Keywords that SQL:2003 does not have, which is what JDBC's `getSQLKeywords` asks for.
pub(super) const KEYWORDS: &[&str] = &[
    "ANALYZE",
    "ANTI",
    "ASC",
    "CHECKPOINT",
    "CONFLICT",
    "COPY",
    "DEFERRABLE",
    "DESC",
    "EXCLUDE",
    "EXPLAIN",
    "IF",
    "ILIKE",
    "INDEX",
    "LIMIT",
    "LOCK",
    "LOCKED",
    "NOTHING",
    "NOWAIT",
    "NULLS",
    "OFFSET",
    "QUALIFY",
    "RENAME",
    "REPLACE",
    "RESET",
    "RETURNING",
    "SCHEMA",
    "SEMI",
    "SEQUENCE",
    "SHOW",
    "SKIP",
    "TEXT",
    "TRUNCATE",
    "VACUUM",
    "VERBOSE",
    "VIEW",
];

/// The protocol's types, and what SQL here calls and holds each by.
const CONVERTIBLE: &[(SqlSupportsConvert, DataType)] = &[
    (SqlSupportsConvert::SqlConvertBigint, DataType::Int64),
    (SqlSupportsConvert::SqlConvertBinary, DataType::BinaryView),
    (SqlSupportsConvert::SqlConvertBit, DataType::Boolean),
    (SqlSupportsConvert::SqlConvertChar, DataType::Utf8View),
    (SqlSupportsConvert::SqlConvertDate, DataType::Date32),
    (SqlSupportsConvert::SqlConvertDecimal, DataType::Decimal128(38, 10)),
    (SqlSupportsConvert::SqlConvertFloat, DataType::Float64),
    (SqlSupportsConvert::SqlConvertInteger, DataType::Int32),
    (SqlSupportsConvert::SqlConvertIntervalDayTime, DataType::Interval(IntervalUnit::MonthDayNano)),
    (SqlSupportsConvert::SqlConvertIntervalYearMonth, DataType::Interval(IntervalUnit::MonthDayNano)),
    (SqlSupportsConvert::SqlConvertLongvarbinary, DataType::BinaryView),
    (SqlSupportsConvert::SqlConvertLongvarchar, DataType::Utf8View),
    (SqlSupportsConvert::SqlConvertNumeric, DataType::Decimal128(38, 10)),
    (SqlSupportsConvert::SqlConvertReal, DataType::Float32),
    (SqlSupportsConvert::SqlConvertSmallint, DataType::Int16),
    (SqlSupportsConvert::SqlConvertTime, DataType::Time64(TimeUnit::Microsecond)),
    (SqlSupportsConvert::SqlConvertTimestamp, DataType::Timestamp(TimeUnit::Microsecond, None)),
    (SqlSupportsConvert::SqlConvertTinyint, DataType::Int8),
    (SqlSupportsConvert::SqlConvertVarbinary, DataType::BinaryView),
    (SqlSupportsConvert::SqlConvertVarchar, DataType::Utf8View),
];

/// Which types CAST converts into which.
pub(super) fn conversions() -> BTreeMap<i32, Vec<i32>> {
    let into = |from: &DataType| {
        CONVERTIBLE.iter().filter(|(_, to)| rustydb_engine::can_cast(from, to)).map(|(kind, _)| *kind as i32).collect()
    };
    CONVERTIBLE.iter().map(|(kind, from)| (*kind as i32, into(from))).collect()
}
