//! Which gateway gives access (portal-protocol.md §10.4).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

use connlib_wire::id::{ClientId, GatewayId, ResourceId};
use connlib_wire::portal::client::Refusal;
use rand::RngExt as _;

use super::{State, version};
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
    ///
    /// # Errors
    ///
    /// [`Refusal::Offline`] and [`Refusal::VersionMismatch`], if none will do.
    pub(super) fn choose_gateway(
        &mut self,
        client: ClientId,
        resource: ResourceId,
        preferred: &[GatewayId],
    ) -> Result<GatewayId, Refusal> {
        let session = self.clients.get(&client).ok_or(Refusal::NotFound)?;
        let (from, version) = (session.remote_ip, session.version);
        let resource = self.directory.resources().get(&resource);
        let resource = resource.ok_or(Refusal::NotFound)?;
        let online = || {
            let sessions = self.gateways.iter();
            sessions.filter(|(_, session)| session.joined && resource.sites.contains(&session.site))
        };
        let fitting: Vec<GatewayId> = online()
            .filter(|(_, session)| {
                version::fit(version, session.version)
                    && version::knows(session.version, &resource.address)
            })
            .map(|(id, _)| *id)
            .collect();
        if fitting.is_empty() && online().next().is_some() {
            return Err(Refusal::VersionMismatch);
        }
        if let Some(kept) = preferred.iter().find(|id| fitting.contains(id)) {
            return Ok(*kept);
        }

        let load = self.load_by_others(client);
        let place = |id: &GatewayId| {
            let address = self.gateways.get(id).and_then(|session| session.remote_ip);
            let load = load.get(id).copied().unwrap_or_default();
            (way(&self.locations, from, address), load)
        };
        let ranked: Vec<(GatewayId, _)> = fitting.iter().map(|id| (*id, place(id))).collect();
        let compare = |one: &(Option<f64>, usize), other: &(Option<f64>, usize)| {
            by_way(one.0, other.0).then(one.1.cmp(&other.1))
        };
        let best = ranked.iter().map(|(_, place)| *place).min_by(compare);
        let best = best.ok_or(Refusal::Offline)?;
        let equal: Vec<GatewayId> = (ranked.into_iter())
            .filter(|(_, place)| compare(place, &best).is_eq())
            .map(|(id, _)| id)
            .collect();

        let index = self.random.random_range(0..equal.len());
        equal.get(index).copied().ok_or(Refusal::Offline)
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
