//! SQL's type names and the Arrow types that hold them, in both directions.
//!
//! One table serves column definitions and casts, so that `CAST(x AS t)` always gives what a column of type `t` holds.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{
    BinaryLength, CharLengthUnits, CharacterLength, DataType as SqlType, ExactNumberInfo, TimezoneInfo,
};

use crate::functions::time_digits::digits_of_unit;
use crate::{Error, Result, error::sqlstate};

/// Field metadata: the largest number of characters of a `varchar(n)` or `char(n)` column, or of bytes of a `varbinary(n)` one.
pub(crate) const LENGTH_KEY: &str = "rustydb.length";
/// Field metadata: how many digits of a second a time has, if its Arrow type holds more.
pub(crate) const DIGITS_KEY: &str = "rustydb.digits";
/// Field metadata: the type as declared, where the Arrow type does not tell it.
pub(crate) const TYPE_KEY: &str = "rustydb.type";
/// Field metadata: the SQL text of the column's default.
pub(crate) const DEFAULT_KEY: &str = "rustydb.default";

/// Decimal128 holds 38 digits.
const MAX_NUMERIC_PRECISION: u64 = 38;
/// What a bare `numeric` holds: as DataFusion's default, wide enough for amounts of money with room on both sides.
const DEFAULT_NUMERIC: DataType = DataType::Decimal128(38, 10);
/// The time zone under which `timestamp with time zone` is stored and printed.
const STORED_TIME_ZONE: &str = "UTC";
/// How many digits of a second a time has of which nothing else is said.
const DEFAULT_DIGITS: u8 = 6;
/// As PostgreSQL: varchar(n) beyond this is surely a mistake.
const MAX_VARCHAR_LENGTH: u64 = 10_485_760;

/// The Arrow type of a column, with what Arrow cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnType {
    pub(crate) data_type: DataType,
    /// The n of `varchar(n)` and `varbinary(n)`.
    pub(crate) length: Option<u64>,
    /// The p of `timestamp(p)` and `time(p)`, if the Arrow type holds more digits of a second.
    pub(crate) digits: Option<u8>,
    /// The declared name where it differs from [`name_of`] the Arrow type.
    pub(crate) declared: Option<String>,
}

impl From<DataType> for ColumnType {
    fn from(data_type: DataType) -> Self {
        ColumnType { data_type, length: None, digits: None, declared: None }
    }
}

impl ColumnType {
    /// A field of this type, with the metadata that keeps its declaration.
    pub(crate) fn field(&self, name: &str, nullable: bool) -> Field {
        let mut metadata = HashMap::new();
        if let Some(length) = self.length {
            metadata.insert(LENGTH_KEY.to_owned(), length.to_string());
        }
        if let Some(digits) = self.digits {
            metadata.insert(DIGITS_KEY.to_owned(), digits.to_string());
        }
        if let Some(declared) = &self.declared {
            metadata.insert(TYPE_KEY.to_owned(), declared.clone());
        }
        Field::new(name, self.data_type.clone(), nullable).with_metadata(metadata)
    }
}

/// The type a column declared as `sql_type` has.
pub(crate) fn column_type(sql_type: &SqlType) -> Result<ColumnType> {
    Ok(match sql_type {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean.into(),
        SqlType::TinyInt(None) => DataType::Int8.into(),
        SqlType::SmallInt(None) | SqlType::Int2(None) | SqlType::Int16 => DataType::Int16.into(),
        SqlType::Int(None) | SqlType::Integer(None) | SqlType::Int4(None) | SqlType::Int32 => DataType::Int32.into(),
        SqlType::BigInt(None) | SqlType::Int8(None) | SqlType::Int64 => DataType::Int64.into(),
        SqlType::UInt8 | SqlType::UTinyInt | SqlType::TinyIntUnsigned(None) => DataType::UInt8.into(),
        SqlType::UInt16 | SqlType::USmallInt | SqlType::SmallIntUnsigned(None) => DataType::UInt16.into(),
        SqlType::UInt32 | SqlType::IntUnsigned(None) | SqlType::IntegerUnsigned(None) => DataType::UInt32.into(),
        SqlType::UInt64 | SqlType::UBigInt | SqlType::BigIntUnsigned(None) => DataType::UInt64.into(),
        SqlType::Real | SqlType::Float4 | SqlType::Float32 => DataType::Float32.into(),
        SqlType::DoublePrecision | SqlType::Float8 | SqlType::Float64 | SqlType::Double(ExactNumberInfo::None) => {
            DataType::Float64.into()
        }
        SqlType::Float(info) => float_type(info)?.into(),
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => numeric_type(info)?.into(),
        SqlType::Text | SqlType::String(None) | SqlType::Clob(None) => DataType::Utf8View.into(),
        SqlType::Varchar(length)
        | SqlType::CharacterVarying(length)
        | SqlType::CharVarying(length)
        | SqlType::Nvarchar(length) => text_type("character varying", length.as_ref(), None)?,
        SqlType::Char(length) | SqlType::Character(length) => text_type("character", length.as_ref(), Some(1))?,
        SqlType::Bytea
        | SqlType::Blob(None)
        | SqlType::Binary(None)
        | SqlType::Varbinary(None | Some(BinaryLength::Max)) => DataType::BinaryView.into(),
        SqlType::Varbinary(Some(BinaryLength::IntegerLength { length })) | SqlType::Blob(Some(length)) => {
            bytes_type(*length)?
        }
        SqlType::Date | SqlType::Date32 => DataType::Date32.into(),
        SqlType::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => time_type(*precision)?,
        SqlType::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)
        | SqlType::Datetime(precision) => timestamp_type(*precision, None)?,
        SqlType::Timestamp(precision, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
            timestamp_type(*precision, Some(STORED_TIME_ZONE))?
        }
        SqlType::Interval { fields: None, precision: None } => DataType::Interval(IntervalUnit::MonthDayNano).into(),
        other => {
            let error = Error::unsupported(format!("the type {other}"));
            return Err(match other {
                // What is shorter would have to be filled up with zeros.
                SqlType::Binary(_) => error.with_hint("Use bytea, or varbinary(n) for at most n bytes."),
                SqlType::Uuid | SqlType::JSON | SqlType::JSONB | SqlType::Enum(..) => error.with_hint("Use text."),
                SqlType::Custom(name, _) if name.to_string().to_lowercase().contains("serial") => {
                    error.with_hint("Use integer or bigint and number the rows in the application.")
                }
                SqlType::Custom(name, _) => {
                    Error::new(sqlstate::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist"))
                }
                _ => error,
            });
        }
    })
}

fn float_type(info: &ExactNumberInfo) -> Result<DataType> {
    match info {
        ExactNumberInfo::None | ExactNumberInfo::Precision(25..=53) => Ok(DataType::Float64),
        ExactNumberInfo::Precision(1..=24) => Ok(DataType::Float32),
        other => {
            Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("precision of float{other} is out of range"))
                .with_hint("float(p) takes 1 to 53 binary digits."))
        }
    }
}

fn numeric_type(info: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(DEFAULT_NUMERIC),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let invalid = |message: String| Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
    if !(1..=MAX_NUMERIC_PRECISION).contains(&precision) {
        return invalid(format!("numeric precision {precision} must be between 1 and {MAX_NUMERIC_PRECISION}"));
    }
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(digits), Ok(after_point)) if (0..=scale.max(0)).contains(&scale) && scale as u64 <= precision => {
            Ok(DataType::Decimal128(digits, after_point))
        }
        _ => invalid(format!("numeric scale {scale} must be between 0 and the precision {precision}")),
    }
}

fn text_type(name: &str, length: Option<&CharacterLength>, default: Option<u64>) -> Result<ColumnType> {
    let length = match length {
        None => default,
        Some(CharacterLength::Max) => None,
        Some(CharacterLength::IntegerLength { length, unit: None | Some(CharLengthUnits::Characters) }) => {
            Some(*length)
        }
        Some(CharacterLength::IntegerLength { unit: Some(CharLengthUnits::Octets), .. }) => {
            return Err(Error::unsupported("a text length in OCTETS").with_hint("Lengths count characters."));
        }
    };
    match length {
        None => Ok(ColumnType { declared: Some(name.to_owned()), ..DataType::Utf8View.into() }),
        Some(length @ 1..=MAX_VARCHAR_LENGTH) => Ok(ColumnType {
            length: Some(length),
            declared: Some(format!("{name}({length})")),
            ..DataType::Utf8View.into()
        }),
        Some(length) => Err(Error::new(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("length {length} of {name} must be between 1 and {MAX_VARCHAR_LENGTH}"),
        )),
    }
}

/// Bytes, but not more than so many.
fn bytes_type(length: u64) -> Result<ColumnType> {
    match length {
        0 => Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "the length of a varbinary must be at least 1")),
        _ => Ok(ColumnType { length: Some(length), ..DataType::BinaryView.into() }),
    }
}

/// A timestamp of so many digits of a second is one of the unit that holds them.
fn timestamp_type(precision: Option<u64>, zone: Option<&str>) -> Result<ColumnType> {
    let digits = digits_of_second("timestamp", precision)?;
    let unit = match digits {
        0 => TimeUnit::Second,
        1..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    };
    let plain = ColumnType::from(DataType::Timestamp(unit, zone.map(Arc::from)));
    if digits == digits_of_unit(unit) {
        return Ok(plain);
    }
    Ok(ColumnType { digits: Some(digits), declared: digits_name(&plain.data_type, digits), ..plain })
}

/// The same of a time of day, which has no unit coarser than a microsecond.
fn time_type(precision: Option<u64>) -> Result<ColumnType> {
    let digits = digits_of_second("time", precision)?;
    let unit = if digits > DEFAULT_DIGITS { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
    let plain = ColumnType::from(DataType::Time64(unit));
    if digits == digits_of_unit(unit) {
        return Ok(plain);
    }
    Ok(ColumnType { digits: Some(digits), declared: digits_name(&plain.data_type, digits), ..plain })
}

/// SQL's name for a time of so many digits of a second, which are fewer than its Arrow type holds.
pub(crate) fn digits_name(data_type: &DataType, digits: u8) -> Option<String> {
    match data_type {
        DataType::Timestamp(_, None) => Some(format!("timestamp({digits})")),
        DataType::Timestamp(_, Some(_)) => Some(format!("timestamp({digits}) with time zone")),
        DataType::Time64(_) => Some(format!("time({digits})")),
        _ => None,
    }
}

/// How many digits of a second are asked for: PostgreSQL has six at most, nanoseconds have nine.
fn digits_of_second(type_name: &str, precision: Option<u64>) -> Result<u8> {
    let Some(precision) = precision else { return Ok(DEFAULT_DIGITS) };
    let digits = u8::try_from(precision).ok().filter(|digits| *digits <= digits_of_unit(TimeUnit::Nanosecond));
    digits.ok_or_else(|| {
        Error::unsupported(format!("{type_name}({precision})")).with_hint("A second has nine digits at most.")
    })
}

/// The p of a `timestamp(p)` or `time(p)`, if values have to be rounded to it.
pub(crate) fn digits_of(field: &Field) -> Option<u8> {
    field.metadata().get(DIGITS_KEY).and_then(|digits| digits.parse().ok())
}

/// The type in which values come to a column, before they are rounded to its digits: with all digits that decide about others.
pub(crate) fn arriving_type(field: &Field) -> DataType {
    match field.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, zone) if digits_of(field).is_some() => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        other => other.clone(),
    }
}

/// The declared type of a column, as PostgreSQL would print it.
pub(crate) fn declared_name(field: &Field) -> String {
    match field.metadata().get(TYPE_KEY) {
        Some(declared) => declared.clone(),
        None => name_of(field.data_type()),
    }
}

/// SQL's name for an Arrow type.
pub(crate) fn name_of(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 => "tinyint".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::UInt8 => "uint8".into(),
        DataType::UInt16 => "uint16".into(),
        DataType::UInt32 => "uint32".into(),
        DataType::UInt64 => "uint64".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea".into(),
        DataType::FixedSizeBinary(length) => format!("bytea({length})"),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time64(TimeUnit::Nanosecond) => "time(9)".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Duration(_) => "duration".into(),
        DataType::Timestamp(unit, zone) => {
            let digits = match unit {
                TimeUnit::Second => "(0)",
                TimeUnit::Millisecond => "(3)",
                TimeUnit::Microsecond => "",
                TimeUnit::Nanosecond => "(9)",
            };
            let zone = if zone.is_some() { " with time zone" } else { "" };
            format!("timestamp{digits}{zone}")
        }
        DataType::Interval(_) => "interval".into(),
        DataType::Null => "unknown".into(),
        other => other.to_string(),
    }
}

/// The extension type of a column, as Arrow notes it, if it is one that any storage type of its family can carry: a
/// UUID stays a UUID, and JSON stays JSON. What is noted of values that cannot be that is dropped: clients refuse to read it.
pub(crate) fn extension_type(field: &Field) -> HashMap<String, String> {
    let parameters = field.extension_type_metadata().unwrap_or_default();
    let is_one = match field.extension_type_name() {
        Some("arrow.uuid") => *field.data_type() == DataType::FixedSizeBinary(16) && parameters.is_empty(),
        Some("arrow.json") => {
            let is_text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            is_text && matches!(parameters, "" | "{}")
        }
        _ => false,
    };
    let notes = field.metadata().iter().filter(|(key, _)| is_one && key.starts_with("ARROW:extension:"));
    notes.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Lets casts use the same type names as columns.
#[derive(Debug)]
pub(crate) struct CastTypes;

impl TypePlanner for CastTypes {
    /// The length of a text type travels in the field's metadata to [`crate::sql::rules::arithmetic`], which cuts the text off,
    /// and its name to [`crate::sql::declared`].
    fn plan_type_field(&self, sql_type: &SqlType) -> DataFusionResult<Option<FieldRef>> {
        if matches!(sql_type, SqlType::Regclass) {
            // Relations go by their names here.
            return Ok(Some(Arc::new(Field::new("", DataType::Utf8View, true))));
        }
        match column_type(sql_type) {
            // Nothing here cuts bytes off.
            Ok(ColumnType { data_type: DataType::BinaryView, length: Some(_), .. }) => Ok(None),
            // Nor is there anything that rounds times: such casts have been rewritten ([`crate::sql::tree::time_digits`]).
            Ok(ColumnType { digits: Some(_), .. }) => {
                Err(Error::unsupported(format!("the type {} here", sql_type.to_string().to_lowercase())).into())
            }
            Ok(ColumnType { data_type, length: None, .. }) => Ok(Some(Arc::new(Field::new("", data_type, true)))),
            Ok(limited) => Ok(Some(Arc::new(limited.field("", true)))),
            // Nested types and the like: DataFusion knows some that columns cannot have.
            Err(error) if error.sqlstate() == sqlstate::FEATURE_NOT_SUPPORTED => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;
    use crate::sql::text::parse::RustyDialect;

    fn parsed(text: &str) -> Result<ColumnType> {
        let mut parser = Parser::new(&RustyDialect).try_with_sql(text).unwrap();
        column_type(&parser.parse_data_type().unwrap())
    }

    #[test]
    fn an_extension_type_stays_with_values_that_can_be_of_it() {
        let kept = |data_type, name: &str, parameters: &str| {
            let notes = [("ARROW:extension:name", name), ("ARROW:extension:metadata", parameters), ("other", "x")];
            let notes = notes.map(|(key, value)| (key.to_owned(), value.to_owned()));
            extension_type(&Field::new("a", data_type, true).with_metadata(notes.into())).len()
        };
        for (data_type, name, parameters, notes) in [
            (DataType::FixedSizeBinary(16), "arrow.uuid", "", 2),
            (DataType::FixedSizeBinary(16), "arrow.uuid", "x", 0),
            (DataType::FixedSizeBinary(8), "arrow.uuid", "", 0),
            (DataType::Utf8, "arrow.uuid", "", 0),
            (DataType::Utf8View, "arrow.json", "", 2),
            (DataType::LargeUtf8, "arrow.json", "{}", 2),
            (DataType::Utf8, "arrow.json", "x", 0),
            (DataType::Int64, "arrow.json", "", 0),
            (DataType::Int8, "arrow.bool8", "", 0),
        ] {
            assert_eq!(kept(data_type.clone(), name, parameters), notes, "{data_type} {name} {parameters:?}");
        }
    }

    #[test]
    fn names_of_declared_types_read_as_in_postgres() {
        for (written, printed) in [
            ("varchar(25)", "character varying(25)"),
            ("char(10)", "character(10)"),
            ("text", "text"),
            ("decimal(15,2)", "numeric(15,2)"),
            ("float", "double precision"),
            ("float(24)", "real"),
            ("int", "integer"),
            ("timestamptz", "timestamp with time zone"),
            ("timestamp(3)", "timestamp(3)"),
            ("timestamptz(0)", "timestamp(0) with time zone"),
            ("timestamp(2)", "timestamp(2)"),
            ("timestamptz(4)", "timestamp(4) with time zone"),
            ("timestamp(6)", "timestamp"),
            ("timestamp(9)", "timestamp(9)"),
            ("time(0)", "time(0)"),
            ("time(6)", "time"),
            ("time(8)", "time(8)"),
            ("varbinary(10)", "bytea"),
            ("blob(65535)", "bytea"),
        ] {
            let column = parsed(written).unwrap();
            assert_eq!(declared_name(&column.field("c", true)), printed, "{written}");
        }
    }

    #[test]
    fn impossible_types_are_refused_by_name() {
        assert_eq!(parsed("numeric(40,2)").unwrap_err().sqlstate(), "22023");
        assert_eq!(parsed("numeric(4,6)").unwrap_err().sqlstate(), "22023");
        assert_eq!(parsed("uuid").unwrap_err().sqlstate(), "0A000");
        assert_eq!(parsed("strang").unwrap_err().sqlstate(), "42704");
        assert_eq!(parsed("varchar(0)").unwrap_err().sqlstate(), "22023");
        assert_eq!(parsed("varbinary(0)").unwrap_err().sqlstate(), "22023");
        assert_eq!(parsed("binary(16)").unwrap_err().sqlstate(), "0A000");
        assert_eq!(parsed("timestamp(10)").unwrap_err().sqlstate(), "0A000");
        assert_eq!(parsed("time(300)").unwrap_err().sqlstate(), "0A000");
    }

    #[test]
    fn times_are_held_in_the_unit_that_has_their_digits() {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        let held = |text: &str| parsed(text).map(|column| (column.data_type, column.digits)).unwrap();
        for (precision, unit, digits) in [
            (0, Second, None),
            (1, Millisecond, Some(1)),
            (2, Millisecond, Some(2)),
            (3, Millisecond, None),
            (4, Microsecond, Some(4)),
            (5, Microsecond, Some(5)),
            (6, Microsecond, None),
            (7, Nanosecond, Some(7)),
            (9, Nanosecond, None),
        ] {
            assert_eq!(held(&format!("timestamp({precision})")), (DataType::Timestamp(unit, None), digits));
        }
        assert_eq!(held("time(3)"), (DataType::Time64(Microsecond), Some(3)));
        assert_eq!(held("time(7)"), (DataType::Time64(Nanosecond), Some(7)));
        assert_eq!(held("time(9)"), (DataType::Time64(Nanosecond), None));
    }

    #[test]
    fn values_arrive_with_the_digits_that_are_rounded_away() {
        let arriving = |text: &str| arriving_type(&parsed(text).unwrap().field("c", true));
        assert_eq!(arriving("timestamp(1)"), DataType::Timestamp(TimeUnit::Microsecond, None));
        assert_eq!(arriving("timestamp(3)"), DataType::Timestamp(TimeUnit::Millisecond, None));
        assert_eq!(arriving("timestamp(5)"), DataType::Timestamp(TimeUnit::Microsecond, None));
        assert_eq!(arriving("timestamp(8)"), DataType::Timestamp(TimeUnit::Nanosecond, None));
        assert_eq!(arriving("time(1)"), DataType::Time64(TimeUnit::Microsecond));
    }
}
