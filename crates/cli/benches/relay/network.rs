//! Three places: clients and strangers at one cable of the relay, peers at the other.
//!
//! ```text
//!   clients  198.18.0.10…  ──┐          ┌── peers  198.19.0.10…
//!  strangers 198.18.1.1…   ──┴─ relay ──┘
//!                          198.18.0.1
//! ```

use std::net::{IpAddr, Ipv4Addr};

use connlib_os::namespace::Namespace;
use connlib_os::netlink::{Netlink, RouteSpec};
use ipnet::IpNet;
use tokio::runtime::Builder;

/// The relay's address, for clients and peers.
pub(crate) const RELAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// How many addresses strangers have.
pub(crate) const STRANGERS: u8 = 32;

/// The relay's other address, by which its peers reach it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

const CLIENTS: u8 = 9;

pub(crate) struct Network {
    pub(crate) relay: Namespace,
    pub(crate) clients: Namespace,
    pub(crate) peers: Namespace,
}

impl Network {
    pub(crate) fn lay() -> Self {
        let network = Self {
            relay: Namespace::create().unwrap(),
            clients: Namespace::create().unwrap(),
            peers: Namespace::create().unwrap(),
        };
        let clients = (0..CLIENTS).map(client).chain((0..STRANGERS).map(stranger));
        let peers = (0..CLIENTS).map(peer);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            network.connect("clients", RELAY, clients).await;
            network.connect("peers", GATEWAY, peers).await;
            let everywhere = IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0).unwrap();
            let route = RouteSpec::by_router(everywhere, GATEWAY.into());
            let mut netlink = Netlink::new_in(&network.peers).unwrap();
            netlink.add_route(&route).await.unwrap();
        });

        network
    }

    /// Lays the cable that is called like the place at its far end.
    async fn connect(&self, name: &str, here: Ipv4Addr, there: impl IntoIterator<Item = Ipv4Addr>) {
        let far = match name {
            "clients" => &self.clients,
            _ => &self.peers,
        };
        let mut near = Netlink::new_in(&self.relay).unwrap();
        let mut far = Netlink::new_in(far).unwrap();
        far.add_veth("uplink", name).await.unwrap();
        far.move_to_namespace(name, &self.relay).await.unwrap();
        near.add_address(name, net(here)).await.unwrap();
        for address in there {
            far.add_address("uplink", net(address)).await.unwrap();
        }
        near.set_up(name).await.unwrap();
        far.set_up("uplink").await.unwrap();
        near.settle(name).await.unwrap();
        far.settle("uplink").await.unwrap();
    }
}

pub(crate) fn client(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, 10 + number)
}

pub(crate) fn peer(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, 0, 10 + number)
}

pub(crate) fn stranger(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 1, 1 + number)
}

fn net(address: Ipv4Addr) -> IpNet {
    IpNet::new(IpAddr::V4(address), 16).unwrap()
}
