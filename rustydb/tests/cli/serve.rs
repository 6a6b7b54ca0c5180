//! `rustydb serve`: ready line, orderly end, and the refusals.

use crate::support::{Server, directory, run, rustydb, signal, wait};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::Stdio;

#[test]
fn the_ready_line_is_all_of_standard_output_and_sigterm_ends_in_order() {
    let directory = directory();
    let server = Server::start(directory.path(), "d", &[]);
    TcpStream::connect(&server.address).expect("it listens when it says so");
    assert_eq!(server.stop(), (Some(0), String::new()));
    run(directory.path(), &["check", "--data", "d"]).expect_status(0);
}

#[test]
fn an_interrupt_ends_in_order_too() {
    let directory = directory();
    let mut server = Server::start(directory.path(), "d", &[]);
    signal(&server.child, rustix::process::Signal::INT);
    assert_eq!(wait(&mut server.child).code(), Some(0));
}

#[test]
fn a_second_process_is_told_who_has_the_directory() {
    let directory = directory();
    let server = Server::start(directory.path(), "d", &[]);
    let second: [&[&str]; 3] = [
        &["serve", "--data", "d", "--flight", "127.0.0.1:0"],
        &["sql", "--data", "d", "-c", "SELECT 1"],
        &["check", "--data", "d"],
    ];
    for arguments in second {
        run(directory.path(), arguments).expect_status(3).expect_stderr(&["process"]);
    }
    let outcome = run(directory.path(), &["sql", "--url", &server.url, "--format", "csv", "-c", "SELECT 1 AS one"]);
    assert_eq!(outcome.expect_status(0).stdout, "one\n1\n", "the first one is unharmed");
    assert_eq!(server.stop().0, Some(0));
    run(directory.path(), &["sql", "--data", "d", "-c", "SELECT 1"]).expect_status(0);
}

#[test]
fn a_port_in_use_is_named() {
    let directory = directory();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(directory.path(), &["serve", "--data", "d", "--flight", &address])
        .expect_status(3)
        .expect_stderr(&[&address, "in use"]);
    assert!(!directory.path().join("d").exists(), "no database is created for a server that cannot serve");
}

#[test]
fn it_does_not_listen_beyond_this_machine_unprotected_unless_told_to() {
    let directory = directory();
    let arguments = ["serve", "--data", "d", "--flight", "0.0.0.0:0"];
    run(directory.path(), &arguments).expect_status(2).expect_stderr(&["0.0.0.0", "--insecure"]);
    assert!(!directory.path().join("d").exists());

    let mut child = rustydb(directory.path(), &arguments).arg("--insecure").stderr(Stdio::inherit()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("flight-sql listening on 0.0.0.0:"), "{line}");
    signal(&child, rustix::process::Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn a_token_is_asked_for_when_there_is_a_token_file() {
    let directory = directory();
    std::fs::write(directory.path().join("tokens"), "a-token-of-some-length\n").unwrap();
    let server = Server::start(directory.path(), "d", &[("RUSTYDB_FLIGHT_TOKEN_FILE", "tokens")]);
    let query = ["sql", "--url", &server.url, "--format", "csv", "-c", "SELECT 1 AS one"];
    run(directory.path(), &query).expect_status(3).expect_stderr(&[
        "asks who you are (28000)",
        "--token-file",
        "RUSTYDB_TOKEN",
    ]);
    std::fs::write(directory.path().join("wrong"), "another-token-altogether\n").unwrap();
    let mut with_wrong = query.to_vec();
    with_wrong.extend(["--token-file", "wrong"]);
    run(directory.path(), &with_wrong).expect_status(3).expect_stderr(&["wrong user name, password or token (28P01)"]);
    let mut with_token = query.to_vec();
    with_token.extend(["--token-file", "tokens"]);
    assert_eq!(run(directory.path(), &with_token).expect_status(0).stdout, "one\n1\n");
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn settings_come_from_flag_environment_and_file() {
    let directory = directory();
    std::fs::write(directory.path().join("r.toml"), "data = \"from-file\"\n[flight]\naddress = \"127.0.0.1:0\"\n")
        .unwrap();
    let mut command = rustydb(directory.path(), &["serve", "--config", "r.toml", "--print-config"]);
    command.env("RUSTYDB_STATEMENT_TIMEOUT", "7s").env("RUSTYDB_DATA", "from-environment");
    let outcome = crate::support::finish(command.spawn().unwrap(), "").expect_status(0);
    for line in ["data = \"from-environment\"", "statement_timeout = \"7s\"", "address = \"127.0.0.1:0\""] {
        assert!(outcome.stdout.contains(line), "{line}: {}", outcome.stdout);
    }
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let directory = directory();
    for (text, words) in [
        ("memory_limt = \"1GiB\"\n", &["memory_limt", "memory_limit"][..]),
        ("[flight]\naddres = \"x\"\n", &["flight.address"]),
        ("data = 5\n", &["data", "a string"]),
        ("data =\n", &["r.toml"]),
    ] {
        std::fs::write(directory.path().join("r.toml"), text).unwrap();
        run(directory.path(), &["serve", "--config", "r.toml"]).expect_status(2).expect_stderr(words);
    }
    run(directory.path(), &["serve", "--config", "none.toml"]).expect_status(2).expect_stderr(&["none.toml"]);
    run(directory.path(), &["serve", "--memory-limit", "much"]).expect_status(2).expect_stderr(&["memory_limit"]);
    assert!(!directory.path().join("rustydb-data").exists());
}
