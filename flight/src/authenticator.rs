//! Credentials are checked: against the users of the database, and the static tokens of a file.
//!
//! | there are | then |
//! |---|---|
//! | neither | nobody is asked who they are |
//! | users | a request needs a session token, which Handshake gives for name and password |
//! | tokens | a request needs a token, or a session token got with one; whoever has a token has all rights |
//!
//! Invariants: no credential is ever logged or echoed in an error; comparing a token takes the same time whether and
//! wherever it differs, and checking a password the same whether the user exists; with authentication on, a request
//! without valid credentials learns nothing but that. Passwords are checked off the network's threads, a few at a time,
//! because each costs memory and time on purpose.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rustydb_engine::Database;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::auth::{Credentials, Principal, is_session_token};
use crate::server::ServerError;
use crate::status::{internal, refuse};
use crate::throttle::{Attempt, Throttle};

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Passwords checked at the same time: 19 MiB and a core each.
const CHECKS_AT_ONCE: usize = 2;
/// How long a login waits for its turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(20);

/// Checks credentials.
pub(crate) struct Authenticator {
    database: Database,
    /// `None`: there is no token file.
    tokens: Option<Vec<String>>,
    throttle: Throttle,
    checks: Semaphore,
}

/// The tokens of the token file, if there is one.
pub(crate) fn read_tokens(token_file: Option<&Path>) -> Result<Option<Vec<String>>, ServerError> {
    let read = |path: &Path| {
        let refused = |reason: String| ServerError::TokenFile { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        parse_tokens(&text).map_err(refused)
    };
    token_file.map(read).transpose()
}

impl Authenticator {
    pub(crate) fn new(tokens: Option<Vec<String>>, database: Database) -> Self {
        Self { database, tokens, throttle: Throttle::default(), checks: Semaphore::new(CHECKS_AT_ONCE) }
    }

    /// Whether clients must say who they are. The first CREATE USER turns this on.
    pub(crate) fn is_on(&self) -> bool {
        self.tokens.is_some() || self.database.has_users()
    }

    /// Whether whoever logged in before may still do so.
    pub(crate) fn is_current(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Anyone => !self.is_on(),
            Principal::Token(_) => true,
            Principal::User(identity) => self.database.is_current(identity),
        }
    }

    /// Whose credentials these are. With authentication off, everybody's are good.
    pub(crate) async fn identify(
        &self,
        credentials: Credentials,
        address: Option<IpAddr>,
    ) -> Result<Principal, Status> {
        if !self.is_on() {
            return Ok(Principal::Anyone);
        }
        let (user, secret) = match credentials {
            Credentials::Bearer(token) if !token.is_empty() => (String::new(), token),
            Credentials::Basic { user, password } if !password.is_empty() => (user, password),
            // Clients that have no secret send an empty one: it is missing, not wrong.
            _ => {
                return Err(refuse("28000", "this server asks who you are")
                    .hint("log in with a user name and password, or send a token as \"authorization: Bearer TOKEN\"")
                    .into());
            }
        };
        let attempt = Attempt::new(address, &user);
        self.throttle.admit(&attempt)?;
        // Clients that only know user and password send a token as the password, under any user name.
        let found = match self.token(&secret) {
            Some(token) => Some(token),
            None => self.user(user, secret).await?,
        };
        match found {
            Some(principal) => {
                self.throttle.succeeded(&attempt);
                Ok(principal)
            }
            None => {
                tracing::warn!(address = ?address, "a login failed");
                self.throttle.failed(attempt);
                Err(refuse("28P01", "wrong user name, password or token").into())
            }
        }
    }

    fn token(&self, secret: &str) -> Option<Principal> {
        // No early exit: every token is compared, so that the time taken does not tell which one matched.
        let mut found = None;
        for (index, token) in self.tokens.iter().flatten().enumerate() {
            if constant_time_eq(token.as_bytes(), secret.as_bytes()) {
                found = Some(Principal::Token(index));
            }
        }
        found
    }

    async fn user(&self, name: String, password: String) -> Result<Option<Principal>, Status> {
        if name.is_empty() || !self.database.has_users() {
            return Ok(None);
        }
        let turn = tokio::time::timeout(TURN_WAIT_MAX, self.checks.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(refuse("53300", "too many logins at the same time").hint("try again later").into());
        };
        let database = self.database.clone();
        let check = tokio::task::spawn_blocking(move || database.authenticate(&name, &password));
        Ok(check.await.map_err(internal)?.map(Principal::User))
    }
}

fn parse_tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        let line = index + 1;
        if token.len() < TOKEN_BYTES_MIN {
            return Err(format!("the token on line {line} is shorter than {TOKEN_BYTES_MIN} characters"));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("the token on line {line} has characters that cannot travel in a header"));
        }
        if is_session_token(token) {
            return Err(format!("the token on line {line} has the form of a session's, which is reserved"));
        }
        tokens.push(token.to_owned());
    }
    match tokens.is_empty() {
        true => Err("there is no token in it; write one per line".to_owned()),
        false => Ok(tokens),
    }
}

/// Equality in a time that depends on the length of `secret` only, which is the caller's own.
fn constant_time_eq(token: &[u8], secret: &[u8]) -> bool {
    let mut difference = token.len() ^ secret.len();
    for (index, byte) in secret.iter().enumerate() {
        let other = token.get(index).copied().unwrap_or_default();
        difference |= usize::from(byte ^ other);
    }
    // Keeps the optimiser from leaving the loop at the first difference.
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustydb_engine::DatabaseOptions;
    use tonic::Code;

    const TOKEN: &str = "0123456789abcdef";

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    async fn database() -> Database {
        Database::open(DatabaseOptions::memory()).await.expect("opens")
    }

    #[tokio::test]
    async fn a_token_matches_only_itself() {
        let tokens = Some(vec!["f".repeat(20), TOKEN.to_owned()]);
        let authenticator = Authenticator::new(tokens, database().await);
        let by = async |token: &str| authenticator.identify(Credentials::Bearer(token.to_owned()), None).await;
        assert_eq!(by(TOKEN).await.expect("known"), Principal::Token(1));
        for wrong in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0"] {
            assert_eq!(by(wrong).await.expect_err("refused").code(), Code::Unauthenticated);
        }
        assert_eq!(authenticator.identify(basic("x", TOKEN), None).await.expect("known"), Principal::Token(1));
        assert!(authenticator.identify(Credentials::Absent, None).await.is_err());
    }

    #[tokio::test]
    async fn the_first_user_turns_authentication_on() {
        let database = database().await;
        let authenticator = Authenticator::new(None, database.clone());
        assert_eq!(authenticator.identify(Credentials::Absent, None).await.expect("off"), Principal::Anyone);
        assert!(authenticator.is_current(&Principal::Anyone));
        let session = database.connect();
        session.execute("CREATE USER ann PASSWORD 'correct horse' SUPERUSER", &[]).await.expect("created");
        assert!(!authenticator.is_current(&Principal::Anyone));
        assert!(authenticator.identify(Credentials::Absent, None).await.is_err());
        let ann = authenticator.identify(basic("ann", "correct horse"), None).await.expect("right");
        assert!(authenticator.is_current(&ann));
        for wrong in [basic("ann", "correct horsf"), basic("bob", "correct horse"), basic("", "correct horse")] {
            let status = authenticator.identify(wrong, None).await.expect_err("refused");
            assert_eq!(status.message(), "[28P01] wrong user name, password or token");
        }
        session.execute("ALTER USER ann PASSWORD 'battery staple'", &[]).await.expect("changed");
        assert!(!authenticator.is_current(&ann), "must log in again");
    }

    #[test]
    fn token_files_are_checked_when_they_are_read() {
        assert_eq!(parse_tokens(&format!("# mine\n\n  {TOKEN}  \n")).expect("valid"), [TOKEN]);
        for (text, reason) in
            [("", "no token"), ("short", "shorter"), ("with space in the middle", "header"), ("# only", "no token")]
        {
            assert!(parse_tokens(text).expect_err(text).contains(reason));
        }
    }
}
