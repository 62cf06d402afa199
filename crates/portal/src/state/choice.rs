//! Which gateway gives access (portal-protocol.md §10.4).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use connlib_wire::id::{ClientId, GatewayId, SiteId};
use rand::RngExt as _;

use super::State;
use crate::model::{Coordinates, Locations};

/// The way from one end to the other in kilometres, where both are known.
pub(super) fn way(
    locations: &Locations,
    from: Option<IpAddr>,
    to: impl IntoIterator<Item = IpAddr>,
) -> Option<f64> {
    let coordinates = |address: IpAddr| locations.locate(address)?.coordinates;
    let from: Coordinates = coordinates(from?)?;
    let to = to.into_iter().find_map(coordinates)?;

    Some(from.kilometres_to(to))
}

/// Puts short ways first, and those last that aren't known.
pub(super) fn by_way(one: Option<f64>, other: Option<f64>) -> Ordering {
    let rank = |way: Option<f64>| way.unwrap_or(f64::INFINITY);

    rank(one).total_cmp(&rank(other))
}

impl State {
    /// The first of `preferred` that will do: staying with a gateway keeps connections alive. Else the nearest to the
    /// client, as far as it is known where they are; of several the one with the fewest grants of others, and of those any.
    pub(super) fn choose_gateway(
        &mut self,
        client: ClientId,
        sites: &[SiteId],
        preferred: &[GatewayId],
    ) -> Option<GatewayId> {
        let online: Vec<GatewayId> = (self.gateways.iter())
            .filter(|(_, session)| session.joined && sites.contains(&session.site))
            .map(|(id, _)| *id)
            .collect();
        if let Some(kept) = preferred.iter().find(|id| online.contains(id)) {
            return Some(*kept);
        }

        let load = self.load_by_others(client);
        let from = self.clients.get(&client)?.remote_ip;
        let place = |id: &GatewayId| {
            let address = self.gateways.get(id).and_then(|session| session.remote_ip);
            let load = load.get(id).copied().unwrap_or_default();
            (way(&self.locations, from, address), load)
        };
        let ranked: Vec<(GatewayId, _)> = online.iter().map(|id| (*id, place(id))).collect();
        let compare = |one: &(Option<f64>, usize), other: &(Option<f64>, usize)| {
            by_way(one.0, other.0).then(one.1.cmp(&other.1))
        };
        let best = ranked.iter().map(|(_, place)| *place).min_by(compare)?;
        let equal: Vec<GatewayId> = (ranked.into_iter())
            .filter(|(_, place)| compare(place, &best).is_eq())
            .map(|(id, _)| id)
            .collect();

        let index = self.random.random_range(0..equal.len());
        equal.get(index).copied()
    }

    /// How many grants of others are in force at each gateway: a client that asks again isn't driven from where it is.
    fn load_by_others(&self, client: ClientId) -> BTreeMap<GatewayId, usize> {
        let mut load = BTreeMap::new();
        for grant in self.directory.grants().values() {
            if grant.key.client != client && grant.is_live(self.clock.unix) {
                *load.entry(grant.key.gateway).or_default() += 1;
            }
        }

        load
    }
}
