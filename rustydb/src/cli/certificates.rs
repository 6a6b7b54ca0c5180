//! Certificates for a server of one's own: an authority, a certificate for the server, and some for clients.
//!
//! ```text
//! tls/ca.pem, ca.key           the authority; clients trust ca.pem, and ca.key signs more certificates
//! tls/server.pem, server.key   the server's, for the names it is reached by
//! tls/NAME.pem, NAME.key       a client's, for mutual TLS
//! ```
//!
//! Invariant: a key is readable by its owner only, from the moment there is a file, and no file is overwritten.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Years until the authority's certificate ends, and until those it signs do.
const AUTHORITY_YEARS: i32 = 10;
const CERTIFICATE_YEARS: i32 = 3;

const SECONDS_PER_YEAR: u64 = 31_556_952;

/// Where the certificates lie.
pub(super) struct Certificates {
    directory: PathBuf,
    authority: Issuer<'static, KeyPair>,
}

/// Whose certificate it is.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Server,
    Client,
}

impl Certificates {
    /// Makes the directory and the authority in it.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(directory)?;
        let mut authority = parameters("RustyDB authority", &[], AUTHORITY_YEARS)?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = authority.self_signed(&key).map_err(io::Error::other)?;
        write(&directory.join("ca.pem"), &certificate.pem(), 0o644)?;
        write(&directory.join("ca.key"), &key.serialize_pem(), 0o600)?;
        Ok(Self { directory: directory.to_owned(), authority: Issuer::new(authority, key) })
    }

    /// Signs a certificate for `names` (of hosts, or of a person) and writes it with its key as `file`.pem and .key.
    pub(super) fn sign(&self, file: &str, role: Role, names: &[String]) -> io::Result<()> {
        let (common_name, hosts) = match role {
            Role::Server => ("RustyDB server", names),
            Role::Client => (names.first().map_or("client", String::as_str), [].as_slice()),
        };
        let mut wanted = parameters(common_name, hosts, CERTIFICATE_YEARS)?;
        wanted.use_authority_key_identifier_extension = true;
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.extended_key_usages = vec![match role {
            Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = wanted.signed_by(&key, &self.authority).map_err(io::Error::other)?;
        write(&self.directory.join(format!("{file}.pem")), &certificate.pem(), 0o644)?;
        write(&self.directory.join(format!("{file}.key")), &key.serialize_pem(), 0o600)
    }
}

fn parameters(common_name: &str, hosts: &[String], years: i32) -> io::Result<CertificateParams> {
    let mut parameters = CertificateParams::new(hosts).map_err(io::Error::other)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
    let year = 1970 + i32::try_from(seconds / SECONDS_PER_YEAR).map_err(io::Error::other)?;
    // From the beginning of this year, for clocks that are behind; to the beginning of one.
    parameters.not_before = rcgen::date_time_ymd(year, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(year + years, 1, 1);
    Ok(parameters)
}

/// Writes a new file.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_for_their_owner_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let tls = directory.path().join("tls");
        let certificates = Certificates::create(&tls).unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        certificates.sign("server", Role::Server, &hosts).unwrap();
        certificates.sign("ann", Role::Client, &["ann".to_owned()]).unwrap();
        for name in ["ca", "server", "ann"] {
            let key = std::fs::metadata(tls.join(format!("{name}.key"))).unwrap();
            assert_eq!(key.permissions().mode() & 0o777, 0o600, "{name}");
            assert!(std::fs::read_to_string(tls.join(format!("{name}.pem"))).unwrap().contains("BEGIN CERTIFICATE"));
        }
        assert!(Certificates::create(&tls).is_err());
        assert!(certificates.sign("server", Role::Server, &hosts).is_err());
    }
}
