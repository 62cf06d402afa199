//! What client and gateway decide, one message and one packet at a time; whole worlds are `connlib-sim`'s.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and has no one to reach"
)]

mod client;
mod gateway;
mod names;
mod names_regressions;
mod properties;
mod why;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_tunnel::Settings;
use connlib_wire::buffer::Pool;
use connlib_wire::ip;
use serde_json::value::RawValue;

pub const UNIX: Duration = Duration::from_secs(1_800_000_000);
pub const SETTINGS: Settings = Settings { unix: UNIX };
pub const LAN: &str = "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11";
pub const GATEWAY: &str = "66666666-7777-4888-9999-aaaaaaaaaaaa";
pub const CLIENT: &str = "11111111-2222-4333-8444-555555555555";
pub const RELAYS: &str = r#"[{"type":"turn","id":"6c86c6aa-c5fb-44bc-b5d9-939cb7d7d564","addr":"203.0.113.9:3478",
    "username":"2145916800:salt","password":"p","expires_at":2145916800}]"#;
pub const KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

#[expect(clippy::disallowed_methods, reason = "a start of virtual time")]
pub fn start() -> Instant {
    Instant::now()
}

pub fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

pub fn udp(source: &str, destination: &str) -> Vec<u8> {
    let end = |text: &str| -> SocketAddr {
        let ip: Result<IpAddr, _> = text.parse();
        ip.map_or_else(|_| text.parse().unwrap(), |ip| SocketAddr::new(ip, 4_000))
    };
    let packet = ip::udp(
        &Pool::new(2_048, 1),
        end(source),
        end(destination),
        b"payload",
    );

    packet.unwrap().bytes().to_vec()
}

/// The first segment of a connection.
pub fn segment(source: &str, destination: &str, port: u16) -> Vec<u8> {
    let [source, destination] = [source, destination].map(|ip| ip.parse::<Ipv4Addr>().unwrap());
    let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(4_000_u16.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);

    bytes
}
