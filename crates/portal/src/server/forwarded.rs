//! Where peers connect from that come through a proxy of ours (portal-protocol.md §10.1).

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The header that proxies add the address to that they were asked from.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Proxies whose word counts, by address. None by default: anybody can send that header.
///
/// Written as networks and addresses with commas between them: `10.0.0.0/8,192.0.2.7`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrustedProxies(Vec<IpNet>);

/// A text that is neither a network nor an address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{text:?} is neither an address nor a network, as in `192.0.2.7` or `10.0.0.0/8`; several are separated by commas"
)]
pub struct InvalidProxies {
    text: String,
}

impl TrustedProxies {
    /// Who asks: the last address in the header that isn't a trusted proxy's, if a trusted proxy brought it.
    ///
    /// What stands before that was said by whoever asks, and may be a lie; behind a word that is no address nobody can
    /// look.
    pub(super) fn origin(&self, from: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut origin = from.to_canonical();
        let lines = headers.get_all(FORWARDED_FOR).into_iter().rev();
        let mut hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        while self.holds(origin)
            && let Some(hop) = hops.next()
            && let Some(before) = address(hop)
        {
            origin = before;
        }

        origin
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for TrustedProxies {
    type Err = InvalidProxies;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = |text: &str| {
            let text = text.trim();
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            let invalid = || InvalidProxies {
                text: text.to_owned(),
            };
            text.parse().ok().or_else(address).ok_or_else(invalid)
        };

        text.split(',')
            .map(network)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7` or `[2001:db8::7]:80`.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(hop).ok()?.trim();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let address: IpAddr = text.parse().ok().or_else(with_port)?;

    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_is_no_proxy_asked() {
        let cases: [(&str, &[&str], &str); 10] = [
            ("192.0.2.1", &["198.51.100.9"], "198.51.100.9"),
            ("192.0.2.1", &["198.51.100.9:4711"], "198.51.100.9"),
            ("::ffff:192.0.2.1", &["[2001:db8::9]:4711"], "2001:db8::9"),
            // Each proxy adds whom it was asked by; what its asker said before stands on the left.
            (
                "192.0.2.1",
                &["1.2.3.4, 198.51.100.9, 10.1.2.3"],
                "198.51.100.9",
            ),
            (
                "192.0.2.1",
                &["1.2.3.4", "198.51.100.9", "10.1.2.3"],
                "198.51.100.9",
            ),
            ("192.0.2.1", &["10.7.7.7, 10.1.2.3"], "10.7.7.7"),
            (
                "192.0.2.1",
                &["198.51.100.9, unknown, 10.1.2.3"],
                "10.1.2.3",
            ),
            ("192.0.2.1", &[""], "192.0.2.1"),
            ("192.0.2.1", &[], "192.0.2.1"),
            // Nobody vouches for this one.
            ("192.0.2.2", &["198.51.100.9"], "192.0.2.2"),
        ];
        let trusted: TrustedProxies = "10.0.0.0/8, 192.0.2.1".parse().unwrap();
        for (from, lines, origin) in cases {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            let found = trusted.origin(from.parse().unwrap(), &headers);
            assert_eq!(found.to_string(), origin, "{from} {lines:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_networks_is_refused_by_its_word() {
        for text in ["", "10.0.0.0/8,", "proxy.example", "10.0.0.0/33"] {
            let error = text.parse::<TrustedProxies>().unwrap_err();
            assert!(error.to_string().contains("neither an address"), "{error}");
        }
    }
}
