//! Where the portal's clients and others get something else for the same request.

use connlib_relay::{DropReason, Verdict};
use connlib_wire::stun::{Attribute, Class, Method};

use crate::support::{Ask, Rig, User, addr, client, config, peer, rest_user, secs, standard, user};

/// What comes of a request that is signed and has its nonce.
#[derive(Debug, Eq, PartialEq)]
enum Outcome {
    Success,
    Signed(u16),
    Unsigned(u16),
    Dropped(DropReason),
}

use Outcome::{Dropped, Signed, Success, Unsigned};

#[test]
fn who_made_the_credentials_decides() {
    let tcp = Ask::new(Method::Allocate).with(Attribute::RequestedTransport(6));
    let nothing = Ask::new(Method::Allocate);
    let unknown = Ask::allocate().with(Attribute::Unknown(0x7FFF, b""));
    let broken_even = Ask::allocate().with(Attribute::Unknown(0x0018, b""));
    let broken_token = Ask::allocate().with(Attribute::Unknown(0x0022, b"1"));
    let broken_lifetime = Ask::allocate().with(Attribute::Unknown(0x000D, b"1"));
    let broken_software = Ask::allocate().with(Attribute::Unknown(0x8022, b"\xFF"));
    let broken_family = Ask::allocate().with(Attribute::Unknown(0x8000, b"\x09\0\0\0"));
    let broken_integrity = Ask::allocate().with(Attribute::Unknown(0x0008, b"1234"));
    let method = Ask::new(Method::Other(0x00C));
    let send = Ask::new(Method::Send);
    let permission = Ask::create_permission(&[peer(1)]);
    let table = [
        (tcp, Signed(400), Signed(442)),
        (nothing, Unsigned(400), Signed(400)),
        (unknown, Success, Signed(420)),
        (broken_even, Success, Signed(400)),
        (broken_token, Success, Signed(400)),
        (broken_lifetime, Unsigned(400), Signed(400)),
        (broken_software, Unsigned(400), Success),
        (broken_family, Unsigned(400), Signed(400)),
        (broken_integrity, Success, Signed(400)),
        (method, Unsigned(400), Dropped(DropReason::UnknownMethod)),
        (send, Unsigned(400), Dropped(DropReason::UnknownMethod)),
        (permission, Success, Signed(437)),
        (Ask::channel_bind(0x4FFF, peer(1)), Signed(437), Signed(437)),
        (
            Ask::channel_bind(0x5000, peer(1)),
            Unsigned(400),
            Signed(437),
        ),
        (
            Ask::channel_bind(0x7FFF, peer(1)),
            Unsigned(400),
            Signed(437),
        ),
        (
            Ask::channel_bind(0x3FFF, peer(1)),
            Unsigned(400),
            Signed(400),
        ),
        (Ask::refresh(secs(0)), Signed(437), Signed(437)),
    ];

    for (ask, portal, standard_outcome) in table {
        let mut rig = Rig::new();
        assert_eq!(
            outcome(&mut rig, &user("a"), &ask),
            portal,
            "{:?}",
            ask.attributes
        );
        let mut rig = Rig::with(standard());
        let got = outcome(&mut rig, &rest_user("a"), &ask);
        assert_eq!(got, standard_outcome, "{:?}", ask.attributes);
    }
}

#[test]
fn the_portals_clients_get_no_fingerprint_and_need_none_that_is_right() {
    let mut rig = Rig::new();
    let mut request = rig.bare(&Ask::new(Method::Binding));
    request.extend_from_slice(&[0x80, 0x28, 0, 4, 1, 2, 3, 4]);
    request[3] = 8;
    assert_eq!(rig.send(client(1), &request), Verdict::Handled);
    let answer = rig.answer().unwrap();
    assert!(answer.is_success() && !answer.message().has_fingerprint());
    assert!(!rig.bare(&Ask::new(Method::Binding)).is_empty());
}

#[test]
fn the_portals_clients_are_offered_no_passwords() {
    let mut rig = Rig::new();
    let request = rig.bare(&Ask::allocate());
    let _ = rig.send(client(1), &request);
    let answer = rig.answer().unwrap();
    let offers = |attribute| matches!(attribute, Ok(Attribute::PasswordAlgorithms(_)));
    assert!(!answer.message().attributes().any(offers));
    assert!(uuid::Uuid::try_parse(&answer.nonce()).is_ok());

    // Nor is one that they sign with: it isn't read.
    let (name, _) = (user("a").name, ());
    let nonce = rig.nonce(client(1));
    let id = rig.transaction();
    let request =
        connlib_wire::stun::Builder::new(rig.pool.take(0), Method::Allocate, Class::Request, id)
            .attribute(Attribute::RequestedTransport(17))
            .attribute(Attribute::Username(&name))
            .attribute(Attribute::Nonce(&nonce))
            .integrity_sha256(user("a").key.expose())
            .finish()
            .unwrap();
    let _ = rig.send(client(1), &request);
    assert_eq!(rig.answer().unwrap().code(), Some(401));
}

#[test]
fn nobody_gets_to_this_machine() {
    for (config, who) in [(config(), user("a")), (standard(), rest_user("a"))] {
        let mut rig = Rig::with(config);
        rig.allocate(client(1), &who);
        for text in [
            "127.0.0.1:80",
            "169.254.169.254:80",
            "[::1]:80",
            "[fe80::1]:80",
            "203.0.113.9:3478",
            "0.0.0.0:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[ff02::1]:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
        ] {
            let code = rig.bind(client(1), &who, 0x4000, addr(text));
            assert_eq!(code, Some(403), "{text}");
        }
        assert_eq!(rig.server.stats().permissions, 0);
    }
}

fn outcome(rig: &mut Rig, who: &User, ask: &Ask<'_>) -> Outcome {
    let request = rig.request(client(1), who, ask);
    match rig.send(client(1), &request) {
        Verdict::Drop(reason) => return Dropped(reason),
        verdict @ (Verdict::Handled | Verdict::Forward(_) | Verdict::Mixed) => {
            assert_eq!(verdict, Verdict::Handled);
        }
    }
    let answer = rig.answer().unwrap();
    match answer.code() {
        None => Success,
        Some(code) if answer.is_signed_for(who) => Signed(code),
        Some(code) => Unsigned(code),
    }
}
