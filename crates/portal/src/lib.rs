//! The control plane: who may reach what.
//!
//! Floor 2 of connlib. The portal introduces clients to gateways and hands relays to both; it never sees a packet.
//!
//! ```text
//!   topology file ──► topology ──► policy ──► Edit ──► store (SQLite or memory)
//!                                              │
//!                                              ▼
//!   sockets ──text──► state ──────────────► model::Directory
//!           ◄──text──   └─ derive: keys and credentials
//! ```
//!
//! All of that is pure: time, randomness and texts come in as arguments, texts go out. The feature `server` puts
//! WebSockets, TLS, an admin socket and an SQLite file around it.

pub mod admin;
pub mod derive;
pub mod model;
pub mod policy;
#[cfg(feature = "server")]
pub mod server;
pub mod state;
pub mod store;
pub mod token;
pub mod topology;

#[cfg(test)]
mod tests;
