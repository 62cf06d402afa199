//! The forerunner's datagrams as they crossed a wire: each STUN message among them is understood, its integrity
//! verified with the keys of the recording, and its meaning written again to the same bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use connlib_wire::buffer::Pool;
use connlib_wire::channel;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Builder, Class, Key, Message, Method, is_stun_prefix};

/// Counts that the recordings' own README gives: verified integrities and fingerprints.
#[test]
fn every_recorded_stun_message_is_understood() {
    let recordings: [(&str, &[u8], &str, usize, usize); 4] = [
        (
            "sep2025-direct",
            include_bytes!("vectors/sep2025-direct.pcapng"),
            include_str!("vectors/sep2025-direct.keys.json"),
            130,
            110,
        ),
        (
            "sep2025-relay",
            include_bytes!("vectors/sep2025-relay.pcapng"),
            include_str!("vectors/sep2025-relay.keys.json"),
            147,
            127,
        ),
        (
            "aug2026-direct",
            include_bytes!("vectors/aug2026-direct.pcapng"),
            include_str!("vectors/aug2026-direct.keys.json"),
            132,
            112,
        ),
        (
            "aug2026-relay",
            include_bytes!("vectors/aug2026-relay.pcapng"),
            include_str!("vectors/aug2026-relay.keys.json"),
            123,
            103,
        ),
    ];

    for (name, capture, keys, integrities, fingerprints) in recordings {
        let keys = Keys::parse(keys);
        let mut verified = 0;
        let mut fingerprinted = 0;
        let mut requests = BTreeMap::new();

        for datagram in udp_payloads(capture) {
            let bytes = match channel::decode(datagram) {
                Some((_, payload)) if channel::is_channel_prefix(datagram) => payload,
                _ => datagram,
            };
            if !is_stun_prefix(bytes) {
                continue;
            }
            let Ok(message) = Message::parse(bytes) else {
                continue;
            };
            let id = message.transaction_id();
            if let Some(username) = message.username() {
                requests.insert(id, username.to_owned());
            }

            let key = requests
                .get(&id)
                .and_then(|username| keys.of(username, message.method()));
            if message.has_integrity() {
                let key = key
                    .as_ref()
                    .unwrap_or_else(|| panic!("{name}: no key for {message:?}"));
                assert!(message.verify(key), "{name}: {message:?}");
                verified += 1;
            }
            if let Some(matches) = message.fingerprint_matches() {
                assert!(matches, "{name}: {message:?}");
                fingerprinted += 1;
            }
            assert_eq!(
                rewritten(&message, key.as_deref()),
                bytes,
                "{name}: {message:?}"
            );
        }
        assert_eq!(
            (verified, fingerprinted),
            (integrities, fingerprints),
            "{name}"
        );
    }
}

fn rewritten(message: &Message<'_>, key: Option<&[u8]>) -> Vec<u8> {
    let pool = Pool::new(2_048, 1);
    let mut builder = Builder::new(
        pool.take(0),
        message.method(),
        message.class(),
        message.transaction_id(),
    );
    for attribute in message.attributes() {
        builder = builder.attribute(attribute.unwrap());
    }
    if message.has_integrity() {
        builder = builder.integrity(key.unwrap());
    }
    if message.fingerprint_matches().is_some() {
        builder = builder.fingerprint();
    }

    builder.finish().unwrap().to_vec()
}

struct Keys {
    turn: Vec<(String, Vec<u8>)>,
    ice: Vec<(String, Vec<u8>)>,
}

impl Keys {
    fn parse(text: &str) -> Self {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let turn = json["turn"].as_object().unwrap().values().map(|user| {
            let password = Secret::from(text(&user["password"]));
            let username = text(&user["username"]);
            let key = Key::long_term(&username, "firezone", &password);
            let hex: String = key
                .expose()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(hex, text(&user["key_md5_hex"]));
            (username, key.expose().to_vec())
        });
        let ice = json["ice"].as_array().unwrap().iter().flat_map(|pair| {
            ["client", "gateway"].map(|end| {
                let end = &pair[end];
                (text(&end["username"]), text(&end["password"]).into_bytes())
            })
        });

        Self {
            turn: turn.collect(),
            ice: ice.collect(),
        }
    }

    /// TURN names the user; ICE names both ends, and the first is the one whose password counts.
    fn of(&self, username: &str, method: Method) -> Option<Vec<u8>> {
        let (list, name) = if method == Method::Binding {
            (&self.ice, username.split(':').next()?)
        } else {
            (&self.turn, username)
        };

        list.iter()
            .find(|(user, _)| user == name)
            .map(|(_, key)| key.clone())
    }
}

/// The payload of each UDP datagram over IPv4 in a pcapng file of Ethernet frames.
fn udp_payloads(mut file: &[u8]) -> Vec<&[u8]> {
    let u32_at = |bytes: &[u8], at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    };
    let mut payloads = Vec::new();
    while file.len() >= 12 {
        let (kind, length) = (u32_at(file, 0), u32_at(file, 4));
        if kind == 6 {
            let captured = u32_at(file, 20);
            let frame = &file[28..28 + captured];
            let ip = &frame[14..];
            if frame[12..14] == [0x08, 0x00] && ip[9] == 17 {
                let udp = &ip[usize::from(ip[0] & 0xF) * 4..];
                let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
                payloads.extend(udp.get(8..length));
            }
        }
        file = &file[length..];
    }

    payloads
}

#[test]
fn captures_hold_what_they_promise() {
    let payloads = udp_payloads(include_bytes!("vectors/aug2026-relay.pcapng"));
    let is = |method, class| {
        payloads.iter().any(|bytes| {
            Message::parse(bytes).is_ok_and(|m| (m.method(), m.class()) == (method, class))
        })
    };

    assert!(is(Method::Allocate, Class::Error) && is(Method::Allocate, Class::Success));
    assert!(is(Method::ChannelBind, Class::Success) && is(Method::Refresh, Class::Success));
    assert!(
        payloads
            .iter()
            .any(|bytes| channel::is_channel_prefix(bytes))
    );
}
