//! Bytes and their meaning.
//!
//! Floor 0 of connlib: every format that crosses a wire, and the buffers it travels in. Nothing here knows the time,
//! does I/O or decides anything.
//!
//! ```text
//! buffer   pooled memory with head room        ip       checked views of IP, TCP, UDP, ICMP; checksums
//! train    datagrams that travel together      stun     STUN and TURN messages
//! ecn      congestion marks                    channel  TURN channel data
//! id, key  names and keys                      control  client <-> gateway, inside the tunnel
//! secret   text that cannot be printed         portal   client, gateway, relay <-> portal
//! dns      questions, answers and names          pattern  which names a resource is about
//! offload  what a TUN device says of a packet
//! runs     packets of a flow, joined for a TUN device
//! super_packet  up to 64 KiB of one flow, as a TUN device reads them, and its segments
//! ```
//!
//! # Callers' duties
//!
//! * A parsed message is well formed, not true: check integrity ([`stun::Message::verify`]), sources and grants yourself.
//! * Nothing here panics on bytes from outside; a function that can fail says so in its type.

#![deny(clippy::indexing_slicing, clippy::panic)]

pub mod buffer;
pub mod channel;
pub mod control;
pub mod dns;
pub mod ecn;
pub mod id;
pub mod ip;
pub mod key;
pub mod offload;
pub mod pattern;
pub mod portal;
pub mod runs;
pub mod secret;
pub mod stun;
pub mod super_packet;
pub mod train;

#[cfg(test)]
mod samples;

/// The largest IP packet that enters or leaves a tunnel, in bytes; also the MTU of each TUN device (connections.md §2).
pub const MAX_PACKET: usize = 1280;

/// What WireGuard adds to a packet: type, receiver index, counter and tag (connections.md §2).
pub const WIREGUARD_OVERHEAD: usize = 4 + 4 + 8 + 16;

/// The largest UDP payload two nodes exchange: a packet, WireGuard's and the channel's headers (io.md C2).
pub const MAX_DATAGRAM: usize = MAX_PACKET + WIREGUARD_OVERHEAD + 4;
