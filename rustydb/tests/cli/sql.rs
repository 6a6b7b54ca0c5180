//! `rustydb sql` as a script runner: formats, errors with their places, exit statuses, both ends of a pipe.

use crate::support::{Server, directory, finish, rows, run, run_with_input, rustydb, signal, wait};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

const PEOPLE: &str = "\
CREATE TABLE person (id BIGINT PRIMARY KEY, name TEXT, balance DECIMAL(15, 2), born DATE);
INSERT INTO person VALUES (1, 'Ada, Countess', 12.50, DATE '1815-12-10'), (2, NULL, -0.05, NULL), (3, '', 1000.00, DATE '2000-02-29');
";

/// Rows of `person` in a format.
fn people(format: &str) -> String {
    let directory = directory();
    run_with_input(directory.path(), &["sql"], PEOPLE).expect_status(0);
    run(directory.path(), &["sql", "--format", format, "-c", "SELECT * FROM person ORDER BY id"])
        .expect_status(0)
        .stdout
}

#[test]
fn table_format_is_aligned_and_counted() {
    assert_eq!(
        people("table"),
        " id | name          | balance | born
----+---------------+---------+------------
  1 | Ada, Countess |   12.50 | 1815-12-10
  2 | NULL          |   -0.05 | NULL
  3 |               | 1000.00 | 2000-02-29
(3 rows)
"
    );
}

#[test]
fn csv_format_tells_null_from_empty() {
    assert_eq!(
        people("csv"),
        "id,name,balance,born\n1,\"Ada, Countess\",12.50,1815-12-10\n2,,-0.05,\n3,\"\",1000.00,2000-02-29\n"
    );
}

#[test]
fn json_format_is_one_array_with_exact_decimals() {
    let text = people("json");
    assert_eq!(
        text,
        "[\n{\"id\":1,\"name\":\"Ada, Countess\",\"balance\":12.50,\"born\":\"1815-12-10\"},\n\
         {\"id\":2,\"name\":null,\"balance\":-0.05,\"born\":null},\n\
         {\"id\":3,\"name\":\"\",\"balance\":1000.00,\"born\":\"2000-02-29\"}\n]\n"
    );
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed[1]["name"], serde_json::Value::Null);
}

#[test]
fn markdown_format_is_a_table() {
    assert_eq!(
        people("markdown"),
        "| id | name | balance | born |\n| ---: | --- | ---: | --- |\n\
         | 1 | Ada, Countess | 12.50 | 1815-12-10 |\n| 2 | NULL | -0.05 | NULL |\n| 3 |  | 1000.00 | 2000-02-29 |\n\n"
    );
}

#[test]
fn expanded_format_has_a_line_per_value() {
    let text = people("expanded");
    assert!(text.starts_with("-[ RECORD 1 ]"), "{text}");
    assert!(text.contains("name    | Ada, Countess\n") && text.ends_with("(3 rows)\n"), "{text}");
}

#[test]
fn commands_run_in_order_and_show_their_tags() {
    let directory = directory();
    let arguments =
        ["sql", "-c", "CREATE TABLE t (a BIGINT)", "-c", "INSERT INTO t VALUES (1), (2); SELECT sum(a) AS s FROM t"];
    assert_eq!(
        run(directory.path(), &arguments).expect_status(0).stdout,
        "CREATE TABLE\nINSERT 2\n s\n---\n 3\n(1 row)\n"
    );
}

#[test]
fn output_for_programs_holds_nothing_but_results() {
    let script = "CREATE TABLE t (a BIGINT);\n\\timing on\nINSERT INTO t VALUES (7);\nSELECT a FROM t;\n";
    for (format, expected) in [("csv", "a\n7\n"), ("json", "[\n{\"a\":7}\n]\n")] {
        let outcome = run_with_input(directory().path(), &["sql", "--format", format], script).expect_status(0);
        assert_eq!(outcome.stdout, expected);
        assert!(outcome.stderr.contains("Time: "), "{}", outcome.stderr);
    }
}

#[test]
fn what_is_in_memory_leaves_no_trace() {
    let directory = directory();
    let input = "CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1); SELECT count(*) AS n FROM t";
    let outcome = run_with_input(directory.path(), &["sql", "--data", ":memory:", "--format", "csv"], input);
    assert_eq!(outcome.expect_status(0).stdout, "n\n1\n");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Writes a script whose fourth line is wrong, and runs it.
fn run_broken_script(directory: &Path, connection: &[&str]) {
    let script = "-- a script\nCREATE TABLE person (id BIGINT PRIMARY KEY, name TEXT);\nINSERT INTO person VALUES (1, 'Ada');\nSELECT id,\n       nam FROM person;\nINSERT INTO person VALUES (2, 'never');\n";
    std::fs::write(directory.join("script.sql"), script).unwrap();
    let mut arguments = vec!["sql", "-f", "script.sql"];
    arguments.extend(connection);
    let outcome = run(directory, &arguments).expect_status(1);
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines[0].starts_with("ERROR 42703: ") && lines[0].contains("nam"), "{}", outcome.stderr);
    assert_eq!(lines[1], "LINE 5:        nam FROM person");
    assert_eq!(lines[2].find('^'), lines[1].find("nam"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("name"), "the nearest name: {}", outcome.stderr);
    assert_eq!(lines.last(), Some(&"FILE: script.sql"), "{}", outcome.stderr);
    let mut arguments = vec!["sql", "--format", "csv", "-c", "SELECT id FROM person"];
    arguments.extend(connection);
    assert_eq!(run(directory, &arguments).expect_status(0).stdout, "id\n1\n", "the script stopped at its error");
}

#[test]
fn a_script_stops_at_its_first_error_and_shows_the_line_of_the_file() {
    run_broken_script(directory().path(), &["--data", "d"]);
}

#[test]
fn a_script_on_a_server_fails_with_the_same_words() {
    let directory = directory();
    let server = Server::start(directory.path(), "d", &[]);
    run_broken_script(directory.path(), &["--url", &server.url]);
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn a_server_answers_like_a_database_of_ones_own() {
    let directory = directory();
    let server = Server::start(directory.path(), "d", &[]);
    let arguments = ["sql", "--url", &server.url];
    let outcome = run_with_input(directory.path(), &arguments, PEOPLE).expect_status(0);
    assert_eq!(outcome.stdout, "CREATE TABLE\nINSERT 3\n");
    let select = "SELECT * FROM person ORDER BY id";
    let remote = |format: &str| {
        run(directory.path(), &["sql", "--url", &server.url, "--format", format, "-c", select]).expect_status(0).stdout
    };
    assert_eq!(remote("csv"), people("csv"));
    assert_eq!(remote("table"), people("table"));
    let described = run_with_input(directory.path(), &arguments, "\\d person\n\\dt\n").expect_status(0).stdout;
    assert!(described.contains("balance") && described.contains("Primary key: (id)"), "{described}");
    let transaction = "BEGIN; DELETE FROM person; ROLLBACK; SELECT count(*) AS n FROM person;";
    let outcome = run_with_input(directory.path(), &["sql", "--url", &server.url, "--format", "csv"], transaction);
    assert_eq!(outcome.expect_status(0).stdout, "n\n3\n");
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn errors_carry_their_sqlstate() {
    let directory = directory();
    run_with_input(directory.path(), &["sql"], PEOPLE).expect_status(0);
    for (sql, state) in [
        ("SELEC 1", "42601"),
        ("SELECT * FROM persons", "42P01"),
        ("SELECT 'a", "42601"),
        ("INSERT INTO person VALUES (1, 'again', 0, NULL)", "23505"),
        ("INSERT INTO person (name) VALUES ('nobody')", "23502"),
        ("SELECT CAST(name AS BIGINT) FROM person WHERE id = 1", "22P02"),
        ("CREATE TABLE person (id BIGINT)", "42P07"),
        ("LISTEN p", "0A000"),
        ("COPY person FROM 'missing.csv'", "58030"),
        ("\\nonsense", "42601"),
    ] {
        let outcome = run(directory.path(), &["sql", "-c", sql]).expect_status(1);
        assert!(outcome.stderr.starts_with(&format!("ERROR {state}: ")), "{sql}: {}", outcome.stderr);
    }
    assert_eq!(rows(directory.path(), "./rustydb-data", "SELECT count(*) FROM person"), ["3"]);
}

#[test]
fn a_transaction_left_open_is_rolled_back() {
    let directory = directory();
    run_with_input(directory.path(), &["sql"], PEOPLE).expect_status(0);
    let open = ["sql", "-c", "BEGIN; DELETE FROM person"];
    run(directory.path(), &open).expect_status(0).expect_stderr(&["WARNING", "rolled back"]);
    run(directory.path(), &["sql", "-c", "BEGIN; DELETE FROM person; SELECT 1 / 0"]).expect_status(1);
    assert_eq!(rows(directory.path(), "./rustydb-data", "SELECT count(*) FROM person"), ["3"]);
    let server = Server::start(directory.path(), "./rustydb-data", &[]);
    let mut remote = open.to_vec();
    remote.extend(["--url", &server.url]);
    run(directory.path(), &remote).expect_status(0).expect_stderr(&["WARNING", "rolled back"]);
    let ended = ["sql", "--url", &server.url, "-c", "BEGIN; DELETE FROM person; ROLLBACK"];
    assert_eq!(run(directory.path(), &ended).expect_status(0).stderr, "");
    assert_eq!(server.stop().0, Some(0));
    assert_eq!(rows(directory.path(), "./rustydb-data", "SELECT count(*) FROM person"), ["3"]);
}

#[test]
fn a_table_is_described_with_every_kind_of_constraint() {
    let directory = directory();
    let script = "\u{feff}CREATE TABLE parent (id INT PRIMARY KEY);\n\
                  CREATE TABLE t (id INT PRIMARY KEY, name TEXT UNIQUE, p INT REFERENCES parent, CHECK (id > 0));\n\\d t\n";
    let outcome = run_with_input(directory.path(), &["sql"], script).expect_status(0);
    let notes = outcome
        .stdout
        .lines()
        .filter(|line| ["Primary", "Unique", "Foreign", "Check"].iter().any(|word| line.starts_with(word)));
    let notes: Vec<&str> = notes.collect();
    assert_eq!(
        notes,
        [
            "Primary key: (id)",
            "Unique t_name_key: (name)",
            "Foreign key t_p_fkey: (p) references public.parent (id)",
            "Check t_id_check: id > 0",
        ]
    );
}

#[test]
fn backslash_commands_work_in_scripts() {
    let directory = directory();
    std::fs::write(directory.path().join("people.sql"), PEOPLE).unwrap();
    let script = "\\i people.sql\n\\d person\n\\format csv\n\\o out.csv\nSELECT id FROM person ORDER BY id;\n\\o\n\\q\nSELECT never;\n";
    let outcome = run_with_input(directory.path(), &["sql"], script).expect_status(0);
    assert!(outcome.stdout.contains("Table public.person\n"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("Primary key: (id)\n"), "{}", outcome.stdout);
    assert_eq!(std::fs::read_to_string(directory.path().join("out.csv")).unwrap(), "id\n1\n2\n3\n");

    std::fs::write(directory.path().join("self.sql"), "\\i self.sql\n").unwrap();
    run_with_input(directory.path(), &["sql"], "\\i self.sql\n").expect_status(1).expect_stderr(&["54001", "itself"]);
    run_with_input(directory.path(), &["sql"], "\\i none.sql\n").expect_status(1).expect_stderr(&["58030", "none.sql"]);
    run_with_input(directory.path(), &["sql"], "\\d persn\n").expect_status(1).expect_stderr(&["42P01", "person"]);
}

#[test]
fn a_script_that_is_no_text_is_refused_with_its_line() {
    let directory = directory();
    std::fs::write(directory.path().join("bad.sql"), b"SELECT 1;\n\xff\xfe\n").unwrap();
    let outcome = run(directory.path(), &["sql", "-f", "bad.sql"]).expect_status(1);
    assert!(outcome.stderr.contains("line 2") && outcome.stderr.contains("UTF-8"), "{}", outcome.stderr);
}

#[test]
fn what_is_no_database_is_left_alone_with_status_3() {
    let directory = directory();
    std::fs::create_dir(directory.path().join("photos")).unwrap();
    std::fs::write(directory.path().join("photos/cat.jpg"), "meow").unwrap();
    run(directory.path(), &["sql", "--data", "photos", "-c", "SELECT 1"]).expect_status(3).expect_stderr(&["photos"]);
    run(directory.path(), &["sql", "--data", "photos/cat.jpg", "-c", "SELECT 1"]).expect_status(3);
    assert_eq!(std::fs::read_dir(directory.path().join("photos")).unwrap().count(), 1);
    assert_eq!(std::fs::read(directory.path().join("photos/cat.jpg")).unwrap(), b"meow");
}

#[test]
fn a_server_that_is_not_there_gives_status_3() {
    let directory = directory();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("grpc://127.0.0.1:{port}");
    run(directory.path(), &["sql", "--url", &url, "-c", "SELECT 1"]).expect_status(3).expect_stderr(&[&url]);
    run(directory.path(), &["sql", "--url", "http//nonsense", "-c", "SELECT 1"]).expect_status(2);
}

/// A query that streams for longer than anybody waits.
const ENDLESS: &str = "SELECT a.value * 3 AS v FROM range(0, 1000000) a CROSS JOIN range(0, 1000000) b";

#[test]
fn a_reader_that_leaves_ends_the_query_quietly() {
    let directory = directory();
    for format in ["csv", "json", "table"] {
        let arguments = ["sql", "--data", ":memory:", "--format", format, "-c", ENDLESS, "-c", "SELECT 'never'"];
        let mut child = rustydb(directory.path(), &arguments).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        drop(stdout);
        let status = wait(&mut child);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(141), ""), "{format}");
    }
}

#[test]
fn an_interrupt_cancels_the_query_and_ends_the_script() {
    let directory = directory();
    let mut child =
        rustydb(directory.path(), &["sql", "--data", "d", "--format", "csv", "-c", ENDLESS]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "v\n", "the query runs");
    signal(&child, rustix::process::Signal::INT);
    child.stdout = Some(stdout.into_inner());
    finish(child, "").expect_status(130).expect_stderr(&["ERROR 57014: "]);
    // The database was closed in order.
    run(directory.path(), &["check", "--data", "d"]).expect_status(0);
}

#[test]
fn routines_outlive_the_process_and_what_they_say_is_shown() {
    let directory = directory();
    let script = "\
CREATE TABLE seen (n INTEGER PRIMARY KEY);
CREATE FUNCTION note(n INTEGER) RETURNS INTEGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES (n);
    RAISE NOTICE 'noted %', n;
    RETURN 2 * n;
END;
$$;
";
    run_with_input(directory.path(), &["sql"], script).expect_status(0);
    let called = run(directory.path(), &["sql", "--format", "csv", "-c", "SELECT note(21)"]).expect_status(0);
    assert_eq!(called.stdout, "note\n42\n");
    assert!(called.stderr.contains("NOTICE: noted 21"), "{}", called.stderr);
    let failed = run(directory.path(), &["sql", "-c", "SELECT note(21)"]);
    assert!(failed.stderr.contains("PL/pgSQL function note(integer) line 3 at SQL statement"), "{}", failed.stderr);
    let rows = run(directory.path(), &["sql", "--format", "csv", "-c", "SELECT n FROM seen"]).expect_status(0);
    assert_eq!(rows.stdout, "n\n21\n");
}
