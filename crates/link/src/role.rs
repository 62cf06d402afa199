//! The part that one end plays in a link.

/// Which end nominates paths and sends the first handshake (connections.md §3.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// The one that wants something: a client.
    Controlling,
    /// The one that serves: a gateway.
    Controlled,
}
