//! Messages behind their lengths, encrypted.

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::{Authority, Validity};
use super::bootstrap::Resolver;
use super::*;

#[tokio::test]
async fn a_server_that_proves_its_address_is_asked() {
    let authority = Authority::new();
    let peer = Peer::new(authority.acceptor("127.0.0.1", &["dot"])).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    for host in ["127.0.0.1", "[127.0.0.1]"] {
        rig.start(0, &peer.name(host), Carrier::Tcp, query(1, "a.test"));
        let mut stream = peer.accept().await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"dot"[..]));
        serve(&mut stream).await;

        assert_answers(rig.over().await.1, 1, "a.test");
    }
}

#[tokio::test]
async fn a_server_with_a_name_is_found_by_the_system_s_servers() {
    let authority = Authority::new();
    let peer = Peer::new(authority.acceptor("dns.test", &["dot"])).await;
    let resolver = Resolver::new("dns.test", &["127.0.0.1"]).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    rig.exchanges.set_bootstrap(&[resolver.addr]);
    rig.start(0, &peer.name("dns.test."), Carrier::Udp, query(1, "a.test"));

    let mut stream = peer.accept().await;
    assert_eq!(stream.get_ref().1.server_name(), Some("dns.test"));
    serve(&mut stream).await;
    assert_answers(rig.over().await.1, 1, "a.test");
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_is_not_asked() {
    let ours = Authority::new();
    let others = Authority::new();
    for (authority, name, validity, cause) in [
        (&others, "127.0.0.1", Validity::Current, "BadSignature"),
        (&ours, "127.0.0.2", Validity::Current, "not valid for name"),
        (&ours, "127.0.0.1", Validity::Expired, "expired"),
    ] {
        let peer = Peer::new(authority.acceptor_until(name, &["dot"], validity)).await;
        let mut rig = Rig::trusting(Some(ours.file.path()));
        rig.start(0, &peer.name("127.0.0.1"), Carrier::Tcp, query(1, "a.test"));
        let (stream, _) = peer.listener.accept().await.unwrap();
        assert!(peer.acceptor.accept(stream).await.is_err());

        let (_, outcome) = rig.over().await;
        assert_failed(&outcome, "127.0.0.1");
        assert_failed(&outcome, cause);
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_asked() {
    let authority = Authority::new();
    let peer = Peer::new(authority.acceptor("127.0.0.1", &["dot"])).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    rig.start(0, &peer.name("127.0.0.1"), Carrier::Tcp, query(1, "a.test"));
    let (mut stream, _) = peer.listener.accept().await.unwrap();
    stream.write_all(b"220 mail.test ESMTP\r\n").await.unwrap();
    assert_failed(&rig.over().await.1, "no TLS with 127.0.0.1");

    rig.start(0, &peer.name("127.0.0.1"), Carrier::Tcp, query(1, "a.test"));
    drop(peer.listener.accept().await.unwrap());
    assert_unreachable(&rig.over().await.1, "no TLS with 127.0.0.1");
}

#[tokio::test]
async fn a_server_that_never_finishes_is_given_up() {
    let authority = Authority::new();
    let peer = Peer::new(authority.acceptor("127.0.0.1", &["dot"])).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    rig.start(0, &peer.name("127.0.0.1"), Carrier::Tcp, query(1, "a.test"));
    let (stuck, _) = peer.listener.accept().await.unwrap();
    stuck.readable().await.unwrap();
    pass(Duration::from_secs(5)).await;

    assert_unreachable(&rig.over().await.1, "within 5 s");
}

#[tokio::test]
async fn a_connection_is_kept_and_its_session_resumed_by_the_next() {
    let authority = Authority::new();
    let peer = Peer::new(authority.acceptor("127.0.0.1", &["dot"])).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    let name = peer.name("127.0.0.1");
    let mut kinds = Vec::new();
    for _ in 0..2 {
        rig.start(0, &name, Carrier::Tcp, query(1, "a.test"));
        let mut stream = peer.accept().await;
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        serve(&mut stream).await;
        assert_answers(rig.over().await.1, 1, "a.test");
        for _ in 0..10 {
            rig.start(0, &name, Carrier::Tcp, query(1, "b.test"));
            serve(&mut stream).await;
            assert_answers(rig.over().await.1, 1, "b.test");
        }
        stream.shutdown().await.unwrap();
    }

    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
}

#[tokio::test]
async fn a_connection_says_goodbye_when_nobody_used_it_for_ten_seconds() {
    let authority = Authority::new();
    let peer = Peer::new(authority.acceptor("127.0.0.1", &["dot"])).await;
    let mut rig = Rig::trusting(Some(authority.file.path()));
    rig.start(0, &peer.name("127.0.0.1"), Carrier::Tcp, query(1, "a.test"));
    let mut stream = peer.accept().await;
    serve(&mut stream).await;
    assert_answers(rig.over().await.1, 1, "a.test");

    pass(Duration::from_secs(10)).await;
    // An end without a goodbye would be an error.
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_host_that_is_no_name_is_refused() {
    let mut rig = Rig::new();
    let server = Server::Tls {
        host: "no name".into(),
        port: 853,
    };

    assert_failed(&rig.ask(&server, Carrier::Tcp, "a.test").await, "no name");
}

/// A name server that does what its test says.
struct Peer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Peer {
    async fn new(acceptor: TlsAcceptor) -> Self {
        Self {
            listener: TcpListener::bind(ANY).await.unwrap(),
            acceptor,
        }
    }

    fn name(&self, host: &str) -> Server {
        Server::Tls {
            host: host.into(),
            port: self.listener.local_addr().unwrap().port(),
        }
    }

    async fn accept(&self) -> TlsStream<TcpStream> {
        let (stream, _) = self.listener.accept().await.unwrap();

        self.acceptor.accept(stream).await.unwrap()
    }
}

async fn serve(stream: &mut TlsStream<TcpStream>) {
    let len = stream.read_u16().await.unwrap();
    let mut asked = vec![0; len.into()];
    stream.read_exact(&mut asked).await.unwrap();
    let answer = answer(&asked);
    let len = u16::try_from(answer.len()).unwrap();
    stream.write_u16(len).await.unwrap();
    stream.write_all(&answer).await.unwrap();
    stream.flush().await.unwrap();
}
