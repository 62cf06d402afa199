//! What programs are told where they may not go, or where nobody is.

use std::io::ErrorKind;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use connlib_os::namespace::run_in;

use crate::site::Site;

/// How a connection fails.
fn refusal_of_tcp(site: &Site, to: &str) -> ErrorKind {
    let connect = || TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(10));

    run_in(site.client(), connect).unwrap().unwrap_err().kind()
}

/// How a datagram fails.
fn refusal_of_udp(site: &Site, to: &str) -> ErrorKind {
    let socket = run_in(site.client(), || UdpSocket::bind(("0.0.0.0", 0)))
        .unwrap()
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket.connect(to).unwrap();
    socket.send(b"knock").unwrap();

    socket.recv(&mut [0; 8]).unwrap_err().kind()
}

#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn programs_hear_prohibited_or_unreachable_and_wait_for_nothing() {
    let Some(site) = Site::new(&["ping", "nc"]) else {
        return;
    };
    for (to, says) in [
        // The filters are against it, which the client knows.
        ("10.20.1.5", "Packet filtered"),
        // No gateway of the site is there, which the portal knows.
        ("10.20.2.5", "Destination Net Unreachable"),
        // Nobody has that address, which the gateway's kernel finds out.
        ("10.20.0.77", "Destination Host Unreachable"),
        (
            "fd00:20::77",
            "Destination unreachable: Address unreachable",
        ),
    ] {
        // The first of these may wait until somebody knows; the second is refused by that.
        let ping = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "10", to];
        let (_, said) = site.attempt(&ping);
        assert!(said.contains(says), "{to}: {said}");
    }

    for (to, expected) in [
        ("10.20.1.5:81", ErrorKind::HostUnreachable),
        ("10.20.2.5:80", ErrorKind::NetworkUnreachable),
        ("10.20.0.10:81", ErrorKind::ConnectionRefused),
    ] {
        assert_eq!(refusal_of_tcp(&site, to), expected, "TCP to {to}");
    }
    for (to, expected) in [
        ("10.20.1.5:53", ErrorKind::HostUnreachable),
        // That a network is unreachable is no news to such a socket (udp(7)).
        ("10.20.0.10:53", ErrorKind::ConnectionRefused),
    ] {
        assert_eq!(refusal_of_udp(&site, to), expected, "UDP to {to}");
    }
    let (is_there, said) = site.attempt(&["nc", "-v", "-w", "10", "10.20.1.5", "81"]);
    assert!(!is_there && said.contains("No route to host"), "{said}");

    let drops = site.world.status("client")["drops_from_tun"].clone();
    assert!(drops["filtered"].as_u64() > Some(0), "{drops}");
    assert!(drops["no-access"].as_u64() > Some(0), "{drops}");
    site.assert_calm();
}
