//! Who may do what: tokens, logins, and handles of others.

use std::io::Write;

use arrow_flight::Action;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustydb_flight::FlightOptions;
use tempfile::NamedTempFile;
use tonic::Code;

use crate::support::{Client, TestServer, assert_refused, fetch, number, query, update};

const ANN: &str = "the-token-of-ann-0123456789";
const BOB: &str = "the-token-of-bob-0123456789";

async fn guarded() -> (TestServer, NamedTempFile) {
    let mut tokens = NamedTempFile::new().unwrap();
    writeln!(tokens, "# ann\n{ANN}\n\n# bob\n{BOB}").unwrap();
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.token_file = Some(tokens.path().to_owned());
    (TestServer::with(options).await, tokens)
}

#[tokio::test]
async fn nothing_works_without_a_token_or_with_a_wrong_one() {
    let (server, _tokens) = guarded().await;
    let mut client = server.client().await;
    assert_refused(query(&mut client, "SELECT 1").await, Code::Unauthenticated, "28000");
    assert_refused(client.get_catalogs().await, Code::Unauthenticated, "28000");
    assert_refused(client.begin_transaction().await, Code::Unauthenticated, "28000");
    assert_refused(update(&mut client, "CREATE TABLE t (a BIGINT)").await, Code::Unauthenticated, "28000");
    client.set_token("the-token-of-eve-0123456789".to_owned());
    let wrong = assert_refused(query(&mut client, "SELECT 1").await, Code::Unauthenticated, "28P01");
    assert!(!wrong.message().contains("eve"), "no echo: {wrong:?}");
    assert!(client.handshake("eve", "guess").await.is_err());
}

#[tokio::test]
async fn a_static_token_works_directly_and_by_login() {
    let (server, _tokens) = guarded().await;
    let mut client = server.client().await;
    client.set_token(ANN.to_owned());
    assert_eq!(number(&mut client, "SELECT 1").await, 1);

    let mut client = server.client().await;
    let payload = client.handshake("any name", BOB).await.unwrap();
    let token = client.token().unwrap().clone();
    assert_eq!(token.as_bytes(), &payload[..]);
    assert_ne!(token, BOB);
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
    update(&mut client, "BEGIN").await.expect("a login is a session");

    let mut client = server.client().await;
    client.set_header("authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("x:{ANN}"))));
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
}

#[tokio::test]
async fn a_session_token_that_is_made_up_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for token in [format!("rustydb-session-{}", "0".repeat(32)), "rustydb-session-x".to_owned()] {
        client.set_token(token);
        assert_refused(query(&mut client, "SELECT 1").await, Code::Unauthenticated, "28000");
    }
}

#[tokio::test]
async fn handles_of_others_do_not_exist() {
    let (server, _tokens) = guarded().await;
    let (mut ann, mut bob) = (server.client().await, server.client().await);
    ann.set_token(ANN.to_owned());
    bob.set_token(BOB.to_owned());

    let info = ann.execute("SELECT 1".to_owned(), None).await.unwrap();
    assert_refused(fetch(&mut bob, info.clone()).await, Code::NotFound, "34000");
    fetch(&mut ann, info).await.expect("still there for its owner");

    let transaction = ann.begin_transaction().await.unwrap();
    let theft = bob.execute("SELECT 1".to_owned(), Some(transaction)).await;
    assert_refused(theft, Code::NotFound, "25P01");
}

#[tokio::test]
async fn with_authentication_off_any_login_gets_a_session_of_its_own() {
    let server = TestServer::start().await;
    let (first, second) = (server.session().await, server.session().await);
    assert_ne!(first.token().unwrap(), second.token().unwrap());
    let mut stranger = server.client().await;
    stranger.set_token("whatever".to_owned());
    assert_eq!(number(&mut stranger, "SELECT 1").await, 1);
}

#[tokio::test]
async fn a_malformed_header_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.set_header("authorization", "nonsense");
    assert_refused(query(&mut client, "SELECT 1").await, Code::Unauthenticated, "28000");
}

#[tokio::test]
async fn closing_a_session_ends_its_token_and_its_transaction() {
    let server = TestServer::start().await;
    let mut client = server.session().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    update(&mut client, "BEGIN").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (1)").await.unwrap();
    let result = close_session(&mut client).await;
    assert_eq!(result, [0x08, 1], "CLOSED");
    assert_refused(query(&mut client, "SELECT 1").await, Code::Unauthenticated, "28000");

    let mut other = server.client().await;
    assert_eq!(number(&mut other, "SELECT count(*) FROM t").await, 0);
    assert_eq!(close_session(&mut other).await, [0x08, 3], "NOT_CLOSEABLE: there is none");
}

async fn close_session(client: &mut Client) -> Vec<u8> {
    let mut results = client.do_action(Action::new("CloseSession", "")).await.unwrap();
    results.message().await.unwrap().unwrap().body.to_vec()
}

const PASSWORD: &str = "correct horse battery";

/// A server with the administrator `ann` and the user `bob`, both with [`PASSWORD`].
async fn with_users() -> TestServer {
    let server = TestServer::start().await;
    let mut anyone = server.client().await;
    update(&mut anyone, &format!("CREATE USER ann PASSWORD '{PASSWORD}' SUPERUSER")).await.unwrap();
    let mut ann = server.client().await;
    ann.handshake("ann", PASSWORD).await.unwrap();
    update(&mut ann, &format!("CREATE USER bob PASSWORD '{PASSWORD}'")).await.unwrap();
    server
}

async fn logged_in(server: &TestServer, user: &str) -> Client {
    let mut client = server.client().await;
    client.handshake(user, PASSWORD).await.unwrap();
    client
}

#[tokio::test]
async fn users_log_in_with_their_password_and_with_nothing_else() {
    let server = with_users().await;
    let mut client = server.client().await;
    assert_refused(query(&mut client, "SELECT 1").await, Code::Unauthenticated, "28000");
    for (user, password) in [("ann", "wrong password"), ("ann", ""), ("nobody", PASSWORD), ("", PASSWORD)] {
        assert!(client.handshake(user, password).await.is_err(), "{user}");
    }
    client.handshake("ann", PASSWORD).await.unwrap();
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
    // As a header of each request, for clients that cannot log in.
    let mut client = server.client().await;
    client.set_header("authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("bob:{PASSWORD}"))));
    assert_eq!(number(&mut client, "SELECT 1").await, 1);
}

#[tokio::test]
async fn only_administrators_manage_users_and_everybody_their_own_password() {
    let server = with_users().await;
    let (mut ann, mut bob) = (logged_in(&server, "ann").await, logged_in(&server, "bob").await);
    for sql in [
        "CREATE USER eve PASSWORD 'long enough'",
        "ALTER USER ann PASSWORD 'long enough'",
        "ALTER USER bob SUPERUSER",
        "DROP USER ann",
        "ALTER USER ann RENAME TO eve",
    ] {
        assert_refused(update(&mut bob, sql).await, Code::PermissionDenied, "42501");
    }
    let users = query(&mut bob, "SHOW USERS").await.unwrap();
    assert_eq!(crate::support::texts(&users, "name"), ["bob"], "their own");
    let users = query(&mut ann, "SHOW USERS").await.unwrap();
    assert_eq!(crate::support::texts(&users, "administrator"), ["YES", "NO"]);

    update(&mut bob, "ALTER USER CURRENT_USER PASSWORD 'another password'").await.unwrap();
    let over = assert_refused(query(&mut bob, "SELECT 1").await, Code::Unauthenticated, "28000");
    assert!(over.message().contains("log in again"), "{over:?}");
    assert!(server.client().await.handshake("bob", PASSWORD).await.is_err());
    server.client().await.handshake("bob", "another password").await.unwrap();
    let last = update(&mut ann, "ALTER USER ann NOSUPERUSER").await;
    assert_refused(last, Code::FailedPrecondition, "2BP01");
}

#[tokio::test]
async fn a_user_who_is_dropped_is_out_at_once() {
    let server = with_users().await;
    let (mut ann, mut bob) = (logged_in(&server, "ann").await, logged_in(&server, "bob").await);
    update(&mut bob, "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    update(&mut bob, "BEGIN").await.unwrap();
    update(&mut bob, "INSERT INTO t VALUES (1)").await.unwrap();
    update(&mut ann, "DROP USER bob").await.unwrap();
    assert_refused(update(&mut bob, "COMMIT").await, Code::Unauthenticated, "28000");
    assert_eq!(number(&mut ann, "SELECT count(*) FROM t").await, 0, "rolled back");
    assert_refused(update(&mut ann, "DROP USER bob").await, Code::NotFound, "42704");
    assert_refused(update(&mut ann, "DROP USER ann").await, Code::FailedPrecondition, "55006");
}

#[tokio::test]
async fn the_first_user_must_be_able_to_let_others_in() {
    let server = TestServer::start().await;
    let mut client = server.session().await;
    for sql in ["CREATE USER ann", "CREATE USER ann PASSWORD 'long enough'", "CREATE USER ann SUPERUSER"] {
        assert_refused(update(&mut client, sql).await, Code::FailedPrecondition, "2BP01");
    }
    assert_refused(update(&mut client, "CREATE USER a PASSWORD 'x' SUPERUSER").await, Code::InvalidArgument, "22023");
    update(&mut client, "BEGIN").await.unwrap();
    let inside = update(&mut client, "CREATE USER ann PASSWORD 'long enough' SUPERUSER").await;
    assert_refused(inside, Code::FailedPrecondition, "25001");
    update(&mut client, "ROLLBACK").await.unwrap();
    update(&mut client, "CREATE USER ann PASSWORD 'long enough' SUPERUSER").await.unwrap();
    assert_refused(query(&mut client, "SELECT 1").await, Code::Unauthenticated, "28000");
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down() {
    let server = with_users().await;
    let header = async |user: &str, password: &str| {
        let mut client = server.client().await;
        client.set_header("authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
        query(&mut client, "SELECT 1").await
    };
    for _ in 0..6 {
        assert_refused(header("bob", "a wrong password").await, Code::Unauthenticated, "28P01");
    }
    let slowed = assert_refused(header("bob", PASSWORD).await, Code::ResourceExhausted, "53300");
    assert!(slowed.message().contains("try again in"), "even with the right one: {slowed:?}");
    header("ann", PASSWORD).await.expect("others are not affected");
}

#[tokio::test]
async fn a_session_ends_with_its_lifetime() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.session_lifetime = std::time::Duration::from_millis(300);
    let server = TestServer::with(options).await;
    let mut client = server.session().await;
    let ended = async {
        // Using it does not help.
        while query(&mut client, "SELECT 1").await.is_ok() {}
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ended).await.expect("it ends");
    assert_refused(query(&mut client, "SELECT 1").await, Code::Unauthenticated, "28000");
}
