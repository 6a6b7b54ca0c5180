//! Foreign keys: declared, enforced on both sides, small and large.

use crate::helpers::*;

async fn with_tables() -> rustydb_engine::Session {
    let session = memory().await;
    run(&session, "CREATE TABLE parent (a int, b text, PRIMARY KEY (a, b))").await;
    run(
        &session,
        "CREATE TABLE child (id int PRIMARY KEY, pb text, pa bigint, FOREIGN KEY (pb, pa) REFERENCES parent (b, a))",
    )
    .await;
    run(&session, "INSERT INTO parent VALUES (1, 'x'), (2, 'y')").await;
    session
}

#[tokio::test]
async fn new_rows_need_their_parent() {
    let session = with_tables().await;
    assert_eq!(
        affected(&session, "INSERT INTO child VALUES (1, 'x', 1), (2, 'y', 2), (3, NULL, 1), (4, 'zz', NULL)").await,
        4
    );
    let error = error(&session, "INSERT INTO child VALUES (5, 'x', 1), (6, 'y', 1)").await;
    assert_eq!(error.sqlstate(), "23503", "{error:?}");
    assert!(error.message().contains("\"child\"") && error.message().contains("\"child_pb_pa_fkey\""), "{error:?}");
    assert_eq!(error.detail(), Some("Key (pa, pb)=(1, y) is not present in table \"parent\"."));
    assert_errors(&session, &[("INSERT INTO child VALUES (7, 'x', 9000000000)", "23503")]).await;
    assert_eq!(query(&session, "SELECT count(*) FROM child").await, ["4"]);
}

#[tokio::test]
async fn updates_of_referring_columns_are_checked() {
    let session = with_tables().await;
    run(&session, "INSERT INTO child VALUES (1, 'x', 1)").await;
    assert_eq!(error(&session, "UPDATE child SET pa = 2").await.sqlstate(), "23503");
    assert_eq!(affected(&session, "UPDATE child SET pa = 2, pb = 'y'").await, 1);
    assert_eq!(affected(&session, "UPDATE child SET id = 10").await, 1);
}

#[tokio::test]
async fn parents_that_are_referred_to_stay() {
    let session = with_tables().await;
    run(&session, "INSERT INTO child VALUES (1, 'x', 1)").await;
    let refused = error(&session, "DELETE FROM parent").await;
    assert_eq!(refused.sqlstate(), "23503", "{refused:?}");
    assert!(refused.message().contains("\"parent\"") && refused.message().contains("\"child\""), "{refused:?}");
    assert_eq!(error(&session, "UPDATE parent SET a = 5 WHERE b = 'x'").await.sqlstate(), "23503");
    assert_eq!(affected(&session, "DELETE FROM parent WHERE b = 'y'").await, 1);
    assert_eq!(affected(&session, "UPDATE parent SET a = a").await, 1);
    assert_eq!(error(&session, "DROP TABLE parent").await.sqlstate(), "2BP01");
    run(&session, "DELETE FROM child").await;
    assert_eq!(affected(&session, "DELETE FROM parent").await, 1);
    run(&session, "DROP TABLE parent, child").await;
}

#[tokio::test]
async fn bulk_loads_are_checked_as_a_whole() {
    let session = memory().await;
    run(&session, "CREATE TABLE p (id bigint PRIMARY KEY)").await;
    run(&session, "CREATE TABLE c (id bigint PRIMARY KEY, p bigint REFERENCES p)").await;
    run(&session, "INSERT INTO p SELECT n FROM generate_series(1, 1000) s(n)").await;
    assert_eq!(affected(&session, "INSERT INTO c SELECT n, CASE WHEN n % 10 = 0 THEN NULL ELSE n % 1000 + 1 END FROM generate_series(1, 150000) s(n)").await, 150_000);
    let error = error(
        &session,
        "INSERT INTO c SELECT n, CASE WHEN n = 299999 THEN 1001 ELSE 1 END FROM generate_series(150001, 300000) s(n)",
    )
    .await;
    assert_eq!((error.sqlstate(), error.detail()), ("23503", Some("Key (p)=(1001) is not present in table \"p\".")));
    assert_eq!(query(&session, "SELECT count(*) FROM c").await, ["150000"]);
    assert_eq!(affected(&session, "DELETE FROM p WHERE id = 1 AND false").await, 0);
    assert_eq!(crate::helpers::error(&session, "DELETE FROM p WHERE id = 500").await.sqlstate(), "23503");
}

#[tokio::test]
async fn declarations_must_refer_to_the_primary_key() {
    let session = with_tables().await;
    run(&session, "CREATE TABLE keyless (a int)").await;
    assert_errors(&session, &[
        ("CREATE TABLE c (a int REFERENCES parent (a))", "42830"),
        ("CREATE TABLE c (a int REFERENCES parent)", "42830"),
        ("CREATE TABLE c (a int REFERENCES keyless)", "42704"),
        ("CREATE TABLE c (a int, b int, FOREIGN KEY (a, b) REFERENCES parent)", "42804"),
        ("CREATE TABLE c (a int REFERENCES nowhere)", "42P01"),
        ("CREATE TABLE c (a int, b int REFERENCES c)", "42704"),
        ("CREATE TABLE c (a int, b text, FOREIGN KEY (a, b) REFERENCES parent MATCH PARTIAL)", "0A000"),
        ("CREATE TABLE c (a int, b text, FOREIGN KEY (a, b) REFERENCES parent NOT DEFERRABLE INITIALLY DEFERRED)", "42601"),
        ("CREATE TABLE c (a int, b text, CONSTRAINT k FOREIGN KEY (a, b) REFERENCES parent, CONSTRAINT k FOREIGN KEY (a, b) REFERENCES parent)", "42710"),
    ]).await;
    run(
        &session,
        "CREATE TABLE c (a int, b text, FOREIGN KEY (a, b) REFERENCES parent ON DELETE RESTRICT ON UPDATE NO ACTION)",
    )
    .await;
}

#[tokio::test]
async fn checks_hold_against_concurrent_transactions() {
    let first = with_tables().await;
    let second = first.database().connect();
    run(&first, "BEGIN").await;
    run(&first, "INSERT INTO child VALUES (1, 'x', 1)").await;
    run(&second, "SET lock_timeout = '5ms'").await;
    assert_eq!(error(&second, "DELETE FROM parent WHERE b = 'x'").await.sqlstate(), "55P03");
    run(&first, "COMMIT").await;
    assert_eq!(error(&second, "DELETE FROM parent WHERE b = 'x'").await.sqlstate(), "23503");
    assert_eq!(query(&first, "SELECT count(*) FROM child").await, ["1"]);
}
