//! `rustydb tpch` from an empty directory, again on the same store, and on things that are not its own.

use crate::support::{directory, run};

#[test]
fn tpch_loads_runs_verifies_and_the_second_start_reuses_the_store() {
    let directory = directory();
    let arguments = ["tpch", "--scale", "0.01", "--runs", "2", "--json", "first.json"];
    let first = run(directory.path(), &arguments).expect_status(0);
    assert!(first.stdout.contains("22 of 22 answers verified"), "{}", first.stdout);
    assert!(first.stdout.contains("rows/s") && first.stdout.contains("peak memory"), "{}", first.stdout);
    assert!(first.stderr.contains("lineitem: 60,175 rows"), "plain progress: {}", first.stderr);

    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(directory.path().join(name)).unwrap()).unwrap()
    };
    let report = read("first.json");
    assert_eq!(report["load"]["rows"], 86_805);
    assert!(report["load"]["seconds"].as_f64().unwrap() > 0.0);
    let queries = report["queries"].as_array().unwrap();
    assert_eq!(queries.len(), 22);
    for query in queries {
        assert_eq!(query["verified"], true, "{query}");
        assert_eq!(query["times_ms"].as_array().unwrap().len(), 2, "{query}");
        assert_eq!(query["plan_ms"].as_array().unwrap().len(), 2, "{query}");
    }

    let arguments = ["tpch", "--scale", "0.01", "--runs", "1", "--queries", "6,1", "--json", "second.json"];
    let second = run(directory.path(), &arguments).expect_status(0);
    assert!(second.stdout.contains("2 of 2 answers verified"), "{}", second.stdout);
    assert!(second.stdout.contains("86,805 rows were there before"), "{}", second.stdout);
    let report = read("second.json");
    assert_eq!(report["load"]["rows"], 0);
    assert_eq!(report["load"]["reused_rows"], 86_805);
    assert_eq!(report["queries"][0]["query"], 6);
    assert_eq!(report["queries"].as_array().unwrap().len(), 2);

    // A changed row is a wrong answer, and a wrong answer is the exit status.
    let data = ["sql", "--data", "tpch-data/sf0.01", "-c"];
    let update = "UPDATE region SET r_name = 'ATLANTIS' WHERE r_name = 'ASIA'";
    run(directory.path(), &[&data[..], &[update]].concat()).expect_status(0);
    let wrong = run(directory.path(), &["tpch", "--scale", "0.01", "--runs", "1", "--queries", "5"]).expect_status(1);
    assert!(wrong.stdout.contains(" NO\n") && wrong.stdout.contains("1 WRONG"), "{}", wrong.stdout);

    // So is a changed number of rows, which is found before anything runs.
    run(directory.path(), &[&data[..], &["DELETE FROM lineitem WHERE l_linenumber = 7"]].concat()).expect_status(0);
    run(directory.path(), &["tpch", "--scale", "0.01"]).expect_status(3).expect_stderr(&["lineitem"]);
    let other_scale = ["tpch", "--scale", "0.1", "--data", "tpch-data/sf0.01"];
    run(directory.path(), &other_scale).expect_status(3);
}

#[test]
fn the_json_file_is_tried_before_the_work() {
    let directory = directory();
    let arguments = ["tpch", "--scale", "0.01", "--json", "no/such/place.json"];
    run(directory.path(), &arguments).expect_status(1).expect_stderr(&["no/such/place.json"]);
    assert!(!directory.path().join("tpch-data").exists());
}
