//! An open database: its store, its threads, and what all sessions share.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::optimizer::{Analyzer, Optimizer};
use datafusion::prelude::SessionConfig;
use rustydb_storage::{CheckReport, Finding, MemoryUsage, Store};

use crate::apply::{AfterJoins, ApplyPlanner, BeforeJoins};
use crate::ddl::temporary;
use crate::error::sqlstate;
use crate::interrupt::interruptible;
use crate::lending::LendingPool;
use crate::opaque::Opaque;
use crate::optimizer::CertainDependencies;
use crate::options::{DatabaseLocation, DatabaseOptions};
use crate::routine::registry::Routines;
use crate::row_path::{ProgramCache, ProgramCacheUsage};
use crate::runtime::Runtimes;
use crate::session::Session;
use crate::sql::aggregates::checked_sum;
use crate::sql::plan_cache::PlanCache;
use crate::sql::relations::Relations;
use crate::sql::rules::arithmetic::SqlArithmetic;
use crate::sql::rules::array_order::ArrayOrder;
use crate::sql::rules::coarse_times::CoarseTimes;
use crate::sql::rules::empty_groups::EmptyGroups;
use crate::sql::rules::interval_math::IntervalPlanner;
use crate::sql::rules::interval_order::{IntervalOrder, IntervalWindows};
use crate::sql::rules::limits::ComputedLimits;
use crate::sql::rules::listed_values::ListedValues;
use crate::sql::rules::membership::Membership;
use crate::sql::rules::mixed_types::MixedTypes;
use crate::sql::rules::null_rows::NullRows;
use crate::sql::rules::nullable_subqueries::NullableSubqueries;
use crate::sql::rules::opaque_values::OpaqueValues;
use crate::sql::rules::peer_frames::PeerFrames;
use crate::sql::rules::session_zone::SessionZone;
use crate::sql::rules::single_row::SingleRow;
use crate::sql::rules::sorted_sets::SortedSets;
use crate::sql::rules::sorted_subqueries::SortedSubqueries;
use crate::sql::rules::strict_types::StrictTypes;
use crate::sql::rules::time_units::TimeUnits;
use crate::sql::rules::unknowns::Unknowns;
use crate::sql::rules::values_types::ValuesTypes;
use crate::sql::tree::grouping::GroupingExpressions;
use crate::users::{self, Users};
use crate::{CATALOG_NAME, DEFAULT_SCHEMA, Error, Identity, Result, functions, optimizer};

/// Where queries put what does not fit into memory, inside the data directory.
const SPILL_DIRECTORY: &str = "spill";

/// Rows per batch: small enough for the cache, large enough to forget the overhead.
const BATCH_SIZE: usize = 8192;

/// How many memory users an out-of-memory error names.
const REPORTED_CONSUMERS: NonZeroUsize = NonZeroUsize::new(3).expect("3 is not 0");

/// An open database. Clones are handles of the same database; it is closed with [`close`](Self::close), or left to
/// recover from its log when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Database {
    shared: Opaque<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    users: Users,
    runtimes: Arc<Runtimes>,
    state: Arc<SessionState>,
    plans: PlanCache,
    routines: Arc<Routines>,
    programs: Arc<ProgramCache>,
    config: SessionConfig,
    statement_timeout: Option<Duration>,
    allow_server_files: bool,
    /// Where it is on disk, with all links followed.
    directory: Option<PathBuf>,
}

impl Database {
    /// Opens a database, creating it if its directory is new or empty, and recovers what its log holds.
    ///
    /// # Errors
    /// 22023 if the memory limit is too small, 55006 if another process has it open, 58030 if the directory holds something else or cannot be read, 0A000 if it
    /// was written by a newer release, XX001 if it is damaged.
    pub async fn open(options: DatabaseOptions) -> Result<Database> {
        let query_threads = options.query_threads();
        if let Some(limit) = options.memory_limit.filter(|limit| *limit < DatabaseOptions::MEMORY_LIMIT_MIN) {
            let least = DatabaseOptions::MEMORY_LIMIT_MIN;
            let message = format!("memory_limit is {limit} bytes; the least is {least}");
            return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
        }
        let runtimes = Arc::new(Runtimes::start(query_threads)?);
        let store_options = options.store_options();
        let opened = runtimes.run_in_background(async move {
            let store = Store::open(store_options).await?;
            temporary::drop_leftovers(&store).await?;
            Ok(store)
        });
        let store = opened.await?;
        let directory = match &options.location {
            DatabaseLocation::Directory(path) => Some(path.as_path()),
            DatabaseLocation::Memory => None,
        };
        let users = Users::open(directory)?;
        let runtime_env = runtime_env(&options, &store)?;
        let programs = Arc::new(ProgramCache::default());
        let config = session_config(query_threads).with_extension(Arc::clone(&programs));
        let state = interruptible(session_state(config.clone(), runtime_env, options.budget().queries));
        let DatabaseOptions { statement_timeout, allow_server_files, location, languages, .. } = options;
        let directory = match location {
            DatabaseLocation::Directory(path) => Some(
                path.canonicalize().map_err(|error| Error::io(format!("cannot find {}", path.display()), &error))?,
            ),
            DatabaseLocation::Memory => None,
        };
        let state = Arc::new(state);
        let shared = Shared {
            store,
            users,
            runtimes,
            state,
            plans: PlanCache::default(),
            routines: Arc::new(Routines::new(languages)),
            programs,
            config,
            statement_timeout,
            allow_server_files,
            directory,
        };
        Ok(Database { shared: Opaque::new(shared) })
    }

    /// Whether the database at a place has users, without opening it.
    ///
    /// # Errors
    /// XX001 if the file of the users is damaged, 58030 if it cannot be read.
    pub fn has_users_at(location: &DatabaseLocation) -> Result<bool> {
        match location {
            DatabaseLocation::Directory(path) => Ok(!users::read_file(path)?.is_empty()),
            DatabaseLocation::Memory => Ok(false),
        }
    }

    /// A new session. Costs next to nothing.
    pub fn connect(&self) -> Session {
        Session::new(self.clone(), None)
    }

    /// A new session of a user who has logged in ([`authenticate`](Self::authenticate)), with that user's rights.
    pub fn connect_as(&self, identity: Identity) -> Session {
        Session::new(self.clone(), Some(identity))
    }

    /// Waits for running commits and seals the store. Later statements fail with 57P01.
    pub async fn close(&self) -> Result<()> {
        let store = self.shared.store.clone();
        self.shared.runtimes.run_in_background(async move { Ok(store.close().await?) }).await
    }

    /// Verifies the files of a database that nobody has open.
    pub async fn check(options: DatabaseOptions) -> Result<CheckReport> {
        let runtimes = Runtimes::start(1)?;
        let store_options = options.store_options();
        let checked = runtimes.run_in_background(async move { Ok(rustydb_storage::check(store_options).await?) });
        let mut report = checked.await?;
        if let DatabaseLocation::Directory(path) = &options.location
            && let Err(error) = users::read_file(path)
        {
            let file = users::FILE_NAME.to_owned();
            report.findings.push(Finding { file, detail: error.message().to_owned() });
        }
        Ok(report)
    }

    /// Writes the rows held in memory out to segment files, now.
    pub async fn flush(&self) -> Result<()> {
        let store = self.shared.store.clone();
        self.shared.runtimes.run_in_background(async move { Ok(store.flush().await?) }).await
    }

    /// What the store's parts take of memory.
    pub fn memory(&self) -> MemoryUsage {
        self.shared.store.memory()
    }

    /// How many transactions are waiting for a lock.
    pub fn lock_waits(&self) -> usize {
        self.shared.store.lock_waits()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    pub(crate) fn users(&self) -> &Users {
        &self.shared.users
    }

    pub(crate) fn runtimes(&self) -> &Arc<Runtimes> {
        &self.shared.runtimes
    }

    pub(crate) fn state(&self) -> &Arc<SessionState> {
        &self.shared.state
    }

    pub(crate) fn routines(&self) -> &Arc<Routines> {
        &self.shared.routines
    }

    pub(crate) fn programs(&self) -> &ProgramCache {
        &self.shared.programs
    }

    /// How well the compiled statements of the row path are kept.
    pub fn program_cache(&self) -> ProgramCacheUsage {
        self.shared.programs.usage()
    }

    pub(crate) fn plans(&self) -> &PlanCache {
        &self.shared.plans
    }

    pub(crate) fn default_config(&self) -> &SessionConfig {
        &self.shared.config
    }

    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        self.shared.statement_timeout
    }

    /// Its directory, with all links followed; `None` in memory.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.shared.directory.as_deref()
    }

    pub(crate) fn allows_server_files(&self) -> bool {
        self.shared.allow_server_files
    }
}

fn session_config(query_threads: usize) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_batch_size(BATCH_SIZE)
        .with_target_partitions(query_threads)
        .with_default_catalog_and_schema(CATALOG_NAME, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false);
    config.options_mut().execution.time_zone = Some("UTC".to_owned());
    optimizer::configure(config.options_mut());
    config
}

fn session_state(config: SessionConfig, runtime_env: Arc<RuntimeEnv>, query_bytes: usize) -> SessionState {
    let mut builder = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_runtime_env(runtime_env)
        .with_physical_optimizer_rules(optimizer::physical_rules())
        .with_analyzer_rule(Arc::new(SessionZone))
        .with_analyzer_rule(Arc::new(SqlArithmetic))
        .with_analyzer_rule(Arc::new(IntervalOrder))
        .with_analyzer_rule(Arc::new(ArrayOrder))
        .with_analyzer_rule(Arc::new(EmptyGroups))
        .with_analyzer_rule(Arc::new(SingleRow::default()))
        .with_analyzer_rule(Arc::new(NullableSubqueries::default()))
        .with_analyzer_rule(Arc::new(Membership))
        .with_analyzer_rule(Arc::new(OpaqueValues::default()))
        .with_analyzer_rule(Arc::new(ListedValues::default()))
        .with_analyzer_rule(Arc::new(Unknowns::default()))
        .with_analyzer_rule(Arc::new(CoarseTimes))
        .with_analyzer_rule(Arc::new(ComputedLimits))
        .with_analyzer_rule(Arc::new(BeforeJoins))
        .with_analyzer_rule(Arc::new(CertainDependencies))
        .with_relation_planners(vec![Arc::new(Relations)])
        .with_query_planner(Arc::new(ApplyPlanner));
    if let Some(all) = builder.scalar_functions().take() {
        *builder.scalar_functions() = Some(functions::of_sql(all, query_bytes));
    }
    let rules = &mut builder.analyzer().get_or_insert_with(Analyzer::new).rules;
    rules.splice(
        0..0,
        [
            Arc::new(SortedSets) as _,
            Arc::new(SortedSubqueries) as _,
            Arc::new(StrictTypes) as _,
            Arc::new(CertainDependencies) as _,
            Arc::new(GroupingExpressions) as _,
            Arc::new(MixedTypes) as _,
            Arc::new(IntervalWindows) as _,
            Arc::new(PeerFrames) as _,
            Arc::new(TimeUnits) as _,
            Arc::new(NullRows) as _,
            Arc::new(ValuesTypes) as _,
        ],
    );
    optimizer::logical_rules(builder.optimizer().get_or_insert_with(Optimizer::new));
    let rules = &mut builder.optimizer().get_or_insert_with(Optimizer::new).rules;
    let place =
        rules.iter().position(|rule| rule.name() == "decorrelate_lateral_join").map_or(rules.len(), |at| at + 1);
    rules.insert(place, Arc::new(AfterJoins));
    if let Some(planners) = builder.expr_planners() {
        planners.insert(0, Arc::new(IntervalPlanner));
    }
    if let Some(all) = builder.aggregate_functions().take() {
        *builder.aggregate_functions() = Some(checked_sum::checked(all));
    }
    if let Some(all) = builder.window_functions().take() {
        *builder.window_functions() = Some(functions::ranks::signed(all));
    }
    builder.build()
}

fn runtime_env(options: &DatabaseOptions, store: &Store) -> Result<Arc<RuntimeEnv>> {
    let spill = match &options.location {
        DatabaseLocation::Directory(directory) => DiskManagerMode::Directories(vec![empty_directory(directory)?]),
        DatabaseLocation::Memory => DiskManagerMode::OsTmpDirectory,
    };
    let pool = LendingPool::new(options.budget().queries, store.spare_memory());
    let pool = TrackConsumersPool::new(pool, REPORTED_CONSUMERS);
    Ok(RuntimeEnvBuilder::new()
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(spill))
        .with_memory_pool(Arc::new(pool))
        .build_arc()?)
}

/// The spill directory, without what a killed process may have left in it. The store's lock is held, so it is ours.
fn empty_directory(data: &Path) -> Result<std::path::PathBuf> {
    let path = data.join(SPILL_DIRECTORY);
    let failed = |error: &std::io::Error| Error::io(format!("cannot prepare {}", path.display()), error);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    std::fs::create_dir_all(&path).map_err(|error| failed(&error))?;
    Ok(path)
}
