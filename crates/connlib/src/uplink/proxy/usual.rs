//! The variables that name proxies for all programs of a machine.

use std::net::IpAddr;

use connlib_wire::secret::Secret;
use ipnet::IpNet;
use url::Host;

use crate::uplink::url::{PortalUrl, Security};

/// See [`Proxy::usual`](super::Proxy::usual).
pub(super) fn find(
    api_url: &str,
    variable: impl Fn(&'static str) -> Option<String>,
) -> Option<(&'static str, Secret)> {
    // What is wrong with it is told by whoever connects to it.
    let portal = PortalUrl::parse(api_url).ok()?;
    let given = |name| variable(name).filter(|text| !text.trim().is_empty());
    let exceptions = given("no_proxy").or_else(|| given("NO_PROXY"));
    if exceptions.is_some_and(|list| is_listed(&portal, &list)) {
        return None;
    }
    let names: &[&'static str] = match portal.security() {
        Security::Tls => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        Security::Plain => &["http_proxy", "all_proxy", "ALL_PROXY"],
    };

    names
        .iter()
        .find_map(|name| Some((*name, Secret::from(given(name)?))))
}

fn is_listed(portal: &PortalUrl, list: &str) -> bool {
    list.split([',', ' '])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| matches(portal, entry))
}

fn matches(portal: &PortalUrl, entry: &str) -> bool {
    if entry == "*" {
        return true;
    }
    let place = portal.place();
    match place.host {
        Host::Ipv4(ip) => matches_address(ip.into(), place.port, entry),
        Host::Ipv6(ip) => matches_address(ip.into(), place.port, entry),
        Host::Domain(name) => matches_name(name, place.port, entry),
    }
}

/// An address, with a port or without, or a network.
fn matches_address(ip: IpAddr, port: u16, entry: &str) -> bool {
    if let Ok(socket) = entry.parse::<std::net::SocketAddr>() {
        return (socket.ip(), socket.port()) == (ip, port);
    }
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    if let Ok(listed) = bare.parse::<IpAddr>() {
        return listed == ip;
    }

    entry.parse::<IpNet>().is_ok_and(|net| net.contains(&ip))
}

/// A name stands for itself and all below it, whether it begins with a dot, with `*.` or with neither.
fn matches_name(name: &str, port: u16, entry: &str) -> bool {
    let (listed, listed_port) = match entry.rsplit_once(':') {
        Some((listed, listed_port)) => (listed, listed_port.parse().ok()),
        None => (entry, Some(port)),
    };
    let listed = listed.trim_start_matches('*').trim_matches('.');
    let name = name.trim_end_matches('.');
    if listed_port != Some(port) || listed.is_empty() {
        return false;
    }
    let Some(start) = name.len().checked_sub(listed.len()) else {
        return false;
    };
    let (before, end) = name.split_at_checked(start).unwrap_or_default();

    end.eq_ignore_ascii_case(listed) && (before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TLS: &str = "wss://api.portal.example";

    #[test]
    fn the_scheme_says_which_variable_counts_and_lower_case_counts_first() {
        for (url, set, expected) in [
            (TLS, &["HTTPS_PROXY"][..], Some("HTTPS_PROXY")),
            (
                "https://p",
                &["HTTPS_PROXY", "https_proxy"],
                Some("https_proxy"),
            ),
            (TLS, &["http_proxy", "HTTP_PROXY"], None),
            (TLS, &["http_proxy", "ALL_PROXY"], Some("ALL_PROXY")),
            (TLS, &["all_proxy", "ALL_PROXY"], Some("all_proxy")),
            ("ws://p", &["http_proxy", "ALL_PROXY"], Some("http_proxy")),
            // A web server hands its visitor's header `Proxy` on like this.
            ("http://p", &["HTTP_PROXY"], None),
            ("ws://p", &["https_proxy", "HTTPS_PROXY"], None),
            ("ftp://p", &["ALL_PROXY"], None),
            (TLS, &[], None),
        ] {
            let found = find(url, |name| set.contains(&name).then(|| name.to_owned()));

            assert_eq!(
                found.as_ref().map(|(name, _)| *name),
                expected,
                "{url} {set:?}"
            );
            assert_eq!(found.as_ref().map(|(_, text)| text.expose()), expected);
        }
    }

    #[test]
    fn a_variable_that_is_empty_is_not_set() {
        let found = find(TLS, |name| (name == "https_proxy").then(|| " ".to_owned()));

        assert_eq!(found, None);
    }

    #[test]
    fn hosts_names_below_them_addresses_and_networks_are_excepted() {
        for (url, list, is_excepted) in [
            (TLS, "*", true),
            (TLS, "api.portal.example", true),
            (TLS, "other, API.Portal.Example", true),
            (TLS, "portal.example", true),
            (TLS, ".portal.example", true),
            (TLS, "*.portal.example", true),
            (TLS, "portal.example:443", true),
            (TLS, "portal.example:8443", false),
            (TLS, "portal.example:odd", false),
            (TLS, "tal.example", false),
            (TLS, "x.api.portal.example", false),
            (TLS, "localhost,127.0.0.0/8,::1", false),
            (TLS, ",. ,*.", false),
            ("wss://ü.example", "example", true),
            ("wss://10.1.2.3", "10.1.2.3", true),
            ("wss://10.1.2.3", "10.1.2.3:443", true),
            ("wss://10.1.2.3", "10.1.2.3:80", false),
            ("wss://10.1.2.3", "10.1.0.0/16", true),
            ("wss://10.1.2.3", "10.2.0.0/16", false),
            ("wss://10.1.2.3", ".3", false),
            ("wss://[2001:db8::1]:99", "2001:db8::1", true),
            ("wss://[2001:db8::1]:99", "[2001:db8::1]", true),
            ("wss://[2001:db8::1]:99", "[2001:db8::1]:99", true),
            ("wss://[2001:db8::1]:99", "2001:db8::/32", true),
            ("wss://[2001:db8::1]:99", "0.0.0.0/0", false),
        ] {
            for name in ["no_proxy", "NO_PROXY"] {
                let found = find(url, |asked| match asked {
                    "https_proxy" => Some("proxy".to_owned()),
                    _ => (asked == name).then(|| list.to_owned()),
                });

                assert_eq!(found.is_none(), is_excepted, "{url} {list}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic(host in "[a-zü.]{1,20}", list in "[a-z0-9ü:./*, \\[\\]]{0,40}") {
            let _ = find(&format!("wss://{host}"), |_| Some(list.clone()));
        }
    }
}
