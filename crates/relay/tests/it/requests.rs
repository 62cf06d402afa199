//! What is answered, how, and to whom: relay.md §4-§7, §11, §14.

use connlib_relay::{Config, Credentials, DropReason, REALM, Verdict};
use connlib_wire::secret::Secret;
use connlib_wire::stun::{Attribute, Builder, Class, Family, Key, Message, Method, TransactionId};

use crate::support::{
    Ask, PUBLIC_V6, Rig, SECRET, UNIX, User, VerdictExt as _, addr, client, client_v6, config,
    peer, secs, user, user_until,
};

#[test]
fn a_binding_request_learns_its_sender() {
    let mut rig = Rig::new();
    for from in [client(1), client_v6(1), addr("198.51.100.7:1")] {
        let request = rig.bare(&Ask::new(Method::Binding));
        assert_eq!(rig.send(from, &request), Verdict::Handled);

        let answer = rig.answer().unwrap();
        assert_eq!(answer.to, from);
        assert_eq!(answer.message().class(), Class::Success);
        assert_eq!(answer.message().mapped_address(), Some(from));
        assert!(!answer.message().has_integrity());
    }
}

#[test]
fn each_answer_begins_with_software() {
    let mut rig = Rig::new();
    let binding = rig.bare(&Ask::new(Method::Binding));
    let allocate = rig.bare(&Ask::allocate());
    let _ = rig.send(client(1), &binding);
    let _ = rig.send(client(1), &allocate);
    let mut answers = rig.answers();
    answers.extend(rig.ask(client(1), &user("a"), &Ask::allocate()));

    assert_eq!(answers.len(), 3);
    for answer in answers {
        let first = answer.message().attributes().next().unwrap();
        assert!(matches!(first, Ok(Attribute::Software(_))), "{first:?}");
    }
}

#[test]
fn nothing_is_sent_to_port_zero() {
    let mut rig = Rig::new();
    let request = rig.bare(&Ask::new(Method::Binding));

    let verdict = rig.send(addr("198.51.100.1:0"), &request);

    assert_eq!(verdict.dropped(), DropReason::SourcePortZero);
    assert_eq!(rig.answer(), None);
    assert_eq!(rig.server.stats().dropped(DropReason::SourcePortZero), 1);
}

#[test]
fn first_contact_with_credentials_gets_a_signed_nonce() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let request = rig.request_with(&alice, None, &Ask::allocate());
    let _ = rig.send(client(1), &request);

    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(401));
    assert_eq!(answer.message().realm(), Some(REALM));
    assert!(answer.is_signed_for(&alice));

    let nonce = answer.nonce();
    let request = rig.request_with(&alice, Some(&nonce), &Ask::allocate());
    let _ = rig.send(client(1), &request);
    assert!(rig.answer().unwrap().is_success());
}

#[test]
fn first_contact_without_credentials_gets_an_unsigned_nonce() {
    let mut rig = Rig::new();
    let request = rig.bare(&Ask::allocate());
    let _ = rig.send(client(1), &request);

    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(401));
    assert_eq!(answer.message().realm(), Some(REALM));
    assert!(!answer.nonce().is_empty());
    assert!(!answer.message().has_integrity());
}

#[test]
fn a_wrong_password_is_told_so_in_a_way_the_right_one_verifies() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let impostor = User {
        name: alice.name.clone(),
        key: Key::long_term(&alice.name, REALM, &Secret::from("guessed")),
    };
    let request = rig.request(client(1), &impostor, &Ask::allocate());
    let _ = rig.send(client(1), &request);

    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(401));
    assert!(answer.is_signed_for(&alice));
    assert_eq!(rig.server.stats().allocations, 0);
}

#[test]
fn a_request_without_integrity_is_answered_signed_if_it_names_a_user() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let nonce = rig.nonce(client(1));
    let ask = Ask::allocate()
        .with(Attribute::Username(&alice.name))
        .with(Attribute::Nonce(&nonce));
    let request = rig.bare(&ask);
    let _ = rig.send(client(1), &request);

    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(401));
    assert!(answer.is_signed_for(&alice));
}

#[test]
fn a_user_name_without_a_key_is_not_answered() {
    let mut rig = Rig::new();
    for name in ["foobar", "1:2:3", "abc:salt", ":salt", "-1:x"] {
        let nobody = User {
            name: name.to_owned(),
            key: user("x").key,
        };
        let request = rig.request(client(1), &nobody, &Ask::allocate());
        let verdict = rig.send(client(1), &request);

        assert_eq!(verdict.dropped(), DropReason::UnusableUsername, "{name}");
        assert_eq!(rig.answer(), None, "{name}");
    }
}

#[test]
fn credentials_last_until_the_second_of_their_expiry() {
    let mut rig = Rig::new();
    let now = UNIX.as_secs();

    let late = rig.ask(client(1), &user_until(now - 1, "a"), &Ask::allocate());
    assert_eq!(late.unwrap().code(), Some(401));
    let just = rig.ask(client(1), &user_until(now, "a"), &Ask::allocate());
    assert!(just.unwrap().is_success());
}

#[test]
fn leading_zeros_in_the_expiry_make_another_user() {
    let mut rig = Rig::new();
    let plain = user("a");
    let name = format!("0{}", plain.name);
    let password = connlib_wire::stun::relay_password(2_145_916_800, "a", &Secret::from(SECRET));
    // The password is made from the number, the key from the name as written.
    let padded = User {
        key: Key::long_term(&name, REALM, &password),
        name,
    };
    let of_plain_name = User {
        key: plain.key,
        name: padded.name.clone(),
    };
    let request = rig.request(client(1), &of_plain_name, &Ask::allocate());
    let _ = rig.send(client(1), &request);

    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(401));
    assert!(answer.is_signed_for(&padded));
}

#[test]
fn rest_credentials_work_without_a_portal() {
    let mut rig = Rig::with(Config {
        credentials: Credentials::Rest(Secret::from("north")),
        ..config()
    });
    // printf 2145916800:alice | openssl dgst -sha1 -hmac north -binary | base64
    let password = Secret::from("HmlJAoUmyqkKrYLmEjdJ5S5+AZs=");
    let name = "2145916800:alice".to_owned();
    let alice = User {
        key: Key::long_term(&name, REALM, &password),
        name,
    };

    assert!(
        rig.ask(client(1), &alice, &Ask::allocate())
            .unwrap()
            .is_success()
    );

    let request = rig.request(client(2), &user("a"), &Ask::allocate());
    let _ = rig.send(client(2), &request);
    assert_eq!(
        rig.answer().unwrap().code(),
        Some(401),
        "the portal's scheme"
    );
}

#[test]
fn a_nonce_serves_many_requests_and_the_same_one_is_given_again() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let first = rig.nonce(client(1));
    for _ in 0..3 {
        let request = rig.bare(&Ask::allocate());
        let _ = rig.send(client(1), &request);
        assert_eq!(rig.answer().unwrap().nonce(), first);
    }
    for _ in 0..10_000 {
        let answer = rig.ask(client(1), &alice, &Ask::new(Method::CreatePermission));
        assert!(answer.unwrap().is_success());
    }
}

#[test]
fn a_nonce_of_another_socket_is_stale() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let foreign = rig.nonce(client(2));
    let request = rig.request_with(&alice, Some(&foreign), &Ask::allocate());
    let _ = rig.send(client(1), &request);

    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(438));
    assert_eq!(answer.message().realm(), Some(REALM));
    assert_ne!(answer.nonce(), foreign);
    assert!(answer.is_signed_for(&alice));

    let other_port = addr("198.51.100.2:50001");
    let request = rig.request_with(&alice, Some(&foreign), &Ask::allocate());
    let _ = rig.send(other_port, &request);
    assert_eq!(rig.answer().unwrap().code(), Some(438));
}

#[test]
fn a_nonce_is_good_for_an_hour_and_then_replaced() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.nonce(client(1));
    rig.pass(secs(3_600));
    let ask = Ask::new(Method::CreatePermission);
    assert!(rig.ask(client(1), &alice, &ask).unwrap().is_success());

    rig.pass(secs(600));
    let answer = rig.ask(client(1), &alice, &ask).unwrap();
    assert_eq!(answer.code(), Some(438));

    let fresh = answer.nonce();
    let request = rig.request_with(&alice, Some(&fresh), &ask);
    let _ = rig.send(client(1), &request);
    assert!(rig.answer().unwrap().is_success());
}

#[test]
fn a_nonce_that_is_none_is_unauthorized_and_an_unknown_one_stale() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let unknown = "00000000-0000-0000-0000-000000000000";
    for (nonce, code) in [("no nonce at all", 401), ("", 401), (unknown, 438)] {
        let request = rig.request_with(&alice, Some(nonce), &Ask::allocate());
        let _ = rig.send(client(1), &request);
        let answer = rig.answer().unwrap();
        assert_eq!(answer.code(), Some(code), "{nonce}");
        assert!(answer.is_signed_for(&alice));
    }
}

#[test]
fn the_refresh_of_the_vectors_is_read_as_meant() {
    let hex = "000400902112a4420102030405060708090a0b0c00060036323134353931363830303a7531714c75704d5870665559386e76776f684f775330723643376d6a4b36567a30467973575542324a6434000000140008666972657a6f6e650015002430303030303030302d303030302d303030302d303030302d303030303030303030303030000d000400000000000800140648878e163183c6c18ac66691e3c7083fa88338";
    let request: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let owner = user("u1qLupMXpfUY8nvwohOwS0r6C7mjK6Vz0FysWUB2Jd4");
    assert!(Message::parse(&request).unwrap().verify(owner.key.expose()));

    let mut rig = Rig::new();
    let _ = rig.send(client(1), &request);
    let answer = rig.answer().unwrap();
    assert_eq!(answer.code(), Some(438));
    assert!(answer.is_signed_for(&owner));
}

#[test]
fn bad_requests_are_told_so_unsigned_and_before_any_authentication() {
    let mut rig = Rig::new();
    let alice = user("alice");
    let bad = [
        Ask::new(Method::Allocate),
        Ask::new(Method::ChannelBind).with(Attribute::ChannelNumber(0x4000)),
        Ask::new(Method::ChannelBind).with(Attribute::XorPeerAddress(peer(1))),
        Ask::channel_bind(0x3FFF, peer(1)),
        Ask::channel_bind(0x5000, peer(1)),
        Ask::channel_bind(0x8000, peer(1)),
        Ask::allocate().with(Attribute::Unknown(0x0017, &[9, 0, 0, 0])),
        Ask::allocate().with(Attribute::Unknown(0x000D, &[0])),
        Ask::new(Method::Other(0x006)),
        Ask::new(Method::Other(0x00C)),
    ];
    for ask in bad {
        for request in [
            rig.request_with(&alice, None, &ask),
            rig.bare(&ask),
            rig.request(client(1), &alice, &ask),
        ] {
            let _ = rig.send(client(1), &request);
            let answer = rig.answer().unwrap();
            let (asked, message) = (Message::parse(&request).unwrap(), answer.message());
            assert_eq!(message.error_code(), Some(400), "{:?}", ask.attributes);
            assert!(!message.has_integrity());
            assert_eq!(message.transaction_id(), asked.transaction_id());
            assert_eq!(message.method(), asked.method());
        }
    }
}

#[test]
fn unknown_attributes_are_ignored() {
    let mut rig = Rig::new();
    let ask = Ask::allocate()
        .with(Attribute::Unknown(0x0018, &[0x80, 0, 0, 0])) // EVEN-PORT
        .with(Attribute::Unknown(0x001A, &[])) // DONT-FRAGMENT
        .with(Attribute::Unknown(0x7FFF, b"required"));

    assert!(rig.ask(client(1), &user("a"), &ask).unwrap().is_success());
}

#[test]
fn signed_errors_have_the_codes_of_the_table() {
    let mut rig = Rig::new();
    let (alice, bob) = (user("alice"), user("bob"));
    let v4_only = Ask::allocate();
    assert!(rig.ask(client(1), &alice, &v4_only).unwrap().is_success());
    let v4 = Attribute::AdditionalAddressFamily(Family::V4);
    let both = Ask::allocate()
        .both()
        .with(Attribute::RequestedAddressFamily(Family::V4));
    let tcp = Ask::new(Method::Allocate).with(Attribute::RequestedTransport(6));
    let mut code = |from, who: &User, ask: &Ask<'_>| rig.ask(from, who, ask).unwrap().code();

    assert_eq!(code(client(2), &bob, &Ask::allocate().with(v4)), Some(400));
    assert_eq!(code(client(2), &bob, &both), Some(400));
    assert_eq!(code(client(2), &bob, &tcp), Some(400));
    assert_eq!(code(client(1), &alice, &Ask::allocate()), Some(437));
    assert_eq!(code(client(2), &bob, &Ask::refresh(secs(600))), Some(437));
    assert_eq!(code(client(2), &bob, &Ask::refresh(secs(0))), Some(437));
    assert_eq!(
        code(client(2), &bob, &Ask::channel_bind(0x4000, peer(1))),
        Some(437)
    );
    let v6_peer = Ask::channel_bind(0x4000, (PUBLIC_V6, 50_000).into());
    assert_eq!(code(client(1), &alice, &v6_peer), Some(443));
}

#[test]
fn reason_phrases_are_the_standard_ones() {
    let mut rig = Rig::new();
    let request = rig.bare(&Ask::allocate());
    let _ = rig.send(client(1), &request);
    let answer = rig.answer().unwrap();

    let phrase = answer
        .message()
        .attributes()
        .find_map(|attribute| match attribute {
            Ok(Attribute::ErrorCode(_, phrase)) => Some(phrase.to_owned()),
            _ => None,
        });
    assert_eq!(phrase.as_deref(), Some("Unauthorized"));
}

#[test]
fn create_permission_succeeds_without_an_allocation() {
    let mut rig = Rig::new();
    let ask = Ask::new(Method::CreatePermission).with(Attribute::XorPeerAddress(peer(1)));
    let answer = rig.ask(client(1), &user("a"), &ask).unwrap();

    assert!(answer.is_success());
    let verdict = rig.send_data(client(1), 0x4000, b"x");
    assert_eq!(verdict.dropped(), DropReason::NoAllocation);
}

#[test]
fn what_is_no_request_is_ignored() {
    let mut rig = Rig::new();
    for class in [Class::Indication, Class::Success, Class::Error] {
        for method in [Method::Binding, Method::Allocate, Method::Other(0x006)] {
            let message = Builder::new(rig.pool.take(0), method, class, TransactionId([1; 12]))
                .finish()
                .unwrap();
            let verdict = rig.send(client(1), &message);
            assert_eq!(verdict.dropped(), DropReason::NotARequest);
        }
    }
    assert_eq!(rig.answer(), None);
}

#[test]
fn garbage_does_not_disturb_what_follows() {
    let mut rig = Rig::new();
    let request = rig.bare(&Ask::new(Method::Binding));
    let truncated = &request[..19];
    for (garbage, reason) in [
        (truncated, DropReason::MalformedStun),
        (&[0, 1, 0, 8], DropReason::MalformedStun),
        (&[], DropReason::UnknownProtocol),
        (&[0x16, 0xFE, 0xFD], DropReason::UnknownProtocol),
        (&[0x50, 0, 0, 0], DropReason::NoAllocation),
        (&[0xFF; 40], DropReason::UnknownProtocol),
    ] {
        assert_eq!(rig.send(client(1), garbage).dropped(), reason);
        assert_eq!(rig.send(client(1), &request), Verdict::Handled);
        assert!(rig.answer().unwrap().is_success());
    }
}

#[test]
fn each_request_of_a_train_is_answered() {
    let mut rig = Rig::new();
    let mut train = rig.bare(&Ask::new(Method::Binding));
    train.extend(rig.bare(&Ask::new(Method::Binding)));

    assert_eq!(rig.send_train(client(1), 20, &train), Verdict::Handled);
    assert_eq!(rig.answers().len(), 2);
}

#[test]
fn answers_are_counted_by_method_and_code() {
    let mut rig = Rig::new();
    let alice = user("alice");
    rig.allocate(client(1), &alice);
    rig.ask(client(1), &alice, &Ask::allocate());
    for method in [Method::Other(0x006), Method::Other(0x007)] {
        let request = rig.bare(&Ask::new(method));
        let _ = rig.send(client(1), &request);
    }

    let counted: Vec<_> = rig.server.stats().answers.clone().into_iter().collect();
    assert_eq!(
        counted,
        [
            ((Method::Allocate, None), 1),
            ((Method::Allocate, Some(401)), 1),
            ((Method::Allocate, Some(437)), 1),
            ((Method::Other(0), Some(400)), 2),
        ]
    );
}
