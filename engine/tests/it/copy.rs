//! COPY from and to files.

use std::path::Path;

use rustydb_engine::{Database, DatabaseOptions, Session};

use crate::helpers::*;

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, s text, n numeric(8,2), d date, ts timestamp, b boolean, x bytea)";

async fn with_rows() -> Session {
    let session = memory().await;
    run(&session, TABLE).await;
    run(&session, "INSERT INTO t VALUES (1, 'plain', 1.25, '2024-02-29', '2024-02-29 01:02:03.5', true, 'raw'), (2, '', -3, NULL, NULL, false, ''), (3, 'a \"b\", c\nd', NULL, '1999-12-31', '1999-12-31 23:59:59', NULL, NULL), (4, NULL, NULL, NULL, NULL, NULL, NULL)").await;
    session
}

fn path(directory: &tempfile::TempDir, name: &str) -> String {
    directory.path().join(name).display().to_string()
}

#[tokio::test]
async fn every_format_brings_back_what_it_took() {
    let directory = tempfile::tempdir().unwrap();
    let session = with_rows().await;
    let original = query(&session, "SELECT * FROM t ORDER BY id").await;
    for (file, options) in [
        ("t.parquet", ""),
        ("t.csv", ""),
        ("t.csv", "WITH (HEADER true, DELIMITER '|', NULL 'nil', QUOTE '''')"),
        ("t.tsv", "CSV HEADER"),
        ("t.data", "STORED AS PARQUET OPTIONS ('compression' 'snappy')"),
        ("t.json", ""),
        ("t.dat", "(FORMAT json)"),
    ] {
        let file = path(&directory, file);
        assert_eq!(affected(&session, &format!("COPY t TO '{file}' {options}")).await, 4, "{file} {options}");
        run(&session, &TABLE.replace("TABLE t", "TABLE back")).await;
        let options = options.replace("OPTIONS ('compression' 'snappy')", "");
        assert_eq!(affected(&session, &format!("COPY back FROM '{file}' {options}")).await, 4, "{file} {options}");
        assert_eq!(query(&session, "SELECT * FROM back ORDER BY id").await, original, "{file} {options}");
        run(&session, "DROP TABLE back").await;
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 6, "no temporary files are left");
}

#[tokio::test]
async fn queries_are_written_and_columns_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let session = with_rows().await;
    let file = path(&directory, "q.csv");
    assert_eq!(
        affected(
            &session,
            &format!("COPY (SELECT s, id * 10 AS big FROM t WHERE id < 3 ORDER BY id) TO '{file}' (HEADER)")
        )
        .await,
        2
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "s,big\nplain,10\n\"\",20\n");
    run(&session, "CREATE TABLE u (id int PRIMARY KEY, s text, d text DEFAULT 'def')").await;
    assert_eq!(affected(&session, &format!("COPY u (s, id) FROM '{file}' (HEADER true)")).await, 2);
    assert_eq!(query(&session, "SELECT * FROM u ORDER BY id").await, ["10|plain|def", "20||def"]);
    let parquet = path(&directory, "q.parquet");
    run(&session, &format!("COPY t (s, id) TO '{parquet}'")).await;
    run(&session, "DELETE FROM u").await;
    assert_eq!(affected(&session, &format!("COPY u (id) FROM '{parquet}'")).await, 4);
    assert_eq!(query(&session, "SELECT id, s, d FROM u WHERE id = 1").await, ["1|NULL|def"]);
}

async fn load(session: &Session, directory: &Path, name: &str, content: &str, options: &str) -> rustydb_engine::Error {
    let file = directory.join(name);
    std::fs::write(&file, content).unwrap();
    let failure = error(session, &format!("COPY t FROM '{}' {options}", file.display())).await;
    assert_eq!(query(session, "SELECT count(*) FROM t").await, ["0"], "{name}: nothing is left of a failed load");
    failure
}

#[tokio::test]
async fn malformed_files_are_refused_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, s varchar(5) NOT NULL)").await;
    for (name, content, options, sqlstate, words) in [
        ("a.csv", "1,a\n2\n", "", "22P04", "a.csv, line 2"),
        ("b.csv", "1,a\nx,b\n", "", "22P02", "b.csv, line 2: column \"id\""),
        ("c.csv", "1,a\n99999999999,b\n", "", "22003", "c.csv, line 2"),
        ("d.csv", "1,a\n2,\n", "", "23502", "d.csv, line 2"),
        ("e.csv", "1,a\n2,toolong\n", "", "22001", "e.csv, line 2"),
        ("f.csv", "1,a\n2,c\n1,b\n", "", "23505", "f.csv, line 3: duplicate key"),
        ("g.csv", "1,\"a\n2,b\n", "", "22P04", "does not end"),
        ("h.csv", "no,names\n1,a\n", "(HEADER match)", "22P04", "header"),
        ("i.parquet", "not parquet at all", "", "22P04", "i.parquet"),
        ("j.json", "{\"id\": 1, \"s\": \"a\"}\n{\"id\": \n", "", "22P04", "j.json, line 2"),
        ("l.json", "{\"id\": 1, \"s\": \"a\"}\n\n{\"id\": 2}\n", "", "23502", "l.json, line 3"),
        ("k.json", "{\"id\": 1, \"s\": \"a\"}\n{\"idd\": 2}\n", "", "22P04", "k.json, line 2"),
    ] {
        let failure = load(&session, directory.path(), name, content, options).await;
        assert_eq!(failure.sqlstate(), sqlstate, "{name}: {failure:?}");
        assert!(failure.message().contains(words), "{name}: {failure:?}");
    }
}

#[tokio::test]
async fn a_truncated_parquet_file_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let session = memory().await;
    let file = path(&directory, "big.parquet");
    run(
        &session,
        &format!("COPY (SELECT n AS id, 'text ' || n AS s FROM generate_series(1, 150000) g(n)) TO '{file}'"),
    )
    .await;
    run(&session, "CREATE TABLE t (id bigint PRIMARY KEY, s text)").await;
    let bytes = std::fs::read(&file).unwrap();
    let mut damaged = bytes.clone();
    // The footer stays; pages in the middle do not.
    let middle = damaged.len() / 2;
    damaged[middle..middle + 4096].fill(0xA5);
    std::fs::write(&file, &damaged).unwrap();
    let failure = error(&session, &format!("COPY t FROM '{file}'")).await;
    assert_eq!(failure.sqlstate(), "22P04", "{failure:?}");
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["0"]);
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(affected(&session, &format!("COPY t FROM '{file}'")).await, 150_000);
}

#[tokio::test]
async fn columns_of_files_must_be_the_tables() {
    let directory = tempfile::tempdir().unwrap();
    let session = memory().await;
    let file = path(&directory, "f.parquet");
    run(&session, &format!("COPY (SELECT 1 AS id, 'x' AS nam) TO '{file}'")).await;
    run(&session, "CREATE TABLE t (id bigint PRIMARY KEY, name text)").await;
    let failure = error(&session, &format!("COPY t FROM '{file}'")).await;
    assert_eq!(failure.sqlstate(), "42703", "{failure:?}");
    let failure = error(&session, &format!("COPY t (id, name) FROM '{file}'")).await;
    assert_eq!((failure.sqlstate(), failure.hint()), ("42703", Some("It has a column \"nam\".")));
    assert_eq!(affected(&session, &format!("COPY t (id) FROM '{file}'")).await, 1);
}

#[tokio::test]
async fn what_copy_cannot_do_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let session = with_rows().await;
    let file = path(&directory, "t.csv");
    let copy = |options: &str| format!("COPY t TO '{file}' {options}");
    for (sql, sqlstate) in [
        (copy("(FORMAT text)"), "0A000"),
        (copy("(FORMAT binary)"), "0A000"),
        (copy("(FORCE_QUOTE (s))"), "0A000"),
        (copy("(ENCODING 'LATIN1')"), "0A000"),
        (copy("(DELIMITER 'ab')"), "22023"),
        (copy("(NONSENSE 1)"), "42601"),
        (format!("COPY t FROM '{}'", path(&directory, "missing.csv")), "58030"),
        (format!("COPY t FROM '{}' (FORMAT csv)", directory.path().display()), "58030"),
        (format!("COPY t TO '{}'", path(&directory, "no/such/dir.csv")), "58030"),
        (format!("COPY t TO '{}'", path(&directory, "unknown.xyz")), "22023"),
        ("COPY t TO STDOUT".to_owned(), "0A000"),
        ("COPY nope TO 'x.csv'".to_owned(), "42P01"),
        ("COPY t (nope) TO 'x.csv'".to_owned(), "42703"),
    ] {
        assert_eq!(error(&session, &sql).await.sqlstate(), sqlstate, "{sql}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "failed copies leave no files");
}

#[tokio::test]
async fn a_failing_query_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let session = with_rows().await;
    let file = path(&directory, "t.csv");
    std::fs::write(&file, "old").unwrap();
    assert_eq!(error(&session, &format!("COPY (SELECT 1 / (id - 3) FROM t) TO '{file}'")).await.sqlstate(), "22012");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
}

#[tokio::test]
async fn a_server_may_forbid_files() {
    let options = DatabaseOptions { allow_server_files: false, query_threads: Some(1), ..DatabaseOptions::memory() };
    let session = Database::open(options).await.unwrap().connect();
    run(&session, "CREATE TABLE t (a int)").await;
    assert_errors(
        &session,
        &[("COPY t FROM '/etc/passwd' (FORMAT csv)", "42501"), ("COPY t TO '/tmp/x.csv'", "42501")],
    )
    .await;
}

#[tokio::test]
async fn a_file_with_mark_and_header_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let session = memory().await;
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, s text)").await;
    let failure = load(&session, directory.path(), "a.csv", "\u{feff}id,s\n1,a\n", "").await;
    assert!(failure.hint().is_some_and(|hint| hint.contains("HEADER true")), "{failure:?}");
    let file = path(&directory, "a.csv");
    assert_eq!(affected(&session, &format!("COPY t FROM '{file}' (HEADER match)")).await, 1);
}

#[tokio::test]
async fn the_databases_own_directory_is_not_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(&directory.path().join("data")).await;
    let session = database.connect();
    for name in ["data/FORMAT", "data/new.csv", "data/../data/x.parquet"] {
        let failure =
            error(&session, &format!("COPY (SELECT 1 AS a) TO '{}' (FORMAT csv)", path(&directory, name))).await;
        assert_eq!(failure.sqlstate(), "42501", "{name}: {failure:?}");
    }
    database.close().await.unwrap();
    open(&directory.path().join("data")).await.close().await.unwrap();
}
