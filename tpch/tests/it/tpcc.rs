//! What the consistency conditions of TPC-C find when data is broken on purpose, and that they find nothing otherwise.

use std::sync::Arc;
use std::time::Duration;

use rustydb_engine::{Database, DatabaseOptions};
use rustydb_tpch::tpcc::{
    self, CONDITIONS, Client, Connection, Embedded, Loaded, Mode, Observer, Options, Scale, Stop,
};

async fn small_database() -> (Embedded, Loaded) {
    let database = Database::open(DatabaseOptions::memory()).await.expect("a database in memory opens");
    let options = Options {
        warehouses: Some(2),
        reduction: Some(300),
        terminals: 3,
        duration: Duration::from_secs(2),
        warm_up: Duration::ZERO,
        mode: Mode::Statement,
        ..Options::default()
    };
    let client = Embedded::new(database, options.settings());
    let observer: Arc<dyn Observer> = Arc::new(());
    let stop = Stop::default();
    let (loaded, _) = tpcc::prepare(&client, &options, &observer, &stop).await.expect("it can be loaded");
    assert_eq!(
        broken(&mut client.connect().await.expect("a connection"), loaded.scale).await,
        [0; 0],
        "after the load"
    );
    let measured = tpcc::run_transactions(&client, loaded, &options, &observer, &stop).await.expect("it runs");
    assert!(measured.tps > 0.0);
    (client, loaded)
}

/// The conditions that do not hold, as this connection sees the data.
async fn broken<C: Connection>(connection: &mut C, scale: Scale) -> Vec<u8> {
    let mut broken = Vec::new();
    for condition in &CONDITIONS {
        if condition.check(connection, scale).await.expect("the condition is a query").is_some() {
            broken.push(condition.number);
        }
    }
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn every_condition_finds_data_that_was_broken_on_purpose() {
    let (client, loaded) = small_database().await;
    let mut connection = client.connect().await.expect("a connection");
    assert_eq!(broken(&mut connection, loaded.scale).await, [0; 0], "after the run");
    for (change, expected) in [
        ("UPDATE warehouse SET w_ytd = w_ytd + 0.01 WHERE w_id = 2", &[1, 8][..]),
        ("UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = 1 AND d_id = 3", &[2]),
        // In the middle of the new orders of the district with most of them, so that the first and the last stay; the
        // order has no carrier yet.
        (
            "DELETE FROM new_order n USING \
             (SELECT no_d_id AS d_id, min(no_o_id) + 1 AS o_id FROM new_order WHERE no_w_id = 1 \
              GROUP BY no_d_id ORDER BY count(*) DESC, no_d_id LIMIT 1) most \
             WHERE n.no_w_id = 1 AND n.no_d_id = most.d_id AND n.no_o_id = most.o_id",
            &[3, 5, 11],
        ),
        ("UPDATE orders SET o_ol_cnt = o_ol_cnt + 1 WHERE o_w_id = 1 AND o_d_id = 1 AND o_id = 1", &[4, 6]),
        ("UPDATE order_line SET ol_delivery_d = NULL WHERE ol_w_id = 1 AND ol_o_id = 1 AND ol_number = 1", &[7]),
        ("UPDATE orders SET o_carrier_id = NULL WHERE o_w_id = 2 AND o_d_id = 1 AND o_id = 1", &[5, 7]),
        (
            "UPDATE warehouse SET w_ytd = w_ytd + 1 WHERE w_id = 1; \
             UPDATE district SET d_ytd = d_ytd + 1 WHERE d_w_id = 1 AND d_id = 1",
            &[8, 9],
        ),
        ("UPDATE customer SET c_balance = c_balance + 0.01 WHERE c_w_id = 1 AND c_d_id = 2 AND c_id = 3", &[10, 12]),
        ("UPDATE customer SET c_ytd_payment = 0 WHERE c_w_id = 1 AND c_d_id = 2 AND c_id = 3", &[12]),
        ("UPDATE customer SET c_delivery_cnt = c_delivery_cnt + 1 WHERE c_w_id = 1 AND c_d_id = 2 AND c_id = 3", &[11]),
        ("DELETE FROM history WHERE h_w_id = 1 AND h_d_id = 1 AND h_c_id = 1", &[8, 9, 10]),
    ] {
        connection.begin().await.expect("a transaction");
        connection.script(&format!("{change};")).await.expect("it can be broken");
        assert_eq!(broken(&mut connection, loaded.scale).await, expected, "{change}");
        connection.roll_back().await.expect("it can be taken back");
    }
    assert_eq!(broken(&mut connection, loaded.scale).await, [0; 0], "after it was taken back");
}
