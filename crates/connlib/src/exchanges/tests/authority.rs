//! Somebody who says who is who.

use std::io::Write as _;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub(super) file: NamedTempFile,
}

/// Until when a certificate is good.
#[derive(Clone, Copy)]
pub(super) enum Validity {
    Current,
    Expired,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut file = NamedTempFile::new().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();

        Self {
            issuer: Issuer::new(params, key),
            file,
        }
    }

    /// A server that this authority calls `name`.
    pub(super) fn acceptor(&self, name: &str, protocols: &[&str]) -> TlsAcceptor {
        self.acceptor_until(name, protocols, Validity::Current)
    }

    pub(super) fn acceptor_until(
        &self,
        name: &str,
        protocols: &[&str],
        validity: Validity,
    ) -> TlsAcceptor {
        let (certificate, key) = self.certify(name, validity);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|&name| name.into()).collect();

        TlsAcceptor::from(Arc::new(config))
    }

    pub(super) fn certify(&self, name: &str, validity: Validity) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if matches!(validity, Validity::Expired) {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }

        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}
