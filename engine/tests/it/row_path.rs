//! The row path against the ordinary path: the same statements with the same parameters go to two databases, of which one
//! has `row_path` off. Answers, counts, SQLSTATEs and in the end all rows must be the same.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rustydb_engine::{Session, StatementResult, TransactionStatus, Value};

use crate::helpers::*;

/// A small generator: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // Splitmix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// A small integer of some width, sometimes NULL or at the edge.
    fn int(&mut self) -> Value {
        let value = match self.below(20) {
            0 => return if self.below(2) == 0 { Value::Int32(None) } else { Value::Int64(None) },
            1 => i64::from(*self.pick(&[i32::MAX, i32::MIN, -1, 0])),
            _ => self.below(12) as i64,
        };
        match self.below(4) {
            0 => Value::Int32(Some(value as i32)),
            1 if (0..100).contains(&value) => Value::Int16(Some(value as i16)),
            _ => Value::Int64(Some(value)),
        }
    }

    fn text(&mut self) -> Value {
        match self.below(16) {
            0 => Value::Utf8(None),
            1 => Value::Utf8(Some("a longer text than fits".to_owned())),
            _ => Value::Utf8(Some((*self.pick(&["", "a", "b", "ab", "ä", "c  "])).to_owned())),
        }
    }

    fn decimal(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Decimal128(None, 8, 2),
            1 => Value::Decimal128(Some(99_999_999), 8, 2),
            2 => Value::Float64(Some(1.25)),
            3 => Value::Utf8(Some((*self.pick(&["1.5", "x", "7"])).to_owned())),
            4 => Value::Int32(Some(3)),
            digits => Value::Decimal128(Some(i128::from(digits * 37)), 8, 2),
        }
    }

    fn value(&mut self, kind: char) -> Value {
        match kind {
            'i' => self.int(),
            't' => self.text(),
            _ => self.decimal(),
        }
    }
}

const TABLES: &str = "
    CREATE TABLE one (id int PRIMARY KEY, a int, b bigint, c numeric(8,2) NOT NULL DEFAULT 1.5, d text DEFAULT 'd',
                      e date, f varchar(4), g boolean, CHECK (a < 1000), CONSTRAINT positive CHECK (c > 0));
    CREATE TABLE two (k int, l text, v int NOT NULL, w numeric(12,4), PRIMARY KEY (k, l));
    CREATE INDEX two_v ON two (v, l);
    CREATE TABLE heap (x bigint, y text, at timestamp DEFAULT '2020-01-01 00:00:00');
    CREATE TABLE child (id bigint PRIMARY KEY, parent int REFERENCES one, k int, l text, n smallint,
                        FOREIGN KEY (k, l) REFERENCES two);
    CREATE TABLE odd (p numeric(6,2), q smallint, r double precision, s text UNIQUE, PRIMARY KEY (q, p));
    INSERT INTO one (id, a, b) SELECT v, v * 3, v * 7 FROM generate_series(0, 9) AS s(v);
    INSERT INTO two SELECT v % 4, 'l' || v, v % 3, v * 1.5 FROM generate_series(0, 39) AS s(v);
    INSERT INTO two VALUES (1, '', 5, NULL), (2, 'ä', 0, -1);
    INSERT INTO odd SELECT v * 0.5, v % 3, v, 's' || v FROM generate_series(1, 9) AS s(v);
";

/// Statements and the kinds of their parameters: i integers, t texts, n numbers.
const STATEMENTS: &[(&str, &str)] = &[
    ("SELECT id, a, b, c, d, e, f, g FROM one WHERE id = $1", "i"),
    ("SELECT * FROM one WHERE id = $1 AND a > $2", "ii"),
    (
        "SELECT a + $2 AS s, b * 2, c - 0.5, c * $3, d || 'x', coalesce(e, DATE '2020-02-02') FROM one WHERE id = $1",
        "iin",
    ),
    (
        "SELECT CASE WHEN a > 5 THEN 'many' ELSE d END, g IS NULL, a BETWEEN 1 AND b, a / nullif($2, 0) FROM one WHERE id = $1",
        "ii",
    ),
    (
        "SELECT upper(d), length(d), substring(d, 1, 1), round(c, 1), abs(a), to_char(c, '999.9') FROM one WHERE id = $1",
        "i",
    ),
    ("SELECT * FROM two WHERE k = $1 AND l = $2", "it"),
    ("SELECT * FROM two WHERE k = $1 ORDER BY l LIMIT 3", "i"),
    ("SELECT * FROM two WHERE k = $1 ORDER BY l DESC LIMIT 2 OFFSET 1", "i"),
    ("SELECT l, v FROM two WHERE k = $1 ORDER BY v DESC, l", "i"),
    ("SELECT l FROM two WHERE k = $1 AND l >= $2 AND l < $3 ORDER BY l", "itt"),
    ("SELECT l FROM two WHERE k = $1 AND l > $2 AND v = $3", "iti"),
    ("SELECT k, l FROM two WHERE k > $1 AND k <= $2 ORDER BY k, l", "ii"),
    ("SELECT k, l FROM two WHERE k BETWEEN $1 AND $2 AND w > $3 ORDER BY k DESC, l DESC", "iin"),
    ("SELECT count(*), count(w), sum(v), min(w), max(l), avg(v), avg(w), sum(w) FROM two WHERE k = $1", "i"),
    ("SELECT count(DISTINCT v), sum(DISTINCT v), min(DISTINCT l) FROM two WHERE k = $1 AND v < $2", "ii"),
    ("SELECT min(l) FROM two WHERE k = $1", "i"),
    ("SELECT max(l) + 0 FROM two WHERE k = $1 AND l = '1'", "i"),
    ("SELECT max(l), count(*) * 2 FROM two WHERE k = $1 LIMIT 1", "i"),
    ("SELECT * FROM two WHERE v = $1 ORDER BY k, l", "i"),
    ("SELECT k FROM two WHERE v = $1 AND l = $2", "it"),
    ("SELECT l FROM two WHERE v = $1 AND l > $2 ORDER BY l LIMIT 4", "it"),
    ("SELECT two.l, one.a FROM two, one WHERE two.k = $1 AND one.id = two.v ORDER BY two.l", "i"),
    ("SELECT count(DISTINCT one.id) FROM two JOIN one ON one.id = two.v WHERE two.k = $1 AND one.a < $2", "ii"),
    ("SELECT o.id, x.l FROM one o JOIN two x ON x.k = o.id AND x.l = $2 WHERE o.id = $1", "it"),
    ("SELECT s.l FROM (SELECT l, v FROM two WHERE k = $1) AS s WHERE s.v = $2", "ii"),
    ("SELECT p, q, r FROM odd WHERE q = $1 AND p = $2", "in"),
    ("SELECT p FROM odd WHERE q = $1 AND p >= $2 ORDER BY p", "in"),
    ("SELECT p, s FROM odd WHERE s = $1", "t"),
    ("SELECT r, sum(r) OVER () FROM odd WHERE q = $1", "i"),
    ("SELECT k, count(*) FROM two WHERE k = $1 GROUP BY k", "i"),
    ("SELECT DISTINCT v FROM two WHERE k = $1", "i"),
    ("SELECT * FROM one WHERE id = (SELECT max(v) FROM two WHERE k = $1)", "i"),
    ("SELECT $1 + 1, $2 || 'y'", "it"),
    ("SELECT count(*), count($1 + 1), max(3)", "i"),
    ("SELECT $1 + 1 WHERE $2 > 5", "ii"),
    ("SELECT count(1), sum(2) WHERE $1 > 5", "i"),
    ("SELECT * FROM one WHERE id = $1 FOR UPDATE", "i"),
    ("SELECT l FROM two WHERE k = $1 ORDER BY l LIMIT 2 FOR SHARE NOWAIT", "i"),
    ("SELECT l FROM two WHERE k = $1 ORDER BY l LIMIT 1 OFFSET 1 FOR NO KEY UPDATE SKIP LOCKED", "i"),
    ("INSERT INTO one (id, a, b, d) VALUES ($1, $2, $3, $4)", "iiit"),
    ("INSERT INTO one VALUES ($1, $2, 5, $3, 'z', NULL, $4, true) RETURNING id, a + 1, c, f", "iint"),
    ("INSERT INTO one (id, a) VALUES ($1, 1), ($2, 2), ($1, 3)", "ii"),
    ("INSERT INTO one (id, a) VALUES ($1, $2) ON CONFLICT DO NOTHING", "ii"),
    (
        "INSERT INTO one (id, a) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET a = one.a + excluded.a RETURNING id, a",
        "ii",
    ),
    (
        "INSERT INTO one AS t (id, a) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET a = excluded.a, d = t.d || 'u' WHERE t.a < $3",
        "iii",
    ),
    ("INSERT INTO two VALUES ($1, $2, $3, $4)", "itin"),
    (
        "INSERT INTO two (k, l, v) VALUES ($1, $2, $3) ON CONFLICT (k, l) DO UPDATE SET v = two.v * excluded.v RETURNING *",
        "iti",
    ),
    ("INSERT INTO heap (x, y) VALUES ($1, $2) RETURNING x, y, at", "it"),
    ("INSERT INTO heap VALUES (DEFAULT, DEFAULT, DEFAULT), ($1, 'w', NULL)", "i"),
    ("INSERT INTO child VALUES ($1, $2, NULL, NULL, 1)", "ii"),
    ("INSERT INTO child VALUES ($1, NULL, $2, $3, $4)", "iiti"),
    ("INSERT INTO odd VALUES ($1, $2, $3, $4)", "nint"),
    ("INSERT INTO odd (p, q, s) VALUES ($1, $2, $3) ON CONFLICT (s) DO UPDATE SET q = odd.q + 1", "nit"),
    ("UPDATE one SET a = a + $2, c = c * $3 WHERE id = $1 RETURNING id, a, c", "iin"),
    ("UPDATE one SET d = $2, f = $3 WHERE id = $1", "itt"),
    ("UPDATE one SET id = $2 WHERE id = $1", "ii"),
    (
        "UPDATE one SET b = DEFAULT, d = DEFAULT, g = NOT coalesce(g, false) WHERE id = $1 AND a IS NOT NULL RETURNING *",
        "i",
    ),
    ("UPDATE two SET v = v + $2 WHERE k = $1", "ii"),
    ("UPDATE two SET w = w + $2, l = l || 'n' WHERE k = $1 AND v = 1 RETURNING k, l", "in"),
    ("UPDATE two AS t SET v = $3 WHERE t.k = $1 AND t.l = $2", "iti"),
    ("UPDATE two SET k = k + 1 WHERE k = $1 AND l > 'l3'", "i"),
    ("UPDATE child SET parent = $2 WHERE id = $1 RETURNING parent", "ii"),
    ("UPDATE child SET n = n + $2 WHERE id = $1", "ii"),
    ("UPDATE odd SET s = $3, r = r + 1 WHERE q = $1 AND p = $2", "int"),
    ("DELETE FROM two WHERE k = $1 AND l = $2 RETURNING *", "it"),
    ("DELETE FROM one WHERE id = $1", "i"),
    ("DELETE FROM child WHERE id = $1 RETURNING id + 1", "i"),
    ("DELETE FROM odd WHERE q = $1 AND p < $2", "in"),
    ("DELETE FROM heap WHERE x = $1", "i"),
];

/// Statements without parameters that come between them.
const OTHERS: &[&str] = &[
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "BEGIN ISOLATION LEVEL READ COMMITTED",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "CHECKPOINT",
    "BEGIN READ ONLY",
    "COMMIT",
    "COMMIT",
    "CHECKPOINT",
];

/// What a statement answers, as text: its rows with their types, its count, or its SQLSTATE.
async fn answer(session: &Session, sql: &str, parameters: &[Value], prepared: bool) -> Vec<String> {
    let result = match prepared {
        false => session.execute(sql, parameters).await,
        true => match session.prepare(sql).await {
            Ok(statement) => session.execute_prepared(&statement, parameters).await,
            Err(error) => Err(error),
        },
    };
    let rows = match result {
        Err(error) => return vec![format!("error {}", error.sqlstate())],
        Ok(StatementResult::Done(completion)) => return vec![format!("{completion:?}")],
        Ok(StatementResult::Rows(rows)) => rows,
    };
    let types: Vec<String> =
        rows.schema().fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
    let mut lines = match rows.collect().await {
        Err(error) => return vec![format!("error {}", error.sqlstate())],
        Ok(batches) => {
            let options = FormatOptions::default().with_null("NULL");
            let mut lines = Vec::new();
            for batch in batches {
                let columns: Vec<_> =
                    batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
                for row in 0..batch.num_rows() {
                    lines
                        .push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"));
                }
            }
            lines
        }
    };
    if !sql.contains("ORDER BY") {
        lines.sort();
    }
    lines.insert(0, types.join(", "));
    lines
}

/// Runs statements with this seed on both, and returns how often a compiled program was found.
async fn compare(seed: u64, steps: usize) -> u64 {
    println!("seed {seed}");
    let (row, plain) = (memory().await, memory().await);
    for session in [&row, &plain] {
        session.execute_script(TABLES).await.unwrap();
    }
    run(&plain, "SET row_path = off").await;
    let mut random = Random(seed);
    for step in 0..steps {
        let failed = row.transaction_status() == TransactionStatus::Failed;
        let (sql, parameters) = match random.below(8) {
            0 => ((*random.pick(OTHERS)).to_owned(), Vec::new()),
            // Until its end nothing would happen.
            1..5 if failed => ("ROLLBACK".to_owned(), Vec::new()),
            _ => {
                let (sql, kinds) = random.pick(STATEMENTS);
                let count = (1..=kinds.len()).take_while(|number| sql.contains(&format!("${number}"))).count();
                let parameters = kinds.chars().take(count).map(|kind| random.value(kind)).collect();
                ((*sql).to_owned(), parameters)
            }
        };
        let prepared = random.below(4) == 0;
        let (left, right) =
            (answer(&row, &sql, &parameters, prepared).await, answer(&plain, &sql, &parameters, prepared).await);
        assert_eq!(left, right, "seed {seed}, step {step}: {sql} with {parameters:?}");
    }
    for session in [&row, &plain] {
        let _ = session.execute("ROLLBACK", &[]).await;
    }
    for table in ["one", "two", "heap", "child", "odd"] {
        let sql = format!("SELECT * FROM {table}");
        assert_eq!(
            answer(&row, &sql, &[], false).await,
            answer(&plain, &sql, &[], false).await,
            "seed {seed}: {table}"
        );
    }
    assert_eq!(plain.database().program_cache().hits, 0);
    row.database().program_cache().hits
}

/// `RUSTYDB_SEEDS=n` makes it n seeds, `RUSTYDB_SEED=n` only that one.
#[tokio::test]
async fn both_paths_give_the_same_answers() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("RUSTYDB_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("RUSTYDB_SEEDS").unwrap_or(12),
    };
    let count = seeds.clone().count() as u64;
    let mut found = 0;
    for seed in seeds {
        found += compare(seed, 250).await;
    }
    assert!(found > 20 * count, "of {count} seeds, only {found} statements took the row path");
}

#[tokio::test]
async fn a_program_is_not_used_after_its_table_has_changed() {
    let session = memory().await;
    session.execute_script("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 2)").await.unwrap();
    let read = "SELECT * FROM t WHERE id = $1";
    let one = [Value::Int32(Some(1))];
    let prepared = session.prepare(read).await.unwrap();
    for _ in 0..3 {
        assert_eq!(query_with(&session, read, &one).await, ["1|2"]);
        let StatementResult::Rows(rows) = session.execute_prepared(&prepared, &one).await.unwrap() else { panic!() };
        assert_eq!(lines(rows).await.unwrap(), ["1|2"]);
    }
    run(&session, "ALTER TABLE t ADD COLUMN w text DEFAULT 'new'").await;
    assert_eq!(query_with(&session, read, &one).await, ["1|2|new"]);
    session.execute_script("DROP TABLE t").await.unwrap();
    assert_eq!(error_with(&session, read, &one).await.sqlstate(), "42P01");
    session.execute_script("CREATE TABLE t (id text PRIMARY KEY); INSERT INTO t VALUES ('1')").await.unwrap();
    assert_eq!(query_with(&session, read, &[Value::from("1")]).await, ["1"]);
}

#[tokio::test]
async fn statements_of_a_transaction_see_their_own_changes_and_no_others() {
    let session = memory().await;
    let other = session.database().connect();
    session.execute_script("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 10)").await.unwrap();
    let (read, write) = ("SELECT v FROM t WHERE id = $1", "UPDATE t SET v = v + $2 WHERE id = $1");
    let (one, more) = ([Value::Int32(Some(1))], [Value::Int32(Some(1)), Value::Int32(Some(5))]);
    for (begin, expected) in [("BEGIN", "10"), ("BEGIN ISOLATION LEVEL READ COMMITTED", "15")] {
        run(&session, "UPDATE t SET v = 10 WHERE id = 1").await;
        for statement in [read, write] {
            // Both are known programs from the second time on.
            let values = if statement == read { &one[..] } else { &more[..] };
            for _ in 0..2 {
                run(&other, "BEGIN").await;
                let _ = other.execute(statement, values).await.unwrap();
                run(&other, "ROLLBACK").await;
            }
        }
        run(&session, begin).await;
        assert_eq!(query_with(&session, read, &one).await, ["10"]);
        assert_eq!(run_with(&other, write, &more).await.rows, Some(1));
        assert_eq!(query_with(&session, read, &one).await, [expected]);
        let update = session.execute(write, &more).await;
        match expected {
            // The row has changed since the snapshot.
            "10" => assert_eq!(update.unwrap_err().sqlstate(), "40001"),
            _ => assert_eq!(query_with(&session, read, &one).await, ["20"]),
        }
        run(&session, "ROLLBACK").await;
        assert_eq!(query_with(&session, read, &one).await, ["15"]);
    }
}

#[tokio::test]
async fn concurrent_increments_are_all_counted() {
    let session = memory().await;
    session.execute_script("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0)").await.unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let session = session.database().connect();
            tokio::spawn(async move {
                for _ in 0..50 {
                    run_with(&session, "UPDATE t SET v = v + 1 WHERE id = $1", &[Value::Int32(Some(1))]).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(query(&session, "SELECT v FROM t WHERE id = 1").await, ["200"]);
}

#[tokio::test]
async fn a_range_that_is_long_is_left_to_the_scan() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (a int, b int, PRIMARY KEY (a, b))").await;
    run(&session, "INSERT INTO t SELECT 1, v FROM generate_series(1, 20000) AS s(v)").await;
    let sql = "SELECT count(*), sum(b) FROM t WHERE a = $1 AND b >= $2";
    let values = |from| [Value::Int32(Some(1)), Value::Int32(Some(from))];
    for _ in 0..3 {
        assert_eq!(query_with(&session, sql, &values(0)).await, ["20000|200010000"]);
    }
    assert_eq!(query_with(&session, sql, &values(19_999)).await, ["2|39999"]);
    assert_eq!(query_with(&session, "SELECT min(b) FROM t WHERE a = $1", &values(0)[..1]).await, ["1"]);
    assert_eq!(
        query_with(&session, "SELECT b FROM t WHERE a = $1 ORDER BY b DESC LIMIT 2", &values(0)[..1]).await,
        ["20000", "19999"]
    );
}

#[tokio::test]
async fn a_batch_of_parameters_runs_a_program_for_each_row() {
    let session = memory().await;
    session.execute_script("CREATE TABLE t (id int PRIMARY KEY, v int CHECK (v < 100))").await.unwrap();
    run(&session, "INSERT INTO t SELECT g, 0 FROM generate_series(1, 50) AS s(g)").await;
    let update = session.prepare("UPDATE t SET v = v + $2 WHERE id = $1").await.unwrap();
    let batch = |ids: Vec<i32>, by: i32| {
        let by = Int32Array::from(vec![by; ids.len()]);
        let columns: [(&str, ArrayRef); 2] = [("$1", Arc::new(Int32Array::from(ids))), ("$2", Arc::new(by))];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let before = session.database().program_cache().hits;
    for _ in 0..2 {
        assert_eq!(session.execute_batch(&update, &batch((1..=60).collect(), 1)).await.unwrap(), 50);
    }
    assert_eq!(session.database().program_cache().hits, before + 1);
    assert_eq!(query(&session, "SELECT sum(v) FROM t").await, ["100"]);
    // What one of them cannot do, none has done.
    let failed = session.execute_batch(&update, &batch(vec![1, 2, 2, 3], 60)).await.unwrap_err();
    assert_eq!(failed.sqlstate(), "23514");
    assert_eq!(query(&session, "SELECT sum(v) FROM t").await, ["100"]);
}
