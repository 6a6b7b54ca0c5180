//! Functions that read tables of which the query around them says nothing, while its rows are fetched slowly.
//!
//! A query keeps of the store what it reads, and its plan does not tell what its functions read. So each of these queries is
//! begun, a few of its rows are fetched, all tables are changed, flushed, compacted and partly dropped, and the rest is
//! fetched: all of it must be as of the query's beginning.

use arrow::array::RecordBatch;
use futures::StreamExt;
use rustydb_engine::{Database, DatabaseOptions, Error, RecordStream, Session, StatementResult};

use crate::connection::rows_as_text;

const SETUP: &str = "
    CREATE TABLE n (id int PRIMARY KEY, y text);
    CREATE TABLE others (i int PRIMARY KEY, w int);
    CREATE TABLE more (i int PRIMARY KEY, w int);
    CREATE SEQUENCE numbers;
    COMMENT ON TABLE others IS 'what functions read';
    INSERT INTO n VALUES (1, 'a'), (2, 'b'), (3, 'c');
    INSERT INTO others VALUES (1, 10), (2, 20), (3, 30);
    INSERT INTO more VALUES (1, 100), (2, 200), (3, 300);
    CREATE FUNCTION above(v int) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
    DECLARE c bigint;
    BEGIN SELECT count(*) INTO c FROM others WHERE w > v; RETURN c; END $$;
    CREATE FUNCTION above_sql(v int) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM others WHERE w > v';
    CREATE FUNCTION found(v int) RETURNS int LANGUAGE plpgsql AS $$
    DECLARE c int;
    BEGIN SELECT w INTO c FROM others WHERE i = v; RETURN c; END $$;
    CREATE FUNCTION joined(v int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RETURN (SELECT sum(o.w * m.w) FROM others o JOIN more m ON o.i = m.i WHERE o.w > v); END $$;
    CREATE FUNCTION looped(v int) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE r record; t text := '';
    BEGIN FOR r IN SELECT * FROM others ORDER BY i LOOP t := t || r.w || above(v) || ','; END LOOP; RETURN t; END $$;
    CREATE FUNCTION dynamic(v int) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE c bigint;
    BEGIN EXECUTE 'SELECT count(*) FROM others WHERE w > $1' INTO c USING v; RETURN c; END $$;
    CREATE FUNCTION calling(v int) RETURNS bigint LANGUAGE plpgsql AS $$
    BEGIN RETURN above(v) + above_sql(v) * (SELECT max(w) FROM more); END $$;
    CREATE FUNCTION defaulted(v int, d bigint DEFAULT above(15)) RETURNS bigint LANGUAGE sql AS 'SELECT v + d';
    CREATE FUNCTION wide(v int) RETURNS TABLE (w int, c bigint) LANGUAGE plpgsql AS $$
    BEGIN RETURN QUERY SELECT o.w, above(o.w) FROM others o WHERE o.w > v; END $$;
    CREATE VIEW seen AS SELECT g.x, calling((n.id * 10 + g.x % 2)::int) AS c
                        FROM generate_series(1, 40) AS g(x) JOIN n ON n.id = g.x % 3 + 1;
    CREATE VIEW seen_twice AS SELECT x, c, found((x % 3 + 1)::int) AS f FROM seen;
";

/// Forty rows that come in batches of four, most of them when they are asked for. The expression `LATE` is of both sides of
/// the join, so it cannot be computed before.
const ROWS: &str = "generate_series(1, 40) AS g(x) JOIN n ON n.id = g.x % 3 + 1";
const LATE: &str = "(n.id * 10 + g.x % 2)::int";

const QUERIES: &[&str] = &[
    "SELECT g.x, above(LATE), above_sql(LATE), found((LATE) / 10), joined(LATE) FROM ROWS",
    "SELECT g.x, looped(LATE), dynamic(LATE), calling(LATE), defaulted(LATE) FROM ROWS",
    "SELECT g.x FROM ROWS WHERE above(LATE) = 1",
    "SELECT g.x FROM ROWS ORDER BY above(LATE), g.x DESC",
    "SELECT g.x, m.w FROM ROWS JOIN more m ON m.i = above(LATE)",
    "SELECT g.x, m.w FROM ROWS LEFT JOIN more m ON m.i = n.id AND above((g.x % 30 + m.w % 7)::int) > 1",
    "SELECT g.x, (SELECT sum(m.w) FROM more m WHERE m.i = above(LATE)) FROM ROWS",
    "SELECT g.x, (SELECT max(above(m.i * 10)) FROM more m WHERE m.i <= n.id) FROM ROWS",
    "SELECT g.x, (SELECT max(m.w) FROM more m WHERE m.i <= n.id
                  AND m.i <= (SELECT count(*) FROM n k WHERE k.id <= m.i AND above(k.id) > 0)) FROM ROWS",
    "SELECT g.x, (SELECT max(above(m.i * 10)) FROM more m) + above(LATE) FROM ROWS",
    "SELECT g.x FROM ROWS WHERE EXISTS (SELECT 1 FROM more m WHERE m.i = n.id AND above((m.i * 10 + g.x % 2)::int) > 1)",
    "SELECT g.x FROM ROWS WHERE above(LATE) IN (SELECT above(m.i * 10) FROM more m)",
    "SELECT g.x, CASE WHEN g.x % 7 = 0 THEN above(LATE) WHEN g.x % 5 = 0 THEN found(n.id) ELSE -1 END FROM ROWS",
    "SELECT g.x, coalesce(nullif(above(LATE), 1), found(n.id)) FROM ROWS",
    "SELECT g.x, sum(above(LATE)) OVER (ORDER BY g.x) FROM ROWS",
    "SELECT g.x, sum(above(LATE)) FILTER (WHERE found(n.id) > 10) FROM ROWS GROUP BY g.x HAVING max(above(LATE)) > 0",
    "SELECT DISTINCT above(LATE), g.x FROM ROWS",
    "SELECT g.x, s.* FROM ROWS CROSS JOIN wide(10) AS s",
    "SELECT g.x, above(LATE) FROM ROWS UNION ALL SELECT * FROM wide(0)",
    "SELECT g.x, l.a FROM ROWS CROSS JOIN lateral (SELECT above(LATE) AS a) AS l",
    "WITH c AS (SELECT g.x, above(LATE) AS a FROM ROWS) SELECT c.x, c.a, d.a FROM c JOIN c AS d ON c.x = d.x",
    "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r WHERE x < 30 AND above(x) >= 0) SELECT x, above(x) FROM r",
    "SELECT * FROM seen",
    "SELECT * FROM seen_twice WHERE f > 10",
    "SELECT g.x, obj_description('others'), current_setting('batch_size'), current_schema() FROM ROWS",
    "SELECT g.x, t.table_name FROM ROWS JOIN information_schema.tables t ON t.table_schema = 'public'",
    "SELECT g.x, c.relname FROM ROWS JOIN pg_catalog.pg_class c ON c.relname IN ('more', 'others')",
];

/// What changes under the queries.
const CHANGES: &str = "
    UPDATE others SET w = w + 1000;
    UPDATE more SET w = w + 1;
    UPDATE n SET y = 'changed';
    VACUUM;
    DELETE FROM others WHERE i = 2;
    INSERT INTO others VALUES (4, 15);
    INSERT INTO n VALUES (4, 'd');
    VACUUM;
    DROP TABLE more;
    ALTER TABLE others ADD COLUMN z int DEFAULT 1;
    CHECKPOINT;
";

/// In what a query runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Alone,
    Prepared,
    Serializable,
    /// A transaction that is over before the rows are fetched.
    Transaction,
}

const WAYS: [Way; 3] = [Way::Prepared, Way::Serializable, Way::Transaction];

/// Whether functions see what their query sees, however late they are called.
pub async fn check_functions_of_slow_readers() -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let options = DatabaseOptions {
        languages: rustydb_udf::languages(),
        query_threads: Some(2),
        ..DatabaseOptions::directory(directory.path())
    };
    let database = Database::open(options).await.map_err(told)?;
    let writer = database.connect();
    writer.execute_script(SETUP).await.map_err(told)?;
    let (mut failures, mut begun) = (Vec::new(), Vec::new());
    for (query, other_way) in QUERIES.iter().zip(WAYS.iter().copied().cycle()) {
        let sql = query.replace("ROWS", ROWS).replace("LATE", LATE);
        for way in [Way::Alone, other_way] {
            let session = connect(&database, way).await.map_err(told)?;
            let before = async {
                let rows = rows_of(session.execute(&sql, &[]).await)?;
                Ok::<_, String>((all(rows).await?, begin(&session, way, &sql).await?))
            };
            match before.await {
                Ok((expected, (first, rest))) => begun.push((way, sql.clone(), expected, first, rest)),
                Err(error) => failures.push(format!("{way:?} {sql}: {error}")),
            }
        }
    }
    writer.execute_script(CHANGES).await.map_err(told)?;
    for (way, sql, mut expected, mut got, rest) in begun {
        match all(rest).await {
            Err(error) => failures.push(format!("{way:?} {sql}: {error}")),
            Ok(rest) if rest.is_empty() => failures.push(format!("{way:?} {sql}: it had ended before")),
            Ok(rest) => {
                got.extend(rest);
                got.sort_unstable();
                expected.sort_unstable();
                if got != expected {
                    failures.push(format!("{way:?} {sql}:\n{got:?}\nbut before\n{expected:?}"));
                }
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("{} failures:\n{}", failures.len(), failures.join("\n"))) }
}

fn told(error: Error) -> String {
    format!("{} {error}", error.sqlstate())
}

async fn connect(database: &Database, way: Way) -> Result<Session, Error> {
    let session = database.connect();
    session.set("batch_size", "4").await?;
    if way == Way::Serializable {
        session.set("default_transaction_isolation", "serializable").await?;
    }
    Ok(session)
}

/// Begins a query; its first rows, and the others when they are asked for.
async fn begin(session: &Session, way: Way, sql: &str) -> Result<(Vec<Vec<String>>, RecordStream), String> {
    let mut rows = match way {
        Way::Alone | Way::Serializable => rows_of(session.execute(sql, &[]).await)?,
        Way::Prepared => {
            let prepared = session.prepare(sql).await.map_err(told)?;
            rows_of(session.execute_prepared(&prepared, &[]).await)?
        }
        Way::Transaction => {
            session.execute("BEGIN", &[]).await.map_err(told)?;
            let rows = rows_of(session.execute(sql, &[]).await)?;
            session.execute("COMMIT", &[]).await.map_err(told)?;
            rows
        }
    };
    let first = rows.next().await.transpose().map_err(told)?;
    Ok((texts(first.as_slice())?, rows))
}

fn rows_of(result: Result<StatementResult, Error>) -> Result<RecordStream, String> {
    match result.map_err(told)? {
        StatementResult::Rows(rows) => Ok(rows),
        StatementResult::Done(completion) => Err(format!("no rows, but {}", completion.tag)),
    }
}

async fn all(rows: RecordStream) -> Result<Vec<Vec<String>>, String> {
    texts(&rows.collect().await.map_err(told)?)
}

fn texts(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>, String> {
    rows_as_text(batches).map_err(|error| error.to_string())
}
