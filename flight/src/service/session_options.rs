//! SetSessionOptions and GetSessionOptions: the session's settings by Flight's own actions, for drivers that have no SQL
//! of ours. CloseSession is in [`login`](super::login).
//!
//! | option | value |
//! |---|---|
//! | `catalog` | `rustydb`, the only one |
//! | `schema` | the schema of names without one |
//! | any setting that `SHOW ALL` lists | as `SET` takes it; an option without a value is `RESET`; `search_path` also as a list |
//!
//! The session's transactions by id have its settings, too: those to come take them over, and the one that ADBC's driver
//! has open on the connection gets what is set.
//!
//! Invariant: an option is answered as set only if it lasts. A call without a session token has nothing an option could
//! last in, so there only the values that hold anyway are accepted.

use std::collections::HashMap;

use prost::Message;
use rustydb_engine::{CATALOG_NAME, DEFAULT_SCHEMA, Error, ObjectKind, Session};
use tonic::Status;

use super::SqlService;
use crate::auth::Caller;
use crate::sessions::Scope;
use crate::status::refuse;

const CATALOG: &str = "catalog";
const SCHEMA: &str = "schema";
/// The setting of the engine behind `schema`.
const SEARCH_PATH: &str = "search_path";

/// More options than there are settings are not meant well.
const OPTIONS_MAX: usize = 1_000;

// The messages of Flight.proto, for which arrow-flight has no types.

#[derive(Clone, PartialEq, prost::Message)]
struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OptionError {
    #[prost(int32, tag = "1")]
    value: i32,
}

const INVALID_NAME: i32 = 1;
const INVALID_VALUE: i32 = 2;
const ERROR: i32 = 3;

#[derive(Clone, PartialEq, prost::Message)]
struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(sfixed64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Texts(Texts),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

impl Value {
    /// As SET takes it for this setting; there is one whose value may be a list.
    fn text(&self, name: &str) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Flag(flag) => Some(if *flag { "on" } else { "off" }.to_owned()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Double(number) => Some(number.to_string()),
            Self::Texts(texts) if name == SEARCH_PATH => texts.as_path(),
            Self::Texts(_) => None,
        }
    }
}

impl Texts {
    /// Names of schemas as a search path; `None` if there is one that cannot stand in it.
    fn as_path(&self) -> Option<String> {
        let quoted = self.values.iter().map(|name| can_stand(name).then(|| format!("\"{name}\"")));
        Some(quoted.collect::<Option<Vec<String>>>()?.join(", "))
    }
}

impl SqlService {
    pub(super) async fn set_session_options(
        &self,
        caller: &Caller,
        body: &[u8],
    ) -> Result<arrow_flight::Result, Status> {
        let request = SetSessionOptionsRequest::decode(body).map_err(|error| malformed("SetSessionOptions", &error))?;
        if request.session_options.len() > OPTIONS_MAX {
            return Err(refuse("54000", format!("more than {OPTIONS_MAX} session options at once")).into());
        }
        let scope = self.sessions.of_token(caller)?;
        // What begins later takes the options over.
        let begun = self.sessions.begun_without_id(caller).filter(|_| scope.is_some());
        let mut errors = HashMap::new();
        for (name, option) in request.session_options {
            let outcome = match option.value.as_ref().map(|value| value.text(&name)) {
                None => set(scope.as_ref(), begun.as_deref(), &name, None).await,
                Some(Some(text)) => set(scope.as_ref(), begun.as_deref(), &name, Some(&text)).await,
                Some(None) => Err(INVALID_VALUE),
            };
            if let Err(value) = outcome {
                errors.insert(name, OptionError { value });
            }
        }
        Ok(arrow_flight::Result::new(SetSessionOptionsResult { errors }.encode_to_vec()))
    }

    pub(super) async fn session_options(&self, caller: &Caller) -> Result<arrow_flight::Result, Status> {
        let settings = match (self.sessions.of_token(caller)?, self.sessions.begun_without_id(caller)) {
            (Some(_), Some(begun)) => begun.settings(),
            (Some(scope), None) => scope.turn().await?.settings(),
            // What a call that stands alone starts with.
            (None, _) => self.sessions.outside().settings(),
        };
        let mut options: HashMap<String, String> = settings.into_iter().collect();
        let schema = options.get(SEARCH_PATH).map_or(DEFAULT_SCHEMA, |path| first_schema(path)).to_owned();
        options.insert(CATALOG.to_owned(), CATALOG_NAME.to_owned());
        options.insert(SCHEMA.to_owned(), schema);
        let value = |text| OptionValue { value: Some(Value::Text(text)) };
        let session_options = options.into_iter().map(|(name, text)| (name, value(text))).collect();
        Ok(arrow_flight::Result::new(GetSessionOptionsResult { session_options }.encode_to_vec()))
    }
}

/// Whether a schema's name can stand in a search path, which is a text with commas between names.
fn can_stand(name: &str) -> bool {
    !name.trim().is_empty() && !name.contains([',', '"'])
}

/// The first schema of a search path, without its quotes.
fn first_schema(path: &str) -> &str {
    path.split(',').next().unwrap_or_default().trim().trim_matches('"')
}

/// Sets one option, or resets it, in the session and in the transaction that has begun beside it; the error is one of the
/// protocol's.
async fn set(scope: Option<&Scope>, begun: Option<&Session>, name: &str, value: Option<&str>) -> Result<(), i32> {
    let Some(scope) = scope else {
        return match (name, value) {
            (CATALOG, None | Some(CATALOG_NAME)) | (SCHEMA, None | Some(DEFAULT_SCHEMA)) => Ok(()),
            (CATALOG, Some(_)) => Err(INVALID_VALUE),
            // The value may be a good one: what is missing is a session.
            _ => Err(ERROR),
        };
    };
    let session = scope.turn().await.map_err(|_| ERROR)?;
    match (name, value) {
        (CATALOG, None | Some(CATALOG_NAME)) => return Ok(()),
        (CATALOG, Some(_)) => return Err(INVALID_VALUE),
        (SCHEMA, None) if session.setting(SEARCH_PATH).is_none() => return Ok(()),
        (SCHEMA, Some(schema)) if session.setting(SEARCH_PATH).is_none() => {
            return if schema == DEFAULT_SCHEMA { Ok(()) } else { Err(INVALID_VALUE) };
        }
        (SCHEMA, Some(schema)) => {
            let catalog = begun.unwrap_or(&session).catalog();
            let known = catalog.find_object(ObjectKind::Schema, "", schema).is_some();
            if (schema != DEFAULT_SCHEMA && !known) || !can_stand(schema) {
                return Err(INVALID_VALUE);
            }
        }
        _ => {}
    }
    let name = if name == SCHEMA { SEARCH_PATH } else { name };
    // The transaction first: what the session has lasts, and is answered as set.
    if let Some(begun) = begun {
        begun.set_in_common(name, value).map_err(|error| error_value(&error))?;
    }
    let outcome = match value {
        Some(value) => session.set(name, value).await,
        None => session.reset(name).await,
    };
    outcome.map_err(|error| error_value(&error))
}

/// The protocol's error for one of the engine.
fn error_value(error: &Error) -> i32 {
    match error.sqlstate() {
        "42704" => INVALID_NAME,
        "22023" | "0A000" => INVALID_VALUE,
        _ => ERROR,
    }
}

fn malformed(action: &str, error: &prost::DecodeError) -> Status {
    refuse("08P01", format!("malformed {action} request: {error}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind_are_read_as_set_takes_them() {
        let texts =
            |texts: &[&str]| Value::Texts(Texts { values: texts.iter().map(|&text| text.to_owned()).collect() });
        assert_eq!(texts(&["a"]).text("timezone"), None);
        assert_eq!(texts(&["sales", "public"]).text(SEARCH_PATH).as_deref(), Some("\"sales\", \"public\""));
        assert_eq!(texts(&[]).text(SEARCH_PATH).as_deref(), Some(""));
        assert_eq!(texts(&["sales, public"]).text(SEARCH_PATH), None);
        for (value, text) in [
            (Value::Text("x".to_owned()), "x"),
            (Value::Flag(true), "on"),
            (Value::Flag(false), "off"),
            (Value::Integer(-7), "-7"),
            (Value::Double(0.5), "0.5"),
        ] {
            assert_eq!(value.text("any").as_deref(), Some(text));
        }
    }

    #[test]
    fn messages_have_the_bytes_of_the_specification() {
        let option = OptionValue { value: Some(Value::Integer(1)) };
        assert_eq!(option.encode_to_vec(), [0x19, 1, 0, 0, 0, 0, 0, 0, 0], "sfixed64 in field 3");
        let request = SetSessionOptionsRequest { session_options: [("a".to_owned(), option)].into() };
        assert_eq!(request.encode_to_vec()[..6], [0x0a, 14, 0x0a, 1, b'a', 0x12]);
        let errors = [("a".to_owned(), OptionError { value: INVALID_NAME })].into();
        let result = SetSessionOptionsResult { errors };
        assert_eq!(result.encode_to_vec(), [0x0a, 7, 0x0a, 1, b'a', 0x12, 2, 0x08, 1]);
    }

    #[test]
    fn the_first_schema_of_a_path_counts() {
        assert_eq!(first_schema("\"sales\", public"), "sales");
        assert_eq!(first_schema("public"), "public");
    }
}
