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
//!
//! ```
//! use connlib_portal::model::{Account, Directory};
//! use connlib_portal::policy::plan;
//! use connlib_portal::topology::Topology;
//!
//! let account = Account {
//!     id: uuid::Uuid::from_u128(1),
//!     slug: "acme".to_owned(),
//!     ingest_key: "secret".into(),
//! };
//! let mut directory = Directory::new(account);
//! let topology = Topology::parse("[[site]]\nname = \"hq\"", "topology.toml")?;
//!
//! let mut last_id = 1;
//! let plan = plan(&directory, &topology, &mut || {
//!     last_id += 1;
//!     uuid::Uuid::from_u128(last_id)
//! });
//! for edit in &plan.edits {
//!     directory.apply(edit);
//! }
//!
//! assert_eq!(plan.changes.added[0].to_string(), "site `hq`");
//! assert!(directory.site_named("hq").is_some());
//! # Ok::<(), connlib_portal::topology::TopologyError>(())
//! ```
//!
//! # Callers' duties
//!
//! * Seeds are secret and random: tokens, references and pre-shared keys come from them.
//! * Store what [`state::State::poll_edit`] and [`state::State::poll_entry`] give, together, before sending what
//!   [`state::State::poll_event`] gives, and store an admin's edits before [`state::State::handle_edits`] tells of them.
//! * Give each socket a number of its own, and report its end once.
//! * One process works with one store; the SQLite store sees to that for files.
//!
//! # Not here
//!
//! Device pools, connections among clients, connections without ICE, and flow logs.

pub mod admin;
pub mod audit;
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
