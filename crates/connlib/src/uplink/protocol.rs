//! What the three roles say to the portal, and it to them.

use std::fmt;

use connlib_wire::portal::{self, Capabilities, Generation, ParseError};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// One role's messages.
pub(crate) trait Protocol: fmt::Debug + Send + Sync + 'static {
    type FromPortal: fmt::Debug + Send + 'static;
    type ToPortal: fmt::Debug + Serialize + Send + Sync + 'static;

    const TOPIC: &'static str;
    /// Whether each generation has a path of its own. With one path for both they differ by where the token stands.
    const IS_VERSIONED: bool = true;

    fn path(generation: Generation) -> &'static [&'static str];
    /// The program and version that the user agent names (portal-protocol.md §1.4): the one whose messages are spoken. From
    /// that, not from a version of our own, a portal tells what a peer can, and which gateways a client gets on with.
    fn program(generation: Generation) -> &'static str;
    fn parse(event: &str, payload: &RawValue) -> Result<Self::FromPortal, ParseError>;
    fn event(message: &Self::ToPortal, generation: Generation) -> &'static str;
    /// The message as V1 has it; `None` if it has no word for it.
    fn in_v1(message: Self::ToPortal) -> Option<Self::ToPortal>;
    /// Whether the message says that relays are wanted: in V1 a new connection asks for them.
    fn wants_relays(message: &Self::ToPortal) -> bool;

    /// What is said first after each join, but in V1.
    fn greeting() -> Option<Self::ToPortal>;
}

/// A client's.
#[derive(Debug)]
pub(crate) struct OfClient;

impl Protocol for OfClient {
    type FromPortal = portal::client::FromPortal;
    type ToPortal = portal::client::ToPortal;

    const TOPIC: &'static str = portal::client::TOPIC;

    fn path(generation: Generation) -> &'static [&'static str] {
        match generation {
            Generation::V1 => &["client", "websocket"],
            Generation::V2 => &["client", "v2", "websocket"],
        }
    }

    fn program(generation: Generation) -> &'static str {
        match generation {
            Generation::V1 => "connlib/1.5.4",
            Generation::V2 => "headless-client/1.5.12",
        }
    }

    fn parse(event: &str, payload: &RawValue) -> Result<Self::FromPortal, ParseError> {
        Self::FromPortal::parse(event, payload)
    }

    fn event(message: &Self::ToPortal, generation: Generation) -> &'static str {
        message.event_in(generation)
    }

    fn in_v1(message: Self::ToPortal) -> Option<Self::ToPortal> {
        message.in_v1()
    }

    fn wants_relays(message: &Self::ToPortal) -> bool {
        matches!(message, portal::client::ToPortal::NoRelays(_))
    }

    fn greeting() -> Option<Self::ToPortal> {
        Some(portal::client::ToPortal::SetCapabilities(CAPABILITIES))
    }
}

/// A gateway's.
#[derive(Debug)]
pub(crate) struct OfGateway;

impl Protocol for OfGateway {
    type FromPortal = portal::gateway::FromPortal;
    type ToPortal = portal::gateway::ToPortal;

    const TOPIC: &'static str = portal::gateway::TOPIC;

    fn path(generation: Generation) -> &'static [&'static str] {
        match generation {
            Generation::V1 => &["gateway", "websocket"],
            Generation::V2 => &["gateway", "v2", "websocket"],
        }
    }

    fn program(generation: Generation) -> &'static str {
        match generation {
            Generation::V1 => "connlib/1.4.17",
            Generation::V2 => "gateway/1.6.1",
        }
    }

    fn parse(event: &str, payload: &RawValue) -> Result<Self::FromPortal, ParseError> {
        Self::FromPortal::parse(event, payload)
    }

    fn event(message: &Self::ToPortal, generation: Generation) -> &'static str {
        message.event_in(generation)
    }

    fn in_v1(message: Self::ToPortal) -> Option<Self::ToPortal> {
        message.in_v1()
    }

    fn wants_relays(message: &Self::ToPortal) -> bool {
        matches!(message, portal::gateway::ToPortal::NoRelays(_))
    }

    fn greeting() -> Option<Self::ToPortal> {
        Some(portal::gateway::ToPortal::SetCapabilities(CAPABILITIES))
    }
}

/// A relay's, which says nothing but its join and heartbeats.
#[derive(Debug)]
pub(crate) struct OfRelay;

impl Protocol for OfRelay {
    type FromPortal = portal::relay::FromPortal;
    type ToPortal = Nothing;

    const TOPIC: &'static str = portal::relay::TOPIC;
    const IS_VERSIONED: bool = false;

    fn path(_: Generation) -> &'static [&'static str] {
        &["relay", "websocket"]
    }

    fn program(_: Generation) -> &'static str {
        "relay/0.1.0"
    }

    fn parse(event: &str, payload: &RawValue) -> Result<Self::FromPortal, ParseError> {
        Self::FromPortal::parse(event, payload)
    }

    fn event(message: &Nothing, _: Generation) -> &'static str {
        match *message {}
    }

    fn in_v1(message: Nothing) -> Option<Nothing> {
        Some(message)
    }

    fn wants_relays(message: &Nothing) -> bool {
        match *message {}
    }

    fn greeting() -> Option<Nothing> {
        None
    }
}

/// What a relay has to say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nothing {}

impl Serialize for Nothing {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        match *self {}
    }
}

/// This version needs ICE on every connection.
const CAPABILITIES: Capabilities = Capabilities { iceless: false };
