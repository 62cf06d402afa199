//! Names that need no resolver (hosts(5)).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// What a file like `/etc/hosts` says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hosts {
    addresses: BTreeMap<String, Vec<IpAddr>>,
}

impl Hosts {
    /// Reads such a file. It knows no names if it doesn't exist.
    ///
    /// # Errors
    ///
    /// The file exists and can't be read.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        match fs::read(path) {
            Ok(contents) => Ok(Self::parse(&String::from_utf8_lossy(&contents))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Parses the contents of such a file.
    ///
    /// A line without an address costs itself alone. So does one whose address is good on a single link
    /// (`fe80::1%eth0`): without the link nobody reaches it.
    pub fn parse(text: &str) -> Self {
        let mut hosts = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else {
                continue;
            };
            for name in words.map(normalized).filter(|name| !name.is_empty()) {
                let addresses = hosts.addresses.entry(name).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }

        hosts
    }

    /// The addresses of `name`, in the order of the file; none if it isn't there. Case and a dot at the end don't matter.
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        self.addresses
            .get(&normalized(name))
            .map_or(&[], Vec::as_slice)
    }

    /// All names, in lower case and without a dot at the end, in alphabetical order, with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        self.addresses
            .iter()
            .map(|(name, addresses)| (name.as_str(), addresses.as_slice()))
    }
}

fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_their_addresses() {
        let hosts = Hosts::parse(
            "# static\n127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # loopback\n\
             192.0.2.1 Wiki.Corp.Test. wiki\n192.0.2.1 wiki\r\n",
        );

        assert_eq!(hosts.addresses("localhost"), ips(&["127.0.0.1", "::1"]));
        for name in ["wiki", "WIKI", "wiki.", "wiki.corp.test", "wiki.corp.test."] {
            assert_eq!(hosts.addresses(name), ips(&["192.0.2.1"]), "{name}");
        }
        assert!(hosts.addresses("corp.test").is_empty());
        assert!(hosts.addresses("").is_empty());
        let names: Vec<_> = hosts.iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["ip6-localhost", "localhost", "wiki", "wiki.corp.test"]
        );
    }

    #[test]
    fn a_bad_line_costs_itself_alone() {
        let hosts = Hosts::parse(
            "localhost 127.0.0.1\n192.0.2 short\n192.0.2.1\nfe80::1%lo on-a-link\n\0\u{fffd}\n\
             192.0.2.2 . good#bad\n",
        );

        let all: Vec<_> = hosts.iter().collect();
        assert_eq!(all, [("good", ips(&["192.0.2.2"]).as_slice())]);
    }

    #[test]
    fn a_file_may_be_missing_or_hold_anything() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        assert_eq!(Hosts::read(&path).unwrap(), Hosts::default());

        fs::write(&path, b"\xff\xfe\0\n192.0.2.1 a \xff b\n").unwrap();
        let hosts = Hosts::read(&path).unwrap();
        assert_eq!(hosts.addresses("a"), ips(&["192.0.2.1"]));
        assert_eq!(hosts.addresses("b"), ips(&["192.0.2.1"]));
        assert!(Hosts::read(directory.path()).is_err());
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }
}
