//! TLS towards servers: whom to trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};

/// Why there is no TLS.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of extra root certificates can't be read.
    #[error("can't read the root certificates in {path}: {source}; give a readable PEM file", path = path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: Arc<pem::Error>,
    },
    /// The file of extra root certificates holds none.
    #[error("{path} holds no certificate; give a PEM file with at least one", path = path.display())]
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// A certificate in the file can't be a root.
    #[error("a certificate in {path} can't be a root: {source}; give that of an authority", path = path.display())]
    BadCertificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The TLS library doesn't work.
    #[error("TLS can't be set up: {source}; this is a bug")]
    Library {
        /// What it says.
        source: rustls::Error,
    },
}

/// What a client trusts: the well-known roots, and those in `ca_file`.
pub(crate) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = ca_file {
        add_roots(&mut roots, path)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Library { source })?
        .with_root_certificates(roots)
        .with_no_client_auth();

    Ok(config)
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let unreadable = |source| TlsError::CaFile {
        path: path.into(),
        source: Arc::new(source),
    };
    let mut count = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots
            .add(certificate)
            .map_err(|source| TlsError::BadCertificate {
                path: path.into(),
                source,
            })?;
        count += 1;
    }
    if count == 0 {
        return Err(TlsError::NoCertificate { path: path.into() });
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let path = Path::new("/nonexistent/ca.pem");
        let error = client_config(Some(path)).unwrap_err();

        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let path = std::env::current_exe().unwrap();
        let error = client_config(Some(&path)).unwrap_err();

        assert!(matches!(error, TlsError::NoCertificate { .. }), "{error}");
    }
}
