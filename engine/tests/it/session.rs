//! Settings, SHOW, and the session's own calls.

use rustydb_engine::{Database, DatabaseOptions, Value};

use crate::helpers::*;

#[tokio::test]
async fn settings_are_set_shown_and_reset() {
    let session = memory().await;
    for (statement, name, value) in [
        ("SET statement_timeout = '2s'", "statement_timeout", "2000ms"),
        ("SET application_name TO 'shop'", "application_name", "shop"),
        ("SET synchronous_commit = off", "synchronous_commit", "off"),
        ("SET TIME ZONE 'Europe/Berlin'", "timezone", "Europe/Berlin"),
        ("SET batch_size = 1000", "batch_size", "1000"),
        ("SET target_partitions = 3", "target_partitions", "3"),
        ("SET datafusion.optimizer.prefer_hash_join = false", "datafusion.optimizer.prefer_hash_join", "false"),
    ] {
        assert_eq!(run(&session, statement).await.tag, "SET");
        assert_eq!(query(&session, &format!("SHOW {name}")).await, [value], "{statement}");
        assert_eq!(session.setting(name).as_deref(), Some(value));
    }
    assert_eq!(
        query(&session.database().connect(), "SHOW application_name").await,
        [""],
        "settings are the session's own"
    );
    run(&session, "RESET ALL").await;
    assert_eq!(query(&session, "SHOW statement_timeout").await, ["0"]);
    assert_eq!(query(&session, "SHOW datafusion.optimizer.prefer_hash_join").await, ["true"]);
    assert!(query(&session, "SHOW ALL").await.len() > 5);
    session.set("Application_Name", "x").await.unwrap();
    assert_eq!(session.setting("application_name").as_deref(), Some("x"));
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let session = memory().await;
    assert_errors(
        &session,
        &[
            ("SET nonsense = 1", "42704"),
            ("SHOW nonsense", "42704"),
            ("RESET nonsense", "42704"),
            ("SET batch_size = 0", "22023"),
            ("SET target_partitions = 100000", "22023"),
            ("SET timezone = 'Mars/Olympus'", "22023"),
            ("SET synchronous_commit = maybe", "22023"),
            ("SET client_encoding = 'LATIN1'", "0A000"),
            ("SET default_transaction_isolation = 'chaos'", "22023"),
            ("SET lock_timeout = 'soon'", "22023"),
            ("SET datafusion.execution.target_partitions = 100000", "42704"),
            ("SET datafusion.optimizer.nonsense = 1", "42704"),
            ("SET server_version = '1'", "55P02"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_bound_becomes_a_time_by_the_sessions_clock() {
    let session = memory().await;
    let text = |text: &str| Value::Utf8(Some(text.to_owned()));
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, instant timestamptz, wall timestamp, note text)").await;
    run(&session, "SET timezone = 'Asia/Tokyo'").await;
    let insert = "INSERT INTO t VALUES ($1, $2, $3, $4)";
    let ten = 1_577_872_800_000_000;
    let parameters =
        [Value::Int32(Some(1)), text("2020-01-01 10:00"), text("2020-01-01 10:00:00+02"), Value::Float64(Some(1e20))];
    run_with(&session, insert, &parameters).await;
    let parameters = [
        Value::Int32(Some(2)),
        Value::TimestampMicrosecond(Some(ten), None),
        Value::TimestampMicrosecond(Some(ten), Some("UTC".into())),
        Value::TimestampMicrosecond(Some(ten), None),
    ];
    run_with(&session, insert, &parameters).await;
    let shown = query(&session, "SELECT id, instant::text, wall::text, note FROM t ORDER BY id").await;
    assert_eq!(
        shown,
        [
            "1|2020-01-01 10:00:00+09|2020-01-01 10:00:00|1e+20",
            "2|2020-01-01 10:00:00+09|2020-01-01 19:00:00|2020-01-01 10:00:00",
        ]
    );
    let found =
        query_with(&session, "SELECT id FROM t WHERE instant = $1 ORDER BY id", &[text("2020-01-01 10:00")]).await;
    assert_eq!(found, ["1", "2"]);
    let found = query_with(&session, "SELECT id FROM t WHERE wall = $1", &[text("2020-01-01 10:00:00+02")]).await;
    assert_eq!(found, ["1"]);
    let wrong = error_with(&session, "SELECT id FROM t WHERE wall = $1", &[text("no time")]).await;
    assert!(wrong.message().starts_with("parameter $1: "), "{wrong}");
}

#[tokio::test]
async fn the_time_zone_governs_what_now_shows() {
    let session = memory().await;
    run(&session, "SET TIME ZONE '+02:00'").await;
    assert_eq!(query(&session, "SELECT arrow_typeof(now())").await, ["Timestamp(µs, \"+02:00\")"]);
    assert_eq!(query(&session, "SELECT arrow_typeof(current_timestamp)").await, ["Timestamp(µs, \"+02:00\")"]);
    assert_eq!(query(&session, "SELECT now() = current_timestamp").await, ["true"]);
    assert_eq!(
        query(
            &session,
            "SELECT to_char(timestamp '2024-03-05 14:07:09', 'YYYY-MM-DD HH24:MI'), to_char(date '2024-03-05', 'FMMonth'), \
             to_char(date '2024-03-05', '%d.%m.%Y'), to_char(NULL::date, 'YYYY'), to_char(now(), 'OF')"
        )
        .await,
        ["2024-03-05 14:07|March|05.03.2024|NULL|+02"]
    );
    assert!(query(&session, "SELECT version()").await[0].starts_with("RustyDB "));
}

#[tokio::test]
async fn the_database_gives_its_sessions_their_timeout() {
    let options = DatabaseOptions {
        statement_timeout: Some(std::time::Duration::from_millis(40)),
        query_threads: Some(1),
        ..DatabaseOptions::memory()
    };
    let session = Database::open(options).await.unwrap().connect();
    assert_eq!(query(&session, "SHOW statement_timeout").await, ["40ms"]);
    assert_eq!(error(&session, "SELECT count(*) FROM generate_series(1, 1000000000000)").await.sqlstate(), "57014");
}

#[tokio::test]
async fn statements_of_one_session_run_one_after_the_other() {
    let session = std::sync::Arc::new(memory().await);
    run(&session, "CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    run(&session, "INSERT INTO t VALUES (1, 0)").await;
    let additions = (0..20).map(|_| {
        let session = std::sync::Arc::clone(&session);
        tokio::spawn(async move { affected(&session, "UPDATE t SET v = v + 1").await })
    });
    for addition in additions.collect::<Vec<_>>() {
        assert_eq!(addition.await.unwrap(), 1);
    }
    assert_eq!(query(&session, "SELECT v FROM t").await, ["20"]);
}

#[tokio::test]
async fn a_script_runs_statement_by_statement() {
    let session = memory().await;
    session
        .execute_script("CREATE TABLE t (a int); -- one; two\nINSERT INTO t VALUES (1);\nSELECT ';' FROM t;")
        .await
        .unwrap();
    assert_eq!(query(&session, "SELECT a FROM t").await, ["1"]);
}

#[tokio::test]
async fn a_join_without_end_is_ended_by_the_statement_timeout() {
    let session = memory().await;
    run(&session, "CREATE TABLE many AS SELECT i AS x FROM generate_series(1, 3000) AS s(i)").await;
    run(&session, "CREATE TABLE million AS SELECT i AS x FROM generate_series(1, 1000000) AS s(i)").await;
    run(&session, "SET statement_timeout = '100ms'").await;
    for endless in [
        // No pair passes: the join has nothing to say, for hours.
        "SELECT count(*) FROM million a JOIN million b ON a.x * b.x % 1000003 = -1",
        "SELECT sum(a.x) FROM many a CROSS JOIN many b CROSS JOIN many c CROSS JOIN many d",
        "SELECT count(*) FROM many a JOIN many b ON a.x % 2 = b.x % 2 JOIN many c ON a.x % 2 = c.x % 2 \
         JOIN many d ON a.x % 2 = d.x % 2",
    ] {
        assert_eq!(error(&session, endless).await.sqlstate(), "57014", "{endless}");
    }
}
