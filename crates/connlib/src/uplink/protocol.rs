//! What the three roles say to the portal, and it to them.

use std::fmt;

use connlib_wire::portal::{self, Capabilities, ParseError};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// One role's messages.
pub(crate) trait Protocol: fmt::Debug + Send + 'static {
    type FromPortal: fmt::Debug + Send + 'static;
    type ToPortal: fmt::Debug + Serialize + Send + Sync + 'static;

    const TOPIC: &'static str;
    const PATH: &'static [&'static str];
    /// What the user agent calls the program (portal-protocol.md §1.4).
    const PRODUCT: &'static str;

    fn parse(event: &str, payload: &RawValue) -> Result<Self::FromPortal, ParseError>;
    fn event(message: &Self::ToPortal) -> &'static str;

    /// What is said first after each join.
    fn greeting() -> Option<Self::ToPortal>;
}

/// A client's.
#[derive(Debug)]
pub(crate) struct OfClient;

impl Protocol for OfClient {
    type FromPortal = portal::client::FromPortal;
    type ToPortal = portal::client::ToPortal;

    const TOPIC: &'static str = portal::client::TOPIC;
    const PATH: &'static [&'static str] = &["client", "v2", "websocket"];
    const PRODUCT: &'static str = "headless-client";

    fn parse(event: &str, payload: &RawValue) -> Result<Self::FromPortal, ParseError> {
        Self::FromPortal::parse(event, payload)
    }

    fn event(message: &Self::ToPortal) -> &'static str {
        message.event()
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
    const PATH: &'static [&'static str] = &["gateway", "v2", "websocket"];
    const PRODUCT: &'static str = "gateway";

    fn parse(event: &str, payload: &RawValue) -> Result<Self::FromPortal, ParseError> {
        Self::FromPortal::parse(event, payload)
    }

    fn event(message: &Self::ToPortal) -> &'static str {
        message.event()
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
    const PATH: &'static [&'static str] = &["relay", "websocket"];
    const PRODUCT: &'static str = "relay";

    fn parse(event: &str, payload: &RawValue) -> Result<Self::FromPortal, ParseError> {
        Self::FromPortal::parse(event, payload)
    }

    fn event(message: &Nothing) -> &'static str {
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
