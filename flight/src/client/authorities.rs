//! The authorities whose certificates a client accepts when it is given none: those the operating system keeps, in one
//! file, where each system has its own place for it.

use std::path::{Path, PathBuf};

use super::{Result, invalid};

/// Names another file, as for OpenSSL and what is built on it.
const VARIABLE: &str = "SSL_CERT_FILE";

/// Where systems keep them.
const PLACES: [&str; 5] = [
    // Debian, Ubuntu, Arch, Gentoo
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE
    "/etc/ssl/ca-bundle.pem",
    // Alpine, macOS, BSD
    "/etc/ssl/cert.pem",
];

/// The file of the system's authorities.
pub(super) fn system_authorities() -> Result<PathBuf> {
    find(std::env::var_os(VARIABLE).map(PathBuf::from), &PLACES.map(Path::new))
}

fn find(named: Option<PathBuf>, places: &[&Path]) -> Result<PathBuf> {
    // A wrong name is not passed over: whoever set it wants no others.
    if let Some(named) = named.filter(|named| !named.as_os_str().is_empty()) {
        return Ok(named);
    }
    places.iter().find(|place| place.is_file()).map(|place| place.to_path_buf()).ok_or_else(|| {
        let error = invalid("this system keeps no certificates of authorities where they are looked for".to_owned());
        error.with_hint("give the server's certificate, or its authority's, as a PEM file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_counts_before_the_first_that_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let (missing, there) = (directory.path().join("missing.pem"), directory.path().join("there.pem"));
        std::fs::write(&there, "").expect("written");
        let places = [missing.as_path(), there.as_path()];
        assert_eq!(find(None, &places).expect("found"), there);
        assert_eq!(find(Some(PathBuf::new()), &places).expect("found"), there);
        assert_eq!(find(Some(missing.clone()), &places).expect("named"), missing);
        assert_eq!(find(None, &places[..1]).expect_err("none").sqlstate(), "22023");
    }
}
