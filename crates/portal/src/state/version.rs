//! Which of the forerunner's programs a peer says it is like, and who fits whom (portal-protocol.md §1.4, §10.4).

use std::fmt;

use crate::model::Address;

/// What may come before the version in a user agent.
const PRODUCTS: [&str; 7] = [
    "relay/",
    "connlib/",
    "headless-client/",
    "gui-client/",
    "apple-client/",
    "android-client/",
    "gateway/",
];

/// The first that know the Internet as a resource.
const KNOWS_INTERNET: Version = Version {
    major: 1,
    minor: 3,
    patch: 0,
};

/// `1.5.12`; what may follow, as in `1.5.12-rc.1`, doesn't count.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

/// The text after a product that is known: `1.5.12` out of `Debian/12.0.0 gateway/1.5.12 (x86_64)`.
pub(super) fn of_agent(agent: &str) -> Option<&str> {
    agent.split(' ').find_map(|word| {
        PRODUCTS
            .iter()
            .find_map(|product| word.strip_prefix(product))
    })
}

/// Whether a client gets on with a gateway: not with one of which it isn't known, nor if it isn't known of itself.
pub(crate) fn fit(client: Option<Version>, gateway: Option<Version>) -> bool {
    let (Some(client), Some(gateway)) = (client, gateway) else {
        return false;
    };
    let oldest = client.minor.saturating_sub(1);
    let newest = client.minor.saturating_add(1);

    client.major == gateway.major && (oldest..=newest).contains(&gateway.minor)
}

/// Whether a program of that version can make something of a resource with such an address.
pub(super) fn knows(version: Option<Version>, address: &Address) -> bool {
    *address != Address::Internet || version >= Some(KNOWS_INTERNET)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let release = text.split(['-', '+']).next()?;
        let mut numbers = release.split('.').map(|number| number.parse().ok());
        let version = Self {
            major: numbers.next()??,
            minor: numbers.next()??,
            patch: numbers.next()??,
        };

        numbers.next().is_none().then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_after_a_known_product() {
        let recorded = [
            (
                "Debian/12.0.0 headless-client/1.5.12 (x86_64; 6.18.44)",
                Some("1.5.12"),
            ),
            (
                "Debian/12.0.0 gateway/1.6.1 (x86_64; 6.18.44)",
                Some("1.6.1"),
            ),
            (
                "Debian/12.0.0 connlib/1.4.17 (x86_64; 6.18.44)",
                Some("1.4.17"),
            ),
            ("Mac OS/14.1 apple-client/1.5.0", Some("1.5.0")),
            ("Arch Linux/6.1 gui-client/", Some("")),
            ("relay/0.1.0", Some("0.1.0")),
            ("Mozilla/5.0 (X11; Linux x86_64)", None),
            ("Linux/6.1 my-gateway/1.0.0", None),
            ("", None),
        ];
        for (agent, version) in recorded {
            assert_eq!(of_agent(agent), version, "{agent}");
        }
    }

    #[test]
    fn a_gateway_may_be_one_minor_version_older_or_newer() {
        let fits =
            |client: &str, gateway: &str| fit(Version::parse(client), Version::parse(gateway));

        for gateway in ["1.4.0", "1.5.12", "1.6.99", "1.6.0-rc.1"] {
            assert!(fits("1.5.3", gateway), "{gateway}");
        }
        for gateway in [
            "1.3.99", "1.7.0", "2.5.0", "0.5.0", "1.5", "1.5.1.1", "one", "",
        ] {
            assert!(!fits("1.5.3", gateway), "{gateway}");
        }
        assert!(fits("1.0.0", "1.0.0") && fits("1.0.0", "1.1.0"));
        assert!(!fits("dev", "1.5.0"));
        assert!(fits("1.4294967295.0", "1.4294967295.0"));
    }
}
