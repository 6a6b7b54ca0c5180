//! Who is calling: credentials as they travel in headers, and what becomes of them when they are good. Whether they are
//! is for the [`authenticator`](crate::authenticator) to say.
//!
//! Invariant: no credential is ever logged or echoed in an error.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustydb_engine::Identity;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::handles::Handle;
use crate::status::refuse;
use crate::stream::Compression;

/// What a session token starts with, so that an expired one is recognised instead of being taken for something else.
const SESSION_PREFIX: &str = "rustydb-session-";

/// With or without padding: Go's Flight client, and with it ADBC, sends none.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whose rights a request has, and whose handles it may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Authentication is off.
    Anyone,
    /// The holder of the n-th token of the token file.
    Token(usize),
    /// A user of the database.
    User(Identity),
}

/// Who sent a request: put into its extensions by the wrapper, read by the service.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    /// The session its token stands for; `None` for static tokens and for no token.
    pub(crate) session: Option<Handle>,
    /// The other end of the connection.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether it is ADBC's driver, which leaves the transaction id out of bulk ingests.
    pub(crate) is_adbc: bool,
    /// How many endpoints it wants a large result to come in.
    pub(crate) endpoints: usize,
    /// How it wants rows to be compressed.
    pub(crate) compression: Compression,
}

impl Caller {
    /// Somebody who has said nothing but who they are.
    pub(crate) fn new(principal: Principal, session: Option<Handle>, peer: Option<SocketAddr>) -> Self {
        Self { principal, session, peer, is_adbc: false, endpoints: 1, compression: None }
    }
}

/// What the headers of a request say.
#[derive(PartialEq)]
pub(crate) enum Credentials {
    Absent,
    Bearer(String),
    Basic { user: String, password: String },
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
                    let decoded = LENIENT_BASE64.decode(value).map_err(|_| malformed())?;
                    let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
                    let (user, password) = decoded.split_once(':').ok_or_else(malformed)?;
                    Ok(Self::Basic { user: user.to_owned(), password: password.to_owned() })
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

/// Whether a token has the form of a session's.
pub(crate) fn is_session_token(token: &str) -> bool {
    token.starts_with(SESSION_PREFIX)
}

/// The bearer token that stands for a session.
pub(crate) fn session_token(session: Handle) -> String {
    format!("{SESSION_PREFIX}{}", session.to_text())
}

fn malformed() -> Status {
    refuse("28000", "malformed authorization header")
        .hint("send \"Bearer TOKEN\" or \"Basic BASE64(user:password)\"")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
    use tonic::Code;

    fn header(value: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", value.parse().expect("header value"));
        metadata
    }

    #[test]
    fn both_header_schemes_and_no_header_are_understood() {
        let bearer = Credentials::from_metadata(&header("bearer abc")).expect("scheme in any case");
        assert!(bearer == Credentials::Bearer("abc".to_owned()));
        for password in ["se:cret", "se:cre", "se:cr"] {
            for encoding in [BASE64_STANDARD, BASE64_STANDARD_NO_PAD] {
                let basic = format!("Basic {}", encoding.encode(format!("ann:{password}")));
                let basic = Credentials::from_metadata(&header(&basic)).expect("valid");
                assert!(basic == Credentials::Basic { user: "ann".to_owned(), password: password.to_owned() });
            }
        }
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
    fn session_tokens_are_told_from_others() {
        let handle = Handle::random();
        let ours = Credentials::Bearer(session_token(handle));
        assert_eq!(ours.session().expect("ours").expect("valid"), handle);
        assert!(Credentials::Bearer(format!("{SESSION_PREFIX}nonsense")).session().expect("ours").is_err());
        assert!(Credentials::Bearer("0123456789abcdef".to_owned()).session().is_none());
    }
}
