//! What is known of sites: whether their gateways are there (client.md §2.4).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use connlib_wire::id::{GatewayId, SiteId};
use connlib_wire::portal::resource::Site;

/// Whether a resource can be reached, as far as is known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reachability {
    /// Nobody has tried lately.
    #[default]
    Unknown,
    /// There is a connection to a gateway of one of its sites.
    Online,
    /// The portal says that no gateway of its sites is there.
    Offline,
}

impl Reachability {
    /// One word, as `status` shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sites {
    /// The gateways that the portal has named, and where they are.
    of_gateways: BTreeMap<GatewayId, SiteId>,
    /// Those of them that we are connected with.
    connected: BTreeSet<GatewayId>,
    /// Sites without a gateway, and until when that is believed.
    offline: BTreeMap<SiteId, Instant>,
    has_changed: bool,
}

/// How long the portal's word that a site is offline is taken for true (client.md §2.4).
const BELIEVED_FOR: Duration = Duration::from_secs(300);

impl Sites {
    /// The portal has named a gateway of a site.
    pub(super) fn named(&mut self, gateway: GatewayId, site: SiteId) {
        self.has_changed |= self.of_gateways.insert(gateway, site) != Some(site);
        if self.connected.contains(&gateway) {
            self.offline.remove(&site);
        }
    }

    pub(super) fn connected(&mut self, gateway: GatewayId) {
        if let Some(site) = self.of_gateways.get(&gateway) {
            self.offline.remove(site);
        }
        self.has_changed |= self.connected.insert(gateway);
    }

    pub(super) fn lost(&mut self, gateway: GatewayId) {
        self.has_changed |= self.connected.remove(&gateway);
        self.of_gateways.remove(&gateway);
    }

    pub(super) fn is_connected(&self, gateway: GatewayId) -> bool {
        self.connected.contains(&gateway)
    }

    /// The portal says that none of these sites has a gateway.
    pub(super) fn went_offline(&mut self, now: Instant, sites: &[Site]) {
        self.has_changed = true;
        let until = now + BELIEVED_FOR;
        self.offline
            .extend(sites.iter().map(|site| (site.id, until)));
    }

    /// Lets time pass.
    pub(super) fn expire(&mut self, now: Instant) {
        let before = self.offline.len();
        self.offline.retain(|_, until| *until > now);
        self.has_changed |= self.offline.len() != before;
    }

    /// Whether anything may have become of resources since this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.offline.values().min().copied()
    }

    /// Whether a resource can be reached that has gateways at `sites`. Nothing is known of one that has none.
    pub(super) fn reach(&self, sites: &[Site]) -> Reachability {
        let is_online = |site: &Site| {
            let mut connected = self.connected.iter();
            connected.any(|gateway| self.of_gateways.get(gateway) == Some(&site.id))
        };
        if sites.iter().any(is_online) {
            return Reachability::Online;
        }
        let is_offline = |site: &Site| self.offline.contains_key(&site.id);

        match !sites.is_empty() && sites.iter().all(is_offline) {
            true => Reachability::Offline,
            false => Reachability::Unknown,
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn gateway(n: u128) -> GatewayId {
        GatewayId(Uuid::from_u128(n))
    }

    fn site(n: u128) -> Site {
        Site {
            id: SiteId(Uuid::from_u128(n)),
            name: String::new(),
        }
    }

    #[test]
    fn a_resource_is_online_with_any_of_its_sites_and_offline_with_all() {
        let (now, mut sites) = (Instant::now(), Sites::default());
        let both = [site(1), site(2)];
        assert_eq!(sites.reach(&both), Reachability::Unknown);
        assert_eq!(sites.reach(&[]), Reachability::Unknown);

        sites.went_offline(now, &both[..1]);
        assert_eq!(sites.reach(&both), Reachability::Unknown);
        assert_eq!(sites.reach(&both[..1]), Reachability::Offline);
        sites.went_offline(now, &both[1..]);
        assert_eq!(sites.reach(&both), Reachability::Offline);
        assert_eq!(sites.reach(&[]), Reachability::Unknown, "not vacuously so");

        sites.named(gateway(7), both[1].id);
        assert_eq!(sites.reach(&both), Reachability::Offline);
        sites.connected(gateway(7));
        assert_eq!(sites.reach(&both), Reachability::Online);
        sites.lost(gateway(7));
        assert_eq!(sites.reach(&both), Reachability::Unknown);
    }

    #[test]
    fn what_is_offline_is_unknown_again_after_five_minutes() {
        let (now, mut sites) = (Instant::now(), Sites::default());
        sites.went_offline(now, &[site(1)]);
        let end = sites.poll_timeout().unwrap();
        assert_eq!(end, now + Duration::from_secs(300));

        sites.expire(end - Duration::from_millis(1));
        assert_eq!(sites.reach(&[site(1)]), Reachability::Offline);
        sites.expire(end);
        assert_eq!(sites.reach(&[site(1)]), Reachability::Unknown);
        assert_eq!(sites.poll_timeout(), None);
    }

    #[test]
    fn whoever_is_connected_before_its_site_is_known_counts_then() {
        let (now, mut sites) = (Instant::now(), Sites::default());
        sites.went_offline(now, &[site(1)]);
        sites.connected(gateway(7));
        assert_eq!(sites.reach(&[site(1)]), Reachability::Offline);
        sites.named(gateway(7), site(1).id);
        assert_eq!(sites.reach(&[site(1)]), Reachability::Online);
    }
}
