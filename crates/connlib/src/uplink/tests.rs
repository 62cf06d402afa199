//! The connection against a portal of a few lines, on real sockets.

use std::net::SocketAddr;

use connlib_wire::portal::client::{FromPortal, ToPortal};
use connlib_wire::portal::{Empty, phoenix};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::value::to_raw_value;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async, accept_hdr_async};

use super::*;
use certificates::Authority;

mod certificates;
mod generations;
mod outcomes;
mod proxies;
mod recordings;
mod stranger;

const KEY: PublicKey = PublicKey([1; 32]);
const OTHER_KEY: PublicKey = PublicKey([2; 32]);

#[tokio::test]
async fn a_client_introduces_itself_joins_and_is_heard() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;

    let (mut socket, request) = rig.accept().await;
    let uri = request.uri().to_string();
    assert_eq!(
        uri,
        "/client/v2/websocket?external_id=device&name=laptop\
         &public_key=AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE%3D"
    );
    let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("host"), "127.0.0.1");
    assert_eq!(header("x-authorization"), "Bearer abc");
    assert!(header("user-agent").starts_with("Linux/"));
    assert!(header("user-agent").contains(" headless-client/"));

    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
    let greeting = hear(&mut socket).await;
    assert!(greeting.contains("set_snownet_capabilities"), "{greeting}");

    rig.say(ToPortal::NoRelays(Empty {})).await;
    assert!(hear(&mut socket).await.contains("no_relays"));

    let presence = r#"{"disconnected_ids":[],"connected":[]}"#;
    say(&mut socket, "an_event_of_the_future", "{}").await;
    say(&mut socket, "relays_presence", "{}").await;
    say(&mut socket, "relays_presence", presence).await;
    let heard = rig.event().await;
    assert!(
        matches!(heard, FromUplink::Message(FromPortal::RelaysPresence(_))),
        "{heard:?}"
    );
}

#[tokio::test]
async fn another_key_means_another_connection_and_a_proper_end_of_the_old_one() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    rig.connect(OTHER_KEY).await;
    let close = loop {
        if let Message::Close(close) = socket.next().await.unwrap().unwrap() {
            break close;
        }
    };
    assert_eq!(close.map(|frame| frame.code), Some(CloseCode::Normal));
    // The end of the echo.
    while socket.next().await.is_some() {}
    assert!(matches!(rig.event().await, FromUplink::Away));

    let (mut socket, request) = rig.accept().await;
    assert!(request.uri().to_string().contains("AgICAgIC"));
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
}

#[tokio::test]
async fn a_portal_that_closes_is_connected_to_again() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    let frame = CloseFrame {
        code: CloseCode::Away,
        reason: "restart".into(),
    };
    socket.close(Some(frame)).await.unwrap();
    let echo = loop {
        match socket.next().await {
            Some(Ok(Message::Close(close))) => break close,
            Some(Ok(_)) => continue,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(echo.map(|frame| frame.code), Some(CloseCode::Away));
    assert!(matches!(rig.event().await, FromUplink::Away));
    let told = rig.events.recv().await.unwrap();
    let FromUplink::Failing(ConnectError::Ended { reason }, _) = told else {
        panic!("{told:?}");
    };
    assert_eq!(reason, "the portal closed it");

    let (mut socket, _) = rig.accept().await;
    let again = join(&mut socket).await;
    assert!(again.contains(r#""ref":0"#), "references start over");
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
}

#[tokio::test]
async fn messages_that_nobody_would_hear_are_not_kept() {
    let mut rig = Rig::new().await;
    rig.say(ToPortal::NoRelays(Empty {})).await;
    rig.connect(KEY).await;
    rig.say(ToPortal::NoRelays(Empty {})).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    assert!(hear(&mut socket).await.contains("set_snownet_capabilities"));
    rig.say(ToPortal::NoRelays(Empty {})).await;
    assert!(
        hear(&mut socket).await.contains(r#""ref":2"#),
        "nothing in between"
    );
}

#[tokio::test]
async fn a_refused_token_ends_it_though_the_reason_comes_late() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;

    let body = r#"{"title":"Unauthorized","code":"invalid_token","detail":"Invalid token"}"#;
    let mut stream = rig.take_request().await;
    let head = format!(
        "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(body.as_bytes()).await.unwrap();

    let FromUplink::Failed(UplinkError::Token { detail }) = rig.event().await else {
        panic!("it goes on");
    };
    assert_eq!(detail.as_deref(), Some("Invalid token"));
}

#[tokio::test]
async fn a_proxy_that_wants_credentials_ends_it_and_blames_no_token() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let mut stream = rig.take_request().await;
    let answer =
        "HTTP/1.1 401 Unauthorized\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.unwrap();

    let end = rig.event().await;
    assert!(
        matches!(
            end,
            FromUplink::Failed(UplinkError::Unauthorized { detail: None })
        ),
        "{end:?}"
    );
}

#[tokio::test]
async fn other_answers_are_tried_again_when_the_portal_says() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let mut stream = rig.take_request().await;
    let answer = "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.unwrap();

    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
}

#[tokio::test]
async fn an_expired_token_ends_it() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    let text = phoenix::disconnect_token_expired("client");
    socket.send(Message::text(text)).await.unwrap();

    assert!(matches!(rig.event().await, FromUplink::Away));
    let end = rig.event().await;
    assert!(
        matches!(end, FromUplink::Failed(UplinkError::Token { .. })),
        "{end:?}"
    );
}

#[tokio::test]
async fn it_gives_up_when_its_time_is_over() {
    let mut rig = Rig::with(Some(Duration::from_millis(1)), "wss").await;
    rig.connect(KEY).await;
    // The first is no TLS, and so is the second.
    for _ in 0..2 {
        let (stream, _) = rig.listener.accept().await.unwrap();
        drop(stream);
    }

    let FromUplink::Failed(UplinkError::GaveUp { after, last }) = rig.event().await else {
        panic!("it goes on");
    };
    assert_eq!(after, Duration::from_millis(1));
    assert!(matches!(last, ConnectError::Tls { .. }), "{last}");
}

#[tokio::test]
async fn while_disconnected_it_waits_to_be_told() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));

    rig.commands.send(ToUplink::Disconnect).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    assert!(matches!(rig.event().await, FromUplink::Away));

    rig.connect(OTHER_KEY).await;
    let (_, request) = rig.accept().await;
    assert!(request.uri().to_string().contains("AgICAgIC"));
}

#[tokio::test]
async fn a_check_is_answered_or_the_connection_is_made_anew_at_once() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
    hear(&mut socket).await;

    rig.commands.send(ToUplink::CheckSource).await.unwrap();
    rig.commands.send(ToUplink::Check).await.unwrap();
    let heartbeat = hear(&mut socket).await;
    assert!(heartbeat.contains("heartbeat"), "{heartbeat}");

    // Nobody answers.
    assert!(matches!(rig.event().await, FromUplink::Away));
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
}

#[tokio::test]
async fn an_attempt_on_the_old_network_is_given_up_for_one_on_the_new() {
    let mut rig = Rig::new().await;
    rig.connect(KEY).await;
    // Nobody ever answers its request.
    let _stuck = rig.take_request().await;

    rig.commands.send(ToUplink::Check).await.unwrap();
    let (mut socket, _) = rig.accept().await;
    join(&mut socket).await;
    assert!(matches!(rig.event().await, FromUplink::Joined(_)));
}

struct Rig<P: Protocol = OfClient> {
    listener: TcpListener,
    commands: mpsc::Sender<ToUplink<P::ToPortal>>,
    events: mpsc::Receiver<FromUplink<P::FromPortal>>,
}

impl Rig {
    async fn new() -> Self {
        Self::with(None, "ws").await
    }

    async fn with(max_partition_time: Option<Duration>, scheme: &str) -> Self {
        Self::trusting(max_partition_time, scheme, None).await
    }

    async fn trusting(
        max_partition_time: Option<Duration>,
        scheme: &str,
        root: Option<&NamedTempFile>,
    ) -> Self {
        Self::start(root, |addr| UplinkConfig {
            max_partition_time,
            ..config(&format!("{scheme}://{addr}"))
        })
        .await
    }

    /// One whose portal is elsewhere.
    async fn towards(url: &str) -> Self {
        Self::start(None, |_| config(url)).await
    }
}

fn config(url: &str) -> UplinkConfig {
    UplinkConfig {
        url: PortalUrl::parse(url).unwrap(),
        token: Some(Secret::from("a\nb\r c")),
        certificate: None,
        proxy: None,
        introduction: Introduction {
            external_id: Some("device".into()),
            name: Some("laptop".into()),
            ..Introduction::default()
        },
        join: to_raw_value(&()).unwrap(),
        max_partition_time: None,
        seed: [7; 32],
    }
}

impl<P: Protocol> Rig<P> {
    async fn start(
        root: Option<&NamedTempFile>,
        config: impl FnOnce(SocketAddr) -> UplinkConfig,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config(listener.local_addr().unwrap());
        let (commands, commands_end) = mpsc::channel(CHANNEL_SIZE);
        let (events_end, events) = mpsc::channel(CHANNEL_SIZE);
        let uplink = Uplink::<P>::new(
            config,
            None,
            root.map(NamedTempFile::path),
            None,
            commands_end,
            events_end,
        );
        tokio::spawn(uplink.unwrap().run(Clock::new()));

        Self {
            listener,
            commands,
            events,
        }
    }

    async fn connect(&self, key: PublicKey) {
        self.commands
            .send(ToUplink::Connect(Some(key)))
            .await
            .unwrap();
    }

    async fn say(&self, message: P::ToPortal) {
        self.commands
            .send(ToUplink::Message(message))
            .await
            .unwrap();
    }

    /// What it tells next, but for why it tries again.
    async fn event(&mut self) -> FromUplink<P::FromPortal> {
        loop {
            let event = self.events.recv().await.unwrap();
            if !matches!(event, FromUplink::Failing(..)) {
                return event;
            }
        }
    }

    async fn accept(&self) -> (WebSocketStream<TcpStream>, Request) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut seen = None;
        #[expect(clippy::result_large_err, reason = "the library wants this signature")]
        let look = |request: &Request, response: Response| {
            seen = Some(request.clone());
            Ok(response)
        };
        let socket = accept_hdr_async(stream, look).await.unwrap();

        (socket, seen.unwrap())
    }

    /// A connection whose request was read.
    async fn take_request(&self) -> TcpStream {
        self.read_request().await.0
    }

    /// The same, with the request.
    async fn read_request(&self) -> (TcpStream, String) {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let request = read_head(&mut stream).await;

        (stream, request)
    }

    /// Answers a request with this, and returns it.
    async fn answer(&self, answer: &str) -> String {
        let (mut stream, request) = self.read_request().await;
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();

        request
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }

    String::from_utf8(head).unwrap()
}

async fn join(socket: &mut WebSocketStream<TcpStream>) -> String {
    let join = hear(socket).await;
    assert!(join.contains("phx_join"), "{join}");
    let reply = phoenix::reply_ok("client", Some(0));
    socket.send(Message::text(reply)).await.unwrap();

    join
}

async fn hear(socket: &mut WebSocketStream<TcpStream>) -> String {
    let message = socket.next().await.unwrap().unwrap();

    message.into_text().unwrap().to_string()
}

async fn say(socket: &mut WebSocketStream<TcpStream>, event: &str, payload: &str) {
    let text = format!(r#"{{"topic":"client","event":"{event}","payload":{payload},"ref":null}}"#);
    socket.send(Message::text(text)).await.unwrap();
}
