//! The server as its clients and its driver see it, on virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod allocations;
mod channels;
mod data;
mod limits;
mod model;
mod requests;
mod support;
mod time;
