//! The SQL types there are, as drivers ask for them (CommandGetXdbcTypeInfo), and the SQL name of an Arrow type.

use arrow::datatypes::{DataType, IntervalUnit, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use tonic::Status;

use super::SqlService;
use super::metadata::{MetadataCommand, not_a_batch};
use crate::auth::Caller;

/// As long as varchar(n) and char(n) get.
const VARCHAR_CHARS_MAX: i32 = 10_485_760;

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

    async fn rows(self, service: &SqlService, _caller: &Caller) -> Result<RecordBatch, Status> {
        self.into_builder(&service.type_info).build().map_err(not_a_batch)
    }
}

/// One row per type that CREATE TABLE knows.
pub(super) fn type_info() -> XdbcTypeInfoData {
    let mut types = XdbcTypeInfoDataBuilder::new();
    numbers(&mut types);
    texts(&mut types);
    moments(&mut types);
    types.build().expect("a fixed list of types always forms a batch")
}

fn plain(data_type: &DataType, xdbc: XdbcDataType, column_size: Option<i32>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: type_name(data_type).to_owned(),
        data_type: xdbc,
        column_size,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(type_name(data_type).to_owned()),
        sql_data_type: xdbc,
        ..Default::default()
    }
}

fn named(info: XdbcTypeInfo, name: &str) -> XdbcTypeInfo {
    XdbcTypeInfo { type_name: name.to_owned(), local_type_name: Some(name.to_owned()), ..info }
}

fn quoted(info: XdbcTypeInfo, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo { literal_prefix: Some(prefix.to_owned()), literal_suffix: Some("'".to_owned()), ..info }
}

fn numbers(types: &mut XdbcTypeInfoDataBuilder) {
    types.append(plain(&DataType::Boolean, XdbcDataType::XdbcBit, Some(1)));
    for (data_type, xdbc, digits) in [
        (DataType::Int8, XdbcDataType::XdbcTinyint, 3),
        (DataType::Int16, XdbcDataType::XdbcSmallint, 5),
        (DataType::Int32, XdbcDataType::XdbcInteger, 10),
        (DataType::Int64, XdbcDataType::XdbcBigint, 19),
        (DataType::UInt8, XdbcDataType::XdbcTinyint, 3),
        (DataType::UInt16, XdbcDataType::XdbcSmallint, 5),
        (DataType::UInt32, XdbcDataType::XdbcInteger, 10),
        (DataType::UInt64, XdbcDataType::XdbcBigint, 20),
    ] {
        types.append(XdbcTypeInfo {
            unsigned_attribute: Some(data_type.is_unsigned_integer()),
            auto_increment: Some(false),
            num_prec_radix: Some(10),
            minimum_scale: Some(0),
            maximum_scale: Some(0),
            ..plain(&data_type, xdbc, Some(digits))
        });
    }
    // The size of approximate numbers counts bits, as the specification asks for.
    for (data_type, xdbc, bits) in [
        (DataType::Float32, XdbcDataType::XdbcReal, f32::MANTISSA_DIGITS),
        (DataType::Float64, XdbcDataType::XdbcDouble, f64::MANTISSA_DIGITS),
    ] {
        types.append(XdbcTypeInfo {
            unsigned_attribute: Some(false),
            auto_increment: Some(false),
            num_prec_radix: Some(2),
            ..plain(&data_type, xdbc, i32::try_from(bits).ok())
        });
    }
    for (name, xdbc) in [("numeric", XdbcDataType::XdbcNumeric), ("decimal", XdbcDataType::XdbcDecimal)] {
        let info = XdbcTypeInfo {
            create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
            unsigned_attribute: Some(false),
            auto_increment: Some(false),
            num_prec_radix: Some(10),
            minimum_scale: Some(0),
            maximum_scale: Some(38),
            ..plain(&DataType::Decimal128(38, 0), xdbc, Some(38))
        };
        types.append(named(info, name));
    }
}

fn texts(types: &mut XdbcTypeInfoDataBuilder) {
    let text = |xdbc| XdbcTypeInfo { case_sensitive: true, ..quoted(plain(&DataType::Utf8, xdbc, None), "'") };
    let sized = |name: &str, xdbc| {
        let info = XdbcTypeInfo {
            column_size: Some(VARCHAR_CHARS_MAX),
            create_params: Some(vec!["length".to_owned()]),
            ..text(xdbc)
        };
        named(info, name)
    };
    types.append(text(XdbcDataType::XdbcLongvarchar));
    types.append(sized("varchar", XdbcDataType::XdbcVarchar));
    types.append(sized("char", XdbcDataType::XdbcChar));
    types.append(quoted(plain(&DataType::Binary, XdbcDataType::XdbcVarbinary, None), "X'"));
}

fn moments(types: &mut XdbcTypeInfoDataBuilder) {
    let moment = |data_type: &DataType, xdbc, subcode, characters, decimals: Option<i32>| XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(subcode),
        minimum_scale: decimals.map(|_| 0),
        maximum_scale: decimals,
        ..quoted(plain(data_type, xdbc, Some(characters)), "'")
    };
    // The subcode of dates has the number of that of years, and only the latter's name here.
    let subcode = XdbcDatetimeSubcode::XdbcSubcodeYear;
    types.append(moment(&DataType::Date32, XdbcDataType::XdbcDate, subcode, 10, None));
    let time = DataType::Time64(TimeUnit::Microsecond);
    types.append(moment(&time, XdbcDataType::XdbcTime, XdbcDatetimeSubcode::XdbcSubcodeTime, 15, Some(6)));
    let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let subcode = XdbcDatetimeSubcode::XdbcSubcodeTimestamp;
    types.append(moment(&timestamp, XdbcDataType::XdbcTimestamp, subcode, 29, Some(9)));
    let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let subcode = XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone;
    types.append(moment(&zoned, XdbcDataType::XdbcTimestamp, subcode, 35, Some(9)));
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    types.append(quoted(plain(&interval, XdbcDataType::XdbcInterval, None), "'"));
}
