//! Functions that tell about the session they are called in, or change its settings. The planner gets them bound to it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringViewBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::error::sqlstate;
use crate::session::LiveSettings;
use crate::sql::context::Environment;
use crate::{CATALOG_NAME, Error, Result};

/// The function of this name, if it is one of these.
pub(crate) fn function(name: &str, environment: &Environment) -> Option<Arc<ScalarUDF>> {
    let of_settings = |setting: &str, signature| {
        let (settings, only_planned) = (environment.settings.clone(), environment.only_planned);
        Some(Arc::new(ScalarUDF::from(OfSettings { sets: setting == "set_config", settings, only_planned, signature })))
    };
    let (name, value) = match name {
        "current_setting" => {
            let signature = TypeSignature::OneOf(vec![
                TypeSignature::Exact(vec![DataType::Utf8View]),
                TypeSignature::Exact(vec![DataType::Utf8View, DataType::Boolean]),
            ]);
            return of_settings(name, Signature::new(signature, Volatility::Stable));
        }
        "set_config" => {
            let types = vec![DataType::Utf8View, DataType::Utf8View, DataType::Boolean];
            return of_settings(name, Signature::exact(types, Volatility::Volatile));
        }
        "current_user" => ("current_user", Some(environment.user())),
        "session_user" => ("session_user", Some(environment.user())),
        "current_role" => ("current_role", Some(environment.user())),
        "current_database" => ("current_database", Some(CATALOG_NAME)),
        "current_catalog" => ("current_catalog", Some(CATALOG_NAME)),
        "current_schema" => ("current_schema", environment.search_path.first().map(String::as_str)),
        _ => return None,
    };
    let signature = Signature::nullary(Volatility::Stable);
    Some(Arc::new(ScalarUDF::from(Told { name, value: value.map(str::to_owned), signature })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Told {
    name: &'static str,
    value: Option<String>,
    signature: Signature,
}

impl ScalarUDFImpl for Told {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn simplify(&self, _arguments: Vec<Expr>, _context: &SimplifyContext) -> DataFusionResult<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(ScalarValue::Utf8View(self.value.clone()), None)))
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        internal_err!("{} is a constant before a plan runs", self.name)
    }
}

/// `current_setting(name [, missing_ok])` and `set_config(name, value, is_local)`.
struct OfSettings {
    sets: bool,
    settings: LiveSettings,
    only_planned: bool,
    signature: Signature,
}

impl fmt::Debug for OfSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for OfSettings {
    fn eq(&self, other: &Self) -> bool {
        self.sets == other.sets && self.settings.is(&other.settings)
    }
}

impl Eq for OfSettings {}

impl Hash for OfSettings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sets.hash(state);
    }
}

impl OfSettings {
    fn current(&self, name: &str, missing_ok: bool) -> Result<Option<String>> {
        match self.settings.get(name) {
            None if !missing_ok => {
                let message = format!("unrecognized configuration parameter \"{name}\"");
                Err(Error::new(sqlstate::UNDEFINED_OBJECT, message).with_hint("SHOW ALL lists the settings."))
            }
            value => Ok(value),
        }
    }

    fn set(&self, name: &str, value: Option<&str>, local: bool) -> Result<Option<String>> {
        if self.only_planned {
            return Ok(value.map(str::to_owned));
        }
        self.settings.set(name, value, local)?;
        Ok(match local {
            // It may have ended with this statement.
            true => value.map(str::to_owned),
            false => self.settings.get(name),
        })
    }
}

impl ScalarUDFImpl for OfSettings {
    fn name(&self) -> &str {
        if self.sets { "set_config" } else { "current_setting" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = !self.sets && arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let columns = arguments.args.iter().map(|value| value.to_array(rows)).collect::<DataFusionResult<Vec<_>>>()?;
        let text = |column: usize, row: usize| {
            columns.get(column).filter(|array| array.is_valid(row)).map(|array| array.as_string_view().value(row))
        };
        let is = |column: usize, row: usize| {
            columns.get(column).is_some_and(|array| array.is_valid(row) && array.as_boolean().value(row))
        };
        let mut results = StringViewBuilder::with_capacity(rows);
        for row in 0..rows {
            let result = match (self.sets, text(0, row)) {
                (false, None) => None,
                (false, Some(name)) => self.current(name, is(1, row))?,
                (true, None) => {
                    return Err(Error::new(sqlstate::NULL_NOT_ALLOWED, "SET requires parameter name").into());
                }
                (true, Some(name)) => self.set(name, text(1, row), is(2, row))?,
            };
            results.append_option(result);
        }
        let results = results.finish();
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&results, 0)?),
            false => ColumnarValue::Array(Arc::new(results)),
        })
    }
}
