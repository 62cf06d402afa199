//! A connectivity library: client, gateway, relay and portal, and the event loop that drives them.

#[cfg(feature = "net")]
#[expect(
    dead_code,
    unused_imports,
    reason = "the roles' handles, which come next, hold them"
)]
mod data_plane;
pub mod event_loop;
#[cfg(feature = "net")]
#[expect(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the control plane, which comes next, holds it"
)]
mod uplink;
