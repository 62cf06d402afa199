//! Who is trusted, and who is shown what.

use std::io::Write as _;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::TlsAcceptor;

use super::*;

#[tokio::test]
async fn an_extra_root_makes_a_private_portal_trusted_under_its_name_alone() {
    let ours = Authority::new();
    let others = Authority::new();
    for (authority, names, is_trusted) in [
        (&ours, "127.0.0.1", true),
        (&others, "127.0.0.1", false),
        (&ours, "portal.example", false),
    ] {
        let mut rig = Rig::trusting(Some(Duration::ZERO), "wss", Some(&ours.file)).await;
        rig.connect(KEY).await;
        let (stream, _) = rig.listener.accept().await.unwrap();
        let accepted = authority.acceptor(names).accept(stream).await;

        if is_trusted {
            let mut socket = accept_async(accepted.unwrap()).await.unwrap();
            let join = socket.next().await.unwrap().unwrap();
            assert!(join.into_text().unwrap().contains("phx_join"));
            continue;
        }
        let FromUplink::Failed(UplinkError::GaveUp { last, .. }) = rig.event().await else {
            panic!("it goes on");
        };
        assert!(matches!(last, ConnectError::Tls { .. }), "{last}");
    }
}

#[tokio::test]
async fn a_portal_that_asks_sees_our_certificate_and_wants_no_token() {
    let (ours, others) = (Authority::new(), Authority::new());
    for (certificate, is_welcome) in [
        (Some(ours.client("laptop")), true),
        (Some(others.client("laptop")), false),
        (None, false),
    ] {
        let shown = certificate
            .as_ref()
            .map(|certificate| certificate.chain.clone());
        let rig =
            Rig::<OfClient>::start(Some(&ours.file), |addr| showing(addr, "wss", certificate));
        let rig = rig.await;
        rig.connect(KEY).await;
        let (stream, _) = rig.listener.accept().await.unwrap();
        let accepted = ours.curious("127.0.0.1").accept(stream).await;

        assert_eq!(accepted.is_ok(), is_welcome);
        let Ok(mut stream) = accepted else { continue };
        let seen = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let shown = CertificateDer::from_pem_slice(shown.unwrap().as_bytes()).unwrap();
        assert_eq!(seen, shown);
        let request = read_head(&mut stream).await;
        assert!(!request.contains("x-authorization") && !request.contains("token"));
    }
}

#[tokio::test]
async fn a_proxy_does_not_see_our_certificate() {
    let ours = Authority::new();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = proxy.local_addr().unwrap();
    let rig = Rig::<OfClient>::start(Some(&ours.file), |addr| UplinkConfig {
        proxy: Some(format!("https://{at}").parse().unwrap()),
        ..showing(addr, "wss", Some(ours.client("laptop")))
    });
    let rig = rig.await;
    rig.connect(KEY).await;
    let (stream, _) = proxy.accept().await.unwrap();

    assert!(ours.curious("127.0.0.1").accept(stream).await.is_err());
}

#[test]
fn a_certificate_that_would_not_be_shown_or_can_not_be_used_is_refused() {
    let ours = Authority::new();
    let good = ours.client("laptop");
    let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let refusal = |scheme, chain: &str, key: &Secret| {
        let certificate = ClientCertificate {
            chain: chain.to_owned(),
            key: key.clone(),
        };
        let config = showing(addr, scheme, Some(certificate));
        let (_, commands) = mpsc::channel(1);
        let (events, _) = mpsc::channel(1);
        let uplink = Uplink::<OfClient>::new(config, None, None, None, commands, events);

        uplink.err().map(|error| error.to_string())
    };
    let pem = good.chain.as_str();
    let other = ours.client("laptop").key;
    assert_eq!(refusal("wss", pem, &good.key), None);
    for (scheme, chain, key, expected) in [
        ("ws", pem, &good.key, "wss:"),
        ("wss", "", &good.key, "the client certificate can't be read"),
        (
            "wss",
            good.key.expose(),
            &good.key,
            "the client certificate can't be read",
        ),
        ("wss", pem, &Secret::from(""), "key can't be read"),
        ("wss", pem, &Secret::from(pem), "key can't be read"),
        ("wss", pem, &other, "with its key"),
    ] {
        let told = refusal(scheme, chain, key).unwrap();
        assert!(told.contains(expected), "{told}");
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_or_is_not_yet_valid_is_told_as_such_and_tried_again() {
    let authority = Authority::new();
    let (old, early) = ((2001, 2002), (2901, 2902));
    for (validity, complaint) in [(old, "expired"), (early, "not valid yet")] {
        let mut rig = Rig::trusting(None, "wss", Some(&authority.file)).await;
        rig.connect(KEY).await;
        let (stream, _) = rig.listener.accept().await.unwrap();
        let accepted = authority.valid(validity).accept(stream).await;
        assert!(accepted.is_err(), "{complaint}");

        let Some(FromUplink::Failing(error, _)) = rig.events.recv().await else {
            panic!("{complaint}: it isn't told");
        };
        assert!(error.to_string().contains(complaint), "{error}");
        let (stream, _) = rig.listener.accept().await.unwrap();
        authority
            .acceptor("127.0.0.1")
            .accept(stream)
            .await
            .unwrap();
    }
}

fn showing(addr: SocketAddr, scheme: &str, certificate: Option<ClientCertificate>) -> UplinkConfig {
    UplinkConfig {
        url: PortalUrl::parse(&format!("{scheme}://{addr}")).unwrap(),
        token: None,
        certificate,
        proxy: None,
        introduction: Introduction::default(),
        join: to_raw_value(&()).unwrap(),
        max_partition_time: Some(Duration::ZERO),
        seed: [7; 32],
    }
}

/// Somebody who says who is who.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub(super) file: NamedTempFile,
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
    pub(super) fn acceptor(&self, name: &str) -> TlsAcceptor {
        let config = server().with_no_client_auth();

        self.named(config, name)
    }

    /// The same that wants to see a certificate by this authority.
    fn curious(&self, name: &str) -> TlsAcceptor {
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(&self.file).unwrap() {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let config = server().with_client_cert_verifier(verifier.build().unwrap());

        self.named(config, name)
    }

    fn named(
        &self,
        config: ConfigBuilder<ServerConfig, WantsServerCert>,
        name: &str,
    ) -> TlsAcceptor {
        self.serving(config, self.pair(name))
    }

    /// The same with a certificate that is valid from the beginning of one year to that of another.
    fn valid(&self, (from, to): (i32, i32)) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();

        self.serving(server().with_no_client_auth(), (certificate, key))
    }

    fn serving(
        &self,
        config: ConfigBuilder<ServerConfig, WantsServerCert>,
        (certificate, key): (Certificate, KeyPair),
    ) -> TlsAcceptor {
        let config = config.with_single_cert(vec![certificate.der().clone()], key.into());

        TlsAcceptor::from(Arc::new(config.unwrap()))
    }

    fn pair(&self, name: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();

        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// What a client called `name` shows.
    fn client(&self, name: &str) -> ClientCertificate {
        let (certificate, key) = self.pair(name);

        ClientCertificate {
            chain: certificate.pem(),
            key: Secret::from(key.serialize_pem()),
        }
    }
}

fn server() -> ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
}
