//! Which resource an address belongs to where several may have it (client.md §5.3, gateway.md §5).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use connlib_wire::id::ResourceId;
use connlib_wire::ip::Transport;
use connlib_wire::portal::resource::Filter;
use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use crate::filter::permits_port;

/// Networks, each with its resources and their filters.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    resources: JointPrefixMap<IpNet, BTreeMap<ResourceId, Vec<Filter>>>,
    /// What was chosen since the networks changed last.
    chosen: HashMap<Wanted, Option<Choice>>,
}

/// What the choice of a resource depends on: the address, and by what it is used, with the port if that has any.
pub(crate) type Wanted = (IpAddr, Transport, Option<u16>);

/// The resource that a packet belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Choice {
    pub(crate) resource: ResourceId,
    /// Whether its filters let the packet pass. If not, no other's do.
    pub(crate) is_permitted: bool,
}

/// How many choices are remembered; so many flows are hardly busy at once.
const MAX_CHOSEN: usize = 4_096;

impl Networks {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn insert(&mut self, network: IpNet, resource: ResourceId, filters: Vec<Filter>) {
        self.chosen.clear();
        let network = network.trunc();
        match self.resources.get_mut(&network) {
            Some(resources) => {
                resources.insert(resource, filters);
            }
            None => {
                let resources = BTreeMap::from([(resource, filters)]);
                self.resources.insert(network, resources);
            }
        }
    }

    /// Every network, in order and once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.resources.iter().map(|(network, _)| network)
    }

    /// The resources whose network holds an address, the largest network first.
    pub(crate) fn covering(&self, ip: IpAddr) -> Vec<ResourceId> {
        let covering = self.resources.cover(&IpNet::from(ip));

        covering
            .flat_map(|(_, resources)| resources.keys().copied())
            .collect()
    }

    /// Of all resources whose network holds the address, one that lets the packet pass, of those one with the smallest network,
    /// and of those the one with the greatest id.
    pub(crate) fn choose(&mut self, wanted: Wanted) -> Option<Choice> {
        if let Some(choice) = self.chosen.get(&wanted) {
            return *choice;
        }
        let (ip, transport, port) = wanted;
        let covering = self.resources.cover(&IpNet::from(ip));
        let choice = covering
            .flat_map(|(network, resources)| {
                let len = network.prefix_len();
                resources.iter().map(move |(resource, filters)| {
                    let is_permitted = permits_port(filters, transport, port);
                    (is_permitted, len, *resource)
                })
            })
            .max()
            .map(|(is_permitted, _, resource)| Choice {
                resource,
                is_permitted,
            });
        if self.chosen.len() >= MAX_CHOSEN {
            self.chosen.clear();
        }
        self.chosen.insert(wanted, choice);

        choice
    }
}

#[cfg(test)]
mod tests {
    use connlib_wire::portal::resource::PortRange;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> ResourceId {
        ResourceId(Uuid::from_u128(n))
    }

    fn tcp(first: u16, last: u16) -> Filter {
        Filter::Tcp(PortRange {
            port_range_start: first,
            port_range_end: last,
        })
    }

    fn chosen(networks: &mut Networks, port: u16) -> Option<(u128, bool)> {
        let ip = "10.1.2.3".parse().unwrap();
        let choice = networks.choose((ip, Transport::Tcp, Some(port)))?;

        Some((choice.resource.0.as_u128(), choice.is_permitted))
    }

    #[test]
    fn whoever_lets_pass_goes_before_the_smaller_network() {
        let mut networks = Networks::default();
        networks.insert("10.0.0.0/8".parse().unwrap(), id(1), vec![tcp(80, 80)]);
        networks.insert("10.1.0.0/16".parse().unwrap(), id(2), vec![tcp(22, 22)]);

        assert_eq!(chosen(&mut networks, 80), Some((1, true)));
        assert_eq!(chosen(&mut networks, 22), Some((2, true)));
        assert_eq!(chosen(&mut networks, 443), Some((2, false)));
    }

    #[test]
    fn of_equals_the_greater_id_is_chosen_whatever_the_order() {
        for order in [[1, 2], [2, 1]] {
            let mut networks = Networks::default();
            for n in order {
                networks.insert("10.1.0.0/16".parse().unwrap(), id(n), Vec::new());
            }
            assert_eq!(chosen(&mut networks, 1), Some((2, true)));
            assert_eq!(networks.iter().count(), 1);
        }
    }

    #[test]
    fn a_choice_is_forgotten_when_networks_change() {
        let mut networks = Networks::default();
        assert_eq!(chosen(&mut networks, 1), None);
        networks.insert("10.0.0.0/8".parse().unwrap(), id(1), Vec::new());
        assert_eq!(chosen(&mut networks, 1), Some((1, true)));
        networks.clear();
        assert_eq!(chosen(&mut networks, 1), None);
    }

    /// A packet passes if and only if a resource that covers its address lets it pass (gateway.md §20.4, P4), and one resource
    /// less never lets more pass (P5).
    #[test]
    fn a_packet_passes_if_any_resource_lets_it() {
        for seed in 0..2_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let resources: Vec<_> = (0..rng.random_range(0..8))
                .map(|n| {
                    let ip = std::net::Ipv4Addr::from(rng.random::<u32>() & 0x0a01_0303);
                    let network = IpNet::new(ip.into(), rng.random_range(0..=32)).unwrap();
                    let filters: Vec<_> = (0..rng.random_range(0..3))
                        .map(|_| match rng.random_range(0..3) {
                            0 => Filter::Icmp,
                            _ => tcp(rng.random_range(0..4), rng.random_range(0..4)),
                        })
                        .collect();
                    (network, id(n), filters)
                })
                .collect();
            let ip = std::net::Ipv4Addr::from(rng.random::<u32>() & 0x0a01_0303).into();
            let (transport, port) = match rng.random_range(0..3) {
                0 => (Transport::Icmp, None),
                1 => (Transport::Other(47), None),
                _ => (Transport::Tcp, Some(rng.random_range(0..4))),
            };
            let passes = |resources: &[(IpNet, ResourceId, Vec<Filter>)]| {
                let mut networks = Networks::default();
                for (network, id, filters) in resources {
                    networks.insert(*network, *id, filters.clone());
                }
                let choice = networks.choose((ip, transport, port));
                choice.is_some_and(|choice| choice.is_permitted)
            };
            let any = resources.iter().any(|(network, _, filters)| {
                network.contains(&ip) && permits_port(filters, transport, port)
            });
            assert_eq!(passes(&resources), any, "seed {seed}");
            if let Some((_, fewer)) = resources.split_last() {
                assert!(passes(&resources) || !passes(fewer), "seed {seed}");
            }
        }
    }
}
