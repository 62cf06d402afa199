//! One attempt to talk to the portal, from its start to its end.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;
use connlib_wire::key::PublicKey;
use connlib_wire::portal::Generation;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::value::to_raw_value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

use super::channel::{Channel, End, Event};
use super::protocol::Protocol;
use super::transport::{Dialer, Ends, Standing};
use super::upgrade::{NotUpgraded, Socket, upgrade};
use super::{ConnectError, FromUplink, ToUplink, UplinkConfig, UplinkError};

/// Makes attempts, one after another.
pub(super) struct Session<P> {
    dialer: Dialer,
    config: UplinkConfig,
    /// What the portal spoke last, and is addressed in first.
    generation: Generation,
    /// When a connection was last ended for the sake of a new `init`.
    renewed_at: Option<Instant>,
    protocol: PhantomData<P>,
}

/// An upgraded connection, and what is known of it.
struct Opened {
    socket: Socket,
    ends: Ends,
    generation: Generation,
    key: Option<PublicKey>,
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

/// From the first packet to the end of the handshakes (portal-protocol.md §3.1).
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// A socket that takes nothing for that long is as good as closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the portal may take to end a connection properly.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a connection in V1 is ended for the sake of a new `init`. Relays that are wanted come with that alone, and a portal that
/// has none would else be joined anew with every request for access.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);

impl<P: Protocol> Session<P> {
    pub(super) fn new(dialer: Dialer, config: UplinkConfig) -> Self {
        Self {
            dialer,
            config,
            generation: Generation::V2,
            renewed_at: None,
            protocol: PhantomData,
        }
    }

    /// Forgets what the portal spoke: it may be another one by now.
    pub(super) fn start_over(&mut self) {
        self.generation = Generation::V2;
    }

    /// Connects, joins and stays. `was_joined` says at the end whether the join ever succeeded.
    pub(super) async fn run(
        &mut self,
        clock: Clock,
        key: Option<PublicKey>,
        commands: &mut mpsc::Receiver<ToUplink<P::ToPortal>>,
        events: &mpsc::Sender<FromUplink<P::FromPortal>>,
        was_joined: &mut bool,
    ) -> Over {
        let mut opened = match self.open_unless_told(clock, key, commands).await {
            Ok(opened) => opened,
            Err(over) => return over,
        };
        let over = self
            .talk(clock, &mut opened, commands, events, was_joined)
            .await;
        if !matches!(over, Over::Retry { .. } | Over::Lost { .. }) {
            let frame = CloseFrame {
                code: CloseCode::Normal,
                reason: Utf8Bytes::default(),
            };
            let _ = timeout(CLOSE_TIMEOUT, opened.socket.close(Some(frame))).await;
        }

        over
    }

    /// Opens a connection, or is told otherwise meanwhile.
    async fn open_unless_told(
        &mut self,
        clock: Clock,
        key: Option<PublicKey>,
        commands: &mut mpsc::Receiver<ToUplink<P::ToPortal>>,
    ) -> Result<Opened, Over> {
        let attempt = timeout(ATTEMPT_TIMEOUT, self.open(clock, key));
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                result = &mut attempt => {
                    return result.unwrap_or_else(|_| Err(Over::retry(ConnectError::TimedOut)));
                }
                command = commands.recv() => match command {
                    Some(ToUplink::Message(_) | ToUplink::CheckSource) => {}
                    // What it has sent so far may have gone the old way, and be sent again ever more slowly.
                    Some(ToUplink::Check) => return Err(Over::moved()),
                    Some(ToUplink::Disconnect) => return Err(Over::Disconnected),
                    Some(ToUplink::Connect(key)) => return Err(Over::Reconnect(key)),
                    None => return Err(Over::Abandoned),
                },
            }
        }
    }

    /// Opens a connection in the generation that worked last, or in the other one if the portal doesn't know that.
    async fn open(&mut self, clock: Clock, key: Option<PublicKey>) -> Result<Opened, Over> {
        let first = self.generation;
        let refused = match self.open_in(clock, key, first).await {
            Ok(opened) => return Ok(opened),
            Err(refused) => refused,
        };
        if !refused.may_be_other {
            return Err(refused.over);
        }
        // Whatever becomes of this attempt, the next one begins with the newer again, unless the older works.
        self.generation = Generation::V2;
        let other = match first {
            Generation::V1 => Generation::V2,
            Generation::V2 => Generation::V1,
        };
        tracing::debug!(?other, "The portal may be of another generation");
        let opened = self.open_in(clock, key, other).await;
        let opened = opened.map_err(|refused| refused.over)?;
        self.generation = other;

        Ok(opened)
    }

    async fn open_in(
        &self,
        clock: Clock,
        key: Option<PublicKey>,
        generation: Generation,
    ) -> Result<Opened, NotUpgraded> {
        let dialled = self.dialer.dial(&self.config.url).await;
        let dialled = dialled.map_err(|error| {
            if matches!(error, ConnectError::Mark { .. }) {
                Over::Failed(UplinkError::Refused(error))
            } else {
                Over::retry(error)
            }
        })?;
        let socket = upgrade::<P>(clock, dialled.stream, &self.config, generation, key).await?;

        Ok(Opened {
            socket,
            ends: dialled.ends,
            generation,
            key,
        })
    }

    async fn talk(
        &mut self,
        clock: Clock,
        opened: &mut Opened,
        commands: &mut mpsc::Receiver<ToUplink<P::ToPortal>>,
        events: &mpsc::Sender<FromUplink<P::FromPortal>>,
        was_joined: &mut bool,
    ) -> Over {
        let Opened {
            socket,
            ends,
            generation,
            key,
        } = opened;
        let (ends, generation, key) = (*ends, *generation, *key);
        let mut renew_at = None;
        let mut channel = self.channel(clock.now(), generation);

        loop {
            if let Err(over) = write_all(&mut channel, socket).await {
                return over;
            }
            let now = clock.now();
            if renew_at.is_some_and(|at| at <= now) {
                self.renewed_at = Some(now);
                return Over::Reconnect(key);
            }
            let timeout_at = channel.poll_timeout();
            let timeout_at = renew_at.map_or(timeout_at, |at| timeout_at.min(at));
            let until_timeout = timeout_at.saturating_duration_since(now);
            let result = tokio::select! {
                () = sleep(until_timeout) => channel.handle_timeout(clock.now()),
                command = commands.recv() => match command {
                    Some(ToUplink::Message(message)) => {
                        if generation == Generation::V1 && P::wants_relays(&message) {
                            renew_at = Some(renewal(clock.now(), self.renewed_at));
                        } else {
                            say::<P>(&mut channel, generation, message);
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
                    if let Some(event) = channel.poll_event().and_then(|event| understand::<P>(generation, event)) {
                        *was_joined |= matches!(event, FromUplink::Joined(_));
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

    fn channel(&self, now: Instant, generation: Generation) -> Channel {
        let greeting = P::greeting().filter(|_| generation == Generation::V2);
        let greeting = greeting.and_then(|greeting| {
            let payload = to_raw_value(&greeting).ok()?;
            Some((P::event(&greeting, generation), payload))
        });

        Channel::new(now, P::TOPIC, self.config.join.clone(), greeting)
    }
}

/// When a connection may end for the sake of a new `init`, the one before having done so then.
fn renewal(now: Instant, before: Option<Instant>) -> Instant {
    before.map_or(now, |before| now.max(before + RENEW_INTERVAL))
}

impl<P> std::fmt::Debug for Session<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("portal", &self.config.url.base())
            .finish_non_exhaustive()
    }
}

impl Over {
    pub(super) fn retry(error: ConnectError) -> Self {
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

/// Says something in the words that the portal knows.
fn say<P: Protocol>(channel: &mut Channel, generation: Generation, message: P::ToPortal) {
    let event = P::event(&message, generation);
    let message = match generation {
        Generation::V1 => P::in_v1(message),
        Generation::V2 => Some(message),
    };
    let Some(message) = message else {
        tracing::debug!(event, "Not said: the portal has no word for it");
        return;
    };
    if !channel.send(P::event(&message, generation), &message) {
        tracing::debug!(event, "Not said: the channel is not joined");
    }
}

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

fn understand<P: Protocol>(
    generation: Generation,
    event: Event,
) -> Option<FromUplink<P::FromPortal>> {
    let (event, payload) = match event {
        Event::Joined => return Some(FromUplink::Joined(generation)),
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

#[cfg(test)]
mod tests {
    use connlib_wire::portal::phoenix::Reason;

    use super::*;

    #[test]
    fn every_end_of_a_connection_but_a_refusal_is_followed_by_another() {
        for end in [
            End::JoinTimedOut,
            End::HeartbeatsUnanswered,
            End::Closed,
            End::Broken,
        ] {
            let over = Over::from_end(end.clone());
            assert!(matches!(over, Over::Retry { after: None, .. }), "{end:?}");
        }
        let over = Over::from_end(End::CheckUnanswered);
        assert!(matches!(over, Over::Lost { .. }));

        let over = Over::from_end(End::TokenExpired);
        assert!(matches!(over, Over::Failed(UplinkError::Token { .. })));
        let over = Over::from_end(End::JoinRefused(Reason::Disabled));
        assert!(matches!(over, Over::Failed(UplinkError::Rejected { .. })));
    }

    #[test]
    fn connections_are_renewed_at_once_but_seldom() {
        let now = Clock::new().now();
        let renewed = renewal(now, None);
        assert_eq!(renewed, now);

        for seconds in [0, 1, 9] {
            let later = now + Duration::from_secs(seconds);
            assert_eq!(renewal(later, Some(renewed)), now + RENEW_INTERVAL);
        }
        let later = now + 2 * RENEW_INTERVAL;
        assert_eq!(renewal(later, Some(renewed)), later);
    }
}
