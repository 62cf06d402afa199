//! Two nodes and a relay on virtual time, through the public API alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, reason = "a test has no one to reach")]

mod connecting;
mod fixed;
mod hostile;
mod lan;
mod paths;
mod regressions;
mod relays;
mod stranger_relay;
mod world;
