//! One attempt to talk to the portal, from its start to its end.

use std::fs;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_wire::key::PublicKey;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::value::to_raw_value;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_key};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::channel::{Channel, End, Event};
use super::protocol::Protocol;
use super::refusal::{Answer, Refusal};
use super::transport::{Dialer, Ends, Lent, Returned, Standing};
use super::{ConnectError, FromUplink, ToUplink, UplinkConfig, UplinkError};

/// Makes attempts, one after another.
pub(super) struct Session<P> {
    dialer: Dialer,
    config: UplinkConfig,
    user_agent: String,
    protocol: PhantomData<P>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Over {
    /// Another one may have more luck. The portal may say when.
    Retry {
        error: ConnectError,
        after: Option<Duration>,
    },
    /// No other one will have more luck.
    Failed(UplinkError),
    /// Another connection is wanted at once, under this key.
    Reconnect(Option<PublicKey>),
    /// The network changed and this connection is of no use any more: another one at once, and no farewell.
    Lost { error: ConnectError },
    /// No connection is wanted for now.
    Disconnected,
    /// Nobody listens any more.
    Abandoned,
}

type Socket = WebSocketStream<Lent>;

/// From the first packet to the end of the handshakes (portal-protocol.md §3.1).
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// A socket that takes nothing for that long is as good as closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the portal may take to end a connection properly.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest message of a portal: thousands of resources.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The largest explanation of an error that is read, and how long it may take.
const MAX_EXPLANATION: usize = 16 * 1024;
const EXPLANATION_TIMEOUT: Duration = Duration::from_secs(2);

impl<P: Protocol> Session<P> {
    pub(super) fn new(dialer: Dialer, config: UplinkConfig) -> Self {
        Self {
            dialer,
            config,
            user_agent: user_agent(P::PRODUCT),
            protocol: PhantomData,
        }
    }

    /// Connects, joins and stays. `was_joined` says at the end whether the join ever succeeded.
    pub(super) async fn run(
        &self,
        clock: Clock,
        key: Option<PublicKey>,
        commands: &mut mpsc::Receiver<ToUplink<P::ToPortal>>,
        events: &mpsc::Sender<FromUplink<P::FromPortal>>,
        was_joined: &mut bool,
    ) -> Over {
        let attempt = timeout(ATTEMPT_TIMEOUT, self.open(clock, key));
        tokio::pin!(attempt);
        let (mut socket, ends) = loop {
            tokio::select! {
                result = &mut attempt => match result {
                    Ok(Ok(opened)) => break opened,
                    Ok(Err(over)) => return over,
                    Err(_) => return Over::retry(ConnectError::TimedOut),
                },
                command = commands.recv() => match command {
                    Some(ToUplink::Message(_) | ToUplink::CheckSource) => {}
                    // What it has sent so far may have gone the old way, and be sent again ever more slowly.
                    Some(ToUplink::Check) => return Over::moved(),
                    Some(ToUplink::Disconnect) => return Over::Disconnected,
                    Some(ToUplink::Connect(key)) => return Over::Reconnect(key),
                    None => return Over::Abandoned,
                },
            }
        };

        let over = self
            .talk(clock, &mut socket, ends, commands, events, was_joined)
            .await;
        if !matches!(over, Over::Retry { .. } | Over::Lost { .. }) {
            let frame = CloseFrame {
                code: CloseCode::Normal,
                reason: Utf8Bytes::default(),
            };
            let _ = timeout(CLOSE_TIMEOUT, socket.close(Some(frame))).await;
        }

        over
    }

    /// Opens a socket and has it upgraded.
    async fn open(&self, clock: Clock, key: Option<PublicKey>) -> Result<(Socket, Ends), Over> {
        let opened = self.dialer.dial(&self.config.url).await;
        let opened = opened.map_err(|error| {
            if matches!(error, ConnectError::Mark { .. }) {
                Over::Failed(UplinkError::Refused(error))
            } else {
                Over::retry(error)
            }
        })?;
        let request = self.request(key)?;
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));

        let (stream, returned) = Lent::new(opened.stream);
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok((socket, opened.ends)),
            Err(WsError::Http(response)) => Err(refused(clock, &response, &returned).await),
            Err(error) => Err(Over::retry(ConnectError::WebSocket {
                source: Arc::new(error),
            })),
        }
    }

    async fn talk(
        &self,
        clock: Clock,
        socket: &mut Socket,
        ends: Ends,
        commands: &mut mpsc::Receiver<ToUplink<P::ToPortal>>,
        events: &mpsc::Sender<FromUplink<P::FromPortal>>,
        was_joined: &mut bool,
    ) -> Over {
        let greeting = P::greeting().and_then(|greeting| {
            let payload = to_raw_value(&greeting).ok()?;
            Some((P::event(&greeting), payload))
        });
        let join = self.config.join.clone();
        let mut channel = Channel::new(clock.now(), P::TOPIC, join, greeting);

        loop {
            if let Err(over) = write_all(&mut channel, socket).await {
                return over;
            }
            let until_timeout = channel
                .poll_timeout()
                .saturating_duration_since(clock.now());
            let result = tokio::select! {
                () = sleep(until_timeout) => channel.handle_timeout(clock.now()),
                command = commands.recv() => match command {
                    Some(ToUplink::Message(message)) => {
                        if !channel.send(P::event(&message), &message) {
                            tracing::debug!(event = P::event(&message), "Not said: the channel is not joined");
                        }
                        Ok(())
                    }
                    Some(ToUplink::CheckSource) => match self.dialer.standing(ends) {
                        Standing::Moved => return Over::moved(),
                        Standing::Same | Standing::NoWay => Ok(()),
                    },
                    Some(ToUplink::Check) => match self.dialer.standing(ends) {
                        Standing::Moved => return Over::moved(),
                        // There will be another change when there is a way again.
                        Standing::NoWay => Ok(()),
                        Standing::Same => {
                            channel.check(clock.now());
                            Ok(())
                        }
                    },
                    Some(ToUplink::Disconnect) => return Over::Disconnected,
                    Some(ToUplink::Connect(key)) => return Over::Reconnect(key),
                    None => return Over::Abandoned,
                },
                // What was heard is handed on before more is listened to.
                permit = events.reserve(), if channel.has_events() => {
                    let Ok(permit) = permit else {
                        return Over::Abandoned;
                    };
                    if let Some(event) = channel.poll_event().and_then(understand::<P>) {
                        *was_joined |= matches!(event, FromUplink::Joined);
                        permit.send(event);
                    }
                    Ok(())
                }
                message = socket.next(), if !channel.has_events() => match message {
                    Some(Ok(Message::Text(text))) => channel.handle_text(clock.now(), &text),
                    Some(Ok(Message::Binary(_))) => {
                        tracing::info!("Ignoring a binary message of the portal");
                        Ok(())
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
                    Some(Ok(Message::Close(_))) => {
                        // The library has the echo ready. Who ends TCP first doesn't matter.
                        let _ = timeout(CLOSE_TIMEOUT, socket.flush()).await;
                        return Over::retry(ended(WsError::ConnectionClosed));
                    }
                    Some(Err(error)) => return Over::retry(ended(error)),
                    None => return Over::retry(ended(WsError::ConnectionClosed)),
                },
            };
            if let Err(end) = result {
                return Over::from_end(end);
            }
        }
    }

    fn request(&self, key: Option<PublicKey>) -> Result<Request, Over> {
        let url = self
            .config
            .url
            .with(P::PATH, &self.config.introduction, key);
        let mut request = Request::new(());
        *request.uri_mut() = url.as_str().parse().map_err(|_| {
            Over::retry(ConnectError::Ended {
                reason: "the address is too long".into(),
            })
        })?;

        let mut values = vec![
            (header::HOST, self.config.url.host().to_owned()),
            (header::CONNECTION, "Upgrade".to_owned()),
            (header::UPGRADE, "websocket".to_owned()),
            (header::SEC_WEBSOCKET_VERSION, "13".to_owned()),
            (header::SEC_WEBSOCKET_KEY, generate_key()),
        ];
        if let Some(token) = &self.config.token {
            // A line break out of a file must neither fail nor add headers.
            let token: String = token.expose().split_whitespace().collect();
            values.push((X_AUTHORIZATION, format!("Bearer {token}")));
        }
        values.push((header::USER_AGENT, self.user_agent.clone()));
        for (name, value) in values {
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                let detail = Some("it has characters that no token has".into());
                Over::Failed(UplinkError::Token { detail })
            })?;
            value.set_sensitive(name == X_AUTHORIZATION);
            request.headers_mut().insert(name, value);
        }

        Ok(request)
    }
}

impl<P> std::fmt::Debug for Session<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("portal", &self.config.url.base())
            .finish_non_exhaustive()
    }
}

impl Over {
    fn retry(error: ConnectError) -> Self {
        Self::Retry { error, after: None }
    }

    fn moved() -> Self {
        Self::Lost {
            error: ConnectError::Ended {
                reason: "the network changed".into(),
            },
        }
    }

    fn from_end(end: End) -> Self {
        match end {
            End::CheckUnanswered => Self::Lost {
                error: ConnectError::Ended {
                    reason: end.to_string(),
                },
            },
            End::TokenExpired => Self::Failed(UplinkError::Token {
                detail: Some(end.to_string()),
            }),
            End::JoinRefused(reason) => Self::Failed(UplinkError::Rejected { reason }),
            End::JoinTimedOut | End::HeartbeatsUnanswered | End::Closed | End::Broken => {
                Self::retry(ConnectError::Ended {
                    reason: end.to_string(),
                })
            }
        }
    }
}

/// Load balancers can limit by a header, and the portal's framework only passes on those that begin like this
/// (portal-protocol.md §1.3).
const X_AUTHORIZATION: HeaderName = HeaderName::from_static("x-authorization");

async fn write_all(channel: &mut Channel, socket: &mut Socket) -> Result<(), Over> {
    while let Some(text) = channel.poll_text() {
        let message = Message::text(text.text.clone());
        match timeout(WRITE_TIMEOUT, socket.send(message)).await {
            Ok(Ok(())) => channel.handle_written(&text).map_err(Over::from_end)?,
            Ok(Err(error)) => return Err(Over::retry(ended(error))),
            Err(_) => return Err(Over::retry(ConnectError::TimedOut)),
        }
    }

    Ok(())
}

fn understand<P: Protocol>(event: Event) -> Option<FromUplink<P::FromPortal>> {
    let (event, payload) = match event {
        Event::Joined => return Some(FromUplink::Joined),
        Event::Left => return Some(FromUplink::Away),
        Event::Message { event, payload } => (event, payload),
    };

    match P::parse(&event, &payload) {
        Ok(message) => Some(FromUplink::Message(message)),
        Err(error) => {
            tracing::info!(%error, "Ignoring a message of the portal");
            None
        }
    }
}

fn ended(error: WsError) -> ConnectError {
    let is_closed = matches!(error, WsError::ConnectionClosed | WsError::AlreadyClosed);

    ConnectError::Ended {
        reason: if is_closed {
            "the portal closed it".into()
        } else {
            error.to_string()
        },
    }
}

/// Reads why an upgrade was refused, and judges it.
async fn refused(clock: Clock, response: &Response<Option<Vec<u8>>>, returned: &Returned) -> Over {
    let headers = response.headers();
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let mut body = response.body().clone().unwrap_or_default();
    let missing = expected_len(headers).saturating_sub(body.len());
    // What came with the head is there already; the rest may take its time.
    if let Some(stream) = returned.take() {
        let mut rest = stream.take(missing as u64);
        let _ = timeout(EXPLANATION_TIMEOUT, rest.read_to_end(&mut body)).await;
    }

    let answer = Answer {
        status: response.status().as_u16(),
        content_type: text(header::CONTENT_TYPE),
        retry_after: text(header::RETRY_AFTER),
        body: &body,
    };
    match Refusal::of(&answer, clock.unix()) {
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
    }
}

fn expected_len(headers: &HeaderMap) -> usize {
    let stated = headers.get(header::CONTENT_LENGTH);
    let stated = stated.and_then(|value| value.to_str().ok()?.trim().parse().ok());

    stated.unwrap_or(MAX_EXPLANATION).min(MAX_EXPLANATION)
}

/// `Linux/6.18.0 headless-client/0.1.0`: the portal derives from it what this peer can (portal-protocol.md §1.4).
fn user_agent(product: &str) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let is_wanted = |c: &char| c.is_ascii_graphic();
    let kernel: String = kernel.chars().filter(is_wanted).collect();
    let kernel = if kernel.is_empty() { "0" } else { &kernel };

    format!("Linux/{kernel} {product}/{}", env!("CARGO_PKG_VERSION"))
}
