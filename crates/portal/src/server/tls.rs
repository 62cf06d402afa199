//! The certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::TlsFiles;

/// Why a certificate or key can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file can't be read, or holds no PEM of the right kind.
    #[error("can't read {what} from {}: {source}", file.display())]
    Unreadable {
        /// What was to be read.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// The file holds no certificate at all.
    #[error("there is no certificate in {}; it takes PEM, with lines that begin `-----BEGIN CERTIFICATE-----`", file.display())]
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// Certificate and key don't fit each other, or are of a kind that isn't supported.
    #[error("the certificate in {} and the key in {} can't be used: {source}", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
}

/// Loads certificate and key once; another certificate takes another start.
pub(super) fn load(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let unreadable = |what, file: &Path, source| TlsError::Unreadable {
        what,
        file: file.to_owned(),
        source,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|source| unreadable("a certificate", &files.cert, source))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            file: files.cert.clone(),
        });
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| unreadable("a private key", &files.key, source))?;

    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|source| TlsError::Unusable {
            cert: files.cert.clone(),
            key: files.key.clone(),
            source,
        })?;
    // Upgrades are an affair of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];

    Ok(TlsAcceptor::from(Arc::new(config)))
}
