//! The network watch, on cables that are laid, moved and cut.

use std::net::IpAddr;
use std::time::Duration;

use connlib_os::namespace::Namespace;
use connlib_os::netlink::{Netlink, RouteSpec, Watch, WatchSettings};
use connlib_os::network::{Network as _, Way};
use tokio::time::timeout;

use crate::{connected_pair, runtime};

/// Somewhere behind the router.
const FAR: [&str; 2] = ["203.0.113.9", "2001:db8:1::9"];

/// Longer than any burst.
const SOON: Duration = Duration::from_secs(2);

/// No notice comes on its own within that.
const A_WHILE: Duration = Duration::from_millis(400);

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn ways_follow_the_routes_and_each_change_is_told() {
    let (left, _right) = connected_pair();
    runtime().block_on(async {
        let mut watch = settled(&left, WatchSettings::default()).await;
        let mut netlink = Netlink::new_in(&left).unwrap();
        let index = netlink.link_index("cable").await.unwrap();

        assert_eq!(
            watch.way_to(ip("10.9.0.2")).await.unwrap(),
            Some(way("10.9.0.1", index, None))
        );
        for far in FAR {
            assert_eq!(watch.way_to(ip(far)).await.unwrap(), None, "{far}");
        }

        for (net, router) in [("0.0.0.0/0", "10.9.0.2"), ("::/0", "fd09::2")] {
            let route = RouteSpec::by_router(net.parse().unwrap(), ip(router));
            netlink.add_route(&route).await.unwrap();
        }
        timeout(SOON, watch.changed()).await.unwrap().unwrap();
        let ways = [
            way("10.9.0.1", index, Some("10.9.0.2")),
            way("fd09::1", index, Some("fd09::2")),
        ];
        for (far, expected) in FAR.into_iter().zip(ways) {
            assert_eq!(watch.way_to(ip(far)).await.unwrap(), Some(expected));
        }

        netlink
            .add_address("cable", "10.9.0.77/24".parse().unwrap())
            .await
            .unwrap();
        timeout(SOON, watch.changed()).await.unwrap().unwrap();
        netlink.delete_link("cable").await.unwrap();
        timeout(SOON, watch.changed()).await.unwrap().unwrap();
        for far in FAR {
            assert_eq!(watch.way_to(ip(far)).await.unwrap(), None, "{far}");
        }
    });
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn a_burst_is_one_change_and_the_own_interface_none() {
    let (left, _right) = connected_pair();
    runtime().block_on(async {
        let mut netlink = Netlink::new_in(&left).unwrap();
        netlink.add_veth("own", "own-far").await.unwrap();
        let index = netlink.link_index("own").await.unwrap();
        let settings = WatchSettings {
            except: Some(index),
            mark: None,
        };
        let mut watch = settled(&left, settings).await;

        netlink
            .add_address("own", "10.88.0.1/24".parse().unwrap())
            .await
            .unwrap();
        netlink.set_mtu("own", 1_300).await.unwrap();
        assert!(
            timeout(A_WHILE, watch.changed()).await.is_err(),
            "our own interface counts"
        );

        for host in 10..40 {
            let address = format!("10.9.0.{host}/24").parse().unwrap();
            netlink.add_address("cable", address).await.unwrap();
        }
        let mut changes = 0;
        while timeout(A_WHILE, watch.changed()).await.is_ok() {
            changes += 1;
        }
        // A busy machine may take longer over them than a burst is waited for.
        assert!(
            (1..10).contains(&changes),
            "30 changes are told as {changes}"
        );
    });
}

/// A watch that has heard of what was before it.
async fn settled(namespace: &Namespace, settings: WatchSettings) -> Watch {
    let mut watch = Watch::new_in(namespace, settings).unwrap();
    while timeout(A_WHILE, watch.changed()).await.is_ok() {}

    watch
}

fn way(source: &str, interface: u32, router: Option<&str>) -> Way {
    Way {
        source: ip(source),
        interface,
        router: router.map(ip),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
