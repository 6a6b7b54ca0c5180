//! What a single statement is planned against: a view of the data, the session's options, the time it started.
//!
//! DataFusion's `SessionState` (functions, rules, planners) is built once per database and shared. A [`StatementContext`]
//! is the thin layer over it that differs per statement, made of a few `Arc`s; it plays the three roles DataFusion's
//! planner asks for: name resolution ([`names`]), the optimiser's settings and the physical planner's session
//! ([`session`]).

mod names;
mod series;
mod session;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use chrono::{DateTime, Utc};
use datafusion::common::{DFSchema, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::datasource::TableProvider;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, ScalarUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::PlannerContext;
use parking_lot::Mutex;
use rustydb_storage::{ObjectDef, ObjectId, ObjectKind, ReadView, Store, TableDef, TableId};

use super::plan_cache::Lease;
use crate::catalog::information_schema::{self, INFORMATION_SCHEMA, PG_CATALOG, VirtualTable};
use crate::catalog::provider::ColumnTable;
use crate::catalog::sequence_table;
use crate::common_rows::{ComputedRows, ViewRows};
use crate::ddl::temporary::{self, TemporarySchema};
use crate::ddl::view::ViewDefinition;
use crate::error::{nearest, sqlstate};
use crate::routine::function::{self, RunningPlan};
use crate::routine::registry::Routines;
use crate::scan::ExecutionView;
use crate::sequences::SessionSequences;
use crate::session::LiveSettings;
use crate::{CATALOG_NAME, DEFAULT_SCHEMA, Error, Identity, Result};

/// The schema under which a statement that changes rows sees its own target, hidden key column included. No table of a
/// user can be in it, and outside such a statement it is empty.
pub(crate) const TARGET_SCHEMA: &str = "rustydb.target";

/// The schema under which a statement that locks rows sees them by their table's number, the hidden row id included.
pub(crate) const ROWS_SCHEMA: &str = "rustydb.rows";

/// The rows of views, or why there are none, by the view and how many views deep it is named.
type PlannedViews = Arc<Mutex<HashMap<(ObjectId, usize), Result<Arc<dyn TableProvider>>>>>;

/// Everything that is particular to planning and running one statement.
#[derive(Clone)]
pub(crate) struct StatementContext {
    shared: Arc<SessionState>,
    config: SessionConfig,
    properties: ExecutionProps,
    store: Store,
    view: ReadView,
    target: Option<Arc<TableDef>>,
    defaults: Option<(TableId, HashMap<String, Expr>)>,
    named: HashMap<String, Arc<dyn TableProvider>>,
    shows_rows: bool,
    environment: Environment,
    /// How many views deep this is.
    depth: usize,
    /// The innermost view that this is for.
    within: Option<ObjectId>,
    /// The relations that it was created over, by schema and name.
    known_relations: Option<Arc<BTreeSet<(String, String)>>>,
    /// Where the stack ended when the outermost view was planned.
    stack_base: Option<usize>,
    /// A view is asked for more often than it is named. If each time it was planned, and so were those that it names, the
    /// time would double with every view in a chain.
    planned_views: PlannedViews,
    /// Whether the physical planner stops before the late rules.
    early_only: bool,
    /// The types of `$1 …`, where they are known before a statement is planned.
    parameters: Vec<FieldRef>,
}

/// What a session adds to the meaning of names.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// The schemas that names without one are looked for in.
    pub(crate) search_path: Arc<[String]>,
    /// The schema of the session's temporary relations; `None` where they are not in sight, as in a permanent view.
    pub(crate) temporary: Option<Arc<TemporarySchema>>,
    pub(crate) sequences: Arc<SessionSequences>,
    pub(crate) routines: Arc<Routines>,
    /// Who is logged in; nobody where no one has to.
    pub(crate) identity: Option<Identity>,
    /// For the functions that read and change settings.
    pub(crate) settings: LiveSettings,
    /// Nothing is going to run: sequences, whose functions may be called by planning already, stay as they are.
    pub(crate) only_planned: bool,
}

impl Environment {
    /// The name of the user, or where there are none that of the database.
    pub(crate) fn user(&self) -> &str {
        self.identity.as_ref().map_or(CATALOG_NAME, Identity::name)
    }

    pub(crate) fn used_temporary_schema(&self) -> Option<&Arc<TemporarySchema>> {
        self.temporary.as_ref().filter(|own| own.is_used())
    }

    fn used_temporary(&self) -> Option<&str> {
        self.used_temporary_schema().map(|own| own.name())
    }

    /// The schemas a name may be in, in the order in which it is looked for.
    pub(crate) fn schemas<'a>(&'a self, schema: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        let own = self.used_temporary();
        let (path, first) = match schema {
            None => (self.search_path.as_ref(), own),
            Some(temporary::ALIAS) => (&[][..], own),
            // Nobody names what is in the temporary schema of another session.
            Some(name) if temporary::is_temporary(name) && own != Some(name) => (&[][..], None),
            Some(name) => (&[][..], Some(name)),
        };
        first.into_iter().chain(path.iter().map(String::as_str))
    }
}

/// A view inside a view inside a view …; more than anybody means.
const VIEW_DEPTH_MAX: usize = 32;

/// How much stack views inside each other may take, of the 32 MB of a statement's thread: a view is planned upon what was
/// planned around it, and a level of subqueries takes 150 kB.
const VIEW_STACK_MAX: usize = 12 * 1024 * 1024;

/// How far the stack of this thread reaches.
#[inline(never)]
fn end_of_stack() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(&here) as usize
}

impl StatementContext {
    pub(crate) fn new(
        shared: &Arc<SessionState>,
        config: &SessionConfig,
        store: &Store,
        view: ReadView,
        started: DateTime<Utc>,
        environment: Environment,
    ) -> Self {
        let execution_view = Arc::new(ExecutionView::new(view.clone(), store.clone()));
        let mut config = config.clone().with_extension(execution_view).with_extension(Arc::<RunningPlan>::default());
        if let Some(own) = &environment.temporary {
            config = config.with_extension(Arc::clone(own));
        }
        let mut properties = ExecutionProps::new().with_query_execution_start_time(started);
        properties.config_options = Some(Arc::clone(config.options()));
        StatementContext {
            shared: Arc::clone(shared),
            config,
            properties,
            store: store.clone(),
            view,
            target: None,
            defaults: None,
            named: HashMap::new(),
            shows_rows: false,
            environment,
            depth: 0,
            within: None,
            known_relations: None,
            stack_base: None,
            planned_views: PlannedViews::default(),
            early_only: false,
            parameters: Vec::new(),
        }
    }

    /// The same, with `target` visible under [`TARGET_SCHEMA`].
    pub(crate) fn with_target(mut self, target: &Arc<TableDef>) -> Self {
        self.target = Some(Arc::clone(target));
        self
    }

    /// The same, with all tables visible under [`ROWS_SCHEMA`].
    pub(crate) fn with_rows(mut self) -> Self {
        self.shows_rows = true;
        self
    }

    /// The memory that queries share.
    pub(crate) fn memory_pool(&self) -> &Arc<dyn MemoryPool> {
        &self.shared.runtime_env().memory_pool
    }

    /// The same, with the expressions that fill the columns an INSERT into `table` leaves out.
    pub(crate) fn with_defaults(mut self, table: TableId, defaults: HashMap<String, Expr>) -> Self {
        self.defaults = Some((table, defaults));
        self
    }

    /// The same, with rows at hand that go by a name without a schema.
    pub(crate) fn with_named(mut self, named: HashMap<String, Arc<dyn TableProvider>>) -> Self {
        self.named.extend(named);
        self
    }

    /// The same for what reads these tables and no others: nothing else is kept for it.
    pub(crate) fn reading_only(mut self, tables: &[TableId]) -> Result<Self> {
        let narrow = self.execution_view()?.only(tables);
        self.view = narrow.view().clone();
        self.planned_views = PlannedViews::default();
        self.config = self.config.with_extension(Arc::new(narrow));
        Ok(self)
    }

    /// The same for one run of a plan, which keeps what several of its parts read.
    pub(crate) fn with_common_rows(mut self) -> Self {
        self.config = self.config.with_extension(Arc::<ComputedRows>::default());
        self
    }

    /// The same for a plan that is only described.
    pub(crate) fn only_planned(mut self) -> Self {
        self.environment.only_planned = true;
        self.planned_views = PlannedViews::default();
        self
    }

    /// The same, with other options of the optimiser.
    pub(crate) fn with_options(mut self, change: impl FnOnce(&mut ConfigOptions)) -> Self {
        change(self.config.options_mut());
        self.planned_views = PlannedViews::default();
        self
    }

    /// The same, with plans that keep the order of queries in FROM. Views that are planned already stay as they are: what they
    /// have inside is theirs.
    pub(in crate::sql) fn keeping_orders(mut self) -> Self {
        self.config.options_mut().sql_parser.enable_subquery_sort_elimination = false;
        self
    }

    /// The same, but plans end before the late rules; see [`crate::optimizer::first_late_rule`].
    pub(crate) fn without_late_rules(mut self) -> Self {
        self.early_only = true;
        self
    }

    /// The same, for what a running plan plans: complete, and on one thread.
    pub(crate) fn within_a_plan(mut self) -> Self {
        self.early_only = false;
        self.with_options(|options| options.execution.target_partitions = 1)
    }

    /// The same, with parameters of known types.
    pub(crate) fn with_parameters(mut self, types: impl IntoIterator<Item = DataType>) -> Self {
        let field = |data_type| Arc::new(Field::new("", data_type, true));
        self.parameters = types.into_iter().map(field).collect();
        self
    }

    /// What the planner knows before it reads a statement.
    pub(crate) fn planner_context(&self) -> PlannerContext {
        PlannerContext::new().with_prepare_param_data_types(self.parameters.iter().cloned().map(Some).collect())
    }

    pub(crate) fn view(&self) -> &ReadView {
        &self.view
    }

    /// The session's time zone.
    pub(crate) fn zone(&self) -> &str {
        self.config.options().execution.time_zone.as_deref().unwrap_or("UTC")
    }

    /// Keeps `lease` until nothing of this statement runs any more.
    pub(crate) fn hold(&self, lease: Lease) -> Result<()> {
        self.execution_view()?.hold(lease);
        Ok(())
    }

    fn execution_view(&self) -> Result<Arc<ExecutionView>> {
        let view = self.config.get_extension::<ExecutionView>();
        view.ok_or_else(|| Error::internal("a statement has no view to run against"))
    }

    /// Operators for a plan that the analyser has been over already.
    pub(crate) async fn plan_analyzed(&self, plan: LogicalPlan) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let plan = self.shared.optimizer().optimize(plan, self, |_, _| {})?;
        self.shared.query_planner().create_physical_plan(&plan, self).await
    }

    pub(crate) fn shared(&self) -> &SessionState {
        &self.shared
    }

    /// The table a statement names, or an error that suggests what was meant.
    pub(crate) fn table(&self, schema: Option<&str>, name: &str) -> Result<&Arc<TableDef>> {
        for in_schema in self.schemas_of(schema, name) {
            if let Some(table) = self.view.catalog().find(in_schema, name) {
                return Ok(table);
            }
            for (kind, what) in [(ObjectKind::View, "view"), (ObjectKind::Sequence, "sequence")] {
                if self.view.catalog().find_object(kind, in_schema, name).is_some() {
                    let message = format!("\"{name}\" is a {what}, not a table");
                    return Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, message));
                }
            }
        }
        Err(self.no_such_table(schema.unwrap_or(DEFAULT_SCHEMA), name))
    }

    /// The schemas a name may be in, in the order in which it is looked for.
    pub(crate) fn schemas<'a>(&'a self, schema: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        self.environment.schemas(schema)
    }

    /// The same for the name of a relation. In a view it is the relation that it was when the view was created, also if there
    /// is one of the same name by now in a schema that comes earlier.
    fn schemas_of<'a>(&'a self, schema: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
        let known = self.known_relations.iter().filter(move |_| schema.is_none());
        let known = known.flat_map(move |known| {
            self.schemas(None).filter(move |schema| known.iter().any(|(of, known)| of == schema && known == name))
        });
        known.chain(self.schemas(schema))
    }

    /// The schema of the session's temporary relations, if there may be any in sight.
    pub(crate) fn temporary(&self) -> Option<&str> {
        self.environment.used_temporary()
    }

    /// The same, itself.
    pub(crate) fn temporary_schema(&self) -> Option<&Arc<TemporarySchema>> {
        self.environment.used_temporary_schema()
    }

    /// A view or sequence by the name a statement gives it.
    pub(crate) fn object(&self, kind: ObjectKind, schema: Option<&str>, name: &str) -> Option<&Arc<ObjectDef>> {
        self.schemas_of(schema, name).find_map(|schema| self.view.catalog().find_object(kind, schema, name))
    }

    /// The schema that a new relation goes into: as named, or the first there is in the search path; of a temporary one,
    /// the session's own.
    pub(crate) fn schema_for_new(&self, schema: Option<String>, temporary: bool) -> Result<String> {
        let names_own = |name: &str| {
            name == temporary::ALIAS || self.environment.temporary.as_ref().is_some_and(|own| own.name() == name)
        };
        let in_own = schema.as_deref().is_some_and(names_own);
        if temporary && !in_own && schema.is_some() {
            let message = "cannot create temporary relation in non-temporary schema";
            return Err(Error::new(sqlstate::INVALID_TABLE_DEFINITION, message));
        }
        if temporary || in_own {
            let own = self.environment.temporary.as_ref();
            let own = own.ok_or_else(|| Error::unsupported("a temporary relation here"))?;
            own.use_it();
            return Ok(own.name().to_owned());
        }
        let exists = |name: &str| {
            name == DEFAULT_SCHEMA || self.view.catalog().find_object(ObjectKind::Schema, "", name).is_some()
        };
        let error =
            |message: String| Error::new(sqlstate::INVALID_SCHEMA_NAME, message).with_hint("CREATE SCHEMA makes one.");
        match schema {
            Some(name) if exists(&name) => Ok(name),
            Some(name) => Err(error(format!("schema \"{name}\" does not exist"))),
            None => {
                let found = self.environment.search_path.iter().find(|name| exists(name));
                found.cloned().ok_or_else(|| error("no schema has been selected to create in".to_owned()))
            }
        }
    }

    /// The same, looking for names elsewhere.
    pub(crate) fn within(mut self, search_path: &[String]) -> Self {
        self.environment.search_path = search_path.into();
        self
    }

    pub(crate) fn routines(&self) -> &Arc<Routines> {
        &self.environment.routines
    }

    /// The name of the session's user.
    pub(crate) fn user(&self) -> &str {
        self.environment.user()
    }

    pub(crate) fn search_path(&self) -> &Arc<[String]> {
        &self.environment.search_path
    }

    /// The same for a function that a plan calls. What it reads is planned when it runs, outside of the view that the plan
    /// may be of; and as the plans of views may have it inside, it cannot own them. It sees tables, and not the common table
    /// expressions of who calls it.
    pub(crate) fn for_function(&self) -> Self {
        let mut own = self.clone();
        (own.target, own.defaults) = (None, None);
        own.named.clear();
        let planned_views = PlannedViews::default();
        StatementContext { within: None, known_relations: None, stack_base: None, planned_views, ..own }
    }

    /// Whether a view has been asked for.
    pub(crate) fn names_views(&self) -> bool {
        !self.planned_views.lock().is_empty()
    }

    /// The rows of a view.
    fn view_provider(&self, view: &ObjectDef) -> Result<Arc<dyn TableProvider>> {
        // No view names itself. But the planner asks for the table, too, where the name is that of a common table
        // expression; that there is none it does not mind.
        if self.within == Some(view.id) {
            let message = format!("infinite recursion detected in view \"{}\"", view.name);
            return Err(Error::new(sqlstate::INVALID_OBJECT_DEFINITION, message));
        }
        let key = (view.id, self.depth);
        let known = self.planned_views.lock().get(&key).cloned();
        if let Some(known) = known {
            return known;
        }
        let planned = self.plan_view(view);
        self.planned_views.lock().insert(key, planned.clone());
        planned
    }

    /// The rows of a view, planned with the names that were in sight when it was created.
    fn plan_view(&self, view: &ObjectDef) -> Result<Arc<dyn TableProvider>> {
        if self.depth >= VIEW_DEPTH_MAX {
            let message = format!("more than {VIEW_DEPTH_MAX} views inside each other");
            return Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, message));
        }
        if self.stack_base.is_some_and(|base| base.abs_diff(end_of_stack()) > VIEW_STACK_MAX) {
            return Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, "views and subqueries nest too deeply"));
        }
        let definition = ViewDefinition::of(view)?;
        let mut inner = self.clone().within_view(view, &definition);
        if inner.stack_base.is_none() {
            inner.stack_base = Some(end_of_stack());
        }
        Ok(ViewRows::provider(definition.plan(&inner)?)?)
    }

    /// The same for the query of a view: it sees what was in sight when it was created, and nothing of the statement.
    pub(crate) fn within_view(mut self, view: &ObjectDef, definition: &ViewDefinition) -> Self {
        self.target = None;
        self.defaults = None;
        self.named.clear();
        self.depth += 1;
        self.within = Some(view.id);
        self.known_relations = Some(Arc::new(definition.relations.clone()));
        self.environment.search_path = definition.search_path.clone().into();
        if !temporary::is_temporary(&view.schema_name) {
            self.environment.temporary = None;
        }
        self
    }

    /// Arguments of a table function, computed as far as they can be.
    pub(in crate::sql) fn simplified(&self, arguments: Vec<Expr>) -> DataFusionResult<Vec<Expr>> {
        let simplify = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.config.options()))
            .with_query_execution_start_time(self.properties.query_execution_start_time)
            .build();
        let simplifier = ExprSimplifier::new(simplify);
        let schema = DFSchema::empty();
        // What analysing puts in the place of casts and operators holds here, too.
        let named =
            arguments.into_iter().enumerate().map(|(place, argument)| argument.alias(format!("argument{place}")));
        let plan = LogicalPlanBuilder::empty(true).project(named)?.build()?;
        let plan = self.shared.analyzer().execute_and_check(plan, self.config.options(), |_, _| {})?;
        let LogicalPlan::Projection(Projection { expr: arguments, .. }) = plan else {
            return Err(Error::internal("arguments became something else").into());
        };
        let simple = |argument: Expr| {
            let coerced = simplifier.coerce(argument.unalias_nested().data, &schema)?;
            simplifier.simplify(coerced)
        };
        arguments.into_iter().map(simple).collect()
    }

    /// A function of users.
    fn routine(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let (schema, plain) = match name.split_once('.') {
            Some((schema, plain)) => (Some(schema), plain),
            None => (None, name),
        };
        function::scalar(self, &self.environment.routines, schema, plain).ok().flatten()
    }

    /// A function of users in the place of a table.
    fn routine_table(&self, name: &str, arguments: &[Expr]) -> DataFusionResult<Option<Arc<dyn TableProvider>>> {
        if self.environment.routines.find(self, None, name, false)?.is_empty() {
            return Ok(None);
        }
        let arguments = self.simplified(arguments.to_vec())?;
        Ok(function::table(self, &self.environment.routines, name, &arguments)?)
    }

    fn no_such_table(&self, schema: &str, name: &str) -> Error {
        let shown = if schema == DEFAULT_SCHEMA { name.to_owned() } else { format!("{schema}.{name}") };
        let error = Error::new(sqlstate::UNDEFINED_TABLE, format!("table \"{shown}\" does not exist"));
        let catalog = self.view.catalog();
        let in_schema = catalog.tables().filter(|table| table.schema_name == schema).map(|table| table.name.as_str());
        let virtual_tables = if schema == INFORMATION_SCHEMA { information_schema::NAMES } else { &[] };
        if let Some(near) = nearest(name, in_schema.chain(virtual_tables.iter().copied())) {
            return error.with_hint(format!("Did you mean \"{near}\"?"));
        }
        let elsewhere = |table: &&Arc<TableDef>| table.name == name && !temporary::is_temporary(&table.schema_name);
        match catalog.tables().find(elsewhere) {
            Some(elsewhere) => error.with_hint(format!("There is a table \"{}.{name}\".", elsewhere.schema_name)),
            None => error.with_hint("SHOW TABLES lists the tables."),
        }
    }

    fn provider(&self, reference: &TableReference) -> Result<Arc<dyn TableProvider>> {
        if let Some(catalog) = reference.catalog()
            && catalog != CATALOG_NAME
        {
            return Err(Error::unsupported(format!("\"{reference}\": a reference to another database")));
        }
        if reference.schema().is_none()
            && let Some(rows) = self.named.get(reference.table())
        {
            return Ok(Arc::clone(rows));
        }
        let name = reference.table();
        if reference.schema() == Some(TARGET_SCHEMA)
            && let Some(target) = &self.target
        {
            return Ok(Arc::new(ColumnTable::with_hidden_columns(target, &self.view)?));
        }
        let schema = reference.schema().unwrap_or(DEFAULT_SCHEMA);
        if schema == ROWS_SCHEMA
            && self.shows_rows
            && let Some(table) = name.parse().ok().and_then(|id| self.view.catalog().table(TableId(id)))
        {
            return Ok(Arc::new(ColumnTable::with_row_id(table, &self.view)?));
        }
        let catalog = self.view.catalog();
        let mut table = None;
        for schema in self.schemas_of(reference.schema(), name) {
            table = catalog.find(schema, name);
            if table.is_some() {
                break;
            }
            if let Some(view) = catalog.find_object(ObjectKind::View, schema, name) {
                return self.view_provider(view);
            }
            if let Some(sequence) = catalog.find_object(ObjectKind::Sequence, schema, name) {
                return sequence_table::provider(sequence);
            }
        }
        match table {
            Some(table) => {
                let provider = ColumnTable::new(table, &self.view)?;
                Ok(Arc::new(match &self.defaults {
                    Some((target, defaults)) if *target == table.id => provider.into_insert_target(defaults.clone()),
                    _ => provider,
                }))
            }
            None if [INFORMATION_SCHEMA, PG_CATALOG].contains(&schema) || reference.schema().is_none() => {
                VirtualTable::find(schema, name).ok_or_else(|| self.no_such_table(schema, name))
            }
            None => Err(self.no_such_table(schema, name)),
        }
    }
}
