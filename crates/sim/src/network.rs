//! What lies between the hosts: one link each, and a core that connects them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use connlib_os::fake::FakeTrain;
use connlib_wire::ecn::Ecn;
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::scenario::{Direct, Family, Scenario};

/// The hosts of this world.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum HostId {
    Client,
    Gateway,
    Relay,
}

impl HostId {
    pub(crate) const ALL: [Self; 3] = [Self::Client, Self::Gateway, Self::Relay];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Relay => "relay",
        }
    }

    /// The host's one address.
    pub(crate) fn ip(self, family: Family) -> IpAddr {
        let (v4, v6) = match self {
            Self::Client => ([198, 51, 100, 7], 0x7),
            Self::Gateway => ([192, 0, 2, 33], 0x33),
            Self::Relay => ([203, 0, 113, 9], 0x9),
        };

        match family {
            Family::V4 => IpAddr::from(v4),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, v6]),
        }
    }

    pub(crate) fn at(ip: IpAddr, family: Family) -> Option<Self> {
        Self::ALL.into_iter().find(|host| host.ip(family) == ip)
    }
}

/// Decides what becomes of datagrams.
pub(crate) struct Network {
    family: Family,
    direct: Direct,
    latency: [Duration; 3],
    loss: u32,
    rng: StdRng,
}

impl Network {
    pub(crate) fn new(scenario: &Scenario, rng: StdRng) -> Self {
        Self {
            family: scenario.family,
            direct: scenario.direct,
            latency: scenario.latency,
            loss: scenario.loss,
            rng,
        }
    }

    /// Carries a train of datagrams: who gets what is left of it, and when.
    pub(crate) fn carry(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        ecn: Ecn,
        datagrams: &[&[u8]],
    ) -> Option<(Duration, HostId, FakeTrain)> {
        let source = HostId::at(from.ip(), self.family)?;
        let target = HostId::at(to.ip(), self.family)?;
        let needs_direct = source != HostId::Relay && target != HostId::Relay;
        if needs_direct && self.direct == Direct::Blocked {
            return None;
        }

        // Only the last datagram of a train may be shorter, so that what survives is a train again.
        let survivors: Vec<&[u8]> = datagrams
            .iter()
            .copied()
            .filter(|_| self.rng.random_range(0..1_000) >= self.loss)
            .collect();
        let stride = survivors.first()?.len();
        let train = FakeTrain {
            from,
            to,
            ecn,
            stride,
            bytes: survivors.concat(),
        };

        Some((self.delay(source) + self.delay(target), target, train))
    }

    fn delay(&self, host: HostId) -> Duration {
        let [client, gateway, relay] = self.latency;
        match host {
            HostId::Client => client,
            HostId::Gateway => gateway,
            HostId::Relay => relay,
        }
    }
}
