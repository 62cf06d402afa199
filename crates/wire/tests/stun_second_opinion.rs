//! Our STUN messages as `stun-types` reads them, and its messages as we do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use connlib_wire::buffer::Pool;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{self, Attribute, Builder, Class, Family, Key};
use proptest::prelude::*;
use stun_types::attribute::{
    ErrorCode, Nonce, PasswordAlgorithm, PasswordAlgorithmValue, PasswordAlgorithms, RawAttribute,
    Realm, Software, UnknownAttributes, Username, XorMappedAddress,
};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageIntegrityCredentials,
    MessageType, MessageWriteVec, Method, TransactionId,
};
use stun_types::prelude::*;

const MD5_AND_SHA256: &[u8] = &[0, 1, 0, 0, 0, 2, 0, 0];

#[derive(Clone, Copy, Debug)]
enum Integrity {
    None,
    Sha1,
    Sha256,
}

proptest! {
    #[test]
    fn it_reads_and_writes_again_what_we_write(
        (method, class) in kind(),
        id: [u8; 12],
        attributes in attributes(),
        integrity in integrity(),
        has_fingerprint: bool,
    ) {
        let ours = write(method, class, id, &attributes, integrity, has_fingerprint);

        let read = Message::from_bytes(&ours).unwrap();
        prop_assert_eq!(read.class(), their_class(class));
        prop_assert_eq!(read.method(), Method::new(code(method)));
        prop_assert_eq!(u128::from(read.transaction_id()), number(id));
        let credentials = credentials();
        match integrity {
            Integrity::None => {}
            Integrity::Sha1 => {
                let found = read.validate_integrity(&credentials).unwrap();
                prop_assert_eq!(found, IntegrityAlgorithm::Sha1);
            }
            Integrity::Sha256 => {
                let found = read.validate_integrity(&credentials).unwrap();
                prop_assert_eq!(found, IntegrityAlgorithm::Sha256);
            }
        }

        let mut again = Message::builder(
            read.get_type(),
            read.transaction_id(),
            MessageWriteVec::new(),
        );
        for (_, raw) in read.iter_attributes() {
            if ![0x0008, 0x001C, 0x8028].contains(&raw.header.get_type().value()) {
                again.add_attribute(&raw).unwrap();
            }
        }
        seal(&mut again, integrity, has_fingerprint);
        prop_assert_eq!(again.finish(), ours.to_vec());
    }

    #[test]
    fn it_understands_what_we_mean(address in address(), code in 300_u16..700, id: [u8; 12]) {
        let pool = Pool::new(2_048, 1);
        let ours = Builder::new(pool.take(0), stun::Method::Allocate, Class::Error, stun::TransactionId(id))
            .attribute(Attribute::Software("software"))
            .attribute(Attribute::ErrorCode(code, "phrase"))
            .attribute(Attribute::Realm("realm"))
            .attribute(Attribute::Nonce("nonce"))
            .attribute(Attribute::Username("user"))
            .attribute(Attribute::PasswordAlgorithms(MD5_AND_SHA256))
            .attribute(Attribute::PasswordAlgorithm(stun::ALGORITHM_SHA256))
            .attribute(Attribute::UnknownAttributes(&[0x7F, 0xFF]))
            .attribute(Attribute::XorMappedAddress(address))
            .finish()
            .unwrap();

        let read = Message::from_bytes(&ours).unwrap();
        let error = read.attribute::<ErrorCode>().unwrap();
        prop_assert_eq!((error.code(), error.reason()), (code, "phrase"));
        let software = read.attribute::<Software>().unwrap();
        let realm = read.attribute::<Realm>().unwrap();
        let nonce = read.attribute::<Nonce>().unwrap();
        let user = read.attribute::<Username>().unwrap();
        let texts = [software.software(), realm.realm(), nonce.nonce(), user.username()];
        prop_assert_eq!(texts, ["software", "realm", "nonce", "user"]);
        let both = [PasswordAlgorithmValue::MD5, PasswordAlgorithmValue::SHA256];
        let offered = read.attribute::<PasswordAlgorithms>().unwrap();
        prop_assert_eq!(offered.algorithms(), &both[..]);
        let chosen = read.attribute::<PasswordAlgorithm>().unwrap();
        prop_assert_eq!(chosen.algorithm(), PasswordAlgorithmValue::SHA256);
        let unknown = read.attribute::<UnknownAttributes>().unwrap();
        prop_assert!(unknown.has_attribute(0x7FFF.into()));
        let mapped = read.attribute::<XorMappedAddress>().unwrap();
        prop_assert_eq!(mapped.addr(read.transaction_id()), address);
    }

    #[test]
    fn we_understand_what_it_means(
        address in address(),
        code in 300_u16..700,
        id: [u8; 12],
        integrity in integrity(),
        has_fingerprint: bool,
    ) {
        let id_of_theirs = TransactionId::from(number(id));
        let kind = MessageType::from_class_method(MessageClass::Error, Method::new(0x004));
        let mut theirs = Message::builder(kind, id_of_theirs, MessageWriteVec::new());
        theirs.add_attribute(&Software::new("software").unwrap()).unwrap();
        theirs.add_attribute(&ErrorCode::new(code, "phrase").unwrap()).unwrap();
        theirs.add_attribute(&Realm::new("realm").unwrap()).unwrap();
        theirs.add_attribute(&Nonce::new("nonce").unwrap()).unwrap();
        theirs.add_attribute(&Username::new("user").unwrap()).unwrap();
        let both = [PasswordAlgorithmValue::MD5, PasswordAlgorithmValue::SHA256];
        theirs.add_attribute(&PasswordAlgorithms::new(&both)).unwrap();
        theirs.add_attribute(&PasswordAlgorithm::new(both[1])).unwrap();
        theirs.add_attribute(&UnknownAttributes::new(&[0x7FFF.into()])).unwrap();
        theirs.add_attribute(&XorMappedAddress::new(address, id_of_theirs)).unwrap();
        theirs.add_attribute(&RawAttribute::new(0x0018.into(), &[0x80])).unwrap();
        seal(&mut theirs, integrity, has_fingerprint);
        let theirs = theirs.finish();

        let read = stun::Message::parse(&theirs).unwrap();
        prop_assert_eq!((read.method(), read.class()), (stun::Method::Refresh, Class::Error));
        prop_assert_eq!(read.transaction_id(), stun::TransactionId(id));
        let attributes: Result<Vec<_>, _> = read.attributes().collect();
        prop_assert_eq!(attributes.unwrap(), [
            Attribute::Software("software"),
            Attribute::ErrorCode(code, "phrase"),
            Attribute::Realm("realm"),
            Attribute::Nonce("nonce"),
            Attribute::Username("user"),
            Attribute::PasswordAlgorithms(MD5_AND_SHA256),
            Attribute::PasswordAlgorithm(stun::ALGORITHM_SHA256),
            Attribute::UnknownAttributes(&[0x7F, 0xFF]),
            Attribute::XorMappedAddress(address),
            Attribute::EvenPort { reserve: true },
        ]);
        let (md5, sha256) = keys();
        match integrity {
            Integrity::None => prop_assert!(!read.has_integrity() && !read.has_integrity_sha256()),
            Integrity::Sha1 => prop_assert!(read.verify(md5.expose())),
            Integrity::Sha256 => prop_assert!(read.verify_sha256(sha256.expose())),
        }
        prop_assert_eq!(read.fingerprint_matches(), has_fingerprint.then_some(true));
    }

    #[test]
    fn neither_takes_for_stun_what_the_other_does_not(mut bytes: Vec<u8>, looks_right: bool) {
        if looks_right && bytes.len() >= stun::HEADER_LEN {
            bytes.truncate(bytes.len() / 4 * 4);
            let length = (bytes.len() - stun::HEADER_LEN) as u16;
            bytes[0] &= 0x3F;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&stun::MAGIC_COOKIE.to_be_bytes());
        }
        // It also minds the order of what frames a message, so that it takes fewer.
        if Message::from_bytes(&bytes).is_ok() {
            prop_assert!(stun::Message::parse(&bytes).is_ok(), "{bytes:02x?}");
        }
    }
}

fn kind() -> impl Strategy<Value = (stun::Method, Class)> {
    let method = prop::sample::select(vec![
        stun::Method::Binding,
        stun::Method::Allocate,
        stun::Method::Refresh,
        stun::Method::Send,
        stun::Method::Data,
        stun::Method::CreatePermission,
        stun::Method::ChannelBind,
        stun::Method::Other(0xABC),
    ]);
    let class = prop::sample::select(vec![
        Class::Request,
        Class::Indication,
        Class::Success,
        Class::Error,
    ]);

    (method, class)
}

fn code(method: stun::Method) -> u16 {
    match method {
        stun::Method::Binding => 0x001,
        stun::Method::Allocate => 0x003,
        stun::Method::Refresh => 0x004,
        stun::Method::Send => 0x006,
        stun::Method::Data => 0x007,
        stun::Method::CreatePermission => 0x008,
        stun::Method::ChannelBind => 0x009,
        stun::Method::Other(code) => code,
        _ => panic!("{method:?}"),
    }
}

fn their_class(class: Class) -> MessageClass {
    match class {
        Class::Request => MessageClass::Request,
        Class::Indication => MessageClass::Indication,
        Class::Success => MessageClass::Success,
        Class::Error => MessageClass::Error,
    }
}

fn integrity() -> impl Strategy<Value = Integrity> {
    prop::sample::select(vec![Integrity::None, Integrity::Sha1, Integrity::Sha256])
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn attributes() -> impl Strategy<Value = Vec<Attribute<'static>>> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let one = prop_oneof![
        address().prop_map(Attribute::XorMappedAddress),
        address().prop_map(Attribute::XorPeerAddress),
        address().prop_map(Attribute::XorRelayedAddress),
        (0x4000_u16..=0x7FFF).prop_map(Attribute::ChannelNumber),
        (300_u16..700).prop_map(|code| Attribute::ErrorCode(code, "Phrase")),
        (family.clone(), 300_u16..700)
            .prop_map(|(family, code)| Attribute::AddressErrorCode(family, code, "Phrase")),
        any::<u32>().prop_map(|secs| Attribute::Lifetime(Duration::from_secs(secs.into()))),
        family.clone().prop_map(Attribute::RequestedAddressFamily),
        family.prop_map(Attribute::AdditionalAddressFamily),
        any::<bool>().prop_map(|reserve| Attribute::EvenPort { reserve }),
        any::<[u8; 8]>().prop_map(Attribute::ReservationToken),
        any::<u8>().prop_map(Attribute::RequestedTransport),
        prop::sample::select(vec![
            Attribute::Data(b""),
            Attribute::Data(b"odd"),
            Attribute::DontFragment,
            Attribute::UseCandidate,
            Attribute::Username("a:b"),
            Attribute::Realm("realm"),
            Attribute::Nonce("nonce"),
            Attribute::Software("software"),
            Attribute::PasswordAlgorithms(MD5_AND_SHA256),
            Attribute::PasswordAlgorithm(1),
            Attribute::UnknownAttributes(&[0x7F, 0xFF]),
            Attribute::Unknown(0x7ABC, b"unknown"),
        ]),
    ];

    prop::collection::vec(one, 0..8)
}

fn write(
    method: stun::Method,
    class: Class,
    id: [u8; 12],
    attributes: &[Attribute<'_>],
    integrity: Integrity,
    has_fingerprint: bool,
) -> connlib_wire::buffer::Buffer {
    let pool = Pool::new(2_048, 1);
    let mut builder = Builder::new(pool.take(0), method, class, stun::TransactionId(id));
    for attribute in attributes {
        builder = builder.attribute(*attribute);
    }
    let (md5, sha256) = keys();
    builder = match integrity {
        Integrity::None => builder,
        Integrity::Sha1 => builder.integrity(md5.expose()),
        Integrity::Sha256 => builder.integrity_sha256(sha256.expose()),
    };
    if has_fingerprint {
        builder = builder.fingerprint();
    }

    builder.finish().unwrap()
}

fn seal(theirs: &mut MessageWriteVec, integrity: Integrity, has_fingerprint: bool) {
    let algorithm = match integrity {
        Integrity::None => None,
        Integrity::Sha1 => Some(IntegrityAlgorithm::Sha1),
        Integrity::Sha256 => Some(IntegrityAlgorithm::Sha256),
    };
    if let Some(algorithm) = algorithm {
        let credentials = credentials();
        theirs
            .add_message_integrity(&credentials, algorithm)
            .unwrap();
    }
    if has_fingerprint {
        theirs.add_fingerprint().unwrap();
    }
}

/// By MD5 and by SHA-256, as the other one pairs them with the integrities.
fn keys() -> (Key, Key) {
    let password = Secret::from("password");

    (
        Key::long_term("user", "realm", &password),
        Key::long_term_sha256("user", "realm", &password),
    )
}

fn credentials() -> MessageIntegrityCredentials {
    let (user, password, realm) = ("user".to_owned(), "password".to_owned(), "realm".to_owned());

    LongTermKeyCredentials::new(user, password, realm).into()
}

fn number(id: [u8; 12]) -> u128 {
    id.iter().fold(0, |n, byte| (n << 8) | u128::from(*byte))
}
