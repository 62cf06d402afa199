//! Where addresses are, from a file.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::{Address, Country};

/// Where networks are. Of several that hold an address, the smallest one counts.
#[derive(Clone, Default)]
pub struct Locations {
    networks: JointPrefixMap<IpNet, Location>,
}

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    /// The country.
    pub country: Country,
    /// The place, if the file says more than the country.
    pub coordinates: Option<Coordinates>,
}

/// A place on earth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coordinates {
    /// Degrees to the north, -90 to 90.
    pub latitude: f64,
    /// Degrees to the east, -180 to 180.
    pub longitude: f64,
}

/// A line that tells no location.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {problem}; write `203.0.113.0/24,DE` or `203.0.113.0/24,DE,52.52,13.40`")]
pub struct InvalidLocations {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// The mean radius of the earth in kilometres (portal-protocol.md §10.4).
const EARTH: f64 = 6371.0;

impl Coordinates {
    /// The length of the shortest way over the ground, by the haversine formula.
    pub fn kilometres_to(self, other: Self) -> f64 {
        let half_sine = |one: f64, other: f64| ((other - one).to_radians() / 2.0).sin().powi(2);
        let meridians = self.latitude.to_radians().cos() * other.latitude.to_radians().cos();
        let chord = half_sine(self.latitude, other.latitude)
            + meridians * half_sine(self.longitude, other.longitude);

        // Rounding may leave the range of a sine at the other end of the earth.
        2.0 * EARTH * chord.sqrt().min(1.0).asin()
    }
}

impl Locations {
    /// Reads lines of `network,country[,latitude,longitude]`. Lines that are empty or begin with `#` are left out; of two
    /// lines with the same network the later one counts.
    ///
    /// # Errors
    ///
    /// [`InvalidLocations`] for the first line that is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidLocations> {
        let mut locations = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |problem| InvalidLocations {
                line: number + 1,
                problem,
            };
            let (network, location) = entry(line).map_err(invalid)?;
            locations.networks.insert(network, location);
        }

        Ok(locations)
    }

    /// Where `address` is. `None` if no network of the file holds it.
    pub fn locate(&self, address: IpAddr) -> Option<&Location> {
        let found = self.networks.get_lpm(&address.to_canonical().into())?;

        Some(found.1)
    }
}

/// The number of networks alone: a file may have a million.
impl fmt::Debug for Locations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locations({} networks)", self.networks.len())
    }
}

fn entry(line: &str) -> Result<(IpNet, Location), String> {
    let mut fields = line.split(',').map(str::trim);
    let network = fields.next().unwrap_or_default();
    let network = match network.parse::<Address>() {
        Ok(Address::Cidr(network)) => network,
        Ok(Address::Dns { .. } | Address::Internet) => {
            return Err(format!("`{network}` is not a network"));
        }
        Err(error) => return Err(error.to_string()),
    };
    let country = fields.next().ok_or("the country is missing")?;
    let country = country
        .parse()
        .map_err(|_| format!("`{country}` is not a country"))?;
    let coordinates = match (fields.next(), fields.next(), fields.next()) {
        (None, ..) => None,
        (Some(latitude), Some(longitude), None) => Some(Coordinates {
            latitude: degrees(latitude, 90.0)?,
            longitude: degrees(longitude, 180.0)?,
        }),
        (Some(_), None, _) => return Err("the longitude is missing".to_owned()),
        (Some(_), Some(_), Some(_)) => return Err("there are more than four fields".to_owned()),
    };

    Ok((
        network,
        Location {
            country,
            coordinates,
        },
    ))
}

fn degrees(text: &str, most: f64) -> Result<f64, String> {
    let degrees = text.parse::<f64>().ok();

    degrees
        .filter(|degrees| degrees.abs() <= most)
        .ok_or_else(|| format!("`{text}` is not a number of degrees between -{most} and {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours
203.0.113.0/24,de,52.52,13.40

203.0.113.128/25, FR
2001:db8::/32,US
";

    #[test]
    fn the_smallest_network_tells() {
        let locations = Locations::parse(FILE).unwrap();
        let country = |address: &str| {
            let location = locations.locate(address.parse().unwrap());
            location.map(|location| location.country.to_string())
        };

        assert_eq!(country("203.0.113.1").as_deref(), Some("DE"));
        assert_eq!(country("203.0.113.200").as_deref(), Some("FR"));
        assert_eq!(country("::ffff:203.0.113.200").as_deref(), Some("FR"));
        assert_eq!(country("2001:db8::1").as_deref(), Some("US"));
        assert_eq!(country("198.51.100.1"), None);
        let berlin = locations.locate("203.0.113.1".parse().unwrap()).unwrap();
        let coordinates = berlin.coordinates.unwrap();
        assert_eq!(
            (coordinates.latitude, coordinates.longitude),
            (52.52, 13.40)
        );
    }

    #[test]
    fn ways_are_as_long_as_on_earth() {
        let at = |latitude: f64, longitude: f64| Coordinates {
            latitude,
            longitude,
        };
        let (berlin, sydney) = (at(52.52, 13.40), at(-33.87, 151.21));
        for (one, other, kilometres) in [
            (berlin, at(52.52, 13.40), 0.0),
            (berlin, at(48.86, 2.35), 878.0),
            (berlin, sydney, 16_094.0),
            (sydney, berlin, 16_094.0),
            (at(0.0, 179.5), at(0.0, -179.5), 111.2),
            (at(90.0, 0.0), at(-90.0, 77.0), 20_015.1),
            (at(0.0, 0.0), at(0.0, 180.0), 20_015.1),
        ] {
            let way = one.kilometres_to(other);
            assert!(
                (way - kilometres).abs() < kilometres / 100.0 + 0.1,
                "{one:?} {other:?} {way}"
            );
        }
    }

    #[test]
    fn a_bad_line_is_told_by_its_number() {
        for (line, problem) in [
            ("203.0.113.0", "country is missing"),
            ("203.0.113.1/24,DE", "bits set behind its prefix"),
            ("corp.test,DE", "not a network"),
            ("203.0.113.0/24,DEU", "not a country"),
            ("203.0.113.0/24,DE,52.52", "longitude is missing"),
            ("203.0.113.0/24,DE,91,0", "`91` is not a number of degrees"),
            (
                "203.0.113.0/24,DE,NaN,0",
                "`NaN` is not a number of degrees",
            ),
            ("203.0.113.0/24,DE,1,2,3", "more than four"),
        ] {
            let error = Locations::parse(&format!("# a\n{line}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{line}");
            assert!(error.problem.contains(problem), "{line}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", number in proptest::num::u32::ANY) {
            let _ = Locations::parse(&text);
            let _ = Locations::parse(&format!("203.0.113.0/24,{text}"));
            let locations = Locations::parse(FILE).unwrap();
            let _ = locations.locate(std::net::Ipv4Addr::from_bits(number).into());
        }
    }
}
