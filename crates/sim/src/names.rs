//! Names in the world: what they mean where, who says so, and programs that ask.
//!
//! All of it is written from the standards and the specification, with a codec and a TCP of its own: whatever the shipped
//! code gets wrong about a message must not look right here.

mod message;
mod resolver;
mod servers;
mod tcp;
mod zones;

pub(crate) use message::{Message, code, of_ip, to_ip, to_name};
pub(crate) use resolver::{Ask, Resolver, Started, TIMEOUT, Verdict};
pub(crate) use servers::{Reply, Servers};
pub(crate) use tcp::{Heard, Tcp};
pub(crate) use zones::{Says, Zones};
