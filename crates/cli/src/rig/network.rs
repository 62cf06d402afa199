//! The network of a rig: a namespace for each place, a router between them, cables.
//!
//! ```text
//!   client ──┐          ┌── relay
//!            ├─ router ─┤
//!  gateway ──┘          └── portal
//!     │
//!  resource
//! ```
//!
//! Nothing of it has a name outside: namespaces live by the processes that hold them, and cables by their namespaces.

use std::collections::BTreeMap;
use std::path::Path;

use connlib_os::namespace::{Namespace, run_in, set_sysctl_net};
use connlib_os::netlink::{Netlink, RouteSpec, SourceRuleSpec};
use ipnet::IpNet;

use super::plan::{Place, Subnet, everywhere};
use crate::exit::{Exit, Failure};

/// The namespaces and what connects them.
#[derive(Debug)]
pub(crate) struct Network {
    namespaces: BTreeMap<Place, Namespace>,
    families: Families,
}

/// Which IP versions the machine has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Families {
    V4,
    Both,
}

/// Whether client and gateway may reach each other without the relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DirectPath {
    Allowed,
    Forbidden,
}

/// The end of a cable at a place; the router's end is called like the place.
pub(crate) const UPLINK: &str = "uplink";

/// The gateway's end of the cable to the resource.
const LAN: &str = "lan";

/// The table of what is forbidden on the router.
const FORBIDDEN_TABLE: u32 = 100;

/// Before the rule for the main table.
const FORBIDDEN_PRIORITY: u32 = 100;

impl Network {
    /// Makes a namespace for each of the places and connects them; a router, a gateway and a resource must be among them.
    ///
    /// # Errors
    ///
    /// Exit 5: namespaces or interfaces can't be made.
    pub(crate) async fn create(places: &[Place], direct: DirectPath) -> Result<Self, Failure> {
        let families = match Path::new("/proc/sys/net/ipv6").exists() {
            true => Families::Both,
            false => Families::V4,
        };
        let mut namespaces = BTreeMap::new();
        for &place in places {
            let namespace = Namespace::create()?;
            run_in(&namespace, || prepare(place, families))??;
            namespaces.insert(place, namespace);
        }
        let network = Self {
            namespaces,
            families,
        };

        let around = places.iter().filter(|place| place.is_around_the_router());
        for &place in around {
            network
                .connect(Place::Router, place.name(), place, place.subnet())
                .await?;
        }
        network
            .connect(
                Place::Gateway,
                LAN,
                Place::Resource,
                Place::Resource.subnet(),
            )
            .await?;
        if direct == DirectPath::Forbidden {
            network.forbid_direct_path().await?;
        }

        Ok(network)
    }

    /// The namespace of a place.
    ///
    /// # Errors
    ///
    /// None: all places have one. It is an error rather than a panic.
    pub(crate) fn namespace(&self, place: Place) -> Result<&Namespace, Failure> {
        self.namespaces
            .get(&place)
            .ok_or_else(|| Failure::new(Exit::Failed, format_args!("the {place} has no namespace")))
    }

    /// Which IP versions it has.
    pub(crate) fn families(&self) -> Families {
        self.families
    }

    /// Lays a cable from `near`, where its end is called `near_name`, to `far`, which gets a default route by it.
    async fn connect(
        &self,
        near: Place,
        near_name: &str,
        far: Place,
        subnet: Subnet,
    ) -> Result<(), Failure> {
        let near_namespace = self.namespace(near)?;
        let mut near = Netlink::new_in(near_namespace)?;
        let mut far = Netlink::new_in(self.namespace(far)?)?;

        // The far end has no other cable, so neither name is taken there.
        far.add_veth(UPLINK, near_name).await?;
        far.move_to_namespace(near_name, near_namespace).await?;
        for (netlink, name, addresses) in [
            (&mut near, near_name, subnet.router()),
            (&mut far, UPLINK, subnet.host()),
        ] {
            for address in self.usable(addresses) {
                netlink.add_address(name, address).await?;
            }
            netlink.set_up(name).await?;
        }
        // An end has a carrier only when the other one is up.
        near.settle(near_name).await?;
        far.settle(UPLINK).await?;

        let destinations = everywhere().into_iter().zip(subnet.router());
        for (destination, router) in destinations {
            if self.is_usable(&destination) {
                let route = RouteSpec::by_router(destination, router.addr());
                far.add_route(&route).await?;
            }
        }
        Ok(())
    }

    /// Lets the router refuse what goes from the client to the gateway and back; both still reach the relay.
    async fn forbid_direct_path(&self) -> Result<(), Failure> {
        let mut router = Netlink::new_in(self.namespace(Place::Router)?)?;
        let ways = [
            (Place::Client, Place::Gateway),
            (Place::Gateway, Place::Client),
        ];
        for (table, (from, to)) in (FORBIDDEN_TABLE..).zip(ways) {
            for from in self.usable(from.subnet().host()) {
                let rule = SourceRuleSpec {
                    from,
                    table,
                    priority: FORBIDDEN_PRIORITY,
                };
                router.add_source_rule(&rule).await?;
            }
            for to in self.usable(to.subnet().host()) {
                let route = RouteSpec::prohibit(to).in_table(table);
                router.add_route(&route).await?;
            }
        }

        Ok(())
    }

    fn usable(&self, nets: [IpNet; 2]) -> impl Iterator<Item = IpNet> {
        nets.into_iter().filter(|net| self.is_usable(net))
    }

    fn is_usable(&self, net: &IpNet) -> bool {
        self.families == Families::Both || net.addr().is_ipv4()
    }
}

/// Sets the parameters of a place's namespace, from a thread inside of it.
fn prepare(place: Place, families: Families) -> Result<(), Failure> {
    if families == Families::Both {
        // Duplicate detection would take seconds, and nobody else is on these cables.
        set_sysctl_net("ipv6/conf/default/accept_dad", "0")?;
        set_sysctl_net("ipv6/conf/default/dad_transmits", "0")?;
    }
    if !matches!(place, Place::Router | Place::Gateway) {
        return Ok(());
    }

    set_sysctl_net("ipv4/ip_forward", "1")?;
    if families == Families::Both {
        set_sysctl_net("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}
