//! The network around us: when a notice of change is one that matters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_os::network::{Network, Way};

/// Stands for everything that has no route of its own: a root server of the DNS (a.root-servers.net), whose addresses don't
/// change. Nothing is ever sent to it by us; only the way to it is asked for.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// More relays than a portal names; whose ways are asked for at each notice.
const MAX_RELAYS: usize = 16;

/// What a notice amounts to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// Nothing that concerns our packets.
    Hint,
    /// There is no way out any more. What there was may come back.
    Cut,
    /// Packets leave another way than before, by another IP version, or again after they didn't.
    Moved,
}

/// The ways by which our packets leave.
#[derive(Debug)]
pub(super) struct Surroundings<N> {
    network: N,
    relays: BTreeSet<IpAddr>,
    /// As they were when last there was any.
    ways: BTreeMap<IpAddr, Way>,
    is_cut: bool,
}

impl<N: Network> Surroundings<N> {
    /// Looks around for the first time.
    pub(super) async fn new(network: N) -> Result<Self, N::Error> {
        let mut surroundings = Self {
            network,
            relays: BTreeSet::new(),
            ways: BTreeMap::new(),
            is_cut: false,
        };
        surroundings.ways = surroundings.look().await?;
        surroundings.is_cut = surroundings.ways.is_empty();

        Ok(surroundings)
    }

    /// Waits for the next notice. Dropping the future loses none.
    pub(super) async fn changed(&mut self) -> Result<(), N::Error> {
        self.network.changed().await
    }

    /// Adds relays to the destinations that matter.
    pub(super) async fn learn(
        &mut self,
        relays: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), N::Error> {
        for relay in relays {
            if self.relays.len() >= MAX_RELAYS || !self.relays.insert(relay) {
                continue;
            }
            if let Some(way) = self.network.way_to(relay).await? {
                self.ways.insert(relay, way);
                self.is_cut = false;
            }
        }

        Ok(())
    }

    /// Forgets all relays, because others take their place.
    pub(super) fn forget_relays(&mut self) {
        for relay in std::mem::take(&mut self.relays) {
            self.ways.remove(&relay);
        }
    }

    /// Judges what a notice was about.
    pub(super) async fn judge(&mut self) -> Result<Change, N::Error> {
        let ways = self.look().await?;
        if ways.is_empty() {
            let was_cut = std::mem::replace(&mut self.is_cut, true);
            return Ok(if was_cut { Change::Hint } else { Change::Cut });
        }
        let was_cut = std::mem::replace(&mut self.is_cut, false);
        let has_moved = self.ways != ways;
        self.ways = ways;

        Ok(if was_cut || has_moved {
            Change::Moved
        } else {
            Change::Hint
        })
    }

    async fn look(&mut self) -> Result<BTreeMap<IpAddr, Way>, N::Error> {
        let mut ways = BTreeMap::new();
        for &destination in ANYWHERE.iter().chain(&self.relays) {
            if let Some(way) = self.network.way_to(destination).await? {
                ways.insert(destination, way);
            }
        }

        Ok(ways)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connlib_os::fake::FakeNetwork;

    const RELAY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

    #[tokio::test]
    async fn the_same_ways_are_a_hint_and_others_a_move() {
        let world = FakeNetwork::new();
        world.set_way(ANYWHERE[0], Some(way(1)));
        let mut around = Surroundings::new(world.clone()).await.unwrap();

        world.notify();
        around.changed().await.unwrap();
        assert_eq!(around.judge().await.unwrap(), Change::Hint);
        world.set_way(ANYWHERE[0], Some(way(2)));
        assert_eq!(around.judge().await.unwrap(), Change::Moved);
        assert_eq!(around.judge().await.unwrap(), Change::Hint);
    }

    #[tokio::test]
    async fn an_ip_version_that_comes_or_goes_is_a_move() {
        let world = FakeNetwork::new();
        world.set_way(ANYWHERE[0], Some(way(1)));
        let mut around = Surroundings::new(world.clone()).await.unwrap();

        for way in [Some(way(1)), None] {
            world.set_way(ANYWHERE[1], way);
            assert_eq!(around.judge().await.unwrap(), Change::Moved);
        }
    }

    #[tokio::test]
    async fn while_nothing_leads_out_nothing_is_done_until_something_does_again() {
        let world = FakeNetwork::new();
        world.set_way(ANYWHERE[0], Some(way(1)));
        let mut around = Surroundings::new(world.clone()).await.unwrap();

        world.set_way(ANYWHERE[0], None);
        assert_eq!(around.judge().await.unwrap(), Change::Cut);
        assert_eq!(around.judge().await.unwrap(), Change::Hint);
        // The same address says little: it may be another network.
        world.set_way(ANYWHERE[0], Some(way(1)));
        assert_eq!(around.judge().await.unwrap(), Change::Moved);
    }

    #[tokio::test]
    async fn a_relay_with_a_route_of_its_own_counts_and_learning_of_one_is_no_move() {
        let world = FakeNetwork::new();
        world.set_way(RELAY, Some(way(1)));
        let mut around = Surroundings::new(world.clone()).await.unwrap();
        around.learn([RELAY]).await.unwrap();
        assert_eq!(around.judge().await.unwrap(), Change::Hint);

        world.set_way(RELAY, Some(way(2)));
        assert_eq!(around.judge().await.unwrap(), Change::Moved);
        around.forget_relays();
        assert_eq!(around.judge().await.unwrap(), Change::Cut);
    }

    fn way(host: u8) -> Way {
        Way {
            source: [192, 0, 2, host].into(),
            interface: 2,
            router: None,
        }
    }
}
