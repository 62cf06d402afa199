//! A connectivity library: client, gateway, relay and portal, and the event loop that drives them.
//!
//! ```no_run
//! use connlib::{Client, Secret};
//!
//! let client = Client::builder()
//!     .api_url("wss://portal.example")
//!     .token(Secret::from("…"))
//!     .start()?;
//! client.wait_ready()?;
//! # Ok::<_, connlib::Error>(())
//! ```
//!
//! Each role is a builder and a handle. A handle is cheap to clone; the last clone that is dropped stops the role. Nothing
//! here wants a runtime of the caller's: a client, gateway or relay has two threads of its own, one for packets and one
//! for everything else.
//!
//! ```text
//!   Client, Gateway, Relay, Portal       what you hold
//!        │            │
//!   control_plane   data_plane           a thread with a runtime │ a thread with the loop
//!   portal, kernel,   sockets, TUN
//!   local sockets        │
//!                    event_loop          one step at a time, no clock, no thread
//! ```
//!
//! Who brings a state machine of another protocol runs it on the data plane by [`node`].
//!
//! Without the feature `net` only [`event_loop`] is left: simulations drive the same loop over other devices.

#[cfg(feature = "net")]
mod builder;
#[cfg(feature = "net")]
pub mod client;
#[cfg(feature = "net")]
mod control_plane;
#[cfg(feature = "net")]
mod data_plane;
#[cfg(feature = "net")]
mod dial;
#[cfg(feature = "net")]
pub mod error;
pub mod event_loop;
#[cfg(feature = "net")]
mod exchanges;
#[cfg(feature = "net")]
pub mod gateway;
#[cfg(feature = "net")]
mod handle;
#[cfg(feature = "net")]
pub mod node;
#[cfg(feature = "net")]
pub mod portal;
#[cfg(feature = "net")]
mod portal_view;
#[cfg(feature = "net")]
mod process;
#[cfg(feature = "net")]
pub mod relay;
#[cfg(feature = "net")]
pub mod status;
#[cfg(feature = "net")]
mod tls;
#[cfg(feature = "net")]
mod uplink;
#[cfg(feature = "net")]
mod watch;

#[cfg(feature = "net")]
pub use client::Client;
pub use connlib_tunnel::why;
pub use connlib_wire::secret::Secret;
#[cfg(feature = "net")]
pub use error::Error;
#[cfg(feature = "net")]
pub use gateway::Gateway;
#[cfg(feature = "net")]
pub use portal::Portal;
#[cfg(feature = "net")]
pub use relay::Relay;
#[cfg(feature = "net")]
pub use uplink::Proxy;
#[cfg(feature = "net")]
pub use watch::Watch;
