//! Who watches: what must never be, and what must have been when all is over.
//!
//! Small rules instead of a second implementation. [`Access`] says who may reach what at a time; [`Reach`] who can reach
//! whom; [`Watch`] keeps the disturbances, each with a span in which anything may have become of a packet. Outside of these
//! spans every packet of a world without loss must come through, in order, once.

mod access;
mod disturb;
mod excuses;
mod expectations;
mod judge;
mod reach;
mod watch;

pub(crate) use access::Access;
pub(crate) use judge::judge;
pub(crate) use reach::Reach;
pub(crate) use watch::{Disturbance, Watch};
