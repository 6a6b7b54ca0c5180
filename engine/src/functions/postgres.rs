//! Functions that answer otherwise here than DataFusion's of the same name: as PostgreSQL's do.
//!
//! | function | here |
//! |---|---|
//! | `now()`, `current_timestamp` | microseconds, the resolution of a `timestamp` and of every client's language |
//! | `version()` | RustyDB's, not that of a library |
//! | `to_char()` | [PostgreSQL's templates](super::to_char) |
//! | `like_escape()` | [patterns of LIKE … ESCAPE](super::like_escape), not there in DataFusion |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::like_escape::LikeEscape;
use crate::sql::rules::limits;

/// The functions that PostgreSQL has and DataFusion has not, or has otherwise.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(Now::new(None).into()),
        Arc::new(Version::new().into()),
        Arc::new(LikeEscape::new().into()),
        limits::function(),
    ]
}

/// `now()`: the time the statement began, put into the plan as a constant.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
    aliases: Vec<String>,
    time_zone: Option<Arc<str>>,
}

impl Now {
    fn new(time_zone: Option<Arc<str>>) -> Self {
        let aliases = vec!["current_timestamp".to_owned()];
        Now { signature: Signature::nullary(Volatility::Stable), aliases, time_zone }
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        Some(Now::new(config.execution.time_zone.as_deref().map(Arc::from)).into())
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, self.time_zone.clone()))
    }

    fn return_field_from_args(&self, _arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.return_type(&[])?, false)))
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> DataFusionResult<ExprSimplifyResult> {
        let Some(began) = context.query_execution_start_time() else {
            return Ok(ExprSimplifyResult::Original(arguments));
        };
        let value = ScalarValue::TimestampMicrosecond(Some(began.timestamp_micros()), self.time_zone.clone());
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(value, None)))
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        internal_err!("now() is a constant before a plan runs")
    }
}

/// `version()`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Version {
    signature: Signature,
}

impl Version {
    fn new() -> Self {
        Version { signature: Signature::nullary(Volatility::Stable) }
    }
}

impl ScalarUDFImpl for Version {
    fn name(&self) -> &str {
        "version"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let (version, architecture, system) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
        let text = format!("RustyDB {version} on {architecture}-{system}");
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(Some(text))))
    }
}
