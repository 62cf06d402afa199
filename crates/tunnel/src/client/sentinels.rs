//! The addresses at which the client answers questions, each for one name server (client.md §4.1).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::NameServerStatus;
use crate::dns::Server;
use crate::ranges::{self, SENTINELS_V4, SENTINELS_V6};

/// Which address stands for which server.
#[derive(Debug, Default)]
pub(super) struct Sentinels {
    /// In the servers' order.
    mapping: Vec<(IpAddr, Server)>,
    by_address: BTreeMap<IpAddr, usize>,
}

impl Sentinels {
    /// Lets addresses stand for `servers`, in order. Returns whether anything changed.
    ///
    /// An address that stood for a server before never stands for another one right after: programs may be using it.
    pub(super) fn set(&mut self, servers: &[Server]) -> bool {
        let mut wanted: Vec<&Server> = Vec::new();
        for server in servers {
            let is_ours = matches!(server, Server::Plain(addr) if ranges::is_sentinel(addr.ip()));
            if !is_ours && !wanted.contains(&server) {
                wanted.push(server);
            }
        }
        let is_same = wanted.len() == self.mapping.len()
            && self
                .mapping
                .iter()
                .all(|(_, server)| wanted.contains(&server));
        if is_same {
            return false;
        }

        let mut free_v4 = SENTINELS_V4
            .hosts()
            .map(IpAddr::V4)
            .filter(|ip| self.is_free(*ip));
        let mut free_v6 = v6_addresses()
            .map(IpAddr::V6)
            .filter(|ip| self.is_free(*ip));
        let mut mapping = Vec::new();
        for server in wanted {
            let address = match server {
                Server::Plain(addr) if addr.is_ipv6() => free_v6.next(),
                Server::Plain(_) | Server::Tls { .. } | Server::Https(_) => free_v4.next(),
            };
            // More servers than there are addresses: the rest is left out.
            mapping.extend(address.map(|address| (address, server.clone())));
        }
        self.by_address = mapping
            .iter()
            .enumerate()
            .map(|(at, (address, _))| (*address, at))
            .collect();
        self.mapping = mapping;

        true
    }

    /// Whether questions are answered at an address.
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.by_address.contains_key(&ip)
    }

    /// Every address, in the order in which they are to be asked.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.mapping.iter().map(|(address, _)| *address)
    }

    pub(super) fn status(&self) -> Vec<NameServerStatus> {
        let status = |(address, server): &(IpAddr, Server)| NameServerStatus {
            address: *address,
            upstream: server.to_string(),
        };

        self.mapping.iter().map(status).collect()
    }

    /// All servers, that of the address first, then the others in order.
    pub(super) fn servers_from(&self, ip: IpAddr) -> Vec<Server> {
        let first = self.by_address.get(&ip).copied().unwrap_or_default();
        let (before, from) = self.mapping.split_at(first.min(self.mapping.len()));
        let own = from.iter().take(1);
        let others = before.iter().chain(from.iter().skip(1));

        own.chain(others)
            .map(|(_, server)| server.clone())
            .collect()
    }

    /// Those that are asked over HTTPS.
    pub(super) fn https_servers(&self) -> Vec<Server> {
        let servers = self.mapping.iter().map(|(_, server)| server);

        servers
            .filter(|server| matches!(server, Server::Https(_)))
            .cloned()
            .collect()
    }

    fn is_free(&self, ip: IpAddr) -> bool {
        !self.by_address.contains_key(&ip)
    }
}

/// Every address of the IPv6 range; IPv6 has no address that names the network.
fn v6_addresses() -> impl Iterator<Item = Ipv6Addr> {
    let first = SENTINELS_V6.network().to_bits();

    (first..first + 256).map(Ipv6Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn plain(ips: &[&str]) -> Vec<Server> {
        let server = |ip: &&str| Server::Plain((ip.parse::<IpAddr>().unwrap(), 53).into());

        ips.iter().map(server).collect()
    }

    fn addresses(sentinels: &Sentinels) -> Vec<String> {
        sentinels.addresses().map(|ip| ip.to_string()).collect()
    }

    /// client.md §15.3.
    #[test]
    fn servers_get_addresses_in_order_and_never_those_of_the_mapping_before() {
        let mut sentinels = Sentinels::default();
        assert!(sentinels.set(&plain(&["1.1.1.1", "1.0.0.1", "2606:4700:4700::1111"])));
        let first = [
            "100.100.111.1",
            "100.100.111.2",
            "fd00:2021:1111:8000:100:100:111:0",
        ];
        assert_eq!(addresses(&sentinels), first);

        assert!(!sentinels.set(&plain(&["2606:4700:4700::1111", "1.0.0.1", "1.1.1.1"])));
        assert_eq!(
            addresses(&sentinels),
            first,
            "the same set in another order"
        );

        assert!(sentinels.set(&plain(&["9.9.9.9"])));
        assert_eq!(addresses(&sentinels), ["100.100.111.3"]);
        assert!(!sentinels.contains("100.100.111.1".parse().unwrap()));
        assert!(sentinels.set(&plain(&["1.1.1.1"])));
        assert_eq!(addresses(&sentinels), ["100.100.111.1"]);
    }

    #[test]
    fn our_own_addresses_and_doubles_are_no_servers() {
        let mut sentinels = Sentinels::default();
        assert!(!sentinels.set(&plain(&["100.100.111.1"])));
        assert!(sentinels.set(&plain(&["9.9.9.9", "9.9.9.9"])));
        assert_eq!(addresses(&sentinels).len(), 1);
    }

    #[test]
    fn servers_beyond_the_range_are_left_out() {
        let many: Vec<String> = (0..300)
            .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut sentinels = Sentinels::default();
        assert!(sentinels.set(&plain(&many)));
        assert_eq!(addresses(&sentinels).len(), 254);
    }

    #[test]
    fn the_server_of_the_address_is_asked_first() {
        let mut sentinels = Sentinels::default();
        let servers = plain(&["1.1.1.1", "1.0.0.1", "9.9.9.9"]);
        sentinels.set(&servers);

        let from_second = sentinels.servers_from(Ipv4Addr::new(100, 100, 111, 2).into());
        assert_eq!(from_second, plain(&["1.0.0.1", "1.1.1.1", "9.9.9.9"]));
    }
}
