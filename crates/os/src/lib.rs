//! What the operating system gives.
//!
//! Floor 0 of connlib. Nothing here knows a domain word or decides anything: it sends, receives and sets what it is
//! told to. Sockets and devices stand behind traits, each with an in-memory fake that a simulation can own.
//!
//! ```text
//! udp      trains of datagrams          poll       wait for many descriptors at once
//! tun      IP packets, joined or not    clock      time that goes on during suspend
//! fake     both in memory, with faults  random     a seed
//! network  ways out, notice of changes  wake       notice that the machine has slept
//! netlink  interfaces, routes, rules    process    memory in use, user
//! resolver the host's DNS settings      namespace  private networks, children in them
//! router   packets passed on
//! ```
//!
//! # Callers' duties
//!
//! * Sockets and devices never block; after `WouldBlock` wait for readiness and try again. Readiness is edge-triggered:
//!   it is reported once, so read or write until `WouldBlock`.
//! * An error of a send concerns its datagrams only; the socket stays usable.

#[cfg(target_os = "linux")]
pub mod clock;
pub mod fake;
#[cfg(target_os = "linux")]
pub mod namespace;
#[cfg(all(target_os = "linux", feature = "netlink"))]
pub mod netlink;
pub mod network;
#[cfg(all(target_os = "linux", feature = "netlink"))]
mod parameters;
#[cfg(target_os = "linux")]
pub mod poll;
#[cfg(target_os = "linux")]
pub mod process;
#[cfg(target_os = "linux")]
pub mod random;
#[cfg(target_os = "linux")]
pub mod resolver;
#[cfg(all(target_os = "linux", feature = "netlink"))]
pub mod reverse_path;
#[cfg(all(target_os = "linux", feature = "netlink"))]
pub mod router;
#[cfg(target_os = "linux")]
mod sys;
pub mod tun;
pub mod udp;
#[cfg(all(target_os = "linux", feature = "netlink"))]
pub mod wake;
