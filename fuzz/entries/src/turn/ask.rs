//! What somebody asks of the server: a request in bytes, what it means, and whether it proves who asks.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connlib_relay::REALM;
use connlib_wire::buffer::Pool;
use connlib_wire::secret::Secret;
use connlib_wire::stun::{
    ALGORITHM_MD5, ALGORITHM_SHA256, Attribute, Builder, Class, Family, Key, Method, TransactionId,
    rest_password,
};

use super::{SECRET, STRANGER, Scene, UNIX};
use crate::choices::Choices;
use crate::relay::addr;

/// User names, and who they are. The second one belongs to the same person as the first; the next has no name but its expiry;
/// the last two expire while the world goes on, and have expired.
const USERS: [(&str, &str); 6] = [
    ("2145916800:alice", "alice"),
    ("2145916801:alice", "alice"),
    ("2145916800:bob", "bob"),
    ("2145916800", "2145916800"),
    ("1700001000:alice", "alice"),
    ("1600000000:bob", "bob"),
];

/// A nonce is good for this long at least, and for ten minutes more at most.
const NONCE_LIFETIME: Duration = Duration::from_secs(60 * 60);
const NONCE_LEEWAY: Duration = Duration::from_secs(10 * 60);

/// An attribute that must be understood, and isn't.
const UNKNOWN: u16 = 0x0042;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) id: TransactionId,
    pub(super) from: SocketAddr,
    pub(super) method: Method,
    pub(super) wish: Wish,
    /// Whose credentials it has.
    pub(super) user: &'static str,
    key: Option<Key>,
    is_sha256: bool,
    expires_at: u64,
    /// To whom the nonce in it was given, and when; `None` if it proves nothing, whoever sends it.
    proof: Option<(SocketAddr, Instant)>,
    pub(super) has_fingerprint: bool,
    /// It is dropped unread.
    pub(super) is_broken: bool,
    /// It has an attribute that nobody knows.
    pub(super) is_unknown: bool,
    pub(super) bytes: Vec<u8>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Binding,
    Allocate(Allocate),
    Refresh(Option<Duration>, Option<Family>),
    Permit(Vec<SocketAddr>),
    Bind(u16, SocketAddr),
}

/// An allocation that is wished for.
#[derive(Clone, Debug)]
pub(super) struct Allocate {
    pub(super) transport: u8,
    pub(super) requested: Option<Family>,
    pub(super) additional: Option<Family>,
    pub(super) lifetime: Option<Duration>,
    /// An even port, and whether the next one shall be kept.
    pub(super) even: Option<bool>,
    pub(super) token: Option<[u8; 8]>,
}

/// Whether a request proves who sends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proof {
    Holds,
    Fails,
    /// The nonce is about to end: the server may take it or not.
    MayFail,
}

impl Ask {
    /// What it proves if it comes from `from` now.
    pub(super) fn proof(&self, now: Instant, unix: Duration, from: SocketAddr) -> Proof {
        let Some((_, nonce_at)) = self.proof.filter(|(owner, _)| from == *owner) else {
            return Proof::Fails;
        };
        let age = now - nonce_at;
        if self.expires_at < unix.as_secs() || age >= NONCE_LIFETIME + NONCE_LEEWAY {
            Proof::Fails
        } else if age > NONCE_LIFETIME {
            Proof::MayFail
        } else {
            Proof::Holds
        }
    }

    /// Whether only users get what it asks for.
    pub(super) fn wish_is_for_users(&self) -> bool {
        !matches!(self.wish, Wish::Binding)
    }

    /// Whether an answer is signed like this request.
    pub(super) fn signs(&self, answer: &connlib_wire::stun::Message<'_>) -> bool {
        let Some(key) = &self.key else {
            return false;
        };
        if self.is_sha256 {
            answer.verify_sha256(key.expose())
        } else {
            answer.verify(key.expose())
        }
    }
}

/// How a request is to prove who sends it.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Manner {
    Plain,
    Sha256Key,
    Sha256KeySha1Integrity,
    Md5KeySha256Integrity,
    NoIntegrity,
    WrongKey,
    NonceOfAnother,
    GarbledNonce,
    NoUsername,
    ListLeftOut,
}

impl Manner {
    fn of(byte: u8) -> Self {
        match byte % 24 {
            0..=9 => Self::Plain,
            10..=12 => Self::Sha256Key,
            13 => Self::Sha256KeySha1Integrity,
            14 => Self::Md5KeySha256Integrity,
            15 => Self::NoIntegrity,
            16 => Self::WrongKey,
            17..=18 => Self::NonceOfAnother,
            19 => Self::GarbledNonce,
            20 => Self::NoUsername,
            21 => Self::ListLeftOut,
            _ => Self::Plain,
        }
    }

    fn has_algorithm(self) -> bool {
        matches!(
            self,
            Self::Sha256Key
                | Self::Sha256KeySha1Integrity
                | Self::Md5KeySha256Integrity
                | Self::ListLeftOut
        )
    }

    fn has_sha256_key(self) -> bool {
        matches!(self, Self::Sha256Key | Self::Sha256KeySha1Integrity)
    }

    fn has_sha256_integrity(self) -> bool {
        matches!(self, Self::Sha256Key | Self::Md5KeySha256Integrity)
    }

    fn can_prove(self) -> bool {
        matches!(
            self,
            Self::Plain
                | Self::Sha256Key
                | Self::Sha256KeySha1Integrity
                | Self::Md5KeySha256Integrity
                | Self::NonceOfAnother // to that one
        )
    }
}

/// Makes a request as bytes say.
pub(super) fn ask(scene: &Scene, choices: &mut Choices<'_>, id: TransactionId) -> Ask {
    let from = super::client(choices);
    let (method, wish) = wish(scene, choices);
    let (name, user) = choices.one_of(&USERS);
    let manner = Manner::of(choices.byte());
    let manner = if from == addr(STRANGER) && manner != Manner::NoIntegrity {
        Manner::WrongKey
    } else {
        manner
    };
    let ends = choices.byte() % 16;
    let (has_fingerprint, is_broken, is_unknown) = (ends & 3 == 1, ends == 2, ends == 6);

    let mut builder = Builder::new(Pool::new(2_048, 1).take(0), method, Class::Request, id);
    builder = attributes(builder, &wish);
    if is_unknown {
        builder = builder.attribute(Attribute::Unknown(UNKNOWN, b"?"));
    }

    let (nonce, owner) = nonce(scene, from, manner);
    let password = rest_password(name, &Secret::from(SECRET));
    let key = if manner.has_sha256_key() {
        Key::long_term_sha256(name, REALM, &password)
    } else {
        Key::long_term(name, REALM, &password)
    };
    if manner != Manner::NoIntegrity {
        let has_list = manner.has_algorithm() && manner != Manner::ListLeftOut;
        let algorithm = match manner.has_sha256_key() {
            true => ALGORITHM_SHA256,
            false => ALGORITHM_MD5,
        };
        builder = builder
            .maybe((manner != Manner::NoUsername).then_some(Attribute::Username(name)))
            .attribute(Attribute::Realm(REALM))
            .maybe(nonce.as_deref().map(Attribute::Nonce))
            .maybe(has_list.then_some(Attribute::PasswordAlgorithms(&[0, 2, 0, 0, 0, 1, 0, 0])))
            .maybe(
                manner
                    .has_algorithm()
                    .then_some(Attribute::PasswordAlgorithm(algorithm)),
            );
        builder = match manner {
            Manner::WrongKey => builder.integrity(b"not the key"),
            _ if manner.has_sha256_integrity() => builder.integrity_sha256(key.expose()),
            _ => builder.integrity(key.expose()),
        };
    }
    if has_fingerprint {
        builder = builder.fingerprint();
    } else if is_broken {
        builder = builder.attribute(Attribute::Unknown(0x8028, &[1, 2, 3, 4]));
    }

    Ask {
        id,
        from,
        method,
        wish,
        user,
        key: manner.can_prove().then_some(key),
        is_sha256: manner.has_sha256_integrity(),
        expires_at: name
            .split_once(':')
            .map_or(name, |(expiry, _)| expiry)
            .parse()
            .unwrap(),
        proof: owner.filter(|_| manner.can_prove()),
        has_fingerprint,
        is_broken,
        is_unknown,
        bytes: builder.finish().expect("it fits").to_vec(),
    }
}

/// The nonce that a request of `from` has, and whose that is since when.
fn nonce(
    scene: &Scene,
    from: SocketAddr,
    manner: Manner,
) -> (Option<String>, Option<(SocketAddr, Instant)>) {
    let given = match manner {
        Manner::GarbledNonce => return (Some("obMatJos2gAAAnonsense".to_owned()), None),
        Manner::NonceOfAnother => {
            let is_another = |client: SocketAddr| client != from && client != addr(STRANGER);
            let mut nonces = scene.nonces.iter();
            nonces.find(|(client, _)| is_another(**client))
        }
        _ => scene.nonces.get_key_value(&from),
    };

    given
        .map(|(client, (nonce, minted_at))| (nonce.clone(), (*client, *minted_at)))
        .unzip()
}

fn wish(scene: &Scene, choices: &mut Choices<'_>) -> (Method, Wish) {
    let kind = choices.byte() % 12;
    let (flags, values) = (choices.byte(), choices.byte());
    let is = |bit: u8| flags >> bit & 1 == 1;
    let lifetime = is(0).then(|| Duration::from_secs(u64::from(values) * 20));
    let family = [Family::V4, Family::V6][usize::from(values & 1)];
    match kind {
        0 => (Method::Binding, Wish::Binding),
        1..=4 => {
            let wish = Allocate {
                transport: if flags == 0xFF { values } else { 17 },
                requested: is(1).then_some(family),
                additional: (is(2) && is(3)).then_some(Family::V6),
                lifetime,
                even: is(4).then(|| is(5)),
                token: (is(6) && is(7)).then(|| scene.law.some_token(values)),
            };
            (Method::Allocate, Wish::Allocate(wish))
        }
        5 => {
            let lifetime = match is(7) {
                true => Some(Duration::ZERO),
                false => lifetime,
            };
            let family = is(1).then_some(family);
            (Method::Refresh, Wish::Refresh(lifetime, family))
        }
        6..=8 => {
            let count = flags % 4;
            let peers = (0..count).map(|_| super::peer(choices)).collect();
            (Method::CreatePermission, Wish::Permit(peers))
        }
        _ => {
            let number = super::number(flags);
            (
                Method::ChannelBind,
                Wish::Bind(number, super::peer(choices)),
            )
        }
    }
}

fn attributes(mut builder: Builder, wish: &Wish) -> Builder {
    match wish {
        Wish::Binding => builder,
        Wish::Allocate(wish) => builder
            .attribute(Attribute::RequestedTransport(wish.transport))
            .maybe(wish.lifetime.map(Attribute::Lifetime))
            .maybe(wish.requested.map(Attribute::RequestedAddressFamily))
            .maybe(wish.additional.map(Attribute::AdditionalAddressFamily))
            .maybe(wish.even.map(|reserve| Attribute::EvenPort { reserve }))
            .maybe(wish.token.map(Attribute::ReservationToken)),
        Wish::Refresh(lifetime, family) => builder
            .maybe(lifetime.map(Attribute::Lifetime))
            .maybe(family.map(Attribute::RequestedAddressFamily)),
        Wish::Permit(peers) => {
            for peer in peers {
                builder = builder.attribute(Attribute::XorPeerAddress(*peer));
            }
            builder
        }
        Wish::Bind(number, peer) => builder
            .attribute(Attribute::ChannelNumber(*number))
            .attribute(Attribute::XorPeerAddress(*peer)),
    }
}

/// The wall clock.
pub(super) fn unix(start: Instant, now: Instant) -> Duration {
    UNIX + (now - start)
}
