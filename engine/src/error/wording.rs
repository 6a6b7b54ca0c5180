//! The prose of the libraries, read: which SQLSTATE a message of DataFusion or Arrow stands for, and how people are told.
//!
//! The libraries have few error types and many sentences. Each sentence that users meet is listed here, and pinned by a
//! test at the end of this file, whose left column is the library's own text (DataFusion 55.2, Arrow 59.3): when a new
//! release rewords one, an engine test that provokes it falls back to the general code 42000 or 22000 and fails.
//!
//! Invariant: no message names a type in Arrow's terms.

use super::{Error, nearest, sqlstate};

/// The functions that there are with OVER only.
const WINDOW_FUNCTIONS: [&str; 8] =
    ["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"];

/// A message of the planner.
pub(super) fn of_planner(message: &str) -> Error {
    let (code, text) = match read_planner(message) {
        Some(known) => known,
        None => return general(message),
    };
    let error = Error::new(code, text);
    match code {
        sqlstate::UNDEFINED_FUNCTION => match suggestion(message) {
            Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
            None if message.contains("No function matches") => {
                error.with_hint("There is a function of that name, but not for these arguments. A cast may help.")
            }
            None => error,
        },
        _ => error,
    }
}

/// The sentences that say what is wrong precisely enough to be said in PostgreSQL's words.
fn read_planner(message: &str) -> Option<(&'static str, String)> {
    use sqlstate::{
        CARDINALITY_VIOLATION, DUPLICATE_ALIAS, GROUPING, INVALID_COLUMN_REFERENCE, INVALID_LIMIT, INVALID_OFFSET,
        INVALID_PARAMETER_VALUE, SYNTAX, TYPE_MISMATCH, UNDEFINED_FUNCTION, UNDEFINED_TABLE, WRONG_OBJECT_TYPE,
    };
    if let Some(call) = between(message, "No function matches the given name and argument types '", "'.") {
        let (name, types) = call.split_once('(')?;
        let types = with_sql_types(types.strip_suffix(')').unwrap_or(types));
        return Some((sqlstate::UNDEFINED_FUNCTION, format!("function {name}({types}) does not exist")));
    }
    if let Some(name) = between(message, "Invalid function '", "'") {
        if WINDOW_FUNCTIONS.contains(&name) {
            return Some((WRONG_OBJECT_TYPE, format!("window function {name} requires an OVER clause")));
        }
        return Some((sqlstate::UNDEFINED_FUNCTION, format!("function \"{name}\" does not exist")));
    }
    if let Some(operands) = between(message, "Cannot coerce arithmetic expression ", " to valid types") {
        return Some((UNDEFINED_FUNCTION, format!("operator does not exist: {}", with_sql_types(operands))));
    }
    if let Some((_, operands)) = message.split_once("Cannot infer common string type for string concat operation ") {
        return Some((UNDEFINED_FUNCTION, format!("operator does not exist: {}", with_sql_types(operands))));
    }
    if let Some((_, operands)) = message.split_once("Cannot infer common argument type for ") {
        // "comparison operation Int32 = Boolean", "logical boolean operation Utf8View AND Boolean"
        let (kind, operands) = operands.split_once("operation ")?;
        let code = if kind.starts_with("logical") { TYPE_MISMATCH } else { UNDEFINED_FUNCTION };
        return Some((code, format!("operator does not exist: {}", with_sql_types(operands))));
    }
    if let Some(types) = between(message, "There isn't a common type to coerce ", " expression")
        && let Some((types, operator)) = types.rsplit_once(" in ")
        && let Some((left, right)) = types.split_once(" and ")
    {
        let (left, right) = (with_sql_types(left), with_sql_types(right));
        return Some((UNDEFINED_FUNCTION, format!("operator does not exist: {left} {operator} {right}")));
    }
    if let Some((_, types)) = message.split_once("Failed to coerce types ") {
        let (types, place) = types.split_once(" in ")?;
        let place = place.split(' ').next().unwrap_or_default();
        return Some((TYPE_MISMATCH, format!("{place}: the types {} do not go together", with_sql_types(types))));
    }
    if let Some((_, found)) = message.split_once("Cannot create filter with non-boolean predicate ") {
        let (_, found) = found.rsplit_once(" returning ")?;
        return Some((TYPE_MISMATCH, format!("a condition must be boolean, not {}", with_sql_types(found))));
    }
    if let Some((_, found)) = message.split_once("requires a boolean expression, got ") {
        return Some((TYPE_MISMATCH, format!("argument of NOT must be boolean, not {}", with_sql_types(found))));
    }
    if message.starts_with("Unary operator '-' only supports") {
        return Some((UNDEFINED_FUNCTION, "operator does not exist: - of this type".to_owned()));
    }
    if message.contains("must appear in the GROUP BY clause") {
        let column = between(message, "column \"", "\"")?;
        return Some((
            GROUPING,
            format!("column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"),
        ));
    }
    if message.starts_with("Aggregate functions are not allowed in the WHERE clause") {
        return Some((GROUPING, "aggregate functions are not allowed in WHERE".to_owned()));
    }
    if returned_more_than_one_row(message) {
        return Some((CARDINALITY_VIOLATION, TOO_MANY_ROWS.to_owned()));
    }
    if message.starts_with("Aggregate function calls cannot be nested") {
        return Some((GROUPING, "aggregate function calls cannot be nested".to_owned()));
    }
    if let Some((operator, _)) = message.split_once(" queries have different number of columns") {
        return Some((SYNTAX, format!("each {operator} query must have the same number of columns")));
    }
    if message.starts_with("Too many columns! The subquery should only return one column") {
        return Some((SYNTAX, "subquery must return only one column".to_owned()));
    }
    if let Some(number) = between(message, "Order by column out of bounds, specified: ", ",") {
        return Some((INVALID_COLUMN_REFERENCE, format!("ORDER BY position {number} is not in select list")));
    }
    if let Some(number) = between(message, "Cannot find column with position ", " in SELECT clause") {
        return Some((INVALID_COLUMN_REFERENCE, format!("GROUP BY position {number} is not in select list")));
    }
    if message.starts_with("For SELECT DISTINCT, ORDER BY expressions ") {
        let told = "for SELECT DISTINCT, ORDER BY expressions must appear in select list";
        return Some((INVALID_COLUMN_REFERENCE, told.to_owned()));
    }
    if message.starts_with("SELECT DISTINCT ON expressions must match initial ORDER BY expressions") {
        let told = "SELECT DISTINCT ON expressions must match initial ORDER BY expressions";
        return Some((INVALID_COLUMN_REFERENCE, told.to_owned()));
    }
    if let Some(columns) = between(message, "Source table contains ", " columns but only ")
        && let Some(names) = between(message, "but only ", " names given as column alias")
        && let (Ok(available), Ok(specified)) = (columns.parse::<usize>(), names.parse::<usize>())
        && specified > available
    {
        let told = format!("a table has {available} columns available but {specified} columns specified");
        return Some((INVALID_COLUMN_REFERENCE, told));
    }
    if let Some(name) = between(message, "WITH query name \"", "\" specified more than once") {
        return Some((DUPLICATE_ALIAS, format!("WITH query name \"{name}\" specified more than once")));
    }
    if let Some(relation) = message.strip_prefix("Invalid qualifier ") {
        return Some((UNDEFINED_TABLE, format!("missing FROM-clause entry for table \"{relation}\"")));
    }
    if message.starts_with("LIMIT must be >= 0") {
        return Some((INVALID_LIMIT, "LIMIT must not be negative".to_owned()));
    }
    if message.starts_with("OFFSET must be >=0") {
        return Some((INVALID_OFFSET, "OFFSET must not be negative".to_owned()));
    }
    if let Some((clause, found)) = message.split_once(" to be an integer or null, but got ") {
        let clause = clause.strip_prefix("Expected ").unwrap_or(clause);
        return Some((
            TYPE_MISMATCH,
            format!("argument of {clause} must be an integer, not {}", with_sql_types(found)),
        ));
    }
    if let Some(part) = between(message, "Date part '", "' not supported") {
        return Some((INVALID_PARAMETER_VALUE, format!("there is no date part \"{part}\"")));
    }
    if message.starts_with("Unsupported date_trunc granularity: ") {
        return Some((INVALID_PARAMETER_VALUE, super::translate::lower_first(message)));
    }
    if message.contains(" to grouping function is not in grouping columns") {
        let told = "arguments to GROUPING must be grouping expressions of the associated query level";
        return Some((GROUPING, told.to_owned()));
    }
    if let Some(rest) = message.strip_prefix("Invalid window frame: ") {
        return Some(match rest.starts_with("frame offsets for ROWS") {
            true => (sqlstate::INVALID_FRAME_OFFSET, "frame offset must be a number that is not negative".to_owned()),
            false => (sqlstate::WINDOWING, format!("invalid window frame: {rest}")),
        });
    }
    if message.starts_with("RANGE requires exactly one ORDER BY column") {
        let told = "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column";
        return Some((sqlstate::WINDOWING, told.to_owned()));
    }
    if let Some(name) = between(message, "The window ", " is not defined!") {
        return Some((sqlstate::UNDEFINED_OBJECT, format!("window \"{name}\" does not exist")));
    }
    if let Some(found) = message.strip_prefix("Join condition must be boolean type, but got ") {
        let found = with_sql_types(found);
        return Some((TYPE_MISMATCH, format!("argument of JOIN/ON must be type boolean, not type {found}")));
    }
    if message.starts_with("Step cannot be zero") {
        return Some((INVALID_PARAMETER_VALUE, "step size cannot equal zero".to_owned()));
    }
    None
}

const TOO_MANY_ROWS: &str = "more than one row returned by a subquery used as an expression";

/// Both the planner and a running query may find that out.
fn returned_more_than_one_row(message: &str) -> bool {
    message.to_ascii_lowercase().starts_with("scalar subquery returned more than one row")
}

/// Sorts the rest by the words the planner is known to use.
fn general(message: &str) -> Error {
    let lower = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let code = if has(&["group by clause", "in group by", "aggregate"])
        && has(&["must appear", "must be", "could not be resolved"])
    {
        sqlstate::GROUPING
    } else if has(&[
        "coerc",
        "common argument type",
        "common type",
        "cannot automatically convert",
        "incompatible",
        "data type",
        "type mismatch",
        "non-boolean",
    ]) {
        sqlstate::TYPE_MISMATCH
    } else if has(&["not supported", "unsupported", "not implemented", "does not support"]) {
        sqlstate::FEATURE_NOT_SUPPORTED
    } else if has(&["projections require unique expression names"]) {
        sqlstate::DUPLICATE_COLUMN
    } else if has(&["no value found for placeholder", "placeholder"]) {
        sqlstate::PROTOCOL_VIOLATION
    } else if has(&["cannot cast", "can't cast", "error parsing", "parser error", "divide by zero"]) {
        return of_value(message, sqlstate::DATA_EXCEPTION);
    } else {
        sqlstate::SYNTAX_OR_ACCESS
    };
    let message = super::translate::strip_prefixes(message);
    Error::new(code, super::translate::lower_first(&with_sql_types(message)))
}

/// DataFusion names the nearest of all functions, however far it is.
fn suggestion(message: &str) -> Option<&str> {
    let name = between(message, "Invalid function '", "'")?;
    nearest(name, [between(message, "Did you mean '", "'")?])
}

/// What is wrong with a value, from the message of a cast, a parse or a calculation; `otherwise` if it is not known.
pub(super) fn of_value(message: &str, otherwise: &'static str) -> Error {
    let message = super::translate::strip_prefixes(message);
    let lower = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["divide by zero", "division by zero"]) {
        return Error::new(sqlstate::DIVISION_BY_ZERO, "division by zero");
    }
    if let Some(known) = read_value(message) {
        return known;
    }
    let code = if has(&["overflow", "out of range", "too large to store", "too small to store", "does not fit"]) {
        sqlstate::NUMERIC_OUT_OF_RANGE
    } else if has(&["timestamp", "date", "interval", "time zone", "timezone"]) && has(&["pars", "invalid"]) {
        sqlstate::INVALID_DATETIME
    } else if has(&["pars", "cannot cast string", "invalid value", "invalid input"]) {
        sqlstate::INVALID_TEXT
    } else if has(&["unsupported", "not supported", "cast"])
        && has(&["casting from", "no valid cast", "not supported", "unsupported"])
    {
        sqlstate::TYPE_MISMATCH
    } else {
        otherwise
    };
    Error::new(code, super::translate::lower_first(&with_sql_types(message)))
}

/// A message of something that is not there: a cast between types that have none, or a feature.
pub(super) fn of_missing(message: &str) -> Error {
    // A subquery that no rule has taken apart.
    if let Some(outer) = message.split_once("does not support logical expression OuterReferenceColumn(")
        && let Some(column) = between(outer.1, "name: \"", "\"")
    {
        return Error::unsupported(format!(
            "a reference to the column \"{column}\" of a relation outside of the subquery here"
        ));
    }
    if message.contains("does not support logical expression WindowFunction(") {
        return Error::new(sqlstate::WINDOWING, "window functions are not allowed here");
    }
    match read_value(message) {
        Some(known) => known,
        None => Error::new(sqlstate::FEATURE_NOT_SUPPORTED, super::translate::lower_first(&with_sql_types(message))),
    }
}

/// Whether a text is a whole number, with spaces around it at most.
fn is_whole(text: &str) -> bool {
    let digits = text.trim();
    let digits = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text is written as a date is, whether there is that day or not.
fn is_written_date(text: &str) -> bool {
    let date = text.trim().split([' ', 'T']).next().unwrap_or_default();
    let parts: Vec<&str> = date.split('-').collect();
    matches!(parts.as_slice(), [year, month, day] if (4..=6).contains(&year.len())
        && (1..=2).contains(&month.len())
        && (1..=2).contains(&day.len())
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit())))
}

/// The same of a time of day: `25:00` is none.
fn is_written_time(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let parts: Vec<&str> = whole.split(':').collect();
    (2..=3).contains(&parts.len()) && is_number(fraction) && parts.iter().all(|part| part.len() <= 2 && is_number(part))
}

fn no_such_date(value: &str) -> Error {
    let text = format!("date/time field value out of range: \"{value}\"");
    Error::new(sqlstate::DATETIME_OVERFLOW, text).with_value(value)
}

/// The sentences about values that are said in PostgreSQL's words.
fn read_value(message: &str) -> Option<Error> {
    if returned_more_than_one_row(message) {
        return Some(Error::new(sqlstate::CARDINALITY_VIOLATION, TOO_MANY_ROWS));
    }
    // These two are PostgreSQL's own words.
    for undefined in ["cannot take square root of a negative number", "zero raised to a negative power is undefined"] {
        if message.starts_with(undefined) {
            return Some(Error::new(sqlstate::INVALID_POWER, undefined));
        }
    }
    if message.starts_with("negative count not allowed") {
        return Some(Error::new(sqlstate::INVALID_SUBSTRING, "negative substring length not allowed"));
    }
    if message.starts_with("NTILE requires a positive integer") {
        return Some(Error::new(sqlstate::INVALID_NTILE, "argument of ntile must be greater than zero"));
    }
    if let Some(part) = between(message, "Date part '", "' not supported") {
        return Some(Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("there is no date part \"{part}\"")));
    }
    if message.starts_with("Unsupported date_trunc granularity: ") {
        return Some(Error::new(sqlstate::INVALID_PARAMETER_VALUE, super::translate::lower_first(message)));
    }
    if message == "field position must not be zero" {
        return Some(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
    }
    if message.starts_with("overlay start position must be at least 1") {
        return Some(Error::new(sqlstate::INVALID_SUBSTRING, "negative substring length not allowed"));
    }
    if (message.starts_with("Month value '") || message.starts_with("Day value '"))
        && message.ends_with("' is out of range")
    {
        return Some(Error::new(sqlstate::DATETIME_OVERFLOW, super::translate::lower_first(message)));
    }
    if let Some((_, parts)) = message.split_once("Unable to parse date from ") {
        let text = format!("date field value out of range: {}", parts.replace(", ", "-"));
        return Some(Error::new(sqlstate::DATETIME_OVERFLOW, text));
    }
    if let Some(value) = between(message, "rror parsing timestamp from '", "'")
        && is_written_date(value)
    {
        return Some(no_such_date(value));
    }
    if let Some((_, rest)) =
        message.split_once("Cannot cast string '").or_else(|| message.split_once("Cannot cast value '"))
    {
        let (value, rest) = rest.rsplit_once("' to value of ")?;
        let arrow = rest.split(" type").next().unwrap_or(rest);
        let name = plain_name(arrow);
        let is_time = arrow.starts_with("Date") || arrow.starts_with("Time");
        let is_hour = arrow.starts_with("Time32") || arrow.starts_with("Time64");
        if (is_time && is_written_date(value)) || (is_hour && is_written_time(value)) {
            return Some(no_such_date(value));
        }
        let is_integer = arrow.strip_prefix('U').unwrap_or(arrow).starts_with("Int") && !arrow.starts_with("Interval");
        if is_integer && is_whole(value) {
            let text = format!("value \"{value}\" is out of range for type {name}");
            return Some(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, text).with_value(value));
        }
        let code = match is_time {
            true => sqlstate::INVALID_DATETIME,
            false => sqlstate::INVALID_TEXT,
        };
        return Some(Error::new(code, format!("invalid input syntax for type {name}: \"{value}\"")).with_value(value));
    }
    if let Some((_, rest)) = message.split_once("Can't cast value ") {
        let (value, arrow) = rest.rsplit_once(" to type ")?;
        let name = plain_name(arrow);
        let text = format!("value {value} is out of range for type {name}");
        return Some(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, text).with_value(value));
    }
    for words in [" is too large to store in a Decimal", " is too small to store in a Decimal"] {
        if let Some((value, rest)) = message.split_once(words) {
            let precision = between(rest, "of precision ", ".").unwrap_or("its precision");
            let text = format!("value {value} is out of range for type numeric with {precision} digits");
            return Some(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, text).with_value(value));
        }
    }
    // Two kernels' words for the same.
    for (before, amid) in [
        ("Unsupported CAST from ", " to "),
        ("Casting from ", " to "),
        ("Types don't match and no valid cast exists, received data of type ", " for field of type "),
    ] {
        if let Some((_, rest)) = message.split_once(before) {
            let (from, to) = rest.split_once(amid)?;
            let to = to.strip_suffix(" not supported").unwrap_or(to);
            let (from, to) = (with_sql_types(from), with_sql_types(to));
            return Some(Error::new(sqlstate::TYPE_MISMATCH, format!("cannot cast type {from} to {to}")));
        }
    }
    None
}

/// What stands between the first `before` and the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

/// Replaces the names of Arrow's types in a message by SQL's. What is in double quotes is the user's, and stays.
pub(super) fn with_sql_types(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    let mut quoted = false;
    while let Some(first) = rest.chars().next() {
        let end = match first.is_alphanumeric() {
            true => rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        quoted ^= word == "\"";
        rest = after;
        match type_name(word) {
            Some(name) if !quoted => {
                text.push_str(name);
                let parameters = parenthesised(rest);
                // Digits are SQL's, too; units and time zones are Arrow's.
                if name == "numeric" {
                    text.push_str(&parameters.replace(' ', ""));
                } else if name == "timestamp" && parameters.contains(',') && !parameters.contains("None") {
                    text.push_str(" with time zone");
                }
                rest = &rest[parameters.len()..];
            }
            _ => text.push_str(word),
        }
    }
    text
}

/// The parentheses a text begins with, or nothing.
fn parenthesised(text: &str) -> &str {
    match (text.starts_with('('), text.find(')')) {
        (true, Some(end)) => &text[..=end],
        _ => "",
    }
}

/// SQL's name for an Arrow type without its parameters.
fn plain_name(arrow: &str) -> &str {
    let word = arrow.split('(').next().unwrap_or(arrow);
    type_name(word).unwrap_or(arrow)
}

fn type_name(arrow: &str) -> Option<&'static str> {
    Some(match arrow {
        "Int8" => "tinyint",
        "Int16" => "smallint",
        "Int32" => "integer",
        "Int64" => "bigint",
        "UInt8" => "tinyint unsigned",
        "UInt16" => "smallint unsigned",
        "UInt32" => "integer unsigned",
        "UInt64" => "bigint unsigned",
        "Float16" | "Float32" => "real",
        "Float64" => "double precision",
        "Boolean" | "boolean" => "boolean",
        "Utf8" | "LargeUtf8" | "Utf8View" => "text",
        "Binary" | "LargeBinary" | "BinaryView" | "FixedSizeBinary" => "bytea",
        "Date32" | "Date64" => "date",
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "numeric",
        "Timestamp" => "timestamp",
        "Time32" | "Time64" => "time",
        "Interval" => "interval",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each sentence with the code and the words it becomes.
    #[test]
    fn every_known_sentence_is_told_in_sqls_words() {
        for (sentence, code, told) in [
            (
                "Function 'sum' failed to match any signature, errors: Error during planning: Function 'sum' requires \
                 Decimal, but received String (DataType: Utf8View)..\nThis issue was likely caused by a bug in \
                 DataFusion's code. No function matches the given name and argument types 'sum(Utf8View)'. You might \
                 need to add explicit type casts.\n\tCandidate functions:\n\tsum(Decimal)",
                "42883",
                "function sum(text) does not exist",
            ),
            (
                "No function matches the given name and argument types 'f(Decimal128(5, 2), Timestamp(µs), Int64)'.",
                "42883",
                "function f(numeric(5,2), timestamp, bigint) does not exist",
            ),
            ("Invalid function 'foo'.\nDid you mean 'pow'?", "42883", "function \"foo\" does not exist"),
            (
                "Cannot coerce arithmetic expression Utf8View + Int64 to valid types",
                "42883",
                "operator does not exist: text + bigint",
            ),
            (
                "Cannot coerce arithmetic expression Timestamp(ns, \"UTC\") + Int64 to valid types",
                "42883",
                "operator does not exist: timestamp with time zone + bigint",
            ),
            (
                "Cannot infer common argument type for comparison operation Int32 = Boolean",
                "42883",
                "operator does not exist: integer = boolean",
            ),
            (
                "Cannot infer common argument type for logical boolean operation Utf8View AND Boolean",
                "42804",
                "operator does not exist: text AND boolean",
            ),
            (
                "Cannot infer common string type for string concat operation Int32 || Int64",
                "42883",
                "operator does not exist: integer || bigint",
            ),
            (
                "There isn't a common type to coerce Int64 and Utf8 in LIKE expression",
                "42883",
                "operator does not exist: bigint LIKE text",
            ),
            ("The window w is not defined!", "42704", "window \"w\" does not exist"),
            (
                "Invalid window frame: start bound cannot be UNBOUNDED FOLLOWING",
                "42P20",
                "invalid window frame: start bound cannot be UNBOUNDED FOLLOWING",
            ),
            (
                "Invalid window frame: frame offsets for ROWS / GROUPS must be non negative integers",
                "22013",
                "frame offset must be a number that is not negative",
            ),
            (
                "RANGE requires exactly one ORDER BY column",
                "42P20",
                "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
            ),
            (
                "Join condition must be boolean type, but got Int64",
                "42804",
                "argument of JOIN/ON must be type boolean, not type bigint",
            ),
            (
                "Failed to coerce types Boolean and Int64 in BETWEEN expression",
                "42804",
                "BETWEEN: the types boolean and bigint do not go together",
            ),
            (
                "Cannot create filter with non-boolean predicate 't.name' returning Utf8View",
                "42804",
                "a condition must be boolean, not text",
            ),
            (
                "Unary operator 'NOT' requires a boolean expression, got Int32",
                "42804",
                "argument of NOT must be boolean, not integer",
            ),
            (
                "Unary operator '-' only supports signed numeric, interval and timestamp types",
                "42883",
                "operator does not exist: - of this type",
            ),
            (
                "Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column \
                 \"t.name\" must appear in the GROUP BY clause or must be part of an aggregate function, currently only \
                 \"count(Int64(1))\" appears in the SELECT clause satisfies this requirement",
                "42803",
                "column \"t.name\" must appear in the GROUP BY clause or be used in an aggregate function",
            ),
            (
                "Aggregate functions are not allowed in the WHERE clause. Consider using HAVING instead",
                "42803",
                "aggregate functions are not allowed in WHERE",
            ),
            (
                "Aggregate function calls cannot be nested: 'sum(t.id)' is nested inside 'sum(sum(t.id))'",
                "42803",
                "aggregate function calls cannot be nested",
            ),
            (
                "UNION queries have different number of columns",
                "42601",
                "each UNION query must have the same number of columns",
            ),
            (
                "Too many columns! The subquery should only return one column: t.name, t.id",
                "42601",
                "subquery must return only one column",
            ),
            (
                "Order by column out of bounds, specified: 5, max: 1",
                "42P10",
                "ORDER BY position 5 is not in select list",
            ),
            ("LIMIT must be >= 0, '-1' was provided", "2201W", "LIMIT must not be negative"),
            ("OFFSET must be >=0, '-1' was provided", "2201X", "OFFSET must not be negative"),
            (
                "Cannot find column with position 5 in SELECT clause. Valid columns: 1 to 3",
                "42P10",
                "GROUP BY position 5 is not in select list",
            ),
            (
                "For SELECT DISTINCT, ORDER BY expressions t.id must appear in select list",
                "42P10",
                "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
            ),
            (
                "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
                "42P10",
                "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
            ),
            (
                "Source table contains 2 columns but only 3 names given as column alias",
                "42P10",
                "a table has 2 columns available but 3 columns specified",
            ),
            (
                "WITH query name \"a\" specified more than once",
                "42712",
                "WITH query name \"a\" specified more than once",
            ),
            ("Invalid qualifier nope", "42P01", "missing FROM-clause entry for table \"nope\""),
            ("Step cannot be zero", "22023", "step size cannot equal zero"),
            (
                "Argument t.k to grouping function is not in grouping columns ",
                "42803",
                "arguments to GROUPING must be grouping expressions of the associated query level",
            ),
            (
                "Expected LIMIT to be an integer or null, but got Utf8",
                "42804",
                "argument of LIMIT must be an integer, not text",
            ),
            ("Date part 'foo' not supported", "22023", "there is no date part \"foo\""),
            (
                "Unsupported date_trunc granularity: 'foo'. Supported values are: day, week",
                "22023",
                "unsupported date_trunc granularity: 'foo'. Supported values are: day, week",
            ),
        ] {
            let error = of_planner(sentence);
            assert_eq!((error.sqlstate(), error.message()), (code, told), "{sentence}");
        }
    }

    #[test]
    fn every_known_word_of_the_planner_has_its_code() {
        for (sentence, code) in [
            ("Column x could not be resolved in GROUP BY clause", "42803"),
            ("There are incompatible types in the list", "42804"),
            ("Cannot automatically convert Utf8 to Int32", "42804"),
            ("The data type List is wrong here", "42804"),
            ("A type mismatch of some kind", "42804"),
            ("No common type for these", "42804"),
            ("This join is not supported", "0A000"),
            ("Unsupported thing", "0A000"),
            ("The plan does not support it", "0A000"),
            ("Projections require unique expression names but the expression \"a\" at position 0", "42701"),
            ("No value found for placeholder with id $1", "08P01"),
            ("Cannot cast string 'x' to value of Int32 type", "22P02"),
            ("Divide by zero", "22012"),
            ("Something else altogether", "42000"),
        ] {
            assert_eq!(of_planner(sentence).sqlstate(), code, "{sentence}");
        }
    }

    #[test]
    fn every_known_sentence_about_a_value_is_told_in_sqls_words() {
        assert_eq!(of_missing("Unsupported CAST from Date32 to Boolean").sqlstate(), "42804");
        assert_eq!(of_missing("Sorting by Utf8View").message(), "sorting by text");
        let outer = "Physical plan does not support logical expression OuterReferenceColumn(Field { name: \"x\", …";
        let told = "a reference to the column \"x\" of a relation outside of the subquery here is not supported";
        assert_eq!(of_missing(outer).message(), told);
        let window = "Physical plan does not support logical expression WindowFunction(WindowFunction { fun: …";
        assert_eq!(of_missing(window).sqlstate(), "42P20");
        for (sentence, code, told) in [
            (
                "Cannot cast string 'x1' to value of Int32 type",
                "22P02",
                "invalid input syntax for type integer: \"x1\"",
            ),
            ("Cannot cast value 'x' to value of Date32 type", "22007", "invalid input syntax for type date: \"x\""),
            (
                "Cannot cast string '25:00' to value of Time64(µs) type",
                "22008",
                "date/time field value out of range: \"25:00\"",
            ),
            ("NTILE requires a positive integer", "22014", "argument of ntile must be greater than zero"),
            (
                "Cannot cast string 'it's' to value of Boolean type",
                "22P02",
                "invalid input syntax for type boolean: \"it's\"",
            ),
            (
                "Can't cast value 99999999999 to type Int32",
                "22003",
                "value 99999999999 is out of range for type integer",
            ),
            (
                "12345.60 is too large to store in a Decimal128 of precision 5. Max is 999.99",
                "22003",
                "value 12345.60 is out of range for type numeric with 5 digits",
            ),
            (
                "-12345.60 is too small to store in a Decimal128 of precision 5. Min is -999.99",
                "22003",
                "value -12345.60 is out of range for type numeric with 5 digits",
            ),
            ("Unsupported CAST from Date32 to Boolean", "42804", "cannot cast type date to boolean"),
            ("Casting from Boolean to Date32 not supported", "42804", "cannot cast type boolean to date"),
            (
                "Types don't match and no valid cast exists, received data of type Date32 for field of type Boolean",
                "42804",
                "cannot cast type date to boolean",
            ),
            ("Divide by zero error", "22012", "division by zero"),
            ("negative count not allowed: -1", "22011", "negative substring length not allowed"),
            ("field position must not be zero", "22023", "field position must not be zero"),
            ("overlay start position must be at least 1: 0", "22011", "negative substring length not allowed"),
            ("Month value '13' is out of range", "22008", "month value '13' is out of range"),
            ("Unable to parse date from 2021, 2, 29", "22008", "date field value out of range: 2021-2-29"),
            (
                "Scalar subquery returned more than one row",
                "21000",
                "more than one row returned by a subquery used as an expression",
            ),
            ("cannot take square root of a negative number", "2201F", "cannot take square root of a negative number"),
            ("zero raised to a negative power is undefined", "2201F", "zero raised to a negative power is undefined"),
            ("Overflow happened on: 2147483647 + 1", "22003", "overflow happened on: 2147483647 + 1"),
            ("Value does not fit into Int16", "22003", "value does not fit into smallint"),
            (
                "Error parsing timestamp from 'x': error parsing date",
                "22007",
                "error parsing timestamp from 'x': error parsing date",
            ),
            ("Invalid value for this", "22P02", "invalid value for this"),
            ("Something with \"Int32\" in quotes", "22000", "something with \"Int32\" in quotes"),
        ] {
            let error = of_value(sentence, sqlstate::DATA_EXCEPTION);
            assert_eq!((error.sqlstate(), error.message()), (code, told), "{sentence}");
        }
    }

    #[test]
    fn a_function_that_is_not_near_is_not_suggested() {
        let hint = |sentence| of_planner(sentence).hint().map(str::to_owned);
        assert_eq!(hint("Invalid function 'foo'.\nDid you mean 'pow'?"), None);
        assert_eq!(
            hint("Invalid function 'lenght'.\nDid you mean 'length'?").as_deref(),
            Some("Did you mean \"length\"?")
        );
    }
}
