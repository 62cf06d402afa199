//! An authority that lives for one run, and the portal's certificate by it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::exit::{Exit, Failure};

/// Files for TLS.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    /// What peers trust.
    pub(crate) ca: PathBuf,
    /// What the portal shows.
    pub(crate) cert: PathBuf,
    /// What the portal proves it with.
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// Makes an authority, and a certificate for a server at `address`, in `directory`. The authority's key is thrown
    /// away: nobody can make a second certificate.
    ///
    /// # Errors
    ///
    /// Exit 1: a key can't be made. Exit 5: a file can't be written.
    pub(crate) fn create(directory: &Path, address: SocketAddr) -> Result<Self, Failure> {
        let (ca, cert, key) = make(address).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format_args!("can't make the portal's certificates: {error}"),
            )
        })?;
        let place = |name: &str, contents: String| {
            let path = directory.join(name);
            write_private(&path, &contents)
                .map_err(|error| Failure::os(format_args!("write {}", path.display()), &error))?;
            Ok::<_, Failure>(path)
        };

        Ok(Self {
            ca: place("ca.pem", ca)?,
            cert: place("portal.pem", cert)?,
            key: place("portal.key", key)?,
        })
    }
}

/// Writes a new file that nobody else may read.
pub(crate) fn write_private(path: &Path, contents: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(contents.as_bytes())
}

fn make(address: SocketAddr) -> Result<(String, String, String), rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "connlib demo authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate()?;
    let authority_cert = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);

    let mut portal = CertificateParams::default();
    portal
        .distinguished_name
        .push(DnType::CommonName, "connlib demo portal");
    portal.subject_alt_names = vec![SanType::IpAddress(address.ip())];
    portal.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    portal.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let portal_key = KeyPair::generate()?;
    let portal_cert = portal.signed_by(&portal_key, &issuer)?;

    Ok((
        authority_cert.pem(),
        portal_cert.pem(),
        portal_key.serialize_pem(),
    ))
}
