//! The SQL types there are, as drivers ask for them (CommandGetXdbcTypeInfo), and the SQL name of an Arrow type.

use arrow::datatypes::{DataType, IntervalUnit, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use tonic::Status;

use super::SqlService;
use super::metadata::{MetadataCommand, not_a_batch};
use crate::auth::Caller;

/// The name the engine gives to the type a column of this Arrow type was declared with, without its parameters.
pub(super) fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 => "tinyint",
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        DataType::UInt8 => "uint8",
        DataType::UInt16 => "uint16",
        DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "numeric"
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Interval(_) => "interval",
        _ => "unknown",
    }
}

/// Precision and scale, for types that have them.
pub(super) fn numeric_size(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((*precision, *scale)),
        DataType::Int8 | DataType::UInt8 => Some((3, 0)),
        DataType::Int16 | DataType::UInt16 => Some((5, 0)),
        DataType::Int32 | DataType::UInt32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::UInt64 => Some((20, 0)),
        _ => None,
    }
}

impl MetadataCommand for CommandGetXdbcTypeInfo {
    fn schema(&self, service: &SqlService) -> SchemaRef {
        service.type_info.schema()
    }

    fn rows(self, service: &SqlService, _caller: &Caller) -> Result<RecordBatch, Status> {
        self.into_builder(&service.type_info).build().map_err(not_a_batch)
    }
}

/// One row per type that CREATE TABLE knows.
pub(super) fn type_info() -> XdbcTypeInfoData {
    let mut types = XdbcTypeInfoDataBuilder::new();
    let plain = |data_type: &DataType, xdbc: XdbcDataType, column_size: Option<i32>| XdbcTypeInfo {
        type_name: type_name(data_type).to_owned(),
        data_type: xdbc,
        column_size,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(type_name(data_type).to_owned()),
        sql_data_type: xdbc,
        ..Default::default()
    };
    let number = |data_type: &DataType, xdbc: XdbcDataType, digits: i32| XdbcTypeInfo {
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        num_prec_radix: Some(10),
        ..plain(data_type, xdbc, Some(digits))
    };
    let quoted = |info: XdbcTypeInfo, prefix: &str| XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".to_owned()),
        ..info
    };

    types.append(plain(&DataType::Boolean, XdbcDataType::XdbcBit, Some(1)));
    types.append(number(&DataType::Int16, XdbcDataType::XdbcSmallint, 5));
    types.append(number(&DataType::Int32, XdbcDataType::XdbcInteger, 10));
    types.append(number(&DataType::Int64, XdbcDataType::XdbcBigint, 19));
    types.append(number(&DataType::Float32, XdbcDataType::XdbcReal, 7));
    types.append(number(&DataType::Float64, XdbcDataType::XdbcDouble, 15));
    types.append(XdbcTypeInfo {
        create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
        fixed_prec_scale: true,
        minimum_scale: Some(0),
        maximum_scale: Some(38),
        ..number(&DataType::Decimal128(38, 0), XdbcDataType::XdbcNumeric, 38)
    });
    types.append(XdbcTypeInfo {
        case_sensitive: true,
        ..quoted(plain(&DataType::Utf8, XdbcDataType::XdbcLongvarchar, None), "'")
    });
    types.append(XdbcTypeInfo {
        type_name: "varchar".to_owned(),
        local_type_name: Some("varchar".to_owned()),
        case_sensitive: true,
        create_params: Some(vec!["length".to_owned()]),
        ..quoted(plain(&DataType::Utf8, XdbcDataType::XdbcVarchar, None), "'")
    });
    types.append(quoted(plain(&DataType::Binary, XdbcDataType::XdbcVarbinary, None), "X'"));

    let moment = |data_type: &DataType, xdbc, subcode, characters| XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(subcode),
        ..quoted(plain(data_type, xdbc, Some(characters)), "'")
    };
    types.append(XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        ..quoted(plain(&DataType::Date32, XdbcDataType::XdbcDate, Some(10)), "'")
    });
    let time = DataType::Time64(TimeUnit::Microsecond);
    types.append(moment(&time, XdbcDataType::XdbcTime, XdbcDatetimeSubcode::XdbcSubcodeTime, 15));
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    let subcode = XdbcDatetimeSubcode::XdbcSubcodeTimestamp;
    types.append(moment(&timestamp, XdbcDataType::XdbcTimestamp, subcode, 26));
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let subcode = XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone;
    types.append(moment(&zoned, XdbcDataType::XdbcTimestamp, subcode, 32));
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    types.append(quoted(plain(&interval, XdbcDataType::XdbcInterval, None), "'"));

    types.build().expect("a fixed list of types always forms a batch")
}
