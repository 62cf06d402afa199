//! One connection to the portal as a state machine: join, heartbeats, messages (portal-protocol.md §2, §3).
//!
//! It lives as long as the socket; the next socket gets a new one, and with it new references and an empty queue.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use connlib_wire::portal::ParseError;
use connlib_wire::portal::phoenix::{self, Control, Envelope, HEARTBEAT_TOPIC, Reason};
use serde::Serialize;
use serde_json::value::RawValue;

/// A channel on one socket.
#[derive(Debug)]
pub(super) struct Channel {
    topic: &'static str,
    join_payload: Box<RawValue>,
    /// What is said first after each join.
    greeting: Option<(&'static str, Box<RawValue>)>,
    state: State,
    next_reference: u64,
    heartbeat_at: Instant,
    heartbeat: Option<Text>,
    /// Heartbeats that were written and not answered.
    unanswered: BTreeSet<u64>,
    /// The heartbeat that has to be answered soon.
    check: Option<Check>,
    join: Option<Text>,
    messages: VecDeque<Message>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Joining { reference: u64, until: Instant },
    Joined,
}

/// A heartbeat whose answer is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Check {
    reference: u64,
    until: Instant,
}

/// A text for the socket.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// What to write.
    pub(super) text: String,
    /// The reference, if it is a heartbeat.
    heartbeat: Option<u64>,
}

#[derive(Debug, PartialEq)]
struct Message {
    event: &'static str,
    payload: String,
}

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// The portal hears us.
    Joined,
    /// It does not any more, until the next [`Joined`](Self::Joined).
    Left,
    /// The portal said something.
    Message {
        /// The event's name.
        event: String,
        /// Its payload.
        payload: Box<RawValue>,
    },
}

/// Why a connection is at its end.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum End {
    /// Nobody answered the join.
    #[error("the portal did not answer the join within 5 s")]
    JoinTimedOut,
    /// The join was refused; the next one would be, too.
    #[error("the portal refused the join: {0}")]
    JoinRefused(Reason),
    /// The portal doesn't answer any more.
    #[error("the portal did not answer the last heartbeats")]
    HeartbeatsUnanswered,
    /// It doesn't answer since the network changed.
    #[error("the portal did not answer within 2 s after the network changed")]
    CheckUnanswered,
    /// The portal ended the channel.
    #[error("the portal closed the channel")]
    Closed,
    /// The token can't be used any more.
    #[error("the token has expired or was revoked")]
    TokenExpired,
    /// A text broke off.
    #[error("the portal's message broke off in the middle")]
    Broken,
}

/// How long a join may take (portal-protocol.md §3.1).
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the portal hears from us, whatever else is said (portal-protocol.md §3.2).
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// How long the answer to a heartbeat may take when there is reason for doubt (portal-protocol.md, "Heartbeat").
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// With more heartbeats than this unanswered the path is dead (portal-protocol.md §3.2).
const MAX_UNANSWERED: usize = 3;

impl Channel {
    /// The channel of a socket that has just been opened.
    pub(super) fn new(
        now: Instant,
        topic: &'static str,
        join_payload: Box<RawValue>,
        greeting: Option<(&'static str, Box<RawValue>)>,
    ) -> Self {
        let mut channel = Self {
            topic,
            join_payload,
            greeting,
            state: State::Joined,
            next_reference: 0,
            heartbeat_at: now + HEARTBEAT_INTERVAL,
            heartbeat: None,
            unanswered: BTreeSet::new(),
            check: None,
            join: None,
            messages: VecDeque::new(),
            events: VecDeque::new(),
        };
        channel.join(now);

        channel
    }

    /// Queues a message; whether it will be said. Only a joined channel takes any, and none twice.
    pub(super) fn send(&mut self, event: &'static str, payload: &impl Serialize) -> bool {
        if self.state != State::Joined {
            return false;
        }
        let Ok(payload) = serde_json::to_string(payload) else {
            return false;
        };
        let message = Message { event, payload };
        if !self.messages.contains(&message) {
            self.messages.push_back(message);
        }

        true
    }

    /// Takes a text from the socket.
    pub(super) fn handle_text(&mut self, now: Instant, text: &str) -> Result<(), End> {
        let envelope = match Envelope::parse(text) {
            Ok(envelope) => envelope,
            Err(ParseError::NotAnEnvelope(error)) if error.is_eof() => return Err(End::Broken),
            Err(error) => {
                tracing::info!(%error, "Ignoring what the portal said");
                return Ok(());
            }
        };
        let Some(control) = Control::parse(&envelope) else {
            self.events.push_back(Event::Message {
                payload: envelope.payload().to_owned(),
                event: envelope.event,
            });
            return Ok(());
        };

        let is_ours = envelope.topic == self.topic;
        match control {
            Control::Ok { reference } if envelope.topic == HEARTBEAT_TOPIC => {
                self.unanswered.remove(&reference);
                // An earlier one may have been answered before there was a doubt.
                self.check = self.check.filter(|check| check.reference != reference);
            }
            Control::Ok { reference } if is_ours => self.handle_joined(reference),
            Control::Error { reference, reason } if is_ours => {
                return self.handle_refused(now, reference, reason);
            }
            Control::ChannelClosed if is_ours => return Err(End::Closed),
            Control::TokenExpired => return Err(End::TokenExpired),
            Control::Ok { .. }
            | Control::Error { .. }
            | Control::ChannelClosed
            | Control::ChannelFailed
            | Control::Ignored
            | _ => tracing::debug!("Ignoring a control message"),
        }

        Ok(())
    }

    /// Takes note that a text is on its way: only then can it be answered.
    pub(super) fn handle_written(&mut self, text: &Text) -> Result<(), End> {
        self.unanswered.extend(text.heartbeat);
        if self.unanswered.len() > MAX_UNANSWERED {
            return Err(End::HeartbeatsUnanswered);
        }

        Ok(())
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), End> {
        if let State::Joining { until, .. } = self.state
            && until <= now
        {
            return Err(End::JoinTimedOut);
        }
        if self.check.is_some_and(|check| check.until <= now) {
            return Err(End::CheckUnanswered);
        }
        if self.heartbeat_at <= now {
            self.beat(now);
        }

        Ok(())
    }

    /// Asks the portal for a sign of life at once. Without one within two seconds the connection is at its end; a check
    /// that is under way goes on.
    pub(super) fn check(&mut self, now: Instant) {
        if self.check.is_some() {
            return;
        }
        let reference = self.beat(now);
        self.check = Some(Check {
            reference,
            until: now + CHECK_TIMEOUT,
        });
    }

    /// The text to write next.
    pub(super) fn poll_text(&mut self) -> Option<Text> {
        if let Some(text) = self.heartbeat.take().or_else(|| self.join.take()) {
            return Some(text);
        }
        if self.state != State::Joined {
            return None;
        }
        let message = self.messages.pop_front()?;
        let reference = self.reference();
        let payload = RawValue::from_string(message.payload).ok()?;

        Some(Text {
            text: phoenix::push(self.topic, message.event, &payload, Some(reference)),
            heartbeat: None,
        })
    }

    /// Whether [`poll_event`](Self::poll_event) has one.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Something that happened.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub(super) fn poll_timeout(&self) -> Instant {
        let join_until = match self.state {
            State::Joining { until, .. } => Some(until),
            State::Joined => None,
        };
        let check_until = self.check.map(|check| check.until);

        [join_until, check_until]
            .into_iter()
            .flatten()
            .fold(self.heartbeat_at, Instant::min)
    }

    /// Queues a heartbeat, and returns its reference. One that a blocked socket hasn't taken yet is enough.
    fn beat(&mut self, now: Instant) -> u64 {
        self.heartbeat_at = now + HEARTBEAT_INTERVAL;
        let queued = self.heartbeat.as_ref().and_then(|text| text.heartbeat);
        if let Some(reference) = queued {
            return reference;
        }
        let reference = self.reference();
        self.heartbeat = Some(Text {
            text: phoenix::heartbeat(reference),
            heartbeat: Some(reference),
        });

        reference
    }

    fn join(&mut self, now: Instant) {
        let reference = self.reference();
        self.state = State::Joining {
            reference,
            until: now + JOIN_TIMEOUT,
        };
        let payload = &self.join_payload;
        self.join = Some(Text {
            text: phoenix::push(self.topic, phoenix::JOIN, payload, Some(reference)),
            heartbeat: None,
        });
    }

    fn handle_joined(&mut self, reference: u64) {
        if !self.is_join(reference) {
            return;
        }
        self.state = State::Joined;
        // Whatever was queued belongs to the room that was lost.
        self.messages.clear();
        if let Some((event, payload)) = &self.greeting {
            self.messages.push_back(Message {
                event,
                payload: payload.get().to_owned(),
            });
        }
        self.events.push_back(Event::Joined);
    }

    fn handle_refused(&mut self, now: Instant, reference: u64, reason: Reason) -> Result<(), End> {
        if self.is_join(reference) {
            return Err(End::JoinRefused(reason));
        }
        if reason == Reason::UnmatchedTopic && self.state == State::Joined {
            tracing::debug!("The portal lost our channel; joining it again");
            self.events.push_back(Event::Left);
            self.join(now);
            return Ok(());
        }
        tracing::debug!(%reason, "The portal refused a message");

        Ok(())
    }

    fn is_join(&self, reference: u64) -> bool {
        matches!(self.state, State::Joining { reference: join, .. } if join == reference)
    }

    fn reference(&mut self) -> u64 {
        let reference = self.next_reference;
        self.next_reference += 1;

        reference
    }
}

#[cfg(test)]
mod tests;
