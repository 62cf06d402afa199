//! Addresses that stand for names: given out once, and true for good (client.md §4.4).
//!
//! Programs keep addresses for as long as they like, so that a name has the same ones for as long as anybody may remember
//! them: beyond the end of its resource, of a session, of the process. Whoever embeds a client keeps the [`NameRecord`]s and
//! gives them to the next one.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_wire::dns::Name;
use serde::{Deserialize, Serialize};

use crate::ranges;

/// A name and the addresses that stand for it.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct NameRecord {
    /// The name: lower case, without the trailing dot.
    pub domain: String,
    /// Its addresses, four of IPv4 and four of IPv6.
    pub ips: Vec<IpAddr>,
}

/// Why a record was not taken back.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// What it calls a name is none.
    #[error("{domain:?} is no domain name; leave the record out")]
    Name {
        /// What it calls one.
        domain: String,
    },
    /// No client has given out these addresses together.
    #[error("the addresses of {domain} were not given out by a client; leave the record out")]
    Addresses {
        /// The name.
        domain: String,
    },
    /// The name, or the addresses, stand in another record.
    #[error("there are two records of {domain} or its addresses; keep the later one")]
    Twice {
        /// The name.
        domain: String,
    },
}

/// How many addresses of each IP version a name has.
pub(super) const PER_FAMILY: u32 = 4;

/// Names by their addresses and back. The `n`th name has the `n`th four addresses of either range.
#[derive(Debug, Default)]
pub(super) struct Names {
    blocks: HashMap<Name, u32>,
    by_block: Vec<Option<Name>>,
    /// What was given out since it was last asked.
    fresh: VecDeque<u32>,
}

impl Names {
    /// Takes back what an earlier client gave out.
    pub(super) fn restore(&mut self, record: &NameRecord) -> Result<(), RecordError> {
        let domain = || record.domain.clone();
        let name = Name::parse(&record.domain)
            .ok()
            .filter(|name| !name.is_root())
            .ok_or_else(|| RecordError::Name { domain: domain() })?;
        let block = record
            .ips
            .iter()
            .find_map(|ip| block_of(*ip))
            .filter(|block| addresses(*block).eq(record.ips.iter().copied()))
            .ok_or_else(|| RecordError::Addresses { domain: domain() })?;
        let is_taken = self
            .by_block
            .get(block as usize)
            .is_some_and(Option::is_some);
        if is_taken || self.blocks.contains_key(&name) {
            return Err(RecordError::Twice { domain: domain() });
        }
        self.put(block, name);

        Ok(())
    }

    /// The addresses of a name, which gets some if it has none; `None` if all are taken.
    pub(super) fn assign(&mut self, name: &Name) -> Option<u32> {
        if let Some(block) = self.blocks.get(name) {
            return Some(*block);
        }
        let first_free = u32::try_from(self.by_block.len()).ok()?;
        let block = (first_free..BLOCKS).find(|block| !touches_sentinels(*block))?;
        self.put(block, name.clone());
        self.fresh.push_back(block);

        Some(block)
    }

    /// The name that an address stands for.
    pub(super) fn name_at(&self, ip: IpAddr) -> Option<&Name> {
        self.by_block.get(block_of(ip)? as usize)?.as_ref()
    }

    /// The addresses that stand for a name.
    pub(super) fn addresses_of(&self, name: &Name) -> Option<impl Iterator<Item = IpAddr> + use<>> {
        self.blocks.get(name).map(|block| addresses(*block))
    }

    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// What was given out since this was last asked.
    pub(super) fn take_fresh(&mut self) -> Vec<NameRecord> {
        let fresh = std::mem::take(&mut self.fresh);
        let record = |block: u32| {
            let name = self.by_block.get(block as usize)?.as_ref()?;
            Some(NameRecord {
                domain: name.as_str().to_owned(),
                ips: addresses(block).collect(),
            })
        };

        fresh.into_iter().filter_map(record).collect()
    }

    fn put(&mut self, block: u32, name: Name) {
        let at = block as usize;
        if self.by_block.len() <= at {
            self.by_block.resize(at + 1, None);
        }
        if let Some(slot) = self.by_block.get_mut(at) {
            *slot = Some(name.clone());
        }
        self.blocks.insert(name, block);
    }
}

/// How many fours of addresses there are: the range holds 2²¹, of which the first IPv4 one names the network.
const BLOCKS: u32 = ((1 << 21) - 1) / PER_FAMILY;

/// The addresses of a block, IPv4 before IPv6.
pub(super) fn addresses(block: u32) -> impl Iterator<Item = IpAddr> + Clone {
    v4_addresses(block)
        .map(IpAddr::V4)
        .chain(v6_addresses(block).map(IpAddr::V6))
}

pub(super) fn v4_addresses(block: u32) -> impl Iterator<Item = Ipv4Addr> + Clone {
    let first = ranges::PROXY_V4.network().to_bits() + 1 + block * PER_FAMILY;

    (first..first + PER_FAMILY).map(Ipv4Addr::from_bits)
}

pub(super) fn v6_addresses(block: u32) -> impl Iterator<Item = Ipv6Addr> + Clone {
    let first = ranges::PROXY_V6.network().to_bits() + u128::from(block * PER_FAMILY);

    (first..first + u128::from(PER_FAMILY)).map(Ipv6Addr::from_bits)
}

fn block_of(ip: IpAddr) -> Option<u32> {
    let offset = match ip {
        IpAddr::V4(ip) if ranges::PROXY_V4.contains(&ip) => {
            (ip.to_bits() - ranges::PROXY_V4.network().to_bits()).checked_sub(1)?
        }
        IpAddr::V6(ip) if ranges::PROXY_V6.contains(&ip) => {
            u32::try_from(ip.to_bits() - ranges::PROXY_V6.network().to_bits()).ok()?
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    let block = offset / PER_FAMILY;

    (block < BLOCKS && !touches_sentinels(block)).then_some(block)
}

fn touches_sentinels(block: u32) -> bool {
    v4_addresses(block).any(|ip| ranges::SENTINELS_V4.contains(&ip))
        || v6_addresses(block).any(|ip| ranges::SENTINELS_V6.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn names_get_four_addresses_of_each_version_in_order() {
        let mut names = Names::default();
        let first = names.assign(&name("wiki.corp.test")).unwrap();
        let second = names.assign(&name("git.corp.test")).unwrap();

        // client.md §15.2
        let ips: Vec<String> = addresses(first).map(|ip| ip.to_string()).collect();
        assert_eq!(
            ips,
            [
                "100.96.0.1",
                "100.96.0.2",
                "100.96.0.3",
                "100.96.0.4",
                "fd00:2021:1111:8000::",
                "fd00:2021:1111:8000::1",
                "fd00:2021:1111:8000::2",
                "fd00:2021:1111:8000::3",
            ]
        );
        let ips: Vec<String> = v4_addresses(second).map(|ip| ip.to_string()).collect();
        assert_eq!(
            ips,
            ["100.96.0.5", "100.96.0.6", "100.96.0.7", "100.96.0.8"]
        );
        assert_eq!(names.assign(&name("WIKI.corp.test")), Some(first));
        for ip in addresses(first) {
            assert_eq!(names.name_at(ip), Some(&name("wiki.corp.test")));
        }
    }

    #[test]
    fn fresh_records_are_told_once_and_can_be_taken_back() {
        let mut names = Names::default();
        names.assign(&name("a.test")).unwrap();
        names.assign(&name("b.test")).unwrap();
        names.assign(&name("a.test")).unwrap();
        let records = names.take_fresh();
        assert_eq!(records.len(), 2);
        assert!(!names.has_fresh());

        let mut later = Names::default();
        later.restore(&records[1]).unwrap();
        assert!(!later.has_fresh());
        let b = later.assign(&name("b.test")).unwrap();
        assert!(addresses(b).eq(records[1].ips.iter().copied()));
        // What isn't known to be free is never given out.
        let c = later.assign(&name("c.test")).unwrap();
        assert!(!addresses(c).any(|ip| records.iter().any(|record| record.ips.contains(&ip))));
    }

    #[test]
    fn records_that_nobody_gave_out_are_refused() {
        let mut names = Names::default();
        names.assign(&name("a.test")).unwrap();
        let good = names.take_fresh().remove(0);
        let mut later = Names::default();
        later.restore(&good).unwrap();

        let with = |change: fn(&mut NameRecord)| {
            let mut record = good.clone();
            record.domain = "other.test".to_owned();
            change(&mut record);
            record
        };
        let is_wrong = |record: NameRecord| {
            matches!(
                Names::default().restore(&record),
                Err(RecordError::Addresses { .. })
            )
        };
        assert!(is_wrong(with(|record| record.ips.clear())));
        assert!(is_wrong(with(|record| record.ips.truncate(4))));
        assert!(is_wrong(with(|record| record.ips.swap(0, 1))));
        assert!(is_wrong(with(
            |record| record.ips[0] = [192, 0, 2, 1].into()
        )));
        assert!(is_wrong(with(
            |record| record.ips = addresses(72_640).collect()
        )));
        assert!(matches!(
            Names::default().restore(&with(|record| record.domain = "a..test".to_owned())),
            Err(RecordError::Name { .. })
        ));
        assert!(matches!(
            later.restore(&good),
            Err(RecordError::Twice { .. })
        ));
        assert!(matches!(
            later.restore(&with(|_| ())),
            Err(RecordError::Twice { .. })
        ));
    }

    #[test]
    fn no_name_gets_an_address_of_a_name_server_and_the_end_is_told() {
        let mut names = Names::default();
        names.by_block.resize(72_638, None);
        let mut given = Vec::new();
        for number in 0..4 {
            given.push(names.assign(&name(&format!("n{number}.test"))).unwrap());
        }
        assert_eq!(given, [72_638, 72_704, 72_705, 72_706]);
        let ips = given.iter().flat_map(|block| v4_addresses(*block));
        assert!(ips.clone().all(|ip| !ranges::SENTINELS_V4.contains(&ip)));

        names.by_block.resize(BLOCKS as usize - 1, None);
        let last = names.assign(&name("last.test")).unwrap();
        assert!(addresses(last).all(|ip| block_of(ip) == Some(last)));
        assert_eq!(names.assign(&name("more.test")), None);
        assert_eq!(names.assign(&name("last.test")), Some(last));
    }
}
