//! Services that have one IP version, reached by name.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use connlib_os::namespace::run_in;

use crate::site::Site;

/// Soon enough for programs that turn to an address of the other version then.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A name has both versions at the client, whatever it has at its site; the one that it lacks is refused at once, so that
/// programs turn to the other: nothing is translated from one version into the other (gateway.md §8.4).
#[test]
#[ignore = "needs root and /dev/net/tun; .ci/run runs it"]
fn what_has_one_ip_version_is_reached_by_it_and_refused_by_the_other_at_once() {
    let Some(site) = Site::new(&["curl"]) else {
        return;
    };
    for (name, has, has_v6, refusal) in [
        ("four.corp.test", "-4", false, ErrorKind::HostUnreachable),
        ("six.corp.test", "-6", true, ErrorKind::NetworkUnreachable),
    ] {
        let url = format!("http://{name}/");
        // By the version that it has, and by whichever a program chooses.
        site.run(&["curl", "-sS", "--max-time", "10", has, &url]);
        site.run(&["curl", "-sS", "--max-time", "10", &url]);

        let addresses = site.addresses(name, "ahosts");
        let (known, lacking): (Vec<IpAddr>, Vec<IpAddr>) = addresses
            .iter()
            .copied()
            .partition(|ip| ip.is_ipv6() == has_v6);
        assert!(known.len() == 4 && lacking.len() == 4, "{addresses:?}");
        for ip in lacking {
            let asked_at = site.world.clock.now();
            let connect =
                || TcpStream::connect_timeout(&SocketAddr::new(ip, 80), Duration::from_secs(10));
            let refused = run_in(site.client(), connect).unwrap().unwrap_err();
            let took = site.world.clock.now() - asked_at;
            assert!(
                refused.kind() == refusal && took < AT_ONCE,
                "{name} at {ip}: {refused} after {took:?}"
            );
        }
    }
    site.assert_calm();
}
