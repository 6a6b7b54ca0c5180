//! Random concurrent histories, recorded and checked.
//!
//! Several sessions append unique numbers to lists and read lists, in random transactions, while the database flushes,
//! compacts and is restarted in between. Since a list shows all of its past, the order of versions is known from the reads, and with
//! it the dependencies of transactions (Kingsbury and Alvaro, "Elle", 2020):
//!
//! ```text
//!   A ──ww──▶ B   B appended right after A        A ──rw──▶ B   A read the list without B's number
//!   A ──wr──▶ B   B read up to A's number         A ──so──▶ B   B came after A in the same session
//! ```
//! What must hold of the committed transactions (Adya 1999; Cerone and Gotsman 2018):
//! * every level: reads of a list are prefixes of one another; every committed number is in the end there once; nothing
//!   rolled back or unfinished is ever read (G1a, G1b); ww, wr and so make no circle (G0, G1c);
//! * REPEATABLE READ: no circle in (ww ∪ wr ∪ so) followed by at most one rw, which is snapshot isolation;
//! * SERIALIZABLE: no circle at all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustydb_engine::{Database, DatabaseOptions, Error, Session, StatementResult};

use crate::connection::rows_as_text;

const LISTS: u64 = 4;
const SESSIONS: u64 = 4;
const TRANSACTIONS: u64 = 12;

/// A level, with what its histories are checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// READ COMMITTED
    ReadCommitted,
    /// REPEATABLE READ
    Snapshot,
    /// SERIALIZABLE
    Serializable,
}

impl Promise {
    /// All of them.
    pub const ALL: [Promise; 3] = [Promise::ReadCommitted, Promise::Snapshot, Promise::Serializable];

    /// The level's name in SQL.
    pub fn level(self) -> &'static str {
        match self {
            Promise::ReadCommitted => "READ COMMITTED",
            Promise::Snapshot => "REPEATABLE READ",
            Promise::Serializable => "SERIALIZABLE",
        }
    }
}

/// What one transaction did.
#[derive(Clone, Debug)]
struct Past {
    session: u64,
    committed: bool,
    /// In order: a list and the number appended to it.
    appends: Vec<(u64, u64)>,
    /// A list, what it had, and how many appends of its own came before.
    reads: Vec<(u64, Vec<u64>)>,
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

/// Records one history and checks it.
pub async fn check_history(promise: Promise, seed: u64) -> Result<(), String> {
    let described = |error: String| format!("seed {seed}: {error}");
    let directory = tempfile::tempdir().map_err(|error| described(error.to_string()))?;
    let options =
        || DatabaseOptions { query_threads: Some(2), ..DatabaseOptions::directory(directory.path().join("data")) };
    let failed = |error: Error| described(format!("{error:?}"));
    let mut database = Database::open(options()).await.map_err(failed)?;
    let session = database.connect();
    session.execute("CREATE TABLE lists (k int PRIMARY KEY, list text NOT NULL)", &[]).await.map_err(failed)?;
    let fill = format!("INSERT INTO lists SELECT n, '' FROM generate_series(0, {}) s(n)", LISTS - 1);
    session.execute(&fill, &[]).await.map_err(failed)?;
    let (numbers, mut history) = (Arc::new(AtomicU64::new(1)), Vec::new());
    for phase in 0..2 {
        if phase > 0 {
            database.close().await.map_err(failed)?;
            database = Database::open(options()).await.map_err(failed)?;
        }
        history.extend(record(&database, promise, seed * 2 + phase, &numbers).await.map_err(described)?);
    }
    let session = database.connect();
    let last = transact(&session, "REPEATABLE READ", &mut vec![Operation::ReadAll], &numbers, SESSIONS).await;
    history.push(last.map_err(described)?);
    database.close().await.map_err(failed)?;
    check(promise, &history).map_err(|error| described(format!("{error}\n{history:#?}")))
}

/// Runs random transactions in several sessions at once.
async fn record(
    database: &Database,
    promise: Promise,
    seed: u64,
    numbers: &Arc<AtomicU64>,
) -> Result<Vec<Past>, String> {
    let tasks: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let (session, numbers) = (database.connect(), Arc::clone(numbers));
            tokio::spawn(async move {
                let mut random = Random::new(seed * SESSIONS + number + 1);
                let mut history = Vec::new();
                for _ in 0..TRANSACTIONS {
                    let mut operations = (0..=random.below(4)).map(|_| Operation::random(&mut random)).collect();
                    history.push(transact(&session, promise.level(), &mut operations, &numbers, number).await?);
                    if random.below(12) == 0 {
                        // Rows move to segments, and between segments, under the transactions of the others.
                        let moves = if random.below(2) == 0 { "CHECKPOINT" } else { "VACUUM" };
                        run(&session, moves).await.map_err(|error| format!("{moves}: {error:?}"))?;
                    }
                }
                Ok::<_, String>(history)
            })
        })
        .collect();
    let mut history = Vec::new();
    for task in tasks {
        history.extend(task.await.map_err(|error| error.to_string())??);
    }
    Ok(history)
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Append(u64),
    Read(u64),
    ReadForUpdate(u64),
    ReadAll,
    /// Append inside a savepoint that is rolled back.
    TryAppend(u64),
}

impl Operation {
    fn random(random: &mut Random) -> Self {
        let list = random.below(LISTS);
        match random.below(10) {
            0..=3 => Operation::Append(list),
            4..=6 => Operation::Read(list),
            7 => Operation::ReadForUpdate(list),
            8 => Operation::ReadAll,
            _ => Operation::TryAppend(list),
        }
    }
}

/// Runs one transaction. Failures that a concurrent transaction may cause end it; others are bugs.
async fn transact(
    session: &Session,
    level: &str,
    operations: &mut Vec<Operation>,
    numbers: &AtomicU64,
    number: u64,
) -> Result<Past, String> {
    let mut past = Past { session: number, committed: false, appends: Vec::new(), reads: Vec::new() };
    let work = async {
        run(session, &format!("BEGIN ISOLATION LEVEL {level}")).await?;
        for operation in operations.drain(..) {
            match operation {
                Operation::Append(list) => past.appends.push((list, append(session, list, numbers).await?)),
                Operation::TryAppend(list) => {
                    run(session, "SAVEPOINT s").await?;
                    append(session, list, numbers).await?;
                    run(session, "ROLLBACK TO s").await?;
                }
                Operation::Read(list) => past.reads.extend(read(session, &format!("WHERE k = {list}")).await?),
                Operation::ReadForUpdate(list) => {
                    past.reads.extend(read(session, &format!("WHERE k = {list} FOR UPDATE")).await?);
                }
                Operation::ReadAll => past.reads.extend(read(session, "").await?),
            }
        }
        run(session, "COMMIT").await
    };
    match work.await {
        Ok(_) => past.committed = true,
        Err(error) if ["40001", "40P01"].contains(&error.sqlstate()) => {
            if session.in_transaction() {
                run(session, "ROLLBACK").await.map_err(|error| format!("{error:?}"))?;
            }
        }
        Err(error) => return Err(format!("{error:?}")),
    }
    Ok(past)
}

async fn append(session: &Session, list: u64, numbers: &AtomicU64) -> Result<u64, Error> {
    let number = numbers.fetch_add(1, Ordering::Relaxed);
    run(session, &format!("UPDATE lists SET list = list || ' {number}' WHERE k = {list}")).await?;
    Ok(number)
}

async fn read(session: &Session, which: &str) -> Result<Vec<(u64, Vec<u64>)>, Error> {
    let rows = run(session, &format!("SELECT k, list FROM lists {which}")).await?;
    let numbers = |text: &str| text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    Ok(rows.iter().map(|row| (row[0].parse().unwrap_or(u64::MAX), numbers(&row[1]))).collect())
}

async fn run(session: &Session, sql: &str) -> Result<Vec<Vec<String>>, Error> {
    match session.execute(sql, &[]).await? {
        StatementResult::Done(_) => Ok(Vec::new()),
        StatementResult::Rows(rows) => Ok(rows_as_text(&rows.collect().await?).unwrap_or_default()),
    }
}

/// Who depends on whom: `edges[a][b]`.
type Edges = Vec<Vec<bool>>;

fn check(promise: Promise, history: &[Past]) -> Result<(), String> {
    let size = history.len();
    let mut writers: HashMap<u64, usize> = HashMap::new();
    let mut finals: HashMap<(usize, u64), u64> = HashMap::new();
    for (at, past) in history.iter().enumerate() {
        for (list, number) in &past.appends {
            writers.insert(*number, at);
            finals.insert((at, *list), *number);
        }
    }
    // The last transaction has read all lists.
    let order: HashMap<u64, Vec<u64>> =
        history.last().map(|last| last.reads.iter().cloned().collect()).unwrap_or_default();
    for past in history.iter().filter(|past| past.committed) {
        for (list, number) in &past.appends {
            let times = order.get(list).map_or(0, |numbers| numbers.iter().filter(|other| *other == number).count());
            if times != 1 {
                return Err(format!("{number} was appended to list {list} and is there {times} times"));
            }
        }
    }
    let (mut depends, mut anti): (Edges, Edges) = (vec![vec![false; size]; size], vec![vec![false; size]; size]);
    let add = |edges: &mut Edges, from: usize, to: usize| edges[from][to] |= from != to;
    for numbers in order.values() {
        for pair in numbers.windows(2) {
            if let (Some(from), Some(to)) = (writers.get(&pair[0]), writers.get(&pair[1])) {
                add(&mut depends, *from, *to);
            }
        }
    }
    for (at, past) in history.iter().enumerate().filter(|(_, past)| past.committed) {
        for (list, numbers) in &past.reads {
            let all = order.get(list).ok_or_else(|| format!("list {list} was read and does not exist"))?;
            // Own appends are in the order of all lists, too, unless they were rolled back, and then so was the reader.
            if !all.starts_with(numbers) {
                return Err(format!("list {list} was read as {numbers:?} and is {all:?} in the end"));
            }
            let seen: HashSet<u64> = numbers.iter().copied().collect();
            for number in numbers {
                let writer =
                    *writers.get(number).ok_or_else(|| format!("{number} came from a rolled back savepoint"))?;
                if writer != at && !history[writer].committed {
                    return Err(format!("{number} was read and rolled back (G1a)"));
                }
                if writer != at && !seen.contains(&finals[&(writer, *list)]) {
                    return Err(format!("{number} was read without its transaction's last (G1b)"));
                }
            }
            if let Some(writer) =
                numbers.iter().rev().filter_map(|number| writers.get(number)).find(|writer| **writer != at)
            {
                add(&mut depends, *writer, at);
            }
            let next =
                all[numbers.len()..].iter().filter_map(|number| writers.get(number)).find(|writer| **writer != at);
            if let Some(writer) = next {
                add(&mut anti, at, *writer);
            }
        }
    }
    for (at, past) in history.iter().enumerate().filter(|(_, past)| past.committed) {
        let later = history.iter().enumerate().skip(at + 1);
        if let Some((next, _)) = { later }.find(|(_, other)| other.committed && other.session == past.session) {
            add(&mut depends, at, next);
        }
    }
    let relation = match promise {
        Promise::ReadCommitted => depends,
        Promise::Snapshot => {
            let mut relation = depends.clone();
            for from in 0..size {
                for middle in (0..size).filter(|middle| depends[from][*middle]) {
                    for to in 0..size {
                        relation[from][to] |= anti[middle][to];
                    }
                }
            }
            relation
        }
        Promise::Serializable => {
            let mut relation = depends;
            for (row, anti) in relation.iter_mut().zip(&anti) {
                row.iter_mut().zip(anti).for_each(|(edge, anti)| *edge |= *anti);
            }
            relation
        }
    };
    match circle(&relation) {
        Some(at) => Err(format!("{promise:?}: transaction {at} is part of a circle")),
        None => Ok(()),
    }
}

/// Somebody who depends on itself (Warshall's closure).
fn circle(edges: &Edges) -> Option<usize> {
    let mut reaches = edges.clone();
    for middle in 0..reaches.len() {
        let through = reaches[middle].clone();
        for row in &mut reaches {
            if row[middle] {
                row.iter_mut().zip(&through).for_each(|(edge, through)| *edge |= *through);
            }
        }
    }
    (0..reaches.len()).find(|at| reaches[*at][*at])
}

/// The checker itself, on histories whose faults are known.
pub fn check_the_checker() -> Result<(), String> {
    let past = |session, appends: &[(u64, u64)], reads: &[(u64, &[u64])]| Past {
        session,
        committed: true,
        appends: appends.to_vec(),
        reads: reads.iter().map(|(list, numbers)| (*list, numbers.to_vec())).collect(),
    };
    let end = |lists: &[(u64, &[u64])]| past(9, &[], lists);
    let rolled_back = Past { committed: false, ..past(0, &[(0, 1)], &[]) };
    let skew = [
        past(0, &[(0, 1)], &[(0, &[]), (1, &[])]),
        past(1, &[(1, 2)], &[(0, &[]), (1, &[])]),
        end(&[(0, &[1]), (1, &[2])]),
    ];
    let skewed_read =
        [past(0, &[(0, 1), (1, 2)], &[]), past(1, &[], &[(0, &[]), (1, &[2])]), end(&[(0, &[1]), (1, &[2])])];
    let circular = [past(0, &[(0, 1)], &[(1, &[2])]), past(1, &[(1, 2)], &[(0, &[1])]), end(&[(0, &[1]), (1, &[2])])];
    let lost = [past(0, &[(0, 1)], &[]), past(1, &[(0, 2)], &[]), end(&[(0, &[2])])];
    let dirty = [rolled_back, past(1, &[(0, 2)], &[(0, &[1])]), end(&[(0, &[1, 2])])];
    let half = [past(0, &[(0, 1), (0, 2)], &[]), past(1, &[], &[(0, &[1])]), end(&[(0, &[1, 2])])];
    let backwards = [past(0, &[(0, 1)], &[]), past(1, &[], &[(0, &[1])]), past(1, &[], &[(0, &[])]), end(&[(0, &[1])])];
    let cases: [(&str, &[Past], [bool; 3]); 7] = [
        ("write skew", &skew, [true, true, false]),
        ("read skew", &skewed_read, [true, false, false]),
        ("circular information flow", &circular, [false; 3]),
        ("lost update", &lost, [false; 3]),
        ("dirty read", &dirty, [false; 3]),
        ("intermediate read", &half, [false; 3]),
        ("a session that goes back in time", &backwards, [true, false, false]),
    ];
    for (name, history, expected) in cases {
        for (promise, expected) in Promise::ALL.into_iter().zip(expected) {
            let result = check(promise, history);
            if result.is_ok() != expected {
                return Err(format!("{name} at {promise:?}: {result:?}"));
            }
        }
    }
    Ok(())
}

/// Transfers between accounts in several sessions at once, while others add them up: the sum never changes.
pub async fn check_transfers(promise: Promise, seed: u64) -> Result<(), String> {
    let failed = |error: Error| format!("seed {seed}: {error:?}");
    let options =
        DatabaseOptions { query_threads: Some(2), memtable_bytes: Some(16 * 1024), ..DatabaseOptions::memory() };
    let database = Database::open(options).await.map_err(failed)?;
    let session = database.connect();
    run(&session, "CREATE TABLE accounts (id int PRIMARY KEY, balance int)").await.map_err(failed)?;
    run(&session, "INSERT INTO accounts SELECT n, 100 FROM generate_series(0, 5) s(n)").await.map_err(failed)?;
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let session = database.connect();
            tokio::spawn(async move {
                let mut random = Random::new(seed * 4 + number);
                for _ in 0..10 {
                    let (from, to) = (random.below(6), random.below(6));
                    match transfer(&session, promise, (from, to), random.below(50)).await {
                        Ok(()) => {}
                        Err(error) if error.is_retryable() => drop(run(&session, "ROLLBACK").await),
                        Err(error) => return Err(error),
                    }
                    let sum = run(&session, "SELECT sum(balance) FROM accounts").await?;
                    assert_eq!(sum, [["600"]], "seed {seed}");
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|error| error.to_string())?.map_err(failed)?;
    }
    database.close().await.map_err(failed)
}

async fn transfer(session: &Session, promise: Promise, (from, to): (u64, u64), amount: u64) -> Result<(), Error> {
    run(session, &format!("BEGIN ISOLATION LEVEL {}", promise.level())).await?;
    // The balance is computed by the client: at READ COMMITTED it has to be locked, at the others it need not be.
    let lock = if promise == Promise::ReadCommitted { "FOR UPDATE" } else { "" };
    for (id, change) in [(from, -(amount as i64)), (to, amount as i64)] {
        let rows = run(session, &format!("SELECT balance FROM accounts WHERE id = {id} {lock}")).await?;
        let balance = rows.first().and_then(|row| row[0].parse::<i64>().ok()).unwrap_or_default() + change;
        run(session, &format!("UPDATE accounts SET balance = {balance} WHERE id = {id}")).await?;
    }
    run(session, "COMMIT").await.map(drop)
}

/// Parents come and go while others refer to them: in the end no child is without its parent, and of all that wanted the
/// same unique number one has it.
pub async fn check_references(promise: Promise, seed: u64) -> Result<(), String> {
    let failed = |error: Error| format!("seed {seed}: {error:?}");
    let options =
        DatabaseOptions { query_threads: Some(2), memtable_bytes: Some(16 * 1024), ..DatabaseOptions::memory() };
    let database = Database::open(options).await.map_err(failed)?;
    let session = database.connect();
    run(&session, "CREATE TABLE parent (id int PRIMARY KEY)").await.map_err(failed)?;
    run(&session, "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)").await.map_err(failed)?;
    run(&session, "INSERT INTO parent SELECT n FROM generate_series(0, 3) s(n)").await.map_err(failed)?;
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let session = database.connect();
            tokio::spawn(async move {
                let mut random = Random::new(seed * 4 + number);
                let mut inserted = Vec::new();
                for _ in 0..15 {
                    let (parent, child) = (random.below(4), random.below(20));
                    let sql = match random.below(4) {
                        0 => format!("DELETE FROM parent WHERE id = {parent}"),
                        1 => format!("INSERT INTO parent VALUES ({parent})"),
                        2 => format!("INSERT INTO child VALUES ({child}, {parent})"),
                        _ => format!("UPDATE child SET parent = {parent} WHERE id = {child}"),
                    };
                    run(&session, &format!("BEGIN ISOLATION LEVEL {}", promise.level())).await?;
                    let mut result = run(&session, &sql).await;
                    if result.is_ok() {
                        result = run(&session, "COMMIT").await;
                    }
                    match result {
                        Ok(_) if sql.starts_with("INSERT INTO child") => inserted.push(child),
                        Ok(_) => {}
                        Err(error) if ["23503", "23505", "40001", "40P01"].contains(&error.sqlstate()) => {}
                        Err(error) => return Err(error),
                    }
                    if session.in_transaction() {
                        run(&session, "ROLLBACK").await?;
                    }
                }
                Ok(inserted)
            })
        })
        .collect();
    let mut inserted = Vec::new();
    for task in tasks {
        inserted.extend(task.await.map_err(|error| error.to_string())?.map_err(failed)?);
    }
    let orphans = "SELECT c.id FROM child c LEFT JOIN parent p ON p.id = c.parent WHERE p.id IS NULL";
    let orphans = run(&session, orphans).await.map_err(failed)?;
    let children = run(&session, "SELECT id FROM child ORDER BY id").await.map_err(failed)?;
    inserted.sort_unstable();
    let children: Vec<u64> = children.iter().filter_map(|row| row[0].parse().ok()).collect();
    database.close().await.map_err(failed)?;
    match orphans.is_empty() && children == inserted {
        true => Ok(()),
        false => {
            Err(format!("seed {seed}: without parents: {orphans:?}; there: {children:?}, committed: {inserted:?}"))
        }
    }
}
