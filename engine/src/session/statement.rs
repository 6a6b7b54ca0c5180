//! What a statement is to the parts of the engine that work on it: its text, its parameters, and what surrounds it.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use rustydb_storage::ReadView;

use super::settings::Settings;
use super::{LiveSettings, Shared};
use crate::ddl::temporary::TemporarySchema;
use crate::dml::foreign_key::DeferredChecks;
use crate::prepared::Prepared;
use crate::sql::context::{Environment, StatementContext};
use crate::sql::plan::ReadyPlan;
use crate::sql::text::parse::{Parsed, parse_statement};
use crate::stream::{Deadline, RecordStream};
use crate::{Database, Result, Value};

/// What the parts of the engine need to know about the statement they work on.
pub(crate) struct Statement<'a> {
    pub(crate) database: &'a Database,
    pub(crate) settings: Arc<Settings>,
    pub(crate) parameters: &'a [Value],
    pub(crate) deadline: Deadline,
    /// Foreign keys whose check waits for the end of the transaction.
    pub(crate) deferred: Arc<Mutex<DeferredChecks>>,
    session: &'a Shared,
    /// Whether the types of the parameters are those of the values, and not what the statement makes of them.
    is_typed: bool,
    now: DateTime<Utc>,
    arrived: Instant,
}

impl Statement<'_> {
    /// The same statement once more, with other values of its parameters.
    pub(super) fn with_parameters<'a>(&'a self, parameters: &'a [Value]) -> Statement<'a> {
        Statement { settings: Arc::clone(&self.settings), parameters, deferred: Arc::clone(&self.deferred), ..*self }
    }

    /// The same for a statement of a routine.
    pub(super) fn with_typed_parameters<'a>(&'a self, parameters: &'a [Value]) -> Statement<'a> {
        Statement { is_typed: true, ..self.with_parameters(parameters) }
    }

    /// What `now()` is, in microseconds since 1970.
    pub(crate) fn now_microseconds(&self) -> i64 {
        self.now.timestamp_micros()
    }

    /// The planning context of this statement against `view`.
    pub(crate) fn context(&self, view: ReadView) -> StatementContext {
        let (state, store) = (self.database.state(), self.database.store());
        let context = StatementContext::new(state, &self.settings.config, store, view, self.now, self.environment());
        match self.is_typed {
            true => context.with_parameters(self.parameters.iter().map(Value::data_type)),
            false => context,
        }
    }

    /// What planning needs to know of the session. A statement that was planned before does without.
    fn environment(&self) -> Environment {
        let session = self.session;
        Environment {
            search_path: Arc::clone(&self.settings.search_path),
            temporary: Some(Arc::clone(&session.temporary)),
            sequences: Arc::clone(&session.sequences),
            identity: session.identity.clone(),
            routines: Arc::clone(self.database.routines()),
            only_planned: false,
            settings: LiveSettings { visible: Arc::clone(&session.visible), defaults: Arc::clone(&session.defaults) },
        }
    }

    /// The schema of the session's temporary relations.
    pub(crate) fn temporary(&self) -> &TemporarySchema {
        &self.session.temporary
    }

    /// The same, if there may be any.
    pub(super) fn used_temporary(&self) -> Option<&Arc<TemporarySchema>> {
        Some(&self.session.temporary).filter(|own| own.is_used())
    }

    /// Starts a query.
    pub(crate) fn start(&self, plan: ReadyPlan) -> RecordStream {
        RecordStream::start(self.database.runtimes(), plan, self.deadline).with_planning_time(self.arrived.elapsed())
    }
}

impl Shared {
    /// What surrounds a statement that came at `arrived`, with the settings of this moment.
    pub(super) fn statement<'a>(&'a self, parameters: &'a [Value], arrived: Instant) -> Statement<'a> {
        let (settings, now) = {
            let mut visible = self.visible.lock();
            (Arc::clone(&visible.settings), visible.now())
        };
        let deadline = Deadline::after(settings.statement_timeout);
        let deferred = Arc::clone(&self.deferred);
        Statement {
            database: &self.database,
            settings,
            parameters,
            deadline,
            deferred,
            session: self,
            is_typed: false,
            now,
            arrived,
        }
    }
}

/// A statement as it came.
pub(crate) enum Text<'a> {
    Unparsed(&'a str),
    Prepared(&'a Prepared),
}

impl Text<'_> {
    pub(super) fn sql(&self) -> &str {
        match self {
            Text::Unparsed(sql) => sql,
            Text::Prepared(prepared) => prepared.sql(),
        }
    }

    pub(super) fn parse(&self) -> Result<Parsed> {
        match self {
            Text::Unparsed(sql) => parse_statement(sql),
            Text::Prepared(prepared) => Ok(prepared.parsed()),
        }
    }
}
