//! Names of resources are nobody's business outside.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use connlib_os::clock::Clock;
use connlib_os::namespace::run_in;

use crate::tools::PATIENCE;
use crate::world::{Plan, World};

/// Names of resources in every way that a pattern has, and in letters of any case.
const SECRET: [&str; 7] = [
    "wiki.corp.test",
    "corp.test",
    "missing.corp.test",
    "WIKI.cOrP.tEsT",
    "x.y.z.deep.test",
    "only.exact.test",
    "v6.fam.test",
];

/// What each of them has on the wire.
const LABELS: [&[u8]; 4] = [
    b"\x04corp\x04test",
    b"\x04deep\x04test",
    b"\x04only\x05exact\x04test",
    b"\x03fam\x04test",
];

/// A name that anybody may know.
const PUBLIC: &str = "Somebody.Else.test";
const PUBLIC_LABELS: &[u8] = b"\x08somebody\x04else\x04test";

/// So many questions wait at a time.
const AT_ONCE: usize = 100;

#[test]
#[ignore = "needs root, /dev/net/tun, dig, tcpdump, knotd, unbound, dnsmasq; .ci/run runs it"]
fn no_question_of_any_type_about_a_resource_leaves_towards_an_upstream() {
    let Some(mut world) = World::new(&["tcpdump"], Plan::default()) else {
        return;
    };
    let capture = world.capture_uplink();
    // Before there is a connection, while it is made, and when it is there.
    ask_all_by_udp(&world, &SECRET);
    for name in SECRET {
        ask_all_by_tcp(&world, name);
    }
    for name in ["wiki.corp.test.", "x.y.z.deep.test."] {
        world.dig(&[name, "MX", "+search"]).assert_answered();
    }
    world.dig(&[PUBLIC, "A"]).assert_status("NXDOMAIN");
    let capture = capture.stop().to_ascii_lowercase();
    assert!(
        contains(&capture, PUBLIC_LABELS),
        "the search finds what is there"
    );
    for labels in LABELS {
        assert!(!contains(&capture, labels), "{}", labels.escape_ascii());
    }

    // The only gateway is gone: nobody else is asked in its place.
    world.stop("client");
    world.kill("gateway");
    let capture = world.capture_uplink();
    world.start("client");
    ask_all_by_udp(&world, &SECRET);
    world.dig(&[PUBLIC, "A"]).assert_status("NXDOMAIN");
    let capture = capture.stop().to_ascii_lowercase();
    assert!(contains(&capture, PUBLIC_LABELS));
    for labels in LABELS {
        assert!(!contains(&capture, labels), "{}", labels.escape_ascii());
    }
}

/// Every type that has a meaning, and some that have none.
fn kinds() -> impl Iterator<Item = u16> {
    (1..=260).chain([32_768, 32_769, 65_280, 65_281, 65_399, 65_534])
}

/// Asks about everything; each question gets its answer.
fn ask_all_by_udp(world: &World, names: &[&str]) {
    let at = SocketAddr::new(world.sentinels()[0], 53);
    let socket = run_in(world.network.namespace("client"), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(at)?;
        Ok::<_, std::io::Error>(socket)
    });
    let socket = socket.unwrap().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let questions = names
        .iter()
        .flat_map(|name| kinds().map(move |kind| (*name, kind)));
    let all: Vec<_> = questions.collect();
    let mut next = 0;
    let mut waiting = BTreeSet::new();
    let clock = Clock::new();
    let mut give_up_at = clock.now() + PATIENCE;
    let mut answer = [0; 4_096];
    while next < all.len() || !waiting.is_empty() {
        while next < all.len() && waiting.len() < AT_ONCE {
            let (name, kind) = all[next];
            let id = u16::try_from(next).unwrap();
            socket.send(&question(id, name, kind)).unwrap();
            waiting.insert(next);
            next += 1;
        }
        if let Ok(len) = socket.recv(&mut answer) {
            assert!(len >= 12 && answer[2] & 0x80 != 0);
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            assert!(
                waiting.remove(&id.into()),
                "answered twice: {:?}",
                all[usize::from(id)]
            );
            give_up_at = clock.now() + PATIENCE;
        }
        let mute: Vec<_> = waiting.iter().map(|at| all[*at]).collect();
        assert!(clock.now() < give_up_at, "no answer about {mute:?}");
    }
}

/// The same about one name by one connection.
fn ask_all_by_tcp(world: &World, name: &str) {
    let at = SocketAddr::new(world.sentinels()[0], 53);
    let connect = || TcpStream::connect_timeout(&at, PATIENCE);
    let mut stream = run_in(world.network.namespace("client"), connect)
        .unwrap()
        .unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let kinds: Vec<_> = kinds().collect();
    for kinds in kinds.chunks(30) {
        let mut framed = Vec::new();
        for kind in kinds {
            let question = question(*kind, name, *kind);
            framed.extend(u16::try_from(question.len()).unwrap().to_be_bytes());
            framed.extend(question);
        }
        stream.write_all(&framed).unwrap();
        let mut answered = BTreeSet::new();
        for _ in kinds {
            let mut len = [0; 2];
            let read = stream.read_exact(&mut len);
            read.unwrap_or_else(|error| panic!("{error}: only {answered:?} of {kinds:?}"));
            let mut answer = vec![0; u16::from_be_bytes(len).into()];
            stream.read_exact(&mut answer).unwrap();
            answered.insert(u16::from_be_bytes([answer[0], answer[1]]));
        }
        assert_eq!(answered, kinds.iter().copied().collect());
    }
}

/// A question as a stub resolver sends it (RFC 1035 §4).
fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = [
        &id.to_be_bytes()[..],
        // Recursion is desired; one question.
        &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);

    message
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|bytes| bytes == needle)
}
