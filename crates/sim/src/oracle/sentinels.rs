//! The addresses at which a client answers for name servers (client.md §4.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::scenario::ServerAt;

const FIRST_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 111, 1);
const FIRST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0x100, 0x100, 0x111, 0);

/// Which address stands for which server.
#[derive(Default)]
pub(super) struct Sentinels {
    mapping: Vec<(IpAddr, ServerAt)>,
}

impl Sentinels {
    /// Other servers count from here on. The same ones in any order change nothing.
    pub(super) fn set(&mut self, servers: &[ServerAt]) {
        let mut wanted: Vec<&ServerAt> = Vec::new();
        for server in servers {
            if !wanted.contains(&server) {
                wanted.push(server);
            }
        }
        let has = |server: &ServerAt| wanted.contains(&server);
        if wanted.len() == self.mapping.len() && self.mapping.iter().all(|(_, it)| has(it)) {
            return;
        }

        let mut new: Vec<(IpAddr, ServerAt)> = Vec::new();
        for server in wanted {
            let is_v6 = matches!(server, ServerAt::Ip(IpAddr::V6(_)));
            let is_taken = |ip: &IpAddr| {
                let mut taken = self.mapping.iter().chain(&new);
                taken.any(|(other, _)| other == ip)
            };
            let mut range: Vec<IpAddr> = match is_v6 {
                true => (0..256)
                    .map(|nth| Ipv6Addr::from_bits(FIRST_V6.to_bits() + nth).into())
                    .collect(),
                false => (0..254)
                    .map(|nth| Ipv4Addr::from_bits(FIRST_V4.to_bits() + nth).into())
                    .collect(),
            };
            range.retain(|ip| !is_taken(ip));
            if let Some(ip) = range.first() {
                new.push((*ip, server.clone()));
            }
        }
        self.mapping = new;
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.mapping.iter().map(|(ip, _)| *ip).collect()
    }
}

/// Whether an address is one of those.
pub(crate) fn is_sentinel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&[100, 100, 111]),
        IpAddr::V6(ip) => ip.to_bits() >> 8 == FIRST_V6.to_bits() >> 8,
    }
}
