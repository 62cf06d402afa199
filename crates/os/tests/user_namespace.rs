//! Namespaces without root. The process must have a single thread, so this has no test harness: it is one test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use connlib_os::namespace::{
    Namespace, NamespaceError, command_in, enter_user_namespace, run_in, set_sysctl_net,
};
use connlib_os::netlink::Netlink;
use connlib_os::process::effective_uid;
use connlib_os::udp::{UdpConfig, UdpSocket};

fn main() {
    match enter_user_namespace() {
        Ok(()) => a_user_is_root_of_networks_of_their_own(),
        Err(NamespaceError::UserNamespacesOff { remedy }) => {
            assert!(remedy.contains("run as root"))
        }
        Err(error) => panic!("{error}"),
    }
}

fn a_user_is_root_of_networks_of_their_own() {
    assert_eq!(effective_uid(), 0);
    let router = Namespace::create().unwrap();
    let host = Namespace::create().unwrap();

    run_in(&router, || set_sysctl_net("ipv4/ip_forward", "1"))
        .unwrap()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut netlink = Netlink::new_in(&router).unwrap();
        netlink.add_veth("a", "b").await.unwrap();
        netlink.move_to_namespace("b", &host).await.unwrap();
        let address = "10.1.0.1/24".parse().unwrap();
        netlink.add_address("a", address).await.unwrap();
        netlink.set_up("a").await.unwrap();
    });

    let config = UdpConfig::new("10.1.0.1:0".parse().unwrap()).with_mark(7);
    run_in(&router, || UdpSocket::bind(&config))
        .unwrap()
        .unwrap();

    let mut child = std::process::Command::new("sleep");
    child.arg("600");
    command_in(&mut child, Some(&host)).unwrap();
    let mut child = child.spawn().unwrap();
    let of_child = Namespace::of_pid(child.id()).unwrap();
    assert_eq!(of_child.id().unwrap(), host.id().unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
}
