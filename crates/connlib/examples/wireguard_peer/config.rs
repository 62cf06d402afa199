//! The file that says who we are and who the peers are, in the form of `wg-quick`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use connlib_link::{FixedPeer, PrivateKey};
use connlib_wire::MAX_PACKET;
use connlib_wire::key::{PresharedKey, PublicKey};
use ipnet::IpNet;

/// The smallest MTU that IPv4 hosts must cope with (RFC 1122, section 3.3.2).
const MIN_MTU: u16 = 576;

/// Everything that the file says.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) private_key: PrivateKey,
    pub(crate) listen_port: u16,
    pub(crate) addresses: Vec<IpNet>,
    /// What was asked for, which may be more than the tunnel carries.
    pub(crate) mtu: Option<u16>,
    pub(crate) peers: Vec<Peer>,
}

/// A peer and what is behind it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) link: FixedPeer,
    pub(crate) allowed: Vec<IpNet>,
}

/// What is wrong with the file, and where.
#[derive(Debug)]
pub(crate) struct ConfigError {
    file: PathBuf,
    mistake: Mistake,
}

/// A mistake in a line.
#[derive(Debug)]
struct Mistake {
    /// 0 means the file as a whole.
    line: usize,
    key: String,
    problem: String,
}

impl Config {
    /// Reads the file.
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| Mistake {
            line: 0,
            key: "can't read it".to_owned(),
            problem: error.to_string(),
        });

        text.and_then(|text| parse(&text))
            .map_err(|mistake| ConfigError {
                file: file.to_owned(),
                mistake,
            })
    }

    /// What the device is set to.
    pub(crate) fn device_mtu(&self) -> u32 {
        let limit = u32::try_from(MAX_PACKET).unwrap_or(u32::MAX);

        self.mtu.map_or(limit, |mtu| limit.min(mtu.into()))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake { line, key, problem } = &self.mistake;
        write!(f, "{}", self.file.display())?;
        if *line > 0 {
            write!(f, ":{line}")?;
        }

        write!(f, ": {key}: {problem}")
    }
}

impl std::error::Error for ConfigError {}

/// One `key = value`.
#[derive(Clone, Copy)]
struct Entry<'a> {
    line: usize,
    key: &'a str,
    value: &'a str,
}

impl Entry<'_> {
    fn mistake(&self, problem: impl Into<String>) -> Mistake {
        Mistake {
            line: self.line,
            key: self.key.to_owned(),
            problem: problem.into(),
        }
    }

    /// Reads the value into a place that must be empty so far. It is not repeated in the error: it may be a secret.
    fn set<T: FromStr>(&self, place: &mut Option<T>, expected: &str) -> Result<(), Mistake> {
        let value = self.value.parse();
        let value = value.map_err(|_| self.mistake(format!("expected {expected}")))?;
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(self.mistake("is given twice; remove one")),
        }
    }

    /// Adds networks that commas separate; an address alone is a network of one.
    fn add_networks(&self, networks: &mut Vec<IpNet>) -> Result<(), Mistake> {
        for text in self.value.split(',').map(str::trim) {
            let alone = || text.parse::<IpAddr>().map(IpNet::from);
            let network = text.parse::<IpNet>().or_else(|_| alone());
            let network = network.map_err(|_| {
                self.mistake(format!(
                    "{text:?} is no network such as 10.0.0.0/24 or fd00::/64"
                ))
            })?;
            networks.push(network);
        }

        Ok(())
    }
}

#[derive(Default)]
struct InterfaceSection {
    private_key: Option<Secret>,
    listen_port: Option<u16>,
    addresses: Vec<IpNet>,
    mtu: Option<u16>,
}

#[derive(Default)]
struct PeerSection {
    line: usize,
    public_key: Option<PublicKey>,
    preshared_key: Option<PresharedKey>,
    endpoint: Option<SocketAddr>,
    /// The line that says so.
    endpoint_line: usize,
    allowed: Vec<IpNet>,
    keepalive: Option<Keepalive>,
}

enum Section {
    None,
    Interface,
    Peer,
}

fn parse(text: &str) -> Result<Config, Mistake> {
    let mut interface = InterfaceSection::default();
    let mut peers: Vec<PeerSection> = Vec::new();
    let mut section = Section::None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.to_ascii_lowercase().as_str() {
            "[interface]" => {
                section = Section::Interface;
                continue;
            }
            "[peer]" => {
                section = Section::Peer;
                peers.push(PeerSection {
                    line: number,
                    ..PeerSection::default()
                });
                continue;
            }
            _ => {}
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let entry = Entry {
            line: number,
            key: key.trim(),
            value: value.trim(),
        };
        match (&section, peers.last_mut()) {
            (Section::Interface, _) => set_interface(&mut interface, entry)?,
            (Section::Peer, Some(peer)) => set_peer(peer, entry)?,
            _ => return Err(entry.mistake("belongs into a section [Interface] or [Peer]")),
        }
    }

    finish(interface, peers)
}

fn set_interface(interface: &mut InterfaceSection, entry: Entry<'_>) -> Result<(), Mistake> {
    match entry.key.to_ascii_lowercase().as_str() {
        "privatekey" => entry.set(&mut interface.private_key, "a key as `wg genkey` prints it"),
        "listenport" => entry.set(&mut interface.listen_port, "a port, 0 to 65535"),
        "address" => entry.add_networks(&mut interface.addresses),
        "mtu" => {
            let expected = "a number of bytes, 576 to 65535; the tunnel carries 1280";
            entry.set(&mut interface.mtu, expected)?;
            if interface.mtu.is_some_and(|mtu| mtu < MIN_MTU) {
                return Err(entry.mistake(format!("expected {expected}")));
            }
            Ok(())
        }
        _ => Err(entry.mistake(
            "is not known here; use PrivateKey, ListenPort, Address or MTU in [Interface]",
        )),
    }
}

fn set_peer(peer: &mut PeerSection, entry: Entry<'_>) -> Result<(), Mistake> {
    match entry.key.to_ascii_lowercase().as_str() {
        "publickey" => entry.set(&mut peer.public_key, "a key as `wg pubkey` prints it"),
        "presharedkey" => entry.set(&mut peer.preshared_key, "a key as `wg genpsk` prints it"),
        "endpoint" => {
            peer.endpoint_line = entry.line;
            let expected = "an address and a port such as 192.0.2.1:51820 or [2001:db8::1]:51820";
            entry.set(&mut peer.endpoint, expected)
        }
        "allowedips" => entry.add_networks(&mut peer.allowed),
        "persistentkeepalive" => {
            entry.set(&mut peer.keepalive, "`off` or a number of seconds, 0 to 65535")
        }
        _ => Err(entry.mistake(
            "is not known here; use PublicKey, PresharedKey, Endpoint, AllowedIPs or PersistentKeepalive in [Peer]",
        )),
    }
}

/// What a single line can't show.
fn finish(interface: InterfaceSection, sections: Vec<PeerSection>) -> Result<Config, Mistake> {
    let missing = |line, key: &str| Mistake {
        line,
        key: key.to_owned(),
        problem: "is missing".to_owned(),
    };
    let private_key = interface.private_key;
    let Secret(private_key) = private_key.ok_or_else(|| missing(0, "PrivateKey"))?;
    let mut peers: Vec<Peer> = Vec::new();
    for section in &sections {
        let line = section.line;
        let public_key = section
            .public_key
            .ok_or_else(|| missing(line, "PublicKey"))?;
        if peers.iter().any(|peer| peer.link.public_key == public_key) {
            return Err(Mistake {
                line,
                key: "PublicKey".to_owned(),
                problem: "is another peer's, too; join the two sections".to_owned(),
            });
        }
        let allowed: Vec<_> = section.allowed.iter().map(IpNet::trunc).collect();
        let others = peers.iter().flat_map(|peer| &peer.allowed);
        if let Some(taken) = others.into_iter().find(|network| allowed.contains(network)) {
            return Err(Mistake {
                line,
                key: "AllowedIPs".to_owned(),
                problem: format!("{taken} is behind another peer, too; it can be behind one only"),
            });
        }
        peers.push(Peer {
            link: FixedPeer {
                public_key,
                preshared_key: section.preshared_key.clone(),
                endpoint: section.endpoint,
                keepalive: section.keepalive.as_ref().and_then(|keepalive| keepalive.0),
            },
            allowed,
        });
    }
    for section in &sections {
        let ip = section.endpoint.map(|endpoint| endpoint.ip());
        let mut networks = peers.iter().flat_map(|peer| &peer.allowed);
        let covering = ip.and_then(|ip| networks.find(|network| network.contains(&ip)));
        if let Some(network) = covering {
            return Err(Mistake {
                line: section.endpoint_line,
                key: "Endpoint".to_owned(),
                problem: format!(
                    "lies in {network} of AllowedIPs, so that the tunnel would lead into itself; allow smaller networks"
                ),
            });
        }
    }

    Ok(Config {
        private_key,
        listen_port: interface.listen_port.unwrap_or(0),
        addresses: interface.addresses,
        mtu: interface.mtu,
        peers,
    })
}

/// A private key in its text form, which is that of a preshared one.
struct Secret(PrivateKey);

impl FromStr for Secret {
    type Err = connlib_wire::key::InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: PresharedKey = text.parse()?;

        Ok(Self(PrivateKey::new(*bytes.expose())))
    }
}

struct Keepalive(Option<Duration>);

impl FromStr for Keepalive {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(Self(None));
        }
        let seconds: u16 = text.parse()?;

        Ok(Self(Some(Duration::from_secs(seconds.into()))))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
