//! Whom the client asks for names that are no resources', and how.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::servers::{IMPOSTOR, SERVER_NAME};
use crate::tools::frames;
use crate::world::{INSIDE, Plan, World};

/// Protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
#[ignore = "needs root, /dev/net/tun, dig, tcpdump, knotd, unbound, dnsmasq; .ci/run runs it"]
fn each_kind_of_upstream_is_asked_as_it_wants_to_be() {
    let Some(world) = World::new(&["tcpdump"], Plan::default()) else {
        return;
    };
    let ours = ["resolver", "other-resolver"].map(|name| world.network.net(name));
    let [v4, other] = ours.map(|net| IpAddr::V4(net.host_v4()));
    let v6 = IpAddr::V6(ours[0].host_v6());
    let plain = [(UDP, 53), (TCP, 53)];
    let (dot, doh) = ([(TCP, 853)], [(TCP, 443)]);
    // The system's, before the portal says anything.
    assert_asked(&world, &[v4], &plain, "unbound");
    for (upstream, at, carriers, whose) in [
        (other.to_string(), &[other][..], &plain[..], "dnsmasq"),
        (v6.to_string(), &[v6], &plain, "unbound"),
        (format!("tls://{SERVER_NAME}"), &[v4, v6], &dot, "unbound"),
        (
            format!("https://{SERVER_NAME}/dns-query"),
            &[v4, v6],
            &doh,
            "unbound",
        ),
    ] {
        let before = world.sentinels();
        world.apply(&format!("upstream_dns = [\"{upstream}\"]"));
        let now = world.other_sentinels(&before);
        assert_eq!(now[0].is_ipv6(), upstream == v6.to_string(), "{now:?}");
        assert_asked(&world, at, carriers, whose);
    }

    // Somebody else has that certificate.
    for upstream in [
        format!("tls://{IMPOSTOR}"),
        format!("https://{IMPOSTOR}/dns-query"),
    ] {
        let before = world.sentinels();
        world.apply(&format!("upstream_dns = [\"{upstream}\"]"));
        world.other_sentinels(&before);
        let said = world.dig(&["who.example.test", "TXT"]);
        said.assert_status("SERVFAIL");
        said.assert_reason(23, "no name server can be asked");
    }
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, tcpdump, knotd, unbound, dnsmasq; .ci/run runs it"]
fn an_upstream_that_is_a_resource_is_asked_through_the_tunnel() {
    let plan = Plan {
        network: format!("upstream_dns = [\"{INSIDE}\"]"),
        ..Plan::default()
    };
    let Some(world) = World::new(&["tcpdump"], plan) else {
        return;
    };
    let (uplink, site) = (world.capture_uplink(), world.capture_site());
    for carrier in ["+notcp", "+tcp"] {
        let said = world.dig(&["who.inside.test", "TXT", carrier]);
        said.assert_data(&["\"inside\""]);
    }
    let (uplink, site) = (uplink.stop(), site.stop());

    let asked = |capture: &[u8]| -> BTreeSet<_> {
        let towards = frames(capture).into_iter().filter_map(towards);
        towards
            .filter(|(_, _, port)| [53, 853, 443].contains(port))
            .collect()
    };
    assert_eq!(asked(&uplink), BTreeSet::new(), "nobody is asked outside");
    let inside = IpAddr::V4(INSIDE);
    assert_eq!(asked(&site), [(inside, UDP, 53), (inside, TCP, 53)].into());
    world.assert_calm();
}

#[test]
#[ignore = "needs root, /dev/net/tun, dig, knotd, unbound, dnsmasq; .ci/run runs it"]
fn a_mute_upstream_is_replaced_by_the_next_and_comes_back() {
    let Some(world) = World::new(&[], Plan::default()) else {
        return;
    };
    let [first, second] = ["resolver", "other-resolver"].map(|name| world.resolver(name));
    let before = world.sentinels();
    world.apply(&format!("upstream_dns = [\"{first}\", \"{second}\"]"));
    let sentinels = world.other_sentinels(&before);
    assert_eq!(sentinels.len(), 2);
    let who = |sentinel: IpAddr| {
        let said = world.dig_at(sentinel, &["who.example.test", "TXT"]);
        said.assert_status("NOERROR");
        said.data().concat()
    };
    let [one, two] = ["\"unbound\"", "\"dnsmasq\""];
    assert_eq!(
        (who(sentinels[0]).as_str(), who(sentinels[1]).as_str()),
        (one, two)
    );

    // The one that is to be asked says nothing: whoever asks waits for a moment, and then no more.
    world.service("resolver").freeze();
    for _ in 0..4 {
        assert_eq!(who(sentinels[0]), two);
    }
    let took = query_time(&world.dig_at(sentinels[0], &["who.example.test", "TXT"]).0);
    assert!(took < 300, "the mute one is still waited for: {took} ms");

    // Now it is the other way round.
    world.service("resolver").thaw();
    world.service("other-resolver").freeze();
    for sentinel in [&sentinels[..], &sentinels].concat() {
        assert_eq!(who(sentinel), one);
    }
    world.service("other-resolver").thaw();
    assert_eq!(who(sentinels[0]), one, "it is preferred again");
    world.assert_calm();
}

/// Asks by UDP and TCP who is asked; that is who calls itself `whose`, at one of these addresses, by these protocols and ports
/// and by nothing else.
fn assert_asked(world: &World, at: &[IpAddr], carriers: &[(u8, u16)], whose: &str) {
    let capture = world.capture_uplink();
    for carrier in ["+notcp", "+tcp"] {
        let said = world.dig(&["who.example.test", "TXT", carrier]);
        said.assert_status("NOERROR");
        said.assert_data(&[&format!("\"{whose}\"")]);
    }
    let capture = capture.stop();
    let is_plain = carriers.iter().any(|(_, port)| *port == 53);
    let asked: Vec<_> = frames(&capture)
        .into_iter()
        .filter_map(towards)
        .filter(|(.., port)| [53, 853, 443].contains(port))
        // Where the address of a server is found out that has a name.
        .filter(|(.., port)| is_plain || *port != 53)
        .collect();
    assert!(asked.iter().all(|(ip, ..)| at.contains(ip)), "{asked:?}");
    let asked: BTreeSet<_> = asked.into_iter().map(|(_, by, port)| (by, port)).collect();
    assert_eq!(asked, carriers.iter().copied().collect(), "{whose}");
}

/// Where a frame goes: address, protocol and port. Nothing if it is neither TCP nor UDP.
pub(crate) fn towards(frame: &[u8]) -> Option<(IpAddr, u8, u16)> {
    let packet = frame.get(14..)?;
    let (ip, protocol, transport): (IpAddr, _, _) = match [frame[12], frame[13]] {
        [0x08, 0x00] => {
            let len = usize::from(packet[0] & 0xf) * 4;
            let ip = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[16..20]).unwrap());
            (ip.into(), packet[9], &packet[len..])
        }
        [0x86, 0xdd] => {
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap());
            (ip.into(), packet[6], &packet[40..])
        }
        _ => return None,
    };
    if ![TCP, UDP].contains(&protocol) {
        return None;
    }

    Some((
        ip,
        protocol,
        u16::from_be_bytes(transport[2..4].try_into().unwrap()),
    ))
}

/// How long dig has waited, in milliseconds.
fn query_time(said: &str) -> u64 {
    let (_, rest) = said.split_once("Query time: ").unwrap();

    rest.split(' ').next().unwrap().parse().unwrap()
}
