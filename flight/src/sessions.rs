//! Where a statement runs.
//!
//! | the call has | it runs in | which ends |
//! |---|---|---|
//! | a transaction id | the session made by BeginTransaction | with EndTransaction, or its idle time |
//! | a session token | the session of that token, so SQL `BEGIN` and `SET` last | with CloseSession, or its idle time |
//! | neither | a session of its own, in autocommit | with the call, or with the prepared statement |
//!
//! A [`Home`] is what tickets and prepared statements remember; it keeps nothing alive that can expire. Entering it
//! gives a [`Scope`], which does, for as long as the statement and its result stream last.
//!
//! A transaction begins in the engine with its first statement, not with BeginTransaction: ADBC keeps one open all the
//! time when autocommit is off, and an idle connection must neither hold a snapshot nor, when it is used at last, see a
//! database as old as itself. The settings of the token's session are taken over at that moment, too: ADBC begins a
//! transaction when it connects, before it sets any option.
//!
//! One that SQL has begun in a token's session has the idle time of transactions too: it is rolled back after that, as
//! `idle_in_transaction_session_timeout` does it, and the session stays.
//!
//! Invariants: no statement runs in a transaction that has ended. A statement whose effect would end with the call is refused rather than silently forgotten: SQL `BEGIN`
//! or `SET` without a session to keep it is an error that says how to get one.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use rustydb_engine::{Catalog, Completion, Database, Session, TransactionStatus};
use tokio::sync::{RwLock, RwLockReadGuard};
use tonic::Status;

use crate::auth::{Caller, Principal};
use crate::handles::{Handle, HandleTable, Lease, SAVEPOINT, SESSION, TRANSACTION};
use crate::options::Limits;
use crate::status::{from_engine, refuse};

/// The sessions clients hold by token, and those behind transaction ids.
pub(crate) struct Sessions {
    database: Database,
    by_token: HandleTable<Session>,
    transactions: HandleTable<OpenTransaction>,
    savepoints: HandleTable<Savepoint>,
    /// How long a transaction may be unused.
    transaction_idle: Duration,
}

/// A savepoint of a transaction.
pub(crate) struct Savepoint {
    transaction: Handle,
    /// Its name in the engine.
    name: String,
}

/// A session whose only purpose is one transaction.
pub(crate) struct OpenTransaction {
    session: Session,
    /// The connection it was begun on.
    peer: Option<SocketAddr>,
    /// The session of the token it was begun with: a proxy has one connection for many clients.
    token: Option<Handle>,
    /// Read by statements while they are executed, written by what begins and ends the transaction.
    phase: RwLock<Phase>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No statement yet.
    Waiting,
    Begun,
    Over,
}

/// Where a statement belongs, remembered without holding on to it.
#[derive(Clone)]
pub(crate) enum Home {
    Token(Handle),
    Transaction(Handle),
    Own(Arc<Session>),
}

/// A session in use.
#[derive(Clone)]
pub(crate) enum Scope {
    Token(Lease<Session>),
    Transaction(Handle, Lease<OpenTransaction>),
    Own(Arc<Session>),
}

/// The session of a scope for one call of the engine. A transaction does not end meanwhile.
pub(crate) struct Turn<'a> {
    session: &'a Session,
    _phase: Option<RwLockReadGuard<'a, Phase>>,
}

impl Deref for Turn<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

/// A session that is looked at, and in which no statement is executed.
pub(crate) enum Looking {
    Token(Lease<Session>),
    Transaction(Lease<OpenTransaction>),
    Own(Session),
}

impl Deref for Looking {
    type Target = Session;

    fn deref(&self) -> &Session {
        match self {
            Self::Token(session) => session,
            Self::Transaction(transaction) => &transaction.session,
            Self::Own(session) => session,
        }
    }
}

impl Scope {
    /// Takes the session for one call. Results may be read after the turn is over.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, Status> {
        match self {
            Self::Token(session) => Ok(Turn { session, _phase: None }),
            Self::Own(session) => Ok(Turn { session, _phase: None }),
            Self::Transaction(_, transaction) => transaction.turn().await,
        }
    }
}

impl OpenTransaction {
    /// Whether a call comes from where it was begun.
    fn is_of(&self, caller: &Caller) -> bool {
        caller.peer.is_some() && self.peer == caller.peer && self.token == caller.session
    }

    async fn turn(&self) -> Result<Turn<'_>, Status> {
        loop {
            let phase = self.phase.read().await;
            match *phase {
                Phase::Begun => return Ok(Turn { session: &self.session, _phase: Some(phase) }),
                Phase::Over => {
                    let hint = "begin a new transaction and repeat its statements";
                    return Err(refuse("25P01", "the transaction has ended").hint(hint).into());
                }
                Phase::Waiting => drop(phase),
            }
            let mut phase = self.phase.write().await;
            if *phase == Phase::Waiting {
                self.session.take_over_settings();
                self.session.execute("BEGIN", &[]).await.map_err(|error| from_engine(&error))?;
                *phase = Phase::Begun;
            }
        }
    }

    /// Ends the transaction when no statement is being executed in it. Committing one that failed is an error.
    pub(crate) async fn end(&self, commit: bool) -> Result<(), Status> {
        let mut phase = self.phase.write().await;
        if std::mem::replace(&mut *phase, Phase::Over) != Phase::Begun {
            return Ok(());
        }
        let had_failed = self.session.transaction_status() == TransactionStatus::Failed;
        let statement = if commit && !had_failed { "COMMIT" } else { "ROLLBACK" };
        self.session.execute(statement, &[]).await.map_err(|error| from_engine(&error))?;
        match (commit, had_failed) {
            (true, true) => Err(rolled_back()),
            (true, false) => {
                self.session.hand_back_settings();
                Ok(())
            }
            (false, _) => Ok(()),
        }
    }
}

impl Sessions {
    pub(crate) fn new(database: Database, limits: &Limits) -> Self {
        Self {
            database,
            by_token: HandleTable::new(&SESSION, limits.sessions, limits.session_idle)
                .with_lifetime(limits.session_lifetime),
            transactions: HandleTable::new(&TRANSACTION, limits.transactions, limits.transaction_idle),
            savepoints: HandleTable::new(&SAVEPOINT, limits.savepoints, limits.transaction_idle),
            transaction_idle: limits.transaction_idle,
        }
    }

    /// A session with the rights of whoever calls.
    fn connect(&self, principal: &Principal) -> Session {
        match principal {
            Principal::User(identity) => self.database.connect_as(identity.clone()),
            Principal::Anyone | Principal::Token(_) => self.database.connect(),
        }
    }

    /// A new session for whoever logged in.
    pub(crate) fn log_in(&self, principal: &Principal) -> Result<Handle, Status> {
        self.by_token.insert(principal, self.connect(principal))
    }

    /// Ends a session. Statements that run in it go on; nothing new can.
    pub(crate) fn log_out(&self, principal: &Principal, session: Handle) {
        drop(self.by_token.take(principal, session));
    }

    /// Who logged in as this session.
    pub(crate) fn principal(&self, session: Handle) -> Result<Principal, Status> {
        self.by_token.owner(session).ok_or_else(|| {
            refuse("28000", "the session has expired or never existed").hint("log in again (Handshake)").into()
        })
    }

    /// The session of the caller's token; `None` if the call stands alone.
    pub(crate) fn of_token(&self, caller: &Caller) -> Result<Option<Scope>, Status> {
        let session = caller.session.map(|session| self.by_token.get(&caller.principal, session)).transpose()?;
        Ok(session.map(Scope::Token))
    }

    /// Where a call belongs.
    pub(crate) fn home(&self, caller: &Caller, transaction_id: Option<&[u8]>) -> Result<Home, Status> {
        match transaction_id {
            // Some clients write "no transaction" as an empty id.
            Some(id) if !id.is_empty() => Ok(Home::Transaction(self.transactions.parse(id)?)),
            _ => Ok(match caller.session {
                Some(session) => Home::Token(session),
                None => Home::Own(Arc::new(self.connect(&caller.principal))),
            }),
        }
    }

    /// Where a prepared statement runs now. If the transaction it was prepared in is over, that is the one the same
    /// connection has open instead: ADBC keeps a statement's handle as long as a cursor executes the same text, over
    /// commits and rollbacks, each of which begins the next transaction at once.
    pub(crate) fn home_now(&self, caller: &Caller, home: &Home) -> Result<Home, Status> {
        let Home::Transaction(handle) = home else { return Ok(home.clone()) };
        if self.transactions.get(&caller.principal, *handle).is_ok() {
            return Ok(home.clone());
        }
        match self.transactions.only(&caller.principal, |open| open.is_of(caller)) {
            Some(next) => Ok(Home::Transaction(next)),
            None => Err(refuse("25P01", "the transaction in which the statement was prepared has ended")
                .hint("prepare it again (in Python: use a new cursor)")
                .into()),
        }
    }

    /// Where a bulk ingest belongs. ADBC's driver sends its transaction's id with everything but ingests; its connection
    /// has either one transaction open, which is then meant, or none, in autocommit.
    pub(crate) fn enter_ingest(&self, caller: &Caller, transaction_id: Option<&[u8]>) -> Result<(Home, Scope), Status> {
        let says_none = transaction_id.is_none_or(<[u8]>::is_empty);
        if let Some(open) = self.unnamed_transaction(caller).filter(|_| says_none) {
            let home = Home::Transaction(open);
            let scope = self.enter(&caller.principal, &home)?;
            return Ok((home, scope));
        }
        self.enter_call(caller, transaction_id)
    }

    /// The transaction that a call of ADBC's driver means although it does not say so: the only one of its login on its
    /// connection.
    fn unnamed_transaction(&self, caller: &Caller) -> Option<Handle> {
        if !caller.is_adbc {
            return None;
        }
        self.transactions.only(&caller.principal, |open| open.is_of(caller))
    }

    /// Takes the session of a home into use.
    pub(crate) fn enter(&self, principal: &Principal, home: &Home) -> Result<Scope, Status> {
        Ok(match home {
            Home::Token(handle) => Scope::Token(self.by_token.get(principal, *handle)?),
            Home::Transaction(handle) => Scope::Transaction(*handle, self.transactions.get(principal, *handle)?),
            Home::Own(session) => Scope::Own(Arc::clone(session)),
        })
    }

    /// The home and the scope of a call in one step.
    pub(crate) fn enter_call(&self, caller: &Caller, transaction_id: Option<&[u8]>) -> Result<(Home, Scope), Status> {
        let home = self.home(caller, transaction_id)?;
        let scope = self.enter(&caller.principal, &home)?;
        Ok((home, scope))
    }

    /// To be called when a statement without result set is done: looks after what it did to its session.
    pub(crate) async fn after(
        &self,
        principal: &Principal,
        scope: &Scope,
        completion: &Completion,
    ) -> Result<(), Status> {
        match scope {
            Scope::Token(_) => Ok(()),
            Scope::Transaction(handle, transaction) => {
                if completion.tag == "COMMIT" {
                    transaction.session.hand_back_settings();
                }
                if !transaction.session.in_transaction() {
                    // SQL COMMIT or ROLLBACK: from here on the id would mean autocommit, which nobody asked for.
                    drop(self.transactions.take(principal, *handle));
                }
                Ok(())
            }
            Scope::Own(session) => {
                if session.in_transaction() {
                    session.execute("ROLLBACK", &[]).await.map_err(|error| from_engine(&error))?;
                    return Err(without_session("BEGIN", "use the BeginTransaction action (autocommit off)"));
                }
                if completion.tag.starts_with("CREATE ") && session.has_temporary_relations() {
                    return Err(without_session("a temporary relation", "make and use it inside a transaction"));
                }
                match completion.tag.as_str() {
                    tag @ ("SET" | "RESET") => Err(without_session(tag, "run it inside a transaction")),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Opens a transaction with a session of its own, beside that of the caller's token: temporary tables are the same, and
    /// so are settings, which it takes over with its first statement and hands back when it is committed.
    pub(crate) fn begin(&self, caller: &Caller) -> Result<Handle, Status> {
        let session = match caller.session {
            Some(session) => self.by_token.get(&caller.principal, session)?.beside(),
            None => self.connect(&caller.principal),
        };
        let phase = RwLock::new(Phase::Waiting);
        let transaction = OpenTransaction { session, peer: caller.peer, token: caller.session, phase };
        self.transactions.insert(&caller.principal, transaction)
    }

    /// Reads a transaction id and ends its being known: whoever takes it must end the transaction.
    pub(crate) fn take_transaction(&self, principal: &Principal, id: &[u8]) -> Result<Lease<OpenTransaction>, Status> {
        self.transactions.take(principal, self.transactions.parse(id)?)
    }

    /// Sets a savepoint in the transaction with that id.
    pub(crate) async fn begin_savepoint(&self, principal: &Principal, transaction: &[u8]) -> Result<Handle, Status> {
        let transaction = self.transactions.parse(transaction)?;
        let open = self.transactions.get(principal, transaction)?;
        let handle = Handle::random();
        let name = handle.to_text();
        let turn = open.turn().await?;
        turn.execute(&format!("SAVEPOINT \"{name}\""), &[]).await.map_err(|error| from_engine(&error))?;
        self.savepoints.insert_as(principal, handle, Savepoint { transaction, name })
    }

    /// Releases a savepoint, or rolls back to it, in which case it stays.
    pub(crate) async fn end_savepoint(&self, principal: &Principal, id: &[u8], roll_back: bool) -> Result<(), Status> {
        let handle = self.savepoints.parse(id)?;
        let savepoint = self.savepoints.get(principal, handle)?;
        // Gone with its transaction: then it is the savepoint that does not exist.
        let open = self.transactions.get(principal, savepoint.transaction).map_err(|_| self.savepoints.unknown())?;
        let turn = open.turn().await?;
        let sql = match roll_back {
            true => format!("ROLLBACK TO SAVEPOINT \"{}\"", savepoint.name),
            false => format!("RELEASE SAVEPOINT \"{}\"", savepoint.name),
        };
        turn.execute(&sql, &[]).await.map_err(|error| from_engine(&error))?;
        if !roll_back {
            drop(self.savepoints.take(principal, handle));
        }
        Ok(())
    }

    /// A session that nothing has happened in.
    pub(crate) fn outside(&self) -> Session {
        self.database.connect()
    }

    /// The session through which a call without transaction id looks at the database: it neither begins nor fails the
    /// transaction that may be open there.
    pub(crate) fn looking(&self, caller: &Caller) -> Result<Looking, Status> {
        if let Some(open) = self.unnamed_transaction(caller)
            && let Ok(open) = self.transactions.get(&caller.principal, open)
        {
            return Ok(Looking::Transaction(open));
        }
        Ok(match caller.session {
            Some(session) => Looking::Token(self.by_token.get(&caller.principal, session)?),
            None => Looking::Own(self.connect(&caller.principal)),
        })
    }

    /// The tables as such a call sees them.
    pub(crate) fn catalog(&self, caller: &Caller) -> Result<Arc<Catalog>, Status> {
        Ok(self.looking(caller)?.catalog())
    }

    /// The transaction of a call without transaction id, if statements have been executed in it.
    pub(crate) fn begun_without_id(&self, caller: &Caller) -> Option<Looking> {
        let open = self.transactions.get(&caller.principal, self.unnamed_transaction(caller)?).ok()?;
        open.session.in_transaction().then(|| Looking::Transaction(open))
    }

    /// Forgets what has been idle for too long; open transactions are rolled back.
    pub(crate) fn sweep(&self) {
        self.by_token.sweep();
        self.by_token.each_idle(self.transaction_idle, Session::expire_transaction);
        self.transactions.sweep();
        self.savepoints.sweep();
    }

    /// Forgets everything, at shutdown.
    pub(crate) fn clear(&self) {
        self.by_token.clear();
        self.transactions.clear();
        self.savepoints.clear();
    }
}

/// The answer to a commit that found a failed transaction.
pub(crate) fn rolled_back() -> Status {
    refuse("25P02", "an earlier statement failed, so the transaction was rolled back")
        .hint("repeat the transaction from its beginning")
        .into()
}

pub(crate) fn without_session(statement: &str, alternative: &str) -> Status {
    refuse("0A000", format!("{statement} has no effect here: this call has no session that would outlast it"))
        .hint(format!(
            "connect with a user name and password (any, when authentication is off) to get a session, or {alternative}"
        ))
        .into()
}
