//! The upgrade of a connection to a WebSocket, in either generation (portal-protocol.md §1.1, §1.3, §1.4, §1.6).
//!
//! The request is written here and not by the library of the frames, which logs it: there is a token in each.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use connlib_os::clock::Clock;
use connlib_wire::key::PublicKey;
use connlib_wire::portal::Generation;
use connlib_wire::secret::Secret;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::http::Head;
use super::protocol::Protocol;
use super::refusal::{Answer, Refusal};
use super::session::Over;
use super::{ConnectError, UplinkConfig, UplinkError};
use crate::dial::Transport;

/// An upgraded connection.
pub(super) type Socket = WebSocketStream<Box<dyn Transport>>;

/// Why a connection was not upgraded.
#[derive(Debug)]
pub(super) struct NotUpgraded {
    /// What that means for the attempt.
    pub(super) over: Over,
    /// Whether a portal of the other generation answers like this.
    pub(super) may_be_other: bool,
}

/// The largest message of a portal: thousands of resources.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Has a connection upgraded.
pub(super) async fn upgrade<P: Protocol>(
    clock: Clock,
    mut stream: Box<dyn Transport>,
    config: &UplinkConfig,
    generation: Generation,
    key: Option<PublicKey>,
) -> Result<Socket, NotUpgraded> {
    let nonce = generate_key();
    let request = request::<P>(config, generation, key, &nonce)?;
    let head = async {
        stream.write_all(request.expose().as_bytes()).await?;
        stream.flush().await?;

        Head::read(&mut stream).await
    };
    let head = head
        .await
        .map_err(|error| NotUpgraded::by(WsError::Io(error)))?;
    if head.status != 101 {
        let body = head.read_body(&mut stream).await;
        return Err(refused::<P>(clock, &head, &body));
    }
    check(&head, &nonce).map_err(|error| NotUpgraded::by(WsError::Protocol(error)))?;
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));

    Ok(WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await)
}

/// The request, in the order and spelling that portals have seen so far. The token makes it a secret.
fn request<P: Protocol>(
    config: &UplinkConfig,
    generation: Generation,
    key: Option<PublicKey>,
    nonce: &str,
) -> Result<Secret, NotUpgraded> {
    let token = config.token.as_ref().map(word).transpose()?;
    let (in_query, in_header) = match generation {
        Generation::V1 => (token.as_ref(), None),
        Generation::V2 => (None, token.as_ref()),
    };
    let path = P::path(generation);
    let in_query = in_query.map(Secret::expose);
    let url = config.url.with(path, in_query, &config.introduction, key);
    let mut target = url.path().to_owned();
    if let Some(query) = url.query().filter(|query| !query.is_empty()) {
        target.extend(["?", query]);
    }

    let host = config.url.host();
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n"
    );
    // Load balancers can limit by a header, and the portal's framework only passes on those that begin with `x-`.
    if let Some(token) = in_header {
        // Writing to a text can't fail.
        let _ = write!(request, "x-authorization: Bearer {}\r\n", token.expose());
    }
    let agent = user_agent(P::program(generation));
    let _ = write!(request, "user-agent: {agent}\r\n\r\n");

    Ok(Secret::from(request))
}

/// The token as one word: a line break out of a file must neither fail nor add headers.
fn word(token: &Secret) -> Result<Secret, NotUpgraded> {
    let word: String = token.expose().split_whitespace().collect();
    if word.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Secret::from(word));
    }
    let detail = Some("it has characters that no token has".into());

    Err(NotUpgraded {
        over: Over::Failed(UplinkError::Token { detail }),
        may_be_other: false,
    })
}

/// `Linux/6.18.0 headless-client/1.5.12 (x86_64)`.
fn user_agent(program: &str) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();

    agent_of(&kernel, program)
}

/// Letters that a header can't carry are left out.
fn agent_of(kernel: &str, program: &str) -> String {
    let is_wanted = |c: &char| c.is_ascii_graphic();
    let kernel: String = kernel.chars().filter(is_wanted).collect();
    let kernel = if kernel.is_empty() { "0" } else { &kernel };

    format!("Linux/{kernel} {program} ({})", std::env::consts::ARCH)
}

/// Whether the answer to the upgrade is one (RFC 6455 §4.1).
fn check(head: &Head, nonce: &str) -> Result<(), ProtocolError> {
    if !head.lists("upgrade", "websocket") {
        return Err(ProtocolError::MissingUpgradeWebSocketHeader);
    }
    if !head.lists("connection", "upgrade") {
        return Err(ProtocolError::MissingConnectionUpgradeHeader);
    }
    let expected = derive_accept_key(nonce.as_bytes());
    if head.header("sec-websocket-accept") != Some(&expected) {
        return Err(ProtocolError::SecWebSocketAcceptKeyMismatch);
    }
    // Neither was asked for, and frames would mean something else.
    for name in ["sec-websocket-extensions", "sec-websocket-protocol"] {
        if head.header(name).is_some() {
            return Err(ProtocolError::InvalidHeader(Box::new(
                name.parse()
                    .map_err(|_| ProtocolError::HandshakeIncomplete)?,
            )));
        }
    }

    Ok(())
}

/// Judges why an upgrade was refused.
fn refused<P: Protocol>(clock: Clock, head: &Head, body: &[u8]) -> NotUpgraded {
    let answer = Answer {
        status: head.status,
        content_type: head.header("content-type"),
        retry_after: head.header("retry-after"),
        body,
    };
    let may_be_other = match P::IS_VERSIONED {
        true => answer.is_no_such_path(),
        false => answer.is_no_token(),
    };
    let over = match Refusal::of(&answer, clock.unix()) {
        Refusal::Token { detail } => Over::Failed(UplinkError::Token { detail }),
        Refusal::Unauthorized { detail } => Over::Failed(UplinkError::Unauthorized { detail }),
        Refusal::Retry {
            status,
            detail,
            after,
        } => Over::Retry {
            error: ConnectError::Status { status, detail },
            after,
        },
    };

    NotUpgraded { over, may_be_other }
}

impl NotUpgraded {
    fn by(error: WsError) -> Self {
        Over::retry(ConnectError::WebSocket {
            source: Arc::new(error),
        })
        .into()
    }
}

impl From<Over> for NotUpgraded {
    fn from(over: Over) -> Self {
        Self {
            over,
            may_be_other: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// RFC 6455 §1.3.
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    #[tokio::test]
    async fn an_answer_to_another_question_is_no_upgrade() {
        let right =
            format!("upgrade: WebSocket\nconnection: Upgrade\nsec-websocket-accept: {ACCEPT}\n");
        assert!(is_upgrade(&right).await);

        for wrong in [
            right.replace("WebSocket", "h2c"),
            right.replace("connection: Upgrade", "connection: close"),
            right.replace("s3pP", "s3pQ"),
            format!("{right}sec-websocket-extensions: permessage-deflate\n"),
            format!("{right}sec-websocket-protocol: chat\n"),
        ] {
            assert!(!is_upgrade(&wrong).await, "{wrong}");
        }
    }

    async fn is_upgrade(headers: &str) -> bool {
        let text = format!("HTTP/1.1 101 Switching\n{headers}\n");
        let head = Head::read(&mut text.as_bytes()).await.unwrap();

        check(&head, NONCE).is_ok()
    }
}
