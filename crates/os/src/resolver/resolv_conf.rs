//! What is in a file like `/etc/resolv.conf` (resolv.conf(5)).

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use crate::sys;

/// What such a file says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    /// As they were written.
    #[cfg(feature = "netlink")]
    pub(super) options: Vec<String>,
}

/// Where resolvers listen (RFC 1035, section 4.2).
pub(super) const PORT: u16 = 53;

impl ResolvConf {
    /// Reads what libc would read. A line that isn't understood costs itself alone.
    pub(super) fn parse(contents: &[u8]) -> Self {
        let mut conf = Self::default();
        for line in contents.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            // The keyword has to start its line.
            if line.starts_with(|first: char| first.is_ascii_whitespace()) {
                continue;
            }
            let mut words = line
                .split_ascii_whitespace()
                .take_while(|word| !word.starts_with(['#', ';']));
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => conf.search = plain(words).collect(),
                #[cfg(feature = "netlink")]
                Some("options") => conf.options.extend(plain(words)),
                _ => {}
            }
        }

        conf
    }
}

/// An address as such files have it: `192.0.2.1`, `2001:db8::1`, `fe80::1%eth0`, `fe80::1%2`.
pub(super) fn server(text: &str) -> Option<SocketAddr> {
    let (address, scope) = match text.split_once('%') {
        Some((address, scope)) => (address, scope_id(scope)),
        None => (text, None),
    };

    Some(scoped(address.parse().ok()?, PORT, scope))
}

/// An address with the number of the link that it is good on, if it is an address of that kind.
pub(super) fn scoped(address: IpAddr, port: u16, link: Option<u32>) -> SocketAddr {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            SocketAddrV6::new(address, port, 0, link.unwrap_or_default()).into()
        }
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(address, port),
    }
}

/// The number of a link that is given by its name or its number; a name comes first, as it does in libc.
fn scope_id(text: &str) -> Option<u32> {
    sys::socket::interface_index(text).or_else(|| text.parse().ok())
}

fn plain<'a>(words: impl Iterator<Item = &'a str>) -> impl Iterator<Item = String> {
    words
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_file_is_read() {
        let conf = parse(
            "# comment\n; another\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\t# ours\n\
             search corp.test example.test\nnameserver 192.0.2.2\n",
        );

        assert_eq!(
            conf.servers,
            [
                addr("192.0.2.1:53"),
                addr("[2001:db8::1]:53"),
                addr("192.0.2.2:53")
            ]
        );
        assert_eq!(conf.search, ["corp.test", "example.test"]);
    }

    #[test]
    fn the_last_of_search_and_domain_wins() {
        assert_eq!(
            parse("search a.test b.test\ndomain c.test\n").search,
            ["c.test"]
        );
        assert_eq!(parse("domain c.test\nsearch a.test\n").search, ["a.test"]);
        assert_eq!(parse("search a.test\r\n").search, ["a.test"]);
    }

    #[test]
    fn an_address_of_a_link_keeps_the_link_where_it_is_known() {
        let scopes: Vec<_> = ["lo", "1", "7", "no-such-link", ""]
            .into_iter()
            .map(|scope| parse(&format!("nameserver fe80::1%{scope}\n")).servers)
            .collect();

        let expected = [1, 1, 7, 0, 0].map(|scope| {
            let address = "fe80::1".parse().unwrap();
            vec![SocketAddrV6::new(address, 53, 0, scope).into()]
        });
        assert_eq!(scopes, expected);
        // Elsewhere it has no meaning.
        assert_eq!(
            parse("nameserver 2001:db8::1%lo\n").servers,
            [addr("[2001:db8::1]:53")]
        );
    }

    #[test]
    fn what_is_not_understood_costs_itself_alone() {
        let conf = ResolvConf::parse(
            b"nameserver\nnameserver example.test\nnameserver 1.2.3\n nameserver 192.0.2.9\n\
              nameserver # 192.0.2.8\nNAMESERVER 192.0.2.7\nnameserver192.0.2.6\n\xff\xfe\0\n\
              sortlist 192.0.2.0/24\nnameserver 192.0.2.1 junk\nsearch a.test \xff b.test",
        );

        assert_eq!(conf.servers, [addr("192.0.2.1:53")]);
        assert_eq!(conf.search, ["a.test", "b.test"]);
    }

    #[cfg(feature = "netlink")]
    #[test]
    fn options_add_up() {
        let conf = parse("options edns0 trust-ad\noptions ndots:2 # more\n");

        assert_eq!(conf.options, ["edns0", "trust-ad", "ndots:2"]);
    }

    #[test]
    fn any_bytes_are_a_file() {
        assert_eq!(ResolvConf::parse(b""), ResolvConf::default());
        let mut state = 1_u32;
        for len in 0..2_000 {
            let bytes: Vec<u8> = (0..len % 300)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state.to_be_bytes()[0]
                })
                .collect();
            ResolvConf::parse(&bytes);
            ResolvConf::parse(&[b"nameserver ", bytes.as_slice()].concat());
        }
    }

    #[test]
    fn a_large_file_is_read_whole() {
        let mut text = "# no line of interest\n".repeat(50_000);
        text.push_str("nameserver 192.0.2.1\n");

        assert!(text.len() > 1024 * 1024);
        assert_eq!(parse(&text).servers, [addr("192.0.2.1:53")]);
    }

    fn parse(text: &str) -> ResolvConf {
        ResolvConf::parse(text.as_bytes())
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }
}
