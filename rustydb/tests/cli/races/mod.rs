//! Races of real connections: several clients change the same rows of one server at once, while it flushes and compacts all
//! the time. Then it is killed with SIGKILL in the middle of their work and started again, and what must hold is looked at:
//! by the clients while they work, and by the test after each restart.
//!
//! What the server acknowledged must be there; what was on its way may be. A client that does not know what became of its
//! last transaction notes nothing. Each test writes down what it was told in a ledger of its own.

mod keys;
mod money;
mod references;
mod write_skew;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use rustydb_flight::{RemoteClient, RemoteError, RemoteOptions, RemoteResult};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::{DEADLINE, Server, directory, run, run_with_input, signal};

/// Clients that work at the same time.
const CLIENTS: u64 = 4;

/// The server is killed after so many acknowledgements, once per round.
const KILLED_AFTER: [u64; 3] = [25, 90, 50];

/// So small that rows become segments all the time.
const MEMTABLE: (&str, &str) = ("RUSTYDB_MEMTABLE_SIZE", "16KiB");

/// What the clients of a round share.
struct Round {
    number: u64,
    killed_after: u64,
    acknowledged: AtomicU64,
    killed: AtomicBool,
    enough: Notify,
}

/// Why a client stopped.
#[derive(Debug)]
enum Failure {
    /// The server has been killed.
    Gone,
    Sql(RemoteError),
}

impl Failure {
    /// Whether it is an error with one of these SQLSTATEs.
    fn is(&self, states: &[&str]) -> bool {
        matches!(self, Failure::Sql(error) if states.contains(&error.sqlstate()))
    }
}

/// Errors after which a transaction is run again.
const RETRYABLE: [&str; 2] = ["40001", "40P01"];

/// A connection, and what it needs to know about the race.
struct Client {
    remote: RemoteClient,
    round: Arc<Round>,
    /// Which of the clients it is.
    number: u64,
    random: Random,
}

impl Client {
    async fn connect(url: &str, round: &Arc<Round>, number: u64) -> Client {
        let options = RemoteOptions { url: url.to_owned(), ..RemoteOptions::default() };
        let remote = RemoteClient::connect(options).await.expect("the server is ready");
        let random = Random::new(round.number * CLIENTS + number + 1);
        Client { remote, round: Arc::clone(round), number, random }
    }

    /// A number that no other client gives to anything, in no round.
    fn unique(&self, n: u64) -> u64 {
        (self.round.number * CLIENTS + self.number) * 1_000_000 + n
    }

    /// Runs a statement; the rows as text, or how many it changed.
    async fn run(&self, sql: &str) -> Result<Answer, Failure> {
        let answer = async {
            match self.remote.execute(sql).await? {
                RemoteResult::Done { rows } => Ok::<_, RemoteError>(Answer { rows: Vec::new(), changed: rows }),
                RemoteResult::Rows(stream) => {
                    let batches: Vec<RecordBatch> = stream.try_collect().await?;
                    Ok(Answer { rows: as_text(&batches), changed: 0 })
                }
            }
        };
        answer.await.map_err(|error| match self.round.killed.load(Ordering::SeqCst) {
            true => Failure::Gone,
            false => Failure::Sql(error),
        })
    }

    /// The only value of a query, as text.
    async fn value(&self, sql: &str) -> Result<String, Failure> {
        let answer = self.run(sql).await?;
        Ok(answer.rows.into_iter().flatten().next().unwrap_or_default())
    }

    /// Runs statements as one transaction, once. After an error it is rolled back.
    async fn transaction(&self, level: &str, statements: &[String]) -> Result<(), Failure> {
        self.run(&format!("BEGIN ISOLATION LEVEL {level}")).await?;
        for sql in statements {
            self.step(sql).await?;
        }
        self.step("COMMIT").await.map(drop)
    }

    /// A statement of a transaction, which is rolled back if it fails.
    async fn step(&self, sql: &str) -> Result<Answer, Failure> {
        match self.run(sql).await {
            Err(Failure::Sql(error)) => {
                // The COMMIT itself may be what failed: then nothing is open any more.
                match self.run("ROLLBACK").await {
                    Err(Failure::Sql(rollback)) if rollback.sqlstate() != "25P01" => Err(Failure::Sql(rollback)),
                    Err(Failure::Gone) => Err(Failure::Gone),
                    _ => Err(Failure::Sql(error)),
                }
            }
            result => result,
        }
    }

    /// Notes that the server has told this client of something done.
    fn acknowledged(&self) {
        let Round { acknowledged, killed_after, killed, enough, .. } = self.round.as_ref();
        if acknowledged.fetch_add(1, Ordering::SeqCst) + 1 == *killed_after {
            killed.store(true, Ordering::SeqCst);
            enough.notify_one();
        }
    }

    /// What happens in between: rows are written out to segments, and segments are merged.
    async fn keep_house(&self, n: u64) -> Result<(), Failure> {
        match (self.number, n % 10) {
            (0, 4) => self.run("CHECKPOINT").await.map(drop),
            (0, 9) => self.run("VACUUM").await.map(drop),
            _ => Ok(()),
        }
    }
}

/// What a statement gave.
struct Answer {
    rows: Vec<Vec<String>>,
    changed: u64,
}

fn as_text(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect()),
        );
    }
    rows
}

/// A small generator of pseudo-random numbers (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Lets clients do `work`, which goes on until the server is gone, kills it, starts it again and calls `verify`; all that
/// several times on the same data.
fn race<W, V>(set_up: &str, work: impl Fn(Client) -> W, verify: impl Fn(Client) -> V)
where
    W: Future<Output = Result<(), Failure>> + Send + 'static,
    V: Future<Output = Result<(), Failure>>,
{
    let directory = directory();
    run_with_input(directory.path(), &["sql", "--data", "d"], set_up).expect_status(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (number, killed_after) in (0..).zip(KILLED_AFTER) {
        let round = |killed_after| {
            Arc::new(Round {
                number,
                killed_after,
                acknowledged: AtomicU64::new(0),
                killed: AtomicBool::new(false),
                enough: Notify::new(),
            })
        };
        let server = Server::start(directory.path(), "d", &[MEMTABLE]);
        runtime.block_on(until_killed(&server, &round(killed_after), &work));
        drop(server);
        let server = Server::start(directory.path(), "d", &[MEMTABLE]);
        runtime.block_on(async {
            let client = Client::connect(&server.url, &round(u64::MAX), CLIENTS).await;
            verify(client).await.expect("the server answers");
        });
        assert_eq!(server.stop().0, Some(0));
        run(directory.path(), &["check", "--data", "d"]).expect_status(0);
    }
}

async fn until_killed<W>(server: &Server, round: &Arc<Round>, work: &impl Fn(Client) -> W)
where
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let mut working = JoinSet::new();
    for number in 0..CLIENTS {
        working.spawn(work(Client::connect(&server.url, round, number).await));
    }
    let failed = tokio::select! {
        () = round.enough.notified() => None,
        ended = working.join_next() => ended,
        () = tokio::time::sleep(DEADLINE) => panic!("the clients do not get on"),
    };
    signal(&server.child, rustix::process::Signal::KILL);
    let mut ended = failed;
    loop {
        match ended {
            None => {}
            Some(Ok(Ok(()) | Err(Failure::Gone))) => {}
            Some(Ok(Err(Failure::Sql(error)))) => panic!("a client failed: [{}] {error}", error.sqlstate()),
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        }
        ended = working.join_next().await;
        if ended.is_none() {
            return;
        }
    }
}
