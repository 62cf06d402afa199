//! Authentication by the standard: RFC 8489 §9.2, §14.5–§14.7; RFC 8656 §5.

use connlib_relay::{DropReason, REALM, Verdict};
use connlib_wire::stun::{
    ALGORITHM_MD5, ALGORITHM_SHA256, Attribute, Builder, Class, Key, Method, NONCE_COOKIE,
    TRANSPORT_UDP,
};

use crate::support::{
    Answer, Ask, Rig, UNIX, User, VerdictExt as _, addr, client, rest_credentials, rest_user,
    rest_user_until, secs, standard, user,
};

const OFFER: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];

#[test]
fn first_contact_gets_a_nonce_and_an_offer_unsigned() {
    let mut rig = Rig::with(standard());
    let request = rig.bare(&Ask::allocate());
    let _ = rig.send(client(1), &request);
    let answer = rig.answer().unwrap();

    assert_eq!(answer.code(), Some(401));
    assert_eq!(answer.message().realm(), Some(REALM));
    let nonce = answer.nonce();
    assert!(nonce.starts_with(&format!("{NONCE_COOKIE}gAAA")), "{nonce}");
    assert!(nonce.len() < 128, "RFC 8489 §14.10");
    assert!(attributes(&answer).contains(&"PasswordAlgorithms([0, 2, 0, 0, 0, 1, 0, 0])".into()));
    assert!(!answer.message().has_integrity() && !answer.message().has_integrity_sha256());
}

#[test]
fn the_answer_is_signed_like_the_request_with_any_password() {
    for algorithm in [None, Some(ALGORITHM_MD5), Some(ALGORITHM_SHA256)] {
        for is_sha256 in [false, true] {
            let mut rig = Rig::with(standard());
            let key = key(algorithm);
            let request = signed(&mut rig, algorithm, &key, is_sha256, OFFER);
            let _ = rig.send(client(1), &request);
            let answer = rig.answer().unwrap();
            assert!(
                answer.is_success(),
                "{algorithm:?} {is_sha256} {:?}",
                answer.code()
            );
            let message = answer.message();
            assert_eq!(message.verify(key.expose()), !is_sha256);
            assert_eq!(message.verify_sha256(key.expose()), is_sha256);
            assert_eq!((message.nonce(), message.realm()), (None, None));
        }
    }
}

#[test]
fn of_two_integrities_the_stronger_counts() {
    let mut rig = Rig::with(standard());
    let key = key(None);
    for (sha1, sha256, code) in [
        (key, key, None),
        (user("x").key, key, None),
        (key, user("x").key, Some(401)),
    ] {
        let nonce = rig.nonce(client(1));
        let request = credentials(&mut rig, Ask::allocate(), &nonce)
            .integrity(sha1.expose())
            .integrity_sha256(sha256.expose())
            .finish()
            .unwrap();
        let _ = rig.send(client(1), &request);
        assert_eq!(rig.answer().unwrap().code(), code);
        rig.ask(client(1), &rest_user("a"), &Ask::refresh(secs(0)));
    }
}

#[test]
fn the_offer_has_to_come_back_whole() {
    let only = |algorithm: u16| Attribute::PasswordAlgorithm(algorithm);
    let list = Attribute::PasswordAlgorithms;
    for (attributes, code) in [
        (&[list(OFFER), only(2)][..], None),
        (&[list(OFFER)], Some(400)),
        (&[only(1)], Some(400)),
        (&[list(&[0, 1, 0, 0]), only(1)], Some(400)),
        (&[list(&[0, 1, 0, 0, 0, 2, 0, 0]), only(2)], Some(400)),
        (&[list(OFFER), only(3)], Some(400)),
    ] {
        let mut rig = Rig::with(standard());
        let mut ask = Ask::allocate();
        ask.attributes.extend_from_slice(attributes);
        let nonce = rig.nonce(client(1));
        let request = credentials(&mut rig, ask, &nonce)
            .integrity_sha256(key(Some(ALGORITHM_SHA256)).expose())
            .finish()
            .unwrap();
        let _ = rig.send(client(1), &request);
        let answer = rig.answer().unwrap();
        assert_eq!(answer.code(), code, "{attributes:?}");
        if code.is_some() {
            assert!(!answer.message().has_integrity_sha256());
            assert_eq!(answer.message().nonce(), None);
        }
    }
}

#[test]
fn a_nonce_without_its_cookie_is_none_of_ours() {
    let mut rig = Rig::with(standard());
    let nonce = rig.nonce(client(1));
    let stripped = &nonce[NONCE_COOKIE.len() + 4..];
    let weakened = nonce.replace("gAAA", "AAAA");
    for forged in [stripped, &weakened, "", "nonce"] {
        let request = rig.request_with(&rest_user("a"), Some(forged), &Ask::allocate());
        let _ = rig.send(client(1), &request);
        let answer = rig.answer().unwrap();
        assert_eq!(answer.code(), Some(438), "{forged}");
        assert!(answer.nonce().starts_with(NONCE_COOKIE));
        assert!(answer.is_signed_for(&rest_user("a")));
    }
}

#[test]
fn nonces_are_bound_to_their_socket_and_age() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let foreign = rig.nonce(client(2));
    for from in [client(1), addr("198.51.100.2:50001")] {
        let request = rig.request_with(&alice, Some(&foreign), &Ask::allocate());
        let _ = rig.send(from, &request);
        assert_eq!(rig.answer().unwrap().code(), Some(438));
    }
    rig.nonce(client(1));
    rig.pass(secs(3_600));
    assert!(
        rig.ask(client(1), &alice, &Ask::allocate())
            .unwrap()
            .is_success()
    );
    rig.pass(secs(600));
    let stale = rig.ask(client(1), &alice, &Ask::refresh(secs(0))).unwrap();
    assert_eq!(stale.code(), Some(438));
    assert!(
        attributes(&stale)
            .iter()
            .any(|it| it.starts_with("PasswordAlgorithms"))
    );
}

#[test]
fn what_is_missing_beside_integrity_is_a_bad_request() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let nonce = rig.nonce(client(1));
    let all = [
        Attribute::Username(&alice.name),
        Attribute::Realm(REALM),
        Attribute::Nonce(&nonce),
    ];
    for left_out in 0..3 {
        let id = rig.transaction();
        let mut builder = Builder::new(rig.pool.take(0), Method::Allocate, Class::Request, id)
            .attribute(Attribute::RequestedTransport(TRANSPORT_UDP));
        for (n, attribute) in all.iter().enumerate() {
            builder = builder.maybe((n != left_out).then_some(*attribute));
        }
        let request = builder.integrity(alice.key.expose()).finish().unwrap();
        let _ = rig.send(client(1), &request);
        let answer = rig.answer().unwrap();
        assert_eq!(answer.code(), Some(400), "{left_out}");
        assert_eq!(answer.message().nonce(), None);
        assert!(!answer.message().has_integrity());
    }
}

#[test]
fn wrong_passwords_unknown_users_and_late_ones_are_challenged_unsigned() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let guessed = User {
        name: alice.name.clone(),
        key: user("x").key,
    };
    let nobody = User {
        name: "nobody".to_owned(),
        key: alice.key,
    };
    let late = rest_user_until(UNIX.as_secs() - 1, "a");
    for who in [&guessed, &nobody, &late] {
        let request = rig.request(client(1), who, &Ask::allocate());
        let _ = rig.send(client(1), &request);
        let answer = rig.answer().unwrap();
        assert_eq!(answer.code(), Some(401), "{}", who.name);
        assert!(!answer.message().has_integrity());
        assert!(!answer.nonce().is_empty());
    }
    let just = rest_user_until(UNIX.as_secs(), "a");
    assert!(
        rig.ask(client(1), &just, &Ask::allocate())
            .unwrap()
            .is_success()
    );
}

#[test]
fn unknown_required_attributes_are_named() {
    let mut rig = Rig::with(standard());
    let alice = rest_user("a");
    let ask = Ask::allocate()
        .with(Attribute::Unknown(0x7FFF, b"x"))
        .with(Attribute::Unknown(0x0003, b""))
        .with(Attribute::Unknown(0x7FFF, b"again"))
        .with(Attribute::Unknown(0xFFFF, b"optional"));
    let answer = rig.ask(client(1), &alice, &ask).unwrap();
    assert_eq!(answer.code(), Some(420));
    let named = "UnknownAttributes([127, 255, 0, 3])".to_owned();
    assert!(
        attributes(&answer).contains(&named),
        "{:?}",
        attributes(&answer)
    );
    assert!(rig.server.is_empty());

    // Not before the sender is known.
    let request = rig.bare(&ask);
    let _ = rig.send(client(1), &request);
    assert_eq!(rig.answer().unwrap().code(), Some(401));

    let binding = Ask::new(Method::Binding).with(Attribute::Unknown(0x0003, b"1234"));
    let request = rig.bare(&binding);
    let _ = rig.send(client(1), &request);
    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(420));
    assert!(attributes(&answer).contains(&"UnknownAttributes([0, 3])".into()));

    // Known ones, though nobody has a use for them here.
    let odd = Ask::allocate()
        .with(Attribute::Priority(1))
        .with(Attribute::DontFragment)
        .with(Attribute::Unknown(0x0001, b"mapped"));
    assert!(rig.ask(client(1), &alice, &odd).unwrap().is_success());
}

#[test]
fn very_many_unknown_attributes_are_named_in_part() {
    let mut rig = Rig::with(standard());
    let mut ask = Ask::new(Method::Binding);
    for n in 0..200 {
        ask.attributes.push(Attribute::Unknown(0x7000 + n, b""));
    }
    let request = rig.bare(&ask);
    let _ = rig.send(client(1), &request);
    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(420));
    assert!(answer.bytes.len() < request.len());
}

#[test]
fn what_follows_integrity_is_ignored() {
    let mut rig = Rig::with(standard());
    let nonce = rig.nonce(client(1));
    let request = credentials(&mut rig, Ask::allocate(), &nonce)
        .integrity(key(None).expose())
        .attribute(Attribute::Unknown(0x7FFF, b"required"))
        .attribute(Attribute::Lifetime(secs(3_600)))
        .fingerprint()
        .finish()
        .unwrap();
    let _ = rig.send(client(1), &request);
    let answer = rig.answer().unwrap();
    assert!(answer.is_success(), "{:?}", answer.code());
    assert_eq!(answer.lifetime(), secs(600));
}

#[test]
fn fingerprints_are_checked_and_given_back() {
    let mut rig = Rig::with(standard());
    let nonce = rig.nonce(client(1));
    let request = credentials(&mut rig, Ask::allocate(), &nonce)
        .integrity(key(None).expose())
        .fingerprint()
        .finish()
        .unwrap()
        .to_vec();
    let mut wrong = request.clone();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(
        rig.send(client(1), &wrong).dropped(),
        DropReason::WrongFingerprint
    );
    assert_eq!(rig.answer(), None);

    let _ = rig.send(client(1), &request);
    let answer = rig.answer().unwrap();
    assert!(answer.is_success());
    assert_eq!(answer.message().fingerprint_matches(), Some(true));
    assert!(answer.is_signed_for(&rest_user("a")));

    let without = rig.ask(client(1), &rest_user("a"), &Ask::refresh(secs(600)));
    assert!(!without.unwrap().message().has_fingerprint());
}

#[test]
fn methods_that_do_not_exist_are_dropped() {
    let mut rig = Rig::with(standard());
    for method in [
        Method::Send,
        Method::Data,
        Method::Other(0x00C),
        Method::Other(0x002),
    ] {
        let request = rig.request(client(1), &rest_user("a"), &Ask::new(method));
        assert_eq!(
            rig.send(client(1), &request).dropped(),
            DropReason::UnknownMethod
        );
        assert_eq!(rig.answer(), None);
    }
    for class in [Class::Success, Class::Error] {
        let id = rig.transaction();
        let message = Builder::new(rig.pool.take(0), Method::Allocate, class, id)
            .finish()
            .unwrap();
        assert_eq!(
            rig.send(client(1), &message).dropped(),
            DropReason::NotARequest
        );
    }
}

#[test]
fn binding_requests_need_no_credentials_and_wrong_ones_do_no_harm() {
    let mut rig = Rig::with(standard());
    for request in [
        rig.bare(&Ask::new(Method::Binding)),
        rig.request_with(&user("x"), None, &Ask::new(Method::Binding)),
        rig.bare(&Ask::new(Method::Binding).with(Attribute::Unknown(0x000D, b"1"))),
    ] {
        assert_eq!(rig.send(client(1), &request), Verdict::Handled);
        let answer = rig.answer().unwrap();
        assert_eq!(answer.message().mapped_address(), Some(client(1)));
        assert!(!answer.message().has_integrity());
    }
}

/// What an answer carries, as text.
fn attributes(answer: &Answer) -> Vec<String> {
    answer
        .message()
        .attributes()
        .map(|attribute| format!("{:?}", attribute.unwrap()))
        .collect()
}

/// The key of user "a".
fn key(algorithm: Option<u16>) -> Key {
    let (name, password) = rest_credentials(2_145_916_800, "a");
    if algorithm == Some(ALGORITHM_SHA256) {
        Key::long_term_sha256(&name, REALM, &password)
    } else {
        Key::long_term(&name, REALM, &password)
    }
}

fn signed(
    rig: &mut Rig,
    algorithm: Option<u16>,
    key: &Key,
    is_sha256: bool,
    offer: &[u8],
) -> Vec<u8> {
    let mut ask = Ask::allocate();
    if let Some(algorithm) = algorithm {
        ask = ask
            .with(Attribute::PasswordAlgorithms(offer))
            .with(Attribute::PasswordAlgorithm(algorithm));
    }
    let nonce = rig.nonce(client(1));
    let builder = credentials(rig, ask, &nonce);
    let builder = if is_sha256 {
        builder.integrity_sha256(key.expose())
    } else {
        builder.integrity(key.expose())
    };

    builder.finish().unwrap().to_vec()
}

/// A request of user "a", not signed yet.
fn credentials(rig: &mut Rig, ask: Ask<'_>, nonce: &str) -> Builder {
    let id = rig.transaction();
    let mut builder = Builder::new(rig.pool.take(0), ask.method, Class::Request, id);
    for attribute in &ask.attributes {
        builder = builder.attribute(*attribute);
    }

    builder
        .attribute(Attribute::Username(&rest_user("a").name))
        .attribute(Attribute::Realm(REALM))
        .attribute(Attribute::Nonce(nonce))
}
