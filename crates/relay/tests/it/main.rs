//! The server as its clients and its driver see it, on virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod addresses;
mod allocations;
mod bad_input;
mod channels;
mod conduct;
mod data;
mod draining;
mod indications;
mod integrity;
mod limits;
mod model;
mod permissions;
mod quotas;
mod requests;
mod reservations;
mod second_opinion;
mod siblings;
mod standard_model;
mod stats;
mod support;
mod time;
