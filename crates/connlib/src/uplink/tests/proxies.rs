//! The connection by a proxy, which is a few lines here, too.

use tokio::io::copy_bidirectional;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A name that only the proxy knows.
const PORTAL: &str = "portal.invalid";

const OPEN: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[tokio::test]
async fn a_proxy_leads_to_a_portal_that_nobody_here_can_find() {
    let proxy = TestProxy::new().await;
    let mut rig = proxy.rig("ws", "http://u:p%40ss@", None).await;
    rig.connect(KEY).await;
    let portal = rig.listener.local_addr().unwrap();
    let asked = proxy.serve(None, portal);

    let (mut socket, request) = rig.accept().await;
    assert_eq!(request.headers()["host"], PORTAL);
    assert!(!request.headers().contains_key("proxy-authorization"));
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
    assert_eq!(
        asked.await.unwrap(),
        format!(
            "CONNECT {PORTAL}:8080 HTTP/1.1\r\nHost: {PORTAL}:8080\r\nProxy-Authorization: Basic dTpwQHNz\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn proxy_and_portal_each_have_a_certificate_of_their_own() {
    let authority = Authority::new();
    for (name_of_proxy, name_of_portal, is_trusted) in [
        ("127.0.0.1", PORTAL, true),
        (PORTAL, PORTAL, false),
        ("127.0.0.1", "127.0.0.1", false),
    ] {
        let proxy = TestProxy::new().await;
        let rig = proxy.rig("wss", "https://", Some(&authority.file)).await;
        rig.connect(KEY).await;
        let portal = rig.listener.local_addr().unwrap();
        let acceptor = authority.acceptor(name_of_proxy);
        let asked = proxy.serve(Some(acceptor), portal);
        if asked.await.is_err() {
            assert!(!is_trusted, "{name_of_proxy} {name_of_portal}");
            continue;
        }

        let (stream, _) = rig.listener.accept().await.unwrap();
        let accepted = authority.acceptor(name_of_portal).accept(stream).await;
        assert_eq!(accepted.is_ok(), is_trusted);
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_asked_again_and_told_without_its_password() {
    for (answer, expected) in [
        ("407 Proxy Authentication Required", "user and password"),
        ("403 Filtered", "403"),
        ("SSH", "check its address"),
    ] {
        let proxy = TestProxy::new().await;
        let mut rig = proxy.rig("wss", "http://u:hush@", None).await;
        rig.connect(KEY).await;
        let at = proxy.listener.local_addr().unwrap();
        let listener = proxy.listener;
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 {answer}\r\n\r\n").replace("HTTP/1.1 SSH", "SSH");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }

        let FromUplink::Failed(UplinkError::GaveUp { last, .. }) = rig.event().await else {
            panic!("it goes on");
        };
        let told = last.to_string();
        assert!(
            told.contains(&format!("http://{at}: ")) && told.contains(expected),
            "{told}"
        );
        assert!(!format!("{told} {last:?}").contains("hush"), "{last:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let proxy = TestProxy::new().await;
    let mut rig = proxy.rig("ws", "http://", None).await;
    let at = proxy.listener.local_addr().unwrap();
    drop(proxy);
    rig.connect(KEY).await;

    let FromUplink::Failed(UplinkError::GaveUp { last, .. }) = rig.event().await else {
        panic!("it goes on");
    };
    assert!(last.to_string().contains(&at.to_string()), "{last}");
}

struct TestProxy {
    listener: TcpListener,
}

impl TestProxy {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();

        Self { listener }
    }

    /// A connection by this proxy, which trusts `root` too; what begins the proxy's address may have credentials.
    async fn rig(&self, scheme: &str, beginning: &str, root: Option<&NamedTempFile>) -> Rig {
        let at = self.listener.local_addr().unwrap();
        let proxy: Proxy = format!("{beginning}{at}").parse().unwrap();
        Rig::start(root, |_| UplinkConfig {
            url: PortalUrl::parse(&format!("{scheme}://{PORTAL}:8080")).unwrap(),
            token: None,
            certificate: None,
            proxy: Some(proxy),
            introduction: Introduction::default(),
            join: to_raw_value(&()).unwrap(),
            max_partition_time: Some(Duration::from_millis(1)),
            seed: [7; 32],
        })
        .await
    }

    /// Serves one connection, and tells what was asked for; fails if it can't be trusted.
    fn serve(
        self,
        tls: Option<TlsAcceptor>,
        portal: SocketAddr,
    ) -> tokio::sync::oneshot::Receiver<String> {
        let (tell, asked) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut stream: Box<dyn crate::dial::Transport> = match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => return,
                },
                None => Box::new(stream),
            };
            let request = read_head(&mut stream).await;
            stream.write_all(OPEN.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            tell.send(request).unwrap();
            let mut portal = TcpStream::connect(portal).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut portal).await;
        });

        asked
    }
}
