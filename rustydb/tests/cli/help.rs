//! The help teaches: purpose, examples, defaults, exit statuses.

use crate::support::{directory, run};

#[test]
fn every_command_explains_itself_with_examples_and_exit_statuses() {
    let directory = directory();
    for command in ["serve", "sql", "tpch", "tpcc", "chbench", "check"] {
        let help = run(directory.path(), &[command, "--help"]).expect_status(0).stdout;
        for part in ["Usage: rustydb", "Examples:", &format!("rustydb {command} "), "Exit status:", "--data <DIR>"] {
            assert!(help.contains(part), "{part:?} is not in the help of {command}:\n{help}");
        }
    }
    let help = run(directory.path(), &["--help"]).expect_status(0).stdout;
    for part in ["serve", "sql", "tpch", "tpcc", "chbench", "check", "Examples:", "Exit status:"] {
        assert!(help.contains(part), "{part:?} is not in the help:\n{help}");
    }
}

#[test]
fn defaults_are_in_the_help() {
    let directory = directory();
    for (command, default) in [
        ("serve", "./rustydb-data"),
        ("serve", "127.0.0.1:50051"),
        ("sql", "[default: ./rustydb-data]"),
        ("sql", "[default: table]"),
        ("tpch", "./tpch-data/sf<N>"),
        ("tpch", "[default: 3]"),
        ("tpcc", "[default: ./tpcc-data]"),
        ("tpcc", "10 for a new one"),
        ("chbench", "[default: 1]"),
        ("check", "[default: ./rustydb-data]"),
    ] {
        let help = run(directory.path(), &[command, "--help"]).expect_status(0).stdout;
        assert!(help.contains(default), "{default:?} is not in the help of {command}:\n{help}");
    }
}

#[test]
fn the_version_is_the_crates() {
    let output = run(directory().path(), &["--version"]).expect_status(0).stdout;
    assert!(output.starts_with(concat!("rustydb ", env!("CARGO_PKG_VERSION"))), "{output}");
}

#[test]
fn a_wrong_command_line_ends_with_status_2_and_changes_nothing() {
    let directory = directory();
    for arguments in [
        &[][..],
        &["sqll"],
        &["sql", "--format", "yaml", "-c", "SELECT 1"],
        &["sql", "--data", "d", "--url", "grpc://127.0.0.1:1", "-c", "SELECT 1"],
        &["serve", "--flight", "nonsense"],
        &["serve", "--flight", "127.0.0.1:99999"],
        &["sql", "--url", "bogus", "-c", "SELECT 1"],
        &["sql", "--url", "http://127.0.0.1:1", "-c", "SELECT 1"],
        &["sql", "--url", "grpc+tls://127.0.0.1:1", "--ca-certificate", "none.pem", "-c", "SELECT 1"],
        &["sql", "--memory-limit", "lots", "-c", "SELECT 1"],
        &["sql", "-f", "no-such-file.sql"],
        &["tpch", "--scale", "many"],
        &["tpch", "--queries", "23"],
        &["tpcc", "--warehouses", "0"],
        &["tpcc", "--mode", "fast"],
        &["tpcc", "--url", "bogus"],
        &["chbench", "--analysts", "0"],
        &["tpch", "--runs", "0"],
        &["check", "--log", "=,="],
    ] {
        let outcome = run(directory.path(), arguments).expect_status(2);
        assert!(!outcome.stderr.is_empty(), "{arguments:?} is refused without a word");
    }
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
