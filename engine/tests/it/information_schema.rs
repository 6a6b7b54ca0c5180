//! The tables that describe the database.

use crate::helpers::*;

async fn with_tables() -> rustydb_engine::Session {
    let session = memory().await;
    run(&session, "CREATE TABLE parent (a int, b varchar(9) DEFAULT 'q', c numeric(12,3), CONSTRAINT parent_key PRIMARY KEY (b, a))").await;
    run(&session, "CREATE TABLE child (id int PRIMARY KEY, pa int NOT NULL, pb text, CONSTRAINT to_parent FOREIGN KEY (pa, pb) REFERENCES parent (a, b))").await;
    session
}

#[tokio::test]
async fn tables_columns_and_schemata_are_listed() {
    let session = with_tables().await;
    assert_eq!(
        query(&session, "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 3").await,
        ["rustydb|public|child|BASE TABLE", "rustydb|public|parent|BASE TABLE"]
    );
    assert_eq!(
        query(&session, "SELECT column_name, ordinal_position, column_default, is_nullable, data_type, character_maximum_length, numeric_precision, numeric_scale FROM information_schema.columns WHERE table_name = 'parent' ORDER BY 2").await,
        ["a|1|NULL|NO|integer|NULL|32|0", "b|2|'q'|NO|character varying|9|NULL|NULL", "c|3|NULL|YES|numeric|NULL|12|3"]
    );
    assert_eq!(
        query(&session, "SELECT schema_name FROM information_schema.schemata ORDER BY 1").await,
        ["information_schema", "public"]
    );
    assert!(query(&session, "SELECT * FROM information_schema.views").await.is_empty());
    assert!(!query(&session, "SELECT * FROM information_schema.df_settings").await.is_empty());
}

#[tokio::test]
async fn keys_are_listed_with_their_columns() {
    let session = with_tables().await;
    assert_eq!(
        query(&session, "SELECT table_name, constraint_name, constraint_type FROM information_schema.table_constraints ORDER BY 1, 3").await,
        ["child|to_parent|FOREIGN KEY", "child|child_pkey|PRIMARY KEY", "parent|parent_key|PRIMARY KEY"]
    );
    assert_eq!(
        query(&session, "SELECT constraint_name, column_name, ordinal_position, position_in_unique_constraint FROM information_schema.key_column_usage WHERE constraint_name <> 'child_pkey' ORDER BY 1, 3").await,
        ["parent_key|b|1|NULL", "parent_key|a|2|NULL", "to_parent|pa|1|2", "to_parent|pb|2|1"]
    );
    assert_eq!(
        query(&session, "SELECT constraint_name, unique_constraint_name, match_option, delete_rule FROM information_schema.referential_constraints").await,
        ["to_parent|parent_key|NONE|NO ACTION"]
    );
}

#[tokio::test]
async fn a_transaction_sees_its_own_tables() {
    let session = memory().await;
    run(&session, "BEGIN").await;
    run(&session, "CREATE TABLE mine (a int)").await;
    let count = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'mine'";
    assert_eq!(query(&session, count).await, ["1"]);
    assert_eq!(query(&session.database().connect(), count).await, ["0"]);
}

#[tokio::test]
async fn memory_use_is_listed_by_part() {
    let session = memory().await;
    assert_eq!(
        query(&session, "SELECT part FROM rustydb_memory ORDER BY part").await,
        [
            "column cache",
            "delete sets",
            "key indexes",
            "loads and compactions",
            "memtable",
            "queries",
            "secondary indexes",
            "transactions"
        ]
    );
    run(&session, "CREATE TABLE t (a int)").await;
    run(&session, "INSERT INTO t VALUES (1), (2)").await;
    assert_eq!(query(&session, "SELECT bytes > 0 FROM rustydb_memory WHERE part = 'memtable'").await, ["true"]);
    let within = "SELECT count(*) FROM rustydb_memory WHERE bytes > limit_bytes OR (limit_bytes IS NULL AND part <> 'delete sets')";
    assert_eq!(query(&session, within).await, ["0"]);
}

#[tokio::test]
async fn the_cache_tells_how_often_it_had_what_was_wanted() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (a int)").await;
    run(&session, "INSERT INTO t VALUES (1), (2)").await;
    run(&session, "CHECKPOINT").await;
    assert_eq!(query(&session, "SELECT sum(a) FROM t").await, ["3"]);
    let rate = "SELECT hits > 0, misses, evictions, hit_rate FROM rustydb_cache";
    assert_eq!(query(&session, rate).await, ["true|0|0|1.0"], "the flush has left the column there");
}

#[tokio::test]
async fn unknown_tables_there_get_a_hint_too() {
    let session = memory().await;
    let error = error(&session, "SELECT * FROM information_schema.tabels").await;
    assert_eq!((error.sqlstate(), error.hint()), ("42P01", Some("Did you mean \"tables\"?")));
}
