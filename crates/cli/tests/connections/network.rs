//! Namespaces around a router, and what happens to their cables.
//!
//! Every network has a number, which its addresses tell; the router has the first address of each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_os::namespace::{Namespace, run_in, set_sysctl_net};
use connlib_os::netlink::{Netlink, RouteSpec, SourceRuleSpec};
use ipnet::IpNet;
use tokio::runtime::{Builder, Runtime};

/// Places, each with one cable to the router; a gateway has another one to a resource of its own.
pub(crate) struct Network {
    runtime: Runtime,
    pub(crate) router: Namespace,
    places: BTreeMap<&'static str, Place>,
    last: u8,
    blocks: u32,
}

struct Place {
    namespace: Namespace,
    net: Net,
    resource: Option<Namespace>,
}

/// A network by its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Net(u8);

/// A block that can be lifted.
#[derive(Debug)]
pub(crate) struct Block(Vec<RouteSpec>);

/// An IP version, by its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The host behind every gateway.
pub(crate) const RESOURCE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);

const RESOURCE_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);

const ROUTER: u8 = 1;
const HOST: u8 = 10;

/// Tables and rules of blocks begin here.
const FIRST_BLOCK: u32 = 100;

impl Network {
    pub(crate) fn new(places: &[&'static str], gateways: &[&'static str]) -> Self {
        let mut network = Self {
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
            router: namespace(&["ipv4/ip_forward", "ipv6/conf/all/forwarding"]),
            places: BTreeMap::new(),
            last: 0,
            blocks: 0,
        };
        for name in places {
            let place = namespace(&[]);
            network.place(name, place, None);
        }
        for name in gateways {
            let gateway = namespace(&["ipv4/ip_forward"]);
            let resource = network.lay_lan(&gateway);
            network.place(name, gateway, Some(resource));
        }

        network
    }

    pub(crate) fn namespace(&self, place: &str) -> &Namespace {
        &self.places[place].namespace
    }

    pub(crate) fn resource(&self, gateway: &str) -> &Namespace {
        self.places[gateway].resource.as_ref().unwrap()
    }

    pub(crate) fn net(&self, place: &str) -> Net {
        self.places[place].net
    }

    /// Takes the place's cable away and gives it one to another network, which lies ready: what a laptop does that loses
    /// its wireless network and has a wired one.
    pub(crate) fn move_away(&mut self, place: &str) {
        let next = self.next();
        let Self {
            runtime,
            router,
            places,
            ..
        } = self;
        let place = places.get_mut(place).unwrap();
        let former = std::mem::replace(&mut place.net, next);
        runtime.block_on(async {
            connect(router, &place.namespace, next).await;
            let mut netlink = Netlink::new_in(&place.namespace).unwrap();
            netlink.delete_link(&former.name()).await.unwrap();
            for route in next.defaults() {
                netlink.add_route(&route).await.unwrap();
            }
        });
    }

    /// Lets everything between two places vanish, in both directions.
    pub(crate) fn block(&mut self, one: &str, other: &str) -> Block {
        let ways = [
            (self.net(one), self.net(other)),
            (self.net(other), self.net(one)),
        ];
        let mut routes = Vec::new();
        for (from, to) in ways {
            let table = FIRST_BLOCK + self.blocks;
            self.blocks += 1;
            let rules = from.hosts().map(|from| SourceRuleSpec {
                from,
                table,
                priority: table,
            });
            let blackholes = to
                .hosts()
                .map(|to| RouteSpec::blackhole(to).in_table(table));
            self.runtime.block_on(async {
                let mut netlink = Netlink::new_in(&self.router).unwrap();
                for rule in rules {
                    netlink.add_source_rule(&rule).await.unwrap();
                }
            });
            routes.extend(blackholes);
        }
        let block = Block(routes);
        self.renew(&block);

        block
    }

    /// Puts a block that was lifted back.
    pub(crate) fn renew(&self, block: &Block) {
        self.runtime.block_on(async {
            let mut netlink = Netlink::new_in(&self.router).unwrap();
            for route in &block.0 {
                netlink.add_route(route).await.unwrap();
            }
        });
    }

    pub(crate) fn lift(&self, block: &Block) {
        self.runtime.block_on(async {
            let mut netlink = Netlink::new_in(&self.router).unwrap();
            for route in &block.0 {
                netlink.delete_route(route).await.unwrap();
            }
        });
    }

    /// Takes a place's default route of one IP version away, or gives it back.
    pub(crate) fn set_family(&self, place: &str, family: Family, is_there: bool) {
        let place = &self.places[place];
        let [v4, v6] = place.net.defaults();
        let route = match family {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        self.runtime.block_on(async {
            let mut netlink = Netlink::new_in(&place.namespace).unwrap();
            if is_there {
                netlink.add_route(&route).await.unwrap();
            } else {
                netlink.delete_route(&route).await.unwrap();
            }
        });
    }

    fn place(&mut self, name: &'static str, namespace: Namespace, resource: Option<Namespace>) {
        let net = self.next();
        self.runtime.block_on(async {
            connect(&self.router, &namespace, net).await;
            let mut netlink = Netlink::new_in(&namespace).unwrap();
            for route in net.defaults() {
                netlink.add_route(&route).await.unwrap();
            }
        });
        let place = Place {
            namespace,
            net,
            resource,
        };
        self.places.insert(name, place);
    }

    /// A resource behind a gateway.
    fn lay_lan(&self, gateway: &Namespace) -> Namespace {
        let resource = namespace(&[]);
        self.runtime.block_on(async {
            let mut near = Netlink::new_in(gateway).unwrap();
            let mut far = Netlink::new_in(&resource).unwrap();
            far.add_veth("uplink", "lan").await.unwrap();
            far.move_to_namespace("lan", gateway).await.unwrap();
            for (netlink, name, address) in [
                (&mut near, "lan", RESOURCE_ROUTER),
                (&mut far, "uplink", RESOURCE),
            ] {
                let address = IpNet::new(address.into(), 24).unwrap();
                netlink.add_address(name, address).await.unwrap();
                netlink.set_up(name).await.unwrap();
            }
            let everywhere = IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0).unwrap();
            let route = RouteSpec::by_router(everywhere, RESOURCE_ROUTER.into());
            far.add_route(&route).await.unwrap();
        });

        resource
    }

    fn next(&mut self) -> Net {
        self.last += 1;

        Net(self.last)
    }
}

impl Net {
    pub(crate) fn host_v4(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.0, HOST)
    }

    pub(crate) fn host_v6(self) -> Ipv6Addr {
        self.v6(HOST)
    }

    fn v6(self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.0.into(), 0, 0, 0, 0, host.into())
    }

    /// Both ends of its cable are called like this.
    fn name(self) -> String {
        format!("net{}", self.0)
    }

    fn hosts(self) -> [IpNet; 2] {
        self.addresses(HOST)
    }

    fn addresses(self, host: u8) -> [IpNet; 2] {
        let v4 = IpNet::new(Ipv4Addr::new(198, 18, self.0, host).into(), 24);
        let v6 = IpNet::new(self.v6(host).into(), 64);

        [v4.unwrap(), v6.unwrap()]
    }

    fn defaults(self) -> [RouteSpec; 2] {
        let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let [v4, v6] = self.addresses(ROUTER).map(|router| router.addr());
        let [all_v4, all_v6] = everywhere.map(|address| IpNet::new(address, 0).unwrap());

        [
            RouteSpec::by_router(all_v4, v4),
            RouteSpec::by_router(all_v6, v6),
        ]
    }
}

/// A namespace in which these parameters are on, and addresses are good at once.
pub(crate) fn namespace(parameters: &[&str]) -> Namespace {
    let namespace = Namespace::create().unwrap();
    run_in(&namespace, || {
        set_sysctl_net("ipv6/conf/default/accept_dad", "0").unwrap();
        set_sysctl_net("ipv6/conf/default/dad_transmits", "0").unwrap();
        for parameter in parameters {
            set_sysctl_net(parameter, "1").unwrap();
        }
    })
    .unwrap();

    namespace
}

/// Lays the cable of a network.
async fn connect(router: &Namespace, place: &Namespace, net: Net) {
    let mut near = Netlink::new_in(router).unwrap();
    let mut far = Netlink::new_in(place).unwrap();
    let name = net.name();
    // Made at the far end, where no other cable has that name, and handed over under a name of its own meanwhile.
    let handed = format!("to-{name}");
    far.add_veth(&name, &handed).await.unwrap();
    far.move_to_namespace(&handed, router).await.unwrap();
    for (netlink, name, host) in [(&mut near, &handed, ROUTER), (&mut far, &name, HOST)] {
        for address in net.addresses(host) {
            netlink.add_address(name, address).await.unwrap();
        }
        netlink.set_up(name).await.unwrap();
    }
    near.settle(&handed).await.unwrap();
    far.settle(&name).await.unwrap();
}
