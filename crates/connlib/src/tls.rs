//! TLS towards servers: whom to trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use connlib_wire::secret::Secret;
use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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
    /// What is given as our own certificate is none.
    #[error(
        "the client certificate can't be read: {source}; give the chain in PEM, our own certificate first"
    )]
    ClientCertificate {
        /// What is wrong.
        source: Arc<pem::Error>,
    },
    /// What is given as our own certificate's key is none.
    #[error(
        "the client certificate's key can't be read: {source}; give it in PEM, without a passphrase"
    )]
    ClientKey {
        /// What is wrong.
        source: Arc<pem::Error>,
    },
    /// Our own certificate and its key can't be used, or don't belong together.
    #[error(
        "the client certificate can't be used with its key: {source}; give both of one kind, and of one pair"
    )]
    ClientPair {
        /// What is wrong.
        source: rustls::Error,
    },
    /// Our own certificate would not be shown.
    #[error("a client certificate is shown over TLS alone; give the portal's address with wss:")]
    Plaintext,
    /// The TLS library doesn't work.
    #[error("TLS can't be set up: {source}; this is a bug")]
    Library {
        /// What it says.
        source: rustls::Error,
    },
}

/// What tells a server who we are.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate {
    /// In PEM, our own certificate first.
    pub(crate) chain: String,
    /// In PEM.
    pub(crate) key: Secret,
}

/// What a client trusts: the well-known roots, and those in `ca_file`.
pub(crate) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    Ok(trusting(ca_file)?.with_no_client_auth())
}

/// The same for a client that shows a certificate where it is asked for one.
pub(crate) fn client_config_with(
    ca_file: Option<&Path>,
    certificate: &ClientCertificate,
) -> Result<ClientConfig, TlsError> {
    let unreadable = |source| TlsError::ClientCertificate {
        source: Arc::new(source),
    };
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes());
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(unreadable)?;
    if chain.is_empty() {
        return Err(unreadable(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(certificate.key.expose().as_bytes());
    let key = key.map_err(|source| TlsError::ClientKey {
        source: Arc::new(source),
    })?;

    trusting(ca_file)?
        .with_client_auth_cert(chain, key)
        .map_err(|source| TlsError::ClientPair { source })
}

fn trusting(
    ca_file: Option<&Path>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = ca_file {
        add_roots(&mut roots, path)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Library { source })?;

    Ok(builder.with_root_certificates(roots))
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
