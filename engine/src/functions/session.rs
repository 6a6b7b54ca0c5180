//! Functions that tell about the session they are called in. The planner gets them bound to it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::CATALOG_NAME;
use crate::sql::context::Environment;

/// The function of this name, if it is one of these.
pub(crate) fn function(name: &str, environment: &Environment) -> Option<Arc<ScalarUDF>> {
    let (name, value) = match name {
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
