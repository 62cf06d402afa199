//! How each socket is spoken to: its generation of the protocol, and how messages are framed (portal-protocol.md §2, §5.1, §6.1).

use connlib_wire::id::{ClientId, GatewayId};
use connlib_wire::portal::phoenix::{self, Envelope, Framing, Outgoing, Reference};
use connlib_wire::portal::{Generation, client, gateway};
use serde::Serialize;

use super::session::SocketId;
use super::{Event, State};

/// What a socket understands.
#[derive(Clone, Debug, Default)]
pub(super) struct Dialect {
    pub(super) generation: Generation,
    pub(super) framing: Framing,
    /// What the peer called its join.
    pub(super) join: Option<Reference>,
}

impl State {
    pub(super) fn tell_client(&mut self, id: ClientId, message: &client::FromPortal) {
        let session = self.clients.get(&id).filter(|session| session.joined);
        let Some(socket) = session.map(|session| session.socket) else {
            return;
        };
        let generation = self.generation_of(socket);
        let event = message.event_in(generation);
        match generation {
            Generation::V2 => self.push(socket, client::TOPIC, event, message),
            Generation::V1 => {
                if let Some(message) = message.clone().in_v1() {
                    self.push(socket, client::TOPIC, event, &message);
                }
            }
        }
    }

    pub(super) fn tell_gateway(&mut self, id: GatewayId, message: &gateway::FromPortal) {
        let session = self.gateways.get(&id).filter(|session| session.joined);
        let Some(socket) = session.map(|session| session.socket) else {
            return;
        };
        let generation = self.generation_of(socket);
        let event = message.event_in(generation);
        match generation {
            Generation::V2 => self.push(socket, gateway::TOPIC, event, message),
            Generation::V1 => {
                self.push(socket, gateway::TOPIC, event, &message.clone().in_v1());
            }
        }
    }

    /// The generation of a client; the newer one of a client that isn't connected.
    pub(super) fn generation_of_client(&self, id: ClientId) -> Generation {
        let session = self.clients.get(&id);

        session.map_or_else(Generation::default, |session| {
            self.generation_of(session.socket)
        })
    }

    /// The generation of a gateway; the newer one of a gateway that isn't connected.
    pub(super) fn generation_of_gateway(&self, id: GatewayId) -> Generation {
        let session = self.gateways.get(&id);

        session.map_or_else(Generation::default, |session| {
            self.generation_of(session.socket)
        })
    }

    pub(super) fn generation_of(&self, socket: SocketId) -> Generation {
        let entry = self.sockets.get(&socket);

        entry.map_or_else(Generation::default, |entry| entry.dialect.generation)
    }

    /// Says something that nobody asked for.
    pub(super) fn push(
        &mut self,
        socket: SocketId,
        topic: &str,
        event: &str,
        payload: &impl Serialize,
    ) {
        let join = self.dialect_of(socket).join;
        let message = Outgoing {
            topic,
            event,
            payload,
            reference: None,
        };
        self.say(socket, &message, join.as_ref());
    }

    pub(super) fn reply_ok(&mut self, socket: SocketId, envelope: &Envelope<'_>) {
        let answer = phoenix::ok(&envelope.topic, envelope.reference.clone());
        self.say(socket, &answer, envelope.join_reference.as_ref());
    }

    pub(super) fn reply_error(&mut self, socket: SocketId, envelope: &Envelope<'_>, reason: &str) {
        let answer = phoenix::error(&envelope.topic, envelope.reference.clone(), reason);
        self.say(socket, &answer, envelope.join_reference.as_ref());
    }

    pub(super) fn dialect_of(&self, socket: SocketId) -> Dialect {
        let entry = self.sockets.get(&socket);

        entry.map_or_else(Dialect::default, |entry| entry.dialect.clone())
    }

    pub(super) fn say<P: Serialize>(
        &mut self,
        socket: SocketId,
        message: &Outgoing<'_, P>,
        join: Option<&Reference>,
    ) {
        let text = message.write(self.dialect_of(socket).framing, join);
        self.events.push_back(Event::Send { socket, text });
    }
}
