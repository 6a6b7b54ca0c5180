//! Who is calling: credentials as they travel in headers, and the check against the static tokens.
//!
//! Invariants: no credential is ever logged or echoed in an error; comparing a token takes the same time whether and
//! wherever it differs; with authentication on, a request without valid credentials learns nothing but that.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::handles::Handle;
use crate::server::ServerError;
use crate::status::refuse;

/// What a session token starts with, so that an expired one is recognised instead of being taken for something else.
const SESSION_PREFIX: &str = "rustydb-session-";

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// Whose rights a request has, and whose handles it may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Authentication is off.
    Anyone,
    /// The holder of the n-th token of the token file.
    Token(usize),
}

/// Who sent a request: put into its extensions by the wrapper, read by the service.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    /// The session its token stands for; `None` for static tokens and for no token.
    pub(crate) session: Option<Handle>,
}

/// What the headers of a request say.
#[derive(PartialEq)]
pub(crate) enum Credentials {
    Absent,
    Bearer(String),
    Basic { password: String },
}

impl Credentials {
    /// Reads `authorization`, or `auth-token-bin` as pre-2020 Flight clients send it.
    pub(crate) fn from_metadata(metadata: &MetadataMap) -> Result<Self, Status> {
        if let Some(header) = metadata.get("authorization") {
            let header = header.to_str().map_err(|_| malformed())?;
            let (scheme, value) = header.split_once(' ').ok_or_else(malformed)?;
            let value = value.trim();
            return match scheme.to_ascii_lowercase().as_str() {
                "bearer" => Ok(Self::Bearer(value.to_owned())),
                "basic" => {
                    let decoded = BASE64_STANDARD.decode(value).map_err(|_| malformed())?;
                    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
                    let (_user, password) = decoded.split_once(':').ok_or_else(malformed)?;
                    Ok(Self::Basic { password: password.to_owned() })
                }
                _ => Err(malformed()),
            };
        }
        if let Some(token) = metadata.get_bin("auth-token-bin") {
            let token = token.to_bytes().map_err(|_| malformed())?;
            let token = String::from_utf8(token.to_vec()).map_err(|_| malformed())?;
            return Ok(Self::Bearer(token));
        }
        Ok(Self::Absent)
    }

    /// The session these credentials name, if it is a token of ours: `Some(Err)` when it looks like one but is not.
    pub(crate) fn session(&self) -> Option<Result<Handle, Status>> {
        let Self::Bearer(token) = self else { return None };
        let digits = token.strip_prefix(SESSION_PREFIX)?;
        Some(Handle::from_text(digits).ok_or_else(malformed))
    }
}

/// The bearer token that stands for a session.
pub(crate) fn session_token(session: Handle) -> String {
    format!("{SESSION_PREFIX}{}", session.to_text())
}

fn malformed() -> Status {
    refuse("28000", "malformed authorization header")
        .hint("send \"Bearer TOKEN\" or \"Basic BASE64(user:token)\"")
        .into()
}

/// Checks credentials.
pub(crate) struct Authenticator {
    /// `None`: authentication is off.
    tokens: Option<Vec<String>>,
}

impl Authenticator {
    /// Reads the token file, or turns authentication off when there is none.
    pub(crate) fn open(token_file: Option<&Path>) -> Result<Self, ServerError> {
        let Some(path) = token_file else { return Ok(Self { tokens: None }) };
        let refused = |reason: String| ServerError::TokenFile { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        let tokens = parse_tokens(&text).map_err(refused)?;
        Ok(Self { tokens: Some(tokens) })
    }

    pub(crate) fn is_on(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whose credentials these are. With authentication off, everybody's are good.
    pub(crate) fn identify(&self, credentials: &Credentials) -> Result<Principal, Status> {
        let Some(tokens) = &self.tokens else { return Ok(Principal::Anyone) };
        let secret = match credentials {
            Credentials::Bearer(token) => token,
            // Clients that only know user and password send the token as the password, under any user name.
            Credentials::Basic { password, .. } => password,
            Credentials::Absent => {
                return Err(refuse("28000", "this server asks for a token")
                    .hint("send it as \"authorization: Bearer TOKEN\", or as the password of any user name")
                    .into());
            }
        };
        // No early exit: every token is compared, so that the time taken does not tell which one matched.
        let mut found = None;
        for (index, token) in tokens.iter().enumerate() {
            if constant_time_eq(token.as_bytes(), secret.as_bytes()) {
                found = Some(Principal::Token(index));
            }
        }
        found.ok_or_else(|| refuse("28P01", "wrong token").into())
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
        if token.starts_with(SESSION_PREFIX) {
            return Err(format!("the token on line {line} starts with {SESSION_PREFIX}, which is reserved"));
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
    use tonic::Code;

    const TOKEN: &str = "0123456789abcdef";

    fn header(value: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", value.parse().expect("header value"));
        metadata
    }

    #[test]
    fn both_header_schemes_and_no_header_are_understood() {
        let bearer = Credentials::from_metadata(&header("bearer abc")).expect("scheme in any case");
        assert!(bearer == Credentials::Bearer("abc".to_owned()));
        let basic = format!("Basic {}", BASE64_STANDARD.encode("ann:se:cret"));
        let basic = Credentials::from_metadata(&header(&basic)).expect("valid");
        assert!(basic == Credentials::Basic { password: "se:cret".to_owned() });
        assert!(Credentials::from_metadata(&MetadataMap::new()).expect("valid") == Credentials::Absent);
    }

    #[test]
    fn malformed_headers_are_refused_without_echo() {
        for value in ["Bearer", "Basic !!!", "Basic c2VjcmV0", "Digest x=secret"] {
            let status = Credentials::from_metadata(&header(value)).err().expect("refused");
            assert_eq!(status.code(), Code::Unauthenticated);
            assert!(!status.message().contains("secret"));
        }
    }

    #[test]
    fn a_token_matches_only_itself() {
        let authenticator = Authenticator { tokens: Some(vec!["f".repeat(20), TOKEN.to_owned()]) };
        let by = |token: &str| authenticator.identify(&Credentials::Bearer(token.to_owned()));
        assert_eq!(by(TOKEN).expect("known"), Principal::Token(1));
        for wrong in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0"] {
            assert_eq!(by(wrong).expect_err("refused").code(), Code::Unauthenticated);
        }
        let basic = Credentials::Basic { password: TOKEN.to_owned() };
        assert_eq!(authenticator.identify(&basic).expect("known"), Principal::Token(1));
        assert!(authenticator.identify(&Credentials::Absent).is_err());
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

    #[test]
    fn session_tokens_are_told_from_others() {
        let handle = Handle::random();
        let ours = Credentials::Bearer(session_token(handle));
        assert_eq!(ours.session().expect("ours").expect("valid"), handle);
        assert!(Credentials::Bearer(format!("{SESSION_PREFIX}nonsense")).session().expect("ours").is_err());
        assert!(Credentials::Bearer(TOKEN.to_owned()).session().is_none());
    }
}
