//! What `resolvectl` lists.

use std::net::{IpAddr, SocketAddr};

use super::resolv_conf::{PORT, scoped, server};

/// A part of a listing: what is set in one place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Section<'a> {
    place: Place<'a>,
    words: Vec<&'a str>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place<'a> {
    Global,
    Link { number: u32, name: &'a str },
}

/// Reads `Global: 192.0.2.1` and `Link 2 (eth0): 192.0.2.1 192.0.2.2`. Long lines go on in the next ones, which are
/// indented. Parts of other kinds, which say who is asked about single domains, are skipped.
pub(super) fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut is_known = false;
    for line in text.lines() {
        let words = if let Some((place, words)) = header(line.trim_start()) {
            sections.push(Section {
                place,
                words: Vec::new(),
            });
            is_known = true;
            words
        } else {
            is_known &= line.starts_with(' ');
            line
        };
        if is_known && let Some(section) = sections.last_mut() {
            section.words.extend(words.split_ascii_whitespace());
        }
    }

    sections
}

fn header(line: &str) -> Option<(Place<'_>, &str)> {
    if let Some(words) = line.strip_prefix("Global:") {
        return Some((Place::Global, words));
    }
    let (number, line) = line.strip_prefix("Link ")?.split_once(" (")?;
    // A name may have a parenthesis in it, but no colon.
    let (name, words) = line.split_once("):")?;
    let number = number.parse().ok()?;

    Some((Place::Link { number, name }, words))
}

impl<'a> Section<'a> {
    /// Whether it is about the link `interface`.
    pub(super) fn is_of(&self, interface: &str) -> bool {
        matches!(self.place, Place::Link { name, .. } if name == interface)
    }

    /// The resolvers in it. An address of a link has the link that it is listed under, unless it names another one.
    pub(super) fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        let link = match self.place {
            Place::Global => None,
            Place::Link { number, .. } => Some(number),
        };

        self.words.iter().filter_map(move |word| {
            // A name may follow, which its certificate is checked for.
            let word = word.split('#').next()?;
            let server = with_port(word).or_else(|| server(word))?;
            match server {
                SocketAddr::V6(server) if server.scope_id() == 0 => {
                    Some(scoped((*server.ip()).into(), server.port(), link))
                }
                SocketAddr::V4(_) | SocketAddr::V6(_) => Some(server),
            }
        })
    }

    /// The domains that names are completed with; the others only say who is asked about them.
    pub(super) fn search(&self) -> impl Iterator<Item = &'a str> {
        self.words
            .iter()
            .copied()
            .filter(|domain| !domain.starts_with('~') && *domain != ".")
    }
}

/// `192.0.2.1:5353`, `[2001:db8::1]:5353`, `[fe80::1%2]:5353`.
fn with_port(word: &str) -> Option<SocketAddr> {
    let (address, port) = word.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let address = match address.strip_prefix('[') {
        Some(address) => server(address.strip_suffix(']')?)?,
        None => SocketAddr::new(IpAddr::V4(address.parse().ok()?), PORT),
    };

    Some(match address {
        SocketAddr::V6(mut address) => {
            address.set_port(port);
            address.into()
        }
        SocketAddr::V4(address) => SocketAddr::new((*address.ip()).into(), port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_wherever_they_are_set() {
        // The spec's vectors.
        assert_eq!(servers("Link 2 (eth0): 192.168.1.1"), ["192.168.1.1:53"]);
        assert_eq!(servers("Global: 172.24.80.1\n"), ["172.24.80.1:53"]);
        for none in [
            "Global:\nLink 2 (enp0s6):\nLink 3 (wlan0):\n",
            "",
            "\n\n",
            "Link 2 (eth0): no address",
        ] {
            assert!(servers(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn addresses_of_a_link_have_its_number() {
        let text = "Global: fe80::9 2001:db8::9\nLink 7 (eth0): fe80::1 fe80::2%9 2001:db8::1 fe80::3%lo\n";

        assert_eq!(
            servers(text),
            [
                "[fe80::9]:53",
                "[2001:db8::9]:53",
                "[fe80::1%7]:53",
                "[fe80::2%9]:53",
                "[2001:db8::1]:53",
                "[fe80::3%1]:53"
            ]
        );
    }

    #[test]
    fn ports_and_names_may_follow() {
        let text = "Link 7 (eth0): 192.0.2.1#dns.example 192.0.2.2:5353 192.0.2.3:5353#dns.example\n\
                    \x20       [2001:db8::1]:5353 [fe80::1%9]:5353#dns.example [fe80::1]:5353 2001:db8::53";

        assert_eq!(
            servers(text),
            [
                "192.0.2.1:53",
                "192.0.2.2:5353",
                "192.0.2.3:5353",
                "[2001:db8::1]:5353",
                "[fe80::1%9]:5353",
                "[fe80::1%7]:5353",
                "[2001:db8::53]:53"
            ]
        );
    }

    #[test]
    fn long_lines_go_on_in_the_next() {
        let text = "Global: 192.0.2.1\n         192.0.2.2\nLink 2 (eth0): 192.0.2.3\n        192.0.2.4\n\
                    Delegate corp: 192.0.2.5\n        192.0.2.6\nLink 3 (odd)name): 192.0.2.7\njunk 192.0.2.8\n 192.0.2.9\n";

        assert_eq!(
            servers(text),
            [
                "192.0.2.1:53",
                "192.0.2.2:53",
                "192.0.2.3:53",
                "192.0.2.4:53",
                "192.0.2.7:53"
            ]
        );
        assert!(sections(text)[2].is_of("odd)name"));
    }

    #[test]
    fn only_search_domains_complete_names() {
        let text = "Global: .\nLink 2 (eth0): corp.test ~. ~example.test lan\nLink 3 (tun0):\n";

        let sections = sections(text);
        let search: Vec<_> = sections.iter().flat_map(Section::search).collect();
        assert_eq!(search, ["corp.test", "lan"]);
        assert!(
            sections[1].is_of("eth0") && !sections[1].is_of("tun0") && !sections[0].is_of("Global")
        );
    }

    #[test]
    fn any_text_is_a_listing() {
        for piece in [
            "Link ",
            "Link 1 (",
            "Link x (a): ",
            "Link 1 (a)",
            ":",
            "[",
            "]:",
            "%",
            "#",
            "\u{fffd}",
            "[]:53",
            "1:",
        ] {
            for other in ["Global:", " ", "\n", "Link 1 (a): ", "fe80::1%", "[fe80::1"] {
                servers(&format!("{other}{piece}{other}{piece}"));
            }
        }
    }

    fn servers(text: &str) -> Vec<String> {
        sections(text)
            .iter()
            .flat_map(Section::servers)
            .map(|server| server.to_string())
            .collect()
    }
}
