//! A STUN/TURN server as a pure state machine.
//!
//! Two nodes that can't reach each other directly meet here. A *client* (of the relay: either node) asks for an
//! *allocation*, a public port of the relay, and binds *channels* on it, short numbers that stand for peers.
//!
//! To the portal's clients it is what they expect to the letter: only channels relay (relay.md §1). To others it is a TURN
//! server by RFC 8656 over UDP: peers need permissions, and data may come and go in Send and Data indications as well.
//! [`Conduct`] says who gets what.
//!
//! ```text
//!              listen port (3478)            allocation port (49152..)
//!                    │                               │
//!   client ◄─────────┤  [number, length] payload     ├────── payload ──────► peer
//!      │             │  or Send/Data indications     │                         │
//!      └─ requests ──►  handle_client   handle_peer  ◄─────── payload ─────────┘
//!                    │       │              │        │
//!                    │       └──► Verdict ◄─┘        │
//!         answers ◄──┤  poll_transmit   poll_command ├──► open or close a port
//!     indications ◄──┤         poll_relayed          ├──► what Send indications held
//! ```
//!
//! The bytes of data under channels never move in here: a train of datagrams gets one [`Verdict`], and the caller, who has
//! the sockets, carries it out. What comes or leaves in indications is copied, and leaves through [`Server::poll_relayed`].
//! Requests are answered through [`Server::poll_transmit`].
//!
//! ```
//! use std::net::Ipv4Addr;
//! use std::time::{Duration, Instant};
//!
//! use connlib_relay::{Config, Credentials, LoopbackPeers, PrivatePeers, Server, Verdict};
//! use connlib_wire::buffer::Pool;
//! use connlib_wire::ecn::Ecn;
//! use connlib_wire::secret::Secret;
//! use connlib_wire::stun::{Builder, Class, Message, Method, TransactionId};
//! use connlib_wire::train::Arrival;
//!
//! let config = Config {
//!     public_v4: Some(Ipv4Addr::new(203, 0, 113, 9)),
//!     public_v6: None,
//!     listen_port: 3478,
//!     ports: 49_152..=65_535,
//!     credentials: Credentials::Stamped(Secret::from("what only the portal and this relay know")),
//!     loopback_peers: LoopbackPeers::Refused,
//!     private_peers: PrivatePeers::Allowed,
//! };
//! let pool = Pool::new(2_048, 16);
//! let mut server = Server::new(config, [7; 32], pool.clone());
//!
//! let request = Builder::new(pool.take(0), Method::Binding, Class::Request, TransactionId([1; 12])).finish()?;
//! let arrival = Arrival {
//!     from: "198.51.100.7:50000".parse()?,
//!     to: "203.0.113.9:3478".parse()?,
//!     ecn: Ecn::NotEct,
//!     stride: 0,
//!     bytes: &request,
//! };
//! # #[expect(clippy::disallowed_methods, reason = "an example has to begin at some time")]
//! let now = Instant::now();
//! assert_eq!(server.handle_client(now, Duration::ZERO, &arrival), Verdict::Handled);
//!
//! let answer = server.poll_transmit().expect("a binding request is answered");
//! assert_eq!(Message::parse(&answer.payload)?.mapped_address(), Some(arrival.from));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Callers' duties
//!
//! * After each `handle_…`: drain [`poll_transmit`](Server::poll_transmit), [`poll_relayed`](Server::poll_relayed) and
//!   [`poll_command`](Server::poll_command), then sleep until [`poll_timeout`](Server::poll_timeout) and call [`handle_timeout`](Server::handle_timeout).
//! * Carry out commands in order and report each [`Command::OpenPort`] with
//!   [`handle_port_opened`](Server::handle_port_opened) or [`handle_port_failed`](Server::handle_port_failed) before
//!   polling the next one. The request that asked for the port is answered only then.
//! * IPv4 and IPv6 have sockets of their own (`IPV6_V6ONLY`): no address given to the server is an IPv4-mapped one.
//! * Sockets never let their datagrams be fragmented (the DF bit is set): that is how DONT-FRAGMENT is honoured.
//! * On [`Verdict::Forward`], send what [`Forward::payloads`] yields; on [`Verdict::Mixed`], come again with each of
//!   [`runs`].
//! * Adding a channel header makes a datagram four bytes longer, and a full train with it: split trains that outgrow
//!   [`max_len`](connlib_wire::train::max_len).
//! * Buffers of the pool hold at least 256 bytes; an answer that doesn't fit is not given.
//! * Time never runs backwards.
//!
//! # Out of scope
//!
//! Sockets, the portal connection; TCP, TLS and DTLS transports, allocations of TCP (RFC 6062), mobility (RFC 8016), the ICMP
//! attribute, USERHASH (what user names hold is no secret), and 300 (there is no other server to try).

#![deny(clippy::indexing_slicing, clippy::panic)]

mod address;
mod allocation;
mod answer;
mod auth;
mod channel;
mod conduct;
mod config;
mod deadlines;
mod limits;
mod nonce;
mod permissions;
mod ports;
mod request;
mod reservations;
mod server;
mod share;
mod stats;
mod verdict;

pub use auth::REALM;
pub use conduct::Conduct;
pub use config::{AllocationPort, Config, Credentials, LoopbackPeers, PrivatePeers};
pub use deadlines::Reason;
pub use limits::Limits;
pub use server::{Command, Server};
pub use share::{Claim, Share};
pub use stats::{DropReason, Stats, Traffic};
pub use verdict::{Forward, Verdict, Via, runs};
