//! Routers in front of the ends, and what they do with what comes and goes.

use std::fmt;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Stdio;

use connlib_os::namespace::Namespace;

use crate::network::{Network, namespace};
use crate::tools::{command, stdout};

/// A NAT, in the words of RFC 4787: how it maps, and whom it lets in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Nat {
    /// There is none, and no firewall.
    None,
    /// Maps independently of endpoints and filters so, too: whoever knows the port gets in.
    EimEif,
    /// Maps independently of endpoints, and lets in only whom something was sent to.
    EimApdf,
    /// Every other end sees another port, and only the end that it was made for gets in by it.
    EdmApdf,
}

/// A router: `outside` leads to the Internet, `inside` to those whom it serves.
pub(crate) struct Router {
    namespace: Namespace,
    /// What it is on the outside.
    pub(crate) outside: Ipv4Addr,
}

/// The Internet's end of a cable of the [`Network`].
const INTERNET: u8 = 1;

impl Nat {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::EimEif, Self::EimApdf, Self::EdmApdf];

    /// What nftables is told, for a router with one host inside.
    ///
    /// Linux has a mapping for each flow, but keeps the port that a host uses, or the one that it was given before, where it
    /// can. That looks like one mapping for each port of the host, as long as nothing else claims it: see [`Router::obey`].
    fn rules(self, host: Ipv4Addr) -> String {
        let masquerade = match self {
            Self::None => return String::new(),
            Self::EimEif | Self::EimApdf => "masquerade",
            Self::EdmApdf => "masquerade random,fully-random",
        };
        let (to_host, filter) = match self {
            Self::EimEif => (format!("meta l4proto udp dnat to {host}"), ""),
            Self::None | Self::EimApdf | Self::EdmApdf => (String::new(), FILTER),
        };

        format!(
            r#"
            table ip nat {{
                chain out {{ type nat hook postrouting priority srcnat; oifname "outside" {masquerade}; }}
                chain in {{ type nat hook prerouting priority dstnat; iifname "outside" {to_host}; }}
            }}
            {filter}"#
        )
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::EimEif => "EIM/EIF",
            Self::EimApdf => "EIM/APDF",
            Self::EdmApdf => "EDM/APDF",
        })
    }
}

/// A firewall that lets in only what was asked for.
pub(crate) const FILTER: &str = r#"
    table inet filter {
        chain forward {
            type filter hook forward priority filter;
            iifname "outside" ct state established,related accept
            iifname "outside" drop
        }
    }"#;

impl Router {
    /// Takes over a place's cable and its address; the place is left with none.
    pub(crate) fn in_place_of(network: &Network, place: &str) -> Self {
        let here = network.net(place);
        let outside = here.host_v4();
        let [a, b, c, _] = outside.octets();
        let cable = format!("net{c}");
        let router = namespace(&["ipv4/ip_forward", "ipv6/conf/all/forwarding"]);
        ip(
            network.namespace(place),
            &format!("link set {cable} netns {}", path(&router)),
        );
        let internet = Ipv4Addr::new(a, b, c, INTERNET);
        for line in [
            format!("link set {cable} name outside"),
            format!("address add {outside}/24 dev outside"),
            format!("address add {}/64 dev outside nodad", here.host_v6()),
            "link set outside up".into(),
            format!("route add default via {internet}"),
            format!("route add default via 2001:db8:{c:x}::1"),
        ] {
            ip(&router, &line);
        }

        Self {
            namespace: router,
            outside,
        }
    }

    /// A router behind this one.
    pub(crate) fn behind(&self, inside: &str, address: Ipv4Addr) -> Self {
        let router = namespace(&["ipv4/ip_forward"]);
        self.serve(inside, &router, address);

        Self {
            namespace: router,
            outside: address,
        }
    }

    /// Lays a cable from the interface `inside` to a host or another router, which gets that address and a way out.
    pub(crate) fn serve(&self, inside: &str, other: &Namespace, address: Ipv4Addr) {
        let [a, b, c, _] = address.octets();
        let own = Ipv4Addr::new(a, b, c, 1);
        self.lay(inside, other);
        ip(
            &self.namespace,
            &format!("address add {own}/24 dev {inside}"),
        );
        ip(other, &format!("address add {address}/24 dev outside"));
        ip(other, &format!("route add default via {own}"));
    }

    /// The same by IPv6, in a network of its own that the Internet knows the way to.
    pub(crate) fn serve_v6(&self, network: &Network, place: &str) {
        let here = network.net(place).host_v6();
        let number = here.segments()[2];
        let net = format!("2001:db8:{:x}:", 0xff00 | number);
        let host = network.namespace(place);
        self.lay("inside", host);
        ip(
            &self.namespace,
            &format!("address add {net}:1/64 dev inside nodad"),
        );
        ip(host, &format!("address add {net}:10/64 dev outside nodad"));
        ip(host, &format!("route add default via {net}:1"));
        ip(&network.router, &format!("route add {net}:/64 via {here}"));
    }

    fn lay(&self, inside: &str, other: &Namespace) {
        ip(
            other,
            &format!(
                "link add outside type veth peer name {inside} netns {}",
                path(&self.namespace)
            ),
        );
        ip(other, "link set outside up");
        ip(&self.namespace, &format!("link set {inside} up"));
    }

    /// Makes it a NAT of that kind for one host.
    pub(crate) fn translate(&self, nat: Nat, host: Ipv4Addr) {
        self.obey(&nat.rules(host));
    }

    /// Adds rules for nftables, and drops what UDP is for the router itself.
    ///
    /// A datagram that a peer sends before ours has left is for the router. If it is let in, though only to be told that nobody
    /// listens, it is remembered as a flow with the very port that ours needs, which then gets another one: the NAT would be
    /// symmetric without saying so. What is dropped is not remembered.
    pub(crate) fn obey(&self, rules: &str) {
        const DEAF: &str = r#"
            table inet own {
                chain input { type filter hook input priority filter; meta l4proto udp drop; }
            }"#;

        self.nft(&format!("{DEAF}{rules}"));
    }

    /// Adds the rules of such a NAT alone, as somebody does who doesn't know better.
    pub(crate) fn translate_carelessly(&self, nat: Nat, host: Ipv4Addr) {
        self.nft(&nat.rules(host));
    }

    /// Tells nftables to do this.
    pub(crate) fn nft(&self, rules: &str) {
        let mut nft = command(&self.namespace, "nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = nft.stdin.take().unwrap();
        stdin.write_all(rules.as_bytes()).unwrap();
        drop(stdin);
        let output = nft.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{rules}");
    }

    /// The flows that it remembers, one a line.
    pub(crate) fn flows(&self) -> String {
        stdout(command(&self.namespace, "conntrack").args(["-L", "-p", "udp"]))
    }

    /// It remembers no flow of its own, which would hold a port that somebody behind it needs.
    pub(crate) fn assert_no_flow_of_its_own(&self, inside: &str) {
        let flows = self.flows();
        assert!(!flows.is_empty(), "nothing has passed");
        for flow in flows.lines() {
            assert!(flow.contains(&format!("={inside}")), "{flow}");
        }
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(namespace: &Namespace, words: &str) {
    stdout(command(namespace, "ip").args(words.split_whitespace()));
}

/// Where other programs find a namespace while this process holds it.
fn path(namespace: &Namespace) -> String {
    let descriptor = namespace.as_fd().as_raw_fd();

    format!("/proc/{}/fd/{descriptor}", std::process::id())
}
