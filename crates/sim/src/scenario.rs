//! What happens in a world: everything in it follows from the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::faults::Faults;

/// Whether the two ends can reach each other without the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direct {
    /// They can.
    Open,
    /// They can't.
    Blocked,
}

/// The IP version of the network between the hosts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A world before it runs.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What everything follows from.
    pub seed: u64,
    /// The network between the hosts.
    pub family: Family,
    /// Whether it lets the two ends meet.
    pub direct: Direct,
    /// One-way delay of each host's link: client, gateway, relay.
    pub latency: [Duration; 3],
    /// How many of a thousand datagrams each link loses.
    pub loss: u32,
    /// One-way delay between any host and the portal.
    pub portal_latency: Duration,
    /// How many requests the app sends.
    pub pings: u32,
    /// Their payloads' size in bytes.
    pub ping_size: usize,
    /// The time between two of them.
    pub ping_interval: Duration,
    /// When the grant ends, from the start.
    pub grant_ends_at: Option<Duration>,
    /// What goes wrong in the client's devices, and in the gateway's.
    pub faults: [Faults; 2],
}

impl Scenario {
    /// Draws a world.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut millis =
            |range: std::ops::Range<u64>| Duration::from_millis(rng.random_range(range));
        let latency = [millis(1..60), millis(1..60), millis(1..40)];
        let portal_latency = millis(1..80);
        let ping_interval = millis(5..500);
        let grant_ends_at = Duration::from_secs(rng.random_range(40..60));

        Self {
            seed,
            family: if rng.random_bool(0.7) {
                Family::V4
            } else {
                Family::V6
            },
            direct: if rng.random_bool(0.6) {
                Direct::Open
            } else {
                Direct::Blocked
            },
            latency,
            loss: if rng.random_bool(0.5) {
                0
            } else {
                rng.random_range(1..60)
            },
            portal_latency,
            pings: rng.random_range(5..40),
            ping_size: rng.random_range(8..1_200),
            ping_interval,
            grant_ends_at: rng.random_bool(0.3).then_some(grant_ends_at),
            faults: match rng.random_bool(0.5) {
                true => [Faults::draw(&mut rng), Faults::draw(&mut rng)],
                false => Default::default(),
            },
        }
    }

    /// When there are TUN devices on both ends.
    pub(crate) fn devices_at(&self) -> Duration {
        let [client, gateway] = &self.faults;

        client.tun_comes_at.max(gateway.tun_comes_at)
    }

    /// Whether datagrams are lost, by the network or by a device.
    pub(crate) fn loses(&self) -> bool {
        self.loss > 0 || self.faults.iter().any(Faults::lose)
    }
}
