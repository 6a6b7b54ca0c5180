//! Names looked up for the planner: tables, functions, types.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::TableReference;
use datafusion::config::ConfigOptions;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};

use crate::ddl::comment;
use crate::error::{nearest, sqlstate};
use crate::sequences::{self, SequenceScope};
use crate::sql::types::CastTypes;
use crate::{Error, Result, functions, interrupt};

use super::{StatementContext, series};

impl ContextProvider for StatementContext {
    fn get_table_source(&self, name: TableReference) -> DataFusionResult<Arc<dyn TableSource>> {
        interrupt::check()?;
        Ok(provider_as_source(self.provider(&name)?))
    }

    fn get_table_function_source(&self, name: &str, arguments: Vec<Expr>) -> DataFusionResult<Arc<dyn TableSource>> {
        let folded = folded(name);
        let name = if folded != name && self.is_table_function(&folded)? { folded.as_str() } else { name };
        let built_in = self.shared.table_functions().get(name);
        let of_users = match built_in {
            Some(_) => None,
            None => self.routine_table(name, &arguments)?,
        };
        if let Some(table) = of_users {
            return Ok(provider_as_source(table));
        }
        let function = built_in.ok_or_else(|| {
            let error = Error::new(sqlstate::UNDEFINED_FUNCTION, format!("table function \"{name}\" does not exist"));
            match nearest(name, self.shared.table_functions().keys().map(String::as_str)) {
                Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
                None => error,
            }
        })?;
        let arguments = self.simplified(series::typed(name, self.simplified(arguments)?))?;
        let arguments = series::in_nanoseconds(name, arguments)?;
        let provider = function.create_table_provider_with_args(TableFunctionArgs::new(&arguments, self))?;
        Ok(provider_as_source(series::in_microseconds(provider)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DataFusionResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.shared.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.shared.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(CastTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let scope = || SequenceScope {
            store: self.store.clone(),
            catalog: Arc::clone(self.view.catalog()),
            environment: self.environment.clone(),
        };
        if let Some(function) = sequences::function(name, scope) {
            return Some(function);
        }
        if let Some(function) = functions::session::function(name, &self.environment) {
            return Some(function);
        }
        let scope = || comment::CommentScope {
            catalog: Arc::clone(self.view.catalog()),
            environment: self.environment.clone(),
        };
        if let Some(function) = comment::function(name, scope) {
            return Some(function);
        }
        if functions::foreign::is_foreign(name)
            && let Some(function) = self.routine(name)
        {
            return Some(function);
        }
        let Some(function) = self.shared.scalar_functions().get(name) else {
            return self.routine(name);
        };
        // now() and its like carry the time zone of the session.
        match function.inner().with_updated_config(self.config.options()) {
            Some(adapted) => Some(Arc::new(adapted)),
            None => Some(Arc::clone(function)),
        }
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.shared.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.shared.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.shared.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.config.options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.shared.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.shared.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.shared.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.shared.window_functions().keys().cloned().collect()
    }
}

impl StatementContext {
    fn is_table_function(&self, name: &str) -> Result<bool> {
        Ok(self.shared.table_functions().contains_key(name)
            || !self.environment.routines.find(self, None, name, false)?.is_empty())
    }
}

/// The name that is meant: DataFusion gives that of a function in FROM as it was written, be it in capitals or in quotes,
/// but behind LATERAL as it is meant.
fn folded(name: &str) -> String {
    match name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_ascii_lowercase(),
    }
}
