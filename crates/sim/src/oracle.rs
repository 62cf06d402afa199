//! Who watches: what must never be, and what must have been when all is over.
//!
//! Small rules instead of a second implementation. [`Access`] says who may reach what at a time; [`Reach`] who can reach
//! whom; [`Watch`] keeps the disturbances, each with a span in which anything may have become of a packet. Outside of these
//! spans every packet of a world without loss must come through, in order, once. [`Names`] says what clients must make of what
//! they are told of names, and what answers they may give.

mod access;
mod answers;
mod asks;
mod decisions;
mod disturb;
mod excuses;
mod expectations;
mod judge;
mod lists;
mod named;
mod names;
mod pattern;
mod probes;
mod reach;
mod refusals;
mod relays;
mod routes;
mod sentinels;
mod view;
mod watch;

pub(crate) use access::{Access, Arriving, Destination, Version};
pub(crate) use answers::Truth;
pub(crate) use judge::{Evidence, judge};
pub(crate) use names::Names;
pub(crate) use reach::Reach;
pub(crate) use relays::{INSIDER, OUTSIDER, OUTSIDER_V6, Relays};
pub(crate) use routes::Way;
pub(crate) use sentinels::is_sentinel;
pub(crate) use view::stands_for_a_name;
pub(crate) use watch::{Disturbance, Watch};
