//! What a WireGuard program is told, in the two languages that there are for it.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ipnet::Ipv4Net;
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

/// One end of a tunnel.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) key: Key,
    pub(super) listen_port: u16,
    pub(super) addresses: Vec<Ipv4Net>,
    pub(super) peers: Vec<Peer>,
}

/// Whom it talks to.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) public_key: [u8; 32],
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) allowed_ips: Vec<Ipv4Net>,
}

/// A private key that is good for one run.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key that belongs to it (RFC 7748).
    pub(super) fn public(&self) -> [u8; 32] {
        x25519(self.0, X25519_BASEPOINT_BYTES)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Device {
    /// The orders of the cross-platform interface (wireguard.com/xplatform).
    pub(super) fn to_uapi(&self, keepalive: u16) -> String {
        let mut text = format!(
            "set=1\nprivate_key={}\nlisten_port={}\nreplace_peers=true\n",
            hex(&self.key.0),
            self.listen_port
        );
        for peer in &self.peers {
            text.push_str(&format!("public_key={}\n", hex(&peer.public_key)));
            if let Some(endpoint) = peer.endpoint {
                text.push_str(&format!(
                    "endpoint={endpoint}\npersistent_keepalive_interval={keepalive}\n"
                ));
            }
            text.push_str("replace_allowed_ips=true\n");
            for net in &peer.allowed_ips {
                text.push_str(&format!("allowed_ip={net}\n"));
            }
        }
        text.push('\n');

        text
    }

    /// The file that `wg-quick` reads.
    pub(super) fn to_file(&self, mtu: u32, keepalive: u16) -> String {
        let mut text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {}\nAddress = {}\nMTU = {mtu}\n",
            BASE64_STANDARD.encode(self.key.0),
            self.listen_port,
            listed(&self.addresses)
        );
        for peer in &self.peers {
            text.push_str(&format!(
                "\n[Peer]\nPublicKey = {}\nAllowedIPs = {}\n",
                BASE64_STANDARD.encode(peer.public_key),
                listed(&peer.allowed_ips)
            ));
            if let Some(endpoint) = peer.endpoint {
                text.push_str(&format!(
                    "Endpoint = {endpoint}\nPersistentKeepalive = {keepalive}\n"
                ));
            }
        }

        text
    }

    /// Whether packets for `net` go into the tunnel without a route of their own.
    pub(super) fn covers(&self, net: Ipv4Net) -> bool {
        self.addresses
            .iter()
            .any(|address| address.trunc().contains(&net))
    }
}

fn listed(nets: &[Ipv4Net]) -> String {
    let nets: Vec<_> = nets.iter().map(Ipv4Net::to_string).collect();

    nets.join(", ")
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
    }

    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alice's private key of RFC 7748, section 6.1.
    const ALICE: [u8; 32] = [
        0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66,
        0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9,
        0x2c, 0x2a,
    ];

    fn device() -> Device {
        Device {
            key: Key::new(ALICE),
            listen_port: 51_820,
            addresses: vec!["100.99.0.2/32".parse().unwrap()],
            peers: vec![Peer {
                public_key: [0xab; 32],
                endpoint: Some("192.0.2.1:51820".parse().unwrap()),
                allowed_ips: vec![
                    "100.99.0.0/24".parse().unwrap(),
                    "10.20.0.0/16".parse().unwrap(),
                ],
            }],
        }
    }

    #[test]
    fn the_public_key_is_that_of_the_rfc() {
        let public = hex(&Key::new(ALICE).public());

        assert_eq!(
            public,
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
        );
    }

    #[test]
    fn orders_end_with_an_empty_line() {
        let text = device().to_uapi(25);

        assert!(text.starts_with("set=1\nprivate_key=77076d0a"), "{text}");
        assert!(text.contains("\nendpoint=192.0.2.1:51820\n"), "{text}");
        assert!(text.contains("\nallowed_ip=10.20.0.0/16\n"), "{text}");
        assert!(text.ends_with("\n\n"), "{text}");
    }

    #[test]
    fn the_file_has_two_sections() {
        let text = device().to_file(1280, 25);

        assert!(
            text.contains("Address = 100.99.0.2/32\nMTU = 1280\n"),
            "{text}"
        );
        assert!(text.contains("\n[Peer]\nPublicKey = q6urq6ur"), "{text}");
        assert!(
            text.contains("AllowedIPs = 100.99.0.0/24, 10.20.0.0/16\n"),
            "{text}"
        );
    }

    #[test]
    fn keys_are_not_shown() {
        assert!(!format!("{:?}", device()).contains("119"));
    }
}
