//! Password hashes: argon2id (RFC 9106), in the PHC string format.
//!
//! A hash takes 19 MiB of memory and some 20 ms, OWASP's recommendation, so that guessing is expensive for whoever steals the file of
//! users. Verifying takes as long for a user who does not exist, so that the time does not tell who does.

use std::sync::LazyLock;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params};
use uuid::Uuid;

use crate::error::sqlstate;
use crate::{Error, Result};

/// Shorter ones are guessed.
const CHARACTERS_MIN: usize = 8;
/// Hashing reads all of it, so it has an end.
const BYTES_MAX: usize = 1024;

/// A hash that was made elsewhere may ask for this much at most: verifying it costs memory and time of ours.
const MEMORY_MAX_KIB: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 4;

/// What such a hash begins with.
pub(crate) const HASH_PREFIX: &str = "$argon2id$";

/// Verified against in place of a user's who does not exist.
static NOBODYS: LazyLock<String> =
    LazyLock::new(|| hash_of(&Uuid::new_v4().to_string()).unwrap_or_else(|_| String::new()));

/// The hash to keep for a password, which may be given as a hash already.
pub(crate) fn hash(password: &str) -> Result<String> {
    if password.starts_with(HASH_PREFIX) {
        check_hash(password)?;
        return Ok(password.to_owned());
    }
    let refused = |message: String| Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
    if password.chars().count() < CHARACTERS_MIN {
        return refused(format!("the password is shorter than {CHARACTERS_MIN} characters"));
    }
    if password.len() > BYTES_MAX {
        return refused(format!("the password is longer than {BYTES_MAX} bytes"));
    }
    hash_of(password)
}

fn hash_of(password: &str) -> Result<String> {
    let failed = |error: argon2::password_hash::Error| Error::internal(format!("hashing a password: {error}"));
    // 122 of these 128 bits are random, which is plenty for a salt: it only has to differ.
    let salt = SaltString::encode_b64(Uuid::new_v4().as_bytes()).map_err(failed)?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(failed)?;
    Ok(hash.to_string())
}

fn check_hash(text: &str) -> Result<()> {
    let is_usable = PasswordHash::new(text).ok().filter(|hash| hash.hash.is_some() && hash.salt.is_some());
    let parameters = is_usable.and_then(|hash| Params::try_from(&hash).ok());
    match parameters {
        Some(parameters)
            if parameters.m_cost() <= MEMORY_MAX_KIB
                && parameters.t_cost() <= PASSES_MAX
                && parameters.p_cost() <= LANES_MAX =>
        {
            Ok(())
        }
        Some(_) => Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "the password hash costs too much to verify")
            .with_hint(format!(
                "At most {MEMORY_MAX_KIB} KiB of memory, {PASSES_MAX} passes and {LANES_MAX} lanes are accepted."
            ))),
        None => Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "the password looks like a hash, but is none")
            .with_hint(format!("A password cannot begin with {HASH_PREFIX}."))),
    }
}

/// Whether `password` is the one behind `hash`. Takes its time also if there is none.
pub(crate) fn verify(password: &str, hash: Option<&str>) -> bool {
    if password.len() > BYTES_MAX {
        return false;
    }
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(&NOBODYS)) else { return false };
    // The algorithm and its parameters are the hash's own; the comparison is in constant time.
    let argon = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, Params::default());
    let matches = argon.verify_password(password.as_bytes(), &parsed).is_ok();
    matches && hash.is_some()
}

/// A password nobody can guess: 24 characters, some 140 random bits.
pub fn random_password() -> String {
    let mut text = String::with_capacity(24);
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    while text.len() < 24 {
        // Without the two bytes of a UUID that say what kind it is.
        let bytes = Uuid::new_v4().into_bytes();
        let random = bytes.iter().enumerate().filter(|(index, _)| *index != 6 && *index != 8);
        text.extend(random.map(|(_, byte)| char::from(LETTERS[usize::from(byte & 63)])));
    }
    text.truncate(24);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_verifies_its_password_and_no_other() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, hash("correct horse").unwrap(), "salted");
        assert!(verify("correct horse", Some(&stored)));
        assert!(!verify("correct horsf", Some(&stored)));
        assert!(!verify("correct horse", None));
        assert!(!verify("", Some("no hash")));
        assert_eq!(hash(&stored).unwrap(), stored, "a hash is kept as it is");
    }

    #[test]
    fn passwords_that_cannot_be_are_refused_without_being_quoted() {
        let long = "x".repeat(2000);
        let cheap_to_send = "$argon2id$v=19$m=4194304,t=9,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA";
        for text in ["tiny", &long, "$argon2id$nonsense", cheap_to_send] {
            let error = hash(text).unwrap_err();
            assert_eq!(error.sqlstate(), "22023");
            assert!(!error.message().contains(text), "{error:?}");
        }
    }

    #[test]
    fn random_passwords_differ_and_are_long_enough() {
        let (first, second) = (random_password(), random_password());
        assert_eq!((first.len(), second.len()), (24, 24));
        assert_ne!(first, second);
    }
}
