//! The first inputs of the corpora, made of recordings and of what we write ourselves.
//!
//! `cargo test -p connlib-fuzz-entries --test seeds -- --ignored` writes them; what fuzzing found lies beside them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use connlib_wire::buffer::Pool;
use connlib_wire::channel;
use connlib_wire::control::{AssignedIps, Control, DomainStatus, NatStatus};
use connlib_wire::dns::{Data, ExtendedError, Name, Query, Rcode, RecordType, respond};
use connlib_wire::ip::{Echo, echo, udp};
use connlib_wire::stun::Message;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How many recorded inputs of one kind are kept.
const OF_ONE_KIND: usize = 2;

const TOPOLOGIES: [&str; 3] = [
    "[[site]]\nname = \"hq\"\n",
    "[network]\nupstream_dns = [\"9.9.9.9\", \"https://dns.example/dns-query\"]\nsearch_domain = \"corp.test\"\n\
     [[site]]\nname = \"hq\"\n[[actor]]\nname = \"alice\"\ngroups = [\"staff\"]\n[[resource]]\nname = \"lan\"\n\
     address = \"10.20.0.0/16\"\nsites = [\"hq\"]\nfilters = [\"tcp/80-443\", \"udp/53\", \"icmp\"]\n[[policy]]\n\
     group = \"staff\"\nresource = \"lan\"\n",
    "[[site]]\nname = \"branch\"\n[[site]]\nname = \"hq\"\n[[actor]]\nname = \"bob\"\ngroups = [\"staff\", \"ops\"]\n\
     [[resource]]\nname = \"wiki\"\naddress = \"*.corp.test\"\nsites = [\"hq\", \"branch\"]\nip_stack = \"ipv4_only\"\n\
     [[resource]]\nname = \"all\"\naddress = \"internet\"\nsites = [\"branch\"]\n[[policy]]\ngroup = \"ops\"\n\
     resource = \"all\"\n",
];

#[test]
#[ignore = "writes into the corpora"]
fn seeds_are_written() {
    stun();
    packets();
    control();
    dns();
    portal_messages();
    texts();
    steps();
}

fn stun() {
    let mut seen = Vec::new();
    for payload in udp_payloads() {
        let inner = channel::decode(&payload).map_or(&*payload, |(_, inner)| inner);
        let kind = match Message::parse(inner) {
            Ok(message) => format!("{message:?}")
                .rsplit_once(' ')
                .map(|(kind, _)| kind.to_owned())
                .unwrap(),
            Err(_) => format!("{:?}", payload.first()),
        };
        let is_in_channel = inner.len() < payload.len();
        if is_one_more(&mut seen, (kind, is_in_channel)) {
            let input = [&[0, 0], &*payload].concat();
            seed("stun", &input);
        }
    }
}

fn packets() {
    let pool = Pool::new(2_048, 1);
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for (a, b) in [
        ("100.64.0.1:1000", "10.20.0.10:53"),
        ("[fd00::1]:1000", "[fd00::2]:53"),
    ] {
        let (a, b): (std::net::SocketAddr, std::net::SocketAddr) =
            (a.parse().unwrap(), b.parse().unwrap());
        let packet = udp(&pool, a, b, b"sixteen bytes ..").unwrap();
        packets.push(packet.bytes().to_vec());
        let packet = echo(&pool, (a.ip(), b.ip()), Echo::Request, (1, 2), b"ping").unwrap();
        packets.push(packet.bytes().to_vec());
    }
    packets.push(hex(
        "4500002c000140004006000064400001 0a14000a 03e80050000000010000000050100400000000000102 0304",
    ));
    packets.push(hex("6000000000180640fd000000000000000000000000000001 fd000000000000000000000000000002 03e80050000000010000000050100400000000000102 0304"));
    // Hop-by-hop options, then UDP; and an atomic fragment.
    packets.push(hex("6000000000100040fd000000000000000000000000000001 fd000000000000000000000000000002 1100010400000000 03e8003500080000"));
    packets.push(hex("6000000000102c40fd000000000000000000000000000001 fd000000000000000000000000000002 1100000000000001 03e8003500080000"));

    for packet in &packets {
        for mode in [0, 1] {
            let change = [&[mode][..], &[10, 1, 2, 3], &[0xFD; 16], &[1, 2, 3]].concat();
            seed("ip_packets", &[&change, packet.as_slice()].concat());
        }
        let header = [0; 10];
        seed("super_packets", &[&[2][..], &header, packet].concat());
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        let twice = [&length[..], packet, &length, packet].concat();
        seed("super_packets", &[&[3][..], &twice].concat());
    }
}

fn control() {
    let resource = "8f3b2c1a-0d4e-4f5a-9b6c-7d8e9fa0b1c2".parse().unwrap();
    let messages = [
        Control::Goodbye,
        Control::DomainStatus(DomainStatus {
            resource,
            domain: "db.corp.example".into(),
            status: NatStatus::Active,
        }),
        Control::AssignedIps(AssignedIps {
            resource,
            domain: "db.corp.example".into(),
            proxy_ips: ["100.96.0.1", "100.96.0.2", "100.96.0.3", "100.96.0.4"]
                .map(|ip| ip.parse().unwrap())
                .to_vec(),
        }),
    ];
    for message in messages {
        let packet = message.to_packet(&Pool::new(2_048, 1)).unwrap();
        seed("control", &[&[0], packet.bytes()].concat());
        let (kind, payload) = (packet.bytes()[40], &packet.bytes()[48..]);
        seed("control", &[&[1, kind], payload].concat());
    }
}

fn dns() {
    let name = Name::parse("wiki.corp.test").unwrap();
    let asked = Query::new(&name, RecordType::A);
    seed("dns", &asked.to_upstream(7, false));
    seed("dns", &asked.to_upstream(7, true));
    let records = [
        Data::A([100, 96, 0, 1].into()),
        Data::Aaaa("fd00:2021:1111:8000::".parse().unwrap()),
        Data::Ptr(name),
    ];
    let error = ExtendedError::new(ExtendedError::PROHIBITED, "no");
    seed("dns", &respond(&asked, Rcode::NOERROR, 300, &records, None));
    seed(
        "dns",
        &respond(&asked, Rcode::BADVERS, 0, &[], Some(&error)),
    );

    let question = "04 77696b69 04 636f7270 04 74657374 00";
    // A chain of two names, with the address in front of the second one.
    seed(
        "dns",
        &hex(&format!(
            "0007 8180 0001 0003 0000 0000 {question} 0001 0001 c00c 0005 0001 0000003c 0004 0161c011 \
         c03a 0001 0001 0000003c 0004 0a000001 c02c 0005 0001 0000003c 0002 c011"
        )),
    );
    // No such name, and for how long.
    seed(
        "dns",
        &hex(&format!(
            "0007 8183 0001 0000 0001 0000 {question} 0001 0001 \
         c011 0006 0001 00000e10 0018 c011 c00c 00000001 00000002 00000003 00000004 0000012c"
        )),
    );
    // Mail, a service and a server; EDNS in front of a signature.
    seed(
        "dns",
        &hex(&format!(
            "0007 8180 0001 0002 0001 0002 {question} 000f 0001 c00c 000f 0001 0000003c 0004 000ac00c \
         c00c 0021 0001 0000003c 0008 000100020035c00c c011 0002 0001 0000003c 0002 c00c \
         00 0029 04d0 00008000 0008 000a0004 01020304 016b00 00fa 00ff 00000000 0004 01020304"
        )),
    );
    for text in [
        "wiki.corp.test\nWiki.Corp.Test.",
        "*.corp.test\ncorp.test",
        "app.**.web.**.corp.test\napp.web.x.corp.test",
        "**.*?*.f??-*b\na.b.foo-aab",
        "caf\\195\\169.*\ncaf\\195\\169.x\\.y",
        "**x\n1.0.96.100.in-addr.arpa",
        "[a]\nb.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
    ] {
        seed("dns", text.as_bytes());
    }
}

fn portal_messages() {
    let mut seen = Vec::new();
    for name in [
        "aug2026-client",
        "aug2026-gateway",
        "aug2026-relay",
        "sep2025-client",
        "sep2025-gateway",
        "sep2025-relay",
    ] {
        let lines = fs::read_to_string(vectors().join(format!("{name}.jsonl"))).unwrap();
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(message) = line.get("msg") else {
                continue;
            };
            let event = message["event"].as_str().unwrap().to_owned();
            if is_one_more(&mut seen, (name, event)) {
                seed("portal_messages", message.to_string().as_bytes());
            }
        }
    }
    for status in ["ok", "error"] {
        let reply = format!(
            r#"{{"topic":"client","event":"phx_reply","ref":"7","payload":{{"status":"{status}","response":{{"reason":"unmatched topic"}}}}}}"#
        );
        seed("portal_messages", reply.as_bytes());
    }
    seed("portal_messages", br#"{"topic":"phoenix","event":"disconnect","payload":{"reason":"token_expired"},"ref":null}"#);
}

fn texts() {
    for topology in TOPOLOGIES {
        seed("topology", topology.as_bytes());
    }
    seed("topology", TOPOLOGIES.join("\0").as_bytes());

    seed("tokens", &[0]);
    seed("tokens", &[0, 3, b'a', 60, b'A']);
    let token = format!(".a0a0a0a0-0000-4000-8000-000000000001.{}", "A".repeat(43));
    seed("tokens", token.as_bytes());
    seed("tokens", b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
}

/// Targets whose bytes are decisions begin with any.
fn steps() {
    let mut random = StdRng::seed_from_u64(4);
    for target in ["links", "portal", "relay"] {
        for len in [16, 32, 64, 96, 128, 160, 192, 256] {
            let input: Vec<u8> = (0..len).map(|_| random.random()).collect();
            seed(target, &input);
        }
    }
    // Their packets take more of them.
    for len in (100..2_000).step_by(100) {
        let input: Vec<u8> = (0..len).map(|_| random.random()).collect();
        seed("roles", &input);
    }
    for len in (32..1_056).step_by(64) {
        let input: Vec<u8> = (0..len).map(|_| random.random()).collect();
        seed("turn", &input);
    }
}

/// Whether fewer than [`OF_ONE_KIND`] like it were seen before.
fn is_one_more<T: PartialEq>(seen: &mut Vec<T>, kind: T) -> bool {
    let count = seen.iter().filter(|other| **other == kind).count();
    seen.push(kind);

    count < OF_ONE_KIND
}

fn seed(target: &str, input: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(target);
    fs::create_dir_all(&folder).unwrap();
    let name = input.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    fs::write(folder.join(format!("seed-{name:016x}")), input).unwrap();
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/wire/tests/vectors")
}

/// The payload of each recorded UDP datagram, each once.
fn udp_payloads() -> Vec<Vec<u8>> {
    let mut payloads = BTreeSet::new();
    for name in [
        "sep2025-direct",
        "sep2025-relay",
        "aug2026-direct",
        "aug2026-relay",
    ] {
        let file = fs::read(vectors().join(format!("{name}.pcapng"))).unwrap();
        let mut rest = &*file;
        let u32_at = |bytes: &[u8], at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
        };
        while rest.len() >= 12 {
            let (kind, length) = (u32_at(rest, 0), u32_at(rest, 4));
            if kind == 6 {
                let frame = &rest[28..28 + u32_at(rest, 20)];
                let ip = &frame[14..];
                if frame[12..14] == [8, 0] && ip[9] == 17 {
                    let udp = &ip[usize::from(ip[0] & 0xF) * 4..];
                    let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
                    payloads.extend(udp.get(8..length).map(<[u8]>::to_vec));
                }
            }
            rest = &rest[length..];
        }
    }

    payloads.into_iter().collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();

    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
