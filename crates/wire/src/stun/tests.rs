use super::kind::message_type;
use super::*;
use crate::buffer::Pool;
use crate::secret::Secret;

/// RFC 5769 §2.1, in parts.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae\
    802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36\
    0006000965 76746a3a68367659202020\
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
    80280004e57a3bcf";
const REQUEST_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769 §2.2.
const RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae\
    8022000b7465737420766563746f722000200008 0001a147e112a643\
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";

/// RFC 5769 §2.3.
const RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae\
    8022000b7465737420766563746f722000200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9\
    00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

/// RFC 5769 §2.4.
const LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e\
    00060012e3839ee38388e383aae38383e382afe382b90000\
    0015001c662f2f3439396b393534643 64f4c33346f4c39465354767936347341\
    0014000b6578616d706c652e6f726700\
    00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] * 16 + pair[1]) as u8)
        .collect()
}

fn build(method: Method, class: Class, id: [u8; 12]) -> Builder {
    Builder::new(
        Pool::new(2_048, 1).take(4),
        method,
        class,
        TransactionId(id),
    )
}

#[test]
fn the_request_of_rfc_5769_is_understood_and_verified() {
    let bytes = hex(REQUEST);
    let message = Message::parse(&bytes).unwrap();

    assert_eq!(
        (message.method(), message.class()),
        (Method::Binding, Class::Request)
    );
    assert_eq!(message.username(), Some("evtj:h6vY"));
    let attributes: Result<Vec<_>, _> = message.attributes().collect();
    assert_eq!(
        attributes.unwrap(),
        [
            Attribute::Software("STUN test client"),
            Attribute::Priority(0x6e00_01ff),
            Attribute::IceControlled(0x932f_f9b1_5126_3b36),
            Attribute::Username("evtj:h6vY"),
        ]
    );
    assert!(message.verify(REQUEST_PASSWORD));
    assert!(!message.verify(b"another password"));
    assert_eq!(message.fingerprint_matches(), Some(true));
}

#[test]
fn the_responses_of_rfc_5769_are_understood_and_written_alike() {
    for (text, address) in [
        (RESPONSE_V4, "192.0.2.1:32853"),
        (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let bytes = hex(text);
        let message = Message::parse(&bytes).unwrap();
        let address = address.parse().unwrap();
        assert_eq!(message.mapped_address(), Some(address));
        assert!(message.verify(REQUEST_PASSWORD));
        assert_eq!(message.fingerprint_matches(), Some(true));
    }
}

#[test]
fn the_long_term_request_of_rfc_5769_is_verified_and_written_alike() {
    let bytes = hex(LONG_TERM);
    let message = Message::parse(&bytes).unwrap();
    let key = Key::long_term("マトリックス", "example.org", &Secret::from("TheMatrIX"));

    assert!(message.verify(key.expose()));
    let again = build(Method::Binding, Class::Request, message.transaction_id().0)
        .attribute(Attribute::Username("マトリックス"))
        .attribute(Attribute::Nonce("f//499k954d6OL34oL9FSTvy64sA"))
        .attribute(Attribute::Realm("example.org"))
        .integrity(key.expose())
        .finish()
        .unwrap();
    assert_eq!(&*again, bytes);
}

/// RFC 8489 appendix B.1: its MAC is made under the length that its header states, which is larger than the message, so only
/// the key can be tried. The nonce's features are numbered from the wrong end there.
#[test]
fn the_key_of_rfc_8489_makes_its_mac() {
    use hmac::{Hmac, KeyInit as _, Mac as _};

    let covered = hex("0001009c2112a44278ad3433c6ad72c029da412e\
        001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704\
        001500296f624d61744a6f7332414141 43662f2f3439396b39353464364f4c33346f4c39465354767936347341000000\
        0014000b6578616d706c652e6f726700");
    let key = Key::long_term_sha256("マトリックス", "example.org", &Secret::from("TheMatrIX"));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.expose()).unwrap();
    mac.update(&covered);

    assert_eq!(
        mac.finalize().into_bytes().to_vec(),
        hex("e4686c8f0edeb59013e07090010a93efccbccc544c0a45d9f830aa6d6f735a01")
    );
}

#[test]
fn each_integrity_is_verified_by_itself() {
    let key = Key::long_term("a", "b", &Secret::from("c"));
    let both = build(Method::Refresh, Class::Request, [1; 12])
        .attribute(Attribute::Realm("b"))
        .integrity(key.expose())
        .integrity_sha256(key.expose())
        .fingerprint()
        .finish()
        .unwrap();
    let message = Message::parse(&both).unwrap();
    assert!(message.verify(key.expose()) && message.verify_sha256(key.expose()));
    assert!(!message.verify_sha256(b"another"));
    assert_eq!(message.fingerprint_matches(), Some(true));
    assert_eq!(message.attributes().count(), 1, "they frame, and are none");

    let shortened = build(Method::Refresh, Class::Request, [1; 12])
        .attribute(Attribute::Unknown(0x001C, &[0; 16]))
        .finish()
        .unwrap();
    let message = Message::parse(&shortened).unwrap();
    assert!(!message.has_integrity_sha256(), "TURN has it in full only");
}

#[test]
fn a_fingerprint_that_is_not_the_last_is_wrong() {
    let message = build(Method::Binding, Class::Request, [1; 12])
        .fingerprint()
        .attribute(Attribute::Software("late"))
        .finish()
        .unwrap();

    assert_eq!(
        Message::parse(&message).unwrap().fingerprint_matches(),
        Some(false)
    );
}

#[test]
fn values_of_another_shape_are_invalid() {
    for (attribute, value) in [
        (0x000A, &[0, 1, 2][..]),
        (0x0018, &[]),
        (0x0018, &[0x80, 0]),
        (0x001A, &[0]),
        (0x001D, &[0, 2]),
        (0x001D, &[0, 2, 0, 9, 1]),
        (0x0022, &[0; 7]),
        (0x0022, &[0; 9]),
        (0x8001, &[3, 0, 4, 40]),
        (0x8001, &[1, 0, 0, 40]),
        (0x8001, &[1]),
    ] {
        let message = build(Method::Allocate, Class::Request, [1; 12])
            .attribute(Attribute::Unknown(attribute, value))
            .finish()
            .unwrap();
        let read = Message::parse(&message).unwrap().attributes().next();
        assert_eq!(
            read,
            Some(Err(StunError::InvalidAttribute { attribute })),
            "{value:?}"
        );
    }
}

/// relay.md §22.1 and §22.2. The printed REFRESH says 55 bytes of USERNAME where its own MAC covers 54.
#[test]
fn the_vectors_of_the_relay_spec() {
    let secret = Secret::from("1".repeat(64));
    let salt = "u1qLupMXpfUY8nvwohOwS0r6C7mjK6Vz0FysWUB2Jd4";
    let password = relay_password(2_145_916_800, salt, &secret);
    assert_eq!(
        password.expose(),
        "r9kI0giwXo79yFEhgkT7ZxJPRA4tBQ/jyRrjSxB+hiY"
    );
    let username = format!("2145916800:{salt}");
    let key = Key::long_term(&username, "firezone", &password);
    assert_eq!(key.expose(), hex("291e7d4501c037cbd84965322b54198e"));

    let refresh = build(
        Method::Refresh,
        Class::Request,
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    )
    .attribute(Attribute::Username(&username))
    .attribute(Attribute::Realm("firezone"))
    .attribute(Attribute::Nonce("00000000-0000-0000-0000-000000000000"))
    .attribute(Attribute::Lifetime(Duration::ZERO))
    .integrity(key.expose())
    .finish()
    .unwrap();
    let expected = "000400902112a4420102030405060708090a0b0c00060036323134353931363830303a7531714c75704d5870665559386e76776f684f775330723643376d6a4b36567a30467973575542324a6434000000140008666972657a6f6e650015002430303030303030302d303030302d303030302d303030302d303030303030303030303030000d000400000000000800140648878e163183c6c18ac66691e3c7083fa88338";
    assert_eq!(&*refresh, hex(expected));

    let old = relay_password(1_700_000_000, "saltsalt", &Secret::from("0".repeat(64)));
    assert_eq!(old.expose(), "M7hp/AOMGadqt79BxQPyh2Uq3gedGpzjuB8xb3nMbjQ");
}

/// relay.md §22.2.
#[test]
fn addresses_are_masked_as_the_relay_spec_shows() {
    let id = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let message = build(Method::Allocate, Class::Success, id)
        .attribute(Attribute::XorMappedAddress(
            "198.51.100.7:50000".parse().unwrap(),
        ))
        .attribute(Attribute::XorRelayedAddress(
            "[2001:db8::5]:49152".parse().unwrap(),
        ))
        .finish()
        .unwrap();
    let expected = "002000080001e242e721c045001600140002e1120113a9fa0102030405060708090a0b09";

    assert_eq!(&message[HEADER_LEN..], hex(expected));
}

#[test]
fn bytes_that_are_not_stun_are_told_so() {
    let good = hex(REQUEST);
    for end in 0..good.len() {
        assert_eq!(
            Message::parse(&good[..end]).err(),
            Some(StunError::NotStun),
            "{end} bytes"
        );
    }

    let mut wrong_cookie = good.clone();
    wrong_cookie[4] ^= 1;
    assert_eq!(
        Message::parse(&wrong_cookie).err(),
        Some(StunError::NotStun)
    );

    let mut overlong_attribute = good;
    overlong_attribute[23] = 0xFF;
    assert_eq!(
        Message::parse(&overlong_attribute).err(),
        Some(StunError::Truncated { at: 20 })
    );
}

#[test]
fn what_follows_integrity_is_not_believed() {
    let message = build(Method::Refresh, Class::Success, [1; 12])
        .attribute(Attribute::Realm("right"))
        .integrity(b"key")
        .attribute(Attribute::Lifetime(Duration::from_secs(9)))
        .finish()
        .unwrap();
    let message = Message::parse(&message).unwrap();

    assert!(message.verify(b"key"));
    assert_eq!((message.realm(), message.lifetime()), (Some("right"), None));
}

#[test]
fn a_message_that_does_not_fit_its_buffer_is_an_error() {
    let message = Builder::new(
        Pool::new(40, 1).take(0),
        Method::Binding,
        Class::Request,
        TransactionId([0; 12]),
    )
    .attribute(Attribute::Software("a name of some length"))
    .attribute(Attribute::Priority(1));
    assert_eq!(message.finish().err(), Some(StunError::TooLong));
}

#[test]
fn every_type_splits_into_the_method_and_class_it_was_made_of() {
    for code in 0..0x1000 {
        for class in [
            Class::Request,
            Class::Indication,
            Class::Success,
            Class::Error,
        ] {
            let method = Method::from_code(code);
            assert_eq!(split_type(message_type(method, class)), (method, class));
        }
    }
}

mod properties {
    use std::net::{IpAddr, SocketAddr};

    use proptest::prelude::*;

    use super::*;

    fn attributes() -> impl Strategy<Value = Vec<Attribute<'static>>> {
        let address =
            (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
        let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
        let one = prop_oneof![
            address.clone().prop_map(Attribute::XorMappedAddress),
            address.clone().prop_map(Attribute::XorPeerAddress),
            address.prop_map(Attribute::XorRelayedAddress),
            (0x4000_u16..=0x7FFF).prop_map(Attribute::ChannelNumber),
            (300_u16..700).prop_map(|code| Attribute::ErrorCode(code, "Phrase")),
            any::<u32>().prop_map(|s| Attribute::Lifetime(Duration::from_secs(s.into()))),
            any::<u32>().prop_map(Attribute::Priority),
            any::<u64>().prop_map(Attribute::IceControlled),
            any::<u64>().prop_map(Attribute::IceControlling),
            any::<u8>().prop_map(Attribute::RequestedTransport),
            family.clone().prop_map(Attribute::RequestedAddressFamily),
            family.prop_map(Attribute::AdditionalAddressFamily),
            Just(Attribute::UseCandidate),
            Just(Attribute::DontFragment),
            Just(Attribute::Data(b"payload")),
            Just(Attribute::Data(b"")),
            Just(Attribute::AddressErrorCode(Family::V6, 440, "Phrase")),
            Just(Attribute::PasswordAlgorithms(&[0, 2, 0, 0, 0, 1, 0, 0])),
            Just(Attribute::UnknownAttributes(&[0x7F, 0xFF, 0, 3])),
            any::<bool>().prop_map(|reserve| Attribute::EvenPort { reserve }),
            any::<u16>().prop_map(Attribute::PasswordAlgorithm),
            any::<[u8; 8]>().prop_map(Attribute::ReservationToken),
            Just(Attribute::Username("a:b")),
            Just(Attribute::Nonce("nonce of odd length")),
        ];

        prop::collection::vec(one, 0..12)
    }

    proptest! {
        #[test]
        fn messages_round_trip(attributes in attributes(), id: [u8; 12], key: Vec<u8>) {
            let mut builder = build(Method::Allocate, Class::Request, id);
            for attribute in &attributes {
                builder = builder.attribute(*attribute);
            }
            let bytes = builder
                .integrity(&key)
                .integrity_sha256(&key)
                .fingerprint()
                .finish()
                .unwrap();

            let message = Message::parse(&bytes).unwrap();
            let read: Result<Vec<_>, _> = message.attributes().collect();
            prop_assert_eq!(read.unwrap(), attributes);
            prop_assert_eq!(message.transaction_id(), TransactionId(id));
            prop_assert!(message.verify(&key) && message.verify_sha256(&key));
            prop_assert_eq!(message.fingerprint_matches(), Some(true));
        }

        #[test]
        fn a_flipped_bit_in_front_of_integrity_is_noticed(attributes in attributes(), at: usize, bit in 0_u8..8) {
            let mut builder = build(Method::Refresh, Class::Request, [5; 12]);
            for attribute in &attributes {
                builder = builder.attribute(*attribute);
            }
            let mut bytes = builder.integrity(b"key").finish().unwrap().to_vec();
            let at = at % (bytes.len() - 24);
            bytes[at] ^= 1_u8 << bit;

            if let Ok(message) = Message::parse(&bytes) {
                prop_assert!(!message.verify(b"key"));
            }
        }

        #[test]
        fn no_bytes_panic(mut bytes: Vec<u8>, looks_right: bool) {
            if looks_right && bytes.len() >= HEADER_LEN {
                bytes.truncate(bytes.len() / 4 * 4);
                let length = (bytes.len() - HEADER_LEN) as u16;
                bytes[0] &= 0x3F;
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            }
            if let Ok(message) = Message::parse(&bytes) {
                message.attributes().for_each(drop);
                message.verify(b"key");
                message.fingerprint_matches();
            }
        }
    }
}
