//! Databases that earlier releases left are opened and hold what they held (see `rustydb/tests/samples`).

use crate::support::{directory, run};
use std::path::Path;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_database_of_format_1_is_read_checked_and_written_to() {
    let directory = directory();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/format-1");
    copy(&sample, &directory.path().join("db"));
    let answer = |sql: &str| {
        run(directory.path(), &["sql", "--data", "db", "--format", "csv", "-c", sql]).expect_status(0).stdout
    };
    run(directory.path(), &["check", "--data", "db"]).expect_status(0);
    assert_eq!(
        answer(
            "SELECT count(*) AS n, sum(price) AS price, sum(code) AS code, max(name) AS name, min(weight) AS w FROM item"
        ),
        "n,price,code,name,w\n201,5184.73,200920,unnamed,0.5\n"
    );
    assert_eq!(
        answer("SELECT id, name, price FROM item WHERE name = 'changed' ORDER BY id"),
        "id,name,price\n3,changed,99.99\n150,changed,99.99\n"
    );
    assert_eq!(answer("SELECT count(*) AS n, sum(item) AS s FROM part"), "n,s\n75,1875\n");
    assert_eq!(answer("SELECT count(*) AS n, count(line) AS l FROM journal"), "n,l\n3,2\n");
    assert_eq!(answer("SELECT count(*) AS n FROM dear"), "n\n161\n");
    assert_eq!(answer("SELECT nextval('tickets') > 101 AS later"), "later\ntrue\n");
    for (refused, state) in [
        ("INSERT INTO item (id, code) VALUES (2000, 50)", "23505"),
        ("INSERT INTO item (id) VALUES (3)", "23505"),
        ("INSERT INTO item (id, price) VALUES (2000, -1)", "23514"),
        ("INSERT INTO part VALUES (8, 1, NULL)", "23503"),
    ] {
        let outcome = run(directory.path(), &["sql", "--data", "db", "-c", refused]);
        assert!(outcome.stderr.contains(state), "{refused}: {}", outcome.stderr);
    }
    answer("INSERT INTO part VALUES (10, 9, 'new'); VACUUM");
    run(directory.path(), &["check", "--data", "db"]).expect_status(0);
    assert_eq!(answer("SELECT count(*) AS n FROM part"), "n\n76\n");
}
