//! What must hold besides the group before a policy lets a client in (portal-protocol.md §10.3).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Address, InvalidAddress, Window};

/// One thing that must hold. All conditions of a policy must.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Condition {
    /// The client's address is in one of these networks.
    RemoteIp(Networks),
    /// The client's address is known, and in none of these networks.
    NotRemoteIp(Networks),
    /// The client is in one of these countries.
    Country(BTreeSet<Country>),
    /// The client is in a country that is known, and none of these.
    NotCountry(BTreeSet<Country>),
    /// An admin marked the device as verified.
    Verified,
    /// It is the right time.
    Time(Window),
}

/// Networks, without host bits.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(from = "BTreeSet<IpNet>")]
pub struct Networks(BTreeSet<IpNet>);

/// A country by its code of two letters (ISO 3166-1 alpha-2).
#[derive(Clone, Copy, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country([u8; 2]);

/// A text that is no country.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a country; write two letters (ISO 3166-1 alpha-2): `DE`, `US`")]
pub struct InvalidCountry(String);

/// Reads a network or a single address.
///
/// # Errors
///
/// [`InvalidAddress`], also for names.
pub(crate) fn parse_network(text: &str) -> Result<IpNet, InvalidAddress> {
    match text.parse()? {
        Address::Cidr(network) => Ok(network),
        Address::Dns { .. } | Address::Internet => {
            Err(InvalidAddress::NotANetwork(text.to_owned()))
        }
    }
}

impl Networks {
    /// Whether `address` is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Whatever was stored, host bits don't count.
impl From<BTreeSet<IpNet>> for Networks {
    fn from(networks: BTreeSet<IpNet>) -> Self {
        networks.into_iter().collect()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        Self(
            networks
                .into_iter()
                .map(|network| network.trunc())
                .collect(),
        )
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list(&self.0))
    }
}

/// Whatever its case is.
impl FromStr for Country {
    type Err = InvalidCountry;

    fn from_str(text: &str) -> Result<Self, InvalidCountry> {
        match text.as_bytes() {
            [first, second] if first.is_ascii_alphabetic() && second.is_ascii_alphabetic() => {
                Ok(Self([
                    first.to_ascii_uppercase(),
                    second.to_ascii_uppercase(),
                ]))
            }
            _ => Err(InvalidCountry(text.to_owned())),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([first, second]) = self;

        write!(f, "{}{}", char::from(*first), char::from(*second))
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Country {
    type Error = InvalidCountry;

    fn try_from(text: String) -> Result<Self, InvalidCountry> {
        text.parse()
    }
}

impl From<Country> for String {
    fn from(country: Country) -> Self {
        country.to_string()
    }
}

/// For people: `remote_ip 203.0.113.0/24`, `weekdays mon-fri 08:00-18:00 Europe/Berlin`.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoteIp(networks) => write!(f, "remote_ip {networks}"),
            Self::NotRemoteIp(networks) => write!(f, "not_remote_ip {networks}"),
            Self::Country(countries) => write!(f, "country {}", list(countries)),
            Self::NotCountry(countries) => write!(f, "not_country {}", list(countries)),
            Self::Verified => f.write_str("verified"),
            Self::Time(window) => window.fmt(f),
        }
    }
}

/// All of them, for people; nothing if there are none.
pub(crate) fn conditions_text(conditions: &[Condition]) -> String {
    let texts: Vec<String> = conditions.iter().map(ToString::to_string).collect();

    texts.join("; ")
}

fn list<T: ToString>(things: &BTreeSet<T>) -> String {
    let texts: Vec<String> = things.iter().map(ToString::to_string).collect();

    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_survive_the_store() {
        let networks = || {
            ["203.0.113.0/24", "2001:db8::1"]
                .into_iter()
                .map(|text| parse_network(text).unwrap())
                .collect::<Networks>()
        };
        let countries = || BTreeSet::from(["de".parse().unwrap(), "FR".parse().unwrap()]);
        let window = Window {
            weekdays: "mon-fri".parse().unwrap(),
            hours: "08:00-18:00".parse().unwrap(),
            timezone: "Europe/Berlin".parse().unwrap(),
        };
        for (condition, stored, shown) in [
            (
                Condition::RemoteIp(networks()),
                r#"{"remote_ip":["203.0.113.0/24","2001:db8::1/128"]}"#,
                "remote_ip 203.0.113.0/24, 2001:db8::1/128",
            ),
            (
                Condition::NotCountry(countries()),
                r#"{"not_country":["DE","FR"]}"#,
                "not_country DE, FR",
            ),
            (Condition::Verified, r#""verified""#, "verified"),
            (
                Condition::Time(window),
                r#"{"time":{"weekdays":"mon-fri","hours":"08:00-18:00","timezone":"Europe/Berlin"}}"#,
                "weekdays mon-fri 08:00-18:00 Europe/Berlin",
            ),
        ] {
            assert_eq!(serde_json::to_string(&condition).unwrap(), stored);
            assert_eq!(
                serde_json::from_str::<Condition>(stored).unwrap(),
                condition
            );
            assert_eq!(condition.to_string(), shown);
        }
        let senseless = r#"{"time":{"weekdays":"mon-fri","hours":"18:00-08:00","timezone":"UTC"}}"#;
        assert!(serde_json::from_str::<Condition>(senseless).is_err());
    }

    #[test]
    fn networks_and_countries_are_told_from_anything_else() {
        for text in ["10.0.0.1/8", "corp.test", "internet", "300.0.0.1", ""] {
            assert!(parse_network(text).is_err(), "{text}");
        }
        for text in ["", "D", "DEU", "D1", "dé"] {
            assert!(text.parse::<Country>().is_err(), "{text}");
        }
    }
}
