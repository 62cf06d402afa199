//! Messages that are wrong in every single way: nothing panics, nothing changes for those without credentials, and no answer
//! to them multiplies what they sent.

use std::time::Duration;

use connlib_relay::{Config, Credentials, REALM, runs};
use connlib_wire::stun::{
    Attribute, Builder, Class, Family, HEADER_LEN, Message, Method, TransactionId,
};
use connlib_wire::train::Arrival;
use proptest::prelude::*;

use crate::support::{
    Ask, Rig, User, client, config, peer, peer_v6, rest_user, secs, standard, user,
};

/// What an answer may add to its request: SOFTWARE, ERROR-CODE, REALM, NONCE, PASSWORD-ALGORITHMS, integrity, FINGERPRINT.
const MOST_ADDED: usize = 176;

/// Attributes as they lie on the wire.
type Raw = Vec<(u16, Vec<u8>)>;

/// Who sends, and what that is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sender {
    Owner,
    Impostor,
    /// With an old nonce, one of somebody else, or none at all.
    Nonce(&'static str),
    Nobody,
}

const SENDERS: [Sender; 6] = [
    Sender::Owner,
    Sender::Impostor,
    Sender::Nonce("00000000-0000-0000-0000-000000000000"),
    Sender::Nonce("obMatJos2gAAA00000000-0000-0000-0000-000000000000"),
    Sender::Nonce(""),
    Sender::Nobody,
];

#[test]
fn every_message_with_every_attribute_spoilt() {
    for (config, owner) in schemes() {
        for ask in asks() {
            for (what, attributes) in spoilt(&raw(&ask)) {
                for sender in SENDERS {
                    let mut rig = prepared(config.clone(), &owner);
                    let class = if ask.method == Method::Send {
                        Class::Indication
                    } else {
                        Class::Request
                    };
                    let message = message(&mut rig, ask.method, class, &attributes, &owner, sender);
                    check(&mut rig, &message, sender, &what);
                }
            }
        }
    }
}

#[test]
fn every_message_with_its_credentials_spoilt() {
    for (config, owner) in schemes() {
        for ask in asks() {
            let mut rig = prepared(config.clone(), &owner);
            let nonce = rig.nonce(client(1));
            let mut attributes = raw(&ask);
            let plain = attributes.len();
            attributes.push((0x0006, owner.name.clone().into_bytes()));
            attributes.push((0x0014, REALM.as_bytes().to_vec()));
            attributes.push((0x0015, nonce.into_bytes()));
            attributes.push((0x8002, vec![0, 2, 0, 0, 0, 1, 0, 0]));
            attributes.push((0x001D, vec![0, 1, 0, 0]));
            for (what, spoilt) in spoilt(&attributes) {
                let untouched = spoilt.starts_with(&attributes[..plain + 3]);
                let mut rig = prepared(config.clone(), &owner);
                let nonce = rig.nonce(client(1));
                let mut builder = Builder::new(
                    rig.pool.take(0),
                    ask.method,
                    Class::Request,
                    TransactionId([9; 12]),
                );
                for (attribute, value) in &spoilt {
                    builder = builder.attribute(Attribute::Unknown(*attribute, value));
                }
                // Signed by somebody else: whatever is in it must not count.
                let bytes = builder.integrity(user("x").key.expose()).finish().unwrap();
                check(
                    &mut rig,
                    &bytes,
                    Sender::Impostor,
                    &format!("{what} {nonce} {untouched}"),
                );
            }
        }
    }
}

#[test]
fn lengths_that_lie() {
    for (config, owner) in schemes() {
        for ask in asks() {
            let mut rig = prepared(config.clone(), &owner);
            let good = message(
                &mut rig,
                ask.method,
                Class::Request,
                &raw(&ask),
                &owner,
                Sender::Owner,
            );
            // The length of the message, and the length of each attribute.
            let mut at = HEADER_LEN;
            let mut lengths = vec![2];
            while at + 4 <= good.len() {
                lengths.push(at + 2);
                let length = u16::from_be_bytes([good[at + 2], good[at + 3]]);
                at += 4 + usize::from(length).next_multiple_of(4);
            }
            for at in lengths {
                for length in [0_u16, 1, 3, 4, 5, 0x00FF, 0x7FFF, 0xFFFF] {
                    let mut bad = good.clone();
                    bad[at..at + 2].copy_from_slice(&length.to_be_bytes());
                    if bad != good {
                        let mut rig = prepared(config.clone(), &owner);
                        check(&mut rig, &bad, Sender::Impostor, "a length");
                    }
                }
            }
            for end in 0..good.len() {
                let mut rig = prepared(config.clone(), &owner);
                check(&mut rig, &good[..end], Sender::Impostor, "cut short");
            }
        }
    }
}

#[test]
fn a_channel_bound_twice_or_out_of_range_changes_nothing() {
    for (config, owner) in schemes() {
        let of_the_portal = matches!(config.credentials, Credentials::Stamped(_));
        let mut rig = prepared(config, &owner);
        assert_eq!(rig.bind(client(1), &owner, 0x4000, peer(1)), None);
        let before = state(&rig);
        for (number, to, code) in [
            (0x4000, peer(2), 400),
            (0x4001, peer(1), 400),
            (0x4002, "127.0.0.1:1".parse().unwrap(), 403),
        ] {
            assert_eq!(rig.bind(client(1), &owner, number, to), Some(code));
        }
        // Others than the portal's clients may have any number that a channel ever had.
        let beyond: &[u16] = if of_the_portal {
            &[0x5000, 0x7FFF]
        } else {
            &[]
        };
        for &number in [0, 0x3FFF, 0x8000, 0xFFFF].iter().chain(beyond) {
            let ask = Ask::channel_bind(number, peer(3));
            let request = rig.request(client(1), &owner, &ask);
            let _ = rig.send(client(1), &request);
            assert_eq!(rig.answer().unwrap().code(), Some(400), "{number:#x}");
        }
        assert_eq!(state(&rig), before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_and_none_count(
        kind in 0_usize..6,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..6),
        stride in prop_oneof![Just(0_usize), 1_usize..200],
        is_standard: bool,
    ) {
        let (config, owner) = if is_standard {
            (standard(), rest_user("a"))
        } else {
            (config(), user("a"))
        };
        let mut rig = prepared(config, &owner);
        let port = rig.allocate(client(3), &another(&owner));
        let ask = &asks()[kind];
        let class = if kind == 5 { Class::Indication } else { Class::Request };
        let mut bytes = message(&mut rig, ask.method, class, &raw(ask), &owner, Sender::Impostor);
        for (at, mask) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        let before = state(&rig);
        let arrival = Arrival { stride, ..rig.arrival(client(1), &bytes) };
        for run in runs(&arrival).chain([arrival]) {
            let _ = rig.server.handle_client(rig.now, rig.unix, &run);
            let _ = rig.server.handle_peer(rig.now, port, &run);
        }
        rig.answers();
        rig.relayed();
        prop_assert_eq!(state(&rig), before);
    }
}

/// Sends one message and checks what must hold of every one.
fn check(rig: &mut Rig, message: &[u8], sender: Sender, what: &str) {
    let before = state(rig);
    let _ = rig.send(client(1), message);
    let answers = rig.answers();
    rig.relayed();
    assert!(answers.len() <= 1, "{what}");
    for answer in &answers {
        assert_eq!(answer.to, client(1));
        assert!(Message::parse(&answer.bytes).is_ok());
    }
    if sender == Sender::Owner {
        return;
    }
    assert_eq!(state(rig), before, "{sender:?} {what}");
    for answer in &answers {
        let most = message.len() + MOST_ADDED;
        let is_binding = answer.message().method() == Method::Binding;
        assert!(
            answer.bytes.len() <= most,
            "{sender:?} {what}: {}",
            answer.bytes.len()
        );
        assert!(is_binding || !answer.is_success(), "{sender:?} {what}");
    }
}

/// All that a request could change.
fn state(rig: &Rig) -> (usize, usize, usize, usize, usize, Option<Duration>) {
    let stats = rig.server.stats();

    (
        stats.allocations,
        stats.channels,
        stats.permissions,
        stats.reservations,
        rig.commands.len(),
        rig.next_deadline(),
    )
}

/// With few ports: a server is made for each message.
fn schemes() -> [(Config, User); 2] {
    [(config(), user("a")), (standard(), rest_user("a"))].map(|(config, owner)| {
        let ports = 50_000..=50_009;
        (Config { ports, ..config }, owner)
    })
}

fn another(owner: &User) -> User {
    if owner.key.expose() == user("a").key.expose() {
        user("b")
    } else {
        rest_user("b")
    }
}

/// Client 1 holds an allocation that permits peer 9, and has its nonce.
fn prepared(config: Config, owner: &User) -> Rig {
    let mut rig = Rig::with(config);
    rig.allocate(client(1), owner);
    assert_eq!(rig.bind(client(1), owner, 0x4100, peer(9)), None);

    rig
}

/// One of each kind, with all that it may carry.
fn asks() -> [Ask<'static>; 6] {
    [
        Ask::new(Method::Binding).with(Attribute::Software("me")),
        Ask::allocate()
            .lifetime(secs(700))
            .with(Attribute::RequestedAddressFamily(Family::V4))
            .with(Attribute::AdditionalAddressFamily(Family::V6))
            .with(Attribute::EvenPort { reserve: true })
            .with(Attribute::ReservationToken([7; 8]))
            .with(Attribute::DontFragment),
        Ask::refresh(secs(0)).with(Attribute::RequestedAddressFamily(Family::V4)),
        Ask::create_permission(&[peer(1), peer_v6(1)]),
        Ask::channel_bind(0x4000, peer(1)),
        Ask::new(Method::Send)
            .with(Attribute::XorPeerAddress(peer(1)))
            .with(Attribute::Data(b"payload"))
            .with(Attribute::DontFragment),
    ]
}

fn raw(ask: &Ask<'_>) -> Raw {
    let pool = connlib_wire::buffer::Pool::new(2_048, 1);
    let id = TransactionId([9; 12]);
    let mut builder = Builder::new(pool.take(0), ask.method, Class::Request, id);
    for attribute in &ask.attributes {
        builder = builder.attribute(*attribute);
    }
    let bytes = builder.finish().unwrap();
    let mut rest = &bytes[HEADER_LEN..];
    let mut attributes = Raw::new();
    while let [t0, t1, l0, l1, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        attributes.push((u16::from_be_bytes([*t0, *t1]), after[..length].to_vec()));
        rest = &after[length.next_multiple_of(4)..];
    }

    attributes
}

/// What can be wrong with attributes, each in turn.
fn spoilt(good: &Raw) -> Vec<(String, Raw)> {
    let mut all = vec![("as it should be".to_owned(), good.clone())];
    let mut reversed = good.clone();
    reversed.reverse();
    all.push(("reversed".to_owned(), reversed));
    for (n, (attribute, value)) in good.iter().enumerate() {
        let mut with = |what: &str, change: &dyn Fn(&mut Raw)| {
            let mut bad = good.clone();
            change(&mut bad);
            all.push((format!("{what} {attribute:#06x}"), bad));
        };
        with("missing", &|bad| {
            bad.remove(n);
        });
        with("doubled", &|bad| bad.insert(n, (*attribute, value.clone())));
        with("doubled otherwise", &|bad| {
            let inverted = value.iter().map(|byte| !byte).collect();
            bad.insert(n, (*attribute, inverted));
        });
        with("first", &|bad| bad[..=n].rotate_right(1));
        with("last", &|bad| bad[n..].rotate_left(1));
        with("empty", &|bad| bad[n].1.clear());
        with("short", &|bad| {
            bad[n].1.pop();
        });
        with("long", &|bad| bad[n].1.push(0));
        with("very long", &|bad| bad[n].1.extend([0xFF; 600]));
        with("zeroed", &|bad| bad[n].1.fill(0));
        with("all ones", &|bad| bad[n].1.fill(0xFF));
    }

    all
}

fn message(
    rig: &mut Rig,
    method: Method,
    class: Class,
    attributes: &Raw,
    owner: &User,
    sender: Sender,
) -> Vec<u8> {
    let nonce = rig.nonce(client(1));
    let id = rig.transaction();
    let mut builder = Builder::new(rig.pool.take(0), method, class, id);
    for (attribute, value) in attributes {
        builder = builder.attribute(Attribute::Unknown(*attribute, value));
    }
    let (key, nonce) = match sender {
        Sender::Nobody => return builder.finish().unwrap().to_vec(),
        Sender::Owner => (owner.key, nonce.as_str()),
        Sender::Impostor => (user("x").key, nonce.as_str()),
        Sender::Nonce(forged) => (owner.key, forged),
    };

    builder
        .attribute(Attribute::Username(&owner.name))
        .attribute(Attribute::Realm(REALM))
        .attribute(Attribute::Nonce(nonce))
        .integrity(key.expose())
        .finish()
        .unwrap()
        .to_vec()
}
