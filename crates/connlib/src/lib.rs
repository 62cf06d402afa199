//! A connectivity library: client, gateway, relay and portal, and the event loop that drives them.

pub mod event_loop;
