//! A portal under test, and peers that talk to it.

use std::net::SocketAddr;
use std::path::PathBuf;

use connlib_portal::admin::{Request, Response, Target, TokenFor, call};
use connlib_portal::model::TokenId;
use connlib_portal::server::{Database, Server, ServerConfig, TrustedProxies};
use connlib_wire::key::PublicKey;
use connlib_wire::secret::Secret;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::FILE;

/// A serving portal with [`FILE`] applied, and its directory of files.
pub(crate) struct Portal {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
}

impl Portal {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(config(&dir)).await.unwrap();
        let portal = Self { server, dir };
        portal.apply(FILE).await;
        portal
    }

    /// Stops it, and starts it again with the same database.
    pub(crate) async fn restart(self) -> Self {
        self.server.stop().await;
        let server = Server::start(config(&self.dir)).await.unwrap();
        Self {
            server,
            dir: self.dir,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(crate) fn target(&self) -> Target {
        Target::Socket(self.dir.path().join("admin.sock"))
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("portal.sqlite")
    }

    pub(crate) async fn apply(&self, text: &str) {
        let request = Request::Apply {
            text: text.to_owned(),
            file_name: "t.toml".to_owned(),
            dry_run: false,
        };
        call(&self.target(), request).await.unwrap();
    }

    pub(crate) async fn token(&self, kind: TokenFor) -> (TokenId, Secret) {
        let request = Request::CreateToken {
            kind,
            expires: None,
        };
        let response = call(&self.target(), request).await.unwrap();
        let Response::TokenCreated { id, token, .. } = response else {
            panic!("{response:?}");
        };
        (id, token)
    }

    pub(crate) async fn client_token(&self, actor: &str) -> Secret {
        let actor = actor.to_owned();
        self.token(TokenFor::Client { actor }).await.1
    }

    pub(crate) async fn gateway_token(&self) -> Secret {
        let site = "hq".to_owned();
        self.token(TokenFor::Gateway { site }).await.1
    }

    /// A client of `actor` that joined, and what it was told.
    pub(crate) async fn client(&self, actor: &str) -> (Peer, Value) {
        let token = self.client_token(actor).await;
        let request = request(self.addr(), &device("client", actor, 1), Some(&token));
        let mut peer = connect(self.addr(), request).await.unwrap();
        let init = peer.join("client").await;
        (peer, init)
    }

    /// A gateway that joined, and what it was told.
    pub(crate) async fn gateway(&self) -> (Peer, Value) {
        let token = self.gateway_token().await;
        let request = request(self.addr(), &device("gateway", "gw", 2), Some(&token));
        let mut peer = connect(self.addr(), request).await.unwrap();
        let init = peer.join("gateway").await;
        (peer, init)
    }
}

/// A connected WebSocket.
pub(crate) struct Peer<S = TcpStream> {
    pub(crate) websocket: WebSocketStream<S>,
    pub(crate) topic: &'static str,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) async fn join(&mut self, topic: &'static str) -> Value {
        self.topic = topic;
        self.say("phx_join", Value::Null).await;
        let reply = self.hear("phx_reply").await;
        assert_eq!(reply["status"], "ok");
        self.hear("init").await
    }

    pub(crate) async fn say(&mut self, event: &str, payload: Value) {
        let message = json!({"topic": self.topic, "event": event, "payload": payload, "ref": 1});
        let message = Message::text(message.to_string());
        self.websocket.send(message).await.unwrap();
    }

    /// The payload of the next message, which must be an `event`.
    pub(crate) async fn hear(&mut self, event: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["event"], event, "{message}");
        message["payload"].clone()
    }

    pub(crate) async fn next(&mut self) -> Value {
        match self.websocket.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads, which answers pings, until something else comes.
    pub(crate) async fn answer_pings(&mut self) {
        while let Some(Ok(Message::Ping(_))) = self.websocket.next().await {}
    }

    /// The code of the close frame that must come next.
    pub(crate) async fn closed(&mut self) -> u16 {
        match self.websocket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => frame.code.into(),
            other => panic!("{other:?}"),
        }
    }

    /// Whether the portal still answers.
    pub(crate) async fn is_alive(&mut self) -> bool {
        let heartbeat = r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":9}"#;
        if self.websocket.send(Message::text(heartbeat)).await.is_err() {
            return false;
        }
        match self.websocket.next().await {
            Some(Ok(Message::Text(text))) => text.contains("\"ref\":9"),
            _ => false,
        }
    }
}

pub(crate) fn config(dir: &TempDir) -> ServerConfig {
    ServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        db: Database::File(dir.path().join("portal.sqlite")),
        admin_socket: Some(dir.path().join("admin.sock")),
        insecure_plaintext: false,
        countries: None,
        trusted_proxies: TrustedProxies::default(),
    }
}

/// The path and query of a device.
pub(crate) fn device(role: &str, external_id: &str, key: u8) -> String {
    let key = encode(&PublicKey([key; 32]).to_string());

    format!("/{role}/v2/websocket?external_id={external_id}&name=n&public_key={key}")
}

pub(crate) fn relay(port: u16) -> String {
    format!("/relay/websocket?ipv4=192.0.2.10&port={port}")
}

pub(crate) fn request(addr: SocketAddr, path: &str, token: Option<&Secret>) -> client::Request {
    let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
    if let Some(token) = token {
        let value = format!("Bearer {}", token.expose()).parse().unwrap();
        request.headers_mut().insert("x-authorization", value);
    }
    let agent = match path {
        path if path.starts_with("/client/") => "Linux/6 headless-client/1.5.12",
        path if path.starts_with("/gateway/") => "Linux/6 gateway/1.6.1",
        _ => "Linux/6 relay/0.1.0",
    };
    let agent = agent.parse().unwrap();
    request.headers_mut().insert("user-agent", agent);
    request
}

pub(crate) async fn connect(
    addr: SocketAddr,
    request: client::Request,
) -> Result<Peer, tungstenite::Error> {
    connect_over(TcpStream::connect(addr).await.unwrap(), request).await
}

pub(crate) async fn connect_over<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    request: client::Request,
) -> Result<Peer<S>, tungstenite::Error> {
    let (websocket, _) = tokio_tungstenite::client_async(request, stream).await?;

    Ok(Peer {
        websocket,
        topic: "",
    })
}

/// The status and body of a request without an upgrade; headers in lower case.
pub(crate) async fn get(addr: SocketAddr, path: &str, header: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();

    (status, head.to_lowercase(), body.to_owned())
}

pub(crate) fn encode(text: &str) -> String {
    text.replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
}
