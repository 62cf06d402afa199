//! The clocks. Only the edges read them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The runtime's monotonic clock, so that a test that pauses it pauses the portal.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, in whole seconds.
#[expect(clippy::disallowed_methods, reason = "this is the edge that reads it")]
pub(crate) fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);

    since.map_or(0, |since| since.as_secs())
}
